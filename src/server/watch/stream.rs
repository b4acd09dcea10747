//! A watch as a stream of items: the machine, a reader and the clock. How an item is written is for
//! who sends it (`body.rs`, `http/sse.rs`).
//!
//! Nothing is spawned and nothing is queued: the stream reads when HTTP/2 has room for more, so a
//! slow client holds back its own watch and nothing else.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::Status;

use super::CURSOR;
use crate::server::feed::machine::{End, Machine, News, Step};
use crate::server::feed::naming::Naming;
use crate::server::feed::parked::{Parking, Ticket};
use crate::server::feed::reading::{CHUNKS_PER_POLL, Lost, Reading};
use crate::server::feed::shared_frames::SharedFrames;
use crate::server::figures::OpenStream;
use crate::server::quotas::Grant;
use crate::server::report;
use crate::server::rpc::frames::YIELD_BYTES;
use crate::server::rpc::status::{self, Failure};
use crate::server::transport::ending::Endings;
use crate::server::unsent::{SMALL_BYTES, Sending};
use tailmark_log::eventlog::{Delivery, EventLog, Reader};
use tailmark_record::{GapReason, Marker, MarkerKind, Seq, Timestamp};

/// What a marker counts for among what was handed over, beside its cursor.
const MARKER_BYTES: usize = 64;

/// A chunk that is shorter ends where something is, if it follows a run that is gone.
const SHORT_BYTES: usize = 4 << 10;

/// What a watch yields.
pub(crate) enum Item {
    /// Events, as the machine gives them out: one, some in frames, or the entries of some.
    Events {
        bytes: Bytes,
        /// Other streams send the very same.
        is_shared: bool,
    },
    /// News about the watch itself.
    Marker(Box<Marker>),
}

/// One watch.
pub(crate) struct WatchStream {
    machine: Machine,
    log: EventLog,
    reading: Reading,
    endings: Endings,
    silence: Silence,
    settings: Settings,
    phase: Phase,
    /// What goes out next, as soon as its cursor is known.
    due: Option<Box<Due>>,
    naming: Naming,
    /// Bytes handed over since the last buffer of them was complete.
    unflushed: usize,
    /// What waits to be sent.
    sending: Sending,
    /// Bytes that may be handed over before that is asked again.
    may_send: usize,
    /// The next event has so many, and waits until it may be sent.
    large: Option<usize>,
    /// The chunk, while it is not at hand.
    parked: Option<Ticket>,
    /// What was passed last is a run of events that were meant to go.
    is_behind_run: bool,
    open: OpenStream,
    span: tracing::Span,
    _permits: Grant,
}

/// What a watch is made of.
pub(super) struct WatchParts {
    pub(super) machine: Machine,
    pub(super) log: EventLog,
    pub(super) reader: Reader,
    pub(super) endings: Endings,
    pub(super) settings: Settings,
    pub(super) permits: Grant,
    pub(super) sending: Sending,
    pub(super) open: OpenStream,
    pub(super) span: tracing::Span,
}

/// What stays as it is for the life of a watch.
pub(super) struct Settings {
    /// Where it leaves its chunk while its client takes nothing.
    pub(super) parking: Parking,
    /// Where it finds what others have framed.
    pub(super) shared_frames: Arc<SharedFrames>,
    /// Trimmed or damaged ranges become gaps, as those do in any case that were meant to go.
    pub(super) skip_lost: bool,
    /// Silence after which a heartbeat is due, with markers.
    pub(super) heartbeat: Option<Duration>,
    /// What a client is told to wait before it comes back.
    pub(super) retry_delay: Duration,
    /// Below which it has not caught up.
    pub(super) floor: Floor,
}

/// A seq below which a watch has not caught up, whatever the log here has: of a log that others write, and of which
/// nobody can say where it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Floor(Seq);

impl Floor {
    /// The log here has all.
    pub(super) const NONE: Floor = Floor(Seq::ZERO);
    /// Nobody knows.
    pub(super) const UNKNOWN: Floor = Floor(Seq::MAX);
}

