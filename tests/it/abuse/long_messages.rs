//! The room for long messages: who claims much and sends little takes nothing from others, and who
//! stalls gives way.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::Version;
use tailmark::server::Options;
use tailmark_wire::feed_v1 as pb;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::frames::{self, Frames};
use crate::support::raw;
use crate::support::server::{TestServer, event, new_log, start_with, until};
use crate::support::web::{ask, full, post, request, with};

const STREAMS: u32 = 50;
/// What each stream says that its message has.
const CLAIM: u32 = 10 << 20;
const BODY_BYTES: usize = 100_000;
/// Far more than a publish takes, and less than anybody may keep room.
const SOON: Duration = Duration::from_secs(10);

/// What holds the attack up: dropped, it ends.
#[derive(Default)]
#[expect(dead_code, reason = "held, and not looked at")]
struct Attack {
    http2: Vec<Frames>,
    http1: Vec<TcpStream>,
}

/// A length prefix, and some bytes of the message.
fn beginning(bytes: usize) -> Vec<u8> {
    let mut begun = vec![0];
    begun.extend(CLAIM.to_be_bytes());
    begun.resize(5 + bytes, 7);
    begun
}

/// Streams of HTTP/2 on one connection.
async fn over_http2(address: SocketAddr, method: &str, bytes: usize) -> Attack {
    let mut connection = Frames::connect(address).await;
    for at in 0..STREAMS {
        let stream = 1 + 2 * at;
        connection.write(&frames::begin(stream, method, false)).await;
        let begun = beginning(bytes);
        for piece in begun.chunks(16 << 10) {
            connection.write(&frames::frame(frames::DATA, 0, stream, piece)).await;
        }
    }
    connection.write(&frames::ping()).await;
    connection.next_of(&[frames::PING]).await;
    Attack { http2: vec![connection], ..Attack::default() }
}

/// Connections of HTTP/1.1.
async fn over_http1(address: SocketAddr, path: &str, media_type: &str, begun: &[u8]) -> Attack {
    let mut attack = Attack::default();
    for _ in 0..STREAMS {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost:{}\r\ncontent-type: {media_type}\r\n\
             content-length: {CLAIM}\r\n\r\n",
            address.port()
        );
        stream.write_all(&[head.as_bytes(), begun].concat()).await.unwrap();
        attack.http1.push(stream);
    }
    attack
}

const ATTACKS: [&str; 7] =
    ["UploadEvents", "Append", "Publish", "Chat", "gRPC-Web", "a line", "a body"];

async fn attack(address: SocketAddr, how: &str) -> Attack {
    let lines = vec![b'7'; 20 << 10];
    match how {
        "gRPC-Web" => {
            let (path, media_type) = ("/feed.v1.FeedService/Publish", "application/grpc-web+proto");
            over_http1(address, path, media_type, &beginning(1)).await
        }
        "a line" => over_http1(address, "/v1/events", "application/x-ndjson", &lines).await,
        "a body" => over_http1(address, "/v1/events", "application/json", &lines).await,
        method => over_http2(address, method, 1).await,
    }
}

/// Publishes of 100 kB by each way there is, one after the other.
async fn publish(server: &TestServer, how: &str) {
    let body = "x".repeat(BODY_BYTES);
    let mut client = server.client().await;
    let request_of = |topic: &str| pb::PublishRequest {
        event: Some(event(topic, &body)),
        ..pb::PublishRequest::default()
    };
    let soon = timeout(SOON, client.publish(request_of("grpc"))).await;
    soon.unwrap_or_else(|_| panic!("{how}: no answer to a publish")).unwrap();
    let mut web = with(
        request(server, "POST", "/feed.v1.FeedService/Publish"),
        &[("content-type", "application/grpc-web+proto")],
    );
    *web.body_mut() = full(frames::framed(&request_of("web")));
    let soon = timeout(SOON, ask(server.address, Version::HTTP_11, web)).await;
    let answer = soon.unwrap_or_else(|_| panic!("{how}: no answer to gRPC-Web"));
    assert!(!answer.headers.contains_key("grpc-status"), "{how}: {:?}", answer.headers);
    let line = serde_json::json!({"topic": "plain", "body": body}).to_string();
    for media_type in ["application/json", "application/x-ndjson"] {
        let soon = timeout(SOON, post(server, media_type, line.clone())).await;
        let answer = soon.unwrap_or_else(|_| panic!("{how}: no answer to a POST"));
        assert_eq!(answer.status, 200, "{how}: {}", answer.text());
    }
    let message = Bytes::from(prost::Message::encode_to_vec(&event("upload", &body)));
    let uploaded = timeout(SOON, raw::upload(server.channel().await, vec![message])).await;
    uploaded.unwrap_or_else(|_| panic!("{how}: no answer to an upload")).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_claimed_and_not_sent_takes_room_from_nobody() {
    for how in ATTACKS {
        let server = start_with(new_log(), Options::default()).await;
        // Without the attack, so that what fails beside it fails of it.
        publish(&server, "before").await;
        let attack = attack(server.address, how).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        publish(&server, how).await;
        assert_eq!(server.head(), 10, "{how}");
        drop(attack);
        until("all connections to end", || server.gauges.connections() == 0).await;
        server.stop().await;
    }
}
