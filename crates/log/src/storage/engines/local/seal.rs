//! Moving events from slots into segments, and giving space back.

use std::io::ErrorKind;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use super::whereabouts::whereabouts;
use super::work::Trouble;
use super::{LocalEngine, Options};
use crate::chain::Link;
use crate::storage::error::chain;
use crate::storage::journal::{Slot, SlotJournal, sealing_bytes};
use crate::storage::meta::{CleanStop, Meta};
use crate::storage::segment::{
    self, BLOCK_BYTES, BuildSpec, Cache, DB_CACHE_BYTES, Lease, MANY_EVENTS, Progress,
    RemovedRange, Segment, Source,
};
use crate::storage::{Chunk, Damage, StoreError};
use crate::width::to_u32;
use tailmark_record::{Fingerprint, Seq};

/// Builds segments.
pub(super) struct Sealer<'a> {
    pub(super) dir: PathBuf,
    pub(super) options: &'a Options,
    pub(super) meta: &'a Meta,
    pub(super) cache: &'a Cache,
    pub(super) progress: Arc<Progress>,
    /// Bytes of the file system that are left to others.
    pub(super) reserve_bytes: u64,
}

impl Sealer<'_> {
    /// Seals the events of `slot` below `end` that are neither sealed nor gone yet: those from `sealed` on. A small
    /// last segment is folded into the new one and answered, to be discarded.
    pub(super) fn seal(
        &self,
        segments: &mut Vec<Arc<Segment>>,
        sealed: Option<Seq>,
        slot: &Slot,
        end: Seq,
    ) -> Result<Option<Arc<Segment>>, StoreError> {
        let from = slot.first().max(sealed.unwrap_or_default());
        if from >= end {
            return Ok(None);
        }
        let folded = segments.last().filter(|last| self.is_small(last, from, slot)).cloned();
        let lease = folded.as_ref().and_then(|segment| segment.lease());
        let folded = folded.filter(|_| lease.is_some());
        let link_before = self.link_before(segments, slot, from)?;
        let link_before = folded.as_ref().map_or(link_before, |folded| folded.link_before());
        let source = Unsealed { folded: lease.map(|lease| (lease, self.cache)), slot, from, end };
        self.check_space(source.bytes())?;
        let spec = BuildSpec {
            named_before: folded.as_ref().map_or(Ok(Vec::new()), |it| named_of_runs(it))?,
            link: slot.link_before(end),
            revision: folded.as_ref().map_or(1, |segment| segment.revision() + 1),
            ..self.spec(folded.as_ref().map_or(from, |segment| segment.first())..end, link_before)
        };
        let built = Arc::new(segment::build(&self.dir, &spec, &source)?);
        if folded.is_some() {
            segments.pop();
        }
        segments.push(built);
        Ok(folded)
    }

    /// What to build of these events, but for what tells repeats of some, the chain at their end and the revision.
    pub(super) fn spec(&self, range: Range<Seq>, link_before: Link) -> BuildSpec {
        BuildSpec {
            log_id: self.meta.log,
            generations: self.meta.generations.clone(),
            fingerprint_key: self.meta.key,
            first: range.start,
            end: range.end,
            named_before: Vec::new(),
            link_before,
            link: None,
            revision: 1,
            compression: self.options.compression,
            block_bytes: BLOCK_BYTES,
            db_cache_bytes: DB_CACHE_BYTES,
            progress: Arc::clone(&self.progress),
            disk: self.options.disk.clone(),
        }
    }

    /// The chain before the first event of `slot` that is to be sealed.
    fn link_before(
        &self,
        segments: &[Arc<Segment>],
        slot: &Slot,
        from: Seq,
    ) -> Result<Link, StoreError> {
        let damage = |detail: &str| {
            let (file, detail) = (slot.path().to_owned(), detail.to_owned());
            StoreError::from(Damage { from, to: Seq::ZERO, file, detail })
        };
        let sealed = segments.last().filter(|last| last.end() == from).map(|last| last.link());
        match (sealed, slot.link_before(from)) {
            (Some(sealed), Some(link)) if !sealed.joins(link) => {
                Err(damage("the slot does not go on where the segment before it ends"))
            }
            // Behind a range without events it may know more of it.
            (_, Some(link)) | (Some(link), None) => Ok(link),
            (None, None) => Err(damage("the chain before it is not known")),
        }
    }

    /// Many small stops must not leave many small segments.
    fn is_small(&self, last: &Segment, from: Seq, slot: &Slot) -> bool {
        // What is stamped ahead of the clock ages by when its segment was written, see `seen.rs`: written
        // again at each start it never would.
        last.last_at() <= (self.options.clocks.wall)()
            && last.end() == from
            // What is gone out of it takes seqs all the same.
            && last.first().distance_to(slot.end()) <= MANY_EVENTS
            && last.raw_bytes() < self.options.slot_bytes / 2
            && last.raw_bytes() + slot.event_bytes() <= self.options.slot_bytes
    }

    /// sled never returns from a flush that found no room, so it must not get there.
    pub(super) fn check_space(&self, raw_bytes: u64) -> Result<(), StoreError> {
        let available_bytes = self.options.disk.available(&self.dir)?;
        let needed_bytes = sealing_bytes(raw_bytes).saturating_add(self.reserve_bytes);
        if available_bytes < needed_bytes {
            return Err(StoreError::DiskFull { available_bytes, needed_bytes });
        }
        Ok(())
    }
}

