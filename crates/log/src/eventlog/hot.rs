//! The two caches that a read looks at first: the newest commits, and what filters have found.
//!
//! What is in neither is read from the engine. The caller refuses what was trimmed.

use std::sync::Arc;

use super::filter_cache::FilterCache;
use super::recent::Recent;
use crate::storage::Chunk;
use tailmark_record::topic::Filter;
use tailmark_record::{EventError, Seq};

pub(super) struct Hot {
    pub recent: Recent,
    pub filter_cache: FilterCache,
}

/// A chunk that was in memory.
pub(super) struct Hit {
    pub chunk: Chunk,
    /// Of the newest commits.
    pub is_recent: bool,
}

impl Hot {
    /// The events from `from` on, as far as they are here; `None` where they are not. `end` is
    /// above `from`.
    pub(super) fn read(
        &self,
        filter: &Arc<Filter>,
        from: Seq,
        end: Seq,
    ) -> Result<Option<Hit>, EventError> {
        if let Some(chunk) = self.recent.read(from, end)? {
            return Ok(Some(Hit { chunk, is_recent: true }));
        }
        let found = self.filter_cache.read(filter, from, end);
        Ok(found.map(|chunk| Hit { chunk, is_recent: false }))
    }

    /// Whether a read from `from` on would find something.
    pub(super) fn has(&self, filter: &Arc<Filter>, from: Seq) -> bool {
        self.recent.has(from) || self.filter_cache.has(filter, from)
    }
}
