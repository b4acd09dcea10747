//! What makes a log in memory the copy of a journal that others append to as well.

use super::Memory;
use crate::storage::local::CopyStart;
use crate::storage::{Commit, Links, Recovered, Store, StoreError};
use tailmark_record::GenerationTable;

impl Memory {
    /// What opening it would give back.
    pub(crate) fn recovered(&self) -> Recovered {
        self.log.lock().recovered()
    }

    /// Begins where a log was without the events before.
    pub(crate) fn start(&self, start: CopyStart) {
        let mut log = self.log.lock();
        (log.oldest, log.head) = (start.next, start.next.prev());
        log.links = Links { head: start.link, oldest_tag: Some(start.link.tag()) };
        (log.last_at, log.state) = (start.last_at, Some(start.state));
        *self.generations.lock() = start.generations;
    }

    /// Whether it would take a commit, as far as that depends on what others have too.
    pub(crate) fn check(&self, commit: &Commit) -> Result<(), StoreError> {
        self.log.lock().check(commit, self.options.max_commit_bytes, false)
    }

    /// Appends without holding back; with generations, events are of the last of them from now on.
    pub(crate) fn copy(
        &self,
        commit: Commit,
        generations: Option<&GenerationTable>,
    ) -> Result<(), StoreError> {
        let wants_state = self.wants_state(commit.events.len() + commit.delta.len());
        let mut log = self.log.lock();
        log.check(&commit, self.options.max_commit_bytes, wants_state)?;
        if let Some(table) = generations {
            *self.generations.lock() = table.clone();
        }
        log.apply(commit);
        Ok(())
    }
}
