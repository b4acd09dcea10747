//! Questions other than "what comes next": by time, by fingerprint, by size.

use std::path::Path;

use super::LocalEngine;
use super::create::FIRST_SLOTS;
use super::trimmed::{Trimmed, TrimmedRun};
use super::view::View;
use crate::storage::StoreError;
use crate::storage::disk::Disk;
use crate::storage::journal::Slot;
use crate::storage::meta::Meta;
use crate::storage::segment::{Lease, Segment};
use tailmark_record::topic::Filter;
use tailmark_record::{Events, Facts, Fingerprint, FingerprintKey, Seq, Timestamp};

/// Where named events are known from.
enum Part<'a> {
    Segment(&'a Lease),
    /// From this seq on; what is before is sealed.
    Slot(&'a Slot, Seq),
    Trimmed(TrimmedRun),
}

impl Part<'_> {
    /// First seq, and the one after the last.
    fn range(&self) -> (Seq, Seq) {
        match self {
            Part::Segment(lease) => (lease.first(), lease.end()),
            Part::Slot(slot, first) => (*first, slot.end()),
            Part::Trimmed(run) => (run.first, run.end),
        }
    }
}

impl LocalEngine {
    pub(super) fn seek_time(&self, time: Timestamp) -> Result<Seq, StoreError> {
        self.on_view(|view| self.seek_time_in(view, time))
    }

    fn seek_time_in(&self, view: &View, time: Timestamp) -> Result<Seq, StoreError> {
        let bounds = self.bounds();
        let at = view.segments.partition_point(|segment| segment.last_at() < time);
        if let Some(segment) = view.segments.get(at) {
            let found = self.cache.seek_time(&self.lease(segment)?, time)?;
            // What is gone before it may have been appended then.
            return Ok(view.before_removed(found).max(bounds.oldest).min(bounds.next()));
        }
        let sealed = view.sealed_end().unwrap_or(Seq::FIRST);
        let frame = view.slots.iter().find_map(|slot| slot.seek_time(time));
        let found = frame.map_or(bounds.next(), |frame| frame.first.max(sealed));
        Ok(view.before_removed(found).max(bounds.oldest).min(bounds.next()))
    }

    pub(super) fn time_of(&self, seq: Seq) -> Result<Timestamp, StoreError> {
        self.on_view(|view| self.time_of_in(view, seq))
    }

    fn time_of_in(&self, view: &View, seq: Seq) -> Result<Timestamp, StoreError> {
        let bounds = self.bounds();
        if seq < bounds.oldest {
            return Err(StoreError::Trimmed { oldest: bounds.oldest });
        }
        if seq > bounds.head {
            return Err(StoreError::Invalid("the seq is beyond the head"));
        }
        if let Some(segment) = view.segments.iter().find(|segment| segment.contains(seq)) {
            return self.cache.time_of(&self.lease(segment)?, seq);
        }
        let frame = view.slots.iter().find_map(|slot| slot.frame_of(seq));
        frame.map(|frame| frame.appended_at).ok_or_else(|| self.hole(view, seq))
    }

    pub(super) fn fingerprints(
        &self,
        from: Seq,
        visit: &mut dyn FnMut(Seq, Fingerprint) -> bool,
    ) -> Result<(), StoreError> {
        // All leases first: a visit can't be taken back.
        let (view, leases) = self.on_view(|view| {
            let leases: Result<Vec<_>, _> = view.segments.iter().map(|s| self.lease(s)).collect();
            Ok((view.clone(), leases?))
        })?;
        let sealed = view.sealed_end().unwrap_or(Seq::FIRST);
        let mut parts: Vec<Part<'_>> = leases.iter().map(Part::Segment).collect();
        parts.extend(view.slots.iter().map(|slot| Part::Slot(slot, slot.first().max(sealed))));
        // After the view: what leaves it is among these by then, perhaps in both.
        parts.extend(self.trimmed.runs().into_iter().map(Part::Trimmed));
        parts.sort_by_key(|part| (part.range().1, part.range().0));
        let (mut below, is_to_go) = (Seq::MAX, self.is_to_go());
        for part in parts.iter().rev().take_while(|part| part.range().1 > from) {
            let mut visit_once =
                |seq: Seq, fingerprint| seq >= below || is_to_go(seq) || visit(seq, fingerprint);
            let goes_on = match part {
                Part::Segment(lease) => lease.fingerprints(from, &mut visit_once)?,
                Part::Slot(slot, first) => {
                    let named = named_events(slot, from.max(*first), &self.key)?;
                    named.into_iter().rev().all(|(seq, found)| visit_once(seq, found))
                }
                Part::Trimmed(run) => self.trimmed.visit(run, from, &mut visit_once)?,
            };
            if !goes_on {
                return Ok(());
            }
            below = below.min(part.range().0);
        }
        Ok(())
    }

    /// Keeps what is known of a segment that is trimmed, before it leaves the view.
    pub(super) fn keep_trimmed_segment(&self, segment: &Segment) {
        self.trimmed.keep(segment.first(), segment.end(), segment.named());
    }

    /// Keeps what is known of a slot whose events are all trimmed, of those that are not sealed.
    pub(super) fn keep_trimmed_slot(&self, slot: &Slot) {
        let sealed = self.view().sealed_end().unwrap_or(Seq::FIRST);
        keep_slot(&self.trimmed, slot, sealed, &self.key);
    }

