//! All figures of this daemon at one moment.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Instant, UNIX_EPOCH};

use super::calls::MethodCount;
use super::consumers::ConsumerCount;
use super::host::{self, CpuCore, ProcessUsage};
use super::streams::KindCount;
use super::{Figures, Sources};
use tailmark_log::eventlog::{Status, TopicRetention};
use tailmark_record::{Seq, Timestamp};
use tailmark_wire::feed_v1 as pb;

/// One look at all figures.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// By the clock that only goes forward.
    pub(super) at: Instant,
    pub(super) wall: Timestamp,
    pub(super) uptime: std::time::Duration,
    pub(super) instance: String,
    pub(super) version: String,
    pub(super) oldest: Seq,
    pub(super) head: Seq,
    pub(super) log: Status,
    pub(super) is_erasing: bool,
    /// Where several daemons share the log.
    pub(super) journal: Option<pb::JournalStatus>,
    pub(super) topic_retention: TopicRetention,
    /// The certificate cannot be renewed, or has expired.
    pub(super) are_credentials_in_trouble: bool,
    pub(super) is_tls_in_trouble: bool,
    /// When the certificate in force expires, in seconds since 1970; 0 = there is no TLS.
    pub(super) certificate_end: u64,
    pub(super) connections: u64,
    pub(super) watches: u64,
    pub(super) uploads: u64,
    pub(super) health_watches: u64,
    pub(super) reflection_streams: u64,
    pub(super) methods: Vec<MethodCount>,
    /// Plain HTTP: route, status, how many.
    pub(super) routes: Vec<((Arc<str>, u16), u64)>,
    pub(super) streams: Vec<KindCount>,
    pub(super) consumers: Vec<ConsumerCount>,
    /// Events that the slowest stream has not looked at yet.
    pub(super) lag: u64,
    /// Of the program's log.
    pub(super) dropped_lines: u64,
    /// Bytes held, by what they are held for.
    pub(super) memory: Vec<(&'static str, u64)>,
    pub(super) own: ProcessUsage,
    pub(super) cores: Vec<CpuCore>,
}

impl Snapshot {
    /// Looks. Off the workers: the operating system is asked through files. `None` when the runtime
    /// is shutting down.
    pub(crate) async fn take(figures: &Arc<Figures>) -> Option<Snapshot> {
        let figures = Arc::clone(figures);
        tokio::task::spawn_blocking(move || Snapshot::look(&figures)).await.ok()
    }

    fn look(figures: &Figures) -> Snapshot {
        let Sources { log, peers, gauges, options, certificates, started, .. } = &figures.sources;
        let credentials = &figures.sources.are_credentials_in_trouble;
        let log = log.log();
        // Before the head: who reads on meanwhile is not ahead of it.
        let slowest = figures.streams.slowest();
        let bounds = log.bounds();
        let consumers = figures.streams.consumers.counts(bounds.head);
        let status = log.status();
        let of_log = [
            ("in_flight", status.in_flight_bytes),
            ("unfetched", status.unfetched_bytes),
            ("recent", status.recent_bytes),
            ("found", status.found_bytes),
        ];
        let others = figures.sources.memory.iter().map(|(kind, held)| (*kind, held() as u64));
        Snapshot {
            journal: peers.as_ref().map(|peers| peers.journal()),
            memory: of_log.into_iter().chain(others).collect(),
            at: Instant::now(),
            wall: Timestamp::now(),
            uptime: started.elapsed(),
            instance: options.instance.clone(),
            version: options.version.clone(),
            oldest: bounds.oldest,
            head: bounds.head,
            log: status,
            is_erasing: log.erasing().is_some(),
            topic_retention: log.topic_retention(),
            are_credentials_in_trouble: credentials.load(Ordering::Relaxed),
            is_tls_in_trouble: certificates.as_ref().is_some_and(|all| all.trouble().is_some()),
            certificate_end: certificates.as_ref().map_or(0, |all| {
                all.not_after().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
            }),
            connections: gauges.connections() as u64,
            watches: gauges.watches() as u64,
            uploads: gauges.uploads() as u64,
            health_watches: gauges.health_watches() as u64,
            reflection_streams: gauges.reflection_streams() as u64,
            methods: figures.calls.methods(),
            routes: figures.calls.routes(),
            streams: figures.streams.counts(),
            consumers,
            lag: slowest.map_or(0, |next| next.distance_to(bounds.next())),
            dropped_lines: figures
                .dropped_log_lines
                .get()
                .map_or(0, |count| count.load(Ordering::Relaxed)),
            own: host::own(),
            cores: host::cores(),
        }
    }

    /// Without what clients call themselves.
    pub(crate) fn without_names(self) -> Snapshot {
        Snapshot { consumers: Vec::new(), ..self }
    }

    /// Events that can be read.
    pub(super) fn readable(&self) -> u64 {
        let seqs = self.oldest.distance_to(self.head.next());
        seqs.saturating_sub(self.log.store.removed_events)
    }

    pub(super) fn delivered(&self) -> u64 {
        self.streams.iter().map(|stream| stream.delivered).sum()
    }
}
