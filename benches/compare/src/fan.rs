//! One live fan-out and how far it is: what the work that measures it and those who are measured share.
//!
//! The publisher goes on in bursts, and at most so far ahead of the watchers that what they get is
//! live and not a replay; the pace is the same for all.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use tokio::sync::{Notify, mpsc};

use crate::sample::{self, Load};

/// Events of one burst.
pub(crate) const BURST: u64 = BURST_LEN as u64;
/// The same, in memory.
pub(crate) const BURST_LEN: usize = 20;
/// Bursts that the publisher may be ahead of the watchers, on average over them.
const AHEAD: u64 = 10;

/// One fan-out and how far it is.
#[derive(Debug)]
pub(crate) struct Fan {
    pub(crate) watchers: usize,
    pub(crate) connections: usize,
    /// Events of each watcher; whole bursts.
    pub(crate) events: u64,
    /// One event a message, or as the client library does it.
    pub(crate) is_single: bool,
    progress: Progress,
}

/// How many deliveries there were, and who waits for how many.
#[derive(Debug)]
pub(crate) struct Progress {
    delivered: AtomicU64,
    /// The publisher waits for so many deliveries.
    awaited: AtomicU64,
    reached: Notify,
}

impl Default for Progress {
    fn default() -> Progress {
        let (delivered, awaited) = (AtomicU64::new(0), AtomicU64::new(u64::MAX));
        Progress { delivered, awaited, reached: Notify::new() }
    }
}

impl Progress {
    /// So many more.
    pub(crate) fn add(&self, count: u64) {
        let before = self.delivered.fetch_add(count, Ordering::AcqRel);
        let awaited = self.awaited.load(Ordering::Acquire);
        if before < awaited && before + count >= awaited {
            self.reached.notify_one();
        }
    }

    /// Waits until there are so many; for one at a time.
    pub(crate) async fn wait_for(&self, deliveries: u64) {
        self.awaited.store(deliveries, Ordering::SeqCst);
        while self.delivered.load(Ordering::SeqCst) < deliveries {
            self.reached.notified().await;
        }
    }
}

impl Fan {
    pub(crate) fn new(watchers: usize, deliveries: u64, is_single: bool) -> Fan {
        let bursts = deliveries.div_ceil((watchers as u64).max(1)).div_ceil(BURST).max(1);
        Fan {
            watchers,
            connections: watchers.min(10),
            events: bursts * BURST,
            is_single,
            progress: Progress::default(),
        }
    }

    /// A watcher has got so many more.
    pub(crate) fn delivered(&self, count: u64) {
        self.progress.add(count);
    }

    /// Sends every event, in bursts, and waits until every watcher has everything; how long it took.
    pub(crate) async fn publish(&self, send: &mpsc::Sender<Bytes>) -> Result<Duration> {
        let begun = Instant::now();
        for at in 0..self.events {
            if at % BURST == 0 {
                self.may_publish(at).await;
            }
            send.send(sample::event(Load::of(self.events), at)).await.context("it ended")?;
        }
        self.all_delivered().await;
        Ok(begun.elapsed())
    }

    /// Waits until the publisher may publish what comes after so many events.
    pub(crate) async fn may_publish(&self, published: u64) {
        let ahead = AHEAD * BURST;
        let least = published.saturating_sub(ahead) * self.watchers as u64;
        self.progress.wait_for(least).await;
    }

    /// Waits until every watcher has everything.
    pub(crate) async fn all_delivered(&self) {
        self.progress.wait_for(self.deliveries()).await;
    }

    pub(crate) fn deliveries(&self) -> u64 {
        self.events * self.watchers as u64
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn events_are_whole_bursts() {
        assert_eq!(Fan::new(100, 10_000, false).events, 100);
        assert_eq!(Fan::new(100, 10_001, false).events, 120);
        assert_eq!(Fan::new(1_000, 5, false).events, BURST);
    }

    #[tokio::test]
    async fn the_publisher_is_at_most_so_far_ahead() {
        let fan = Arc::new(Fan::new(2, 2_000, false));
        let ahead = AHEAD * BURST;
        fan.may_publish(ahead).await;
        let waiter = tokio::spawn({
            let fan = Arc::clone(&fan);
            async move { fan.may_publish(ahead + BURST).await }
        });
        // Two watchers: one of them alone is not enough.
        fan.delivered(BURST);
        tokio::task::yield_now().await;
        assert!(!waiter.is_finished());
        fan.delivered(BURST);
        tokio::time::timeout(Duration::from_secs(30), waiter).await.unwrap().unwrap();
        fan.delivered(fan.deliveries() - 2 * BURST);
        tokio::time::timeout(Duration::from_secs(30), fan.all_delivered()).await.unwrap();
    }
}
