//! Why a backup was not sent.

use std::time::Duration;

use super::{Failure, bad_field, damaged, removed};
use crate::backup::Error;
use tailmark_log::storage::StoreError;
use tailmark_record::Reason;

/// Why a backup could not be read.
pub(crate) fn backup(error: &Error, retry_delay: Duration) -> Failure {
    match error.of_log() {
        Some(StoreError::Damaged(damage)) => damaged(damage),
        Some(StoreError::Removed(range)) => removed(range),
        _ if error.has_moved() => {
            let message = "the log moved at each look; what was sent is whole, try again";
            Failure::new(Reason::StoreBusy, message).retry(retry_delay)
        }
        _ => Failure::new(Reason::ReadFailed, "the log could not be read"),
    }
}

/// What a caller says that he has is none.
pub(crate) fn backup_refused(error: &Error) -> Failure {
    match error {
        Error::Senseless { what } => bad_field("has", what),
        _ => Failure::new(Reason::ReadFailed, "the log could not be read"),
    }
}

/// There is no directory to read one from.
pub(crate) fn no_backups() -> Failure {
    Failure::new(Reason::Unimplemented, "this server keeps its log in no directory of its own")
}

/// The system gives no thread to read one.
pub(crate) fn no_thread() -> Failure {
    Failure::new(Reason::ReadFailed, "the server has no thread for it now")
}