enum Phase {
    Running,
    /// CLOSING goes out, then the last status.
    Closing,
    /// Why.
    Over(&'static str),
}

/// What says where the watch stands.
enum Due {
    Marker(News),
    /// The last status of one that came to its end.
    End(End),
    /// The last status of one that failed, and why.
    Failure(&'static str, Failure),
}

/// Counts from the last thing sent.
struct Silence {
    timer: Pin<Box<Sleep>>,
    is_set: bool,
}

/// Why a silent watch wakes.
enum Alarm {
    Stop,
    Deadline,
    Silence,
    Revoked(Failure),
}

impl WatchStream {
    pub(super) fn new(mut parts: WatchParts) -> Self {
        parts.open.follow(parts.reader.progress());
        WatchStream {
            machine: parts.machine,
            reading: Reading::new(parts.log.clone(), parts.reader),
            log: parts.log,
            endings: parts.endings,
            silence: Silence { timer: Box::pin(sleep_until(Instant::now())), is_set: false },
            settings: parts.settings,
            phase: Phase::Running,
            due: None,
            naming: Naming::default(),
            unflushed: 0,
            sending: parts.sending,
            may_send: 0,
            large: None,
            parked: None,
            is_behind_run: false,
            open: parts.open,
            span: parts.span,
            _permits: parts.permits,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Item, Status>> {
        // Also of a chunk that is at hand nothing more goes out.
        if let Some(failure) = self.endings.revoked()
            && !matches!(self.due.as_deref(), Some(Due::End(_) | Due::Failure(..)))
        {
            self.due = None;
            return self.fail("token ended", failure, cx);
        }
        if let Some(due) = self.due.take() {
            return self.poll_due(due, cx);
        }
        if self.unflushed == 0
            && let Some(result) = ready!(self.poll_sending(cx))
        {
            return Poll::Ready(result);
        }
        self.unpark();
        self.machine.rested();
        let mut chunks = 0;
        loop {
            self.machine.send_at_most(self.may_send);
            let most = (self.unflushed > 0).then_some(self.may_send);
            let frames = &self.settings.shared_frames;
            let Floor(floor) = self.settings.floor;
            let head = || self.log.head().max(floor);
            let (step, is_shared) = frames.step(&mut self.machine, most, head);
            match step {
                Step::Event(bytes) => {
                    self.handed(bytes.len());
                    return Poll::Ready(Ok(Item::Events { bytes, is_shared }));
                }
                Step::Large(bytes) => {
                    // What is buffered goes first, if there is something.
                    self.large = (self.unflushed == 0).then_some(bytes);
                    return self.rest(cx);
                }
                Step::News(news) => return self.poll_due(Box::new(Due::Marker(news)), cx),
                _ if matches!(self.phase, Phase::Closing) => {
                    let failure = status::stopping(self.settings.retry_delay);
                    return self.fail("stopping", failure, cx);
                }
                Step::Rest => return self.rest(cx),
                Step::End(end) => return self.poll_due(Box::new(Due::End(end)), cx),
                Step::Broken(what) => {
                    report::defect(what);
                    return self.fail("defect", status::internal(), cx);
                }
                Step::Read { end } => {
                    if let Some(alarm) = self.look_at_clock() {
                        if let Some((reason, failure)) = self.ring(alarm) {
                            return self.fail(reason, failure, cx);
                        }
                        continue;
                    }
                    let read = match self.reading.take_ahead(end) {
                        Some(delivery) => Ok(delivery),
                        None if self.is_to_flush() => {
                            // A chunk must not lie about while the client takes nothing.
                            self.unflushed = 0;
                            cx.waker().wake_by_ref();
                            return Poll::Pending;
                        }
                        None => match self.poll_read(end, cx) {
                            Poll::Ready(read) => read,
                            Poll::Pending => {
                                let Poll::Ready(alarm) = self.poll_alarm(cx) else {
                                    self.unflushed = 0;
                                    return Poll::Pending;
                                };
                                if let Some((reason, failure)) = self.ring(alarm) {
                                    return self.fail(reason, failure, cx);
                                }
                                continue;
                            }
                        },
                    };
                    match read {
                        Ok(delivery) => {
                            // Between two runs that are gone, what lies ahead is the next one.
                            let is_short = delivery.chunk.events.len() < SHORT_BYTES;
                            let goes_on = !(is_short && std::mem::take(&mut self.is_behind_run));
                            let is_stored = !delivery.is_recent;
                            self.machine.deliver(delivery);
                            if is_stored && goes_on {
                                let end = self.machine.reads_on();
                                self.reading.read_ahead(end, &self.settings.parking);
                            }
                        }
                        Err(lost) => {
                            if let Some(failure) = self.skip(&lost) {
                                return self.fail("read failed", failure, cx);
                            }
                        }
                    }
                    chunks += 1;
                    if chunks > CHUNKS_PER_POLL {
                        return self.rest(cx);
                    }
                }
            }
        }
    }

    /// Lets others run. Whether it goes on then is up to its client.
    fn rest<T>(&mut self, cx: &Context<'_>) -> Poll<T> {
        self.park();
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_read(&mut self, end: Seq, cx: &mut Context<'_>) -> Poll<Result<Delivery, Box<Lost>>> {
        if !self.machine.is_live() {
            // One that has fallen behind has to hear that it has caught up, without an event too.
            self.reading.look();
        }
        self.reading.poll(end, cx)
    }

    /// Between two reads is where a watch that never falls silent looks at the clock.
    fn look_at_clock(&mut self) -> Option<Alarm> {
        if !self.reading.is_idle() {
            return None;
        }
        self.open.reached(self.machine.delivered(), self.machine.next());
        self.reading.note_passed(self.machine.reported());
        if self.endings.is_stopping() {
            return Some(Alarm::Stop);
        }
        if let Some(failure) = self.endings.revoked() {
            return Some(Alarm::Revoked(failure));
        }
        self.endings.is_late().then_some(Alarm::Deadline)
    }

    /// Waits until something may be handed over; `Some` when the watch ends before.
    fn poll_sending(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Item, Status>>> {
        let may = match self.large {
            Some(bytes) => self.sending.poll_large(cx, bytes).map(|()| bytes),
            None => self.sending.poll_may(cx),
        };
        if let Poll::Ready(bytes) = may {
            (self.may_send, self.large) = (bytes, None);
            return Poll::Ready(None);
        }
        let alarm = ready!(self.poll_end(cx));
        (self.may_send, self.large) = (SMALL_BYTES, None);
        match self.ring(alarm) {
            Some((reason, failure)) => self.fail(reason, failure, cx).map(Some),
            None => Poll::Ready(None),
        }
    }

    /// Waits for what wakes a watch beside events.
    fn poll_alarm(&mut self, cx: &mut Context<'_>) -> Poll<Alarm> {
        if let Poll::Ready(alarm) = self.poll_end(cx) {
            return Poll::Ready(alarm);
        }
        let Some(heartbeat) = self.settings.heartbeat else { return Poll::Pending };
        self.silence.poll(heartbeat, cx).map(|()| Alarm::Silence)
    }

    /// Waits for what ends a watch.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Alarm> {
        if self.endings.poll_stop(cx).is_ready() {
            return Poll::Ready(Alarm::Stop);
        }
        if self.endings.poll_deadline(cx).is_ready() {
            return Poll::Ready(Alarm::Deadline);
        }
        if let Poll::Ready(failure) = self.endings.poll_revoked(cx) {
            return Poll::Ready(Alarm::Revoked(failure));
        }
        Poll::Pending
    }

    /// Answers why it ends, if it does.
    fn ring(&mut self, alarm: Alarm) -> Option<(&'static str, Failure)> {
        // What it slept through is passed all the same.
        if let Some(upto) = self.reading.quiet_upto(self.machine.next()) {
            self.machine.pass_quiet(upto);
        }
        match alarm {
            Alarm::Silence => {
                self.silence.is_set = false;
                self.machine.heartbeat();
            }
            Alarm::Deadline => return Some(("deadline", status::deadline())),
            Alarm::Revoked(failure) => return Some(("token ended", failure)),
            Alarm::Stop => {
                self.phase = Phase::Closing;
                self.machine.close();
            }
        }
        None
    }

    /// What was to be read is gone: a gap, or the end, of which it answers the failure.
    fn skip(&mut self, lost: &Lost) -> Option<Failure> {
        let next = self.machine.next();
        let is_passed =
            |(_, reason): &(Seq, GapReason)| self.settings.skip_lost || reason.is_intended();
        let Some((to, reason)) = lost.gap(next).filter(is_passed) else {
            return Some(lost.failure(next, self.settings.retry_delay));
        };
        let to = to.min(self.log.bounds().head);
        if let Some(cursor) = lost.cursor_of(to, &self.log) {
            self.naming.know(to, cursor);
        }
        self.is_behind_run = reason.is_intended();
        self.machine.skip_gap(to, reason);
        self.reading.jump(self.machine.next());
        None
    }

    fn marker(&self, news: News, cursor: String) -> Marker {
        let bounds = self.log.bounds();
        let is_closing = news.kind == MarkerKind::Closing;
        self.reading.note_passed(news.passed);
        Marker {
            kind: news.kind,
            cursor,
            at: Some(Timestamp::now()),
            oldest: bounds.oldest,
            head: bounds.head,
            lag_events: news.passed.distance_to(bounds.head),
            gap: news.gap,
            retry_delay: is_closing.then_some(self.settings.retry_delay),
        }
    }

    /// So many bytes are about to be yielded.
    fn handed(&mut self, bytes: usize) {
        self.silence.is_set = false;
        self.unflushed += bytes;
        self.may_send = self.may_send.saturating_sub(bytes);
        if self.unflushed >= YIELD_BYTES {
            self.park();
        }
    }

    /// Counts bytes that it yielded, as they go out; `is_shared` where others send the very same.
    pub(crate) fn count(&self, bytes: Bytes, is_shared: bool) -> Bytes {
        self.sending.hand_over(bytes, is_shared)
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
        self.reading.forget_ahead();
        self.parked = self.machine.take_chunk().map(|chunk| self.settings.parking.park(chunk));
    }

    /// Whether what is buffered has to go out before more is read from storage.
    fn is_to_flush(&self) -> bool {
        self.unflushed > 0 && self.reading.is_far()
    }

    /// Goes on with the chunk that was left, or, when there was no room for it, at its place.
    fn unpark(&mut self) {
        let Some(ticket) = self.parked.take() else { return };
        match ticket.redeem().filter(|chunk| self.reading.is_fresh(chunk)) {
            Some(chunk) => self.machine.put_back(chunk),
            // Nothing is read while there is a chunk. What was erased since is not sent.
            None => self.reading.jump(self.machine.next()),
        }
    }

    /// Yields what says where the watch stands, once its cursor is known.
    fn poll_due(&mut self, due: Box<Due>, cx: &mut Context<'_>) -> Poll<Result<Item, Status>> {
        let seq = match &*due {
            Due::Marker(news) => news.passed,
            Due::End(_) | Due::Failure(..) => self.machine.passed(),
        };
        let Poll::Ready(cursor) = self.naming.poll(&self.log, seq, cx) else {
            self.due = Some(due);
            return Poll::Pending;
        };
        let (reason, status) = match *due {
            Due::Marker(news) => {
                let marker = self.marker(news, cursor);
                self.handed(MARKER_BYTES + marker.cursor.len());
                return Poll::Ready(Ok(Item::Marker(Box::new(marker))));
            }
            Due::End(End::Limit) => ("limit", status::end_of_stream(CURSOR, &cursor)),
            Due::End(End::CaughtUp) => ("caught up", status::end_of_stream(CURSOR, &cursor)),
            Due::Failure(reason, failure) => (reason, failure.with_trailer(CURSOR, &cursor)),
        };
        self.phase = Phase::Over(reason);
        Poll::Ready(Err(status))
    }

    fn fail(
        &mut self,
        reason: &'static str,
        failure: Failure,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Item, Status>> {
        self.poll_due(Box::new(Due::Failure(reason, failure)), cx)
    }
}

impl Stream for WatchStream {
    type Item = Result<Item, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if matches!(this.phase, Phase::Over(_)) {
            return Poll::Ready(None);
        }
        this.poll(cx).map(Some)
    }
}

impl Drop for WatchStream {
    fn drop(&mut self) {
        let reason = match self.phase {
            Phase::Over(reason) => reason,
            Phase::Running | Phase::Closing => self.endings.why_dropped(),
        };
        self.open.reached(self.machine.delivered(), self.machine.next());
        self.open.ends(reason);
        self.span.record("cursor", self.log.cursor_at_hand(self.machine.passed()));
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

impl Silence {
    fn poll(&mut self, longest: Duration, cx: &mut Context<'_>) -> Poll<()> {
        if !self.is_set {
            self.timer.as_mut().reset(Instant::now() + longest);
            self.is_set = true;
        }
        self.timer.as_mut().poll(cx)
    }
}
