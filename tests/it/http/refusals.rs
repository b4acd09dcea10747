//! An answer that is given before the body was read reaches a client that sends all of it first.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Version;
use tailmark::server::Options;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

use crate::support::plain::{Plain, head};
use crate::support::server::{TestServer, new_log, start, start_with, until, within};
use crate::support::web::{ask, full, request, with};

const BODY_BYTES: usize = 6 << 20;
const PIECE_BYTES: usize = 64 << 10;

/// How a body says where it ends.
#[derive(Clone, Copy, Debug)]
enum Length {
    Known,
    Chunked,
}

/// Sends a request with a large body, and only then reads what comes back.
async fn send_all(server: &TestServer, line: &str, headers: &[&str], length: Length) -> String {
    send_all_on(&mut Plain::connect(server).await, server, line, headers, length).await
}

async fn send_all_on(
    plain: &mut Plain,
    server: &TestServer,
    line: &str,
    headers: &[&str],
    length: Length,
) -> String {
    let mut head = head(server, line, headers);
    match length {
        Length::Known => head.push_str(&format!("content-length: {BODY_BYTES}\r\n\r\n")),
        Length::Chunked => head.push_str("transfer-encoding: chunked\r\n\r\n"),
    }
    plain.send(head).await;
    let piece = Bytes::from(vec![b'x'; PIECE_BYTES]);
    for _ in 0..BODY_BYTES / PIECE_BYTES {
        match length {
            Length::Known => plain.send(&piece).await,
            Length::Chunked => {
                plain.send(format!("{PIECE_BYTES:x}\r\n")).await;
                plain.send(&piece).await;
                plain.send("\r\n").await;
            }
        }
    }
    if let Length::Chunked = length {
        plain.send("0\r\n\r\n").await;
    }
    plain.answer().await
}

/// What is refused, or answered, over what a large body says, and how.
const EARLY: &[(&str, &[&str], &str, &str)] = &[
    ("POST /v1/events?bogus=1", &["content-type: application/json"], "400", "INVALID_FIELD"),
    ("POST /v1/events", &["content-type: application/x-ndjson"], "413", "LIMIT_EXCEEDED"),
    ("POST /v1/events", &["content-type: application/json"], "413", "LIMIT_EXCEEDED"),
    ("POST /v1/events", &["content-type: text/plain"], "415", "UNSUPPORTED_MEDIA_TYPE"),
    ("POST /v1/events", &[], "415", "UNSUPPORTED_MEDIA_TYPE"),
    (
        "POST /v1/events",
        &["content-type: application/json", "content-encoding: br"],
        "415",
        "UNSUPPORTED_MEDIA_TYPE",
    ),
    (
        "POST /v1/events",
        &["content-type: application/json", "origin: http://evil.example"],
        "403",
        "ORIGIN_REFUSED",
    ),
    ("POST /v1/events", &["host: evil.example"], "400", "INVALID_FIELD"),
    ("POST http://evil.example/v1/events", &[], "403", "HOST_REFUSED"),
    ("POST /v1/nothing", &[], "404", "PATH_NOT_FOUND"),
    ("POST /nothing", &[], "404", "PATH_NOT_FOUND"),
    ("POST /v1/watch", &[], "405", "METHOD_NOT_ALLOWED"),
    ("PUT /v1/events", &[], "405", "METHOD_NOT_ALLOWED"),
    ("POST /metrics", &[], "405", "METHOD_NOT_ALLOWED"),
    ("POST /", &[], "405", "METHOD_NOT_ALLOWED"),
    ("POST /feed.v1.FeedService/Publish", &["content-type: application/grpc"], "505", "gRPC"),
    ("POST /feed.v1.FeedService/Publish", &["content-type: application/json"], "415", "gRPC"),
    (
        "PUT /feed.v1.FeedService/Publish",
        &["content-type: application/grpc-web+proto"],
        "405",
        "METHOD_NOT_ALLOWED",
    ),
    (
        "POST /feed.v1.FeedService/UploadEvents",
        &["content-type: application/grpc-web+proto"],
        "200",
        "grpc-status: 12",
    ),
    (
        "POST /feed.v1.FeedService/Nothing",
        &["content-type: application/grpc-web+proto"],
        "200",
        "grpc-status: 12",
    ),
    (
        "POST /feed.v1.FeedService/Publish",
        &["content-type: application/grpc-web+proto", "grpc-timeout: soon"],
        "200",
        "grpc-status: 3",
    ),
    (
        "POST /feed.v1.FeedService/Publish",
        &["content-type: application/grpc-web+proto", "grpc-encoding: snappy"],
        "200",
        "grpc-status: 12",
    ),
    // The flag of the first message is none: `x`.
    (
        "POST /feed.v1.FeedService/Publish",
        &["content-type: application/grpc-web+proto"],
        "200",
        "grpc-status",
    ),
    (
        "POST /feed.v1.FeedService/Publish",
        &["content-type: application/grpc-web-text"],
        "200",
        "HTTP/1.1 200 ",
    ),
    ("GET /v1/log", &[], "200", "log_id"),
    ("GET /healthz", &[], "200", "ok"),
    ("GET /metrics", &[], "200", "tailmark"),
    ("GET /v1/events/%ff", &[], "400", "INVALID_FIELD"),
    // An answer that goes on while the body is still coming.
    ("GET /v1/watch?until_caught_up", &[], "200", "event: end"),
    ("OPTIONS /v1/events", &[], "204", "allow: POST"),
    ("GET /v1/events/x>y", &[], "400", "REQUEST_MALFORMED"),
    ("GET /v1/log", &["bad header"], "400", "REQUEST_MALFORMED"),
];

