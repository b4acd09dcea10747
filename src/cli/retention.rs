//! `tailmark retention show`.

use std::path::PathBuf;

use super::online::Online;
use super::output::{count_text, events_text, human_bytes, print_json, print_line};
use super::signals::Stop;
use super::{Exit, Failure, progress};
use crate::config::{Keep, Sources, TopicRetention};
use crate::escape;
use tailmark_client::{Client, Error, Kind};
use tailmark_record::units;
use tailmark_wire::feed_v1 as pb;
use tailmark_wire::json;
use tailmark_wire::values::{duration, from_timestamp};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Show the limits, the rules for topics, and what came of them
    Show(Online<Show>),
}

#[derive(Debug, clap::Args)]
pub(super) struct Show {
    /// Also say what each rule would remove if all that is dead went now; reads every event of its topics,
    /// and changes nothing
    #[arg(long)]
    dry_run: bool,
    /// In place of the rules in force, those of this file of settings: to see what they would do
    #[arg(long, value_name = "FILE", requires = "dry_run")]
    config: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Show(online) => online.run(show),
    }
}

async fn show(args: Show, client: Client) -> Result<(), Failure> {
    let retention = match args.dry_run {
        true => preview(&client, args.config).await?,
        false => client.retention().await.map_err(refused)?,
    };
    match args.json {
        true => print_json(&json::retention(&retention)),
        false => print_line(&text(&retention)),
    }
}

fn refused(error: Error) -> Failure {
    let is_unknown = error.kind() == Kind::Unsupported;
    let failure = Failure::from(error);
    if is_unknown {
        failure.hint("the server is older than this program: it has no retention by topic")
    } else {
        failure
    }
}

async fn preview(client: &Client, config: Option<PathBuf>) -> Result<pb::Retention, Failure> {
    let rules = match config {
        // What else is set in this shell is another matter.
        Some(path) => Some(Sources { file: Some(path), ..Sources::default() }.load()?),
        None => None,
    };
    let rules = rules.map(|loaded| pb::RetentionRules {
        rules: loaded.config.retention.topics.iter().map(rule).collect(),
    });
    let mut stop = Stop::listen()?;
    let bar = progress::bar(Some(100), "{bar:30} {percent}% looked through, {elapsed}");
    let looks = async {
        let mut retaining = client.preview_retention(rules).await?;
        while let Some(report) = retaining.next().await? {
            if let Some(retention) = report.retention {
                return Ok(Some(retention));
            }
            let percent = (report.looked.clamp(0.0, 1.0) * 100.0).round();
            // Two digits, as a text has them: there is no conversion that cannot fail.
            progress::show(&bar, format!("{percent:.0}").parse().unwrap_or_default(), 100);
        }
        Ok::<_, Error>(None)
    };
    let found = tokio::select! {
        found = looks => found.map_err(refused),
        exit = stop.wait() => Err(Failure::silent(exit)),
    };
    bar.finish_and_clear();
    found?.ok_or_else(|| {
        Failure::new(Exit::Failure, "the server ended the dry run without a result")
            .hint("try again")
    })
}

fn rule(rule: &TopicRetention) -> pb::RetentionRule {
    use pb::retention_rule::Keep as Wire;
    pb::RetentionRule {
        pattern: rule.pattern.clone(),
        max_age: rule.max_age.map(duration),
        max_events: rule.max_events.unwrap_or_default(),
        keep: match rule.keep {
            Keep::All => Wire::All.into(),
            Keep::LatestPerKey => Wire::LatestPerKey.into(),
        },
    }
}

