//! The order in which reads are served, on a clock of its own. The control is the queue that was here before: first
//! come, first served.

use std::collections::VecDeque;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;

const MS: u64 = 1_000_000;

/// A read that waits: whose, and what it will take.
#[derive(Clone, Debug)]
struct Read {
    flow: usize,
    lane: Lane,
    takes: u64,
}

/// What is compared.
enum Queue {
    Fair(FairQueue<Read>),
    FirstCome(VecDeque<Read>),
}

/// When it is free, whether it takes scans, and what it is at, with its tag.
type Thread = (u64, bool, Option<(Read, u64)>);

/// Threads that serve a queue.
struct Simulation {
    queue: Queue,
    flows: Vec<Arc<Flow>>,
    threads: Vec<Thread>,
    now: u64,
    /// Each read that was begun, and when.
    begun: Vec<(u64, Read)>,
}

impl Simulation {
    /// With one thread more, for points alone, where `spare`.
    fn new(is_fair: bool, flows: usize, threads: usize, spare: bool) -> Simulation {
        let queue = match is_fair {
            true => Queue::Fair(FairQueue::default()),
            false => Queue::FirstCome(VecDeque::new()),
        };
        let spare = std::iter::repeat_n((0, false, None), usize::from(spare));
        let threads = std::iter::repeat_n((0, true, None), threads).chain(spare).collect();
        let flows = (0..flows).map(|_| Arc::default()).collect();
        Simulation { queue, flows, threads, now: 0, begun: Vec::new() }
    }

    fn push(&mut self, flow: usize, lane: Lane, takes: u64) {
        let read = Read { flow, lane, takes };
        match &mut self.queue {
            Queue::Fair(queue) => queue.push(&self.flows[flow], lane, read),
            Queue::FirstCome(queue) => queue.push_back(read),
        }
    }

    /// Lets threads work up to a time; `again` says whether a flow asks for the same at once.
    fn run(&mut self, until: u64, again: impl Fn(usize) -> bool) {
        loop {
            for at in 0..self.threads.len() {
                let (free, takes_scans, None) = &self.threads[at] else { continue };
                assert!(*free <= self.now);
                let next = match &mut self.queue {
                    Queue::Fair(queue) => queue.pop(*takes_scans),
                    Queue::FirstCome(queue) => {
                        let first = queue.pop_front();
                        first.map(|read| Turn { read, tag: 0 })
                    }
                };
                if let Some(Turn { read, tag }) = next {
                    self.begun.push((self.now, read.clone()));
                    self.threads[at].0 = self.now + read.takes;
                    self.threads[at].2 = Some((read, tag));
                }
            }
            let busy = self.threads.iter().enumerate().filter(|(_, thread)| thread.2.is_some());
            let next = busy.min_by_key(|(_, thread)| thread.0).map(|(at, thread)| (at, thread.0));
            let Some((at, time)) = next.filter(|(_, time)| *time <= until) else {
                self.now = until;
                return;
            };
            self.now = time;
            if let Some((read, tag)) = self.threads[at].2.take() {
                let took = Duration::from_nanos(read.takes);
                self.flows[read.flow].charge(read.lane, tag, took);
                if again(read.flow) {
                    self.push(read.flow, read.lane, read.takes);
                }
            }
        }
    }

    /// How long after `from` a flow's read was begun; `None` if it was not.
    fn wait(&self, flow: usize, from: u64) -> Option<u64> {
        let begun = self.begun.iter().find(|(at, read)| *at >= from && read.flow == flow);
        begun.map(|(at, _)| at - from)
    }

    fn count(&self, flow: usize) -> usize {
        self.begun.iter().filter(|(_, read)| read.flow == flow).count()
    }
}

/// A point beside 2,000 searches of 2 ms a step, none of which has had a step yet: how long it waits.
fn point_beside_searches(is_fair: bool, threads: usize, spare: bool) -> u64 {
    let mut it = Simulation::new(is_fair, 2_001, threads, spare);
    (0..2_000).for_each(|flow| it.push(flow, Lane::Scan, 2 * MS));
    it.run(MS / 2, |_| true);
    it.push(2_000, Lane::Point, MS / 10);
    it.run(10_000 * MS, |flow| flow < 2_000);
    it.wait(2_000, MS / 2).unwrap()
}

#[test]
fn a_point_waits_for_one_step_at_most_whatever_is_queued() {
    for threads in [1, 2, 4] {
        assert!(point_beside_searches(true, threads, false) <= 2 * MS);
        assert_eq!(point_beside_searches(true, threads, true), 0, "a thread waits for it");
        // The control.
        assert!(point_beside_searches(false, threads, true) > 400 * MS);
    }
}

/// A search that begins beside 2,000 that have had a step each: how long it waits.
fn first_question(is_fair: bool) -> u64 {
    let mut it = Simulation::new(is_fair, 2_001, 2, true);
    (0..2_000).for_each(|flow| it.push(flow, Lane::Scan, 2 * MS));
    let begins = 3_001 * MS;
    it.run(begins, |_| true);
    it.push(2_000, Lane::Scan, 2 * MS);
    it.run(begins + 10_000 * MS, |_| true);
    it.wait(2_000, begins).unwrap()
}

