//! The newest commits, in memory, for readers at the head.
//!
//! Owns a ring of durable commits, bounded by bytes, whose bytes are shared with every reader. It
//! is contiguous and ends at the published head; it is not asked what is trimmed.

use std::collections::VecDeque;

use bytes::Bytes;
use parking_lot::RwLock;

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
    max_bytes: usize,
    ring: RwLock<Ring>,
}

#[derive(Default)]
struct Ring {
    commits: VecDeque<Commit>,
    bytes: usize,
}

impl Recent {
    pub fn new(max_bytes: usize) -> Recent {
        Recent { max_bytes, ring: RwLock::default() }
    }

    /// Adds the commit after the last one.
    pub fn push(&self, commit: Commit) {
        let mut dropped = Vec::new();
        let mut ring = self.ring.write();
        if ring.commits.back().is_some_and(|last| last.end != commit.first) {
            // Never a hole: rather forget what is before it.
            dropped.extend(ring.commits.drain(..));
            ring.bytes = 0;
        }
        ring.bytes += commit.events.len() + COMMIT_BYTES;
        ring.commits.push_back(commit);
        while ring.bytes > self.max_bytes {
            let Some(oldest) = ring.commits.pop_front() else { break };
            ring.bytes -= oldest.events.len() + COMMIT_BYTES;
            dropped.push(oldest);
        }
        drop(ring);
        // Freeing megabytes takes a while: not while readers wait for the lock.
        drop(dropped);
    }

    /// The events from `from` on that lie in one commit, cut at `end`; `None` when `from` is not
    /// here. `end` is above `from`.
    pub fn read(&self, from: Seq, end: Seq) -> Result<Option<Chunk>, EventError> {
        let (first, end, events) = {
            let ring = self.ring.read();
            let Some(commit) = ring.find(from) else { return Ok(None) };
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
    pub fn has(&self, seq: Seq) -> bool {
        self.ring.read().find(seq).is_some()
    }

    /// When an event was appended, if it is here.
    pub fn time_of(&self, seq: Seq) -> Option<Timestamp> {
        let ring = self.ring.read();
        ring.find(seq).map(|commit| commit.at)
    }
}

impl Ring {
    fn find(&self, seq: Seq) -> Option<&Commit> {
        let at = self.commits.partition_point(|commit| commit.end <= seq);
        self.commits.get(at).filter(|commit| commit.first <= seq)
    }
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
