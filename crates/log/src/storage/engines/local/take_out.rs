//! Taking events out of sealed segments.
//!
//! A segment is built anew with runs in place of the events that go, at the next revision, and takes the place of the
//! old one. Where nothing is left of it, a range without events does. Cut anywhere, the next start finds the old one or
//! both, of which the newer counts. What tells repeats of events that are gone stays as far as it is asked for.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use super::LocalEngine;
use super::seal::Sealer;
use crate::chain::Link;
use crate::storage::entries::{Entries, Entry, Run, write_run};
use crate::storage::error::chain;
use crate::storage::segment::{
    self, BLOCK_BYTES, BuildSpec, Cache, DB_CACHE_BYTES, Lease, Progress, RemovedRange, Segment,
    Source,
};
use crate::storage::{
    Chunk, Damage, Removed, RemovedReason, Sealed, StoreError, TakeOut, TakenOut,
};
use crate::width::to_u32;
use tailmark_record::{EventError, Facts, Seq};

/// What a segment is replaced by.
enum Built {
    Segment(Arc<Segment>),
    Nothing(Arc<RemovedRange>),
}

impl LocalEngine {
    pub(super) fn sealed(&self) -> Vec<Sealed> {
        let oldest = self.bounds().oldest;
        let view = self.view();
        let readable = view.segments.iter().filter(|segment| segment.end() > oldest);
        readable.map(|segment| sealed(segment)).collect()
    }

    pub(super) fn take_out(&self, order: &TakeOut) -> Result<Option<TakenOut>, StoreError> {
        self.check_claim()?;
        let building = self.building.lock();
        if self.work.is_closing() || self.work.has_given_up_sealing() {
            let reason = "sealing has ended, or been given up".to_owned();
            return Err(StoreError::Busy { reason });
        }
        let view = self.view();
        let is_meant = |it: &&Arc<Segment>| {
            (it.first(), it.end(), it.revision())
                == (order.sealed.first, order.sealed.end, order.sealed.revision)
        };
        let Some(segment) = view.segments.iter().find(is_meant).cloned() else { return Ok(None) };
        drop(view);
        let Some(lease) = segment.lease() else { return Ok(None) };
        self.check_segments()?;
        let progress = Arc::new(Progress::default());
        *self.work.sealing.lock() = Some(Arc::clone(&progress));
        let built = self.build_without(&lease, order, progress);
        *self.work.sealing.lock() = None;
        drop(lease);
        let (built, mut taken) = built?;
        if self.work.has_given_up_sealing() {
            // The next start finds both, and the newer counts.
            let reason = "sealing has been given up".to_owned();
            return Err(StoreError::Busy { reason });
        }
        let left = match &built {
            Built::Segment(built) => built.disk_bytes(),
            Built::Nothing(_) => 0,
        };
        taken.freed_bytes = segment.disk_bytes().saturating_sub(left);
        let is_in_place = self.put_in_place(&segment, &built);
        match (is_in_place, built) {
            (true, _) => self.discarded.lock().push(segment),
            // Trimmed meanwhile, it has been discarded, and what was built goes too.
            (false, Built::Segment(built)) => self.discarded.lock().push(built),
            (false, Built::Nothing(range)) => {
                let trash = segment::trash(&range.dir, &self.options.disk)?;
                self.trash.lock().push(trash);
            }
        }
        drop(building);
        if let Err(error) = self.move_discarded() {
            tracing::warn!(error = %chain(&error), "cannot move a discarded segment away");
        }
        self.work.signal(|signals| signals.seal = true);
        Ok(Some(taken))
    }

    /// Answers false where it is there no more.
    fn put_in_place(&self, old: &Arc<Segment>, built: &Built) -> bool {
        let mut is_in_place = false;
        self.change_view(|view| {
            let at = view.segments.iter().position(|other| Arc::ptr_eq(other, old));
            let Some(at) = at else { return };
            match built {
                Built::Segment(built) => view.segments[at] = Arc::clone(built),
                Built::Nothing(range) => {
                    view.segments.remove(at);
                    let before = view.removed.partition_point(|it| it.range.end <= old.first());
                    view.removed.insert(before, Arc::clone(range));
                }
            }
            is_in_place = true;
        });
        is_in_place
    }

