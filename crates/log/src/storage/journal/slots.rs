//! The slot files of a journal: which exist, which are free, and how another is had.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::storage::{Clocks, StoreError, disk::Disk};

/// Sizes of the journal.
#[derive(Clone, Debug)]
pub struct JournalOptions {
    /// Bytes of one slot.
    pub slot_bytes: u64,
    /// Most slot files.
    pub max_slots: usize,
    /// Bytes on the file system that are left to others.
    pub min_free_bytes: u64,
    /// What slots age by.
    pub clocks: Clocks,
}

/// A slot file that holds nothing of the log.
#[derive(Debug)]
pub struct FreeSlot {
    /// Where.
    pub path: PathBuf,
    /// Open for reading and writing.
    pub file: File,
    /// What [`SlotSet::taints`] was when it was known to hold nothing that was to be erased.
    pub clean_for: u64,
}

/// The slot files of a journal directory: which exist, which are free.
#[derive(Debug)]
pub struct SlotSet {
    pub(super) dir: PathBuf,
    disk: Disk,
    pub(super) options: JournalOptions,
    free: Vec<FreeSlot>,
    /// Files that exist, free or in use.
    files: usize,
    taints: u64,
}

impl SlotSet {
    /// `files` slot files exist, of which `free` hold nothing.
    pub fn new(
        dir: PathBuf,
        disk: Disk,
        options: JournalOptions,
        free: Vec<FreeSlot>,
        files: usize,
    ) -> SlotSet {
        SlotSet { dir, disk, options, free, files, taints: 0 }
    }

    /// Files that exist.
    pub fn files(&self) -> usize {
        self.files
    }

    /// Whether a free slot is at hand or may be allocated.
    pub fn can_take(&self) -> bool {
        !self.free.is_empty() || self.files < self.options.max_slots
    }

    /// Gives back a file that nobody reads any more. One that is tainted is taken last.
    pub fn give_back(&mut self, slot: FreeSlot) {
        let at = if slot.clean_for < self.taints { 0 } else { self.free.len() };
        self.free.insert(at, slot);
    }

    /// From here on all slots, free or in use, may hold what is to be erased, until they are overwritten, or
    /// begun anew in a file that was.
    pub fn taint(&mut self) {
        self.taints += 1;
    }

    /// How often they were tainted.
    pub fn taints(&self) -> u64 {
        self.taints
    }

    /// A free slot that may hold what is to be erased, to be overwritten and given back.
    pub fn take_tainted(&mut self) -> Option<FreeSlot> {
        let at = self.free.iter().position(|slot| slot.clean_for < self.taints)?;
        Some(self.free.remove(at))
    }

    /// Whether there is such a one.
    pub fn has_tainted(&self) -> bool {
        self.free.iter().any(|slot| slot.clean_for < self.taints)
    }

    /// Whether a file is one of those that are free.
    pub fn has(&self, path: &Path) -> bool {
        self.free.iter().any(|slot| slot.path == path)
    }

    /// Gives back one that was overwritten.
    pub fn give_back_clean(&mut self, slot: FreeSlot) {
        self.free.push(FreeSlot { clean_for: self.taints, ..slot });
    }

    /// A file that is not needed: one of more than `keep`, while another is free.
    pub fn take_spare(&mut self, keep: usize) -> Option<FreeSlot> {
        if self.files <= keep || self.free.len() < 2 {
            return None;
        }
        self.files -= 1;
        self.free.pop()
    }

    /// Takes it back: it is not to go after all.
    pub fn keep_spare(&mut self, slot: FreeSlot) {
        self.files += 1;
        self.free.push(slot);
    }

    /// Whether a slot can be had without taking space.
    pub fn has_free(&self) -> bool {
        !self.free.is_empty()
    }

