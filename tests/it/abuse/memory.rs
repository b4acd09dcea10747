//! What the daemon holds in memory under an attack, against the budgets that it is given and against what
//! it says of itself.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tailmark_wire::feed_v1 as pb;
use tailmark_wire::feed_v1::feed_service_client::FeedServiceClient;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};

use crate::support::daemon::Daemon;
use crate::support::frames::{self, Frames};
use crate::support::server::{event, from_oldest, within};

const MIB: u64 = 1 << 20;

/// Bytes of memory that a process has for itself.
pub(super) fn anonymous_bytes(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:"));
    let line = line.unwrap_or_else(|| panic!("the process is gone: {status}"));
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

/// Looks all the time how much memory a process has, and keeps the most.
pub(crate) struct Peak {
    most: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
    looks: Option<std::thread::JoinHandle<()>>,
}

impl Peak {
    pub(crate) fn of(id: u32) -> Peak {
        let (most, is_over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let looks = std::thread::spawn({
            let (most, is_over) = (Arc::clone(&most), Arc::clone(&is_over));
            move || {
                while !is_over.load(Ordering::Relaxed) {
                    most.fetch_max(anonymous_bytes(id), Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
        });
        Peak { most, is_over, looks: Some(looks) }
    }

    pub(crate) fn bytes(mut self) -> u64 {
        self.is_over.store(true, Ordering::Relaxed);
        self.looks.take().unwrap().join().unwrap();
        self.most.load(Ordering::Relaxed)
    }
}

/// Waits until a process takes no more memory than it did; how much that is.
async fn settled(id: u32) -> u64 {
    let mut least = u64::MAX;
    loop {
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        let now = anonymous_bytes(id);
        if now + MIB >= least && now <= least + MIB {
            return now;
        }
        least = now;
    }
}

/// Waits until something holds.
async fn until(condition: impl AsyncFn() -> bool) {
    within("what comes back", async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

/// A daemon with small budgets. The allocator gives back what is large at once, so that what is held is
/// what is seen.
pub(super) fn start(dir: &std::path::Path, settings: &str) -> Daemon {
    let shell = format!(
        "{settings} TAILMARK_TELEMETRY_LOG_LEVEL=error \
         GLIBC_TUNABLES=glibc.malloc.mmap_threshold=65536:glibc.malloc.arena_max=2:\
         glibc.malloc.trim_threshold=131072 \
         exec \"$0\" \"$@\""
    );
    Daemon::start_with(dir, &shell)
}

pub(super) async fn channel(daemon: &Daemon) -> Channel {
    let endpoint = Endpoint::from_shared(daemon.url().to_owned()).unwrap();
    within("connect", endpoint.connect()).await.unwrap()
}

/// A publisher beside an attack: each of its publishes has an answer in time.
pub(super) async fn publishes(daemon: &Daemon, count: usize) {
    let mut client = FeedServiceClient::new(channel(daemon).await);
    for _ in 0..count {
        let request = pb::PublishRequest {
            event: Some(event("victim", "x")),
            ..pb::PublishRequest::default()
        };
        let published = timeout(Duration::from_secs(20), client.publish(request)).await;
        published.expect("an answer to a publish").unwrap();
    }
}

/// What the daemon says that it holds, by what for.
pub(crate) async fn told(daemon: &Daemon) -> HashMap<String, u64> {
    let page = page(daemon).await;
    let samples =
        page.lines().filter_map(|line| line.strip_prefix("tailmark_memory_bytes{kind=\""));
    let samples = samples.map(|sample| {
        let (kind, value) = sample.split_once("\"} ").unwrap();
        (kind.to_owned(), value.parse::<f64>().unwrap() as u64)
    });
    let told: HashMap<_, _> = samples.collect();
    assert!(told.len() >= 7, "{page}");
    told
}

/// Its page of metrics.
async fn page(daemon: &Daemon) -> String {
    let mut stream = TcpStream::connect(daemon.address()).await.unwrap();
    let port = daemon.address().port();
    let request =
        format!("GET /metrics HTTP/1.1\r\nhost: localhost:{port}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut page = String::new();
    within("metrics", stream.read_to_string(&mut page)).await.unwrap();
    page
}

/// Whether what is held is what is told of, with what it takes to hold it: twice as much, and so much more.
fn adds_up(held: u64, told: &HashMap<String, u64>, more: u64) {
    let sum: u64 = told.values().sum();
    println!("{} MiB are held, {} MiB are told of: {told:?}", held / MIB, sum / MIB);
    assert!(held <= 2 * sum + more, "{} MiB are held, {} MiB are told of", held / MIB, sum / MIB);
}

/// Uploads that never pause, all of them together for so long.
async fn busy_uploads(daemon: &Daemon, uploads: usize, time: Duration) -> HashMap<String, u64> {
    let body = "x".repeat(100_000);
    let mut channels = Vec::new();
    for _ in 0..uploads.div_ceil(20) {
        channels.push(channel(daemon).await);
    }
    let uploads = (0..uploads).map(|at| {
        let mut client = FeedServiceClient::new(channels[at / 20].clone());
        let event = event(&format!("busy.{at}"), &body);
        let events = tokio_stream::iter(std::iter::repeat(event));
        tokio::spawn(async move { drop(client.upload_events(events).await) })
    });
    let uploads: Vec<_> = uploads.collect();
    let mut most = HashMap::new();
    let until = Instant::now() + time;
    while Instant::now() < until {
        for (kind, bytes) in told(daemon).await {
            let known: &mut u64 = most.entry(kind).or_default();
            *known = bytes.max(*known);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    publishes(daemon, 3).await;
    for upload in uploads {
        upload.abort();
    }
    most
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn busy_uploads_hold_what_is_in_flight_and_no_more() {
    const UPLOADS: usize = 120;
    let dir = tempfile::tempdir().unwrap();
    let daemon = start(
        dir.path(),
        "TAILMARK_LOG_IN_FLIGHT_BYTES=8MiB TAILMARK_STORAGE_SLOT_BYTES=32MiB \
         TAILMARK_RETENTION_MAX_BYTES=64MiB TAILMARK_LOG_RECENT_BYTES=4MiB",
    );
    publishes(&daemon, 1).await;
    let before = anonymous_bytes(daemon.id());
    let peak = Peak::of(daemon.id());
    let told = busy_uploads(&daemon, UPLOADS, Duration::from_secs(4)).await;
    let held = peak.bytes() - before;
    println!("busy uploads: {} MiB beyond {} MiB", held / MIB, before / MIB);
    // In flight and once more what is not whole; a message and a window a stream.
    let windows = UPLOADS as u64 * (512 << 10) * 2;
    assert!(held <= 2 * 8 * MIB + windows + 64 * MIB, "{} MiB", held / MIB);
    // The control: they did fill it.
    assert!((4 * MIB..=8 * MIB).contains(&told["in_flight"]), "{told:?}");
    adds_up(held, &told, windows + 32 * MIB);
    assert_eq!(daemon.stop(), Some(0));
}

/// A small budget for what waits to be sent.
const SMALL: &str = "TAILMARK_LIMITS_UNSENT_BYTES=16MiB TAILMARK_LIMITS_PARKED_BYTES=4MiB \
                     TAILMARK_STORAGE_SLOT_BYTES=16MiB TAILMARK_LOG_RECENT_BYTES=1MiB";

/// SETTINGS with INITIAL_WINDOW_SIZE, and WINDOW_UPDATE of the connection: as much as there can be.
fn wide() -> Vec<u8> {
    let most = i32::MAX.to_be_bytes();
    let more = (i32::MAX - 65_535).to_be_bytes();
    [frames::frame(4, 0, 0, &[&[0, 4], &most[..]].concat()), frames::frame(8, 0, 0, &more)].concat()
}

/// Watches from the oldest event on, with windows that are open and sockets that nobody reads. Those of every
/// topic share what they send; with a topic each has its own.
pub(crate) async fn unread_watches(
    daemon: &Daemon,
    connections: u32,
    each: u32,
    topic: &str,
) -> Vec<Frames> {
    let mut unread = Vec::new();
    for _ in 0..connections {
        let mut connection = Frames::connect(daemon.address()).await;
        connection.write(&wide()).await;
        for at in 0..each {
            let stream = 1 + 2 * at;
            connection.write(&frames::begin(stream, "Watch", false)).await;
            let (topic, start) = (topic.to_owned(), from_oldest());
            let request = pb::WatchRequest { topic, start, ..Default::default() };
            let message = frames::framed(&request);
            connection.write(&frames::frame(frames::DATA, 1, stream, &message)).await;
        }
        unread.push(connection);
    }
    unread
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_that_nobody_reads_hold_what_may_wait_to_be_sent() {
    // The control: they did take what there is.
    unread_watches_hold_what_may_wait(SMALL, 8 * MIB).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_of_what_all_share_that_nobody_reads_hold_no_more() {
    let settings = SMALL.replace("RECENT_BYTES=1MiB", "RECENT_BYTES=32MiB");
    unread_watches_hold_what_may_wait(&settings, MIB).await;
}

async fn unread_watches_hold_what_may_wait(settings: &str, least: u64) {
    const CONNECTIONS: u32 = 4;
    const EACH: u32 = 400;
    let dir = tempfile::tempdir().unwrap();
    let daemon = start(dir.path(), settings);
    let body = "x".repeat(1_000);
    let mut client = FeedServiceClient::new(channel(&daemon).await);
    // A commit of its own, which is sent together with what follows: a small piece and a large one of what
    // watches share.
    publishes(&daemon, 1).await;
    let events = (0..8_000).map(move |_| event("a", &body));
    client.upload_events(tokio_stream::iter(events)).await.unwrap();
    let before = anonymous_bytes(daemon.id());
    let peak = Peak::of(daemon.id());
    let unread = unread_watches(&daemon, CONNECTIONS, EACH, "").await;
    publishes(&daemon, 3).await;
    let settled = within("the end of all reads", settled(daemon.id())).await - before;
    let (held, told) = (peak.bytes() - before, told(&daemon).await);
    println!("unread watches: {} MiB beyond {} MiB", held / MIB, before / MIB);
    let always = u64::from(CONNECTIONS * EACH) * (8 << 10);
    assert!((least..=16 * MIB + always).contains(&told["unsent"]), "{told:?}");
    let each = u64::from(CONNECTIONS * EACH) * (24 << 10);
    adds_up(settled, &told, each + 16 * MIB);
    // While they begin: what reader threads have read, and what is on its way through.
    assert!(held <= 2 * (16 + 4 + 32) * MIB + each + 64 * MIB, "{} MiB", held / MIB);
    drop(unread);
    until(async || self::told(&daemon).await["unsent"] < 4 * MIB).await;
    publishes(&daemon, 3).await;
    assert_eq!(daemon.stop(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_nobody_takes_hold_what_may_wait_to_be_sent() {
    const CONNECTIONS: u32 = 4;
    const EACH: u32 = 60;
    let dir = tempfile::tempdir().unwrap();
    let daemon = start(dir.path(), SMALL);
    let mut client = FeedServiceClient::new(channel(&daemon).await);
    let request = pb::PublishRequest {
        event: Some(event("large", &"x".repeat(1_000_000))),
        ..pb::PublishRequest::default()
    };
    client.publish(request).await.unwrap();
    publishes(&daemon, 1).await;
    let before = anonymous_bytes(daemon.id());
    let peak = Peak::of(daemon.id());
    let question = pb::GetEventRequest { by: Some(pb::get_event_request::By::Seq(1)) };
    let message = frames::framed(&question);
    let mut unread = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut connection = Frames::connect(daemon.address()).await;
        for at in 0..EACH {
            let stream = 1 + 2 * at;
            connection.write(&frames::begin(stream, "GetEvent", false)).await;
            connection.write(&frames::frame(frames::DATA, 1, stream, &message)).await;
        }
        unread.push(connection);
    }
    until(async || told(&daemon).await["unsent"] >= 8 * MIB).await;
    // Who takes his answers has them.
    for _ in 0..3 {
        let answer = timeout(Duration::from_secs(20), client.get_event(question.clone())).await;
        assert_eq!(answer.expect("an answer").unwrap().into_inner().body.len(), 1_000_000);
    }
    let held = within("the end of all reads", settled(daemon.id())).await - before;
    let told = told(&daemon).await;
    adds_up(held, &told, 16 * MIB);
    let held = peak.bytes() - before;
    println!("unread answers: {} MiB", held / MIB);
    assert!(held <= 2 * 2 * 16 * MIB + 16 * MIB, "{} MiB", held / MIB);
    drop(unread);
    assert_eq!(daemon.stop(), Some(0));
}
