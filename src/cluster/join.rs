//! How a daemon comes to its part: the journal, the copy, and all that the journal has by then.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use super::node::Node;
use super::peer::Peers;
use super::{Cluster, Inner, Secret};
use crate::server::ServedLog;
use tailmark_client::Tls;
use tailmark_journal_nats::{Error, NatsJournal, Settings};
use tailmark_log::eventlog::{self, EventLog, whole_state};
use tailmark_log::storage::StoreError;
use tailmark_log::storage::local;
use tailmark_log::storage::shared::{
    Followed, Identity, Replica, SharedJournal as _, StateOf, has_log, open_copy,
};

/// What a daemon is among those that share a log.
pub struct Options {
    /// Its name among them.
    pub daemon: String,
    /// Where the others reach it: `http://HOST:PORT` or `https://HOST:PORT`.
    pub address: String,
    /// Of this program, as others are told it.
    pub version: String,
    /// The journal.
    pub journal: Settings,
    /// What they know each other by.
    pub secret: Secret,
    /// How it speaks TLS to the others.
    pub tls: Tls,
    /// How its event logs behave.
    pub log: eventlog::Options,
    /// Where its copy lies, and how.
    pub dir: PathBuf,
    /// Of the copy.
    pub storage: local::Options,
}

/// Why it has none.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// There is no journal to use.
    #[error(transparent)]
    Journal(#[from] Error),
    /// Its copy cannot be used, or not be brought up to the journal.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It would not hear the others.
    #[error("cannot listen to the other daemons: {0}")]
    Deaf(String),
}

/// A daemon that has its part, and does not follow by itself yet.
pub struct Joined {
    /// Its part.
    pub cluster: Cluster,
    /// The log, as it follows it.
    pub log: EventLog,
    node: Node,
}

impl Joined {
    /// Goes on by itself from here: follows, and writes where nobody else does. The server's handle changes with it.
    ///
    /// # Errors
    /// Where a thread cannot be started.
    pub fn start(self, served: ServedLog, runtime: Handle) -> Result<Cluster, JoinError> {
        self.node.start(served, runtime)?;
        Ok(self.cluster)
    }
}

/// Between two looks at the journal for more.
const PAUSE: Duration = Duration::from_millis(20);
/// How often it is told how far it is.
const TELL: Duration = Duration::from_secs(5);

/// Connects, and brings the copy up to where the journal ends. Blocks for as long as that takes; `goes_on` may end it.
///
/// # Errors
/// Where there is no journal to use, or no copy. `Ok(None)` where it was ended.
pub fn join(
    options: Options,
    runtime: Handle,
    goes_on: &dyn Fn() -> bool,
) -> Result<Option<Joined>, JoinError> {
    let Options { daemon, address, version, mut journal, secret, tls, log, dir, storage } = options;
    // Who has a copy has had a journal. If that is gone, another in its place would only be in the way of who puts it back.
    journal.create &= !has_log(&dir);
    let journal = Arc::new(NatsJournal::connect(&journal)?);
    for weakness in journal.strength().weaknesses {
        tracing::warn!(weakness, "the journal is weaker than it should be, which is allowed");
    }
    let identity = journal.identity();
    let (id, life) = (rand::random(), rand::random());
    let state = state_of(&log, &identity);
    let copy = open_copy(&dir, storage, &*journal)?;
    let replica = Replica::new((id, life), journal.clone(), copy, state, &[])?;
    let replica = Arc::new(replica);
    if !catch_up(&replica, &journal, goes_on)? {
        return Ok(None);
    }
    let inner = Arc::new(Inner {
        id,
        daemon,
        address,
        version,
        journal: Arc::clone(&journal),
        replica,
        peers: Peers::new(secret.clone(), tls),
        secret,
        options: log.into(),
        heard: Default::default(),
        here: Default::default(),
        changes: Default::default(),
        news: Default::default(),
        leaves: Default::default(),
        is_over: Default::default(),
        trusted: Default::default(),
        listening: Default::default(),
        thread: Default::default(),
        servers: Default::default(),
        silent: Default::default(),
        witnessed: Default::default(),
        counters: Default::default(),
    });
    let hears = Arc::downgrade(&inner);
    let listening = journal.listen(move |bytes| {
        if let Some(inner) = hears.upgrade() {
            inner.hears(&bytes);
        }
    });
    match listening {
        Ok(listening) => *inner.listening.lock() = Some(listening),
        // It connects again by itself; but this one never hears.
        Err(error) => return Err(JoinError::Deaf(error.to_string())),
    }
    let _inside = runtime.enter();
    let node = Node::new(&inner)?;
    Ok(Some(Joined { cluster: Cluster(inner), log: node.log(), node }))
}

fn state_of(options: &eventlog::Options, identity: &Identity) -> StateOf {
    let (options, most) = (options.clone(), identity.max_commit_bytes);
    Box::new(move |recovered| whole_state(recovered, &options, most))
}

/// Follows to where the journal ends, by its own word as of then.
fn catch_up(
    replica: &Replica,
    journal: &NatsJournal,
    goes_on: &dyn Fn() -> bool,
) -> Result<bool, StoreError> {
    let mut told = Instant::now();
    let mut end = None;
    while goes_on() {
        let end = match end {
            Some(end) => end,
            None => match journal.end() {
                Some(now) => *end.insert(now),
                None => {
                    std::thread::sleep(PAUSE);
                    continue;
                }
            },
        };
        if replica.slot() >= end {
            return Ok(true);
        }
        match replica.follow() {
            Ok(Some(Followed::Commit(_) | Followed::Term(_) | Followed::Nothing)) => {}
            Ok(None) => drop(replica.wait(PAUSE)),
            // Reads of what it has go on, and who looks is told.
            Err(StoreError::Diverged { detail }) => {
                tracing::error!(detail, "the journal is of another history than the copy here");
                return Ok(true);
            }
            Err(error) => return Err(error),
        }
        if told.elapsed() > TELL {
            told = Instant::now();
            tracing::info!(
                slot = replica.slot(),
                end,
                "following the journal before anything is served"
            );
        }
    }
    Ok(false)
}
