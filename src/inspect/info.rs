//! What a data directory has: identity, history, bounds, files. Opens no database.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Error;
use super::cover::look;
use super::owner::owner;
use tailmark_log::chain::Link;
use tailmark_log::storage::disk::Disk;
use tailmark_log::storage::journal::{FrameRef, Tail};
use tailmark_log::storage::local::{Survey, SurveyedSlot};
use tailmark_log::storage::meta::Meta;
use tailmark_log::storage::place::Place;
use tailmark_log::storage::segment::{Segment, removed_from};
use tailmark_log::storage::{Damage, FORMAT_VERSION, Removed, StoreError};
use tailmark_record::{GenerationEntry, LogId, Seq, Timestamp};

/// A sealed segment, as its footer has it.
#[derive(Clone, Debug)]
pub struct SegmentInfo {
    /// Name of its directory.
    pub name: String,
    /// First seq.
    pub first: Seq,
    /// Last seq.
    pub last: Seq,
    /// When its first event was appended.
    pub first_at: Timestamp,
    /// When its last event was appended.
    pub last_at: Timestamp,
    /// How many topics it has.
    pub topics: u64,
    /// Bytes of its events.
    pub raw_bytes: u64,
    /// Bytes of its files.
    pub disk_bytes: u64,
    /// Events that rules for topics took out of it.
    pub removed_events: u64,
    /// The chain at its last event: the same for the same events since the log began, however they are stored.
    pub link: Link,
}

/// What a slot is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotState {
    /// The newest: commits go here, or went here last.
    Active,
    /// Holds events that are not sealed yet.
    Unsealed,
    /// All its events are sealed or trimmed.
    Sealed,
    /// Begun, but nothing of it survived.
    Unbegun,
    /// Holds nothing that the log needs.
    Free,
}

impl SlotState {
    /// In a word.
    pub fn as_str(self) -> &'static str {
        match self {
            SlotState::Active => "active",
            SlotState::Unsealed => "unsealed",
            SlotState::Sealed => "sealed",
            SlotState::Unbegun => "unbegun",
            SlotState::Free => "free",
        }
    }
}

/// A journal slot.
#[derive(Clone, Debug)]
pub struct SlotInfo {
    /// Name of its file.
    pub name: String,
    /// What it is there for.
    pub state: SlotState,
    /// Number of this use of it; 0 if it is free.
    pub number: u64,
    /// First and last seq that it holds, if any.
    pub seqs: Option<(Seq, Seq)>,
    /// Bytes in use.
    pub used_bytes: u64,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Bytes of a write at its end that is not whole.
    pub torn_bytes: u64,
}

/// A file that is kept and not part of the log.
#[derive(Clone, Debug)]
pub struct KeptFile {
    /// Its name.
    pub name: String,
    /// Its length.
    pub bytes: u64,
}

/// How the log was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastStop {
    /// A process has it open.
    Running(u32),
    /// Closed in order.
    Clean,
    /// Not closed: killed, or a crash. Nothing acknowledged is lost by that.
    Unclean,
}

/// What a directory that is a copy says of that.
#[derive(Clone, Debug)]
pub struct CopyInfo {
    /// What people call the journal.
    pub journal: String,
    /// Where in it the copy ends; nothing if it does not say.
    pub place: Option<Place>,
}

/// What a data directory has.
#[derive(Clone, Debug)]
pub struct Info {
    /// The data directory.
    pub dir: PathBuf,
    /// Version of its format.
    pub format: u32,
    /// Identity; nothing if neither `log.meta` nor the journal has it.
    pub log: Option<LogId>,
    /// When the log was created.
    pub created_at: Option<Timestamp>,
    /// The shared journal that it is a copy of; nothing for a log of its own.
    pub copy: Option<CopyInfo>,
    /// Its history, oldest first.
    pub generations: Vec<GenerationEntry>,
    /// First readable seq.
    pub oldest: Seq,
    /// Last seq.
    pub head: Seq,
    /// When the first readable event was appended.
    pub oldest_at: Option<Timestamp>,
    /// When the last event was appended.
    pub head_at: Option<Timestamp>,
    /// How it was left.
    pub last_stop: LastStop,
    /// Bytes of a slot.
    pub slot_bytes: u64,
    /// Sealed segments, in order.
    pub segments: Vec<SegmentInfo>,
    /// Ranges without events, in order.
    pub removed: Vec<Removed>,
    /// Events that were taken out of the oldest segment and lie before `oldest`.
    pub removed_and_trimmed: u64,
    /// Slots, in order of use, the free ones last.
    pub slots: Vec<SlotInfo>,
    /// What was set aside at a start.
    pub quarantine: Vec<KeptFile>,
    /// Bytes of all files.
    pub disk_bytes: u64,
    /// What a look found damaged; `verify` looks closer.
    pub damage: Vec<Damage>,
    /// `log.meta` is missing, damaged or behind, and rebuilt at the next start.
    pub meta_is_stale: bool,
}

