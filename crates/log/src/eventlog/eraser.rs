//! What is erased, what becomes of it, and whose turn it is: see `erase.rs`, which does it.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use uuid::Uuid;

use super::AppendError;
use crate::storage::{EraseProgress, StoreError};
use tailmark_record::Seq;

/// Between two attempts at an erasure that failed.
const RETRY: Duration = Duration::from_secs(30);

/// What is to be erased.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Erasure {
    /// Names it. One that failed goes on under the same.
    pub id: Uuid,
    /// Which events: in order, none empty, none overlaps another, none beyond the head. What is trimmed,
    /// or erased already, does no harm.
    pub seqs: Vec<Range<Seq>>,
    /// Why, at most [`tailmark_record::Erased::MAX_REASON_BYTES`]. It stays in each shell, and readers are told.
    pub reason: String,
}

/// What was erased.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Erased {
    /// Which erasure.
    pub id: Uuid,
    /// Events of which it left shells.
    pub events: u64,
    /// Shells that others had left.
    pub already: u64,
    /// Events that were trimmed.
    pub trimmed: u64,
    /// Events that were gone out of the middle: taken out by the rules of their topics, or lost to damage.
    pub removed: u64,
    /// Events that tell readers of it.
    pub notices: u64,
    /// Segments that were written anew, since it was begun or gone on with last.
    pub segments: u64,
}

/// Why an erasure is not done.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EraseError {
    /// Another one is not through; nothing was done.
    #[error("the erasure {id} is not through")]
    Busy {
        /// Which.
        id: Uuid,
    },
    /// It makes no sense; nothing was done.
    #[error("cannot erase: {0}")]
    Invalid(&'static str),
    /// The log is closing. If it was ordered by then it goes on when the log is opened.
    #[error("the log is closing")]
    Closing,
    /// It could not be ordered; nothing was done.
    #[error("the erasure was not begun: {0}")]
    Refused(Arc<StoreError>),
    /// It was ordered, and is not through: it is tried again in the background, or under the same id.
    #[error("the erasure is not through, and is tried again: {0}")]
    Unfinished(Arc<StoreError>),
    /// All is erased, but readers could not be told: that is tried again in the background, or under the
    /// same id.
    #[error("events are erased, but readers are not told yet: {0}")]
    Untold(Box<AppendError>),
}

/// Why an erasure was not taken back.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CancelError {
    /// None of this name is under way.
    #[error("no erasure {id} is under way")]
    Unknown {
        /// Which.
        id: Uuid,
    },
    /// It is at work, or has erased events already: it goes on.
    #[error("the erasure {id} has begun to erase, or is at work just now")]
    Begun {
        /// Which.
        id: Uuid,
    },
    /// Nobody can tell whether it has begun, or it could not be taken away: it goes on.
    #[error("the erasure was not taken back: {0}")]
    Failed(Arc<StoreError>),
}

/// Whose turn it is.
#[derive(Default)]
pub(super) struct Eraser {
    pub(super) state: Mutex<State>,
    pub(super) changed: Condvar,
    /// Drop what they have read.
    pub(super) listeners: Mutex<Vec<Listener>>,
}

pub(super) type Listener = Arc<dyn Fn() + Send + Sync>;

#[derive(Default)]
pub(super) struct State {
    /// Which is at work now.
    pub(super) running: Option<Uuid>,
    /// How far the one is that is not through.
    pub(super) progress: Option<EraseProgress>,
    /// One is to be gone on with.
    pub(super) is_due: bool,
    /// It is tried again after a while.
    pub(super) has_failed: bool,
    has_ended: bool,
}

impl Eraser {
    /// The thread is to end.
    pub(super) fn end(&self) {
        self.state.lock().has_ended = true;
        self.changed.notify_all();
    }

    /// Waits until one is to be gone on with, and after a failure for a while; `false` at the end.
    pub(super) fn wait(&self) -> bool {
        let mut state = self.state.lock();
        loop {
            let is_idle =
                |state: &mut State| !state.has_ended && (!state.is_due || state.running.is_some());
            self.changed.wait_while(&mut state, is_idle);
            if !state.has_ended && std::mem::take(&mut state.has_failed) {
                self.changed.wait_while_for(&mut state, |state| !state.has_ended, RETRY);
            }
            if state.has_ended {
                return false;
            }
            if state.is_due && state.running.is_none() {
                return true;
            }
        }
    }
}
