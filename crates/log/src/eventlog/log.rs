//! The handle to an open log.

use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use uuid::Uuid;

use super::core::Core;
use super::elsewhere::Elsewhere;
use super::erase;
use super::error::lost_answer;
use super::fair_queue::Lane;
use super::open::{self, Threads};
use super::producers::Sent;
use super::queue::{Pending, TrimRequest, Trimmed, Work};
use super::reader_pool::Asker;
use super::repeats_ready::RepeatsReady;
use super::topic_retention;
use super::topic_rules::{TopicPass, TopicRetention, TopicRules};
use super::topics::Topics;
use super::trim::removed_in;
use super::{
    Answer, AppendError, AppendOptions, Appended, Batch, CancelError, EraseError, Erased, Erasure,
    ExpectedHead, Options, ReadError, Reader, Reservation, ResolveError, Retention, Status,
};
use crate::storage::{Engine, EraseProgress, Level, Recovered, Store, StoreError};
use tailmark_record::topic::Filter;
use tailmark_record::{
    Bounds, ChainTag, Cursor, FingerprintKey, Limits, LogId, Seq, Start, Timestamp,
};

/// A handle to an open log; cheap to clone. When the last one is dropped without
/// [`EventLog::close`], the log ends by itself: what is queued is written, readers hear `Closing`,
/// and the engine is dropped when the threads are through.
#[derive(Clone)]
pub struct EventLog {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) core: Arc<Core>,
    pub(super) threads: Mutex<Option<Threads>>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        open::signal_end(&self.core);
    }
}

impl EventLog {
    /// Starts the writer and reader threads over an open engine.
    ///
    /// # Errors
    /// When the recovered state cannot be read.
    pub fn open(
        engine: Arc<dyn Engine>,
        recovered: Recovered,
        options: Options,
    ) -> Result<EventLog, StoreError> {
        let (core, threads) = open::open(engine, &recovered, options)?;
        Ok(EventLog { shared: Arc::new(Shared { core, threads: Mutex::new(Some(threads)) }) })
    }

    pub(super) fn core(&self) -> &Arc<Core> {
        &self.shared.core
    }

    /// Identity.
    pub fn id(&self) -> LogId {
        self.core().id
    }

    /// Durable bounds now.
    pub fn bounds(&self) -> Bounds {
        self.core().bounds()
    }

    /// The last durable seq.
    pub fn head(&self) -> Seq {
        self.core().reads.published.borrow().head
    }

    /// What an event may be.
    pub fn limits(&self) -> &Limits {
        &self.core().rules.limits
    }

    /// Most bytes that a batch which must be whole may take in the store.
    pub fn max_commit_bytes(&self) -> usize {
        self.core().journal.max_commit_bytes()
    }

    /// What durable means of what is appended, as far as that is known before; [`super::Appended::level`] says it of
    /// what was.
    pub fn level(&self) -> Level {
        self.shared.core.journal.level()
    }

    /// Secret for telling repeats.
    pub fn fingerprint_key(&self) -> FingerprintKey {
        self.core().rules.key
    }

    /// The cursor of `seq`, in the generation that it belongs to (0: in the first). Reads its event where
    /// memory does not know what the cursor has to say; where that can't be read, the cursor names the place
    /// alone.
    pub async fn cursor(&self, seq: Seq) -> String {
        self.core().cursor(seq).await
    }

    /// The same without a read; `None` where it would take one.
    pub fn known_cursor(&self, seq: Seq) -> Option<String> {
        self.core().known_cursor(seq)
    }

    /// The cursor of a seq at which the chain is known to have this tag.
    pub fn cursor_with(&self, seq: Seq, tag: ChainTag) -> String {
        self.core().cursor_with(seq, Some(tag))
    }

    /// The cursor of `seq` without a read: where memory does not know what stands there, one that names the
    /// place alone. For lines of a log.
    pub fn cursor_at_hand(&self, seq: Seq) -> String {
        self.known_cursor(seq).unwrap_or_else(|| self.core().cursor_with(seq, None))
    }

    /// The cursor of a batch's last event, newly stored or not; empty where it is not known where that lies.
    pub async fn cursor_of(&self, appended: &Appended) -> String {
        if let Some(cursor) = &appended.cursor {
            return cursor.to_string();
        }
        match (appended.last_event, appended.last_tag) {
            (Seq::ZERO, _) => String::new(),
            (seq, tag @ Some(_)) if appended.last == Some(seq) => self.core().cursor_with(seq, tag),
            // Of a repeat it may have to be read. Boxed: what a server holds for each call is small.
            (seq, _) => Box::pin(self.cursor(seq)).await,
        }
    }

