//! `Backup`: what a backup of the log is made of, read from its directory beside the writer.
//!
//! A thread of its own reads it as the command does that works offline, and waits while the client takes no
//! more: nothing of it is on the writer's way, and what waits is a few messages.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use crate::backup::{self, Error, Messages};
use crate::server::figures::OpenStream;
use crate::server::permits::StreamKind;
use crate::server::quotas::Peer;
use crate::server::rpc::status::{self, Failure};
use crate::server::rpc::{deadline, trace};
use crate::server::transport::ending::Endings;
use crate::server::{Shared, report};
use tailmark_wire::feed_v1 as pb;

/// Messages that wait for the client, of at most 64 KiB each.
const WAITING: usize = 4;

/// Begins one.
pub(crate) fn backup(
    shared: &Arc<Shared>,
    request: Request<pb::BackupRequest>,
) -> Result<Response<BackupStream>, Status> {
    let (metadata, extensions, message) = request.into_parts();
    let retry_delay = shared.options.retry_delay;
    if shared.stop.is_cancelled() {
        return Err(status::stopping(retry_delay).into());
    }
    let caller = shared.auth.caller(&extensions)?;
    caller.admin("backup")?;
    let dir = shared.options.data_dir.clone().ok_or_else(status::no_backups)?;
    let peer = extensions.get::<Peer>();
    let permit = shared.quotas.stream(StreamKind::Backup, peer, caller.name());
    let permit = permit.map_err(status::too_many)?;
    let deadline = deadline::of(&extensions);
    if deadline.is_some_and(|at| at <= Instant::now()) {
        return Err(status::deadline().into());
    }
    let span = tracing::info_span!(
        "backup",
        peer = peer.map(|peer| tracing::field::display(peer.address)),
        has = message.has.len() / 8,
        reason = tracing::field::Empty,
    );
    trace::adopt(&span, &metadata);
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
    Ok(Response::new(BackupStream {
        parts,
        bytes: 0,
        is_whole: false,
        is_over: false,
        endings: Endings::new(deadline, &shared.stop, caller),
        open: shared.figures.open("backup", None, &span),
        span,
        shared: Arc::clone(shared),
    }))
}

/// What one client gets.
pub(crate) struct BackupStream {
    parts: mpsc::Receiver<Result<pb::BackupPart, Failure>>,
    /// Of files, sent so far.
    bytes: u64,
    is_whole: bool,
    is_over: bool,
    endings: Endings,
    open: OpenStream,
    span: tracing::Span,
    shared: Arc<Shared>,
}

impl BackupStream {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<pb::BackupPart, Status>>> {
        if self.endings.poll_stop(cx).is_ready() {
            return self.fail("stopping", status::stopping(self.shared.options.retry_delay));
        }
        if self.endings.poll_deadline(cx).is_ready() {
            return self.fail("deadline", status::deadline());
        }
        if let Poll::Ready(failure) = self.endings.poll_revoked(cx) {
            return self.fail("token ended", failure);
        }
        match ready!(self.parts.poll_recv(cx)) {
            Some(Ok(part)) => {
                match &part.part {
                    Some(pb::backup_part::Part::Data(data)) => self.bytes += data.len() as u64,
                    Some(pb::backup_part::Part::End(_)) => self.is_whole = true,
                    _ => {}
                }
                Poll::Ready(Some(Ok(part)))
            }
            Some(Err(failure)) => self.fail("failed", failure),
            None if self.is_whole => {
                self.is_over = true;
                self.open.ends("done");
                Poll::Ready(None)
            }
            None => {
                report::defect("the thread that reads a backup ended without a word");
                self.fail("failed", status::internal())
            }
        }
    }

    fn fail(
        &mut self,
        reason: &'static str,
        failure: Failure,
    ) -> Poll<Option<Result<pb::BackupPart, Status>>> {
        self.is_over = true;
        self.open.ends(reason);
        Poll::Ready(Some(Err(failure.into())))
    }
}

impl Stream for BackupStream {
    type Item = Result<pb::BackupPart, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.is_over {
            return Poll::Ready(None);
        }
        this.poll(cx)
    }
}

impl Drop for BackupStream {
    fn drop(&mut self) {
        tracing::info!(
            parent: &self.span,
            bytes = self.bytes,
            seconds = self.open.age().as_secs_f64(),
            reason = self.open.reason(),
            "backup stream ended"
        );
    }
}
