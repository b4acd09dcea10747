//! A daemon among those that share a log: its part in the journal, who writes, and what the others are told and asked.
//!
//! Owns the replica and the event log over it, heartbeats, takeovers, and the passing on of what is to be stored. Must
//! not know of settings, of clients' calls, nor how the journal stores anything.
//!
//! ```text
//! clients -> server -> event log (follows) -> forward -> peer ~~~> service -> event log (writes) -> replica -> journal
//!                          ^                                                                                    |
//!                          +-- node: follow, slot by slot <-----------------------------------------------------+
//! ```
//!
//! An event log is of one term of its writer. At each takeover the node closes it and opens another over the same copy,
//! which the server serves from then on (decisions 0034 and 0038). What must be right is decided by the journal's fence
//! alone; heartbeats and addresses decide who tries, and when.

mod beat;
mod forward;
mod join;
mod node;
mod peer;
mod repair;
mod secret;
mod service;
mod status;
mod wire;
mod witness;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, RwLock};
use tokio::sync::watch;

pub use join::{JoinError, Joined, Options, join};
pub use repair::Repair;
pub use secret::{Secret, SecretError};
pub use service::PeerServer;
pub use tailmark_journal_nats::{Login, Settings};

use self::beat::{Beat, Heard};
use self::peer::Peers;
use self::witness::Witnessed;
use crate::server::{self, LogEnd};
use tailmark_journal_nats::{Listening, NatsJournal};
use tailmark_log::eventlog::{self, EventLog, Retention, TopicRules};
use tailmark_log::storage::shared::{Replica, Role};
use tailmark_log::storage::{Store as _, StoreError};
use tailmark_record::Seq;
use tailmark_wire::feed_v1 as pb;

/// A writer answers by itself where the log ends for so long after it had an empty commit stored, counted from when
/// that was sent. Nobody takes over within [`beat::SILENCE`] of a frame, so that clocks may go at half or twice the
/// speed of each other.
const TRUST: Duration = Duration::from_secs(1);
/// For a daemon to hear where the log ends, and to come there itself.
const CONFIRM: Duration = Duration::from_secs(3);
/// For one that stops to be relieved.
const RELIEF: Duration = Duration::from_millis(1_500);

/// A daemon's part. Clones are the same.
#[derive(Clone)]
pub struct Cluster(Arc<Inner>);

struct Inner {
    /// Of this run of the daemon.
    id: u64,
    daemon: String,
    address: String,
    version: String,
    journal: Arc<NatsJournal>,
    replica: Arc<Replica>,
    peers: Peers,
    secret: Secret,
    /// How its event logs are opened.
    options: Mutex<eventlog::Options>,
    heard: Mutex<Heard>,
    /// The log that is written here, while one is.
    here: RwLock<Option<EventLog>>,
    /// Counts what who waits for a writer should look at.
    changes: watch::Sender<u64>,
    /// The node has something to look at.
    news: (Mutex<bool>, Condvar),
    /// It stops, and takes nothing over.
    leaves: AtomicBool,
    /// It has been told to end.
    is_over: AtomicBool,
    /// When the last empty commit was sent of those that were stored, and in which term.
    trusted: tokio::sync::Mutex<Option<(u64, Instant)>>,
    /// Hears the others while it is there.
    listening: Mutex<Option<Listening>>,
    /// The node's.
    thread: Mutex<Option<JoinHandle<()>>>,
    servers: Mutex<Vec<pb::JournalReplica>>,
    /// Why the journal's servers could not be asked, the last time.
    silent: Mutex<Option<String>>,
    witnessed: Mutex<Witnessed>,
    counters: Counters,
}

#[derive(Default)]
struct Counters {
    takeovers: AtomicU64,
    forwarded: AtomicU64,
    forwards_failed: AtomicU64,
}

fn count(what: &AtomicU64) {
    what.fetch_add(1, Ordering::Relaxed);
}

/// Who stores.
enum Writer {
    Here(EventLog),
    At(String),
    Nobody,
}

impl Inner {
    fn leaves(&self) -> bool {
        self.leaves.load(Ordering::Relaxed)
    }

    /// The log that is written here, if one is and may be.
    fn written(&self) -> Option<EventLog> {
        let here = self.here.read().clone();
        here.filter(|_| !self.leaves())
    }

    /// Who stores now, as far as is known.
    fn writer(&self) -> Writer {
        if let Some(log) = self.written() {
            return Writer::Here(log);
        }
        let heard = self.heard.lock();
        match heard.writer(self.replica.term(), Instant::now()) {
            Some((it, _)) => Writer::At(it.address.clone()),
            None => Writer::Nobody,
        }
    }

