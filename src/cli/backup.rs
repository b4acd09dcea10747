//! `tailmark backup`, and its `list`, `verify` and `prune`.

mod fetch;
mod pace;
mod prune;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::{HumanBytes, ProgressBar};

use self::pace::{Pace, Rate};
use super::log::Interrupt;
use super::output::{Output, count_text, print_json, print_line, say};
use super::progress::{self, bytes_bar};
use super::{Exit, Failure, online};
use crate::backup::{self, Checked, Manifest, Progress, Taken, Target};
use crate::escape;
use tailmark_log::storage::StoreError;
use tailmark_record::Timestamp;
use tailmark_record::json::Object;

/// The log of this machine, where nobody names one.
const DATA_DIR: &str = "tailmark-data";
/// Longest sleep in which a signal waits.
const NAP: Duration = Duration::from_millis(50);

#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "\
What is cut leaves every whole backup as it was; run it again, and it goes on with what is there.
With --addr, --context or what stands for them (`tailmark context use`) the log is that of a running daemon, which wants the
right to administer; --data-dir reads a directory of this machine."
)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Where it is kept: a directory that is empty, not there yet, or has backups of this log; a file
    /// (NAME.tailmark), which holds one; or s3://, gs:// and az:// with BUCKET/FOLDER
    #[arg(required = true)]
    to: Option<PathBuf>,
    /// The data directory of the log; a running daemon is not disturbed [default where no server is
    /// named: tailmark-data]
    #[arg(long = "data-dir", value_name = "DIR", conflicts_with_all = ["addr", "context"])]
    data_dir: Option<PathBuf>,
    #[command(flatten)]
    server: online::Target,
    /// Write at most so much a second: 50MiB; or `unlimited` [default with a data directory: unlimited while
    /// nobody appends, else 100MiB; with a server: unlimited]
    #[arg(long, value_name = "SIZE", value_parser = pace::parse)]
    rate: Option<Rate>,
    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// What backups there are
    List {
        /// Where they are kept
        from: PathBuf,
        /// One object a backup
        #[arg(long)]
        json: bool,
    },
    /// Read all of a backup, and compare it with its hashes and its chain
    Verify {
        /// Where they are kept
        from: PathBuf,
        /// Which, as `backup list` names it; the newest by default
        #[arg(long, value_name = "NAME")]
        backup: Option<String>,
        /// Print the result as one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Remove old backups, and all that no other needs; the newest one always stays
    Prune(prune::Args),
}

pub(super) fn run(args: Args) -> Result<(), Failure> {
    match (&args.command, &args.to) {
        (Some(Command::List { from, json }), _) => list(&Target::open(from)?, *json),
        (Some(Command::Verify { from, backup, json }), _) => {
            verify(&Target::open(from)?, backup.as_deref(), *json)
        }
        (Some(Command::Prune(args)), _) => prune::run(args),
        (None, Some(to)) => {
            let (to, is_json) = (to.clone(), args.json);
            tell(&take(args, &to)?, is_json)
        }
        (None, None) => Err(Failure::new(Exit::Usage, "say where the backup is to be kept")),
    }
}

fn take(args: Args, to: &Path) -> Result<Taken, Failure> {
    let interrupt = Interrupt::listen()?;
    let bar = bytes_bar("written");
    let server = match &args.data_dir {
        Some(_) => None,
        None => args.server.settle_if_named()?,
    };
    let dir = args.data_dir.unwrap_or_else(|| DATA_DIR.into());
    let mut pace = Pace::new(args.rate, server.is_none().then_some(dir.as_path()));
    let mut watch = |progress: Progress| {
        pace.keep(progress.done_bytes, &interrupt)?;
        show(&bar, progress);
        Ok(())
    };
    let result = match server {
        Some((address, identity)) => fetch::take(&address, &identity, to, &mut watch, &interrupt),
        None => backup::take(&dir, to, watch).map_err(|error| interrupt.failure(error)),
    };
    bar.finish_and_clear();
    result
}

fn tell(taken: &Taken, is_json: bool) -> Result<(), Failure> {
    if is_json {
        return print_json(&taken_json(taken));
    }
    say(&format!(
        "{} written; {} {} there already",
        HumanBytes(taken.written_bytes),
        count_text(taken.reused_segments, "segment"),
        if taken.reused_segments == 1 { "was" } else { "were" }
    ));
    print_line(&taken.name)
}

/// What is wrong with the file that says whose backups these are keeps nobody from reading them.
pub(super) fn note_mark(target: &Target) {
    if let Err(error) = target.check_mark() {
        let what = error.to_string();
        say(&format!("note: {}; what is read here does not need it", escape::line(&what)));
    }
}

