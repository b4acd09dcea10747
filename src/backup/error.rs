//! Why a backup was not taken, read or put back.

use std::path::PathBuf;

use crate::{export, inspect};
use tailmark_log::storage::StoreError;
use tailmark_record::Seq;

/// Why a backup was not taken, read or put back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A log or a segment of one.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The log cannot be read.
    #[error(transparent)]
    Inspect(#[from] inspect::Error),
    /// What was not sealed.
    #[error(transparent)]
    Tail(#[from] export::Error),
    /// The directory is none of ours.
    #[error("{} holds no backups", path.display())]
    NoBackups {
        /// The directory.
        path: PathBuf,
    },
    /// The directory holds something else.
    #[error("{} holds something else than backups", path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
    },
    /// Backups of two logs do not mix.
    #[error("{} holds backups of the log {log}", path.display())]
    OtherLog {
        /// The directory.
        path: PathBuf,
        /// Whose it has.
        log: String,
    },
    /// There is no backup of that name.
    #[error("no backup {name} is in {}", path.display())]
    Missing {
        /// The directory.
        path: PathBuf,
        /// Which was asked for.
        name: String,
    },
    /// It is not what was written.
    #[error("{} is damaged: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// How that is seen.
        what: &'static str,
    },
    /// The point in time lies before the first event.
    #[error("the backup begins with event {oldest}")]
    TooEarly {
        /// Its first.
        oldest: Seq,
    },
    /// The point in time lies after the last event.
    #[error("the backup ends with event {head}")]
    TooLate {
        /// Its last.
        head: Seq,
    },
}
