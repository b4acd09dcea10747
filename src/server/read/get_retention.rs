//! `GetRetention`: what is removed by itself, and in a dry run what would be.
//!
//! A dry run reads every event of its topics, on a thread of its own, for as long as its caller listens. One at
//! a time, for all callers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tonic::{Request, Response, Status};

use crate::server::asked::{Asked, Part, PartStream};
use crate::server::rpc::retention;
use crate::server::rpc::status::{self, Failure, LogFacts};
use crate::server::{Shared, report};
use tailmark_log::eventlog::{EventLog, ReadError, TopicPass, TopicRules};
use tailmark_wire::feed_v1 as pb;

/// Messages that wait for the client.
const WAITING: usize = 8;
/// How often it hears how far a dry run is.
const REPORT_EVERY: Duration = Duration::from_millis(200);

/// What one client hears.
pub(crate) type RetentionStream = PartStream<pb::RetentionReport>;

/// Begins one.
pub(crate) fn get_retention(
    shared: &Arc<Shared>,
    request: Request<pb::GetRetentionRequest>,
) -> Result<Response<RetentionStream>, Status> {
    let (asked, message) = Asked::new(shared, request, "retention")?;
    let wanted = match (&message.rules, message.dry_run) {
        (Some(_), false) => {
            return Err(status::bad_field("rules", "goes with dry_run").into());
        }
        (rules, _) => rules.as_ref(),
    };
    let log = &shared.log;
    let wanted = wanted.map(|rules| retention::rules(rules, log.limits())).transpose()?;
    let rules = wanted.map_or_else(|| log.topic_retention().rules, Arc::new);
    let span = tracing::info_span!(
        "retention",
        peer = asked.peer.as_ref().map(|peer| tracing::field::display(peer.address)),
        dry_run = message.dry_run,
        reason = tracing::field::Empty,
    );
    let (sender, parts) = mpsc::channel(WAITING);
    if message.dry_run {
        look(shared, rules, sender)?;
    } else {
        // There is room for it, and it is all.
        let _ = sender.try_send(Ok(report(log, &rules, None)));
    }
    let is_last = |part: &pb::RetentionReport| part.retention.is_some();
    Ok(Response::new(asked.answered(shared, "retention", &span, parts, is_last)))
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
    parts: mpsc::Sender<Part<pb::RetentionReport>>,
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
            // Or nobody listens any more.
            Err(ReadError::Closing) => Err(status::stopping(retry_delay)),
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
