//! Recovery a log: survey, judge, recover.
//!
//! Anything that was durable and cannot be read stops the opening; only the very last write, which
//! was never known to be synced, is ambiguous. What of it is valid is copied to a new slot and
//! synced before any reader sees it; what is not is kept in `quarantine/`, and begins a new
//! generation, because it may have been acknowledged and seen.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex, RwLock};

use super::claim::Claim;
use super::copy::{CopyOf, refuse_other};
use super::create::{create, refuse_foreign};
use super::erase::load_order;
use super::seal::Sealer;
use super::survey::{Survey, SurveyedSlot, survey};
use super::topics::Cut;
use super::trimmed::Trimmed;
use super::unsealed::Unsealed;
use super::view::View;
use super::whereabouts::whereabouts;
use super::work::Work;
use super::{JOURNAL_DIR, LocalEngine, Options, QUARANTINE_DIR, SEGMENTS_DIR, lookup};
use crate::chain::Link;
use crate::storage::disk::Disk;
use crate::storage::error::chain;
use crate::storage::journal::{
    Failure, Frame, Origin, Previous, Slot, SlotJournal, SlotSet, Tail, open_slot,
};
use crate::storage::meta::{META_FILE, Meta};
use crate::storage::segment::{self, Segment};
use crate::storage::{Commit, Links, Recovered, StoreError, unfinished};
use crate::width::{to_u32, to_usize};
use tailmark_record::{Bounds, Seq, Timestamp};

/// Most bytes of a torn write that are kept.
const QUARANTINE_BYTES: u64 = 32 << 20;

/// Opens a log on this machine's disk.
///
/// # Errors
/// Locked, missing (without `create`), of another format, damaged, or I/O. Nothing is changed by a
/// failed open but a created lock file.
pub fn open(dir: &Path, options: Options) -> Result<(Arc<LocalEngine>, Recovered), StoreError> {
    open_as(dir, options, None)
}

/// The same of a copy, or of a log of its own.
pub(super) fn open_as(
    dir: &Path,
    mut options: Options,
    copy: Option<&CopyOf>,
) -> Result<(Arc<LocalEngine>, Recovered), StoreError> {
    unfinished::refuse_unfinished(dir)?;
    if !dir.exists() {
        if dir.is_symlink() {
            // A disk that is not mounted, perhaps: nothing is to be made in its place.
            let source = std::io::ErrorKind::NotFound.into();
            return Err(StoreError::Io { action: "follow", path: dir.to_owned(), source });
        }
        if !options.create {
            return Err(StoreError::Missing { path: dir.to_owned() });
        }
        options.disk.create_dir(dir)?;
    }
    if !dir.join(META_FILE).exists() && !dir.join(JOURNAL_DIR).exists() {
        // Before the lock file is made: what is not ours is left as it is.
        refuse_foreign(dir)?;
    }
    let mut claim = Claim::take(dir, &options.disk)?;
    let mut found = survey(dir, &options.disk)?;
    if found.is_blank() && found.damage.is_empty() {
        if !options.create {
            return Err(StoreError::Missing { path: dir.to_owned() });
        }
        match copy {
            Some(of) => of.create(dir, &options)?,
            None => create(dir, &options)?,
        }
        claim.lock_slots(&options.disk)?;
        if !claim.has_lock_file() {
            // Deleted before there was a slot to lock: another process may be at it as well.
            return Err(StoreError::Locked { path: dir.to_owned(), owner: None });
        }
        found = survey(dir, &options.disk)?;
    }
    if let Some(damage) = found.damage.first() {
        return Err(StoreError::Damaged(damage.clone()));
    }
    let meta = found.meta.take().ok_or(StoreError::Invalid("the log has no identity"))?;
    refuse_other(dir, &meta, copy)?;
    options.slot_bytes = meta.slot_bytes;
    // Only a log that never sealed anything may be without it.
    let segments = dir.join(SEGMENTS_DIR);
    options.disk.create_dir(&segments)?;
    claim.hold_segments(&options.disk)?;
    segment::clean(&segments, &options.disk)?;
    super::private::close_to_others(dir);
    Recovery { dir: dir.to_owned(), options, meta, claim }.run(found)
}

