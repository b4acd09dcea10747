//! The outbound half of a room stream: messages in log order, with presence news in between.
//!
//! It reads the log as a watch does. Nothing is queued for it: a slow client holds back only its
//! own stream and finds its messages in the log later. Invariants: an event that may be the
//! stream's own is not judged before that is known; a message is shown once, in seq order, and
//! never before one that precedes it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use tokio_stream::Stream;
use tonic::Status;

use super::link::{End, Joined, Link};
use super::messages::{Dialect, Room};
use super::presence::Listener;
use crate::server::feed::machine::{Bundle, Machine, Plan, Step};
use crate::server::feed::naming::Naming;
use crate::server::feed::reading::{CHUNKS_PER_POLL, Reading};
use crate::server::figures::{self, OpenStream};
use crate::server::quotas::Grant;
use crate::server::rpc::status::{self, Failure};
use crate::server::transport::ending::Endings;
use crate::server::{report, watch};
use tailmark_log::eventlog::EventLog;
use tailmark_record::{Event, Seq};

/// Bytes of events that are at hand for a client, which may take none of them for hours.
const KEPT_BYTES: usize = 64 << 10;

/// A right to be one of the watches, shared by both directions of a chat.
pub(super) type Permits = Arc<Grant>;

/// What a stream is made of.
pub(super) struct StreamParts<D: Dialect> {
    pub(super) log: EventLog,
    /// The first seq that it may show.
    pub(super) start: Seq,
    /// Comes before everything else.
    pub(super) welcome: Option<D::Message>,
    /// The other direction; absent where there is none.
    pub(super) link: Option<Arc<Link>>,
    /// Rooms that it is in from the start.
    pub(super) rooms: Vec<Joined>,
    pub(super) heartbeat: Option<Duration>,
    pub(super) endings: Endings,
    pub(super) retry_delay: Duration,
    pub(super) permits: Permits,
    pub(super) open: OpenStream,
    pub(super) span: tracing::Span,
}

/// One client's stream of messages.
pub(crate) struct RoomStream<D: Dialect> {
    log: EventLog,
    link: Option<Arc<Link>>,
    rooms: Vec<Joined>,
    listeners: Vec<Listener>,
    start: Seq,
    /// Absent while the stream is in no room.
    place: Option<RoomReader>,
    /// The next event, until it can be judged.
    held: Option<(Seq, Bytes)>,
    /// News of the link that was looked at.
    seen_news: u64,
    welcome: Option<D::Message>,
    heartbeat: Option<Interval>,
    endings: Endings,
    retry_delay: Duration,
    /// Messages sent, and own ones confirmed.
    messages: u64,
    confirmed: u64,
    /// Its last status and why, until it is known where it stands.
    ending: Option<(&'static str, Status)>,
    naming: Naming,
    /// Why it is over.
    over: Option<&'static str>,
    open: OpenStream,
    span: tracing::Span,
    _permits: Permits,
}

/// What reads the rooms, from a place in the log on.
struct RoomReader {
    machine: Machine,
    reading: Reading,
}

/// What the events at hand come to.
enum Walked {
    /// The next event is held.
    Event,
    /// More has to be read first.
    Nothing,
    /// It has looked at a lot: others come first.
    Rest,
}

impl<D: Dialect> RoomStream<D> {
    pub(super) fn new(parts: StreamParts<D>) -> Result<Self, Failure> {
        let heartbeat = parts.heartbeat.map(|period| {
            let mut heartbeat = interval_at(Instant::now() + period, period);
            heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
            heartbeat
        });
        let mut stream = RoomStream {
            log: parts.log,
            link: parts.link,
            rooms: Vec::new(),
            listeners: Vec::new(),
            start: parts.start,
            place: None,
            held: None,
            seen_news: 0,
            welcome: parts.welcome,
            heartbeat,
            endings: parts.endings,
            retry_delay: parts.retry_delay,
            messages: 0,
            confirmed: 0,
            ending: None,
            naming: Naming::default(),
            over: None,
            open: parts.open,
            span: parts.span,
            _permits: parts.permits,
        };
        stream.join(parts.rooms)?;
        Ok(stream)
    }

    /// The last seq that was shown or passed over.
    fn passed(&self) -> Seq {
        match (&self.held, &self.place) {
            (Some((seq, _)), _) => seq.prev(),
            (None, Some(place)) if place.machine.is_walked() => {
                let passed = place.machine.passed();
                let quiet = place.reading.quiet_upto(place.machine.next());
                // Looked at after that: what is said in a room comes after it was joined.
                let has_joined = |link: &Arc<Link>| link.view().rooms > self.rooms.len();
                match quiet {
                    Some(upto) if !self.link.as_ref().is_some_and(has_joined) => upto.max(passed),
                    _ => passed,
                }
            }
            (None, Some(place)) => place.machine.passed(),
            (None, None) => self.start.prev(),
        }
    }

