//! Rates between two snapshots: events, CPU shares, quantiles of commit times.

use std::sync::Arc;
use std::time::Duration;

use super::snapshot::Snapshot;
use tailmark_log::eventlog::LATENCY_BUCKETS;
use tailmark_record::Timestamp;

/// One figure as `StreamMetrics` tells it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    pub(crate) value: f64,
    pub(crate) labels: Vec<(&'static str, String)>,
}

/// Two looks, and what lies between them.
pub(crate) struct Rates<'a> {
    now: &'a Snapshot,
    before: &'a Snapshot,
    elapsed: Duration,
}

impl<'a> Rates<'a> {
    pub(crate) fn new(now: &'a Snapshot, before: &'a Snapshot) -> Self {
        Rates { now, before, elapsed: now.at.saturating_duration_since(before.at) }
    }

    /// When the later one was taken.
    pub(crate) fn at(&self) -> Timestamp {
        self.now.wall
    }

    /// The last durable event, then.
    pub(super) fn head(&self) -> u64 {
        self.now.head.get()
    }

    /// Events that the slowest stream had not looked at then.
    pub(super) fn lag(&self) -> u64 {
        self.now.lag
    }

    /// Events appended a second.
    pub(super) fn appended(&self) -> f64 {
        let count = |snapshot: &Snapshot| snapshot.log.counters.events_appended;
        self.rate(count(self.now), count(self.before))
    }

    /// Events done a second by the consumer of that name.
    pub(super) fn of_consumer(&self, name: &str) -> f64 {
        let delivered = |snapshot: &Snapshot| {
            snapshot.consumers.iter().find(|it| &*it.name == name).map_or(0, |it| it.delivered)
        };
        let now = delivered(self.now);
        // One that was forgotten between begins anew.
        self.rate(now, delivered(self.before).min(now))
    }

    /// A quantile of the commits between, in milliseconds; `None` where there was none.
    pub(super) fn commit_ms(&self, quantile: f64) -> Option<f64> {
        let latency = |snapshot: &Snapshot| snapshot.log.counters.commit_latency;
        let (now, before) = (latency(self.now), latency(self.before));
        let latency = std::array::from_fn(|n| now[n].saturating_sub(before[n]));
        quantile_micros(&latency, quantile).map(|micros| micros / 1e3)
    }

    /// One sample: every figure in a fixed order, `uptime_seconds` last.
    pub(crate) fn figures(&self) -> Vec<Figure> {
        let mut sample = Sample { instance: &self.now.instance, figures: Vec::new() };
        self.machine(&mut sample);
        self.requests(&mut sample);
        self.events(&mut sample);
        self.log(&mut sample);
        sample.add("uptime_seconds", self.now.uptime.as_secs_f64());
        sample.figures
    }

    fn machine(&self, sample: &mut Sample<'_>) {
        let (now, before) = (self.now, self.before);
        let used = now.own.cpu.saturating_sub(before.own.cpu).as_secs_f64();
        if !self.elapsed.is_zero() {
            let percent = 100.0 * used / self.elapsed.as_secs_f64();
            sample.with("cpu_usage", percent, "core", "all");
        }
        for (number, (now, before)) in now.cores.iter().zip(&before.cores).enumerate() {
            let total = now.total.saturating_sub(before.total);
            if total > 0 {
                let busy = now.busy.saturating_sub(before.busy);
                let percent = 100.0 * busy as f64 / total as f64;
                sample.with("cpu_usage", percent.min(100.0), "core", number.to_string());
            }
        }
        if let Some(bytes) = now.own.resident_bytes {
            sample.with("memory_usage", bytes as f64 / f64::from(1 << 20), "type", "resident");
        }
    }

    fn requests(&self, sample: &mut Sample<'_>) {
        for (now, before) in self.now.methods.iter().zip(&self.before.methods) {
            let rate = self.rate(now.started, before.started);
            sample.with("requests_per_second", rate, "endpoint", now.method);
        }
        let mut routes: Vec<(Arc<str>, u64, u64)> = Vec::new();
        for ((route, status), count) in &self.now.routes {
            let key = (Arc::clone(route), *status);
            let before = self.before.routes.iter().find(|(route, _)| *route == key);
            let before = before.map_or(0, |(_, count)| *count);
            match routes.last_mut() {
                Some((last, n, b)) if last == route => (*n, *b) = (*n + count, *b + before),
                _ => routes.push((Arc::clone(route), *count, before)),
            }
        }
        for (route, now, before) in routes {
            // gRPC has an `other` of its own.
            let name = if &*route == "other" { "other (http)" } else { &route };
            sample.with("requests_per_second", self.rate(now, before), "endpoint", name);
        }
    }

