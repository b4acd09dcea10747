//! What the background threads are told, and what they have to report.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::storage::{StoreError, segment};

/// What the background threads are told.
#[derive(Default)]
pub(super) struct Work {
    pub closing: AtomicBool,
    /// Appends so far; the marker sees a pause when it stands still.
    pub appends: AtomicU64,
    pub signals: Mutex<Signals>,
    pub changed: Condvar,
    /// Why sealing does not go on.
    pub trouble: Mutex<Option<Trouble>>,
    /// Slot files that exist, as of the last append.
    pub slot_files: AtomicU64,
    /// When the commit began that is under way. Also one that waits for the journal, which a mark may hold
    /// while the disk does not answer, or for a slot.
    pub commit_begun: Mutex<Option<Instant>>,
    /// Why appends have stopped for good.
    pub broken: Mutex<Option<String>>,
    /// What the last look found in the log's place, if that is not the log.
    pub displaced: Mutex<Option<String>>,
    /// The build under way.
    pub sealing: Mutex<Option<Arc<segment::Progress>>>,
}

/// Why sealing does not go on. Appends go on while there are slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// It hangs, after so many steps. Never tried again: sled cannot be told to let go of what it
    /// holds, and another attempt would hang as well.
    Hangs { step: u64, timeout: Duration },
    /// No room for another segment.
    DiskFull { available_bytes: u64, needed_bytes: u64 },
    /// Anything else, in words.
    Other(String),
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Trouble::DiskFull { available_bytes, needed_bytes } => {
                let (available_bytes, needed_bytes) = (*available_bytes, *needed_bytes);
                let full = StoreError::DiskFull { available_bytes, needed_bytes };
                write!(f, "{full} to seal; free space, or remove the oldest events")
            }
            Trouble::Hangs { step, timeout } => write!(
                f,
                "sealing has stopped until the log is opened again: no progress for {} s after step \
                 {step}",
                timeout.as_secs_f32()
            ),
            Trouble::Other(reason) => write!(f, "sealing: {reason}"),
        }
    }
}

#[derive(Default)]
pub(super) struct Signals {
    /// There may be something to seal or free.
    pub seal: bool,
    /// Something was appended after the last mark.
    pub mark: bool,
}

impl Work {
    pub(super) fn signal(&self, set: impl FnOnce(&mut Signals)) {
        set(&mut self.signals.lock());
        self.changed.notify_all();
    }

    pub(super) fn stop(&self) {
        self.closing.store(true, Ordering::SeqCst);
        self.signal(|_| {});
    }

    /// Whether sealing hangs, and so has stopped for good.
    pub(super) fn has_given_up_sealing(&self) -> bool {
        matches!(*self.trouble.lock(), Some(Trouble::Hangs { .. }))
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }
}
