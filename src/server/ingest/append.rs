//! `Append`: a producer's batches in, rolling acks out.
//!
//! The stream reads on while batches become durable, and acks them in order. Any number of batches
//! may be in flight, up to the stream's byte limit. An end waits until all earlier acks are sent.
//! Nothing is spawned: a client that does not read its acks is not read either, and one that
//! disconnects leaves its queued batches behind, each whole.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;
use tonic::{Code, Request, Response, Status, Streaming};
use tracing::field::Empty;

use super::publish;
use crate::server::Shared;
use crate::server::figures::{self, OpenStream};
use crate::server::ingest::upload;
use crate::server::permits::StreamKind;
use crate::server::principal::Caller;
use crate::server::quotas::{Grant, Peer};
use crate::server::rpc::silence::Silence;
use crate::server::rpc::status::{self, Failure};
use crate::server::rpc::trace;
use crate::server::rpc::{convert, deadline};
use crate::server::transport::ending::Endings;
use pb::append_response::{Acked, Kind, Opened};
use tailmark_log::eventlog::{Answer, AppendError, Appended, Batch, Producer, Reservation};
use tailmark_record::{AppendMessage, BatchMessage, Seq};
use tailmark_wire::feed_v1 as pb;

/// Takes a producer's stream.
pub(crate) fn append(
    shared: &Arc<Shared>,
    request: Request<Streaming<Bytes>>,
) -> Result<Response<AppendStream>, Status> {
    let (metadata, extensions, messages) = request.into_parts();
    let deadline = deadline::of(&extensions);
    let caller = shared.auth.caller(&extensions)?;
    caller.may_publish_something()?;
    let peer = extensions.get::<Peer>();
    let permit = shared.quotas.stream(StreamKind::Upload, peer, caller.name());
    let permit = permit.map_err(status::too_many)?;
    let peer = peer.map(|peer| tracing::field::display(peer.address));
    let span = tracing::info_span!(
        "append",
        peer,
        producer = Empty,
        topic = Empty,
        cursor = Empty,
        events = Empty,
        reason = Empty,
    );
    trace::adopt(&span, &metadata);
    Ok(Response::new(AppendStream {
        messages,
        phase: Phase::New,
        reserving: None,
        submitting: None,
        in_flight: VecDeque::new(),
        in_flight_bytes: 0,
        end: None,
        is_over: false,
        acked: Tally::default(),
        endings: Endings::new(deadline, &shared.stop, caller.clone()),
        caller,
        open: shared.figures.open("append", None, &span),
        span,
        has_topic: false,
        silence: Silence::new(&shared.options),
        _permit: permit,
        shared: Arc::clone(shared),
    }))
}

/// With the cursor of its last event.
type Opening = Pin<Box<dyn Future<Output = Result<(Producer, String), AppendError>> + Send>>;
/// With the cursor of the batch's last event.
type Acking = Pin<Box<dyn Future<Output = Result<(Appended, String), AppendError>> + Send>>;
type Reserving = Pin<Box<dyn Future<Output = Result<Reservation, AppendError>> + Send>>;
type Submitting = Pin<Box<dyn Future<Output = Result<Answer, AppendError>> + Send>>;

enum Phase {
    /// Nothing was said yet.
    New,
    Opening(Opening),
    Open(Producer),
}

/// How a stream ends once everything before is acked; `None` = all is well.
type End = Option<Failure>;

/// A batch on its way.
struct Sent {
    seq: u64,
    bytes: usize,
}

/// One producer's stream.
pub(crate) struct AppendStream {
    messages: Streaming<Bytes>,
    phase: Phase,
    /// A batch, as it came, that waits for room among the bytes in flight: it is made when there is some.
    reserving: Option<(Bytes, Reserving)>,
    /// A batch that is about to be queued.
    submitting: Option<(Sent, Submitting)>,
    /// Queued, in order.
    in_flight: VecDeque<(Sent, Acking)>,
    in_flight_bytes: usize,
    /// Set when no more is read.
    end: Option<End>,
    is_over: bool,
    acked: Tally,
    endings: Endings,
    caller: Caller,
    open: OpenStream,
    span: tracing::Span,
    /// The span has the topic of the first event.
    has_topic: bool,
    silence: Silence,
    _permit: Grant,
    shared: Arc<Shared>,
}