    fn build_without(
        &self,
        lease: &Lease,
        order: &TakeOut,
        progress: Arc<Progress>,
    ) -> Result<(Built, TakenOut), StoreError> {
        let meta = self.meta.lock().clone();
        let sealer = Sealer {
            dir: self.segments_dir(),
            options: &self.options,
            meta: &meta,
            cache: &self.cache,
            progress: Arc::clone(&progress),
            reserve_bytes: self.options.min_free_bytes,
        };
        let revision = lease.revision() + 1;
        let gone = order.seqs.iter().map(|(range, _)| range.start.distance_to(range.end));
        let gone = gone.fold(lease.removed().events(), u64::saturating_add);
        if gone >= lease.first().distance_to(lease.end()) {
            let taken = Left::new(lease, &self.cache, order).count()?;
            if let Some(reason) = taken.left_is_none() {
                // First, so that a repeat is told at every moment.
                let mut named = lease.named()?;
                named.retain(|(seq, _)| *seq >= order.named_from);
                self.trimmed.try_keep(lease.first(), lease.end(), named)?;
                let (link_before, link) = (lease.link_before(), lease.link());
                let (first, end) = (lease.first(), lease.end());
                let range = Removed { first, end, reason, link_before, link };
                let disk = &self.options.disk;
                let stored = RemovedRange::store(&sealer.dir, self.log, revision, range, disk)?;
                return Ok((Built::Nothing(Arc::new(stored)), taken.taken));
            }
        }
        let raw_bytes = lease.raw_bytes();
        sealer.check_space(raw_bytes)?;
        let mut named_before = lease.named()?;
        named_before.retain(|(seq, _)| *seq >= order.named_from);
        let spec = BuildSpec {
            log_id: meta.log,
            generations: lease.generations().clone(),
            fingerprint_key: meta.key,
            first: lease.first(),
            end: lease.end(),
            named_before,
            link_before: lease.link_before(),
            // What is left has the same chain, or what was built is not these events.
            link: Some(lease.link()),
            revision,
            compression: self.options.compression,
            block_bytes: BLOCK_BYTES,
            db_cache_bytes: DB_CACHE_BYTES,
            progress,
            disk: self.options.disk.clone(),
        };
        let source = Without { lease, cache: &self.cache, order };
        let built = segment::build(&sealer.dir, &spec, &source)?;
        super::erase::keep_age(lease, &built);
        let (before, after) = (lease.removed(), built.removed());
        let mut taken = TakenOut::default();
        for (range, reason) in &order.seqs {
            taken.count(range.start.distance_to(range.end), *reason);
        }
        // Some of them were gone already.
        let all = after.events().saturating_sub(before.events());
        taken.expired = taken.expired.min(all);
        taken.compacted = all.saturating_sub(taken.expired);
        Ok((Built::Segment(Arc::new(built)), taken))
    }
}

fn sealed(segment: &Segment) -> Sealed {
    Sealed {
        first: segment.first(),
        end: segment.end(),
        revision: segment.revision(),
        last_at: segment.last_at(),
        raw_bytes: segment.raw_bytes(),
        disk_bytes: segment.disk_bytes(),
        removed: segment.removed().events(),
    }
}

/// The entries of a segment without those that go.
struct Without<'a> {
    lease: &'a Lease,
    cache: &'a Cache,
    order: &'a TakeOut,
}

impl Source for Without<'_> {
    fn chunks(&self) -> Box<dyn Iterator<Item = Result<Chunk, StoreError>> + '_> {
        let mut left = Left::new(self.lease, self.cache, self.order);
        Box::new(std::iter::from_fn(move || left.next_chunk().transpose()))
    }

    fn origin(&self) -> PathBuf {
        self.lease.dir().to_owned()
    }
}

/// Goes through a segment, and makes one run of neighbours that go or are gone.
struct Left<'a> {
    lease: &'a Lease,
    cache: &'a Cache,
    order: &'a TakeOut,
    /// Of the order, those before were passed.
    passed: usize,
    /// The seq of the next entry that is read.
    next: Seq,
    link: Link,
    /// Before `next`, not yet handed on.
    open: Option<Run>,
    has_events: bool,
    taken: TakenOut,
}

