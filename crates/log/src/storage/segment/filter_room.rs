//! The room that filters of topics take in memory, in all.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::topics::Bloom;

/// Room for the filters of all segments: what no longer fits is searched in the tables.
#[derive(Debug)]
pub(super) struct FilterRoom {
    max_bytes: u64,
    bytes: AtomicU64,
}

impl FilterRoom {
    pub(super) fn new(max_bytes: u64) -> FilterRoom {
        FilterRoom { max_bytes, bytes: AtomicU64::new(0) }
    }

    /// Bytes of the filters that are kept.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// A share of it, if there is room.
    pub(super) fn take(self: &Arc<Self>, bytes: u64) -> Option<Share> {
        let taken = self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
            held.checked_add(bytes).filter(|sum| *sum <= self.max_bytes)
        });
        taken.ok().map(|_| Share { room: Arc::clone(self), bytes })
    }
}

/// Gives its part of the room back.
#[derive(Debug)]
pub(super) struct Share {
    room: Arc<FilterRoom>,
    bytes: u64,
}

impl Drop for Share {
    fn drop(&mut self) {
        self.room.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A filter in memory, for as long as its segment is.
#[derive(Debug)]
pub(super) struct KeptFilter {
    pub(super) filter: Bloom,
    #[expect(dead_code, reason = "gives its room back when it goes")]
    pub(super) share: Share,
}
