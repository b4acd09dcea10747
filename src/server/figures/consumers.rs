//! Consumers: watches that say what they are called, and what is told of each name.
//!
//! Names come from clients, so there is a bound: so many are known, and of all others together only the
//! sums are. A name is known on when its last watch has ended, with where it was, until another one needs
//! its place: that is how one sees that a consumer is gone and what it will have to catch up with.
//!
//! What was handed to a connection may wait in buffers for long, so a client can say what it is done with
//! (decision 0035). Of one that does, only that counts as delivered.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use uuid::Uuid;

use super::streams::Position;
use tailmark_record::Seq;

/// Names that are known at a time.
const NAMES: usize = 100;
/// What the others are told under; no name may be this.
pub(crate) const OTHERS: &str = "(others)";
/// Between name and number in the id that a client gets; in no name.
const PARTS: char = '~';

#[derive(Debug)]
pub(super) struct Consumers {
    table: Mutex<Table>,
    /// Tells ids of this server from those that one before it gave.
    run: Uuid,
}

impl Default for Consumers {
    fn default() -> Self {
        Consumers { table: Mutex::default(), run: Uuid::new_v4() }
    }
}

/// What becomes of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reported {
    Taken,
    /// No such watch, or none any more.
    Unknown,
    /// It was of a server that has stopped.
    OfEarlierRun,
}

#[derive(Debug, Default)]
struct Table {
    named: HashMap<Box<str>, Arc<Consumer>>,
    others: Arc<Consumer>,
}

/// What a watch is called.
#[derive(Debug)]
pub(crate) struct WatchName {
    name: Box<str>,
    /// Tells it from others of the name. At random: it is all that a report has to know.
    id: Uuid,
    /// Its client says what is done.
    reports: bool,
}

/// All watches of one name.
#[derive(Debug, Default)]
pub(super) struct Consumer {
    done: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    open: HashMap<Uuid, Arc<Place>>,
    /// The one that ended last.
    left: Option<Left>,
    /// When an event was done last; before that, when the first one began.
    moved: Option<Instant>,
}

/// How far a watch is.
#[derive(Debug)]
struct Place {
    position: Arc<Position>,
    /// Events handed to its connection, and of those done, where its client reports that.
    handed: AtomicU64,
    done: Option<AtomicU64>,
}

#[derive(Debug)]
struct Left {
    id: Uuid,
    place: Arc<Place>,
    next: Seq,
    when: Instant,
}

/// A watch among those of its name.
#[derive(Debug)]
pub(super) struct Member {
    consumer: Arc<Consumer>,
    id: Uuid,
    place: Arc<Place>,
    /// Where it was when it ended: later its reader may be gone.
    left_at: Option<Seq>,
}

/// What is told of a name.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ConsumerCount {
    pub(crate) name: Box<str>,
    /// Open now.
    pub(crate) watches: u64,
    /// Events done since the server started, or the name was known.
    pub(crate) delivered: u64,
    /// Events that the one farthest behind has to come, or has and is not done with.
    pub(crate) lag: u64,
    /// Since an event was done last.
    pub(crate) idle: Duration,
    /// Events done a second, between the last two looks.
    pub(crate) rate: f64,
}

impl WatchName {
    pub(crate) fn new(name: &str, reports: bool) -> WatchName {
        WatchName { name: name.into(), id: Uuid::new_v4(), reports }
    }
}

impl Consumers {
    /// The id under which the client of a watch may report.
    pub(super) fn reported_as(&self, watch: &WatchName) -> Option<String> {
        let (name, run, id) = (&watch.name, self.run.simple(), watch.id.simple());
        watch.reports.then(|| format!("{name}{PARTS}{run}{PARTS}{id}"))
    }

    /// One more watch of that name.
    pub(super) fn join(&self, name: &WatchName, position: Arc<Position>) -> Member {
        let (id, done) = (name.id, name.reports.then(AtomicU64::default));
        let place = Arc::new(Place { position, handed: AtomicU64::new(0), done });
        let mut table = self.table.lock();
        let consumer = table.of(&name.name);
        // Within the table's lock: nobody takes the place of one that is joined.
        let mut state = consumer.state.lock();
        state.open.insert(id, Arc::clone(&place));
        state.moved.get_or_insert_with(Instant::now);
        drop(state);
        Member { consumer, id, place, left_at: None }
    }