impl<'a> Left<'a> {
    fn new(lease: &'a Lease, cache: &'a Cache, order: &'a TakeOut) -> Left<'a> {
        Left {
            lease,
            cache,
            order,
            passed: 0,
            next: lease.first(),
            link: lease.link_before(),
            open: None,
            has_events: false,
            taken: TakenOut::default(),
        }
    }

    /// Goes through all of it.
    fn count(mut self) -> Result<Self, StoreError> {
        while self.next_chunk()?.is_some() {}
        Ok(self)
    }

    /// Why all of it goes, if nothing is left.
    fn left_is_none(&self) -> Option<RemovedReason> {
        let before = self.lease.removed();
        let is_expired = self.taken.compacted == 0 && before.compacted == 0;
        let reason = if is_expired { RemovedReason::Expired } else { RemovedReason::Compacted };
        (!self.has_events).then_some(reason)
    }

    /// Why the event goes, if it does.
    fn reason(&mut self, seq: Seq) -> Option<RemovedReason> {
        loop {
            let (range, reason): &(Range<Seq>, _) = self.order.seqs.get(self.passed)?;
            if seq < range.end {
                return (seq >= range.start).then_some(*reason);
            }
            self.passed += 1;
        }
    }

    fn next_chunk(&mut self) -> Result<Option<Chunk>, StoreError> {
        let end = self.lease.end();
        while self.next < end {
            let begin = self.next;
            let chunk = self.cache.entries(self.lease, begin)?;
            let (file, to) = (self.lease.dir().to_owned(), chunk.end.prev());
            let left = self.left_of(&chunk).map_err(|error| {
                StoreError::from(Damage { from: begin, to, file, detail: error.what().to_owned() })
            })?;
            if left.is_some() {
                return Ok(left);
            }
        }
        let Some(run) = self.open.take() else { return Ok(None) };
        let mut events = Vec::new();
        write_run(&mut events, &run);
        let first = Seq::new(end.get() - u64::from(run.count));
        Ok(Some(Chunk { first, end, events: events.into(), complete: true }))
    }

    /// What is left of some entries, with the run before them; a run at their end is kept back. `None` = nothing.
    fn left_of(&mut self, chunk: &Chunk) -> Result<Option<Chunk>, EventError> {
        let open = self.open.as_ref().map_or(0, |run| u64::from(run.count));
        let first = Seq::new(chunk.first.get() - open);
        let mut out = Vec::with_capacity(chunk.events.len() / 2);
        let (mut entries, mut start) = (Entries::new(&chunk.events), 0);
        while let Some(entry) = entries.next() {
            let (seq, stop) = (self.next, chunk.events.len() - entries.remaining());
            let entry = entry?;
            match entry {
                Entry::Run(run) => {
                    self.link = run.link;
                    self.extend(run);
                }
                Entry::Event(event) => {
                    let facts = Facts::scan(event)?;
                    let before = self.link;
                    self.link = before.then_event(event, &facts);
                    match self.reason(seq) {
                        Some(reason) => {
                            self.taken.count(1, reason);
                            self.extend(Run { count: 1, reason, link: self.link });
                        }
                        None => {
                            if let Some(run) = self.open.take() {
                                write_run(&mut out, &run);
                            }
                            self.has_events = true;
                            let bytes = chunk.events.get(start..stop).unwrap_or_default();
                            out.extend_from_slice(bytes);
                        }
                    }
                }
            }
            self.next = seq.plus(entry.seqs());
            start = stop;
        }
        if out.is_empty() {
            return Ok(None);
        }
        let open = self.open.as_ref().map_or(0, |run| u64::from(run.count));
        let end = Seq::new(chunk.end.get() - open);
        Ok(Some(Chunk { first, end, events: out.into(), complete: true }))
    }

    /// Makes one of the run that is open and the next. It was compacted if anything of it was.
    fn extend(&mut self, next: Run) {
        let run = self.open.get_or_insert(Run { count: 0, ..next });
        run.count = to_u32(u64::from(run.count) + u64::from(next.count));
        run.link = next.link;
        if next.reason != RemovedReason::Expired {
            run.reason = next.reason;
        }
    }
}
