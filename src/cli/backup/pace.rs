//! How fast a backup is written: at a rate that was asked for, or so that who appends meanwhile does not feel it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use tailmark_record::units::parse_size;

use super::super::log::Interrupt;
use super::NAP;
use crate::backup::last_written;

/// Bytes a second that are written while others append: by then a publisher's slowest calls are about 1.4 times what they
/// are otherwise, without it 1.8 times (`docs/performance.md`).
const BESIDE_APPENDS: u64 = 100 << 20;
/// An append this long ago says that there may be another one now.
const RECENT: Duration = Duration::from_secs(1);
/// How often the log is asked whether somebody appends.
const LOOK: Duration = Duration::from_millis(50);

/// What `--rate` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rate {
    /// Bytes a second.
    Bytes(u64),
    Unlimited,
}

pub(super) fn parse(text: &str) -> Result<Rate, String> {
    if text == "unlimited" {
        return Ok(Rate::Unlimited);
    }
    match parse_size(text) {
        Ok(0) => Err("nothing would ever be written".to_owned()),
        Ok(bytes) => Ok(Rate::Bytes(bytes)),
        Err(error) => Err(format!("{error}, or `unlimited`")),
    }
}

/// Keeps a backup to its rate.
pub(super) struct Pace {
    kind: Kind,
}

enum Kind {
    /// Over all that was done since the beginning.
    Fixed {
        rate: u64,
        begun: Instant,
    },
    Unlimited,
    Yielding(Yielding),
}

impl Pace {
    /// `log` is the directory of the log, if it is one of this machine.
    pub(super) fn new(rate: Option<Rate>, log: Option<&Path>) -> Pace {
        let kind = match (rate, log) {
            (Some(Rate::Bytes(rate)), _) => Kind::Fixed { rate, begun: Instant::now() },
            (None, Some(dir)) => Kind::Yielding(Yielding::new(dir)),
            (Some(Rate::Unlimited), _) | (None, None) => Kind::Unlimited,
        };
        Pace { kind }
    }

    /// Waits as long as it takes, and ends with an error if it is interrupted. `bytes` were done so far.
    pub(super) fn keep(&mut self, bytes: u64, interrupt: &Interrupt) -> io::Result<()> {
        interrupt.check()?;
        while let Some(early) = self.early(bytes).filter(|it| !it.is_zero()) {
            std::thread::sleep(early.min(NAP));
            interrupt.check()?;
        }
        Ok(())
    }

    /// How much too early it would be to go on.
    fn early(&mut self, bytes: u64) -> Option<Duration> {
        match &mut self.kind {
            Kind::Unlimited => None,
            Kind::Fixed { rate, begun } => time_of(bytes, *rate).checked_sub(begun.elapsed()),
            Kind::Yielding(yielding) => yielding.early(Instant::now(), bytes),
        }
    }
}

fn time_of(bytes: u64, rate: u64) -> Duration {
    Duration::from_secs_f64(bytes as f64 / rate as f64)
}

/// As fast as it goes while nobody appends, else at a rate.
struct Yielding {
    dir: PathBuf,
    looked: Option<Instant>,
    appends: Appends,
}

impl Yielding {
    fn new(dir: &Path) -> Yielding {
        Yielding { dir: dir.to_owned(), looked: None, appends: Appends::default() }
    }

    fn early(&mut self, now: Instant, bytes: u64) -> Option<Duration> {
        if self.looked.is_none_or(|looked| now.duration_since(looked) >= LOOK) {
            self.looked = Some(now);
            // What cannot be looked at is told by who reads it.
            self.appends.see(now, last_written(&self.dir).ok().flatten(), bytes);
        }
        self.appends.early(now, bytes)
    }
}

/// Whether somebody appends, and since when.
#[derive(Default)]
struct Appends {
    change: Option<SystemTime>,
    is_first_look_over: bool,
    last: Option<Instant>,
    /// When the rate began to count, and what was done by then.
    since: Option<(Instant, u64)>,
}

impl Appends {
    fn see(&mut self, now: Instant, change: Option<SystemTime>, bytes: u64) {
        let has_changed = self.is_first_look_over && change != self.change;
        (self.change, self.is_first_look_over) = (change, true);
        if has_changed {
            self.last = Some(now);
        }
        match self.last.is_some_and(|last| now.duration_since(last) < RECENT) {
            true => _ = self.since.get_or_insert((now, bytes)),
            false => self.since = None,
        }
    }

    fn early(&self, now: Instant, bytes: u64) -> Option<Duration> {
        let (since, before) = self.since?;
        time_of(bytes.saturating_sub(before), BESIDE_APPENDS).checked_sub(now.duration_since(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn at(begun: Instant, ms: u64) -> Instant {
        begun + Duration::from_millis(ms)
    }

    #[test]
    fn what_rates_there_are() {
        assert_eq!(parse("50MiB"), Ok(Rate::Bytes(50 * MIB)));
        assert_eq!(parse("unlimited"), Ok(Rate::Unlimited));
        assert!(parse("0").is_err());
        assert!(parse("fast").unwrap_err().contains("unlimited"));
    }

    #[test]
    fn nothing_waits_while_nobody_appends_and_a_rate_counts_while_somebody_does() {
        let begun = Instant::now();
        let (old, new) = (SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH + Duration::from_secs(9));
        let mut appends = Appends::default();
        // What was there before is no append.
        appends.see(at(begun, 0), Some(old), 0);
        appends.see(at(begun, 50), Some(old), 500 * MIB);
        assert_eq!(appends.early(at(begun, 50), 500 * MIB), None);
        // What was done before that does not count.
        appends.see(at(begun, 100), Some(new), 900 * MIB);
        assert_eq!(appends.early(at(begun, 100), 900 * MIB), Some(Duration::ZERO));
        assert_eq!(
            appends.early(at(begun, 200), 950 * MIB),
            Some(Duration::from_millis(400)),
            "half a second's bytes in a tenth"
        );
        // A second of silence ends it, and the next append begins it anew.
        appends.see(at(begun, 1_099), Some(new), 990 * MIB);
        assert!(appends.since.is_some());
        appends.see(at(begun, 1_100), Some(new), 1_000 * MIB);
        assert_eq!(appends.early(at(begun, 1_100), 1_000 * MIB), None);
        appends.see(at(begun, 2_000), Some(old), 2_000 * MIB);
        assert_eq!(appends.early(at(begun, 2_000), 2_010 * MIB), Some(Duration::from_millis(100)));
    }
}
