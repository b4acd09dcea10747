//! Which read comes next, where many wait for few threads.
//!
//! Start-time fair queueing. Each reader is a flow. A flow's reads are tagged with the time that it has had of the
//! threads, at least with the tag that was served last, and the least tag comes next: no flow gets ahead of another by
//! more than a step, and one that was idle has saved nothing up.
//!
//! A read that looks at few events, known before, is a point; all else is a scan, one step of it. Three lanes: points,
//! the first steps of scans, their further steps. Each goes before the next, up to [`IN_A_ROW`] where others wait, and
//! a thread that takes points only never makes them wait for a scan. So a point waits for points, and for one step of
//! a scan at most, however many scans wait; and a scan begins before long ones go on.
//!
//! Must not know what a read is. Takes no locks and has no clock: who runs a read says what it took.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Reads of a lane that are served one after another while others wait behind it.
const IN_A_ROW: u32 = 4;
/// What a read counts for, at least: one that takes no time has its turn all the same.
const LEAST_CHARGE: Duration = Duration::from_micros(20);
/// What a read counts for, at most: a thread that was held up once does not cost its reader many turns.
const LARGEST_CHARGE: Duration = Duration::from_millis(20);

/// How much a read looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// Few events, known before.
    Point,
    /// As much as one step may.
    Scan,
}

/// The time that a reader has had, by lane: nanoseconds, on the lane's own clock.
#[derive(Debug, Default)]
pub(super) struct Flow {
    points: AtomicU64,
    scans: AtomicU64,
}

impl Flow {
    fn attained(&self, lane: Lane) -> &AtomicU64 {
        match lane {
            Lane::Point => &self.points,
            Lane::Scan => &self.scans,
        }
    }

    /// A read with this tag took so long. Before its reader hears of it, whose next read must come after it.
    pub(super) fn charge(&self, lane: Lane, tag: u64, took: Duration) {
        let took = took.clamp(LEAST_CHARGE, LARGEST_CHARGE);
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let later = |attained: u64| Some(attained.max(tag).saturating_add(took));
        // The closure never refuses.
        let _ = self.attained(lane).fetch_update(Ordering::Relaxed, Ordering::Relaxed, later);
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct FairQueue<T> {
    points: Waiting<T>,
    /// Scans of flows that have had none.
    firsts: Waiting<T>,
    scans: Waiting<T>,
    points_in_a_row: u32,
    firsts_in_a_row: u32,
}

/// A read whose turn it is.
#[derive(Debug)]
pub(super) struct Turn<T> {
    pub(super) read: T,
    /// What it is charged by.
    pub(super) tag: u64,
}

/// The reads of one lane that wait.
#[derive(Debug)]
struct Waiting<T> {
    reads: BinaryHeap<Reverse<Tagged<T>>>,
    /// The tag served last.
    now: u64,
    pushed: u64,
}

/// A read, and its place among the others.
#[derive(Debug)]
struct Tagged<T> {
    tag: u64,
    /// Of equals, who has had least.
    attained: u64,
    /// Then who came first.
    number: u64,
    read: T,
}

impl<T> Tagged<T> {
    fn key(&self) -> (u64, u64, u64) {
        (self.tag, self.attained, self.number)
    }
}

impl<T> PartialEq for Tagged<T> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl<T> Eq for Tagged<T> {}

impl<T> PartialOrd for Tagged<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Tagged<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Waiting { reads: BinaryHeap::new(), now: 0, pushed: 0 }
    }
}

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        FairQueue {
            points: Waiting::default(),
            firsts: Waiting::default(),
            scans: Waiting::default(),
            points_in_a_row: 0,
            firsts_in_a_row: 0,
        }
    }
}

impl<T> Waiting<T> {
    fn push(&mut self, attained: u64, read: T) {
        self.pushed += 1;
        let (tag, number) = (attained.max(self.now), self.pushed);
        self.reads.push(Reverse(Tagged { tag, attained, number, read }));
    }

    fn pop(&mut self) -> Option<Turn<T>> {
        let Reverse(Tagged { tag, read, .. }) = PeekMut::pop(self.reads.peek_mut()?);
        self.now = self.now.max(tag);
        Some(Turn { read, tag })
    }

    fn is_empty(&self) -> bool {
        self.reads.is_empty()
    }
}

/// Whether it is a lane's turn, before one that waits or does not; counts it.
fn is_turn(in_a_row: &mut u32, waits: bool, others_wait: bool) -> bool {
    let is_turn = waits && (!others_wait || *in_a_row < IN_A_ROW);
    *in_a_row = if is_turn && others_wait { *in_a_row + 1 } else { 0 };
    is_turn
}

impl<T> FairQueue<T> {
    /// Adds a read of a flow.
    pub(super) fn push(&mut self, flow: &Flow, lane: Lane, read: T) {
        let attained = flow.attained(lane).load(Ordering::Relaxed);
        match lane {
            Lane::Point => self.points.push(attained, read),
            Lane::Scan if attained == 0 => self.firsts.push(attained, read),
            Lane::Scan => self.scans.push(attained, read),
        }
    }

    /// The next read; of points only, where no scan is taken.
    pub(super) fn pop(&mut self, takes_scans: bool) -> Option<Turn<T>> {
        if !takes_scans {
            return self.points.pop();
        }
        let has_firsts = !self.firsts.is_empty();
        let scans_wait = has_firsts || !self.scans.is_empty();
        if is_turn(&mut self.points_in_a_row, !self.points.is_empty(), scans_wait) {
            return self.points.pop();
        }
        if is_turn(&mut self.firsts_in_a_row, has_firsts, !self.scans.is_empty()) {
            // On the clock of the lane that its flow goes on in.
            let tag = self.scans.now;
            return self.firsts.pop().map(|turn| Turn { tag, ..turn });
        }
        self.scans.pop()
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.points.reads.len() + self.firsts.reads.len() + self.scans.reads.len()
    }

    /// Takes all out.
    pub(super) fn take(&mut self) -> impl Iterator<Item = T> + use<T> {
        let lanes = [&mut self.points, &mut self.firsts, &mut self.scans];
        let reads = lanes.map(|lane| std::mem::take(&mut lane.reads));
        reads.into_iter().flatten().map(|Reverse(tagged)| tagged.read)
    }
}

#[cfg(test)]
mod tests;
