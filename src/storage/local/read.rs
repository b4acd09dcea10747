//! Reading: find the segment or slot that holds a seq, and read from it.

use super::{LocalEngine, View};
use crate::record::Seq;
use crate::storage::{Chunk, Damage, StoreError};
use crate::topic::Filter;

impl LocalEngine {
    pub(super) fn read_chunk(
        &self,
        from: Seq,
        end: Seq,
        filter: &Filter,
    ) -> Result<Chunk, StoreError> {
        let bounds = self.current_bounds();
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

    fn read_in(
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
                return self.cache.read(&lease, from, end.min(segment.end()), filter);
            }
        }
        let at = view.slots.partition_point(|slot| slot.end() <= from);
        match view.slots.get(at).filter(|slot| slot.first() <= from) {
            Some(slot) => slot.read(from, end.min(slot.end())),
            None => Err(self.hole(from)),
        }
    }

    /// A segment that was trimmed away between two steps of a read is not damaged.
    fn trimmed_meanwhile(&self, from: Seq, error: StoreError) -> StoreError {
        let oldest = self.current_bounds().oldest;
        if from < oldest { StoreError::Trimmed { oldest } } else { error }
    }

    fn hole(&self, seq: Seq) -> StoreError {
        StoreError::Damaged(Damage {
            from: seq,
            to: seq,
            file: self.dir.clone(),
            detail: "no segment or slot holds this event".to_owned(),
        })
    }
}
