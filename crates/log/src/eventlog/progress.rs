//! How far a reader is, for others to look at while it waits.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use super::interest::Registration;
use tailmark_record::Seq;

/// See the module.
#[derive(Debug, Default)]
pub struct Progress {
    next: AtomicU64,
    own_upto: AtomicU64,
    /// The seq after the last that it was said to be quiet up to. What is delivered then has nothing before it.
    handed_until: AtomicU64,
    registration: OnceLock<Arc<Registration>>,
}

impl Progress {
    pub(super) fn at(next: Seq) -> Progress {
        Progress { next: AtomicU64::new(next.get()), ..Progress::default() }
    }

    pub(super) fn moved(&self, next: Seq, own_upto: Seq) {
        self.own_upto.store(own_upto.get(), Ordering::Relaxed);
        self.next.store(next.get(), Ordering::Relaxed);
    }

    pub(super) fn sleeps_with(&self, registration: &Arc<Registration>) {
        // There is none before: a reader registers once.
        let _ = self.registration.set(registration.clone());
    }

    /// The seq that it delivers next.
    pub fn next(&self) -> Seq {
        Seq::new(self.next.load(Ordering::Relaxed))
    }

    /// The first seq that it may have to do with: the next one that it delivers, or, while it sleeps, the first that it
    /// has been woken for. `None` where that is nothing.
    pub fn waits_for(&self) -> Option<Seq> {
        match self.registration.get() {
            Some(registration) if self.sleeps() => registration.waits_for(),
            _ => Some(self.next()),
        }
    }

    /// The last seq of which it is known that nothing up to there concerns a sleeping reader; `None` where it does not
    /// sleep, or has been woken.
    pub fn quiet_upto(&self) -> Option<Seq> {
        let registration = self.registration.get().filter(|_| self.sleeps())?;
        let upto = registration.quiet_upto()?;
        // It may have moved meanwhile.
        let is_news = self.sleeps() && upto >= self.next();
        if is_news {
            self.handed_until.fetch_max(upto.next().get(), Ordering::Relaxed);
        }
        is_news.then_some(upto)
    }

    pub(super) fn handed_until(&self) -> Seq {
        Seq::new(self.handed_until.load(Ordering::Relaxed))
    }

    /// The reader goes back: it reads everything again.
    pub(super) fn forget(&self) {
        self.handed_until.store(0, Ordering::Relaxed);
    }

    /// Has a sleeping reader come to the head; it delivers a chunk, without an event where none concerns it.
    /// Nothing happens where it does not sleep, or is there.
    pub fn look(&self) {
        if let Some(registration) = self.registration.get().filter(|_| self.sleeps()) {
            registration.look();
        }
    }

    fn sleeps(&self) -> bool {
        self.next.load(Ordering::Relaxed) > self.own_upto.load(Ordering::Relaxed)
    }

    /// Its client is told that nothing up to here is left.
    pub fn told(&self, passed: Seq) {
        if let Some(registration) = self.registration.get() {
            registration.told(passed);
        }
    }
}
