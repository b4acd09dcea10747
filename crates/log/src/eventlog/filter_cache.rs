//! A cache of what filters have found lately, so that asking again costs no second search.
//!
//! Holds chunks without the events that do not match. Events never change but by an erasure, which clears
//! it, so a chunk never gets stale; the caller refuses what was trimmed. Bounded by bytes, LRU by filter; no filter has more
//! than a quarter.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::bounded::Bounded;
use crate::storage::Chunk;
use tailmark_record::topic::Filter;
use tailmark_record::{Event, Events, Seq};

/// A chunk with more is not worth keeping: reading it again costs little more than sending it.
const MAX_CHUNK_BYTES: usize = 64 << 10;
/// A chunk that passes over fewer events is found again as fast as it is kept.
const MIN_EVENTS: u64 = 256;
/// What a chunk costs beside its events, a filter beside its chunks, and a pattern beside its text,
/// about.
const CHUNK_BYTES: usize = 160;
const FILTER_BYTES: usize = 800;
const PATTERN_BYTES: usize = 32;
/// A filter of more patterns takes too long to look up.
const MAX_PATTERNS: usize = 16;

pub(super) struct FilterCache {
    filters: Mutex<Bounded<Arc<Filter>, FilterChunks>>,
}

/// By the first seq that they cover; they do not overlap.
#[derive(Default)]
struct FilterChunks(BTreeMap<Seq, Kept>);

struct Kept {
    end: Seq,
    events: Bytes,
}

impl FilterCache {
    pub(super) fn new(max_bytes: usize) -> FilterCache {
        FilterCache { filters: Mutex::new(Bounded::new(max_bytes)) }
    }

    /// Bytes kept now.
    pub(super) fn bytes(&self) -> usize {
        self.filters.lock().bytes()
    }

    /// The events from `from` on that match, as far as is known and below `end`; `None` where
    /// nothing is. `end` is above `from`.
    pub(super) fn read(&self, filter: &Arc<Filter>, from: Seq, end: Seq) -> Option<Chunk> {
        if !is_looked_up(filter) {
            return None;
        }
        let (end, events) = {
            let mut filters = self.filters.lock();
            let kept = filters.get(filter)?.at(from)?;
            let found = (kept.end.min(end), kept.events.clone());
            filters.touch(filter);
            found
        };
        // The walk is done without the lock.
        let events = within(&events, from, end)?;
        Some(Chunk { first: from, end, events, complete: false })
    }

    /// Whether a read from `from` on would find something.
    pub(super) fn has(&self, filter: &Arc<Filter>, from: Seq) -> bool {
        is_looked_up(filter)
            && self.filters.lock().get(filter).is_some_and(|it| it.at(from).is_some())
    }

    /// Drops all.
    pub(super) fn clear(&self) {
        let dropped = self.filters.lock().clear();
        drop(dropped);
    }

    /// Keeps what was read, if it is worth it, and `still`: asked where nothing is cleared meanwhile.
    pub(super) fn keep(&self, filter: &Arc<Filter>, chunk: &Chunk, still: impl Fn() -> bool) {
        let bytes = chunk.events.len() + CHUNK_BYTES;
        let is_worth_it = !chunk.complete
            && is_looked_up(filter)
            && chunk.events.len() <= MAX_CHUNK_BYTES
            && chunk.first.distance_to(chunk.end) >= MIN_EVENTS;
        if !is_worth_it {
            return;
        }
        let patterns = filter.patterns().iter();
        let filter_bytes: usize = patterns.map(|it| PATTERN_BYTES + it.as_str().len()).sum();
        // Of its own: a slice would keep all that it is cut from.
        let kept = Kept { end: chunk.end, events: Bytes::copy_from_slice(&chunk.events) };
        let mut filters = self.filters.lock();
        let known = filters.bytes_of(filter);
        let more = match known {
            Some(_) => bytes,
            None => bytes + FILTER_BYTES + filter_bytes,
        };
        // Another reader was here first, or one that reads a lot wants it all.
        let overlaps = filters.get(filter).is_some_and(|it| it.overlaps(chunk));
        if !still() || overlaps || known.unwrap_or(0) + more > filters.max_bytes() / 4 {
            return;
        }
        let dropped = filters.grow(filter, more, |it| {
            it.0.insert(chunk.first, kept);
            debug_assert!(it.is_disjoint(), "chunks of one filter overlap");
        });
        drop(filters);
        // Freed without the lock.
        drop(dropped);
    }
}

/// Whether anything is kept of what it finds.
fn is_looked_up(filter: &Filter) -> bool {
    !filter.is_all() && filter.patterns().len() <= MAX_PATTERNS
}

impl FilterChunks {
    /// The chunk that covers `from`.
    fn at(&self, from: Seq) -> Option<&Kept> {
        let (_, kept) = self.0.range(..=from).next_back()?;
        (kept.end > from).then_some(kept)
    }

    /// Whether something of what the chunk covers is here.
    fn overlaps(&self, chunk: &Chunk) -> bool {
        let next = self.0.range(chunk.first..).next();
        self.at(chunk.first).is_some() || next.is_some_and(|(&first, _)| first < chunk.end)
    }

    fn is_disjoint(&self) -> bool {
        let chunks = self.0.iter().zip(self.0.keys().skip(1));
        chunks.into_iter().all(|((_, kept), &next)| kept.end <= next)
    }
}

/// The entries from `from` on and below `end`.
fn within(events: &Bytes, from: Seq, end: Seq) -> Option<Bytes> {
    let mut walk = Events::new(events);
    let (mut start, mut stop) = (None, events.len());
    let mut at = 0;
    while let Some(event) = walk.next() {
        let seq = Event::seq_of(event.ok()?).ok()?;
        if seq >= end {
            stop = at;
            break;
        }
        if seq >= from {
            start.get_or_insert(at);
        }
        at = events.len() - walk.remaining();
    }
    Some(events.slice(start.unwrap_or(stop)..stop))
}

#[cfg(test)]
mod tests;
