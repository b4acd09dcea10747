//! What a watch does next: one pure function from an input to an action.
//!
//! Owns the position, the checks and the decision whether to go on, connect again, end or fail.
//! Must not know of time, sockets or tasks. Invariants: an event is delivered once, in order, and
//! without a hole on an unfiltered watch, over any number of attempts; `Fail` and `Finish` are the
//! last actions; only `Open` begins an attempt, and never while another is under way.

use std::time::Duration;

use crate::doubt::Doubts;
use crate::{Error, Kind};
use tailmark_record::OnLost;
use tailmark_record::{Cursor, Gap, Marker, MarkerKind, Seq};

/// What never changes over a watch.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// Every event of the log is wanted, so seqs must be contiguous.
    pub is_unfiltered: bool,
    /// 0 = none.
    pub limit: u64,
    pub until_caught_up: bool,
    pub on_lost: OnLost,
    /// A first attempt that cannot connect is tried again like any other.
    pub waits_for_server: bool,
}

/// What happened.
#[derive(Debug)]
pub(super) enum Input<'a> {
    /// The response headers came.
    Opened { cursor: Option<&'a str>, head: Option<Seq> },
    /// An event came.
    Event { seq: Seq, cursor: &'a [u8] },
    /// A marker came.
    Marker(&'a Marker),
    /// The server ended the stream with OK.
    Ended { cursor: Option<&'a str> },
    /// The attempt failed.
    Failed(Error),
    /// Nothing came for longer than heartbeats allow.
    Silent,
    /// The wait is over.
    Woke,
}

/// What to do.
#[derive(Debug)]
pub(super) enum Action {
    /// Hand over what just came.
    Deliver,
    /// Go on reading.
    Read,
    /// Begin an attempt at [`Machine::resume`].
    Open,
    /// Drop the attempt and wait; then tell `Woke`.
    Wait { cause: Error, at_least: Option<Duration>, fresh_connection: bool },
    /// The watch is complete.
    Finish,
    /// The watch has failed for good.
    Fail(Error),
}

/// What the current attempt has shown.
#[derive(Debug, Default)]
struct Attempt {
    /// Where it starts is settled.
    resumed: bool,
    /// A gap of unknown range moved the position; `RESUMED` may move it again.
    jumped: bool,
    caught_up: bool,
    /// An event was delivered.
    delivered: bool,
    /// The server said it is about to end.
    is_closing: bool,
    /// And how long to wait.
    retry_delay: Option<Duration>,
}

#[derive(Debug)]
pub(super) struct Machine {
    plan: Plan,
    /// Where the next attempt resumes; `None` until the server told.
    cursor: Option<Vec<u8>>,
    /// The seq of `cursor`: the last one passed.
    position: Option<Seq>,
    /// The server has said something that only it says: it is there, or was.
    has_met: bool,
    /// The head when the watch began.
    target: Option<Seq>,
    delivered: u64,
    attempts: u64,
    attempt: Attempt,
    doubts: Doubts,
    /// Something was heard since backing off last.
    made_progress: bool,
}

impl Machine {
    /// A watch that begins after `cursor`, or where its request says.
    pub(super) fn new(plan: Plan, cursor: Option<String>) -> Self {
        let position = cursor.as_deref().and_then(seq_of);
        Machine {
            plan,
            cursor: cursor.map(String::into_bytes),
            position,
            has_met: false,
            target: None,
            delivered: 0,
            attempts: 0,
            attempt: Attempt::default(),
            doubts: Doubts::default(),
            made_progress: false,
        }
    }

    /// The cursor to resume after.
    pub(super) fn cursor(&self) -> Option<&str> {
        self.cursor.as_deref().and_then(|cursor| std::str::from_utf8(cursor).ok())
    }

    /// The last seq passed.
    pub(super) fn position(&self) -> Option<Seq> {
        self.position
    }

    /// How many events the next attempt may deliver; 0 = no limit.
    pub(super) fn remaining(&self) -> u64 {
        self.plan.limit.saturating_sub(self.delivered)
    }

    /// Whether something was heard since this was asked last: time to forget the backoff.
    pub(super) fn take_progress(&mut self) -> bool {
        std::mem::take(&mut self.made_progress)
    }

    pub(super) fn step(&mut self, input: Input<'_>) -> Action {
        match input {
            Input::Woke => self.open(),
            Input::Opened { cursor, head } => self.opened(cursor, head),
            Input::Event { seq, cursor } => self.event(seq, cursor),
            Input::Marker(marker) => self.marker(marker),
            Input::Ended { cursor } => self.ended(cursor),
            Input::Failed(error) => self.failed(error),
            Input::Silent => {
                let cause = Error::new(Kind::Timeout, "the connection went silent");
                self.retry(cause, None, true)
            }
        }
    }

    fn open(&mut self) -> Action {
        self.attempts += 1;
        self.attempt = Attempt::default();
        Action::Open
    }

    fn opened(&mut self, cursor: Option<&str>, head: Option<Seq>) -> Action {
        self.doubts.admitted();
        self.has_met |= cursor.is_some();
        if self.target.is_none() {
            self.target = head;
        }
        // Later attempts say where they start too, but there our own position is the measure.
        if self.cursor.is_none()
            && let Some(cursor) = cursor
        {
            self.move_to(cursor.as_bytes(), seq_of(cursor));
        }
        Action::Read
    }

    fn event(&mut self, seq: Seq, cursor: &[u8]) -> Action {
        if self.is_complete() || self.is_beyond_target(seq) {
            return Action::Finish;
        }
        if let Some(position) = self.position {
            let in_order = match self.plan.is_unfiltered {
                true => seq == position.next(),
                false => seq > position,
            };
            if !in_order {
                return violation(format!("event {seq} came after {position}"));
            }
        }
        if cursor.is_empty() {
            return violation(format!("event {seq} came without a cursor"));
        }
        self.move_to(cursor, Some(seq));
        self.delivered += 1;
        self.has_met = true;
        self.attempt.delivered = true;
        self.doubts.forget();
        self.made_progress = true;
        Action::Deliver
    }

    /// Only a later attempt can see events that were not there when the watch began.
    fn is_beyond_target(&self, seq: Seq) -> bool {
        self.plan.until_caught_up
            && self.attempts > 1
            && self.target.is_some_and(|target| seq > target)
    }

    fn marker(&mut self, marker: &Marker) -> Action {
        self.has_met = true;
        let seq = seq_of(&marker.cursor);
        match marker.kind {
            MarkerKind::Other(_) => return Action::Read,
            MarkerKind::Gap => match marker.gap.filter(|gap| gap.to != Seq::ZERO) {
                Some(gap) => {
                    if let Err(error) = self.check_gap(gap, seq) {
                        return Action::Fail(error);
                    }
                    self.move_to(marker.cursor.as_bytes(), Some(gap.to));
                }
                // Of another history: how much is lost is not known, nor where it goes on.
                None => {
                    if seq.is_some() {
                        self.move_to(marker.cursor.as_bytes(), seq);
                    }
                    self.attempt.jumped = true;
                }
            },
            MarkerKind::Resumed => {
                let expected = self.position.filter(|_| !self.attempt.jumped);
                if let (Some(expected), Some(seq)) = (expected, seq)
                    && seq != expected
                {
                    return violation(format!("resumed after {seq} instead of {expected}"));
                }
                self.attempt.resumed = true;
                if seq.is_some() {
                    self.move_to(marker.cursor.as_bytes(), seq);
                }
            }
            MarkerKind::CaughtUp | MarkerKind::Heartbeat | MarkerKind::FellBehind => {
                if let Some(seq) = seq
                    && let Err(error) = self.pass(seq, &marker.cursor)
                {
                    return Action::Fail(error);
                }
                self.attempt.caught_up |= marker.kind == MarkerKind::CaughtUp;
                // Who has fallen behind is told so at each beginning.
                if marker.kind != MarkerKind::FellBehind {
                    self.doubts.forget();
                }
                self.made_progress = true;
            }
            MarkerKind::Closing => {
                self.attempt.is_closing = true;
                self.attempt.retry_delay = marker.retry_delay;
            }
        }
        Action::Deliver
    }

    /// A gap must name all that it passes.
    fn check_gap(&self, gap: Gap, passed: Option<Seq>) -> Result<(), Error> {
        let position = self.position.unwrap_or(gap.to);
        let leaves_out = self.plan.is_unfiltered && gap.from > position.next();
        let is_whole = gap.from <= gap.to && passed.is_none_or(|passed| passed == gap.to);
        if is_whole && !leaves_out && gap.to >= position {
            return Ok(());
        }
        let (Gap { from, to, .. }, cursor) = (gap, passed.unwrap_or(gap.to));
        let message =
            format!("a gap from {from} to {to} came after {position}, its cursor {cursor}");
        Err(Error::new(Kind::Protocol, message))
    }

    /// The server has looked as far as `seq` without finding more for us.
    fn pass(&mut self, seq: Seq, cursor: &str) -> Result<(), Error> {
        match self.position {
            Some(position) if seq <= position => Ok(()),
            Some(position) if self.plan.is_unfiltered => Err(Error::new(
                Kind::Protocol,
                format!("the server passed from {position} to {seq} without the events between"),
            )),
            _ => {
                self.move_to(cursor.as_bytes(), Some(seq));
                Ok(())
            }
        }
    }

    fn ended(&mut self, cursor: Option<&str>) -> Action {
        if let Some(cursor) = cursor
            && let Some(seq) = seq_of(cursor)
            && let Err(error) = self.pass(seq, cursor)
        {
            return Action::Fail(error);
        }
        if self.plan.until_caught_up && self.attempt.caught_up {
            return Action::Finish;
        }
        // Proxies turn a cut into an orderly end.
        let early = "the server ended the watch early";
        let what = if self.attempt.is_closing { "the server is stopping" } else { early };
        self.retry(Error::new(Kind::Unavailable, what), None, false)
    }

    fn failed(&mut self, error: Error) -> Action {
        if self.is_complete() {
            return Action::Finish;
        }
        let is_first = self.attempts <= 1 && !self.has_met;
        // A proxy that answers itself has not reached it either.
        let is_missing = error.kind() == Kind::Connect || error.is_foreign();
        if is_missing && is_first && !self.plan.waits_for_server {
            return Action::Fail(error);
        }
        // What was lost under way is jumped over at the next start, if the caller wants that. A
        // start behind the oldest event always jumps; damage may lie further on, and an attempt
        // that only ran into it again would be repeated for ever.
        let may_jump = self.plan.on_lost != OnLost::Fail
            && match error.kind() {
                Kind::Gone => self.attempt.resumed,
                Kind::Damaged => self.attempt.delivered,
                _ => false,
            };
        let passes = error.is_retryable() || (self.has_met && error.passes_once_met());
        if passes || may_jump {
            let hint = error.retry_delay();
            let is_broken = error.may_have_applied() || is_missing;
            return self.retry(error, hint, is_broken);
        }
        Action::Fail(error)
    }

    fn retry(&mut self, cause: Error, hint: Option<Duration>, fresh_connection: bool) -> Action {
        if self.is_complete() {
            return Action::Finish;
        }
        let cause = match self.doubts.weigh(cause) {
            Ok(cause) => cause,
            Err(error) => return Action::Fail(error),
        };
        let at_least = hint.or(self.attempt.retry_delay);
        Action::Wait { cause, at_least, fresh_connection }
    }

    /// Nothing more can come that the caller asked for.
    fn is_complete(&self) -> bool {
        let limit_reached = self.plan.limit > 0 && self.delivered >= self.plan.limit;
        // On the first attempt the server itself stops there, and says CAUGHT_UP before it does.
        let target_reached = self.plan.until_caught_up
            && self.attempts > 1
            && self.target.zip(self.position).is_some_and(|(target, at)| at >= target);
        limit_reached || target_reached
    }

    fn move_to(&mut self, cursor: &[u8], seq: Option<Seq>) {
        self.position = seq;
        if !cursor.is_empty() {
            // In place: this happens for every event.
            let own = self.cursor.get_or_insert_default();
            own.clear();
            own.extend_from_slice(cursor);
        }
    }
}

fn seq_of(cursor: &str) -> Option<Seq> {
    Cursor::parse(cursor).ok().map(Cursor::seq)
}

fn violation(message: String) -> Action {
    Action::Fail(Error::new(Kind::Protocol, message))
}
