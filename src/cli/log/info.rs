//! `tailmark log info`.

use comfy_table::{CellAlignment, Table, presets};
use indicatif::HumanBytes;

use super::super::output::{print_json, print_line};
use super::{Exit, Failure, Info as Args, write_damage};
use crate::escape;
use crate::inspect::{CopyInfo, Info, LastStop, SegmentInfo, SlotInfo, info};
use tailmark_log::storage::Removed;
use tailmark_log::storage::place::Place;
use tailmark_record::json::Object;
use tailmark_record::{GapReason, GenerationEntry, Timestamp};

/// People look at the ends of a long list; `--json` has all of it.
const SHOWN_SEGMENTS: usize = 20;

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let info = info(&args.data_dir.path)?;
    if args.json {
        print_json(&json(&info))?;
    } else {
        print_line(&text(&info))?;
    }
    match info.damage.len() {
        0 => Ok(()),
        1 => Err(Failure::new(Exit::Damaged, "1 problem found")),
        count => Err(Failure::new(Exit::Damaged, format!("{count} problems found"))),
    }
    .map_err(|failure| failure.hint("nothing was changed; `tailmark log verify` looks closer"))
}

fn text(info: &Info) -> String {
    let mut parts = vec![heading(info), generations(&info.generations)];
    if !info.segments.is_empty() {
        parts.push(segments(&info.segments));
    }
    if !info.removed.is_empty() {
        let lines = info.removed.iter().map(|range| format!("gone: {range}"));
        parts.push(lines.collect::<Vec<_>>().join("\n"));
    }
    if !info.slots.is_empty() {
        parts.push(slots(&info.slots));
    }
    if !info.quarantine.is_empty() {
        let files = info.quarantine.iter();
        let lines =
            files.map(|file| format!("  {}  {}", escape::name(&file.name), size(file.bytes)));
        parts.push(format!("quarantine\n{}", lines.collect::<Vec<_>>().join("\n")));
    }
    if info.meta_is_stale {
        parts.push("log.meta is missing, damaged or behind; the next start rebuilds it".to_owned());
    }
    for damage in &info.damage {
        let file = damage.file.display().to_string();
        let (range, detail) = (damage.range(), escape::line(&damage.detail));
        parts.push(format!("problem: {range} in {}: {detail}", escape::name(&file)));
    }
    parts.join("\n\n")
}

fn heading(info: &Info) -> String {
    let at = |time: Option<Timestamp>| time.map(|t| format!("  ({t})")).unwrap_or_default();
    let unknown = || "unknown: neither log.meta nor the journal has it".to_owned();
    let mut lines = vec![
        ("log", info.log.map_or_else(unknown, |log| log.to_string())),
        ("directory", escape::name(&info.dir.display().to_string()).into_owned()),
        ("format", info.format.to_string()),
    ];
    if let Some(created) = info.created_at {
        lines.push(("created", created.to_string()));
    }
    if let Some(copy) = &info.copy {
        lines.push(("copy of", copy_of(copy)));
    }
    if info.events() == 0 {
        lines.push(("events", format!("none; the next one gets {}", info.head.next())));
    } else {
        lines.push(("oldest", format!("{}{}", info.oldest, at(info.oldest_at))));
        lines.push(("head", format!("{}{}", info.head, at(info.head_at))));
        lines.push(("events", info.events().to_string()));
    }
    lines.push(("last stop", last_stop(info)));
    lines.push(("on disk", size(info.disk_bytes)));
    if let Some(ratio) = info.compression_ratio() {
        lines.push(("sealed", format!("{ratio:.2} bytes of events for each byte on disk")));
    }
    let lines: Vec<_> =
        lines.iter().map(|(name, value)| format!("{name:12} {}", escape::line(value))).collect();
    lines.join("\n")
}

fn copy_of(copy: &CopyInfo) -> String {
    let journal = escape::name(&copy.journal);
    match copy.place {
        None => format!("the shared journal {journal}, and does not say how far it has come"),
        Some(Place { slot: 0, .. }) => {
            format!("the shared journal {journal}, of which it has nothing yet")
        }
        Some(Place { slot, term, .. }) => {
            format!("the shared journal {journal}, up to its slot {slot}, in term {term}")
        }
    }
}

fn last_stop(info: &Info) -> String {
    match info.last_stop {
        LastStop::Running(pid) => format!("none: open in process {pid}"),
        LastStop::Clean => "clean".to_owned(),
        LastStop::Unclean => {
            "not clean (killed, or a crash); what was acknowledged is there".to_owned()
        }
    }
}

fn size(bytes: u64) -> String {
    HumanBytes(bytes).to_string()
}

fn generations(entries: &[GenerationEntry]) -> String {
    let mut table = plain(&["GENERATION", "NONCE", "FROM SEQ", "SINCE", "CAUSE"]);
    for entry in entries {
        table.add_row([
            entry.generation.counter.to_string(),
            format!("{:08x}", entry.generation.nonce),
            entry.first.to_string(),
            entry.since.to_string(),
            escape::name(&entry.cause).into_owned(),
        ]);
    }
    lines_of(&mut table, &[0, 2])
}

