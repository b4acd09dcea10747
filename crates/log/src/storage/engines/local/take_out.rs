//! Taking events out of sealed segments.
//!
//! A segment is built anew with runs in place of the events that go, at the next revision, and takes the place of the
//! old one; or one takes the place of several neighbours, and of the ranges without events between them. Where nothing is
//! left, a range without events does. Cut anywhere, the next start finds the old ones or both, of which the newer
//! counts. What tells repeats of events that are gone stays as far as it is asked for.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use super::LocalEngine;
use super::view::View;
use crate::chain::Link;
use crate::storage::entries::{Entries, Entry, Run, write_run};
use crate::storage::error::chain;
use crate::storage::segment::{
    self, BuildSpec, Cache, Lease, Progress, RemovedRange, RunTotals, Segment, Source,
};
use crate::storage::{
    Chunk, Damage, Removed, RemovedReason, Sealed, StoreError, TakeOut, TakenOut,
};
use crate::width::to_u32;
use tailmark_record::{EventError, Facts, Fingerprint, Seq};

/// What takes the place of others.
enum Built {
    Segment(Arc<Segment>),
    Nothing(Arc<RemovedRange>),
}

/// One of those that are written anew.
enum Piece {
    Segment(Lease),
    Gone(Arc<RemovedRange>),
}

/// Neighbours that are written anew, in order, without a hole.
struct Pieces(Vec<Piece>);

impl Piece {
    fn range(&self) -> Range<Seq> {
        match self {
            Piece::Segment(lease) => lease.first()..lease.end(),
            Piece::Gone(it) => it.range.first..it.range.end,
        }
    }

    fn links(&self) -> (Link, Link) {
        match self {
            Piece::Segment(lease) => (lease.link_before(), lease.link()),
            Piece::Gone(it) => (it.range.link_before, it.range.link),
        }
    }

    fn revision(&self) -> u32 {
        match self {
            Piece::Segment(lease) => lease.revision(),
            Piece::Gone(it) => it.revision,
        }
    }
}

impl Pieces {
    /// Those of a view that are meant; `None` where one of them is there no more as it was told.
    fn of(view: &View, sealed: &[Sealed]) -> Option<Pieces> {
        let (first, last) = (sealed.first()?, sealed.last()?);
        let range = first.first..last.end;
        let is_within = |of: Range<Seq>| range.start <= of.start && of.end <= range.end;
        let mut pieces = Vec::new();
        for segment in view.segments.iter().filter(|it| is_within(it.first()..it.end())) {
            pieces.push(Piece::Segment(segment.lease()?));
        }
        let is_meant = pieces.iter().map(Piece::range).eq(sealed.iter().map(|it| it.first..it.end))
            && pieces.iter().map(Piece::revision).eq(sealed.iter().map(|it| it.revision));
        let ranges = view.removed.iter().filter(|it| is_within(it.range.first..it.range.end));
        pieces.extend(ranges.map(|it| Piece::Gone(Arc::clone(it))));
        pieces.sort_by_key(|piece| piece.range().start);
        let meets = pieces.windows(2).all(|pair| pair[0].range().end == pair[1].range().start);
        let is_intended = |piece: &Piece| match piece {
            Piece::Segment(_) => true,
            Piece::Gone(it) => it.range.is_intended(),
        };
        (is_meant && meets && pieces.iter().all(is_intended)).then_some(Pieces(pieces))
    }

    fn leases(&self) -> impl Iterator<Item = &Lease> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Segment(lease) => Some(lease),
            Piece::Gone(_) => None,
        })
    }

    fn range(&self) -> Range<Seq> {
        let start = self.0.first().map_or(Seq::ZERO, |piece| piece.range().start);
        start..self.0.last().map_or(start, |piece| piece.range().end)
    }

    /// The chain before the first event, and at the last.
    fn links(&self) -> (Link, Link) {
        let before = self.0.first().map_or(Link::START, |piece| piece.links().0);
        (before, self.0.last().map_or(before, |piece| piece.links().1))
    }

    fn revision(&self) -> u32 {
        self.0.iter().map(Piece::revision).max().unwrap_or_default()
    }

    /// What was gone before.
    fn removed(&self) -> RunTotals {
        let mut totals = RunTotals::default();
        for piece in &self.0 {
            match piece {
                Piece::Segment(lease) => {
                    totals.expired += lease.removed().expired;
                    totals.compacted += lease.removed().compacted;
                }
                Piece::Gone(it) if it.range.reason == RemovedReason::Expired => {
                    totals.expired += it.range.events();
                }
                Piece::Gone(it) => totals.compacted += it.range.events(),
            }
        }
        totals
    }
}

impl LocalEngine {
    pub(super) fn sealed(&self) -> Vec<Sealed> {
        let oldest = self.bounds().oldest;
        let view = self.view();
        let readable = view.segments.iter().filter(|segment| segment.end() > oldest);
        readable.map(|segment| sealed(segment, self.options.slot_bytes)).collect()
    }