impl Info {
    /// Bytes of sealed events for each byte on disk; nothing if none is sealed.
    pub fn compression_ratio(&self) -> Option<f64> {
        let disk: u64 = self.segments.iter().map(|segment| segment.disk_bytes).sum();
        let raw: u64 = self.segments.iter().map(|segment| segment.raw_bytes).sum();
        (disk > 0).then(|| raw as f64 / disk as f64)
    }

    /// Events that can be read.
    pub fn events(&self) -> u64 {
        let readable = |it: &Removed| it.first.max(self.oldest).distance_to(it.end);
        let gone: u64 = self.removed.iter().map(readable).sum();
        let taken_out: u64 = self.segments.iter().map(|segment| segment.removed_events).sum();
        let taken_out = taken_out.saturating_sub(self.removed_and_trimmed);
        self.oldest.distance_to(self.head.next()).saturating_sub(gone + taken_out)
    }
}

/// Of the segment that is trimmed in part, how many events were taken out before they were trimmed. Where it is damaged nobody
/// knows.
fn removed_and_trimmed(found: &Survey) -> u64 {
    let oldest = found.oldest();
    let is_cut = |it: &&Arc<Segment>| it.first() < oldest && it.removed().events() > 0;
    let cut = found.segments.iter().find(is_cut);
    cut.map_or(0, |segment| {
        let all = segment.removed().events();
        removed_from(segment, oldest, &Disk::real()).map_or(0, |left| all.saturating_sub(left))
    })
}

/// Looks at the log in `dir`.
///
/// # Errors
/// No log, another format, I/O.
pub fn info(dir: &Path) -> Result<Info, Error> {
    let found = look(dir)?;
    let meta = found.meta.clone();
    let (oldest, head) = (found.oldest(), found.next().prev());
    let last_stop = match owner(dir) {
        Some(pid) => LastStop::Running(pid),
        None if found.was_clean() => LastStop::Clean,
        None => LastStop::Unclean,
    };
    Ok(Info {
        dir: dir.to_owned(),
        format: FORMAT_VERSION,
        log: meta.as_ref().map(|meta| meta.log),
        created_at: meta.as_ref().map(|meta| meta.created_at),
        copy: copy(&found),
        generations: generations(meta.as_ref()),
        oldest,
        head,
        oldest_at: time_of(&found, oldest),
        head_at: time_of(&found, head),
        last_stop,
        slot_bytes: meta.as_ref().map_or(0, |meta| meta.slot_bytes),
        segments: found.segments.iter().map(|segment| segment_info(segment)).collect(),
        removed: found.removed.iter().map(|it| it.range).collect(),
        removed_and_trimmed: removed_and_trimmed(&found),
        slots: slots(&found),
        quarantine: kept(&dir.join("quarantine"))?,
        disk_bytes: tree_bytes(dir),
        damage: found.damage,
        meta_is_stale: found.meta_is_stale,
    })
}

/// Of a copy: the journal, and how far it has come. Where that cannot be read is damage, which a look does not see.
fn copy(found: &Survey) -> Option<CopyInfo> {
    let journal = found.meta.as_ref()?.copy_of.clone()?;
    let scan = found.slots.last().map(|slot| &slot.scan);
    let state = scan.and_then(|scan| scan.state.as_ref());
    let kept = state.into_iter().flat_map(|state| &state.deltas);
    let deltas = kept.chain(scan.into_iter().flat_map(|scan| &scan.deltas));
    let snapshot = state.map_or(&[][..], |state| &state.snapshot);
    let place = Place::reached(snapshot, deltas.map(|(.., delta)| &delta[..])).ok();
    Some(CopyInfo { journal, place })
}

