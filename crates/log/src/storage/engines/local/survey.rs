//! Looking at a data directory without changing a byte of it.
//!
//! Recovery begins here, and so do the offline tools. What is damaged is reported, not judged.
//!
//! A daemon may be at work beside it: it appends, begins slots anew, seals and trims while we read.
//! So a look is made of passes, and each pass knows when what it read has moved:
//! - A slot's head is read again after its frames. A new head is visible before the first byte of
//!   an old frame is overwritten ([`crate::storage::journal`]), so an unchanged head says that what
//!   was read is what lay there; a changed one says nothing at all, and the pass begins again.
//! - What rests on several files at once (a missing slot, a hole between two files) counts only if
//!   no head and no name in `segments/` changed during the pass.
//! - Damage counts when two passes in a row have found it.
//!
//! If no such moment comes, the answer is [`StoreError::Unsettled`], never damage or a shorter log.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::{JOURNAL_DIR, SEGMENTS_DIR};
use crate::chain::Link;
use crate::storage::disk::Disk;
use crate::storage::journal::{
    FrameKind, Known, Previous, Scan, ScannedSlot, SlotHeader, Tail, Tip, is_slot_name,
    read_header, scan_slot,
};
use crate::storage::meta::Meta;
use crate::storage::segment::{self, RemovedRange, Segment};
use crate::storage::{Damage, FORMAT_VERSION, StoreError, unfinished};
use tailmark_record::Seq;

/// How long a look beside a daemon waits for a moment at which what it reads does not move.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two passes.
const PAUSE: Duration = Duration::from_millis(2);

/// What lies in a data directory.
#[derive(Debug)]
pub struct Survey {
    /// Identity: from `log.meta`, or from the journal's newest state where that knows more.
    pub meta: Option<Meta>,
    /// `log.meta` is missing, damaged or behind the journal.
    pub meta_is_stale: bool,
    /// Sealed segments in order.
    pub segments: Vec<Arc<Segment>>,
    /// Ranges without events, in order.
    pub removed: Vec<Arc<RemovedRange>>,
    /// Segments whose events are all in a newer revision.
    pub superseded: Vec<Arc<Segment>>,
    /// Ranges without events that are in another, or in a segment that was written later.
    pub superseded_ranges: Vec<Arc<RemovedRange>>,
    /// Slots that hold events or state that the log needs, in order.
    pub slots: Vec<SurveyedSlot>,
    /// Slots before these whose events are all trimmed, and never were sealed: nothing of them is
    /// readable, but repeats of them are told. In order; as many as are still there.
    pub trimmed: Vec<SurveyedSlot>,
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
    /// Where it ends, as the next slot's head or a clean stop says.
    known_end: Option<u64>,
}

impl SurveyedSlot {
    fn link_before(&self, seq: Seq) -> Option<Link> {
        self.scan.link_before(self.header.first, seq)
    }
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

    /// Seq after the last sealed event, or the last that is gone.
    pub fn sealed_end(&self) -> Seq {
        let sealed = self.segments.last().map_or(Seq::FIRST, |last| last.end());
        self.removed.last().map_or(sealed, |last| last.range.end.max(sealed))
    }

    /// The chain at the last sealed event, or the last that is gone.
    pub(super) fn sealed_link(&self) -> Option<Link> {
        let end = self.sealed_end();
        let removed = self.removed.last().filter(|it| it.range.end == end);
        let segment = self.segments.last().filter(|it| it.end() == end);
        removed.map(|it| it.range.link).or_else(|| segment.map(|it| it.link()))
    }

