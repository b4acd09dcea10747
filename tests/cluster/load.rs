//! Clients: what they send, what they are told, and what they see, wherever they are.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prost::Message as _;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tailmark_client::{Client, Error, Item, OnLost, ProducerOptions, WatchOptions};
use tailmark_record::MarkerKind;
use tailmark_wire::feed_v1 as pb;

use crate::checker::{Note, Outcome, Request, Sent};

/// Who asks longer for one thing than this is not answered.
const CALL: Duration = Duration::from_secs(60);

/// What clients were told.
#[derive(Default)]
pub struct Told {
    pub requests: Mutex<Vec<Request>>,
    /// When each ack came.
    pub acks: Mutex<Vec<Instant>>,
    pub wrong: Mutex<Vec<String>>,
    pub is_over: AtomicBool,
    pub unknown: AtomicU64,
    pub refused: AtomicU64,
    pub moves: AtomicU64,
}

async fn next(watch: &mut tailmark_client::Watch) -> Option<Result<Item, Error>> {
    use futures_core::Stream as _;
    std::future::poll_fn(|cx| std::pin::Pin::new(&mut *watch).poll_next(cx)).await
}

/// Everything that a watch with an end has.
pub async fn read_all(client: &Client, options: WatchOptions) -> Result<Vec<pb::Event>, Error> {
    let (mut watch, mut events) = (client.watch(options), Vec::new());
    while let Some(item) = next(&mut watch).await {
        if let Item::Event(received) = item? {
            events.push(pb::Event::decode(&**received.bytes()).unwrap());
        }
    }
    Ok(events)
}

/// Publishes one event after the other, at any daemon, until all is over. What may be stored is asked for again where
/// that is safe.
pub async fn publish(name: String, addresses: Vec<String>, told: Arc<Told>) {
    let mut rng = StdRng::seed_from_u64(name.bytes().map(u64::from).sum());
    let clients: Vec<_> = addresses.iter().map(|it| Client::new(it).unwrap()).collect();
    let mut at = rng.random_range(0..clients.len());
    for nth in 0.. {
        if told.is_over.load(Ordering::Relaxed) {
            return;
        }
        let label = format!("{name}-{nth}");
        let is_named = rng.random_bool(0.7);
        let id = if is_named { label.clone() } else { String::new() };
        let body = format!("{label}|{}", "x".repeat(rng.random_range(0..2_000)));
        let topic = format!("t.{}", rng.random_range(0..5));
        let event = pb::Event { id, topic, body, ..pb::Event::default() };
        let begun = Instant::now();
        let mut may_be_stored = false;
        let outcome = loop {
            match clients[at].publish(event.clone(), None).await {
                Ok(stored) => {
                    told.acks.lock().push(Instant::now());
                    break Outcome::Published { seq: stored.seq, duplicate: stored.duplicate };
                }
                Err(error) => {
                    may_be_stored |= error.may_have_applied();
                    let is_safe = is_named || !may_be_stored;
                    if !error.is_retryable() && !error.may_have_applied() {
                        told.wrong.lock().push(format!("{label}: {error:?}"));
                        break Outcome::Refused;
                    }
                    at = rng.random_range(0..clients.len());
                    told.moves.fetch_add(1, Ordering::Relaxed);
                    if !is_safe || begun.elapsed() > CALL || told.is_over.load(Ordering::Relaxed) {
                        let is_refused = !may_be_stored;
                        let count = if is_refused { &told.refused } else { &told.unknown };
                        count.fetch_add(1, Ordering::Relaxed);
                        break if is_refused { Outcome::Refused } else { Outcome::Unknown };
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        };
        told.requests.lock().push(Request { sent: vec![Sent { label, event }], outcome });
        if rng.random_ratio(1, 50) {
            at = rng.random_range(0..clients.len());
        }
    }
}

/// Sends as a producer at one daemon, whatever becomes of it; all of it is stored once, in order.
pub async fn produce(name: String, address: String, told: Arc<Told>) {
    let client = Client::new(&address).unwrap();
    let producer = loop {
        match client.producer(&name, ProducerOptions::default()).await {
            Ok(producer) => break producer,
            Err(error) => println!("{name}: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let mut nth = 0;
    while !told.is_over.load(Ordering::Relaxed) {
        let mut sent = Vec::new();
        for _ in 0..20 {
            let label = format!("{name}-{nth}");
            nth += 1;
            let (topic, body) = ("p".to_owned(), format!("{label}|"));
            let event = pb::Event { topic, body, ..pb::Event::default() };
            match producer.send(&event).await {
                Ok(_) => sent.push(Sent { label, event }),
                Err(error) => return told.wrong.lock().push(format!("{name}: {error:?}")),
            }
        }
        let flushed = producer.flush().await;
        if let Err(error) = &flushed {
            told.wrong.lock().push(format!("{name}: {error:?}"));
        }
        let mut requests = told.requests.lock();
        for sent in sent {
            let outcome = match flushed {
                Ok(()) => Outcome::Prefix(1),
                Err(_) => Outcome::Unknown,
            };
            requests.push(Request { sent: vec![sent], outcome });
        }
        told.acks.lock().push(Instant::now());
    }
    if let Err(error) = producer.close().await {
        told.wrong.lock().push(format!("{name}: {error:?}"));
    }
}

/// Watches everything, moving from daemon to daemon, until it has seen the last event.
pub async fn watch(name: String, addresses: Vec<String>, told: Arc<Told>) -> Vec<Note> {
    let mut rng = StdRng::seed_from_u64(name.bytes().map(u64::from).sum());
    let mut notes = vec![Note::Opened(1)];
    let mut cursor = "0".to_owned();
    loop {
        let at = rng.random_range(0..addresses.len());
        let client = Client::new(&addresses[at]).unwrap();
        let mut options = WatchOptions::default();
        options.after_cursor = Some(cursor.clone());
        options.on_lost = OnLost::Fail;
        options.markers = true;
        let mut watch = client.watch(options);
        let until =
            tokio::time::Instant::now() + Duration::from_millis(rng.random_range(500..6_000));
        loop {
            let item = match tokio::time::timeout_at(until, next(&mut watch)).await {
                Err(_) => break,
                Ok(None) => break,
                Ok(Some(item)) => item,
            };
            match item {
                Ok(Item::Event(received)) => {
                    let event = pb::Event::decode(&**received.bytes()).unwrap();
                    cursor.clone_from(&event.cursor);
                    let is_last = event.topic == "end";
                    notes.push(Note::Event(Box::new(event)));
                    if is_last {
                        return notes;
                    }
                }
                Ok(Item::Marker(marker)) if marker.kind == MarkerKind::Gap => {
                    told.wrong.lock().push(format!("{name} at {}: {marker:?}", addresses[at]));
                }
                Ok(_) => {}
                Err(error) => {
                    told.wrong.lock().push(format!("{name} at {}: {error:?}", addresses[at]));
                    break;
                }
            }
        }
        told.moves.fetch_add(1, Ordering::Relaxed);
    }
}