/// What is known of where the log was before.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Moved {
    /// Here.
    No,
    /// Nothing.
    Unknown,
    /// In another directory.
    Elsewhere,
}

struct Recovery {
    dir: PathBuf,
    options: Options,
    meta: Meta,
    claim: Claim,
}

impl Recovery {
    fn run(mut self, found: Survey) -> Result<(Arc<LocalEngine>, Recovered), StoreError> {
        let disk = self.options.disk.clone();
        let (oldest, next) = (found.oldest(), found.next());
        let erasing = load_order(&self.dir, &disk, self.meta.log)?;
        let torn = self.settle_torn(&found)?;
        let moved = self.settle_moved(&found, torn)?;
        let recovered = recovered(&found);
        let (origin, suffix) = self.origin(&disk, &found)?;
        let meta_is_stale = found.meta_is_stale;
        let cache = segment::Cache::new(segment::CacheOptions {
            max_open: self.options.open_segments,
            max_bytes: self.options.open_bytes,
            ..segment::CacheOptions::default()
        });
        let keep = self.options.kept_fingerprints;
        let trimmed = Trimmed::open(&self.dir, &disk, self.meta.log, keep)?;
        trimmed.leave_out(erasing.clone());
        // Nobody reads them. One that cannot be moved away is no part of the log at the next start either.
        let ranges = found.superseded_ranges.iter();
        let trash = ranges.filter_map(|it| segment::trash(&it.dir, &disk).ok()).collect();
        let (mut set, mut view, superseded) = self.take_over(found, &disk, &trimmed, &cache)?;
        if erasing.is_some() {
            set.taint();
        }
        let mut journal = SlotJournal::begin(disk.clone(), set, origin)?;
        if torn || moved == Moved::Elsewhere || !suffix.is_empty() {
            journal.rewrite(&suffix).map_err(Failure::into_error)?;
        }
        self.meta.slot_files = to_u32(journal.slots().files());
        if torn || meta_is_stale {
            tracing::warn!(dir = %self.dir.display(), "writing log.meta from the journal's copy");
        }
        if torn || meta_is_stale || moved != Moved::No {
            self.meta.store(&disk, &self.dir)?;
        }
        let retired = self.retire(&mut view, oldest, &trimmed);
        view.slots.push(Arc::clone(journal.active()));
        let bounds =
            Bounds { oldest, head: next.prev(), generations: self.meta.generations.clone() };
        let links = Links { head: journal.link(), oldest_tag: journal.oldest_tag() };
        let engine = Arc::new(LocalEngine {
            cache,
            dir: self.dir,
            log: self.meta.log,
            key: self.meta.key,
            meta: Mutex::new(self.meta),
            storing_slot_files: Mutex::default(),
            journal: Mutex::new(journal),
            slot_freed: Condvar::new(),
            view: RwLock::new(Arc::new(view)),
            bounds: RwLock::new(bounds),
            links: RwLock::new(links),
            retired: Mutex::new(retired),
            discarded: Mutex::new(superseded),
            building: Mutex::new(()),
            erasing: Mutex::new(erasing),
            trash: Mutex::new(trash),
            work: Arc::new(Work::default()),
            trimmed,
            cut: Cut::default(),
            unsealed: Unsealed::default(),
            threads: Mutex::new(Vec::new()),
            options: self.options,
            claim: self.claim,
        });
        engine.note_files(&mut engine.journal.lock());
        engine.start_threads()?;
        Ok((engine, recovered))
    }

    /// Whether the end of the log may have been lost: then a new generation begins.
    fn settle_torn(&mut self, found: &Survey) -> Result<bool, StoreError> {
        let torn = self.quarantine(found)?;
        // What a segment holds was durable: a torn end of its slot has lost nothing.
        let is_proven = found.sealed_end() > found.journal_next();
        let torn = torn && !is_proven;
        // What is missing of a copy is in its journal.
        if torn && self.meta.copy_of.is_none() {
            self.begin_generation(found.next(), "quarantined")?;
            tracing::warn!(next = %found.next(), "a new generation begins");
        }
        Ok(torn)
    }

