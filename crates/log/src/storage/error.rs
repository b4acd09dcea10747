//! What can go wrong below the log.

use std::io;
use std::path::{Path, PathBuf};

use super::Removed;
use tailmark_record::Seq;

/// A range of events that cannot be read, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("damaged: {} in {}: {detail}", self.range(), file.display())]
pub struct Damage {
    /// First seq that may be affected; 0 where unknown.
    pub from: Seq,
    /// Last seq that may be affected, inclusive; 0 where unknown.
    pub to: Seq,
    /// The file it was found in.
    pub file: PathBuf,
    /// What was found.
    pub detail: String,
}

impl Damage {
    /// `events 5 to 9`, as far as it is known.
    pub fn range(&self) -> String {
        match (self.from, self.to) {
            (Seq::ZERO, Seq::ZERO) => "no event for certain".to_owned(),
            (from, Seq::ZERO) => format!("events from {from} on"),
            (from, to) if from == to => format!("event {from}"),
            (from, to) if from > to => format!("before event {from}"),
            (from, to) => format!("events {from} to {to}"),
        }
    }
}

/// An error of an engine.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operating system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// In the imperative: "write", "open".
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Bytes on disk are not what was written. Never repaired in silence.
    #[error(transparent)]
    Damaged(#[from] Damage),
    /// No room for another slot or commit; recovers by itself when there is. Nothing was stored.
    #[error("no room on disk: {} are free, {} are needed", roughly(*available_bytes), roughly(*needed_bytes))]
    DiskFull {
        /// Free for us.
        available_bytes: u64,
        /// What the next step needs, the reserve included.
        needed_bytes: u64,
    },
    /// No slot can be had, because sealing does not go on or the file system refuses one; may pass.
    /// Nothing was stored.
    #[error("no room in the journal: {reason}")]
    Busy {
        /// Why sealing does not go on.
        reason: String,
    },
    /// A commit has been under way for so long that the disk does not seem to answer; may pass.
    #[error("a commit has been under way for {seconds} s: the disk does not answer")]
    Hanging {
        /// How long.
        seconds: u64,
    },
    /// An erasure waits for what others still hold; it is tried again.
    #[error("cannot erase after {seconds} s: {why}")]
    Held {
        /// What it waits for.
        why: String,
        /// For how long it has waited.
        seconds: u64,
    },
    /// A segment was folded into another or trimmed while it was looked up: look again.
    #[error("the segment has just been replaced")]
    Retired,
    /// A daemon changes the log faster than it can be looked at; nothing is known to be wrong.
    #[error("the log in {} changes faster than it can be read; try again", path.display())]
    Unsettled {
        /// The data directory.
        path: PathBuf,
    },
    /// The range begins below the oldest readable event.
    #[error("trimmed: the oldest readable event is {oldest}")]
    Trimmed {
        /// First readable seq.
        oldest: Seq,
    },
    /// What is asked for lies in a range without events.
    #[error("{0}")]
    Removed(Removed),
    /// The caller expected another head; nothing was stored.
    #[error("expected to append {expected}, but the next is {next}")]
    Conflict {
        /// The first seq of the refused commit.
        expected: Seq,
        /// What it should have been.
        next: Seq,
    },
    /// A write or sync failed before; reads go on, appends do not. The fate of the commit that
    /// failed is unknown until the log is opened again.
    #[error("the store has stopped accepting appends: {reason}")]
    Stopped {
        /// The failure that stopped it.
        reason: String,
    },
    /// Another daemon writes the shared journal; nothing was stored.
    #[error("another daemon writes the journal since term {term}")]
    Fenced {
        /// Its term.
        term: u64,
    },
    /// The shared journal cannot be reached, or does not take it now; may pass. Nothing was stored.
    #[error("the journal does not answer: {reason}")]
    Unreachable {
        /// What is known of it.
        reason: String,
    },
    /// The shared journal has not answered: the commit is stored, or will be, or never. It is asked for
    /// until that is known.
    #[error("the journal has not answered: the outcome is not known yet")]
    InDoubt,
    /// The shared journal and the copy of it here are of different histories; nothing was stored.
    #[error("the journal is of another history than the copy of it here: {detail}")]
    Diverged {
        /// What was found.
        detail: String,
    },
    /// Another process has the data directory open.
    #[error("{} is in use by another process{}", path.display(), owner.map(|pid| format!(" (pid {pid})")).unwrap_or_default())]
    Locked {
        /// The data directory.
        path: PathBuf,
        /// Who, if the lock file says.
        owner: Option<u32>,
    },
    /// The file system has no locks, so that nothing could keep a second process away.
    #[error("cannot lock {}: the file system has no locks, and a log needs one owner", path.display())]
    Unlockable {
        /// What was to be locked.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// What lies at the log's path is not what was opened there; may pass. Nothing was stored.
    #[error("the log that was opened is no longer at {}: {detail}", path.display())]
    Displaced {
        /// The data directory.
        path: PathBuf,
        /// What is there now.
        detail: String,
    },
    /// Written by another version of this program.
    #[error("{} has format {found}, this program reads {supported}", path.display())]
    Format {
        /// The data directory or file.
        path: PathBuf,
        /// What it has.
        found: u32,
        /// What this program writes.
        supported: u32,
    },
    /// The directory is away because its migration was cut while it was put in place.
    #[error("the migration of {} was cut; the log is in {}", path.display(), workspace.display())]
    Unfinished {
        /// The data directory.
        path: PathBuf,
        /// Where the log is, old and new.
        workspace: PathBuf,
    },
    /// A log was being put into the directory, and that was cut.
    #[error("{} holds no whole log: its {what} was cut", path.display())]
    Partial {
        /// The data directory.
        path: PathBuf,
        /// What was cut: "import", "restore".
        what: String,
    },
    /// A log is put into empty directories only.
    #[error("{} is not empty", path.display())]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// The directory holds something else.
    #[error("{} holds no log, but has {entry:?} in it", path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// One of the things in it.
        entry: String,
    },
    /// The directory is a copy of a shared journal, and was to be used as a log of its own.
    #[error("{} is a copy of the shared journal {journal}", path.display())]
    IsCopy {
        /// The data directory.
        path: PathBuf,
        /// What people call the journal.
        journal: String,
    },
    /// The directory is not a copy of the journal that it was to be a copy of. It is left as it is.
    #[error("{} is no copy of this journal: {detail}", path.display())]
    NoCopy {
        /// The data directory.
        path: PathBuf,
        /// What it is.
        detail: String,
    },
    /// There is no log at that path.
    #[error("no log at {}", path.display())]
    Missing {
        /// The data directory.
        path: PathBuf,
    },
    /// A log cannot be made at that path.
    #[error("no log can be made at {}: {what}", path.display())]
    Unsuitable {
        /// Where it was to be.
        path: PathBuf,
        /// Why not.
        what: &'static str,
    },
    /// A caller broke the engine's contract.
    #[error("invalid request: {0}")]
    Invalid(&'static str),
}

impl StoreError {
    /// Wraps an I/O error, for `map_err`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
        let path = path.to_owned();
        move |source| StoreError::Io { action, path, source }
    }
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// A size for people.
pub(crate) fn roughly(bytes: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match UNITS.iter().find(|(_, unit)| bytes >= *unit) {
        Some((name, unit)) => {
            let tenths = bytes.saturating_mul(10) / unit;
            format!("{}.{} {name}", tenths / 10, tenths % 10)
        }
        None => format!("{bytes} B"),
    }
}
