//! `UploadEvents`: events in, durable as they arrive, one answer at the end. The same loop serves
//! every client stream of messages.
//!
//! While one batch becomes durable the next one is filled, so batches grow as the disk slows down.
//! Only one batch is in flight: that keeps a stream's events in order whatever else is appended.
//! The loop is a task of its own: when the client disconnects, what arrived whole is still stored.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;
use tokio::time::Instant;
use tonic::{Code, Request, Response, Status, Streaming};
use tracing::field::Empty;

use crate::server::figures::{self, OpenStream};
use crate::server::permits::StreamKind;
use crate::server::principal::Caller;
use crate::server::quotas::Peer;
use crate::server::rpc::silence::Silence;
use crate::server::rpc::status::{self, Failure};
use crate::server::rpc::trace;
use crate::server::rpc::{convert, deadline};
use crate::server::transport::ending::Endings;
use crate::server::{Shared, report};
use tailmark_log::eventlog::{AppendError, AppendOptions, Appended, Batch, Reservation};
use tailmark_log::storage::Level;
use tailmark_record::{Event, Seq};
use tailmark_wire::feed_v1 as pb;

/// A batch of this size goes out even while more is ready, when none is under way.
const FLUSH_BYTES: usize = 256 << 10;
/// Room for a batch is taken in pieces of so much.
const ROOM_STEP: usize = 64 << 10;

type Append = Pin<Box<dyn Future<Output = Result<Appended, AppendError>> + Send>>;

/// What a stream of messages is to the log.
pub(crate) trait Source: Send + 'static {
    /// A message.
    type Message: Send + 'static;

    /// How its batches are appended.
    fn options(&self) -> AppendOptions;

    /// Most bytes that a message may take in the store, where batches must be whole; 0 where not.
    fn stored_bytes(&self, _: &Self::Message) -> usize {
        0
    }

    /// Adds a message to a batch, if who sends it may.
    fn take(
        &mut self,
        message: Self::Message,
        caller: &Caller,
        batch: &mut Batch,
    ) -> Result<(), Failure>;

    /// Whether more may be taken.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    /// Whether nobody waits for what comes of it any more: what is here by then is still taken.
    fn poll_left(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }

    /// What was taken since this was called last is about to be appended.
    fn appending(&mut self) {}

    /// It is durable.
    fn appended(&mut self, _: &Appended) {}
}

/// Encoded events, as they come.
struct Encoded;

impl Source for Encoded {
    type Message = Bytes;

    fn options(&self) -> AppendOptions {
        AppendOptions { dedup: true, expected_head: None, atomic: false }
    }

    fn take(&mut self, bytes: Bytes, caller: &Caller, batch: &mut Batch) -> Result<(), Failure> {
        charged(caller, batch, |batch| take_event(&bytes, caller, batch))
    }
}

/// Adds an event if its sender may store as much as the batch grows by it.
pub(crate) fn charged(
    caller: &Caller,
    batch: &mut Batch,
    push: impl FnOnce(&mut Batch) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mark = batch.mark();
    push(batch)?;
    caller.may_store(1, batch.bytes() - mark.bytes()).inspect_err(|_| batch.undo(mark))
}

/// Adds an event as it came.
pub(crate) fn take_event(bytes: &[u8], caller: &Caller, batch: &mut Batch) -> Result<(), Failure> {
    let event = Event::parse(bytes).map_err(status::malformed_event)?;
    let event = caller.admit(event)?;
    batch.push(&event).map_err(|error| status::invalid_event(&error))
}

/// Takes an upload.
pub(crate) async fn upload(
    shared: &Arc<Shared>,
    request: Request<Streaming<Bytes>>,
) -> Result<Response<pb::UploadResult>, Status> {
    Ok(Response::new(upload_from(shared, request, Encoded).await?))
}

