//! The threads behind the engine: one marks pauses, one seals, one compares the files of segments
//! that have been read. All hold it weakly, so that dropping the engine ends them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use super::LocalEngine;
use super::work::{Signals, Trouble, Work};
use crate::storage::StoreError;
use crate::storage::error::chain;

/// How often the sealer looks for slots that have grown old and tries again after trouble, and the
/// marker looks after the sealer, and whether the log is still where it was opened.
const POLL: Duration = Duration::from_secs(1);

/// How often a thread that is to end is looked at.
const JOIN_POLL: Duration = Duration::from_millis(2);

/// Name of the thread that seals.
const SEALER: &str = "tailmark-seal";

impl LocalEngine {
    /// Starts the threads.
    pub(super) fn start_threads(self: &Arc<Self>) -> Result<(), StoreError> {
        let spawn = |name: &str, run: fn(&Weak<LocalEngine>, &Work)| {
            let (engine, work) = (Arc::downgrade(self), Arc::clone(&self.work));
            thread::Builder::new()
                .name(name.to_owned())
                .spawn(move || run(&engine, &work))
                .map_err(StoreError::io("start a thread for", &self.dir))
        };
        let threads = vec![
            spawn("tailmark-mark", run_marker)?,
            spawn(SEALER, run_sealer)?,
            spawn("tailmark-compare", run_comparer)?,
        ];
        *self.threads.lock() = threads;
        self.work.signal(|signals| signals.seal = true);
        Ok(())
    }

    pub(super) fn join_threads(&self) {
        let begun = Instant::now();
        for thread in std::mem::take(&mut *self.threads.lock()) {
            // A build under way is waited for; one that hangs inside sled must not keep the daemon
            // from ending: what it was building is built again at the next start.
            let patience = match self.work.has_given_up_sealing() {
                // Known to hang; only the other thread is worth waiting for.
                true if thread.thread().name() == Some(SEALER) => Duration::ZERO,
                _ => self.options.seal_timeout,
            };
            while !thread.is_finished() && begun.elapsed() < patience {
                thread::sleep(JOIN_POLL);
            }
            if !thread.is_finished() {
                tracing::error!(thread = thread.thread().name(), "left behind: it does not end");
            } else if thread.thread().id() != thread::current().id() {
                // A thread that panicked has nothing left to say; its work is found at the start.
                let _ = thread.join();
            }
        }
    }

    /// Notes that everything so far was synced. `true` when it is noted.
    fn mark_pause(&self, seen: u64) -> bool {
        let mut journal = self.journal.lock();
        if self.work.appends.load(Ordering::SeqCst) != seen {
            return false;
        }
        self.work.signals.lock().mark = false;
        if let Err(error) = journal.mark() {
            tracing::error!(error = %chain(&error), "cannot mark a pause");
            self.note_broken(&journal);
        }
        true
    }
}

/// Waits until `wanted`, for `timeout` at most; `false` when the engine is closing.
fn wait(work: &Work, timeout: Duration, wanted: impl Fn(&Signals) -> bool) -> bool {
    let mut signals = work.signals.lock();
    let idle = |signals: &mut Signals| !work.is_closing() && !wanted(signals);
    work.changed.wait_while_for(&mut signals, idle, timeout);
    drop(signals);
    !work.is_closing()
}

fn run_marker(engine: &Weak<LocalEngine>, work: &Work) {
    let mut watchdog = Watchdog::default();
    let mut checked = Instant::now();
    while wait(work, POLL, |signals| signals.mark) {
        let Some(pause) = engine.upgrade().map(|engine| {
            watchdog.look(&engine);
            if checked.elapsed() >= POLL {
                checked = Instant::now();
                // Noted, and said by itself; appends and sealing go by it.
                let _ = engine.check_claim();
            }
            engine.options.mark_after
        }) else {
            return;
        };
        if !work.signals.lock().mark {
            continue;
        }
        let seen = work.appends.load(Ordering::SeqCst);
        if !wait(work, pause, |_| false) {
            return;
        }
        let Some(engine) = engine.upgrade() else { return };
        engine.mark_pause(seen);
    }
}

fn run_sealer(engine: &Weak<LocalEngine>, work: &Work) {
    while wait(work, POLL, |signals| signals.seal) {
        work.signals.lock().seal = false;
        let Some(engine) = engine.upgrade() else { return };
        let pass = || engine.seal_pass().and_then(|()| engine.store_slot_files());
        // Whoever waits for a slot must hear of it, whatever happens here.
        let result = catch_unwind(AssertUnwindSafe(pass)).unwrap_or_else(|_| {
            Err(StoreError::Busy { reason: "the sealing thread panicked".to_owned() })
        });
        if work.has_given_up_sealing() {
            tracing::error!("sealing has come to an end after all; it is not begun again");
            return;
        }
        match result {
            Ok(()) => *work.trouble.lock() = None,
            Err(error) => engine.note_trouble(&error),
        }
        engine.slot_freed.notify_all();
        if work.trouble.lock().is_some() {
            drop(engine);
            wait(work, POLL, |_| false);
        }
    }
}

/// One segment in so long: it reads as much as nobody else asked for.
fn run_comparer(engine: &Weak<LocalEngine>, work: &Work) {
    while wait(work, POLL, |_| false) {
        let Some(engine) = engine.upgrade() else { return };
        // What panics over a file must not end the thread for all others.
        let _ = catch_unwind(AssertUnwindSafe(|| engine.cache.compare_next(Instant::now())));
    }
}

/// Notices that sealing hangs: sled can wait for ever inside a flush.
struct Watchdog {
    beats: u64,
    since: Instant,
}

impl Default for Watchdog {
    fn default() -> Self {
        Watchdog { beats: 0, since: Instant::now() }
    }
}

impl Watchdog {
    fn look(&mut self, engine: &LocalEngine) {
        let beats = engine.work.sealing.lock().as_ref().map(|progress| progress.beats());
        let Some(beats) = beats.filter(|beats| *beats == self.beats) else {
            self.beats = beats.unwrap_or_default();
            self.since = Instant::now();
            return;
        };
        let stuck = self.since.elapsed();
        if stuck < engine.options.seal_timeout {
            return;
        }
        let mut trouble = engine.work.trouble.lock();
        if !matches!(*trouble, Some(Trouble::Hangs { .. })) {
            let hangs = Trouble::Hangs { step: beats, timeout: engine.options.seal_timeout };
            tracing::error!(%hangs, "sealing hangs; appends go on while there are slots");
            *trouble = Some(hangs);
            drop(trouble);
            engine.slot_freed.notify_all();
        }
    }
}
