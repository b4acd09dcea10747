//! Server-side failures, written to the program's log for the operator. A client hears of them in
//! general terms only.
//!
//! A failure is reported where it is met, so once. Mapping it to a status may happen any number of
//! times, and logs nothing.

use tailmark_log::eventlog::{AppendError, ReadError};
use tailmark_log::storage::{Damage, StoreError};

/// A defect of ours.
pub(crate) fn defect(detail: &str) {
    tracing::error!(detail, "internal error");
}

/// Why a batch was not stored, unless its sender has to change something or nobody has.
pub(crate) fn append(error: &AppendError) {
    match error {
        AppendError::Busy(detail) => tracing::error!(%detail, "append refused"),
        AppendError::Stopped(detail) => tracing::error!(detail, "append refused"),
        AppendError::Unknown(detail) => tracing::error!(%detail, "append failed"),
        AppendError::RepeatsUnknown(detail) => match &**detail {
            StoreError::Damaged(found) => damage(found),
            detail => tracing::error!(%detail, "repeats cannot be told"),
        },
        AppendError::Refused(detail) => defect(&detail.to_string()),
        AppendError::Partial { error, .. } => append(error),
        AppendError::HeadMoved { .. }
        | AppendError::Fenced { .. }
        | AppendError::ProducerHole { .. }
        | AppendError::ProducerUnknown
        | AppendError::DiskFull(_)
        | AppendError::Closing
        | AppendError::TooLarge { .. } => {}
    }
}

/// Why events could not be read, unless they are gone in good order.
pub(crate) fn read(error: &ReadError) {
    match error {
        ReadError::Damaged(found) => damage(found),
        ReadError::Store(detail) => tracing::error!(%detail, "read failed"),
        ReadError::Trimmed { .. } | ReadError::Closing => {}
    }
}

fn damage(damage: &Damage) {
    tracing::error!(%damage, "damage found");
}
