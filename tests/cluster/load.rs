//! Clients: what they send, what they are told, and what they see, wherever they are.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prost::Message as _;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tailmark_client::{Client, Error, Expect, Item, Kind, OnLost, ProducerOptions, WatchOptions};
use tailmark_record::{MarkerKind, Seq};
use tailmark_wire::feed_v1 as pb;

use crate::checker::{Note, Outcome, Request, Sent};

/// Who asks longer for one thing than this is not answered.
const CALL: Duration = Duration::from_secs(60);

/// Between two things that a sender does, at most: what a long run keeps in memory is bounded by it.
const PACE: Duration = Duration::from_millis(30);

/// What clients were told.
#[derive(Default)]
pub struct Told {
    pub requests: Mutex<Vec<Request>>,
    /// The highest seq that was acked for a publish, and its cursor.
    pub newest: Mutex<(u64, String)>,
    /// The highest head that was told.
    pub head: AtomicU64,
    /// Answers to who asked where the log ends.
    pub verdicts: AtomicU64,
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
        let body = format!("{label}|{}", "x".repeat(rng.random_range(0..600)));
        let topic = format!("t.{}", rng.random_range(0..5));
        let event = pb::Event { id, topic, body, ..pb::Event::default() };
        let begun = Instant::now();
        let mut may_be_stored = false;
        let outcome = loop {
            match clients[at].publish(event.clone(), None).await {
                Ok(stored) => {
                    told.acks.lock().push(Instant::now());
                    let mut newest = told.newest.lock();
                    if newest.0 < stored.seq {
                        *newest = (stored.seq, stored.cursor.clone());
                    }
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
        tokio::time::sleep(PACE.mul_f64(rng.random())).await;
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
        let requests = sent.into_iter().map(|sent| {
            let outcome = match flushed {
                Ok(()) => Outcome::Prefix(1),
                Err(_) => Outcome::Unknown,
            };
            Request { sent: vec![sent], outcome }
        });
        told.requests.lock().extend(requests);
        told.acks.lock().push(Instant::now());
        tokio::time::sleep(2 * PACE).await;
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

/// An error that is no verdict: try again, or elsewhere, or it is not known.
fn is_no_verdict(error: &Error) -> bool {
    error.is_retryable() || error.may_have_applied()
}

/// A place at which something ends is behind all that was acked before somebody asked.
pub fn judge(what: &str, told: u64, acked: u64) -> Result<bool, String> {
    let is_true = told >= acked;
    is_true.then_some(true).ok_or_else(|| format!("{what}: {told}, and {acked} was acked before"))
}

/// Asks what depends on where the log ends, at any daemon, and holds each answer against what was acked before it
/// asked.
pub async fn ask(name: String, addresses: Vec<String>, told: Arc<Told>) {
    let mut rng = StdRng::seed_from_u64(name.bytes().map(u64::from).sum());
    let clients: Vec<_> = addresses.iter().map(|it| Client::new(it).unwrap()).collect();
    let mut earlier = (0, "0".to_owned());
    for nth in 0.. {
        if told.is_over.load(Ordering::Relaxed) {
            return;
        }
        tokio::time::sleep(PACE).await;
        let newest = told.newest.lock().clone();
        // A head of one is what is expected below, and is never true.
        if newest.0 < 2 {
            continue;
        }
        let (at, limit) = (rng.random_range(0..clients.len()), Duration::from_secs(20));
        let asked =
            tokio::time::timeout(limit, verdict(&clients[at], nth, &earlier, &newest, &told));
        match asked.await {
            Ok(Ok(true)) => drop(told.verdicts.fetch_add(1, Ordering::Relaxed)),
            Ok(Ok(false)) | Err(_) => {}
            Ok(Err(what)) => {
                told.wrong.lock().push(format!("{name} at {}: {what}", addresses[at]));
            }
        }
        earlier = newest;
    }
}

/// Whether there was an answer; what is wrong with it.
async fn verdict(
    client: &Client,
    nth: u64,
    earlier: &(u64, String),
    newest: &(u64, String),
    told: &Told,
) -> Result<bool, String> {
    match nth % 3 {
        // An event that was acked is there, for whoever has its cursor.
        0 => match client.event_at(&newest.1).await {
            Ok(event) if event.seq == newest.0 => Ok(true),
            Err(error) if is_no_verdict(&error) => Ok(false),
            other => Err(format!("the event of {newest:?} is {other:?}")),
        },
        // Who is told that this is all has seen what was acked before.
        1 => {
            let mut options = WatchOptions::default();
            options.after_cursor = Some(earlier.1.clone());
            options.until_caught_up = true;
            match read_all(client, options).await {
                Ok(events) => {
                    let last = events.last().map_or(earlier.0, |it| it.seq);
                    judge("caught up", last, newest.0)
                }
                Err(error) if is_no_verdict(&error) => Ok(false),
                Err(error) => Err(format!("after {earlier:?}: {error:?}")),
            }
        }
        // A head that is told was one, after the question.
        _ => {
            let expect = Expect { topic: String::new(), seq: Seq::new(1) };
            let event = pb::Event { topic: "never".to_owned(), ..pb::Event::default() };
            match client.publish(event, Some(expect)).await {
                Err(error) if error.kind() == Kind::Conflict => {
                    let actual = error.metadata("actual").and_then(|it| it.parse().ok());
                    let actual: u64 = actual.ok_or_else(|| format!("{error:?}"))?;
                    told.head.fetch_max(actual, Ordering::Relaxed);
                    judge("the head", actual, newest.0)
                }
                Err(error) if is_no_verdict(&error) => Ok(false),
                other => Err(format!("a head of 1 is expected: {other:?}")),
            }
        }
    }
}
