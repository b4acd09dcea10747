//! Answers and bodies in zstd, where it is built.

use ::zstd::stream::raw::{Decoder, InBuffer, Operation, OutBuffer};
use http::Version;
use http_body_util::BodyExt;

use crate::support::server::{start, until, within};
use crate::support::web::{BOTH, ask, full, pieces, request, send, with};

const LINES: &str = "application/x-ndjson";

#[tokio::test]
async fn an_answer_is_in_zstd_for_who_wants_that_most() {
    let server = start().await;
    for at in 0..100 {
        server.store(&format!("a.topic.of.some.length.{at}"), 1).await;
    }
    for (accept, coding) in [
        ("zstd", "zstd"),
        ("gzip, deflate, br, zstd", "zstd"),
        ("gzip, zstd;q=0.5", "gzip"),
        ("gzip;q=0.5, zstd", "zstd"),
        ("zstd;q=0", ""),
        ("zstd;q=0, gzip", "gzip"),
        ("identity, zstd;q=0.5", ""),
        ("*", "gzip"),
    ] {
        let asked = with(request(&server, "GET", "/v1/topics"), &[("accept-encoding", accept)]);
        let answer = ask(server.address, Version::HTTP_11, asked).await;
        assert_eq!(answer.header("content-encoding"), coding, "{accept}");
        if coding == "zstd" {
            let plain =
                ask(server.address, Version::HTTP_11, request(&server, "GET", "/v1/topics"));
            let plain = plain.await.body;
            assert_eq!(::zstd::decode_all(&answer.body[..]).unwrap(), plain);
            assert!(answer.body.len() * 3 < plain.len());
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn a_watch_in_zstd_is_live() {
    let server = start().await;
    for version in BOTH {
        let path = format!("/v1/watch?topic=live&after_cursor={}", server.cursor(server.head()));
        let asked = with(request(&server, "GET", &path), &[("accept-encoding", "zstd")]);
        let answer = send(server.address, version, asked).await;
        assert_eq!(answer.headers()["content-encoding"], "zstd");
        let (mut body, mut decoder) = (answer.into_body(), Decoder::new().unwrap());
        let mut text = String::new();
        for _ in 0..5 {
            server.store("live", 1).await;
            let seq = format!("\"seq\":\"{}\"", server.head());
            while !text.contains(&seq) || !text.ends_with("\n\n") {
                let data = within("a frame", body.frame()).await.unwrap().unwrap();
                let data = data.into_data().unwrap();
                let mut input = InBuffer::around(&data);
                let mut out = Vec::with_capacity(64 << 10);
                let mut output = OutBuffer::around(&mut out);
                decoder.run(&mut input, &mut output).unwrap();
                text.push_str(std::str::from_utf8(&out).unwrap());
            }
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn lines_in_zstd_are_stored_as_they_come_and_a_bomb_is_told() {
    let server = start().await;
    let post = |body| {
        let headers = [("content-type", LINES), ("content-encoding", "zstd")];
        let mut post = with(request(&server, "POST", "/v1/events"), &headers);
        *post.body_mut() = body;
        post
    };
    let line = b"{\"topic\":\"a\"}\n";
    let (sender, body) = pieces();
    let answer = tokio::spawn({
        let (address, asked) = (server.address, post(body));
        async move { ask(address, Version::HTTP_11, asked).await.status.as_u16() }
    });
    for lines in 1..=3 {
        // A frame after the other.
        sender.send(::zstd::encode_all(&line.repeat(1_000)[..], 3).unwrap().into()).unwrap();
        until("they are stored", || server.head() == lines * 1_000).await;
    }
    drop(sender);
    assert_eq!(within("the answer", answer).await.unwrap(), 200);

    let bomb = ::zstd::encode_all(&b"\n".repeat(8 << 20)[..], 3).unwrap();
    let answer = ask(server.address, Version::HTTP_11, post(full(bomb))).await;
    let metadata = answer.expect(413, "RESOURCE_EXHAUSTED", "LIMIT_EXCEEDED");
    assert_eq!(metadata["what"], "decoded_bytes");
    let whole = ::zstd::encode_all(&line[..], 3).unwrap();
    for bad in [&b"nothing of it"[..], &whole[..whole.len() - 1], b""] {
        let answer = ask(server.address, Version::HTTP_11, post(full(bad.to_vec()))).await;
        let metadata = answer.expect(400, "INVALID_ARGUMENT", "EVENT_MALFORMED");
        assert_eq!(metadata["content-encoding"], "zstd");
    }
    // As many as hold a window.
    let mut open = Vec::new();
    let head = server.head();
    for at in 0..4 {
        let (sender, body) = pieces();
        sender.send(::zstd::encode_all(&line[..], 3).unwrap().into()).unwrap();
        let (address, asked) = (server.address, post(body));
        open.push(tokio::spawn(async move {
            let _open = sender;
            send(address, BOTH[at % 2], asked).await.status()
        }));
    }
    until("they have begun", || server.head() == head + 4).await;
    let refused = ask(server.address, Version::HTTP_11, post(full(whole))).await;
    let metadata = refused.expect(429, "RESOURCE_EXHAUSTED", "LIMIT_EXCEEDED");
    assert_eq!(metadata["what"], "zstd_bodies_per_address");
    open.iter().for_each(tokio::task::JoinHandle::abort);
    server.stop().await;
}