    /// Whether this is another directory than the log was in: then it may not be its only continuation, and
    /// a new generation begins.
    fn settle_moved(&mut self, found: &Survey, torn: bool) -> Result<Moved, StoreError> {
        let here = whereabouts(&self.dir);
        let before = std::mem::replace(&mut self.meta.whereabouts, here);
        if before == here {
            return Ok(Moved::No);
        }
        let is_known = self.options.tells_copies && before != [0; 16] && here != [0; 16];
        // A copy goes on only by what its journal has, wherever it lies.
        let is_known = is_known && self.meta.copy_of.is_none();
        if !is_known || torn || self.meta.generations.is_full() {
            return Ok(Moved::Unknown);
        }
        self.begin_generation(found.next(), "copied")?;
        tracing::warn!(
            dir = %self.dir.display(), head = %found.next().prev(),
            generation = self.meta.generations.current().generation.counter,
            "the directory was copied, put back or moved since the log was open last; a new generation begins, \
             so that readers of another continuation are told where it parted from this one"
        );
        Ok(Moved::Elsewhere)
    }

    /// Opens what was found: the slots to go on in, what there is to read, and the segments that
    /// others have taken the place of.
    fn take_over(
        &mut self,
        found: Survey,
        disk: &Disk,
        trimmed: &Trimmed,
        cache: &segment::Cache,
    ) -> Result<(SlotSet, View, Vec<Arc<Segment>>), StoreError> {
        let sealed = found.sealed_end();
        let Survey {
            mut segments,
            removed,
            mut superseded,
            slots: surveyed,
            trimmed: passed,
            mut free,
            unbegun,
            ..
        } = found;
        for slot in passed {
            free.push(slot.path.clone());
            lookup::keep_slot(trimmed, &self.as_slot(slot, disk)?, sealed, &self.meta.key);
        }
        free.extend(unbegun.map(|(path, _)| path));
        let opened = surveyed.into_iter().map(|slot| self.as_slot(slot, disk).map(Arc::new));
        let mut slots = opened.collect::<Result<Vec<_>, _>>()?;
        let gone = removed.last().map(|it| it.range.end);
        let (set, folded) = self.slot_set(disk, free, &mut slots, &mut segments, gone, cache)?;
        superseded.extend(folded);
        Ok((set, View { segments, removed, slots }, superseded))
    }

    /// Takes the slots out that hold nothing which is not sealed or trimmed.
    fn retire(&self, view: &mut View, oldest: Seq, trimmed: &Trimmed) -> Vec<Arc<Slot>> {
        let sealed = view.sealed_end().unwrap_or(Seq::FIRST);
        let begin = sealed.max(oldest);
        // Oldest first, as the sealer does: the chain to a needed slot leads through all newer
        // ones, also through one without events.
        let is_needed = |slot: &Arc<Slot>| slot.end() > begin && slot.end() > slot.first();
        let needed = view.slots.iter().position(is_needed).unwrap_or(view.slots.len());
        let retired: Vec<_> = view.slots.drain(..needed).collect();
        for slot in &retired {
            lookup::keep_slot(trimmed, slot, sealed, &self.meta.key);
        }
        retired
    }

    /// Keeps the bytes of torn writes. Answers whether there were any.
    fn quarantine(&self, found: &Survey) -> Result<bool, StoreError> {
        let newest = found.slots.last().map(|slot| (&slot.path, slot.scan.tail));
        let unbegun = found.unbegun.as_ref().map(|(path, tail)| (path, *tail));
        // A head without a state behind it: something was being written, and is gone.
        let mut torn = found.unbegun.is_some();
        for (path, tail) in newest.into_iter().chain(unbegun) {
            let Tail::Torn { from, to } = tail else { continue };
            torn = true;
            let disk = &self.options.disk;
            let mut bytes = vec![0u8; (to - from).min(QUARANTINE_BYTES) as usize];
            disk.read_at(&disk.open_read(path)?, path, &mut bytes, from)?;
            let dir = self.dir.join(QUARANTINE_DIR);
            disk.create_dir(&dir)?;
            let slot = path.file_name().unwrap_or_default().to_string_lossy();
            let kept = dir.join(format!("{}-{slot}-{from}.bin", Timestamp::now().seconds));
            disk.replace(&kept, &bytes)?;
            tracing::warn!(
                slot = %path.display(), from, to, kept = %kept.display(),
                "the last write did not survive; its bytes are kept"
            );
        }
        Ok(torn)
    }

