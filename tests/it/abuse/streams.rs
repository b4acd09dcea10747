//! Streams that are opened and kept: of each kind there are so many, and nobody can have all of them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::Request;
use tailmark::server::Options;
use tailmark_wire::feed_v1 as pb;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt;

use super::victim::{Victim, channel, client, connect, elsewhere};
use crate::support::frames::{self, framed};
use crate::support::server::{TestServer, event, expect, new_log, start_with, until, within};

/// A call of which nothing more was sent than its head, or its first message.
struct Held {
    response: h2::client::ResponseFuture,
    body: h2::SendStream<Bytes>,
}

/// A connection of HTTP/2 from there.
async fn http2(server: &TestServer, from: IpAddr) -> SendRequest<Bytes> {
    let stream = connect(server.address, from).await;
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    sender
}

async fn open(sender: &SendRequest<Bytes>, path: &str) -> Held {
    let request = Request::post(format!("http://x{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap();
    let mut sender = within("a stream", sender.clone().ready()).await.unwrap();
    let (response, body) = sender.send_request(request, false).unwrap();
    Held { response, body }
}

impl Held {
    /// What it was refused with, or ended with before it had said anything.
    async fn status(self) -> Status {
        let Held { response, body: _body } = self;
        let response = within("status", response).await.unwrap();
        if let Some(status) = Status::from_header_map(response.headers()) {
            return status;
        }
        let mut body = response.into_body();
        while within("data", body.data()).await.is_some() {}
        let trailers = within("trailers", body.trailers()).await.unwrap().unwrap();
        Status::from_header_map(&trailers).unwrap()
    }
}

#[track_caller]
fn over(status: &Status, what: &str, limit: usize) -> HashMap<String, String> {
    let info = expect(status, Code::ResourceExhausted, "LIMIT_EXCEEDED");
    assert_eq!((&*info["what"], &info["limit"]), (what, &limit.to_string()), "{status:?}");
    info
}

const UPLOADS: [&str; 3] = [
    "/feed.v1.FeedService/UploadEvents",
    "/feed.v1.FeedService/Append",
    "/chat.ChatService/UploadMessages",
];
const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";

/// The attack that took 812 MB: streams that are opened and say nothing.
#[tokio::test]
async fn idle_uploads_are_so_many_on_a_connection_and_in_all_and_no_more() {
    let options = Options { uploads: 64, uploads_per_connection: 24, ..Options::default() };
    let server = start_with(new_log(), options).await;
    let mut victim = Victim::new(server.address, elsewhere(2)).await;
    let mut held = Vec::new();
    // As many as there may be, of all kinds that store events.
    for connection in 1..=3 {
        let sender = http2(&server, elsewhere(1)).await;
        let most = 24.min(64 - held.len());
        for at in 0..most {
            held.push((sender.clone(), open(&sender, UPLOADS[at % 3]).await));
        }
        until("uploads", || server.gauges.uploads() == held.len()).await;
        for path in UPLOADS {
            let status = open(&sender, path).await.status().await;
            match connection {
                3 => drop(over(&status, "uploads", 64)),
                _ => drop(over(&status, "uploads_per_connection", 24)),
            }
        }
        assert_eq!(server.gauges.uploads(), held.len(), "who is refused counts nowhere");
    }
    // Plain HTTP's are the same.
    let mut post = connect(server.address, elsewhere(1)).await;
    let head = format!(
        "POST /v1/events HTTP/1.1\r\nhost: {}\r\ncontent-type: application/x-ndjson\r\n\
         transfer-encoding: chunked\r\n\r\n",
        server.address
    );
    post.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    within("answer", post.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 429");

    // Who has none of them yet has room, and the others' publishing goes on.
    let mut other = client(server.address, elsewhere(2));
    let stored = other.upload_events(tokio_stream::iter([event("a", "b")])).await.unwrap();
    assert_eq!(stored.into_inner().stored, 1);
    victim.lives(20).await;

    // One goes, one may come.
    held.pop();
    until("an upload less", || server.gauges.uploads() == 63).await;
    let sender = http2(&server, elsewhere(1)).await;
    let one = open(&sender, UPLOADS[0]).await;
    until("an upload more", || server.gauges.uploads() == 64).await;
    drop((one, held, sender));
    until("no uploads", || server.gauges.uploads() == 0).await;
    victim.lives(1).await;
    server.stop().await;
}

#[tokio::test]
async fn an_address_has_its_uploads() {
    let options = Options { uploads_per_address: Some(2), ..Options::default() };
    let server = start_with(new_log(), options).await;
    let mut held = Vec::new();
    for from in [1, 2] {
        for _ in 0..2 {
            let sender = http2(&server, elsewhere(from)).await;
            held.push((open(&sender, UPLOADS[0]).await, sender));
        }
        until("uploads", || server.gauges.uploads() == held.len()).await;
        let sender = http2(&server, elsewhere(from)).await;
        over(&open(&sender, UPLOADS[1]).await.status().await, "uploads_per_address", 2);
    }
    server.stop().await;
}

#[tokio::test]
async fn who_opens_a_stream_and_says_nothing_is_given_up_and_who_speaks_is_not() {
    let options = Options {
        first_message_timeout: Some(Duration::from_millis(300)),
        stream_idle_timeout: Some(Duration::from_secs(600)),
        ..Options::default()
    };
    let server = start_with(new_log(), options).await;
    let sender = http2(&server, elsewhere(1)).await;
    let mut speaks = open(&sender, UPLOADS[0]).await;
    let first = framed(&event("a", "first"));
    speaks.body.send_data(first, false).unwrap();
    for path in UPLOADS.into_iter().chain([REFLECTION]) {
        let status = open(&sender, path).await.status().await;
        let info = expect(&status, Code::Unavailable, "STREAM_IDLE");
        assert_eq!(info["limit"], "300ms", "{path}");
        assert!(status.get_details_retry_info().is_some());
    }
    // Longer than the first message may take, and still there.
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!((server.gauges.uploads(), server.gauges.reflection_streams()), (1, 0));
    speaks.body.send_data(framed(&event("a", "last")), true).unwrap();
    let response = within("result", speaks.response).await.unwrap();
    assert!(Status::from_header_map(response.headers()).is_none(), "{:?}", response.headers());
    until("both", || server.head() == 2).await;
    server.stop().await;
}

#[tokio::test]
async fn who_falls_silent_is_given_up_and_what_came_is_stored() {
    let options =
        Options { stream_idle_timeout: Some(Duration::from_millis(300)), ..Options::default() };
    let server = start_with(new_log(), options).await;
    let sender = http2(&server, elsewhere(1)).await;
    let mut silent = open(&sender, UPLOADS[0]).await;
    silent.body.send_data(framed(&event("a", "b")), false).unwrap();
    let info = expect(&silent.status().await, Code::Unavailable, "STREAM_IDLE");
    assert_eq!((&*info["received"], &*info["index"], server.head()), ("1", "1", 1));
    let mut producer = open(&sender, UPLOADS[1]).await;
    use pb::append_request::{Kind, Open};
    let open = Open { producer_id: "p".into(), epoch: 0 };
    let open = pb::AppendRequest { kind: Some(Kind::Open(open)) };
    producer.body.send_data(framed(&open), false).unwrap();
    expect(&producer.status().await, Code::Unavailable, "STREAM_IDLE");
    until("no uploads", || server.gauges.uploads() == 0).await;
    server.stop().await;
}

/// The same by the client library: a producer that is given up goes on by itself, and each event is there
/// once.
#[tokio::test]
async fn a_producer_that_was_silent_goes_on() {
    let options = Options {
        stream_idle_timeout: Some(Duration::from_millis(200)),
        retry_delay: Duration::from_millis(10),
        ..Options::default()
    };
    let server = start_with(new_log(), options).await;
    let addr = format!("http://{}", server.address);
    let client = tailmark_client::Client::new(&addr).unwrap();
    let producer = within("open", client.producer("p", Default::default())).await.unwrap();
    for at in 0..3 {
        let ack = within("send", producer.send(&event("a", &at.to_string()))).await.unwrap();
        within("ack", ack.durable()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert_eq!(server.head(), 3);
    server.stop().await;
}

/// One connection that nobody knows took all watches of health.
#[tokio::test]
async fn nobody_has_all_watches_of_health() {
    let server = start_with(new_log(), Options::default()).await;
    let ask = || HealthCheckRequest { service: String::new() };
    let mut held = Vec::new();
    let mut client = HealthClient::new(channel(server.address, elsewhere(1)));
    for _ in 0..100 {
        held.push(within("watch", client.watch(ask())).await.unwrap());
    }
    let status = within("refusal", client.watch(ask())).await.unwrap_err();
    over(&status, "health_watches_per_connection", 100);
    for _ in 0..49 {
        let mut client = HealthClient::new(channel(server.address, elsewhere(1)));
        for _ in 0..100 {
            held.push(within("watch", client.watch(ask())).await.unwrap());
        }
    }
    let mut client = HealthClient::new(channel(server.address, elsewhere(1)));
    let status = within("refusal", client.watch(ask())).await.unwrap_err();
    over(&status, "health_watches_per_address", 5_000);
    // A load balancer is elsewhere, and a check is always answered.
    let mut balancer = HealthClient::new(channel(server.address, elsewhere(2)));
    held.push(within("watch", balancer.watch(ask())).await.unwrap());
    within("check", client.check(ask())).await.unwrap();
    assert_eq!(server.gauges.health_watches(), 5_001);
    drop(held);
    until("no watches", || server.gauges.health_watches() == 0).await;
    server.stop().await;
}

#[tokio::test]
async fn streams_of_reflection_are_counted() {
    let server = start_with(new_log(), Options::default()).await;
    let sender = http2(&server, elsewhere(1)).await;
    let mut held = Vec::new();
    for _ in 0..100 {
        held.push(open(&sender, REFLECTION).await);
    }
    until("all of them", || server.gauges.reflection_streams() == 100).await;
    let status = open(&sender, REFLECTION).await.status().await;
    over(&status, "reflection_streams_per_connection", 100);
    let metrics = get(&server, 1, "/metrics").await;
    assert!(metrics.contains("tailmark_streams{stream=\"reflection\"} 100"), "{metrics}");
    assert!(metrics.contains("tailmark_streams{stream=\"health\"} 0"), "{metrics}");
    drop((held, sender));
    until("none", || server.gauges.reflection_streams() == 0).await;
    server.stop().await;
}

/// What a path of plain HTTP answers to who asks from there, whole.
async fn get(server: &TestServer, from: u8, path: &str) -> String {
    let mut stream = connect(server.address, elsewhere(from)).await;
    let head =
        format!("GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", server.address);
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    within("answer", stream.read_to_string(&mut answer)).await.unwrap();
    answer
}

/// Whoever takes all connections shuts out nobody who has few, and a server that is full says that it is
/// alive to everybody.
#[tokio::test]
async fn a_server_full_of_connections_is_alive_and_has_room_for_who_has_few() {
    let options = Options { connections: 64, ..Options::default() };
    let server = start_with(new_log(), options).await;
    let mut victim = Victim::new(server.address, elsewhere(2)).await;
    let mut held = Vec::new();
    while held.len() < 63 {
        held.push(connect(server.address, elsewhere(1)).await);
    }
    until("a full server", || server.gauges.connections() == 64).await;
    let told = get(&server, 1, "/v1/log").await;
    assert!(told.starts_with("HTTP/1.1 429") && told.contains("\"connections\""), "{told}");
    // To the same, about health, by each protocol.
    for (path, said) in [("/healthz", "ok"), ("/readyz", "ok")] {
        let told = get(&server, 1, path).await;
        assert!(told.starts_with("HTTP/1.1 200") && told.ends_with(&format!("{said}\n")), "{told}");
    }
    let mut health = HealthClient::new(channel(server.address, elsewhere(1)));
    let ask = || HealthCheckRequest { service: String::new() };
    within("check", health.check(ask())).await.unwrap();
    let mut health = HealthClient::new(channel(server.address, elsewhere(1)));
    let status = within("refusal", health.watch(ask())).await.unwrap_err();
    over(&status, "connections", 64);
    // From elsewhere an operator comes, asks and administers; and the victim has not noticed.
    let mut operator = client(server.address, elsewhere(3));
    let log = within("log", operator.get_log(pb::GetLogRequest {})).await.unwrap().into_inner();
    assert_eq!(log.limits.unwrap().connections, 64);
    victim.lives(20).await;
    drop((held, operator));
    until("few connections", || server.gauges.connections() <= 1).await;
    assert!(get(&server, 1, "/v1/log").await.starts_with("HTTP/1.1 200"));
    server.stop().await;
}

#[tokio::test]
async fn an_address_stores_so_much_in_a_second_whoever_it_is() {
    use std::num::NonZeroU32;
    let rates_per_address =
        tailmark::server::Rates { events: None, bytes: NonZeroU32::new(20_000) };
    let server = start_with(new_log(), Options { rates_per_address, ..Options::default() }).await;
    let many = || tokio_stream::iter(vec![event("a", &"x".repeat(1_000)); 40]);
    let mut here = client(server.address, elsewhere(1));
    let status = within("refusal", here.upload_events(many())).await.unwrap_err();
    let info = over(&status, "bytes_per_address", 20_000);
    let received: u64 = info["received"].parse().unwrap();
    assert!((15..40).contains(&received) && server.head() == received, "{received}");
    assert!(status.get_details_retry_info().is_some());
    // A room costs what it stores, not what is said in it.
    let mut rooms = tailmark_wire::chat::chat_service_client::ChatServiceClient::new(channel(
        server.address,
        elsewhere(3),
    ));
    let said = || tailmark_wire::chat::SendMessageRequest {
        user: "u".repeat(200),
        content: "x".into(),
        room: "r".repeat(200),
    };
    let mut sent = 0;
    let status = loop {
        match within("send", rooms.send_message(said())).await {
            Ok(_) => sent += 1,
            Err(status) => break status,
        }
        assert!(sent < 500, "each takes more than 400 bytes");
    };
    over(&status, "bytes_per_address", 20_000);
    // The control: who is elsewhere has a second of its own.
    let mut there = client(server.address, elsewhere(2));
    let few = tokio_stream::iter(vec![event("a", &"x".repeat(1_000)); 10]);
    within("upload", there.upload_events(few)).await.unwrap();
    server.stop().await;
}

/// Many kinds of streams are opened and left at once, by a client that dies.
#[tokio::test]
async fn what_a_client_held_is_back_when_it_is_gone() {
    let server = start_with(new_log(), Options::default()).await;
    let mut connection = frames::Frames::connect(server.address).await;
    let calls = (0..300).flat_map(|at| {
        let method = ["UploadEvents", "Append", "Watch"][at as usize % 3];
        frames::begin(1 + 2 * at, method, method == "Watch")
    });
    connection.write(&calls.collect::<Vec<_>>()).await;
    let gauges = server.gauges.clone();
    until("all open", || (gauges.uploads(), gauges.watches()) == (200, 100)).await;
    drop(connection);
    until("none", || (gauges.uploads(), gauges.watches(), gauges.connections()) == (0, 0, 0)).await;
    server.stop().await;
}
