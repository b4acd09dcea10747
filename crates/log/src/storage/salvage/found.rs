//! What is whole in a data directory that may be damaged anywhere.
//!
//! Nothing is believed but what proves itself: commits and blocks by their checksums, whatever became of the
//! files around them. Every slot file is read, also one that the log has no need of: it may have what a
//! damaged segment lost. Changes not one byte.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::parts::{Part, Parts};
use crate::chain::Link;
use crate::storage::disk::Disk;
use crate::storage::journal::{
    FRAME_HEADER_BYTES, Frame, FrameRef, Known, Scan, ScannedSlot, Slot, SlotHeader, Tip,
    is_slot_name, read_header, scan_slot,
};
use crate::storage::local::{self, JOURNAL_DIR, SEGMENTS_DIR};
use crate::storage::meta::{META_FILE, Meta};
use crate::storage::place::without_places;
use crate::storage::segment::{self, Remains};
use crate::storage::{Damage, FORMAT_VERSION, StoreError};
use tailmark_record::{ChainTag, FingerprintKey, GenerationTable, LogId, Seq, Timestamp};

/// What a log is beside its events, as far as that is whole.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) state: Vec<u8>,
    pub(super) deltas: Vec<(Seq, Seq, Vec<u8>)>,
}

/// All that was found.
pub(super) struct Found {
    pub(super) meta: Meta,
    /// The secret for telling repeats is the log's own.
    pub(super) has_key: bool,
    pub(super) parts: Parts,
    /// The chain before a seq, where it is known whole.
    pub(super) links: BTreeMap<Seq, Link>,
    /// The same, where only its tag is.
    pub(super) tags: BTreeMap<Seq, ChainTag>,
    /// The newest trim mark that can be read; 0 = none can.
    pub(super) trim_mark: Seq,
    pub(super) oldest_tag: Option<ChainTag>,
    /// Up to before this seq there were events.
    pub(super) next: Seq,
    pub(super) last_at: Timestamp,
    /// Above the number of every slot.
    pub(super) slot_number: u64,
    /// `None` where it may not be that of the end of the log.
    pub(super) state: Option<State>,
    /// Why nobody knows where the log ended, if that is so: it may have gone on behind all that is known of it.
    pub(super) unknown_end: Option<Damage>,
    pub(super) damage: Vec<Damage>,
}

/// Looks at everything in `dir`. What is known to be whole need not prove its end. `watch` hears of bytes that were
/// looked through.
pub(super) fn find(
    dir: &Path,
    disk: &Disk,
    is_whole: bool,
    watch: &mut dyn FnMut(u64) -> Result<(), StoreError>,
) -> Result<Found, StoreError> {
    // Its version has no checksum: those of slots and footers tell whether the log is of another format.
    let (stored, problem) = match Meta::load(disk, dir, FORMAT_VERSION) {
        Err(StoreError::Format { .. }) => {
            (None, Some("its format is none that this program reads"))
        }
        Ok(None) => (None, Some("it is damaged or missing")),
        stored => (stored?, None),
    };
    let mut journal = Journal::read(dir, disk, stored, watch)?;
    let mut remains = Vec::new();
    let segments = dir.join(SEGMENTS_DIR);
    let names = if segments.is_dir() { segment::names(&segments, disk)? } else { Vec::new() };
    for (at, path) in names.iter().enumerate() {
        let upto = end_of(path, &names[at + 1..]).or_else(|| journal.end());
        let found = segment::remains(path, journal.log, upto, disk)?;
        journal.log = journal.log.or_else(|| found.segment.as_ref().map(|it| it.log_id()));
        watch(bytes_of(path))?;
        remains.push((path.clone(), found));
    }
    if is_whole {
        journal.unknown_end = None;
    }
    let mut found = gather(journal, remains, disk)?;
    found.damage.extend(problem.map(|what| unplaced(&dir.join(META_FILE), what)));
    Ok(found)
}

