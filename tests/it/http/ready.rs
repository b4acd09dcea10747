//! `GET /readyz`: whether events would be taken, known without sending any.

use std::sync::Arc;

use http::{Request, Version};
use tailmark_log::storage::faulty::Faulty;
use tailmark_log::storage::memory::{Memory, Options as MemoryOptions};
use tailmark_log::storage::{Engine, Intercept, StoreError, local};
use tonic::body::Body;

use crate::support::disk::{DiskServer, Setup};
use crate::support::frames::{self, Frames};
use crate::support::server::{
    TestServer, generations, memory, new_log, open, start_with, until, within,
};
use crate::support::web::{self, Answer, ask, full, get};

async fn on_disk(server: &DiskServer, method: &str, path: &str, body: &str) -> Answer {
    let uri = format!("{}{path}", server.url());
    let request = Request::builder().method(method).uri(uri);
    let request = request.header("content-type", "application/json");
    let body = if body.is_empty() { Body::empty() } else { full(body.to_owned()) };
    ask(server.address, Version::HTTP_11, request.body(body).unwrap()).await
}

/// The answer, once it has this status: what was seen holds for a second.
async fn once(server: &DiskServer, status: u16) -> Answer {
    let last = std::cell::RefCell::new(None);
    until_async(|| async {
        let answer = on_disk(server, "GET", "/readyz", "").await;
        let is_it = answer.status == status;
        last.replace(Some(answer));
        is_it
    })
    .await;
    last.into_inner().unwrap()
}

/// An event with a body of so many bytes.
fn event_of(bytes: usize) -> String {
    format!("{{\"topic\":\"a\",\"body\":\"{}\"}}", "x".repeat(bytes))
}

