//! A daemon: its connection, its copy, and the event log over it, on a thread of its own.

use std::sync::Arc;

use tailmark_journal_nats::{NatsJournal, Settings};
use tailmark_log::eventlog::{Following, whole_state};
use tailmark_log::storage::memory::{Memory, Options as MemoryOptions};
use tailmark_log::storage::shared::{Followed, Identity, Replica, Role, SharedJournal, StateOf};
use tailmark_log::{EventLog, Options};
use tailmark_record::{GenerationTable, Timestamp};

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
}

fn empty_copy(identity: &Identity) -> Arc<Memory> {
    let Identity { id, key, max_commit_bytes, .. } = *identity;
    let table = GenerationTable::created(id.short(), Timestamp::EPOCH);
    // Small, so that a copy is asked for its whole state now and then.
    let options =
        MemoryOptions { max_commit_bytes, state_every_bytes: 40_000, ..MemoryOptions::default() };
    Arc::new(Memory::new(id, key, table, options))
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
        let replica =
            Replica::new((name, rand::random()), journal, empty_copy(&identity), state, &[]);
        let replica = Arc::new(replica);
        let (log, following) =
            EventLog::follow(replica.clone(), &replica.recovered(), &options).unwrap();
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
        }
    }

    /// It dies and comes back, with its copy or with none.
    pub fn dies(&mut self, forgets: bool) {
        let journal = connect(&self.settings);
        assert_eq!(journal.identity().id, self.identity.id);
        let (life, state) = (rand::random(), state_of(&self.options, &self.identity));
        let replica = if forgets {
            Replica::new((self.name, life), journal, empty_copy(&self.identity), state, &[])
        } else {
            self.replica.restarted(journal, life, state)
        };
        self.replica = Arc::new(replica);
        self.has_ended = true;
    }

    /// Opens its log anew if it is of another term, or its writer has ended.
    pub async fn refresh(&mut self) -> Result<(), String> {
        let now = (self.replica.role(), self.replica.term());
        if self.opened == now && !self.has_ended || self.replica.is_in_doubt() {
            return Ok(());
        }
        self.log.close().await.map_err(|error| format!("daemon {}: {error}", self.name))?;
        (self.opened, self.has_ended) = (now, false);
        if now.0 == Role::Writing {
            let recovered = self.replica.recovered();
            let opened = EventLog::open(self.replica.clone(), recovered, self.options.clone());
            self.log = opened.map_err(|error| format!("daemon {}: {error}", self.name))?;
            self.following = None;
        } else {
            let (log, following) =
                EventLog::follow(self.replica.clone(), &self.replica.recovered(), &self.options)
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
