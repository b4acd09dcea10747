//! Space of the journal: slots that are begun early, and files that are not needed any more.
//!
//! A slot file is never cut or punched: it is used again, or deleted whole. `log.meta` says how
//! many there must be, so it is told of one less before the file goes.

use std::sync::Arc;

use super::LocalEngine;
use super::create::FIRST_SLOTS;
use crate::storage::StoreError;
use crate::storage::error::chain;

/// A trimmed slot is left for another only if it has so much of its bytes in use.
const WORTH_FREEING: u64 = 8;

impl LocalEngine {
    /// Begins a new slot before this one is full: when its events are old, so that an idle log is
    /// sealed too, or when all of them are trimmed, so that their space can be used or given back.
    pub(super) fn roll_if_due(&self) -> Result<bool, StoreError> {
        let oldest = self.bounds().oldest;
        let mut journal = self.journal.lock();
        let active = Arc::clone(journal.active());
        if active.end() <= active.first() || journal.broken().is_some() {
            return Ok(false);
        }
        // Every opening begins a slot, so that this process has seen all of its age. The clock tells what
        // passed while the machine was suspended; it says nothing of a slot begun while it was ahead.
        let seal_after = self.options.seal_after;
        let begun_before = (self.options.clocks.wall)().before(seal_after);
        let has_passed =
            journal.active_for() >= seal_after || active.header().created_at <= begun_before;
        let is_old = has_passed && journal.slots().can_take();
        let is_trimmed = active.end() <= oldest
            && active.event_bytes() >= self.options.slot_bytes / WORTH_FREEING
            && journal.slots().has_free();
        if !is_old && !is_trimmed {
            return Ok(false);
        }
        journal.roll(None).map_err(|failure| failure.into_error())?;
        let next = Arc::clone(journal.active());
        self.change_view(|view| view.slots.push(next));
        if is_trimmed && let Err(error) = journal.mark() {
            // The old slot can be used again once the new head is on disk; nothing else would write
            // it in an idle log.
            tracing::error!(error = %chain(&error), "cannot begin a slot");
            self.note_broken(&journal);
        }
        drop(journal);
        if is_old {
            // A log that did not fill a slot in that time has no use for more than it began with.
            self.release(u64::MAX)?;
        }
        Ok(true)
    }

    /// Deletes slot files that hold nothing, beyond those that a log begins with.
    pub(super) fn release(&self, bytes: u64) -> Result<u64, StoreError> {
        self.check_claim()?;
        let mut released = 0;
        while released < bytes {
            let spare = {
                let mut journal = self.journal.lock();
                self.free_retired(&mut journal);
                let spare = journal.slots().take_spare(FIRST_SLOTS);
                self.note_files(&mut journal);
                spare
            };
            let Some(spare) = spare else { break };
            if let Err(error) = self.store_slot_files() {
                let mut journal = self.journal.lock();
                journal.slots().keep_spare(spare);
                self.note_files(&mut journal);
                return Err(error);
            }
            // Whether or not it goes: it is no part of the log any more.
            self.options.disk.remove_file(&spare.path)?;
            released += self.options.slot_bytes;
        }
        Ok(released)
    }
}
