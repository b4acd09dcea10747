//! Taking commits: journal, fdatasync, then the head.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use parking_lot::MutexGuard;

use super::LocalEngine;
use super::work::Trouble;
use crate::storage::journal::{Failure, Slot, SlotJournal};
use crate::storage::{Commit, Completion, Level, Links, Receipt, StoreError};
use tailmark_record::Seq;

/// How often a commit that waits for a slot looks whether sealing has failed meanwhile.
const SLOT_POLL: Duration = Duration::from_millis(200);

impl LocalEngine {
    pub(super) fn append(&self, commit: Commit, done: Completion) {
        *self.work.commit_begun.lock() = Some(Instant::now());
        let outcome = self.take(&commit);
        *self.work.commit_begun.lock() = None;
        done(outcome);
    }

    pub(super) fn take(&self, commit: &Commit) -> Result<Receipt, StoreError> {
        let mut journal = self.journal.lock();
        self.refuse_if_closing()?;
        let body = (commit.events.len() + commit.delta.len()) as u64;
        // A new slot is found and made by name. Else the look once a second will do, and while that
        // has found something else, each append looks again.
        if self.is_displaced() || journal.must_roll(body) {
            self.check_claim()?;
        }
        loop {
            let before = Arc::clone(journal.active());
            match journal.append(commit) {
                Ok(retired) => {
                    self.publish(&mut journal, retired.map(|_| before), commit);
                    let end = commit.first.plus(u64::from(commit.count));
                    return Ok(Receipt {
                        first: commit.first,
                        last: end.prev(),
                        level: Level::Fsync,
                        term: 0,
                    });
                }
                Err(Failure::Refused(error)) => return Err(error),
                Err(Failure::Broken(error)) => {
                    self.note_broken(&journal);
                    return Err(error);
                }
                Err(Failure::NoSlot) => self.wait_for_slot(&mut journal)?,
            }
        }
    }

    pub(super) fn refuse_if_closing(&self) -> Result<(), StoreError> {
        match self.work.is_closing() {
            true => Err(StoreError::Stopped { reason: "closed".to_owned() }),
            false => Ok(()),
        }
    }

    /// Lets go of the journal until there may be a slot.
    pub(super) fn wait_for_slot(
        &self,
        journal: &mut MutexGuard<'_, SlotJournal>,
    ) -> Result<(), StoreError> {
        self.free_retired(journal);
        if journal.slots().can_take() {
            return Ok(());
        }
        if let Some(error) = self.sealing_trouble() {
            return Err(error);
        }
        self.work.signal(|signals| signals.seal = true);
        self.slot_freed.wait_for(journal, SLOT_POLL);
        Ok(())
    }

    /// Sync, then publish: the commit is durable when this is called.
    fn publish(&self, journal: &mut SlotJournal, filled: Option<Arc<Slot>>, commit: &Commit) {
        if filled.is_some() {
            self.note_files(journal);
            let active = Arc::clone(journal.active());
            self.change_view(|view| view.slots.push(active));
        }
        let mut bounds = self.bounds.write();
        debug_assert!(journal.next().prev() >= bounds.head, "the head only goes up");
        bounds.head = journal.next().prev();
        bounds.oldest = commit.oldest.max(bounds.oldest).max(Seq::FIRST);
        debug_assert!(bounds.oldest <= bounds.next(), "the trim mark is not beyond the end");
        *self.links.write() = Links { head: journal.link(), oldest_tag: journal.oldest_tag() };
        drop(bounds);
        let appends = self.work.appends.fetch_add(1, Ordering::SeqCst);
        // The marker sleeps until the first append after a mark; the sealer until a slot is full.
        if filled.is_some() || appends == 0 || !self.work.signals.lock().mark {
            self.work.signal(|signals| {
                signals.mark = true;
                signals.seal |= filled.is_some();
            });
        }
    }

    pub(super) fn note_files(&self, journal: &mut SlotJournal) {
        self.work.slot_files.store(journal.slots().files() as u64, Ordering::Relaxed);
    }

    pub(super) fn note_broken(&self, journal: &SlotJournal) {
        let reason = journal.broken().map(str::to_owned);
        if let Some(reason) = &reason {
            tracing::error!(%reason, "the journal has stopped; reads go on, appends do not");
        }
        *self.work.broken.lock() = reason;
    }

    /// Why a slot can't be waited for: sealing has no room, or does not go on.
    pub(super) fn sealing_trouble(&self) -> Option<StoreError> {
        let trouble = self.work.trouble.lock();
        let trouble = trouble.as_ref()?;
        Some(match trouble {
            Trouble::DiskFull { available_bytes, needed_bytes } => StoreError::DiskFull {
                available_bytes: *available_bytes,
                needed_bytes: *needed_bytes,
            },
            // Nothing was stored, and a later attempt may succeed.
            Trouble::Other(reason) => StoreError::Busy { reason: reason.clone() },
            hangs @ Trouble::Hangs { .. } => StoreError::Busy { reason: hangs.to_string() },
        })
    }

    /// Gives slots back that hold nothing the log needs and that nobody reads.
    pub(super) fn free_retired(&self, journal: &mut SlotJournal) -> bool {
        if !journal.is_begun() {
            // The newest state on disk may still be in a retired slot.
            return false;
        }
        let mut retired = self.retired.lock();
        let mut freed = false;
        for slot in std::mem::take(&mut *retired) {
            match Arc::try_unwrap(slot) {
                Ok(slot) => {
                    journal.slots().give_back(slot.into_free());
                    freed = true;
                }
                Err(slot) => retired.push(slot),
            }
        }
        if freed {
            self.slot_freed.notify_all();
        }
        freed
    }
}
