//! What the handle, the readers and the threads of one log share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};

use super::AppendError;
use super::batch::Rules;
use super::elsewhere::Elsewhere;
use super::eraser::Eraser;
use super::maintenance::Maintenance;
use super::metrics::Metrics;
use super::options::Clock;
use super::queue::Queue;
use super::read_path::ReadPath;
use super::readiness::ReadinessProbe;
use super::repeats_ready::RepeatsReady;
use super::topic_rules::TopicKeeper;
use super::trouble::Troubles;
use crate::storage::{Journal, Store};
use tailmark_record::{Bounds, CursorMint, GenerationTable, LogId, Seq, Timestamp};

/// Clocks are set right by small steps all the time; beyond this it is worth a word.
const AHEAD: Duration = Duration::from_secs(60);

pub(super) struct Core {
    /// Takes commits; the writer's.
    pub journal: Arc<dyn Journal>,
    /// Who stores what comes, where another daemon writes.
    pub elsewhere: Option<Arc<dyn Elsewhere>>,
    /// Of the same log.
    pub store: Arc<dyn Store>,
    pub id: LogId,
    pub generations: GenerationTable,
    /// One of each generation.
    pub mints: Vec<CursorMint>,
    pub rules: Arc<Rules>,
    pub reads: Arc<ReadPath>,
    pub queue: Queue,
    /// Room among the bytes in flight.
    pub room: Arc<Semaphore>,
    pub in_flight_bytes: usize,
    pub repeats_ready: watch::Sender<RepeatsReady>,
    pub maintenance: Maintenance,
    /// For who asks whether appends would be refused.
    pub readiness: ReadinessProbe,
    pub metrics: Arc<Metrics>,
    pub clock: Clock,
    /// It was said that stamps lie ahead of the clock.
    pub has_said_ahead: AtomicBool,
    /// One erasure at a time.
    pub eraser: Eraser,
    /// Retention by topic.
    pub topic_keeper: TopicKeeper,
    /// Problems of background work, for operators.
    pub troubles: Troubles,
}

impl Core {
    pub(super) fn bounds(&self) -> Bounds {
        let now = *self.reads.published.borrow();
        Bounds { oldest: now.oldest, head: now.head, generations: self.generations.clone() }
    }

    /// Whether an append could be taken now, as far as is known without trying.
    pub(super) fn takes_events(&self) -> bool {
        let can_tell = !matches!(&*self.repeats_ready.borrow(), RepeatsReady::Failed(_));
        self.queue.ended().is_none() && can_tell
    }

    fn is_ahead(&self, head_at: Timestamp, wall: Timestamp) -> bool {
        self.reads.published.borrow().head > Seq::ZERO && head_at.before(AHEAD) > wall
    }

    /// What is to say of stamps that lie ahead of the clock: one of both is wrong. Events get no earlier
    /// stamp than those before them, so that the clock stands still for the log until it has come up.
    pub(super) fn ahead(&self) -> Option<String> {
        let now = *self.reads.published.borrow();
        let wall = (self.clock)();
        self.is_ahead(now.head_at, wall).then(|| {
            format!(
                "the last event is stamped {}, ahead of this machine's clock ({wall}): the clock was wrong \
                 then or is wrong now; events age by when they were seen or stored, and new ones get that stamp too",
                now.head_at
            )
        })
    }

    /// Says it once when it begins, and once when it is over. Asked at every commit.
    pub(super) fn say_if_ahead(&self) {
        let is_ahead = self.is_ahead(self.reads.published.borrow().head_at, (self.clock)());
        if self.has_said_ahead.swap(is_ahead, Ordering::Relaxed) == is_ahead {
            return;
        }
        match self.ahead() {
            Some(what) => tracing::warn!("{what}"),
            None => tracing::info!("the clock has come up to the stamps of events"),
        }
    }

    /// What does not work, for operators.
    pub(super) fn trouble(&self) -> Option<String> {
        if let Some(AppendError::Stopped(why)) = self.queue.ended() {
            return Some(format!("appends have stopped: {why}"));
        }
        if let RepeatsReady::Failed(error) = &*self.repeats_ready.borrow() {
            return Some(format!("repeats cannot be told: {error}"));
        }
        self.troubles.told()
    }
}