/// For the log line at the end.
#[derive(Default)]
struct Tally {
    batches: u64,
    events: u64,
    duplicates: u64,
    last_cursor: String,
}

impl AppendStream {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<pb::AppendResponse, Status>>> {
        loop {
            if let Phase::Opening(opening) = &mut self.phase
                && let Poll::Ready(opened) = opening.as_mut().poll(cx)
            {
                return Poll::Ready(self.opened(opened));
            }
            if let Some((_, answer)) = self.in_flight.front_mut()
                && let Poll::Ready(result) = answer.as_mut().poll(cx)
            {
                return Poll::Ready(self.settle(result));
            }
            if let Some((_, reserving)) = &mut self.reserving
                && let Poll::Ready(room) = reserving.as_mut().poll(cx)
            {
                self.reserved(room);
                continue;
            }
            if let Some((_, submitting)) = &mut self.submitting
                && let Poll::Ready(queued) = submitting.as_mut().poll(cx)
            {
                self.queued(queued);
                continue;
            }
            if self.is_idle()
                && let Some(end) = self.end.take()
            {
                return Poll::Ready(self.finish(end));
            }
            if self.end.is_none()
                && let Some(failure) = self.endings.revoked()
            {
                self.end = Some(Some(failure));
                continue;
            }
            if self.may_read()
                && let Poll::Ready(message) = Pin::new(&mut self.messages).poll_next(cx)
            {
                self.silence.heard();
                if let Err(end) = self.take(message) {
                    self.end = Some(end);
                }
                continue;
            }
            if self.endings.poll_deadline(cx).is_ready() {
                return Poll::Ready(self.finish(Some(status::deadline())));
            }
            if self.end.is_none()
                && let Poll::Ready(failure) = self.endings.poll_revoked(cx)
            {
                self.end = Some(Some(failure));
                continue;
            }
            if self.end.is_none() && self.endings.poll_stop(cx).is_ready() {
                self.end = Some(Some(status::stopping(self.shared.options.retry_delay)));
                continue;
            }
            if self.end.is_none() && self.is_idle() {
                if let Poll::Ready(failure) = self.silence.poll(cx) {
                    self.end = Some(Some(failure));
                    continue;
                }
            } else {
                // It waits for us.
                self.silence.heard();
            }
            return Poll::Pending;
        }
    }

    /// Nothing is on its way.
    fn is_idle(&self) -> bool {
        !matches!(self.phase, Phase::Opening(_))
            && self.reserving.is_none()
            && self.submitting.is_none()
            && self.in_flight.is_empty()
    }

    /// Half of what a stream may have in flight is kept for the batch that is read next.
    fn may_read(&self) -> bool {
        self.end.is_none()
            && self.reserving.is_none()
            && self.submitting.is_none()
            && !matches!(self.phase, Phase::Opening(_))
            && self.in_flight_bytes <= self.shared.options.stream_in_flight_bytes / 2
    }

