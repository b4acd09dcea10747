//! Answers and bodies in gzip.

use std::io::Write;

use flate2::Compression;
use flate2::write::{GzDecoder, GzEncoder};
use http::{Request, Version};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tailmark::server::Options;
use tonic::body::Body;

use crate::support::server::{TestServer, new_log, start, start_with, until, within};
use crate::support::web::{BOTH, ask, full, get, pieces, request, send, with};

const JSON: &str = "application/json";
const LINES: &str = "application/x-ndjson";
/// Of one address.
const MOST: usize = 64;
/// What each is counted as.
const ENCODER_BYTES: usize = if cfg!(feature = "zstd") { 640 << 10 } else { 336 << 10 };

fn zip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn unzip(coded: &[u8]) -> Vec<u8> {
    let mut decoder = GzDecoder::new(Vec::new());
    decoder.write_all(coded).unwrap();
    decoder.finish().unwrap()
}

fn zipped(server: &TestServer, path: &str) -> Request<Body> {
    with(request(server, "GET", path), &[("accept-encoding", "gzip")])
}

fn post(server: &TestServer, kind: &str, coding: &str, body: impl Into<Body>) -> Request<Body> {
    let headers = [("content-type", kind), ("content-encoding", coding)];
    let mut post = with(request(server, "POST", "/v1/events"), &headers);
    *post.body_mut() = body.into();
    post
}

#[tokio::test]
async fn an_answer_is_coded_for_who_takes_it_and_is_the_same() {
    let server = start().await;
    for at in 0..100 {
        server.store(&format!("a.topic.of.some.length.{at}"), 1).await;
    }
    for version in BOTH {
        for path in ["/v1/topics", "/openapi.json"] {
            let plain = ask(server.address, version, request(&server, "GET", path)).await;
            assert_eq!((plain.header("content-encoding"), plain.status.as_u16()), ("", 200));
            let coded = ask(server.address, version, zipped(&server, path)).await;
            if plain.headers.contains_key("etag") {
                assert_eq!(coded.body, plain.body, "{path}");
                continue;
            }
            assert_eq!(plain.header("vary"), "accept-encoding", "{path}");
            assert_eq!(coded.header("vary"), "accept-encoding");
            assert_eq!(coded.header("content-encoding"), "gzip", "{path}");
            assert_eq!(coded.header("content-type"), plain.header("content-type"));
            assert!(coded.body.len() * 3 < plain.body.len(), "{}", coded.body.len());
            assert_eq!(unzip(&coded.body), plain.body, "{path}");
        }
        let metrics = ask(server.address, version, zipped(&server, "/metrics")).await;
        let text = String::from_utf8(unzip(&metrics.body)).unwrap();
        assert!(text.contains("tailmark_memory_bytes{kind=\"coded\"} 0\n"), "{text}");
        // What is short is sent as it is.
        let short = ask(server.address, version, zipped(&server, "/v1/events/1")).await;
        assert_eq!(
            (short.header("content-encoding"), short.header("vary")),
            ("", "accept-encoding")
        );
        assert_eq!(short.json()["seq"], "1");
    }
    server.stop().await;
}

/// Reads until the text ends so.
async fn read_until(body: &mut Incoming, decoder: &mut GzDecoder<Vec<u8>>, end: &str) -> String {
    loop {
        let text = String::from_utf8_lossy(decoder.get_ref()).into_owned();
        if text.ends_with(end) {
            return text;
        }
        let frame = within("a frame", body.frame()).await.expect("more").unwrap();
        decoder.write_all(&frame.into_data().unwrap()).unwrap();
        decoder.flush().unwrap();
    }
}

