//! A daemon: its connection, its copy, and the event log over it.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tailmark_log::eventlog::{Following, whole_state};
use tailmark_log::storage::memory::Options as MemoryOptions;
use tailmark_log::storage::shared::{
    Connection, CopyStore, Identity, Replica, Role, Rule, StateOf, Stream, copy_in_memory,
    open_copy,
};
use tailmark_log::storage::{Level, Recovered, StoreError, local};
use tailmark_log::{EventLog, Options};
use tailmark_record::{FingerprintKey, LogId, Timestamp};
use tempfile::TempDir;

/// Nothing takes as long, with whatever else runs beside it.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: nothing after {PATIENCE:?}"),
    }
}

/// A rule that is taken out, to see what it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Without {
    /// None.
    Nothing,
    /// One of a replica's.
    Rule(Rule),
    /// The journal compares nothing.
    CompareAndSwap,
    /// A daemon that follows answers AHEAD, or DIVERGED, by itself.
    AheadIsConfirmed,
    /// Two of a replica's: where the second is there for when the first fails.
    Rules(Rule, Rule),
}

pub struct Daemon {
    pub name: u64,
    pub connection: Arc<Connection>,
    pub replica: Arc<Replica>,
    pub log: EventLog,
    pub following: Option<Following>,
    /// What the log was opened as, in which term.
    pub opened: (Role, u64),
    /// Its writer has ended, or it does not show what the copy has.
    pub has_ended: bool,
    lives: u64,
    options: Options,
    /// Where its copy is; in memory without.
    dir: Option<TempDir>,
}

pub fn identity() -> Identity {
    let id = LogId::new(uuid::Uuid::from_u128(16));
    let (key, level) = (FingerprintKey::new([7; 16]), Level::Replicated);
    // As large as goes into the smallest slots.
    Identity { id, key, max_commit_bytes: 32 << 10, level, created_at: Timestamp::EPOCH }
}

fn in_memory(connection: &Connection) -> Arc<dyn CopyStore> {
    let max_commit_bytes = identity().max_commit_bytes;
    // Small, so that a copy is asked for its whole state now and then.
    let state_every_bytes = 4_000;
    let options = MemoryOptions { max_commit_bytes, state_every_bytes, ..MemoryOptions::default() };
    copy_in_memory(options, connection).unwrap()
}

/// Opens a copy, which was that of a daemon that has just died: its threads let go of it in a moment.
fn on_disk(dir: &Path, connection: &Connection) -> Arc<dyn CopyStore> {
    let options =
        local::Options { slot_bytes: 256 << 10, min_free_bytes: 0, ..local::Options::default() };
    let begun = Instant::now();
    loop {
        match open_copy(dir, options.clone(), connection) {
            Err(StoreError::Locked { .. }) if begun.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(1));
            }
            opened => return opened.unwrap(),
        }
    }
}

/// A log in memory that has nothing, and lets go of the one that was there.
fn nothing(connection: &Connection) -> EventLog {
    let copy = in_memory(connection);
    EventLog::follow(copy, &Recovered::default(), &Options::default()).unwrap().0
}

impl Daemon {
    fn state_of(options: &Options) -> StateOf {
        let options = options.clone();
        Box::new(move |recovered| whole_state(recovered, &options, identity().max_commit_bytes))
    }

    fn rules(without: Without) -> Vec<Rule> {
        match without {
            Without::Rule(rule) => vec![rule],
            Without::Rules(one, other) => vec![one, other],
            _ => Vec::new(),
        }
    }

    pub fn new(
        name: u64,
        stream: &Arc<Stream>,
        options: Options,
        without: Without,
        is_on_disk: bool,
    ) -> Daemon {
        let connection = stream.connect();
        let rules = Daemon::rules(without);
        let state_of = Daemon::state_of(&options);
        let dir = is_on_disk.then(|| tempfile::tempdir().unwrap());
        let copy = match &dir {
            Some(dir) => on_disk(dir.path(), &connection),
            None => in_memory(&connection),
        };
        let replica = Replica::new((name, 0), connection.clone(), copy, state_of, &rules);
        let replica = Arc::new(replica.unwrap());
        let (log, following) = Daemon::follows(&replica, &options);
        let opened = (Role::Following, 0);
        let following = Some(following);
        Daemon {
            name,
            connection,
            replica,
            log,
            following,
            opened,
            has_ended: false,
            lives: 0,
            options,
            dir,
        }
    }

    fn follows(replica: &Arc<Replica>, options: &Options) -> (EventLog, Following) {
        EventLog::follow(replica.clone(), &replica.recovered().unwrap(), options).unwrap()
    }

    pub fn is_as_opened(&self) -> bool {
        self.opened == (self.replica.role(), self.replica.term()) && !self.has_ended
    }

    /// It dies and comes back, with its copy or with none.
    pub async fn dies(
        &mut self,
        stream: &Arc<Stream>,
        forgets: bool,
        without: Without,
    ) -> Result<(), String> {
        self.lives += 1;
        let (life, state_of) = (self.lives, Daemon::state_of(&self.options));
        self.connection = stream.connect();
        let connection = self.connection.clone();
        self.has_ended = true;
        let copy = match &self.dir {
            None if forgets => in_memory(&connection),
            None => self.replica.copy().clone(),
            Some(dir) => {
                // Nobody has it any more, and it was not closed.
                let closed = within("close", self.log.close()).await;
                closed.map_err(|error| format!("daemon {}: {error}", self.name))?;
                (self.log, self.following) = (nothing(&connection), None);
                let gone = Replica::new(
                    (self.name, life),
                    connection.clone(),
                    in_memory(&connection),
                    Daemon::state_of(&self.options),
                    &[],
                );
                self.replica = Arc::new(gone.unwrap());
                if forgets {
                    let empty = tempfile::tempdir().unwrap();
                    let copy = on_disk(empty.path(), &connection);
                    self.dir = Some(empty);
                    copy
                } else {
                    on_disk(dir.path(), &connection)
                }
            }
        };
        let rules = Daemon::rules(without);
        let replica = Replica::new((self.name, life), connection, copy, state_of, &rules);
        self.replica = Arc::new(replica.map_err(|error| format!("daemon {}: {error}", self.name))?);
        Ok(())
    }

    /// Opens its log anew if it is of another term, or its writer has ended. One that is in doubt has to
    /// wait until that is over.
    pub async fn refresh(&mut self) -> Result<(), String> {
        if self.is_as_opened() || self.replica.is_in_doubt() {
            return Ok(());
        }
        let closed = within("close", self.log.close()).await;
        closed.map_err(|error| format!("daemon {}: {error}", self.name))?;
        self.opened = (self.replica.role(), self.replica.term());
        self.has_ended = false;
        if self.opened.0 == Role::Writing {
            let recovered = self.replica.recovered().unwrap();
            let opened = EventLog::open(self.replica.clone(), recovered, self.options.clone());
            self.log = opened.map_err(|error| format!("daemon {}: {error}", self.name))?;
            self.following = None;
        } else {
            let (log, following) = Daemon::follows(&self.replica, &self.options);
            (self.log, self.following) = (log, Some(following));
        }
        Ok(())
    }
}
