//! `Publish`: one event, one answer.

use std::future::Future;

use crate::server::Shared;
use crate::server::principal::Caller;
use crate::server::rpc::convert;
use crate::server::rpc::status::{self, Failure};
use tailmark_log::eventlog::{AppendOptions, Batch, ExpectedHead};
use tailmark_record::topic::Topic;
use tailmark_record::{Limits, Seq};
use tailmark_wire::feed_v1 as pb;

/// Stores one event. What it awaits with is small: there may be thousands of these.
pub(crate) fn publish(
    shared: &Shared,
    caller: Caller,
    request: pb::PublishRequest,
) -> impl Future<Output = Result<pb::PublishResult, Failure>> + Send {
    let prepared = prepare(shared, &caller, request);
    async move {
        let Prepared { batch, options, id } = prepared?;
        let log = &shared.log;
        let appended = log
            .append(batch, options)
            .await
            .map_err(|error| super::failure(&error, shared.options.retry_delay))?;
        Ok(pb::PublishResult {
            id,
            seq: appended.last_event.get(),
            cursor: log.cursor_of(&appended).await,
            duplicate: appended.last_is_duplicate,
            // A repeat was appended when its original was: this commit's time is not its own.
            appended_at: (!appended.last_is_duplicate)
                .then(|| convert::timestamp(appended.appended_at)),
            durability: convert::durability(appended.level).into(),
        })
    }
}

/// An event that may be stored.
struct Prepared {
    batch: Batch,
    options: AppendOptions,
    id: String,
}

fn prepare(
    shared: &Shared,
    caller: &Caller,
    request: pb::PublishRequest,
) -> Result<Prepared, Failure> {
    let log = &shared.log;
    let Some(event) = &request.event else {
        return Err(status::bad_field("event", "is required"));
    };
    let event = caller.admit(convert::event(event))?;
    let mut batch = log.batch();
    batch.push(&event).map_err(|error| status::invalid_event(&error).within("event"))?;
    caller.may_store(1, batch.bytes())?;
    let id = batch.last_id().unwrap_or_default().to_owned();
    let expected_head = match request.expected_head {
        None => None,
        Some(it) => Some(expected_head(it.topic, Seq::new(it.seq), caller, log.limits())?),
    };
    let options = AppendOptions { dedup: true, expected_head, atomic: true };
    Ok(Prepared { batch, options, id })
}

/// A topic that is none could never have a head, and would pass as one without events. Where a topic's
/// head is not tells where it is, so it takes the right to watch it; the log's everyone knows.
pub(crate) fn expected_head(
    topic: String,
    seq: Seq,
    caller: &Caller,
    limits: &Limits,
) -> Result<ExpectedHead, Failure> {
    let topic = Some(topic).filter(|topic| !topic.is_empty());
    if let Some(topic) = &topic {
        Topic::check(topic, limits)
            .map_err(|problem| status::bad_text("expected_head.topic", &problem))?;
        caller.may_watch_topic(topic)?;
    }
    Ok(ExpectedHead { topic, seq })
}