#[tokio::test]
async fn a_watch_in_gzip_is_live() {
    let server = start().await;
    for version in BOTH {
        let from = server.head();
        let path = format!("/v1/watch?topic=live&after_cursor={}", server.cursor(from));
        let answer = send(server.address, version, zipped(&server, &path)).await;
        assert_eq!(answer.headers()["content-encoding"], "gzip");
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        let (mut body, mut decoder) = (answer.into_body(), GzDecoder::new(Vec::new()));
        for at in 1..=5 {
            server.store("live", 1).await;
            let seq = format!("\"seq\":\"{}\"", from + at);
            let text = read_until(&mut body, &mut decoder, "\n\n").await;
            // The id of the start may have come alone.
            if !text.contains(&seq) {
                decoder.get_mut().clear();
                let text = read_until(&mut body, &mut decoder, "\n\n").await;
                assert!(text.contains(&seq), "{text}");
            }
            decoder.get_mut().clear();
        }
    }
    let path = "/v1/watch?from=oldest&until_caught_up";
    let coded = ask(server.address, Version::HTTP_11, zipped(&server, path)).await;
    let plain = ask(server.address, Version::HTTP_11, request(&server, "GET", path)).await;
    // All but the marker, which says when it was.
    let events = |body: &[u8]| -> Vec<String> {
        let text = String::from_utf8(body.to_vec()).unwrap();
        text.split("\n\n").filter(|one| !one.contains("marker")).map(str::to_owned).collect()
    };
    let plain = events(&plain.body);
    assert_eq!((events(&unzip(&coded.body)), plain.len()), (plain.clone(), 13));
    server.stop().await;
}

#[tokio::test]
async fn one_that_is_too_many_is_sent_as_it_is() {
    let server = start().await;
    let coding = |answer: &http::Response<Incoming>| {
        answer.headers().get("content-encoding").map(|value| value.to_str().unwrap().to_owned())
    };
    let mut open = Vec::new();
    for at in 0..MOST {
        let version = BOTH[at % 2];
        let answer = send(server.address, version, zipped(&server, "/v1/watch")).await;
        assert_eq!(coding(&answer).as_deref(), Some("gzip"), "{at}");
        open.push(answer);
    }
    let plain = send(server.address, Version::HTTP_11, zipped(&server, "/v1/watch")).await;
    assert_eq!((plain.status().as_u16(), coding(&plain)), (200, None));
    let metrics = get(&server, "/metrics").await;
    let held = format!("tailmark_memory_bytes{{kind=\"coded\"}} {}\n", MOST * ENCODER_BYTES);
    assert!(metrics.text().contains(&held), "{}", metrics.text());
    // Bodies have places of their own, whoever reads.
    let body = zip(b"{\"topic\":\"a\"}");
    let taken = ask(server.address, Version::HTTP_11, post(&server, JSON, "gzip", full(body)));
    assert_eq!(taken.await.status, 200);
    drop(open);
    until("they have gone", || server.gauges.watches() == 1).await;
    let again = send(server.address, Version::HTTP_11, zipped(&server, "/v1/watch")).await;
    assert_eq!(coding(&again).as_deref(), Some("gzip"));
    drop((plain, again));
    server.stop().await;
}

/// Bodies in gzip that have begun and go on.
async fn begun(server: &TestServer, count: usize) -> Vec<tokio::task::JoinHandle<u16>> {
    let mut open = Vec::new();
    for at in 0..count {
        let (sender, body) = pieces();
        sender.send(zip(b"{\"topic\":\"held\"}\n").into()).unwrap();
        let asked = post(server, LINES, "gzip", body);
        let address = server.address;
        open.push(tokio::spawn(async move {
            let _open = sender;
            send(address, BOTH[at % 2], asked).await.status().as_u16()
        }));
    }
    open
}

#[tokio::test]
async fn bodies_in_gzip_have_a_limit_of_their_own() {
    let server = start().await;
    let open = begun(&server, 256).await;
    until("they have begun", || server.head() == 256).await;
    let refused = post(&server, JSON, "gzip", full(zip(b"{\"topic\":\"a\"}")));
    let refused = ask(server.address, Version::HTTP_11, refused).await;
    let metadata = refused.expect(429, "RESOURCE_EXHAUSTED", "LIMIT_EXCEEDED");
    assert_eq!(metadata["what"], "coded_bodies_per_address");
    for one in open {
        one.abort();
    }
    server.stop().await;
}

#[tokio::test]
async fn lines_that_were_flushed_are_stored_while_the_body_is_open() {
    let server = start().await;
    let (sender, body) = pieces();
    let asked = post(&server, LINES, "gzip", body);
    let answer = tokio::spawn({
        let address = server.address;
        async move { ask(address, Version::HTTP_11, asked).await.status.as_u16() }
    });
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    let mut lines = 0;
    // More than is made of it at a time, and exactly as much.
    for size in [1, 10, 3_000, 16_384, 40_000] {
        for _ in 0..size {
            encoder.write_all(b"{\"topic\":\"a\"}\n").unwrap();
        }
        encoder.flush().unwrap();
        sender.send(std::mem::take(encoder.get_mut()).into()).unwrap();
        lines += size;
        until("they are stored", || server.head() == lines).await;
    }
    sender.send(encoder.finish().unwrap().into()).unwrap();
    drop(sender);
    assert_eq!(within("the answer", answer).await.unwrap(), 200);
    server.stop().await;
}

