//! Topics: pages of them, the head of one, and the newest events that a filter selects.
//!
//! Names come in order out of the tables of segments and the indexes of slots, merged. Each question
//! does bounded work: what remains is for the next one. Invariant: figures are exact, also of a
//! segment of which a part is trimmed.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

use super::LocalEngine;
use super::unsealed::{RunTopics, SlotTopics};
use super::view::View;
use crate::storage::journal::Slot;
use crate::storage::segment::{Segment, SegmentTopics, TopicCounts};
use crate::storage::{LookBack, StoreError, TopicPage, TopicQuery, TopicStats};
use tailmark_record::topic::{self, Filter};
use tailmark_record::{Bounds, Event, Events, Seq};

/// Names that one page looks at, or about so many.
const LOOKED_AT: usize = 16 << 10;
/// What it costs to go to a name, as names that are looked at.
const SEEK_COST: usize = 64;
/// Bytes of events that one question counts of what is trimmed in a segment.
const COUNTED_BYTES: usize = 8 << 20;
/// Steps by which one question goes on indexing slots.
const INDEX_STEPS: usize = 4;
/// Unsealed events that one step looks back through.
const BACK_EVENTS: u64 = 8 << 10;
/// Segments that one step passes over by what is in memory.
const PASSED_SEGMENTS: usize = 256;

/// What is trimmed of the one segment that is not trimmed as a whole, by topic. Goes on with the trim
/// mark: each event is counted once.
#[derive(Default)]
pub(super) struct Cut(Mutex<Option<Counted>>);

struct Counted {
    dir: PathBuf,
    upto: Seq,
    counts: Arc<TopicCounts>,
}

/// What one page has cost.
#[derive(Default)]
struct Work {
    /// Names, in each part of the log that has them.
    looked_at: usize,
    /// Parts that were gone into, those of the first range left out: a question always comes on.
    sought: usize,
}

impl Work {
    /// Whether it is enough for one question.
    fn is_done(&self) -> bool {
        self.looked_at + self.sought.saturating_mul(SEEK_COST) >= LOOKED_AT
    }
}

/// What can be asked, as of one moment.
struct Moment {
    bounds: Bounds,
    /// Of the segment with this directory so many events are trimmed.
    cut: Option<(PathBuf, Arc<TopicCounts>)>,
    slots: Vec<(Arc<Slot>, Arc<SlotTopics>)>,
}

impl LocalEngine {
    pub(super) fn topics(&self, query: &TopicQuery<'_>) -> Result<TopicPage, StoreError> {
        self.on_view(|view| match self.moment(view)? {
            Some(moment) => self.page(view, &moment, query),
            // The next question goes on.
            None => Ok(TopicPage { topics: Vec::new(), next: Some(query.from.into()) }),
        })
    }

    /// `None` while there is more to count or to index than one question does.
    fn moment(&self, view: &View) -> Result<Option<Moment>, StoreError> {
        let mut counted = self.cut.0.lock();
        let bounds = self.bounds();
        let is_cut = |it: &&Arc<Segment>| it.first() < bounds.oldest && bounds.oldest < it.end();
        let cut = match view.segments.iter().find(is_cut) {
            None => {
                *counted = None;
                None
            }
            Some(segment) => {
                let known = counted.take().filter(|known| known.dir == segment.dir());
                let mut known = known.unwrap_or_else(|| Counted {
                    dir: segment.dir().to_owned(),
                    upto: segment.first(),
                    counts: Arc::default(),
                });
                if known.upto < bounds.oldest {
                    let lease = self.lease(segment)?;
                    let range = known.upto..bounds.oldest;
                    let (more, upto) = self.cache.count_topics(&lease, range, COUNTED_BYTES)?;
                    Arc::make_mut(&mut known.counts).add(&more);
                    known.upto = upto;
                }
                let is_whole = known.upto == bounds.oldest;
                let cut = (known.dir.clone(), Arc::clone(&known.counts));
                *counted = Some(known);
                if !is_whole {
                    return Ok(None);
                }
                Some(cut)
            }
        };
        drop(counted);
        let from = view.sealed_end().unwrap_or(Seq::FIRST).max(bounds.oldest);
        let (mut slots, mut steps) = (Vec::new(), INDEX_STEPS);
        for slot in view.slots.iter().filter(|slot| slot.end() > from) {
            let topics = self.slot_topics(slot);
            if !reached(slot, &topics, bounds.next(), &mut steps)? {
                return Ok(None);
            }
            slots.push((Arc::clone(slot), topics));
        }
        Ok(Some(Moment { bounds, cut, slots }))
    }

    /// The index of a slot; of one that has just left the view it is not kept.
    fn slot_topics(&self, slot: &Arc<Slot>) -> Arc<SlotTopics> {
        let is_read = || self.view().slots.iter().any(|other| Arc::ptr_eq(other, slot));
        self.unsealed.of(slot, is_read).unwrap_or_else(|| Arc::new(SlotTopics::of(slot)))
    }

