//! `tailmark erase`.

use std::io::IsTerminal;

use clap::builder::NonEmptyStringValueParser;
use indicatif::ProgressBar;

use super::moment::{Moment, parse_moment, parse_seqs};
use super::output::{count_text, events_text, padded, print_json, print_line, say, width};
use super::progress;
use super::signals::Stop;
use super::terminal::says_yes;
use super::{Exit, Failure};
use crate::escape;
use pb::erase_progress::Phase;
use tailmark_client::{Client, Error, Kind};
use tailmark_record::Seq;
use tailmark_wire::feed_v1 as pb;
use tailmark_wire::json;
use tailmark_wire::values::{from_timestamp, timestamp};

/// What a request calls things, and how they are typed.
const TYPED: [(&str, &str); 7] = [
    ("seqs", "SEQ"),
    ("topic", "--topic"),
    ("key", "--key"),
    ("before", "--before"),
    ("up_to_seq", "--before"),
    ("reason", "--reason"),
    ("cancel", "--cancel"),
];

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Content, headers, type, key and id of the events leave every file of the log. Their places, topics and
times stay, and so does every cursor; readers see `(erased: REASON)`. What was copied before - backups,
exports, what clients keep - is not reached: an event of type `tailmark.erased` in each topic says what
to delete there.")]
pub(super) struct Args {
    /// Which: sequence numbers, or ranges of them with both ends, as in 5 7-9
    #[arg(value_name = "SEQ", value_parser = parse_seqs, required_unless_present_any = ["topic", "cancel"])]
    seqs: Vec<(Seq, Seq)>,
    /// All of these topics: one, or a pattern
    #[arg(long, value_name = "PATTERN", conflicts_with = "seqs")]
    topic: Option<String>,
    /// Of those the ones with this key
    #[arg(long, requires = "topic", value_parser = NonEmptyStringValueParser::new())]
    key: Option<String>,
    /// Of those the ones before this: a sequence number, a time (2026-01-31T09:30:00Z) or an age (30d)
    #[arg(long, value_name = "SEQ|TIME", value_parser = parse_moment, requires = "topic")]
    before: Option<Moment>,
    /// Why, for all who may watch these topics: at most 200 bytes
    #[arg(long, value_name = "TEXT", required_unless_present_any = ["dry_run", "cancel"])]
    reason: Option<String>,
    /// Take back the erasure of this name, which waits and has erased nothing yet; `tailmark status` names it
    #[arg(
        long,
        value_name = "ERASURE",
        value_parser = NonEmptyStringValueParser::new(),
        conflicts_with_all = ["seqs", "topic", "key", "before", "reason", "dry_run"]
    )]
    cancel: Option<String>,
    /// Only say what it would erase
    #[arg(long)]
    dry_run: bool,
    /// Do not ask; needed where standard input is no terminal
    #[arg(long, short)]
    yes: bool,
    /// Print the result, or with --dry-run what it would erase, as one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: Args, client: Client) -> Result<(), Failure> {
    let mut request = request(&args)?;
    if args.cancel.is_some() {
        let result = erase(&client, request).await?;
        return match args.json {
            true => print_json(&json::erase_result(&result)),
            false => print_line(&result_text(&result)),
        };
    }
    if args.dry_run {
        let selection = select(&client, request).await?;
        return match args.json {
            true => print_json(&json::erase_selection(&selection)),
            false => print_line(&selection_text(&selection)),
        };
    }
    if !args.yes {
        if !std::io::stdin().is_terminal() {
            let what = "this would erase events for good, and nobody is there to be asked";
            return Err(Failure::new(Exit::Usage, what)
                .hint("look with --dry-run, then say --yes where no terminal is"));
        }
        let look = pb::EraseRequest { dry_run: true, ..request.clone() };
        let selection = select(&client, look).await?;
        say(&selection_text(&selection));
        let question =
            format!("This erases {} for good. Go on? [y/N] ", events_text(selection.events));
        if selection.events > 0 && !says_yes(&question, "nothing was erased")? {
            return Err(Failure::new(Exit::Failure, "nothing was erased"));
        }
        // What has come since is not what was agreed to.
        if !request.topic.is_empty() {
            request.up_to_seq = selection.up_to_seq;
        }
    }
    let result = erase(&client, request).await?;
    match args.json {
        true => print_json(&json::erase_result(&result)),
        false => print_line(&result_text(&result)),
    }
}