    /// Has everybody look who waits for something.
    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
        self.wake();
    }

    /// Remembers where the term began that it has just seen, or begun.
    fn term_begins(&self) {
        let place = self.replica.place();
        self.witnessed.lock().begins(place);
    }

    fn wake(&self) {
        let (is_there, news) = &self.news;
        *is_there.lock() = true;
        news.notify_one();
    }

    fn beat(&self) -> Beat {
        let leaves = self.leaves();
        let role = self.replica.role();
        // Who stops hands on what it writes.
        let heir = (leaves && role == Role::Writing && self.here.read().is_none())
            .then(|| self.heard.lock().heir(self.id, Instant::now()).map(|it| it.id))
            .flatten();
        Beat {
            id: self.id,
            daemon: self.daemon.clone(),
            address: self.address.clone(),
            role: role.into(),
            term: self.replica.term(),
            slot: self.replica.slot(),
            head: self.replica.bounds().head.get(),
            heir,
            leaves,
            version: self.version.clone(),
        }
    }

    fn tell(&self) {
        // Who is not connected is not heard, and that is all that it comes to.
        let _ = self.journal.tell(self.beat().encode());
    }

    /// Takes a heartbeat.
    fn hears(&self, bytes: &[u8]) {
        let Some(beat) = Beat::decode(bytes) else { return };
        if beat.id == self.id {
            return;
        }
        let is_news =
            beat.slot > self.replica.slot() || beat.leaves || beat.term > self.replica.term();
        let (daemon, mut heard) = (beat.daemon.clone(), self.heard.lock());
        let term = self.replica.term();
        let before = heard.writer(term, Instant::now()).map(|(it, _)| it.id);
        let twin = heard.take(beat, Instant::now());
        let after = heard.writer(term, Instant::now()).map(|(it, _)| it.id);
        drop(heard);
        if twin.is_some() || daemon == self.daemon {
            tracing::warn!(
                daemon,
                "two daemons of the log go by this name: server.instance_id must differ"
            );
        }
        if before != after {
            self.changed();
        } else if is_news {
            self.wake();
        }
    }

    /// Where the log ends, by who writes here: `None` where that is somebody else, or not known.
    async fn confirm_here(self: &Arc<Self>) -> Option<wire::End> {
        self.written()?;
        let mut trusted = self.trusted.lock().await;
        let term = self.replica.term();
        let is_trusted = trusted.is_some_and(|(of, at)| of == term && at.elapsed() < TRUST);
        let (inner, sent) = (Arc::clone(self), Instant::now());
        // What is under way may have been read by others already: it is waited for.
        let confirming = tokio::task::spawn_blocking(move || {
            if is_trusted { inner.replica.resolve() } else { inner.replica.confirm() }.ok()?;
            let (bounds, slot) = (inner.replica.bounds(), inner.replica.slot());
            let (head, generation) =
                (bounds.head.get(), bounds.generations.current().generation.counter.into());
            (inner.replica.role() == Role::Writing && inner.replica.term() == term)
                .then_some(wire::End { head, slot, generation })
        });
        let end = confirming.await.ok().flatten()?;
        if !is_trusted {
            *trusted = Some((term, sent));
            // Who asked has to come there.
            self.tell();
        }
        // It has begun to leave meanwhile, and another may write.
        self.written().map(|_| end)
    }

    /// Where the log ends, by who writes; the copy here has all of that by then.
    async fn confirm(self: Arc<Self>) -> Option<LogEnd> {
        let until = tokio::time::Instant::now() + CONFIRM;
        let asking = async {
            loop {
                let mut changes = self.changes.subscribe();
                let end = match self.writer() {
                    Writer::Here(_) => self.confirm_here().await,
                    Writer::At(address) => {
                        let (path, question) = (service::CONFIRM, wire::Confirm {});
                        let asked = self.peers.ask(&address, path, question, CONFIRM).await;
                        asked.ok().and_then(|it: wire::ConfirmDone| it.end)
                    }
                    Writer::Nobody => None,
                };
                if let Some(end) = end {
                    return end;
                }
                let _ = tokio::time::timeout(forward::PAUSE, changes.changed()).await;
            }
        };
        let end = tokio::time::timeout_at(until, asking).await.ok()?;
        self.wake();
        while self.replica.slot() < end.slot {
            if tokio::time::Instant::now() > until {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let generation = u16::try_from(end.generation).ok()?;
        Some(LogEnd { head: Seq::new(end.head), generation })
    }
}

impl Cluster {
    /// Other limits of retention from now on, also for the logs that are opened after this one.
    pub fn set_retention(&self, retention: &Retention, interval: Duration, rules: &TopicRules) {
        let mut options = self.0.options.lock();
        options.retention = retention.clone();
        options.retention_interval = interval;
        options.topic_rules = rules.clone();
    }

    /// What daemons ask each other, for the server's routes.
    pub fn service(&self) -> PeerServer {
        PeerServer::new(Arc::clone(&self.0))
    }

    /// Gives up writing, if it writes: whoever else follows takes over at once, and this returns when that is done or
    /// has taken too long. It takes nothing over any more.
    pub async fn leave(&self) {
        let inner = &self.0;
        let was_writing = inner.here.read().is_some();
        inner.leaves.store(true, Ordering::Relaxed);
        inner.changed();
        inner.tell();
        if !was_writing {
            return;
        }
        let begun = Instant::now();
        while begun.elapsed() < RELIEF {
            let is_alone = inner.heard.lock().heir(inner.id, Instant::now()).is_none();
            if inner.replica.role() != Role::Writing || is_alone {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Ends its thread, and waits for it: for as long as the journal does not answer. From then on the handle that is
    /// served stays the same. Blocks.
    pub fn end(&self) {
        self.0.is_over.store(true, Ordering::Relaxed);
        self.0.changed();
        *self.0.listening.lock() = None;
        let thread = self.0.thread.lock().take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that followed the journal has panicked");
        }
    }

    /// Closes the copy, behind the handle that was served last. Blocks.
    ///
    /// # Errors
    /// I/O; what the copy has is durable all the same.
    pub fn close(&self) -> Result<(), StoreError> {
        self.0.replica.close()
    }
}

impl server::Peers for Cluster {
    fn journal(&self) -> pb::JournalStatus {
        status::of(&self.0)
    }

    fn confirm(&self) -> server::Confirmed {
        Box::pin(Arc::clone(&self.0).confirm())
    }
}
