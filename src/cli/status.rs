//! `tailmark status`.

use super::output::{events_text, human_bytes, print_json, print_line};
use super::{Failure, ahead, erase, journal, retention};
use crate::escape;
use tailmark_client::Client;
use tailmark_record::units;
use tailmark_wire::feed_v1 as pb;
use tailmark_wire::json::{self, uptime};
use tailmark_wire::values::from_timestamp;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print one JSON object, with the limits in force
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: Args, client: Client) -> Result<(), Failure> {
    let status = client.log().await?;
    if args.json { print_json(&json::log_status(&status)) } else { print_line(&text(&status)) }
}

fn text(status: &pb::LogStatus) -> String {
    let at = |t: Option<prost_types::Timestamp>| {
        t.map(|t| format!(" ({})", from_timestamp(t))).unwrap_or_default()
    };
    let span = status.head_seq.saturating_add(1).saturating_sub(status.oldest_seq);
    let readable = span.saturating_sub(status.removed_events);
    let mut lines = vec![
        ("log", status.log_id.clone()),
        ("oldest", format!("{}{}", status.oldest_seq, at(status.oldest_time))),
        ("head", format!("{}{}", status.head_seq, at(status.head_time))),
        ("readable", events_text(readable)),
        ("head cursor", status.head_cursor.clone()),
    ];
    // Told only to who may administer.
    if (status.disk_bytes, status.segments, status.watches) != (0, 0, 0) {
        lines.extend([
            ("on disk", human_bytes(status.disk_bytes)),
            ("segments", status.segments.to_string()),
            ("watches", status.watches.to_string()),
        ]);
    }
    if let Some(generation) = &status.generation {
        let since = generation.since.map(|t| format!(" {}", from_timestamp(t))).unwrap_or_default();
        lines.push(("generation", format!("{} ({}{since})", generation.counter, generation.cause)));
    }
    if let Some(journal) = &status.journal {
        lines.extend(journal::summary(journal));
    }
    if let Some(uptime) = uptime(status) {
        let seconds = std::time::Duration::from_secs(uptime.as_secs());
        lines.push(("up", units::duration_text(seconds)));
    }
    if let Some(ahead) = ahead::of_head(status) {
        lines.push(("clock", ahead));
    }
    if let Some(erasing) = &status.erasing {
        lines.push(("erasing", erase::progress_text(erasing)));
    }
    if let Some(state) = &status.retention {
        lines.push(("retention", retention::summary(state)));
    }
    lines.push(("version", status.version.clone()));
    for consumer in &status.consumers {
        lines.push(("consumer", consumer_text(consumer)));
    }
    let lines: Vec<_> =
        lines.iter().map(|(name, value)| format!("{name:12} {}", escape::line(value))).collect();
    lines.join("\n")
}

fn consumer_text(consumer: &pb::Consumer) -> String {
    let pb::Consumer { name, watches, delivered, lag_events, idle, events_per_second } = consumer;
    // What has come since it left is counted whether it concerns it or not.
    let most = if *watches == 0 && *lag_events > 0 { "up to " } else { "" };
    let watches = match watches {
        0 => "gone".to_owned(),
        1 => "1 watch".to_owned(),
        more => format!("{more} watches"),
    };
    let idle = idle.and_then(|idle| u64::try_from(idle.seconds).ok()).unwrap_or_default();
    let idle = units::duration_text(std::time::Duration::from_secs(idle));
    let rest = match delivered {
        0 => format!("none done yet, for {idle}"),
        _ => format!("{} done, the last {idle} ago", events_text(*delivered)),
    };
    format!("{name}: {watches}, {most}{lag_events} behind, {events_per_second:.1} a second, {rest}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use tailmark_record::Timestamp;

    #[test]
    fn what_the_server_does_not_tell_is_not_shown_as_nothing() {
        assert!(!text(&pb::LogStatus::default()).contains("on disk"));
        let told = pb::LogStatus { disk_bytes: 1 << 20, ..pb::LogStatus::default() };
        assert!(text(&told).contains("on disk      1.00 MiB") && text(&told).contains("segments"));
    }

    #[test]
    fn a_head_that_is_stamped_ahead_is_told() {
        let text_at = |seconds| {
            let head_time = Some(prost_types::Timestamp { seconds, nanos: 0 });
            text(&pb::LogStatus { head_time, head_seq: 1, ..pb::LogStatus::default() })
        };
        let now = Timestamp::now().seconds;
        assert!(!text_at(now).contains("clock"));
        assert!(text_at(now + 3_600).contains("clock        the head is stamped ahead"));
        assert!(
            text_at(i64::MAX).contains("stamped ahead") && !text_at(i64::MIN).contains("ahead")
        );
    }
}
