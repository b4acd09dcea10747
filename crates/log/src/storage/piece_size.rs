//! How much of a file that grows goes to the disk at once.
//!
//! To sync `x` bytes takes about `a + b * x`: what any sync takes on this disk now, and what the bytes take. Whoever
//! else syncs meanwhile waits for both. Pieces that are much smaller than `a / b` make a copy slow, for it is `a` that
//! is waited for; larger ones make others wait, and the copy hardly faster. So they are about as large, and both are
//! learned from the syncs themselves: a disk of its own has a tenth of a millisecond for `a`, a busy one many.

use std::time::Duration;

use parking_lot::Mutex;

/// The smallest, and what it begins with.
pub const LEAST_BYTES: usize = 256 << 10;
/// The largest: what others wait for is bounded on every disk.
pub(super) const MOST_BYTES: usize = 8 << 20;
/// How much of what was learned counts after one more sync. Half of it is of the last 89.
const KEPT: f64 = 1.0 - 1.0 / 128.0;
/// One piece in so many is twice as large: a line takes two points.
const DOUBLE_EVERY: u32 = 8;
/// So many syncs before a size is changed again, so that it is not led by one that took long.
const STEADY: u32 = 32;

/// What is known of one disk; of all files that are written to it together.
#[derive(Debug, Default)]
pub struct PieceSize {
    learned: Mutex<Learned>,
}

/// Weighted sums of a straight line through the syncs seen: bytes, seconds.
#[derive(Debug, Default)]
struct Learned {
    weight: f64,
    x: f64,
    y: f64,
    xx: f64,
    xy: f64,
    /// Over the smallest: how many times it was doubled.
    doubled: u32,
    since_change: u32,
    /// Pieces that were begun.
    pieces: u32,
}

impl PieceSize {
    /// Of the next piece, in bytes.
    pub(super) fn next(&self) -> usize {
        let mut learned = self.learned.lock();
        learned.pieces = learned.pieces.wrapping_add(1);
        let is_double = learned.pieces.is_multiple_of(DOUBLE_EVERY);
        learned.bytes() << u32::from(is_double)
    }

    /// A sync of so many bytes took so long.
    pub(super) fn learn(&self, bytes: usize, took: Duration) {
        let mut learned = self.learned.lock();
        let (x, y) = (bytes as f64, took.as_secs_f64());
        learned.weight = learned.weight * KEPT + 1.0;
        learned.x = learned.x * KEPT + x;
        learned.y = learned.y * KEPT + y;
        learned.xx = learned.xx * KEPT + x * x;
        learned.xy = learned.xy * KEPT + x * y;
        learned.since_change += 1;
        if learned.since_change < STEADY {
            return;
        }
        let wanted = learned.wanted();
        // By halves and doubles, and only where it is clear.
        match wanted / learned.bytes() as f64 {
            ratio if ratio >= 2.0 && learned.bytes() < MOST_BYTES / 2 => learned.doubled += 1,
            ratio if ratio <= 0.5 && learned.doubled > 0 => learned.doubled -= 1,
            _ => return,
        }
        learned.since_change = 0;
    }
}

impl Learned {
    fn bytes(&self) -> usize {
        LEAST_BYTES << self.doubled
    }

    /// `a / b` of the line. Where it has no slope, bytes cost nothing, and where it begins below zero, nothing else does.
    fn wanted(&self) -> f64 {
        let spread = self.weight * self.xx - self.x * self.x;
        let slope = (self.weight * self.xy - self.x * self.y) / spread;
        if !slope.is_finite() {
            return self.bytes() as f64;
        }
        let begins = (self.y - slope * self.x) / self.weight;
        match (begins > 0.0, slope > 0.0) {
            (false, _) => LEAST_BYTES as f64,
            (true, false) => MOST_BYTES as f64,
            (true, true) => begins / slope,
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    /// The sizes that a disk comes to whose syncs take `a` and `b` for each MiB, in ms, give or take a part.
    fn sizes(of: &PieceSize, (a, b): (f64, f64), noise: f64, rng: &mut StdRng) -> Vec<usize> {
        let sync = |_| {
            let bytes = of.next();
            let ms = a + b * bytes as f64 / (1u64 << 20) as f64;
            let ms = ms * (1.0 + noise * rng.random_range(-1.0..1.0));
            of.learn(bytes, Duration::from_secs_f64(ms / 1e3));
            bytes
        };
        let mut all: Vec<_> = (0..2_000).map(sync).skip(1_000).collect();
        all.sort_unstable();
        all
    }

    #[test]
    fn a_piece_takes_about_as_long_as_a_sync_takes_anyway() {
        let mut rng = StdRng::seed_from_u64(1);
        for noise in [0.0, 0.3, 0.8] {
            // A quick disk, a slow one, one that turns, one behind a network; and where a sync costs nothing.
            for (disk, least, most) in [
                ((0.12, 0.6), 256, 512),
                ((0.1, 30.0), 256, 512),
                ((10.0, 10.0), 512, 4096),
                ((5.0, 0.5), 2048, 8192),
                ((0.0, 0.6), 256, 512),
            ] {
                let all = sizes(&PieceSize::default(), disk, noise, &mut rng);
                // Noise may lead it astray for a while, and not for long.
                let (low, high) = (all[all.len() / 10] >> 10, all[all.len() * 9 / 10] >> 10);
                assert!((least..=most).contains(&low), "{disk:?} {noise}: {low} KiB");
                assert!((least..=most).contains(&high), "{disk:?} {noise}: {high} KiB");
            }
        }
    }

    #[test]
    fn it_follows_a_disk_that_others_begin_and_end_to_use() {
        let (size, mut rng) = (PieceSize::default(), StdRng::seed_from_u64(2));
        let median = |all: Vec<usize>| all[all.len() / 2];
        let quiet = median(sizes(&size, (0.12, 0.6), 0.3, &mut rng));
        let busy = median(sizes(&size, (8.0, 1.0), 0.3, &mut rng));
        let again = median(sizes(&size, (0.12, 0.6), 0.3, &mut rng));
        assert!(busy >= quiet * 8 && again <= quiet * 2, "{quiet}, {busy}, {again}");
    }

    #[test]
    fn it_has_bounds() {
        let (size, mut rng) = (PieceSize::default(), StdRng::seed_from_u64(3));
        for disk in [(1_000.0, 0.0), (0.0, 1_000.0), (0.0, 0.0)] {
            let all = sizes(&size, disk, 1.0, &mut rng);
            assert!(all[0] >= LEAST_BYTES && all[all.len() - 1] <= MOST_BYTES, "{disk:?}");
        }
    }
}