#[tokio::test]
async fn an_early_answer_reaches_a_client_that_first_sends_its_whole_body() {
    let options = Options { message_bytes: 1 << 20, ..Options::default() };
    let server = start_with(new_log(), options).await;
    for &(line, headers, code, word) in EARLY {
        for length in [Length::Known, Length::Chunked] {
            let answer = send_all(&server, line, headers, length).await;
            let expected = format!("HTTP/1.1 {code} ");
            assert!(answer.starts_with(&expected), "{line} {headers:?} {length:?}: {answer}");
            assert!(answer.contains(word), "{line} {headers:?} {length:?}: {answer}");
        }
    }
    assert_eq!(server.head(), 0);
    server.stop().await;
}

#[tokio::test]
async fn the_connection_goes_on_after_a_refusal_whose_body_was_read() {
    let server = start().await;
    let mut plain = Plain::connect(&server).await;
    for length in [Length::Known, Length::Chunked, Length::Known] {
        let answer = send_all_on(&mut plain, &server, "POST /v1/watch", &[], length).await;
        assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
    }
    plain.send(head(&server, "GET /v1/log", &[]) + "\r\n").await;
    assert!(plain.answer().await.starts_with("HTTP/1.1 200 "));
    server.stop().await;
}

#[tokio::test]
async fn requests_that_were_sent_together_are_answered_in_their_order() {
    let server = start().await;
    let mut plain = Plain::connect(&server).await;
    let refused = head(&server, "POST /v1/watch", &["content-length: 3"]) + "\r\nabc";
    let good = head(&server, "GET /v1/log", &[]) + "\r\n";
    let bad = head(&server, "GET /v1/watch?topic=orders.>", &[]) + "\r\n";
    plain.send([refused, good, bad].concat()).await;
    for code in ["405", "200", "400"] {
        let answer = plain.answer().await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {code} ")), "{answer}");
    }
    assert_eq!(plain.rest().await, "");
    server.stop().await;
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused_in_words_whatever_follows_it() {
    let server = start().await;
    let long = format!("x: {}", "x".repeat(70_000));
    let many = "x: x\r\n".repeat(120);
    for header in [long.as_str(), many.trim_end()] {
        let answer = send_all(&server, "POST /v1/events", &[header], Length::Known).await;
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
        assert!(answer.contains("HEAD_TOO_LARGE"), "{answer}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_connection_too_many_is_told_so_though_it_sends_a_large_body() {
    let server = start_with(new_log(), Options { connections: 1, ..Options::default() }).await;
    let _first = Plain::connect(&server).await;
    until("the first", || server.gauges.connections() == 1).await;
    for length in [Length::Known, Length::Chunked] {
        let answer = send_all(&server, "POST /v1/events", &[], length).await;
        assert!(answer.starts_with("HTTP/1.1 429 "), "{answer}");
        assert!(answer.contains("LIMIT_EXCEEDED"), "{answer}");
        assert!(answer.contains("\r\nretry-after: "), "{answer}");
    }
    server.stop().await;
}

/// Sends the first of a body, waits until the server has given it up, and sends the rest.
async fn send_late(server: &TestServer, content_type: &str, give_up: impl FnOnce()) -> String {
    let mut plain = Plain::connect(server).await;
    let headers =
        [format!("content-type: {content_type}"), format!("content-length: {BODY_BYTES}")];
    let text = head(server, "POST /v1/events", &[&headers[0], &headers[1]]);
    plain.send(text + "\r\n{\"topic\":").await;
    until("the upload", || server.gauges.uploads() == 1).await;
    give_up();
    until("its end", || server.gauges.uploads() == 0).await;
    plain.send(vec![b' '; BODY_BYTES - 9]).await;
    plain.answer().await
}

#[tokio::test]
async fn a_deadline_and_a_stop_are_told_to_who_is_still_sending() {
    let options = Options { unary_deadline: Duration::from_millis(100), ..Options::default() };
    let server = start_with(new_log(), options).await;
    let answer = send_late(&server, "application/json", || {}).await;
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
    server.stop().await;

    let server = start().await;
    let stop = || server.shutdown.cancel();
    let answer = send_late(&server, "application/x-ndjson", stop).await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("\r\nretry-after: 1\r\n"), "{answer}");
    server.stop().await;
}

#[tokio::test]
async fn who_asks_before_he_sends_is_refused_without_being_asked_for_the_body() {
    let server = start().await;
    let expect = ["expect: 100-continue", "content-type: application/json", "content-length: 13"];
    for (line, code) in [("POST /v1/events?bogus", "400"), ("POST /v1/watch", "405")] {
        let mut plain = Plain::connect(&server).await;
        plain.send(head(&server, line, &expect) + "\r\n").await;
        // What is no request of its own must not be taken for one: the connection ends.
        let answer = plain.rest().await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {code} ")), "{answer}");
        assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
    }
    let mut plain = Plain::connect(&server).await;
    plain.send(head(&server, "POST /v1/events", &expect) + "\r\n").await;
    assert_eq!(plain.until("\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
    plain.send("{\"topic\":\"a\"}").await;
    assert!(plain.answer().await.starts_with("HTTP/1.1 200 "));
    server.stop().await;
}

#[tokio::test]
async fn nobody_holds_a_connection_by_what_is_thrown_away() {
    let server = start().await;
    // One who sends without end, and reads.
    let mut plain = Plain::connect(&server).await;
    plain.send(head(&server, "POST /v1/watch", &["transfer-encoding: chunked"]) + "\r\n").await;
    let (mut reader, mut writer) = plain.stream.into_split();
    let endless = tokio::spawn(async move {
        let chunk = [b"10000\r\n", &[b'x'; 1 << 16][..], b"\r\n"].concat();
        while writer.write_all(&chunk).await.is_ok() {}
    });
    let mut begin = [0; 13];
    within("answer", reader.read_exact(&mut begin)).await.unwrap();
    assert_eq!(&begin, b"HTTP/1.1 405 ");
    within("the sender is cut", endless).await.unwrap();
    // One who has his answer and neither sends nor leaves.
    let mut silent = Plain::connect(&server).await;
    silent.send(head(&server, "GET /v1/log", &["connection: close"]) + "\r\n").await;
    assert!(silent.rest().await.starts_with("HTTP/1.1 200 "));
    until("nothing is held", || server.gauges.connections() == 0).await;
    drop(silent);
    // Nor does one who lies idle hold up a stop.
    let mut idle = Plain::connect(&server).await;
    idle.send(head(&server, "GET /v1/log", &[]) + "\r\n").await;
    idle.answer().await;
    server.stop().await;
    drop(idle);
}

/// Connections that were refused and go on sending, byte by byte, what is thrown away.
async fn dribble(server: &TestServer, count: usize) -> Vec<JoinHandle<()>> {
    let mut dribbling = Vec::new();
    for _ in 0..count {
        let mut plain = Plain::connect(server).await;
        // Not asked for the body, it is closed at once, for writing.
        let headers = ["expect: 100-continue", "content-length: 1000000"];
        plain.send(head(server, "POST /v1/watch", &headers) + "\r\n").await;
        assert!(plain.rest().await.starts_with("HTTP/1.1 405 "));
        dribbling.push(tokio::spawn(async move {
            let mut beat = tokio::time::interval(Duration::from_millis(50));
            while plain.stream.write_all(b"x").await.is_ok() {
                beat.tick().await;
            }
        }));
    }
    dribbling
}

#[tokio::test]
async fn who_dribbles_after_a_refusal_holds_no_connection_for_long() {
    let server = start().await;
    let begun = Instant::now();
    let dribbling = dribble(&server, 20).await;
    until("nothing is held", || server.gauges.connections() == 0).await;
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    for one in dribbling {
        within("one is cut", one).await.unwrap();
    }
    server.stop().await;
}

#[tokio::test]
async fn who_dribbles_after_a_refusal_does_not_hold_up_a_stop() {
    let grace = Duration::from_secs(60);
    let server =
        start_with(new_log(), Options { shutdown_grace: grace, ..Options::default() }).await;
    let dribbling = dribble(&server, 5).await;
    assert_eq!(server.gauges.connections(), 5);
    let begun = Instant::now();
    server.stop().await;
    assert!(begun.elapsed() < Duration::from_millis(3_500), "{:?}", begun.elapsed());
    for one in dribbling {
        within("one is cut", one).await.unwrap();
    }
}

#[tokio::test]
async fn over_http_2_an_early_answer_comes_whole_as_well() {
    let server = start().await;
    for (path, headers, code) in [
        ("/v1/events?bogus", &[("content-type", "application/json")][..], 400),
        ("/v1/nothing", &[], 404),
        ("/v1/watch", &[], 405),
        ("/v1/events", &[("content-type", "text/plain")], 415),
        ("/v1/events", &[("origin", "http://evil.example")], 403),
        ("/feed.v1.FeedService/Publish", &[("content-type", "application/json")], 415),
    ] {
        let mut request = with(request(&server, "POST", path), headers);
        *request.body_mut() = full(vec![b'x'; BODY_BYTES]);
        let answer = ask(server.address, Version::HTTP_2, request).await;
        assert_eq!(answer.status, code, "{path}");
        assert!(answer.json()["message"].is_string(), "{path}");
    }
    server.stop().await;
}
