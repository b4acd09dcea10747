//! What an operator does where a daemon's copy is of another history than the journal, while that daemon is stopped.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::JoinError;
use super::beat::{self, Beat};
use tailmark_journal_nats::{NatsJournal, Settings};
use tailmark_log::eventlog::{self, restated, whole_state};
use tailmark_log::storage::local::{self, LocalEngine};
use tailmark_log::storage::shared::{
    Compared, CopyStore, PutBack, Relation, SharedJournal as _, State, compare, open_copy, prove,
    put_back,
};
use tailmark_log::storage::{Store as _, StoreError};
use tailmark_record::{Seq, Timestamp};

/// Of each daemon one heartbeat at least comes in it.
const LISTEN: Duration = Duration::from_millis(2_000);

/// A stopped daemon's copy, which nobody else opens meanwhile, and the journal.
pub struct Repair {
    journal: Arc<NatsJournal>,
    copy: Arc<LocalEngine>,
    dir: PathBuf,
    log: eventlog::Options,
}

impl Repair {
    /// Connects, and opens the copy, neither of which is made where it is not there. Blocks.
    ///
    /// # Errors
    /// [`StoreError::Locked`] while a daemon has the directory, [`StoreError::NoCopy`] where it is of another log or key, or no
    /// copy; where there is no journal to use.
    pub fn open(
        dir: &Path,
        journal: &Settings,
        storage: local::Options,
        log: eventlog::Options,
    ) -> Result<Repair, JoinError> {
        let settings = Settings { create: false, ..journal.clone() };
        let journal = Arc::new(NatsJournal::connect(&settings)?);
        let storage = local::Options { create: false, ..storage };
        let copy = open_copy(dir, storage, &*journal)?;
        Ok(Repair { journal, copy, dir: dir.to_owned(), log })
    }

    /// What the two have, and what is missing where. Changes nothing.
    ///
    /// # Errors
    /// As [`compare`].
    pub fn look(&self) -> Result<Compared, StoreError> {
        compare(&*self.journal, &*self.copy)
    }

    /// The daemons of this log that run now, by name: whoever is heard within two seconds.
    ///
    /// # Errors
    /// Where nobody can be heard.
    pub fn running(&self) -> Result<Vec<String>, JoinError> {
        let heard = Arc::new(Mutex::new(BTreeSet::new()));
        let hears = Arc::clone(&heard);
        let listening = self.journal.listen(move |bytes| {
            if let Some(beat) = Beat::decode(&bytes) {
                hears.lock().insert(beat.daemon);
            }
        });
        let listening = listening.map_err(|error| JoinError::Deaf(error.to_string()))?;
        std::thread::sleep(LISTEN.max(2 * beat::EVERY));
        drop(listening);
        let heard = heard.lock().iter().cloned().collect();
        Ok(heard)
    }

    /// Puts back what the journal lacks; `tell` hears the last event that is there.
    ///
    /// # Errors
    /// As [`put_back`].
    pub fn put_back(
        &self,
        it: &Compared,
        tell: &mut dyn FnMut(Seq),
    ) -> Result<PutBack, StoreError> {
        let most = self.journal.identity().max_commit_bytes;
        let recovered = || self.copy.recovered().of_the_log();
        let state = State {
            whole: whole_state(&recovered()?, &self.log, most)?,
            restated: restated(&recovered()?, &self.log, most)?,
        };
        let done = put_back((&*self.journal, &*self.copy), rand::random(), it, &state, tell)?;
        self.copy.close()?;
        Ok(done)
    }

    /// Sets the copy aside, whole, under a name beside its own, which is answered: the daemon begins an empty one when it
    /// starts. Where the journal is taken to have lost something, that it ends there is proven first.
    ///
    /// # Errors
    /// As [`prove`]; I/O.
    pub fn set_aside(self, it: &Compared) -> Result<PathBuf, StoreError> {
        if it.relation == Relation::Ahead || it.relation == Relation::Trimmed {
            prove(&*self.journal, rand::random(), it)?;
        }
        self.copy.close()?;
        let aside = beside(&self.dir);
        let failed =
            |source| StoreError::Io { action: "set aside", path: self.dir.clone(), source };
        // It is still held: nobody opens it in between.
        std::fs::rename(&self.dir, &aside).map_err(failed)?;
        let parent = aside.parent().filter(|it| !it.as_os_str().is_empty());
        let parent = std::fs::File::open(parent.unwrap_or(Path::new("."))).map_err(failed)?;
        parent.sync_all().map_err(failed)?;
        Ok(aside)
    }
}

/// A name that nothing has.
fn beside(dir: &Path) -> PathBuf {
    let seconds = Timestamp::now().seconds;
    let named = |nth: u32| {
        let mut name = dir.file_name().unwrap_or_default().to_owned();
        name.push(format!(".aside-{seconds}"));
        if nth > 0 {
            name.push(format!("-{nth}"));
        }
        dir.with_file_name(name)
    };
    (0..=u32::MAX).map(named).find(|path| !path.exists()).unwrap_or_else(|| named(u32::MAX))
}