    /// What the client says next.
    fn take(&mut self, message: Option<Result<Bytes, Status>>) -> Result<(), End> {
        let bytes = match message {
            None => return Err(None),
            Some(Err(status)) => return Err(Some(status::upload_broken(&status))),
            Some(Ok(bytes)) => bytes,
        };
        let message = AppendMessage::parse(&bytes).map_err(status::malformed_append)?;
        match (message, &self.phase) {
            (AppendMessage::Open { producer, epoch }, Phase::New) => {
                self.span.record("producer", self.check_id(producer)?);
                let producer = self.caller.producer_id(producer);
                let log = self.shared.log.clone();
                self.phase = Phase::Opening(Box::pin(async move {
                    let producer = log.open_producer(&producer, epoch).await?;
                    let cursor = producer.last_cursor().await;
                    Ok((producer, cursor))
                }));
            }
            (AppendMessage::Batch(batch), Phase::Open(_)) => {
                let log = &self.shared.log;
                let events = batch.count.min(log.limits().batch_events);
                let most = Batch::most_stored_bytes(events, bytes.len());
                match log.try_reserve(most) {
                    Some(room) => self.submit(batch, room)?,
                    None => {
                        let log = log.clone();
                        let reserving = Box::pin(async move { log.reserve(most).await });
                        self.reserving = Some((bytes, reserving));
                    }
                }
            }
            (AppendMessage::Open { .. }, _) => {
                return Err(Some(status::bad_field("open", "comes once, as the first message")));
            }
            (AppendMessage::Batch(_), _) => {
                return Err(Some(status::bad_field("batch", "comes after open")));
            }
            (AppendMessage::Empty, _) => {
                return Err(Some(status::bad_field("kind", "set open or batch")));
            }
        }
        Ok(())
    }

