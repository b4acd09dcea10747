//! Taking events out of the middle of a log: what an engine is told, and what it tells.

use std::ops::Range;

use super::RemovedReason;
use tailmark_record::{Seq, Timestamp};

/// A run of sealed events, which can be written anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// First seq.
    pub first: Seq,
    /// Seq after the last.
    pub end: Seq,
    /// How often it was written; with `first` it names these bytes.
    pub revision: u32,
    /// When its last event was appended.
    pub last_at: Timestamp,
    /// Bytes of its events, not compressed.
    pub raw_bytes: u64,
    /// Bytes of its files.
    pub disk_bytes: u64,
    /// Events that are gone out of it already.
    pub removed: u64,
    /// Bytes of events of one that is full.
    pub full_bytes: u64,
}

/// Events that are to go out of neighbours, which become one.
#[derive(Clone, Debug)]
pub struct TakeOut {
    /// Out of these, as they were told, in order. Between two of them lies at most what was meant to go.
    pub sealed: Vec<Sealed>,
    /// Which and why, in order; none is empty, none overlaps another. What is gone already does no harm. There may be
    /// none: then neighbours become one, and that is all.
    pub seqs: Vec<(Range<Seq>, RemovedReason)>,
    /// What tells repeats of those from here on is kept.
    pub named_from: Seq,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TakenOut {
    /// Events that went because they had expired.
    pub expired: u64,
    /// Events that went because a newer one has their key.
    pub compacted: u64,
    /// Bytes on disk that came free, or will when the last reader has gone.
    pub freed_bytes: u64,
}

impl TakenOut {
    /// Counts events.
    pub(super) fn count(&mut self, events: u64, reason: RemovedReason) {
        match reason {
            RemovedReason::Expired => self.expired += events,
            RemovedReason::Compacted | RemovedReason::Damaged => self.compacted += events,
        }
    }
}
