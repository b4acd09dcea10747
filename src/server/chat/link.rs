//! State shared by the two halves of a chat: the rooms joined, the seqs of the stream's own
//! messages, and how it ends.
//!
//! Invariants: an event after `in_flight_after` may be the stream's own and is not judged before
//! the append in flight has been answered; a room is entered here before the first message to it is
//! appended. Bounded: with [`MAX_BATCHES`] own batches that the outbound half has not passed, no
//! more messages are read from the client.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use tonic::Status;

use super::messages::Room;
use super::presence::Stay;
use tailmark_log::eventlog::EventLog;
use tailmark_record::Seq;

/// Own batches on their way from the log to the client: 256 KiB of numbers.
const MAX_BATCHES: usize = 16_384;

/// Shared by the task that takes messages and the stream that sends them.
pub(super) struct Link {
    log: EventLog,
    state: Mutex<LinkState>,
}

#[derive(Default)]
struct LinkState {
    rooms: Vec<Joined>,
    /// Where reading begins, once there is a room.
    start: Option<Seq>,
    /// The head before the append under way.
    in_flight_after: Option<Seq>,
    /// First and last seq of each own batch that the reader has not passed.
    own: VecDeque<(Seq, Seq)>,
    last_own: Option<Seq>,
    end: Option<End>,
    /// The reader is gone.
    is_left: bool,
    /// Counts what the reader should look at.
    news: u64,
    reader: Option<Waker>,
    intake: Option<Waker>,
}

/// A room that the stream is in.
#[derive(Clone)]
pub(super) struct Joined {
    pub(super) room: Room,
    /// Its first message for this stream; unknown until the first own one is durable.
    pub(super) from: Option<Seq>,
    pub(super) stay: Arc<Stay>,
}

/// How the stream ends, once the reader has passed `after`.
#[derive(Clone)]
pub(super) struct End {
    pub(super) after: Seq,
    /// `None` = well.
    pub(super) failure: Option<Status>,
}

/// What the reader has to know before it judges events.
pub(super) struct View {
    /// Number of rooms joined.
    pub(super) rooms: usize,
    pub(super) start: Option<Seq>,
    /// The last seq that can be judged.
    pub(super) limit: Seq,
    pub(super) end: Option<End>,
    pub(super) news: u64,
}

impl Link {
    pub(super) fn new(log: &EventLog) -> Arc<Link> {
        Arc::new(Link { log: log.clone(), state: Mutex::default() })
    }

    /// Changes something that the reader should look at.
    fn update<T>(&self, change: impl FnOnce(&mut LinkState) -> T) -> T {
        let mut state = self.state.lock();
        let result = change(&mut state);
        state.news += 1;
        let reader = state.reader.take();
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
        result
    }

    // The side that takes messages.

    /// Joins a room whose messages are wanted from `start` on.
    pub(super) fn join_at(&self, room: Room, stay: Arc<Stay>, start: Seq) {
        self.update(|state| {
            state.start.get_or_insert(start);
            state.rooms.push(Joined { room, from: Some(start), stay });
        });
    }

    /// A batch is about to be appended, with the first messages to these rooms in it.
    pub(super) fn appending(&self, joined: Vec<Joined>) {
        self.update(|state| {
            let head = self.log.bounds().head;
            if !joined.is_empty() {
                state.start.get_or_insert(head.next());
            }
            state.rooms.extend(joined);
            state.in_flight_after = Some(head);
        });
    }

    /// It is durable; `firsts` are rooms, by number, and their first own messages.
    pub(super) fn appended(&self, first: Seq, last: Seq, firsts: &[(usize, Seq)]) {
        self.update(|state| {
            for &(room, seq) in firsts {
                if let Some(joined) = state.rooms.get_mut(room) {
                    joined.from.get_or_insert(seq);
                }
            }
            state.in_flight_after = None;
            state.last_own = Some(last);
            if !state.is_left {
                state.own.push_back((first, last));
            }
        });
    }

    /// No more messages are taken. Only the first call counts.
    pub(super) fn end(&self, failure: Option<Status>) {
        self.update(|state| {
            let head = if state.rooms.is_empty() { Seq::ZERO } else { self.log.bounds().head };
            let nothing_said = if failure.is_none() { head } else { Seq::ZERO };
            let after = state.last_own.unwrap_or(nothing_said);
            state.in_flight_after = None;
            state.end.get_or_insert(End { after, failure });
        });
    }

    /// Whether it was told how it ends.
    pub(super) fn is_ended(&self) -> bool {
        self.state.lock().end.is_some()
    }

    /// Whether another batch may be taken.
    pub(super) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state.lock();
        if state.own.len() < MAX_BATCHES || state.is_left {
            return Poll::Ready(());
        }
        state.intake = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Whether the reader is gone.
    pub(super) fn poll_left(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state.lock();
        if state.is_left {
            return Poll::Ready(());
        }
        state.intake = Some(cx.waker().clone());
        Poll::Pending
    }

    // The side that sends them.

    pub(super) fn view(&self) -> View {
        let state = self.state.lock();
        View {
            rooms: state.rooms.len(),
            start: state.start,
            limit: state.in_flight_after.unwrap_or(Seq::MAX),
            end: state.end.clone(),
            news: state.news,
        }
    }

    /// The rooms, as far as their first messages are known.
    pub(super) fn rooms(&self) -> Vec<Joined> {
        self.state.lock().rooms.clone()
    }

    /// Ready when there is news after `seen`.
    pub(super) fn poll_news(&self, seen: u64, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state.lock();
        if state.news != seen {
            return Poll::Ready(());
        }
        state.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Whether this stream said it. Asked in the order of seqs, and with none left out that the
    /// stream said.
    pub(super) fn is_own(&self, seq: Seq) -> bool {
        let mut state = self.state.lock();
        let was_full = state.own.len() >= MAX_BATCHES;
        while state.own.front().is_some_and(|(_, last)| *last < seq) {
            state.own.pop_front();
        }
        let is_own = state.own.front().is_some_and(|(first, _)| *first <= seq);
        let has_room = was_full && state.own.len() < MAX_BATCHES;
        let intake = if has_room { state.intake.take() } else { None };
        drop(state);
        if let Some(intake) = intake {
            intake.wake();
        }
        is_own
    }

    /// The reader is gone: nobody waits for what still comes.
    pub(super) fn leave(&self) {
        let mut state = self.state.lock();
        state.is_left = true;
        state.own.clear();
        let intake = state.intake.take();
        drop(state);
        if let Some(intake) = intake {
            intake.wake();
        }
    }
}
