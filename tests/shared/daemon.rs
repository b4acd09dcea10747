//! A daemon: its connection, its copy, and the event log over it.

use std::sync::Arc;
use std::time::Duration;

use tailmark_log::eventlog::{Following, whole_state};
use tailmark_log::storage::Level;
use tailmark_log::storage::memory::{Memory, Options as MemoryOptions};
use tailmark_log::storage::shared::{Connection, Identity, Replica, Role, Rule, StateOf, Stream};
use tailmark_log::{EventLog, Options};
use tailmark_record::{FingerprintKey, GenerationTable, LogId, Timestamp};

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
}

pub fn identity() -> Identity {
    let id = LogId::new(uuid::Uuid::from_u128(16));
    let (key, level) = (FingerprintKey::new([7; 16]), Level::Replicated);
    Identity { id, key, max_commit_bytes: 1 << 20, level }
}

fn empty_copy() -> Arc<Memory> {
    let Identity { id, key, max_commit_bytes, .. } = identity();
    let table = GenerationTable::created(1, Timestamp::EPOCH);
    // Small, so that a copy is asked for its whole state now and then.
    let state_every_bytes = 4_000;
    let options = MemoryOptions { max_commit_bytes, state_every_bytes, ..MemoryOptions::default() };
    Arc::new(Memory::new(id, key, table, options))
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

    pub fn new(name: u64, stream: &Arc<Stream>, options: Options, without: Without) -> Daemon {
        let connection = stream.connect();
        let rules = Daemon::rules(without);
        let state_of = Daemon::state_of(&options);
        let replica = Replica::new((name, 0), connection.clone(), empty_copy(), state_of, &rules);
        let replica = Arc::new(replica);
        let (log, following) = Daemon::follows(&replica, &options);
        let (opened, has_ended) = ((Role::Following, 0), false);
        let following = Some(following);
        Daemon { name, connection, replica, log, following, opened, has_ended, lives: 0, options }
    }

    fn follows(replica: &Arc<Replica>, options: &Options) -> (EventLog, Following) {
        EventLog::follow(replica.clone(), &replica.recovered(), options).unwrap()
    }

    pub fn is_as_opened(&self) -> bool {
        self.opened == (self.replica.role(), self.replica.term()) && !self.has_ended
    }

    /// It dies and comes back, with its copy or with none. Its log is still that of before.
    pub fn dies(&mut self, stream: &Arc<Stream>, forgets: bool, without: Without) {
        self.lives += 1;
        let (life, state_of) = (self.lives, Daemon::state_of(&self.options));
        self.connection = stream.connect();
        let connection = self.connection.clone();
        let replica = if forgets {
            let rules = Daemon::rules(without);
            Replica::new((self.name, life), connection, empty_copy(), state_of, &rules)
        } else {
            self.replica.restarted(connection, life, state_of)
        };
        self.replica = Arc::new(replica);
        self.has_ended = true;
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
            let recovered = self.replica.recovered();
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
