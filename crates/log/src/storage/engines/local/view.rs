//! What can be read: segments, then slots.

use std::sync::Arc;

use crate::storage::Removed;
use crate::storage::journal::Slot;
use crate::storage::segment::{RemovedRange, Segment};
use tailmark_record::Seq;

/// Segments and slots in order; replaced as a whole.
#[derive(Clone, Debug, Default)]
pub(super) struct View {
    pub segments: Vec<Arc<Segment>>,
    /// Ranges without events, between segments, or between them and the slots.
    pub removed: Vec<Arc<RemovedRange>>,
    pub slots: Vec<Arc<Slot>>,
}

impl View {
    /// Whether what it has follows on without a hole. Where both have an event, the segment counts.
    pub(super) fn is_whole(&self) -> bool {
        let is_next = |end: Seq, first: Seq| self.after_removed(end) == first;
        let segments = self.segments.windows(2).all(|pair| is_next(pair[0].end(), pair[1].first()));
        let slots = self.slots.windows(2).all(|pair| pair[0].end() == pair[1].first());
        let meets = match (self.sealed_end(), self.slots.first()) {
            (Some(sealed), Some(slot)) => slot.first() <= sealed,
            _ => true,
        };
        segments && slots && meets
    }

    /// Seq after the last event that is sealed or gone, if there is any.
    pub(super) fn sealed_end(&self) -> Option<Seq> {
        let sealed = self.segments.last().map(|segment| segment.end());
        sealed.max(self.removed.last().map(|it| it.range.end))
    }

    /// The range without events in which a seq lies.
    pub(super) fn removed_at(&self, seq: Seq) -> Option<&Removed> {
        let at = self.removed.partition_point(|it| it.range.end <= seq);
        self.removed.get(at).map(|it| &it.range).filter(|range| range.contains(seq))
    }

    /// Seqs from `oldest` on that have no events any more. Those of a segment count as a whole.
    pub(super) fn removed_events(&self, oldest: Seq) -> u64 {
        let ranges = self.removed.iter().map(|it| &it.range);
        let ranges = ranges.map(|it| it.first.max(oldest).distance_to(it.end.max(oldest)));
        let segments = self.segments.iter().filter(|it| it.end() > oldest);
        let runs = segments
            .map(|it| it.removed().events().min(it.first().max(oldest).distance_to(it.end())));
        ranges.chain(runs).sum()
    }

    /// Where a range without events begins that ends before a seq; else the seq.
    pub(super) fn before_removed(&self, mut seq: Seq) -> Seq {
        while let Some(range) = self.removed_at(seq.prev()).filter(|range| range.end == seq) {
            seq = range.first;
        }
        seq
    }

    /// The seq after the range without events that begins with a seq; else the seq.
    fn after_removed(&self, mut seq: Seq) -> Seq {
        while let Some(range) = self.removed_at(seq).filter(|range| range.first == seq) {
            seq = range.end;
        }
        seq
    }
}