    /// Takes in rooms, and reads on with them.
    fn join(&mut self, rooms: Vec<Joined>) -> Result<(), Failure> {
        let known = self.rooms.len();
        if rooms.len() > known {
            self.listeners.extend(rooms[known..].iter().map(|joined| joined.stay.listen()));
            let next = self.passed().next();
            let names = rooms.iter().map(|joined| &joined.room);
            let filter = Room::filter(names, self.log.limits())?;
            // What was read without the new rooms is read again.
            self.held = None;
            let reader = self.log.reader(next, filter.clone()).at_most(KEPT_BYTES);
            self.open.reached(self.messages, next);
            self.open.follow(reader.progress());
            self.place = Some(RoomReader {
                reading: Reading::new(self.log.clone(), reader),
                machine: Machine::new(Plan {
                    filter,
                    start: next,
                    limit: None,
                    until: None,
                    markers: false,
                    gaps: Vec::new(),
                    bundle: Bundle::One,
                }),
            });
        }
        self.rooms = rooms;
        Ok(())
    }

    /// Looks at what the other direction did. The last seq that can be judged, and how it ends.
    fn sync(&mut self) -> Result<(Seq, Option<End>), Failure> {
        let Some(link) = &self.link else { return Ok((Seq::MAX, None)) };
        let view = link.view();
        if view.news != self.seen_news {
            self.seen_news = view.news;
            let rooms = link.rooms();
            if self.place.is_none()
                && let Some(start) = view.start
            {
                self.start = start;
            }
            // Rooms that came after the view was taken have come with news of their own.
            self.join(rooms)?;
        }
        Ok((view.limit, view.end))
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<D::Message, Status>> {
        if let Some(welcome) = self.welcome.take() {
            return Poll::Ready(Ok(welcome));
        }
        if let Some(place) = &mut self.place {
            place.machine.rested();
        }
        let mut chunks = 0;
        loop {
            if let Some((reason, status)) = self.ending.take() {
                return self.over(reason, status, cx);
            }
            if self.endings.is_late() {
                return self.fail("deadline", status::deadline(), cx);
            }
            if let Some(failure) = self.endings.revoked() {
                return self.fail("token ended", failure, cx);
            }
            if self.link.is_none() && self.endings.is_stopping() {
                return self.fail("stopping", status::stopping(self.retry_delay), cx);
            }
            if let Some(heartbeat) = &mut self.heartbeat
                && heartbeat.poll_tick(cx).is_ready()
            {
                return Poll::Ready(Ok(D::heartbeat()));
            }
            let (limit, end) = match self.sync() {
                Ok(view) => view,
                Err(failure) => return self.fail("defect", failure, cx),
            };
            let walked = match self.walk() {
                Ok(walked) => walked,
                Err(what) => return self.broken(what, cx),
            };
            let is_ending = end.is_some();
            if let Some(end) = end
                && self.passed() >= end.after
            {
                return self.end(end, cx);
            }
            if let Some(news) = self.presence() {
                return Poll::Ready(Ok(news));
            }
            if is_ending || self.listeners.iter().any(Listener::is_held) {
                // That waits for a place in the log, which it may sleep through.
                self.look();
            }
            match walked {
                Walked::Event => match self.judge(limit) {
                    Ok(Some(message)) => return Poll::Ready(Ok(message)),
                    Ok(None) if self.held.is_none() => continue,
                    // It may be our own: wait for the answer to the append.
                    Ok(None) => {}
                    Err(what) => return self.broken(what, cx),
                },
                Walked::Rest => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Walked::Nothing => match self.poll_read(cx) {
                    Poll::Ready(Ok(())) => {
                        chunks += 1;
                        if chunks > CHUNKS_PER_POLL {
                            cx.waker().wake_by_ref();
                            return Poll::Pending;
                        }
                        continue;
                    }
                    Poll::Ready(Err(failure)) => return self.fail("read failed", failure, cx),
                    Poll::Pending => {}
                },
            }
            ready!(self.poll_wake(cx));
        }
    }

    /// Has a reader that sleeps come to the head.
    fn look(&self) {
        if let Some(place) = &self.place {
            place.reading.look();
        }
    }

    /// Finds the next event of a room.
    fn walk(&mut self) -> Result<Walked, &'static str> {
        if self.held.is_some() {
            return Ok(Walked::Event);
        }
        let Some(place) = &mut self.place else { return Ok(Walked::Nothing) };
        match place.machine.step(|| self.log.bounds().head) {
            Step::Event(bytes) => {
                let seq = Event::seq_of(&bytes).map_err(|error| error.what())?;
                self.held = Some((seq, bytes));
                Ok(Walked::Event)
            }
            Step::Read { .. } => Ok(Walked::Nothing),
            Step::Rest => Ok(Walked::Rest),
            Step::Broken(what) => Err(what),
            Step::News(_) | Step::End(_) | Step::Large(_) => Err("a step that was not asked for"),
        }
    }

