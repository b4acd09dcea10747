//! Owning a log: no two processes ever do.
//!
//! A process that opens a log locks `LOCK` and every slot of the journal, for as long as it has
//! them open (`flock`). A lock file can be deleted, made anew or left out of a copy; slots are the
//! log itself. So whoever opens the same slots finds them locked, whatever became of `LOCK`: by
//! another path, through a bind mount, in a directory of hard links. `LOCK` answers first and says
//! who has it.
//!
//! The locks follow the files, but much is done by name: sealing, `log.meta`, giving space back. A
//! directory can be moved, replaced, or hidden by a mount while it is open. [`Claim::check`] tells
//! whether the names still lead to what was opened. While they do not, nothing is done by name, and
//! no append is taken: what it stored would not be found where the log is looked for.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::{JOURNAL_DIR, LOCK_FILE, LocalEngine, SEGMENTS_DIR};
use crate::storage::StoreError;
use crate::storage::disk::{Disk, is_at};
use crate::storage::error::chain;
use crate::storage::journal::{FreeSlot, Slot, is_slot_name, open_slot};
use crate::storage::meta::META_FILE;
use crate::storage::segment::Segment;

/// A data directory that belongs to this process for as long as this lives.
#[derive(Debug)]
pub(in crate::storage) struct Claim {
    dir: PathBuf,
    /// The directory as it was opened.
    opened: File,
    lock: Mutex<File>,
    /// The directory of segments as it was opened.
    segments: Mutex<Option<File>>,
    /// Slots that are locked and that nobody has asked for yet.
    slots: HashMap<PathBuf, File>,
}

impl Claim {
    /// Takes the locks of a data directory.
    ///
    /// # Errors
    /// [`StoreError::Locked`] when somebody else has any of them; [`StoreError::Unlockable`] where
    /// there are no locks; I/O.
    pub(in crate::storage) fn take(dir: &Path, disk: &Disk) -> Result<Claim, StoreError> {
        let lock = take_lock(dir, disk)?;
        let opened = disk.open_read(dir)?;
        let slots = HashMap::new();
        let (dir, lock) = (dir.to_owned(), Mutex::new(lock));
        let mut claim = Claim { dir, opened, lock, segments: Mutex::default(), slots };
        claim.lock_slots(disk)?;
        Ok(claim)
    }

    /// Locks all slots that there are. Those that were locked before and not asked for are let go.
    pub(in crate::storage) fn lock_slots(&mut self, disk: &Disk) -> Result<(), StoreError> {
        self.slots.clear();
        let journal = self.dir.join(JOURNAL_DIR);
        if !journal.is_dir() {
            return Ok(());
        }
        for path in disk.list(&journal)?.into_iter().filter(|path| is_slot_name(path)) {
            let slot = self.open_locked(&path, disk)?;
            self.slots.insert(path, slot.file);
        }
        Ok(())
    }

    /// A slot's file, locked.
    pub(in crate::storage) fn open_slot(
        &mut self,
        path: &Path,
        disk: &Disk,
    ) -> Result<FreeSlot, StoreError> {
        match self.slots.remove(path) {
            Some(file) => Ok(FreeSlot { path: path.to_owned(), file, clean_for: 0 }),
            None => self.open_locked(path, disk),
        }
    }

    fn open_locked(&self, path: &Path, disk: &Disk) -> Result<FreeSlot, StoreError> {
        open_slot(disk, path).map_err(|error| match error {
            // Of a slot nobody says who has it; the lock file may, if it is not our own by now.
            StoreError::Locked { .. } => StoreError::Locked { path: self.dir.clone(), owner: None },
            other => other,
        })
    }

    /// Whether the names still lead to what was opened. A lock file that was deleted or replaced is
    /// made again: nobody can have taken the log meanwhile, because its slots are locked.
    ///
    /// # Errors
    /// [`StoreError::Displaced`].
    pub(in crate::storage) fn check(&self, active: &Slot, disk: &Disk) -> Result<(), StoreError> {
        let displaced = |detail: &str| StoreError::Displaced {
            path: self.dir.clone(),
            detail: detail.to_owned(),
        };
        let is_there = |file: &File, path: &Path| {
            is_at(file, path).map_err(|error| {
                displaced(&format!("{} cannot be examined: {error}", path.display()))
            })
        };
        if !is_there(&self.opened, &self.dir)? {
            return Err(displaced("it was moved, deleted, or another one is mounted there"));
        }
        if !is_there(active.file(), active.path())? {
            return Err(displaced("the journal's slots were moved, deleted or replaced"));
        }
        let mut held = self.lock.lock();
        if !is_there(&held, &self.dir.join(LOCK_FILE))? {
            match take_lock(&self.dir, disk) {
                Ok(file) => {
                    *held = file;
                    tracing::warn!(
                        dir = %self.dir.display(),
                        "the lock file was deleted or replaced while the log was open; it is ours again"
                    );
                }
                // Somebody who will find the slots locked; looked at again.
                Err(StoreError::Locked { .. }) => {}
                Err(error) => return Err(displaced(&format!("the lock file is gone: {error}"))),
            }
        }
        Ok(())
    }

