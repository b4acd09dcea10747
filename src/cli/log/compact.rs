//! `tailmark log compact-offline`.

use indicatif::HumanBytes;

use super::super::output::{count_text, events_text, print_json, print_line};
use super::export::span;
use super::salvage::Bar;
use super::{Compact, Failure, Interrupt};
use crate::escape;
use crate::inspect::owner;
use tailmark_log::storage::StoreError;
use tailmark_log::storage::compact::{Compacted, compact};
use tailmark_record::json::Object;

pub(super) fn run(args: &Compact) -> Result<(), Failure> {
    if let Some(pid) = owner(&args.from) {
        let (path, owner) = (args.from.clone(), Some(pid));
        return Err(Failure::from(StoreError::Locked { path, owner }).hint(
            "stop the daemon first; while it runs it gives space back by itself, see `[[retention.topics]]`",
        ));
    }
    let interrupt = Interrupt::listen()?;
    let bar = Bar::new();
    let result = compact(&args.from, &args.to, args.room.options(), &mut |progress| {
        interrupt.check()?;
        bar.show(progress);
        Ok(())
    });
    bar.end();
    let done = result.map_err(|error| interrupt.failure(args.room.hint(error)))?;
    if args.json {
        return print_json(&json(&done));
    }
    let to = args.to.display().to_string();
    print_line(&format!(
        "compacted: {}{} into {}; {} of {} where there were {} of {}; generation {} begins with seq {}",
        events_text(done.copied.events),
        span(done.copied.oldest, done.copied.head),
        escape::name(&to),
        count_text(done.segments.1, "segment"),
        HumanBytes(done.bytes.1),
        done.segments.0,
        HumanBytes(done.bytes.0),
        done.copied.generation,
        done.copied.generation_first,
    ))
}

fn json(done: &Compacted) -> Vec<u8> {
    let mut out = Vec::new();
    let mut object = Object::open(&mut out);
    object.text("log_id", &done.copied.log.to_string());
    object.number("oldest_seq", done.copied.oldest.get());
    object.number("head_seq", done.copied.head.get());
    object.unsigned("generation", u32::from(done.copied.generation));
    object.number("events", done.copied.events);
    object.number("segments_before", done.segments.0);
    object.number("segments", done.segments.1);
    object.number("bytes_before", done.bytes.0);
    object.number("bytes", done.bytes.1);
    object.close();
    out
}
