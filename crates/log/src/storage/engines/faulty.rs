//! An engine that fails as it is told: for testing what is above.
//!
//! Wraps any other engine. Faults of appends are queued, one for each append to come; damage and
//! held reads stay until they are taken back. What it does not fail it passes on.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use crate::storage::{
    Chunk, Commit, Completion, Damage, Engine, Intercept, StoreError, StoreStatus,
};
use tailmark_record::topic::Filter;
use tailmark_record::{Fingerprint, Seq, Timestamp};

/// What becomes of one append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendFault {
    /// Nothing: it is passed on.
    Pass,
    /// Refused for want of room; nothing is stored.
    DiskFull,
    /// Refused as coming from an outdated writer; nothing is stored.
    Conflict,
    /// Fails before anything is stored, and does not say so; appends have stopped.
    LoseAndStop,
    /// Fails after it was stored; appends have stopped.
    StoreAndStop,
    /// Gets no answer at all; nothing is stored, appends have stopped.
    NoAnswer,
}

/// An engine with faults.
pub struct Faulty {
    inner: Arc<dyn Engine>,
    faults: Mutex<Faults>,
    released: Condvar,
}

#[derive(Default)]
struct Faults {
    appends: VecDeque<AppendFault>,
    is_full: bool,
    stopped: Option<&'static str>,
    damaged: Vec<(Seq, Seq)>,
    reads_held: bool,
    reads_waiting: usize,
    fingerprints_fail: bool,
    /// Calls that panic: looks at the fingerprints, and giving space back.
    panics: bool,
}

impl Faulty {
    /// Wraps an engine; no faults yet.
    pub fn new(inner: Arc<dyn Engine>) -> Faulty {
        Faulty { inner, faults: Mutex::default(), released: Condvar::new() }
    }

    /// Lets the next `passed` appends pass, and then this happen to one.
    pub fn fail_append(&self, passed: usize, fault: AppendFault) {
        let mut faults = self.faults.lock();
        faults.appends.extend(std::iter::repeat_n(AppendFault::Pass, passed));
        faults.appends.push_back(fault);
    }

    /// Fills the disk, or makes room again.
    pub fn set_full(&self, is_full: bool) {
        self.faults.lock().is_full = is_full;
    }

    /// Damages `from..=to`.
    pub fn damage(&self, from: Seq, to: Seq) {
        self.faults.lock().damaged.push((from, to));
    }

    /// Makes all whole again.
    pub fn repair(&self) {
        self.faults.lock().damaged.clear();
    }

    /// Fails every look at the fingerprints.
    pub fn fail_fingerprints(&self) {
        self.faults.lock().fingerprints_fail = true;
    }

    /// Makes every look at the fingerprints, and giving back space, panic; or none any more.
    pub fn set_panicking(&self, panics: bool) {
        self.faults.lock().panics = panics;
    }

    fn panic_if_told(&self) {
        let panics = self.faults.lock().panics;
        assert!(!panics, "a fault");
    }

    /// Makes every read from now on wait for [`Faulty::release_reads`].
    pub fn hold_reads(&self) {
        self.faults.lock().reads_held = true;
    }

    /// Lets all reads go on.
    pub fn release_reads(&self) {
        self.faults.lock().reads_held = false;
        self.released.notify_all();
    }

    /// Blocks until so many reads wait.
    pub fn wait_for_held_reads(&self, count: usize) {
        let mut faults = self.faults.lock();
        self.released.wait_while(&mut faults, |faults| faults.reads_waiting < count);
    }

    fn stop(&self, reason: &'static str) -> StoreError {
        self.faults.lock().stopped = Some(reason);
        let source = io::Error::other(reason);
        StoreError::Io { action: "write", path: PathBuf::from("fault"), source }
    }

    fn wait_while_held(&self) {
        let mut faults = self.faults.lock();
        if faults.reads_held {
            faults.reads_waiting += 1;
            self.released.notify_all();
            self.released.wait_while(&mut faults, |faults| faults.reads_held);
            faults.reads_waiting -= 1;
        }
    }

    /// Where a read from `from` must end because of damage after it.
    fn whole_until(&self, from: Seq, end: Seq) -> Result<Seq, StoreError> {
        let faults = self.faults.lock();
        let mut until = end;
        for &(first, last) in &faults.damaged {
            if (first..=last).contains(&from) {
                return Err(damage(first, last));
            }
            if first > from {
                until = until.min(first);
            }
        }
        Ok(until)
    }
}

fn damage(from: Seq, to: Seq) -> StoreError {
    Damage { from, to, file: PathBuf::from("fault"), detail: "damaged by a test".into() }.into()
}

impl Intercept for Faulty {
    fn inner(&self) -> &dyn Engine {
        &*self.inner
    }

    fn append(&self, commit: Commit, done: Completion) {
        let (fault, is_full, stopped) = {
            let mut faults = self.faults.lock();
            let fault = faults.appends.pop_front().unwrap_or(AppendFault::Pass);
            (fault, faults.is_full, faults.stopped)
        };
        if let Some(reason) = stopped {
            return done(Err(StoreError::Stopped { reason: reason.into() }));
        }
        let full = StoreError::DiskFull {
            available_bytes: 0,
            needed_bytes: (commit.events.len() + commit.delta.len()) as u64,
        };
        match fault {
            AppendFault::Pass if is_full => done(Err(full)),
            AppendFault::Pass => self.inner.append(commit, done),
            AppendFault::DiskFull => done(Err(full)),
            AppendFault::Conflict => {
                let (expected, next) = (commit.first, commit.first.next());
                done(Err(StoreError::Conflict { expected, next }));
            }
            AppendFault::LoseAndStop => done(Err(self.stop("lost by a test"))),
            AppendFault::StoreAndStop => {
                let error = self.stop("failed by a test");
                self.inner.append(commit, Box::new(move |_| done(Err(error))));
            }
            AppendFault::NoAnswer => drop((self.stop("left unanswered by a test"), done)),
        }
    }

    fn read(&self, from: Seq, end: Seq, filter: &Filter) -> Result<Chunk, StoreError> {
        self.wait_while_held();
        let until = self.whole_until(from, end)?;
        self.inner.read(from, until, filter)
    }

    fn time_of(&self, seq: Seq) -> Result<Timestamp, StoreError> {
        self.whole_until(seq, seq.next())?;
        self.inner.time_of(seq)
    }

    fn fingerprints(
        &self,
        from: Seq,
        visit: &mut dyn FnMut(Seq, Fingerprint) -> bool,
    ) -> Result<(), StoreError> {
        self.wait_while_held();
        self.panic_if_told();
        if self.faults.lock().fingerprints_fail {
            return Err(damage(Seq::ZERO, Seq::ZERO));
        }
        self.inner.fingerprints(from, visit)
    }

    fn reclaim(&self) -> Result<(), StoreError> {
        self.panic_if_told();
        self.inner.reclaim()
    }

    fn refusal(&self) -> Option<StoreError> {
        let (is_full, stopped) = {
            let faults = self.faults.lock();
            (faults.is_full, faults.stopped)
        };
        match stopped {
            Some(reason) => Some(StoreError::Stopped { reason: reason.into() }),
            None if is_full => Some(StoreError::DiskFull { available_bytes: 0, needed_bytes: 1 }),
            None => self.inner.refusal(),
        }
    }

    fn status(&self) -> StoreStatus {
        let trouble = self.faults.lock().stopped.map(str::to_owned);
        let inner = self.inner.status();
        StoreStatus { trouble: trouble.or(inner.trouble), ..inner }
    }
}
