//! Unsealed slots, indexed by topic: where their events lie, so that a read with a filter reads what it
//! returns and nothing else.
//!
//! Made by the reads themselves, a step each, as they come to what is not indexed yet; nobody else pays, and
//! nobody waits: while one makes a step the others go through the events as they would without. A commit is read
//! and checked as a whole when it is indexed; of each event a checksum is kept, and what is read later must have
//! it. Whatever is not as it should be is left to the walk (`read.rs`), which says what is wrong.
//!
//! Owns the indexes, one a slot, gone when the slot has left the view. Must not decide what is damaged.
//! Bounded by the slots: 16 bytes an event, and for each topic 16 and its text, several times in a slot that is
//! larger than [`MERGED_EVENTS`].

mod run;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};

use self::run::{Builder, Entry, Run};
use crate::storage::crc::crc32c;
use crate::storage::journal::{CommitRead, Slot};
use crate::storage::sift::FOUND_BYTES;
use crate::storage::{Chunk, StoreError};
use crate::width::to_u32;
use tailmark_record::topic::Filter;
use tailmark_record::{Event, Events, Seq};

/// Bytes of events that one read indexes.
const STEP_BYTES: usize = 2 << 20;
/// Runs are merged up to so many events: no merge takes longer than a step.
const MERGED_EVENTS: usize = 1 << 17;
/// For so long the index goes no further than where something was damaged.
const ENDED: Duration = Duration::from_secs(10);
/// Topics that one read tries patterns on, times patterns.
const TRIED: usize = 1 << 16;
/// What lies closer together is read at once, up to so many bytes.
const GAP_BYTES: u32 = 4 << 10;
const GROUP_BYTES: u32 = 256 << 10;
/// Where more than one event in so many is wanted, and one byte, going through all of them is as good: from so many
/// bytes on.
const DENSE: u64 = 4;
const DENSE_BYTES: usize = 64 << 10;

/// The indexes, by number of the slot.
#[derive(Default)]
pub(super) struct Unsealed(Mutex<BTreeMap<u64, Arc<SlotTopics>>>);

impl Unsealed {
    /// The index of a slot, of nothing yet where there is none. `None` for a slot that `is_read` no more: an index
    /// that nobody would forget.
    pub(super) fn of(
        &self,
        slot: &Slot,
        is_read: impl FnOnce() -> bool,
    ) -> Option<Arc<SlotTopics>> {
        let number = slot.header().number;
        let mut slots = self.0.lock();
        if let Some(known) = slots.get(&number) {
            return Some(Arc::clone(known));
        }
        if !is_read() {
            return None;
        }
        let topics = Arc::new(SlotTopics::of(slot));
        slots.insert(number, Arc::clone(&topics));
        Some(topics)
    }

    /// Drops the index of a slot that has left the view.
    pub(super) fn forget(&self, slot: &Slot) {
        let gone = self.0.lock().remove(&slot.header().number);
        // Freed without the lock.
        drop(gone);
    }
}

/// The index of one slot.
pub(super) struct SlotTopics {
    built: RwLock<Arc<Built>>,
    building: Mutex<Building>,
}

/// How far it is.
struct Built {
    /// Everything below is indexed.
    upto: Seq,
    /// In order; each goes on where the one before ends.
    runs: Vec<Arc<Run>>,
}

#[derive(Default)]
struct Building {
    /// What comes next was damaged when it was last looked at: the index goes no further for a while.
    /// What one read finds the next may not.
    ended: Option<Instant>,
}

impl SlotTopics {
    pub(super) fn of(slot: &Slot) -> SlotTopics {
        let built = Built { upto: slot.first(), runs: Vec::new() };
        SlotTopics { built: RwLock::new(Arc::new(built)), building: Mutex::default() }
    }

    fn built(&self) -> Arc<Built> {
        Arc::clone(&self.built.read())
    }

    /// The events that match, as far as one read goes; `None` where the walk has to be asked.
    pub(super) fn read(&self, slot: &Slot, from: Seq, end: Seq, filter: &Filter) -> Option<Chunk> {
        let mut built = self.built();
        if built.upto <= from {
            self.extend(slot);
            built = self.built();
        }
        let found = built.find(slot.first(), from..end.min(built.upto), filter)?;
        found.read(slot, from, filter)
    }

    /// Goes a step nearer to having all events below `end` that the slot has; answers whether it has.
    ///
    /// # Errors
    /// What is damaged before that; I/O.
    pub(super) fn reach(&self, slot: &Slot, end: Seq) -> Result<bool, StoreError> {
        let end = end.min(slot.end());
        if self.built().upto >= end {
            return Ok(true);
        }
        let mut building = self.building.lock();
        building.ended = None;
        self.step(slot, &mut building)?;
        let upto = self.built().upto;
        if upto >= end || building.ended.is_none() {
            return Ok(upto >= end);
        }
        // What keeps it from going on says so itself.
        slot.read_commits(upto, end)?;
        Err(slot.malformed(upto, "a commit does not hold its events"))
    }

