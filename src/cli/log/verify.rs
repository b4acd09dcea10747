//! `tailmark log verify`.

use std::io;
use std::time::Instant;

use indicatif::HumanBytes;

use super::super::output::{Output, count_text, print_line};
use super::super::progress::{bytes_bar, show};
use super::{Exit, Failure, Interrupt, Verify, write_damage};
use crate::escape;
use crate::inspect::{Verified, verify};
use tailmark_log::storage::Damage;
use tailmark_record::json::Object;

pub(super) fn run(args: &Verify) -> Result<(), Failure> {
    let begun = Instant::now();
    let interrupt = Interrupt::listen()?;
    let bar = bytes_bar("checked");
    let result = verify(&args.data_dir.path, |progress, damage| {
        interrupt.check()?;
        show(&bar, progress.done_bytes, progress.total_bytes);
        damage.map_or(Ok(()), |damage| bar.suspend(|| print_damage(damage, args.json)))
    });
    bar.finish_and_clear();
    let report = result.map_err(|error| interrupt.failure(error))?;
    if args.json {
        let mut output = Output::json();
        write_result(&mut output.buffer, &report);
        output.flush()?;
    } else {
        print_line(&summary(&report, begun.elapsed().as_secs_f64()))?;
    }
    if report.is_clean() {
        return Ok(());
    }
    let count = report.damage.len();
    let ranges = if count == 1 { "range is" } else { "ranges are" };
    Err(Failure::new(Exit::Damaged, format!("{count} {ranges} damaged"))
        .hint("nothing was changed; `tailmark log dump` prints all that can be read"))
}

fn print_damage(damage: &Damage, has_json: bool) -> io::Result<()> {
    if has_json {
        let mut output = Output::json();
        let mut object = Object::open(&mut output.buffer);
        object.object("damage", |object| write_damage(object, damage));
        object.close();
        output.buffer.push(b'\n');
        output.flush()
    } else {
        let mut output = Output::text();
        let file = damage.file.display().to_string();
        let text = format!(
            "damaged  {}\n         {}\n         {}",
            damage.range(),
            escape::name(&file),
            escape::line(&damage.detail)
        );
        output.lines(&text);
        output.flush()
    }
}

fn summary(report: &Verified, seconds: f64) -> String {
    let mut lines: Vec<String> =
        report.notes.iter().map(|note| format!("note     {}", escape::line(note))).collect();
    lines.push(format!(
        "{}  {} to {}: {} in {} and {}, {} read in {seconds:.1} s",
        if report.is_clean() { "clean  " } else { "damaged" },
        report.oldest,
        report.head,
        count_text(report.events, "event"),
        count_text(report.segments, "segment"),
        count_text(report.slots, "slot"),
        HumanBytes(report.bytes),
    ));
    lines.join("\n")
}

fn write_result(out: &mut Vec<u8>, report: &Verified) {
    let mut object = Object::open(out);
    object.object("result", |object| {
        object.flag("clean", report.is_clean());
        object.text("log_id", &report.log.map(|log| log.to_string()).unwrap_or_default());
        object.number("oldest_seq", report.oldest.get());
        object.number("head_seq", report.head.get());
        object.number("segments", report.segments);
        object.number("slots", report.slots);
        object.number("events", report.events);
        object.number("bytes", report.bytes);
        object.number("damaged_ranges", report.damage.len() as u64);
        object.texts("notes", &report.notes);
    });
    object.close();
    out.push(b'\n');
}
