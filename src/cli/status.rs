//! `tailmark status`.

use super::Failure;
use super::output::{events_text, print_bytes, print_line, printable};
use super::publish::{durability, time};
use crate::client::Client;
use crate::record::json::{Object, duration_text};
use crate::units;
use crate::wire::feed_v1 as pb;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print one JSON object, with the limits in force
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: Args, client: Client) -> Result<(), Failure> {
    let status = client.log().await?;
    if args.json { print_bytes(&json(&status)) } else { print_line(&text(&status)) }
}

fn uptime(status: &pb::LogStatus) -> Option<std::time::Duration> {
    status.uptime.and_then(|uptime| uptime.try_into().ok())
}

fn text(status: &pb::LogStatus) -> String {
    let at = |t: Option<prost_types::Timestamp>| {
        t.map(|t| format!(" ({})", time(t))).unwrap_or_default()
    };
    let readable = status.head_seq.saturating_add(1).saturating_sub(status.oldest_seq);
    let mut lines = vec![
        ("log", status.log_id.clone()),
        ("oldest", format!("{}{}", status.oldest_seq, at(status.oldest_time))),
        ("head", format!("{}{}", status.head_seq, at(status.head_time))),
        ("readable", events_text(readable)),
        ("head cursor", status.head_cursor.clone()),
        ("on disk", human_bytes(status.disk_bytes)),
        ("segments", status.segments.to_string()),
        ("watches", status.watches.to_string()),
    ];
    if let Some(generation) = &status.generation {
        let since = generation.since.map(|t| format!(" {}", time(t))).unwrap_or_default();
        lines.push(("generation", format!("{} ({}{since})", generation.counter, generation.cause)));
    }
    if let Some(uptime) = uptime(status) {
        let seconds = std::time::Duration::from_secs(uptime.as_secs());
        lines.push(("up", units::duration_text(seconds)));
    }
    lines.push(("version", status.version.clone()));
    let lines: Vec<_> =
        lines.iter().map(|(name, value)| format!("{name:12} {}", printable(value))).collect();
    lines.join("\n")
}

/// Three digits are enough for people.
pub(super) fn human_bytes(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}

fn json(status: &pb::LogStatus) -> Vec<u8> {
    let mut out = Vec::new();
    let mut object = Object::open(&mut out);
    object.text("log_id", &status.log_id);
    if let Some(generation) = &status.generation {
        object.object("generation", |object| {
            object.unsigned("counter", generation.counter);
            object.unsigned("nonce", generation.nonce);
            object.number("first_seq", generation.first_seq);
            object.time("since", generation.since.map(time));
            object.text("cause", &generation.cause);
        });
    }
    object.number("oldest_seq", status.oldest_seq);
    object.number("head_seq", status.head_seq);
    object.time("oldest_time", status.oldest_time.map(time));
    object.text("head_cursor", &status.head_cursor);
    if let Some(limits) = &status.limits {
        object.object("limits", |object| write_limits(object, limits));
    }
    object.text("version", &status.version);
    object.texts("capabilities", &status.capabilities);
    object.text("durability", durability(status.durability));
    object.time("head_time", status.head_time.map(time));
    object.number("disk_bytes", status.disk_bytes);
    object.number("segments", status.segments);
    object.number("watches", status.watches);
    if let Some(uptime) = uptime(status) {
        object.text("uptime", &duration_text(uptime));
    }
    object.close();
    out
}

fn write_limits(object: &mut Object<'_>, limits: &pb::Limits) {
    object.number("message_bytes", limits.message_bytes);
    object.number("event_bytes", limits.event_bytes);
    object.number("batch_events", limits.batch_events);
    object.number("batch_bytes", limits.batch_bytes);
    object.number("topic_bytes", limits.topic_bytes);
    object.number("topic_segments", limits.topic_segments);
    object.number("name_bytes", limits.name_bytes);
    object.number("headers", limits.headers);
    object.number("header_bytes", limits.header_bytes);
    object.number("patterns_per_watch", limits.patterns_per_watch);
    object.number("watches_per_connection", limits.watches_per_connection);
    object.number("watches", limits.watches);
    object.number("connections", limits.connections);
    object.number("dedup_window", limits.dedup_window);
}
