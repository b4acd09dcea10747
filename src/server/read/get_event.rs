//! `GetEvent`: one event, by seq or cursor.
//!
//! An event that its caller may not see is answered like one that is not there.

use bytes::Bytes;

use super::failure;
use crate::server::principal::Caller;
use crate::server::rpc::codec::Encoded;
use crate::server::rpc::status::{self, Failure, LogFacts};
use crate::server::{Shared, report};
use tailmark_log::eventlog::{CursorError, ReadError, ResolveError};
use tailmark_record::{Cursor, Event, Seq};
use tailmark_wire::feed_v1 as pb;

/// One event, as it is stored.
pub(crate) async fn get_event(
    shared: &Shared,
    caller: Caller,
    request: pb::GetEventRequest,
) -> Result<Encoded, Failure> {
    use pb::get_event_request::By;
    caller.may_watch_something()?;
    let seq = match &request.by {
        None => return Err(status::bad_field("by", "set seq or cursor")),
        Some(By::Seq(0)) => return Err(status::bad_field("seq", "the first event has seq 1")),
        Some(By::Seq(seq)) => Seq::new(*seq),
        Some(By::Cursor(text)) => named_by(shared, text).await?,
    };
    let found = match shared.log.event(seq).await {
        // Only who writes knows whether the log here has it all.
        Ok(None) if shared.confirm().await?.is_some() => shared.log.event(seq).await,
        found => found,
    };
    match found {
        Ok(Some(event)) if may_see(&caller, &event)? => Ok(Encoded(Bytes::clone(&event))),
        Ok(Some(_)) => Err(status::not_found(seq, shared.log.bounds().head)),
        Ok(None) => Err(status::not_found(seq, shared.log.bounds().head)),
        Err(ReadError::Trimmed { from, oldest }) => {
            let missed = from.distance_to(oldest);
            Err(status::trimmed_event(seq, oldest, missed, &LogFacts::of(&shared.log).await))
        }
        // Whoever sees a part of the topics must not learn from it that it was there.
        Err(ReadError::Removed(range)) if range.is_intended() && !caller.sees_all() => {
            Err(status::not_found(seq, shared.log.bounds().head))
        }
        Err(error) => Err(failure(shared, &error).await),
    }
}

/// Whether an event is of a topic that its caller may see.
fn may_see(caller: &Caller, encoded: &[u8]) -> Result<bool, Failure> {
    if caller.sees_all() {
        return Ok(true);
    }
    let event = Event::parse(encoded).map_err(|error| {
        report::defect(error.what());
        status::internal()
    })?;
    Ok(caller.may_see(event.topic))
}

/// The event that a cursor names, its identity checked.
async fn named_by(shared: &Shared, text: &str) -> Result<Seq, Failure> {
    let cursor = Cursor::parse(text).map_err(|error| status::malformed_cursor("cursor", error))?;
    let seq = cursor.seq();
    let resolved = match shared.log.resolve(cursor).await {
        Err(ResolveError::Cursor(CursorError::LogDiverged { .. }))
            if shared.confirm().await?.is_some() =>
        {
            shared.log.resolve(cursor).await
        }
        resolved => resolved,
    };
    let resolved = match resolved {
        Ok(next) => Ok(next),
        Err(ResolveError::Cursor(error)) => Err(error),
        Err(ResolveError::Read(error)) => return Err(failure(shared, &error).await),
    };
    match resolved {
        // What is trimmed or not there yet is found out by reading it.
        Ok(_) | Err(CursorError::Trimmed { .. } | CursorError::Ahead { .. }) if seq > Seq::ZERO => {
            Ok(seq)
        }
        Err(error @ (CursorError::LogChanged | CursorError::LogDiverged { .. })) => {
            Err(status::cursor(&error, &LogFacts::of(&shared.log).await))
        }
        _ => Err(status::not_found(seq, shared.log.bounds().head)),
    }
}
