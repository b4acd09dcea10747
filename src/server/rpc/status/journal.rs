//! What a journal that several daemons share answers with.

use std::time::Duration;

use super::Failure;
use tailmark_log::storage::StoreError;
use tailmark_record::Reason;

/// Whether it is the shared journal that does not answer, or has not yet.
pub(super) fn is_away(store: &StoreError) -> bool {
    matches!(store, StoreError::Unreachable { .. } | StoreError::InDoubt)
}

pub(super) fn away(retry_delay: Duration) -> Failure {
    let message = "the journal does not answer; nothing was stored, try again";
    Failure::new(Reason::JournalUnavailable, message).retry(retry_delay)
}

/// It comes out by itself: who asks again, with the same ids or as the same producer, is told.
pub(super) fn in_doubt(retry_delay: Duration) -> Failure {
    let message = "the journal has not answered: the events may be there, or not";
    Failure::new(Reason::OutcomeUnknown, message).retry(retry_delay)
}

/// Another daemon writes, and what it would have to be asked cannot be.
pub(crate) fn writer_away(retry_delay: Duration) -> Failure {
    let message = "the daemon that writes this log cannot be reached from here; nothing was stored, try again";
    Failure::new(Reason::WriterUnavailable, message).retry(retry_delay)
}

pub(super) fn diverged() -> Failure {
    let message = "the journal is of another history than this daemon's copy of it; nothing was stored, \
                   reading goes on";
    Failure::new(Reason::JournalDiverged, message)
}
