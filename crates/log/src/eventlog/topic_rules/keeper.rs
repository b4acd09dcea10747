//! The rules in force, and when they are looked at.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::{TopicPass, TopicRetention, TopicRules};
use crate::storage::TakenOut;
use tailmark_record::{Seq, Timestamp};

/// The rules, and what has come of them.
#[derive(Default)]
pub(in crate::eventlog) struct TopicKeeper {
    state: Mutex<State>,
    changed: Condvar,
    /// What tells repeats of events from here on is needed.
    repeats_from: AtomicU64,
    /// How often events were taken out.
    removals: AtomicU64,
}

#[derive(Default)]
struct State {
    report: TopicRetention,
    /// How far the clock is that events age by.
    aged_to: Option<Timestamp>,
    /// The rules are others than those that were looked at last.
    has_changed: bool,
    has_ended: bool,
    /// How often it is looked.
    interval: Duration,
}

/// What the thread finds when it looks.
pub(in crate::eventlog) struct Look {
    pub(in crate::eventlog) rules: Arc<TopicRules>,
    pub(in crate::eventlog) aged_to: Option<Timestamp>,
    /// The rules have changed since the last look.
    pub(in crate::eventlog) has_changed: bool,
}

impl TopicKeeper {
    /// The log is being opened.
    pub(in crate::eventlog) fn begin(
        &self,
        rules: TopicRules,
        interval: Duration,
        repeats_from: Seq,
    ) {
        self.repeats_from(repeats_from);
        let mut state = self.state.lock();
        state.report.rules = Arc::new(rules);
        (state.has_changed, state.interval) = (true, interval);
    }

    /// It is looked so often from now on.
    pub(in crate::eventlog) fn set_interval(&self, interval: Duration) {
        let mut state = self.state.lock();
        state.has_changed |= state.interval != interval;
        state.interval = interval;
        drop(state);
        self.changed.notify_all();
    }

    pub(in crate::eventlog) fn set(&self, rules: TopicRules) {
        let mut state = self.state.lock();
        if *state.report.rules != rules {
            state.report.rules = Arc::new(rules);
            // It counts events of other rules.
            state.report.last = None;
            state.has_changed = true;
            drop(state);
            self.changed.notify_all();
        }
    }

    pub(in crate::eventlog) fn rules(&self) -> Arc<TopicRules> {
        Arc::clone(&self.state.lock().report.rules)
    }

    pub(in crate::eventlog) fn report(&self) -> TopicRetention {
        self.state.lock().report.clone()
    }

    /// The clock that events age by has come so far.
    pub(in crate::eventlog) fn aged_to(&self, aged_to: Timestamp) {
        let is_first = self.state.lock().aged_to.replace(aged_to).is_none();
        if is_first {
            self.changed.notify_all();
        }
    }

    /// The clock that events age by, if anybody has looked at it yet.
    pub(in crate::eventlog) fn age_clock(&self) -> Option<Timestamp> {
        self.state.lock().aged_to
    }

    /// No repeat of an event below this is told any more.
    pub(in crate::eventlog) fn repeats_from(&self, from: Seq) {
        self.repeats_from.store(from.get(), Ordering::Relaxed);
    }

    pub(in crate::eventlog) fn needs_repeats_from(&self) -> Seq {
        Seq::new(self.repeats_from.load(Ordering::Relaxed))
    }

    /// How often events were taken out.
    pub(in crate::eventlog) fn removals(&self) -> u64 {
        self.removals.load(Ordering::SeqCst)
    }

    /// The thread is to end.
    pub(in crate::eventlog) fn end(&self) {
        self.state.lock().has_ended = true;
        self.changed.notify_all();
    }

    pub(in crate::eventlog) fn has_ended(&self) -> bool {
        self.state.lock().has_ended
    }

    /// Waits for a while, or until it ends.
    pub(in crate::eventlog) fn pause(&self, time: Duration) {
        let mut state = self.state.lock();
        self.changed.wait_while_for(&mut state, |state| !state.has_ended, time);
    }

    /// Waits until there is something to look at: after the interval while there are rules that remove anything.
    /// `None` at the end.
    pub(in crate::eventlog) fn wait(&self) -> Option<Look> {
        let mut state = self.state.lock();
        let is_idle = |state: &mut State| !(state.has_changed || state.has_ended);
        if state.report.rules.is_idle() {
            self.changed.wait_while(&mut state, is_idle);
        } else {
            let interval = state.interval;
            self.changed.wait_while_for(&mut state, is_idle, interval);
        }
        if state.has_ended {
            return None;
        }
        let has_changed = std::mem::take(&mut state.has_changed);
        let (rules, aged_to) = (Arc::clone(&state.report.rules), state.aged_to);
        Some(Look { rules, aged_to, has_changed })
    }

    pub(in crate::eventlog) fn running(&self, is_running: bool) {
        self.state.lock().report.is_running = is_running;
    }

    /// Events were taken out, and what is read from here on does not have them.
    pub(in crate::eventlog) fn taken(&self, taken: &TakenOut) {
        self.removals.fetch_add(1, Ordering::SeqCst);
        let report = &mut self.state.lock().report;
        report.expired += taken.expired;
        report.compacted += taken.compacted;
        report.freed_bytes += taken.freed_bytes;
        report.segments += 1;
    }

    pub(in crate::eventlog) fn passed(&self, rules: &Arc<TopicRules>, pass: TopicPass) {
        let report = &mut self.state.lock().report;
        report.passes += 1;
        if Arc::ptr_eq(&report.rules, rules) {
            report.last = Some(Arc::new(pass));
        }
    }
}
