//! Sequence numbers.

use std::fmt;

/// Position of one event in the whole log: 1 for the first, +1 for each after it. 0 means "before
/// the first". Within one generation contiguous; (generation, seq) is never reused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(u64);

impl Seq {
    /// Before the first event.
    pub const ZERO: Seq = Seq(0);
    /// The first event of a log.
    pub const FIRST: Seq = Seq(1);
    /// Beyond every event.
    pub const MAX: Seq = Seq(u64::MAX);

    /// Wraps a raw number.
    pub const fn new(raw: u64) -> Self {
        Seq(raw)
    }

    /// The raw number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The seq after this one. Stops at the maximum, which no log reaches: at a billion events a
    /// second it takes 584 years.
    pub const fn next(self) -> Seq {
        Seq(self.0.saturating_add(1))
    }

    /// The seq before this one; 0 stays 0.
    pub const fn prev(self) -> Seq {
        Seq(self.0.saturating_sub(1))
    }

    /// This seq moved up by `count`, without wrapping.
    pub const fn plus(self, count: u64) -> Seq {
        Seq(self.0.saturating_add(count))
    }

    /// How many seqs lie in `self..end`; 0 when `end` is not above.
    pub const fn distance_to(self, end: Seq) -> u64 {
        end.0.saturating_sub(self.0)
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<u64> for Seq {
    fn from(raw: u64) -> Self {
        Seq(raw)
    }
}
