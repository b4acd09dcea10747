//! `Erase`: takes what events said out of the log, for good.
//!
//! What is to go is found while its caller waits, and nothing is changed when he leaves before that is known.
//! From then on a thread carries it out, whoever listens; the log itself sees to it that it is finished.

mod carry_out;
mod select;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use futures_core::Stream;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tonic::{Request, Response, Status};

use self::carry_out::carry_out;
use self::select::{Found, Wanted};
use crate::server::figures::OpenStream;
use crate::server::quotas::Peer;
use crate::server::rpc::status::{self, Failure};
use crate::server::rpc::{deadline, trace};
use crate::server::transport::ending::Endings;
use crate::server::{Shared, report};
use pb::erase_progress::Phase;
use tailmark_wire::feed_v1 as pb;

/// Messages that wait for the client.
const WAITING: usize = 8;
/// How often it hears how far it is.
const REPORT_EVERY: Duration = Duration::from_millis(200);

/// Begins one.
pub(crate) fn erase(
    shared: &Arc<Shared>,
    request: Request<pb::EraseRequest>,
) -> Result<Response<EraseStream>, Status> {
    let (metadata, extensions, message) = request.into_parts();
    if shared.stop.is_cancelled() {
        return Err(status::stopping(shared.options.retry_delay).into());
    }
    let caller = shared.auth.caller(&extensions)?;
    caller.admin("erase")?;
    let wanted = Wanted::of(shared, &message)?;
    let deadline = deadline::of(&extensions);
    if deadline.is_some_and(|at| at <= tokio::time::Instant::now()) {
        return Err(status::deadline().into());
    }
    let turn = Arc::clone(&shared.erasing).try_acquire_owned();
    let running = shared.log.erasing().map(|progress| progress.id);
    let turn = match (turn, running) {
        (Ok(turn), None) => turn,
        (_, running) => return Err(status::erasure_running(running).into()),
    };
    let peer = extensions.get::<Peer>().map(|peer| tracing::field::display(peer.address));
    let span = tracing::info_span!(
        "erase",
        peer,
        dry_run = message.dry_run,
        reason = tracing::field::Empty,
    );
    trace::adopt(&span, &metadata);
    let (sender, parts) = mpsc::channel(WAITING);
    let is_dry_run = message.dry_run;
    let order = Order {
        wanted,
        reason: (!is_dry_run).then_some(message.reason),
        principal: caller.name().map_or_else(String::new, |name| name.to_string()),
        reporter: Reporter { parts: sender, last: None },
        turn,
    };
    tokio::spawn(order.work(Arc::clone(shared)));
    Ok(Response::new(EraseStream {
        parts,
        is_dry_run,
        is_whole: false,
        is_over: false,
        endings: Endings::new(deadline, &shared.stop, caller),
        open: shared.figures.open("erase", None, &span),
        retry_delay: shared.options.retry_delay,
    }))
}

/// What somebody ordered.
struct Order {
    wanted: Wanted,
    /// Absent in a dry run.
    reason: Option<String>,
    principal: String,
    reporter: Reporter,
    /// One at a time.
    turn: OwnedSemaphorePermit,
}

impl Order {
    async fn work(self, shared: Arc<Shared>) {
        let Order { wanted, reason, principal, mut reporter, turn } = self;
        let listener = reporter.parts.clone();
        let mut report_progress = |done, all| {
            let phase = Phase::Selecting.into();
            let progress =
                pb::EraseProgress { phase, events_done: done, events: all, ..Default::default() };
            reporter.report(progress);
        };
        let found = tokio::select! {
            // Nobody waits for it: nothing is to be changed.
            () = listener.closed() => return,
            () = shared.stop.cancelled() => return,
            found = wanted.find(&shared, &mut report_progress) => found,
        };
        let found = match found {
            Ok(found) => found,
            Err(failure) => {
                drop(turn);
                let _ = listener.send(Err(failure)).await;
                return;
            }
        };
        let selection = pb::EraseProgress {
            phase: Phase::Selecting.into(),
            events_done: found.events,
            events: found.events,
            selection: Some(found.summary()),
            ..Default::default()
        };
        let Some(reason) = reason else {
            drop(turn);
            let _ = listener.send(Ok(selection)).await;
            return;
        };
        if listener.send(Ok(selection)).await.is_err() {
            return;
        }
        if found.is_empty() {
            drop(turn);
            let _ = listener.send(Ok(nothing(&found))).await;
            return;
        }
        carry_out(&shared, found, reason, &principal, reporter, turn);
    }
}

/// What it comes to where nothing was found.
fn nothing(found: &Found) -> pb::EraseProgress {
    let result = pb::EraseResult {
        already: found.already,
        trimmed: found.trimmed,
        ..pb::EraseResult::default()
    };
    pb::EraseProgress { phase: Phase::Done.into(), result: Some(result), ..Default::default() }
}

/// Reports now and then how far it is, and waits for nobody.
struct Reporter {
    parts: mpsc::Sender<Result<pb::EraseProgress, Failure>>,
    last: Option<(i32, Instant)>,
}

impl Reporter {
    fn report(&mut self, progress: pb::EraseProgress) {
        let is_due = self
            .last
            .is_none_or(|(phase, at)| phase != progress.phase || at.elapsed() >= REPORT_EVERY);
        // The last places are for what has to come.
        if is_due && self.parts.capacity() > WAITING / 2 {
            self.last = Some((progress.phase, Instant::now()));
            let _ = self.parts.try_send(Ok(progress));
        }
    }
}

/// What one client hears.
pub(crate) struct EraseStream {
    parts: mpsc::Receiver<Result<pb::EraseProgress, Failure>>,
    is_dry_run: bool,
    is_whole: bool,
    is_over: bool,
    endings: Endings,
    open: OpenStream,
    retry_delay: Duration,
}

impl EraseStream {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<pb::EraseProgress, Status>>> {
        if self.endings.poll_stop(cx).is_ready() {
            return self.fail("stopping", status::stopping(self.retry_delay));
        }
        if self.endings.poll_deadline(cx).is_ready() {
            return self.fail("deadline", status::deadline());
        }
        if let Poll::Ready(failure) = self.endings.poll_revoked(cx) {
            return self.fail("token ended", failure);
        }
        match ready!(self.parts.poll_recv(cx)) {
            Some(Ok(part)) => {
                self.is_whole =
                    part.result.is_some() || self.is_dry_run && part.selection.is_some();
                Poll::Ready(Some(Ok(part)))
            }
            Some(Err(failure)) => self.fail("failed", failure),
            None if self.is_whole => {
                self.is_over = true;
                self.open.ends("done");
                Poll::Ready(None)
            }
            None => {
                report::defect("an erasure ended without a word");
                self.fail("failed", status::internal())
            }
        }
    }

    fn fail(
        &mut self,
        reason: &'static str,
        failure: Failure,
    ) -> Poll<Option<Result<pb::EraseProgress, Status>>> {
        self.is_over = true;
        self.open.ends(reason);
        Poll::Ready(Some(Err(failure.into())))
    }
}

impl Stream for EraseStream {
    type Item = Result<pb::EraseProgress, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.is_over { Poll::Ready(None) } else { this.poll(cx) }
    }
}