/// What tells repeats of events that a segment has no more.
///
/// # Errors
/// Damage, or I/O.
pub(super) fn named_of_runs(segment: &Segment) -> Result<Vec<(Seq, Fingerprint)>, StoreError> {
    if segment.removed().runs == 0 { Ok(Vec::new()) } else { segment.named() }
}

/// The events of a small segment and of a slot after it.
struct Unsealed<'a> {
    folded: Option<(Lease, &'a Cache)>,
    slot: &'a Slot,
    from: Seq,
    end: Seq,
}

impl Unsealed<'_> {
    fn bytes(&self) -> u64 {
        self.folded.as_ref().map_or(0, |(lease, _)| lease.raw_bytes()) + self.slot.event_bytes()
    }

    fn read(&self, at: Seq) -> Result<Chunk, StoreError> {
        match &self.folded {
            Some((lease, cache)) if at < self.from => cache.entries(lease, at),
            _ => self.slot.read(at, self.end),
        }
    }
}

impl Source for Unsealed<'_> {
    fn chunks(&self) -> Box<dyn Iterator<Item = Result<Chunk, StoreError>> + '_> {
        let mut at = self.folded.as_ref().map_or(self.from, |(lease, _)| lease.first());
        Box::new(std::iter::from_fn(move || {
            if at >= self.end {
                return None;
            }
            let chunk = self.read(at);
            at = chunk.as_ref().map_or(Seq::MAX, |chunk| chunk.end);
            Some(chunk)
        }))
    }

    fn origin(&self) -> PathBuf {
        self.slot.path().to_owned()
    }
}

impl LocalEngine {
    /// Seals and frees whatever can be.
    pub(super) fn seal_pass(&self) -> Result<(), StoreError> {
        loop {
            self.check_claim()?;
            self.drop_trimmed();
            self.delete_discarded();
            self.free_retired(&mut self.journal.lock());
            if self.work.is_closing() || self.work.has_given_up_sealing() {
                return Ok(());
            }
            let view = self.view();
            if view.slots.len() < 2 {
                if !self.roll_if_due()? {
                    return Ok(());
                }
                continue;
            }
            let Some(slot) = view.slots.first().cloned() else { return Ok(()) };
            let done = view.sealed_end().unwrap_or(Seq::FIRST).max(self.bounds().oldest);
            drop(view);
            self.check_segments()?;
            if slot.end() > done && slot.end() > slot.first() {
                self.seal_slot(&slot, slot.end())?;
            } else {
                self.keep_trimmed_slot(&slot);
            }
            self.retire(slot);
        }
    }

    /// Takes a slot out of what is read; it waits for its last reader.
    fn retire(&self, slot: Arc<Slot>) {
        // First, so that at no moment it is in none of them; it does not come free while we hold it.
        self.retired.lock().push(Arc::clone(&slot));
        self.change_view(|view| view.slots.retain(|other| !Arc::ptr_eq(other, &slot)));
        // After that: nobody makes it another.
        self.unsealed.forget(&slot);
    }