fn generations(meta: Option<&Meta>) -> Vec<GenerationEntry> {
    meta.map(|meta| meta.generations.entries().to_vec()).unwrap_or_default()
}

/// The append time of an event, where a footer or a frame tells it without reading events.
fn time_of(found: &Survey, seq: Seq) -> Option<Timestamp> {
    let holds = |frame: &&FrameRef| frame.first <= seq && seq < frame.end();
    let frame = found.slots.iter().find_map(|slot| slot.scan.frames.iter().find(holds));
    let of_frame = frame.map(|frame| frame.appended_at);
    of_frame.or_else(|| {
        let segment = found.segments.iter().find(|segment| segment.contains(seq))?;
        if seq == segment.first() {
            Some(segment.first_at())
        } else {
            (seq.next() == segment.end()).then(|| segment.last_at())
        }
    })
}

fn segment_info(segment: &Segment) -> SegmentInfo {
    SegmentInfo {
        name: file_name(segment.dir()),
        first: segment.first(),
        last: segment.end().prev(),
        first_at: segment.first_at(),
        last_at: segment.last_at(),
        topics: segment.topics(),
        raw_bytes: segment.raw_bytes(),
        disk_bytes: segment.disk_bytes(),
        removed_events: segment.removed().events(),
        link: segment.link(),
    }
}

fn slots(found: &Survey) -> Vec<SlotInfo> {
    let sealed = found.sealed_end().max(found.oldest());
    let newest = found.slots.last().map(|slot| slot.header.number);
    let used = found.slots.iter().map(|slot| {
        let state = if Some(slot.header.number) == newest {
            SlotState::Active
        } else if slot.scan.next > sealed {
            SlotState::Unsealed
        } else {
            SlotState::Sealed
        };
        used_slot(slot, state)
    });
    let unbegun = found.unbegun.iter().map(|(path, tail)| SlotInfo {
        torn_bytes: torn_bytes(*tail),
        ..empty_slot(path, SlotState::Unbegun)
    });
    let free = found.free.iter().map(|path| empty_slot(path, SlotState::Free));
    used.chain(unbegun).chain(free).collect()
}

fn used_slot(slot: &SurveyedSlot, state: SlotState) -> SlotInfo {
    let first = slot.scan.frames.first().map(|frame| frame.first);
    let last = slot.scan.frames.last().map(|frame| frame.end().prev());
    SlotInfo {
        number: slot.header.number,
        seqs: first.zip(last),
        used_bytes: slot.scan.end,
        torn_bytes: torn_bytes(slot.scan.tail),
        ..empty_slot(&slot.path, state)
    }
}

fn empty_slot(path: &Path, state: SlotState) -> SlotInfo {
    SlotInfo {
        name: file_name(path),
        state,
        number: 0,
        seqs: None,
        used_bytes: 0,
        file_bytes: std::fs::metadata(path).map_or(0, |metadata| metadata.len()),
        torn_bytes: 0,
    }
}

fn torn_bytes(tail: Tail) -> u64 {
    match tail {
        Tail::Clean => 0,
        Tail::Torn { from, to } => to.saturating_sub(from),
    }
}

fn kept(dir: &Path) -> Result<Vec<KeptFile>, Error> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => {
            let path = dir.to_owned();
            return Err(StoreError::Io { action: "list", path, source }.into());
        }
    };
    let file = |entry: std::fs::DirEntry| {
        let bytes = entry.metadata().map_or(0, |metadata| metadata.len());
        KeptFile { name: entry.file_name().to_string_lossy().into_owned(), bytes }
    };
    let mut files: Vec<_> = entries.flatten().map(file).collect();
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

/// Bytes of all files below a directory; what vanishes meanwhile counts nothing.
fn tree_bytes(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let bytes = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => tree_bytes(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.flatten().map(bytes).sum()
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
