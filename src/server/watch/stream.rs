//! A watch as a stream of encoded messages, framed or not: the machine, a reader and the clock.
//!
//! Nothing is spawned and nothing is queued: the stream reads when HTTP/2 has room for more, so a
//! slow client holds back its own watch and nothing else.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use prost::Message;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::{CancellationToken, ReusableBoxFuture, WaitForCancellationFutureOwned};
use tonic::Status;

use super::CURSOR;
use crate::server::facts;
use crate::server::feed::machine::{End, GapReason, Machine, Marker, Run, Step};
use crate::server::feed::parked::{Parking, Ticket};
use crate::server::feed::shared_frames::SharedFrames;
use crate::server::figures::OpenStream;
use crate::server::permits::Permit;
use crate::server::rpc::codec::Encoded;
use crate::server::rpc::convert::{self, MarkerContext};
use crate::server::rpc::status::{self, Failure, LogFacts};
use crate::server::transport::frames::{self, YIELD_BYTES};
use tailmark_log::eventlog::{Ahead, Delivery, EventLog, ReadError, Reader};
use tailmark_record::{Seq, Timestamp};
use tailmark_wire::feed_v1 as pb;

/// Chunks without a match that one poll goes through before it lets others run.
const CHUNKS_PER_POLL: u32 = 4;

type ReadResult = (Reader, Result<Delivery, Box<(ReadError, LogFacts)>>);

/// One watch.
pub struct WatchStream {
    machine: Machine,
    log: EventLog,
    /// Absent while it reads.
    reader: Option<Reader>,
    read: ReusableBoxFuture<'static, ReadResult>,
    timers: Timers,
    settings: Settings,
    phase: Phase,
    /// Bytes handed over since the last buffer of them was complete.
    unflushed: usize,
    /// The chunk, while it is not at hand.
    parked: Option<Ticket>,
    /// The chunk after it, which waits in the lot from the first.
    ahead: Option<Ahead<Option<Ticket>>>,
    /// Why it is over.
    reason: &'static str,
    open: OpenStream,
    span: tracing::Span,
    _permits: [Permit; 2],
}

/// What a watch yields; nothing else differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// An `Event` at a time, as it is.
    Bare,
    /// `Event`s, framed: what is ready together at once.
    Events,
    /// An `EventBatch` at a time, framed.
    Batches,
}

/// What stays as it is for the life of a watch.
pub(super) struct Settings {
    /// What its messages are.
    pub(super) framing: Framing,
    /// Where it leaves its chunk while its client takes nothing.
    pub(super) parking: Parking,
    /// Where it finds what others have framed.
    pub(super) shared_frames: Arc<SharedFrames>,
    /// Sends markers.
    pub(super) markers: bool,
    /// Trimmed or damaged ranges become gaps.
    pub(super) skip_lost: bool,
    /// Silence after which a heartbeat is due, with markers.
    pub(super) heartbeat: Duration,
    /// What a client is told to wait before it comes back.
    pub(super) retry_delay: Duration,
    /// When the client's time is over.
    pub(super) deadline: Option<Instant>,
    /// Cancelled when the server stops.
    pub(super) stop: CancellationToken,
}

enum Phase {
    Running,
    /// CLOSING goes out, then the last status.
    Closing,
    Over,
}

/// What wakes a watch beside events.
struct Timers {
    silence: Pin<Box<Sleep>>,
    /// `silence` counts from the last thing sent.
    silence_is_set: bool,
    deadline: Option<Pin<Box<Sleep>>>,
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
}

/// Why a silent watch wakes.
enum Alarm {
    Stop,
    Deadline,
    Silence,
}

