//! The limits table: each row at the limit, and one over.

mod large;

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use tailmark::server::Options;
use tailmark_wire::feed_v1 as pb;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::{Code, Status};

use crate::support::raw;
use crate::support::server::{
    Watching, event, expect, new_log, start, start_with, until, watch, within,
};

#[track_caller]
fn over(status: &Status, what: &str, limit: usize, actual: usize) -> HashMap<String, String> {
    let info = expect(status, Code::ResourceExhausted, "LIMIT_EXCEEDED");
    let (limit, actual) = (limit.to_string(), actual.to_string());
    assert_eq!(
        (info["what"].as_str(), &info["limit"], &info["actual"]),
        (what, &limit, &actual),
        "{status:?}"
    );
    info
}

#[tokio::test]
async fn fields_of_an_event() {
    let server = start().await;
    let mut client = server.client().await;
    let text = |len: usize| "x".repeat(len);
    let headers = |count: usize, len: usize| -> HashMap<String, String> {
        // Names of four bytes.
        (0..count).map(|at| (format!("h{at:03}"), "v".repeat(len))).collect()
    };
    let base = || event("a", "b");
    // A topic and a body of n bytes cost n bytes, two tags and two lengths.
    let of_size = |size: usize| event("a", &text(size - 3 - 4));
    for (good, bad, what, limit, actual) in [
        (event(&text(255), ""), event(&text(256), ""), "topic", 255, 256),
        (
            event(&["x"; 32].join("."), ""),
            event(&["x"; 33].join("."), ""),
            "topic_segments",
            32,
            33,
        ),
        (
            pb::Event { id: text(255), ..base() },
            pb::Event { id: text(256), ..base() },
            "id",
            255,
            256,
        ),
        (
            pb::Event { r#type: text(255), ..base() },
            pb::Event { r#type: text(256), ..base() },
            "type",
            255,
            256,
        ),
        (
            pb::Event { key: text(255), ..base() },
            pb::Event { key: text(256), ..base() },
            "key",
            255,
            256,
        ),
        (
            pb::Event { headers: headers(32, 0), ..base() },
            pb::Event { headers: headers(33, 0), ..base() },
            "headers",
            32,
            33,
        ),
        (
            pb::Event { headers: headers(32, 252), ..base() },
            {
                let mut headers = headers(32, 252);
                headers.insert("h000".to_owned(), "v".repeat(253));
                pb::Event { headers, ..base() }
            },
            "header_bytes",
            8_192,
            8_193,
        ),
        (of_size(1 << 20), of_size((1 << 20) + 1), "event", 1 << 20, (1 << 20) + 1),
    ] {
        let publish = |event| pb::PublishRequest { event: Some(event), expected_head: None };
        client.publish(publish(good.clone())).await.unwrap();
        over(&client.publish(publish(bad.clone())).await.unwrap_err(), what, limit, actual);
        let upload = client.upload_events(tokio_stream::iter([good, bad])).await;
        let info = over(&upload.unwrap_err(), what, limit, actual);
        assert_eq!((info["index"].as_str(), info["received"].as_str()), ("1", "1"));
    }
    server.stop().await;
}

#[tokio::test]
async fn patterns_of_a_watch() {
    let server = start().await;
    let mut client = server.client().await;
    let request = |topic: &str, count: usize| pb::WatchRequest {
        topic: topic.into(),
        topics: (0..count).map(|at| format!("t.{at}")).collect(),
        ..Default::default()
    };
    for good in [request("", 64), request("a", 63), request(&"x".repeat(255), 0)] {
        watch(&mut client, good).await.unwrap();
    }
    for bad in [request("", 65), request("a", 64)] {
        let status = watch(&mut client, bad).await.err().unwrap();
        over(&status, "patterns_per_watch", 64, 65);
    }
    watch(&mut client, request(&["*"; 32].join("."), 0)).await.unwrap();
    let status = watch(&mut client, request(&["*"; 33].join("."), 0)).await.err().unwrap();
    over(&status, "topic_segments", 32, 33);
    let status = watch(&mut client, request(&"x".repeat(256), 0)).await.err().unwrap();
    over(&status, "topic", 255, 256);
    server.stop().await;
}

/// A message that is nothing but a field that nobody knows.
fn padded(len: usize) -> Bytes {
    let mut bytes = b"\xa2\x06".to_vec();
    let rest = len - bytes.len() - 3;
    assert!((1 << 14..1 << 21).contains(&rest));
    bytes.extend((0..3).map(|at| (rest >> (7 * at)) as u8 & 0x7f | (u8::from(at < 2) << 7)));
    bytes.resize(len, 0);
    bytes.into()
}

#[tokio::test]
async fn a_message_on_the_wire() {
    let server = start().await;
    let limit = 10 << 20;
    // An unknown field of any size: the message is fine but for its length.
    let message = |len: usize| {
        let mut bytes = b"\x12\x01a\xa2\x06".to_vec();
        let rest = len - bytes.len() - 4;
        assert!((1 << 21..1 << 28).contains(&rest));
        bytes.extend((0..4).map(|at| (rest >> (7 * at)) as u8 & 0x7f | (u8::from(at < 3) << 7)));
        bytes.resize(len, 0);
        Bytes::from(bytes)
    };
    raw::upload(server.channel().await, vec![message(limit)]).await.unwrap();
    assert_eq!(server.head(), 1);
    let small = Bytes::from_static(b"\x12\x01a");
    let messages = vec![small.clone(), small.clone(), message(limit + 1), small];
    let status = raw::upload(server.channel().await, messages).await.unwrap_err();
    let info = over(&status, "message_bytes", limit, limit + 1);
    assert_eq!((info["index"].as_str(), info["received"].as_str()), ("2", "2"));
    assert_eq!(server.head(), 3);

    // What holds one event has room for one, and what asks a question for its patterns.
    let question = (64 << 10) + 64 * 264;
    let event = 1 << 20;
    for (method, limit, (what, said)) in [
        // Told by what its sender can change, or ask to have changed.
        ("Publish", (64 << 10) + event, ("event", event)),
        ("GetLog", question, ("message_bytes", question)),
        ("Watch", question, ("message_bytes", question)),
        ("Trim", question, ("message_bytes", question)),
    ] {
        let message = padded(limit + 1);
        let status = raw::call(server.channel().await, method, message).await.unwrap_err();
        over(&status, what, said, limit + 1);
        let names_setting = status.message().contains("(limits.event_bytes)");
        assert_eq!(names_setting, method == "Publish", "{status:?}");
    }
    let bytes = raw::call(server.channel().await, "GetLog", padded(question)).await.unwrap();
    assert!(!bytes.is_empty());
    server.stop().await;
}

/// As many watches as asked for, on one connection.
async fn watches(client: &crate::support::server::Client, count: usize) -> Vec<Watching> {
    let opening = (0..count).map(|_| {
        let mut client = client.clone();
        tokio::spawn(async move { watch(&mut client, pb::WatchRequest::default()).await })
    });
    let opening: Vec<_> = opening.collect();
    let mut open = Vec::with_capacity(count);
    for watching in opening {
        open.push(watching.await.unwrap().unwrap());
    }
    open
}

#[tokio::test]
async fn watches_of_a_connection_and_a_publish_beside_them() {
    let server = start().await;
    let mut client = server.client().await;
    let mut open = watches(&client, 1_000).await;
    assert_eq!(server.gauges.watches(), 1_000);
    let status = watch(&mut client, pb::WatchRequest::default()).await.err().unwrap();
    over(&status, "watches_per_connection", 1_000, 1_001);
    // Another connection has its own thousand.
    let mut other = server.client().await;
    watch(&mut other, pb::WatchRequest::default()).await.unwrap();
    let request = pb::PublishRequest { event: Some(event("a", "x")), expected_head: None };
    let published = within("publish", client.publish(request)).await.unwrap().into_inner();
    assert_eq!(published.seq, 1);
    for watching in &mut open {
        assert_eq!(watching.event().await.seq, 1);
    }
    // One goes, one may come.
    open.pop();
    until("a watch less", || server.gauges.watches() <= 999).await;
    watch(&mut client, pb::WatchRequest::default()).await.unwrap();
    drop(open);
    server.stop().await;
}

#[tokio::test]
async fn a_connection_that_does_not_say_what_it_speaks_is_closed() {
    let options = Options { preface_timeout: Duration::from_millis(100), ..Default::default() };
    let server = start_with(new_log(), options).await;
    for first in [&b""[..], b"PRI * HT"] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(first).await.unwrap();
        let mut byte = [0];
        assert!(matches!(within("close", stream.read(&mut byte)).await, Ok(0) | Err(_)));
    }
    until("no connection", || server.gauges.connections() == 0).await;
    server.stop().await;
}

#[tokio::test]
async fn streams_of_a_connection_are_announced() {
    // SETTINGS_MAX_CONCURRENT_STREAMS is 3, its value 1,100; RFC 9113 section 6.5.
    let server = start().await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
    let mut head = [0; 9];
    within("settings", stream.read_exact(&mut head)).await.unwrap();
    assert_eq!(head[3], 4);
    let len = usize::from(head[1]) << 8 | usize::from(head[2]);
    let mut settings = vec![0; len];
    within("settings", stream.read_exact(&mut settings)).await.unwrap();
    let value = settings.chunks(6).find(|entry| entry[..2] == [0, 3]).unwrap();
    assert_eq!(value[2..], 1_100_u32.to_be_bytes());
    drop(stream);
    server.stop().await;
}

#[tokio::test]
async fn a_unary_call_without_a_deadline_has_ours() {
    use std::sync::Arc;
    use tailmark_log::storage::memory::Options as MemoryOptions;
    let hold = MemoryOptions { hold: true, ..Default::default() };
    let engine = crate::support::server::memory(crate::support::server::generations(&[1]), hold);
    let log = crate::support::server::open(Arc::new(engine), Default::default());
    let options = Options { unary_deadline: Duration::from_millis(50), ..Default::default() };
    let server = start_with(log, options).await;
    let request = pb::PublishRequest { event: Some(event("a", "x")), expected_head: None };
    let status = within("publish", server.client().await.publish(request)).await.unwrap_err();
    expect(&status, Code::DeadlineExceeded, "DEADLINE");
    server.stop().await;
}

#[tokio::test]
async fn a_batch_of_the_wire_is_split_at_its_limits_not_refused() {
    use std::sync::Arc;
    use tailmark_log::eventlog;
    use tailmark_record::Limits;
    let limits = Limits { batch_events: 3, ..Default::default() };
    let engine = crate::support::server::memory(
        crate::support::server::generations(&[1]),
        Default::default(),
    );
    let options = eventlog::Options { limits, ..Default::default() };
    let log = crate::support::server::open(Arc::new(engine), options);
    // What may be in flight is less than what is sent.
    let options = Options { stream_in_flight_bytes: 4 << 10, ..Default::default() };
    let server = start_with(log, options).await;
    let events: Vec<_> = (0..50).map(|at| event("a", &format!("{at:01000}"))).collect();
    let upload = server.client().await.upload_events(tokio_stream::iter(events)).await;
    let result = upload.unwrap().into_inner();
    assert_eq!((result.received, result.stored, result.last_seq), (50, 50, 50));
    server.stop().await;
}

#[tokio::test]
async fn bytes_in_flight_hold_a_stream_back() {
    use std::sync::Arc;
    use tailmark_log::storage::memory::Options as MemoryOptions;
    let hold = MemoryOptions { hold: true, ..Default::default() };
    let engine =
        Arc::new(crate::support::server::memory(crate::support::server::generations(&[1]), hold));
    let log = crate::support::server::open(engine.clone(), Default::default());
    let options = Options { stream_in_flight_bytes: 64 << 10, ..Default::default() };
    let server = start_with(log, options).await;
    // Far more than may be in flight and the windows of HTTP/2 take together.
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let mut client = server.client().await;
    let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let uploading = tokio::spawn(async move { client.upload_events(stream).await });
    let sending = tokio::spawn(async move {
        for _ in 0..64 {
            sender.send(event("a", &"x".repeat(256 << 10))).await.unwrap();
        }
    });
    until("a commit under way", || engine.held() > 0).await;
    // Nothing is durable, so the client cannot have got rid of all of it.
    let mut other = server.client().await;
    for _ in 0..20 {
        other.get_log(pb::GetLogRequest {}).await.unwrap();
    }
    assert!(!sending.is_finished());
    until("the end of the upload", || {
        engine.release();
        uploading.is_finished()
    })
    .await;
    assert_eq!(uploading.await.unwrap().unwrap().into_inner().received, 64);
    sending.await.unwrap();
    server.stop().await;
}
