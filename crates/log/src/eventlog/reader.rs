//! The one loop by which events leave the log: replay and live are the same.
//!
//! 1. The writer publishes a head only after it is durable, and only forward.
//! 2. `wait_for` looks at the present head before it sleeps: no wake-up is lost.
//! 3. What is read begins exactly at `next`, is contiguous, and ends at or below the head, or it
//!    is an error; this is checked after the read, so that a trim meanwhile is seen.
//! 4. One line moves `next`, the last: a future dropped before has moved nothing.
//!
//! 5. What is read ahead is a guess that moves nothing. It counts when it is asked for, if it
//!    begins at `next` then; else, or if it came to nothing, it is read as if there had been no
//!    guess.
//!
//! So a reader from `s` yields s, s + 1, s + 2, ... or says loudly why not. Nothing is sent to a
//! reader, so there is nothing to overflow; a slow one finds its events in the engine.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;

use tokio::sync::{oneshot, watch};

use super::ReadError;
use super::core::{Published, ReadPath};
use super::read::{check, question};
use crate::storage::{Chunk, StoreError};
use tailmark_record::Seq;
use tailmark_record::topic::Filter;

/// Reads forward from a position, waiting at the head. The only way events leave the log.
pub struct Reader {
    log: Arc<ReadPath>,
    published: watch::Receiver<Published>,
    next: Seq,
    filter: Arc<Filter>,
    /// Bytes of events that match, to be delivered at most at a time.
    at_most: Option<usize>,
}

impl Reader {
    pub(super) fn new(log: Arc<ReadPath>, next: Seq, filter: Filter) -> Reader {
        log.metrics.readers.fetch_add(1, Ordering::Relaxed);
        let published = log.published.subscribe();
        let (next, filter) = (next.max(Seq::FIRST), Arc::new(filter));
        Reader { log, published, next, filter, at_most: None }
    }

    /// The same, but each delivery has at most so many bytes, or one event, of events that match
    /// and of nothing else, in memory of its own: for one who keeps them long.
    pub fn at_most(mut self, bytes: usize) -> Reader {
        self.at_most = Some(bytes);
        self
    }

    /// The seq it delivers next.
    pub fn position(&self) -> Seq {
        self.next
    }

    /// Waits until the head has reached the position, then delivers a chunk that begins exactly
    /// there and ends at or below `end` (exclusive, above the position), and moves past it.
    /// Cancel-safe: a dropped future has moved nothing.
    ///
    /// # Errors
    /// `Trimmed`, `Damaged` and I/O leave the position where it was.
    pub async fn next(&mut self, end: Seq) -> Result<Delivery, ReadError> {
        let next = self.next;
        if end <= next {
            let error = StoreError::Invalid("a read must end above its position");
            return Err(ReadError::Store(Arc::new(error)));
        }
        let wait = self.published.wait_for(|now| now.head >= next || now.is_closed);
        let now = *wait.await.map_err(|_| ReadError::Closing)?;
        if now.head < next {
            return Err(ReadError::Closing);
        }
        let end = end.min(now.head.next());
        let (chunk, is_recent) = self.log.read(next, end, &self.filter, self.at_most).await?;
        self.next = chunk.end;
        Ok(Delivery { chunk, is_recent })
    }

    /// Begins to read what lies at the position, on a reader thread, and does not wait for it. What
    /// came is left with `keep`, there, if that takes it. `None` where nothing would be won: the next read has to
    /// wait for events, or finds them in memory.
    pub fn read_ahead<T: Send + 'static>(
        &self,
        end: Seq,
        keep: impl FnOnce(Delivery) -> Option<T> + Send + 'static,
    ) -> Option<Ahead<T>> {
        let (from, end) = (self.next, end.min(self.published.borrow().head.next()));
        if end <= from || self.log.hot.has(&self.filter, from) {
            return None;
        }
        let read = question(from, end, &self.filter, self.at_most);
        let answer = self.log.pool.post(move |engine| {
            let chunk = read(engine)?;
            Ok(keep(Delivery { chunk, is_recent: false }))
        })?;
        Some(Ahead { from, answer })
    }

    /// Moves past what was read ahead, and answers it; `None`, and nothing has moved, if it is not
    /// what the next read would be about, or must not be shown any more.
    pub fn accept(&mut self, delivery: Delivery, end: Seq) -> Option<Delivery> {
        let chunk = &delivery.chunk;
        let now = *self.published.borrow();
        check(chunk, self.next, end.min(now.head.next())).ok()?;
        if chunk.first < now.oldest {
            return None;
        }
        self.log.metrics.reads_stored.fetch_add(1, Ordering::Relaxed);
        self.log.hot.filter_cache.keep(&self.filter, chunk);
        self.next = chunk.end;
        Some(delivery)
    }

    /// Whether the next read has nothing to wait for but events that are not there yet: what is
    /// at the position is in memory, or beyond the head.
    pub fn is_at_hand(&self) -> bool {
        self.published.borrow().head < self.next || self.log.hot.has(&self.filter, self.next)
    }

    /// Moves to another position, as after a gap was reported.
    pub fn jump(&mut self, to: Seq) {
        self.next = to.max(Seq::FIRST);
    }
}

/// What a reader got.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Events from exactly the reader's position on; those that do not match may still be in it.
    pub chunk: Chunk,
    /// It came from the cache of recent commits.
    pub is_recent: bool,
}

/// What a reader has begun to read before it is wanted. Dropped, it is given up.
#[derive(Debug)]
pub struct Ahead<T> {
    from: Seq,
    answer: oneshot::Receiver<Result<Option<T>, StoreError>>,
}

impl<T> Ahead<T> {
    /// Where it begins.
    pub fn from(&self) -> Seq {
        self.from
    }

    /// What was kept of it, if there is nothing to wait for any more; not asked again then. `None` if
    /// it was not kept, or failed, which who reads it then will hear.
    pub fn try_kept(&mut self) -> Poll<Option<T>> {
        match self.answer.try_recv() {
            Ok(kept) => Poll::Ready(kept.ok().flatten()),
            Err(oneshot::error::TryRecvError::Empty) => Poll::Pending,
            Err(oneshot::error::TryRecvError::Closed) => Poll::Ready(None),
        }
    }

    /// Waits for what was kept of it; `None` if it was not, or failed.
    pub async fn kept(self) -> Option<T> {
        self.answer.await.ok()?.ok()?
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.log.metrics.readers.fetch_sub(1, Ordering::Relaxed);
    }
}
