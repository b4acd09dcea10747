//! Reading: find the segment or slot that holds a seq, and read from it.

use std::sync::Arc;

use bytes::Bytes;

use super::LocalEngine;
use super::view::View;
use crate::chain::{Link, tag_in};
use crate::storage::journal::Slot;
use crate::storage::segment::Segment;
use crate::storage::sift::{FOUND_BYTES, SIFTED_BYTES, Sifter};
use crate::storage::{Chunk, Damage, Removed, RemovedReason, StoreError};
use tailmark_record::topic::Filter;
use tailmark_record::{ChainTag, EventError, Events, Seq};

/// A chunk of which more than one byte in so many is wanted is passed on as it is.
const DENSE: usize = 4;

impl LocalEngine {
    pub(super) fn read(&self, from: Seq, end: Seq, filter: &Filter) -> Result<Chunk, StoreError> {
        let bounds = self.bounds();
        if from < bounds.oldest {
            return Err(StoreError::Trimmed { oldest: bounds.oldest });
        }
        let end = end.min(bounds.next());
        if from >= end {
            return Err(StoreError::Invalid("the range is empty or beyond the head"));
        }
        self.on_view(|view| self.read_in(view, from, end, filter))
            .map_err(|error| self.trimmed_meanwhile(from, error))
    }

    pub(super) fn read_in(
        &self,
        view: &View,
        from: Seq,
        end: Seq,
        filter: &Filter,
    ) -> Result<Chunk, StoreError> {
        if view.sealed_end().is_some_and(|sealed| from < sealed) {
            let at = view.segments.partition_point(|segment| segment.end() <= from);
            if let Some(segment) = view.segments.get(at).filter(|s| s.first() <= from) {
                let lease = self.lease(segment)?;
                let read = self.cache.read(&lease, from, end.min(segment.end()), filter);
                return read.map_err(|error| self.whole_run(view, error));
            }
        }
        let at = view.slots.partition_point(|slot| slot.end() <= from);
        match view.slots.get(at).filter(|slot| slot.first() <= from) {
            Some(slot) if filter.is_all() => slot.read(from, end.min(slot.end())),
            Some(slot) => self.read_slot(slot, from, end.min(slot.end()), filter),
            None => match view.removed_at(from) {
                // Who asks for some topics need not hear of what was meant to go.
                Some(range) if range.is_intended() && !filter.is_all() => {
                    let (end, events) = (end.min(range.end), Bytes::new());
                    Ok(Chunk { first: from, end, events, complete: false })
                }
                _ => Err(self.hole(view, from)),
            },
        }
    }

    /// A run that ends with its segment may go on behind it.
    fn whole_run(&self, view: &View, error: StoreError) -> StoreError {
        match error {
            StoreError::Removed(range) => StoreError::Removed(self.run_from(view, range)),
            error => error,
        }
    }

    /// One run of all that was meant to go, with the part of it that is given, however many segments it is in.
    fn run_from(&self, view: &View, mut range: Removed) -> Removed {
        while range.is_intended() {
            let next = self.part_of_run(view, range.end, |segment| segment.first() == range.end);
            let Some(next) = next else { break };
            (range.end, range.link) = (next.end, next.link);
            range.reason = both(range.reason, next.reason);
        }
        while range.is_intended() && range.first > Seq::FIRST {
            let last = range.first.prev();
            let next = self.part_of_run(view, last, |segment| segment.end() == range.first);
            let Some(next) = next else { break };
            (range.first, range.link_before) = (next.first, next.link_before);
            range.reason = both(range.reason, next.reason);
        }
        range
    }

    /// What was meant to go and has a seq: a range of its own, or at an end of a segment.
    fn part_of_run(
        &self,
        view: &View,
        seq: Seq,
        is_it: impl Fn(&Segment) -> bool,
    ) -> Option<Removed> {
        if let Some(range) = view.removed_at(seq) {
            return Some(*range).filter(Removed::is_intended);
        }
        let at = view.segments.partition_point(|segment| segment.end() <= seq);
        let segment = view.segments.get(at).filter(|it| it.removed().runs > 0 && is_it(it))?;
        let lease = segment.lease()?;
        match self.cache.read(&lease, seq, seq.next(), &Filter::ALL) {
            Err(StoreError::Removed(range)) => Some(range),
            // Another read says it.
            _ => None,
        }
    }

