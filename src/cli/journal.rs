//! `tailmark journal`.

mod repair;

use std::time::Duration;

use super::online::Online;
use super::output::{print_json, print_line};
use super::{Exit, Failure};
use crate::escape;
use tailmark_client::Client;
use tailmark_record::units;
use tailmark_wire::feed_v1 as pb;
use tailmark_wire::json;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Show the journal that several daemons share: who writes, how far each has come, and what holds it
    Status(Box<Online<Status>>),
    /// Put right a stopped daemon's copy that is of another history than the journal, or the journal by the copy
    Repair(repair::Args),
}

#[derive(Debug, clap::Args)]
pub(super) struct Status {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Status(online) => online.run(status),
        Command::Repair(args) => repair::run(args),
    }
}

async fn status(args: Status, client: Client) -> Result<(), Failure> {
    let Some(journal) = client.log().await?.journal else {
        return Err(Failure::new(Exit::NotFound, "this log has no journal that others share")
            .hint("it lies on the server's machine alone: `tailmark status` shows it"));
    };
    match args.json {
        true => print_json(&json::journal_status(&journal)),
        false => print_line(&text(&journal)),
    }
}

/// What is told of it beside all else of a log.
pub(super) fn summary(journal: &pb::JournalStatus) -> Vec<(&'static str, String)> {
    let pb::JournalStatus { stream, daemon, term, slot, writer, trouble, .. } = journal;
    let mut lines = vec![
        ("daemon", format!("{daemon}, {}", role(journal.role()))),
        ("journal", format!("{stream}, term {term}, slot {slot}, acks {}", promise(journal))),
    ];
    if journal.role() != pb::DaemonRole::Writing {
        lines.push((
            "writer",
            match (writer.as_str(), seconds(journal.writer_heard)) {
                ("", _) => "none is known".to_owned(),
                (writer, None) => format!("{writer}, which is not heard any more"),
                (writer, Some(ago)) => format!("{writer}, heard {ago} ago"),
            },
        ));
    }
    if journal.in_doubt > 0 {
        let what = "a commit is in doubt: the journal has not said yet what became of it";
        lines.push(("doubt", what.to_owned()));
    }
    if !trouble.is_empty() {
        lines.push(("trouble", trouble.clone()));
    }
    lines
}

fn text(journal: &pb::JournalStatus) -> String {
    let mut lines = summary(journal);
    lines.extend(journal.weaknesses.iter().map(|it| ("weaker", it.clone())));
    for it in &journal.daemons {
        let this = if it.is_this { " (this one)" } else { "" };
        let behind = match it.lag_slots {
            0 => "has all".to_owned(),
            lag => format!("{lag} behind"),
        };
        let heard = match seconds(it.heard) {
            Some(ago) if !it.is_this => format!(", heard {ago} ago"),
            _ => String::new(),
        };
        lines.push((
            "daemon",
            format!(
                "{}{this}: {}, term {}, slot {}, {behind}, head {}{heard}, version {}, {}",
                it.name,
                role(it.role()),
                it.term,
                it.slot,
                it.head_seq,
                it.version,
                it.address
            ),
        ));
    }
    for it in &journal.replicas {
        let state = match it {
            it if it.differs_at_slot > 0 => format!(
                "holds other bytes than the log at slot {}: empty its store directory, and it fetches them",
                it.differs_at_slot
            ),
            it if it.is_offline => "offline".to_owned(),
            it if it.leads => "leads".to_owned(),
            it if it.is_current => "current".to_owned(),
            it => format!("not current, {} behind", it.lag),
        };
        lines.push(("server", format!("{}: {state}", it.server)));
    }
    lines.push(("takeovers", format!("{} since this daemon started", journal.takeovers)));
    let (all, failed) = (journal.forwarded, journal.forwards_failed);
    lines.push(("passed on", format!("{all}, of them {failed} without success")));
    let lines: Vec<_> =
        lines.iter().map(|(name, value)| format!("{name:12} {}", escape::line(value))).collect();
    lines.join("\n")
}

fn role(role: pb::DaemonRole) -> &'static str {
    match role {
        pb::DaemonRole::Writing => "writes",
        pb::DaemonRole::Following => "follows",
        pb::DaemonRole::Diverged => "has another history than the journal",
        pb::DaemonRole::Unspecified => "of an unknown role",
    }
}

fn promise(journal: &pb::JournalStatus) -> &'static str {
    match journal.durability() {
        pb::Durability::Replicated => "are on a quorum of disks",
        pb::Durability::Fsync => "are on disk",
        pb::Durability::Unsynced => "may be lost with the power",
        pb::Durability::Unspecified => "promise what this program does not know",
    }
}

fn seconds(heard: Option<prost_types::Duration>) -> Option<String> {
    let heard: Duration = heard?.try_into().ok()?;
    Some(units::duration_text(Duration::from_millis(u64::try_from(heard.as_millis()).ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_work_is_told_first() {
        let daemon = |name: &str, role: pb::DaemonRole, lag_slots| pb::Daemon {
            name: name.to_owned(),
            role: role.into(),
            lag_slots,
            is_this: name == "a",
            ..pb::Daemon::default()
        };
        let journal = pb::JournalStatus {
            stream: "TM_x".to_owned(),
            daemon: "a".to_owned(),
            role: pb::DaemonRole::Following.into(),
            durability: pb::Durability::Replicated.into(),
            in_doubt: 1,
            trouble: "lost".to_owned(),
            daemons: vec![
                daemon("a", pb::DaemonRole::Following, 3),
                daemon("b", pb::DaemonRole::Writing, 0),
            ],
            replicas: vec![
                pb::JournalReplica { server: "s1".to_owned(), lag: 2, ..Default::default() },
                pb::JournalReplica {
                    server: "s2".to_owned(),
                    is_current: true,
                    differs_at_slot: 21,
                    ..Default::default()
                },
            ],
            ..pb::JournalStatus::default()
        };
        let text = text(&journal);
        for part in [
            "daemon       a, follows",
            "none is known",
            "in doubt",
            "trouble      lost",
            "a (this one): follows",
            "3 behind",
            "b: writes",
            "s1: not current, 2 behind",
            "s2: holds other bytes than the log at slot 21",
            "quorum",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        // Names are of others: none moves the terminal's cursor.
        let name = "\u{1b}[2J".to_owned();
        let daemons = vec![pb::Daemon { name, ..pb::Daemon::default() }];
        assert!(!super::text(&pb::JournalStatus { daemons, ..journal }).contains('\u{1b}'));
    }
}