#[test]
fn a_first_question_comes_before_the_next_step_of_long_searches() {
    assert!(first_question(true) <= 2 * 2 * MS, "{}", first_question(true));
    assert!(first_question(false) > 1_000 * MS);
}

/// Beside 100 searches whose steps take 10 ms: how many steps of 1 ms one gets, for one of theirs.
fn steps_for_one_of_theirs(is_fair: bool) -> usize {
    let mut it = Simulation::new(is_fair, 101, 2, true);
    // Not all in step.
    (0..100).for_each(|flow| it.push(flow, Lane::Scan, 10 * MS + flow as u64 * MS / 30));
    it.push(100, Lane::Scan, MS);
    it.run(20_000 * MS, |_| true);
    it.count(100) / it.count(50)
}

#[test]
fn who_takes_little_a_step_has_more_steps() {
    assert!((8..=11).contains(&steps_for_one_of_theirs(true)));
    assert_eq!(steps_for_one_of_theirs(false), 1);
}

#[test]
fn points_without_end_leave_scans_their_turn() {
    let mut it = Simulation::new(true, 101, 1, false);
    (0..100).for_each(|flow| it.push(flow, Lane::Point, MS / 10));
    it.push(100, Lane::Scan, MS / 10);
    it.run(100 * MS, |_| true);
    let scans = it.count(100);
    assert!((190..=201).contains(&scans), "every fifth of 1,000: {scans}");
    // And a flow of many points none of the others.
    let counts: Vec<_> = (0..100).map(|flow| it.count(flow)).collect();
    assert!(counts.iter().all(|count| (7..=9).contains(count)), "{counts:?}");
}

#[test]
fn one_step_that_took_for_ever_costs_its_reader_few_turns() {
    let mut it = Simulation::new(true, 51, 1, false);
    (0..50).for_each(|flow| it.push(flow, Lane::Scan, MS));
    it.push(50, Lane::Scan, 10_000 * MS);
    it.run(10_060 * MS, |flow| flow < 50);
    it.push(50, Lane::Scan, MS);
    it.run(30_000 * MS, |_| true);
    let turns = u64::try_from(LARGEST_CHARGE.as_nanos()).unwrap() / MS;
    assert!(it.wait(50, 10_060 * MS).unwrap() <= 50 * (turns + 1) * MS);
}

/// Three new searches begin whenever one could be served.
#[test]
fn searches_that_begin_without_end_leave_others_their_turn() {
    let mut it = Simulation::new(true, 10_000, 1, false);
    it.push(0, Lane::Scan, MS);
    for flow in 1..10_000 {
        it.push(flow, Lane::Scan, MS);
        if flow % 3 == 0 {
            it.run(it.now + MS, |flow| flow == 0);
        }
    }
    assert!(it.count(0) > 10_000 / 3 / 5 - 5, "every fifth: {}", it.count(0));
}

#[test]
fn a_flow_that_was_idle_saves_nothing_up() {
    let mut it = Simulation::new(true, 3, 1, false);
    it.push(0, Lane::Scan, MS);
    it.run(1_000 * MS, |flow| flow == 0);
    it.push(1, Lane::Scan, MS);
    it.run(2_000 * MS, |_| true);
    let late = it.begun.iter().filter(|(at, read)| *at >= 1_000 * MS && read.flow == 0);
    assert!(late.count() >= 499, "half is its own, from the first on");
}

proptest! {
    #[test]
    fn each_read_comes_once(
        reads in prop::collection::vec((0..5usize, any::<bool>(), 0..50_000_000u64), 0..60),
        pops in prop::collection::vec(any::<bool>(), 0..60),
    ) {
        let flows: Vec<Flow> = (0..5).map(|_| Flow::default()).collect();
        let mut queue = FairQueue::default();
        let lane = |is_point| if is_point { Lane::Point } else { Lane::Scan };
        let (mut served, mut pops) = (Vec::new(), pops.into_iter());
        let serve = |queue: &mut FairQueue<usize>, takes_scans, served: &mut Vec<usize>| {
            let Some(Turn { read: at, tag }) = queue.pop(takes_scans) else { return false };
            let (flow, is_point, took): &(usize, bool, u64) = &reads[at];
            flows[*flow].charge(lane(*is_point), tag, Duration::from_nanos(*took));
            served.push(at);
            true
        };
        for (at, (flow, is_point, _)) in reads.iter().enumerate() {
            queue.push(&flows[*flow], lane(*is_point), at);
            if let Some(takes_scans) = pops.next() {
                serve(&mut queue, takes_scans, &mut served);
            }
        }
        prop_assert_eq!(queue.len() + served.len(), reads.len());
        while serve(&mut queue, true, &mut served) {}
        served.sort_unstable();
        prop_assert_eq!(served, (0..reads.len()).collect::<Vec<_>>());
    }
}