    /// What builds segments of this log.
    pub(super) fn sealer<'a>(&'a self, meta: &'a Meta, progress: Arc<Progress>) -> Sealer<'a> {
        Sealer {
            dir: self.segments_dir(),
            options: &self.options,
            meta,
            cache: &self.cache,
            progress,
            reserve_bytes: self.options.min_free_bytes,
        }
    }

    fn seal_slot(&self, slot: &Arc<Slot>, end: Seq) -> Result<(), StoreError> {
        let _building = self.building.lock();
        let begun = Instant::now();
        let meta = self.meta.lock().clone();
        let progress = Arc::new(Progress::default());
        *self.work.sealing.lock() = Some(Arc::clone(&progress));
        let sealer = self.sealer(&meta, progress);
        // Nothing else is held meanwhile: where this hangs, other slots must come free all the same.
        let (mut segments, sealed_end) = {
            let view = self.view();
            (view.segments.clone(), view.sealed_end())
        };
        let result = sealer.seal(&mut segments, sealed_end, slot, end);
        *self.work.sealing.lock() = None;
        let folded = result?;
        if self.work.has_given_up_sealing() {
            // The slot stays; the next start finds the segment, and frees it then.
            return Err(StoreError::Busy { reason: "sealing has been given up".to_owned() });
        }
        let Some(built) = segments.last().cloned() else { return Ok(()) };
        // Trimming may have removed segments meanwhile; only the last one is ours to change.
        self.change_view(|view| {
            view.segments.retain(|segment| segment.first() < built.first());
            view.segments.push(Arc::clone(&built));
        });
        self.discarded.lock().extend(folded);
        let took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::debug!(
            first = %built.first(), end = %built.end(), bytes = built.disk_bytes(),
            raw_bytes = built.raw_bytes(), took_ms,
            "sealed a segment"
        );
        Ok(())
    }

    /// Drops segments below the trim mark from the view; their directories go when nobody reads.
    pub(super) fn reclaim(&self) -> Result<(), StoreError> {
        self.check_claim()?;
        self.drop_trimmed();
        self.move_discarded()?;
        if self.work.has_given_up_sealing() {
            // Nobody else does it any more.
            self.retire_trimmed();
            self.delete_discarded();
            self.free_retired(&mut self.journal.lock());
        }
        self.work.signal(|signals| signals.seal = true);
        Ok(())
    }

    /// Slots below the trim mark, oldest first, wait for their last reader.
    fn retire_trimmed(&self) {
        let oldest = self.bounds().oldest;
        let mut slots = self.view().slots.clone();
        slots.pop();
        slots.truncate(slots.iter().position(|slot| slot.end() > oldest).unwrap_or(slots.len()));
        for slot in slots {
            self.keep_trimmed_slot(&slot);
            self.retire(slot);
        }
    }

    /// Both at once: what can be read follows on without a hole.
    pub(super) fn drop_trimmed(&self) {
        let oldest = self.bounds().oldest;
        let has_gone = |it: &RemovedRange| it.range.end <= oldest;
        let view = self.view();
        let count = view.segments.partition_point(|segment| segment.end() <= oldest);
        if count == 0 && !view.removed.first().is_some_and(|it| has_gone(it)) {
            return;
        }
        view.segments[..count].iter().for_each(|segment| self.keep_trimmed_segment(segment));
        drop(view);
        let (mut segments, mut ranges) = (Vec::new(), Vec::new());
        self.change_view(|view| {
            let keep = view.segments.partition_point(|segment| segment.end() <= oldest);
            segments = view.segments.drain(..keep).collect();
            ranges = view.removed.extract_if(.., |it| has_gone(it)).collect();
        });
        self.discarded.lock().extend(segments);
        for gone in ranges {
            // Nobody has it open: what it says is in memory. One that stays goes after the next start.
            match segment::trash(&gone.dir, &self.options.disk) {
                Ok(trash) => self.trash.lock().push(trash),
                Err(error) => tracing::warn!(
                    error = %chain(&error), "cannot move away a range without events"
                ),
            }
        }
    }

