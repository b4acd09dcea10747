//! Gives memory back that a burst has left with the allocator: beside the daemon, in a thread of its own,
//! for it takes milliseconds.

use std::time::Duration;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(5);
/// What is kept through so many looks is not needed soon.
const LOOKS: usize = 3;
/// What would be needed again in a moment is not worth the while.
const WORTHWHILE_BYTES: usize = 32 << 20;
/// A process of no more is not looked into.
const SMALL_BYTES: usize = 64 << 20;
/// After memory was given back: what is needed again and again stays most of the time.
const REST: Duration = Duration::from_secs(60);

/// Begins to look, until the process ends.
pub(super) fn look_after() {
    let look = || {
        let mut seen = Seen::default();
        loop {
            std::thread::sleep(LOOK);
            let Some(kept) = kept() else { return };
            if seen.is_idle(kept) {
                tailmark_heap::give_back();
                tracing::debug!(kept, "memory that nobody uses is given back");
                std::thread::sleep(REST);
            }
        }
    };
    // Without it the process is larger, and nothing else.
    if let Err(error) = std::thread::Builder::new().name("heap".to_owned()).spawn(look) {
        tracing::debug!(%error, "memory is not given back");
    }
}

/// Bytes in RAM that nobody uses; `None` where nobody says.
fn kept() -> Option<usize> {
    let resident = tailmark_heap::anonymous_bytes()?;
    if resident < SMALL_BYTES {
        return Some(0);
    }
    Some(resident.saturating_sub(tailmark_heap::used_bytes()?))
}

/// How often in a row enough was kept.
#[derive(Debug, Default)]
struct Seen(usize);

impl Seen {
    /// Whether so much was kept long enough; then it begins anew.
    fn is_idle(&mut self, kept: usize) -> bool {
        self.0 = if kept < WORTHWHILE_BYTES { 0 } else { self.0 + 1 };
        let is_idle = self.0 >= LOOKS;
        if is_idle {
            self.0 = 0;
        }
        is_idle
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_free_for_a_moment_is_kept() {
        let mut seen = Seen::default();
        let mut looks =
            |free: &[usize]| free.iter().map(|&free| seen.is_idle(free)).collect::<Vec<_>>();
        let (much, little) = (WORTHWHILE_BYTES, WORTHWHILE_BYTES - 1);
        assert_eq!(looks(&[much, much, little, much, much]), [false; 5]);
        assert_eq!(looks(&[much, much]), [true, false]);
    }
}