/// Where a segment ends at the latest, as the names behind it say: what it took the place of may still be there,
/// and has a lower revision.
fn end_of(path: &Path, behind: &[PathBuf]) -> Option<Seq> {
    let (first, revision) = segment::parse_name(path)?;
    let behind = behind.iter().filter_map(|path| segment::parse_name(path));
    behind.filter(|it| it.0 > first && it.1 >= revision).map(|it| it.0).min()
}

fn bytes_of(dir: &Path) -> u64 {
    let len = |path: PathBuf| std::fs::metadata(path).map_or(0, |it| it.len());
    len(dir.join("footer")) + len(dir.join("db").join("db"))
}

/// The slots, and what they know of the log.
struct Journal {
    log: Option<LogId>,
    /// From `log.meta`, or from the newest slot that has a copy.
    meta: Option<Meta>,
    tip: Option<Tip>,
    /// In the order of their use.
    slots: Vec<(SlotHeader, ScannedSlot, Arc<Slot>)>,
    /// All slots that there were can be read.
    is_complete: bool,
    unknown_end: Option<Damage>,
    damage: Vec<Damage>,
}

impl Journal {
    fn read(
        dir: &Path,
        disk: &Disk,
        meta: Option<Meta>,
        watch: &mut dyn FnMut(u64) -> Result<(), StoreError>,
    ) -> Result<Journal, StoreError> {
        let journal = dir.join(JOURNAL_DIR);
        let paths = if journal.is_dir() { disk.list(&journal)? } else { Vec::new() };
        let (mut used, mut files, mut unused, mut damage) = (Vec::new(), 0, 0, Vec::new());
        for path in paths.into_iter().filter(|path| is_slot_name(path)) {
            files += 1;
            let file = disk.open_read(&path)?;
            match read_header(disk, &file, &path)? {
                Scan::Used(header) if header.format != FORMAT_VERSION => {
                    let (found, supported) = (header.format, FORMAT_VERSION);
                    return Err(StoreError::Format { path, found, supported });
                }
                Scan::Used(header) => used.push((*header, path, file)),
                Scan::Unused => unused += 1,
                Scan::Headless => {
                    damage.push(unplaced(&path, "both copies of the slot's head are bad"));
                }
            }
        }
        used.sort_by_key(|(header, ..)| header.number);
        let log = meta.as_ref().map(|meta| meta.log);
        let log = log.or_else(|| used.last().map(|(header, ..)| header.log));
        used.retain(|(header, path, _)| {
            let is_ours = log == Some(header.log);
            if !is_ours {
                damage.push(unplaced(path, "the slot belongs to another log"));
            }
            is_ours
        });
        let tip = Tip::read(disk, &journal)?.filter(|tip| log == Some(tip.log));
        let (slots, is_complete, unknown_end) = (Vec::new(), true, None);
        let mut it = Journal { log, meta, tip, slots, is_complete, unknown_end, damage };
        let ends: Vec<_> = used.iter().map(|(header, ..)| header.previous).collect();
        for (header, path, file) in used {
            let after =
                ends.iter().find(|it| (it.number, it.nonce) == (header.number, header.nonce));
            let known = it.known(&header, after.map(|previous| previous.end));
            let scan = scan_slot(disk, &file, &path, &header, known)?;
            watch(header.slot_bytes)?;
            let link = scan.links.map_or(Link::UNKNOWN, |(first, _)| first);
            let frames = scan.frames.clone();
            let slot = Slot::new(path, file, disk.clone(), header.clone(), link, frames);
            it.slots.push((header, scan, Arc::new(slot)));
        }
        it.take_meta();
        it.look_whether_complete(&journal, files);
        it.look_for_the_end(&journal, unused > 0);
        Ok(it)
    }

