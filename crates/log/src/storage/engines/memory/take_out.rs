//! Taking events out in memory, and losing them: what is left of each commit takes its place.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use super::{KEPT_FINGERPRINTS, Log, Memory, StoredCommit, damage};
use crate::chain::{Link, tag_in};
use crate::storage::{Removed, RemovedReason, Sealed, StoreError, TakeOut, TakenOut};
use tailmark_record::{ChainTag, EventError, Events, Fingerprint, FingerprintKey, Seq};

/// Commits are told together up to so many bytes.
const TOLD_BYTES: u64 = 1 << 20;

impl Memory {
    /// Loses these events for good, as a salvage may. They are durable and not trimmed, and no such range was
    /// next to another.
    ///
    /// # Errors
    /// When an event is malformed.
    pub fn lose(&self, range: Range<Seq>) -> Result<(), StoreError> {
        self.remove(range, RemovedReason::Damaged)
    }

    /// Takes these events out, as retention by topic may, or loses them. They are durable and not trimmed, and none
    /// of them is gone. Where that was meant, the range becomes one with such a range beside it.
    ///
    /// # Errors
    /// As [`Memory::lose`].
    pub fn remove(&self, range: Range<Seq>, reason: RemovedReason) -> Result<(), StoreError> {
        self.log.lock().remove(&[(range, reason)], &self.key).map(|_| ())
    }

    /// Commits, some together.
    pub(super) fn sealed(&self) -> Vec<Sealed> {
        let log = self.log.lock();
        let mut all: Vec<Sealed> = Vec::new();
        for run in log.commits.iter().filter(|run| run.end > log.oldest) {
            let bytes = run.events.len() as u64;
            let gone = |from: Seq, end: Seq| from.distance_to(end);
            match all.last_mut().filter(|last| last.raw_bytes + bytes <= TOLD_BYTES) {
                Some(last) => {
                    last.removed += gone(last.end, run.first);
                    (last.end, last.last_at) = (run.end, run.at);
                    last.raw_bytes += bytes;
                    last.disk_bytes = last.raw_bytes;
                }
                None => all.push(Sealed {
                    first: run.first,
                    end: run.end,
                    revision: 0,
                    last_at: run.at,
                    raw_bytes: bytes,
                    disk_bytes: bytes,
                    removed: 0,
                    // Nothing is won by making one of them.
                    full_bytes: 0,
                }),
            }
        }
        all
    }

    pub(super) fn take_out(&self, order: &TakeOut) -> Result<Option<TakenOut>, StoreError> {
        let mut log = self.log.lock();
        if let Some(reason) = log.stopped {
            return Err(StoreError::Stopped { reason: reason.to_owned() });
        }
        let bytes = |log: &Log| log.commits.iter().map(|run| run.events.len() as u64).sum::<u64>();
        let before = bytes(&log);
        // What is trimmed goes with its commit.
        let oldest = log.oldest;
        let readable =
            |(range, reason): &(Range<Seq>, _)| (range.start.max(oldest)..range.end, *reason);
        let ranges: Vec<_> =
            order.seqs.iter().map(readable).filter(|it| !it.0.is_empty()).collect();
        let mut taken = log.remove(&ranges, &self.key)?;
        taken.freed_bytes = before.saturating_sub(bytes(&log));
        Ok(Some(taken))
    }
}