#[tokio::test]
async fn events_in_gzip_are_stored_however_they_come() {
    let server = start().await;
    let lines: Vec<u8> = (0..200)
        .flat_map(|at| format!("{{\"topic\":\"a\",\"body\":\"number {at}\"}}\n").into_bytes())
        .collect();
    // Two members one after the other are one body (RFC 1952, section 2.2).
    let (first, second) = lines.split_at(lines.len() / 2);
    let members = [zip(first), zip(second)].concat();
    for (coding, body) in [("gzip", zip(&lines)), ("X-GZip", zip(&lines)), ("gzip", members)] {
        for size in [1, 7, 1_000, usize::MAX] {
            let head = server.head();
            let (sender, body_of_pieces) = pieces();
            for piece in body.chunks(size.min(body.len())) {
                sender.send(piece.to_vec().into()).unwrap();
            }
            drop(sender);
            let asked = post(&server, LINES, coding, body_of_pieces);
            let answer = ask(server.address, Version::HTTP_11, asked).await;
            assert_eq!(answer.status, 200, "{coding}, {size}: {}", answer.text());
            assert_eq!(server.head(), head + 200);
        }
    }
    let one = post(&server, JSON, "gzip", full(zip(b"{\"topic\":\"a\",\"body\":\"alone\"}")));
    let answer = ask(server.address, Version::HTTP_2, one).await;
    assert_eq!(answer.json()["received"], 1, "{}", answer.text());
    let cloud = b"{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"/s\",\"type\":\"a.b\"}";
    let cloud = post(&server, "application/cloudevents+json", "gzip", full(zip(cloud)));
    let answer = ask(server.address, Version::HTTP_2, cloud).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    server.stop().await;
}

#[tokio::test]
async fn what_is_no_gzip_is_told_and_lines_before_it_stay() {
    let server = start().await;
    let lines = b"{\"topic\":\"a\",\"body\":\"x\"}\n".repeat(1_000);
    let whole = zip(&lines);
    let mut flipped = whole.clone();
    let at = flipped.len() - 6;
    flipped[at] ^= 1;
    for (body, is_in_part) in [
        (b"{\"topic\":\"a\"}".to_vec(), false),
        (Vec::new(), false),
        (whole[..5].to_vec(), false),
        (whole[..whole.len() - 4].to_vec(), true),
        (flipped, true),
        ([whole.clone(), b"more".to_vec()].concat(), true),
    ] {
        let head = server.head();
        let asked = post(&server, LINES, "gzip", full(body));
        let answer = ask(server.address, Version::HTTP_11, asked).await;
        let metadata = answer.expect(400, "INVALID_ARGUMENT", "EVENT_MALFORMED");
        assert_eq!(metadata["content-encoding"], "gzip");
        let stored = if is_in_part { 1_000 } else { 0 };
        assert_eq!(server.head(), head + stored, "{}", answer.text());
    }
    server.stop().await;
}

#[tokio::test]
async fn a_bomb_is_told_that_it_is_too_large() {
    let options = Options { message_bytes: 64 << 10, ..Options::default() };
    let server = start_with(new_log(), options).await;
    let lines = b"\n".repeat(8 << 20);
    let zeros = vec![0; 8 << 20];
    for (kind, plain, what) in [
        (LINES, &lines, "decoded_bytes"),
        (LINES, &zeros, "message_bytes"),
        (JSON, &zeros, "message_bytes"),
    ] {
        let asked = post(&server, kind, "gzip", full(zip(plain)));
        let answer = ask(server.address, Version::HTTP_11, asked).await;
        let metadata = answer.expect(413, "RESOURCE_EXHAUSTED", "LIMIT_EXCEEDED");
        assert_eq!(metadata["what"], what);
    }
    assert_eq!(server.head(), 0);
    server.stop().await;
}