    /// What is known of the end of a slot.
    fn known(&self, header: &SlotHeader, previous_end: Option<u64>) -> Known {
        let clean = self.meta.as_ref().and_then(|meta| meta.clean_stop);
        let clean = clean.filter(|clean| clean.slot == header.number).map(|clean| clean.end);
        let is_this = |tip: &Tip| (tip.number, tip.nonce) == (header.number, header.nonce);
        let synced = self.tip.filter(is_this).map(|tip| (tip.upto, tip.next));
        Known { end: previous_end.or(clean), synced }
    }

    /// The identity, where `log.meta` is gone or behind the copy in the newest slot that has one.
    fn take_meta(&mut self) {
        let copies = self.slots.iter().rev().filter_map(|(_, scan, _)| scan.state.as_ref());
        let mut copies = copies.filter_map(|it| Meta::decode(&it.meta, FORMAT_VERSION).ok());
        let counter = |meta: &Meta| meta.generations.current().generation.counter;
        let ours = self.log;
        if let Some(copy) = copies.find(|copy| ours == Some(copy.log))
            && self.meta.as_ref().is_none_or(|meta| counter(&copy) > counter(meta))
        {
            let (files, clean) = match &self.meta {
                Some(meta) => (meta.slot_files, meta.clean_stop),
                None => (0, None),
            };
            self.meta = Some(Meta { slot_files: files, clean_stop: clean, ..copy });
        }
    }

    fn look_whether_complete(&mut self, journal: &Path, files: u32) {
        let newest = self.slots.last().map_or(0, |(header, ..)| header.number);
        let clean = self.meta.as_ref().and_then(|meta| meta.clean_stop);
        let wanted = self.meta.as_ref().map_or(0, |meta| meta.slot_files);
        let named = clean.map(|clean| clean.slot).max(self.tip.map(|tip| tip.number));
        if let Some(number) = named.filter(|number| *number > newest) {
            self.damage.push(unplaced(journal, &format!("slot number {number} is missing")));
            self.is_complete = false;
        }
        if files < wanted {
            let detail = format!("{} of {wanted} slot files are missing", wanted - files);
            self.damage.push(unplaced(journal, &detail));
        }
        self.is_complete &= files >= wanted && !self.slots.is_empty();
        self.is_complete &= !self.damage.iter().any(|damage| damage.file != *journal);
    }

    /// What is left of the journal may be whole by itself and yet not be its end: a slot that is gone or has only
    /// zeros leaves no trace in those before it. Either the tip says up to where there was one, or `log.meta` names
    /// the newest that is there as the last at a clean stop, and no file has lost what may have come after it.
    fn look_for_the_end(&mut self, journal: &Path, has_unused: bool) {
        let newest = self.slots.last().map(|(header, ..)| header.number);
        let clean = self.meta.as_ref().and_then(|meta| meta.clean_stop).map(|clean| clean.slot);
        let has_stopped = newest.is_some() && newest == clean && self.is_complete && !has_unused;
        if self.tip.is_none() && !has_stopped {
            let detail = match newest {
                None => "no slot and no note of the tip is left",
                Some(_) => {
                    "the note of the tip is missing or damaged, and there may have been newer slots"
                }
            };
            self.unknown_end = Some(unplaced(journal, detail));
        }
    }

    /// The end of the log, where all slots tell it.
    fn end(&self) -> Option<Seq> {
        let of_slot = |(header, scan, _): &(SlotHeader, ScannedSlot, _)| {
            let lost = scan.damage.iter().map(|damage| damage.to.next()).max();
            header.first.max(scan.next).max(lost.unwrap_or_default())
        };
        let known = self.slots.iter().map(of_slot).max().filter(|_| self.is_complete);
        known.map(|end| self.tip.map_or(end, |tip| tip.next.max(end)))
    }

    /// The newest slot of which something survived.
    fn newest(&self) -> Option<&ScannedSlot> {
        let has_begun = |scan: &&ScannedSlot| {
            scan.state.is_some() || !scan.frames.is_empty() || !scan.damage.is_empty()
        };
        self.slots.iter().rev().map(|(_, scan, _)| scan).find(has_begun)
    }