    /// Holds on to the directory of segments, so that another in its place is told from it.
    pub(in crate::storage) fn hold_segments(&mut self, disk: &Disk) -> Result<(), StoreError> {
        *self.segments.lock() = Some(disk.open_read(&self.dir.join(SEGMENTS_DIR))?);
        Ok(())
    }

    /// As [`Claim::check`], of the directory of segments: what is sealed into another would be gone with it. One
    /// that has all that are `known`, put back from a copy, is as good. Commits do without it for as long as there
    /// are slots.
    ///
    /// # Errors
    /// [`StoreError::Displaced`].
    pub(super) fn check_segments(
        &self,
        known: &[Arc<Segment>],
        disk: &Disk,
    ) -> Result<(), StoreError> {
        let path = self.dir.join(SEGMENTS_DIR);
        let displaced = |detail: String| StoreError::Displaced { path: self.dir.clone(), detail };
        let mut held = self.segments.lock();
        let Some(segments) = &*held else { return Ok(()) };
        match is_at(segments, &path) {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(error) => {
                return Err(displaced(format!("its segments cannot be examined: {error}")));
            }
        }
        if !path.is_dir() || !known.iter().all(|segment| segment.dir().is_dir()) {
            return Err(displaced("its segments were moved, deleted or replaced".to_owned()));
        }
        *held = Some(disk.open_read(&path)?);
        tracing::warn!(path = %path.display(), "was replaced while the log was open; all segments are there");
        Ok(())
    }

    /// As [`Claim::check`], of the lock file alone and without making it again: what a log that has
    /// just been created goes by.
    pub(in crate::storage) fn has_lock_file(&self) -> bool {
        is_at(&self.lock.lock(), &self.dir.join(LOCK_FILE)).unwrap_or(false)
    }
}

/// Takes the lock file.
fn take_lock(dir: &Path, disk: &Disk) -> Result<File, StoreError> {
    let path = dir.join(LOCK_FILE);
    let mut file = disk.open_or_create(&path)?;
    if !disk.lock(&file, &path)? {
        let mut owner = String::new();
        let _ = file.read_to_string(&mut owner);
        let owner = owner.trim().parse().ok();
        return Err(StoreError::Locked { path: dir.to_owned(), owner });
    }
    // Only a hint for people; the lock is the operating system's.
    let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(file)
}

impl LocalEngine {
    /// [`Claim::check`], of this log as it is now. Says when that changes.
    pub(super) fn check_claim(&self) -> Result<(), StoreError> {
        let Some(active) = self.view().slots.last().cloned() else { return Ok(()) };
        let result = self.claim.check(&active, &self.options.disk);
        let mut displaced = self.work.displaced.lock();
        match (&result, &*displaced) {
            (Err(error), None) => tracing::error!(
                %error, "appends are refused, and nothing is sealed or given back, until it is there again"
            ),
            (Ok(()), Some(_)) => {
                tracing::info!(dir = %self.dir.display(), "the log is where it was opened; it goes on");
            }
            _ => {}
        }
        *displaced = result.as_ref().err().map(ToString::to_string);
        result
    }

    /// [`Claim::check_segments`], of this log as it is now.
    pub(super) fn check_segments(&self) -> Result<(), StoreError> {
        self.claim.check_segments(&self.view().segments, &self.options.disk)
    }

    /// What is there by name beside the journal. `log.meta` is written again where it is gone: heads of slots have
    /// all that it says.
    pub(super) fn check_parts(&self) -> Result<(), StoreError> {
        self.check_segments()?;
        let path = self.dir.join(META_FILE);
        let is_gone = |error: &std::io::Error| error.kind() == std::io::ErrorKind::NotFound;
        if !path.symlink_metadata().is_err_and(|error| is_gone(&error)) {
            return Ok(());
        }
        let stored = self.meta.lock().store(&self.options.disk, &self.dir);
        match stored {
            Ok(()) => {
                tracing::warn!(
                    path = %path.display(),
                    "was moved or deleted while the log was open; it is written again"
                );
                Ok(())
            }
            Err(error) => Err(StoreError::Displaced {
                path: self.dir.clone(),
                detail: format!(
                    "{META_FILE} is gone, and cannot be written again: {}",
                    chain(&error)
                ),
            }),
        }
    }

    /// Whether the last check found something else in the log's place.
    pub(super) fn is_displaced(&self) -> bool {
        self.work.displaced.lock().is_some()
    }
}