    /// Its topics that have events in a range, run by run, from some name on. Only of what it has.
    pub(super) fn runs(&self, slot: &Slot, range: Range<Seq>, from: &str) -> Vec<RunTopics> {
        let origin = slot.first();
        let nth = |seq: Seq| to_u32(origin.distance_to(seq.max(origin)));
        let nths = nth(range.start)..nth(range.end.min(slot.end()));
        let of = |run: &Arc<Run>| RunTopics::seek(Arc::clone(run), origin, nths.clone(), from);
        self.built().runs.iter().map(of).collect()
    }

    /// The last event of a topic below `end`, of what it has.
    pub(super) fn head(&self, slot: &Slot, topic: &str, end: Seq) -> Option<Seq> {
        let end = to_u32(slot.first().distance_to(end.min(slot.end())));
        self.built().runs.iter().rev().find_map(|run| {
            let (_, entries) = run.topic_at(run.seek(topic)).filter(|(name, _)| *name == topic)?;
            let entries = entries.get(..entries.partition_point(|entry| entry.nth < end))?;
            entries.last().map(|entry| slot.first().plus(u64::from(entry.nth)))
        })
    }

    /// Makes one step, unless another read is at it.
    fn extend(&self, slot: &Slot) {
        if let Some(mut building) = self.building.try_lock() {
            // What is wrong the walk says.
            let _ = self.step(slot, &mut building);
        }
    }

    fn step(&self, slot: &Slot, building: &mut Building) -> Result<(), StoreError> {
        if building.ended.is_some_and(|at| at.elapsed() < ENDED) {
            return Ok(());
        }
        building.ended = None;
        let mut failure = None;
        let built = self.built();
        let mut builder = Builder::new(slot.first(), built.upto);
        let (mut end, mut bytes) = (slot.end(), 0);
        while builder.next() < end && bytes < STEP_BYTES {
            let at = builder.next();
            match slot.read_commits(at, end) {
                Ok(commits) => {
                    let is_added = |commit: &CommitRead| builder.add(commit).is_ok();
                    bytes += commits.iter().map(|commit| commit.events.len()).sum::<usize>();
                    if !commits.iter().all(is_added) || builder.next() == at {
                        building.ended = Some(Instant::now());
                        break;
                    }
                }
                // What lies before it is whole.
                Err(StoreError::Damaged(damage)) if damage.from > at => end = damage.from,
                Err(StoreError::Damaged(_)) => {
                    building.ended = Some(Instant::now());
                    break;
                }
                // The next read tries again.
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            }
        }
        let upto = builder.next();
        if let Some(run) = builder.finish() {
            let built = Arc::new(built.with(run, upto));
            let before = std::mem::replace(&mut *self.built.write(), built);
            drop(before);
        }
        failure.map_or(Ok(()), Err)
    }

    /// What it takes in memory.
    #[cfg(test)]
    fn bytes(&self) -> usize {
        self.built().runs.iter().map(|run| run.bytes() + size_of::<Run>()).sum()
    }
}

impl Built {
    /// The same, and what follows. Runs are merged so that there are few, and each event is moved but a few times.
    fn with(&self, run: Run, upto: Seq) -> Built {
        let mut runs = self.runs.clone();
        let mut last = run;
        while let Some(before) = runs.last()
            && before.len() <= 2 * last.len()
            && before.len() + last.len() <= MERGED_EVENTS
        {
            last = before.merge(&last);
            runs.pop();
        }
        runs.push(Arc::new(last));
        Built { upto, runs }
    }

    /// Where the events lie that match. `None` where nothing of the range is indexed, or looking for them is no less
    /// work than going through the events.
    fn find(&self, origin: Seq, range: Range<Seq>, filter: &Filter) -> Option<Found> {
        if range.is_empty() {
            return None;
        }
        let nth = |seq: Seq| to_u32(origin.distance_to(seq));
        let mut nths = nth(range.start)..nth(range.end);
        let (mut lists, mut tried) = (Vec::new(), 0);
        let from = self.runs.partition_point(|run| run.nths.end <= nths.start);
        for run in self.runs.iter().skip(from).take_while(|run| run.nths.start < nths.end) {
            tried += run.tries(filter) * filter.patterns().len();
            if tried > TRIED {
                if run.nths.start <= nths.start {
                    return None;
                }
                nths.end = run.nths.start;
                break;
            }
            run.find(filter, &nths, &mut lists);
        }
        let mut found = Found { origin, entries: Vec::new(), end: nths.end };
        let mut bytes = 0;
        for entry in InOrder::of(&lists) {
            if bytes >= FOUND_BYTES {
                found.end = entry.nth;
                break;
            }
            bytes += entry.len as usize;
            found.entries.push(entry);
        }
        (!found.is_dense(nths.start, bytes)).then_some(found)
    }
}

/// The topics of a run that have events in some part of the slot, in order.
pub(super) struct RunTopics {
    run: Arc<Run>,
    origin: Seq,
    nths: Range<u32>,
    at: usize,
}

impl RunTopics {
    fn seek(run: Arc<Run>, origin: Seq, nths: Range<u32>, from: &str) -> RunTopics {
        let at = run.seek(from);
        let mut topics = RunTopics { run, origin, nths, at };
        topics.skip_others();
        topics
    }

