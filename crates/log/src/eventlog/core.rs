//! What the handle, the readers and the threads of one log share.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};

use super::AppendError;
use super::batch::Rules;
use super::filter_cache::Found;
use super::metrics::Metrics;
use super::queue::Queue;
use super::reader_pool::Cold;
use super::recent::Recent;
use super::repeats::RepeatsReady;
use super::upkeep::Upkeep;
use crate::storage::Engine;
use tailmark_record::{Bounds, CursorMint, GenerationTable, LogId, Seq};

/// What readers may see. Head and oldest only go up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Published {
    /// Last durable seq.
    pub head: Seq,
    /// First readable seq.
    pub oldest: Seq,
    /// Nothing comes any more.
    pub is_closed: bool,
}

pub(super) struct Core {
    pub engine: Arc<dyn Engine>,
    pub id: LogId,
    pub generations: GenerationTable,
    /// One of each generation.
    pub mints: Vec<CursorMint>,
    pub rules: Arc<Rules>,
    /// Only the writer moves head and oldest, only closing sets `is_closed`.
    pub published: watch::Sender<Published>,
    pub recent: Recent,
    pub found: Found,
    pub cold: Arc<Cold>,
    pub queue: Queue,
    /// Room among the bytes in flight.
    pub room: Arc<Semaphore>,
    pub in_flight_bytes: usize,
    pub repeats_ready: watch::Sender<RepeatsReady>,
    pub upkeep: Upkeep,
    pub metrics: Metrics,
    /// The last problem of background work, for operators.
    pub trouble: Mutex<Option<String>>,
}

impl Core {
    pub fn bounds(&self) -> Bounds {
        let now = *self.published.borrow();
        Bounds { oldest: now.oldest, head: now.head, generations: self.generations.clone() }
    }

    /// The cursor of `seq`, in the generation that it belongs to.
    pub fn cursor(&self, seq: Seq) -> String {
        let generation = self.generations.of(seq).generation;
        let mint = self.mints.iter().find(|mint| mint.generation() == generation);
        match mint {
            Some(mint) => mint.mint_string(seq),
            None => CursorMint::new(self.id, generation).mint_string(seq),
        }
    }

    /// Whether an append could be taken now, as far as is known without trying.
    pub fn takes_events(&self) -> bool {
        let can_tell = !matches!(&*self.repeats_ready.borrow(), RepeatsReady::Failed(_));
        self.queue.ended().is_none() && can_tell
    }

    /// What does not work, for operators.
    pub fn trouble(&self) -> Option<String> {
        if let Some(AppendError::Stopped(why)) = self.queue.ended() {
            return Some(format!("appends have stopped: {why}"));
        }
        if let RepeatsReady::Failed(error) = &*self.repeats_ready.borrow() {
            return Some(format!("repeats cannot be told: {error}"));
        }
        self.trouble.lock().clone()
    }
}
