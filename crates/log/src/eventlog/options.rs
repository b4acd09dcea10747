//! How a log behaves.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::topic_rules::TopicRules;
use crate::storage::since_now;
pub use crate::storage::{Clock, Elapsed};
use tailmark_record::{Limits, Timestamp};

/// How a log behaves.
#[derive(Clone)]
pub struct Options {
    /// What an event may be. The size of one is cut to what fits a commit of the engine.
    pub limits: Limits,
    /// Client-identified events that repeats are recognised among; 0 = none.
    pub dedup_window: usize,
    /// Producers that are known at once; of more the one idle longest is forgotten.
    pub producers: usize,
    /// A producer that was not heard of for so long is forgotten.
    pub producer_idle: Duration,
    /// Bytes of recent commits kept in memory for live watchers.
    pub recent_bytes: usize,
    /// Bytes of what filters have found in the log lately, kept in memory.
    pub found_bytes: usize,
    /// Bytes of events that may wait for the writer, over all callers.
    pub in_flight_bytes: usize,
    /// Threads for blocking reads.
    pub reader_threads: usize,
    /// What is removed by itself.
    pub retention: Retention,
    /// What of which topics is removed by itself.
    pub topic_rules: TopicRules,
    /// How often [`Options::retention`] is looked at.
    pub retention_interval: Duration,
    /// The wall clock.
    pub clock: Clock,
    /// Time that passes.
    pub elapsed: Elapsed,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            limits: Limits::default(),
            dedup_window: 1_000_000,
            producers: 100_000,
            producer_idle: Duration::from_secs(30 * 24 * 3_600),
            recent_bytes: 32 << 20,
            found_bytes: 8 << 20,
            in_flight_bytes: 64 << 20,
            reader_threads: 2,
            retention: Retention::default(),
            topic_rules: TopicRules::default(),
            retention_interval: Duration::from_secs(1),
            clock: Arc::new(Timestamp::now),
            elapsed: since_now(),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("limits", &self.limits)
            .field("dedup_window", &self.dedup_window)
            .field("producers", &self.producers)
            .field("producer_idle", &self.producer_idle)
            .field("recent_bytes", &self.recent_bytes)
            .field("found_bytes", &self.found_bytes)
            .field("in_flight_bytes", &self.in_flight_bytes)
            .field("reader_threads", &self.reader_threads)
            .field("retention", &self.retention)
            .field("topic_rules", &self.topic_rules)
            .field("retention_interval", &self.retention_interval)
            .finish_non_exhaustive()
    }
}

/// What is removed by itself, oldest first. Nothing by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Events appended longer ago than this, by the log's own clock or by when they were seen (see
    /// `age_clock.rs`).
    pub max_age: Option<Duration>,
    /// Bytes on disk beyond this, in whole units of storage. The slots that the journal always has count for at most
    /// half of it.
    pub max_bytes: Option<u64>,
    /// Readable events beyond this many; what was taken out, or is damaged, counts for nothing.
    pub max_events: Option<u64>,
}
