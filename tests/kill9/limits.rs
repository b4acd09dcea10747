//! Limits of retention that some daemons have, and what each may have removed.

use std::path::Path;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use tailmark_record::Timestamp;

/// Long enough that what was acked a moment ago is mostly still there to be compared.
const MAX_AGE: Duration = Duration::from_secs(2);
const MAX_EVENTS: u64 = 2_500;
/// Four slots, and as many segments: sled makes each at least 2 MiB.
const MAX_BYTES: u64 = 9 << 20;
/// By how much less than [`MAX_BYTES`] may be left: whole segments are removed, and slots that are no
/// longer needed are given back.
const ROUNDING: u64 = 3 << 20;

/// What a daemon removes by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Limit {
    Age,
    Count,
    Size,
}

/// How far a log had been trimmed at some moment.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub oldest: u64,
    pub head: u64,
    /// On disk.
    pub bytes: u64,
    pub at: Timestamp,
}

impl Sample {
    /// Of what a daemon has just told. What is on disk, and the time, can only be later than that.
    pub fn new((oldest, head): (u64, u64), data: &Path) -> Sample {
        let parts = ["journal", "segments"].map(|part| bytes_of(&data.join(part)));
        Sample { oldest, head, bytes: parts.iter().sum(), at: Timestamp::now() }
    }
}

impl Limit {
    pub const ALL: [Limit; 3] = [Limit::Age, Limit::Count, Limit::Size];

    pub fn any(rng: &mut StdRng) -> Limit {
        Limit::ALL[rng.random_range(0..3)]
    }

    /// As the daemon's environment says it.
    pub fn setting(self) -> (&'static str, String) {
        match self {
            Limit::Age => ("TAILMARK_RETENTION_MAX_AGE", format!("{}ms", MAX_AGE.as_millis())),
            Limit::Count => ("TAILMARK_RETENTION_MAX_EVENTS", MAX_EVENTS.to_string()),
            Limit::Size => ("TAILMARK_RETENTION_MAX_BYTES", MAX_BYTES.to_string()),
        }
    }

    /// Whether it may have removed all before the oldest; `newest_gone` is when the newest event
    /// that is known to be gone was appended.
    pub fn allows(self, sample: &Sample, newest_gone: Option<Timestamp>) -> bool {
        match self {
            Limit::Age => newest_gone.is_none_or(|at| at <= sample.at.before(MAX_AGE)),
            Limit::Count => sample.oldest + MAX_EVENTS <= sample.head + 1,
            Limit::Size => sample.bytes + ROUNDING > MAX_BYTES,
        }
    }
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Limit::Age => "age",
            Limit::Count => "count",
            Limit::Size => "size",
        })
    }
}

/// Bytes of all files that the log keeps; a daemon may be at work on them.
fn bytes_of(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let bytes = entries.flatten().map(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        match entry.metadata() {
            _ if name.starts_with(".tmp-") || name.starts_with("trash-") => 0,
            Ok(meta) if meta.is_dir() => bytes_of(&entry.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        }
    });
    bytes.sum()
}
