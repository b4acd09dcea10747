//! Who uploads, publishes, produces, watches and goes away again.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tailmark_client::{Client, Item, OnLost, Options, ProducerOptions, Start, WatchOptions};
use tailmark_wire::feed_v1 as pb;
use tokio::task::JoinSet;
use tokio_stream::StreamExt as _;

use crate::audit::Audit;
use crate::support::proxy::Proxy;

const PAUSE: Duration = Duration::from_millis(20);
const TOPICS: [&str; 4] = ["orders.eu", "orders.us", "users", "users.eu.new"];
/// The id of the last event.
const END: &str = "end-1";

#[derive(Default)]
struct Counts {
    uploads: AtomicU64,
    publishes: AtomicU64,
    batches: AtomicU64,
    watches: AtomicU64,
}

pub struct Churn {
    over: Arc<AtomicBool>,
    counts: Arc<Counts>,
    senders: JoinSet<()>,
    auditor: tokio::task::JoinHandle<()>,
    client: Client,
}

fn client(proxy: &Proxy) -> Client {
    let mut options = Options::default();
    options.connect_timeout = Duration::from_secs(2);
    options.request_timeout = Duration::from_secs(10);
    Client::with_options(&proxy.url(), options).unwrap()
}

fn watch_options() -> WatchOptions {
    let mut options = WatchOptions::default();
    options.start = Start::Oldest;
    options.on_lost = OnLost::Oldest;
    options.markers = true;
    options.shortest_retry = Duration::from_millis(5);
    options.longest_retry = Duration::from_millis(500);
    options
}

fn event(sender: &str, number: u64) -> pb::Event {
    pb::Event {
        id: format!("{sender}-{number}"),
        topic: TOPICS[(number % 4) as usize].into(),
        body: "x".repeat((number * 37 % 900) as usize),
        ..pb::Event::default()
    }
}

pub fn begin(proxy: &Arc<Proxy>, audit: &Arc<Mutex<Audit>>, seed: u64) -> Churn {
    let (over, counts) = (Arc::new(AtomicBool::new(false)), Arc::new(Counts::default()));
    let mut senders = JoinSet::new();
    let auditor = tokio::spawn(watch_all(client(proxy), audit.clone()));
    for number in 0..2 {
        let sender = format!("u{number}");
        senders.spawn(upload(sender, client(proxy), over.clone(), counts.clone(), seed + number));
        let sender = format!("s{number}");
        let (client, audit) = (client(proxy), audit.clone());
        senders.spawn(publish(sender, client, audit, over.clone(), counts.clone()));
    }
    senders.spawn(produce(client(proxy), audit.clone(), over.clone(), counts.clone()));
    for number in 10..20 {
        senders.spawn(come_and_go(client(proxy), over.clone(), counts.clone(), seed + number));
    }
    Churn { over, counts, senders, auditor, client: client(proxy) }
}

impl Churn {
    /// Fails where one of them has.
    pub fn check(&mut self) {
        while let Some(done) = self.senders.try_join_next() {
            done.unwrap();
        }
        assert!(!self.auditor.is_finished(), "the watch of everything has ended");
    }

    /// Lets everybody finish, and answers how much they did.
    pub async fn end(mut self) -> String {
        self.over.store(true, Ordering::SeqCst);
        while let Some(done) = self.senders.join_next().await {
            done.unwrap();
        }
        let end = pb::Event { id: END.into(), topic: "end".into(), ..pb::Event::default() };
        while self.client.publish(end.clone(), None).await.is_err() {
            tokio::time::sleep(PAUSE).await;
        }
        self.auditor.await.unwrap();
        let count = |count: &AtomicU64| count.load(Ordering::SeqCst);
        let Counts { uploads, publishes, batches, watches } = &*self.counts;
        let (uploads, publishes) = (count(uploads), count(publishes));
        let (batches, watches) = (count(batches), count(watches));
        format!("{uploads} uploads, {publishes} publishes, {batches} produced, {watches} watches")
    }
}