    /// Renames discarded segments that nobody reads, oldest first; deleting comes later.
    pub(super) fn move_discarded(&self) -> Result<(), StoreError> {
        let mut discarded = self.discarded.lock();
        let mut failure = None;
        for segment in std::mem::take(&mut *discarded) {
            match self.cache.discard(&segment) {
                Ok(Some(trash)) => self.trash.lock().push(trash),
                Ok(None) => discarded.push(segment),
                // Trimmed while it was folded: it was discarded twice.
                Err(_) if !segment.dir().exists() => {}
                Err(error) => {
                    discarded.push(segment);
                    failure.get_or_insert(error);
                }
            }
        }
        failure.map_or(Ok(()), Err)
    }

    pub(super) fn delete_discarded(&self) {
        if let Err(error) = self.move_discarded() {
            tracing::warn!(error = %chain(&error), "cannot move a discarded segment away");
        }
        for path in std::mem::take(&mut *self.trash.lock()) {
            if let Err(error) = segment::delete(&path, &self.options.disk) {
                tracing::warn!(error = %chain(&error), "cannot delete a discarded segment");
            }
        }
    }

    pub(super) fn close(&self) -> Result<(), StoreError> {
        self.work.stop();
        self.join_threads();
        let mut journal = self.journal.lock();
        if journal.broken().is_some() || !journal.is_begun() {
            return Ok(());
        }
        journal.close()?;
        if let Err(error) = self.check_claim() {
            // All of it is durable in the slots that are open, and they say that the stop was
            // clean.
            tracing::warn!(%error, "closed without a note in log.meta");
            return Ok(());
        }
        self.store_clean_stop(&mut journal)?;
        let active = Arc::clone(journal.active());
        drop(journal);
        if active.event_bytes() >= self.options.slot_bytes / 4
            && self.view().slots.len() == 1
            && !self.work.has_given_up_sealing()
        {
            // Enough to rest in a segment: the next start finds it sealed.
            if let Err(error) = self.seal_slot(&active, active.end()) {
                tracing::warn!(error = %chain(&error), "cannot seal at the stop; it waits for the next start");
            }
        }
        self.delete_discarded();
        Ok(())
    }

    fn store_clean_stop(&self, journal: &mut SlotJournal) -> Result<(), StoreError> {
        let mut meta = self.meta.lock();
        meta.slot_files = to_u32(journal.slots().files());
        // The lock file may have been made again since the start.
        meta.whereabouts = whereabouts(&self.dir);
        meta.clean_stop = Some(CleanStop {
            slot: journal.active().header().number,
            end: journal.end(),
            head: journal.next().prev().get(),
        });
        meta.store(&self.options.disk, &self.dir)
    }

    /// A slot file that was added must be missed if it goes missing.
    pub(super) fn store_slot_files(&self) -> Result<(), StoreError> {
        // Two threads come here: what one counted must not be stored after what the other did.
        let _one_at_a_time = self.storing_slot_files.lock();
        let files = to_u32(self.journal.lock().slots().files());
        let mut meta = self.meta.lock();
        if meta.slot_files == files {
            return Ok(());
        }
        meta.slot_files = files;
        meta.store(&self.options.disk, &self.dir)
    }

    pub(super) fn note_trouble(&self, error: &StoreError) {
        let trouble = match error {
            StoreError::DiskFull { available_bytes, needed_bytes } => {
                Trouble::DiskFull { available_bytes: *available_bytes, needed_bytes: *needed_bytes }
            }
            StoreError::Io { source, .. }
                if matches!(source.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) =>
            {
                let available_bytes = self.options.disk.available(&self.dir).unwrap_or(0);
                let needed_bytes = sealing_bytes(self.options.slot_bytes);
                Trouble::DiskFull { available_bytes, needed_bytes }
            }
            error => Trouble::Other(chain(error)),
        };
        let mut current = self.work.trouble.lock();
        if !matches!(*current, Some(Trouble::Hangs { .. })) && current.as_ref() != Some(&trouble) {
            tracing::error!(%trouble, "sealing has stopped; it is tried again");
            *current = Some(trouble);
        }
    }
}
