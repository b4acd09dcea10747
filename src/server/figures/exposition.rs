//! The figures in Prometheus's text format and in OpenMetrics.
//!
//! `docs/metrics.md` lists every name; a test holds it against what is written here.

use std::fmt;
use std::time::UNIX_EPOCH;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, NoLabelSet};
use prometheus_client::encoding::{prometheus_text, text as openmetrics_text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use super::histogram::Buckets;
use super::snapshot::Snapshot;
use tailmark_log::eventlog::Counters;
use tailmark_wire::feed_v1 as pb;

/// How it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// 0.0.4, as all scrapers read it.
    Prometheus,
    /// 1.0.0.
    OpenMetrics,
}

/// Commits below 2^5 us are one bucket; nothing durable is that fast.
const FIRST_LATENCY_BUCKET: usize = 5;

/// Everything.
pub(crate) fn text(snapshot: Snapshot, format: Format) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(snapshot));
    let mut text = String::with_capacity(16 << 10);
    match format {
        Format::Prometheus => prometheus_text::encode(&mut text, &registry)?,
        Format::OpenMetrics => openmetrics_text::encode(&mut text, &registry)?,
    }
    Ok(text)
}

/// A label and its value.
type Label<'a> = (&'static str, &'a str);

struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    fn gauge<V: EncodeGaugeValue>(&mut self, name: &str, help: &str, value: V) -> fmt::Result {
        self.0.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
    }

    fn gauge_of(&mut self, name: &str, unit: Unit, help: &str, value: f64) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, Some(&unit), MetricType::Gauge)?;
        metric.encode_gauge(&value)
    }

    /// A gauge that one label tells apart.
    fn gauges<'v>(
        &mut self,
        name: &str,
        unit: Option<Unit>,
        help: &str,
        label: &'static str,
        values: impl IntoIterator<Item = (&'v str, u64)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?;
        for (text, value) in values {
            metric.encode_family(&[(label, text)])?.encode_gauge(&value)?;
        }
        Ok(())
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        metric.encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    fn counters<'v, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = ([Label<'v>; N], u64)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in values {
            let mut sample = metric.encode_family(&labels)?;
            sample.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
        }
        Ok(())
    }

    /// Histograms of seconds that one label tells apart; none without anything counted.
    fn histograms<'v>(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        values: impl IntoIterator<Item = (&'v str, &'v Buckets)>,
    ) -> fmt::Result {
        let seconds = Unit::Seconds;
        let mut metric =
            self.0.encode_descriptor(name, help, Some(&seconds), MetricType::Histogram)?;
        for (text, buckets) in values.into_iter().filter(|(_, buckets)| buckets.count() > 0) {
            let (sum, count) = (buckets.seconds, buckets.count());
            let labels = [(label, text)];
            let mut sample = metric.encode_family(&labels)?;
            sample.encode_histogram::<NoLabelSet>(sum, count, &buckets.buckets, None)?;
        }
        Ok(())
    }

    fn histogram(&mut self, name: &str, help: &str, buckets: &Buckets) -> fmt::Result {
        let (sum, count) = (buckets.seconds, buckets.count());
        let seconds = Unit::Seconds;
        let mut metric =
            self.0.encode_descriptor(name, help, Some(&seconds), MetricType::Histogram)?;
        metric.encode_histogram::<NoLabelSet>(sum, count, &buckets.buckets, None)
    }
}

impl Collector for Snapshot {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page(encoder);
        self.build(&mut page)?;
        self.log(&mut page)?;
        self.store(&mut page)?;
        self.journal(&mut page)?;
        self.open(&mut page)?;
        self.calls(&mut page)?;
        self.process(&mut page)
    }
}

impl Snapshot {
    fn build(&self, page: &mut Page<'_>) -> fmt::Result {
        let help = "What runs here";
        let labels = [("version", self.version.as_str()), ("instance_id", self.instance.as_str())];
        let mut metric =
            page.0.encode_descriptor("tailmark_build", help, None, MetricType::Info)?;
        metric.encode_info(&labels)?;
        page.counter(
            "tailmark_log_lines_dropped",
            "Lines of the program's log that standard error did not take in time",
            self.dropped_lines,
        )?;
        let uptime = self.uptime.as_secs_f64();
        page.gauge_of("tailmark_uptime", Unit::Seconds, "Since the server started", uptime)
    }

