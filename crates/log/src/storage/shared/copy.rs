//! What a replica keeps its copy in.

use std::path::Path;
use std::sync::Arc;

use super::{Body, Identity, Place, SharedJournal, Slot};
use crate::storage::local::{self, CopyOf, CopyStart, LocalEngine};
use crate::storage::memory::{self, Memory};
use crate::storage::meta::META_FILE;
use crate::storage::{Commit, Engine, Journal, Recovered, StoreError};
use tailmark_record::GenerationTable;

/// An engine that takes what a shared journal has, and nothing else. What the log keeps about itself is given to it
/// with the place in the journal before it ([`super::Place`]).
pub trait CopyStore: Engine {
    /// What opening it now would give back.
    fn recovered(&self) -> Recovered;

    /// Most bytes of events and delta that a commit may have.
    fn takes(&self) -> usize;

    /// Whether it would take a commit now: what it would refuse must not get into the journal.
    ///
    /// # Errors
    /// As [`CopyStore::take`].
    fn would_take(&self, commit: &Commit) -> Result<(), StoreError>;

    /// Makes a commit durable, and then moves the bounds. With generations, its events and those after it are of the last
    /// of them: both are durable, or neither.
    ///
    /// # Errors
    /// As [`Journal::append`].
    fn take(&self, commit: Commit, generations: Option<&GenerationTable>)
    -> Result<(), StoreError>;
}

impl CopyStore for Memory {
    fn recovered(&self) -> Recovered {
        Memory::recovered(self)
    }

    fn takes(&self) -> usize {
        usize::MAX
    }

    fn would_take(&self, commit: &Commit) -> Result<(), StoreError> {
        self.check(commit)
    }

    fn take(
        &self,
        commit: Commit,
        generations: Option<&GenerationTable>,
    ) -> Result<(), StoreError> {
        self.copy(commit, generations)
    }
}

impl CopyStore for LocalEngine {
    fn recovered(&self) -> Recovered {
        LocalEngine::recovered(self)
    }

    fn takes(&self) -> usize {
        self.max_commit_bytes()
    }

    fn would_take(&self, commit: &Commit) -> Result<(), StoreError> {
        LocalEngine::would_take(self, commit)
    }

    fn take(
        &self,
        commit: Commit,
        generations: Option<&GenerationTable>,
    ) -> Result<(), StoreError> {
        self.copy(&commit, generations)
    }
}

impl Identity {
    /// The generations of the log before its first takeover. They follow from what it is, so that all copies begin alike.
    pub fn beginning(&self) -> GenerationTable {
        GenerationTable::created(self.id.short(), self.created_at)
    }
}

/// Opens the copy of a journal that lies in a directory: the format of every log, so that all that looks at a directory
/// looks at this one. It is made where there is none, if `options` say so. Its slots must take twice the largest commit
/// of the journal ([`Identity::max_commit_bytes`]): a fourth of `slot_bytes` is what they take.
///
/// # Errors
/// Where it makes one, [`StoreError::Busy`] where the journal does not say where it begins, and [`StoreError::Diverged`] where
/// that is not where it was given back. [`StoreError::NoCopy`] where the directory is that of another log, or of one that is no copy; as
/// [`local::open`].
pub fn open_copy(
    dir: &Path,
    options: local::Options,
    journal: &dyn SharedJournal,
) -> Result<Arc<LocalEngine>, StoreError> {
    let identity = journal.identity();
    let is_new = !has_log(dir) && options.create;
    let start = if is_new { start(journal)? } else { None };
    let of = CopyOf {
        log: identity.id,
        key: identity.key,
        created_at: identity.created_at,
        generations: identity.beginning(),
        journal: journal.name(),
        start,
    };
    Ok(local::open_copy(dir, options, &of)?.0)
}

/// Whether a directory has a log already, of whatever kind.
pub fn has_log(dir: &Path) -> bool {
    dir.join(META_FILE).exists()
}

/// A copy of a journal in memory, with nothing of it but what a checkpoint at its beginning says.
///
/// # Errors
/// As [`open_copy`] where it makes one.
pub fn copy_in_memory(
    options: memory::Options,
    journal: &dyn SharedJournal,
) -> Result<Arc<Memory>, StoreError> {
    let identity = journal.identity();
    let memory = Memory::new(identity.id, identity.key, identity.beginning(), options);
    if let Some(start) = start(journal)? {
        memory.start(start);
    }
    Ok(Arc::new(memory))
}

/// Where a copy begins that has nothing; `None` = with the first slot.
fn start(journal: &dyn SharedJournal) -> Result<Option<CopyStart>, StoreError> {
    let busy = || StoreError::Busy { reason: "the journal does not answer".to_owned() };
    let slot = journal.first().ok_or_else(busy)?;
    if slot <= 1 {
        return Ok(None);
    }
    let gone = |what: &str| StoreError::Diverged {
        detail: format!("the journal begins with slot {slot}, which {what}"),
    };
    let frame = match journal.read_back(slot).ok_or_else(busy)? {
        Slot::Frame(frame) => frame,
        Slot::Gone => return Err(busy()),
        Slot::Foreign => return Err(gone("is not of its log: it was purged from outside")),
        Slot::Unreadable(problem) => return Err(gone(&format!("cannot be read: {problem}"))),
    };
    let Body::Checkpoint(it) = &frame.body else {
        return Err(gone("is no checkpoint: it was purged from outside"));
    };
    let place = Place { slot, chain: frame.chain(), term: frame.term, writer: frame.writer };
    Ok(Some(CopyStart {
        next: it.next,
        link: it.link,
        last_at: it.last_at,
        generations: it.generations.clone(),
        state: place.before(&it.state),
    }))
}
