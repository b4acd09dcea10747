//! Many watches that each have a topic of their own: how they are opened, and the events that go round over them.

use std::future::Future;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use bytes::Bytes;
use prost::Message;
use tailmark_wire::feed_v1 as pb;
use tokio::task::JoinSet;

use crate::fan::Progress;
use crate::sample;

/// Watches of one connection.
const PER_CONNECTION: usize = 1_000;
/// Connections on which watches are opened at a time.
const OPENING: usize = 10;

/// Watches that are open, a task each, or a few a task; closed when dropped.
pub(crate) type Watches = JoinSet<Result<()>>;

/// What was opened, and how many watches that is.
pub(crate) struct Opened {
    pub(crate) count: usize,
    pub(crate) watches: Watches,
}

/// So many watches, and how far the events for them are.
#[derive(Debug)]
pub(crate) struct Own {
    pub(crate) watches: usize,
    /// Opening ends then, with as many as there are.
    opened_by: Instant,
    /// Of publishing.
    time: Duration,
    begun: OnceLock<Instant>,
    published: AtomicU64,
    progress: Progress,
}

impl Own {
    /// So many, opened in at most `opening`; events go round for `time`.
    pub(crate) fn new(watches: usize, opening: Duration, time: Duration) -> Own {
        Own {
            watches,
            opened_by: Instant::now() + opening,
            time,
            begun: OnceLock::new(),
            published: AtomicU64::new(0),
            progress: Progress::default(),
        }
    }

    /// Opens watches on connections of up to a thousand each. `open` is given the places of one connection's, and
    /// whether there is still time; it answers with the watches that it opened.
    pub(crate) async fn open<F>(self: &Arc<Own>, open: impl Fn(Range<u64>) -> F) -> Result<Opened>
    where
        F: Future<Output = Result<Watches>> + Send + 'static,
    {
        let mut places = (0..self.watches).step_by(PER_CONNECTION).map(|first| {
            let end = self.watches.min(first + PER_CONNECTION);
            first as u64..end as u64
        });
        let (mut opening, mut held, mut count) = (JoinSet::new(), JoinSet::new(), 0);
        for places in places.by_ref().take(OPENING) {
            opening.spawn(open(places));
        }
        while let Some(opened) = opening.join_next().await {
            let opened = opened??;
            count += opened.len();
            held.spawn(all(opened));
            if self.has_time()
                && let Some(places) = places.next()
            {
                opening.spawn(open(places));
            }
        }
        Ok(Opened { count, watches: held })
    }

    /// Whether more may be opened.
    pub(crate) fn has_time(&self) -> bool {
        Instant::now() < self.opened_by
    }

    /// A watch has got so many more.
    pub(crate) fn delivered(&self, count: u64) {
        self.progress.add(count);
    }

    /// The places of the next events to publish, at most so many, once no more than one a watch is under way; none
    /// once time is over.
    pub(crate) async fn lot(&self, most: u64) -> Option<Range<u64>> {
        let begun = self.begun.get_or_init(Instant::now);
        if begun.elapsed() >= self.time {
            return None;
        }
        let (first, under_way) = (self.published.load(Ordering::Relaxed), self.watches as u64);
        let end = first + most.min(under_way);
        self.progress.wait_for(end.saturating_sub(under_way)).await;
        self.published.store(end, Ordering::Relaxed);
        Some(first..end)
    }

    /// Waits until every event has come; how many, and in what time since the first was published.
    pub(crate) async fn all_delivered(&self) -> Result<(u64, Duration)> {
        let published = self.published.load(Ordering::Relaxed);
        self.progress.wait_for(published).await;
        let begun = self.begun.get().ok_or_else(|| anyhow!("nothing was published"))?;
        Ok((published, begun.elapsed()))
    }

    /// Topic and number in its topic of the event at a place.
    pub(crate) fn event(&self, at: u64) -> (u64, u64) {
        (at % self.watches as u64, at / self.watches as u64)
    }
}

