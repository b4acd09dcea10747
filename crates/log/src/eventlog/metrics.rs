//! What the log counts.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Buckets of [`Counters::commit_latency`].
pub const LATENCY_BUCKETS: usize = 24;

#[derive(Default)]
pub(super) struct Metrics {
    pub readers: AtomicU64,
    pub producers: AtomicU64,
    pub events: AtomicU64,
    pub bytes: AtomicU64,
    pub duplicates: AtomicU64,
    pub erasures: AtomicU64,
    pub events_erased: AtomicU64,
    pub commits: AtomicU64,
    pub commits_failed: AtomicU64,
    pub reads_recent: AtomicU64,
    pub reads_stored: AtomicU64,
    pub latency_sum_micros: AtomicU64,
    pub latency: [AtomicU64; LATENCY_BUCKETS],
}

/// Counted since the log was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Events stored.
    pub events_appended: u64,
    /// Their bytes as stored.
    pub bytes_appended: u64,
    /// Repeats that were answered with the original.
    pub duplicates: u64,
    /// Erasures that are done.
    pub erasures: u64,
    /// Events that they erased.
    pub events_erased: u64,
    /// Durable commits with events.
    pub commits: u64,
    /// Commits that the engine refused or failed.
    pub commits_failed: u64,
    /// Chunks that readers found in memory: of recent commits, or found by a filter lately.
    pub reads_recent: u64,
    /// Chunks that came from the engine.
    pub reads_stored: u64,
    /// How long commits took in the engine: bucket `n` has those of less than 2^n microseconds that
    /// are in no bucket before it, the last one all others.
    pub commit_latency: [u64; LATENCY_BUCKETS],
    /// All of them together, in microseconds.
    pub commit_micros: u64,
}

impl Metrics {
    pub(super) fn committed(&self, events: u64, bytes: u64, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = ((64 - micros.leading_zeros()) as usize).min(LATENCY_BUCKETS - 1);
        self.events.fetch_add(events, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.latency[bucket].fetch_add(1, Ordering::Relaxed);
        self.latency_sum_micros.fetch_add(micros, Ordering::Relaxed);
    }

    pub(super) fn erased(&self, events: u64) {
        self.erasures.fetch_add(1, Ordering::Relaxed);
        self.events_erased.fetch_add(events, Ordering::Relaxed);
    }

    pub(super) fn counters(&self) -> Counters {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counters {
            events_appended: get(&self.events),
            bytes_appended: get(&self.bytes),
            duplicates: get(&self.duplicates),
            erasures: get(&self.erasures),
            events_erased: get(&self.events_erased),
            commits: get(&self.commits),
            commits_failed: get(&self.commits_failed),
            reads_recent: get(&self.reads_recent),
            reads_stored: get(&self.reads_stored),
            commit_latency: std::array::from_fn(|n| get(&self.latency[n])),
            commit_micros: get(&self.latency_sum_micros),
        }
    }
}