    /// So many events of a watch are done.
    pub(super) fn progress(&self, watch: &str, done: u64) -> Reported {
        let mut parts = watch.split(PARTS);
        let name = parts.next().unwrap_or_default();
        let mut id = || parts.next().and_then(|part| Uuid::try_parse(part).ok());
        let (Some(run), Some(id)) = (id(), id()) else { return Reported::Unknown };
        if run != self.run {
            return Reported::OfEarlierRun;
        }
        let table = self.table.lock();
        // One of the others keeps its place there when its name becomes known.
        let named = table.named.get(name).map(|it| &**it);
        let mut all = named.into_iter().chain([&*table.others]);
        match all.any(|consumer| consumer.progress(id, done)) {
            true => Reported::Taken,
            false => Reported::Unknown,
        }
    }

    pub(super) fn counts(&self, head: Seq) -> Vec<ConsumerCount> {
        let table = self.table.lock();
        let named = table.named.iter().map(|(name, consumer)| consumer.count(name, head));
        let mut counts: Vec<_> = named.collect();
        counts.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        let others = table.others.count(OTHERS, head);
        if others.watches > 0 || others.delivered > 0 {
            // Where they were is not known of each.
            let lag = if others.watches > 0 { others.lag } else { 0 };
            counts.push(ConsumerCount { lag, ..others });
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
            let left = state.left.as_ref().map(|left| left.when);
            state.open.is_empty().then(|| (left, name.clone()))
        });
        let oldest = gone.min();
        oldest.is_some_and(|(_, name)| self.named.remove(&name).is_some())
    }
}

impl Consumer {
    fn count(&self, name: &str, head: Seq) -> ConsumerCount {
        let state = self.state.lock();
        let lag = match &state.left {
            Some(left) if state.open.is_empty() => left.place.behind(Some(left.next), head),
            _ => {
                let all = state.open.values();
                all.map(|it| it.behind(it.position.waits_for(), head)).max().unwrap_or(0)
            }
        };
        ConsumerCount {
            name: name.into(),
            watches: state.open.len() as u64,
            delivered: self.done.load(Ordering::Relaxed),
            lag,
            idle: state.moved.map(|at| at.elapsed()).unwrap_or_default(),
            rate: 0.0,
        }
    }

    fn progress(&self, id: Uuid, done: u64) -> bool {
        let mut state = self.state.lock();
        let left = state.left.as_ref().filter(|left| left.id == id).map(|left| &left.place);
        let Some(place) = state.open.get(&id).or(left) else { return false };
        let Some(known) = &place.done else { return false };
        // No more than it has, whatever its client says.
        let done = done.min(place.handed.load(Ordering::Relaxed));
        let more = done.saturating_sub(known.fetch_max(done, Ordering::Relaxed));
        if more > 0 {
            self.done.fetch_add(more, Ordering::Relaxed);
            state.moved = Some(Instant::now());
        }
        true
    }
}

impl Place {
    /// Events from `next` to the head, and those that were handed over and are not done.
    fn behind(&self, next: Option<Seq>, head: Seq) -> u64 {
        let to_come = next.map_or(0, |next| next.distance_to(head.next()));
        let undone = self.done.as_ref().map_or(0, |done| {
            let handed = self.handed.load(Ordering::Relaxed);
            handed.saturating_sub(done.load(Ordering::Relaxed))
        });
        to_come.saturating_add(undone)
    }
}

impl Member {
    /// It ends now.
    pub(super) fn ends(&mut self) {
        self.left_at = Some(self.place.position.left_at());
    }

