//! The calls with one answer.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use super::codec::Encoded;
use super::status::{self, Failure};
use super::{Shared, convert, facts};
use tailmark_log::eventlog::{AppendOptions, CursorError, ExpectedHead, ReadError};
use tailmark_log::storage::TopicStats;
use tailmark_record::topic::Topic;
use tailmark_record::{Cursor, Limits, Seq, Timestamp};
use tailmark_wire::feed_v1 as pb;

const DEFAULT_PAGE: usize = 100;
const MAX_PAGE: usize = 1_000;

/// What this server has beyond the seeds' calls.
const CAPABILITIES: [&str; 7] =
    ["append", "dedup", "expected_head", "markers", "on_lost", "trim", "watch_batches"];

/// Stores one event.
pub(super) async fn publish(
    shared: &Shared,
    request: pb::PublishRequest,
) -> Result<pb::PublishResult, Failure> {
    let log = &shared.log;
    let Some(event) = &request.event else {
        return Err(status::bad_field("event", "is required"));
    };
    let mut batch = log.batch();
    batch
        .push(&convert::event(event))
        .map_err(|error| status::invalid_event(&error).within("event"))?;
    let id = batch.last_id().unwrap_or_default().to_owned();
    let expected_head = match request.expected_head {
        None => None,
        Some(it) => Some(expected_head(it.topic, Seq::new(it.seq), log.limits())?),
    };
    let appended = log
        .append(batch, AppendOptions { dedup: true, expected_head, atomic: true })
        .await
        .map_err(|error| status::append(&error, shared.options.retry_delay))?;
    Ok(pb::PublishResult {
        id,
        seq: appended.last_event.get(),
        cursor: log.cursor(appended.last_event),
        duplicate: appended.last_is_duplicate,
        // A repeat was appended when its original was: this commit's time is not its own.
        appended_at: (!appended.last_is_duplicate)
            .then(|| convert::timestamp(appended.appended_at)),
        durability: pb::Durability::Fsync.into(),
    })
}

/// A topic that is none could never have a head, and would pass as one without events.
pub(super) fn expected_head(
    topic: String,
    seq: Seq,
    limits: &Limits,
) -> Result<ExpectedHead, Failure> {
    let topic = Some(topic).filter(|topic| !topic.is_empty());
    if let Some(topic) = &topic {
        Topic::check(topic, limits)
            .map_err(|problem| status::bad_text("expected_head.topic", &problem))?;
    }
    Ok(ExpectedHead { topic, seq })
}

/// One event, as it is stored.
pub(super) async fn get_event(
    shared: &Shared,
    request: pb::GetEventRequest,
) -> Result<Encoded, Failure> {
    use pb::get_event_request::By;
    let seq = match &request.by {
        None => return Err(status::bad_field("by", "set seq or cursor")),
        Some(By::Seq(0)) => return Err(status::bad_field("seq", "the first event has seq 1")),
        Some(By::Seq(seq)) => Seq::new(*seq),
        Some(By::Cursor(text)) => named_by(shared, text).await?,
    };
    match shared.log.event(seq).await {
        Ok(Some(event)) => Ok(Encoded(Bytes::clone(&event))),
        Ok(None) => Err(status::not_found(seq, shared.log.bounds().head)),
        Err(ReadError::Trimmed { from, oldest }) => {
            let missed = from.distance_to(oldest);
            Err(status::trimmed_event(seq, oldest, missed, &facts(&shared.log).await))
        }
        Err(error) => Err(read_failure(shared, &error).await),
    }
}

/// The event that a cursor names, its identity checked.
async fn named_by(shared: &Shared, text: &str) -> Result<Seq, Failure> {
    let cursor = Cursor::parse(text).map_err(|error| status::malformed_cursor("cursor", error))?;
    let seq = cursor.seq();
    match shared.log.resolve(cursor) {
        // What is trimmed or not there yet is found out by reading it.
        Ok(_) | Err(CursorError::Trimmed { .. } | CursorError::Ahead { .. }) if seq > Seq::ZERO => {
            Ok(seq)
        }
        Err(error @ (CursorError::LogChanged | CursorError::LogDiverged { .. })) => {
            Err(status::cursor(&error, &facts(&shared.log).await))
        }
        _ => Err(status::not_found(seq, shared.log.bounds().head)),
    }
}

/// What the log is.
pub(super) async fn get_log(shared: &Shared) -> Result<pb::LogStatus, Failure> {
    let (log, options) = (&shared.log, &shared.options);
    let bounds = log.bounds();
    let (oldest_time, head_time) = if bounds.is_empty() {
        (None, None)
    } else {
        (time_of(shared, bounds.oldest).await?, time_of(shared, bounds.head).await?)
    };
    let status = log.status();
    let dedup_window = options.dedup_window as u64;
    Ok(pb::LogStatus {
        log_id: log.id().to_string(),
        generation: Some(convert::generation(bounds.generations.current())),
        oldest_seq: bounds.oldest.get(),
        head_seq: bounds.head.get(),
        oldest_time: oldest_time.map(convert::timestamp),
        head_cursor: log.cursor(bounds.head),
        limits: Some(convert::limits(options, log.limits(), dedup_window)),
        version: options.version.clone(),
        capabilities: CAPABILITIES.map(str::to_owned).to_vec(),
        durability: pb::Durability::Fsync.into(),
        head_time: head_time.map(convert::timestamp),
        disk_bytes: status.store.disk_bytes,
        segments: status.store.segments,
        watches: shared.gauges.watches() as u64,
        uptime: Some(convert::duration(shared.started.elapsed())),
    })
}

