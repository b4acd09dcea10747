//! What lies below gRPC: who is let in, streams that are given up, and clients that stall.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use tailmark::server::Options;
use tailmark_wire::feed_v1::{self as pb, trim_request::Before};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::Code;

use crate::support::frames::{self, Frames};
use crate::support::server::{
    DEADLINES, TestServer, event, expect, from_oldest, new_log, start, start_with, until, watch,
    within,
};

/// Calls that change the log, ready to be sent.
fn changes() -> [(&'static str, Bytes); 3] {
    let publish = pb::PublishRequest { event: Some(event("a", "x")), expected_head: None };
    let trim = pb::TrimRequest { before: Some(Before::Seq(4)) };
    [
        ("Publish", frames::framed(&publish)),
        ("UploadEvents", frames::framed(&event("a", "x"))),
        ("Trim", frames::framed(&trim)),
    ]
}

/// gRPC-Web has tests of its own.
const NOT_GRPC: [&str; 5] = [
    "",
    "text/plain",
    "application/json",
    "application/x-www-form-urlencoded",
    "application/grpc-web+json",
];

#[track_caller]
fn unchanged(server: &TestServer, what: &str) {
    let bounds = server.log.bounds();
    assert_eq!((bounds.oldest.get(), bounds.head.get()), (1, 5), "{what}");
}

#[tokio::test]
async fn nothing_but_grpc_reaches_a_service() {
    let server = start().await;
    server.store("a", 5).await;
    for (method, body) in changes() {
        for content_type in NOT_GRPC.into_iter().chain(["application/grpc"]) {
            let mut request = format!(
                "POST /feed.v1.FeedService/{method} HTTP/1.1\r\nhost: {}\r\n\
                 connection: close\r\ncontent-length: {}\r\n",
                server.address,
                body.len()
            );
            if !content_type.is_empty() {
                request.push_str(&format!("content-type: {content_type}\r\n"));
            }
            request.push_str("\r\n");
            let mut stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
            stream.write_all(&[request.as_bytes(), &body].concat()).await.unwrap();
            let mut answer = [0; 12];
            within("answer", stream.read_exact(&mut answer)).await.unwrap();
            let code = if content_type == "application/grpc" { "505" } else { "415" };
            let expected = format!("HTTP/1.1 {code}");
            assert_eq!(&answer, expected.as_bytes(), "{method} {content_type:?}");
            unchanged(&server, content_type);
        }
        for content_type in NOT_GRPC {
            let headers = [("content-type", content_type)];
            let headers = if content_type.is_empty() { &[] } else { &headers[..] };
            let mut head = frames::head(method, headers);
            let uri = format!("http://{}/feed.v1.FeedService/{method}", server.address);
            *head.uri_mut() = uri.parse().unwrap();
            let response = frames::call(server.address, head, body.clone()).await;
            assert_eq!(response.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE, "{content_type:?}");
            unchanged(&server, content_type);
        }
    }
    // The same bytes as gRPC are a call.
    for (method, body) in changes() {
        let head = frames::head(method, &[("content-type", "application/grpc")]);
        let response = frames::call(server.address, head, body).await;
        assert_eq!(response.status(), StatusCode::OK);
    }
    until("the changes", || {
        let bounds = server.log.bounds();
        (bounds.oldest.get(), bounds.head.get()) == (4, 7)
    })
    .await;
    server.stop().await;
}

/// A watch, and so many calls that are given up in the breath in which they begin.
async fn burst(server: &TestServer, count: u32) -> Frames {
    let mut connection = Frames::connect(server.address).await;
    connection.write(&frames::begin(1, "Watch", true)).await;
    assert_eq!(connection.next_of(&[frames::HEADERS]).await.stream, 1);
    let streams = (0..count).map(|at| 3 + 2 * at);
    let burst: Vec<u8> = streams
        .flat_map(|at| [frames::begin(at, "Watch", false), frames::cancel(at)].concat())
        .collect();
    connection.write(&[burst, frames::ping()].concat()).await;
    connection
}

#[tokio::test]
async fn a_watch_outlives_a_thousand_that_are_given_up_at_once() {
    let server = start().await;
    let mut connection = burst(&server, 1_000).await;
    let next = connection.next_of(&[frames::PING, frames::GOAWAY]).await;
    assert_eq!(next.kind, frames::PING, "{:?}", String::from_utf8_lossy(&next.payload));
    server.store("a", 1).await;
    let next = connection.next_of(&[frames::DATA, frames::GOAWAY, frames::RST_STREAM]).await;
    assert_eq!((next.kind, next.stream, next.flags & 1), (frames::DATA, 1, 0));
    until("one watch", || server.gauges.watches() == 1).await;
    drop(connection);
    server.stop().await;
}

#[tokio::test]
async fn giving_up_more_than_may_be_open_ends_the_connection() {
    let options = Options { max_concurrent_streams: 8, ..Default::default() };
    let server = start_with(new_log(), options).await;
    let mut connection = burst(&server, 1_000).await;
    let goaway = connection.next_of(&[frames::GOAWAY]).await;
    // ENHANCE_YOUR_CALM.
    assert_eq!(goaway.payload[4..8], [0, 0, 0, 11]);
    // Streams run in tasks of their own.
    until("nothing is open", || server.gauges.connections() == 0 && server.gauges.watches() == 0)
        .await;
    server.stop().await;
}

#[tokio::test]
async fn a_request_that_does_not_come_to_its_end_has_a_deadline() {
    let options = Options { unary_deadline: Duration::from_millis(100), ..Default::default() };
    let ours = start_with(new_log(), options).await;
    let theirs = start().await;
    let grpc = ("content-type", "application/grpc");
    let timeout = ("grpc-timeout", "100m");
    let publish = changes()[0].1.clone();
    for (server, headers) in [(&theirs, &[grpc, timeout][..]), (&ours, &[grpc][..])] {
        for (method, body) in [
            ("Publish", Bytes::new()),
            ("Publish", publish.slice(..3)),
            ("Publish", publish.slice(..9)),
            ("Publish", publish.clone()),
            ("Watch", Bytes::new()),
            ("Watch", Bytes::from_static(&[0, 0, 0])),
        ] {
            let mut sender = frames::connect(server.address).await.ready().await.unwrap();
            let (response, mut stream) =
                sender.send_request(frames::head(method, headers), false).unwrap();
            if !body.is_empty() {
                stream.send_data(body, false).unwrap();
            }
            let response = within("response", response).await.unwrap();
            let status = frames::status(response.headers());
            expect(&status, Code::DeadlineExceeded, "DEADLINE");
            assert!(response.body().is_end_stream(), "{method}");
        }
        until("nothing is open", || server.gauges.watches() == 0).await;
        assert_eq!(server.head(), 0);
    }
    ours.stop().await;
    theirs.stop().await;
}

#[tokio::test]
async fn a_call_takes_one_message_whole() {
    let server = start().await;
    let publish = changes()[0].1.clone();
    let two = Bytes::from([&publish[..], &publish[..]].concat());
    for (method, body) in [
        ("Publish", Bytes::new()),
        ("Publish", two),
        ("Publish", publish.slice(..publish.len() - 1)),
        ("Publish", publish.slice(..2)),
        ("Watch", Bytes::new()),
        ("Watch", Bytes::from_static(&[0; 10])),
        ("GetLog", Bytes::from_static(&[9, 0, 0, 0, 0])),
        ("UploadEvents", Bytes::from_static(&[0, 0, 0, 0, 9, 1])),
        ("UploadEvents", Bytes::from_static(&[0, 0])),
    ] {
        let head = frames::head(method, &[("content-type", "application/grpc")]);
        let response = frames::call(server.address, head, body.clone()).await;
        let status = frames::status(response.headers());
        expect(&status, Code::InvalidArgument, "MESSAGE_MALFORMED");
        assert_eq!(server.head(), 0, "{method} {body:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn codings_and_methods_that_nobody_has_are_refused_in_words() {
    let server = start().await;
    let grpc = ("content-type", "application/grpc");
    let head = frames::head("Publish", &[grpc, ("grpc-encoding", "snappy")]);
    let response = frames::call(server.address, head, changes()[0].1.clone()).await;
    let status = frames::status(response.headers());
    let info = expect(&status, Code::Unimplemented, "UNIMPLEMENTED");
    assert_eq!(info["grpc-encoding"], "snappy");
    assert!(status.message().contains("messages in snappy are not taken here"), "{status:?}");
    let head = frames::head("Publish", &[grpc, ("grpc-encoding", "identity")]);
    frames::call(server.address, head, changes()[0].1.clone()).await;
    until("the event", || server.head() == 1).await;

    for path in ["/feed.v1.FeedService/Nothing", "/feed.v2.FeedService/Watch", "/grpc.x/Y"] {
        let mut head = frames::head("", &[grpc]);
        *head.uri_mut() = format!("http://x{path}").parse().unwrap();
        let response = frames::call(server.address, head, Bytes::from_static(&[0; 5])).await;
        let status = frames::status(response.headers());
        let info = expect(&status, Code::Unimplemented, "UNIMPLEMENTED");
        assert_eq!(info["method"], path);
        assert!(status.message().contains(path));
    }
    server.stop().await;
}

/// Much more than a client takes that stalls.
async fn store_much(server: &TestServer) {
    let mut client = server.client().await;
    let events = vec![event("a", &"x".repeat(512 << 10)); 16];
    client.upload_events(tokio_stream::iter(events)).await.unwrap();
}

/// A watch whose client stalls; `None` when its deadline was there first.
async fn stalled(
    server: &TestServer,
    headers: &[(&'static str, &'static str)],
) -> Option<h2::RecvStream> {
    let request = pb::WatchRequest { start: from_oldest(), ..Default::default() };
    let head = frames::head("Watch", headers);
    let response = frames::call(server.address, head, frames::framed(&request)).await;
    let mut body = response.into_body();
    // Taken, and never given back to the window.
    within("data", body.data()).await?.ok()?;
    Some(body)
}

#[tokio::test]
async fn a_stalled_watch_ends_at_its_deadline() {
    let server = start().await;
    store_much(&server).await;
    let grpc = ("content-type", "application/grpc");
    let mut held = None;
    for deadline in DEADLINES {
        held = stalled(&server, &[grpc, ("grpc-timeout", deadline)]).await;
        if (server.gauges.watches(), server.log.status().readers) == (1, 1) {
            break;
        }
    }
    let mut body = held.expect("a watch that stalls before its deadline");
    until("nothing is held", || server.gauges.watches() == 0 && server.log.status().readers == 0)
        .await;
    let error = loop {
        match within("end", body.data()).await {
            Some(Ok(_)) => {}
            Some(Err(error)) => break error,
            None => panic!("a regular end"),
        }
    };
    assert_eq!(error.reason(), Some(h2::Reason::CANCEL));
    server.stop().await;
}

#[tokio::test]
async fn a_stalled_watch_holds_nothing_when_the_grace_is_over() {
    let options = Options { shutdown_grace: Duration::from_millis(200), ..Default::default() };
    let server = start_with(new_log(), options).await;
    store_much(&server).await;
    let body = stalled(&server, &[("content-type", "application/grpc")]).await.unwrap();
    let (gauges, log) = (server.gauges.clone(), server.log.clone());
    assert_eq!((gauges.watches(), log.status().readers), (1, 1));
    server.stop().await;
    until("nothing is held", || {
        gauges.watches() == 0 && gauges.connections() == 0 && log.status().readers == 0
    })
    .await;
    drop(body);
}

#[tokio::test]
async fn one_stream_too_many_waits_for_its_turn() {
    let options = Options { max_concurrent_streams: 3, ..Default::default() };
    let server = start_with(new_log(), options).await;
    let mut client = server.client().await;
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(watch(&mut client, pb::WatchRequest::default()).await.unwrap());
    }
    let publishing = tokio::spawn(async move {
        let request = pb::PublishRequest { event: Some(event("a", "x")), expected_head: None };
        client.publish(request).await
    });
    // It does not get in beside the three, and is not refused either.
    let mut other = server.client().await;
    other.get_log(pb::GetLogRequest {}).await.unwrap();
    assert!(!publishing.is_finished() && server.head() == 0);
    open.pop();
    let published = within("publish", publishing).await.unwrap().unwrap();
    assert_eq!(published.into_inner().seq, 1);
    server.stop().await;
}
