//! A memory budget for incoming messages: bytes that have come of long messages and lines, until
//! somebody has taken the message.
//!
//! Bounded in bytes and in time. Counted is what came, never what a client says that will come. A
//! short message needs no budget: streams are limited in number. A message without budget waits, and
//! HTTP/2 holds back its client. While others wait, the one gives way that has waited longest for its
//! client; one that does not arrive in time is refused in any case. So that messages that have a
//! part each never wait for each other, the oldest may go beyond the budget.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::server::permits::OverLimit;

/// A message of up to this many bytes needs no room.
pub(crate) const SMALL_BYTES: usize = 16 << 10;
/// Room is taken in pieces of so much.
const STEP_BYTES: usize = 16 << 10;
/// How long a message that others wait for may have waited for its client, in all.
const GRACE: Duration = Duration::from_millis(500);
/// How often it is looked for who gives way, at most: each time all messages are looked at.
const LOOK: Duration = Duration::from_millis(50);
/// Of those who wait, how many look again when there is room.
const WOKEN: usize = 16;

/// The room of one server; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Arrivals(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limit: usize,
    patience: Duration,
    /// As `State::used`, for who only looks.
    used: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    used: usize,
    next: u64,
    /// By age.
    messages: BTreeMap<u64, Message>,
    /// Those of them who wait for room, and are told when there is some.
    waiting: BTreeMap<u64, Waker>,
    /// What all who wait for room want beyond what they have.
    wanted: usize,
    /// When it was looked for who gives way.
    looked_at: Option<Instant>,
}

/// A long message, from when it first asked for room.
#[derive(Debug, Default)]
struct Message {
    held: usize,
    /// How long it has waited for its client, and since when it does.
    silent: Duration,
    silent_since: Option<Instant>,
    /// It gives way to others.
    is_over: bool,
    /// Waits for so much more room.
    wants: usize,
    waker: Option<Waker>,
}

impl Message {
    fn silence(&self) -> Option<Duration> {
        let since = self.silent_since.filter(|_| self.held > 0 && !self.is_over)?;
        Some(self.silent + since.elapsed()).filter(|silence| *silence >= GRACE)
    }
}

impl Arrivals {
    /// `patience`: how long the rest of a message may be waited for in all.
    pub(crate) fn new(limit: usize, patience: Duration) -> Self {
        let (used, state) = (AtomicUsize::new(0), Mutex::default());
        Arrivals(Arc::new(Inner { limit, patience, used, state }))
    }

    /// Bytes taken now.
    pub(crate) fn bytes(&self) -> usize {
        self.0.used.load(Ordering::Relaxed)
    }

    /// For one body.
    pub(crate) fn arrival(&self) -> Arrival {
        Arrival {
            arrivals: self.clone(),
            room: None,
            held: 0,
            left: self.0.patience,
            since: None,
            timer: None,
        }
    }

    fn room(&self) -> Room {
        let mut state = self.0.state.lock();
        let place = state.next;
        state.next += 1;
        state.messages.insert(place, Message::default());
        Room { arrivals: self.clone(), place }
    }
}

/// What a message has of the room; given back when dropped.
#[derive(Debug)]
pub(crate) struct Room {
    arrivals: Arrivals,
    place: u64,
}

/// What became of a wish for room.
enum Wish {
    Granted,
    /// To be asked again at that time at the latest: somebody may have stalled by then.
    Waits(Instant),
    Over(OverLimit),
}

impl Room {
    fn inner(&self) -> &Inner {
        &self.arrivals.0
    }

    fn change<T>(&self, change: impl FnOnce(&mut Message) -> T) -> Option<T> {
        self.inner().state.lock().messages.get_mut(&self.place).map(change)
    }

    /// Asks for so much in all.
    fn ask(&self, bytes: usize, cx: &Context<'_>) -> Wish {
        let inner = self.inner();
        let mut held = inner.state.lock();
        let state = &mut *held;
        let is_oldest = state.messages.keys().next() == Some(&self.place);
        let Some(message) = state.messages.get_mut(&self.place) else { return Wish::Granted };
        if message.is_over {
            return Wish::Over(inner.over(state.used));
        }
        let more = bytes.saturating_sub(message.held);
        state.wanted -= std::mem::take(&mut message.wants);
        if is_oldest || state.used + more <= inner.limit {
            message.held += more;
            state.used += more;
            state.waiting.remove(&self.place);
            inner.used.store(state.used, Ordering::Relaxed);
            return Wish::Granted;
        }
        message.wants = more;
        message.waker = Some(cx.waker().clone());
        state.wanted += more;
        state.waiting.insert(self.place, cx.waker().clone());
        let now = Instant::now();
        let next = state.looked_at.map_or(now, |at| at + LOOK);
        if next > now {
            // One who comes back then is enough, for it looks for all.
            let is_first = state.waiting.keys().next() == Some(&self.place);
            return Wish::Waits(if is_first { next } else { now + GRACE });
        }
        state.looked_at = Some(now);
        let wakers = state.make_way(inner.limit);
        drop(held);
        wake(wakers);
        Wish::Waits(now + GRACE)
    }
}