impl Log {
    /// Takes out what is there of some ranges, in order.
    fn remove(
        &mut self,
        ranges: &[(Range<Seq>, RemovedReason)],
        key: &FingerprintKey,
    ) -> Result<TakenOut, StoreError> {
        let mut taken = TakenOut::default();
        let (mut left, mut gone, mut named) = (VecDeque::new(), Vec::<Removed>::new(), Vec::new());
        for run in &self.commits {
            let at = ranges.partition_point(|(range, _)| range.end <= run.first);
            let here = ranges.get(at..).unwrap_or_default();
            let here: Vec<_> = here.iter().take_while(|(range, _)| range.start < run.end).collect();
            if here.is_empty() {
                left.push_back(Arc::clone(run));
                continue;
            }
            // What is lost is not known any more: a repeat of it is stored.
            let of_run = |seq: Seq| {
                let is_it = |it: &&&(Range<Seq>, RemovedReason)| it.0.contains(&seq);
                here.iter().find(is_it).is_some_and(|it| it.1 != RemovedReason::Damaged)
            };
            named.extend(run.named(key)?.into_iter().filter(|(seq, _)| of_run(*seq)));
            let is_from_its_first = here.first().is_some_and(|(range, _)| range.start <= run.first);
            let before =
                if is_from_its_first { self.tag_before(run.first)? } else { ChainTag::START };
            let (kept, removed) =
                run.without(&here, before).map_err(|error| damage(run, &error))?;
            removed.iter().for_each(|range| taken.count(range.events(), range.reason));
            left.extend(kept);
            for next in removed {
                let is_of_both = |(range, _): &&(Range<Seq>, _)| {
                    range.contains(&next.first) && range.contains(&next.first.prev())
                };
                let joins = |last: &&mut Removed| last.end == next.first;
                match gone
                    .last_mut()
                    .filter(joins)
                    .filter(|_| here.iter().copied().any(|it| is_of_both(&it)))
                {
                    // One range, in two commits.
                    Some(last) => (last.end, last.link) = (next.end, next.link),
                    None => gone.push(next),
                }
            }
        }
        self.commits = left;
        // What tells repeats of them stays.
        self.keep_named(named);
        self.removed.extend(gone);
        self.removed.sort_by_key(|it| it.first);
        self.removed.dedup_by(|next, run| {
            let are_one = run.end == next.first && run.is_intended() && next.is_intended();
            if are_one {
                (run.end, run.link) = (next.end, next.link);
                if next.reason == RemovedReason::Compacted {
                    run.reason = next.reason;
                }
            }
            are_one
        });
        Ok(taken)
    }

    /// Keeps what tells repeats of events that are gone.
    pub(super) fn keep_named(&mut self, named: Vec<(Seq, Fingerprint)>) {
        self.trimmed.extend(named);
        self.trimmed.sort_by_key(|(seq, _)| *seq);
        let excess = self.trimmed.len().saturating_sub(KEPT_FINGERPRINTS);
        self.trimmed.drain(..excess);
    }

    /// Of the chain at the event before a seq that is there.
    fn tag_before(&self, seq: Seq) -> Result<ChainTag, StoreError> {
        let before = seq.prev();
        if before == Seq::ZERO {
            return Ok(ChainTag::START);
        }
        if seq == self.oldest
            && let Some(tag) = self.links.oldest_tag
        {
            return Ok(tag);
        }
        match self.commit_of(before) {
            Ok(run) => run.tag_at(before).map_err(|error| damage(&run, &error)),
            Err(StoreError::Removed(range)) => {
                range.link.known_tag().ok_or(StoreError::Removed(range))
            }
            Err(error) => Err(error),
        }
    }
}

impl StoredCommit {
    pub(super) fn tag_at(&self, seq: Seq) -> Result<ChainTag, EventError> {
        let nth = crate::width::to_usize(self.first.distance_to(seq));
        Events::new(&self.events).nth(nth).unwrap_or(Err(EventError::MISSING)).and_then(tag_in)
    }

    /// What is left of it without some ranges, and what is gone.
    fn without(
        &self,
        ranges: &[&(Range<Seq>, RemovedReason)],
        before: ChainTag,
    ) -> Result<(Vec<Arc<StoredCommit>>, Vec<Removed>), EventError> {
        let mut kept: Vec<(Seq, Seq, Range<usize>)> = Vec::new();
        let mut gone: Vec<Removed> = Vec::new();
        let (mut events, mut seq, mut start) = (Events::new(&self.events), self.first, 0);
        let (mut link_before, mut was) = (Link::of_tag(before), None);
        while let Some(event) = events.next() {
            let link = Link::of_tag(tag_in(event?)?);
            let (stop, next) = (self.events.len() - events.remaining(), seq.next());
            let which = ranges.iter().position(|(range, _)| range.contains(&seq));
            match (which.and_then(|at| ranges.get(at)), which == was) {
                (Some(_), true) => {
                    if let Some(last) = gone.last_mut() {
                        (last.end, last.link) = (next, link);
                    }
                }
                (Some((_, reason)), false) => {
                    let (first, end, reason) = (seq, next, *reason);
                    gone.push(Removed { first, end, reason, link_before, link });
                }
                (None, true) if !kept.is_empty() => {
                    if let Some((_, end, bytes)) = kept.last_mut() {
                        (*end, bytes.end) = (next, stop);
                    }
                }
                (None, _) => kept.push((seq, next, start..stop)),
            }
            (link_before, was, seq, start) = (link, which, next, stop);
        }
        let kept = kept.into_iter().map(|(first, end, bytes)| {
            let events = self.events.slice(bytes);
            Arc::new(StoredCommit { first, end, at: self.at, events })
        });
        Ok((kept.collect(), gone))
    }
}
