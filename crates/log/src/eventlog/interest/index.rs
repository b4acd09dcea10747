//! The index of sleeping readers by what they want, and how far it has been asked.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::signal::{Signal, Woken};
use crate::width::to_u32;
use tailmark_record::Seq;
use tailmark_record::topic::{Filter, PatternIndex};

/// At most so many readers are woken a second to say how far they have looked, which costs nobody much. Where more
/// are due, each says it less often.
const TOLD_PER_SECOND: u64 = 500;
/// Topics and readers that are gone through while the index is locked, about: others want to come and go.
const NOTES_PER_LOCK: usize = 1024;
/// How long the matcher waits before it wakes more of those that are due.
const TOLD_INTERVAL: Duration = Duration::from_millis(10);

/// See the module.
#[derive(Debug, Default)]
pub(in crate::eventlog) struct Interest {
    /// Taken before any signal's lock.
    index: Mutex<Index>,
    /// Readers in the index.
    len: AtomicUsize,
    /// All up to this seq has been matched for every reader that does not read it by itself.
    examined: AtomicU64,
    /// Nothing is locked while this is.
    is_poked: Mutex<bool>,
    poke: Condvar,
    /// Some that are due to tell how far they are had to wait for their turn.
    is_telling: AtomicBool,
    is_closed: AtomicBool,
}

#[derive(Debug, Default)]
struct Index {
    patterns: PatternIndex<u32>,
    signals: Vec<Option<Arc<Signal>>>,
    free: Vec<u32>,
    /// Where each was told last when it was put here, about in that order.
    to_report: VecDeque<(u64, Weak<Signal>)>,
    /// Those told within the present second.
    reported: Option<(Instant, u64)>,
}

/// A reader in the index. Dropped, it leaves.
#[derive(Debug)]
pub(in crate::eventlog) struct Registration {
    interest: Arc<Interest>,
    signal: Arc<Signal>,
    filter: Arc<Filter>,
    id: u32,
}

impl Interest {
    /// Puts a reader in the index. It has to read by itself up to the head that it finds published after
    /// this. `head` asks for the one that is published now; `passed` is how far its client knows of.
    ///
    /// The writer publishes a head, then looks whether somebody is here; a reader enters, then looks at the head. Both
    /// look at it under its lock, so either the writer sees the reader or the reader sees that head.
    pub(in crate::eventlog) fn register(
        self: &Arc<Self>,
        filter: Arc<Filter>,
        report: (Seq, u64),
        head: impl FnOnce() -> Seq,
    ) -> Registration {
        let (passed, report_every) = report;
        let signal = Arc::new(Signal::new(passed, report_every));
        let id = {
            let mut index = self.index.lock();
            if index.patterns.is_empty() {
                // Nobody wanted to know of what was published before.
                self.examined(head());
            }
            let id = match index.free.pop() {
                Some(id) => id,
                None => {
                    index.signals.push(None);
                    to_u32(index.signals.len() - 1)
                }
            };
            if let Some(slot) = index.signals.get_mut(id as usize) {
                *slot = Some(signal.clone());
            }
            for pattern in filter.patterns() {
                index.patterns.insert(pattern, id);
            }
            if let Some((reported, _)) = signal.report_after() {
                // Those who have left lie there until their turn comes.
                if index.to_report.len() > 2 * index.signals.len() + 64 {
                    index.to_report.retain(|(_, signal)| signal.strong_count() > 0);
                }
                index.to_report.push_back((reported, Arc::downgrade(&signal)));
            }
            self.len.fetch_add(1, Ordering::Relaxed);
            id
        };
        Registration { interest: self.clone(), signal, filter, id }
    }

    /// A head was published. Costs next to nothing while nobody sleeps.
    pub(in crate::eventlog) fn poke(&self) {
        if self.len.load(Ordering::Relaxed) > 0 {
            self.poke_anyway();
        }
    }

    fn poke_anyway(&self) {
        let was_poked = std::mem::replace(&mut *self.is_poked.lock(), true);
        if !was_poked {
            self.poke.notify_one();
        }
    }

    /// Waits for a poke; false when the log is closed.
    pub(in crate::eventlog) fn wait(&self) -> bool {
        let mut is_poked = self.is_poked.lock();
        while !*is_poked && !self.is_closed() {
            if self.is_telling.load(Ordering::Relaxed) {
                if self.poke.wait_for(&mut is_poked, TOLD_INTERVAL).timed_out() {
                    break;
                }
            } else {
                self.poke.wait(&mut is_poked);
            }
        }
        *is_poked = false;
        !self.is_closed()
    }

