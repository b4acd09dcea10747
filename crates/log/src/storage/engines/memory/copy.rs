//! What makes a log in memory the copy of a journal that others append to as well.

use super::Memory;
use crate::storage::{Commit, Receipt, Recovered, Store, StoreError};
use tailmark_record::{GenerationEntry, GenerationTable};

impl Memory {
    /// What opening it would give back.
    pub(crate) fn recovered(&self) -> Recovered {
        self.log.lock().recovered()
    }

    /// Events are of this generation from now on.
    pub(crate) fn begin(&self, row: GenerationEntry) -> Result<(), StoreError> {
        let mut table = self.generations.lock();
        let next = [table.entries(), &[row]].concat();
        let out_of_order = StoreError::Invalid("the generation is not the next");
        *table = GenerationTable::new(next).ok_or(out_of_order)?;
        Ok(())
    }

    /// Whether it would take a commit, as far as that depends on what others have too.
    pub(crate) fn check(&self, commit: &Commit) -> Result<(), StoreError> {
        self.log.lock().check(commit, self.options.max_commit_bytes, false)
    }

    /// Whether a commit would be refused for want of the whole state.
    pub(crate) fn lacks_state(&self, commit: &Commit) -> bool {
        commit.state.is_none() && self.wants_state(commit.events.len() + commit.delta.len())
    }

    /// Appends without holding back.
    pub(crate) fn append_now(&self, commit: Commit) -> Result<Receipt, StoreError> {
        let wants_state = self.wants_state(commit.events.len() + commit.delta.len());
        let mut log = self.log.lock();
        log.check(&commit, self.options.max_commit_bytes, wants_state)?;
        Ok(log.apply(commit))
    }
}
