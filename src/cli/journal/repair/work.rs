//! What it does, where the program can reach the journal.

use std::io::IsTerminal as _;

use super::super::super::layer_options::{log_options, storage_options};
use super::super::super::output::{events_text, print_json, print_line, say};
use super::super::super::progress::{events_bar, show};
use super::super::super::terminal::says_yes;
use super::super::super::{Exit, Failure, shared};
use super::Args;
use crate::cluster::{JoinError, Repair};
use crate::config::Config;
use tailmark_log::storage::StoreError;
use tailmark_log::storage::shared::{Compared, Relation};
use tailmark_record::json::Object;

pub(super) fn run(args: &Args, config: &Config) -> Result<(), Failure> {
    let dir = &config.storage.data_dir;
    let (journal, _) = shared::journal(config)?;
    let opened = Repair::open(dir, &journal, storage_options(config), log_options(config));
    let repair = opened.map_err(unopened)?;
    let it = repair.look().map_err(failed)?;
    if args.dry_run {
        return match args.json {
            true => print_json(&json(args, &it, None)),
            false => print_line(&format!("{}\n{}", text(&it), plan(args, &it))),
        };
    }
    refuse(args, &it)?;
    if args.reappend {
        let running = repair.running().map_err(|error| shared::unjoined(&error))?;
        if !running.is_empty() {
            let what = format!("daemons of this log run: {}", running.join(", "));
            return Err(Failure::new(Exit::Unavailable, what).hint(
                "stop them all first: one that took over in between would write behind half of it",
            ));
        }
    }
    if !args.yes {
        if !std::io::stdin().is_terminal() {
            let what = "this would change the journal or the copy, and nobody is there to be asked";
            return Err(Failure::new(Exit::Usage, what)
                .hint("look with --dry-run, then say --yes where no terminal is"));
        }
        say(&text(&it));
        if !says_yes(&format!("{}. Go on? [y/N] ", plan(args, &it)), "nothing was changed")? {
            return Err(Failure::new(Exit::Failure, "nothing was changed"));
        }
    }
    let done = if args.accept {
        let aside = repair.set_aside(&it).map_err(failed)?;
        Done::Aside(aside.display().to_string())
    } else {
        let bar = events_bar("put back");
        let mut tell = |seq| show(&bar, it.common.distance_to(seq), it.missing());
        let done = repair.put_back(&it, &mut tell);
        bar.finish_and_clear();
        let done = done.map_err(|error| {
            failed(error)
                .hint("some of it may be there: run the same again before any daemon starts")
        })?;
        Done::PutBack { events: done.events, end: done.end }
    };
    match args.json {
        true => print_json(&json(args, &it, Some(&done))),
        false => print_line(&match done {
            Done::Aside(path) => format!(
                "the copy is kept in {path}; {} of it not in the journal. Start the daemon: it begins an empty copy",
                are(it.missing())
            ),
            Done::PutBack { events, end } => format!(
                "{} put back, up to {}; the journal ends with slot {end}. Start this daemon first",
                events_text(events),
                it.copy_head
            ),
        }),
    }
}

enum Done {
    Aside(String),
    PutBack { events: u64, end: u64 },
}

fn are(count: u64) -> String {
    format!("{} {}", events_text(count), if count == 1 { "is" } else { "are" })
}

fn unopened(error: JoinError) -> Failure {
    match error {
        JoinError::Store(error) => Failure::from(error),
        error => shared::unjoined(&error),
    }
}

fn failed(error: StoreError) -> Failure {
    match &error {
        StoreError::Fenced { .. } => Failure::new(Exit::Unavailable, "a daemon writes the journal")
            .because(&error)
            .hint("stop all daemons of the log, then run this again"),
        StoreError::InDoubt | StoreError::Unreachable { .. } | StoreError::Busy { .. } => {
            Failure::new(Exit::Unavailable, "the journal does not answer").because(&error)
        }
        _ => Failure::from(error),
    }
}

/// What makes no sense.
fn refuse(args: &Args, it: &Compared) -> Result<(), Failure> {
    let refused = |what: &str| Err(Failure::new(Exit::Failure, what));
    match it.relation {
        Relation::Joined => refused("there is nothing to repair: the copy is a beginning of the journal, or all of it"),
        _ if args.accept => Ok(()),
        Relation::Ahead => Ok(()),
        Relation::Behind => refused("there is nothing to put back: the journal begins behind this copy")
            .map_err(|it| it.hint("--accept sets the copy aside; an empty one is right")),
        Relation::Parted => refused("nothing can be put back: the journal goes on otherwise than this copy")
            .map_err(|it| it.hint("--accept takes the journal as it is, and keeps the copy")),
        Relation::Trimmed => {
            refused("nothing can be put back: the copy was trimmed beyond what the journal has").map_err(|it| {
                it.hint("a backup or an export of the copy becomes a log of its own; --accept takes the journal as it is")
            })
        }
    }
}

fn relation(it: &Compared) -> (&'static str, &'static str) {
    match it.relation {
        Relation::Joined => ("JOINED", "the copy is a beginning of the journal, or all of it"),
        Relation::Ahead => ("AHEAD", "the journal has lost its end, and has nothing else"),
        Relation::Behind => ("BEHIND", "the journal begins behind the copy"),
        Relation::Parted => ("PARTED", "the journal goes on otherwise than the copy"),
        Relation::Trimmed => ("TRIMMED", "the journal has lost more than the copy still has"),
    }
}

/// What the two have.
fn text(it: &Compared) -> String {
    let mut lines = vec![
        format!("journal      event {}, slot {}", it.journal_head, it.end),
        format!("copy         event {}", it.copy_head),
        format!("in both      up to event {}: {}", it.common, relation(it).1),
    ];
    if it.missing() > 0 {
        let at = it.missing_at.map(|(first, last)| format!(", appended {first} to {last}"));
        let (first, last) = (it.common.next(), it.copy_head);
        let events = events_text(it.missing());
        lines.push(format!("missing      {events}, {first} to {last}{}", at.unwrap_or_default()));
    }
    lines.join("\n")
}

/// What it would come to.
fn plan(args: &Args, it: &Compared) -> String {
    if let Err(refused) = refuse(args, it) {
        return refused.message().to_owned();
    }
    let events = events_text(it.missing());
    if args.accept {
        format!("{events} of the copy will not be in the log; the copy is set aside and kept")
    } else {
        format!("{events} will be put back into the journal")
    }
}

fn json(args: &Args, it: &Compared, done: Option<&Done>) -> Vec<u8> {
    let mut out = Vec::new();
    let mut object = Object::open(&mut out);
    object.text("action", if args.accept { "ACCEPT" } else { "REAPPEND" });
    object.text("relation", relation(it).0);
    object.number("journal_slot", it.end);
    object.number("journal_head_seq", it.journal_head.get());
    object.number("copy_head_seq", it.copy_head.get());
    object.number("last_common_seq", it.common.get());
    object.number("missing", it.missing());
    if let Some((first, last)) = it.missing_at {
        object.text("first_missing_at", &first.to_string());
        object.text("last_missing_at", &last.to_string());
    }
    match done {
        Some(Done::Aside(path)) => object.text("set_aside", path),
        Some(Done::PutBack { events, .. }) => object.number("put_back", *events),
        None => {}
    }
    object.close();
    out
}