    /// A free slot, allocated if need be.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`] when its space, or the reserve, is not there.
    pub fn take(&mut self) -> Result<FreeSlot, StoreError> {
        if let Some(slot) = self.free.pop() {
            return Ok(slot);
        }
        let needed_bytes = self.slot_and_reserve();
        let available_bytes = self.check_room(needed_bytes)?;
        let path = self.unused_path();
        match self.disk.allocate(&path, self.options.slot_bytes) {
            Ok(()) => {}
            Err(StoreError::Io { source, .. })
                if matches!(
                    source.kind(),
                    std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded
                ) =>
            {
                return Err(StoreError::DiskFull { available_bytes, needed_bytes });
            }
            Err(error) => return Err(error),
        }
        let slot = open_slot(&self.disk, &path)?;
        self.files += 1;
        Ok(FreeSlot { clean_for: self.taints, ..slot })
    }

    /// A free slot to begin in. The reserve and the bound on slots are for a log that runs: one
    /// that cannot be opened could not be trimmed either.
    pub(super) fn take_at_start(&mut self) -> Result<FreeSlot, StoreError> {
        let min_free_bytes = std::mem::take(&mut self.options.min_free_bytes);
        let taken = self.take();
        self.options.min_free_bytes = min_free_bytes;
        taken
    }

    /// A free slot for a roll. The last one is taken only while the disk has room to seal another:
    /// a log on a full disk must find a slot when it is opened again, or nobody could trim it.
    pub(super) fn take_for_roll(&mut self) -> Result<FreeSlot, StoreError> {
        if self.free.len() == 1 {
            self.check_room(sealing_bytes(self.options.slot_bytes))?;
        }
        self.take()
    }

    /// Why a roll would get no slot now, where one is free or may be allocated.
    pub(super) fn refusal_of_roll(&self) -> Option<StoreError> {
        let needed_bytes = match self.free.len() {
            0 => self.slot_and_reserve(),
            1 => sealing_bytes(self.options.slot_bytes),
            _ => return None,
        };
        self.check_room(needed_bytes).err()
    }

    /// What must be free for another slot. A reserve may be any number.
    fn slot_and_reserve(&self) -> u64 {
        self.options.slot_bytes.saturating_add(self.options.min_free_bytes)
    }

    /// Answers what is free.
    fn check_room(&self, needed_bytes: u64) -> Result<u64, StoreError> {
        let available_bytes = self.disk.available(&self.dir)?;
        if available_bytes < needed_bytes {
            return Err(StoreError::DiskFull { available_bytes, needed_bytes });
        }
        Ok(available_bytes)
    }

    /// A name that no file has: an allocation replaces what lies under its name.
    fn unused_path(&self) -> PathBuf {
        let mut n = self.files + 1;
        loop {
            let path = self.dir.join(slot_name(n));
            if !path.exists() {
                return path;
            }
            n += 1;
        }
    }
}

/// Bytes on disk that sealing so many bytes of events may take.
pub(crate) fn sealing_bytes(raw_bytes: u64) -> u64 {
    raw_bytes + raw_bytes / 4 + (8 << 20)
}

/// Name of the `n`th slot file, from 1.
pub fn slot_name(n: usize) -> String {
    format!("slot-{n:04}")
}

/// Whether a file of the journal's directory is a slot.
pub fn is_slot_name(path: &Path) -> bool {
    is_slot_file(path) && path.extension().is_none_or(|extension| extension != "new")
}

/// The same, or one that was to become a slot.
pub fn is_slot_file(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.starts_with("slot-")
}

/// Opens a slot file and locks it: whatever becomes of the log's lock file, no two processes write
/// to one slot. The lock is held until the file is closed.
///
/// # Errors
/// [`StoreError::Locked`] when another process has it; I/O.
pub fn open_slot(disk: &Disk, path: &Path) -> Result<FreeSlot, StoreError> {
    let file = disk.open(path)?;
    match disk.lock(&file, path)? {
        true => Ok(FreeSlot { path: path.to_owned(), file, clean_for: 0 }),
        false => Err(StoreError::Locked { path: path.to_owned(), owner: None }),
    }
}