    fn state(&self) -> Option<State> {
        let is_known = self.is_complete && self.unknown_end.is_none();
        let newest = self.newest().filter(|scan| is_known && scan.damage.is_empty())?;
        let known = newest.state.clone()?;
        let deltas = known.deltas.into_iter().chain(newest.deltas.iter().cloned()).collect();
        if self.meta.as_ref().is_some_and(|meta| meta.copy_of.is_some()) {
            // What is made of a copy is a log of its own.
            let (state, deltas) = without_places(&known.snapshot, deltas).ok()?;
            return Some(State { state, deltas });
        }
        Some(State { state: known.snapshot, deltas })
    }
}

fn unplaced(path: &Path, detail: &str) -> Damage {
    let (file, detail) = (path.to_owned(), detail.to_owned());
    Damage { from: Seq::ZERO, to: Seq::ZERO, file, detail }
}

fn gather(
    journal: Journal,
    remains: Vec<(PathBuf, Remains)>,
    disk: &Disk,
) -> Result<Found, StoreError> {
    let state = journal.state();
    let has_key = journal.meta.is_some();
    let tables = remains.iter().filter_map(|(_, it)| it.segment.as_ref());
    let tables = tables.map(|segment| segment.generations().clone());
    let meta = identity(&journal, tables.collect())?;
    let clean = meta.clean_stop.map_or(Seq::ZERO, |clean| Seq::new(clean.head).next());
    let mut found = Found {
        has_key,
        parts: Parts::default(),
        links: BTreeMap::new(),
        tags: BTreeMap::new(),
        trim_mark: Seq::ZERO,
        oldest_tag: None,
        next: clean.max(journal.tip.map_or(Seq::FIRST, |tip| tip.next)),
        last_at: Timestamp::EPOCH,
        slot_number: journal.slots.last().map_or(0, |(header, ..)| header.number) + 1,
        state,
        unknown_end: journal.unknown_end,
        damage: journal.damage,
        meta,
    };
    for (header, scan, slot) in journal.slots {
        found.slot(&header, scan, &slot, disk)?;
    }
    for (dir, remains) in remains {
        found.remains(dir, remains);
    }
    found.parts.sort();
    found.next = found.next.max(found.parts.end()).max(found.trim_mark);
    Ok(found)
}

/// Who the log is. Where no copy is left of that, its segments know the id and the history, and repeats of
/// what is there are told by a new secret.
fn identity(journal: &Journal, tables: Vec<GenerationTable>) -> Result<Meta, StoreError> {
    let counter = |table: &GenerationTable| table.current().generation.counter;
    let newest = tables.into_iter().max_by_key(counter);
    match (journal.meta.clone(), newest) {
        (Some(meta), Some(table)) if counter(&table) > counter(&meta.generations) => {
            Ok(Meta { generations: table, ..meta })
        }
        (Some(meta), _) => Ok(meta),
        (None, Some(generations)) => Ok(Meta {
            log: journal.log.ok_or(StoreError::Invalid("the log has no identity"))?,
            key: FingerprintKey::new(rand::random()),
            created_at: generations.entries().first().map_or(Timestamp::EPOCH, |row| row.since),
            generations,
            slot_bytes: 0,
            slot_files: 0,
            clean_stop: None,
            whereabouts: [0; 16],
            copy_of: None,
        }),
        (None, None) => Err(StoreError::Invalid("nothing here says which log it was")),
    }
}

impl Found {
    /// Whether the end of the journal says it: an older mark may be that of before a trim.
    pub(super) fn knows_trim_mark(&self) -> bool {
        self.state.is_some() && self.trim_mark > Seq::ZERO
    }

