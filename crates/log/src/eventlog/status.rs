//! Figures for operators.

use super::Counters;
use crate::storage::StoreStatus;

/// Figures for operators.
#[derive(Clone, Debug)]
pub struct Status {
    /// The store's.
    pub store: StoreStatus,
    /// Readers open now.
    pub readers: u64,
    /// Bytes waiting for the writer, and in batches that are being made.
    pub in_flight_bytes: u64,
    /// Bytes of events that were read from disk and that their readers have not fetched.
    pub unfetched_bytes: u64,
    /// Bytes of recent commits kept in memory.
    pub recent_bytes: u64,
    /// Bytes of what filters have found lately, kept in memory.
    pub found_bytes: u64,
    /// Producers that the log knows.
    pub producers: u64,
    /// Reads waiting for a reader thread.
    pub reads_waiting: u64,
    /// Counted since the log was opened.
    pub counters: Counters,
    /// A failed write has stopped appends for good.
    pub is_stopped: bool,
    /// Why appends, retention or the telling of repeats do not work, if they do not.
    pub trouble: Option<String>,
    /// What is to say of a clock that was or is wrong: events are stored and age all the same.
    pub clock: Option<String>,
}

impl Status {
    /// Whether the log or its store has something to report.
    pub fn has_trouble(&self) -> bool {
        self.trouble.is_some() || self.store.trouble.is_some()
    }
}