    fn log(&self, page: &mut Page<'_>) -> fmt::Result {
        let counters = &self.log.counters;
        page.counter("tailmark_events_appended", "Events stored", counters.events_appended)?;
        page.counter(
            "tailmark_appended_bytes",
            "Bytes of stored events, as encoded",
            counters.bytes_appended,
        )?;
        page.counter(
            "tailmark_events_duplicate",
            "Repeats that were answered with their original",
            counters.duplicates,
        )?;
        page.counter("tailmark_erasures", "Erasures that are done", counters.erasures)?;
        page.counter("tailmark_events_erased", "Events erased", counters.events_erased)?;
        page.gauge(
            "tailmark_erasing",
            "1 while an erasure is under way",
            u64::from(self.is_erasing),
        )?;
        self.topic_retention(page)?;
        page.counter("tailmark_commits", "Durable commits of events", counters.commits)?;
        page.counter(
            "tailmark_commits_failed",
            "Commits that the store refused or failed",
            counters.commits_failed,
        )?;
        page.histogram(
            "tailmark_commit",
            "Time of a commit in the store, fdatasync included",
            &commit_buckets(counters),
        )?;
        page.counters(
            "tailmark_reads",
            "Chunks read, by where they were found",
            [
                ([("source", "memory")], counters.reads_recent),
                ([("source", "disk")], counters.reads_stored),
            ],
        )?;
        let waiting = self.log.reads_waiting;
        page.gauge("tailmark_reads_waiting", "Reads that wait for a reader thread", waiting)?;
        page.gauge(
            "tailmark_readers",
            "Readers open, those of watches included",
            self.log.readers,
        )?;
        page.gauge_of(
            "tailmark_in_flight",
            Unit::Bytes,
            "Bytes of events that wait for the writer, and of batches that are being made",
            self.log.in_flight_bytes as f64,
        )?;
        page.gauges(
            "tailmark_memory",
            Some(Unit::Bytes),
            "Memory held within its budgets, by what it is held for",
            "kind",
            self.memory.iter().copied(),
        )?;
        page.gauge("tailmark_producers", "Producers that the log knows", self.log.producers)?;
        page.gauge("tailmark_head_seq", "Last durable event", self.head.get())?;
        page.gauge("tailmark_oldest_seq", "First readable event", self.oldest.get())?;
        page.gauge("tailmark_readable_events", "Events that can be read", self.readable())?;
        page.gauge(
            "tailmark_appends_stopped",
            "1 when a failed write has stopped appends for good",
            u64::from(self.log.is_stopped),
        )
    }

    fn store(&self, page: &mut Page<'_>) -> fmt::Result {
        let store = &self.log.store;
        let bytes = [("journal", store.journal_bytes), ("segments", store.segment_bytes())];
        page.gauges("tailmark_disk", Some(Unit::Bytes), "Bytes taken on disk", "part", bytes)?;
        page.gauge("tailmark_segments", "Sealed segments", store.segments)?;
        page.gauge(
            "tailmark_segments_open",
            "Sealed segments open for reading",
            store.open_segments,
        )?;
        page.gauge("tailmark_segment_leases", "Readers that hold a segment", store.leases)?;
        page.gauge(
            "tailmark_unsealed_slots",
            "Journal slots that hold unsealed events",
            store.unsealed_slots,
        )?;
        page.gauge(
            "tailmark_sealing",
            "1 while a segment is being built",
            u64::from(store.is_sealing),
        )?;
        page.gauges(
            "tailmark_trouble",
            None,
            "1 when something does not work; the log says what",
            "part",
            [
                ("store", u64::from(store.trouble.is_some())),
                ("log", u64::from(self.log.trouble.is_some())),
                ("clock", u64::from(self.log.clock.is_some())),
                ("tls", u64::from(self.is_tls_in_trouble)),
                ("credentials", u64::from(self.are_credentials_in_trouble)),
            ],
        )
    }

