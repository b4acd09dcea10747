//! How far a reader is, for others to look at while it waits.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::interest::{Registration, Woken};
use tailmark_record::Seq;

/// See the module. May be asked from anywhere, at any time.
#[derive(Debug, Default)]
pub struct Progress(Mutex<Position>);

#[derive(Debug, Default)]
struct Position {
    /// What is delivered next.
    next: Seq,
    /// What the reader reads by itself. Beyond that it sleeps until it is woken.
    own_upto: Seq,
    /// The seq after the last that it was said to be quiet up to. What is delivered then has nothing before it.
    handed_until: Seq,
    /// The reader's place in the index; dead where it has none.
    registration: Weak<Registration>,
}

impl Position {
    /// The place in the index of a reader that sleeps.
    fn asleep(&self) -> Option<Arc<Registration>> {
        if self.next > self.own_upto { self.registration.upgrade() } else { None }
    }
}

impl Progress {
    pub(super) fn at(next: Seq) -> Progress {
        Progress(Mutex::new(Position { next, ..Position::default() }))
    }

    /// The reader has moved, or reads by itself up to another seq. Answers up to before which it was said to be quiet.
    pub(super) fn moved(&self, next: Seq, own_upto: Seq) -> Seq {
        let mut position = self.0.lock();
        (position.next, position.own_upto) = (next, own_upto);
        position.handed_until
    }

    /// The reader goes back, and reads everything again.
    pub(super) fn went_back(&self, next: Seq, own_upto: Seq) {
        let mut position = self.0.lock();
        (position.next, position.own_upto, position.handed_until) = (next, own_upto, Seq::ZERO);
    }

    /// The reader is in the index, and reads by itself up to a seq.
    pub(super) fn registered(&self, registration: &Arc<Registration>, own_upto: Seq) {
        let mut position = self.0.lock();
        (position.own_upto, position.registration) = (own_upto, Arc::downgrade(registration));
    }

    /// Takes what the reader was woken for, so that nobody is told in between that it sleeps.
    pub(super) fn take(&self, registration: &Registration) -> (Seq, Option<Woken>) {
        let mut position = self.0.lock();
        let (examined, woken) = registration.take();
        if let Some(Woken::Matched(_, last)) = woken {
            position.own_upto = position.own_upto.max(last);
        }
        (examined, woken)
    }

    /// The seq that the reader delivers next.
    pub fn next(&self) -> Seq {
        self.0.lock().next
    }

    /// The first seq that the reader may have to do with: the next one that it delivers, or, while it sleeps, the first
    /// that it has been woken for. `None` where that is nothing.
    pub fn waits_for(&self) -> Option<Seq> {
        let position = self.0.lock();
        match position.asleep() {
            Some(registration) => registration.waits_for(),
            None => Some(position.next),
        }
    }

    /// The last seq up to which nothing concerns a reader that sleeps; `None` where it does not sleep, or has
    /// been woken. From then on it delivers nothing before that seq.
    pub fn quiet_upto(&self) -> Option<Seq> {
        let mut position = self.0.lock();
        let upto = position.asleep()?.quiet_upto()?;
        let is_news = upto >= position.next;
        if is_news {
            position.handed_until = position.handed_until.max(upto.next());
        }
        is_news.then_some(upto)
    }

    /// Has a reader that sleeps deliver what it knows of what it slept through, a chunk without an event, or what
    /// lies before the head. Nothing happens where it does not sleep, or is at the head.
    pub fn look(&self) {
        let registration = self.0.lock().asleep();
        if let Some(registration) = registration {
            registration.look();
        }
    }

    /// The reader's client knows that nothing up to here is left.
    pub fn note_passed(&self, passed: Seq) {
        let registration = self.0.lock().registration.upgrade();
        if let Some(registration) = registration {
            registration.note_passed(passed);
        }
    }
}
