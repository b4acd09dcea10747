//! Taking back an erasure that waits.

use std::sync::Arc;

use tokio::sync::mpsc;
use tonic::{Response, Status};
use uuid::Uuid;

use super::EraseStream;
use crate::server::asked::Asked;
use crate::server::rpc::status;
use crate::server::{Shared, report};
use pb::erase_progress::Phase;
use tailmark_log::eventlog::CancelError;
use tailmark_wire::feed_v1 as pb;

/// Takes it back, or says why not.
pub(super) fn cancel(
    shared: &Arc<Shared>,
    asked: Asked,
    request: &pb::EraseRequest,
) -> Result<Response<EraseStream>, Status> {
    let alone = pb::EraseRequest { cancel: request.cancel.clone(), ..Default::default() };
    if *request != alone {
        return Err(status::bad_field("cancel", "goes with no other field").into());
    }
    let Ok(id) = request.cancel.parse::<Uuid>() else {
        return Err(status::bad_field("cancel", "names no erasure: a UUID").into());
    };
    let span = tracing::info_span!(
        "erase",
        peer = asked.peer.as_ref().map(|peer| tracing::field::display(peer.address)),
        cancel = %id,
        reason = tracing::field::Empty,
    );
    let principal = asked.caller.name().map_or_else(String::new, |name| name.to_string());
    let (sender, parts) = mpsc::channel(1);
    let log = shared.log.clone();
    // Also where nobody waits any more: it takes one read.
    tokio::task::spawn_blocking(move || {
        let done = log.cancel_erasure(id).map_err(|error| {
            if matches!(error, CancelError::Failed(_)) {
                report::erasure_not_cancelled(&error);
            }
            status::cancel(&error)
        });
        let part = done.map(|()| {
            report::erasure_cancelled(&principal, id);
            told(id)
        });
        let _ = sender.blocking_send(part);
    });
    let is_last = |part: &pb::EraseProgress| part.result.is_some();
    Ok(Response::new(asked.answered(shared, "erase", &span, parts, is_last)))
}

fn told(id: Uuid) -> pb::EraseProgress {
    let result =
        pb::EraseResult { erasure: id.to_string(), cancelled: true, ..pb::EraseResult::default() };
    pb::EraseProgress {
        phase: Phase::Done.into(),
        erasure: id.to_string(),
        result: Some(result),
        ..pb::EraseProgress::default()
    }
}
