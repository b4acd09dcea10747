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
//! 6. A reader with a filter waits for what concerns it instead of the head (`interest`). It reads
//!    every event up to `own_upto` by itself; beyond that, only what it is woken for.
//!
//! So a reader from `s` yields s, s + 1, s + 2, ... or says loudly why not. Nothing is sent to a
//! reader, so there is nothing to overflow; a slow one finds its events in the engine.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;

use bytes::Bytes;
use tokio::sync::{oneshot, watch};

use super::ReadError;
use super::interest::{Registration, Woken};
use super::progress::Progress;
use super::read::{check, lane, question};
use super::read_path::{Published, ReadPath};
use super::reader_pool::Asker;
use super::stretch::Stretch;
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
    at_most: Option<NonZeroUsize>,
    /// Its share of the reader threads.
    asker: Asker,
    /// Where it does not want everything.
    interested: Option<Box<Interested>>,
    /// What is known of what comes next, among runs that are gone.
    stretch: Option<Box<Stretch>>,
}

/// What a reader with a filter knows of what concerns it.
struct Interested {
    /// From when it first comes to the head.
    registration: Option<Arc<Registration>>,
    /// What it reads by itself. Beyond that it waits to be woken.
    own_upto: Seq,
    /// No event from the position up to before this one concerns it.
    quiet_until: Seq,
    /// Events passed over in its sleep after which it delivers a chunk without one; 0 = never.
    report_every: u64,
    progress: Arc<Progress>,
}

/// What a reader has to do next.
enum Turn {
    /// Read from one seq, at the position or behind, up to another (exclusive). Nothing before concerns it.
    Read(Seq, Seq),
    /// Nothing of what lies before this seq concerns it.
    Quiet(Seq),
}

impl Reader {
    pub(super) fn new(log: Arc<ReadPath>, next: Seq, filter: Filter) -> Reader {
        log.metrics.readers.fetch_add(1, Ordering::Relaxed);
        let published = log.published.subscribe();
        let (next, filter) = (next.max(Seq::FIRST), Arc::new(filter));
        let interested = (!filter.is_all()).then(|| {
            Box::new(Interested {
                registration: None,
                own_upto: Seq::ZERO,
                quiet_until: Seq::ZERO,
                report_every: 0,
                progress: Arc::new(Progress::at(next)),
            })
        });
        let (asker, stretch) = (Asker::default(), None);
        Reader { log, published, next, filter, at_most: None, asker, interested, stretch }
    }

    /// The same, but each delivery has at most so many bytes, or one event, of events that match
    /// and of nothing else, in memory of its own: for one who keeps them long.
    pub fn at_most(mut self, bytes: usize) -> Reader {
        self.at_most = NonZeroUsize::new(bytes.max(1));
        self
    }

    /// The same, but when so many events have passed that did not concern it, it delivers a chunk without an event now
    /// and then: for one who has to say how far it has looked.
    pub fn reports_every(mut self, events: u64) -> Reader {
        if let Some(interested) = &mut self.interested {
            interested.report_every = events;
        }
        self
    }

    /// For others who want to know how far it is, if it has a filter and so may sleep.
    pub fn progress(&self) -> Option<Arc<Progress>> {
        self.interested.as_ref().map(|interested| interested.progress.clone())
    }

    /// The seq it delivers next.
    pub fn position(&self) -> Seq {
        self.next
    }

