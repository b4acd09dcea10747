//! A lock-free histogram of durations.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counts durations into buckets with fixed upper bounds.
#[derive(Debug)]
pub(super) struct Histogram {
    /// In microseconds, inclusive; all that is longer goes into one more bucket.
    bounds: &'static [u64],
    counts: Box<[AtomicU64]>,
    micros: AtomicU64,
}

/// What a histogram has counted.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Buckets {
    /// Upper bound in seconds and what is at or below it but above the one before.
    pub(super) buckets: Vec<(f64, u64)>,
    /// All durations together.
    pub(super) seconds: f64,
}

impl Buckets {
    pub(super) fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, count)| count).sum()
    }
}

impl Histogram {
    pub(super) fn new(bounds: &'static [u64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Histogram { bounds, counts, micros: AtomicU64::new(0) }
    }

    pub(super) fn observe(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let at = self.bounds.partition_point(|bound| *bound < micros);
        if let Some(count) = self.counts.get(at) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }

    pub(super) fn buckets(&self) -> Buckets {
        let bounds = self.bounds.iter().map(|micros| *micros as f64 / 1e6);
        let counts = self.counts.iter().map(|count| count.load(Ordering::Relaxed));
        Buckets {
            buckets: bounds.chain([f64::INFINITY]).zip(counts).collect(),
            seconds: self.micros.load(Ordering::Relaxed) as f64 / 1e6,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_in_the_first_bucket_that_holds_it() {
        let histogram = Histogram::new(&[1_000, 10_000]);
        for micros in [0, 1_000, 1_001, 10_000, 10_001, 5_000_000] {
            histogram.observe(Duration::from_micros(micros));
        }
        let buckets = histogram.buckets();
        assert_eq!(buckets.buckets, [(0.001, 2), (0.01, 2), (f64::INFINITY, 2)]);
        assert_eq!((buckets.count(), buckets.seconds), (6, 5.022_002));
    }
}
