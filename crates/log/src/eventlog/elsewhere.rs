//! The daemon that writes, for a log that another daemon writes: what is appended here is stored there.
//!
//! How it is reached, and what of it may be tried again, is for whoever implements [`Elsewhere`]. A log that is
//! followed asks nobody else: neither its queue nor its engine takes anything.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use super::answer::Answer;
use super::append::{AppendOptions, Appended, ExpectedHead};
use super::batch::Batch;
use super::error::AppendError;
use super::queue::Trimmed;
use tailmark_record::Seq;

/// What becomes of something that is done elsewhere.
pub type Done<T> = Pin<Box<dyn Future<Output = Result<T, AppendError>> + Send>>;

/// Stores what comes to a daemon that does not write. [`AppendError`]s mean what they mean of a log that is written
/// here: above all, whether something may have been stored.
pub trait Elsewhere: Send + Sync + 'static {
    /// As [`EventLog::append`](super::EventLog::append).
    fn append(&self, batch: Batch, options: AppendOptions) -> Done<Appended>;

    /// As [`EventLog::open_producer`](super::EventLog::open_producer).
    fn open_producer(&self, id: &str, epoch: u64) -> Done<OpenedElsewhere>;

    /// As [`EventLog::trim`](super::EventLog::trim).
    fn trim(&self, before: Seq) -> Done<Trimmed>;

    /// Why nothing could be stored now, as far as is known. Does not wait.
    fn refusal(&self) -> Option<AppendError>;
}

/// A producer's stream that was opened elsewhere.
pub struct OpenedElsewhere {
    /// The epoch that it appends in.
    pub epoch: u64,
    /// The producer's last batch when it was opened; 0 = none.
    pub last_seq: u64,
    /// The last event of that batch.
    pub last_event: Option<Seq>,
    /// Its cursor; empty where that is not known.
    pub last_cursor: Box<str>,
    /// Where its batches go.
    pub stream: Arc<dyn ProducerElsewhere>,
}

/// Takes the batches of one producer's stream.
pub trait ProducerElsewhere: Send + Sync + 'static {
    /// Sends a batch behind those that were sent before.
    ///
    /// # Errors
    /// Where it could not be sent; nothing was stored.
    fn submit(
        &self,
        seq: u64,
        batch: Batch,
        expected_head: Option<ExpectedHead>,
    ) -> Result<Answer, AppendError>;
}
