//! `tailmark log salvage`.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use indicatif::ProgressBar;

use super::super::output::{count_text, events_text, print_json, say};
use super::super::progress;
use super::export::{erasure, span, tell_erasing};
use super::{Exit, Failure, Interrupt, Salvage, span_text, write_damage};
use crate::escape;
use crate::inspect::owner;
use tailmark_log::storage::local::ERASING_FILE;
use tailmark_log::storage::salvage::{Lost, Progress, Salvaged, salvage};
use tailmark_log::storage::{Damage, StoreError};
use tailmark_record::json::Object;

/// People look at the first of a long list; the report has all of it.
const SHOWN: usize = 20;

pub(super) fn run(args: &Salvage) -> Result<(), Failure> {
    if let Some(pid) = owner(&args.from) {
        let (path, owner) = (args.from.clone(), Some(pid));
        return Err(Failure::from(StoreError::Locked { path, owner })
            .hint("stop the daemon first: what it changes meanwhile would be missing"));
    }
    let report = args.report.as_deref().map(|path| Ok((path, create(path)?)));
    let report = report.transpose().map_err(|(path, error)| unwritable(path, &error))?;
    let interrupt = Interrupt::listen()?;
    let bar = Bar::new();
    let result = salvage(&args.from, &args.to, args.room.options(), &mut |progress| {
        interrupt.check()?;
        bar.show(progress);
        Ok(())
    });
    bar.end();
    let done = match result {
        Ok(done) => done,
        Err(error) => {
            if let Some((path, _)) = &report {
                // It says nothing.
                let _ = std::fs::remove_file(path);
            }
            return Err(interrupt.failure(args.room.hint(error)));
        }
    };
    let json = json(&done);
    if let Some((path, mut file)) = report {
        let written = file.write_all(&json).and_then(|()| file.write_all(b"\n"));
        if let Err(error) = written.and_then(|()| file.sync_all()) {
            // Nobody will be told again what is lost: the new log is there.
            let _ = std::fs::remove_file(path);
            print_json(&json)?;
            let failure = unwritable(path, &error);
            return Err(failure
                .hint("the new log is made, and the report stands on standard output: keep it"));
        }
    }
    if args.json {
        print_json(&json)?;
    } else {
        tell(&done, &args.to);
    }
    let lost = lost_now(&done);
    match &done.unknown_end {
        None if lost == 0 => Ok(()),
        None => Err(Failure::new(Exit::Damaged, format!("{} lost", events_text(lost)))
            .hint("the new log is whole but for those; readers are told where they were")),
        Some(end) => {
            let known =
                if lost == 0 { String::new() } else { format!("{} lost; ", events_text(lost)) };
            let what =
                format!("{known}events from {} on may be lost: the end is not known", end.from);
            Err(Failure::new(Exit::Damaged, what).hint(
                "the new log is whole but for those; who has seen any of them hears LOG_DIVERGED",
            ))
        }
    }
}

/// Events that no earlier salvage had lost already.
fn lost_now(done: &Salvaged) -> u64 {
    let new = done.lost.iter().filter(|lost| !lost.is_old);
    new.map(|lost| lost.from.distance_to(lost.to.next())).sum()
}

fn create(path: &Path) -> Result<File, (&Path, io::Error)> {
    OpenOptions::new().write(true).create_new(true).open(path).map_err(|error| (path, error))
}

fn unwritable(path: &Path, error: &io::Error) -> Failure {
    let name = path.display().to_string();
    let exit = match error.kind() {
        io::ErrorKind::AlreadyExists => Exit::Usage,
        _ => Exit::Failure,
    };
    Failure::new(exit, format!("cannot write {}", escape::name(&name))).because(error)
}