/// Ends with the first that does.
async fn all(mut watches: Watches) -> Result<()> {
    match watches.join_next().await {
        Some(ended) => ended?,
        None => std::future::pending().await,
    }
}

/// The encoded event of a topic.
pub(crate) fn encoded(topic: u64, number: u64) -> Bytes {
    let (topic, body) = (sample::own_topic(topic), sample::numbered(number));
    pb::Event { topic, body, ..pb::Event::default() }.encode_to_vec().into()
}

/// Clients that come back at once, each to a topic of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Storm {
    pub(crate) clients: u64,
    /// As many topics have events; clients are of the first.
    pub(crate) topics: u64,
    /// Events of each topic.
    pub(crate) events: u64,
    /// Of which so many came while its client was away.
    pub(crate) missed: u64,
}

impl Storm {
    #[cfg(any(feature = "peers", test))]
    pub(crate) fn all_events(&self) -> u64 {
        self.topics * self.events
    }

    /// Topic and number in its topic of the event at a place.
    #[cfg(any(feature = "peers", test))]
    pub(crate) fn event(&self, at: u64) -> (u64, u64) {
        (at % self.topics, at / self.topics)
    }

    /// The number of the first event that a client has missed.
    pub(crate) fn first_missed(&self) -> u64 {
        self.events - self.missed
    }

    /// The place of the last event that a client has seen.
    pub(crate) fn last_seen(&self, client: u64) -> u64 {
        (self.first_missed() - 1) * self.topics + client
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    #[tokio::test]
    async fn no_more_than_one_event_a_watch_is_under_way() {
        let own = Arc::new(Own::new(100, HOUR, HOUR));
        assert_eq!(own.lot(60).await, Some(0..60));
        let next = tokio::spawn({
            let own = Arc::clone(&own);
            async move { own.lot(60).await }
        });
        own.delivered(19);
        tokio::task::yield_now().await;
        assert!(!next.is_finished());
        own.delivered(1);
        assert_eq!(next.await.unwrap(), Some(60..120));
        own.delivered(100);
        assert_eq!(own.all_delivered().await.unwrap().0, 120);
        assert_eq!((own.event(99), own.event(100)), ((99, 0), (0, 1)));
    }

    #[tokio::test]
    async fn publishing_ends_with_its_time() {
        let own = Own::new(10, HOUR, Duration::ZERO);
        assert_eq!(own.lot(5).await, None);
        assert_eq!(own.all_delivered().await.unwrap().0, 0);
    }

    #[tokio::test]
    async fn watches_are_opened_a_thousand_a_connection_while_there_is_time() {
        let open = |places: Range<u64>| async move {
            let mut watches = Watches::new();
            for _ in places {
                watches.spawn(std::future::pending());
            }
            Ok(watches)
        };
        let opened = Arc::new(Own::new(25_500, HOUR, HOUR)).open(open).await.unwrap();
        assert_eq!((opened.count, opened.watches.len()), (25_500, 26));
        let late = Arc::new(Own::new(25_500, Duration::ZERO, HOUR)).open(open).await.unwrap();
        assert_eq!(late.count, 10_000);
    }

    #[tokio::test]
    async fn a_watch_that_fails_ends_all() {
        let open = |_: Range<u64>| async move {
            let mut watches = Watches::new();
            watches.spawn(std::future::pending());
            watches.spawn(async { Err(anyhow!("refused")) });
            Ok(watches)
        };
        let mut opened = Arc::new(Own::new(1, HOUR, HOUR)).open(open).await.unwrap();
        assert!(opened.watches.join_next().await.unwrap().unwrap().is_err());
    }

    #[test]
    fn a_client_has_seen_what_came_before_it_left() {
        let storm = Storm { clients: 3, topics: 10, events: 12, missed: 10 };
        let (topic, number) = storm.event(storm.last_seen(2));
        assert_eq!((topic, number + 1), (2, storm.first_missed()));
        assert_eq!(storm.all_events(), 120);
    }
}
