//! What one sleeping reader is told.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use tailmark_record::Seq;

/// Between the matcher and one reader.
#[derive(Debug)]
pub(super) struct Signal {
    notify: Notify,
    noted: Mutex<Noted>,
    /// Where the reader stood when it last gave its client a sign.
    reported: AtomicU64,
    /// Events passed over after which it wants to be woken to give another; 0 = never.
    report_every: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Noted {
    /// The first and the last event noted and not taken yet.
    matched: Option<(Seq, Seq)>,
    /// It is to look how far the log has come.
    look: bool,
}

/// Why a reader is awake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::eventlog) enum Woken {
    /// Events from the first to the last may concern it. None before the first does, as far as the index was
    /// asked before this was taken.
    Matched(Seq, Seq),
    /// To move on without events.
    Look,
}

impl Signal {
    pub(super) fn new(passed: Seq, report_every: u64) -> Signal {
        let reported = AtomicU64::new(passed.get());
        Signal { notify: Notify::new(), noted: Mutex::default(), reported, report_every }
    }

    /// Notes events that match; answers whether the reader has to be woken.
    pub(super) fn note(&self, first: Seq, last: Seq) -> bool {
        let mut noted = self.noted.lock();
        match &mut noted.matched {
            // It has been woken and has not come yet.
            Some((known_first, known_last)) => {
                *known_first = first.min(*known_first);
                *known_last = last.max(*known_last);
                false
            }
            None => {
                noted.matched = Some((first, last));
                true
            }
        }
    }

    /// Wakes the reader, or lets it not fall asleep.
    pub(super) fn wake(&self) {
        self.notify.notify_one();
    }

    /// Wakes it to look how far the log has come.
    pub(super) fn look(&self) {
        self.noted.lock().look = true;
        self.wake();
    }

    /// What was noted.
    pub(super) fn take(&self) -> Option<Woken> {
        let Noted { matched, look } = std::mem::take(&mut *self.noted.lock());
        match matched {
            Some((first, last)) => Some(Woken::Matched(first, last)),
            None => look.then_some(Woken::Look),
        }
    }

    /// The first event that waits for the reader.
    pub(super) fn waits_for(&self) -> Option<Seq> {
        self.noted.lock().matched.map(|(first, _)| first)
    }

    pub(super) async fn woken(&self) {
        self.notify.notified().await;
    }

    /// Its client knows that nothing up to here concerned it.
    pub(super) fn note_passed(&self, passed: Seq) {
        self.reported.fetch_max(passed.get(), Ordering::Relaxed);
    }

    /// Where it was told last, and after which seq it is to be told again.
    pub(super) fn report_after(&self) -> Option<(u64, u64)> {
        let reported = self.reported.load(Ordering::Relaxed);
        (self.report_every > 0).then(|| (reported, reported.saturating_add(self.report_every)))
    }
}
