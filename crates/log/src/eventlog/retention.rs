//! Removing what is too old, too many or too large, and giving back space.
//!
//! Owns one thread that looks at the limits at intervals and asks the writer for a trim; the mark
//! is durable before any space is given back. Age goes by a clock of its own, [`AgeClock`].

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::core::Core;
use super::options::{Clock, Retention};
use super::queue::{TrimRequest, Work};
use crate::storage::StoreError;
use tailmark_record::{Seq, Timestamp};

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

/// Wakes the thread.
#[derive(Default)]
pub(super) struct Upkeep {
    due: Mutex<Due>,
    changed: Condvar,
}

#[derive(Clone, Copy, Default)]
struct Due {
    reclaim: bool,
    look: bool,
    end: bool,
}

impl Upkeep {
    /// Space below the trim mark can be given back.
    pub fn reclaim_soon(&self) {
        self.set(|due| due.reclaim = true);
    }

    /// The limits are to be looked at now.
    pub fn look_soon(&self) {
        self.set(|due| due.look = true);
    }

    /// The thread is to end.
    pub fn end(&self) {
        self.set(|due| due.end = true);
    }

    fn set(&self, change: impl FnOnce(&mut Due)) {
        change(&mut self.due.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }

    /// Waits until something is due, or for the interval.
    fn wait(&self, interval: Option<Duration>) -> Due {
        let idle = |due: &mut Due| !(due.reclaim || due.look || due.end);
        let due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        let mut due = match interval {
            Some(interval) => {
                let waited = self.changed.wait_timeout_while(due, interval, idle);
                let (mut due, result) = waited.unwrap_or_else(PoisonError::into_inner);
                due.look |= result.timed_out();
                due
            }
            None => self.changed.wait_while(due, idle).unwrap_or_else(PoisonError::into_inner),
        };
        let end = due.end;
        std::mem::replace(&mut due, Due { end, ..Due::default() })
    }
}

/// Whatever happens, the thread goes on: retention that ended would fill the disk without a word.
fn guarded(work: impl FnOnce() -> Result<(), StoreError>) -> Result<(), StoreError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        Err(StoreError::Stopped { reason: "the thread that does it panicked".into() })
    })
}

pub(super) struct Keeper {
    pub core: Arc<Core>,
    pub retention: Retention,
    pub interval: Duration,
    pub clock: Clock,
    pub age_clock: AgeClock,
}

impl Keeper {
    /// Works until it is told to end.
    pub fn run(mut self) {
        let interval = (self.retention != Retention::default()).then_some(self.interval);
        let mut looked_at = Instant::now();
        loop {
            let due = self.core.upkeep.wait(interval);
            if due.look && !due.end {
                let now = Instant::now();
                let elapsed = now.duration_since(looked_at);
                looked_at = now;
                let result = guarded(|| self.enforce(elapsed));
                self.report("retention", result);
            }
            if due.reclaim {
                let result = guarded(|| self.core.engine.reclaim());
                self.report("giving back space", result);
            }
            if due.end {
                return;
            }
        }
    }

    /// A problem stays to be seen until the same work has succeeded.
    fn report(&self, what: &str, result: Result<(), StoreError>) {
        let mut trouble = self.core.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(()) if trouble.as_ref().is_some_and(|text| text.starts_with(what)) => {
                *trouble = None
            }
            Ok(()) => {}
            Err(error) => {
                let text = format!("{what}: {error}");
                if trouble.as_ref() != Some(&text) {
                    tracing::error!(%error, "{what} does not work; it is tried again");
                }
                *trouble = Some(text);
            }
        }
    }

    /// Trims what is beyond the limits.
    fn enforce(&mut self, elapsed: Duration) -> Result<(), StoreError> {
        let wall = (self.clock)();
        let aged_to = self.age_clock.advance(wall, elapsed);
        let before = self.trim_point(aged_to)?;
        if before <= self.core.published.borrow().oldest {
            return Ok(());
        }
        let (reply, answer) = oneshot::channel();
        let request = TrimRequest { before, age_clock: Some(aged_to), reply };
        // A log that is closing or has stopped trims nothing, and has said so elsewhere.
        if self.core.queue.push(Work::Trim(request)).is_ok() {
            let _ = answer.blocking_recv();
        }
        Ok(())
    }

    /// The first seq that no limit removes.
    fn trim_point(&self, aged_to: Timestamp) -> Result<Seq, StoreError> {
        let now = *self.core.published.borrow();
        let end = now.head.next();
        let mut point = now.oldest;
        if let Some(max) = self.retention.max_events {
            point = point.max(Seq::new(end.get().saturating_sub(max)));
        }
        if let Some(max) = self.retention.max_age {
            point = point.max(self.core.engine.seek_time(aged_to.before(max))?);
        }
        if let Some(max) = self.retention.max_bytes {
            let excess = self.core.engine.status().disk_bytes.saturating_sub(max);
            // What holds no events goes first.
            let released = if excess > 0 { self.core.engine.release(excess)? } else { 0 };
            let excess = excess.saturating_sub(released);
            if excess > 0 {
                point = point.max(self.core.engine.trim_point_for_bytes(excess, end));
            }
        }
        Ok(point.min(end))
    }
}