async fn until_async<F: Future<Output = bool>>(holds: impl Fn() -> F) {
    within("an answer", async {
        while !holds().await {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_full_disk_is_told_and_so_is_room_again() {
    let inner = Arc::new(memory(generations(&[1]), MemoryOptions::default()));
    let engine = Arc::new(Faulty::new(inner));
    let server = start_with(open(engine.clone(), Default::default()), Default::default()).await;
    for _ in 0..2 {
        until_async(|| async { get(&server, "/readyz").await.status == 200 }).await;
        engine.set_full(true);
        until_async(|| async { get(&server, "/readyz").await.status == 503 }).await;
        let room = get(&server, "/readyz").await.expect(503, "UNAVAILABLE", "DISK_FULL");
        assert_eq!((&room["available_bytes"], &room["needed_bytes"]), (&"0".into(), &"1".into()));
        // It lives, and reading goes on.
        assert_eq!(get(&server, "/healthz").await.status, 200);
        assert_eq!(get(&server, "/v1/log").await.status, 200);
        engine.set_full(false);
    }
    until_async(|| async { get(&server, "/readyz").await.status == 200 }).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_on_a_full_disk_is_not_ready_and_does_not_say_where_it_keeps_its_log() {
    let dir = tempfile::tempdir().unwrap();
    // A new log would not be begun.
    DiskServer::start(dir.path(), Setup::small()).await.stop().await;
    let setup = Setup {
        // No disk leaves so much to others.
        storage: local::Options { min_free_bytes: u64::MAX / 4, ..Setup::small().storage },
        ..Setup::small()
    };
    let server = DiskServer::start(dir.path(), setup).await;
    assert_eq!(on_disk(&server, "GET", "/readyz", "").await.status, 200);
    // Sealing gives slots back meanwhile, and what was seen holds for a second.
    let mut bytes = 10_000;
    let answer = within("a refusal that is seen", async {
        loop {
            let posted = on_disk(&server, "POST", "/v1/events", &event_of(bytes)).await;
            if posted.status == 200 {
                continue;
            }
            posted.expect(429, "RESOURCE_EXHAUSTED", "DISK_FULL");
            // Smaller ones may fit.
            bytes = (bytes / 2).max(1);
            let ready = on_disk(&server, "GET", "/readyz", "").await;
            if ready.status != 200 {
                break ready;
            }
        }
    })
    .await;
    answer.expect(503, "UNAVAILABLE", "DISK_FULL");
    assert!(answer.json()["message"].as_str().unwrap().contains("no room on disk"));
    assert!(!answer.text().contains(dir.path().to_str().unwrap()));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_event_that_finds_no_room_leaves_the_daemon_ready_for_small_ones() {
    let dir = tempfile::tempdir().unwrap();
    DiskServer::start(dir.path(), Setup::small()).await.stop().await;
    let setup = Setup {
        storage: local::Options { min_free_bytes: u64::MAX / 4, ..Setup::small().storage },
        ..Setup::small()
    };
    let server = DiskServer::start(dir.path(), setup).await;
    let refused = within("a refusal", async {
        loop {
            let posted = on_disk(&server, "POST", "/v1/events", &event_of(50_000)).await;
            if posted.status != 200 {
                break posted;
            }
        }
    })
    .await;
    refused.expect(429, "RESOURCE_EXHAUSTED", "DISK_FULL");
    assert_eq!(on_disk(&server, "GET", "/readyz", "").await.status, 200);
    assert_eq!(on_disk(&server, "POST", "/v1/events", &event_of(100)).await.status, 200);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_whose_data_directory_or_a_part_of_it_is_gone_is_not_ready() {
    let dir = tempfile::tempdir().unwrap();
    let (data, aside) = (dir.path().join("data"), dir.path().join("aside"));
    let server = DiskServer::start(&data, Setup::small()).await;
    assert_eq!(on_disk(&server, "GET", "/readyz", "").await.status, 200);
    for part in [data.clone(), data.join("segments"), data.join("journal")] {
        std::fs::rename(&part, &aside).unwrap();
        let answer = once(&server, 503).await;
        answer.expect(503, "UNAVAILABLE", "STORE_BUSY");
        let message = answer.json()["message"].as_str().unwrap().to_owned();
        assert!(message.contains("data directory or a part of it is gone"), "{message}");
        std::fs::rename(&aside, &part).unwrap();
        once(&server, 200).await;
    }
    server.stop().await;
}

/// An engine that says why it would refuse an append, or hangs over it.
struct Refusing {
    inner: Memory,
    why: Box<dyn Fn() -> Option<StoreError> + Send + Sync>,
}

impl Intercept for Refusing {
    fn inner(&self) -> &dyn Engine {
        &self.inner
    }

    fn refusal(&self) -> Option<StoreError> {
        (self.why)()
    }
}

async fn refusing(why: impl Fn() -> Option<StoreError> + Send + Sync + 'static) -> TestServer {
    let inner = memory(generations(&[1]), MemoryOptions::default());
    let engine = Arc::new(Refusing { inner, why: Box::new(why) });
    start_with(open(engine, Default::default()), Default::default()).await
}

#[tokio::test]
async fn each_refusal_has_its_words_and_none_says_where_the_log_is_kept() {
    type Why = fn() -> StoreError;
    let cases: [(Why, &str, &str); 5] = [
        (
            || StoreError::Busy { reason: "sealing: /secret/place".into() },
            "STORE_BUSY",
            "the journal is full, and sealing does not go on; no events are taken",
        ),
        (
            || StoreError::Hanging { seconds: 10 },
            "STORE_BUSY",
            "a commit is under way and the disk does not answer; no events are taken",
        ),
        (
            || StoreError::Displaced { path: "/secret/place".into(), detail: "moved".into() },
            "STORE_BUSY",
            "the data directory or a part of it is gone, or another lies in its place",
        ),
        (
            || StoreError::Stopped { reason: "write /secret/place".into() },
            "STORE_STOPPED",
            "the store has stopped after a failed write; no events are taken",
        ),
        (
            || StoreError::Io {
                action: "stat",
                path: "/secret/place".into(),
                source: std::io::ErrorKind::PermissionDenied.into(),
            },
            "STORE_BUSY",
            "the disk cannot be looked at; no events are taken",
        ),
    ];
    for (why, reason, words) in cases {
        let server = refusing(move || Some(why())).await;
        let answer = get(&server, "/readyz").await;
        answer.expect(503, "UNAVAILABLE", reason);
        assert!(answer.text().contains(words), "{}", answer.text());
        assert!(answer.text().contains("reading goes on"), "{}", answer.text());
        assert!(!answer.text().contains("/secret/place"), "{}", answer.text());
        assert_eq!(get(&server, "/healthz").await.status, 200);
        server.stop().await;
    }
}

#[tokio::test]
async fn a_disk_that_does_not_answer_is_told_and_keeps_nobody_waiting_for_good() {
    let (release, released) = std::sync::mpsc::channel::<()>();
    let released = std::sync::Mutex::new(released);
    let server = refusing(move || {
        // Until the sender is gone.
        let _ = released.lock().unwrap().recv();
        None
    })
    .await;
    let answer = get(&server, "/readyz").await;
    answer.expect(503, "UNAVAILABLE", "STORE_BUSY");
    assert!(answer.text().contains("the disk does not answer"), "{}", answer.text());
    assert_eq!(get(&server, "/healthz").await.status, 200);
    drop(release);
    until_async(|| async { get(&server, "/readyz").await.status == 200 }).await;
    server.stop().await;
}

#[tokio::test]
async fn a_log_that_cannot_tell_repeats_is_not_ready() {
    let engine = Arc::new(Faulty::new(Arc::new(memory(generations(&[1]), Default::default()))));
    engine.fail_fingerprints();
    let server = start_with(open(engine, Default::default()), Default::default()).await;
    // Read in the background.
    until_async(|| async { get(&server, "/readyz").await.status == 503 }).await;
    let answer = get(&server, "/readyz").await;
    answer.expect(503, "UNAVAILABLE", "REPEATS_UNKNOWN");
    assert!(answer.text().contains("no events with ids are taken"), "{}", answer.text());
    // As it says.
    let post = |body: &'static str| web::post(&server, "application/json", body);
    assert_eq!(post(r#"{"topic":"a","body":"1"}"#).await.status, 200);
    post(r#"{"topic":"a","id":"x","body":"1"}"#).await.expect(500, "DATA_LOSS", "DAMAGED");
    server.stop().await;
}

#[tokio::test]
async fn a_server_that_stops_is_not_ready_for_who_is_still_connected() {
    let server = start_with(new_log(), Default::default()).await;
    let mut connection = Frames::connect(server.address).await;
    connection.write(&frames::begin(1, "UploadEvents", false)).await;
    until("the upload", || server.gauges.uploads() == 1).await;
    server.shutdown.cancel();
    // The first says only that it is going to stop: it takes requests until its ping is answered.
    connection.next_of(&[frames::GOAWAY]).await;
    let authority = server.address.to_string();
    connection.write(&frames::get(3, &authority, "/readyz")).await;
    let answer = loop {
        let frame = connection.next_of(&[frames::DATA]).await;
        if frame.stream == 3 {
            break String::from_utf8(frame.payload).unwrap();
        }
    };
    assert!(answer.contains("\"reason\":\"STOPPING\""), "{answer}");
    drop(connection);
    server.stop().await;
}

#[tokio::test]
async fn a_log_that_is_closed_is_not_ready() {
    let server = start_with(new_log(), Default::default()).await;
    assert_eq!(get(&server, "/readyz").await.status, 200);
    server.log.close().await.unwrap();
    let answer = get(&server, "/readyz").await;
    answer.expect(503, "UNAVAILABLE", "STOPPING");
    assert!(answer.text().contains("the log is being closed"), "{}", answer.text());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_writes_all_the_time_is_ready() {
    let dir = tempfile::tempdir().unwrap();
    let server = DiskServer::start(dir.path(), Setup::small()).await;
    let writers: Vec<_> = (0..4)
        .map(|_| {
            let log = server.log.clone();
            tokio::spawn(async move {
                for _ in 0..200 {
                    let mut batch = log.batch();
                    let event = tailmark_record::Event { topic: "a", ..Default::default() };
                    batch.push(&event).unwrap();
                    log.append(batch, Default::default()).await.unwrap();
                }
            })
        })
        .collect();
    while writers.iter().any(|writer| !writer.is_finished()) {
        assert_eq!(on_disk(&server, "GET", "/readyz", "").await.status, 200);
    }
    for writer in writers {
        writer.await.unwrap();
    }
    server.stop().await;
}