async fn watch_all(client: Client, audit: Arc<Mutex<Audit>>) {
    let mut watch = client.watch(watch_options());
    while let Some(item) = watch.next().await {
        match item.unwrap() {
            Item::Event(received) => {
                let event = received.event().unwrap();
                audit.lock().unwrap().passes(event.seq.get(), event.id);
                if event.id == END {
                    return;
                }
            }
            Item::Marker(marker) => {
                if let Some(gap) = marker.gap {
                    audit.lock().unwrap().skips(gap.from.get(), gap.to.get());
                }
            }
            _ => {}
        }
    }
}

/// Uploads with ids, each again until all of it is known to be there.
async fn upload(
    sender: String,
    client: Client,
    over: Arc<AtomicBool>,
    counts: Arc<Counts>,
    seed: u64,
) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut number = 0;
    while !over.load(Ordering::SeqCst) {
        let first = number + 1;
        number += rng.random_range(1..200);
        let events = || {
            let events = (first..=number).map(|number| event(&sender, number).encode_to_vec());
            tokio_stream::iter(events.map(Bytes::from).collect::<Vec<_>>())
        };
        while let Err(error) = client.upload(events()).await {
            assert!(error.is_retryable(), "{error:?}");
            tokio::time::sleep(PAUSE).await;
        }
        counts.uploads.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(PAUSE).await;
    }
}

async fn publish(
    sender: String,
    client: Client,
    audit: Arc<Mutex<Audit>>,
    over: Arc<AtomicBool>,
    counts: Arc<Counts>,
) {
    let mut number = 0;
    while !over.load(Ordering::SeqCst) {
        number += 1;
        let event = event(&sender, number);
        loop {
            match client.publish(event.clone(), None).await {
                Ok(result) => {
                    audit.lock().unwrap().acked(result.seq, &event.id);
                    break;
                }
                Err(error) => assert!(error.is_retryable(), "{error:?}"),
            }
            tokio::time::sleep(PAUSE).await;
        }
        counts.publishes.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(PAUSE / 4).await;
    }
}

async fn produce(
    client: Client,
    audit: Arc<Mutex<Audit>>,
    over: Arc<AtomicBool>,
    counts: Arc<Counts>,
) {
    let mut options = ProducerOptions::default();
    options.batch_events = 20;
    options.longest_retry = Duration::from_millis(500);
    let producer = client.producer("p", options).await.unwrap();
    let mut number = 0;
    while !over.load(Ordering::SeqCst) {
        let mut acks = Vec::new();
        for _ in 0..50 {
            number += 1;
            acks.push((number, producer.send(&event("p", number)).await.unwrap()));
        }
        for (number, ack) in acks {
            let durable = ack.durable().await.unwrap();
            let seq = durable.seq.expect("a seq").get();
            audit.lock().unwrap().acked(seq, &format!("p-{number}"));
        }
        counts.batches.fetch_add(50, Ordering::Relaxed);
        tokio::time::sleep(PAUSE * 5).await;
    }
    producer.close().await.unwrap();
}

/// Watches of all kinds that live for a moment.
async fn come_and_go(client: Client, over: Arc<AtomicBool>, counts: Arc<Counts>, seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    while !over.load(Ordering::SeqCst) {
        let mut options = watch_options();
        let patterns: &[&str] =
            [&[][..], &["orders.>"], &["*.us", "users"]][rng.random_range(0..3)];
        options.patterns = patterns.iter().map(ToString::to_string).collect();
        options.start = [Start::Oldest, Start::Latest, Start::Last(100)][rng.random_range(0..3)];
        let mut watch = client.watch(options);
        let life = Duration::from_millis(rng.random_range(1..800));
        let mut last = 0;
        let watching = async {
            while let Some(item) = watch.next().await {
                if let Item::Event(received) = item.unwrap() {
                    assert!(received.seq().get() > last, "{} after {last}", received.seq());
                    last = received.seq().get();
                }
            }
        };
        let _ = tokio::time::timeout(life, watching).await;
        counts.watches.fetch_add(1, Ordering::Relaxed);
    }
}