fn segments(all: &[SegmentInfo]) -> String {
    // Where rules for topics took something out.
    let has_gone = all.iter().any(|segment| segment.removed_events > 0);
    let gone = has_gone.then_some("GONE");
    let columns = ["SEGMENT", "EVENTS", "FROM", "TO", "TOPICS", "RAW", "ON DISK"].into_iter();
    let mut table = plain(&columns.chain(gone).collect::<Vec<_>>());
    let left_out = all.len().saturating_sub(SHOWN_SEGMENTS);
    let head = if left_out > 0 { SHOWN_SEGMENTS / 2 } else { all.len() };
    for (at, segment) in all.iter().enumerate() {
        if (head..head + left_out).contains(&at) {
            if at == head {
                table.add_row([format!("... {left_out} more")]);
            }
            continue;
        }
        let row = [
            segment.name.clone(),
            format!("{} to {}", segment.first, segment.last),
            segment.first_at.to_string(),
            segment.last_at.to_string(),
            segment.topics.to_string(),
            size(segment.raw_bytes),
            size(segment.disk_bytes),
        ];
        let gone = has_gone.then(|| segment.removed_events.to_string());
        table.add_row(row.into_iter().chain(gone));
    }
    lines_of(&mut table, if has_gone { &[4, 5, 6, 7] } else { &[4, 5, 6] })
}

fn slots(all: &[SlotInfo]) -> String {
    let mut table = plain(&["SLOT", "STATE", "NUMBER", "EVENTS", "USED", "OF", ""]);
    for slot in all {
        let seqs = slot.seqs.map(|(first, last)| format!("{first} to {last}"));
        let torn = match slot.torn_bytes {
            0 => String::new(),
            bytes => format!("then up to {} of a write that is not whole", size(bytes)),
        };
        table.add_row([
            slot.name.clone(),
            slot.state.as_str().to_owned(),
            if slot.number == 0 { String::new() } else { slot.number.to_string() },
            seqs.unwrap_or_default(),
            size(slot.used_bytes),
            size(slot.file_bytes),
            torn,
        ]);
    }
    lines_of(&mut table, &[2, 4, 5])
}

fn plain(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header);
    table
}

fn lines_of(table: &mut Table, right: &[usize]) -> String {
    for &column in right {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

fn json(info: &Info) -> Vec<u8> {
    let mut out = Vec::new();
    let mut object = Object::open(&mut out);
    object.text("log_id", &info.log.map(|log| log.to_string()).unwrap_or_default());
    object.text("data_dir", &info.dir.display().to_string());
    object.unsigned("format", info.format);
    object.time("created_at", info.created_at);
    if let Some(copy) = &info.copy {
        object.object("copy", |object| {
            object.text("journal", &copy.journal);
            if let Some(place) = copy.place {
                object.number("slot", place.slot);
                object.text("chain", &place.chain.to_string());
                object.number("term", place.term);
                object.number("writer", place.writer);
            }
        });
    }
    object.objects("generations", &info.generations, |object, entry| {
        object.unsigned("counter", u32::from(entry.generation.counter));
        object.unsigned("nonce", entry.generation.nonce);
        object.number("first_seq", entry.first.get());
        object.time("since", Some(entry.since));
        object.text("cause", &entry.cause);
    });
    object.number("oldest_seq", info.oldest.get());
    object.number("head_seq", info.head.get());
    object.time("oldest_time", info.oldest_at);
    object.time("head_time", info.head_at);
    object.number("events", info.events());
    match info.last_stop {
        LastStop::Running(pid) => {
            object.text("last_stop", "running");
            object.unsigned("pid", pid);
        }
        LastStop::Clean => object.text("last_stop", "clean"),
        LastStop::Unclean => object.text("last_stop", "unclean"),
    }
    object.number("slot_bytes", info.slot_bytes);
    object.number("disk_bytes", info.disk_bytes);
    object.objects("segments", &info.segments, write_segment);
    object.objects("removed", &info.removed, write_removed);
    object.objects("slots", &info.slots, write_slot);
    object.objects("quarantine", &info.quarantine, |object, file| {
        object.text("file", &file.name);
        object.number("bytes", file.bytes);
    });
    object.flag("meta_is_stale", info.meta_is_stale);
    object.objects("damage", &info.damage, write_damage);
    object.close();
    out
}

fn write_segment(object: &mut Object<'_>, segment: &SegmentInfo) {
    object.text("name", &segment.name);
    object.number("first_seq", segment.first.get());
    object.number("last_seq", segment.last.get());
    object.time("first_time", Some(segment.first_at));
    object.time("last_time", Some(segment.last_at));
    object.number("topics", segment.topics);
    object.number("raw_bytes", segment.raw_bytes);
    object.number("disk_bytes", segment.disk_bytes);
    object.number("removed_events", segment.removed_events);
    object.text("chain", &segment.link.to_string());
}

fn write_removed(object: &mut Object<'_>, range: &Removed) {
    object.number("first_seq", range.first.get());
    object.number("last_seq", range.end.prev().get());
    object.text("reason", GapReason::from(range.reason).name().unwrap_or_default());
}

fn write_slot(object: &mut Object<'_>, slot: &SlotInfo) {
    object.text("name", &slot.name);
    object.text("state", slot.state.as_str());
    object.number("number", slot.number);
    if let Some((first, last)) = slot.seqs {
        object.number("first_seq", first.get());
        object.number("last_seq", last.get());
    }
    object.number("used_bytes", slot.used_bytes);
    object.number("file_bytes", slot.file_bytes);
    object.number("torn_bytes", slot.torn_bytes);
}