    /// Where the chain over the events does not join from one file to the next: the first seq of the
    /// later file, and its path.
    fn parted(&self) -> Vec<(Seq, PathBuf)> {
        let mut parted = Vec::new();
        let segments = self
            .segments
            .iter()
            .map(|it| (it.first(), it.end(), it.link_before(), it.link(), it.dir()));
        let removed = self.removed.iter().map(|it| {
            (it.range.first, it.range.end, it.range.link_before, it.range.link, &*it.dir)
        });
        let mut parts: Vec<_> = segments.chain(removed).collect();
        parts.sort_by_key(|(first, ..)| *first);
        for two in parts.windows(2) {
            let ((_, end, _, link, _), (first, _, link_before, _, dir)) = (two[0], two[1]);
            if end == first && !link.joins(link_before) {
                parted.push((first, dir.to_owned()));
            }
        }
        for two in self.slots.windows(2) {
            let seq = two[1].header.first;
            let (before, after) = (two[0].link_before(seq), two[1].link_before(seq));
            if before.zip(after).is_some_and(|(before, after)| before != after) {
                parted.push((seq, two[1].path.clone()));
            }
        }
        // Slots hold for a while what is sealed: compared where one ends, and another goes on or has it too.
        if let Some(last) = self.sealed_link() {
            let end = self.sealed_end();
            for slot in &self.slots {
                if slot.link_before(end).is_some_and(|link| !link.joins(last)) {
                    parted.push((end, slot.path.clone()));
                }
            }
        }
        parted
    }

    /// Whether the last stop was a clean one.
    pub fn was_clean(&self) -> bool {
        self.slots.last().is_none_or(|slot| slot.scan.last_kind == Some(FrameKind::Close))
    }
}

/// Looks at a data directory. Works beside a running daemon and after a crash.
///
/// # Errors
/// Missing, another format, or I/O; [`StoreError::Unsettled`] beside a daemon that is too busy.
pub fn survey(dir: &Path, disk: &Disk) -> Result<Survey, StoreError> {
    survey_within(dir, disk, FORMAT_VERSION, PATIENCE)
}

/// The same of a directory of another format, that this program reads to copy it.
pub(in crate::storage) fn survey_of(
    dir: &Path,
    disk: &Disk,
    format: u32,
) -> Result<Survey, StoreError> {
    survey_within(dir, disk, format, PATIENCE)
}

pub(super) fn survey_within(
    dir: &Path,
    disk: &Disk,
    format: u32,
    patience: Duration,
) -> Result<Survey, StoreError> {
    unfinished::refuse_unfinished(dir)?;
    if !dir.is_dir() {
        return Err(StoreError::Missing { path: dir.to_owned() });
    }
    let begun = Instant::now();
    let mut before = Vec::new();
    let mut whole = Vec::new();
    loop {
        let mut pass = Pass::new(dir, disk, format, std::mem::take(&mut whole))?;
        if pass.run()? {
            if pass.found.damage.iter().all(|damage| before.contains(damage)) {
                return Ok(pass.found);
            }
            before = std::mem::take(&mut pass.found.damage);
        }
        if begun.elapsed() > patience {
            return Err(StoreError::Unsettled { path: dir.to_owned() });
        }
        whole = pass.whole_slots();
        thread::sleep(PAUSE);
    }
}

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
        if is_slot_name(&path) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// The heads of all slot files. One that was given back since it was listed is left out.
fn read_heads(dir: &Path, disk: &Disk, format: u32) -> Result<Vec<(PathBuf, Scan)>, StoreError> {
    let mut heads = Vec::new();
    for path in slot_paths(dir)? {
        let head = match disk.open_read(&path) {
            Ok(file) => read_header(disk, &file, &path)?,
            Err(StoreError::Io { .. }) if !path.exists() => continue,
            Err(error) => return Err(error),
        };
        if let Scan::Used(header) = &head
            && header.format != format
        {
            let found = header.format;
            return Err(StoreError::Format { path, found, supported: format });
        }
        heads.push((path, head));
    }
    Ok(heads)
}

fn segment_names(dir: &Path, disk: &Disk) -> Result<Vec<PathBuf>, StoreError> {
    let segments = dir.join(SEGMENTS_DIR);
    if segments.is_dir() { segment::names(&segments, disk) } else { Ok(Vec::new()) }
}

/// One look at everything.
struct Pass<'a> {
    dir: &'a Path,
    disk: &'a Disk,
    format: u32,
    stored: Option<Meta>,
    /// Older than the heads and all that is read after them.
    tip: Option<Tip>,
    heads: Vec<(PathBuf, Scan)>,
    segments: Vec<PathBuf>,
    /// Slots that an earlier pass has read; as long as a head stands they need not be read again.
    whole: Vec<SurveyedSlot>,
    /// Whether anything was reported that counts only if nothing moved.
    rests_on_stillness: bool,
    found: Survey,
}

