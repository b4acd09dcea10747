//! The contract of an engine.
//!
//! ```text
//!   1 ........ oldest ..................... head  next
//!   | trimmed  | readable, immutable        |     | appended here
//! ```
//!
//! One writer, many readers. Invariants every engine keeps, and the conformance suite checks:
//! a commit is whole or absent; `bounds().head` covers durable events only; (generation, seq) is
//! never reused; what is damaged is an error with its range and never a shorter answer.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::StoreError;
use crate::record::{
    Bounds, EventError, Events, Fingerprint, FingerprintKey, LogId, Seq, Timestamp,
};
use crate::topic::Filter;

/// One group commit: whole or absent.
#[derive(Clone, Debug)]
pub struct Commit {
    /// Must be `bounds().next()`.
    pub first: Seq,
    /// Events in it; 0 for a commit of state or a trim mark alone.
    pub count: u32,
    /// The `appended_at` of all its events; not before that of any earlier commit.
    pub appended_at: Timestamp,
    /// `EventBatch.events` entries, one after the other; at most [`Engine::max_commit_bytes`].
    pub events: Bytes,
    /// Change of the caller's state that commits with the events; opaque here.
    pub delta: Bytes,
    /// The caller's whole state before this commit. Needed when [`Engine::wants_state`] says so.
    pub state: Option<Bytes>,
    /// The trim mark from this commit on: the first seq that stays readable. Never goes down;
    /// at most `first + count`.
    pub oldest: Seq,
}

/// A durable commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// First seq of it.
    pub first: Seq,
    /// Last seq of it; `first - 1` for a commit without events.
    pub last: Seq,
    /// What durable means of it.
    pub level: Level,
    /// Election term; 0 on a single machine.
    pub term: u64,
}

/// What an engine has done when it calls a commit durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Level {
    /// fdatasync has returned on this machine; an engine in memory promises as much of itself.
    #[default]
    Fsync,
    /// A quorum of machines has it.
    Replicated,
}

/// Receives the outcome of one append.
pub type Completion = Box<dyn FnOnce(Result<Receipt, StoreError>) + Send>;

/// A run of events. `end > first`.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// First seq covered.
    pub first: Seq,
    /// Seq after the last covered.
    pub end: Seq,
    /// `EventBatch.events` entries of the events in `first..end`, in order: all of them, or, in a
    /// filtered read, at least those that match. Empty = known that none matches.
    pub events: Bytes,
    /// Every event of `first..end` is there.
    pub complete: bool,
}

impl Chunk {
    /// The part of it from `from` on and below `end`, which may lie beyond it. A chunk that left
    /// events out can't be cut by counting: it must be `complete`, empty, or not need cutting.
    ///
    /// # Errors
    /// When the entries are not events, or not as many as the range says.
    pub fn cut(self, from: Seq, end: Seq) -> Result<Chunk, EventError> {
        let (first, last) = (from.max(self.first), end.min(self.end));
        if (first, last) == (self.first, self.end) {
            return Ok(self);
        }
        if self.events.is_empty() {
            return Ok(Chunk { first, end: last, ..self });
        }
        let mut entries = Events::new(&self.events);
        let total = entries.remaining();
        let mut skip = |count: u64| -> Result<usize, EventError> {
            for _ in 0..count {
                entries.next().transpose()?.ok_or(EventError::MISSING)?;
            }
            Ok(total - entries.remaining())
        };
        let start = skip(self.first.distance_to(first))?;
        let stop = if last == self.end { total } else { skip(first.distance_to(last))? };
        Ok(Chunk { first, end: last, events: self.events.slice(start..stop), ..self })
    }
}

/// What an engine hands back when it is opened.
#[derive(Debug, Default)]
pub struct Recovered {
    /// The newest whole state that a caller gave ([`Commit::state`]); empty = none yet.
    pub state: Bytes,
    /// The deltas that were committed after it, in order, each with the commit's range `first..end`.
    pub deltas: Vec<(Seq, Seq, Bytes)>,
    /// Time of the last commit.
    pub last_at: Timestamp,
}

/// Readable events of one topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TopicStats {
    /// How many.
    pub events: u64,
    /// The last one.
    pub last_seq: Seq,
    /// When the last one was appended.
    pub last_at: Timestamp,
}

