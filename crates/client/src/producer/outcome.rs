//! How a batch has ended, told to all who wait for it.
//!
//! Every event has an ack, and most are never waited for: one that is dropped costs a count.

use std::ops::Deref;
use std::pin::pin;
use std::sync::{Arc, OnceLock};

use tokio::sync::Notify;

use crate::Error;
use tailmark_wire::feed_v1::append_response::Acked;

/// `None` = nobody will ever know: the producer was dropped, or its task has panicked. An error is shared by all.
pub(super) type Ended = Option<Result<Acked, Error>>;

/// Set once.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    ended: OnceLock<Ended>,
    settled: Notify,
}

/// The right to say how a batch has ended. Dropping it says that nobody knows.
#[derive(Debug, Default)]
pub(super) struct Verdict(Arc<Outcome>);

impl Outcome {
    /// Waits for the end.
    pub(super) async fn wait(&self) -> &Ended {
        loop {
            let mut settled = pin!(self.settled.notified());
            // Before the look: what is told between the two is not missed.
            settled.as_mut().enable();
            if let Some(ended) = self.ended.get() {
                return ended;
            }
            settled.await;
        }
    }

    fn end(&self, ended: Ended) {
        // Only the first counts, and there is no other but that of a drop.
        if self.ended.set(ended).is_ok() {
            self.settled.notify_waiters();
        }
    }
}

impl Verdict {
    /// Tells it.
    pub(super) fn settle(self, result: Result<Acked, Error>) {
        self.end(Some(result));
    }
}

impl Deref for Verdict {
    type Target = Arc<Outcome>;

    fn deref(&self) -> &Arc<Outcome> {
        &self.0
    }
}

impl Drop for Verdict {
    fn drop(&mut self) {
        self.end(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_hear_the_end_before_and_after() {
        let verdict = Verdict::default();
        let outcome = Arc::clone(&verdict);
        let waiting = tokio::spawn({
            let outcome = Arc::clone(&outcome);
            async move { matches!(outcome.wait().await, Some(Ok(_))) }
        });
        tokio::task::yield_now().await;
        verdict.settle(Ok(Acked::default()));
        assert!(waiting.await.unwrap());
        assert!(matches!(outcome.wait().await, Some(Ok(_))));
    }

    #[tokio::test]
    async fn a_verdict_that_is_dropped_leaves_nobody_waiting() {
        let verdict = Verdict::default();
        let outcome = Arc::clone(&verdict);
        let waiting = tokio::spawn(async move { outcome.wait().await.is_none() });
        tokio::task::yield_now().await;
        drop(verdict);
        assert!(waiting.await.unwrap());
    }
}