    fn check_id<'a>(&self, id: &'a str) -> Result<&'a str, Failure> {
        // Of the log's limit a part is the principal's name.
        let own = self.caller.producer_id("").len();
        let limit = self.shared.log.limits().name_bytes.saturating_sub(own);
        let actual = id.len();
        match id {
            "" => Err(status::bad_field("open.producer_id", "is required")),
            _ if actual > limit => Err(status::over_limit("open.producer_id", limit, actual)),
            _ => Ok(id),
        }
    }

    /// There is room for the batch that waited.
    fn reserved(&mut self, room: Result<Reservation, AppendError>) {
        let Some((bytes, _)) = self.reserving.take() else { return };
        let submitted = match (AppendMessage::parse(&bytes), room) {
            (Ok(AppendMessage::Batch(batch)), Ok(room)) => self.submit(batch, room),
            (Ok(AppendMessage::Batch(batch)), Err(error)) => {
                Err(Some(self.explain(&error, batch.producer_seq)))
            }
            _ => Err(Some(status::internal())),
        };
        if let Err(end) = submitted {
            self.end = Some(end);
        }
    }

    fn submit(&mut self, batch: BatchMessage<'_>, room: Reservation) -> Result<(), End> {
        let Phase::Open(producer) = &self.phase else { return Ok(()) };
        let (producer, seq) = (producer.clone(), batch.producer_seq);
        let submitting = self.batch(batch, producer, room);
        self.submitting = Some(submitting.map_err(|failure| failure.with("producer_seq", seq))?);
        Ok(())
    }

    /// Reads a batch's events, each once, and queues them.
    fn batch(
        &mut self,
        message: BatchMessage<'_>,
        producer: Producer,
        room: Reservation,
    ) -> Result<(Sent, Submitting), Failure> {
        let seq = message.producer_seq;
        if seq == 0 {
            return Err(status::bad_field("batch.producer_seq", "the first batch has 1"));
        }
        let limits = self.shared.log.limits();
        let expected = match message.expected_head {
            None => None,
            Some((topic, seq)) => Some(
                publish::expected_head(topic.to_owned(), seq, &self.caller, limits)
                    .map_err(|failure| failure.within("batch"))?,
            ),
        };
        let count = message.count;
        if count == 0 {
            return Err(status::bad_field("batch.events", "is empty"));
        }
        if count > limits.batch_events {
            return Err(status::over_limit("batch_events", limits.batch_events, count));
        }
        let mut batch = self.shared.log.batch();
        for (index, bytes) in message.events().enumerate() {
            upload::take_event(bytes, &self.caller, &mut batch)
                .map_err(|failure| failure.within("batch.events").with("index", index))?;
        }
        if batch.bytes() > limits.batch_bytes {
            return Err(status::over_limit("batch_bytes", limits.batch_bytes, batch.bytes()));
        }
        self.caller.may_store(count, batch.bytes())?;
        if !self.has_topic {
            self.has_topic = true;
            self.span.record("topic", batch.first_topic());
        }
        // As the log counts them, so that a stream has no more of its room than it may.
        let bytes = batch.stored_bytes();
        let submitting =
            Box::pin(async move { producer.submit_reserved(seq, batch, expected, room).await });
        Ok((Sent { seq, bytes }, submitting))
    }

    fn queued(&mut self, queued: Result<Answer, AppendError>) {
        let Some((sent, _)) = self.submitting.take() else { return };
        match queued {
            Ok(answer) => {
                self.in_flight_bytes += sent.bytes;
                let log = self.shared.log.clone();
                let acking = Box::pin(async move {
                    let appended = answer.await?;
                    let cursor = log.cursor_of(&appended).await;
                    Ok((appended, cursor))
                });
                self.in_flight.push_back((sent, acking));
            }
            Err(error) => self.end = Some(Some(self.explain(&error, sent.seq))),
        }
    }

    fn opened(
        &mut self,
        opened: Result<(Producer, String), AppendError>,
    ) -> Option<Result<pb::AppendResponse, Status>> {
        match opened {
            Ok((producer, last_cursor)) => {
                let opened = Opened {
                    epoch: producer.epoch(),
                    last_producer_seq: producer.last_seq(),
                    last_cursor,
                };
                self.phase = Phase::Open(producer);
                Some(Ok(pb::AppendResponse { kind: Some(Kind::Opened(opened)) }))
            }
            Err(error) => {
                let failure = super::failure(&error, self.shared.options.retry_delay);
                self.finish(Some(failure))
            }
        }
    }

    /// The batch sent longest ago has its answer.
    fn settle(
        &mut self,
        result: Result<(Appended, String), AppendError>,
    ) -> Option<Result<pb::AppendResponse, Status>> {
        let (sent, _) = self.in_flight.pop_front()?;
        self.in_flight_bytes -= sent.bytes;
        match result {
            Ok((appended, last_cursor)) => {
                self.acked.batches += 1;
                self.acked.events += appended.stored;
                self.acked.duplicates += appended.duplicates;
                if appended.last.is_some() {
                    self.acked.last_cursor.clone_from(&last_cursor);
                }
                let seq = |seq: Option<Seq>| seq.map_or(0, Seq::get);
                let acked = Acked {
                    producer_seq: sent.seq,
                    first_seq: seq(appended.first),
                    last_seq: seq(appended.last),
                    last_cursor,
                    duplicate: appended.last_is_duplicate,
                    durability: convert::durability(appended.level).into(),
                };
                Some(Ok(pb::AppendResponse { kind: Some(Kind::Acked(acked)) }))
            }
            Err(error) => {
                // What was sent after it cannot be stored without it.
                let failure = self.explain(&error, sent.seq);
                self.finish(Some(failure))
            }
        }
    }

    fn explain(&self, error: &AppendError, producer_seq: u64) -> Failure {
        super::failure(error, self.shared.options.retry_delay).with("producer_seq", producer_seq)
    }

    fn finish(&mut self, end: End) -> Option<Result<pb::AppendResponse, Status>> {
        self.is_over = true;
        let status = end.map(Status::from);
        self.open.ends(figures::ended_with(status.as_ref().map_or(Code::Ok, Status::code)));
        status.map(Err)
    }
}

impl Stream for AppendStream {
    type Item = Result<pb::AppendResponse, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.is_over {
            return Poll::Ready(None);
        }
        this.poll(cx)
    }
}

impl Drop for AppendStream {
    fn drop(&mut self) {
        self.open.took(self.acked.events + self.acked.duplicates);
        if !self.acked.last_cursor.is_empty() {
            self.span.record("cursor", self.acked.last_cursor.as_str());
        }
        tracing::info!(
            parent: &self.span,
            batches = self.acked.batches,
            events = self.acked.events,
            duplicates = self.acked.duplicates,
            waiting = self.in_flight.len()
                + usize::from(self.submitting.is_some() || self.reserving.is_some()),
            seconds = self.open.age().as_secs_f64(),
            reason = self.open.reason(),
            "append ended"
        );
    }
}