/// Figures for operators.
#[derive(Clone, Debug, Default)]
pub struct StoreStatus {
    /// Bytes taken on disk.
    pub disk_bytes: u64,
    /// Those of them that the journal's slots take, empty ones included.
    pub journal_bytes: u64,
    /// Sealed segments.
    pub segments: u64,
    /// Journal slots that hold unsealed events.
    pub unsealed_slots: u64,
    /// Databases open now.
    pub open_segments: u64,
    /// Readers holding a slot or segment now.
    pub leases: u64,
    /// A segment is being built.
    pub is_sealing: bool,
    /// Why appends or sealing have stopped, if they have.
    pub trouble: Option<String>,
}

impl StoreStatus {
    /// Bytes that sealed segments take.
    pub fn segment_bytes(&self) -> u64 {
        self.disk_bytes.saturating_sub(self.journal_bytes)
    }
}

/// Stores one log. Blocking: callers bring their own threads.
pub trait Engine: Send + Sync + 'static {
    /// Identity of the log.
    fn id(&self) -> LogId;

    /// Secret for telling repeats.
    fn fingerprint_key(&self) -> FingerprintKey;

    /// Durable bounds, as of now. Cheap.
    fn bounds(&self) -> Bounds;

    /// Most bytes of events in one commit.
    fn max_commit_bytes(&self) -> usize;

    /// Whether a commit of `bytes` (events and delta) must bring the caller's whole state.
    fn wants_state(&self, bytes: usize) -> bool;

    /// Makes a commit durable, then moves the bounds, then completes. The caller waits for one
    /// commit's completion before it appends the next.
    ///
    /// Completes with [`StoreError::Conflict`], [`StoreError::DiskFull`], [`StoreError::Busy`] or
    /// [`StoreError::Invalid`] when nothing was stored; any other error means that the outcome is
    /// unknown and that the engine has stopped for appends.
    fn append(&self, commit: Commit, done: Completion);

    /// Reads from `from` on, in `oldest <= from < end <= head + 1`: a chunk that begins exactly at
    /// `from` and ends at or before `end`. With a filter, runs that are known not to match may come
    /// as an empty chunk, and chunks may leave out events that do not match.
    ///
    /// # Errors
    /// [`StoreError::Trimmed`] below the oldest, [`StoreError::Damaged`] with the range.
    fn read(&self, from: Seq, end: Seq, filter: &Filter) -> Result<Chunk, StoreError>;

    /// The first readable seq appended at or after `time`; `head + 1` if there is none.
    ///
    /// # Errors
    /// As [`Engine::read`].
    fn seek_time(&self, time: Timestamp) -> Result<Seq, StoreError>;

    /// The time at which a readable event was appended.
    ///
    /// # Errors
    /// As [`Engine::read`].
    fn time_of(&self, seq: Seq) -> Result<Timestamp, StoreError>;

    /// Readable events by topic, exact.
    ///
    /// # Errors
    /// As [`Engine::read`].
    fn topics(&self) -> Result<BTreeMap<Arc<str>, TopicStats>, StoreError>;

    /// Visits the events that their senders named, newest first, until `visit` answers false or
    /// `from` is reached.
    ///
    /// # Errors
    /// As [`Engine::read`].
    fn fingerprints(
        &self,
        from: Seq,
        visit: &mut dyn FnMut(Seq, Fingerprint) -> bool,
    ) -> Result<(), StoreError>;

    /// The seq to trim to so that at least `bytes` on disk come free, and no further than `limit`;
    /// whole units of storage only.
    fn trim_point_for_bytes(&self, bytes: u64, limit: Seq) -> Seq;

    /// Gives back the space below the durable trim mark that no reader holds. Called after a commit
    /// that moved it.
    ///
    /// # Errors
    /// I/O; the trim mark stays.
    fn reclaim(&self) -> Result<(), StoreError>;

    /// Figures for operators.
    fn status(&self) -> StoreStatus;

    /// Finishes background work and marks a clean stop. Appends after it fail.
    ///
    /// # Errors
    /// I/O; what was acked is durable all the same.
    fn close(&self) -> Result<(), StoreError>;
}
