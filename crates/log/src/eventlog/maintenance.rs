//! What the thread of retention is told to do.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// Wakes the thread.
#[derive(Default)]
pub(super) struct Maintenance {
    due: Mutex<Due>,
    changed: Condvar,
}

#[derive(Clone, Copy, Default)]
pub(super) struct Due {
    pub reclaim: bool,
    pub look: bool,
    pub end: bool,
}

impl Maintenance {
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
        change(&mut self.due.lock());
        self.changed.notify_all();
    }

    /// Waits until something is due, or for the interval.
    pub fn wait(&self, interval: Option<Duration>) -> Due {
        let idle = |due: &mut Due| !(due.reclaim || due.look || due.end);
        let mut due = self.due.lock();
        match interval {
            Some(interval) => {
                let waited = self.changed.wait_while_for(&mut due, idle, interval);
                due.look |= waited.timed_out();
            }
            None => self.changed.wait_while(&mut due, idle),
        }
        let end = due.end;
        std::mem::replace(&mut *due, Due { end, ..Due::default() })
    }
}
