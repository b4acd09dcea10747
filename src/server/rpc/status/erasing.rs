//! Why events were not erased.

use std::time::Duration;

use uuid::Uuid;

use super::{Failure, damaged, internal, no_room, stopping, with_room};
use tailmark_log::eventlog::{CancelError, EraseError};
use tailmark_log::storage::StoreError;
use tailmark_record::Reason;

/// One at a time, and another's is under way; which, where it has begun to change the log.
pub(crate) fn erasure_running(erasure: Option<Uuid>) -> Failure {
    let message = "another erasure is under way; nothing was erased";
    let failure = Failure::new(Reason::ErasureRunning, message);
    match erasure {
        Some(id) => failure.with("erasure", id),
        None => failure,
    }
}

/// Why an erasure was not taken back.
pub(crate) fn cancel(error: &CancelError) -> Failure {
    match error {
        CancelError::Unknown { id } => {
            let message = "no erasure of this name is under way";
            Failure::new(Reason::ErasureNotFound, message).with("erasure", id)
        }
        CancelError::Begun { id } => {
            let message = "the erasure has erased events, or is at work: it goes on";
            Failure::new(Reason::ErasureBegun, message).with("erasure", id)
        }
        CancelError::Failed(error) => match &**error {
            StoreError::Damaged(damage) => damaged(damage),
            _ => {
                let message = "the erasure could not be taken back, and goes on";
                Failure::new(Reason::ErasureUnfinished, message)
            }
        },
    }
}

/// Why an erasure was not begun, or not finished.
pub(crate) fn erase(error: &EraseError, retry_delay: Duration) -> Failure {
    match error {
        EraseError::Busy { id } => erasure_running(Some(*id)),
        EraseError::Invalid(_) => internal(),
        EraseError::Closing => stopping(retry_delay),
        EraseError::Refused(store) => match &**store {
            StoreError::DiskFull { .. } => {
                let message = format!("{}; nothing was erased", no_room(store));
                with_room(Failure::new(Reason::DiskFull, message), store)
            }
            StoreError::Damaged(damage) => damaged(damage),
            _ => {
                let message = "the store cannot erase now; nothing was erased";
                Failure::new(Reason::StoreBusy, message).retry(retry_delay)
            }
        },
        EraseError::Unfinished(store) => {
            let message = match &**store {
                StoreError::DiskFull { .. } => {
                    format!("the erasure has begun, and is not done: {}", no_room(store))
                }
                _ => "the erasure has begun, and is not done; it is tried again".to_owned(),
            };
            Failure::new(Reason::ErasureUnfinished, message)
        }
        EraseError::Untold(_) => {
            let message =
                "the events are erased, but readers are not told yet; that is tried again";
            Failure::new(Reason::ErasureUnfinished, message)
        }
    }
}
