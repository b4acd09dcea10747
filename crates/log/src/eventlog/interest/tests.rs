//! That no wake-up is missing: every order of the steps of a writer, the matcher and a reader, with up to so many
//! changes from one to another where none is forced.

use std::sync::Arc;

use super::index::{Interest, Registration, Waking};
use super::signal::Woken;
use tailmark_record::topic::{Filter, Pattern};
use tailmark_record::{Limits, Seq};

/// Changes that no actor was forced to.
const PREEMPTIONS: usize = 3;
/// Whether the reader wants each event.
const EVENTS: [bool; 5] = [false, true, true, false, true];
/// The first and last event of each commit. Within one, later events are noted before earlier ones.
const COMMITS: [(u64, u64); 4] = [(1, 1), (2, 3), (4, 4), (5, 5)];
/// Times that the reader wakes for nothing.
const FALSE_ALARMS: usize = 1;

/// What is done in another order than it must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// The reader looks at the head, then registers.
    HeadFirst,
    /// The reader takes what was noted, then looks how far it was examined.
    TakeFirst,
    /// The matcher says that it has examined a commit, then notes what it matched.
    ExaminedFirst,
    /// The writer looks who sleeps, then publishes.
    PokeFirst,
    /// The reader believes that nothing lies before the first event that was noted, examined or not.
    TrustNoted,
    /// One that is noted is not woken.
    NoWake,
}

