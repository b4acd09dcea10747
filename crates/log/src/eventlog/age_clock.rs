//! How old events are: by their stamps and a clock that does not jump, or by when they were seen.

use std::collections::VecDeque;
use std::time::Duration;

use tailmark_record::{Seq, Timestamp};

/// How much faster than time itself the age clock catches up.
const CATCH_UP: u32 = 60;

/// The clock that events age by: the wall clock, but when that jumps forward this one goes after
/// it at most sixty times as fast as time passes. So a wrong clock never empties a log at one
/// stroke: a jump of a year takes six days to act, a week of being switched off under three hours.
/// It starts where it stood at the last trim, else at the log's last commit, but not beyond the wall
/// clock, and never goes beyond that; but for that it never goes back.
#[derive(Clone, Copy, Debug)]
pub(super) struct AgeClock(Timestamp);

impl AgeClock {
    pub(super) fn new(start: Timestamp) -> AgeClock {
        AgeClock(start)
    }

    /// The wall clock was known to have come so far; never beyond `wall`.
    pub(super) fn raise(&mut self, known: Timestamp, wall: Timestamp) {
        self.0 = self.0.max(known.min(wall));
    }

    /// Moves it after `elapsed`, and tells it: at most the wall clock.
    pub(super) fn advance(&mut self, wall: Timestamp, elapsed: Duration) -> Timestamp {
        let step = i64::try_from(elapsed.saturating_mul(CATCH_UP).as_nanos()).unwrap_or(i64::MAX);
        let reach = Timestamp::from_nanos(self.0.as_nanos().saturating_add(step));
        self.0 = wall.min(reach).max(self.0);
        self.0.min(wall)
    }
}

/// What was there when, by time that has passed rather than by any clock. Stamps say nothing where a
/// clock was ahead when they were made (all later stamps are no earlier), or is behind now; but what
/// was seen so long ago is at least so old.
#[derive(Debug)]
pub(super) struct Seen {
    /// Between two marks.
    spacing: Duration,
    /// The head, and when it was the head; both only go up.
    marks: VecDeque<(Seq, Duration)>,
}

/// Marks within the age that is asked about: what is removed is older by one part in so many at most.
const MARKS: u32 = 256;
/// Those, one that is older than all of them, and one that has just come.
const MOST_MARKS: usize = MARKS as usize + 2;

impl Seen {
    /// For questions about `age`.
    pub(super) fn for_age(age: Duration) -> Seen {
        Seen { spacing: age / MARKS, marks: VecDeque::new() }
    }

    /// For questions about another age from now on. What was seen stays, as far as it is asked about.
    pub(super) fn set_age(&mut self, age: Duration) {
        self.spacing = age / MARKS;
        let mut last: Option<Duration> = None;
        let spacing = self.spacing;
        self.marks.retain(|(_, at)| {
            let is_kept = last.is_none_or(|last| at.saturating_sub(last) >= spacing);
            last = if is_kept { Some(*at) } else { last };
            is_kept
        });
    }

    /// The head is `head` now.
    pub(super) fn note(&mut self, head: Seq, now: Duration) {
        // Whatever is asked, and whether or not it is: there is an end to what is kept.
        let has_room = self.marks.len() < MOST_MARKS;
        let is_due = self
            .marks
            .back()
            .is_none_or(|(seen, at)| *seen < head && now.saturating_sub(*at) >= self.spacing);
        if is_due && has_room {
            self.marks.push_back((head, now));
        }
    }

    /// The last event that is known to be at least `age` old; 0 = none.
    pub(super) fn older_than(&mut self, age: Duration, now: Duration) -> Seq {
        let is_old = |mark: &(Seq, Duration)| now.saturating_sub(mark.1) >= age;
        // The last of those that are old stands for all before it.
        while self.marks.len() > 1 && self.marks.get(1).is_some_and(is_old) {
            self.marks.pop_front();
        }
        self.marks.front().filter(|mark| is_old(mark)).map_or(Seq::ZERO, |(head, _)| *head)
    }

    /// As many as are kept.
    pub(super) fn marks(&self) -> usize {
        self.marks.len()
    }
}