    pub(super) fn trim_point_for_size(&self, max_bytes: u64, limit: Seq) -> Seq {
        let oldest = self.bounds().oldest;
        // All from one view: what others give back meanwhile would be counted in one place and not in the other.
        let view = self.view();
        let segments = view.segments.iter().filter(|segment| segment.end() > oldest);
        // Others wait for their last reader, or to be taken out.
        let done = view.sealed_end().unwrap_or(Seq::ZERO).max(oldest);
        let full = &view.slots[..view.slots.len().saturating_sub(1)];
        let full: Vec<_> = full.iter().filter(|slot| slot.end() > done).collect();
        // The active slot, and one more, the log always has.
        let spare = full.len().saturating_sub(FIRST_SLOTS - 1);
        let slots = FIRST_SLOTS.max(full.len() + 1) as u64;
        let sealed: u64 = segments.clone().map(|segment| segment.disk_bytes()).sum();
        // However small the limit is, half of it is for what is sealed: a log whose journal alone was as large would
        // lose all of it.
        let always = FIRST_SLOTS as u64 * self.options.slot_bytes;
        let journal =
            (slots * self.options.slot_bytes).saturating_sub(always) + always.min(max_bytes / 2);
        let needed = sealed.saturating_add(journal);
        let excess = needed.saturating_sub(max_bytes);
        let (mut freed, mut point) = (0, oldest);
        for segment in segments {
            if freed >= excess || segment.end() > limit {
                break;
            }
            freed += segment.disk_bytes();
            point = point.max(segment.end());
        }
        // Then slots that wait to be sealed.
        for slot in full.into_iter().take(spare) {
            if freed >= excess || slot.end() > limit {
                break;
            }
            freed += self.options.slot_bytes;
            point = point.max(slot.end());
        }
        point
    }

    /// The seq behind so many events from one on; no further than what can be read.
    fn pass_events(&self, mut at: Seq, end: Seq, mut events: u64) -> Seq {
        while at < end && events > 0 {
            match self.read(at, end, &Filter::ALL) {
                Ok(chunk) => {
                    // Of everything it is what follows one upon the other.
                    let passed = at.distance_to(chunk.end).min(events);
                    (at, events) = (Seq::new(at.get() + passed), events - passed);
                }
                Err(StoreError::Removed(gone)) => at = gone.end.min(end),
                Err(_) => break,
            }
        }
        at
    }

    pub(super) fn trim_point_for_events(&self, max: u64, end: Seq) -> Seq {
        let oldest = self.bounds().oldest;
        let view = self.view();
        let sealed = view.sealed_end().unwrap_or(Seq::FIRST).min(end);
        let back = |from: Seq, count: u64| Seq::new(from.get().saturating_sub(count)).max(oldest);
        let unsealed = sealed.distance_to(end);
        if unsealed >= max {
            return back(end, max).min(end);
        }
        let mut rest = max - unsealed;
        for segment in view.segments.iter().rev().take_while(|segment| segment.end() > oldest) {
            let removed = segment.removed().events();
            let first = segment.first();
            let events = first.max(oldest).distance_to(segment.end()).saturating_sub(removed);
            if events > rest {
                if removed == 0 || rest == 0 {
                    return back(segment.end(), rest);
                }
                // From the oldest on: of those that have come since the last look there are few.
                return self.pass_events(first.max(oldest), segment.end(), events - rest);
            }
            rest -= events;
        }
        oldest
    }
}

/// As [`LocalEngine::keep_trimmed_slot`].
pub(super) fn keep_slot(trimmed: &Trimmed, slot: &Slot, sealed: Seq, key: &FingerprintKey) {
    let first = slot.first().max(sealed);
    trimmed.keep(first, slot.end(), named_events(slot, first, key));
}

/// Keeps the named events of slots that were trimmed before they were sealed, in a directory that is made.
///
/// # Errors
/// I/O.
pub(in crate::storage) fn keep_trimmed_slots(
    dir: &Path,
    disk: &Disk,
    meta: &Meta,
    slots: &[Slot],
    sealed: Seq,
) -> Result<(), StoreError> {
    let trimmed = Trimmed::open(dir, disk, meta.log, usize::MAX)?;
    slots.iter().for_each(|slot| keep_slot(&trimmed, slot, sealed, &meta.key));
    Ok(())
}

/// The events of a slot from `from` on that their senders named, in order.
fn named_events(
    slot: &Slot,
    from: Seq,
    key: &FingerprintKey,
) -> Result<Vec<(Seq, Fingerprint)>, StoreError> {
    let mut found = Vec::new();
    each_event(slot, from, slot.end(), |facts, event| {
        if facts.has_client_id {
            let part = event.get(..facts.client_len).unwrap_or(event);
            found.push((facts.seq, key.fingerprint(part)));
        }
    })?;
    Ok(found)
}

fn each_event(
    slot: &Slot,
    from: Seq,
    end: Seq,
    mut visit: impl FnMut(&Facts<'_>, &[u8]),
) -> Result<(), StoreError> {
    let mut at = from.max(slot.first());
    while at < end {
        let chunk = slot.read(at, end)?;
        for event in Events::new(&chunk.events) {
            let event = event.map_err(|error| slot.malformed(at, error.what()))?;
            let facts = Facts::scan(event).map_err(|error| slot.malformed(at, error.what()))?;
            visit(&facts, event);
        }
        at = chunk.end;
    }
    Ok(())
}