fn tell(done: &Salvaged, to: &Path) {
    let to = to.display().to_string();
    say(&format!(
        "salvaged: {}{} into {}; generation {} begins with seq {}",
        events_text(done.events),
        span(done.oldest, done.head),
        escape::name(&to),
        done.generation,
        done.generation_first,
    ));
    for lost in done.lost.iter().take(SHOWN) {
        say(&lost_text(lost));
    }
    if done.lost.len() > SHOWN {
        let more = count_text((done.lost.len() - SHOWN) as u64, "range");
        say(&format!("lost: {more} more; --report FILE keeps all of it"));
    }
    if let Some(end) = &done.unknown_end {
        say(&format!(
            "lost: all events from {} on, if there were any: {}",
            end.from,
            cause_text(end)
        ));
    }
    tell_erasing(done.erasing.as_deref());
    if done.damage.iter().any(|damage| damage.file.ends_with(ERASING_FILE)) {
        say("an erasure was not through, and its order cannot be read: erase those events again");
    }
    if !done.keeps_trim_mark {
        say(&format!(
            "the newest trim mark is not known: the log begins with seq {}, and what had been trimmed may be readable again",
            done.oldest,
        ));
    }
    if !done.keeps_state {
        say("the end of the journal is not whole: producers are told that they are not known");
    }
    if !done.keeps_key {
        say("no copy of log.meta is left: repeats of trimmed events are not told any more");
    }
}

fn lost_text(lost: &Lost) -> String {
    let range = span_text(lost.from, lost.to);
    if lost.is_old {
        return format!("gone before: {range}");
    }
    match lost.causes.first() {
        None => format!("lost: {range}: no file has them"),
        Some(cause) => format!("lost: {range}: {}", cause_text(cause)),
    }
}

fn cause_text(cause: &Damage) -> String {
    let file = cause.file.display().to_string();
    format!("{}: {}", escape::name(&file), escape::line(&cause.detail))
}

pub(super) struct Bar(ProgressBar);

impl Bar {
    pub(super) fn new() -> Bar {
        Bar(progress::bar(None, "{spinner} {bytes} looked through, {bytes_per_sec}"))
    }

    pub(super) fn show(&self, progress: Progress) {
        match progress {
            Progress::Looking(bytes) => self.0.set_position(bytes),
            Progress::Copying(bytes, total) => {
                if self.0.length() != Some(total) {
                    if self.0.length().is_none() {
                        // Its own rate and time.
                        self.0.reset();
                        let template = "{bar:30} {bytes} of {total_bytes} salvaged, {bytes_per_sec}, {eta} left";
                        progress::restyle(&self.0, template);
                    }
                    self.0.set_length(total);
                }
                self.0.set_position(bytes);
            }
            Progress::Joining(bytes, total) => progress::show(&self.0, bytes, total),
        }
    }

    pub(super) fn end(self) {
        self.0.finish_and_clear();
    }
}

/// A range, or all behind a seq.
enum LostRow<'a> {
    Range(&'a Lost),
    Open(&'a Damage),
}

fn json(done: &Salvaged) -> Vec<u8> {
    let mut out = Vec::new();
    let mut object = Object::open(&mut out);
    object.text("log_id", &done.log.to_string());
    object.number("oldest_seq", done.oldest.get());
    object.number("head_seq", done.head.get());
    object.unsigned("generation", u32::from(done.generation));
    object.number("generation_first_seq", done.generation_first.get());
    object.number("events", done.events);
    object.number("lost_events", lost_now(done));
    let known = done.lost.iter().map(LostRow::Range);
    let rows: Vec<_> = known.chain(done.unknown_end.iter().map(LostRow::Open)).collect();
    object.objects("lost", &rows, |object, row| match row {
        LostRow::Range(lost) => {
            object.number("from_seq", lost.from.get());
            object.number("to_seq", lost.to.get());
            object.number("events", lost.from.distance_to(lost.to.next()));
            object.flag("is_old", lost.is_old);
            object.objects("causes", &lost.causes, write_damage);
        }
        LostRow::Open(end) => {
            object.number("from_seq", end.from.get());
            object.objects("causes", std::slice::from_ref(*end), write_damage);
        }
    });
    object.objects("damage", &done.damage, write_damage);
    object.text("erasure", &erasure(done.erasing.as_deref()));
    object.flag("keeps_producers", done.keeps_state);
    object.flag("keeps_repeats", done.keeps_key);
    object.flag("keeps_trim_mark", done.keeps_trim_mark);
    object.close();
    out
}