impl<'a> Pass<'a> {
    fn new(
        dir: &'a Path,
        disk: &'a Disk,
        format: u32,
        whole: Vec<SurveyedSlot>,
    ) -> Result<Pass<'a>, StoreError> {
        let stored = Meta::load(disk, dir, format)?;
        let tip = Tip::read(disk, &dir.join(JOURNAL_DIR))?;
        let found = Survey {
            meta: stored.clone(),
            meta_is_stale: stored.is_none(),
            segments: Vec::new(),
            removed: Vec::new(),
            superseded: Vec::new(),
            superseded_ranges: Vec::new(),
            slots: Vec::new(),
            trimmed: Vec::new(),
            free: Vec::new(),
            unbegun: None,
            last_number: 0,
            damage: Vec::new(),
        };
        let heads = read_heads(dir, disk, format)?;
        // Segments after the slots' heads: what is sealed meanwhile is then seen as sealed.
        let segments = segment_names(dir, disk)?;
        let rests_on_stillness = false;
        Ok(Pass {
            dir,
            disk,
            format,
            stored,
            tip,
            heads,
            segments,
            whole,
            rests_on_stillness,
            found,
        })
    }

    /// Answers whether what was found holds: nothing that it rests on has moved.
    fn run(&mut self) -> Result<bool, StoreError> {
        let mut used = Vec::new();
        for (path, head) in self.heads.clone() {
            match head {
                Scan::Used(header) => used.push((path, *header)),
                Scan::Unused => self.found.free.push(path),
                Scan::Headless => {
                    let what = "both copies of the slot's head are bad";
                    self.report(Seq::ZERO, Seq::ZERO, &path, what);
                }
            }
        }
        self.check_files();
        let segments = self.dir.join(SEGMENTS_DIR);
        if segments.is_dir() {
            self.take_segments(segment::scan(&segments, self.disk, self.format)?);
        }
        used.sort_by_key(|(_, header)| header.number);
        self.found.last_number = used.last().map_or(0, |(_, header)| header.number);
        if !self.follow(used)? {
            return Ok(false);
        }
        self.take_newest_meta();
        self.refuse_ranges();
        self.check_cover();
        Ok(!self.rests_on_stillness || self.is_still()?)
    }

    /// Whether heads and segments are what they were when the pass began.
    fn is_still(&self) -> Result<bool, StoreError> {
        Ok(read_heads(self.dir, self.disk, self.format)? == self.heads
            && segment_names(self.dir, self.disk)? == self.segments)
    }

    /// What need not be read again as long as its head stands: slots that have ended.
    fn whole_slots(self) -> Vec<SurveyedSlot> {
        let has_ended =
            |slot: &SurveyedSlot| slot.known_end.is_some() && slot.scan.damage.is_empty();
        let found = self.found.trimmed.into_iter().chain(self.found.slots);
        self.whole.into_iter().chain(found).filter(has_ended).collect()
    }

    /// A range of another log says nothing of this one. Such a directory never changes.
    fn refuse_ranges(&mut self) {
        let Some(log) = self.found.meta.as_ref().map(|meta| meta.log) else { return };
        let damage = &mut self.found.damage;
        self.found.removed.retain(|it| {
            if it.log != log {
                let (from, to, file) = (it.range.first, it.range.end.prev(), it.dir.clone());
                let detail = "the range belongs to another log".to_owned();
                damage.push(Damage { from, to, file, detail });
            }
            it.log == log
        });
    }

    /// Something that counts only if nothing moved meanwhile.
    fn report(&mut self, from: Seq, to: Seq, file: &Path, detail: &str) {
        let (file, detail) = (file.to_owned(), detail.to_owned());
        self.found.damage.push(Damage { from, to, file, detail });
        self.rests_on_stillness = true;
    }

    fn take_segments(&mut self, sealed: segment::Scan) {
        self.found.segments = sealed.segments;
        self.found.removed = sealed.removed;
        self.found.superseded = sealed.superseded;
        self.found.superseded_ranges = sealed.superseded_ranges;
        // Of a directory that is still there under its name: those never change.
        self.found.damage.extend(sealed.damaged);
        for odd in sealed.overlapping {
            let what = "the segment overlaps another";
            self.report(odd.first(), odd.end().prev(), odd.dir(), what);
        }
    }

    fn check_files(&mut self) {
        let files = self.heads.len();
        if let Some(wanted) = self.stored.as_ref().map(|meta| meta.slot_files as usize)
            && files < wanted
        {
            let detail = format!("{} of {wanted} slot files are missing", wanted - files);
            self.report(Seq::ZERO, Seq::ZERO, &self.dir.join(JOURNAL_DIR), &detail);
        }
    }

    /// Follows the chain of slots from the newest back, as far as the log needs them. Answers
    /// whether every slot was what its head had said when it was read.
    fn follow(&mut self, mut used: Vec<(PathBuf, SlotHeader)>) -> Result<bool, StoreError> {
        let Some((path, header)) = used.pop() else { return Ok(true) };
        let clean = self.stored.as_ref().and_then(|meta| meta.clean_stop);
        if let Some(clean) = clean.filter(|clean| clean.slot > header.number) {
            let detail = format!("the newest slot, number {}, is missing", clean.slot);
            self.report(header.first, Seq::new(clean.head), &path, &detail);
        }
        let tip = self.tip.filter(|tip| tip.log == header.log);
        if let Some(tip) = tip.filter(|tip| tip.number > header.number) {
            let detail = format!("the newest slot, number {}, is missing", tip.number);
            self.report(header.first, tip.next.prev(), &path, &detail);
        }
        let known_end = clean.filter(|clean| clean.slot == header.number).map(|clean| clean.end);
        let mut wanted = header.previous;
        let Some(slot) = self.scan(path, header, known_end)? else { return Ok(false) };
        let scan = &slot.scan;
        if scan.state.is_none() && scan.frames.is_empty() && scan.damage.is_empty() {
            // Begun, but its first write did not survive: the slot before it is the newest.
            self.found.unbegun = Some((slot.path, slot.scan.tail));
        } else {
            self.take_slot(slot);
        }
        loop {
            let sealed = self.found.sealed_end();
            // Newest first for now.
            let slots = &self.found.slots;
            let oldest = slots.first().map_or(Seq::FIRST, |newest| newest.scan.oldest);
            let last = slots.last();
            if last.is_some_and(|slot| slot.header.first <= sealed.max(oldest))
                || wanted.number == 0
            {
                break;
            }
            let at = used.iter().position(|(_, header)| is_previous(header, &wanted));
            let Some(at) = at else {
                let upto = last.map_or(Seq::ZERO, |slot| slot.header.first.prev());
                let file = last.map_or(PathBuf::new(), |slot| slot.path.clone());
                let detail = format!("slot number {} is missing", wanted.number);
                self.report(sealed, upto, &file, &detail);
                break;
            };
            let (path, header) = used.swap_remove(at);
            let end = wanted.end;
            wanted = header.previous;
            let Some(slot) = self.scan(path, header, Some(end))? else { return Ok(false) };
            self.take_slot(slot);
        }
        if !self.follow_trimmed(&mut used, wanted)? {
            return Ok(false);
        }
        self.found.slots.reverse();
        self.found.free.extend(used.into_iter().map(|(path, _)| path));
        Ok(true)
    }

    /// Goes on to slots that are trimmed. They may be in use again, and no damage of theirs counts.
    fn follow_trimmed(
        &mut self,
        used: &mut Vec<(PathBuf, SlotHeader)>,
        mut wanted: Previous,
    ) -> Result<bool, StoreError> {
        let sealed = self.found.sealed_end();
        let mut first = self.found.slots.last().map_or(Seq::ZERO, |slot| slot.header.first);
        while first > sealed {
            let at = used.iter().position(|(_, header)| is_previous(header, &wanted));
            let Some(at) = at else { break };
            let (path, header) = used[at].clone();
            let end = wanted.end;
            (wanted, first) = (header.previous, header.first);
            let Some(slot) = self.scan(path, header, Some(end))? else { return Ok(false) };
            if !slot.scan.damage.is_empty() {
                break;
            }
            used.swap_remove(at);
            self.found.trimmed.insert(0, slot);
        }
        Ok(true)
    }

    fn take_slot(&mut self, slot: SurveyedSlot) {
        self.found.damage.extend(slot.scan.damage.iter().cloned());
        self.found.slots.push(slot);
    }

    /// Reads a slot; `None` when its head is not that any more.
    fn scan(
        &mut self,
        path: PathBuf,
        header: SlotHeader,
        known_end: Option<u64>,
    ) -> Result<Option<SurveyedSlot>, StoreError> {
        let is_this = |slot: &SurveyedSlot| (&slot.header, slot.known_end) == (&header, known_end);
        if let Some(at) = self.whole.iter().position(is_this) {
            return Ok(Some(self.whole.swap_remove(at)));
        }
        let file = match self.disk.open_read(&path) {
            Ok(file) => file,
            // Given back since the heads were read.
            Err(StoreError::Io { .. }) if !path.exists() => return Ok(None),
            Err(error) => return Err(error),
        };
        let tip = self.tip.filter(|tip| (tip.number, tip.nonce) == (header.number, header.nonce));
        let known = Known { end: known_end, synced: tip.map(|tip| (tip.upto, tip.next)) };
        let scan = scan_slot(self.disk, &file, &path, &header, known);
        let head = read_header(self.disk, &file, &path)?;
        if !matches!(head, Scan::Used(now) if *now == header) {
            return Ok(None);
        }
        Ok(Some(SurveyedSlot { path, header, scan: scan?, known_end }))
    }

    /// The journal's copy of the identity counts where it knows a newer generation.
    fn take_newest_meta(&mut self) {
        let Some(slot) = self.found.slots.last() else { return };
        let state =
            slot.scan.state.as_ref().and_then(|state| Meta::decode(&state.meta, self.format).ok());
        let Some(journal) = state else { return };
        let path = slot.path.clone();
        match &self.found.meta {
            Some(meta) if meta.log != journal.log => {
                self.report(Seq::ZERO, Seq::ZERO, &path, "the slot belongs to another log");
            }
            Some(meta) => {
                let counter = |meta: &Meta| meta.generations.current().generation.counter;
                if counter(&journal) > counter(meta) {
                    let slot_files = meta.slot_files;
                    self.found.meta_is_stale = true;
                    self.found.meta = Some(Meta { slot_files, ..journal });
                }
            }
            None => self.found.meta = Some(journal),
        }
    }

    /// Every readable seq lies in a segment or slot.
    fn check_cover(&mut self) {
        let found = &self.found;
        let mut upto = found.oldest();
        let mut holes = Vec::new();
        let segments = found.segments.iter().map(|s| (s.first(), s.end(), s.dir().to_owned()));
        let removed = found.removed.iter().map(|it| (it.range.first, it.range.end, it.dir.clone()));
        let mut sealed: Vec<_> = segments.chain(removed).collect();
        sealed.sort_by_key(|(first, ..)| *first);
        let slots = found.slots.iter().map(|s| (s.header.first, s.scan.next, s.path.clone()));
        for (first, end, path) in sealed.into_iter().chain(slots) {
            if first > upto && end > upto {
                holes.push((upto, first.prev(), path));
            }
            upto = upto.max(end);
        }
        let has_no_slot =
            found.slots.is_empty() && (found.meta.is_some() || !found.segments.is_empty());
        let clean = found.meta.as_ref().and_then(|meta| meta.clean_stop);
        let newest = found.slots.last().map(|slot| slot.header.number);
        let next = found.next();
        for (from, to, path) in holes {
            self.report(from, to, &path, "the events before this file are missing");
        }
        let parted = if self.format == 1 { Vec::new() } else { self.found.parted() };
        for (seq, path) in parted {
            let what =
                "the chain does not join: this file is of another history than the one before";
            self.report(seq, Seq::ZERO, &path, what);
        }
        let journal = self.dir.join(JOURNAL_DIR);
        if has_no_slot {
            // Even an empty log has its state in a slot.
            self.report(upto, Seq::ZERO, &journal, "no slot of the journal is left");
        }
        if let Some(clean) = clean
            && newest == Some(clean.slot)
            && next != Seq::new(clean.head).next()
        {
            let what = "the journal ends before the clean stop did";
            self.report(next, Seq::new(clean.head), &journal, what);
        }
    }
}

fn is_previous(header: &SlotHeader, wanted: &Previous) -> bool {
    (header.number, header.nonce) == (wanted.number, wanted.nonce)
}
