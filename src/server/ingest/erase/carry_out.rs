//! The thread that erases.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;
use uuid::Uuid;

use super::{Found, Reporter};
use crate::server::rpc::convert;
use crate::server::rpc::status;
use crate::server::{Shared, report};
use pb::erase_progress::Phase;
use tailmark_log::eventlog::{Erased, Erasure};
use tailmark_wire::feed_v1 as pb;

/// Begins to erase what was found, and waits for nothing.
pub(super) fn carry_out(
    shared: &Arc<Shared>,
    found: Found,
    reason: String,
    principal: &str,
    mut reporter: Reporter,
    turn: OwnedSemaphorePermit,
) {
    let id = Uuid::now_v7();
    report::erases(principal, id, found.events, &reason);
    let (log, retry_delay) = (shared.log.clone(), shared.options.retry_delay);
    let (parts, failed) = (reporter.parts.clone(), reporter.parts.clone());
    let work = move || {
        let (already, left_notices) = (found.already, found.left_notices);
        let erasure = Erasure { id, seqs: found.into_seqs(), reason };
        let done = log.erase(erasure, &mut |progress| reporter.report(convert::erasing(&progress)));
        // Who hears the end may order the next one.
        drop(turn);
        let last = match done {
            Ok(done) => {
                report::erased(&done);
                Ok(result(&done, already, left_notices))
            }
            Err(error) => {
                report::erase(&error);
                Err(status::erase(&error, retry_delay))
            }
        };
        // Nobody may be there any more.
        let _ = parts.blocking_send(last);
    };
    if let Err(error) = std::thread::Builder::new().name("erase".to_owned()).spawn(work) {
        report::backup(&error);
        let _ = failed.try_send(Err(status::no_thread()));
    }
}

/// What was found to be erased before, and what stays, is told with it.
fn result(done: &Erased, already: u64, left_notices: u64) -> pb::EraseProgress {
    let result = pb::EraseResult {
        erasure: done.id.to_string(),
        events: done.events,
        already: done.already + already,
        trimmed: done.trimmed,
        removed: done.removed,
        left_notices,
        notices: done.notices,
        segments: done.segments,
        cancelled: false,
    };
    pb::EraseProgress {
        phase: Phase::Done.into(),
        erasure: done.id.to_string(),
        events_done: done.events,
        events: done.events,
        segments_done: done.segments,
        segments: done.segments,
        selection: None,
        result: Some(result),
    }
}
