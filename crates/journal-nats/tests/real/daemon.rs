//! A daemon: its connection, its copy, and the event log over it, on a thread of its own.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tailmark_journal_nats::{NatsJournal, Settings};
use tailmark_log::eventlog::{Following, whole_state};
use tailmark_log::storage::memory::Options as MemoryOptions;
use tailmark_log::storage::shared::{
    CopyStore, Followed, Identity, Replica, Role, SharedJournal, StateOf, copy_in_memory, open_copy,
};
use tailmark_log::storage::{Recovered, StoreError, local};
use tailmark_log::{EventLog, Options};
use tempfile::TempDir;

pub struct Daemon {
    pub name: u64,
    pub replica: Arc<Replica>,
    pub log: EventLog,
    pub has_ended: bool,
    pub opened: (Role, u64),
    following: Option<Following>,
    identity: Identity,
    settings: Settings,
    options: Options,
    /// Where its copy is; in memory without. That of the first is on a disk.
    dir: Option<TempDir>,
}

fn empty_copy(journal: &NatsJournal) -> Arc<dyn CopyStore> {
    let max_commit_bytes = journal.identity().max_commit_bytes;
    // Small, so that a copy is asked for its whole state now and then.
    let options =
        MemoryOptions { max_commit_bytes, state_every_bytes: 40_000, ..MemoryOptions::default() };
    let begun = Instant::now();
    loop {
        match copy_in_memory(options.clone(), journal) {
            // Servers are killed meanwhile.
            Err(StoreError::Busy { .. }) if begun.elapsed() < Duration::from_secs(60) => {}
            copy => return copy.unwrap(),
        }
    }
}

/// Opens a copy, which was that of a daemon that has just died: its threads let go of it in a moment.
fn on_disk(dir: &Path, journal: &NatsJournal) -> Arc<dyn CopyStore> {
    let options =
        local::Options { slot_bytes: 32 << 20, min_free_bytes: 0, ..local::Options::default() };
    let begun = Instant::now();
    loop {
        match open_copy(dir, options.clone(), journal) {
            Err(StoreError::Locked { .. } | StoreError::Busy { .. })
                if begun.elapsed() < Duration::from_secs(60) =>
            {
                std::thread::sleep(Duration::from_millis(5));
            }
            opened => return opened.unwrap(),
        }
    }
}

fn state_of(options: &Options, identity: &Identity) -> StateOf {
    let (options, most) = (options.clone(), identity.max_commit_bytes);
    Box::new(move |recovered| whole_state(recovered, &options, most))
}

fn connect(settings: &Settings) -> Arc<NatsJournal> {
    loop {
        match NatsJournal::connect(settings) {
            Ok(journal) => return Arc::new(journal),
            // Servers are killed meanwhile.
            Err(error) => println!("{error}"),
        }
    }
}

impl Daemon {
    pub fn new(name: u64, settings: Settings) -> Daemon {
        // Memory has the state whole now and then; so do few repeats.
        let options = Options { dedup_window: 100_000, reader_threads: 1, ..Options::default() };
        let journal = connect(&settings);
        let identity = journal.identity();
        let state = state_of(&options, &identity);
        let dir = (name == 1).then(|| tempfile::tempdir().unwrap());
        let copy = match &dir {
            Some(dir) => on_disk(dir.path(), &journal),
            None => empty_copy(&journal),
        };
        let replica = Replica::new((name, rand::random()), journal, copy, state, &[]).unwrap();
        let replica = Arc::new(replica);
        let recovered = replica.recovered().unwrap();
        let (log, following) = EventLog::follow(replica.clone(), &recovered, &options).unwrap();
        let (opened, following) = ((Role::Following, 0), Some(following));
        Daemon {
            name,
            replica,
            log,
            has_ended: false,
            opened,
            following,
            identity,
            settings,
            options,
            dir,
        }
    }

    /// It dies and comes back, with its copy or with none.
    pub async fn dies(&mut self, forgets: bool) -> Result<(), String> {
        let journal = connect(&self.settings);
        assert_eq!(journal.identity().id, self.identity.id);
        let (life, state) = (rand::random(), state_of(&self.options, &self.identity));
        let copy = match &self.dir {
            None if forgets => empty_copy(&journal),
            None => self.replica.copy().clone(),
            Some(_) => {
                // Nobody has it any more, and it was not closed.
                let closed = self.log.close().await;
                closed.map_err(|error| format!("daemon {}: {error}", self.name))?;
                let nothing = empty_copy(&journal);
                let state = state_of(&self.options, &self.identity);
                let gone = Replica::new((self.name, life), journal.clone(), nothing, state, &[]);
                self.replica = Arc::new(gone.unwrap());
                let empty = self.replica.clone();
                let followed = EventLog::follow(empty, &Recovered::default(), &self.options);
                (self.log, self.following) = (followed.unwrap().0, None);
                if forgets {
                    self.dir = Some(tempfile::tempdir().unwrap());
                }
                on_disk(self.dir.as_ref().unwrap().path(), &journal)
            }
        };
        let replica = Replica::new((self.name, life), journal, copy, state, &[]);
        self.replica = Arc::new(replica.map_err(|error| format!("daemon {}: {error}", self.name))?);
        self.has_ended = true;
        Ok(())
    }

    /// Opens its log anew if it is of another term, or its writer has ended.
    pub async fn refresh(&mut self) -> Result<(), String> {
        let now = (self.replica.role(), self.replica.term());
        if self.opened == now && !self.has_ended || self.replica.is_in_doubt() {
            return Ok(());
        }
        self.log.close().await.map_err(|error| format!("daemon {}: {error}", self.name))?;
        (self.opened, self.has_ended) = (now, false);
        let recovered = self.replica.recovered().unwrap();
        if now.0 == Role::Writing {
            let opened = EventLog::open(self.replica.clone(), recovered, self.options.clone());
            self.log = opened.map_err(|error| format!("daemon {}: {error}", self.name))?;
            self.following = None;
        } else {
            let (log, following) =
                EventLog::follow(self.replica.clone(), &recovered, &self.options)
                    .map_err(|error| format!("daemon {}: {error}", self.name))?;
            (self.log, self.following) = (log, Some(following));
        }
        Ok(())
    }

    /// Takes what the journal has for it, at most so many slots; how many there were.
    pub async fn follow(&mut self, slots: usize) -> Result<usize, String> {
        for taken in 0..slots {
            match self.replica.follow() {
                Ok(Some(Followed::Commit(commit))) => {
                    if let Some(following) = &self.following {
                        following.applied(&commit);
                    }
                }
                Ok(Some(_)) => {}
                Ok(None) => return Ok(taken),
                Err(error) => return Err(format!("daemon {}: {error}", self.name)),
            }
            self.refresh().await?;
        }
        Ok(slots)
    }
}
