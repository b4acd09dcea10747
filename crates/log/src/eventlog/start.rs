//! Where a reader begins.

use tailmark_record::{Seq, Timestamp};

/// Where a reader begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// First readable event.
    Oldest,
    /// After the head.
    Latest,
    /// This seq, inclusive; 0 is taken for 1.
    Seq(Seq),
    /// First event appended at or after; before the oldest = oldest, after the head = latest.
    Time(Timestamp),
    /// The newest N matching events.
    Last(u64),
}
