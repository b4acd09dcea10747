//! Appending as a producer: each batch whole, once, in the order of its numbers.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::elsewhere::{OpenedElsewhere, ProducerElsewhere};
use super::error::lost_answer;
use super::producers::{Key, Opened, Producers, Sent};
use super::queue::{OpenRequest, Work};
use super::{Answer, AppendError, AppendOptions, Batch, EventLog, ExpectedHead, Reservation};
use tailmark_record::Seq;

/// A producer's stream. Of all that were opened for a producer only the last may append.
#[derive(Clone)]
pub struct Producer {
    log: EventLog,
    key: Key,
    opened: Opened,
    /// Where its batches go, where another daemon writes; and the cursor of its last event there.
    elsewhere: Option<(Arc<dyn ProducerElsewhere>, Box<str>)>,
}

impl EventLog {
    /// Opens a stream of the producer `id`, and answers when that is durable. Epoch 0 begins a new
    /// epoch, which ends all older ones; another must be the producer's current one.
    ///
    /// # Errors
    /// `Fenced` for an older epoch, `ProducerUnknown` for one that this log never gave or has
    /// forgotten, else as an append's.
    pub async fn open_producer(&self, id: &str, epoch: u64) -> Result<Producer, AppendError> {
        let key = Producers::key(self.fingerprint_key(), id);
        if let Some(elsewhere) = &self.core().elsewhere {
            let OpenedElsewhere { epoch, last_seq, last_event, last_cursor, stream } =
                elsewhere.open_producer(id, epoch).await?;
            // Its session is known where it was opened.
            let opened = Opened { epoch, session: 0, last_seq, last_event };
            return Ok(Producer {
                log: self.clone(),
                key,
                opened,
                elsewhere: Some((stream, last_cursor)),
            });
        }
        let (reply, answer) = oneshot::channel();
        self.core().queue.push(Work::Open(OpenRequest { key, epoch, reply }))?;
        let opened = answer.await.unwrap_or_else(|_| Err(lost_answer()))?;
        Ok(Producer { log: self.clone(), key, opened, elsewhere: None })
    }
}

impl Producer {
    /// The epoch that it appends in.
    pub fn epoch(&self) -> u64 {
        self.opened.epoch
    }

    /// The producer's last batch when the stream was opened, in whatever epoch; 0 = none.
    pub fn last_seq(&self) -> u64 {
        self.opened.last_seq
    }

    /// The last event of that batch.
    pub fn last_event(&self) -> Option<Seq> {
        self.opened.last_event
    }

    /// The cursor of that event; empty where there is none.
    pub async fn last_cursor(&self) -> String {
        match (&self.elsewhere, self.last_event()) {
            (Some((_, cursor)), _) => cursor.to_string(),
            (None, Some(seq)) => self.log.cursor(seq).await,
            (None, None) => String::new(),
        }
    }

    /// Queues a batch, whole or not at all, after waiting for room among the bytes in flight.
    /// `seq` counts the producer's batches from 1. One that was stored before is answered as such
    /// ([`last_is_duplicate`](super::Appended::last_is_duplicate)), whatever head it expects and whatever is in it now.
    ///
    /// # Errors
    /// When it could not be queued.
    pub async fn submit(
        &self,
        seq: u64,
        batch: Batch,
        expected_head: Option<ExpectedHead>,
    ) -> Result<Answer, AppendError> {
        self.submit_reserved(seq, batch, expected_head, Reservation::default()).await
    }

    /// The same with room that is there already, as [`EventLog::append_reserved`].
    ///
    /// # Errors
    /// As [`submit`](Producer::submit).
    pub async fn submit_reserved(
        &self,
        seq: u64,
        batch: Batch,
        expected_head: Option<ExpectedHead>,
        room: Reservation,
    ) -> Result<Answer, AppendError> {
        if let Some((elsewhere, _)) = &self.elsewhere {
            let share = self.log.share(&batch, room).await?;
            let stored = elsewhere.submit(seq, batch, expected_head)?;
            let (reply, answer) = Answer::of_reply();
            tokio::spawn(async move {
                let done = stored.await;
                drop(share);
                reply.send(done);
            });
            return Ok(answer);
        }
        let options = AppendOptions { dedup: false, expected_head, atomic: true };
        let sent = Sent { key: self.key, session: self.opened.session, seq };
        self.log.submit(batch, options, Some(sent), room).await
    }
}
