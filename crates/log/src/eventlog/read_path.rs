//! What the readers of a log share with its writer.

use std::sync::Arc;

use tokio::sync::watch;

use super::hot::Hot;
use super::interest::Interest;
use super::metrics::Metrics;
use super::reader_pool::ReaderPool;
use tailmark_record::{ChainTag, Seq, Timestamp};

/// What readers may see. Head and oldest only go up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Published {
    /// Last durable seq.
    pub head: Seq,
    /// When that was appended, as it is stamped.
    pub head_at: Timestamp,
    /// Of the chain at it.
    pub head_tag: ChainTag,
    /// First readable seq.
    pub oldest: Seq,
    /// Of the chain at the event before that, if it is known.
    pub oldest_tag: Option<ChainTag>,
    /// Nothing comes any more.
    pub is_closed: bool,
}

/// All that a reader has of the log.
pub(super) struct ReadPath {
    /// Only the writer moves head and oldest, or who follows one; only closing sets `is_closed`.
    pub published: watch::Sender<Published>,
    /// Readers that sleep until something concerns them.
    pub interest: Arc<Interest>,
    pub hot: Hot,
    pub pool: Arc<ReaderPool>,
    pub metrics: Arc<Metrics>,
}

impl ReadPath {
    /// Tells readers of the head, when that was appended and the chain at it, and of the oldest and the
    /// chain before that. Only forward.
    pub(super) fn publish(
        &self,
        (head, head_at, head_tag): (Seq, Timestamp, ChainTag),
        (oldest, oldest_tag): (Seq, Option<ChainTag>),
    ) {
        self.published.send_if_modified(|now| {
            debug_assert!(head >= now.head && oldest >= now.oldest, "what is published only grows");
            let moved = head > now.head || oldest > now.oldest;
            now.head = now.head.max(head);
            (now.head_at, now.head_tag) = (head_at, head_tag);
            if oldest > now.oldest {
                (now.oldest, now.oldest_tag) = (oldest, oldest_tag);
            }
            moved
        });
    }
}
