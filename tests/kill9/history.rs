//! What the clients were told, and what the log says after each restart.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use futures_core::Stream;
use tailmark::client::{Client, Item, Start, WatchOptions};

use crate::crash::workload::body_of;

/// No step takes longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Everything that clients know.
#[derive(Default)]
pub struct History {
    /// Events of the log as verified so far: ids, by seq from 1.
    events: Vec<String>,
    places: HashMap<String, u64>,
    cursor: Option<String>,
    /// Acked since the last restart: seq and id.
    acks: Vec<(u64, String)>,
    /// Seen by a live watch since the last restart, in order.
    seen: Vec<(u64, String)>,
    /// Per stream of an upload: how many of its events are in the log, in order.
    streams: BTreeMap<String, u64>,
    /// The highest trim mark that was asked for, and the highest that was confirmed.
    trims: (u64, u64),
    total_acked: u64,
    total_seen: u64,
    unacked_kept: u64,
    restarts: u64,
}

impl std::fmt::Display for History {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} events in the log, {} of them acked, {} not (their ack was cut); {} seen live; {} \
             restarts verified, trimmed up to {}; 0 lost, 0 reordered, 0 repeated",
            self.events.len(),
            self.total_acked,
            self.unacked_kept,
            self.total_seen,
            self.restarts,
            self.trims.1
        )
    }
}

impl History {
    pub fn acked(&self) -> u64 {
        self.total_acked
    }

    pub fn cursor(&self) -> Option<String> {
        self.cursor.clone()
    }

    /// The next seq that is not verified.
    pub fn next(&self) -> u64 {
        self.events.len() as u64 + 1
    }

    pub fn ack(&mut self, seq: u64, id: String) {
        self.acks.push((seq, id));
    }

    pub fn see(&mut self, seq: u64, id: String) {
        self.seen.push((seq, id));
    }

    pub fn trim(&mut self, (asked, confirmed): (u64, u64)) {
        self.trims = (self.trims.0.max(asked), self.trims.1.max(confirmed));
    }

    /// Reads on from the last verified cursor, and compares.
    pub async fn verify(&mut self, address: &str) {
        let client = Client::new(address).expect("a client");
        let log = client.log().await.expect("the log's status");
        let marks = self.trims.1.max(1)..=self.trims.0.max(1);
        assert!(marks.contains(&log.oldest_seq), "oldest {}, not {marks:?}", log.oldest_seq);
        let options = watch_options(self.cursor(), true);
        let mut watch = client.watch(options);
        let before = self.events.len();
        loop {
            let next = tokio::time::timeout(PATIENCE, next(&mut watch)).await;
            match next.expect("a watch after a restart takes too long") {
                Some(Ok(Item::Event(received))) => self.take(&received),
                Some(Ok(Item::Interrupted { cause, .. })) => panic!("interrupted: {cause}"),
                Some(Ok(_)) => {}
                Some(Err(error)) => panic!(
                    "the watch after {:?} (seq {}) does not go on: {error:?}",
                    self.cursor,
                    self.events.len()
                ),
                None => break,
            }
        }
        let fresh = self.events.len() - before;
        let (acks, seen) = (std::mem::take(&mut self.acks), std::mem::take(&mut self.seen));
        for (what, told) in [("acked", &acks), ("seen live", &seen)] {
            for (seq, id) in told {
                let found = self.events.get((*seq - 1) as usize);
                assert_eq!(found, Some(id), "{what} as {seq}, head {}", self.events.len());
            }
        }
        let acked = acks.len() as u64;
        self.total_acked += acked;
        self.total_seen += seen.len() as u64;
        self.unacked_kept += (fresh as u64).saturating_sub(acked);
        self.restarts += 1;
    }

    fn take(&mut self, received: &tailmark::client::Received) {
        let seq = received.seq().get();
        assert_eq!(seq, self.next(), "the watch does not go on where it was");
        let event = received.event().expect("an event");
        let id = event.id.to_owned();
        assert_eq!(event.body, body_of(number_of(&id), 9), "{id} has another body");
        // Ids are STREAM-NUMBER; the events of one stream keep their order, without a hole.
        let (stream, n) = id.rsplit_once('-').expect("an id of ours");
        let n: u64 = n.parse().expect("a number");
        let is_stream = stream.starts_with('u');
        let had = self.streams.entry(stream.to_owned()).or_default();
        if is_stream {
            assert_eq!(n, *had, "{stream} is reordered or has a hole");
        }
        *had += 1;
        if let Some(place) = self.places.insert(id.clone(), seq) {
            panic!("{id} is there twice: {place} and {seq}");
        }
        self.cursor = Some(received.cursor().to_owned());
        self.events.push(id);
    }
}

/// What the body of an event is made from.
pub fn number_of(id: &str) -> u64 {
    id.bytes().fold(7u64, |sum, byte| sum.wrapping_mul(131).wrapping_add(byte.into()))
}

pub fn watch_options(after_cursor: Option<String>, until_caught_up: bool) -> WatchOptions {
    let mut options = WatchOptions::default();
    options.after_cursor = after_cursor;
    options.start = Start::Oldest;
    options.until_caught_up = until_caught_up;
    options
}

pub async fn next<S: Stream + Unpin>(stream: &mut S) -> Option<S::Item> {
    std::future::poll_fn(|cx| std::pin::Pin::new(&mut *stream).poll_next(cx)).await
}
