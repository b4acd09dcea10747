//! What filters have found in the log lately, so that asking again costs no second search.
//!
//! Owns chunks from which everything that does not match was left out. Events never change, so neither do
//! they; what was trimmed is refused by whoever asks. A cache and nothing more: what is not in it is
//! read. Invariant: it holds at most so many bytes; what was not asked for longest goes first.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::record::{Event, Events, Seq};
use crate::storage::Chunk;
use crate::topic::Filter;

/// A chunk with more is not worth keeping: reading it again costs little more than sending it.
const MAX_CHUNK_BYTES: usize = 64 << 10;
/// A chunk that passes over fewer events is found again as fast as it is kept.
const MIN_EVENTS: u64 = 256;
/// What a chunk costs beside its events.
const CHUNK_BYTES: usize = 160;

pub(super) struct Found {
    max_bytes: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    filters: HashMap<Arc<Filter>, OfFilter>,
    bytes: usize,
    clock: u64,
}

#[derive(Default)]
struct OfFilter {
    /// By the first seq that they cover; they do not overlap.
    chunks: BTreeMap<Seq, Kept>,
    bytes: usize,
    used_at: u64,
}

struct Kept {
    end: Seq,
    events: Bytes,
}

impl Found {
    pub fn new(max_bytes: usize) -> Found {
        Found { max_bytes, state: Mutex::default() }
    }

    /// The events from `from` on that match, as far as is known and below `end`; `None` where nothing
    /// is. `end` is above `from`.
    pub fn read(&self, filter: &Arc<Filter>, from: Seq, end: Seq) -> Option<Chunk> {
        if filter.is_all() {
            return None;
        }
        let (end, events) = {
            let mut state = self.lock();
            state.clock += 1;
            let now = state.clock;
            let of_filter = state.filters.get_mut(filter)?;
            let kept = of_filter.at(from)?;
            let found = (kept.end.min(end), kept.events.clone());
            of_filter.used_at = now;
            found
        };
        // The walk is done without the lock.
        let events = within(&events, from, end)?;
        Some(Chunk { first: from, end, events, complete: false })
    }

    /// Whether a read from `from` on would find something.
    pub fn has(&self, filter: &Arc<Filter>, from: Seq) -> bool {
        !filter.is_all() && self.lock().filters.get(filter).is_some_and(|it| it.at(from).is_some())
    }

    /// Keeps what was read, if it is worth it.
    pub fn keep(&self, filter: &Arc<Filter>, chunk: &Chunk) {
        let bytes = chunk.events.len() + CHUNK_BYTES;
        let filter_bytes = filter.text_bytes() + CHUNK_BYTES;
        let is_worth_it = !chunk.complete
            && !filter.is_all()
            && chunk.events.len() <= MAX_CHUNK_BYTES
            && chunk.first.distance_to(chunk.end) >= MIN_EVENTS
            && bytes + filter_bytes <= self.max_bytes;
        if !is_worth_it {
            return;
        }
        // Of its own: a slice would keep all that it is cut from.
        let kept = Kept { end: chunk.end, events: Bytes::copy_from_slice(&chunk.events) };
        let mut dropped = Vec::new();
        let mut state = self.lock();
        state.clock += 1;
        let now = state.clock;
        let of_filter = state.filters.entry(filter.clone()).or_default();
        of_filter.used_at = now;
        let next = of_filter.chunks.range(chunk.first..).next();
        if of_filter.at(chunk.first).is_some() || next.is_some_and(|(&at, _)| at < chunk.end) {
            // Another reader was here first.
            return;
        }
        let bytes = match of_filter.bytes {
            0 => bytes + filter_bytes,
            _ => bytes,
        };
        of_filter.chunks.insert(chunk.first, kept);
        of_filter.bytes += bytes;
        state.bytes += bytes;
        while state.bytes > self.max_bytes
            && let Some(oldest) = state.filters.iter().min_by_key(|(_, it)| it.used_at)
        {
            let oldest = oldest.0.clone();
            let Some(gone) = state.filters.remove(&oldest) else { break };
            state.bytes -= gone.bytes;
            dropped.push(gone);
        }
        // Freed without the lock.
        drop(state);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic inside leaves a cache that may have forgotten something, and no wrong events.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OfFilter {
    /// The chunk that covers `from`.
    fn at(&self, from: Seq) -> Option<&Kept> {
        let (_, kept) = self.chunks.range(..=from).next_back()?;
        (kept.end > from).then_some(kept)
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