fn list(target: &Target, has_json: bool) -> Result<(), Failure> {
    note_mark(target);
    let mut output = if has_json { Output::json() } else { Output::text() };
    let mut damaged = 0;
    for name in target.names()? {
        let (name, manifest) = match target.backup(Some(&name)) {
            Ok(found) => found,
            // Removed since.
            Err(backup::Error::Missing { .. }) => continue,
            Err(error @ backup::Error::Damaged { .. }) => {
                damaged += 1;
                let what = error.to_string();
                if has_json {
                    let mut object = Object::open(&mut output.buffer);
                    object.text("backup", &name);
                    object.text("damage", &what);
                    object.close();
                    output.buffer.push(b'\n');
                } else {
                    output.lines(&format!("{name}  {}", escape::line(&what)));
                }
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        if has_json {
            let mut object = Object::open(&mut output.buffer);
            describe(&mut object, &name, &manifest);
            object.close();
            output.buffer.push(b'\n');
        } else {
            let at = Timestamp { seconds: manifest.taken_at, nanos: 0 };
            let (first, last) = (manifest.oldest_seq, manifest.head_seq);
            let bytes = HumanBytes(manifest.bytes());
            output.lines(&format!("{name}  {at}  {first} to {last}  {bytes}"));
        }
    }
    output.flush()?;
    if damaged > 0 {
        let what = format!("{} cannot be read", count_text(damaged, "backup"));
        return Err(Failure::new(Exit::Damaged, what).hint("the others are not touched by that"));
    }
    Ok(())
}

fn verify(target: &Target, name: Option<&str>, has_json: bool) -> Result<(), Failure> {
    let interrupt = Interrupt::listen()?;
    let (name, manifest) = target.backup(name)?;
    let bar = bytes_bar("checked");
    let result = backup::check(target, &name, &manifest, |progress| {
        interrupt.check()?;
        show(&bar, progress);
        Ok(())
    });
    bar.finish_and_clear();
    let Checked { oldest, head, bytes } = result.map_err(|error| interrupt.failure(error))?;
    if has_json {
        let mut out = Vec::new();
        let mut object = Object::open(&mut out);
        object.text("backup", &name);
        object.number("oldest_seq", oldest.get());
        object.number("head_seq", head.get());
        object.number("bytes", bytes);
        object.close();
        return print_json(&out);
    }
    print_line(&format!("whole    {name}: {oldest} to {head}, {} read", HumanBytes(bytes)))
}

fn describe(object: &mut Object<'_>, name: &str, manifest: &Manifest) {
    object.text("backup", name);
    object.text("log_id", &manifest.log_id);
    object.time("taken_at", Some(Timestamp { seconds: manifest.taken_at, nanos: 0 }));
    object.number("oldest_seq", manifest.oldest_seq);
    object.number("head_seq", manifest.head_seq);
    object.number("bytes", manifest.bytes());
    object.number("segments", manifest.segments.len() as u64);
}

fn taken_json(taken: &Taken) -> Vec<u8> {
    let mut out = Vec::new();
    let mut object = Object::open(&mut out);
    describe(&mut object, &taken.name, &taken.manifest);
    object.number("written_bytes", taken.written_bytes);
    object.number("reused_segments", taken.reused_segments);
    object.close();
    out
}

/// `what` is a participle.
pub(super) fn show(bar: &ProgressBar, progress: Progress) {
    progress::show(bar, progress.done_bytes, progress.total_bytes);
}

impl From<backup::Error> for Failure {
    fn from(error: backup::Error) -> Self {
        let text = escape::line(&error.to_string()).into_owned();
        match error {
            backup::Error::Store(error) => error.into(),
            backup::Error::Inspect(error) => error.into(),
            backup::Error::Tail(error) => error.into(),
            backup::Error::Place(error) => of_place(&error),
            backup::Error::NoBackups { .. } => Failure::new(Exit::NotFound, text)
                .hint("`tailmark backup PLACE` takes one; what was cut is none before it is run again to its end"),
            backup::Error::Missing { .. } | backup::Error::Removed { .. } => {
                Failure::new(Exit::NotFound, text)
                    .hint("`tailmark backup list PLACE` shows what is there")
            }
            backup::Error::Mark { .. } => Failure::new(Exit::Damaged, text).hint(
                "the backups can be read and restored all the same; `tailmark backup PLACE` of the same log writes the file anew",
            ),
            backup::Error::Busy { .. } => Failure::new(Exit::Unavailable, text)
                .hint(
                "wait until that is through, and run it again; what a killed program has left there counts for a day, unless you remove it",
            ),
            backup::Error::OneBackup { .. } => {
                Failure::new(Exit::Usage, text).hint("remove the file")
            }
            backup::Error::Foreign { .. } | backup::Error::OtherLog { .. } => {
                Failure::new(Exit::Usage, text).hint("name an empty directory, or one for each log")
            }
            backup::Error::Within { .. } => Failure::new(Exit::Usage, text)
                .hint("what lies within the other is lost with it: name a place of its own"),
            backup::Error::Exists { .. } => {
                Failure::new(Exit::Usage, text).hint("a file holds one backup: name another")
            }
            backup::Error::NoCloud { .. } => Failure::new(Exit::Usage, text)
                .hint("build tailmark with `cargo build --release --features cloud`"),
            backup::Error::Address { .. } => Failure::new(Exit::Usage, text)
                .hint("say s3://BUCKET/FOLDER, gs://BUCKET/FOLDER or az://CONTAINER/FOLDER"),
            backup::Error::Damaged { .. } => Failure::new(Exit::Damaged, text)
                .hint(
                    "another backup may be whole: `tailmark backup verify PLACE --backup NAME`; a damaged segment that the log still \
                     has is stored anew if you remove its folder and run `tailmark backup` again",
                ),
            backup::Error::Senseless { .. } => Failure::new(Exit::Failure, text)
                .hint("run it again: it goes on with what is whole"),
            _ => Failure::new(Exit::Usage, text),
        }
    }
}

/// What a directory or a store refuses concerns backups, not the log.
fn of_place(error: &StoreError) -> Failure {
    let exit = match error {
        StoreError::Locked { .. } => Exit::Unavailable,
        StoreError::Io { source, .. } => match source.kind() {
            io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => Exit::Usage,
            _ => Exit::Failure,
        },
        _ => Exit::Failure,
    };
    let failure = Failure::new(exit, escape::line(&error.to_string()));
    let failure = match std::error::Error::source(error) {
        Some(source) => failure.because(source),
        None => failure,
    };
    failure.hint(match error {
        StoreError::Locked { .. } => "a backup is being taken there, or old ones are being removed: wait until that is through",
        _ => "what is whole there stays so; run it again when that is mended, and it goes on",
    })
}
