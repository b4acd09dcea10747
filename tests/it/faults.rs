//! Faults under the whole daemon: what publishers, watchers, readers and health see, and what is there
//! when they are over. Here a disk that stalls.

mod accept;
mod full_disk;
mod memory;
mod read_only;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tailmark_client::{Client, Item, Kind, MarkerKind, Options, Seq, Start, WatchOptions};
use tailmark_wire::feed_v1 as pb;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_stream::StreamExt as _;
use tonic::transport::Endpoint;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::support::daemon::Daemon;
use crate::support::server::within;

/// Longer than a commit may take before the daemon says that the disk does not answer.
const STALL: Duration = Duration::from_secs(30);
/// Of a call.
const DEADLINE: Duration = Duration::from_secs(3);

fn event(number: u64) -> pb::Event {
    let (id, body) = (format!("id-{number}"), format!("body {number}"));
    pb::Event { topic: "a".into(), id, body, ..pb::Event::default() }
}

fn options() -> WatchOptions {
    let mut options = WatchOptions::default();
    options.start = Start::Oldest;
    options.markers = true;
    options.heartbeat = Duration::from_millis(200);
    options
}

async fn get(daemon: &Daemon, path: &str) -> String {
    let address = daemon.address();
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    let mut stream = within("connect", TcpStream::connect(address)).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    within(path, stream.read_to_string(&mut answer)).await.unwrap();
    answer
}

/// The ids of all events of the topic, by their seqs.
async fn stored(client: &Client) -> BTreeMap<u64, String> {
    let mut options = options();
    (options.until_caught_up, options.markers) = (true, false);
    options.patterns = vec!["a".into()];
    let mut replay = client.watch(options);
    let mut stored = BTreeMap::new();
    while let Some(item) = within("a replay", replay.next()).await {
        if let Item::Event(received) = item.unwrap() {
            let event = received.event().unwrap();
            assert!(stored.insert(event.seq.get(), event.id.to_owned()).is_none());
        }
    }
    stored
}

/// A watch of readiness, as who balances load has it.
async fn readiness(url: &str) -> tonic::Streaming<HealthCheckResponse> {
    let channel = Endpoint::from_shared(url.to_owned()).unwrap().connect().await.unwrap();
    let request = HealthCheckRequest { service: "readiness".into() };
    HealthClient::new(channel).watch(request).await.unwrap().into_inner()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_stalls_costs_deadlines_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    // The thread that writes comes to its thirtieth sync; no other does.
    let stall = format!("inject=fdatasync:delay_enter={}:when=30", STALL.as_micros());
    let strace = format!("exec strace -D -f -qq -o /dev/null -e trace=fdatasync -e {stall}");
    let daemon = Daemon::start_with(dir.path(), &format!("{strace} \"$0\" \"$@\""));
    let mut quick = Options::default();
    quick.request_timeout = DEADLINE;
    let client = Client::with_options(daemon.url(), quick).unwrap();

    let mut told = readiness(daemon.url()).await;
    let heartbeats = Arc::new(AtomicUsize::new(0));
    let (watching, beats) = (Client::new(daemon.url()).unwrap(), heartbeats.clone());
    let watching = tokio::spawn(async move {
        let mut watch = watching.watch(options());
        let mut seen = Vec::new();
        while let Some(item) = within("a watch", watch.next()).await {
            match item.unwrap() {
                Item::Event(received) => {
                    let event = received.event().unwrap();
                    seen.push((event.seq.get(), event.id.to_owned()));
                    if event.topic == "end" {
                        break;
                    }
                }
                Item::Marker(marker) if marker.kind == MarkerKind::Heartbeat => {
                    beats.fetch_add(1, Ordering::SeqCst);
                }
                Item::Marker(_) => {}
                other => panic!("the watch was interrupted: {other:?}"),
            }
        }
        seen
    });

    // Until the disk stalls.
    let mut acked = BTreeMap::new();
    let mut number = 0;
    let error = loop {
        number += 1;
        match client.publish(event(number), None).await {
            Ok(result) => acked.insert(number, result.seq),
            Err(error) => break error,
        };
    };
    let stalled = Instant::now();
    assert_eq!((error.kind(), error.may_have_applied()), (Kind::Timeout, true), "{error:?}");
    assert!(acked.len() > 5, "{acked:?}");

    // Nobody waits longer than he said, and the daemon answers all that needs no disk.
    let before = heartbeats.load(Ordering::SeqCst);
    let unknown = number..number + 20;
    let more = unknown.clone().skip(1).map(|number| {
        let client = client.clone();
        tokio::spawn(async move { client.publish(event(number), None).await })
    });
    for publish in more.collect::<Vec<_>>() {
        let error = publish.await.unwrap().unwrap_err();
        assert_eq!((error.kind(), error.may_have_applied()), (Kind::Timeout, true), "{error:?}");
    }
    let health = get(&daemon, "/healthz").await;
    assert!(health.starts_with("HTTP/1.1 200"), "{health}");
    assert_eq!(client.event(Seq::FIRST).await.unwrap().id, "id-1");
    let replayed = stored(&client).await.len();
    assert_eq!(replayed, acked.len(), "what was not durable was shown, or what was is not there");
    let not_ready = loop {
        let answer = get(&daemon, "/readyz").await;
        if answer.starts_with("HTTP/1.1 503") {
            break answer;
        }
        assert!(stalled.elapsed() < STALL, "it never said that the disk does not answer");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert!(not_ready.contains("STORE_BUSY"), "{not_ready}");
    assert!(heartbeats.load(Ordering::SeqCst) > before + 5, "an idle watch heard nothing");

    // It goes on, with all that it had taken, once.
    for number in unknown.chain([number + 20]) {
        let result = loop {
            match client.publish(event(number), None).await {
                Ok(result) => break result,
                Err(error) => assert!(error.is_retryable(), "{error:?}"),
            }
        };
        acked.insert(number, result.seq);
    }
    let end = pb::Event { topic: "end".into(), ..pb::Event::default() };
    client.publish(end, None).await.unwrap();
    let seen = watching.await.unwrap();
    // What was seen of the disk holds for a moment.
    within("readiness", async {
        while !get(&daemon, "/readyz").await.starts_with("HTTP/1.1 200") {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    let seqs: Vec<u64> = seen.iter().map(|(seq, _)| *seq).collect();
    assert_eq!(seqs, (1..=acked.len() as u64 + 1).collect::<Vec<_>>(), "{seen:?}");
    for (number, seq) in acked {
        assert_eq!(seen[seq as usize - 1].1, format!("id-{number}"));
    }
    for expected in [ServingStatus::Serving, ServingStatus::NotServing, ServingStatus::Serving] {
        let answer = within("a watch of health", told.message()).await.unwrap().unwrap();
        assert_eq!(answer.status(), expected);
    }
    assert_eq!(daemon.stop(), Some(0));
}
