//! `tailmark log export`.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::output::{events_text, of_stdout, print_json, say};
use super::super::progress::{events_bar, show};
use super::{Exit, Export, ExportFormat, Failure, Interrupt};
use crate::escape;
use crate::export::{Exported, Format, export};
use crate::inspect::Range;
use tailmark_log::storage::EraseOrder;
use tailmark_log::storage::disk::Disk;
use tailmark_log::storage::syncer::Growing;
use tailmark_record::Seq;
use tailmark_record::json::Object;

pub(super) fn run(args: &Export) -> Result<(), Failure> {
    let range = Range { from: args.from, to: args.to };
    let format = match args.format {
        ExportFormat::Jsonl => Format::Jsonl,
        ExportFormat::Protobuf => Format::Protobuf,
    };
    let interrupt = Interrupt::listen()?;
    let bar = events_bar("exported");
    let mut target = Target::open(args.output.as_deref())?;
    let result = export(&args.data_dir.path, range, format, &mut target, |events, total| {
        interrupt.check()?;
        show(&bar, events, total);
        Ok(())
    });
    bar.finish_and_clear();
    // What was written has no end then, and says so.
    let done = result.map_err(|error| interrupt.failure(error))?;
    target.keep()?;
    if let Some(order) = &done.erasing {
        let (id, events) = (order.id, events_text(order.events()));
        say(&format!(
            "note: the erasure {id} of {events} is not through: what it names may be in the export; `import --exact` goes on with it"
        ));
    }
    if args.json {
        return print_json(&json(&done));
    }
    let (gone, span) = (gone(done.removed), span(done.first, done.last));
    say(&format!("exported: {}{span}{gone}", events_text(done.events)));
    Ok(())
}

/// `, seq 5 to 9`.
pub(super) fn span(first: Seq, last: Seq) -> String {
    if last < first { String::new() } else { format!(", seq {first} to {last}") }
}

/// What is still to be erased in a log that was made of another.
pub(in crate::cli) fn tell_erasing(erasing: Option<&EraseOrder>) {
    if let Some(order) = erasing {
        let (id, events) = (order.id, events_text(order.events()));
        say(&format!(
            "note: the erasure {id} of {events} was not through: the daemon goes on with it when it starts there"
        ));
    }
}

/// Its name, for reports.
pub(in crate::cli) fn erasure(erasing: Option<&EraseOrder>) -> String {
    erasing.map(|order| order.id.to_string()).unwrap_or_default()
}

/// `; 7 are gone`.
pub(super) fn gone(removed: u64) -> String {
    if removed == 0 { String::new() } else { format!("; {removed} between them are gone") }
}

fn json(done: &Exported) -> Vec<u8> {
    let mut out = Vec::new();
    let mut object = Object::open(&mut out);
    object.number("first_seq", done.first.get());
    object.number("last_seq", done.last.get());
    object.number("events", done.events);
    object.number("removed", done.removed);
    object.text("erasure", &erasure(done.erasing.as_deref()));
    object.close();
    out
}

/// Where an export goes. A file has its name when all of it is there.
enum Target {
    Stdout,
    File { file: Growing, beside: PathBuf, path: PathBuf },
}

impl Target {
    fn open(path: Option<&Path>) -> Result<Target, Failure> {
        let Some(path) = path else { return Ok(Target::Stdout) };
        if path.symlink_metadata().is_ok() {
            let name = path.display().to_string();
            return Err(Failure::new(
                Exit::Usage,
                format!("{} is there already", escape::name(&name)),
            ));
        }
        let mut beside = path.as_os_str().to_owned();
        beside.push(".unfinished");
        let beside = PathBuf::from(beside);
        // Of an export that was cut; a link goes, and not what it names.
        match std::fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(unwritable(&beside, &error));
            }
            _ => {}
        }
        // It has all that the log has: nobody else's, and nobody else reads it.
        let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside);
        let file = opened.map_err(|error| unwritable(&beside, &error))?;
        let file = Growing::new(Arc::new(file), beside.clone(), &Disk::real(), &Arc::default());
        Ok(Target::File { file, beside, path: path.to_owned() })
    }

    fn keep(self) -> Result<(), Failure> {
        let Target::File { file, beside, path } = self else { return Ok(()) };
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        file.finish()?;
        let kept = std::fs::rename(&beside, &path)
            .and_then(|()| File::open(parent.unwrap_or(Path::new(".")))?.sync_all());
        kept.map_err(|error| unwritable(&path, &error))
    }
}

fn of_file(path: &Path, error: &io::Error) -> io::Error {
    let name = path.display().to_string();
    io::Error::new(error.kind(), format!("{}: {error}", escape::name(&name)))
}

fn unwritable(path: &Path, error: &io::Error) -> Failure {
    let name = path.display().to_string();
    Failure::new(Exit::Failure, format!("cannot write {}", escape::name(&name))).because(error)
}

impl Write for Target {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Target::Stdout => io::stdout().write(bytes).map_err(of_stdout),
            Target::File { file, path, .. } => {
                let written = file.file().write(bytes).and_then(|n| file.wrote(n).map(|()| n));
                written.map_err(|error| of_file(path, &error))
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Target::Stdout => io::stdout().flush().map_err(of_stdout),
            Target::File { .. } => Ok(()),
        }
    }
}