    pub(super) fn take_out(&self, order: &TakeOut) -> Result<Option<TakenOut>, StoreError> {
        self.check_claim()?;
        let building = self.building.lock();
        if self.work.is_closing() || self.work.has_given_up_sealing() {
            let reason = "sealing has ended, or been given up".to_owned();
            return Err(StoreError::Busy { reason });
        }
        let Some(pieces) = Pieces::of(&self.view(), &order.sealed) else { return Ok(None) };
        self.check_segments()?;
        let progress = Arc::new(Progress::default());
        *self.work.sealing.lock() = Some(Arc::clone(&progress));
        let built = self.build_without(&pieces, order, progress);
        *self.work.sealing.lock() = None;
        let (built, mut taken) = built?;
        if self.work.has_given_up_sealing() {
            // Nobody is told of it, and others may be written after it.
            let dir = match &built {
                Built::Segment(built) => built.dir().to_owned(),
                Built::Nothing(built) => built.dir.clone(),
            };
            self.trash.lock().push(segment::trash(&dir, &self.options.disk)?);
            let reason = "sealing has been given up".to_owned();
            return Err(StoreError::Busy { reason });
        }
        let before: u64 = pieces.leases().map(|lease| lease.disk_bytes()).sum();
        let after = match &built {
            Built::Segment(built) => built.disk_bytes(),
            Built::Nothing(_) => 0,
        };
        taken.freed_bytes = before.saturating_sub(after);
        self.put_in_place(&pieces, built)?;
        drop((pieces, building));
        if let Err(error) = self.move_discarded() {
            tracing::warn!(error = %chain(&error), "cannot move a discarded segment away");
        }
        self.work.signal(|signals| signals.seal = true);
        Ok(Some(taken))
    }

    /// What was trimmed meanwhile has been discarded, and then what was built goes too: the next start would find
    /// the rest of it below the trim mark.
    fn put_in_place(&self, pieces: &Pieces, built: Built) -> Result<(), StoreError> {
        let range = match &built {
            Built::Segment(_) => pieces.range(),
            Built::Nothing(built) => built.range.first..built.range.end,
        };
        let is_within = |first: Seq, end: Seq| range.start <= first && end <= range.end;
        let (mut is_in_place, mut ranges) = (false, Vec::new());
        self.change_view(|view| {
            let is_there = |lease: &Lease| {
                view.segments.iter().any(|other| Arc::ptr_eq(other, lease.segment()))
            };
            if !pieces.leases().all(is_there) {
                return;
            }
            view.segments.retain(|it| !is_within(it.first(), it.end()));
            let is_gone = |it: &mut Arc<RemovedRange>| is_within(it.range.first, it.range.end);
            ranges = view.removed.extract_if(.., is_gone).collect();
            match &built {
                Built::Segment(built) => {
                    let at = view.segments.partition_point(|it| it.end() <= range.start);
                    view.segments.insert(at, Arc::clone(built));
                }
                Built::Nothing(built) => {
                    let at = view.removed.partition_point(|it| it.range.end <= range.start);
                    view.removed.insert(at, Arc::clone(built));
                }
            }
            is_in_place = true;
        });
        let old = pieces.leases().map(|lease| Arc::clone(lease.segment()));
        match (is_in_place, built) {
            (true, _) => self.discarded.lock().extend(old),
            (false, Built::Segment(built)) => self.discarded.lock().push(built),
            (false, Built::Nothing(built)) => ranges.push(built),
        }
        for gone in ranges {
            let trash = segment::trash(&gone.dir, &self.options.disk)?;
            self.trash.lock().push(trash);
        }
        Ok(())
    }

    /// One range of it and of those beside it, at a revision above theirs.
    fn with_neighbours(&self, mut range: Removed, mut revision: u32) -> (Removed, u32) {
        let view = self.view();
        let mut join = |range: &mut Removed, other: &RemovedRange| {
            revision = revision.max(other.revision + 1);
            if other.range.reason != range.reason {
                range.reason = RemovedReason::Compacted;
            }
        };
        let intended = || view.removed.iter().filter(|it| it.range.is_intended());
        while let Some(it) = intended().find(|it| it.range.end == range.first) {
            join(&mut range, it);
            (range.first, range.link_before) = (it.range.first, it.range.link_before);
        }
        while let Some(it) = intended().find(|it| it.range.first == range.end) {
            join(&mut range, it);
            (range.end, range.link) = (it.range.end, it.range.link);
        }
        (range, revision)
    }