impl State {
    /// Those who have waited longest for their clients give way, until what they leave is enough for
    /// all who wait; whom to tell.
    fn make_way(&mut self, limit: usize) -> Vec<Waker> {
        let leaving = self.messages.values().filter(|message| message.is_over);
        let leaving: usize = leaving.map(|message| message.held).sum();
        let mut missing = (self.used + self.wanted).saturating_sub(limit + leaving);
        if missing == 0 {
            return Vec::new();
        }
        let silent = self.messages.values_mut();
        let mut silent: Vec<_> =
            silent.filter_map(|message| Some((message.silence()?, message))).collect();
        silent.sort_unstable_by_key(|(silence, _)| Reverse(*silence));
        let mut wakers = Vec::new();
        for (_, stalled) in silent {
            if missing == 0 {
                break;
            }
            stalled.is_over = true;
            missing = missing.saturating_sub(stalled.held);
            wakers.extend(stalled.waker.take());
        }
        wakers
    }
}

fn wake(wakers: impl IntoIterator<Item = Waker>) {
    wakers.into_iter().for_each(Waker::wake);
}

impl Inner {
    fn over(&self, used: usize) -> OverLimit {
        OverLimit { what: "in_flight_bytes", limit: self.limit, actual: used }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let inner = self.inner();
        let mut state = inner.state.lock();
        let Some(message) = state.messages.remove(&self.place) else { return };
        state.waiting.remove(&self.place);
        state.used -= message.held;
        state.wanted -= message.wants;
        inner.used.store(state.used, Ordering::Relaxed);
        let first = std::iter::from_fn(|| state.waiting.pop_first());
        let wakers: Vec<_> = first.map(|(_, waker)| waker).take(WOKEN).collect();
        drop(state);
        wake(wakers);
    }
}

/// What one body has of the room, and of its time.
#[derive(Debug)]
pub(crate) struct Arrival {
    arrivals: Arrivals,
    room: Option<Room>,
    /// Bytes of room.
    held: usize,
    /// Time left for the rest of the message that has begun.
    left: Duration,
    /// Waiting since then.
    since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

/// Why the rest of a message is not waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    /// It did not come in its time, or there was no room for it all that time.
    Late,
    /// Others wait for the room that it has.
    GaveWay(OverLimit),
}

impl Arrival {
    /// Takes room for what has come of a message, so many bytes in all.
    pub(crate) fn poll_room(
        &mut self,
        cx: &mut Context<'_>,
        bytes: usize,
    ) -> Poll<Result<(), Lost>> {
        if bytes <= SMALL_BYTES.max(self.held) {
            return Poll::Ready(Ok(()));
        }
        let bytes = bytes.next_multiple_of(STEP_BYTES);
        loop {
            let room = self.room.get_or_insert_with(|| self.arrivals.room());
            let again = match room.ask(bytes, cx) {
                Wish::Granted => {
                    self.held = bytes;
                    self.moved();
                    return Poll::Ready(Ok(()));
                }
                Wish::Over(over) => return Poll::Ready(Err(Lost::GaveWay(over))),
                Wish::Waits(again) => again,
            };
            let since = *self.since.get_or_insert_with(Instant::now);
            let late = since + self.left;
            std::task::ready!(self.poll_timer(cx, late.min(again)));
            if late <= Instant::now() {
                return Poll::Ready(Err(Lost::Late));
            }
        }
    }

    /// To be asked while the rest of a message is waited for.
    pub(crate) fn poll_lost(&mut self, cx: &mut Context<'_>) -> Poll<Lost> {
        let since = *self.since.get_or_insert_with(Instant::now);
        if let Some(room) = &self.room {
            let is_over = room.change(|message| {
                message.silent_since.get_or_insert(since);
                message.waker = Some(cx.waker().clone());
                message.is_over
            });
            if is_over == Some(true) {
                let inner = room.inner();
                return Poll::Ready(Lost::GaveWay(inner.over(self.arrivals.bytes())));
            }
        }
        self.poll_timer(cx, since + self.left).map(|()| Lost::Late)
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>, at: Instant) -> Poll<()> {
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if timer.deadline() != at {
            timer.as_mut().reset(at);
        }
        timer.as_mut().poll(cx)
    }

    /// Something came. Time in which nobody asked for more counts for nobody.
    pub(crate) fn moved(&mut self) {
        let Some(since) = self.since.take() else { return };
        self.left = self.left.saturating_sub(since.elapsed());
        if let Some(room) = &self.room {
            room.change(|message| {
                if let Some(since) = message.silent_since.take() {
                    message.silent += since.elapsed();
                }
            });
        }
    }

    /// The message is whole. Its room is kept until it is [taken](Arrival::release).
    pub(crate) fn whole(&mut self) {
        self.moved();
        self.left = self.arrivals.0.patience;
    }

    /// The message was taken, or given up.
    pub(crate) fn release(&mut self) {
        drop(self.take_room());
        self.since = None;
        self.left = self.arrivals.0.patience;
    }

    /// The room of a message that is whole, for who goes on with it.
    pub(crate) fn take_room(&mut self) -> Option<Room> {
        self.held = 0;
        self.room.take()
    }
}

#[cfg(test)]
mod tests;
