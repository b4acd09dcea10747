//! The writer's queue, first come first served.
//!
//! Bounded by the bytes in flight, which callers reserve before they push. A queue that has ended
//! takes nothing in, and still hands out what came before.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use parking_lot::{Condvar, Mutex};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::AppendError;
use super::append::{AppendOptions, Appended, Tally};
use super::batch::Batch;
use super::producers::{Key, Opened, Sent};
use crate::storage::{EraseOrder, Level};
use tailmark_record::{ChainTag, Seq, Timestamp};

/// Result of a trim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trimmed {
    /// First readable seq now.
    pub oldest: Seq,
    /// The head now.
    pub head: Seq,
    /// Events that this call removed; without those that rules had taken out before, as far as is known.
    pub removed: u64,
}

/// One thing for the writer to do.
pub(super) enum Work {
    Append(Box<Pending>),
    Open(OpenRequest),
    Trim(TrimRequest),
    /// Repeats of events that are erased are to be told no more.
    Forget(Arc<EraseOrder>, SyncSender<()>),
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
    /// What durable means of it.
    pub durable_level: Level,
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
    /// Of the chain at the event before that, if it could be read.
    pub tag: Option<ChainTag>,
    /// How far the clock that events age by has come, to be kept with the mark.
    pub age_clock: Option<Timestamp>,
    pub reply: oneshot::Sender<Result<Trimmed, AppendError>>,
}

#[derive(Default)]
pub(super) struct Queue {
    inner: Mutex<Inner>,
    filled: Condvar,
}

#[derive(Default)]
struct Inner {
    waiting: VecDeque<Work>,
    ended: Option<AppendError>,
}

impl Queue {
    /// Adds to the end.
    pub(super) fn push(&self, work: Work) -> Result<(), AppendError> {
        let mut inner = self.inner.lock();
        if let Some(why) = &inner.ended {
            return Err(why.clone());
        }
        inner.waiting.push_back(work);
        drop(inner);
        self.filled.notify_one();
        Ok(())
    }

    /// Moves all that waits to the end of `into`; with nothing in either, waits. False = ended, and
    /// nothing is left.
    pub(super) fn take(&self, into: &mut VecDeque<Work>) -> bool {
        let mut inner = self.inner.lock();
        while into.is_empty() && inner.waiting.is_empty() {
            if inner.ended.is_some() {
                return false;
            }
            self.filled.wait(&mut inner);
        }
        if into.is_empty() {
            std::mem::swap(into, &mut inner.waiting);
        } else {
            into.append(&mut inner.waiting);
        }
        true
    }

    /// Refuses everything from now on; the first reason stays.
    pub(super) fn end(&self, why: AppendError) {
        self.inner.lock().ended.get_or_insert(why);
        self.filled.notify_all();
    }

    /// Why nothing comes in any more.
    pub(super) fn ended(&self) -> Option<AppendError> {
        self.inner.lock().ended.clone()
    }
}

impl OpenRequest {
    pub(super) fn answer(self, answer: Result<Opened, AppendError>) {
        // The caller may have gone.
        let _ = self.reply.send(answer);
    }
}

impl Pending {
    /// A batch of which nothing is durable yet.
    pub(super) fn new(
        batch: Batch,
        options: AppendOptions,
        sent: Option<Sent>,
        share: OwnedSemaphorePermit,
        reply: oneshot::Sender<Result<Appended, AppendError>>,
    ) -> Pending {
        let (durable, tally) = (Tally::default(), Tally::default());
        let (durable_at, durable_level) = (Timestamp::EPOCH, Level::default());
        Pending { batch, options, sent, reply, share, durable, durable_at, durable_level, tally }
    }

    /// Answers with an error about what is not durable yet.
    pub(super) fn refuse(self, error: AppendError) {
        let answer = if self.durable.events == 0 {
            error
        } else {
            AppendError::Partial {
                done: self.durable.finish(self.durable_at, self.durable_level),
                events: self.durable.events,
                error: Box::new(error),
            }
        };
        self.answer(Err(answer));
    }

    /// Gives its share of the bytes in flight back, then answers.
    pub(super) fn answer(self, answer: Result<Appended, AppendError>) {
        drop(self.share);
        // The caller may have gone.
        let _ = self.reply.send(answer);
    }
}

impl Work {
    /// Answers with an error.
    pub(super) fn refuse(self, error: AppendError) {
        match self {
            Work::Append(batch) => batch.refuse(error),
            Work::Open(request) => request.answer(Err(error)),
            Work::Trim(request) => drop(request.reply.send(Err(error))),
            // Dropped, it says that there is no answer.
            Work::Forget(..) => {}
            // It is through, and that was the question.
            Work::Ping(reply) => drop(reply.send(())),
        }
    }
}
