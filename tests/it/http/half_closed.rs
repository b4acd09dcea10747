//! A client of HTTP/1.1 that closes its side once it has asked is answered all the same, and one
//! that is gone is noticed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use prost::Message;
use tailmark::server::Options;
use tailmark_log::eventlog;
use tailmark_log::storage::memory::Options as MemoryOptions;
use tailmark_wire::feed_v1 as pb;

use crate::support::frames;
use crate::support::plain::{Plain, head};
use crate::support::server::{
    TestServer, event, from_oldest, generations, memory, new_log, open, start, start_with, until,
};

/// Asks, and says that nothing more comes.
async fn ask(server: &TestServer, line: &str, headers: &[&str], body: &[u8]) -> Plain {
    let mut plain = Plain::connect(server).await;
    let mut text = head(server, line, headers);
    if !body.is_empty() {
        text.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    plain.send([text.as_bytes(), b"\r\n", body].concat()).await;
    plain.shut().await;
    plain
}

const WEB: &str = "content-type: application/grpc-web+proto";

async fn call(server: &TestServer, method: &str, message: &impl Message) -> Plain {
    let line = format!("POST /feed.v1.FeedService/{method}");
    ask(server, &line, &[WEB], &frames::framed(message)).await
}

#[tokio::test]
async fn an_event_is_stored_once_and_answered() {
    let server = start().await;
    for (at, (content_type, body)) in [
        ("application/json", "{\"topic\":\"a\"}"),
        ("application/x-ndjson", "{\"topic\":\"a\"}\n"),
        // The end of the connection is the end of the last line as well.
        ("application/x-ndjson", "{\"topic\":\"a\"}"),
    ]
    .into_iter()
    .enumerate()
    {
        let header = format!("content-type: {content_type}");
        let mut plain = ask(&server, "POST /v1/events", &[&header], body.as_bytes()).await;
        let answer = plain.rest().await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert!(answer.contains("\"stored\":\"1\""), "{answer}");
        assert_eq!(server.head(), at as u64 + 1);
    }
    let publish = pb::PublishRequest { event: Some(event("a", "x")), expected_head: None };
    let answer = call(&server, "Publish", &publish).await.rest().await;
    assert!(answer.contains("grpc-status:0"), "{answer}");
    assert_eq!(server.head(), 4);
    server.stop().await;
}

#[tokio::test]
async fn a_body_that_is_cut_so_is_answered_with_what_was_kept() {
    let server = start().await;
    let mut plain = Plain::connect(&server).await;
    let headers = ["content-type: application/x-ndjson", "content-length: 1000"];
    let text = head(&server, "POST /v1/events", &headers) + "\r\n{\"topic\":\"a\"}\n{\"topic\":";
    plain.send(text).await;
    plain.shut().await;
    let answer = plain.rest().await;
    assert!(answer.starts_with("HTTP/1.1 499 "), "{answer}");
    assert!(answer.contains("\"reason\":\"UPLOAD_CUT\""), "{answer}");
    assert!(answer.contains("\"received\":\"1\""), "{answer}");
    assert_eq!(server.head(), 1);
    server.stop().await;
}

#[tokio::test]
async fn whatever_only_reads_is_answered() {
    let server = start().await;
    server.store("a", 3).await;
    for (line, word) in [
        ("GET /v1/log", "log_id"),
        ("GET /v1/topics", "\"a\""),
        ("GET /v1/events/2", "\"seq\":\"2\""),
        ("GET /healthz", "ok"),
        ("GET /metrics", "tailmark"),
        ("GET /", "<html"),
        ("GET /v1/nothing", "PATH_NOT_FOUND"),
        ("GET /v1/watch?from=oldest&until_caught_up", "event: end"),
        ("GET /v1/watch?after_cursor=bad", "CURSOR_MALFORMED"),
        ("GET /v1/x>y", "REQUEST_MALFORMED"),
    ] {
        let answer = ask(&server, line, &[], &[]).await.rest().await;
        assert!(answer.contains(word), "{line}: {answer}");
    }
    let watch = pb::WatchRequest { start: from_oldest(), limit: 3, ..Default::default() };
    let answer = call(&server, "Watch", &watch).await.rest().await;
    assert!(answer.contains("grpc-status:0"), "{answer}");
    let text = ["content-type: application/grpc-web-text"];
    let mut plain = ask(&server, "POST /feed.v1.FeedService/GetLog", &text, b"AAAAAAA=").await;
    assert!(plain.rest().await.contains("HTTP/1.1 200 "));
    server.stop().await;
}

#[tokio::test]
async fn an_answer_that_takes_its_time_is_waited_for() {
    let server = start().await;
    // More than is sent before a read: the answer waits for its reader, too.
    let body = vec![b'x'; 256 << 10];
    let events = vec![event("a", std::str::from_utf8(&body).unwrap()); 40];
    server.client().await.upload_events(tokio_stream::iter(events)).await.unwrap();
    let watch = "GET /v1/watch?from=oldest&until_caught_up";
    let answer = ask(&server, watch, &[], &[]).await.rest().await;
    assert!(answer.len() > 10 << 20 && answer.contains("event: end"), "{}", answer.len());
    server.stop().await;
}

#[tokio::test]
async fn a_call_is_answered_that_brings_more_time_than_any_is_given() {
    let engine = memory(generations(&[1]), MemoryOptions { hold: true, ..Default::default() });
    let log = open(Arc::new(engine), eventlog::Options::default());
    let options = Options { unary_deadline: Duration::from_millis(100), ..Options::default() };
    let server = start_with(log, options).await;
    // Stored, perhaps: the disk does not say for longer than both.
    let publish = pb::PublishRequest { event: Some(event("a", "x")), expected_head: None };
    let body = frames::framed(&publish);
    let line = "POST /feed.v1.FeedService/Publish";
    let begun = Instant::now();
    let mut plain = ask(&server, line, &[WEB, "grpc-timeout: 2S"], &body).await;
    let answer = plain.rest().await;
    assert!(answer.contains("grpc-status: 4"), "{answer:?}");
    assert!(begun.elapsed() >= Duration::from_secs(2));
    // A stream may be silent for as long as any.
    let line = "POST /feed.v1.FeedService/Watch";
    let body = frames::framed(&pb::WatchRequest::default());
    let mut plain = ask(&server, line, &[WEB, "grpc-timeout: 1H"], &body).await;
    plain.until("\r\n\r\n").await;
    assert_eq!(plain.rest().await, "");
    until("the watch is over", || server.gauges.watches() == 0).await;
    drop(server);
}

#[tokio::test]
async fn a_watch_goes_on_for_who_still_reads() {
    // Silence of more than the deadline would end it: it is broken in time.
    let options = Options { unary_deadline: Duration::from_millis(300), ..Options::default() };
    let server = start_with(new_log(), options).await;
    let mut plain = ask(&server, "GET /v1/watch?heartbeat_ms=60000", &[], &[]).await;
    plain.until("CAUGHT_UP").await;
    for _ in 0..8 {
        plain.until(":\n\n").await;
    }
    server.store("a", 1).await;
    plain.until("\"seq\":\"1\"").await;
    assert_eq!(server.gauges.watches(), 1);
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_has_left_is_noticed_though_it_might_only_have_closed_its_side() {
    let server = start().await;
    // Events come seldom, and nothing is said in between.
    let mut plain = ask(&server, "GET /v1/watch?heartbeat_ms=3600000", &[], &[]).await;
    plain.until("CAUGHT_UP").await;
    assert_eq!(server.gauges.watches(), 1);
    drop(plain);
    until("the watch is over", || server.gauges.watches() == 0).await;
    // As a browser does it, all at once; and as a reset does it.
    for is_reset in [false, true] {
        let mut plain = Plain::connect(&server).await;
        plain.send(head(&server, "GET /v1/watch?heartbeat_ms=3600000", &[]) + "\r\n").await;
        plain.until("CAUGHT_UP").await;
        match is_reset {
            true => plain.reset(),
            false => drop(plain),
        }
        until("the watch is over", || server.gauges.watches() == 0).await;
    }
    until("nothing is held", || server.gauges.connections() == 0).await;
    server.stop().await;
}

#[tokio::test]
async fn a_grpc_web_stream_that_says_nothing_is_given_up_in_the_end() {
    let options = Options { unary_deadline: Duration::from_millis(300), ..Options::default() };
    let server = start_with(new_log(), options).await;
    let mut plain = call(&server, "Watch", &pb::WatchRequest::default()).await;
    plain.until("\r\n\r\n").await;
    assert_eq!(server.gauges.watches(), 1);
    // Nothing could be written that is no message.
    assert_eq!(plain.rest().await, "");
    until("the watch is over", || server.gauges.watches() == 0).await;
    server.stop().await;
}
