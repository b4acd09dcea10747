//! The retention thread: removes what is too old, too many or too large, and gives back space.
//!
//! It looks at the limits at intervals and asks the writer for a trim. The trim mark is durable
//! before any space is given back. Events age by a clock of their own, [`AgeClock`], and by when
//! they were [`Seen`].

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::age_clock::{AgeClock, Seen};
use super::core::Core;
use super::options::{Clock, Elapsed, Retention};
use super::queue::{TrimRequest, Work};
use super::trouble::Job;
use crate::storage::StoreError;
use tailmark_record::{ChainTag, Seq, Timestamp};

/// Whatever happens, the thread goes on: retention that ended would fill the disk without a word.
fn guarded(work: impl FnOnce() -> Result<(), StoreError>) -> Result<(), StoreError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        Err(StoreError::Stopped { reason: "the thread that does it panicked".into() })
    })
}

pub(super) struct RetentionThread {
    pub core: Arc<Core>,
    pub retention: Retention,
    pub interval: Duration,
    pub clock: Clock,
    pub elapsed: Elapsed,
    pub age_clock: AgeClock,
    pub seen: Seen,
    /// What was there when, as the store knows it from before the start.
    pub stored: Vec<(Seq, Timestamp)>,
}

impl RetentionThread {
    /// Works until it is told to end.
    pub(super) fn run(mut self) {
        let mut looked_at = (self.elapsed)();
        // What is there at the start was there before it.
        self.note(looked_at);
        self.look_at_store();
        loop {
            let is_asked =
                self.retention != Retention::default() || !self.core.topic_keeper.rules().is_idle();
            let interval = is_asked.then_some(self.interval);
            let due = self.core.maintenance.wait(interval);
            if let Some((retention, interval)) = due.limits {
                self.take_limits(retention, interval);
            }
            if due.look && !due.end {
                let now = (self.elapsed)();
                let passed = now.saturating_sub(looked_at);
                looked_at = now;
                let result = guarded(|| self.enforce(now, passed));
                self.core.troubles.note(Job::Retention, result);
                self.core.maintenance.looked(self.seen.marks());
            }
            if due.reclaim {
                let result = guarded(|| self.core.store.reclaim());
                self.core.troubles.note(Job::Reclaim, result);
            }
            if due.end {
                return;
            }
        }
    }

    /// Other limits. What was seen under those before was seen all the same.
    fn take_limits(&mut self, retention: Retention, interval: Duration) {
        if let Some(age) = retention.max_age.filter(|age| self.retention.max_age != Some(*age)) {
            self.seen.set_age(age);
        }
        (self.retention, self.interval) = (retention, interval);
        self.look_at_store();
    }

    /// What is stamped ahead of the clock was there before the start, or before its age was asked
    /// about: else a log that is opened again and again would never let go of it.
    fn look_at_store(&mut self) {
        if self.retention.max_age.is_none() {
            return;
        }
        let wall = (self.clock)();
        self.stored = self.core.store.seen(wall);
        if let Some((_, last)) = self.stored.last() {
            self.age_clock.raise(*last, wall);
        }
    }

    /// Notes what is there, if it will ever be asked about.
    fn note(&mut self, now: Duration) {
        if self.retention.max_age.is_some() {
            self.seen.note(self.core.reads.published.borrow().head, now);
        }
    }

    /// Trims what is beyond the limits.
    fn enforce(&mut self, now: Duration, passed: Duration) -> Result<(), StoreError> {
        let wall = (self.clock)();
        let aged_to = self.age_clock.advance(wall, passed);
        self.core.topic_keeper.aged_to(aged_to);
        self.note(now);
        let before = self.trim_point(aged_to, now)?;
        if before <= self.core.reads.published.borrow().oldest {
            return Ok(());
        }
        let (reply, answer) = oneshot::channel();
        let tag = match before.prev() {
            Seq::ZERO => Some(ChainTag::START),
            // Damage must not keep what comes after it from being removed.
            last => self.core.store.tag_of(last).ok(),
        };
        let request = TrimRequest { before, tag, age_clock: Some(aged_to), reply };
        // A log that is closing or has stopped trims nothing, and has said so elsewhere.
        if self.core.queue.push(Work::Trim(request)).is_ok() {
            let _ = answer.blocking_recv();
        }
        Ok(())
    }

    /// The first seq that no limit removes.
    fn trim_point(&mut self, aged_to: Timestamp, passed: Duration) -> Result<Seq, StoreError> {
        let now = *self.core.reads.published.borrow();
        let end = now.head.next();
        let mut point = now.oldest;
        if let Some(max) = self.retention.max_events {
            // What rules for topics took out, or damage, is none of them.
            point = point.max(self.core.store.trim_point_for_events(max, end));
        }
        if let Some(max) = self.retention.max_age {
            point = point.max(self.core.store.seek_time(aged_to.before(max))?);
            point = point.max(self.seen.older_than(max, passed).next());
            // By the clock that does not jump, as by stamps.
            let until = aged_to.before(max);
            let old = self.stored.partition_point(|(_, at)| *at <= until);
            if let Some((head, _)) = old.checked_sub(1).and_then(|last| self.stored.get(last)) {
                point = point.max(head.next());
            }
        }
        if let Some(max) = self.retention.max_bytes {
            // What holds no events goes first, and is not trimmed for.
            let excess = self.core.store.status().disk_bytes.saturating_sub(max);
            if excess > 0 {
                self.core.store.release(excess)?;
            }
            point = point.max(self.core.store.trim_point_for_size(max, end));
        }
        Ok(point.min(end))
    }
}
