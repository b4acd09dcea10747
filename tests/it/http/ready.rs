//! `GET /readyz`: whether events would be taken, known without sending any.

use std::sync::Arc;

use http::{Request, Version};
use tailmark_log::storage::faulty::Faulty;
use tailmark_log::storage::local;
use tailmark_log::storage::memory::Options as MemoryOptions;
use tonic::body::Body;

use crate::support::disk::{DiskServer, Setup};
use crate::support::server::{generations, memory, open, start_with, within};
use crate::support::web::{Answer, ask, full, get};

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
    let body = format!("{{\"topic\":\"a\",\"body\":\"{}\"}}", "x".repeat(10_000));
    // Sealing gives slots back meanwhile, and what was seen holds for a second.
    let answer = within("a refusal that is seen", async {
        loop {
            let posted = on_disk(&server, "POST", "/v1/events", &body).await;
            if posted.status == 200 {
                continue;
            }
            posted.expect(429, "RESOURCE_EXHAUSTED", "DISK_FULL");
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
async fn a_daemon_whose_data_directory_is_gone_is_not_ready() {
    let dir = tempfile::tempdir().unwrap();
    let (data, aside) = (dir.path().join("data"), dir.path().join("aside"));
    let server = DiskServer::start(&data, Setup::small()).await;
    assert_eq!(on_disk(&server, "GET", "/readyz", "").await.status, 200);
    std::fs::rename(&data, &aside).unwrap();
    let answer = once(&server, 503).await;
    answer.expect(503, "UNAVAILABLE", "STORE_BUSY");
    let message = answer.json()["message"].as_str().unwrap().to_owned();
    assert!(message.contains("data directory is gone"), "{message}");
    std::fs::rename(&aside, &data).unwrap();
    once(&server, 200).await;
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
