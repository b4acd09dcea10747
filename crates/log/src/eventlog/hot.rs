//! The two caches that a read looks at first: the newest commits, and what filters have found.
//!
//! What is in neither is read from the engine. The caller refuses what was trimmed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::filter_cache::FilterCache;
use super::recent::{Recent, Run};
use crate::storage::Chunk;
use tailmark_record::topic::Filter;
use tailmark_record::{EventError, Seq};

pub(super) struct Hot {
    pub recent: Recent,
    pub filter_cache: FilterCache,
    /// How often events were erased. What was read before the last time may hold what is gone.
    erasures: AtomicU64,
}

/// What a read found in memory.
pub(super) enum Hit {
    /// All of it.
    Chunk(Chunk),
    /// Of the newest commits, and yet more to look through than a thread that serves should.
    Run(Run),
}

impl Hot {
    pub(super) fn new(recent: Recent, filter_cache: FilterCache) -> Hot {
        Hot { recent, filter_cache, erasures: AtomicU64::new(0) }
    }

    /// How often events were erased so far. Asked before a read.
    pub(super) fn erasures(&self) -> u64 {
        self.erasures.load(Ordering::SeqCst)
    }

    /// Keeps what was read, if nothing was erased since.
    pub(super) fn keep(&self, filter: &Arc<Filter>, chunk: &Chunk, erasures: u64) {
        self.filter_cache.keep(filter, chunk, || self.erasures() == erasures);
    }

    /// Drops what lies before a seq, and all that filters have found: some of it was taken out.
    pub(super) fn forget_below(&self, end: Seq) {
        self.erasures.fetch_add(1, Ordering::SeqCst);
        self.filter_cache.clear();
        self.recent.forget_below(end);
    }

    /// Drops all: some of it was erased. What the engine reads from here on does not hold it.
    pub(super) fn forget(&self) {
        self.erasures.fetch_add(1, Ordering::SeqCst);
        self.filter_cache.clear();
        self.recent.clear();
    }

    /// The events from `from` on, as far as they are here; `None` where they are not. `end` is
    /// above `from`.
    pub(super) fn read(
        &self,
        filter: &Arc<Filter>,
        from: Seq,
        end: Seq,
        only_matching: bool,
    ) -> Result<Option<Hit>, EventError> {
        if filter.is_all() {
            let chunk = self.recent.read(from, end)?;
            return Ok(chunk.map(Hit::Chunk));
        }
        match self.recent.run(filter, from, end) {
            Some(run) if run.is_quick => Ok(Some(Hit::Chunk(run.find(filter, only_matching)?))),
            Some(run) => Ok(Some(Hit::Run(run))),
            None => {
                let found = self.filter_cache.read(filter, from, end);
                Ok(found.map(Hit::Chunk))
            }
        }
    }

    /// Whether a read from `from` on would find something.
    pub(super) fn has(&self, filter: &Arc<Filter>, from: Seq) -> bool {
        self.recent.has(filter, from) || self.filter_cache.has(filter, from)
    }
}