impl WatchStream {
    pub(super) fn new(
        machine: Machine,
        log: EventLog,
        reader: Reader,
        settings: Settings,
        permits: [Permit; 2],
        (open, span): (OpenStream, tracing::Span),
    ) -> Self {
        let timers = Timers {
            silence: Box::pin(sleep_until(Instant::now())),
            silence_is_set: false,
            deadline: settings.deadline.map(|at| Box::pin(sleep_until(at))),
            stop: Box::pin(settings.stop.clone().cancelled_owned()),
        };
        WatchStream {
            machine,
            log,
            reader: Some(reader),
            read: ReusableBoxFuture::new(std::future::pending()),
            timers,
            settings,
            phase: Phase::Running,
            unflushed: 0,
            parked: None,
            ahead: None,
            reason: "",
            open,
            span,
            _permits: permits,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Encoded, Status>>> {
        self.unpark();
        let mut chunks = 0;
        loop {
            match self.settings.shared_frames.step(&mut self.machine, || self.log.head()) {
                Step::Event(entries) if self.settings.framing == Framing::Batches => {
                    return self.send(framed(&entries));
                }
                Step::Event(events) => return self.send(events),
                Step::Marker(marker) => {
                    let message = self.encode(marker);
                    return self.send(message);
                }
                _ if matches!(self.phase, Phase::Closing) => {
                    return self.fail("stopping", status::stopping(self.settings.retry_delay));
                }
                Step::End(end) => return self.end(end),
                Step::Broken(what) => return self.fail("defect", status::defect(what)),
                Step::Read { end } => {
                    if let Some(alarm) = self.look_at_clock() {
                        if let Some(last) = self.ring(alarm) {
                            return last;
                        }
                        continue;
                    }
                    let result = match self.take_ahead(end) {
                        Some(delivery) => Ok(delivery),
                        None if self.is_to_flush() => {
                            // A chunk must not lie about while the client takes nothing.
                            self.unflushed = 0;
                            cx.waker().wake_by_ref();
                            return Poll::Pending;
                        }
                        None => {
                            self.begin_read(end);
                            let Poll::Ready((reader, result)) = self.read.poll(cx) else {
                                match self.timers.poll(cx, &self.settings) {
                                    Poll::Ready(alarm) => match self.ring(alarm) {
                                        Some(last) => return last,
                                        None => continue,
                                    },
                                    Poll::Pending => {
                                        self.unflushed = 0;
                                        return Poll::Pending;
                                    }
                                }
                            };
                            self.reader = Some(reader);
                            result
                        }
                    };
                    match result {
                        Ok(delivery) => {
                            let is_stored = !delivery.is_recent;
                            self.machine.deliver(delivery);
                            if is_stored {
                                self.read_ahead();
                            }
                        }
                        Err(lost) => {
                            if let Some(last) = self.lost(&lost.0, &lost.1) {
                                return last;
                            }
                        }
                    }
                    chunks += 1;
                    if chunks > CHUNKS_PER_POLL {
                        self.park();
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                }
            }
        }
    }

    /// Between two reads is where a watch that never falls silent looks at the clock.
    fn look_at_clock(&mut self) -> Option<Alarm> {
        self.reader.as_ref()?;
        self.open.reached(self.machine.delivered(), self.machine.next());
        if self.settings.stop.is_cancelled() {
            return Some(Alarm::Stop);
        }
        if self.settings.deadline.is_some_and(|at| at <= Instant::now()) {
            return Some(Alarm::Deadline);
        }
        None
    }

    /// Starts a read unless one is on its way.
    fn begin_read(&mut self, end: Seq) {
        let Some(reader) = self.reader.take() else { return };
        self.read.set(read(reader, end, self.log.clone(), self.ahead.take()));
    }

    /// Has the next chunk read while this one is sent.
    fn read_ahead(&mut self) {
        let parking = &self.settings.parking;
        self.ahead = match (&self.reader, self.machine.reads_on()) {
            (Some(reader), Some(end)) if parking.has_spare_room() => {
                let parking = parking.clone();
                reader.read_ahead(end, move |delivery| parking.park_spare(Run::of(delivery)))
            }
            _ => None,
        };
    }

    /// What was read ahead, if it is there and there was room for it all the time.
    fn take_ahead(&mut self, end: Seq) -> Option<Delivery> {
        let reader = self.reader.as_mut()?;
        let kept = self.ahead.as_mut()?.take_if_there()?;
        self.ahead = None;
        accept(reader, kept, end)
    }

    fn ring(&mut self, alarm: Alarm) -> Option<Poll<Option<Result<Encoded, Status>>>> {
        match alarm {
            Alarm::Silence => {
                self.timers.silence_is_set = false;
                self.machine.heartbeat();
                None
            }
            Alarm::Deadline => Some(self.fail("deadline", status::deadline())),
            Alarm::Stop => {
                self.phase = Phase::Closing;
                self.machine.close();
                None
            }
        }
    }

    /// What was to be read is gone: a gap, or the end.
    fn lost(
        &mut self,
        error: &ReadError,
        facts: &LogFacts,
    ) -> Option<Poll<Option<Result<Encoded, Status>>>> {
        let next = self.machine.next();
        let range_end = lost_range(error, next);
        // One that begins behind the position must not take along what can be read before it.
        let begins_here = match error {
            ReadError::Damaged(damage) => damage.from <= next,
            _ => true,
        };
        let skip = self.settings.skip_lost && begins_here;
        if let (true, Some((to, reason))) = (skip, range_end) {
            let to = to.min(self.log.bounds().head);
            self.machine.skip_gap(to, reason);
            if let Some(reader) = &mut self.reader {
                reader.jump(self.machine.next());
            }
            return None;
        }
        let failure = lost(&self.log, error, facts, next, self.settings.retry_delay);
        Some(self.fail("read failed", failure))
    }

    fn encode(&self, marker: Marker) -> Bytes {
        let context = MarkerContext {
            cursor: self.log.cursor(marker.passed),
            at: Timestamp::now(),
            bounds: self.log.bounds(),
            retry_delay: self.settings.retry_delay,
        };
        let event = convert::marker(marker, context);
        match self.settings.framing {
            Framing::Bare => event.encode_to_vec().into(),
            Framing::Events => framed(&event.encode_to_vec()),
            Framing::Batches => {
                let batch = pb::EventBatch { events: Vec::new(), marker: event.marker };
                framed(&batch.encode_to_vec())
            }
        }
    }

    fn send(&mut self, message: Bytes) -> Poll<Option<Result<Encoded, Status>>> {
        self.timers.silence_is_set = false;
        self.unflushed += message.len();
        if self.unflushed >= YIELD_BYTES {
            self.park();
        }
        Poll::Ready(Some(Ok(Encoded(message))))
    }

    /// What it yielded last has gone out already, and with it all before.
    pub(crate) fn gone(&mut self) {
        if self.unflushed > 0 {
            self.park();
        }
    }

    /// A buffer is complete. Whether and when more is wanted is the client's affair.
    fn park(&mut self) {
        self.unflushed = 0;
        self.parked = self.machine.take_run().map(|run| self.settings.parking.park(run));
    }

    /// Whether what is buffered has to go out before more is read from storage.
    fn is_to_flush(&self) -> bool {
        self.unflushed > 0 && self.reader.as_ref().is_some_and(|reader| !reader.is_at_hand())
    }

    /// Goes on with the chunk that was left, or, when there was no room for it, at its place.
    fn unpark(&mut self) {
        let Some(ticket) = self.parked.take() else { return };
        match (ticket.redeem(), &mut self.reader) {
            (Some(run), _) => self.machine.put_run(run),
            (None, Some(reader)) => reader.jump(self.machine.next()),
            // Nothing is read while there is a chunk.
            (None, None) => {}
        }
    }

    fn end(&mut self, end: End) -> Poll<Option<Result<Encoded, Status>>> {
        self.reason = match end {
            End::Limit => "limit",
            End::CaughtUp => "caught up",
        };
        self.phase = Phase::Over;
        let cursor = self.log.cursor(self.machine.passed());
        Poll::Ready(Some(Err(status::end_of_stream(CURSOR, &cursor))))
    }

    fn fail(
        &mut self,
        reason: &'static str,
        failure: Failure,
    ) -> Poll<Option<Result<Encoded, Status>>> {
        self.reason = reason;
        self.phase = Phase::Over;
        let cursor = self.log.cursor(self.machine.passed());
        Poll::Ready(Some(Err(failure.with_trailer(CURSOR, &cursor))))
    }
}

impl Stream for WatchStream {
    type Item = Result<Encoded, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if matches!(this.phase, Phase::Over) {
            return Poll::Ready(None);
        }
        this.poll(cx)
    }
}

impl WatchStream {
    /// Why it ended. One that was dropped before its own end was cut by us or left by its client.
    fn reason(&self) -> &'static str {
        if matches!(self.phase, Phase::Over) {
            self.reason
        } else if self.settings.deadline.is_some_and(|at| at <= Instant::now()) {
            "cut after its deadline"
        } else if self.settings.stop.is_cancelled() {
            "cut while stopping"
        } else {
            "client gone"
        }
    }
}

impl Drop for WatchStream {
    fn drop(&mut self) {
        let reason = self.reason();
        self.open.reached(self.machine.delivered(), self.machine.next());
        self.open.ends(reason);
        self.span.record("cursor", self.log.cursor(self.machine.passed()));
        tracing::info!(
            parent: &self.span,
            events = self.machine.delivered(),
            passed = self.machine.passed().get(),
            seconds = self.open.age().as_secs_f64(),
            reason,
            "watch ended"
        );
    }
}

impl Timers {
    fn poll(&mut self, cx: &mut Context<'_>, settings: &Settings) -> Poll<Alarm> {
        if self.stop.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Alarm::Stop);
        }
        if let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Alarm::Deadline);
        }
        if settings.markers {
            if !self.silence_is_set {
                self.silence.as_mut().reset(Instant::now() + settings.heartbeat);
                self.silence_is_set = true;
            }
            if self.silence.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Alarm::Silence);
            }
        }
        Poll::Pending
    }
}

