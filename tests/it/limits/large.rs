//! The large rows of the limits table, at their defaults.

use std::sync::Arc;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tailmark::server::{Http2, Options};
use tailmark_log::eventlog;
use tailmark_log::storage::memory::Options as MemoryOptions;
use tailmark_record::Limits;
use tailmark_wire::feed_v1 as pb;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::over;
use crate::support::frames::{self, Frames};
use crate::support::server::{
    PATIENCE, event, generations, memory, new_log, open, start_with, until, watch, within,
};

const CONNECTIONS: usize = 4_096;
const WATCHES: usize = 20_000;
const MIB: usize = 1 << 20;

/// Lets this process have so many files open, both ends of every connection among them.
fn allow_open_files(count: u64) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_some_and(|current| current < count) {
        let new = Rlimit { current: Some(count), maximum };
        setrlimit(Resource::Nofile, new).unwrap_or_else(|error| {
            panic!("{count} open files are not allowed here ({maximum:?} at most): {error}")
        });
    }
}

/// Nobody is cut for being slow, or for saying nothing.
fn patient() -> Options {
    Options {
        preface_timeout: PATIENCE,
        http2: Http2 { keepalive_interval: PATIENCE, ..Http2::default() },
        ..Options::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections() {
    allow_open_files(10_000);
    let server = start_with(new_log(), patient()).await;
    let mut first = server.client().await;
    first.get_log(pb::GetLogRequest {}).await.unwrap();
    let mut others = Vec::new();
    for _ in 1..CONNECTIONS {
        others.push(within("connect", TcpStream::connect(server.address)).await.unwrap());
    }
    until("all connections", || server.gauges.connections() == CONNECTIONS).await;
    // Each call on one more is told, unary or stream, and the connection is closed.
    let mut one_more = server.client().await;
    let status = one_more.get_log(pb::GetLogRequest {}).await.unwrap_err();
    over(&status, "connections", CONNECTIONS, CONNECTIONS + 1);
    let mut one_more = server.client().await;
    let status = watch(&mut one_more, pb::WatchRequest::default()).await.err().unwrap();
    over(&status, "connections", CONNECTIONS, CONNECTIONS + 1);
    let mut one_more = server.client().await;
    let events = tokio_stream::iter(vec![event("a", "x"); 3]);
    let status = one_more.upload_events(events).await.unwrap_err();
    over(&status, "connections", CONNECTIONS, CONNECTIONS + 1);

    let mut plain = TcpStream::connect(server.address).await.unwrap();
    plain.write_all(b"GET /v1/log HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    within("the end", plain.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 429 "), "{answer}");
    let json: serde_json::Value =
        serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    assert_eq!(
        (&json["code"], &json["reason"]),
        (&"RESOURCE_EXHAUSTED".into(), &"LIMIT_EXCEEDED".into())
    );
    assert_eq!(
        (&json["metadata"]["limit"], &json["metadata"]["actual"]),
        (&"4096".into(), &"4097".into())
    );
    assert_eq!(server.head(), 0);

    // The others go on, and when one leaves another may come.
    first.get_log(pb::GetLogRequest {}).await.unwrap();
    others.pop();
    until("a connection less", || server.gauges.connections() < CONNECTIONS).await;
    server.client().await.get_log(pb::GetLogRequest {}).await.unwrap();
    drop(others);
    server.stop().await;
}

#[tokio::test]
async fn a_flood_of_connections_is_told_a_few_at_a_time() {
    let options = Options { connections: 1, ..patient() };
    let server = start_with(new_log(), options).await;
    let _first = server.client().await;
    until("a connection", || server.gauges.connections() == 1).await;
    // Silent ones take all the places there are for telling; those after them are just closed.
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(TcpStream::connect(server.address).await.unwrap());
    }
    // The silent are cut as well, a few seconds later.
    for mut stream in silent {
        let mut byte = [0];
        assert!(matches!(within("the end", stream.read(&mut byte)).await, Ok(0) | Err(_)));
    }
    let mut one_more = server.client().await;
    let status = one_more.get_log(pb::GetLogRequest {}).await.unwrap_err();
    over(&status, "connections", 1, 2);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_in_all() {
    let server = start_with(new_log(), patient()).await;
    let mut full = Vec::new();
    for _ in 0..WATCHES / 1_000 {
        let mut connection = Frames::connect(server.address).await;
        let calls = (0..1_000).flat_map(|at| frames::begin(1 + 2 * at, "Watch", true));
        connection.write(&calls.collect::<Vec<_>>()).await;
        for _ in 0..1_000 {
            connection.next_of(&[frames::HEADERS]).await;
        }
        full.push(connection);
    }
    assert_eq!(server.gauges.watches(), WATCHES);
    let mut client = server.client().await;
    let status = watch(&mut client, pb::WatchRequest::default()).await.err().unwrap();
    over(&status, "watches", WATCHES, WATCHES + 1);
    // One connection leaves, and a watch on another may begin.
    full.pop();
    until("fewer watches", || server.gauges.watches() <= WATCHES - 1_000).await;
    watch(&mut client, pb::WatchRequest::default()).await.unwrap();
    drop(full);
    server.stop().await;
}

#[tokio::test]
async fn an_event_of_the_most_that_can_be_allowed() {
    let room = MemoryOptions { max_commit_bytes: 16 * MIB, ..Default::default() };
    let limits = Limits { event_bytes: 8 * MIB, batch_bytes: 8 * MIB, ..Limits::default() };
    let engine = Arc::new(memory(generations(&[1]), room));
    let log = open(engine, eventlog::Options { limits, ..Default::default() });
    let server = start_with(log, Options::default()).await;
    let mut client = server.client().await;
    // A topic and a body of n bytes cost n bytes, two tags and two lengths.
    let of_size = |size: usize| event("a", &"x".repeat(size - 3 - 5));
    let publish = |event| pb::PublishRequest { event: Some(event), expected_head: None };
    client.publish(publish(of_size(8 * MIB))).await.unwrap();
    let status = client.publish(publish(of_size(8 * MIB + 1))).await.unwrap_err();
    over(&status, "event", 8 * MIB, 8 * MIB + 1);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_in_flight_in_all() {
    let hold = MemoryOptions { hold: true, ..Default::default() };
    let engine = Arc::new(memory(generations(&[1]), hold));
    // Messages are not what waits here.
    let options = Options { unary_deadline: PATIENCE, arriving_bytes: 256 * MIB, ..patient() };
    let server = start_with(open(engine.clone(), Default::default()), options).await;
    let client = server.client().await;
    // Of a little less than 1 MiB each with what the server adds: 64 are within 64 MiB.
    let body = "x".repeat(MIB - 1_000);
    let publishing = (0..80).map(|_| {
        let (mut client, event) = (client.clone(), event("a", &body));
        let request = pb::PublishRequest { event: Some(event), expected_head: None };
        tokio::spawn(async move { client.publish(request).await })
    });
    let publishing: Vec<_> = publishing.collect();
    let in_flight = || server.log.status().in_flight_bytes as usize;
    until("the limit", || in_flight() > 63 * MIB).await;
    // The others wait, and each gets in as soon as there is room: none is refused.
    until("all publishes", || {
        assert!(in_flight() <= 64 * MIB, "{}", in_flight());
        engine.release();
        publishing.iter().all(tokio::task::JoinHandle::is_finished)
    })
    .await;
    for published in publishing {
        published.await.unwrap().unwrap();
    }
    assert_eq!(server.head(), 80);
    // Given back after the answer.
    until("all room is back", || in_flight() == 0).await;
    server.stop().await;
}
