//! `Erase`: takes what events said out of the log, for good.
//!
//! What is to go is found while its caller waits, and nothing is changed when he leaves before that is known.
//! From then on a thread carries it out, whoever listens; the log itself sees to it that it is finished.

mod cancel;
mod carry_out;
mod select;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tonic::{Request, Response, Status};

use self::carry_out::carry_out;
use self::select::{Found, Wanted};
use crate::server::Shared;
use crate::server::asked::{Asked, Part, PartStream};
use crate::server::rpc::status;
use pb::erase_progress::Phase;
use tailmark_wire::feed_v1 as pb;

/// Messages that wait for the client.
const WAITING: usize = 8;
/// How often it hears how far it is.
const REPORT_EVERY: Duration = Duration::from_millis(200);

/// What one client hears.
pub(crate) type EraseStream = PartStream<pb::EraseProgress>;

/// Begins one.
pub(crate) fn erase(
    shared: &Arc<Shared>,
    request: Request<pb::EraseRequest>,
) -> Result<Response<EraseStream>, Status> {
    let (asked, message) = Asked::new(shared, request, "erase")?;
    if !message.cancel.is_empty() {
        return cancel::cancel(shared, asked, &message);
    }
    let wanted = Wanted::of(shared, &message)?;
    let turn = turn(shared, message.dry_run)?;
    let span = tracing::info_span!(
        "erase",
        peer = asked.peer.as_ref().map(|peer| tracing::field::display(peer.address)),
        dry_run = message.dry_run,
        reason = tracing::field::Empty,
    );
    let (sender, parts) = mpsc::channel(WAITING);
    let is_dry_run = message.dry_run;
    let order = Order {
        wanted,
        reason: (!is_dry_run).then_some(message.reason),
        principal: asked.caller.name().map_or_else(String::new, |name| name.to_string()),
        reporter: Reporter { parts: sender, last: None },
        turn,
    };
    tokio::spawn(order.work(Arc::clone(shared)));
    let is_last = move |part: &pb::EraseProgress| {
        part.result.is_some() || is_dry_run && part.selection.is_some()
    };
    Ok(Response::new(asked.answered(shared, "erase", &span, parts, is_last)))
}

/// One erasure at a time, and none while another is not through. A dry run changes nothing: it has a turn of its own.
fn turn(shared: &Shared, is_dry_run: bool) -> Result<OwnedSemaphorePermit, Status> {
    if is_dry_run {
        let turn = Arc::clone(&shared.dry_runs).try_acquire_owned();
        return turn.map_err(|_| status::over_limit("dry_runs", 1, 2).into());
    }
    let turn = Arc::clone(&shared.erasing).try_acquire_owned();
    match (turn, shared.log.erasing().map(|progress| progress.id)) {
        (Ok(turn), None) => Ok(turn),
        (_, running) => Err(status::erasure_running(running).into()),
    }
}

/// What somebody ordered.
struct Order {
    wanted: Wanted,
    /// Absent in a dry run.
    reason: Option<String>,
    principal: String,
    reporter: Reporter,
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
        removed: found.removed,
        left_notices: found.left_notices,
        ..pb::EraseResult::default()
    };
    pb::EraseProgress { phase: Phase::Done.into(), result: Some(result), ..Default::default() }
}

/// Reports now and then how far it is, and waits for nobody.
struct Reporter {
    parts: mpsc::Sender<Part<pb::EraseProgress>>,
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
