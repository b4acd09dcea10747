//! What waits for the writer.
//!
//! Owns the order of arrival. Bounded by the bytes in flight, which callers reserve before they
//! push. Once it has ended nothing comes in; what came in before is still handed out.

use std::collections::VecDeque;

use parking_lot::{Condvar, Mutex};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::AppendError;
use super::append::{AppendOptions, Appended, Tally};
use super::batch::Batch;
use super::producers::{Key, Opened, Sent};
use tailmark_record::{Seq, Timestamp};

/// Result of a trim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trimmed {
    /// First readable seq now.
    pub oldest: Seq,
    /// The head now.
    pub head: Seq,
    /// Events that this call removed.
    pub removed: u64,
}

/// One thing for the writer to do.
pub(super) enum Work {
    Append(Box<Pending>),
    Open(OpenRequest),
    Trim(TrimRequest),
    /// Nothing but an answer, in its turn.
    Ping(oneshot::Sender<()>),
}

/// A batch on its way.
pub(super) struct Pending {
    pub batch: Batch,
    pub options: AppendOptions,
    /// Whose it is, and its place.
    pub sent: Option<Sent>,
    pub reply: oneshot::Sender<Result<Appended, AppendError>>,
    /// Its share of the bytes in flight.
    pub share: OwnedSemaphorePermit,
    /// Durable so far.
    pub durable: Tally,
    /// When the last durable part was appended.
    pub durable_at: Timestamp,
    /// With the commit that is being made.
    pub tally: Tally,
}

/// A producer's wish to append.
pub(super) struct OpenRequest {
    pub key: Key,
    /// 0 = a new one.
    pub epoch: u64,
    pub reply: oneshot::Sender<Result<Opened, AppendError>>,
}

/// A wish to remove events.
pub(super) struct TrimRequest {
    pub before: Seq,
    /// How far the clock that events age by has come, to be kept with the mark.
    pub age_clock: Option<Timestamp>,
    pub reply: oneshot::Sender<Result<Trimmed, AppendError>>,
}

#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    filled: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Work>,
    ended: Option<AppendError>,
}

impl Queue {
    /// Adds to the end.
    pub fn push(&self, work: Work) -> Result<(), AppendError> {
        let mut state = self.state.lock();
        if let Some(why) = &state.ended {
            return Err(why.clone());
        }
        state.waiting.push_back(work);
        drop(state);
        self.filled.notify_one();
        Ok(())
    }

    /// Moves all that waits to the end of `into`; with nothing in either, waits. False = ended, and
    /// nothing is left.
    pub fn take(&self, into: &mut VecDeque<Work>) -> bool {
        let mut state = self.state.lock();
        while into.is_empty() && state.waiting.is_empty() {
            if state.ended.is_some() {
                return false;
            }
            self.filled.wait(&mut state);
        }
        if into.is_empty() {
            std::mem::swap(into, &mut state.waiting);
        } else {
            into.append(&mut state.waiting);
        }
        true
    }

    /// Refuses everything from now on; the first reason stays.
    pub fn end(&self, why: AppendError) {
        self.state.lock().ended.get_or_insert(why);
        self.filled.notify_all();
    }

    /// Why nothing comes in any more.
    pub fn ended(&self) -> Option<AppendError> {
        self.state.lock().ended.clone()
    }
}
