//! The clock that events age by.

use std::time::Duration;

use tailmark_record::Timestamp;

/// How much faster than time itself the age clock catches up.
const CATCH_UP: u32 = 60;

/// The clock that events age by: the wall clock, but when that jumps forward this one goes after
/// it at most sixty times as fast as time passes. So a wrong clock never empties a log at one
/// stroke: a jump of a year takes six days to act, a week of being switched off under three hours.
/// It starts where it stood at the last trim, else at the log's last commit, and never goes beyond
/// the wall clock, but for that it never goes back.
#[derive(Clone, Copy, Debug)]
pub(super) struct AgeClock(Timestamp);

impl AgeClock {
    pub fn new(start: Timestamp) -> AgeClock {
        AgeClock(start)
    }

    /// Moves it after `elapsed`, and tells it: at most the wall clock.
    pub fn advance(&mut self, wall: Timestamp, elapsed: Duration) -> Timestamp {
        let step = i64::try_from(elapsed.saturating_mul(CATCH_UP).as_nanos()).unwrap_or(i64::MAX);
        let reach = Timestamp::from_nanos(self.0.as_nanos().saturating_add(step));
        self.0 = wall.min(reach).max(self.0);
        self.0.min(wall)
    }
}
