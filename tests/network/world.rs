//! What the clients of one run share, and how they connect.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tailmark_client::{Client, Options, ProducerOptions, WatchOptions};
use tailmark_wire::chat;

use crate::support::checker::{Outcome, Request, Sent};

#[derive(Default)]
pub struct World {
    /// Highest seq that a sender was told.
    pub acked: AtomicU64,
    /// Highest seq that a watcher was sent.
    pub seen: AtomicU64,
    pub requests: Mutex<Vec<Request>>,
    /// What each listener heard, by its room.
    pub heard: Mutex<BTreeMap<String, Vec<chat::Message>>>,
    /// Producers, and how many events each has stored for certain.
    pub produced: Mutex<BTreeMap<String, u64>>,
}

impl World {
    pub fn record(&self, sent: Vec<Sent>, outcome: Outcome) {
        let acked = match &outcome {
            Outcome::Published { seq, .. } => *seq,
            Outcome::Uploaded(result) => result.last_seq,
            _ => 0,
        };
        self.acked.fetch_max(acked, Ordering::SeqCst);
        self.requests.lock().unwrap().push(Request { sent, outcome });
    }
}

/// A client that finds out quickly what is dead.
pub fn client(url: &str) -> Client {
    let mut options = Options::default();
    options.connect_timeout = Duration::from_millis(800);
    options.request_timeout = Duration::from_secs(3);
    options.read_timeout = Duration::from_secs(2);
    options.keepalive_interval = Duration::from_millis(300);
    options.keepalive_timeout = Duration::from_millis(500);
    Client::with_options(url, options).unwrap()
}

pub fn watch_options() -> WatchOptions {
    let mut options = WatchOptions::default();
    options.shortest_retry = Duration::from_millis(1);
    options.longest_retry = Duration::from_millis(50);
    options.heartbeat = Duration::from_millis(100);
    options
}

pub fn producer_options() -> ProducerOptions {
    let mut options = ProducerOptions::default();
    options.batch_events = 7;
    options.ack_timeout = Duration::from_millis(800);
    options.shortest_retry = Duration::from_millis(1);
    options.longest_retry = Duration::from_millis(50);
    options
}
