//! `tailmark log`: offline work on a data directory.

use std::path::PathBuf;

use super::moment::{SeqRange, parse_range, parse_seq, parse_time};
use super::signals::Stop;
use super::{Exit, Failure};
use crate::export as exports;
use crate::inspect;
use tailmark_log::storage::Damage;
use tailmark_record::json::Object;
use tailmark_record::{Seq, Timestamp};

mod compact;
mod diff;
mod dump;
mod explain;
mod export;
mod import;
mod info;
mod migrate;
mod room;
mod salvage;
mod verify;

pub(super) use export::{erasure, tell_erasing};
pub(super) use room::Room;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Identity, history, bounds and files
    Info(Info),
    /// Print events as JSON lines, as `watch --json` does
    Dump(Dump),
    /// Read every block and name each damaged range
    Verify(Verify),
    /// Say what a cursor means, and what a watch after it would answer now
    Explain(Explain),
    /// Say where two logs part
    Diff(Diff),
    /// Write the log to one file that other programs can read, and `log import` and `upload`
    Export(Export),
    /// Make a log of an export, in a new directory, with the ids, seqs and cursors of the first
    Import(Import),
    /// Make a log of what is whole of a damaged one, in a new directory, and say what is lost
    Salvage(Salvage),
    /// Make the same log in a new directory, in as few segments and with as few bytes as it can have
    #[command(name = "compact-offline")]
    Compact(Compact),
    /// Copy a data directory of an older format forward, and put the copy in its place
    Migrate(Migrate),
}