    /// Waits until there is something to deliver at the position, then delivers a chunk that begins exactly
    /// there and ends at or below `end` (exclusive, above the position), and moves past it. With a filter the chunk
    /// may begin with, or be nothing but, events that were passed over.
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
        let turn = match self.interested.is_some() {
            true => self.turn(end).await?,
            false => Turn::Read(next, self.wait_for_head().await?),
        };
        let erasures = self.log.hot.erasures();
        let (chunk, is_recent) = match turn {
            Turn::Quiet(until) => (quiet(next, until.min(end)), true),
            Turn::Read(from, until) => {
                let (until, oldest) = (until.min(end), self.published.borrow().oldest);
                let known = self.stretch.as_mut();
                let known = known.and_then(|it| it.at(from, until, oldest, erasures));
                let (mut chunk, is_recent) = match known {
                    Some(known) => {
                        let gone = |gone| ReadError::new(from, StoreError::Removed(gone));
                        (known.map_err(gone)?, false)
                    }
                    None => {
                        let (filter, at_most) = (&self.filter, self.at_most.map(NonZeroUsize::get));
                        let (asker, ahead) = (&mut self.asker, &mut self.stretch);
                        self.log.read(asker, ahead, from, until, filter, at_most).await?
                    }
                };
                if from > next {
                    chunk.first = next;
                    chunk.complete = false;
                }
                (chunk, is_recent)
            }
        };
        self.move_to(chunk.end);
        Ok(Delivery { chunk, is_recent, erasures })
    }

    /// The last line that moves the position.
    fn move_to(&mut self, next: Seq) {
        self.next = next;
        if let Some(it) = &self.interested {
            it.progress.moved(next, it.own_upto);
        }
    }

    /// The seq after the head, as soon as that has reached the position.
    async fn wait_for_head(&mut self) -> Result<Seq, ReadError> {
        let next = self.next;
        let wait = self.published.wait_for(|now| now.head >= next || now.is_closed);
        let now = *wait.await.map_err(|_| ReadError::Closing)?;
        if now.head < next { Err(ReadError::Closing) } else { Ok(now.head.next()) }
    }

    /// Waits for what is to be done, with a filter.
    async fn turn(&mut self, end: Seq) -> Result<Turn, ReadError> {
        let next = self.next;
        loop {
            let Some(it) = &mut self.interested else { return Ok(Turn::Quiet(next)) };
            let handed_until = it.progress.moved(next, it.own_upto);
            it.quiet_until = it.quiet_until.max(handed_until);
            if next <= it.own_upto {
                let from = it.quiet_until.max(next);
                let until = it.own_upto.next().min(end);
                // What it was woken for may lie behind what it is asked for.
                return Ok(if from < until { Turn::Read(from, until) } else { Turn::Quiet(until) });
            }
            if end != Seq::MAX {
                // It is to come to that end, whatever lies before.
                self.goes_up_to_the_head().await?;
                continue;
            }
            let Some(registration) = it.registration.clone() else {
                self.come_to_the_head();
                continue;
            };
            let (examined, woken) = it.progress.take(&registration);
            match woken {
                Some(Woken::Matched(first, last)) if last >= next => {
                    // Of a commit that is still being matched, what comes first may be noted last.
                    (it.quiet_until, it.own_upto) = (first.min(examined.next()), last);
                }
                // It has read that by itself.
                Some(Woken::Matched(..)) => {}
                Some(Woken::Look) if examined >= next => return Ok(Turn::Quiet(examined.next())),
                // What is not examined yet it reads by itself.
                Some(Woken::Look) => it.own_upto = it.own_upto.max(self.published.borrow().head),
                // Nobody is woken any more, but by the head.
                _ if registration.is_closed() => self.goes_up_to_the_head().await?,
                _ => registration.woken().await,
            }
        }
    }

    /// Has to read by itself up to a head that has reached the position.
    async fn goes_up_to_the_head(&mut self) -> Result<(), ReadError> {
        let until = self.wait_for_head().await?;
        if let Some(it) = &mut self.interested {
            it.own_upto = until.prev();
        }
        Ok(())
    }

    /// Reads by itself up to the head. From the first time that it has come to the head on, it is in the index.
    fn come_to_the_head(&mut self) {
        let Some(it) = &mut self.interested else { return };
        let head = |published: &watch::Receiver<Published>| published.borrow().head;
        if head(&self.published) < self.next {
            let report = (self.next.prev(), it.report_every);
            let interest = &self.log.interest;
            let registration =
                interest.register(self.filter.clone(), report, || head(&self.published));
            // The head after that, so that nothing lies between.
            it.own_upto = head(&self.published);
            let registration = Arc::new(registration);
            it.progress.registered(&registration, it.own_upto);
            it.registration = Some(registration);
        } else {
            it.own_upto = head(&self.published);
        }
    }

    /// Begins to read what lies at the position, on a reader thread, and does not wait for it. What
    /// came is left with `keep`, there, if that takes it. `None` where nothing would be won: the next read has to
    /// wait for events, or finds them in memory.
    pub fn read_ahead<T: Send + 'static>(
        &mut self,
        end: Seq,
        keep: impl FnOnce(Delivery) -> Option<T> + Send + 'static,
    ) -> Option<Ahead<T>> {
        let head = self.published.borrow().head;
        let upto = match &self.interested {
            // Beyond that it does not go by itself.
            Some(it) if it.registration.is_some() => it.own_upto,
            _ => head,
        };
        let (from, end) = (self.next, end.min(upto.next()));
        let is_known = self.stretch.as_ref().is_some_and(|it| it.has(from))
            || self.log.hot.has(&self.filter, from);
        if end <= from || self.wanted_from() > from || is_known {
            return None;
        }
        let read = question(from, end, &self.filter, self.at_most.map(NonZeroUsize::get));
        let erasures = self.log.hot.erasures();
        let answer = self.log.pool.post(&mut self.asker, lane(from, end), move |store| {
            let chunk = read(store)?;
            Ok(keep(Delivery { chunk, is_recent: false, erasures }))
        })?;
        Some(Ahead { from, answer })
    }

    /// Moves past what was read ahead, and answers it; `None`, and nothing has moved, if it is not
    /// what the next read would be about, or must not be shown any more.
    pub fn accept(&mut self, delivery: Delivery, end: Seq) -> Option<Delivery> {
        let chunk = &delivery.chunk;
        let now = *self.published.borrow();
        check(chunk, self.next, end.min(now.head.next())).ok()?;
        if chunk.first < now.oldest || !self.is_fresh(&delivery) {
            return None;
        }
        self.log.metrics.reads_stored.fetch_add(1, Ordering::Relaxed);
        self.log.hot.keep(&self.filter, chunk, delivery.erasures);
        self.move_to(chunk.end);
        Some(delivery)
    }

    /// Drops what it knows of what comes next: it reads that again. For one who will not ask for a while.
    pub fn forget_ahead(&mut self) {
        self.stretch = None;
    }

    /// Whether nothing was erased since it was read. One who has kept it for long reads again where it was.
    pub fn is_fresh(&self, delivery: &Delivery) -> bool {
        delivery.erasures == self.log.hot.erasures()
    }

    /// Whether the next read has nothing to wait for but events that are not there yet: what is
    /// at the position is in memory, or beyond the head.
    pub fn is_at_hand(&self) -> bool {
        let from = self.wanted_from();
        self.is_asleep()
            || self.stretch.as_ref().is_some_and(|it| it.has(from))
            || self.published.borrow().head < from
            || self.log.hot.has(&self.filter, from)
    }

    /// The first seq from the position on that may concern it.
    fn wanted_from(&self) -> Seq {
        self.interested.as_ref().map_or(self.next, |it| it.quiet_until.max(self.next))
    }

    /// Whether it has nothing to read but what it is woken for.
    fn is_asleep(&self) -> bool {
        let sleeps = |it: &Interested| it.registration.is_some() && self.next > it.own_upto;
        self.interested.as_deref().is_some_and(sleeps)
    }

    /// Moves to another position, as after a gap was reported.
    pub fn jump(&mut self, to: Seq) {
        let to = to.max(Seq::FIRST);
        if let Some(it) = &mut self.interested
            && to < self.next
        {
            // What it has passed over without reading it counts no more.
            it.quiet_until = Seq::ZERO;
            it.own_upto = it.own_upto.max(self.next.prev());
            it.progress.went_back(to, it.own_upto);
        }
        self.move_to(to);
    }
}

/// A chunk without an event.
fn quiet(first: Seq, end: Seq) -> Chunk {
    Chunk { first, end, events: Bytes::new(), complete: false }
}

/// What a reader got.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Events from exactly the reader's position on; those that do not match may still be in it.
    pub chunk: Chunk,
    /// It begins among the newest commits, which memory holds.
    pub is_recent: bool,
    /// How often events of the log had been erased before it was read, see [`Reader::is_fresh`].
    pub erasures: u64,
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