    /// The chain at a readable event: what stands beside its block or commit, where it ends with it; else its
    /// cursor.
    pub(super) fn tag_of(&self, seq: Seq) -> Result<ChainTag, StoreError> {
        if let Some(tag) = self.on_view(|view| self.tag_beside(view, seq))? {
            return Ok(tag);
        }
        let chunk = match self.read(seq, seq.next(), &Filter::ALL) {
            // What it was is known behind the last of those that are gone.
            Err(StoreError::Removed(range)) if range.end == seq.next() => {
                return range.link.known_tag().ok_or(StoreError::Removed(range));
            }
            chunk => chunk?,
        };
        let event = Events::new(&chunk.events).next().unwrap_or(Err(EventError::MISSING));
        event.and_then(tag_in).map_err(|error| {
            let (file, detail) = (self.dir.clone(), error.what().to_owned());
            Damage { from: seq, to: seq, file, detail }.into()
        })
    }

    fn tag_beside(&self, view: &View, seq: Seq) -> Result<Option<ChainTag>, StoreError> {
        if let Some(segment) = view.segments.iter().find(|segment| segment.contains(seq)) {
            return self.cache.tag_beside(&self.lease(segment)?, seq);
        }
        if let Some(range) = view.removed_at(seq) {
            let at_its_end = range.link.known_tag().filter(|_| seq.next() == range.end);
            return at_its_end.map(Some).ok_or(StoreError::Removed(*range));
        }
        let mut slots = view.slots.iter().filter(|slot| slot.frame_of(seq).is_some());
        Ok(slots.find_map(|slot| slot.link_before(seq.next())).map(Link::tag))
    }

    /// What a filter selects of a slot: by its index, and where that does not tell, by going through the events.
    fn read_slot(
        &self,
        slot: &Arc<Slot>,
        from: Seq,
        end: Seq,
        filter: &Filter,
    ) -> Result<Chunk, StoreError> {
        let is_read = || self.view().slots.iter().any(|other| Arc::ptr_eq(other, slot));
        let topics = self.unsealed.of(slot, is_read);
        let found = topics.and_then(|topics| topics.read(slot, from, end, filter));
        found.map_or_else(|| sift(slot, from, end, filter), Ok)
    }

    /// A segment that was trimmed away between two steps of a read is not damaged.
    pub(super) fn trimmed_meanwhile(&self, from: Seq, error: StoreError) -> StoreError {
        let oldest = self.bounds().oldest;
        if from < oldest { StoreError::Trimmed { oldest } } else { error }
    }

    /// Why nothing holds an event.
    pub(super) fn hole(&self, view: &View, seq: Seq) -> StoreError {
        match view.removed_at(seq) {
            Some(range) => StoreError::Removed(self.run_from(view, *range)),
            None => self.malformed(seq, "no segment or slot holds this event"),
        }
    }

    pub(super) fn malformed(&self, seq: Seq, what: &str) -> StoreError {
        let (file, detail) = (self.dir.clone(), what.to_owned());
        StoreError::Damaged(Damage { from: seq, to: seq, file, detail })
    }
}

/// Why neighbours are gone.
fn both(one: RemovedReason, other: RemovedReason) -> RemovedReason {
    if one == other { one } else { RemovedReason::Compacted }
}

/// Picks the events that match out of a part of a slot that has no index of topics: every event is looked at,
/// but here, rather than by each watch chunk by chunk.
pub(super) fn sift(slot: &Slot, from: Seq, end: Seq, filter: &Filter) -> Result<Chunk, StoreError> {
    let sifter = Sifter::new(filter);
    let (mut found, mut sifted, mut next) = (Vec::new(), 0, from);
    while next < end && sifted < SIFTED_BYTES && found.len() < FOUND_BYTES {
        let before = found.len();
        let picked = slot.read(next, end).and_then(|chunk| {
            let picked = sifter.pick(&chunk.events, chunk.first, next..chunk.end, &mut found);
            match picked {
                Ok(upto) if upto == chunk.end => Ok(chunk),
                Ok(_) => Err(slot.malformed(next, "an event is missing")),
                Err(what) => Err(slot.malformed(next, what)),
            }
        });
        match picked {
            // Most of it is wanted: nothing is won by copying.
            Ok(chunk) if next == from && found.len() * DENSE > chunk.events.len() => {
                return Ok(chunk);
            }
            Ok(chunk) => {
                sifted += chunk.events.len();
                next = chunk.end;
            }
            // The error belongs to the read that begins there.
            Err(_) if next > from => {
                found.truncate(before);
                break;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(Chunk { first: from, end: next, events: found.into(), complete: false })
}