    fn events(&self, sample: &mut Sample<'_>) {
        let (now, before) = (&self.now.log.counters, &self.before.log.counters);
        for (name, rate_name, now, before) in [
            (
                "events_appended",
                "events_appended_per_second",
                now.events_appended,
                before.events_appended,
            ),
            (
                "bytes_appended",
                "bytes_appended_per_second",
                now.bytes_appended,
                before.bytes_appended,
            ),
            (
                "events_delivered",
                "events_delivered_per_second",
                self.now.delivered(),
                self.before.delivered(),
            ),
            ("events_duplicate", "events_duplicate_per_second", now.duplicates, before.duplicates),
            ("commits", "commits_per_second", now.commits, before.commits),
        ] {
            sample.add(name, now as f64);
            sample.add(rate_name, self.rate(now, before));
        }
        sample.add("commits_failed", now.commits_failed as f64);
        for (source, now, before) in [
            ("memory", now.reads_recent, before.reads_recent),
            ("disk", now.reads_stored, before.reads_stored),
        ] {
            sample.with("reads_per_second", self.rate(now, before), "source", source);
        }
        for (name, quantile) in [("0.5", 0.5), ("0.99", 0.99)] {
            // No commit, no latency.
            if let Some(ms) = self.commit_ms(quantile) {
                sample.with("commit_latency_ms", ms, "quantile", name);
            }
        }
    }

    fn log(&self, sample: &mut Sample<'_>) {
        let now = self.now;
        for (name, value) in
            [("connections", now.connections), ("watches", now.watches), ("uploads", now.uploads)]
        {
            sample.add(name, value as f64);
        }
        for stream in &now.streams {
            sample.with("streams", stream.open as f64, "stream", stream.kind);
        }
        sample.add("watch_lag_events", now.lag as f64);
        for consumer in &now.consumers {
            for (name, value) in [
                ("consumer_watches", consumer.watches as f64),
                ("consumer_lag_events", consumer.lag as f64),
                ("consumer_idle_seconds", consumer.idle.as_secs_f64()),
                ("consumer_events_per_second", self.of_consumer(&consumer.name)),
            ] {
                sample.with(name, value, "consumer", &*consumer.name);
            }
        }
        sample.add("head_seq", now.head.get() as f64);
        sample.add("oldest_seq", now.oldest.get() as f64);
        sample.add("readable_events", now.readable() as f64);
        let store = &now.log.store;
        for (part, bytes) in [("journal", store.journal_bytes), ("segments", store.segment_bytes())]
        {
            sample.with("disk_bytes", bytes as f64, "part", part);
        }
        for (name, value) in [
            ("segments", store.segments),
            ("unsealed_slots", store.unsealed_slots),
            ("sealing", u64::from(store.is_sealing)),
            ("in_flight_bytes", now.log.in_flight_bytes),
            ("reads_waiting", now.log.reads_waiting),
            ("appends_stopped", u64::from(now.log.is_stopped)),
            ("trouble", u64::from(now.log.has_trouble())),
        ] {
            sample.add(name, value as f64);
        }
    }

    fn rate(&self, now: u64, before: u64) -> f64 {
        if self.elapsed.is_zero() {
            return 0.0;
        }
        now.saturating_sub(before) as f64 / self.elapsed.as_secs_f64()
    }
}

struct Sample<'a> {
    instance: &'a str,
    figures: Vec<Figure>,
}

impl Sample<'_> {
    fn add(&mut self, name: &'static str, value: f64) {
        let labels = vec![("instance", self.instance.to_owned())];
        self.figures.push(Figure { name, value, labels });
    }

    fn with(
        &mut self,
        name: &'static str,
        value: f64,
        label: &'static str,
        text: impl Into<String>,
    ) {
        let labels = vec![("instance", self.instance.to_owned()), (label, text.into())];
        self.figures.push(Figure { name, value, labels });
    }
}

/// The quantile of counts in buckets that double: bucket `n` is below 2^n microseconds. Within a
/// bucket as if evenly spread.
fn quantile_micros(buckets: &[u64; LATENCY_BUCKETS], quantile: f64) -> Option<f64> {
    let total: u64 = buckets.iter().sum();
    if total == 0 {
        return None;
    }
    let rank = (quantile * total as f64).max(1.0);
    let mut seen = 0.0;
    for (n, &count) in buckets.iter().enumerate() {
        let count = count as f64;
        if count > 0.0 && seen + count >= rank {
            let low = if n == 0 { 0.0 } else { (1u64 << (n - 1)) as f64 };
            let high = (1u64 << n) as f64;
            return Some(low + (high - low) * (rank - seen) / count);
        }
        seen += count;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_within_their_bucket() {
        let mut buckets = [0; LATENCY_BUCKETS];
        assert_eq!(quantile_micros(&buckets, 0.5), None);
        // 98 commits of 128 to 255 us, 2 of 1,024 to 2,047 us.
        buckets[8] = 98;
        buckets[11] = 2;
        let median = quantile_micros(&buckets, 0.5).unwrap();
        assert!((128.0..256.0).contains(&median), "{median}");
        let high = quantile_micros(&buckets, 0.99).unwrap();
        assert!((1_024.0..2_048.0).contains(&high), "{high}");
        let mut last = [0; LATENCY_BUCKETS];
        last[LATENCY_BUCKETS - 1] = 1;
        assert!(quantile_micros(&last, 0.99).is_some());
    }
}