/// `None` when it was trimmed meanwhile.
async fn time_of(shared: &Shared, seq: Seq) -> Result<Option<Timestamp>, Failure> {
    match shared.log.time_of(seq).await {
        Ok(time) => Ok(Some(time)),
        Err(ReadError::Trimmed { .. }) => Ok(None),
        Err(error) => Err(read_failure(shared, &error).await),
    }
}

/// A page of topics, in the order of their names.
pub(super) async fn list_topics(
    shared: &Shared,
    request: pb::ListTopicsRequest,
) -> Result<pb::ListTopicsResponse, Failure> {
    let size = match usize::try_from(request.page_size) {
        Ok(0) => DEFAULT_PAGE,
        Ok(size) => size.min(MAX_PAGE),
        Err(_) => return Err(status::bad_field("page_size", "must not be negative")),
    };
    let after = read_token(&request.page_token)?;
    let topics = match shared.log.topics().await {
        Ok(topics) => topics,
        Err(error) => return Err(read_failure(shared, &error).await),
    };
    Ok(page(&topics, &request.prefix, after.as_deref(), size))
}

fn page(
    topics: &BTreeMap<Arc<str>, TopicStats>,
    prefix: &str,
    after: Option<&str>,
    size: usize,
) -> pb::ListTopicsResponse {
    let begin = match after {
        Some(after) if after >= prefix => Bound::Excluded(after),
        _ => Bound::Included(prefix),
    };
    let mut rest = topics
        .range::<str, _>((begin, Bound::Unbounded))
        .take_while(|(name, _)| name.starts_with(prefix))
        .peekable();
    let mut response = pb::ListTopicsResponse::default();
    while response.topics.len() < size
        && let Some((name, stats)) = rest.next()
    {
        response.topics.push(convert::topic(name, stats));
    }
    if rest.peek().is_some()
        && let Some(last) = response.topics.last()
    {
        response.next_page_token = write_token(&last.topic);
    }
    response
}

/// The last name of a page, in hexadecimal.
fn write_token(topic: &str) -> String {
    topic.bytes().map(|byte| format!("{byte:02x}")).collect()
}

fn read_token(token: &str) -> Result<Option<String>, Failure> {
    if token.is_empty() {
        return Ok(None);
    }
    let is_hex = token.len().is_multiple_of(2) && token.bytes().all(|c| c.is_ascii_hexdigit());
    let bytes: Option<Vec<u8>> = token
        .as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect();
    bytes
        .filter(|_| is_hex)
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .map(Some)
        .ok_or_else(|| status::bad_field("page_token", "is not one that this server gave"))
}

/// Removes the oldest events. A seq beyond `head + 1` is refused: it is more likely a mistake than
/// the wish to remove everything, events to come included. A time may lie in the future.
pub(super) async fn trim(
    shared: &Shared,
    request: pb::TrimRequest,
) -> Result<pb::TrimResult, Failure> {
    use pb::trim_request::Before;
    let log = &shared.log;
    let before = match request.before {
        None => return Err(status::bad_field("before", "set seq or time")),
        Some(Before::Seq(seq)) if Seq::new(seq) > log.bounds().next() => {
            return Err(status::bad_field("seq", "lies beyond the next event")
                .with("head", log.bounds().head));
        }
        Some(Before::Seq(seq)) => Seq::new(seq),
        Some(Before::Time(time)) => {
            let time = convert::from_timestamp(time);
            if !time.is_valid() {
                let problem = "outside the years 1 to 9999, or nanos out of range";
                return Err(status::bad_field("time", problem));
            }
            match log.seek_time(time).await {
                Ok(seq) => seq,
                Err(error) => return Err(read_failure(shared, &error).await),
            }
        }
    };
    let trimmed = log
        .trim(before)
        .await
        .map_err(|error| status::append(&error, shared.options.retry_delay))?;
    tracing::info!(%before, removed = trimmed.removed, "trimmed");
    Ok(pb::TrimResult {
        oldest_seq: trimmed.oldest.get(),
        head_seq: trimmed.head.get(),
        removed: trimmed.removed,
    })
}

async fn read_failure(shared: &Shared, error: &ReadError) -> Failure {
    status::read(error, &facts(&shared.log).await, shared.options.retry_delay)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topics(names: &[&str]) -> BTreeMap<Arc<str>, TopicStats> {
        names.iter().map(|&name| (Arc::from(name), TopicStats::default())).collect()
    }

    fn names(response: &pb::ListTopicsResponse) -> Vec<&str> {
        response.topics.iter().map(|topic| topic.topic.as_str()).collect()
    }

    #[test]
    fn pages_cover_a_prefix_once() {
        let topics = topics(&["a", "b.1", "b.2", "b.3", "bc", "c"]);
        let first = page(&topics, "b", None, 2);
        assert_eq!(names(&first), ["b.1", "b.2"]);
        let after = read_token(&first.next_page_token).unwrap();
        let second = page(&topics, "b", after.as_deref(), 2);
        assert_eq!(names(&second), ["b.3", "bc"]);
        assert_eq!(second.next_page_token, "");
        assert_eq!(names(&page(&topics, "x", None, 2)), [""; 0]);
    }

    #[test]
    fn a_token_survives_the_round_trip_and_nothing_else_is_one() {
        let token = write_token("größe.日本");
        assert_eq!(read_token(&token).unwrap().as_deref(), Some("größe.日本"));
        for bad in ["x", "6", "zz", "ff", "616", "é", "+1"] {
            assert!(read_token(bad).is_err(), "{bad:?}");
        }
    }
}