fn request(args: &Args) -> Result<pb::EraseRequest, Failure> {
    let seqs = args
        .seqs
        .iter()
        .map(|(first, last)| pb::SeqRange { first_seq: first.get(), last_seq: last.get() });
    let (mut before, mut up_to_seq) = (None, 0);
    match args.before {
        None => {}
        Some(Moment::Time(time)) => before = Some(timestamp(time)),
        Some(Moment::Seq(seq)) if seq > Seq::FIRST => up_to_seq = seq.prev().get(),
        Some(Moment::Seq(seq)) => {
            return Err(Failure::new(
                Exit::Usage,
                format!("--before {seq}: nothing lies before it"),
            ));
        }
    }
    Ok(pb::EraseRequest {
        seqs: seqs.collect(),
        topic: args.topic.clone().unwrap_or_default(),
        key: args.key.clone(),
        before,
        up_to_seq,
        reason: args.reason.clone().unwrap_or_default(),
        dry_run: args.dry_run,
        cancel: args.cancel.clone().unwrap_or_default(),
    })
}

fn refused(error: Error) -> Failure {
    let is_unknown = error.kind() == Kind::Unsupported;
    let failure = Failure::from(error).naming(&TYPED);
    if is_unknown {
        failure.hint("the server is older than this program: it cannot erase")
    } else {
        failure
    }
}

/// What would be erased.
async fn select(client: &Client, request: pb::EraseRequest) -> Result<pb::EraseSelection, Failure> {
    let mut erasing = client.erase(request).await.map_err(refused)?;
    let mut stop = Stop::listen()?;
    let bar = Bar::new();
    loop {
        let next = tokio::select! {
            next = erasing.next() => next.map_err(refused)?,
            exit = stop.wait() => return Err(Failure::silent(exit)),
        };
        match next {
            Some(pb::EraseProgress { selection: Some(selection), .. }) => return Ok(selection),
            Some(progress) => bar.show(&progress),
            None => return Err(no_end()),
        }
    }
}

async fn erase(client: &Client, request: pb::EraseRequest) -> Result<pb::EraseResult, Failure> {
    let mut erasing = client.erase(request).await.map_err(refused)?;
    let mut stop = Stop::listen()?;
    let bar = Bar::new();
    loop {
        let next = tokio::select! {
            next = erasing.next() => next,
            exit = stop.wait() => {
                drop(bar);
                match erasing.erasure() {
                    Some(id) => say(&format!("interrupted; {}", goes_on(id))),
                    // It may have begun this moment: who asks is told.
                    None => say("interrupted; `tailmark status` shows whether it had begun to erase"),
                }
                return Err(Failure::silent(exit));
            }
        };
        match next {
            Ok(Some(pb::EraseProgress { result: Some(result), .. })) => return Ok(result),
            Ok(Some(progress)) => bar.show(&progress),
            Ok(None) => return Err(no_end()),
            Err(error) => {
                let has_been_cut = error.reason() != "ERASURE_UNFINISHED";
                let failure = refused(error);
                return Err(match erasing.erasure() {
                    Some(id) if has_been_cut => failure.hint(goes_on(id)),
                    _ => failure,
                });
            }
        }
    }
}

fn no_end() -> Failure {
    Failure::new(Exit::Failure, "the server ended the erasure without a result")
        .hint("`tailmark status` shows whether it goes on")
}

fn goes_on(erasure: &str) -> String {
    format!(
        "the erasure {erasure} goes on in the daemon, also after a restart: `tailmark status` shows it \
         until it is done"
    )
}

/// What would be erased, and of which topics.
fn selection_text(selection: &pb::EraseSelection) -> String {
    let mut lines = vec![events_text(selection.events)];
    let at = |time: Option<prost_types::Timestamp>| {
        time.map(|time| format!(" ({})", from_timestamp(time))).unwrap_or_default()
    };
    if selection.events > 0 {
        lines[0] = format!(
            "{}, from {}{} to {}{}",
            lines[0],
            selection.first_seq,
            at(selection.first_at),
            selection.last_seq,
            at(selection.last_at)
        );
    }
    let names: Vec<_> = selection.topics.iter().map(|it| escape::name(&it.topic)).collect();
    let columns = names.iter().map(|name| width(name)).max().unwrap_or_default();
    for (name, topic) in names.iter().zip(&selection.topics) {
        lines.push(format!("  {}  {}", padded(name, columns), topic.events));
    }
    if selection.has_more_topics {
        lines.push("  and more topics".to_owned());
    }
    let pb::EraseSelection { already, trimmed, removed, left_notices, .. } = *selection;
    if let Some(left_out) = left_out(already, trimmed, removed, left_notices) {
        lines.push(format!("not among them: {left_out}"));
    }
    lines.join("\n")
}

