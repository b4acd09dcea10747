//! Conversions between wire types and record types; the only place that knows both.
use tailmark_log::storage::{ErasePhase, EraseProgress, Level, TopicStats};
use tailmark_record::topic::{Filter, Pattern};
use tailmark_record::{self as record, GenerationEntry, Limits, Seq};
use tailmark_wire::feed_v1 as pb;

pub(crate) use tailmark_wire::values::{duration, from_timestamp, timestamp};

use super::status::{self, Failure};
use crate::server::Options;

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
        erased: event.erased.as_ref().map(|_| record::Erased::default()),
        has_marker: event.marker.is_some(),
        has_client_id: !event.id.is_empty(),
        has_client_at: event.at.is_some(),
    }
}

/// What an ack says of what was stored.
pub(crate) fn durability(level: Level) -> pb::Durability {
    match level {
        Level::Unsynced => pb::Durability::Unsynced,
        Level::Fsync => pb::Durability::Fsync,
        Level::Replicated => pb::Durability::Replicated,
    }
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

/// How far an erasure is.
pub(crate) fn erasing(progress: &EraseProgress) -> pb::EraseProgress {
    use pb::erase_progress::Phase;
    let phase = match progress.phase {
        ErasePhase::Sealing => Phase::Sealing,
        ErasePhase::Rewriting => Phase::Rewriting,
        ErasePhase::Wiping => Phase::Wiping,
        ErasePhase::Telling => Phase::Telling,
    };
    pb::EraseProgress {
        phase: phase.into(),
        erasure: progress.id.to_string(),
        events_done: progress.events_done,
        events: progress.events,
        segments_done: progress.segments_done,
        segments: progress.segments,
        selection: None,
        result: None,
    }
}

/// A union of patterns, each with the name of its field.
pub(crate) fn filter<'a>(
    patterns: impl ExactSizeIterator<Item = (String, &'a str)>,
    limits: &Limits,
    max_patterns: usize,
) -> Result<Filter, Failure> {
    let count = patterns.len();
    if count > max_patterns {
        return Err(status::over_limit("patterns_per_watch", max_patterns, count));
    }
    let parse = |(field, text): (String, &str)| {
        Pattern::parse(text, limits).map_err(|problem| status::bad_pattern(&field, text, &problem))
    };
    Ok(Filter::new(patterns.map(parse).collect::<Result<_, _>>()?))
}

pub(crate) fn topic(name: &str, stats: &TopicStats) -> pb::TopicStatus {
    pb::TopicStatus {
        topic: name.to_owned(),
        events: stats.events,
        last_seq: stats.last_seq.get(),
        last_at: Some(timestamp(stats.last_at)),
    }
}
