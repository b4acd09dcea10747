//! A ring of the newest commits, in memory, for readers at the head.
//!
//! Bounded by bytes, which it shares with every reader. It is contiguous and ends at the published
//! head. The caller refuses what was trimmed.

use bytes::Bytes;
use parking_lot::RwLock;

use crate::bounded::{Bounded, Dropped};
use crate::storage::{Chunk, part_of};
use tailmark_record::{EventError, Events, Seq, Timestamp};

/// What one commit costs beside its events.
const COMMIT_BYTES: usize = 160;

/// A durable commit.
pub(super) struct Commit {
    pub first: Seq,
    pub end: Seq,
    pub at: Timestamp,
    pub events: Bytes,
}

pub(super) struct Recent {
    /// By the first seq; without a hole.
    ring: RwLock<Bounded<Seq, Commit>>,
}

impl Recent {
    pub(super) fn new(max_bytes: usize) -> Recent {
        Recent { ring: RwLock::new(Bounded::new(max_bytes)) }
    }

    /// Adds the commit after the last one.
    pub(super) fn push(&self, commit: Commit) {
        let mut ring = self.ring.write();
        // Never a hole: rather forget what is before it.
        let is_next = ring.last().is_none_or(|last| last.end == commit.first);
        let cleared = if is_next { Dropped::default() } else { ring.clear() };
        debug_assert!(commit.first < commit.end, "a commit in the ring has events");
        debug_assert!(ring.last().is_none_or(|last| last.end == commit.first), "no hole");
        let bytes = commit.events.len() + COMMIT_BYTES;
        let dropped = ring.insert(commit.first, commit, bytes);
        drop(ring);
        // Freeing megabytes takes a while: not while readers wait for the lock.
        drop((cleared, dropped));
    }

    /// The events from `from` on that lie in one commit, cut at `end`; `None` when `from` is not
    /// here. `end` is above `from`.
    pub(super) fn read(&self, from: Seq, end: Seq) -> Result<Option<Chunk>, EventError> {
        let (first, end, events) = {
            let ring = self.ring.read();
            let Some(commit) = find(&ring, from) else { return Ok(None) };
            if commit.first == from && commit.end <= end {
                let (end, events) = (commit.end, commit.events.clone());
                return Ok(Some(Chunk { first: from, end, events, complete: true }));
            }
            (commit.first, commit.end.min(end), commit.events.clone())
        };
        // The walk is done without the lock.
        let events = slice(&events, first.distance_to(from), from.distance_to(end))?;
        Ok(Some(Chunk { first: from, end, events, complete: true }))
    }

    /// Whether an event is here.
    pub(super) fn has(&self, seq: Seq) -> bool {
        find(&self.ring.read(), seq).is_some()
    }

    /// When an event was appended, if it is here.
    pub(super) fn time_of(&self, seq: Seq) -> Option<Timestamp> {
        find(&self.ring.read(), seq).map(|commit| commit.at)
    }
}

fn find(ring: &Bounded<Seq, Commit>, seq: Seq) -> Option<&Commit> {
    ring.at_or_below(&seq).filter(|commit| seq < commit.end)
}

/// The entries of `count` events after the first `skip`.
pub(super) fn slice(entries: &Bytes, skip: u64, count: u64) -> Result<Bytes, EventError> {
    let mut walk = Events::new(entries);
    let mut pass = |count: u64, entries: &Bytes| -> Result<usize, EventError> {
        for _ in 0..count {
            walk.next().transpose()?;
        }
        Ok(entries.len() - walk.remaining())
    };
    let start = pass(skip, entries)?;
    let end = pass(count, entries)?;
    Ok(part_of(entries, start..end))
}
