//! Salvage of damaged images: what is lost is what the damage took, event for event.
//!
//! What an image must lose is told from the bytes alone, by a reading of the format of its own: which commits
//! and blocks the changed bytes belong to, and which events are in no other that is whole.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use rand::RngExt;
use rand::rngs::StdRng;
use tailmark_log::storage::disk::Disk;
use tailmark_log::storage::journal::{Known, Scan, read_header, scan_slot};
use tailmark_log::storage::salvage::{Salvaged, salvage};
use tailmark_log::storage::{Store, StoreError};
use tailmark_record::topic::Filter;
use tailmark_record::{Event, Events, Seq};

use super::{Damage, Log, options};
use crate::crash::workload;

/// A commit or a block: what it takes to read it, and its events.
#[derive(Debug)]
struct Unit {
    file: usize,
    /// Ranges of bytes; of each of these lists one must be whole.
    bytes: Vec<Vec<(usize, usize)>>,
    /// What of that is to be struck.
    body: usize,
    first: u64,
    end: u64,
}

/// Where every event of a log lies, and its stored bytes.
pub struct Layout {
    units: Vec<Unit>,
    events: BTreeMap<u64, Vec<u8>>,
}

const HEADER: usize = 48;
const PART: usize = 65_488;
const SLOT_HEAD: usize = 160;
const PAGE: usize = 4096;