    fn page(
        &self,
        view: &View,
        moment: &Moment,
        query: &TopicQuery<'_>,
    ) -> Result<TopicPage, StoreError> {
        let (mut page, mut work) = (TopicPage::default(), Work::default());
        let ranges = query.filter.ranges();
        let ranges = ranges.into_iter().filter_map(|range| range.within(query.prefix));
        let mut is_first = true;
        for range in ranges {
            let from = range.beginning().max(query.from);
            // All of it lies below, if nothing of it begins there.
            if from != range.beginning() && (range.is_one() || !range.has(from)) {
                continue;
            }
            if work.is_done() {
                page.next = Some(from.into());
                return Ok(page);
            }
            let mut merge = self.merge(view, moment, &range, from)?;
            // Also where it was in vain.
            let parts = view.segments.len() + moment.slots.len();
            work.sought += if std::mem::take(&mut is_first) { 0 } else { parts };
            while let Some(head) = merge.peek()
                && range.has(head.name())
            {
                let name: Box<str> = head.name().into();
                let stats = sum(&mut merge, moment, &name, &mut work)?;
                let next = format!("{name}\0");
                if stats.events > 0 && query.filter.matches(&name) {
                    if page.topics.len() >= query.limit.max(1) {
                        page.next = Some(name);
                        return Ok(page);
                    }
                    page.topics.push((name, stats));
                }
                if work.is_done() {
                    page.next = Some(next.into());
                    return Ok(page);
                }
            }
        }
        Ok(page)
    }

    /// All that may have topics of the range, at the first that is not below `from`.
    fn merge(
        &self,
        view: &View,
        moment: &Moment,
        range: &topic::Range<'_>,
        from: &str,
    ) -> Result<BinaryHeap<Source>, StoreError> {
        let oldest = moment.bounds.oldest;
        let sealed = view.sealed_end().unwrap_or(Seq::FIRST);
        let mut merge = BinaryHeap::new();
        for segment in view.segments.iter().filter(|segment| segment.end() > oldest) {
            if self.cache.may_have(segment, range) {
                let topics = SegmentTopics::seek(self.lease(segment)?, from)?;
                merge.extend(Source::of(Part::Segment(Box::new(topics))));
            }
        }
        for (slot, topics) in &moment.slots {
            let first = slot.first().max(sealed).max(oldest);
            for run in topics.runs(slot, first..moment.bounds.next(), from) {
                merge.extend(Source::of(Part::Slot(Arc::clone(slot), run)));
            }
        }
        Ok(merge)
    }

    pub(super) fn topic_head(&self, topic: &str) -> Result<Option<Seq>, StoreError> {
        self.on_view(|view| self.topic_head_in(view, topic))
    }

    fn topic_head_in(&self, view: &View, topic: &str) -> Result<Option<Seq>, StoreError> {
        let (bounds, mut steps) = (self.bounds(), INDEX_STEPS);
        let sealed = view.sealed_end().unwrap_or(Seq::FIRST);
        let first = sealed.max(bounds.oldest);
        for slot in view.slots.iter().rev().filter(|slot| slot.end() > first) {
            let topics = self.slot_topics(slot);
            if !reached(slot, &topics, bounds.next(), &mut steps)? {
                return Ok(None);
            }
            let head = topics.head(slot, topic, bounds.next());
            if head.is_some_and(|head| head >= first) {
                return Ok(head);
            }
        }
        let one = Filter::one(topic);
        for segment in view.segments.iter().rev().take_while(|it| it.end() > bounds.oldest) {
            if self.cache.may_match(segment, &one)
                && let Some(stats) = self.lease(segment)?.topic(topic)?
            {
                let head = stats.last_seq;
                return Ok(Some(if head < bounds.oldest { Seq::ZERO } else { head }));
            }
        }
        Ok(Some(Seq::ZERO))
    }

    pub(super) fn look_back(
        &self,
        range: Range<Seq>,
        filter: &Filter,
        count: u64,
    ) -> Result<LookBack, StoreError> {
        let bounds = self.bounds();
        if range.start < bounds.oldest {
            return Err(StoreError::Trimmed { oldest: bounds.oldest });
        }
        if range.is_empty() || range.end > bounds.next() || count == 0 {
            return Err(StoreError::Invalid("the range is empty or beyond the head"));
        }
        self.on_view(|view| self.look_back_in(view, range.clone(), filter, count))
            .map_err(|error| self.trimmed_meanwhile(range.start, error))
    }

    fn look_back_in(
        &self,
        view: &View,
        range: Range<Seq>,
        filter: &Filter,
        count: u64,
    ) -> Result<LookBack, StoreError> {
        let sealed = view.sealed_end().unwrap_or(Seq::FIRST);
        if range.end > sealed {
            return self.look_back_in_slots(
                view,
                range.start.max(sealed)..range.end,
                filter,
                count,
            );
        }
        if let Some(gone) = view.removed_at(range.end.prev()) {
            return Ok(LookBack { from: gone.first.max(range.start), events: 0 });
        }
        let end = view.segments.partition_point(|segment| segment.end() < range.end);
        let mut found = LookBack { from: range.end, events: 0 };
        for segment in view.segments.iter().take(end + 1).rev().take(PASSED_SEGMENTS) {
            let part = range.start..found.from;
            let is_free = !self.cache.may_match(segment, filter);
            found = self.cache.look_back(&self.lease(segment)?, part, filter, count)?;
            if !is_free || found.from <= range.start || view.removed_at(found.from.prev()).is_some()
            {
                break;
            }
        }
        Ok(found)
    }

