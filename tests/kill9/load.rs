//! Publishers, uploads and a live watch, until the daemon dies under them.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;
use prost::Message;
use tailmark::client::{Client, Item, TrimBefore};
use tailmark::record::Seq;
use tailmark::wire::feed_v1 as pb;

use crate::crash::workload::body_of;
use crate::history::{History, next, number_of, watch_options};

const PUBLISHERS: usize = 3;
/// Events of one short upload.
const SHORT: u64 = 25;

#[derive(Default)]
struct Told {
    acks: Vec<(u64, String)>,
    seen: Vec<(u64, String)>,
    /// The highest trim mark that was asked for, and the highest that was confirmed.
    trims: (u64, u64),
}

/// Runs everything until `kill` is through, then collects what was told.
pub async fn run(address: &str, cycle: u64, history: &mut History, kill: impl Future<Output = ()>) {
    let told = Arc::new(Mutex::new(Told::default()));
    let over = Arc::new(AtomicBool::new(false));
    let mut tasks = Vec::new();
    for worker in 0..PUBLISHERS {
        let (client, told, over) = (client(address), told.clone(), over.clone());
        tasks.push(tokio::spawn(publish(client, format!("p{cycle}.{worker}"), told, over)));
    }
    // Never beyond what is verified, so that nothing is gone before it was looked at.
    let (trimmer, told_trims, over_trims) = (client(address), told.clone(), over.clone());
    tasks.push(tokio::spawn(trim(trimmer, history.next(), told_trims, over_trims)));
    let (short, told_short, over_short) = (client(address), told.clone(), over.clone());
    tasks.push(tokio::spawn(upload_short(short, cycle, told_short, over_short)));
    // Two thirds of the cycles: it fills slot after slot, so that most kills find a seal under way.
    if !cycle.is_multiple_of(3) {
        let (long, over_long) = (client(address), over.clone());
        tasks.push(tokio::spawn(async move {
            let prefix = format!("ul{cycle}");
            let _ = long.upload(Endless { prefix, n: 0, end: u64::MAX, over: over_long }).await;
        }));
    }
    let (watcher, told_watch) = (client(address), told.clone());
    let (cursor, first) = (history.cursor(), history.next());
    tasks.push(tokio::spawn(watch(watcher, cursor, first, told_watch)));
    kill.await;
    over.store(true, Ordering::SeqCst);
    for task in tasks {
        task.await.expect("a client");
    }
    let mut told = told.lock().expect("told");
    told.acks.drain(..).for_each(|(seq, id)| history.ack(seq, id));
    told.seen.drain(..).for_each(|(seq, id)| history.see(seq, id));
    history.trim(told.trims);
}

fn client(address: &str) -> Client {
    Client::new(address).expect("a client")
}

fn event(id: String) -> pb::Event {
    let body = body_of(number_of(&id), 9);
    pb::Event { topic: "load.kill".into(), id, body, ..pb::Event::default() }
}

async fn publish(client: Client, name: String, told: Arc<Mutex<Told>>, over: Arc<AtomicBool>) {
    let mut n = 0;
    while !over.load(Ordering::SeqCst) {
        let id = format!("{name}-{n}");
        n += 1;
        match client.publish(event(id.clone()), None).await {
            Ok(result) => {
                assert!(!result.duplicate && result.id == id, "{result:?}");
                told.lock().expect("told").acks.push((result.seq, id));
            }
            Err(_) => return,
        }
    }
}

/// Moves the trim mark up, a little at a time.
async fn trim(client: Client, limit: u64, told: Arc<Mutex<Told>>, over: Arc<AtomicBool>) {
    let mut before = limit.saturating_sub(6_000);
    while !over.load(Ordering::SeqCst) && before + 500 < limit {
        before = (before + 500).max(1);
        told.lock().expect("told").trims.0 = before;
        match client.trim(TrimBefore::Seq(Seq::new(before))).await {
            Ok(result) => told.lock().expect("told").trims.1 = result.oldest_seq,
            Err(_) => return,
        }
    }
}

/// Uploads of a few events each; where nobody came between, the ack names every seq.
async fn upload_short(client: Client, cycle: u64, told: Arc<Mutex<Told>>, over: Arc<AtomicBool>) {
    let mut round = 0;
    while !over.load(Ordering::SeqCst) {
        let prefix = format!("us{cycle}.{round}");
        round += 1;
        let never = Arc::new(AtomicBool::new(false));
        let stream = Endless { prefix: prefix.clone(), n: 0, end: SHORT, over: never };
        let Ok(result) = client.upload(stream).await else { return };
        assert_eq!((result.received as u64, result.stored, result.duplicates), (SHORT, SHORT, 0));
        let mut told = told.lock().expect("told");
        told.acks.push((result.first_seq, format!("{prefix}-0")));
        told.acks.push((result.last_seq, format!("{prefix}-{}", SHORT - 1)));
    }
}

/// Follows the log until the daemon is gone: contiguous, and nothing that can be undone.
async fn watch(client: Client, cursor: Option<String>, first: u64, told: Arc<Mutex<Told>>) {
    let mut watch = client.watch(watch_options(cursor, false));
    let mut expected = first;
    while let Some(Ok(item)) = next(&mut watch).await {
        match item {
            Item::Event(received) => {
                assert_eq!(received.seq().get(), expected, "the live watch is not contiguous");
                let id = received.event().expect("an event").id.to_owned();
                told.lock().expect("told").seen.push((expected, id));
                expected += 1;
            }
            Item::Interrupted { .. } => return,
            _ => {}
        }
    }
}

/// Events `PREFIX-0`, `PREFIX-1`, ... for as long as they are taken.
struct Endless {
    prefix: String,
    n: u64,
    end: u64,
    over: Arc<AtomicBool>,
}

impl Stream for Endless {
    type Item = Bytes;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if self.n == self.end || self.over.load(Ordering::SeqCst) {
            return Poll::Ready(None);
        }
        let id = format!("{}-{}", self.prefix, self.n);
        self.n += 1;
        Poll::Ready(Some(event(id).encode_to_vec().into()))
    }
}
