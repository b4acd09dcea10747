//! Between the wire types and our own; the only place that knows both.

use std::time::Duration;

use tailmark_log::storage::TopicStats;
use tailmark_record::{self as record, Bounds, GenerationEntry, Limits, Seq, Timestamp};
use tailmark_wire::feed_v1 as pb;

pub(crate) use tailmark_wire::values::{from_timestamp, timestamp};

use crate::server::Options;
use crate::server::feed::machine::{Gap, GapReason, Marker, News};

pub(crate) fn duration(d: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(d.as_secs()).unwrap_or(i64::MAX),
        // Below 1,000,000,000.
        nanos: d.subsec_nanos() as i32,
    }
}

/// A view of an event that a client sent in a decoded message.
pub(crate) fn event(event: &pb::Event) -> record::Event<'_> {
    record::Event {
        id: &event.id,
        topic: &event.topic,
        body: &event.body,
        data: &event.data,
        at: event.at.map(from_timestamp),
        seq: Seq::ZERO,
        cursor: "",
        kind: &event.r#type,
        key: &event.key,
        headers: event.headers.iter().map(|(name, value)| (&**name, &**value)).collect(),
        appended_at: None,
        has_marker: event.marker.is_some(),
        has_client_id: !event.id.is_empty(),
        has_client_at: event.at.is_some(),
    }
}

/// What every marker tells beside its news.
pub(crate) struct MarkerContext {
    /// The cursor of the last seq passed.
    pub(crate) cursor: String,
    /// The clock.
    pub(crate) at: Timestamp,
    /// The log's bounds.
    pub(crate) bounds: Bounds,
    /// With CLOSING.
    pub(crate) retry_delay: Duration,
}

/// An event that holds a marker.
pub(crate) fn marker(marker: Marker, context: MarkerContext) -> pb::Event {
    use pb::marker::Kind;
    let (kind, gap) = match marker.news {
        News::Resumed => (Kind::Resumed, None),
        News::CaughtUp => (Kind::CaughtUp, None),
        News::FellBehind => (Kind::FellBehind, None),
        News::Heartbeat => (Kind::Heartbeat, None),
        News::Gap(it) => (Kind::Gap, Some(gap(it))),
        News::Closing => (Kind::Closing, None),
    };
    let is_closing = kind == Kind::Closing;
    pb::Event {
        cursor: context.cursor.clone(),
        marker: Some(pb::Marker {
            kind: kind.into(),
            cursor: context.cursor,
            at: Some(timestamp(context.at)),
            oldest_seq: context.bounds.oldest.get(),
            head_seq: context.bounds.head.get(),
            lag_events: marker.passed.distance_to(context.bounds.head),
            gap,
            retry_delay: is_closing.then(|| duration(context.retry_delay)),
        }),
        ..pb::Event::default()
    }
}

fn gap(gap: Gap) -> pb::Gap {
    use pb::gap::Reason;
    let reason = match gap.reason {
        GapReason::Trimmed => Reason::Trimmed,
        GapReason::Damaged => Reason::Damaged,
        GapReason::LogChanged => Reason::LogChanged,
        GapReason::LogDiverged => Reason::LogDiverged,
        GapReason::Ahead => Reason::Ahead,
    };
    pb::Gap { from_seq: gap.from.get(), to_seq: gap.to.get(), reason: reason.into() }
}

pub(crate) fn generation(entry: &GenerationEntry) -> pb::Generation {
    pb::Generation {
        counter: u32::from(entry.generation.counter),
        nonce: entry.generation.nonce,
        first_seq: entry.first.get(),
        since: Some(timestamp(entry.since)),
        cause: entry.cause.clone(),
    }
}

pub(crate) fn limits(options: &Options, limits: &Limits, dedup_window: u64) -> pb::Limits {
    let n = |n: usize| n as u64;
    pb::Limits {
        message_bytes: n(options.message_bytes),
        event_bytes: n(limits.event_bytes),
        batch_events: n(limits.batch_events),
        batch_bytes: n(limits.batch_bytes),
        topic_bytes: n(limits.topic_bytes),
        topic_segments: n(limits.topic_segments),
        name_bytes: n(limits.name_bytes),
        headers: n(limits.headers),
        header_bytes: n(limits.header_bytes),
        patterns_per_watch: n(options.patterns_per_watch),
        watches_per_connection: n(options.watches_per_connection),
        watches: n(options.watches),
        connections: n(options.connections),
        dedup_window,
    }
}

pub(crate) fn topic(name: &str, stats: &TopicStats) -> pb::TopicStatus {
    pb::TopicStatus {
        topic: name.to_owned(),
        events: stats.events,
        last_seq: stats.last_seq.get(),
        last_at: Some(timestamp(stats.last_at)),
    }
}