/// The end of the range that cannot be read, `next` and on.
fn lost_range(error: &ReadError, next: Seq) -> Option<(Seq, GapReason)> {
    match error {
        ReadError::Trimmed { oldest, .. } => Some((oldest.prev(), GapReason::Trimmed)),
        ReadError::Damaged(damage) => Some((damage.to, GapReason::Damaged)),
        _ => None,
    }
    // A range that does not reach the position would never let us past it.
    .filter(|(to, _)| *to >= next)
}

/// Why what begins with `next` cannot be read, and where to go on.
pub(crate) fn lost(
    log: &EventLog,
    error: &ReadError,
    facts: &LogFacts,
    next: Seq,
    retry_delay: Duration,
) -> Failure {
    let failure = status::read(error, facts, retry_delay);
    match lost_range(error, next) {
        Some((to, _)) => failure.with("resume_cursor", log.cursor(to)),
        None => failure,
    }
}

/// One message, framed.
fn framed(message: &[u8]) -> Bytes {
    let mut frames = Vec::with_capacity(frames::PREFIX_BYTES + message.len());
    frames::push(&mut frames, message);
    frames.into()
}

/// What was read ahead, if it was kept and is what comes next.
fn accept(reader: &mut Reader, kept: Option<Option<Ticket>>, end: Seq) -> Option<Delivery> {
    let run = kept??.redeem()?;
    reader.accept(run.into_delivery()?, end)
}

/// One read, with what a failure has to tell.
async fn read(
    mut reader: Reader,
    end: Seq,
    log: EventLog,
    ahead: Option<Ahead<Option<Ticket>>>,
) -> ReadResult {
    if let Some(ahead) = ahead.filter(|ahead| ahead.from() == reader.position())
        && let Some(delivery) = accept(&mut reader, ahead.kept().await, end)
    {
        return (reader, Ok(delivery));
    }
    match reader.next(end).await {
        Ok(delivery) => (reader, Ok(delivery)),
        Err(error) => {
            let facts = facts(&log).await;
            (reader, Err(Box::new((error, facts))))
        }
    }
}