fn text(retention: &pb::Retention) -> String {
    let mut limits = Vec::new();
    limits.extend(age(retention.max_age).map(|age| format!("max_age {age}")));
    limits.extend(
        (retention.max_bytes > 0)
            .then(|| format!("max_bytes {}", units::size_text(retention.max_bytes))),
    );
    limits
        .extend((retention.max_events > 0).then(|| format!("max_events {}", retention.max_events)));
    let limits = if limits.is_empty() { "no limits".to_owned() } else { limits.join(", ") };
    let mut lines = vec![("whole log".to_owned(), limits)];
    let state = retention.state.clone().unwrap_or_default();
    // What the newest pass found is of the rules that were in force then.
    let last = state.last.as_ref().filter(|pass| pass.rules.len() == retention.rules.len());
    let (found, says) = match &retention.dry_run {
        Some(pass) => (Some(pass), "would remove"),
        None => (last, "at the last pass, to remove"),
    };
    for (at, rule) in retention.rules.iter().enumerate() {
        lines.push((format!("rule {}", at + 1), rule_text(rule)));
        if let Some(found) = found.and_then(|pass| pass.rules.get(at)) {
            lines.push((String::new(), found_text(found, says)));
        }
    }
    if retention.rules.is_empty() {
        lines.push(("rules".to_owned(), "none for single topics".to_owned()));
    }
    if retention.dry_run.as_ref().is_some_and(|pass| pass.partial) {
        let partial =
            "there are more keys and topics than it has memory for: more is dead than it found";
        lines.push(("partial".to_owned(), partial.to_owned()));
    }
    lines.extend(state_lines(&state).into_iter().map(|(name, text)| (name.to_owned(), text)));
    let line = |(name, value): &(String, String)| format!("{name:12} {}", escape::line(value));
    lines.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn age(age: Option<prost_types::Duration>) -> Option<String> {
    let age = std::time::Duration::try_from(age?).ok()?;
    Some(units::duration_text(age))
}

fn rule_text(rule: &pb::RetentionRule) -> String {
    let mut keeps = Vec::new();
    keeps.extend(age(rule.max_age).map(|age| format!("max_age {age}")));
    keeps.extend((rule.max_events > 0).then(|| format!("max_events {}", rule.max_events)));
    let is_latest = rule.keep() == pb::retention_rule::Keep::LatestPerKey;
    keeps.extend(is_latest.then(|| "the latest per key".to_owned()));
    let keeps = if keeps.is_empty() { "removes nothing".to_owned() } else { keeps.join(", ") };
    format!("{}: {keeps}", rule.pattern)
}

fn found_text(found: &pb::RetentionFound, says: &str) -> String {
    let pb::RetentionFound { events, bytes, expired, compacted, dead_bytes } = *found;
    let dead = expired.saturating_add(compacted);
    format!(
        "{} ({}); {says} {dead} ({}): {expired} expired, {compacted} compacted",
        events_text(events),
        human_bytes(bytes),
        human_bytes(dead_bytes)
    )
}

/// What has come of the rules for topics.
fn state_lines(state: &pb::RetentionState) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    if let Some(pass) = &state.last {
        let at = pass.at.map(|at| from_timestamp(at).to_string()).unwrap_or_default();
        let took = age(pass.took).unwrap_or_default();
        let partial = if pass.partial { "; more is dead than it had memory to find" } else { "" };
        let came = came_text(pass.removed, pass.segments, pass.freed_bytes);
        lines.push(("last pass", format!("{at}, in {took}: {came}{partial}")));
    }
    lines.push(("since start", summary(state)));
    lines
}

/// The same in a line.
pub(super) fn summary(state: &pb::RetentionState) -> String {
    let totals = state.totals.unwrap_or_default();
    let pb::RetentionTotals { passes, expired, compacted, segments, freed_bytes } = totals;
    let passes = if passes == 1 { "1 pass".to_owned() } else { format!("{passes} passes") };
    let came = came_text(expired.saturating_add(compacted), segments, freed_bytes);
    let running = if state.running { ", and one is under way" } else { "" };
    format!("{passes}{running}: {came} ({expired} expired, {compacted} compacted)")
}

fn came_text(removed: u64, segments: u64, freed_bytes: u64) -> String {
    format!(
        "{} removed, {} written anew, {} given back",
        events_text(removed),
        count_text(segments, "segment"),
        human_bytes(freed_bytes)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_told_with_what_they_are_about() {
        let found = pb::RetentionFound {
            events: 30,
            bytes: 2_048,
            expired: 2,
            compacted: 1,
            dead_bytes: 1_024,
        };
        let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
        let mut retention = pb::Retention {
            max_bytes: 1 << 30,
            rules: vec![
                pb::RetentionRule { pattern: "a.\u{1b}>".into(), ..Default::default() },
                pb::RetentionRule {
                    pattern: "b".into(),
                    max_age: seconds(7 * 86_400),
                    max_events: 5,
                    keep: pb::retention_rule::Keep::LatestPerKey.into(),
                },
            ],
            dry_run: Some(pb::RetentionPass {
                rules: vec![pb::RetentionFound::default(), found],
                ..Default::default()
            }),
            ..pb::Retention::default()
        };
        let told = text(&retention);
        let lines: Vec<_> = told.lines().map(str::trim_end).collect();
        assert_eq!(lines[0], "whole log    max_bytes 1 GiB");
        assert!(lines[1].starts_with("rule 1       a.") && lines[1].ends_with(": removes nothing"));
        assert!(!told.contains('\u{1b}'));
        assert_eq!(lines[3], "rule 2       b: max_age 7d, max_events 5, the latest per key");
        let of_two =
            "             30 events (2.00 KiB); would remove 3 (1.00 KiB): 2 expired, 1 compacted";
        assert_eq!(lines[4], of_two);
        // What another set of rules came to is not told as what these did.
        let pass = pb::RetentionPass { rules: vec![found], took: seconds(2), ..Default::default() };
        let totals = pb::RetentionTotals { passes: 1, expired: 7, ..Default::default() };
        let state = pb::RetentionState { running: true, last: Some(pass), totals: Some(totals) };
        (retention.dry_run, retention.state) = (None, Some(state));
        let told = text(&retention);
        assert!(!told.contains("30 events"), "{told}");
        let last =
            "last pass    , in 2s: 0 events removed, 0 segments written anew, 0 B given back";
        assert!(told.contains(last), "{told}");
        assert!(
            told.contains("since start  1 pass, and one is under way: 7 events removed"),
            "{told}"
        );
        assert_eq!(text(&pb::Retention::default()).lines().count(), 3);
    }
}