/// What it came to.
fn result_text(result: &pb::EraseResult) -> String {
    let pb::EraseResult { already, trimmed, removed, left_notices, .. } = *result;
    let left_out = left_out(already, trimmed, removed, left_notices);
    let left_out = left_out.map(|text| format!(" ({text})")).unwrap_or_default();
    if result.cancelled {
        return format!("taken back, and nothing was erased: erasure {}", result.erasure);
    }
    if result.erasure.is_empty() {
        return format!("nothing to erase{left_out}");
    }
    format!(
        "{} erased{left_out}, {} written anew, {} stored; erasure {}",
        events_text(result.events),
        count_text(result.segments, "segment"),
        count_text(result.notices, "notice"),
        result.erasure
    )
}

fn left_out(already: u64, trimmed: u64, removed: u64, notices: u64) -> Option<String> {
    let parts = [
        (already, "erased before"),
        (trimmed, "trimmed before"),
        (removed, "taken out before"),
        (
            notices,
            "of type tailmark.erased stay: look at them with `watch`, and erase by SEQ what is no notice",
        ),
    ];
    let parts = parts.into_iter().filter(|(count, _)| *count > 0);
    let parts: Vec<_> = parts.map(|(count, what)| format!("{count} {what}")).collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// How far an erasure is.
pub(super) fn progress_text(progress: &pb::EraseProgress) -> String {
    let phase = phase_text(progress);
    let segments = match progress.phase() {
        Phase::Rewriting => {
            format!(", {} of {} segments", progress.segments_done, progress.segments)
        }
        _ => String::new(),
    };
    let id = &progress.erasure;
    format!(
        "{phase}, {} of {}{segments} ({id})",
        progress.events_done,
        events_text(progress.events)
    )
}

fn phase_text(progress: &pb::EraseProgress) -> &'static str {
    match progress.phase() {
        Phase::Unspecified => "under way",
        Phase::Selecting => "looking for the events",
        Phase::Sealing => "sealing",
        Phase::Rewriting => "writing segments anew",
        Phase::Wiping => "wiping what is free",
        Phase::Telling => "storing notices",
        Phase::Done => "done",
    }
}

/// On a terminal; gone when it is over.
struct Bar(ProgressBar);

impl Bar {
    fn new() -> Bar {
        Bar(progress::bar(Some(0), "{bar:30} {percent}% {msg}, {elapsed}"))
    }

    fn show(&self, now: &pb::EraseProgress) {
        progress::show(&self.0, now.events_done, now.events);
        self.0.set_message(phase_text(now));
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_be_erased_is_told_in_lines() {
        let topic = |topic: &str, events| pb::TopicCount { topic: topic.into(), events };
        let mut selection = pb::EraseSelection {
            events: 12,
            first_seq: 5,
            last_seq: 900,
            first_at: Some(prost_types::Timestamp::default()),
            topics: vec![topic("a", 10), topic("a.\u{1b}b", 2)],
            already: 3,
            ..pb::EraseSelection::default()
        };
        let text = selection_text(&selection);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "12 events, from 5 (1970-01-01T00:00:00Z) to 900");
        assert!(lines[1].starts_with("  a ") && lines[1].ends_with("  10"), "{text:?}");
        assert!(!text.contains('\u{1b}') && text.ends_with("not among them: 3 erased before"));
        selection = pb::EraseSelection::default();
        assert_eq!(selection_text(&selection), "0 events");
    }

    #[test]
    fn what_it_came_to_is_told_in_a_line() {
        let mut result = pb::EraseResult { trimmed: 2, ..pb::EraseResult::default() };
        assert_eq!(result_text(&result), "nothing to erase (2 trimmed before)");
        (result.erasure, result.events, result.segments) = ("u".into(), 1, 1);
        result.removed = 3;
        let told = "1 event erased (2 trimmed before, 3 taken out before), 1 segment written anew, 0 notices stored; erasure u";
        assert_eq!(result_text(&result), told);
    }
}