    /// An empty batch.
    pub fn batch(&self) -> Batch {
        Batch::new(self.core().rules.clone())
    }

    /// Appends a batch and waits until it is durable. Waits first for room among the bytes in
    /// flight. Dropping the future does not take the batch back once it was queued.
    ///
    /// # Errors
    /// [`AppendError`] says whether anything may have been stored.
    pub fn append(&self, batch: Batch, options: AppendOptions) -> Append<'_> {
        Append::new(self, batch, options)
    }

    /// The same with room that is there already. Waits where it is not enough, and gives it back before.
    ///
    /// # Errors
    /// As [`append`](EventLog::append).
    pub async fn append_reserved(
        &self,
        batch: Batch,
        options: AppendOptions,
        room: Reservation,
    ) -> Result<Appended, AppendError> {
        self.submit(batch, options, None, room).await?.await
    }

    /// Room among the bytes in flight for a batch that is being made, if there is so much and nobody
    /// waits for it.
    pub fn try_reserve(&self, bytes: usize) -> Option<Reservation> {
        let permits = u32::try_from(bytes).ok()?;
        self.core().room.clone().try_acquire_many_owned(permits).ok().map(Reservation::new)
    }

    /// Waits for room among the bytes in flight. Who has some gives it back first.
    ///
    /// # Errors
    /// When the log closes.
    pub async fn reserve(&self, bytes: usize) -> Result<Reservation, AppendError> {
        self.acquire(bytes).await.map(Reservation::new)
    }

    async fn acquire(&self, bytes: usize) -> Result<OwnedSemaphorePermit, AppendError> {
        let core = self.core();
        // What is larger than everything takes everything.
        let bytes = bytes.clamp(1, core.in_flight_bytes);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let permit = core.room.clone().acquire_many_owned(bytes).await;
        permit.map_err(|_| AppendError::Closing)
    }

    /// Queues a batch for which there is room, and about which nothing has to be asked or waited for.
    fn submit_now(&self, batch: Batch, options: AppendOptions) -> Submitted {
        let core = self.core();
        if core.elsewhere.is_some() {
            return Submitted::Later(batch, options);
        }
        let asks = options.expected_head.as_ref().is_some_and(|it| it.topic.is_some());
        let waits = options.dedup
            && batch.has_named()
            && !matches!(*core.repeats_ready.borrow(), RepeatsReady::Ready);
        if asks || waits {
            return Submitted::Later(batch, options);
        }
        let bytes = batch.stored_bytes_from(0).clamp(1, core.in_flight_bytes);
        match self.try_reserve(bytes).and_then(|room| room.exactly(bytes)) {
            Some(share) => match self.queue(batch, options, None, share) {
                Ok(answer) => Submitted::Queued(answer),
                Err(error) => Submitted::Refused(error),
            },
            None => Submitted::Later(batch, options),
        }
    }

    fn queue(
        &self,
        batch: Batch,
        options: AppendOptions,
        sent: Option<Sent>,
        share: OwnedSemaphorePermit,
    ) -> Result<Answer, AppendError> {
        let (reply, answer) = oneshot::channel();
        let pending = Pending::new(batch, options, sent, share, reply);
        self.core().queue.push(Work::Append(Box::new(pending)))?;
        Ok(Answer::new(answer))
    }

    /// Queues a batch, after waiting for room among the bytes in flight: from then on its place
    /// among the others is settled.
    pub(super) async fn submit(
        &self,
        batch: Batch,
        options: AppendOptions,
        sent: Option<Sent>,
        mut room: Reservation,
    ) -> Result<Answer, AppendError> {
        let core = self.core();
        if let (Some(elsewhere), None) = (&core.elsewhere, &sent) {
            return self.pass_on(elsewhere, batch, options, room).await;
        }
        if options.dedup && batch.has_named() {
            self.repeats_ready().await?;
        }
        if let Some(ExpectedHead { topic: Some(topic), .. }) = &options.expected_head {
            // What has to be indexed for the answer is indexed here, a bounded step at a time: the writer
            // asks again, and then it is a lookup. While it has no room that others wait for.
            room = Reservation::default();
            core.reads.topic_head(topic).await.map_err(AppendError::of_lookup)?;
        }
        let share = self.share(&batch, room).await?;
        self.queue(batch, options, sent, share)
    }

    /// Has a batch stored by who writes. It has room here until that is done, also where nobody waits for it.
    async fn pass_on(
        &self,
        elsewhere: &Arc<dyn Elsewhere>,
        batch: Batch,
        options: AppendOptions,
        room: Reservation,
    ) -> Result<Answer, AppendError> {
        let share = self.share(&batch, room).await?;
        let (reply, answer) = Answer::of_reply();
        let storing = elsewhere.append(batch, options);
        tokio::spawn(async move {
            let done = storing.await;
            drop(share);
            reply.send(done);
        });
        Ok(answer)
    }

    /// Room for a batch, of what there is or new.
    pub(super) async fn share(
        &self,
        batch: &Batch,
        room: Reservation,
    ) -> Result<OwnedSemaphorePermit, AppendError> {
        let bytes = batch.stored_bytes_from(0);
        match room.exactly(bytes.clamp(1, self.core().in_flight_bytes)) {
            Some(share) => Ok(share),
            None => self.acquire(bytes).await,
        }
    }

    pub(super) async fn repeats_ready(&self) -> Result<(), AppendError> {
        let core = self.core();
        if let Some(why) = core.queue.ended() {
            return Err(why);
        }
        let mut ready = core.repeats_ready.subscribe();
        let ready = ready.wait_for(|ready| !matches!(ready, RepeatsReady::NotYet)).await;
        match ready.as_deref() {
            Ok(RepeatsReady::Failed(error)) => Err(AppendError::RepeatsUnknown(error.clone())),
            Ok(_) => Ok(()),
            Err(_) => Err(AppendError::Closing),
        }
    }

    /// The seq a watch after `cursor` begins with. A cursor that tells of the chain is compared with the event
    /// that it names.
    ///
    /// # Errors
    /// The row of the cursor table that applies; a reader's.
    pub async fn resolve(&self, cursor: Cursor) -> Result<Seq, ResolveError> {
        self.core().resolve(cursor).await
    }

    /// The seq a reader from `start` begins with.
    ///
    /// # Errors
    /// `Trimmed` or a damaged log; a seq beyond `head + 1` is clamped by no one: the caller checks.
    pub async fn start(&self, start: Start, filter: &Filter) -> Result<Seq, ReadError> {
        let core = self.core();
        core.reads.start(start, filter, || core.store.has_gaps()).await
    }

    /// A reader whose first event is `next`, `next <= head + 1`.
    pub fn reader(&self, next: Seq, filter: Filter) -> Reader {
        Reader::new(Arc::clone(&self.core().reads), next, filter)
    }

    /// One event, encoded.
    ///
    /// # Errors
    /// As a reader's; `Ok(None)` beyond the head.
    pub async fn event(&self, seq: Seq) -> Result<Option<Bytes>, ReadError> {
        self.core().reads.event(seq).await
    }

    /// When a readable event was appended.
    ///
    /// # Errors
    /// As a reader's.
    pub async fn time_of(&self, seq: Seq) -> Result<Timestamp, ReadError> {
        self.core().reads.time_of(seq).await
    }

    /// To list topics with.
    pub fn topics(&self) -> Topics {
        Topics::new(Arc::clone(&self.core().reads))
    }

    /// Removes every event below `before` (clamped to `head + 1`). What rules had taken out before is not counted, as far
    /// as it can be read.
    ///
    /// # Errors
    /// As an append's.
    pub async fn trim(&self, before: Seq) -> Result<Trimmed, AppendError> {
        let core = self.core();
        if let Some(elsewhere) = &core.elsewhere {
            return elsewhere.trim(before).await;
        }
        // What is appended from here on is not meant.
        let before = before.min(self.head().next());
        let tag = core.reads.tag(before.prev()).await.ok().flatten();
        let gone = self.removed_in(self.bounds().oldest..before).await;
        let (reply, answer) = oneshot::channel();
        let request = TrimRequest { before, tag, age_clock: None, reply };
        self.core().queue.push(Work::Trim(request))?;
        let trimmed = answer.await.unwrap_or_else(|_| Err(lost_answer()))?;
        Ok(Trimmed { removed: trimmed.removed.saturating_sub(gone), ..trimmed })
    }

    /// How many seqs of a range are known to have no events any more.
    async fn removed_in(&self, range: Range<Seq>) -> u64 {
        let core = self.core();
        if !core.store.has_gaps() || range.is_empty() {
            return 0;
        }
        let asker = &mut Asker::default();
        let from = range.start;
        let question = move |store: &dyn Store| removed_in(store, range);
        core.reads.pool.ask(asker, Lane::Scan, from, question).await.unwrap_or(0)
    }

    /// Erases events: what they said goes from every file and every cache, their seqs, topics, times and cursors
    /// stay as shells, and in each topic concerned an event tells of it (type `tailmark.erased`). One at a time.
    /// Blocks, for as long as it takes to write anew what holds such events: outside a runtime's workers.
    /// `progress` hears how far it is.
    ///
    /// A repeat of an event that was erased is stored as a new event: nothing is left to tell it by.
    ///
    /// # Errors
    /// [`EraseError`] says whether it goes on by itself.
    pub fn erase(
        &self,
        erasure: Erasure,
        progress: &mut dyn FnMut(EraseProgress),
    ) -> Result<Erased, EraseError> {
        erase::erase(self.core(), erasure, progress)
    }

    /// Takes back an erasure that waits and has not erased anything yet: its events stay as they are. Blocks for one read.
    ///
    /// # Errors
    /// [`CancelError`]; it goes on then.
    pub fn cancel_erasure(&self, id: Uuid) -> Result<(), CancelError> {
        erase::cancel(self.core(), id)
    }

    /// The erasure that is not through, and how far it is; also one that goes on after a restart.
    pub fn erasing(&self) -> Option<EraseProgress> {
        self.core().eraser.state.lock().progress
    }

    /// Calls `forget` in each erasure, when nothing that is read from then on holds what goes: for who keeps
    /// what was read, to drop it.
    pub fn on_erased(&self, forget: impl Fn() + Send + Sync + 'static) {
        self.core().eraser.listeners.lock().push(Arc::new(forget));
    }

    /// Other rules for topics from now on. They are looked at soon.
    pub fn set_topic_rules(&self, rules: TopicRules) {
        self.core().topic_keeper.set(rules);
        // The clock that events age by is that of the other thread.
        self.core().maintenance.look_soon();
    }

    /// The rules for topics, and what has come of them.
    pub fn topic_retention(&self) -> TopicRetention {
        self.core().topic_keeper.report()
    }

    /// What rules would remove if all that is dead were removed now; nothing is. They need not be those in force. Reads
    /// every event of their topics: blocks for seconds to minutes, and ends early with [`ReadError::Closing`] where
    /// `goes_on`, which is asked again and again with the share that is done (0 to 1), answers false.
    ///
    /// # Errors
    /// As a read; [`ReadError::Closing`].
    pub fn preview_topic_retention(
        &self,
        rules: &TopicRules,
        goes_on: &mut dyn FnMut(f64) -> bool,
    ) -> Result<TopicPass, ReadError> {
        topic_retention::preview(self.core(), rules, goes_on)
    }

    /// Looks at the limits of retention now rather than at the next interval. Does not wait.
    pub fn enforce_retention_soon(&self) {
        self.core().maintenance.look_soon();
    }

    /// Keeps other limits from now on, and looks at them so often; the first time at once. Does not wait.
    pub fn set_retention(&self, retention: Retention, interval: Duration) {
        self.core().maintenance.set_limits(retention, interval);
        self.core().topic_keeper.set_interval(interval);
    }

    /// The limits that are kept.
    pub fn retention(&self) -> Retention {
        self.core().maintenance.limits()
    }

    /// Waits until the writer has come to this question among all else that it has to do: proof that it
    /// lives. A log that has stopped or closes answers at once.
    pub async fn ping(&self) {
        let (reply, answer) = oneshot::channel();
        if self.core().queue.push(Work::Ping(reply)).is_ok() {
            let _ = answer.await;
        }
    }

    /// The first seq appended at or after `time`; `head + 1` if there is none.
    ///
    /// # Errors
    /// As a reader's.
    pub async fn seek_time(&self, time: Timestamp) -> Result<Seq, ReadError> {
        self.core().reads.seek_time(time).await
    }

    /// Whether appends are taken: false once a write has failed or the log closes. Cheap.
    pub fn takes_events(&self) -> bool {
        self.core().takes_events()
    }

    /// Why every append would be refused now, found without one: closing, stopped, no room, no data directory,
    /// a disk that does not answer. `None` when a small one would be tried. Looks at the disk, off the
    /// runtime's workers, once a second at most and never twice at a time, whoever asks.
    pub async fn refusal(&self) -> Option<AppendError> {
        let core = self.core();
        if let Some(elsewhere) = &core.elsewhere {
            return elsewhere.refusal();
        }
        if let Some(why) = core.queue.ended() {
            return Some(why);
        }
        if let RepeatsReady::Failed(error) = &*core.repeats_ready.borrow() {
            return Some(AppendError::RepeatsUnknown(error.clone()));
        }
        core.readiness.refusal(&core.journal).await
    }

    /// Figures for operators.
    pub fn status(&self) -> Status {
        let core = self.core();
        let room = core.room.available_permits();
        Status {
            store: core.store.status(),
            readers: core.metrics.readers.load(Ordering::Relaxed),
            in_flight_bytes: core.in_flight_bytes.saturating_sub(room) as u64,
            unfetched_bytes: core.reads.pool.unfetched_bytes() as u64,
            recent_bytes: core.reads.hot.recent.bytes() as u64,
            found_bytes: core.reads.hot.filter_cache.bytes() as u64,
            producers: core.metrics.producers.load(Ordering::Relaxed),
            reads_waiting: core.reads.pool.waiting() as u64,
            counters: core.metrics.counters(),
            is_stopped: matches!(core.queue.ended(), Some(AppendError::Stopped(_))),
            trouble: core.trouble(),
            clock: core.ahead(),
        }
    }

    /// Refuses further appends, finishes those queued, stops the threads, closes the engine. The
    /// work goes on when the future is dropped. A second call waits for the first.
    ///
    /// # Errors
    /// I/O while closing; what was acked is durable all the same.
    pub async fn close(&self) -> Result<(), StoreError> {
        let shared = self.shared.clone();
        let closing = tokio::task::spawn_blocking(move || {
            let mut threads = shared.threads.lock();
            threads.take().map_or(Ok(()), |threads| open::close(&shared.core, threads))
        });
        let panicked = || StoreError::Stopped { reason: "closing panicked".into() };
        closing.await.unwrap_or_else(|_| Err(panicked()))
    }
}

