//! What is spoken on a port with TLS.

use std::time::{Duration, Instant};

use http::Version;
use http_body_util::BodyExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tailmark_log::eventlog::AppendOptions;
use tailmark_record::Event;
use tailmark_wire::feed_v1 as pb;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::body::Body;

use crate::support::frames;
use crate::support::server::{TestServer, event, from_oldest, until, watch, watch_batches, within};
use crate::support::tls::{Authority, Trust, start};
use crate::support::web;

const VERSIONS: [&[&rustls::SupportedProtocolVersion]; 2] =
    [&[&rustls::version::TLS12], &[&rustls::version::TLS13]];

#[tokio::test]
async fn every_protocol_is_on_one_port() {
    let authority = Authority::new("tests");
    let (server, _dir) = start(&authority).await;
    for (at, versions) in VERSIONS.into_iter().enumerate() {
        let trust = Trust::of(&authority, None, versions);
        let mut client = trust.client(&server).await;
        let request = pb::PublishRequest { event: Some(event("a", "x")), expected_head: None };
        let stored = within("publish", client.publish(request)).await.unwrap().into_inner();
        assert_eq!(stored.seq, 4 * at as u64 + 1);
        let upload = tokio_stream::iter([event("a", "y")]);
        within("upload", client.upload_events(upload)).await.unwrap();
        let request = pb::WatchRequest { start: from_oldest(), ..Default::default() };
        let mut one = watch(&mut client, request.clone()).await.unwrap();
        assert_eq!(one.event().await.seq, 1);
        let mut batches = watch_batches(&mut client, request).await.unwrap();
        assert_eq!(batches.event().await.seq, 1);
        // Plain HTTP, both versions of it, and whether or not the client says which.
        for (alpn, version) in [
            (&["h2"][..], Version::HTTP_2),
            (&["http/1.1"][..], Version::HTTP_11),
            (&["h2", "http/1.1"][..], Version::HTTP_2),
            (&[][..], Version::HTTP_11),
            (&[][..], Version::HTTP_2),
        ] {
            let log = ask(&trust.clone().alpn(alpn), &server, version, "GET", "/v1/log", b"").await;
            assert!(log.contains("head_seq"), "{alpn:?} {version:?}: {log}");
        }
        let stored =
            ask(&trust, &server, Version::HTTP_11, "POST", "/v1/events", b"{\"topic\":\"a\"}");
        assert!(stored.await.contains("\"stored\":\"1\""));
        let page = ask(&trust, &server, Version::HTTP_11, "GET", "/", b"").await;
        assert!(page.contains("<html"), "{page}");
        let publish = pb::PublishRequest { event: Some(event("a", "z")), expected_head: None };
        let path = "/feed.v1.FeedService/Publish";
        let framed = frames::framed(&publish);
        let answer = ask(&trust, &server, Version::HTTP_11, "POST", path, &framed).await;
        assert!(answer.contains("grpc-status:0"), "{answer}");
        let sse = "/v1/watch?from=oldest&limit=1&until_caught_up=true";
        let sse = ask(&trust, &server, Version::HTTP_11, "GET", sse, b"").await;
        assert!(sse.contains("\"seq\":\"1\""), "{sse}");
    }
    assert_eq!(server.head(), 8);
    server.stop().await;
}

#[tokio::test]
async fn what_is_spoken_is_agreed_on() {
    let authority = Authority::new("tests");
    let (server, _dir) = start(&authority).await;
    for (alpn, agreed) in [
        (&["h2", "http/1.1"][..], Some("h2")),
        // The server's preference counts.
        (&["http/1.1", "h2"][..], Some("h2")),
        (&["http/1.1"][..], Some("http/1.1")),
        (&[][..], None),
    ] {
        let stream = Trust::new(&authority).alpn(alpn).connect(server.address).await.unwrap();
        let protocol = stream.get_ref().1.alpn_protocol();
        assert_eq!(protocol, agreed.map(str::as_bytes), "{alpn:?}");
    }
    let error = Trust::new(&authority).alpn(&["spdy/3"]).connect(server.address).await.unwrap_err();
    assert!(error.to_string().contains("NoApplicationProtocol"), "{error}");
    server.stop().await;
}

