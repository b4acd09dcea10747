//! What can go wrong with a log, one enum a surface.

use std::sync::Arc;

use super::Appended;
use crate::storage::{Damage, Removed, StoreError};
use tailmark_record::{Reason, Seq};

/// Why a batch was not appended.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AppendError {
    /// The expectation did not hold; nothing was stored.
    #[error("the head has moved to {actual}")]
    HeadMoved {
        /// The actual last seq.
        actual: Seq,
    },
    /// Another stream of the producer was opened after the one that this came by; nothing was
    /// stored.
    #[error("the producer has gone on to epoch {epoch}")]
    Fenced {
        /// Its epoch now.
        epoch: u64,
    },
    /// A batch of the producer is missing before this one; nothing was stored.
    #[error("the producer's next batch is {expected}")]
    ProducerHole {
        /// The seq of the batch that comes next.
        expected: u64,
    },
    /// The log does not know the producer, or not in this epoch; nothing was stored.
    #[error("the producer is not known")]
    ProducerUnknown,
    /// No room on disk; nothing was stored.
    #[error("{0}")]
    DiskFull(Arc<StoreError>),
    /// The engine cannot take it now and may soon; nothing was stored.
    #[error("{0}")]
    Busy(Arc<StoreError>),
    /// The log is closing; nothing was stored.
    #[error("the log is closing")]
    Closing,
    /// A write failed earlier; nothing was stored.
    #[error("the store has stopped: {0}")]
    Stopped(String),
    /// Another daemon writes this log, and this was not stored there either; it may be soon.
    #[error("another daemon writes the log: {0}")]
    NotWriter(String),
    /// The shared journal is of another history than the log here; nothing was stored.
    #[error("the journal is of another history than the log here: {0}")]
    Diverged(String),
    /// The write of this very batch failed: it may be there after a restart, or not.
    #[error("outcome unknown: {0}")]
    Unknown(Arc<StoreError>),
    /// The batch must be whole and is larger than one commit; nothing was stored.
    #[error("{actual} bytes that must be whole are over the limit of {limit}")]
    TooLarge {
        /// Bytes that it may take in the store.
        actual: usize,
        /// Most bytes of one commit.
        limit: usize,
    },
    /// Repeats cannot be told, because what was stored cannot be read; nothing was stored.
    #[error("repeats cannot be told: {0}")]
    RepeatsUnknown(Arc<StoreError>),
    /// The engine refused the commit as wrong; nothing was stored.
    #[error("refused by the store: {0}")]
    Refused(Arc<StoreError>),
    /// The batch took several commits, and one of them failed after others were durable.
    #[error("after {} events were stored: {error}", done.stored)]
    Partial {
        /// What is durable: a prefix of the batch.
        done: Appended,
        /// How many events of the batch that prefix has.
        events: usize,
        /// What became of the rest.
        error: Box<AppendError>,
    },
}

impl AppendError {
    /// What a lookup that was needed for it failed with; nothing was stored.
    pub(super) fn of_lookup(error: ReadError) -> AppendError {
        let store = match error {
            ReadError::Closing => return AppendError::Closing,
            ReadError::Trimmed { oldest, .. } => Arc::new(StoreError::Trimmed { oldest }),
            ReadError::Damaged(damage) => Arc::new(damage.into()),
            ReadError::Removed(range) => Arc::new(StoreError::Removed(range)),
            ReadError::Store(error) => error,
        };
        AppendError::Refused(store)
    }
}

/// Why a read failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    /// What was asked for has been removed.
    #[error("trimmed: the oldest readable event is {oldest}")]
    Trimmed {
        /// First seq that was wanted.
        from: Seq,
        /// First readable seq.
        oldest: Seq,
    },
    /// What was asked for is damaged.
    #[error(transparent)]
    Damaged(#[from] Damage),
    /// What was asked for lies in a range without events.
    #[error("{0}")]
    Removed(Removed),
    /// The log is closing.
    #[error("the log is closing")]
    Closing,
    /// The operating system refused.
    #[error("{0}")]
    Store(Arc<StoreError>),
}

impl ReadError {
    /// What an engine's error means to someone who wanted to read from `from`.
    pub(super) fn new(from: Seq, error: StoreError) -> ReadError {
        match error {
            StoreError::Trimmed { oldest } => ReadError::Trimmed { from, oldest },
            StoreError::Damaged(damage) => ReadError::Damaged(damage),
            StoreError::Removed(range) => ReadError::Removed(range),
            other => ReadError::Store(Arc::new(other)),
        }
    }
}

/// A damage that the log itself found in what an engine gave it.
pub(super) fn damage(from: Seq, end: Seq, detail: &str) -> Damage {
    Damage { from, to: end.prev(), file: "log".into(), detail: detail.to_owned() }
}

pub(super) fn damaged(from: Seq, end: Seq, detail: &str) -> ReadError {
    ReadError::Damaged(damage(from, end, detail))
}

/// Why a watch can't begin after a cursor; the rows of the contract's cursor table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CursorError {
    /// It belongs to another log.
    #[error("the cursor belongs to another log")]
    LogChanged,
    /// Its history ended differently.
    #[error("the cursor's history is another after {last_common}{}", up_to(*last_common, *at_most))]
    LogDiverged {
        /// A seq up to which both histories are the same; 0 = none.
        last_common: Seq,
        /// They may be the same up to here, and are not beyond; `last_common` where it is known exactly.
        at_most: Seq,
    },
    /// It is beyond the head.
    #[error("the cursor is ahead of the head {head}")]
    Ahead {
        /// The head.
        head: Seq,
    },
    /// Events after it have been removed.
    #[error("events after the cursor were trimmed: {missed}")]
    Trimmed {
        /// First readable seq.
        oldest: Seq,
        /// How many seqs are gone.
        missed: u64,
    },
}

fn up_to(last_common: Seq, at_most: Seq) -> String {
    if at_most > last_common {
        format!(", or after {at_most} at the latest")
    } else {
        String::new()
    }
}

impl CursorError {
    /// The reason that a client is given.
    pub fn reason(&self) -> Reason {
        match self {
            CursorError::LogChanged => Reason::LogChanged,
            CursorError::LogDiverged { .. } => Reason::LogDiverged,
            CursorError::Ahead { .. } => Reason::CursorAhead,
            CursorError::Trimmed { .. } => Reason::CursorTrimmed,
        }
    }
}

/// The writer died with the request in its hands.
pub(super) fn lost_answer() -> AppendError {
    let reason = "the writer is gone".to_owned();
    AppendError::Unknown(Arc::new(StoreError::Stopped { reason }))
}