    /// Wakes everybody for good.
    pub(in crate::eventlog) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        self.poke_anyway();
        let index = self.index.lock();
        index.signals.iter().flatten().for_each(|signal| signal.wake());
    }

    pub(in crate::eventlog) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }

    /// How far it has been asked.
    pub(in crate::eventlog) fn examined_upto(&self) -> Seq {
        Seq::new(self.examined.load(Ordering::Acquire))
    }

    /// All up to here has been matched, or concerns nobody in the index.
    pub(in crate::eventlog) fn examined(&self, upto: Seq) {
        self.examined.fetch_max(upto.get(), Ordering::Release);
    }

    /// Readers in it.
    pub(in crate::eventlog) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Notes events of some topics, each with its first and last seq, until the index has been locked for long enough.
    /// Adds who is to be woken; true when there may be more topics.
    pub(in crate::eventlog) fn matched<'a>(
        &self,
        topics: &mut impl Iterator<Item = (&'a str, Seq, Seq)>,
        woken: &mut Waking,
    ) -> bool {
        let index = self.index.lock();
        let mut notes = 0;
        while notes < NOTES_PER_LOCK {
            let Some((topic, first, last)) = topics.next() else { return false };
            notes += 1;
            index.patterns.each(topic, |&id| {
                notes += 1;
                if let Some(Some(signal)) = index.signals.get(id as usize)
                    && signal.note(first, last)
                {
                    woken.0.push(signal.clone());
                }
            });
        }
        true
    }

    /// What lies between is not known: it may concern everybody.
    pub(in crate::eventlog) fn missed(&self, first: Seq, last: Seq, woken: &mut Waking) {
        let index = self.index.lock();
        for signal in index.signals.iter().flatten() {
            if signal.note(first, last) {
                woken.0.push(signal.clone());
            }
        }
    }

    /// Wakes those whose clients have long not heard how far the log has come, some at a time.
    pub(in crate::eventlog) fn report(&self, head: Seq, now: Instant) {
        let mut index = self.index.lock();
        let (began, mut count) = match index.reported {
            Some((began, count)) if now.duration_since(began) < Duration::from_secs(1) => {
                (began, count)
            }
            _ => (now, 0),
        };
        let mut is_left = false;
        while let Some((key, signal)) = index.to_report.front() {
            let Some(signal) = signal.upgrade() else {
                index.to_report.pop_front();
                continue;
            };
            let Some((reported, due)) = signal.report_after() else {
                index.to_report.pop_front();
                continue;
            };
            let is_stale = reported > *key;
            if !is_stale && due > head.get() {
                break;
            }
            if !is_stale && count >= TOLD_PER_SECOND {
                is_left = true;
                break;
            }
            index.to_report.pop_front();
            if is_stale {
                index.to_report.push_back((reported, Arc::downgrade(&signal)));
                continue;
            }
            count += 1;
            signal.note_passed(head);
            index.to_report.push_back((head.get(), Arc::downgrade(&signal)));
            signal.look();
        }
        index.reported = Some((began, count));
        self.is_telling.store(is_left, Ordering::Relaxed);
    }
}

/// Readers to be woken once nothing is locked any more.
#[derive(Debug, Default)]
pub(in crate::eventlog) struct Waking(Vec<Arc<Signal>>);

#[cfg(test)]
impl Waking {
    pub(in crate::eventlog) fn len(&self) -> usize {
        self.0.len()
    }

    pub(in crate::eventlog) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
impl Interest {
    pub(in crate::eventlog) fn waiting_to_tell(&self) -> usize {
        self.index.lock().to_report.len()
    }

    /// Whether nothing is left of those who were here.
    pub(in crate::eventlog) fn is_bare(&self) -> bool {
        let index = self.index.lock();
        index.patterns.is_empty() && index.signals.iter().all(Option::is_none)
    }
}

#[cfg(test)]
impl Registration {
    /// What was noted.
    pub(in crate::eventlog) fn noted(&self) -> Option<Woken> {
        self.signal.take()
    }
}

impl Waking {
    pub(in crate::eventlog) fn wake(self) {
        self.0.iter().for_each(|signal| signal.wake());
    }
}

impl Registration {
    /// What was noted, and how far the index had been asked before: nothing up to there concerns this reader that
    /// is not in it.
    pub(in crate::eventlog) fn take(&self) -> (Seq, Option<Woken>) {
        // In this order: what is examined has been noted.
        let examined = self.interest.examined_upto();
        (examined, self.signal.take())
    }

    /// Waits until something is noted, or was since the last time.
    pub(in crate::eventlog) async fn woken(&self) {
        self.signal.woken().await;
    }

    /// Wakes this reader, to look how far the log has come.
    pub(in crate::eventlog) fn look(&self) {
        self.signal.look();
    }

    /// Its client is about to know that nothing up to here is left.
    pub(in crate::eventlog) fn note_passed(&self, passed: Seq) {
        self.signal.note_passed(passed);
    }

    /// The last seq up to which nothing concerns this reader that it has not read by itself or taken; `None` if something
    /// is noted.
    pub(in crate::eventlog) fn quiet_upto(&self) -> Option<Seq> {
        // In this order, as for what is taken.
        let examined = self.interest.examined_upto();
        self.signal.waits_for().is_none().then_some(examined)
    }

    /// The first event that is noted and not taken.
    pub(in crate::eventlog) fn waits_for(&self) -> Option<Seq> {
        self.signal.waits_for()
    }

    /// The log is closed: nothing is matched any more.
    pub(in crate::eventlog) fn is_closed(&self) -> bool {
        self.interest.is_closed()
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut index = self.interest.index.lock();
        for pattern in self.filter.patterns() {
            let is_removed = index.patterns.remove(pattern, &self.id);
            debug_assert!(is_removed, "a reader was not in the index under all of its patterns");
        }
        let signal = index.signals.get_mut(self.id as usize).and_then(Option::take);
        index.free.push(self.id);
        self.interest.len.fetch_sub(1, Ordering::Relaxed);
        drop(index);
        drop(signal);
    }
}
