//! `tailmark log import`.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use indicatif::ProgressBar;

use super::super::output::{events_text, print_json, print_line};
use super::super::progress;
use super::export::{erasure, gone, span, tell_erasing};
use super::{Exit, Failure, Import, Interrupt};
use crate::escape;
use crate::export::{Imported, import};
use tailmark_record::json::Object;

const READ_BYTES: usize = 256 << 10;

pub(super) fn run(args: &Import) -> Result<(), Failure> {
    let (input, size) = open(&args.file)?;
    let interrupt = Interrupt::listen()?;
    let bar = bytes_bar(size);
    let input = BufReader::with_capacity(READ_BYTES, input);
    let result = import(input, &args.data_dir, args.room.options(), |bytes| {
        interrupt.check()?;
        bar.set_position(bytes);
        Ok(())
    });
    bar.finish_and_clear();
    let done = result.map_err(|error| interrupt.failure(args.room.hint(error)))?;
    tell_erasing(done.erasing.as_deref());
    if args.json {
        return print_json(&json(&done));
    }
    let dir = args.data_dir.display().to_string();
    print_line(&format!(
        "imported: {}{}{} into {}",
        events_text(done.events),
        span(done.first, done.last),
        gone(done.removed),
        escape::name(&dir)
    ))
}

fn open(path: &Path) -> Result<(Box<dyn Read>, Option<u64>), Failure> {
    if path.as_os_str() == "-" {
        return Ok((Box::new(std::io::stdin()), None));
    }
    let unreadable = |error: std::io::Error| {
        let name = path.display().to_string();
        let exit = match error.kind() {
            std::io::ErrorKind::NotFound => Exit::NotFound,
            _ => Exit::Failure,
        };
        Failure::new(exit, format!("cannot read {}", escape::name(&name))).because(&error)
    };
    let file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    let size = metadata.is_file().then_some(metadata.len());
    Ok((Box::new(file), size))
}

fn bytes_bar(size: Option<u64>) -> ProgressBar {
    match size {
        Some(size) => {
            let bar = progress::bytes_bar("imported");
            bar.set_length(size);
            bar
        }
        None => progress::bar(None, "{spinner} {bytes} imported, {bytes_per_sec}"),
    }
}

fn json(done: &Imported) -> Vec<u8> {
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
