//! `GET /v1/log`, `/v1/topics`, `/v1/events/{seq}`, `/healthz`, `/readyz`, and what is not there.

use std::sync::Arc;

use tailmark_log::storage::StoreError;
use tailmark_log::storage::memory::Options as MemoryOptions;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::broken::Broken;
use crate::support::server::{generations, memory, open, start, start_with, until, within};
use crate::support::web::{BOTH, ask, get, post, request};

#[tokio::test]
async fn the_log_and_its_topics_are_told() {
    let server = start().await;
    for topic in ["a.b", "a.c", "b"] {
        server.store(topic, 2).await;
    }
    let answer = get(&server, "/v1/log").await;
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, "application/json"));
    let log = answer.json();
    assert_eq!(log["log_id"], server.log.id().to_string());
    assert_eq!((&log["oldest_seq"], &log["head_seq"]), (&"1".into(), &"6".into()));
    assert_eq!(log["head_cursor"], server.cursor(6));
    assert_eq!(log["limits"]["patterns_per_watch"], "64");

    let page = get(&server, "/v1/topics?page_size=2").await.json();
    assert_eq!(page["topics"][0]["topic"], "a.b");
    assert_eq!(page["topics"][1]["last_seq"], "4");
    let token = page["next_page_token"].as_str().unwrap();
    let rest = get(&server, &format!("/v1/topics?page_size=2&page_token={token}")).await.json();
    assert_eq!(rest["topics"].as_array().unwrap().len(), 1);
    assert_eq!(rest["next_page_token"], serde_json::Value::Null);
    for some in ["prefix=a.", "pattern=a.*", "pattern=a.%3E&pattern=c&prefix=a"] {
        let some = get(&server, &format!("/v1/topics?{some}")).await.json();
        assert_eq!(some["topics"].as_array().unwrap().len(), 2);
    }
    for (query, field) in [
        ("page_size=-1", "page_size"),
        ("page_size=99999999999", "page_size"),
        ("page_token=zz", "page_token"),
        ("size=1", "size"),
    ] {
        let metadata = get(&server, &format!("/v1/topics?{query}")).await.expect(
            400,
            "INVALID_ARGUMENT",
            "INVALID_FIELD",
        );
        assert_eq!(metadata["field"], field);
    }
    get(&server, "/v1/log?x=1").await.expect(400, "INVALID_ARGUMENT", "INVALID_FIELD");
    server.stop().await;
}

#[tokio::test]
async fn one_event_is_read_by_seq_or_cursor() {
    let server = start().await;
    server.store("a", 5).await;
    server.trim(3).await;
    let by_seq = get(&server, "/v1/events/4").await;
    assert_eq!(by_seq.status, 200);
    assert_eq!(by_seq.json()["cursor"], server.cursor(4));
    let by_cursor = get(&server, &format!("/v1/events/{}", server.cursor(4))).await;
    assert_eq!(by_cursor.body, by_seq.body);
    let metadata = get(&server, "/v1/events/1").await.expect(400, "OUT_OF_RANGE", "CURSOR_TRIMMED");
    assert_eq!(metadata["oldest"], "3");
    let metadata = get(&server, "/v1/events/6").await.expect(404, "NOT_FOUND", "EVENT_NOT_FOUND");
    assert_eq!(metadata["head"], "5");
    for (which, reason) in [
        ("0", "INVALID_FIELD"),
        ("18446744073709551616", "INVALID_FIELD"),
        ("-1", "CURSOR_MALFORMED"),
        ("nonsense", "CURSOR_MALFORMED"),
    ] {
        get(&server, &format!("/v1/events/{which}")).await.expect(400, "INVALID_ARGUMENT", reason);
    }
    server.stop().await;
}

#[tokio::test]
async fn methods_and_paths_that_are_not_there_are_told() {
    let server = start().await;
    for version in BOTH {
        let go = |method, path| ask(server.address, version, request(&server, method, path));
        for (method, path, allow) in [
            ("POST", "/v1/watch", "GET,HEAD"),
            ("DELETE", "/v1/log", "GET,HEAD"),
            ("PUT", "/v1/topics", "GET,HEAD"),
            ("GET", "/v1/events", "POST"),
            ("POST", "/v1/events/1", "GET,HEAD"),
            ("POST", "/healthz", "GET,HEAD"),
        ] {
            let answer = go(method, path).await;
            answer.expect(405, "UNIMPLEMENTED", "METHOD_NOT_ALLOWED");
            assert_eq!(answer.header("allow"), allow, "{method} {path}");
            let options = go("OPTIONS", path).await;
            assert_eq!((options.status.as_u16(), options.header("allow")), (204, allow));
        }
        for path in [
            "/v1",
            "/v1/",
            "/v1/nothing",
            "/v1/events/1/2",
            "/v1/watch/",
            "/nothing",
            "/v2/log",
            "/v1x",
        ] {
            let metadata = go("GET", path).await.expect(404, "NOT_FOUND", "PATH_NOT_FOUND");
            assert_eq!(metadata["path"], path);
        }
        let head = go("HEAD", "/v1/log").await;
        assert_eq!((head.status.as_u16(), head.body.len()), (200, 0));
        let head = go("HEAD", "/v1/watch").await;
        assert_eq!((head.status.as_u16(), head.header("content-type")), (200, "text/event-stream"));
    }
    server.stop().await;
}

#[tokio::test]
async fn the_head_of_a_request_may_be_large_but_not_huge() {
    let server = start().await;
    let host = server.address;
    let head = |bytes: usize| {
        let start = format!("GET /healthz HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\nx: ");
        format!("{start}{}", "x".repeat(bytes - start.len()))
    };
    for (text, expected) in [
        (head(16 << 10) + "\r\n\r\n", "HTTP/1.1 200 "),
        (head(60 << 10) + "\r\n\r\n", "HTTP/1.1 200 "),
        // As much as is read at most, and not over yet.
        (head(64 << 10), "HTTP/1.1 431 "),
    ] {
        let mut stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
        within("send", stream.write_all(text.as_bytes())).await.unwrap();
        let mut answer = String::new();
        within("answer", stream.read_to_string(&mut answer)).await.unwrap();
        assert!(answer.starts_with(expected), "{} bytes: {answer}", text.len());
    }
    server.stop().await;
}

#[tokio::test]
async fn ready_means_that_events_are_taken() {
    let engine = memory(generations(&[1]), MemoryOptions::default());
    let engine = Arc::new(Broken::whole(engine));
    let server = start_with(open(engine.clone(), Default::default()), Default::default()).await;
    for path in ["/healthz", "/readyz"] {
        let answer = get(&server, path).await;
        assert_eq!((answer.status.as_u16(), answer.text()), (200, "ok\n"), "{path}");
    }
    engine.fail_next(StoreError::Stopped { reason: "a write failed".into() });
    let failed = post(&server, "application/json", "{\"topic\":\"a\"}").await;
    assert_eq!(failed.status, 500, "{}", failed.text());
    until("the stop", || !server.log.takes_events()).await;
    get(&server, "/readyz").await.expect(503, "UNAVAILABLE", "STORE_STOPPED");
    assert_eq!(get(&server, "/healthz").await.status, 200);
    server.stop().await;
}