    /// What the held event is to this client, if it can be told yet.
    fn judge(&mut self, limit: Seq) -> Result<Option<D::Message>, &'static str> {
        let Some((seq, bytes)) = self.held.take_if(|(seq, _)| *seq <= limit) else {
            return Ok(None);
        };
        let event = Event::parse(&bytes).map_err(|error| error.what())?;
        let joined = self.rooms.iter().find(|joined| *joined.room.topic == *event.topic);
        let Some(joined) = joined.filter(|joined| joined.from.is_some_and(|from| seq >= from))
        else {
            return Ok(None);
        };
        self.messages += 1;
        let room = &joined.room.name;
        if self.link.as_ref().is_some_and(|link| link.is_own(seq)) {
            self.confirmed += 1;
            return Ok(Some(D::confirmation(room, &event)));
        }
        Ok(Some(D::message(room, &event)))
    }

    /// Who came or left before what comes next.
    fn presence(&mut self) -> Option<D::Message> {
        let passed = self.passed();
        let mut listeners = self.listeners.iter_mut().zip(&self.rooms);
        listeners.find_map(|(listener, joined)| {
            let change = listener.due(passed)?;
            Some(D::presence(&joined.room.name, &change.user, change.came))
        })
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let Some(place) = &mut self.place else { return Poll::Pending };
        if place.reading.is_idle() {
            self.open.reached(self.messages, place.machine.next());
        }
        match ready!(place.reading.poll(Seq::MAX, cx)) {
            // Rooms that were joined while it was read are not in it.
            Ok(_)
                if self.link.as_ref().is_some_and(|link| link.view().rooms > self.rooms.len()) => {}
            Ok(delivery) => place.machine.deliver(delivery),
            Err(lost) => {
                let failure = lost.failure(place.machine.next(), self.retry_delay);
                return Poll::Ready(Err(failure));
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Waits for whatever can change what comes next, but for events and heartbeats.
    fn poll_wake(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut is_ready = false;
        match &self.link {
            Some(link) => is_ready |= link.poll_news(self.seen_news, cx).is_ready(),
            None => is_ready |= self.endings.poll_stop(cx).is_ready(),
        }
        is_ready |= self.endings.poll_deadline(cx).is_ready();
        is_ready |= self.endings.poll_revoked(cx).is_ready();
        for listener in &mut self.listeners {
            is_ready |= listener.poll(cx).is_ready();
        }
        if is_ready { Poll::Ready(()) } else { Poll::Pending }
    }

    /// The end that the other direction came to.
    fn end(&mut self, end: End, cx: &mut Context<'_>) -> Poll<Result<D::Message, Status>> {
        let status = end.failure.unwrap_or_else(|| Status::ok(""));
        self.over(figures::ended_with(status.code()), status, cx)
    }

    fn fail(
        &mut self,
        why: &'static str,
        failure: Failure,
        cx: &mut Context<'_>,
    ) -> Poll<Result<D::Message, Status>> {
        self.over(why, failure.into(), cx)
    }

    fn broken(
        &mut self,
        what: &'static str,
        cx: &mut Context<'_>,
    ) -> Poll<Result<D::Message, Status>> {
        report::defect(what);
        self.fail("defect", status::internal(), cx)
    }

    /// Ends with a status that says where it stands, once the cursor of that is known.
    fn over(
        &mut self,
        why: &'static str,
        mut status: Status,
        cx: &mut Context<'_>,
    ) -> Poll<Result<D::Message, Status>> {
        let Poll::Ready(cursor) = self.naming.poll(&self.log, self.passed(), cx) else {
            self.ending = Some((why, status));
            return Poll::Pending;
        };
        status::add_trailer(&mut status, watch::CURSOR, &cursor);
        self.over = Some(why);
        Poll::Ready(Err(status))
    }
}

impl<D: Dialect> Stream for RoomStream<D> {
    type Item = Result<D::Message, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.over.is_some() {
            return Poll::Ready(None);
        }
        this.poll(cx).map(Some)
    }
}

impl<D: Dialect> Drop for RoomStream<D> {
    fn drop(&mut self) {
        if let Some(link) = &self.link {
            link.leave();
        }
        let reason = self.over.unwrap_or_else(|| self.endings.why_dropped());
        let passed = self.passed();
        self.open.reached(self.messages, passed.next());
        self.open.ends(reason);
        let mut rooms = self.rooms.iter().map(|joined| &*joined.room.name);
        self.span.record("room", rooms.next());
        self.span.record("start", self.start.get());
        self.span.record("cursor", self.log.cursor_at_hand(passed));
        tracing::info!(
            parent: &self.span,
            other_rooms = rooms.count(),
            messages = self.messages,
            confirmed = self.confirmed,
            passed = passed.get(),
            seconds = self.open.age().as_secs_f64(),
            reason,
            "chat ended"
        );
    }
}