    /// Where several daemons share the log.
    fn journal(&self, page: &mut Page<'_>) -> fmt::Result {
        let Some(journal) = &self.journal else { return Ok(()) };
        let is = |role: pb::DaemonRole| u64::from(journal.role() == role);
        page.gauges(
            "tailmark_journal_role",
            None,
            "1 at what this daemon is to the shared journal",
            "role",
            [
                ("following", is(pb::DaemonRole::Following)),
                ("writing", is(pb::DaemonRole::Writing)),
                ("diverged", is(pb::DaemonRole::Diverged)),
            ],
        )?;
        page.gauge(
            "tailmark_journal_term",
            "The newest term that this daemon has seen",
            journal.term,
        )?;
        page.gauge(
            "tailmark_journal_slot",
            "The last slot of the journal that the copy here has",
            journal.slot,
        )?;
        let own = journal.daemons.iter().find(|it| it.is_this);
        page.gauge(
            "tailmark_journal_lag_slots",
            "Slots that the copy here is behind the farthest of all daemons",
            own.map_or(0, |it| it.lag_slots),
        )?;
        page.gauge(
            "tailmark_journal_writer_known",
            "1 while a daemon is known that writes, or this one does",
            u64::from(is(pb::DaemonRole::Writing) > 0 || journal.writer_heard.is_some()),
        )?;
        page.gauge(
            "tailmark_journal_in_doubt",
            "Frames of which it is not known yet whether they are stored",
            journal.in_doubt,
        )?;
        page.gauge(
            "tailmark_journal_servers",
            "Servers that hold the journal, as they say it",
            journal.replicas.len() as u64,
        )?;
        page.gauge(
            "tailmark_journal_servers_current",
            "Of those the ones that have all of it",
            journal.replicas.iter().filter(|it| it.is_current && !it.is_offline).count() as u64,
        )?;
        page.gauge(
            "tailmark_journal_servers_differ",
            "Servers that hold other bytes than the log, by what this daemon compared while it wrote",
            journal.replicas.iter().filter(|it| it.differs_at_slot > 0).count() as u64,
        )?;
        page.counter(
            "tailmark_journal_takeovers",
            "Takeovers that this daemon has seen",
            journal.takeovers,
        )?;
        page.counter(
            "tailmark_journal_forwarded",
            "Batches, openings of producers and trims that another daemon was asked to store",
            journal.forwarded,
        )?;
        page.counter(
            "tailmark_journal_forwards_failed",
            "Of those the ones that nobody stored in time, or of which that is not known",
            journal.forwards_failed,
        )
    }

    fn topic_retention(&self, page: &mut Page<'_>) -> fmt::Result {
        let topics = &self.topic_retention;
        let removed = [("expired", topics.expired), ("compacted", topics.compacted)];
        page.counters(
            "tailmark_events_removed",
            "Events that rules for topics took out, by why",
            removed.map(|(why, count)| ([("reason", why)], count)),
        )?;
        page.counter(
            "tailmark_segments_rewritten",
            "Segments written anew without the events that rules for topics took out",
            topics.segments,
        )?;
        page.counter(
            "tailmark_freed_bytes",
            "Bytes on disk that this gave back",
            topics.freed_bytes,
        )?;
        page.counter("tailmark_retention_passes", "Looks at the rules for topics", topics.passes)?;
        page.gauge(
            "tailmark_retention_running",
            "1 while such a look is under way",
            u64::from(topics.is_running),
        )?;
        let last = topics.last.as_deref();
        page.gauge(
            "tailmark_retention_partial",
            "1 when the last one had not the memory to find all that is dead",
            u64::from(last.is_some_and(|pass| pass.is_partial)),
        )?;
        page.gauge_of(
            "tailmark_retention_last_pass_end",
            Unit::Seconds,
            "When the last one was over, since 1970; 0 before the first",
            last.map_or(0.0, |pass| pass.at.seconds as f64),
        )?;
        page.gauge_of(
            "tailmark_retention_last_pass_duration",
            Unit::Seconds,
            "How long the last one took",
            last.map_or(0.0, |pass| pass.took.as_secs_f64()),
        )
    }

    fn open(&self, page: &mut Page<'_>) -> fmt::Result {
        page.gauge_of(
            "tailmark_tls_certificate_not_after",
            Unit::Seconds,
            "When the certificate in force expires, since 1970; 0 without TLS",
            self.certificate_end as f64,
        )?;
        page.gauge("tailmark_connections", "Connections open", self.connections)?;
        page.gauge("tailmark_watches", "Watches open", self.watches)?;
        page.gauge("tailmark_uploads", "Uploads under way", self.uploads)?;
        page.gauge(
            "tailmark_watch_lag_events",
            "Events that the slowest watch has not looked at yet",
            self.lag,
        )?;
        self.consumers(page)?;
        let streams = &self.streams;
        // Those two are short of everything else that is told of the others.
        let builtin = [("health", self.health_watches), ("reflection", self.reflection_streams)];
        let open = streams.iter().map(|stream| (stream.kind, stream.open)).chain(builtin);
        page.gauges("tailmark_streams", None, "Streams open, by kind", "stream", open)?;
        let delivered = streams.iter().map(|stream| ([("stream", stream.kind)], stream.delivered));
        page.counters("tailmark_events_delivered", "Events handed to clients", delivered)?;
        let ended = streams.iter().flat_map(|stream| {
            let labels = |reason| [("stream", stream.kind), ("reason", reason)];
            stream.ended.iter().map(move |(reason, count)| (labels(*reason), *count))
        });
        page.counters("tailmark_streams_ended", "Streams that ended, and why", ended)?;
        let seconds = streams.iter().map(|stream| (stream.kind, &stream.seconds));
        page.histograms("tailmark_stream", "Life of a stream that has ended", "stream", seconds)
    }