/// Takes an upload of other messages.
pub(crate) async fn upload_from<M, S>(
    shared: &Arc<Shared>,
    request: Request<M>,
    source: S,
) -> Result<pb::UploadResult, Status>
where
    M: Stream<Item = Result<S::Message, Status>> + Send + Unpin + 'static,
    S: Source,
{
    let (metadata, extensions, messages) = request.into_parts();
    let deadline = deadline::of(&extensions);
    let caller = shared.auth.caller(&extensions)?;
    let peer = extensions.get::<Peer>();
    let permit = shared.quotas.stream(StreamKind::Upload, peer, caller.name());
    let permit = permit.map_err(status::too_many)?;
    let peer = peer.map(|peer| tracing::field::display(peer.address));
    let span = tracing::info_span!(
        "upload",
        peer,
        topic = Empty,
        cursor = Empty,
        events = Empty,
        reason = Empty,
    );
    trace::adopt(&span, &metadata);
    let open = shared.figures.open("upload", None, &span);
    let upload = Upload::new(shared, messages, source, deadline, caller).not_silent();
    let task = shared.tasks.spawn(async move {
        let _permit = permit;
        upload.run(span, open).await
    });
    let result = match deadline {
        None => task.await,
        Some(at) => match tokio::time::timeout_at(at + DEADLINE_SLACK, task).await {
            Ok(result) => result,
            // The task goes on without us: what was taken is still stored.
            Err(_) => return Err(status::deadline().into()),
        },
    };
    match result {
        Ok(result) => result,
        Err(_) => {
            report::defect("an upload's task ended early");
            Err(status::internal().into())
        }
    }
}

/// The time the task gets at its deadline to tell what is durable, before we answer without it.
const DEADLINE_SLACK: std::time::Duration = std::time::Duration::from_millis(500);

/// Half of what a stream may have in flight: the other half is the batch under way.
fn batch_bytes(shared: &Shared) -> usize {
    let limits = shared.log.limits();
    // Room for one more event of any size.
    let most = limits.batch_bytes.saturating_sub(limits.event_bytes).max(1);
    most.min(shared.options.stream_in_flight_bytes / 2)
}

/// Messages on their way into the log.
pub(crate) struct Upload<M, S: Source> {
    messages: M,
    source: S,
    batch: Batch,
    batch_bytes: usize,
    /// Of the bytes in flight, for the batch.
    room: Reservation,
    append: Option<Append>,
    /// A message that has no room in the batch any more.
    held: Option<S::Message>,
    /// Nothing more was there when we last looked.
    starved: bool,
    /// Messages taken from the stream and put into a batch.
    taken: u64,
    /// Of the first of them.
    topic: Option<String>,
    totals: Totals,
    endings: Endings,
    silence: Silence,
    caller: Caller,
    shared: Arc<Shared>,
}

/// What is durable.
#[derive(Debug, Default)]
struct Totals {
    received: u64,
    stored: u64,
    duplicates: u64,
    first: Option<Seq>,
    last: Option<Seq>,
    /// What became of the last events.
    last_batch: Option<Appended>,
    /// The least that durable means of any of them.
    level: Option<Level>,
}

/// Why the gathering pauses.
enum Pause {
    /// A batch is due.
    Flush,
    /// The batch under way has come to its end.
    Appended(Result<Appended, AppendError>),
    /// No more events; `None` = all is well.
    Over(Option<Failure>),
}