    /// The first readable seq: the newest trim mark that can be read, or what tells repeats of trimmed events
    /// where that says more. What nobody knows of behind that was lost, unless somebody can say better.
    pub(super) fn oldest(&mut self, dir: &Path, disk: &Disk) -> Result<Seq, StoreError> {
        if self.knows_trim_mark() {
            return Ok(self.trim_mark);
        }
        let trimmed = local::trimmed_files(dir, disk)?;
        let trimmed = trimmed.iter().filter_map(|path| local::trimmed_range(path));
        // What rules took out of the middle is told of there, too.
        let trimmed = trimmed.filter(|range| !self.parts.has_runs_over(range));
        let trimmed = trimmed.map(|range| range.end).max();
        let oldest = self.trim_mark.max(trimmed.unwrap_or_default()).max(Seq::FIRST);
        if let Some(first) = self.parts.first().filter(|first| *first > oldest) {
            let (from, to, file) = (oldest, first.prev(), dir.join(JOURNAL_DIR));
            let detail = "the newest trim mark is not known: they may have been trimmed".to_owned();
            self.damage.push(Damage { from, to, file, detail });
        }
        Ok(oldest)
    }

    /// Where to begin so that all that is readable from `oldest` on is there, and the chain is known: a segment
    /// is taken whole, of others as much before it as it takes.
    pub(super) fn beginning(&self, oldest: Seq) -> Seq {
        if let Some(first) = self.parts.segment_with(oldest) {
            return first;
        }
        let mut at = oldest;
        while !self.links.contains_key(&at) {
            let Some(before) = self.parts.before(at) else { return oldest };
            at = before;
        }
        at
    }

    fn slot(
        &mut self,
        header: &SlotHeader,
        scan: ScannedSlot,
        slot: &Arc<Slot>,
        disk: &Disk,
    ) -> Result<(), StoreError> {
        let mut end = Seq::ZERO;
        for frame in &scan.frames {
            if frame.first != end
                && let Some(link) = link_before(slot, header, frame, disk)?
            {
                self.links.insert(frame.first, link);
            }
            end = frame.end();
            self.links.insert(end, frame.link);
            self.parts.push(Part::Frame(Arc::clone(slot), *frame));
        }
        if scan.damage.is_empty()
            && let Some((first, _)) = scan.links
        {
            self.links.insert(header.first, first);
        }
        if scan.oldest >= self.trim_mark {
            (self.trim_mark, self.oldest_tag) = (scan.oldest, scan.oldest_tag);
        }
        let lost = scan.damage.iter().map(|damage| damage.to.next()).max();
        let known = header.first.max(scan.next).max(lost.unwrap_or_default());
        self.next = self.next.max(known);
        self.last_at = self.last_at.max(scan.last_at);
        self.damage.extend(scan.damage);
        Ok(())
    }

    fn remains(&mut self, dir: PathBuf, remains: Remains) {
        let Remains { segment, is_whole, removed, units, tags, damage } = remains;
        if let Some(it) = removed {
            self.links.insert(it.range.first, it.range.link_before);
            if it.range.link.is_whole() {
                self.links.insert(it.range.end, it.range.link);
            }
            self.parts.push(Part::Removed(it.range));
        }
        if let Some(segment) = &segment {
            for (seq, link) in
                [(segment.first(), segment.link_before()), (segment.end(), segment.link())]
            {
                if link.is_whole() {
                    self.links.insert(seq, link);
                }
            }
            self.next = self.next.max(segment.end());
        }
        if let Some(segment) = segment.filter(|_| is_whole) {
            self.parts.push(Part::Segment(segment));
        }
        let revision = segment::revision_of(&dir);
        self.parts.extend(units.into_iter().map(|unit| Part::Block(unit, revision)));
        self.tags.extend(tags);
        self.damage.extend(damage);
    }
}

/// The chain before a commit, as its head has it.
fn link_before(
    slot: &Slot,
    header: &SlotHeader,
    frame: &FrameRef,
    disk: &Disk,
) -> Result<Option<Link>, StoreError> {
    let mut head = [0; FRAME_HEADER_BYTES];
    disk.read_at(slot.file(), slot.path(), &mut head, frame.offset)?;
    Ok(Frame::decode(&head, header, frame.offset).ok().map(|head| head.link_before))
}