    fn consumers(&self, page: &mut Page<'_>) -> fmt::Result {
        let all = &self.consumers;
        let watches = all.iter().map(|it| (&*it.name, it.watches));
        let help = "Watches open, by the name that they gave";
        page.gauges("tailmark_consumer_watches", None, help, "name", watches)?;
        let lag = all.iter().map(|it| (&*it.name, it.lag));
        let help = "Events that a consumer has to come, or has and is not done with";
        page.gauges("tailmark_consumer_lag_events", None, help, "name", lag)?;
        let idle = all.iter().map(|it| (&*it.name, it.idle.as_secs()));
        let help = "Since a consumer was done with an event";
        page.gauges("tailmark_consumer_idle", Some(Unit::Seconds), help, "name", idle)?;
        let delivered = all.iter().map(|it| ([("name", &*it.name)], it.delivered));
        page.counters(
            "tailmark_consumer_events_delivered",
            "Events that it was done with",
            delivered,
        )
    }

    fn calls(&self, page: &mut Page<'_>) -> fmt::Result {
        let methods = &self.methods;
        let started = methods.iter().map(|count| ([("method", count.method)], count.started));
        page.counters("tailmark_grpc_started", "gRPC calls begun", started)?;
        let handled = methods.iter().flat_map(|count| {
            let labels = |code| [("method", count.method), ("code", code)];
            count.handled.iter().map(move |(code, count)| (labels(*code), *count))
        });
        page.counters("tailmark_grpc_handled", "gRPC calls ended, streams included", handled)?;
        let seconds =
            methods.iter().filter_map(|count| Some((count.method, count.seconds.as_ref()?)));
        page.histograms(
            "tailmark_grpc_handling",
            "Time of a gRPC call with one answer",
            "method",
            seconds,
        )?;
        let statuses: Vec<String> =
            self.routes.iter().map(|((_, status), _)| status.to_string()).collect();
        let routes = self.routes.iter().zip(&statuses).map(|(((route, _), count), status)| {
            ([("route", &**route), ("code", status.as_str())], *count)
        });
        page.counters("tailmark_http_requests", "Plain HTTP requests answered", routes)
    }

    /// Under the names that every Prometheus client gives them.
    fn process(&self, page: &mut Page<'_>) -> fmt::Result {
        let own = &self.own;
        let seconds = Unit::Seconds;
        let help = "Processor time of this process";
        let mut cpu =
            page.0.encode_descriptor("process_cpu", help, Some(&seconds), MetricType::Counter)?;
        cpu.encode_counter::<NoLabelSet, _, f64>(&own.cpu.as_secs_f64(), None)?;
        if let Some(bytes) = own.resident_bytes {
            let help = "Memory of this process in RAM";
            page.gauge_of("process_resident_memory", Unit::Bytes, help, bytes as f64)?;
        }
        if let Some(files) = own.open_files {
            page.gauge("process_open_fds", "Open files and sockets", files)?;
        }
        if let Some(files) = own.max_files {
            page.gauge("process_max_fds", "Files and sockets that may be open", files)?;
        }
        let started = std::time::SystemTime::now().checked_sub(self.uptime);
        let started = started.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        if let Some(started) = started {
            let help = "When the server started, since 1970";
            page.gauge_of("process_start_time", Unit::Seconds, help, started.as_secs_f64())?;
        }
        Ok(())
    }
}

/// The log counts in powers of two of a microsecond.
fn commit_buckets(counters: &Counters) -> Buckets {
    let mut buckets: Vec<(f64, u64)> = Vec::new();
    let mut fast = 0;
    let last = counters.commit_latency.len() - 1;
    for (n, &count) in counters.commit_latency.iter().enumerate() {
        if n < FIRST_LATENCY_BUCKET {
            fast += count;
            continue;
        }
        let bound = if n == last { f64::INFINITY } else { (1u64 << n) as f64 / 1e6 };
        buckets.push((bound, count + std::mem::take(&mut fast)));
    }
    Buckets { buckets, seconds: counters.commit_micros as f64 / 1e6 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_commit_is_lost_between_the_buckets() {
        let commit_latency = std::array::from_fn(|n| n as u64 + 1);
        let counters = Counters { commit_latency, commit_micros: 2_500_000, ..Counters::default() };
        let buckets = commit_buckets(&counters);
        assert_eq!(buckets.count(), commit_latency.iter().sum::<u64>());
        assert_eq!(buckets.buckets[0], (0.000_032, 1 + 2 + 3 + 4 + 5 + 6));
        assert_eq!(buckets.buckets.last().map(|(bound, _)| *bound), Some(f64::INFINITY));
        assert_eq!(buckets.seconds, 2.5);
    }
}