#[derive(Debug, clap::Args)]
pub(super) struct DataDir {
    /// The data directory; a running daemon is not disturbed
    #[arg(long = "data-dir", value_name = "DIR", default_value = "tailmark-data")]
    pub path: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(super) struct Info {
    #[command(flatten)]
    pub data_dir: DataDir,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Dump {
    /// Only events whose topic matches one of these
    #[arg(value_name = "PATTERN")]
    pub patterns: Vec<String>,
    #[command(flatten)]
    pub data_dir: DataDir,
    /// First event
    #[arg(long, alias = "from", value_name = "SEQ", conflicts_with = "seq", value_parser = parse_seq)]
    pub from_seq: Option<Seq>,
    /// Last event, inclusive
    #[arg(long, alias = "to", value_name = "SEQ", conflicts_with = "seq", value_parser = parse_seq)]
    pub to_seq: Option<Seq>,
    /// One event (5), or a range with both ends included (5..9, 5.., ..9)
    #[arg(long, value_name = "RANGE", value_parser = parse_range)]
    pub seq: Option<SeqRange>,
    /// Only events appended at or after this time or age
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub since: Option<Timestamp>,
    /// Only events appended before this time or age
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub until: Option<Timestamp>,
    /// JSON lines; the only format, and so the default
    #[arg(long)]
    pub json: bool,
}

impl Dump {
    /// The range of seqs asked for.
    pub(super) fn range(&self) -> SeqRange {
        self.seq.unwrap_or(SeqRange { from: self.from_seq, to: self.to_seq })
    }
}

#[derive(Debug, clap::Args)]
pub(super) struct Verify {
    #[command(flatten)]
    pub data_dir: DataDir,
    /// One object a finding, and one for the result
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Explain {
    /// A cursor, or a plain sequence number
    pub cursor: String,
    #[command(flatten)]
    pub data_dir: DataDir,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Migrate {
    #[command(flatten)]
    pub data_dir: DataDir,
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit codes: 0 where nothing differs of what both have, 3 where they part or are not the same log. Logs are compared by
their chain, in which an event that was erased, or taken out by rules, in one of them counts as the same.")]
pub(super) struct Diff {
    /// A data directory
    #[arg(value_name = "DIR")]
    pub first: PathBuf,
    /// Another
    #[arg(value_name = "DIR")]
    pub second: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Export {
    #[command(flatten)]
    pub data_dir: DataDir,
    /// How records are written
    #[arg(long, value_enum, default_value_t = ExportFormat::Jsonl)]
    pub format: ExportFormat,
    /// First event; the oldest by default
    #[arg(long, alias = "from-seq", value_name = "SEQ", value_parser = parse_seq)]
    pub from: Option<Seq>,
    /// Last event, inclusive; the head by default
    #[arg(long, alias = "to-seq", value_name = "SEQ", value_parser = parse_seq)]
    pub to: Option<Seq>,
    /// Write to this file, which must not be there, in place of standard output
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Print the result as one JSON object; needs --output
    #[arg(long, requires = "output")]
    pub json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum ExportFormat {
    /// One JSON object a line
    Jsonl,
    /// Messages of protobuf, each behind its length
    Protobuf,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
To append the events to a log that is there, as new ones: `tailmark upload --format export FILE`.")]
pub(super) struct Import {
    /// What `log export` wrote; `-` reads standard input
    pub file: PathBuf,
    /// Keep ids, seqs, times and generations, so that cursors of the first log go on here; the only way to import
    #[arg(long, required = true)]
    pub exact: bool,
    /// Where the log is made; empty, or not there yet
    #[arg(long = "data-dir", value_name = "DIR")]
    pub data_dir: PathBuf,
    #[command(flatten)]
    pub room: Room,
    /// Print the result as one JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
The damaged log is read and not changed. Seqs, cursors and ids stay; readers hear of what is lost as a gap.
Exit codes: 0 where nothing is lost, 4 where a log was made and events are lost.")]
pub(super) struct Salvage {
    /// The damaged data directory; no daemon may have it open
    #[arg(long, value_name = "DIR")]
    pub from: PathBuf,
    /// Where the log is made; empty, or not there yet
    #[arg(long, value_name = "DIR")]
    pub to: PathBuf,
    /// Write what is lost to this file, too, as one JSON object; it must not be there
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    #[command(flatten)]
    pub room: Room,
    /// Print the report as one JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
The log is read and not changed. Seqs, cursors, ids and times stay. No daemon may have it open.")]
pub(super) struct Compact {
    /// The data directory; no daemon may have it open
    #[arg(long, value_name = "DIR")]
    pub from: PathBuf,
    /// Where the log is made; empty, or not there yet
    #[arg(long, value_name = "DIR")]
    pub to: PathBuf,
    #[command(flatten)]
    pub room: Room,
    /// Print the result as one JSON object
    #[arg(long)]
    pub json: bool,
}

pub(super) fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Info(args) => info::run(&args),
        Command::Dump(args) => dump::run(&args, args.range()),
        Command::Verify(args) => verify::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Diff(args) => diff::run(&args),
        Command::Export(args) => export::run(&args),
        Command::Import(args) => import::run(&args),
        Command::Salvage(args) => salvage::run(&args),
        Command::Compact(args) => compact::run(&args),
        Command::Migrate(args) => migrate::run(&args),
    }
}

impl From<inspect::Error> for Failure {
    fn from(error: inspect::Error) -> Self {
        match error {
            inspect::Error::Store(error) => error.into(),
            inspect::Error::Output(error) => error.into(),
            error @ inspect::Error::NoScratch { .. } => Failure::new(
                Exit::Failure,
                error.to_string(),
            )
            .hint("a sealed segment is read from a copy; set TMPDIR to a directory with more room"),
        }
    }
}

impl From<exports::Error> for Failure {
    fn from(error: exports::Error) -> Self {
        let text = error.to_string();
        match error {
            exports::Error::Store(error) => error.into(),
            exports::Error::Inspect(error) => error.into(),
            exports::Error::Output(error) => error.into(),
            exports::Error::Input(error) => {
                let exit = match error.kind() {
                    std::io::ErrorKind::IsADirectory => Exit::Usage,
                    _ => Exit::Failure,
                };
                Failure::new(exit, text).because(&error)
            }
            exports::Error::Cut { .. } | exports::Error::Altered { .. } => {
                Failure::new(Exit::Damaged, text).hint("export the log again")
            }
            // It begins as an export does.
            exports::Error::Malformed { record, .. } if record > 1 => {
                Failure::new(Exit::Damaged, format!("the export was cut or altered: {text}"))
                    .hint("export the log again")
            }
            _ => Failure::new(Exit::Usage, text),
        }
    }
}

/// Lets a signal end a long report in order, so that its copies are deleted.
pub(super) struct Interrupt {
    stop: Stop,
    // Listens for as long as this lives.
    _runtime: tokio::runtime::Runtime,
}

impl Interrupt {
    pub(super) fn listen() -> Result<Interrupt, Failure> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let stop = runtime.block_on(async { Stop::listen() })?;
        Ok(Interrupt { stop, _runtime: runtime })
    }

    /// An error once a signal came.
    pub(super) fn check(&self) -> std::io::Result<()> {
        match self.stop.requested() {
            Some(_) => Err(std::io::ErrorKind::Interrupted.into()),
            None => Ok(()),
        }
    }

    /// Waits for a signal, in whatever runtime.
    pub(super) async fn wait(&self) {
        self.stop.clone().wait().await;
    }

    /// What a report's error means: our own interruption says nothing.
    pub(super) fn failure(&self, error: impl Into<Failure>) -> Failure {
        match self.stop.requested() {
            Some(exit) => Failure::silent(exit),
            None => error.into(),
        }
    }
}

/// `event 5`, `events 5 to 9`.
fn span_text(from: Seq, to: Seq) -> String {
    if from == to { format!("event {from}") } else { format!("events {from} to {to}") }
}

pub(super) fn write_damage(object: &mut Object<'_>, damage: &Damage) {
    object.text("file", &damage.file.display().to_string());
    object.number("from_seq", damage.from.get());
    object.number("to_seq", damage.to.get());
    object.text("detail", &damage.detail);
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::moment::SeqRange;
    use super::super::{Cli, Command as Top};
    use super::*;

    fn dump(args: &[&str]) -> Result<Dump, clap::Error> {
        let args = ["tailmark", "log", "dump"].iter().chain(args);
        match Cli::try_parse_from(args)?.command {
            Top::Log(Command::Dump(dump)) => Ok(dump),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn both_ways_to_name_a_range_mean_the_same() {
        let expected = SeqRange { from: Some(Seq::new(5)), to: Some(Seq::new(9)) };
        assert_eq!(dump(&["--from-seq", "5", "--to-seq", "9"]).unwrap().range(), expected);
        assert_eq!(dump(&["--seq", "5..9"]).unwrap().range(), expected);
        assert!(dump(&["--seq", "5", "--to-seq", "9"]).is_err());
        assert!(dump(&["--since", "soon"]).is_err());
        let args = dump(&["a.>", "b", "--since", "2026-01-31", "--until", "1h"]).unwrap();
        assert_eq!(args.patterns, ["a.>", "b"]);
        assert!(args.since < args.until);
    }
}
