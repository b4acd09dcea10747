//! How others tell the retention thread what to do.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::options::Retention;

/// Wakes the thread.
#[derive(Default)]
pub(super) struct Maintenance {
    due: Mutex<Due>,
    /// What is in force, or is soon.
    limits: Mutex<Retention>,
    changed: Condvar,
    /// Looks at the limits that are over.
    looks: AtomicU64,
    /// What was seen when, as many as are kept.
    marks: AtomicU64,
}

#[derive(Clone, Default)]
pub(super) struct Due {
    pub reclaim: bool,
    pub look: bool,
    pub end: bool,
    /// Other limits from now on, and how often they are looked at.
    pub limits: Option<(Retention, Duration)>,
}

impl Maintenance {
    /// Of a log that begins with these limits.
    pub(super) fn with(limits: Retention) -> Maintenance {
        Maintenance { limits: Mutex::new(limits), ..Maintenance::default() }
    }

    pub(super) fn limits(&self) -> Retention {
        self.limits.lock().clone()
    }

    /// Space below the trim mark can be given back.
    pub(super) fn reclaim_soon(&self) {
        self.set(|due| due.reclaim = true);
    }

    /// The limits are to be looked at now.
    pub(super) fn look_soon(&self) {
        self.set(|due| due.look = true);
    }

    /// Other limits are to be kept from now on.
    pub(super) fn set_limits(&self, retention: Retention, interval: Duration) {
        self.limits.lock().clone_from(&retention);
        self.set(|due| {
            due.limits = Some((retention, interval));
            due.look = true;
        });
    }

    /// The thread is to end.
    pub(super) fn end(&self) {
        self.set(|due| due.end = true);
    }

    /// A look at the limits is over, after which so many marks of what was seen are kept.
    pub(super) fn looked(&self, marks: usize) {
        self.marks.store(marks as u64, Ordering::SeqCst);
        self.looks.fetch_add(1, Ordering::SeqCst);
    }

    #[cfg(test)]
    pub(super) fn looks(&self) -> u64 {
        self.looks.load(Ordering::SeqCst)
    }

    #[cfg(test)]
    pub(super) fn marks(&self) -> u64 {
        self.marks.load(Ordering::SeqCst)
    }

    fn set(&self, change: impl FnOnce(&mut Due)) {
        change(&mut self.due.lock());
        self.changed.notify_all();
    }

    /// Waits until something is due, or for the interval.
    pub(super) fn wait(&self, interval: Option<Duration>) -> Due {
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
