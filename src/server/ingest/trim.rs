//! `Trim`: removes the oldest events.

use crate::server::principal::Caller;
use crate::server::rpc::convert;
use crate::server::rpc::status::{self, Failure};
use crate::server::{Shared, read};
use tailmark_record::Seq;
use tailmark_wire::feed_v1 as pb;

/// Removes the oldest events. A seq beyond `head + 1` is refused: it is more likely a mistake than
/// the wish to remove everything, events to come included. A time may lie in the future.
pub(crate) async fn trim(
    shared: &Shared,
    caller: Caller,
    request: pb::TrimRequest,
) -> Result<pb::TrimResult, Failure> {
    use pb::trim_request::Before;
    caller.admin("trim")?;
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
                Err(error) => return Err(read::failure(shared, &error).await),
            }
        }
    };
    let trimmed = log
        .trim(before)
        .await
        .map_err(|error| super::failure(&error, shared.options.retry_delay))?;
    tracing::info!(%before, removed = trimmed.removed, "trimmed");
    Ok(pb::TrimResult {
        oldest_seq: trimmed.oldest.get(),
        head_seq: trimmed.head.get(),
        removed: trimmed.removed,
    })
}
