//! Publishers, uploads and a live watch, until the daemon dies under them.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use prost::Message;
use tailmark_client::{Client, Item, Moment};
use tailmark_record::{Seq, Timestamp};
use tailmark_wire::feed_v1 as pb;

use crate::crash::workload::body_of;
use crate::history::{self, History, Known, Told, known_of, next, number_of, watch_options};
use crate::rules::place_of;

const PUBLISHERS: usize = 3;
/// Events of one short upload.
const SHORT: u64 = 25;

/// Where the load goes.
pub struct Place {
    pub address: String,
    pub data: PathBuf,
    pub cycle: u64,
    /// Whether a client trims.
    pub trims: bool,
}

/// Runs everything until `kill` is through, then collects what was told.
pub async fn run(place: Place, history: &mut History, kill: impl Future<Output = ()>) {
    let Place { address, data, cycle, trims } = place;
    let address = address.as_str();
    let told = Arc::new(Mutex::new(Told::default()));
    let over = Arc::new(AtomicBool::new(false));
    let mut tasks = Vec::new();
    for worker in 0..PUBLISHERS {
        let (client, told, over) = (client(address), told.clone(), over.clone());
        tasks.push(tokio::spawn(publish(client, format!("p{cycle}.{worker}"), told, over)));
    }
    // Never beyond what is verified, so that nothing is gone before it was looked at.
    if trims {
        let (trimmer, told_trims, over_trims) = (client(address), told.clone(), over.clone());
        tasks.push(tokio::spawn(trim(trimmer, history.next(), told_trims, over_trims)));
    }
    tasks.push(tokio::spawn(look(client(address), data, told.clone(), over.clone())));
    let (short, told_short, over_short) = (client(address), told.clone(), over.clone());
    tasks.push(tokio::spawn(upload_short(short, cycle, told_short, over_short)));
    // In most cycles: it fills slot after slot, so that most kills find a seal under way.
    if !trims || !cycle.is_multiple_of(3) {
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
    history.add(std::mem::take(&mut *told.lock().expect("told")));
}

fn client(address: &str) -> Client {
    Client::new(address).expect("a client")
}

fn event(id: String) -> pb::Event {
    let body = body_of(number_of(&id), 9);
    let (topic, key) = place_of(&id);
    pb::Event { topic: topic.into(), key, id, body, ..pb::Event::default() }
}

async fn publish(client: Client, name: String, told: Arc<Mutex<Told>>, over: Arc<AtomicBool>) {
    let mut n = 0;
    while !over.load(Ordering::SeqCst) {
        let id = format!("{name}-{n}");
        n += 1;
        match client.publish(event(id.clone()), None).await {
            Ok(result) => {
                assert!(!result.duplicate && result.id == id, "{result:?}");
                let at = result.appended_at.expect("the time of the append");
                let appended_at = Some(Timestamp { seconds: at.seconds, nanos: at.nanos });
                told.lock().expect("told").acks.push((result.seq, Known { id, appended_at }));
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
        match client.trim(Moment::Seq(Seq::new(before))).await {
            Ok(result) => told.lock().expect("told").trims.1 = result.oldest_seq,
            Err(_) => return,
        }
    }
}

/// Looks how far the log is trimmed, over and over.
async fn look(client: Client, data: PathBuf, told: Arc<Mutex<Told>>, over: Arc<AtomicBool>) {
    let mut beat = tokio::time::interval(Duration::from_millis(2));
    while !over.load(Ordering::SeqCst) {
        beat.tick().await;
        let Some(sample) = history::sample(&client, &data).await else { return };
        let samples = &mut told.lock().expect("told").samples;
        if samples.last().is_none_or(|last| last.oldest < sample.oldest) {
            samples.push(sample);
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
        for (seq, n) in [(result.first_seq, 0), (result.last_seq, SHORT - 1)] {
            let known = Known { id: format!("{prefix}-{n}"), appended_at: None };
            told.lock().expect("told").acks.push((seq, known));
        }
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
                let known = known_of(&received.event().expect("an event"));
                told.lock().expect("told").seen.push((expected, known));
                expected += 1;
            }
            Item::Marker(marker) => {
                let Some(gap) = marker.gap else { continue };
                assert_eq!(gap.from.get(), expected, "the live watch is not contiguous");
                expected = gap.to.get() + 1;
                told.lock().expect("told").gaps.push(gap);
            }
            _ => return,
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
