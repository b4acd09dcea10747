//! What the calls say: who one is, what one may, and whether streams flow.

use std::time::{Duration, Instant};

use tailmark_client::{Client, Error, Item, Kind, MarkerKind, Start, WatchOptions};
use tailmark_wire::feed_v1 as pb;
use tailmark_wire::values::from_timestamp;
use tokio::time::timeout;
use tokio_stream::StreamExt;

use super::{Hints, PATIENCE, Report, Step, Verdict};

/// How often the stream must show that it lives.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Of those that may be watched: one is enough to see whether streams flow.
const PATTERNS: usize = 1;

/// Makes them.
pub(super) async fn calls<T: FnMut(Step)>(client: &Client, hints: &Hints, report: &mut Report<T>) {
    let begun = Instant::now();
    let principal = client.principal().await;
    let ms = begun.elapsed().as_secs_f64() * 1e3;
    let answers = Step::new("grpc", Verdict::Ok, format!("the server answers in {ms:.1} ms"));
    let answers = answers.fact("ms", ms);
    let principal = match principal {
        Ok(principal) => principal,
        Err(error) if is_refusal(&error) => {
            report.tell(answers);
            report.tell(failed("token", &error, hints));
            return;
        }
        // One that is older knows no such call, and nobody by name.
        Err(error) if error.kind() == Kind::Unsupported && !error.is_foreign() => {
            pb::Principal::default()
        }
        Err(error) => {
            report.tell(failed("grpc", &error, hints));
            return;
        }
    };
    let log = client.log().await;
    report.tell(match &log {
        Ok(log) => Step {
            text: format!("{}; log {}, head {}", answers.text, log.log_id, log.head_seq),
            ..answers.fact("log_id", log.log_id.as_str()).fact("head_seq", log.head_seq.to_string())
        },
        Err(_) => answers,
    });
    report.tell(token(&principal));
    report.tell(rights(&principal));
    if let Err(error) = &log
        && !is_refusal(error)
    {
        report.tell(failed("stream", error, hints));
        return;
    }
    report.tell(stream(client, &principal, hints).await);
    if let Ok(log) = &log {
        report.tell(version(&log.version));
    }
}

/// Whether the server itself has refused.
fn is_refusal(error: &Error) -> bool {
    error.kind() == Kind::Denied && !error.is_foreign()
}

fn token(principal: &pb::Principal) -> Step {
    if principal.name.is_empty() {
        return Step::new("token", Verdict::Ok, "the server asks nobody who they are");
    }
    let until = principal.expires.map(|at| from_timestamp(at).to_string());
    let text = match &until {
        Some(until) => format!("the server takes us for {}, until {until}", principal.name),
        None => format!("the server takes us for {}", principal.name),
    };
    let step = Step::new("token", Verdict::Ok, text);
    step.fact("principal", principal.name.as_str()).fact("expires", until)
}

fn rights(principal: &pb::Principal) -> Step {
    if principal.name.is_empty() {
        return Step::new("rights", Verdict::Ok, "everybody may do everything");
    }
    let list = |patterns: &[String]| match patterns {
        [] => "nothing".to_owned(),
        patterns => patterns.join(" "),
    };
    let (watch, publish) = (list(&principal.watch), list(&principal.publish));
    let admin = if principal.admin { ", and administer" } else { "" };
    let is_any = principal.admin || !principal.watch.is_empty() || !principal.publish.is_empty();
    let verdict = if is_any { Verdict::Ok } else { Verdict::Failure };
    let step = Step::new("rights", verdict, format!("may watch {watch}, publish {publish}{admin}"));
    let step =
        step.fact("watch", principal.watch.clone()).fact("publish", principal.publish.clone());
    let step = step.fact("admin", principal.admin);
    if is_any { step } else { step.hint("`tailmark token create` on the server gives rights") }
}

fn failed(name: &'static str, error: &Error, hints: &Hints) -> Step {
    let step = Step::new(name, Verdict::Failure, error.to_string());
    let step = step.fact("code", error.code()).fact("reason", error.reason());
    let step = step.fact("http_status", error.http_status());
    match (hints.of_error)(error) {
        Some(hint) => step.hint(hint),
        None => step,
    }
}

/// A watch of nothing but its own signs of life: what lies between may keep answers back.
async fn stream(client: &Client, principal: &pb::Principal, hints: &Hints) -> Step {
    let mut options = WatchOptions::default();
    if !principal.name.is_empty() && !principal.admin {
        options.patterns = principal.watch.iter().take(PATTERNS).cloned().collect();
        if options.patterns.is_empty() {
            return Step::new("stream", Verdict::Skipped, "nothing may be watched");
        }
    }
    (options.start, options.markers, options.heartbeat) = (Start::Latest, true, HEARTBEAT);
    let mut watch = client.watch(options);
    let mut kinds = Vec::new();
    let begun = Instant::now();
    let live = async {
        while let Some(item) = watch.next().await {
            match item {
                Ok(Item::Marker(marker)) => kinds.push(marker.kind),
                // Whoever writes meanwhile is as good a sign.
                Ok(Item::Event(_)) => kinds.push(MarkerKind::Heartbeat),
                Ok(Item::Interrupted { cause, .. }) | Err(cause) => return Err(cause),
                Ok(_) => {}
            }
            if kinds.contains(&MarkerKind::Resumed) && kinds.contains(&MarkerKind::Heartbeat) {
                break;
            }
        }
        Ok(())
    };
    match timeout(PATIENCE, live).await {
        Ok(Ok(())) => {
            let ms = begun.elapsed().as_secs_f64() * 1e3;
            Step::new("stream", Verdict::Ok, "a watch shows signs of life").fact("ms", ms)
        }
        Ok(Err(error)) => failed("stream", &error, hints),
        Err(_) => {
            let text = format!("a watch shows no sign of life within {} s", PATIENCE.as_secs());
            Step::new("stream", Verdict::Failure, text)
                .hint("a proxy keeps answers back (nginx: proxy_buffering off); docs/http.md")
        }
    }
}

fn version(theirs: &str) -> Step {
    let ours = env!("CARGO_PKG_VERSION");
    let step = if theirs == ours {
        Step::new("version", Verdict::Ok, format!("both are {ours}"))
    } else {
        let text = format!("the server is {theirs}, this program is {ours}");
        Step::new("version", Verdict::Warning, text)
            .hint("it works, but one knows more than the other")
    };
    step.fact("server", theirs).fact("client", ours)
}