impl<M, S> Upload<M, S>
where
    M: Stream<Item = Result<S::Message, Status>> + Unpin,
    S: Source,
{
    pub(crate) fn new(
        shared: &Arc<Shared>,
        messages: M,
        source: S,
        deadline: Option<Instant>,
        caller: Caller,
    ) -> Self {
        Upload {
            messages,
            source,
            batch: shared.log.batch(),
            batch_bytes: batch_bytes(shared),
            room: Reservation::default(),
            append: None,
            held: None,
            starved: false,
            taken: 0,
            topic: None,
            totals: Totals::default(),
            endings: Endings::new(deadline, &shared.stop, caller.clone()),
            silence: Silence::never(),
            caller,
            shared: Arc::clone(shared),
        }
    }

    /// Gives up a client that says nothing for too long.
    fn not_silent(mut self) -> Self {
        self.silence = Silence::new(&self.shared.options);
        self
    }

    async fn run(
        mut self,
        span: tracing::Span,
        mut open: OpenStream,
    ) -> Result<pb::UploadResult, Status> {
        let result = self.take_all().await;
        let code = result.as_ref().map_or_else(Status::code, |_| Code::Ok);
        let reason = figures::ended_with(code);
        open.ends(reason);
        open.took(self.totals.received);
        span.record("topic", self.topic.as_deref());
        if self.totals.last_batch.is_some() {
            span.record("cursor", self.last_cursor().await);
        }
        tracing::info!(
            parent: &span,
            events = self.totals.received,
            stored = self.totals.stored,
            duplicates = self.totals.duplicates,
            seconds = open.age().as_secs_f64(),
            reason,
            "upload ended"
        );
        result
    }

    /// Takes messages until they end, and waits until all of them are durable.
    pub(crate) async fn take_all(&mut self) -> Result<pb::UploadResult, Status> {
        loop {
            match poll_fn(|cx| self.poll(cx)).await {
                Pause::Flush => self.flush(),
                Pause::Appended(result) => {
                    self.append = None;
                    self.settle(result).await?;
                }
                Pause::Over(failure) => {
                    self.drain().await?;
                    return match failure {
                        None => Ok(self.result().await),
                        Some(failure) => Err(self.explain(failure, self.taken).await),
                    };
                }
            }
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Pause> {
        if let Some(append) = &mut self.append
            && let Poll::Ready(result) = append.as_mut().poll(cx)
        {
            return Poll::Ready(Pause::Appended(result));
        }
        // What came is kept; nothing more is taken.
        if let Poll::Ready(failure) = self.endings.poll_revoked(cx) {
            return Poll::Ready(Pause::Over(Some(failure)));
        }
        let left = self.source.poll_left(cx).is_ready();
        if let Some(pause) = self.gather(cx) {
            return Poll::Ready(pause);
        }
        if left && self.starved {
            return Poll::Ready(Pause::Over(None));
        }
        if self.append.is_none() && !self.batch.is_empty() {
            return Poll::Ready(Pause::Flush);
        }
        if self.endings.poll_deadline(cx).is_ready() {
            return Poll::Ready(Pause::Over(Some(status::deadline())));
        }
        if self.endings.poll_stop(cx).is_ready() {
            let failure = status::stopping(self.shared.options.retry_delay);
            return Poll::Ready(Pause::Over(Some(failure)));
        }
        // While the disk is slow it is not the client who is.
        if self.append.is_some() {
            self.silence.heard();
        }
        self.silence.poll(cx).map(|failure| Pause::Over(Some(failure)))
    }

    /// Puts events into the batch while they are ready and there is room.
    fn gather(&mut self, cx: &mut Context<'_>) -> Option<Pause> {
        let full = self.shared.log.limits().batch_events;
        self.starved = false;
        let idle = self.append.is_none();
        while self.batch.len() < full && self.batch.bytes() < self.batch_bytes {
            if !self.has_room() {
                return idle.then_some(Pause::Flush);
            }
            if idle && self.batch.bytes() >= FLUSH_BYTES {
                return Some(Pause::Flush);
            }
            if self.source.poll_ready(cx).is_pending() {
                return None;
            }
            let next = match self.held.take() {
                Some(message) => Poll::Ready(Some(Ok(message))),
                None => Pin::new(&mut self.messages).poll_next(cx),
            };
            let message = match next {
                Poll::Pending => {
                    self.starved = true;
                    return None;
                }
                Poll::Ready(None) => return Some(Pause::Over(None)),
                Poll::Ready(Some(Ok(message))) => message,
                Poll::Ready(Some(Err(status))) => {
                    return Some(Pause::Over(Some(status::upload_broken(&status))));
                }
            };
            let needed = self.batch.stored_bytes() + self.source.stored_bytes(&message);
            if needed > self.shared.log.max_commit_bytes() && self.is_whole() {
                self.held = Some(message);
                return idle.then_some(Pause::Flush);
            }
            if let Err(failure) = self.source.take(message, &self.caller, &mut self.batch) {
                return Some(Pause::Over(Some(failure)));
            }
            self.taken += 1;
            self.silence.heard();
        }
        None
    }

    /// Whether there is room for what is in the batch, or nothing in it: what is more waits with the
    /// client. So a stream has no more beyond its room than one message.
    fn has_room(&mut self) -> bool {
        let needed = self.batch.stored_bytes();
        if self.batch.is_empty() || needed <= self.room.bytes() {
            return true;
        }
        let more = needed.next_multiple_of(ROOM_STEP) - self.room.bytes();
        let Some(more) = self.shared.log.try_reserve(more) else { return false };
        self.room.add(more);
        true
    }

    /// Whether the batch must not grow beyond one commit.
    fn is_whole(&self) -> bool {
        self.source.options().atomic && !self.batch.is_empty()
    }

    fn flush(&mut self) {
        let log = self.shared.log.clone();
        let batch = std::mem::replace(&mut self.batch, log.batch());
        let options = self.source.options();
        if self.topic.is_none() {
            self.topic = batch.first_topic().map(str::to_owned);
        }
        self.source.appending();
        let room = std::mem::take(&mut self.room);
        self.append =
            Some(Box::pin(async move { log.append_reserved(batch, options, room).await }));
    }

    /// Waits until everything taken is durable.
    async fn drain(&mut self) -> Result<(), Status> {
        if let Some(append) = self.append.take() {
            let result = append.await;
            self.settle(result).await?;
        }
        if !self.batch.is_empty() {
            self.flush();
            if let Some(append) = self.append.take() {
                let result = append.await;
                self.settle(result).await?;
            }
        }
        Ok(())
    }

    async fn settle(&mut self, result: Result<Appended, AppendError>) -> Result<(), Status> {
        match result {
            Ok(appended) => {
                self.source.appended(&appended);
                self.totals.add(&appended);
                Ok(())
            }
            Err(error) => {
                if let AppendError::Partial { done, .. } = &error {
                    self.totals.add(done);
                }
                let failure = super::failure(&error, self.shared.options.retry_delay);
                Err(self.explain(failure, self.totals.received).await)
            }
        }
    }

    /// A failure with how far the upload came: `index` is the first event that was not stored.
    async fn explain(&mut self, failure: Failure, index: u64) -> Status {
        let last_cursor = self.last_cursor().await;
        failure
            .with("index", index)
            .with("received", self.totals.received)
            .with("last_cursor", last_cursor)
            .into()
    }

    async fn last_cursor(&mut self) -> String {
        match &self.totals.last_batch {
            Some(batch) => self.shared.log.cursor_of(batch).await,
            None => String::new(),
        }
    }

    async fn result(&mut self) -> pb::UploadResult {
        let last_cursor = self.last_cursor().await;
        let totals = &self.totals;
        pb::UploadResult {
            received: saturate(totals.received),
            first_seq: totals.first.map_or(0, Seq::get),
            last_seq: totals.last.map_or(0, Seq::get),
            last_cursor,
            duplicates: totals.duplicates,
            durability: convert::durability(
                totals.level.unwrap_or_else(|| self.shared.log.level()),
            )
            .into(),
            stored: totals.stored,
        }
    }
}

impl Totals {
    fn add(&mut self, appended: &Appended) {
        self.received += appended.stored + appended.duplicates;
        self.stored += appended.stored;
        self.duplicates += appended.duplicates;
        self.first = self.first.or(appended.first);
        self.last = appended.last.or(self.last);
        self.last_batch = Some(appended.clone());
        self.level = Some(self.level.map_or(appended.level, |level| level.min(appended.level)));
    }
}

/// `received` on the wire is an int32.
pub(crate) fn saturate(count: u64) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tailmark_record::Timestamp;

    #[test]
    fn received_saturates() {
        assert_eq!(saturate(7), 7);
        assert_eq!(saturate(i32::MAX as u64), i32::MAX);
        assert_eq!(saturate(1 << 40), i32::MAX);
    }

    #[test]
    fn totals_keep_the_first_and_the_last_newly_stored() {
        let batch = |stored, duplicates, first: u64, last: u64, last_event: u64| Appended {
            stored,
            duplicates,
            first: (stored > 0).then(|| Seq::new(first)),
            last: (stored > 0).then(|| Seq::new(last)),
            last_tag: None,
            last_event: Seq::new(last_event),
            last_is_duplicate: false,
            appended_at: Timestamp::EPOCH,
            level: if stored == 3 { Level::Fsync } else { Level::Replicated },
            cursor: None,
        };
        let mut totals = Totals::default();
        for it in [batch(0, 2, 0, 0, 4), batch(3, 1, 10, 12, 12), batch(0, 1, 0, 0, 5)] {
            totals.add(&it);
        }
        assert_eq!((totals.received, totals.stored, totals.duplicates), (7, 3, 4));
        assert_eq!((totals.first, totals.last), (Some(Seq::new(10)), Some(Seq::new(12))));
        assert_eq!(totals.last_batch.map(|batch| batch.last_event), Some(Seq::new(5)));
        assert_eq!(totals.level, Some(Level::Fsync));
    }
}