    /// What tells repeats, of those from a seq on, in order.
    fn named(&self, pieces: &Pieces, from: Seq) -> Result<Vec<(Seq, Fingerprint)>, StoreError> {
        let mut named = Vec::new();
        for piece in &pieces.0 {
            match piece {
                Piece::Segment(lease) => named.extend(lease.named()?),
                Piece::Gone(it) => {
                    let (first, end) = (it.range.first, it.range.end);
                    let runs = self.trimmed.runs();
                    let mut kept = Vec::new();
                    for run in runs.iter().filter(|run| run.first < end && first < run.end) {
                        // One that is damaged says nothing, and that is told.
                        self.trimmed.visit(run, first, &mut |seq, fingerprint| {
                            kept.push((seq, fingerprint));
                            true
                        })?;
                    }
                    kept.retain(|(seq, _)| (first..end).contains(seq));
                    kept.sort_unstable_by_key(|(seq, _)| *seq);
                    kept.dedup_by_key(|(seq, _)| *seq);
                    named.extend(kept);
                }
            }
        }
        named.retain(|(seq, _)| *seq >= from);
        Ok(named)
    }

    fn build_without(
        &self,
        pieces: &Pieces,
        order: &TakeOut,
        progress: Arc<Progress>,
    ) -> Result<(Built, TakenOut), StoreError> {
        let meta = self.meta.lock().clone();
        let sealer = self.sealer(&meta, progress);
        let (range, revision) = (pieces.range(), pieces.revision() + 1);
        let (link_before, link) = pieces.links();
        let before = pieces.removed();
        let gone = order.seqs.iter().map(|(range, _)| range.start.distance_to(range.end));
        let gone = gone.fold(before.events(), u64::saturating_add);
        if gone >= range.start.distance_to(range.end) {
            let left = Left::new(pieces, &self.cache, order).count()?;
            if let Some(reason) = left.left_is_none() {
                // First, so that a repeat is told at every moment.
                for lease in pieces.leases() {
                    let mut named = lease.named()?;
                    named.retain(|(seq, _)| *seq >= order.named_from);
                    self.trimmed.try_keep(lease.first(), lease.end(), named)?;
                }
                let (first, end) = (range.start, range.end);
                let range = Removed { first, end, reason, link_before, link };
                let (range, revision) = self.with_neighbours(range, revision);
                let disk = &self.options.disk;
                let stored = RemovedRange::store(&sealer.dir, self.log, revision, range, disk)?;
                return Ok((Built::Nothing(Arc::new(stored)), left.taken));
            }
        }
        let Some(newest) = pieces.leases().last() else {
            return Err(StoreError::Invalid("no segment"));
        };
        sealer.check_space(pieces.leases().map(|lease| lease.raw_bytes()).sum())?;
        let spec = BuildSpec {
            generations: newest.generations().clone(),
            named_before: self.named(pieces, order.named_from)?,
            // What is left has the same chain, or what was built is not these events.
            link: Some(link),
            revision,
            ..sealer.spec(range, link_before)
        };
        let source = Without { pieces, cache: &self.cache, order };
        let built = segment::build(&sealer.dir, &spec, &source)?;
        super::erase::keep_age(newest, &built);
        let after = built.removed();
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

fn sealed(segment: &Segment, full_bytes: u64) -> Sealed {
    Sealed {
        first: segment.first(),
        end: segment.end(),
        revision: segment.revision(),
        last_at: segment.last_at(),
        raw_bytes: segment.raw_bytes(),
        disk_bytes: segment.disk_bytes(),
        removed: segment.removed().events(),
        full_bytes,
    }
}

/// The entries of segments without those that go.
struct Without<'a> {
    pieces: &'a Pieces,
    cache: &'a Cache,
    order: &'a TakeOut,
}

impl Source for Without<'_> {
    fn chunks(&self) -> Box<dyn Iterator<Item = Result<Chunk, StoreError>> + '_> {
        let mut left = Left::new(self.pieces, self.cache, self.order);
        Box::new(std::iter::from_fn(move || left.next_chunk().transpose()))
    }

    fn origin(&self) -> PathBuf {
        self.pieces.leases().next().map(|lease| lease.dir().to_owned()).unwrap_or_default()
    }
}

/// Goes through segments, and makes one run of neighbours that go or are gone.
struct Left<'a> {
    pieces: &'a Pieces,
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
    fn new(pieces: &'a Pieces, cache: &'a Cache, order: &'a TakeOut) -> Left<'a> {
        Left {
            pieces,
            cache,
            order,
            passed: 0,
            next: pieces.range().start,
            link: pieces.links().0,
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
        let before = self.pieces.removed();
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
        let end = self.pieces.range().end;
        while self.next < end {
            let begin = self.next;
            let holds = |piece: &&Piece| piece.range().contains(&begin);
            let lease = match self.pieces.0.iter().find(holds) {
                Some(Piece::Segment(lease)) => lease,
                Some(Piece::Gone(it)) => {
                    let Removed { end, reason, link, .. } = it.range;
                    let count = to_u32(begin.distance_to(end));
                    (self.link, self.next) = (link, end);
                    self.extend(Run { count, reason, link });
                    continue;
                }
                None => return Err(StoreError::Invalid("a hole between neighbours")),
            };
            let chunk = self.cache.entries(lease, begin)?;
            let (file, to) = (lease.dir().to_owned(), chunk.end.prev());
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
