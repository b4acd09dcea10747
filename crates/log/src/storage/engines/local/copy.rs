//! A directory that is the copy of a shared journal: who may open it, and how the journal's commits get into it.
//!
//! It has the format of every other, and says in `log.meta` of which journal it is a copy. It begins no generation by
//! itself, whatever a crash tore or wherever it was carried: what is missing at its end is in the journal, under the
//! same seqs.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::create::{begin, create_with, prepare};
use super::whereabouts::whereabouts;
use super::{LocalEngine, Options};
use crate::chain::Link;
use crate::storage::journal::{Origin, Previous};
use crate::storage::meta::Meta;
#[cfg(any(test, feature = "shared"))]
use crate::storage::{Commit, error::chain, journal::Failure};
use crate::storage::{Recovered, StoreError};
use tailmark_record::{FingerprintKey, GenerationTable, LogId, Seq, Timestamp};

/// What a directory is to be a copy of.
#[derive(Clone, Debug)]
pub struct CopyOf {
    /// The log.
    pub log: LogId,
    /// Secret for telling repeats: the same in all copies.
    pub key: FingerprintKey,
    /// When the log was created.
    pub created_at: Timestamp,
    /// Its generations before the first takeover: the same in all copies.
    pub generations: GenerationTable,
    /// What people call the journal. Kept where a directory is made, and shown by `log info`.
    pub journal: String,
    /// Where it begins if it is made now; `None` = with the first event.
    pub start: Option<CopyStart>,
}

/// A log without the events before a seq.
#[derive(Clone, Debug)]
pub struct CopyStart {
    /// The first event that it will have.
    pub next: Seq,
    /// The chain before that.
    pub link: Link,
    /// Time of the last commit before it.
    pub last_at: Timestamp,
    /// All generations up to there.
    pub generations: GenerationTable,
    /// What the log keeps about itself, with the place.
    pub state: Bytes,
}

impl CopyOf {
    /// Makes the directory.
    pub(super) fn create(&self, dir: &Path, options: &Options) -> Result<(), StoreError> {
        let meta = self.meta(options.slot_bytes, whereabouts(dir));
        let Some(start) = &self.start else { return create_with(dir, options, meta) };
        prepare(dir, options)?;
        let meta = Meta { generations: start.generations.clone(), ..meta };
        let origin = Origin {
            log: meta.log,
            meta: Vec::new(),
            generation: meta.generations.current().generation,
            previous: Previous::default(),
            number: 1,
            next: start.next,
            link: start.link,
            oldest: start.next,
            oldest_tag: Some(start.link.tag()),
            last_at: start.last_at,
            snapshot: start.state.to_vec(),
            deltas: Vec::new(),
        };
        begin(dir, options, meta, origin, false)
    }

    fn meta(&self, slot_bytes: u64, whereabouts: [u8; 16]) -> Meta {
        Meta {
            log: self.log,
            key: self.key,
            generations: self.generations.clone(),
            created_at: self.created_at,
            slot_bytes,
            slot_files: 0,
            clean_stop: None,
            whereabouts,
            copy_of: Some(self.journal.clone()),
        }
    }
}

/// Nobody goes on with a copy as if it were a log of its own, nor the reverse.
pub(super) fn refuse_other(
    dir: &Path,
    meta: &Meta,
    wanted: Option<&CopyOf>,
) -> Result<(), StoreError> {
    let no_copy = |detail: String| StoreError::NoCopy { path: dir.to_owned(), detail };
    match (&meta.copy_of, wanted) {
        (None, None) => Ok(()),
        (Some(journal), None) => {
            Err(StoreError::IsCopy { path: dir.to_owned(), journal: journal.clone() })
        }
        (None, Some(_)) => Err(no_copy(format!("it holds log {}, which is no copy", meta.log))),
        (Some(_), Some(wanted)) if meta.log != wanted.log => Err(no_copy(format!(
            "it holds a copy of log {}, and the journal is that of log {}",
            meta.log, wanted.log
        ))),
        (Some(_), Some(wanted)) if meta.key != wanted.key => {
            Err(no_copy("it was made with another key for telling repeats".to_owned()))
        }
        (Some(_), Some(wanted))
            if !meta.generations.entries().starts_with(wanted.generations.entries()) =>
        {
            Err(no_copy("its log began otherwise".to_owned()))
        }
        (Some(_), Some(_)) => Ok(()),
    }
}

#[cfg(any(test, feature = "shared"))]
impl LocalEngine {
    /// What opening it now would give back.
    pub(crate) fn recovered(&self) -> Recovered {
        self.journal.lock().recovered()
    }

    /// Whether it would take a commit now; waits for no slot.
    pub(crate) fn would_take(&self, commit: &Commit) -> Result<(), StoreError> {
        let mut journal = self.journal.lock();
        self.refuse_if_closing()?;
        match journal.would_take(commit) {
            Err(Failure::NoSlot) => {
                self.free_retired(&mut journal);
                // Else the append waits for one.
                self.sealing_trouble().map_or(Ok(()), Err)
            }
            other => other.map_err(Failure::into_error),
        }
    }

    /// Makes a commit durable. With generations, its events and those after it are of the last of them: both are
    /// durable, or neither.
    ///
    /// # Errors
    /// As an append.
    pub(crate) fn copy(
        &self,
        commit: &Commit,
        generations: Option<&GenerationTable>,
    ) -> Result<(), StoreError> {
        let Some(table) = generations else { return self.take(commit).map(drop) };
        self.begin_generation(table)?;
        self.take(commit)?;
        self.bounds.write().generations = table.clone();
        let mut meta = self.meta.lock();
        meta.generations = table.clone();
        if let Err(error) = meta.store(&self.options.disk, &self.dir) {
            // The head of the slot says it, and the next start writes it from there.
            tracing::warn!(error = %chain(&error), "cannot write log.meta");
        }
        Ok(())
    }

    fn begin_generation(&self, table: &GenerationTable) -> Result<(), StoreError> {
        let meta = Meta { generations: table.clone(), ..self.meta.lock().clone() }.encode()?;
        let mut journal = self.journal.lock();
        loop {
            self.refuse_if_closing()?;
            // A slot is found and made by name.
            self.check_claim()?;
            match journal.begin_generation(meta.clone(), table.current().generation) {
                Ok(_) => break,
                Err(Failure::NoSlot) => self.wait_for_slot(&mut journal)?,
                Err(failure) => {
                    self.note_broken(&journal);
                    return Err(failure.into_error());
                }
            }
        }
        self.note_files(&mut journal);
        let active = Arc::clone(journal.active());
        self.change_view(|view| view.slots.push(active));
        drop(journal);
        self.work.signal(|signals| signals.seal = true);
        Ok(())
    }
}

/// Opens a directory as the copy of a shared journal; makes it where there is none, if `options` say so.
///
/// # Errors
/// [`StoreError::NoCopy`] where it holds something else; as [`super::open`].
pub fn open_copy(
    dir: &Path,
    options: Options,
    of: &CopyOf,
) -> Result<(Arc<LocalEngine>, Recovered), StoreError> {
    super::open::open_as(dir, options, Some(of))
}
