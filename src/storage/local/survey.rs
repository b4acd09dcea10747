//! Looking at a data directory without changing a byte of it.
//!
//! Recovery begins here, and so do the offline tools. What is damaged is reported, not judged.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{JOURNAL_DIR, SEGMENTS_DIR};
use crate::record::Seq;
use crate::storage::disk::Disk;
use crate::storage::journal::{
    FrameKind, Previous, Scan, ScannedSlot, SlotHeader, Tail, read_header, scan_slot,
};
use crate::storage::meta::Meta;
use crate::storage::segment::{self, Segment};
use crate::storage::{Damage, StoreError, migrate};

/// How often a survey beside a running daemon begins again when slots were reused meanwhile.
const ATTEMPTS: usize = 5;

/// What lies in a data directory.
#[derive(Debug)]
pub struct Survey {
    /// Identity: from `log.meta`, or from the journal's newest state where that knows more.
    pub meta: Option<Meta>,
    /// `log.meta` is missing, damaged or behind the journal.
    pub meta_is_stale: bool,
    /// Sealed segments in order.
    pub segments: Vec<Arc<Segment>>,
    /// Segments whose events are all in a newer revision.
    pub superseded: Vec<Arc<Segment>>,
    /// Slots that hold events or state that the log needs, in order.
    pub slots: Vec<SurveyedSlot>,
    /// Slot files that hold nothing the log needs.
    pub free: Vec<PathBuf>,
    /// A slot that was begun and whose first write did not survive: its file and what may be kept.
    pub unbegun: Option<(PathBuf, Tail)>,
    /// Highest slot number seen.
    pub last_number: u64,
    /// Everything that is not as it should be.
    pub damage: Vec<Damage>,
}

/// A slot as found.
#[derive(Debug)]
pub struct SurveyedSlot {
    /// Its file.
    pub path: PathBuf,
    /// Its head.
    pub header: SlotHeader,
    /// Its frames.
    pub scan: ScannedSlot,
}

impl Survey {
    /// Nothing was ever stored here.
    pub fn is_blank(&self) -> bool {
        self.meta.is_none() && self.slots.is_empty() && self.segments.is_empty()
    }

    /// The newest trim mark.
    pub fn oldest(&self) -> Seq {
        self.slots.last().map_or(Seq::FIRST, |slot| slot.scan.oldest).max(Seq::FIRST)
    }

    /// Seq after the last event found.
    pub fn next(&self) -> Seq {
        self.journal_next().max(self.sealed_end())
    }

    /// Seq after the last event in the journal.
    pub fn journal_next(&self) -> Seq {
        self.slots.last().map_or(Seq::FIRST, |slot| slot.scan.next)
    }

    /// Seq after the last sealed event.
    pub fn sealed_end(&self) -> Seq {
        self.segments.last().map_or(Seq::FIRST, |last| last.end())
    }

    /// Whether the last stop was a clean one.
    pub fn was_clean(&self) -> bool {
        self.slots.last().is_none_or(|slot| slot.scan.last_kind == Some(FrameKind::Close))
    }
}

/// Looks at a data directory. Works beside a running daemon and after a crash.
///
/// # Errors
/// Missing, another format, or I/O.
pub fn survey(dir: &Path, disk: &Disk) -> Result<Survey, StoreError> {
    if !dir.is_dir() {
        migrate::refuse_unfinished(dir)?;
        return Err(StoreError::Missing { path: dir.to_owned() });
    }
    let (mut found, mut heads) = survey_once(dir, disk)?;
    for _ in 1..ATTEMPTS {
        if found.damage.is_empty() {
            break;
        }
        // A daemon may have reused a slot, or sealed or trimmed, while we read: only what is found
        // twice over the same slots is damage.
        let (again, heads_now) = survey_once(dir, disk)?;
        let is_same = again.damage == found.damage && heads_now == heads;
        (found, heads) = (again, heads_now);
        if is_same {
            break;
        }
    }
    Ok(found)
}

type Heads = Vec<(PathBuf, Option<SlotHeader>)>;

