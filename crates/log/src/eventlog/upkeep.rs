//! What the thread of retention is told to do.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Wakes the thread.
#[derive(Default)]
pub(super) struct Upkeep {
    due: Mutex<Due>,
    changed: Condvar,
}

#[derive(Clone, Copy, Default)]
pub(super) struct Due {
    pub reclaim: bool,
    pub look: bool,
    pub end: bool,
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
    pub fn wait(&self, interval: Option<Duration>) -> Due {
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