    fn look_back_in_slots(
        &self,
        view: &View,
        range: Range<Seq>,
        filter: &Filter,
        count: u64,
    ) -> Result<LookBack, StoreError> {
        let from = Seq::new(range.end.get().saturating_sub(BACK_EVENTS)).max(range.start);
        let (mut seqs, mut next) = (Vec::new(), from);
        while next < range.end {
            let chunk = self.read_in(view, next, range.end, filter)?;
            let malformed = |what| self.malformed(next, what);
            for event in Events::new(&chunk.events) {
                let event = event.map_err(|error| malformed(error.what()))?;
                let topic = Event::topic_of(event).map_err(|error| malformed(error.what()))?;
                if filter.matches(topic) {
                    seqs.push(Event::seq_of(event).map_err(|error| malformed(error.what()))?);
                }
            }
            next = chunk.end;
        }
        let mut found = LookBack { from, events: 0 };
        found.take(&seqs, count);
        Ok(found)
    }
}

/// Whether a slot is indexed below `end`, or is after some of the steps that are left.
fn reached(
    slot: &Slot,
    topics: &SlotTopics,
    end: Seq,
    steps: &mut usize,
) -> Result<bool, StoreError> {
    while !topics.reach(slot, end)? {
        *steps = steps.saturating_sub(1);
        if *steps == 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What all sources have of the name that they are at; they move on.
fn sum(
    merge: &mut BinaryHeap<Source>,
    moment: &Moment,
    name: &str,
    work: &mut Work,
) -> Result<TopicStats, StoreError> {
    let mut sum = TopicStats::default();
    while let Some(mut source) = merge.peek_mut().filter(|source| source.name() == name) {
        work.looked_at += 1;
        let stats = source.stats(moment)?;
        if stats.events > 0 {
            sum.events = sum.events.saturating_add(stats.events);
            if stats.last_seq >= sum.last_seq {
                (sum.last_seq, sum.last_at) = (stats.last_seq, stats.last_at);
            }
        }
        if !source.advance()? {
            PeekMut::pop(source);
        }
    }
    Ok(sum)
}

/// A part of the log, at one of its topics.
struct Source(Part);

enum Part {
    Segment(Box<SegmentTopics>),
    Slot(Arc<Slot>, RunTopics),
}

impl Source {
    /// `None` at the end.
    fn of(part: Part) -> Option<Source> {
        let is_somewhere = match &part {
            Part::Segment(topics) => topics.get().is_some(),
            Part::Slot(_, topics) => topics.get().is_some(),
        };
        is_somewhere.then_some(Source(part))
    }

    fn name(&self) -> &str {
        match &self.0 {
            Part::Segment(topics) => topics.get().map_or("", |(name, _)| name),
            Part::Slot(_, topics) => topics.get().map_or("", |(name, ..)| name),
        }
    }

    /// What is readable of its topic.
    fn stats(&self, moment: &Moment) -> Result<TopicStats, StoreError> {
        match &self.0 {
            Part::Segment(topics) => {
                let Some((name, stats)) = topics.get() else { return Ok(TopicStats::default()) };
                let lease = topics.lease();
                let cut = moment.cut.as_ref().filter(|(dir, _)| dir == lease.dir());
                let Some((_, counts)) = cut else { return Ok(*stats) };
                let left = stats.events.checked_sub(counts.of(name));
                let is_left = stats.last_seq >= moment.bounds.oldest;
                match left {
                    Some(events) if (events > 0) == is_left => Ok(TopicStats { events, ..*stats }),
                    _ => Err(lease.wrong_topics()),
                }
            }
            Part::Slot(slot, topics) => {
                let Some((_, events, last_seq)) = topics.get() else {
                    return Ok(TopicStats::default());
                };
                let frame = slot.frame_of(last_seq);
                let last_at = frame.map(|frame| frame.appended_at).unwrap_or_default();
                Ok(TopicStats { events, last_seq, last_at })
            }
        }
    }

    /// Moves on; false at the end.
    fn advance(&mut self) -> Result<bool, StoreError> {
        match &mut self.0 {
            Part::Segment(topics) => {
                topics.advance()?;
                Ok(topics.get().is_some())
            }
            Part::Slot(_, topics) => {
                topics.advance();
                Ok(topics.get().is_some())
            }
        }
    }
}

// The least name is the greatest: it comes first.
impl Ord for Source {
    fn cmp(&self, other: &Self) -> Ordering {
        other.name().cmp(self.name())
    }
}

impl PartialOrd for Source {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Source {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for Source {}