fn slot_paths(dir: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let journal = dir.join(JOURNAL_DIR);
    let mut paths = Vec::new();
    let entries = match std::fs::read_dir(&journal) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(paths),
        Err(error) => return Err(StoreError::io("list", &journal)(error)),
    };
    for entry in entries {
        let path = entry.map_err(StoreError::io("list", &journal))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with("slot-") && !name.ends_with(".new") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn survey_once(dir: &Path, disk: &Disk) -> Result<(Survey, Heads), StoreError> {
    let stored = Meta::load(disk, dir)?;
    let mut found = Survey {
        meta: stored.clone(),
        meta_is_stale: stored.is_none(),
        segments: Vec::new(),
        superseded: Vec::new(),
        slots: Vec::new(),
        free: Vec::new(),
        unbegun: None,
        last_number: 0,
        damage: Vec::new(),
    };
    let mut used = Vec::new();
    let mut heads = Heads::new();
    for path in slot_paths(dir)? {
        match read_header(disk, &disk.open_read(&path)?, &path)? {
            Scan::Used(header) => {
                used.push((path.clone(), (*header).clone()));
                heads.push((path, Some(*header)));
            }
            Scan::Unused => {
                heads.push((path.clone(), None));
                found.free.push(path);
            }
            Scan::Headless => {
                heads.push((path.clone(), None));
                found.report(Seq::ZERO, Seq::ZERO, &path, "both copies of the slot's head are bad");
            }
        }
    }
    found.check_files(dir, stored.as_ref(), heads.len());
    // Segments after the slots' heads: what is sealed meanwhile is then seen as sealed.
    let segments = dir.join(SEGMENTS_DIR);
    if segments.is_dir() {
        found.take_segments(segment::scan(&segments)?);
    }
    used.sort_by_key(|(_, header)| header.number);
    found.last_number = used.last().map_or(0, |(_, header)| header.number);
    found.follow(disk, used, stored.as_ref())?;
    found.take_newest_meta();
    found.check_cover(dir);
    Ok((found, heads))
}

impl Survey {
    fn report(&mut self, from: Seq, to: Seq, file: &Path, detail: &str) {
        let (file, detail) = (file.to_owned(), detail.to_owned());
        self.damage.push(Damage { from, to, file, detail });
    }

    fn take_segments(&mut self, sealed: segment::Scan) {
        self.segments = sealed.segments;
        self.superseded = sealed.superseded;
        self.damage.extend(sealed.damaged);
        for odd in sealed.overlapping {
            let what = "the segment overlaps another";
            self.report(odd.first(), odd.end().prev(), odd.dir(), what);
        }
    }

    fn check_files(&mut self, dir: &Path, stored: Option<&Meta>, files: usize) {
        if let Some(meta) = stored
            && files < meta.slot_files as usize
        {
            let detail = format!(
                "{} of {} slot files are missing",
                meta.slot_files as usize - files,
                meta.slot_files
            );
            self.report(Seq::ZERO, Seq::ZERO, &dir.join(JOURNAL_DIR), &detail);
        }
    }

    /// Follows the chain of slots from the newest back, as far as the log needs them.
    fn follow(
        &mut self,
        disk: &Disk,
        mut used: Vec<(PathBuf, SlotHeader)>,
        stored: Option<&Meta>,
    ) -> Result<(), StoreError> {
        let Some((path, header)) = used.pop() else { return Ok(()) };
        let clean = stored.and_then(|meta| meta.clean_stop);
        if let Some(clean) = clean.filter(|clean| clean.slot > header.number) {
            let detail = format!("the newest slot, number {}, is missing", clean.slot);
            self.report(header.first, Seq::new(clean.head), &path, &detail);
        }
        let known_end = clean.filter(|clean| clean.slot == header.number).map(|clean| clean.end);
        let mut wanted = header.previous;
        let scan = self.scan(disk, &path, &header, known_end)?;
        let mut slots = Vec::new();
        if scan.state.is_none() && scan.frames.is_empty() && scan.damage.is_empty() {
            // Begun, but its first write did not survive: the slot before it is the newest.
            self.unbegun = Some((path, scan.tail));
        } else {
            self.damage.extend(scan.damage.iter().cloned());
            slots.push(SurveyedSlot { path, header, scan });
        }
        loop {
            let sealed = self.segments.last().map_or(Seq::FIRST, |last| last.end());
            let enough = slots.last().is_some_and(|slot| {
                let oldest = slots.first().map_or(Seq::FIRST, |newest| newest.scan.oldest);
                slot.header.first <= sealed.max(oldest)
            });
            if enough || wanted.number == 0 {
                break;
            }
            let at = used.iter().position(|(_, header)| is_previous(header, &wanted));
            let Some(at) = at else {
                let upto =
                    slots.last().map_or(Seq::ZERO, |slot: &SurveyedSlot| slot.header.first.prev());
                let detail = format!("slot number {} is missing", wanted.number);
                let file = slots.last().map_or(PathBuf::new(), |slot| slot.path.clone());
                self.report(sealed, upto, &file, &detail);
                break;
            };
            let (path, header) = used.swap_remove(at);
            let scan = self.scan(disk, &path, &header, Some(wanted.end))?;
            self.damage.extend(scan.damage.iter().cloned());
            wanted = header.previous;
            slots.push(SurveyedSlot { path, header, scan });
        }
        slots.reverse();
        self.slots = slots;
        self.free.extend(used.into_iter().map(|(path, _)| path));
        Ok(())
    }

    fn scan(
        &mut self,
        disk: &Disk,
        path: &Path,
        header: &SlotHeader,
        known_end: Option<u64>,
    ) -> Result<ScannedSlot, StoreError> {
        let file = disk.open_read(path)?;
        scan_slot(disk, &file, path, header, known_end)
    }

    /// The journal's copy of the identity counts where it knows a newer generation.
    fn take_newest_meta(&mut self) {
        let Some(slot) = self.slots.last() else { return };
        let state = slot.scan.state.as_ref().and_then(|state| Meta::decode(&state.meta).ok());
        let Some(journal) = state else { return };
        let path = slot.path.clone();
        match &self.meta {
            Some(meta) if meta.log != journal.log => {
                self.report(Seq::ZERO, Seq::ZERO, &path, "the slot belongs to another log");
            }
            Some(meta) => {
                let counter = |meta: &Meta| meta.generations.current().generation.counter;
                if counter(&journal) > counter(meta) {
                    self.meta_is_stale = true;
                    self.meta = Some(Meta { slot_files: meta.slot_files, ..journal });
                }
            }
            None => self.meta = Some(journal),
        }
    }

    /// Every readable seq lies in a segment or slot.
    fn check_cover(&mut self, dir: &Path) {
        let oldest = self.oldest();
        let mut upto = oldest;
        let mut holes = Vec::new();
        let segments = self.segments.iter().map(|s| (s.first(), s.end(), s.dir().to_owned()));
        let slots = self.slots.iter().map(|s| (s.header.first, s.scan.next, s.path.clone()));
        for (first, end, path) in segments.chain(slots) {
            if first > upto && end > upto {
                holes.push((upto, first.prev(), path));
            }
            upto = upto.max(end);
        }
        for (from, to, path) in holes {
            self.report(from, to, &path, "the events before this file are missing");
        }
        if self.slots.is_empty() && (self.meta.is_some() || !self.segments.is_empty()) {
            // Even an empty log has its state in a slot.
            let file = dir.join(JOURNAL_DIR);
            self.report(upto, Seq::ZERO, &file, "no slot of the journal is left");
        }
        let head = self.meta.as_ref().and_then(|meta| meta.clean_stop);
        let newest = self.slots.last().map(|slot| slot.header.number);
        if let Some(clean) = head
            && newest == Some(clean.slot)
            && self.next() != Seq::new(clean.head).next()
        {
            let file = dir.join(JOURNAL_DIR);
            let (from, to) = (self.next(), Seq::new(clean.head));
            self.report(from, to, &file, "the journal ends before the clean stop did");
        }
    }
}

fn is_previous(header: &SlotHeader, wanted: &Previous) -> bool {
    (header.number, header.nonce) == (wanted.number, wanted.nonce)
}