    fn begin_generation(&mut self, next: Seq, cause: &str) -> Result<(), StoreError> {
        self.meta.generations = self
            .meta
            .generations
            .with_next(rand::random(), next, Timestamp::now(), cause)
            .ok_or(StoreError::Invalid("the log has used up its generations"))?;
        Ok(())
    }

    /// Where the journal goes on, and the commits that must be copied first.
    fn origin(&self, disk: &Disk, found: &Survey) -> Result<(Origin, Vec<Commit>), StoreError> {
        let Some(newest) = found.slots.last() else {
            return Err(StoreError::Invalid("no slot"));
        };
        let scan = &newest.scan;
        let state = scan.state.clone().unwrap_or_default();
        let sealed = found.sealed_end();
        if sealed > scan.next {
            return Ok((self.origin_after_segments(found, newest, sealed)?, Vec::new()));
        }
        let Some((_, link)) = scan.links else {
            return Err(StoreError::Invalid("the newest slot has no frame"));
        };
        let suffix = read_commits(disk, newest)?;
        let first = scan.unproven.first();
        let copied = suffix.iter().filter(|commit| !commit.delta.is_empty()).count();
        let kept = scan.deltas.len() - copied.min(scan.deltas.len());
        let mut deltas = state.deltas;
        deltas.extend_from_slice(&scan.deltas[..kept]);
        let origin = Origin {
            log: self.meta.log,
            meta: self.meta.encode()?,
            generation: self.meta.generations.current().generation,
            previous: match first {
                // Not even its head is known to be synced, and all of it is copied: after another
                // crash it may be gone, and nothing may ask for it.
                Some(first) if scan.frames_begin == first.offset => newest.header.previous,
                first => Previous {
                    number: newest.header.number,
                    nonce: newest.header.nonce,
                    end: first.map_or(scan.end, |frame| frame.offset),
                },
            },
            number: found.last_number + 1,
            next: first.map_or(scan.next, |frame| frame.first),
            link: first.map_or(link, |frame| frame.link_before),
            oldest: first.map_or(scan.oldest, |frame| frame.oldest),
            oldest_tag: first.map_or(scan.oldest_tag, |frame| frame.oldest_tag),
            last_at: first.map_or(scan.last_at, |frame| frame.appended_at).max(Timestamp::EPOCH),
            snapshot: state.snapshot,
            deltas,
        };
        Ok((origin, suffix))
    }

    /// The journal lost the end of a slot whose events are sealed: the segments go on.
    fn origin_after_segments(
        &self,
        found: &Survey,
        newest: &SurveyedSlot,
        sealed: Seq,
    ) -> Result<Origin, StoreError> {
        let scan = &newest.scan;
        let state = scan.state.clone().unwrap_or_default();
        let Some(link) = found.sealed_link() else {
            return Err(StoreError::Invalid("no segment"));
        };
        let last_at = found.segments.last().map_or(Timestamp::EPOCH, |last| last.last_at());
        Ok(Origin {
            log: self.meta.log,
            meta: self.meta.encode()?,
            generation: self.meta.generations.current().generation,
            previous: Previous {
                number: newest.header.number,
                nonce: newest.header.nonce,
                end: scan.end,
            },
            number: found.last_number + 1,
            next: sealed,
            link,
            oldest: scan.oldest,
            oldest_tag: scan.oldest_tag,
            last_at: last_at.max(scan.last_at).max(Timestamp::EPOCH),
            snapshot: state.snapshot,
            deltas: state.deltas.into_iter().chain(scan.deltas.iter().cloned()).collect(),
        })
    }