    /// The topic that it is at, how many events of it there are, and the last of them.
    pub(super) fn get(&self) -> Option<(&str, u64, Seq)> {
        let (name, entries) = self.run.topic_at(self.at)?;
        let from = entries.partition_point(|entry| entry.nth < self.nths.start);
        let end = entries.partition_point(|entry| entry.nth < self.nths.end);
        let entries = entries.get(from..end)?;
        let last = entries.last()?;
        Some((name, entries.len() as u64, self.origin.plus(u64::from(last.nth))))
    }

    /// Moves to the next.
    pub(super) fn advance(&mut self) {
        self.at += 1;
        self.skip_others();
    }

    fn skip_others(&mut self) {
        while self.at < self.run.topics() && self.get().is_none() {
            self.at += 1;
        }
    }
}

/// Goes through lists of entries in the order of the log.
struct InOrder<'a> {
    /// The next entry of each list.
    next: BinaryHeap<Reverse<(u32, usize)>>,
    lists: Vec<std::slice::Iter<'a, Entry>>,
}

impl<'a> InOrder<'a> {
    fn of(lists: &[&'a [Entry]]) -> InOrder<'a> {
        let firsts = lists.iter().map(|list| list.first().map(|entry| entry.nth));
        let firsts = firsts.enumerate().filter_map(|(at, nth)| Some(Reverse((nth?, at))));
        InOrder { next: firsts.collect(), lists: lists.iter().map(|list| list.iter()).collect() }
    }
}

impl Iterator for InOrder<'_> {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        let Reverse((_, at)) = self.next.pop()?;
        let list = self.lists.get_mut(at)?;
        let entry = *list.next()?;
        if let Some(following) = list.as_slice().first() {
            self.next.push(Reverse((following.nth, at)));
        }
        Some(entry)
    }
}

/// Where the events of one read lie.
struct Found {
    origin: Seq,
    entries: Vec<Entry>,
    /// How far that is all, counted from the slot's first.
    end: u32,
}

impl Found {
    /// Whether most of what there is from `start` on is wanted.
    fn is_dense(&self, start: u32, bytes: usize) -> bool {
        let (Some(first), Some(last)) = (self.entries.first(), self.entries.last()) else {
            return false;
        };
        let events = u64::from(self.end.saturating_sub(start));
        let span = u64::from(last.end().saturating_sub(first.offset));
        bytes >= DENSE_BYTES
            && self.entries.len() as u64 * DENSE > events
            && bytes as u64 * DENSE > span
    }

    /// Reads them. It ends before the first that is not what was indexed; `None` where that is the first of the
    /// read.
    fn read(&self, slot: &Slot, from: Seq, filter: &Filter) -> Option<Chunk> {
        let bytes = self.entries.iter().map(|entry| entry.len as usize).sum();
        let mut events = Vec::with_capacity(bytes);
        let mut end = self.seq(self.end);
        for group in self.groups() {
            if let Err(nth) = self.read_group(slot, group, filter, &mut events) {
                end = self.seq(nth);
                break;
            }
        }
        (end > from).then(|| Chunk { first: from, end, events: events.into(), complete: false })
    }

    /// Reads entries that lie close together; fails with the first that is not what was indexed.
    fn read_group(
        &self,
        slot: &Slot,
        group: &[Entry],
        filter: &Filter,
        events: &mut Vec<u8>,
    ) -> Result<(), u32> {
        let (Some(first), Some(last)) = (group.first(), group.last()) else { return Ok(()) };
        let len = last.end().saturating_sub(first.offset) as usize;
        let read = slot.read_unchecked(u64::from(first.offset), len).map_err(|_| first.nth)?;
        for entry in group {
            let at = (entry.offset - first.offset) as usize;
            let bytes = read.get(at..at + entry.len as usize).unwrap_or_default();
            if !self.is_it(entry, bytes, filter) {
                return Err(entry.nth);
            }
            events.extend_from_slice(bytes);
        }
        Ok(())
    }

    /// Whether these bytes are the entry, and one that is wanted.
    fn is_it(&self, entry: &Entry, bytes: &[u8], filter: &Filter) -> bool {
        let Some(Ok(event)) = Events::new(bytes).next() else { return false };
        crc32c(0, bytes) == entry.crc
            && Event::seq_of(event) == Ok(self.seq(entry.nth))
            && Event::topic_of(event).is_ok_and(|topic| filter.matches(topic))
    }

    fn groups(&self) -> impl Iterator<Item = &[Entry]> {
        let mut first = self.entries.first().map_or(0, |entry| entry.offset);
        self.entries.chunk_by(move |entry, next| {
            let is_near = next.offset.saturating_sub(entry.end()) <= GAP_BYTES;
            let is_one = is_near && next.end().saturating_sub(first) <= GROUP_BYTES;
            if !is_one {
                first = next.offset;
            }
            is_one
        })
    }

    fn seq(&self, nth: u32) -> Seq {
        self.origin.plus(u64::from(nth))
    }
}

#[cfg(test)]
mod tests;