/// What hyper leaves undone about the end of a connection holds with TLS, too.
#[tokio::test]
async fn the_end_of_a_connection_is_announced_and_its_answer_is_whole() {
    let authority = Authority::new("tests");
    let (server, _dir) = start(&authority).await;
    for versions in VERSIONS {
        let trust = Trust::of(&authority, None, versions);
        // Half-closed by the client: the answer comes all the same, and then the end.
        let mut stream = trust.connect(server.address).await.unwrap();
        let host = server.address;
        let head = format!("GET /v1/log HTTP/1.1\r\nhost: {host}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        within("shut", stream.shutdown()).await.unwrap();
        let mut answer = String::new();
        // An end without close_notify were an error here.
        within("answer", stream.read_to_string(&mut answer)).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("}\n"), "{answer}");
        // What cannot be read is answered in words, behind a body that nobody reads.
        let mut stream = trust.connect(server.address).await.unwrap();
        let head = format!(
            "POST /nowhere HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-length: 3000000\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&vec![b'x'; 3_000_000]).await.unwrap();
        stream.flush().await.unwrap();
        let mut answer = String::new();
        within("answer", stream.read_to_string(&mut answer)).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
        let mut stream = trust.connect(server.address).await.unwrap();
        stream.write_all(b"nonsense\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        within("answer", stream.read_to_string(&mut answer)).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("reason"), "{answer}");
    }
    server.stop().await;
}

/// Whatever is encrypted and not sent when a socket is full is sent when it has room.
#[tokio::test]
async fn a_long_replay_comes_whole_over_sockets_that_fill_up() {
    const WATCHES: usize = 12;
    const EVENTS: u64 = 3_000;
    let authority = Authority::new("tests");
    let (server, _dir) = start(&authority).await;
    let body = "x".repeat(1_000);
    for _ in 0..EVENTS / 1_000 {
        let mut batch = server.log.batch();
        for _ in 0..1_000 {
            let event = Event { topic: "a", body: &body, ..Event::default() };
            batch.push(&event).unwrap();
        }
        server.log.append(batch, AppendOptions::default()).await.unwrap();
    }
    // So many on one connection that what they write is collected.
    let mut client = Trust::new(&authority).client(&server).await;
    let request = pb::WatchRequest { start: from_oldest(), ..Default::default() };
    let mut watches = Vec::new();
    for at in 0..WATCHES {
        watches.push(match at % 2 {
            0 => watch(&mut client, request.clone()).await.unwrap(),
            _ => watch_batches(&mut client, request.clone()).await.unwrap(),
        });
    }
    let mut reading = tokio::task::JoinSet::new();
    for mut watching in watches {
        // All at once: what one stream does not take holds the window of the others.
        reading.spawn(async move {
            for seq in 1..=EVENTS + 1 {
                assert_eq!(watching.event().await.seq, seq);
            }
            watching
        });
    }
    until("all read", || server.log.status().counters.reads_recent > 0).await;
    server.store("a", 1).await;
    let watches = within("all of it", reading.join_all()).await;
    // One reader of plain HTTP that takes nothing for a while.
    let mut stream = Trust::new(&authority).connect(server.address).await.unwrap();
    let host = server.address;
    let path = "/v1/watch?from=oldest&until_caught_up=true";
    let head = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let mut text = String::new();
    within("all of it", stream.read_to_string(&mut text)).await.unwrap();
    assert_eq!(text.matches("\"seq\":").count() as u64, EVENTS + 1);
    drop(watches);
    server.stop().await;
}

/// Who is gone without a word costs his stream at once, and who has only said all is answered.
#[tokio::test]
async fn who_is_gone_is_noticed() {
    let authority = Authority::new("tests");
    let (server, _dir) = start(&authority).await;
    let trust = Trust::new(&authority);
    let head = format!("GET /v1/watch HTTP/1.1\r\nhost: {}\r\n\r\n", server.address);
    let begin = || async {
        let mut stream = trust.connect(server.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut some = [0; 64];
        assert!(within("head", stream.read(&mut some)).await.unwrap() > 0);
        stream
    };
    let mut announced = begin().await;
    let torn = begin().await;
    let gauges = server.gauges.clone();
    until("two watches", || gauges.watches() == 2).await;
    let begun = Instant::now();
    drop(torn.into_inner().0);
    until("one left", || gauges.watches() == 1).await;
    // Before a sign of life, each 15 s, could not be sent.
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    // Half-closed: it may be waiting for what comes, and gone is whoever does not take it.
    within("shut", announced.shutdown()).await.unwrap();
    assert_eq!(gauges.watches(), 1);
    drop(announced);
    until("none left", || gauges.watches() == 0).await;
    server.stop().await;
}

/// One request on a connection of its own; the answer's body as text.
async fn ask(
    trust: &Trust,
    server: &TestServer,
    version: Version,
    method: &str,
    path: &str,
    body: &[u8],
) -> String {
    let is_grpc = path.starts_with("/feed");
    let content_type = if is_grpc { "application/grpc-web+proto" } else { "application/json" };
    let uri = format!("https://{}{path}", server.address);
    let request = http::Request::builder().method(method).uri(uri);
    let request = request.header("content-type", content_type);
    let mut request = request.body(web::full(body.to_vec())).unwrap();
    let stream = TokioIo::new(trust.connect(server.address).await.unwrap());
    let response = if version == Version::HTTP_2 {
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake::<_, _, Body>(TokioExecutor::new(), stream)
                .await
                .unwrap();
        tokio::spawn(connection);
        within("response", sender.send_request(request)).await.unwrap()
    } else {
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake::<_, Body>(stream).await.unwrap();
        tokio::spawn(connection);
        request.headers_mut().insert("host", server.address.to_string().parse().unwrap());
        *request.uri_mut() = path.parse().unwrap();
        within("response", sender.send_request(request)).await.unwrap()
    };
    assert!(response.status().is_success(), "{path}: {}", response.status());
    let body = within("body", response.into_body().collect()).await.unwrap().to_bytes();
    String::from_utf8_lossy(&body).into_owned()
}
