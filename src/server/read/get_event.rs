//! `GetEvent`: one event, by seq or cursor.

use bytes::Bytes;

use super::failure;
use crate::server::Shared;
use crate::server::rpc::codec::Encoded;
use crate::server::rpc::status::{self, Failure, LogFacts};
use tailmark_log::eventlog::{CursorError, ReadError, ResolveError};
use tailmark_record::{Cursor, Seq};
use tailmark_wire::feed_v1 as pb;

/// One event, as it is stored.
pub(crate) async fn get_event(
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
            Err(status::trimmed_event(seq, oldest, missed, &LogFacts::of(&shared.log).await))
        }
        Err(error) => Err(failure(shared, &error).await),
    }
}

/// The event that a cursor names, its identity checked.
async fn named_by(shared: &Shared, text: &str) -> Result<Seq, Failure> {
    let cursor = Cursor::parse(text).map_err(|error| status::malformed_cursor("cursor", error))?;
    let seq = cursor.seq();
    let resolved = match shared.log.resolve(cursor).await {
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
