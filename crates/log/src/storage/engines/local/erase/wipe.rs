//! What is left over of events that go: overwritten, or deleted.
//!
//! A file that is deleted gives its blocks back to the file system: what is on the disk below is not ours to say.

use std::fs::File;
use std::path::Path;
use std::time::Instant;

use super::{LocalEngine, PATIENCE, Watched};
use crate::storage::StoreError;
use crate::storage::engines::local::{JOURNAL_DIR, QUARANTINE_DIR};
use crate::storage::journal::{FreeSlot, is_slot_file};
use crate::storage::segment;

/// Zeros that are written at once.
const PIECE: usize = 1 << 20;

impl LocalEngine {
    pub(super) fn wipe(&self, watched: &mut Watched<'_>) -> Result<(), StoreError> {
        self.trimmed.erase(watched.order)?;
        let begun = Instant::now();
        loop {
            self.go_on_in_clean_slot()?;
            self.delete_discarded();
            self.free_retired(&mut self.journal.lock());
            self.wipe_free(watched)?;
            match self.held() {
                None => break,
                Some(why) => self.pause(watched, begun, PATIENCE, why)?,
            }
        }
        self.check_claim()?;
        self.check_segments()?;
        self.wipe_unknown(watched)?;
        let building = self.take_turn(watched)?;
        self.delete_leftovers()?;
        drop(building);
        self.delete_quarantine()
    }

    /// Who may still read what is to go.
    fn held(&self) -> Option<&'static str> {
        // In the order in which slots come free, so that none is missed on its way: nothing is freed meanwhile.
        let mut journal = self.journal.lock();
        let taints = journal.slots().taints();
        // One that was begun before it was overwritten is sealed, and comes free.
        let is_read = !self.view().slots.iter().all(|slot| slot.is_clean(taints));
        if is_read || self.retired.lock().iter().any(|slot| !slot.is_clean(taints)) {
            self.work.signal(|signals| signals.seal = true);
            return Some("a slot of the journal is still read");
        }
        if journal.slots().has_tainted() {
            return Some("a slot of the journal has not been overwritten");
        }
        drop(journal);
        // Whether or not the order names any of it: what is trimmed may be of the same person.
        if !self.discarded.lock().is_empty() {
            return Some("a segment that was written anew, or trimmed, is still read");
        }
        (!self.trash.lock().is_empty()).then_some("a segment that was written anew is not deleted")
    }

    /// Overwrites free slots that may hold what is to go.
    pub(super) fn wipe_free(&self, watched: &mut Watched<'_>) -> Result<(), StoreError> {
        loop {
            let Some(slot) = self.journal.lock().slots().take_tainted() else { return Ok(()) };
            let wiped = self.overwrite(&slot);
            let mut journal = self.journal.lock();
            match &wiped {
                Ok(()) => journal.slots().give_back_clean(slot),
                Err(_) => journal.slots().give_back(slot),
            }
            drop(journal);
            self.slot_freed.notify_all();
            wiped?;
            watched.tell()?;
        }
    }

    /// Overwrites files beside the slots that may have been one: of another size, for which there was no room to be
    /// allocated again, or copied there by hand.
    fn wipe_unknown(&self, watched: &mut Watched<'_>) -> Result<(), StoreError> {
        let disk = &self.options.disk;
        for path in disk.list(&self.dir.join(JOURNAL_DIR))? {
            if !is_slot_file(&path) {
                continue;
            }
            // Known or not is asked anew for each: slots come and go meanwhile.
            let mut journal = self.journal.lock();
            let is_known = journal.active().path() == path
                || journal.slots().has(&path)
                || self.view().slots.iter().any(|slot| slot.path() == path)
                || self.retired.lock().iter().any(|slot| slot.path() == path);
            if is_known {
                continue;
            }
            // Not while the journal could take one of its name.
            let wiped = disk.open(&path).and_then(|file| self.overwrite_file(&file, &path, 0));
            drop(journal);
            match wiped {
                Err(_) if !path.exists() => continue,
                wiped => wiped?,
            }
            tracing::warn!(
                file = %path.display(),
                "overwrote a file of the journal that is no slot of it: it may have held what was erased"
            );
            watched.tell()?;
        }
        Ok(())
    }

    fn overwrite(&self, slot: &FreeSlot) -> Result<(), StoreError> {
        self.overwrite_file(&slot.file, &slot.path, self.options.slot_bytes)
    }

    /// From the beginning on: whoever reads it meanwhile sees by its head that it is another.
    fn overwrite_file(&self, file: &File, path: &Path, least: u64) -> Result<(), StoreError> {
        let disk = &self.options.disk;
        let zeros = vec![0; PIECE];
        let mut at = 0;
        // One of a log that had larger slots is longer.
        let metadata = file.metadata().map_err(StoreError::io("look at", path))?;
        let len = metadata.len().max(least);
        while at < len {
            let piece = (len - at).min(PIECE as u64);
            let piece = zeros.get(..crate::width::to_usize(piece)).unwrap_or(&zeros);
            disk.write_at(file, path, &[piece], at)?;
            at += piece.len() as u64;
        }
        disk.sync_data(file, path)
    }

    /// What a build or a deletion that was cut has left. No build is under way.
    fn delete_leftovers(&self) -> Result<(), StoreError> {
        let disk = &self.options.disk;
        let view = self.view();
        let names: Vec<_> = view
            .segments
            .iter()
            .filter_map(|segment| segment.dir().file_name())
            .map(|name| name.to_string_lossy().into_owned())
            .collect();
        // A copy of one that is read, because it is damaged.
        let is_read = |name: &str| names.iter().any(|it| name.contains(&format!("{it}.copy-")));
        segment::clean_but(&self.segments_dir(), disk, is_read).map(|_| ())
    }

    /// Torn writes that were set aside: what they hold was never acknowledged, and may be what is to go.
    fn delete_quarantine(&self) -> Result<(), StoreError> {
        let disk = &self.options.disk;
        let dir = self.dir.join(QUARANTINE_DIR);
        if !dir.is_dir() {
            return Ok(());
        }
        let files = disk.list(&dir)?;
        for file in files.iter().filter(|path| path.is_file()) {
            disk.remove_file(file)?;
            tracing::warn!(
                file = %file.display(),
                "deleted a torn write that was kept: it may hold what was erased"
            );
        }
        if !files.is_empty() {
            disk.sync_dir(&dir)?;
        }
        Ok(())
    }
}
