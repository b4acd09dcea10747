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
    /// Seq after the last sealed event, if any is sealed.
    pub fn sealed_end(&self) -> Option<Seq> {
        self.segments.last().map(|segment| segment.end())
    }
}
