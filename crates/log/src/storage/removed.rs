//! Ranges without events: what is known of seqs whose events are gone in the middle of a log.

use std::fmt;

use crate::chain::Link;
use tailmark_record::{GapReason, Seq};

/// Why events are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemovedReason {
    /// Retention by topic let them go.
    Expired,
    /// A newer event of their topic and key took the place of at least one; others may have expired.
    Compacted,
    /// Their bytes were damaged, and a salvage could not bring them.
    Damaged,
}

impl From<RemovedReason> for GapReason {
    fn from(reason: RemovedReason) -> GapReason {
        match reason {
            RemovedReason::Expired => GapReason::Expired,
            RemovedReason::Compacted => GapReason::Compacted,
            RemovedReason::Damaged => GapReason::Damaged,
        }
    }
}

/// A range `first..end` of a log that has no events, and never will have any again. It is told, once and
/// as a whole, to whoever comes across it: seen and missing seqs stay contiguous.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Removed {
    /// First seq.
    pub first: Seq,
    /// Seq after the last.
    pub end: Seq,
    /// Why.
    pub reason: RemovedReason,
    /// The chain before its first event.
    pub link_before: Link,
    /// The chain at its last event, as far as it is known from what comes after it.
    pub link: Link,
}

impl Removed {
    /// Whether a seq lies in it.
    pub fn contains(&self, seq: Seq) -> bool {
        self.first <= seq && seq < self.end
    }

    /// Whether it was meant to go: who asked for some topics need not hear of it.
    pub fn is_intended(&self) -> bool {
        match self.reason {
            RemovedReason::Expired | RemovedReason::Compacted => true,
            RemovedReason::Damaged => false,
        }
    }

    /// How many seqs.
    pub fn events(&self) -> u64 {
        self.first.distance_to(self.end)
    }
}

impl fmt::Display for Removed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = (self.first, self.end.prev());
        match self.reason {
            RemovedReason::Expired => {
                write!(f, "events {first} to {last} have expired by the retention of their topics")
            }
            RemovedReason::Compacted => {
                write!(
                    f,
                    "events {first} to {last} were compacted away: newer ones have their keys"
                )
            }
            RemovedReason::Damaged => {
                write!(
                    f,
                    "events {first} to {last} were damaged, and lost when the log was salvaged"
                )
            }
        }
    }
}