    fn as_slot(&mut self, slot: SurveyedSlot, disk: &Disk) -> Result<Slot, StoreError> {
        let file = self.claim.open_slot(&slot.path, disk)?.file;
        let copied = slot.scan.unproven.first().map_or(u64::MAX, |frame| frame.offset);
        let frames = slot.scan.frames.into_iter().filter(|frame| frame.offset < copied).collect();
        let link_before = slot.scan.links.map_or(Link::START, |(first, _)| first);
        Ok(Slot::new(slot.path, file, disk.clone(), slot.header, link_before, frames))
    }

    /// The slot files, with at least one to go on in: sealing makes room if there is none.
    fn slot_set(
        &mut self,
        disk: &Disk,
        paths: Vec<PathBuf>,
        slots: &mut Vec<Arc<Slot>>,
        segments: &mut Vec<Arc<Segment>>,
        gone: Option<Seq>,
        cache: &segment::Cache,
    ) -> Result<(SlotSet, Vec<Arc<Segment>>), StoreError> {
        let mut folded = Vec::new();
        let files = paths.len() + slots.len();
        let mut free = Vec::new();
        for path in paths {
            let slot = self.claim.open_slot(&path, disk)?;
            let len = slot.file.metadata().map_err(StoreError::io("stat", &path))?.len();
            if len == self.options.slot_bytes {
                free.push(slot);
                continue;
            }
            // A file of another size that holds nothing the log needs. It stays one of the files
            // that must be there, and is of no use until there is room to allocate it again.
            match disk.allocate(&path, self.options.slot_bytes) {
                Ok(()) => free.push(open_slot(disk, &path)?),
                Err(error) => tracing::warn!(
                    slot = %path.display(), error = %chain(&error), "cannot allocate a slot again"
                ),
            }
        }
        let needed = self.options.slot_bytes + (1 << 20);
        // Which may lie on another disk.
        let has_room = disk.available(&self.dir.join(JOURNAL_DIR))? >= needed;
        while free.is_empty() && slots.len() > 1 && (files > self.options.max_slots || !has_room) {
            let sealer = Sealer {
                dir: self.dir.join(SEGMENTS_DIR),
                options: &self.options,
                meta: &self.meta,
                cache,
                progress: Arc::default(),
                // A log that cannot be opened could not be trimmed either.
                reserve_bytes: 0,
            };
            let slot = slots.remove(0);
            let sealed = segments.last().map(|segment| segment.end()).max(gone);
            folded.extend(sealer.seal(segments, sealed, &slot, slot.end())?);
            if let Ok(slot) = Arc::try_unwrap(slot) {
                free.push(slot.into_free());
            }
        }
        let sizes = self.options.journal(self.options.slot_bytes);
        let dir = self.dir.join(JOURNAL_DIR);
        Ok((SlotSet::new(dir, disk.clone(), sizes, free, files), folded))
    }
}

/// What the caller's state was, the newest commits included.
fn recovered(found: &Survey) -> Recovered {
    let Some(newest) = found.slots.last() else { return Recovered::default() };
    let state = newest.scan.state.clone().unwrap_or_default();
    let deltas = state.deltas.into_iter().chain(newest.scan.deltas.iter().cloned());
    Recovered {
        state: Bytes::from(state.snapshot),
        deltas: deltas.map(|(first, end, delta)| (first, end, Bytes::from(delta))).collect(),
        last_at: newest.scan.last_at.max(Timestamp::EPOCH),
    }
}

/// The commits of a slot that are valid but not known to be synced.
fn read_commits(disk: &Disk, slot: &SurveyedSlot) -> Result<Vec<Commit>, StoreError> {
    let file = disk.open_read(&slot.path)?;
    let read = |frame: &Frame| {
        let mut bytes = vec![0u8; to_usize(frame.bytes())];
        disk.read_at(&file, &slot.path, &mut bytes, frame.offset)?;
        let bytes = Bytes::from(bytes);
        let events = frame.header_bytes + frame.delta_len as usize;
        Ok(Commit {
            first: frame.first,
            count: frame.count,
            appended_at: frame.appended_at,
            events: bytes.slice(events..),
            delta: bytes.slice(frame.header_bytes..events),
            state: None,
            link: frame.link,
            oldest: frame.oldest,
            oldest_tag: frame.oldest_tag,
        })
    };
    slot.scan.unproven.iter().map(read).collect()
}
