//! Lines of log that a flood must not multiply.

use std::time::{Duration, Instant};

/// At most one line for each kind of trouble in this time.
const INTERVAL: Duration = Duration::from_secs(10);

/// Keeps a log readable under a flood.
#[derive(Debug, Default)]
pub(crate) struct Rarely {
    count: u64,
    last: Option<Instant>,
}

impl Rarely {
    /// Counts one; `log` gets how many there were since it was called last.
    pub(crate) fn log(&mut self, log: impl FnOnce(u64)) {
        self.count += 1;
        if self.last.is_none_or(|last| last.elapsed() >= INTERVAL) {
            log(self.count);
            self.count = 0;
            self.last = Some(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_one_line() {
        let mut rarely = Rarely::default();
        let mut lines = Vec::new();
        for _ in 0..1_000 {
            rarely.log(|count| lines.push(count));
        }
        assert_eq!(lines, [1]);
        assert_eq!(rarely.count, 999);
    }
}