/// A batch that is being appended: see [`EventLog::append`]. Nothing is done before it is polled.
///
/// Servers have one of these for each call: where there is room it is a batch, then an answer, and
/// nothing that is allocated.
#[must_use = "nothing is appended before it is polled"]
pub struct Append<'a>(State<'a>);

/// What became of a batch that was to be queued at once.
enum Submitted {
    Queued(Answer),
    Refused(AppendError),
    /// There is something to wait for.
    Later(Batch, AppendOptions),
}

enum State<'a> {
    New(&'a EventLog, Batch, AppendOptions),
    /// There is something to wait for.
    Waiting(Pin<Box<dyn Future<Output = Result<Appended, AppendError>> + Send + 'a>>),
    Queued(Answer),
    Over,
}

impl<'a> Append<'a> {
    pub(super) fn new(log: &'a EventLog, batch: Batch, options: AppendOptions) -> Append<'a> {
        Append(State::New(log, batch, options))
    }
}

impl Future for Append<'_> {
    type Output = Result<Appended, AppendError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if matches!(self.0, State::New(..))
            && let State::New(log, batch, options) = std::mem::replace(&mut self.0, State::Over)
        {
            self.0 = match log.submit_now(batch, options) {
                Submitted::Queued(answer) => State::Queued(answer),
                Submitted::Refused(error) => return Poll::Ready(Err(error)),
                Submitted::Later(batch, options) => State::Waiting(Box::pin(async move {
                    log.submit(batch, options, None, Reservation::default()).await?.await
                })),
            };
        }
        match &mut self.0 {
            State::Queued(answer) => Pin::new(answer).poll(cx),
            State::Waiting(answer) => answer.as_mut().poll(cx),
            // Polled again after its end.
            State::New(..) | State::Over => Poll::Ready(Err(lost_answer())),
        }
    }
}

impl std::fmt::Debug for Append<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Append")
    }
}
