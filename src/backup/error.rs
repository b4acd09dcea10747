//! Why a backup was not taken, read or put back.

use std::io;
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
    /// Where backups are kept refused.
    #[error(transparent)]
    Place(StoreError),
    /// The place is none of ours.
    #[error("{} holds no backups", path.display())]
    NoBackups {
        /// The place.
        path: PathBuf,
    },
    /// The place holds something else.
    #[error("{} holds something else than backups", path.display())]
    Foreign {
        /// The place.
        path: PathBuf,
    },
    /// What is kept apart must not lie in what it is kept for, nor a log among backups.
    #[error("{} lies within {}", path.display(), of.display())]
    Within {
        /// What was to be made.
        path: PathBuf,
        /// A log, or a place of backups.
        of: PathBuf,
    },
    /// A file holds one backup, and there is a file.
    #[error("{} is there already", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// This program was built without what it takes.
    #[error("this build keeps no backups in a cloud, and so cannot use {}", path.display())]
    NoCloud {
        /// The URL.
        path: PathBuf,
    },
    /// It names no place.
    #[error("{} names no place for backups: {what}", path.display())]
    Address {
        /// What was named.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The file that says whose backups a place has does not say it; they are there all the same.
    #[error("{} {what}; it says whose backups these are", path.display())]
    Mark {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Others are at work in the place, or may be: it takes no other work meanwhile.
    #[error("{}: {what}", path.display())]
    Busy {
        /// What shows it.
        path: PathBuf,
        /// Who.
        what: &'static str,
    },
    /// Nothing can be removed from what holds one backup.
    #[error("{} holds one backup, and is removed as a whole", path.display())]
    OneBackup {
        /// The file.
        path: PathBuf,
    },
    /// Backups of two logs do not mix.
    #[error("{} holds backups of the log {log}", path.display())]
    OtherLog {
        /// The place.
        path: PathBuf,
        /// Whose it has.
        log: String,
    },
    /// There is no backup of that name.
    #[error("no backup {name} is in {}", path.display())]
    Missing {
        /// The place.
        path: PathBuf,
        /// Which was asked for.
        name: String,
    },
    /// It was there, and is not any more.
    #[error("the backup {name} was removed from {} while it was read", path.display())]
    Removed {
        /// The place.
        path: PathBuf,
        /// Which.
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
    /// What came is not what was to come.
    #[error("what was sent is no backup: {what}")]
    Senseless {
        /// What is wrong.
        what: &'static str,
    },
    /// Nobody takes it.
    #[error("whoever asked for it is gone")]
    Gone,
    /// The point in time lies before the first event.
    #[error("the backup begins with event {oldest}")]
    TooEarly {
        /// Its first.
        oldest: Seq,
    },
    /// What was trimmed is not all there.
    #[error(
        "no backup here has the events from {from} on in one piece with this one: they begin with event {reached}"
    )]
    NotKept {
        /// What was asked for.
        from: Seq,
        /// How far back they go.
        reached: Seq,
    },
    /// The point in time lies after the last event.
    #[error("the backup ends with event {head}")]
    TooLate {
        /// Its last.
        head: Seq,
    },
}

impl Error {
    /// What the files of the log answered, if it is that.
    pub(crate) fn of_log(&self) -> Option<&StoreError> {
        match self {
            Error::Store(error)
            | Error::Inspect(inspect::Error::Store(error))
            | Error::Tail(export::Error::Store(error))
            | Error::Tail(export::Error::Inspect(inspect::Error::Store(error))) => Some(error),
            _ => None,
        }
    }

    /// Whether a file of the log is not there.
    pub(super) fn is_missing(&self) -> bool {
        matches!(self.of_log(), Some(StoreError::Io { source, .. })
            if source.kind() == io::ErrorKind::NotFound)
    }

    /// Whether something is not what was written, or not there.
    pub(super) fn is_damage(&self) -> bool {
        match self {
            Error::Damaged { .. } | Error::Store(StoreError::Damaged(_)) => true,
            Error::Store(StoreError::Io { source, .. })
            | Error::Place(StoreError::Io { source, .. }) => {
                source.kind() == io::ErrorKind::NotFound
            }
            _ => false,
        }
    }

    /// Whether a daemon at work explains it: another look finds what moved.
    pub(crate) fn has_moved(&self) -> bool {
        match self.of_log() {
            Some(StoreError::Io { .. }) => self.is_missing(),
            Some(error) => {
                matches!(error, StoreError::Trimmed { .. } | StoreError::Unsettled { .. })
            }
            None => false,
        }
    }
}
