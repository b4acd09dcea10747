//! What can be read: segments, then slots.

use std::sync::Arc;

use crate::storage::journal::Slot;
use crate::storage::segment::Segment;
use tailmark_record::Seq;

/// Segments and slots in order; replaced as a whole.
#[derive(Clone, Debug, Default)]
pub(super) struct View {
    pub segments: Vec<Arc<Segment>>,
    pub slots: Vec<Arc<Slot>>,
}

impl View {
    /// Whether what it has follows on without a hole. Where both have an event, the segment counts.
    pub(super) fn is_whole(&self) -> bool {
        let segments = self.segments.windows(2).all(|pair| pair[0].end() == pair[1].first());
        let slots = self.slots.windows(2).all(|pair| pair[0].end() == pair[1].first());
        let meets = match (self.sealed_end(), self.slots.first()) {
            (Some(sealed), Some(slot)) => slot.first() <= sealed,
            _ => true,
        };
        segments && slots && meets
    }

    /// Seq after the last sealed event, if any is sealed.
    pub(super) fn sealed_end(&self) -> Option<Seq> {
        self.segments.last().map(|segment| segment.end())
    }
}