struct World {
    fault: Fault,
    interest: Arc<Interest>,
    head: u64,
    is_poked: bool,
    /// Noted, and to be woken once the commit has been examined.
    is_to_wake: bool,
    writer: Writer,
    matcher: Matcher,
    reader: Reader,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Writer {
    Publish(usize),
    Poke(usize),
    Done,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Matcher {
    Sleep,
    Look,
    Count(u64),
    /// Notes an event; those before it in its commit come after.
    Note {
        seq: u64,
        first: u64,
        last: u64,
        upto: u64,
    },
    Examined {
        first: u64,
        last: u64,
        upto: u64,
    },
    Done(u64),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    LookAtHead,
    Register,
    LookAgain,
    Examined,
    Take,
    Sleep,
}

struct Reader {
    step: Step,
    registration: Option<Registration>,
    old_head: u64,
    examined: u64,
    noted: Option<Woken>,
    next: u64,
    is_woken: bool,
    false_alarms: usize,
    seen: Vec<u64>,
}

impl Reader {
    /// Reads from one seq to another.
    fn read(&mut self, from: u64, upto: u64) {
        for seq in from.max(self.next)..=upto {
            if EVENTS[seq as usize - 1] {
                self.seen.push(seq);
            }
        }
        self.next = self.next.max(upto + 1);
    }
}

impl World {
    fn new(fault: Fault) -> World {
        let reader = Reader {
            step: Step::LookAtHead,
            registration: None,
            old_head: 0,
            examined: 0,
            noted: None,
            next: 1,
            is_woken: false,
            false_alarms: 0,
            seen: Vec::new(),
        };
        let (writer, matcher) = (Writer::Publish(0), Matcher::Sleep);
        World {
            fault,
            interest: Arc::default(),
            head: 0,
            is_poked: false,
            is_to_wake: false,
            writer,
            matcher,
            reader,
        }
    }

    /// Does the next step of an actor; false if it has none.
    fn step(&mut self, actor: usize) -> bool {
        match actor {
            0 => self.write(),
            1 => self.match_some(),
            _ => self.read(),
        }
    }

    fn write(&mut self) -> bool {
        let last = COMMITS.len() - 1;
        let poke = |world: &mut World| world.is_poked |= world.interest.len() > 0;
        let publish = |world: &mut World, commit: usize| world.head = COMMITS[commit].1;
        let is_turned = self.fault == Fault::PokeFirst;
        self.writer = match self.writer {
            Writer::Publish(seq) => {
                if is_turned {
                    poke(self)
                } else {
                    publish(self, seq)
                }
                Writer::Poke(seq)
            }
            Writer::Poke(seq) => {
                if is_turned {
                    publish(self, seq)
                } else {
                    poke(self)
                }
                if seq == last { Writer::Done } else { Writer::Publish(seq + 1) }
            }
            Writer::Done => return false,
        };
        true
    }

    fn note(&mut self, seq: u64) {
        let mut woken = Waking::default();
        let topic = if EVENTS[seq as usize - 1] { "wanted" } else { "other" };
        let seq = Seq::new(seq);
        assert!(!self.interest.matched(&mut [(topic, seq, seq)].into_iter(), &mut woken));
        self.is_to_wake |= !woken.is_empty();
    }

    fn next_commit(&self, next: u64, upto: u64) -> Matcher {
        match COMMITS.iter().find(|(first, last)| (*first..=*last).contains(&next)) {
            Some(&(first, last)) if next <= upto => Matcher::Note { seq: last, first, last, upto },
            _ => Matcher::Done(upto),
        }
    }

    fn match_some(&mut self) -> bool {
        let is_turned = self.fault == Fault::ExaminedFirst;
        self.matcher = match self.matcher {
            Matcher::Sleep if self.is_poked => {
                self.is_poked = false;
                Matcher::Look
            }
            Matcher::Sleep => return false,
            Matcher::Look => Matcher::Count(self.head),
            Matcher::Count(upto) => {
                let next = self.interest.examined_upto().get() + 1;
                if self.interest.len() > 0 {
                    self.next_commit(next, upto)
                } else {
                    Matcher::Done(upto)
                }
            }
            Matcher::Note { seq, first, last, upto } => {
                if is_turned && seq == last {
                    self.interest.examined(Seq::new(last));
                }
                self.note(seq);
                if seq > first {
                    Matcher::Note { seq: seq - 1, first, last, upto }
                } else {
                    Matcher::Examined { first, last, upto }
                }
            }
            Matcher::Examined { last, upto, .. } => {
                self.interest.examined(Seq::new(last));
                if std::mem::take(&mut self.is_to_wake) {
                    self.reader.is_woken |= self.fault != Fault::NoWake;
                }
                self.next_commit(last + 1, upto)
            }
            Matcher::Done(upto) => {
                self.interest.examined(Seq::new(upto));
                Matcher::Sleep
            }
        };
        true
    }

    fn register(&mut self) {
        let wanted = Pattern::parse("wanted", &Limits::default()).unwrap();
        let filter = Arc::new(Filter::new(vec![wanted]));
        let head = self.head;
        let report = (Seq::new(self.reader.next - 1), 0);
        self.reader.registration = Some(self.interest.register(filter, report, || Seq::new(head)));
    }

    fn read(&mut self) -> bool {
        let (head, fault) = (self.head, self.fault);
        if self.reader.step == Step::Register {
            self.register();
            self.reader.step = Step::LookAgain;
            return true;
        }
        let reader = &mut self.reader;
        reader.step = match reader.step {
            Step::Register => return false,
            Step::LookAtHead => {
                reader.old_head = head;
                reader.read(1, head);
                Step::Register
            }
            Step::LookAgain => {
                let own_upto = if fault == Fault::HeadFirst { reader.old_head } else { head };
                reader.read(reader.next, own_upto);
                Step::Examined
            }
            Step::Examined | Step::Take => {
                let Some(registration) = &reader.registration else { return false };
                if (reader.step == Step::Take) == (fault == Fault::TakeFirst) {
                    reader.examined = self.interest.examined_upto().get();
                } else {
                    reader.noted = registration.noted();
                }
                if reader.step == Step::Examined {
                    Step::Take
                } else {
                    if let Some(Woken::Matched(first, last)) = reader.noted.take() {
                        let trusted = match fault {
                            Fault::TrustNoted => first.get(),
                            _ => first.get().min(reader.examined + 1),
                        };
                        reader.read(trusted, last.get());
                    }
                    reader.next = reader.next.max(reader.examined + 1);
                    Step::Sleep
                }
            }
            Step::Sleep if std::mem::take(&mut reader.is_woken) => Step::Examined,
            Step::Sleep if reader.false_alarms < FALSE_ALARMS => {
                reader.false_alarms += 1;
                Step::Examined
            }
            Step::Sleep => return false,
        };
        true
    }

    /// Nobody has anything to do any more: what the reader has missed.
    fn is_right(&self) -> bool {
        let wanted = (1..).zip(EVENTS).filter(|(_, is_wanted)| *is_wanted).map(|(seq, _)| seq);
        self.reader.seen == wanted.collect::<Vec<u64>>()
    }
}

/// Runs one order: at each point the same actor as before, unless `changes` names another.
/// Answers whether all was right, and at which points others could have run.
fn run(fault: Fault, changes: &[(usize, usize)]) -> (bool, usize) {
    let mut world = World::new(fault);
    let (mut actor, mut at) = (0, 0);
    loop {
        if let Some(&(_, to)) = changes.iter().find(|(place, _)| *place == at) {
            actor = to;
        }
        let ran = (0..3).map(|more| (actor + more) % 3).find(|&actor| world.step(actor));
        let Some(ran) = ran else { return (world.is_right(), at) };
        actor = ran;
        at += 1;
        assert!(at < 200, "it does not come to rest");
    }
}

/// All orders with at most so many changes; those in which something is missed, and how many there are.
fn explore(fault: Fault) -> (usize, usize) {
    let (mut missed, mut count) = (0, 0);
    let mut open = vec![Vec::new()];
    while let Some(changes) = open.pop() {
        let (is_right, steps) = run(fault, &changes);
        missed += usize::from(!is_right);
        count += 1;
        if changes.len() == PREEMPTIONS {
            continue;
        }
        let from = changes.last().map_or(0, |&(at, _)| at + 1);
        for at in from..steps {
            for actor in 0..3 {
                let mut more: Vec<(usize, usize)> = changes.clone();
                more.push((at, actor));
                open.push(more);
            }
        }
    }
    (missed, count)
}

#[test]
fn no_wake_up_is_missing_in_any_order() {
    let (missed, count) = explore(Fault::None);
    assert!(count > 20_000, "{count} orders");
    assert_eq!(missed, 0, "of {count} orders");
}

#[test]
fn the_model_finds_each_step_that_comes_too_early_or_not_at_all() {
    for fault in [
        Fault::HeadFirst,
        Fault::TakeFirst,
        Fault::ExaminedFirst,
        Fault::PokeFirst,
        Fault::TrustNoted,
        Fault::NoWake,
    ] {
        assert!(explore_until(fault), "{fault:?} goes unnoticed");
    }
}

/// Whether any order goes wrong; stops at the first.
fn explore_until(fault: Fault) -> bool {
    let mut open = std::collections::VecDeque::from([Vec::new()]);
    while let Some(changes) = open.pop_front() {
        let (is_right, steps) = run(fault, &changes);
        if !is_right {
            return true;
        }
        if changes.len() == PREEMPTIONS {
            continue;
        }
        let from = changes.last().map_or(0, |&(at, _): &(usize, usize)| at + 1);
        for at in from..steps {
            for actor in 0..3 {
                let mut more = changes.clone();
                more.push((at, actor));
                open.push_back(more);
            }
        }
    }
    false
}

fn interested(interest: &Arc<Interest>, pattern: &str, report_every: u64) -> Registration {
    let pattern = Pattern::parse(pattern, &Limits::default()).unwrap();
    let filter = Arc::new(Filter::new(vec![pattern]));
    interest.register(filter, (Seq::ZERO, report_every), || Seq::ZERO)
}

#[test]
fn who_leaves_is_not_found_any_more_and_leaves_nothing() {
    let interest = Arc::new(Interest::default());
    let (one, two) = (interested(&interest, "a.*", 0), interested(&interest, "a.b", 0));
    let seq = Seq::new(7);
    let mut woken = Waking::default();
    interest.matched(&mut [("a.b", seq, seq)].into_iter(), &mut woken);
    assert_eq!(woken.len(), 2);
    assert_eq!((one.waits_for(), two.waits_for()), (Some(seq), Some(seq)));
    drop(one);
    let mut woken = Waking::default();
    interest.matched(&mut [("a.c", seq, seq)].into_iter(), &mut woken);
    assert!(woken.is_empty());
    // Its place is taken by the next.
    let three = interested(&interest, "x", 0);
    interest.matched(&mut [("x", seq, Seq::new(9))].into_iter(), &mut woken);
    assert_eq!((woken.len(), three.take().1), (1, Some(Woken::Matched(seq, Seq::new(9)))));
    assert_eq!(three.take().1, None);
    drop((two, three));
    assert_eq!((interest.len(), interest.is_bare()), (0, true));
}

#[test]
fn so_many_a_second_are_woken_to_say_how_far_they_are() {
    use std::time::{Duration, Instant};
    let interest = Arc::new(Interest::default());
    let all: Vec<_> = (0..1_200).map(|_| interested(&interest, "x", 10)).collect();
    let silent = interested(&interest, "x", 0);
    let looking = || all.iter().filter(|it| it.take().1 == Some(Woken::Look)).count();
    let start = Instant::now();
    interest.report(Seq::new(9), start);
    assert_eq!(looking(), 0, "none is due");
    for (seconds, expected) in [(0, 500), (1, 500), (2, 200), (3, 0)] {
        interest.report(Seq::new(12), start + Duration::from_secs(seconds));
        assert_eq!(looking(), expected, "after {seconds} s");
        interest.report(Seq::new(12), start + Duration::from_secs(seconds));
        assert_eq!(looking(), 0, "again after {seconds} s");
    }
    assert_eq!(silent.take().1, None);
    // Who has heard of its own accord is not due.
    all.iter().take(1_000).for_each(|it| it.note_passed(Seq::new(20)));
    interest.report(Seq::new(22), start + Duration::from_secs(9));
    assert_eq!(looking(), 200);
}

#[test]
fn a_few_that_are_often_due_are_held_to_the_same_number() {
    use std::time::Instant;
    let interest = Arc::new(Interest::default());
    let all: Vec<_> = (0..400).map(|_| interested(&interest, "x", 10)).collect();
    let now = Instant::now();
    let mut woken = 0;
    for turn in 1..=10 {
        interest.report(Seq::new(turn * 10), now);
        woken += all.iter().filter(|it| it.take().1 == Some(Woken::Look)).count();
    }
    assert_eq!(woken, 500);
}

#[test]
fn those_who_come_and_go_leave_nothing_behind() {
    let interest = Arc::new(Interest::default());
    let _stays = interested(&interest, "x", 10);
    for _ in 0..10_000 {
        drop(interested(&interest, "a.*", 10));
    }
    assert!(interest.waiting_to_tell() < 200, "{}", interest.waiting_to_tell());
    assert_eq!(interest.len(), 1);
}

#[test]
fn many_topics_are_gone_through_in_turns() {
    let interest = Arc::new(Interest::default());
    let all: Vec<_> = (0..300).map(|_| interested(&interest, "a.>", 0)).collect();
    let seq = Seq::new(5);
    let mut topics = (0..8).map(|_| ("a.b", seq, seq));
    let (mut woken, mut turns) = (Waking::default(), 1);
    while interest.matched(&mut topics, &mut woken) {
        turns += 1;
    }
    assert_eq!((turns, woken.len()), (3, 300));
    assert!(all.iter().all(|it| it.take().1 == Some(Woken::Matched(seq, seq))));
}
