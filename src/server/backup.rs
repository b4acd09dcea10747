//! `Backup`: what a backup of the log is made of, read from its directory beside the writer.
//!
//! A thread of its own reads it as the command does that works offline, and waits while the client takes no
//! more: nothing of it is on the writer's way, and what waits is a few messages.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use tokio::sync::mpsc;
use tonic::{Request, Response, Status};

use crate::backup::{self, Error, Messages};
use crate::server::asked::{Asked, PartStream};
use crate::server::permits::StreamKind;
use crate::server::rpc::status;
use crate::server::{Shared, report};
use tailmark_wire::feed_v1 as pb;

/// Messages that wait for the client, of at most 64 KiB each.
const WAITING: usize = 4;

/// Begins one.
pub(crate) fn backup(
    shared: &Arc<Shared>,
    request: Request<pb::BackupRequest>,
) -> Result<Response<BackupStream>, Status> {
    let (asked, message) = Asked::new(shared, request, "backup")?;
    let retry_delay = shared.options.retry_delay;
    let dir = shared.options.data_dir.clone().ok_or_else(status::no_backups)?;
    let permit = shared.quotas.stream(StreamKind::Backup, asked.peer.as_ref(), asked.caller.name());
    let permit = permit.map_err(status::too_many)?;
    let span = tracing::info_span!(
        "backup",
        peer = asked.peer.as_ref().map(|peer| tracing::field::display(peer.address)),
        has = message.has.len() / 8,
        reason = tracing::field::Empty,
    );
    let (sender, parts) = mpsc::channel(WAITING);
    let send = sender.clone();
    let mut messages =
        Messages::new(&message, move |part| send.blocking_send(Ok(part)).map_err(|_| Error::Gone))
            .map_err(|error| status::backup_refused(&error))?;
    let reads = move || {
        let read = backup::read(&dir, &mut messages);
        if let Err(error) = read.as_ref()
            && !matches!(error, Error::Gone)
        {
            report::backup(error);
            // Nobody may be there any more.
            let _ = sender.blocking_send(Err(status::backup(error, retry_delay)));
        }
        drop(permit);
    };
    let spawned = std::thread::Builder::new().name("backup".to_owned()).spawn(reads);
    spawned.map_err(|error| {
        report::backup(&error);
        status::no_thread()
    })?;
    let is_last = |part: &pb::BackupPart| matches!(part.part, Some(pb::backup_part::Part::End(_)));
    let parts = asked.answered(shared, "backup", &span, parts, is_last);
    Ok(Response::new(BackupStream { parts, bytes: 0, span }))
}

/// What one client gets.
pub(crate) struct BackupStream {
    parts: PartStream<pb::BackupPart>,
    /// Of files, sent so far.
    bytes: u64,
    span: tracing::Span,
}

impl Stream for BackupStream {
    type Item = Result<pb::BackupPart, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let part = ready!(Pin::new(&mut self.parts).poll_next(cx));
        if let Some(Ok(part)) = &part
            && let Some(pb::backup_part::Part::Data(data)) = &part.part
        {
            self.bytes += data.len() as u64;
        }
        Poll::Ready(part)
    }
}

impl Drop for BackupStream {
    fn drop(&mut self) {
        tracing::info!(
            parent: &self.span,
            bytes = self.bytes,
            seconds = self.parts.open().age().as_secs_f64(),
            reason = self.parts.open().reason(),
            "backup stream ended"
        );
    }
}