    /// So many more events were handed to its connection.
    pub(super) fn handed(&self, events: u64) {
        self.place.handed.fetch_add(events, Ordering::Relaxed);
        if self.place.done.is_none() {
            self.consumer.done.fetch_add(events, Ordering::Relaxed);
            self.consumer.state.lock().moved = Some(Instant::now());
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let next = self.left_at.unwrap_or_else(|| self.place.position.left_at());
        let mut state = self.consumer.state.lock();
        if let Some(place) = state.open.remove(&self.id) {
            state.left = Some(Left { id: self.id, place, next, when: Instant::now() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seq: u64) -> Arc<Position> {
        Arc::new(Position::new(Seq::new(seq)))
    }

    fn join(consumers: &Consumers, name: &str, next: u64) -> Member {
        consumers.join(&WatchName::new(name, false), at(next))
    }

    /// With the head at 10.
    fn counts(consumers: &Consumers) -> Vec<ConsumerCount> {
        consumers.counts(Seq::new(10))
    }

    fn of<'a>(counts: &'a [ConsumerCount], name: &str) -> &'a ConsumerCount {
        counts.iter().find(|count| &*count.name == name).unwrap()
    }

    #[test]
    fn a_name_has_the_sum_of_its_watches_and_stays_when_they_are_gone() {
        let consumers = Consumers::default();
        let (ahead, behind) = (join(&consumers, "billing", 9), join(&consumers, "billing", 4));
        ahead.handed(5);
        behind.handed(2);
        let all = counts(&consumers);
        let billing = of(&all, "billing");
        assert_eq!((all.len(), billing.watches, billing.delivered), (1, 2, 7));
        assert_eq!(billing.lag, 7);
        drop(behind);
        assert_eq!(of(&counts(&consumers), "billing").lag, 2);
        drop(ahead);
        let all = counts(&consumers);
        let gone = of(&all, "billing");
        assert_eq!((gone.watches, gone.delivered, gone.lag), (0, 7, 2));
        let back = join(&consumers, "billing", 9);
        back.handed(1);
        assert_eq!(of(&counts(&consumers), "billing").delivered, 8);
    }

    #[test]
    fn what_one_that_reports_has_in_its_buffers_counts_as_lag_until_it_is_done() {
        let consumers = Consumers::default();
        let name = WatchName::new("slow", true);
        let id = consumers.reported_as(&name).unwrap();
        let progress = |done| consumers.progress(&id, done) == Reported::Taken;
        let slow = consumers.join(&name, at(9));
        let figures = || {
            let count = of(&counts(&consumers), "slow").clone();
            (count.watches, count.delivered, count.lag)
        };
        slow.handed(8);
        assert_eq!(figures(), (1, 0, 2 + 8));
        assert!(progress(3));
        assert_eq!(figures(), (1, 3, 2 + 5));
        // Late, double, and more than there is.
        assert!(progress(1) && progress(3));
        assert_eq!(figures(), (1, 3, 2 + 5));
        assert!(progress(100));
        assert_eq!(figures(), (1, 8, 2));
        slow.handed(4);
        // Who leaves may still say what was done.
        drop(slow);
        assert_eq!(figures(), (0, 8, 2 + 4));
        assert!(progress(10));
        assert_eq!(figures(), (0, 10, 2 + 2));
        let again = WatchName::new("slow", true);
        let back = consumers.join(&again, at(9));
        drop(back);
        assert_eq!(figures(), (0, 10, 2));
        assert!(!progress(12), "another one has left since");
        assert_eq!(consumers.reported_as(&WatchName::new("slow", false)), None);
        for unknown in ["", "slow", "slow~", "slow~x", "slow~~", &id.replace("slow", "fast")] {
            assert_eq!(consumers.progress(unknown, 1), Reported::Unknown, "{unknown}");
        }
        assert_eq!(Consumers::default().progress(&id, 1), Reported::OfEarlierRun);
    }

    #[test]
    fn one_of_the_others_reports_too_also_when_its_name_becomes_known() {
        let consumers = Consumers::default();
        let mut open: Vec<_> = (0..NAMES).map(|n| join(&consumers, &format!("n{n}"), 11)).collect();
        let name = WatchName::new("late", true);
        let late = consumers.join(&name, at(11));
        late.handed(5);
        assert_eq!(of(&counts(&consumers), OTHERS).lag, 5);
        drop(open.pop());
        let known = join(&consumers, "late", 11);
        let id = consumers.reported_as(&name).unwrap();
        assert_eq!(consumers.progress(&id, 4), Reported::Taken);
        let all = counts(&consumers);
        assert_eq!((of(&all, OTHERS).lag, of(&all, "late").lag), (1, 0));
        drop((open, known, late));
    }

    #[test]
    fn names_are_bounded_and_those_that_are_there_keep_their_place() {
        let consumers = Consumers::default();
        let open: Vec<_> = (0..NAMES).map(|n| join(&consumers, &format!("n{n}"), 1)).collect();
        let one_more = join(&consumers, "late", 3);
        one_more.handed(10);
        let two_more = join(&consumers, "later", 2);
        let all = counts(&consumers);
        assert_eq!(all.len(), NAMES + 1);
        let others = of(&all, OTHERS);
        assert_eq!((others.watches, others.delivered, others.lag), (2, 10, 9));
        drop((one_more, two_more));
        let all = counts(&consumers);
        let others = of(&all, OTHERS);
        assert_eq!((others.watches, others.delivered, others.lag), (0, 10, 0));
        // Who is gone gives way, the one that has been longest first.
        let mut open = open.into_iter();
        let (first, second) = (open.next().unwrap(), open.next().unwrap());
        first.handed(1);
        drop(second);
        drop(first);
        let _newest = join(&consumers, "late", 3);
        let all = counts(&consumers);
        assert_eq!(all.iter().filter(|count| count.watches == 0).count(), 2, "others and one");
        assert_eq!(of(&all, "late").watches, 1);
        assert!(all.iter().all(|count| &*count.name != "n1"), "it left first");
        assert!(all.iter().any(|count| &*count.name == "n0"));
    }
}