fn u16_at(bytes: &[u8], at: usize) -> usize {
    u16::from_le_bytes([bytes[at], bytes[at + 1]]).into()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

impl Layout {
    /// Of an intact log, which is in `dir`.
    pub fn of(log: &Log, dir: &Path) -> Layout {
        let mut units = Vec::new();
        for (file, (name, bytes)) in log.files.iter().enumerate() {
            let shown = name.to_string_lossy();
            if shown.contains("journal/slot-") {
                units.extend(frames(file, &dir.join(name)));
            } else if shown.ends_with("db/db") {
                units.extend(blocks(file, bytes));
            }
        }
        let (engine, _) = workload::open_with(dir, options()).expect("open");
        let mut events = BTreeMap::new();
        let bounds = engine.bounds();
        let mut at = bounds.oldest;
        while at <= bounds.head {
            let chunk = match engine.read(at, bounds.next(), &Filter::ALL) {
                Err(StoreError::Removed(range)) => {
                    at = range.end;
                    continue;
                }
                read => read.expect("a chunk"),
            };
            for event in Events::new(&chunk.events) {
                let event = event.expect("an event");
                events.insert(Event::seq_of(event).expect("a seq").get(), event.to_vec());
            }
            at = chunk.end;
        }
        Layout { units, events }
    }

    /// Damages every copy of some events, drawn at random.
    pub fn strike(&self, events: u64, rng: &mut StdRng) -> Vec<Damage> {
        let mut damages = Vec::new();
        let (first, last) = (self.events.keys().next(), self.events.keys().next_back());
        let (first, last) = (*first.expect("an event"), *last.expect("an event"));
        for _ in 0..events {
            let seq = rng.random_range(first..=last);
            for unit in self.units.iter().filter(|unit| (unit.first..unit.end).contains(&seq)) {
                for &(from, to) in &unit.bytes[unit.body] {
                    let (file, at) = (unit.file, rng.random_range(from..to));
                    damages.push(Damage::Flip { file, at, bits: 1 << rng.random_range(0..8) });
                }
            }
        }
        damages
    }

    /// The events of which no unit is whole in an image.
    pub fn lost(&self, log: &Log, image: &Path) -> BTreeSet<u64> {
        let mut whole = BTreeSet::new();
        for unit in &self.units {
            let (name, old) = &log.files[unit.file];
            let now = std::fs::read(image.join(name)).unwrap_or_default();
            let is_same = |&(from, to): &(usize, usize)| now.get(from..to) == old.get(from..to);
            if unit.bytes.iter().all(|copies| copies.iter().any(is_same)) {
                whole.extend(unit.first..unit.end);
            }
        }
        self.events.keys().copied().filter(|seq| !whole.contains(seq)).collect()
    }
}

/// The commits in a slot, also of one that the log has no need of any more.
fn frames(file: usize, path: &Path) -> Vec<Unit> {
    let (disk, opened) = (Disk::real(), std::fs::File::open(path).expect("a slot"));
    let Ok(Scan::Used(header)) = read_header(&disk, &opened, path) else { return Vec::new() };
    let scan = scan_slot(&disk, &opened, path, &header, Known::default()).expect("a scan");
    assert!(scan.damage.is_empty(), "{scan:?}");
    let heads = vec![(0, SLOT_HEAD), (PAGE, PAGE + SLOT_HEAD)];
    let unit = |frame: tailmark_log::storage::journal::FrameRef| {
        let from = frame.offset as usize;
        let bytes = vec![heads.clone(), vec![(from, from + frame.len as usize)]];
        let (first, end) = (frame.first.get(), frame.end().get());
        Unit { file, bytes, body: 1, first, end }
    };
    scan.frames.into_iter().map(unit).collect()
}

/// The blocks in the file of a database: everywhere where a header with its checksum stands.
fn blocks(file: usize, bytes: &[u8]) -> Vec<Unit> {
    // A database may have old copies of a part.
    type Copies = BTreeMap<usize, Vec<(usize, usize)>>;
    let mut found: BTreeMap<(u64, Vec<u8>), Copies> = BTreeMap::new();
    let mut ends = BTreeMap::new();
    for at in 0..bytes.len().saturating_sub(HEADER) {
        let header = &bytes[at..at + HEADER];
        let is_one = header[0] == 1
            && u16_at(header, 4) == HEADER
            && crc32c::crc32c(&header[..44]) == u32_at(header, 44);
        if !is_one {
            continue;
        }
        let first = u64::from_le_bytes(header[8..16].try_into().expect("eight bytes"));
        let (part, stored) = (u16_at(header, 6), u32_at(header, 24) as usize);
        let len = PART.min(stored - part * PART);
        let key = (first, header[16..40].to_vec());
        ends.insert(key.clone(), first + u64::from(u32_at(header, 16)));
        let parts = found.entry(key).or_default();
        parts.entry(part).or_default().push((at, at + HEADER + len));
    }
    let unit = |(key, parts): ((u64, Vec<u8>), Copies)| {
        let end = ends[&key];
        Unit { file, bytes: parts.into_values().collect(), body: 0, first: key.0, end }
    };
    found.into_iter().map(unit).collect()
}

/// Salvages an image, and holds the result to what it must be. Answers how many events are lost.
pub fn check(log: &Log, layout: &Layout, damages: &[Damage], image: &Path) -> Result<u64, String> {
    let before = super::read_files(image);
    let to = PathBuf::from(format!("{}-salvaged", image.display()));
    let done = salvage(image, &to, options(), &mut |_| Ok(()));
    let result = done.map_err(|error| format!("salvage: {error:?}")).and_then(|done| {
        if super::read_files(image) != before {
            return Err("salvage changed what it reads".to_owned());
        }
        judge(log, layout, damages, image, &done)?;
        holds(log, layout, &done, &to)?;
        Ok(lost_of(&done).len() as u64)
    });
    let _ = std::fs::remove_dir_all(&to);
    result
}

fn lost_of(done: &Salvaged) -> BTreeSet<u64> {
    done.lost.iter().flat_map(|lost| lost.from.get()..=lost.to.get()).collect()
}

fn judge(
    log: &Log,
    layout: &Layout,
    damages: &[Damage],
    image: &Path,
    done: &Salvaged,
) -> Result<(), String> {
    // Where the trim mark was lost, what had been trimmed is said to be lost too.
    let (mut lost, taken) = (lost_of(done), layout.lost(log, image));
    // What was taken out before may lie in what is lost now.
    lost.retain(|seq| *seq >= log.oldest && layout.events.contains_key(seq));
    // What was moved as it is proves itself where it is now: it need not be lost.
    let moves = |it: &Damage| matches!(it, Damage::Swap { .. } | Damage::SwapPages { .. });
    let is_moved = damages.iter().any(moves);
    verdict(&lost, &taken, is_moved)?;
    // The judge is no good if it does not miss one event more, or one less.
    for (control, name) in [(lost.first(), "less"), (layout.events.keys().next_back(), "more")] {
        let mut other = lost.clone();
        let Some(one) = control else { continue };
        if !other.remove(one) {
            other.insert(*one);
        }
        let is_found = verdict(&other, &taken, is_moved).is_err();
        if !is_found && !is_moved {
            return Err(format!("null control: one {name} was not missed"));
        }
    }
    if done.head.get() != log.head {
        return Err(format!("the head is {}, not {}", done.head, log.head));
    }
    if done.oldest.get() > log.oldest && !lost.is_empty() {
        return Err(format!("the oldest is {}, not {}", done.oldest, log.oldest));
    }
    Ok(())
}

fn verdict(lost: &BTreeSet<u64>, taken: &BTreeSet<u64>, is_moved: bool) -> Result<(), String> {
    let more: Vec<_> = lost.difference(taken).take(5).collect();
    if !more.is_empty() {
        return Err(format!("lost without need: {more:?} of {}", lost.len()));
    }
    let less: Vec<_> = taken.difference(lost).take(5).collect();
    if !less.is_empty() && !is_moved {
        return Err(format!("not lost although its bytes are damaged: {less:?}"));
    }
    Ok(())
}

/// A daemon opens it; seen and missing follow on without a hole, every event is byte for byte what it was.
fn holds(log: &Log, layout: &Layout, done: &Salvaged, to: &Path) -> Result<(), String> {
    let opened = workload::open_with(to, options());
    let (engine, _) = opened.map_err(|error| format!("the salvaged log: {error:?}"))?;
    let bounds = engine.bounds();
    if (bounds.oldest, bounds.head) != (done.oldest, done.head) {
        return Err(format!("bounds {bounds:?}"));
    }
    let lost = lost_of(done);
    let (mut at, mut seen) = (bounds.oldest, 0);
    while at <= bounds.head {
        let chunk = match engine.read(at, bounds.next(), &Filter::ALL) {
            Err(StoreError::Removed(range)) => {
                let is_known = |seq: u64| match range.is_intended() {
                    true => workload::may_go(seq) && !layout.events.contains_key(&seq),
                    false => lost.contains(&seq),
                };
                let all_lost = (at.get()..range.end.get()).all(is_known);
                if range.first > at || !all_lost {
                    return Err(format!("at {at}: {range:?}"));
                }
                at = range.end;
                continue;
            }
            read => read.map_err(|error| format!("at {at}: {error:?}"))?,
        };
        if chunk.first != at || !chunk.complete {
            return Err(format!("a read at {at} began at {}", chunk.first));
        }
        for event in Events::new(&chunk.events) {
            let event = event.map_err(|error| error.to_string())?;
            let seq = Event::seq_of(event).map_err(|error| error.to_string())?;
            if lost.contains(&seq.get()) {
                return Err(format!("event {seq} is said to be lost"));
            }
            let wanted = layout.events.get(&seq.get()).map(Vec::as_slice);
            // What was taken out of a block that is damaged now may still be whole in a slot: then it is there again.
            let is_again = wanted.is_none()
                && workload::may_go(seq.get())
                && Event::parse(event).is_ok_and(|it| it.body == workload::body_of(seq.get(), 0));
            // Where the trim mark was lost, there is more than was readable.
            if wanted != Some(event) && !is_again && seq.get() >= log.oldest {
                return Err(format!("event {seq} is another"));
            }
            seen += 1;
        }
        at = chunk.end;
    }
    if seen != done.events {
        return Err(format!("{seen} events, not {}", done.events));
    }
    // It goes on, and the chain with it.
    workload::append(&*engine, workload::commit(&*engine, 4, super::AFTER))
        .map_err(|error| format!("an append: {error:?}"))?;
    let next = Seq::new(log.head + 1);
    engine.read(next, next.next(), &Filter::ALL).map_err(|error| format!("{error:?}"))?;
    engine.close().map_err(|error| format!("{error:?}"))?;
    drop(engine);
    workload::open_with(to, options()).map_err(|error| format!("again: {error:?}"))?;
    Ok(())
}
