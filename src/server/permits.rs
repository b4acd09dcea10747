//! Gauges of what is open, and the permits that enforce their limits.
//!
//! Invariant: a gauge goes down when its permit is dropped, however the work ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What is open now; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Gauges(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    connections: Arc<AtomicUsize>,
    turned_away: Arc<AtomicUsize>,
    streams: [Arc<AtomicUsize>; StreamKind::ALL.len()],
}

/// What is counted of streams, each kind by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamKind {
    /// Rooms included.
    Watch,
    /// Uploads and appends: what a client sends and the log stores.
    Upload,
    Health,
    Reflection,
    Metrics,
    Backup,
    /// Answers of plain HTTP, and messages of gRPC, that are compressed.
    Coded,
    /// Bodies and messages that come in gzip.
    Decoded,
    /// Those in zstd, which hold far more.
    DecodedZstd,
}

impl StreamKind {
    pub(crate) const ALL: [StreamKind; 9] = [
        StreamKind::Watch,
        StreamKind::Upload,
        StreamKind::Health,
        StreamKind::Reflection,
        StreamKind::Metrics,
        StreamKind::Backup,
        StreamKind::Coded,
        StreamKind::Decoded,
        StreamKind::DecodedZstd,
    ];

    /// By which names its limits go: in all, of a connection, of an address, of a principal.
    pub(crate) const fn limits(self) -> [&'static str; 4] {
        match self {
            StreamKind::Watch => [
                "watches",
                "watches_per_connection",
                "watches_per_address",
                "watches_per_principal",
            ],
            StreamKind::Upload => [
                "uploads",
                "uploads_per_connection",
                "uploads_per_address",
                "uploads_per_principal",
            ],
            StreamKind::Health => [
                "health_watches",
                "health_watches_per_connection",
                "health_watches_per_address",
                "health_watches_per_principal",
            ],
            StreamKind::Reflection => [
                "reflection_streams",
                "reflection_streams_per_connection",
                "reflection_streams_per_address",
                "reflection_streams_per_principal",
            ],
            StreamKind::Metrics => [
                "metrics_streams",
                "metrics_streams_per_connection",
                "metrics_streams_per_address",
                "metrics_streams_per_principal",
            ],
            StreamKind::Backup => [
                "backups",
                "backups_per_connection",
                "backups_per_address",
                "backups_per_principal",
            ],
            StreamKind::Coded => [
                "coded_answers",
                "coded_answers_per_connection",
                "coded_answers_per_address",
                "coded_answers_per_principal",
            ],
            StreamKind::Decoded => [
                "coded_bodies",
                "coded_bodies_per_connection",
                "coded_bodies_per_address",
                "coded_bodies_per_principal",
            ],
            StreamKind::DecodedZstd => [
                "zstd_bodies",
                "zstd_bodies_per_connection",
                "zstd_bodies_per_address",
                "zstd_bodies_per_principal",
            ],
        }
    }
}

impl Gauges {
    /// Connections.
    pub fn connections(&self) -> usize {
        self.0.connections.load(Ordering::Relaxed)
    }

    /// Watches.
    pub fn watches(&self) -> usize {
        self.open(StreamKind::Watch)
    }

    /// Uploads, those included whose client has gone but whose events are still being stored.
    pub fn uploads(&self) -> usize {
        self.open(StreamKind::Upload)
    }

    /// Streams of metrics.
    pub fn metrics_streams(&self) -> usize {
        self.open(StreamKind::Metrics)
    }

    /// Watches of health.
    pub fn health_watches(&self) -> usize {
        self.open(StreamKind::Health)
    }

    /// Streams of reflection.
    pub fn reflection_streams(&self) -> usize {
        self.open(StreamKind::Reflection)
    }

    /// Backups that are read.
    pub fn backups(&self) -> usize {
        self.open(StreamKind::Backup)
    }

    fn open(&self, kind: StreamKind) -> usize {
        self.of(kind).load(Ordering::Relaxed)
    }

    pub(crate) fn of(&self, kind: StreamKind) -> &Arc<AtomicUsize> {
        &self.0.streams[kind as usize]
    }

    pub(crate) fn of_connections(&self) -> &Arc<AtomicUsize> {
        &self.0.connections
    }

    pub(crate) fn of_turned_away(&self) -> &Arc<AtomicUsize> {
        &self.0.turned_away
    }
}

/// Whether it is limited in how much of it is open at once, or comes in a second: less of it may be open
/// a moment later. What exceeds any other limit exceeds it for ever.
pub(crate) fn is_at_once(what: &str) -> bool {
    AT_ONCE.contains(&what) || StreamKind::ALL.iter().any(|kind| kind.limits().contains(&what))
}

pub(crate) const AT_ONCE: [&str; 11] = [
    "in_flight_bytes",
    "connections",
    "connections_per_address",
    "connections_per_principal",
    "rooms_per_chat",
    "certificates",
    "tokens",
    "events_per_principal",
    "bytes_per_principal",
    "events_per_address",
    "bytes_per_address",
];

/// A limit that one more would exceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OverLimit {
    pub(crate) what: &'static str,
    pub(crate) limit: usize,
    pub(crate) actual: usize,
}

/// One of the things counted.
#[derive(Debug)]
pub(crate) struct Permit(Arc<AtomicUsize>);

impl Permit {
    pub(crate) fn take(
        count: &Arc<AtomicUsize>,
        limit: usize,
        what: &'static str,
    ) -> Result<Permit, OverLimit> {
        let before = count.fetch_add(1, Ordering::Relaxed);
        // From here on dropping takes the count back.
        let permit = Permit(Arc::clone(count));
        if before >= limit {
            return Err(OverLimit { what, limit, actual: before.saturating_add(1) });
        }
        Ok(permit)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permit_is_refused_over_the_limit_and_comes_back() {
        let gauges = Gauges::default();
        let watch = |limit| Permit::take(gauges.of(StreamKind::Watch), limit, "watches");
        let first = watch(1);
        assert!(first.is_ok());
        let refused = OverLimit { what: "watches", limit: 1, actual: 2 };
        assert_eq!(watch(1).err(), Some(refused));
        assert_eq!(gauges.watches(), 1);
        drop(first);
        assert_eq!(gauges.watches(), 0);
        assert!(watch(1).is_ok());
    }

    #[test]
    fn what_is_open_at_once_is_known_by_name() {
        for what in ["connections", "uploads_per_address", "health_watches", "bytes_per_address"] {
            assert!(is_at_once(what), "{what}");
        }
        assert!(!is_at_once("topic"));
        for (at, kind) in StreamKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, at);
        }
    }
}
