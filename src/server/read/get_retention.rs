//! `GetRetention`: what is removed by itself, and in a dry run what would be.
//!
//! A dry run reads every event of its topics, on a thread of its own, for as long as its caller listens. One at
//! a time, for all callers.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use futures_core::Stream;
use tokio::sync::mpsc;
use tonic::{Request, Response, Status};

use crate::server::figures::OpenStream;
use crate::server::quotas::Peer;
use crate::server::rpc::status::{self, Failure, LogFacts};
use crate::server::rpc::{deadline, retention, trace};
use crate::server::transport::ending::Endings;
use crate::server::{Shared, report};
use tailmark_log::eventlog::{EventLog, ReadError, TopicPass, TopicRules};
use tailmark_wire::feed_v1 as pb;

/// Messages that wait for the client.
const WAITING: usize = 8;
/// How often it hears how far a dry run is.
const REPORT_EVERY: Duration = Duration::from_millis(200);

type Part = Result<pb::RetentionReport, Failure>;

/// Begins one.
pub(crate) fn get_retention(
    shared: &Arc<Shared>,
    request: Request<pb::GetRetentionRequest>,
) -> Result<Response<RetentionStream>, Status> {
    let (metadata, extensions, message) = request.into_parts();
    let retry_delay = shared.options.retry_delay;
    if shared.stop.is_cancelled() {
        return Err(status::stopping(retry_delay).into());
    }
    let caller = shared.auth.caller(&extensions)?;
    caller.admin("retention")?;
    let asked = match (&message.rules, message.dry_run) {
        (Some(_), false) => {
            return Err(status::bad_field("rules", "goes with dry_run").into());
        }
        (rules, _) => rules.as_ref(),
    };
    let log = &shared.log;
    let asked = asked.map(|asked| retention::rules(asked, log.limits())).transpose()?;
    let rules = asked.map_or_else(|| log.topic_retention().rules, Arc::new);
    let deadline = deadline::of(&extensions);
    if deadline.is_some_and(|at| at <= tokio::time::Instant::now()) {
        return Err(status::deadline().into());
    }
    let peer = extensions.get::<Peer>().map(|peer| tracing::field::display(peer.address));
    let span = tracing::info_span!(
        "retention",
        peer,
        dry_run = message.dry_run,
        reason = tracing::field::Empty,
    );
    trace::adopt(&span, &metadata);
    let (sender, parts) = mpsc::channel(WAITING);
    if message.dry_run {
        look(shared, rules, sender)?;
    } else {
        // There is room for it, and it is all.
        let _ = sender.try_send(Ok(report(log, &rules, None)));
    }
    Ok(Response::new(RetentionStream {
        parts,
        is_whole: false,
        is_over: false,
        endings: Endings::new(deadline, &shared.stop, caller),
        open: shared.figures.open("retention", None, &span),
        retry_delay,
    }))
}

/// The last message.
fn report(log: &EventLog, rules: &TopicRules, found: Option<&TopicPass>) -> pb::RetentionReport {
    let told = retention::retention(&log.retention(), rules, &log.topic_retention());
    let told = pb::Retention { dry_run: found.map(retention::pass), ..told };
    pb::RetentionReport { looked: 0.0, retention: Some(told) }
}

/// Starts a dry run, if none is under way.
fn look(
    shared: &Arc<Shared>,
    rules: Arc<TopicRules>,
    parts: mpsc::Sender<Part>,
) -> Result<(), Failure> {
    let turn = Arc::clone(&shared.dry_runs).try_acquire_owned();
    let turn = turn.map_err(|_| status::over_limit("dry_runs", 1, 2))?;
    let (log, stop) = (shared.log.clone(), shared.stop.clone());
    let retry_delay = shared.options.retry_delay;
    let looks = move || {
        let mut told = Instant::now();
        let mut goes_on = |looked: f64| {
            // The last places are for what has to come.
            if told.elapsed() >= REPORT_EVERY && parts.capacity() > WAITING / 2 {
                told = Instant::now();
                let _ = parts.try_send(Ok(pb::RetentionReport { looked, retention: None }));
            }
            !parts.is_closed() && !stop.is_cancelled()
        };
        let found = log.preview_topic_retention(&rules, &mut goes_on);
        drop(turn);
        let last = match found {
            Ok(found) => Ok(report(&log, &rules, Some(&found))),
            // Nobody listens, or is told by the stream itself.
            Err(ReadError::Closing) => return,
            Err(error) => {
                report::read(&error);
                Err(status::read(&error, &LogFacts::at_hand(&log), retry_delay))
            }
        };
        let _ = parts.blocking_send(last);
    };
    let spawned = std::thread::Builder::new().name("dry-run".to_owned()).spawn(looks);
    spawned.map(drop).map_err(|error| {
        report::dry_run(&error);
        status::no_thread()
    })
}

/// What one client hears.
pub(crate) struct RetentionStream {
    parts: mpsc::Receiver<Part>,
    is_whole: bool,
    is_over: bool,
    endings: Endings,
    open: OpenStream,
    retry_delay: Duration,
}

impl RetentionStream {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<<Self as Stream>::Item>> {
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
                self.is_whole = part.retention.is_some();
                Poll::Ready(Some(Ok(part)))
            }
            Some(Err(failure)) => self.fail("failed", failure),
            None if self.is_whole => {
                self.is_over = true;
                self.open.ends("done");
                Poll::Ready(None)
            }
            // The log closes.
            None => self.fail("stopping", status::stopping(self.retry_delay)),
        }
    }

    fn fail(
        &mut self,
        reason: &'static str,
        failure: Failure,
    ) -> Poll<Option<<Self as Stream>::Item>> {
        self.is_over = true;
        self.open.ends(reason);
        Poll::Ready(Some(Err(failure.into())))
    }
}

impl Stream for RetentionStream {
    type Item = Result<pb::RetentionReport, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.is_over { Poll::Ready(None) } else { this.poll(cx) }
    }
}
