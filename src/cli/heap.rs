//! Gives memory back that a burst has left with the allocator: beside the daemon, in a thread of its own,
//! for it takes milliseconds.

use std::time::Duration;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(5);
/// What is free at all of so many looks is not needed soon.
const LOOKS: usize = 3;
/// What would be free again in a moment is not worth the while.
const WORTHWHILE_BYTES: usize = 32 << 20;
/// After memory was given back: what is needed again and again stays most of the time.
const REST: Duration = Duration::from_secs(60);

/// Begins to look, until the process ends.
pub(super) fn look_after() {
    let look = || {
        let mut seen = Seen::default();
        loop {
            std::thread::sleep(LOOK);
            let Some(free) = tailmark_heap::free_bytes() else { return };
            if seen.is_idle(free) {
                let given = tailmark_heap::give_back();
                tracing::debug!(free, given, "memory that nobody uses is given back");
                std::thread::sleep(REST);
            }
        }
    };
    // Without it the process is larger, and nothing else.
    if let Err(error) = std::thread::Builder::new().name("heap".to_owned()).spawn(look) {
        tracing::debug!(%error, "memory is not given back");
    }
}

/// How often in a row enough was free.
#[derive(Debug, Default)]
struct Seen(usize);

impl Seen {
    /// Whether so much was free long enough; then it begins anew.
    fn is_idle(&mut self, free: usize) -> bool {
        self.0 = if free < WORTHWHILE_BYTES { 0 } else { self.0 + 1 };
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
