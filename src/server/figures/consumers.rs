//! Consumers: watches that say what they are called, and what is told of each name.
//!
//! Names come from clients, so there is a bound: so many are known, and of all others together only the
//! sums are. A name is known on when its last watch has ended, with where it was, until another one needs
//! its place: that is how one sees that a consumer is gone and what it will have to catch up with.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::streams::Position;
use tailmark_record::Seq;

/// Names that are known at a time.
const NAMES: usize = 100;
/// What the others are told under; no name may be this.
pub(crate) const OTHERS: &str = "(others)";

#[derive(Debug, Default)]
pub(super) struct Consumers(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    named: HashMap<Box<str>, Arc<Consumer>>,
    others: Arc<Consumer>,
}

/// All watches of one name.
#[derive(Debug, Default)]
pub(super) struct Consumer {
    delivered: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last_id: u64,
    open: HashMap<u64, Arc<Position>>,
    /// Where the one that ended last was, and when it ended.
    left_at: Option<Seq>,
    left: Option<Instant>,
    /// When something was delivered last; before that, when the first one began.
    moved: Option<Instant>,
}

/// A watch among those of its name.
#[derive(Debug)]
pub(super) struct Member {
    consumer: Arc<Consumer>,
    id: u64,
    position: Arc<Position>,
    /// Where it was when it ended: later its reader may be gone.
    left_at: Option<Seq>,
}

/// What is told of a name.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ConsumerCount {
    pub(crate) name: Box<str>,
    /// Open now.
    pub(crate) watches: u64,
    /// Events delivered since the server started, or the name was known.
    pub(crate) delivered: u64,
    /// The first event that the one that is farthest behind has not looked at; `None` where it waits
    /// for nothing that there is.
    pub(crate) next: Option<Seq>,
    /// Since something was delivered last.
    pub(crate) idle: Duration,
    /// Events delivered a second, between the last two looks.
    pub(crate) rate: f64,
}

impl Consumers {
    /// One more watch of that name.
    pub(super) fn join(&self, name: &str, position: Arc<Position>) -> Member {
        let mut table = self.0.lock();
        let consumer = table.of(name);
        // Within the table's lock: nobody takes the place of one that is joined.
        let mut state = consumer.state.lock();
        state.last_id += 1;
        let id = state.last_id;
        state.open.insert(id, Arc::clone(&position));
        state.moved.get_or_insert_with(Instant::now);
        drop(state);
        Member { consumer, id, position, left_at: None }
    }

    pub(super) fn counts(&self) -> Vec<ConsumerCount> {
        let table = self.0.lock();
        let named = table.named.iter().map(|(name, consumer)| consumer.count(name));
        let mut counts: Vec<_> = named.collect();
        counts.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        let others = table.others.count(OTHERS);
        if others.watches > 0 || others.delivered > 0 {
            // Where they were is not known of each.
            let next = others.next.filter(|_| others.watches > 0);
            counts.push(ConsumerCount { next, ..others });
        }
        counts
    }
}

impl Table {
    fn of(&mut self, name: &str) -> Arc<Consumer> {
        if let Some(known) = self.named.get(name) {
            return Arc::clone(known);
        }
        if self.named.len() >= NAMES && !self.forget() {
            return Arc::clone(&self.others);
        }
        let consumer = Arc::<Consumer>::default();
        self.named.insert(name.into(), Arc::clone(&consumer));
        consumer
    }

    /// Forgets the name that has been gone longest; false where all of them are there.
    fn forget(&mut self) -> bool {
        let gone = self.named.iter().filter_map(|(name, consumer)| {
            let state = consumer.state.lock();
            state.open.is_empty().then(|| (state.left, name.clone()))
        });
        let oldest = gone.min();
        oldest.is_some_and(|(_, name)| self.named.remove(&name).is_some())
    }
}

impl Consumer {
    fn count(&self, name: &str) -> ConsumerCount {
        let state = self.state.lock();
        let next = if state.open.is_empty() {
            state.left_at
        } else {
            state.open.values().filter_map(|position| position.waits_for()).min()
        };
        ConsumerCount {
            name: name.into(),
            watches: state.open.len() as u64,
            delivered: self.delivered.load(Ordering::Relaxed),
            next,
            idle: state.moved.map(|at| at.elapsed()).unwrap_or_default(),
            rate: 0.0,
        }
    }
}

impl Member {
    /// It ends now.
    pub(super) fn ends(&mut self) {
        self.left_at = Some(self.position.left_at());
    }

    /// So many more events were delivered.
    pub(super) fn delivered(&self, events: u64) {
        self.consumer.delivered.fetch_add(events, Ordering::Relaxed);
        self.consumer.state.lock().moved = Some(Instant::now());
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut state = self.consumer.state.lock();
        state.open.remove(&self.id);
        state.left_at = Some(self.left_at.unwrap_or_else(|| self.position.left_at()));
        state.left = Some(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seq: u64) -> Arc<Position> {
        Arc::new(Position::new(Seq::new(seq)))
    }

    fn of<'a>(counts: &'a [ConsumerCount], name: &str) -> &'a ConsumerCount {
        counts.iter().find(|count| &*count.name == name).unwrap()
    }

    #[test]
    fn a_name_has_the_sum_of_its_watches_and_stays_when_they_are_gone() {
        let consumers = Consumers::default();
        let (ahead, behind) = (consumers.join("billing", at(9)), consumers.join("billing", at(4)));
        ahead.delivered(5);
        behind.delivered(2);
        let counts = consumers.counts();
        let billing = of(&counts, "billing");
        assert_eq!((counts.len(), billing.watches, billing.delivered), (1, 2, 7));
        assert_eq!(billing.next, Some(Seq::new(4)));
        drop(behind);
        assert_eq!(of(&consumers.counts(), "billing").next, Some(Seq::new(9)));
        drop(ahead);
        let counts = consumers.counts();
        let gone = of(&counts, "billing");
        assert_eq!((gone.watches, gone.delivered, gone.next), (0, 7, Some(Seq::new(9))));
        let back = consumers.join("billing", at(9));
        back.delivered(1);
        assert_eq!(of(&consumers.counts(), "billing").delivered, 8);
    }

    #[test]
    fn names_are_bounded_and_those_that_are_there_keep_their_place() {
        let consumers = Consumers::default();
        let open: Vec<_> = (0..NAMES).map(|n| consumers.join(&format!("n{n}"), at(1))).collect();
        let one_more = consumers.join("late", at(3));
        one_more.delivered(10);
        let two_more = consumers.join("later", at(2));
        let counts = consumers.counts();
        assert_eq!(counts.len(), NAMES + 1);
        let others = of(&counts, OTHERS);
        assert_eq!((others.watches, others.delivered, others.next), (2, 10, Some(Seq::new(2))));
        drop((one_more, two_more));
        let counts = consumers.counts();
        let others = of(&counts, OTHERS);
        assert_eq!((others.watches, others.delivered, others.next), (0, 10, None));
        // Who is gone gives way, the one that has been longest first.
        let mut open = open.into_iter();
        let (first, second) = (open.next().unwrap(), open.next().unwrap());
        first.delivered(1);
        drop(second);
        drop(first);
        let _newest = consumers.join("late", at(3));
        let counts = consumers.counts();
        assert_eq!(counts.iter().filter(|count| count.watches == 0).count(), 2, "others and one");
        assert_eq!(of(&counts, "late").watches, 1);
        assert!(counts.iter().all(|count| &*count.name != "n1"), "it left first");
        assert!(counts.iter().any(|count| &*count.name == "n0"));
    }
}
