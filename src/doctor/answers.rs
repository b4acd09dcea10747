//! What the calls say: who one is, what one may, and whether streams flow.

use std::time::{Duration, Instant};

use tailmark_client::{Client, Error, Item, Kind, MarkerKind, Start, WatchOptions};
use tokio::time::timeout;
use tokio_stream::StreamExt;

use super::{Hints, PATIENCE, Report, Step, Verdict};

/// Of a token, or none where none is asked for.
const TAKEN: &str = "the server takes us as we come";
/// How often the stream must show that it lives.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// Makes them.
pub(super) async fn calls<T: FnMut(Step)>(client: &Client, hints: &Hints, report: &mut Report<T>) {
    let begun = Instant::now();
    let answer = client.log().await;
    let ms = begun.elapsed().as_secs_f64() * 1e3;
    let status = match answer {
        Ok(status) => status,
        Err(error) => {
            refused(&error, hints, ms, report);
            return;
        }
    };
    let text = format!("log {}, head {}, answered in {ms:.1} ms", status.log_id, status.head_seq);
    let step = Step::new("grpc", Verdict::Ok, text).fact("ms", ms);
    report.tell(step.fact("log_id", status.log_id).fact("head_seq", status.head_seq.to_string()));
    report.tell(Step::new("token", Verdict::Ok, TAKEN));
    report.tell(Step::new("rights", Verdict::Ok, "the log's status may be seen"));
    report.tell(stream(client, hints).await);
    report.tell(version(&status.version));
}

/// Tells what is in the way of a call.
fn refused<T: FnMut(Step)>(error: &Error, hints: &Hints, ms: f64, report: &mut Report<T>) {
    let is_answer = error.kind() == Kind::Denied && !error.is_foreign();
    let name = match error.code() {
        _ if !is_answer => "grpc",
        "UNAUTHENTICATED" => "token",
        _ => "rights",
    };
    if is_answer {
        let text = format!("the server answers in {ms:.1} ms");
        report.tell(Step::new("grpc", Verdict::Ok, text).fact("ms", ms));
    }
    if name == "rights" {
        report.tell(Step::new("token", Verdict::Ok, TAKEN));
    }
    report.tell(failed(name, error, hints));
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
async fn stream(client: &Client, hints: &Hints) -> Step {
    let mut options = WatchOptions::default();
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
        Ok(Err(error)) if error.kind() == Kind::Denied && !error.is_foreign() => {
            let text = "not everything may be watched with these rights, so no stream was opened";
            Step::new("stream", Verdict::Skipped, text)
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
