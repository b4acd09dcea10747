//! Compression over gRPC: messages in gzip are taken within the limits, and who sends so is answered so.

use std::io::Write;

use bytes::{Buf, Bytes, BytesMut};
use flate2::Compression;
use flate2::write::{GzDecoder, GzEncoder};
use http::{HeaderMap, Request, Version};
use prost::Message;
use tailmark::server::Options;
use tailmark_client::{Client, Item, WatchOptions};
use tailmark_wire::feed_v1 as pb;
use tokio_stream::StreamExt as _;
use tonic::codec::CompressionEncoding::Gzip;
use tonic::{Code, Status};

use crate::support::daemon::{feed, program};
use crate::support::frames;
use crate::support::proxy::Proxy;
use crate::support::server::{
    TestServer, event, expect, from_oldest, new_log, start, start_with, until, within,
};
use crate::support::web::{ask, full, get, request, with};

const GRPC: (&str, &str) = ("content-type", "application/grpc");
/// A client that sends gzip, and one that would take it and does not ask for it.
const ASKS: [(&str, &str); 3] =
    [GRPC, ("grpc-encoding", "gzip"), ("grpc-accept-encoding", "identity,deflate,gzip")];
const COULD: [(&str, &str); 2] = [GRPC, ("grpc-accept-encoding", "identity,deflate,gzip")];
/// One that sends gzip and says nothing of what it takes.
const SENDS: [(&str, &str); 2] = [GRPC, ("grpc-encoding", "gzip")];

fn zip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn unzip(zipped: &[u8]) -> Vec<u8> {
    let mut decoder = GzDecoder::new(Vec::new());
    decoder.write_all(zipped).unwrap();
    decoder.finish().unwrap()
}

/// A message in gzip as gRPC frames it.
fn packed(zipped: &[u8]) -> Vec<u8> {
    let len = u32::try_from(zipped.len()).unwrap().to_be_bytes();
    [&[1], &len[..], zipped].concat()
}

fn packed_message(message: &impl Message) -> Vec<u8> {
    packed(&zip(&message.encode_to_vec()))
}

fn publish(body: &str) -> pb::PublishRequest {
    pb::PublishRequest { event: Some(event("a", body)), expected_head: None }
}

/// What does not compress to nothing: numbers.
fn text(len: usize) -> String {
    let mut text = String::new();
    while text.len() < len {
        text.push_str(&format!("{} ", text.len() * text.len()));
    }
    text
}

/// An answer, frame by frame as HTTP/2 has them.
struct Answer {
    head: HeaderMap,
    body: h2::RecvStream,
    came: BytesMut,
    /// Lengths of the DATA frames with something in them.
    frames: Vec<usize>,
}

impl Answer {
    async fn to(server: &TestServer, head: Request<()>, body: Vec<u8>) -> Answer {
        let response = frames::call(server.address, head, body.into()).await;
        let (head, body) = response.into_parts();
        Answer { head: head.headers, body, came: BytesMut::new(), frames: Vec::new() }
    }

    fn coding(&self) -> Option<&str> {
        self.head.get("grpc-encoding").map(|value| value.to_str().unwrap())
    }

    /// The next message, and whether it was compressed.
    async fn next<T: Message + Default>(&mut self) -> Option<(bool, T)> {
        loop {
            if let Some(&[flag, a, b, c, d]) = self.came.first_chunk() {
                let len = u32::from_be_bytes([a, b, c, d]) as usize;
                if self.came.len() >= 5 + len {
                    let mut message = self.came.split_to(5 + len).freeze();
                    message.advance(5);
                    let plain = if flag == 1 { unzip(&message).into() } else { message };
                    return Some((flag == 1, T::decode(plain).unwrap()));
                }
            }
            let data = within("data", self.body.data()).await?.unwrap();
            self.body.flow_control().release_capacity(data.len()).unwrap();
            self.frames.extend(Some(data.len()).filter(|len| *len > 0));
            self.came.extend_from_slice(&data);
        }
    }

    /// How it ends, after nothing more.
    async fn status(&mut self) -> Status {
        if self.head.contains_key("grpc-status") {
            return frames::status(&self.head);
        }
        assert!(self.next::<pb::Event>().await.is_none());
        let trailers = within("trailers", self.body.trailers()).await.unwrap().expect("trailers");
        frames::status(&trailers)
    }
}

async fn call(
    server: &TestServer,
    method: &str,
    headers: &[(&'static str, &'static str)],
    body: Vec<u8>,
) -> Answer {
    Answer::to(server, frames::head(method, headers), body).await
}

/// What nothing holds when nothing is under way.
async fn nothing_is_held(server: &TestServer) {
    'kinds: for kind in ["coded", "arriving"] {
        let line = format!("tailmark_memory_bytes{{kind=\"{kind}\"}} 0\n");
        for _ in 0..500 {
            if get(server, "/metrics").await.text().contains(&line) {
                continue 'kinds;
            }
        }
        panic!("{kind} is held");
    }
}

#[tokio::test]
async fn compressed_requests_are_taken_unary_and_streamed() {
    let server = start().await;
    let body = text(300_000);
    for headers in [&ASKS[..], &SENDS] {
        let mut answer = call(&server, "Publish", headers, packed_message(&publish(&body))).await;
        let (is_packed, result): (_, pb::PublishResult) = answer.next().await.expect("a result");
        assert_eq!((is_packed, result.seq), (false, server.head()), "it is short");
        assert_eq!(answer.status().await.code(), Code::Ok);
    }
    // Some of them compressed, in pieces that end anywhere.
    let events: Vec<_> = (0..50).map(|at| event("a", &text(1 + at * at * 40))).collect();
    let framed = |at: usize, event: &pb::Event| match at % 3 {
        0 => frames::framed(event).to_vec(),
        _ => packed_message(event),
    };
    let all: Vec<u8> = events.iter().enumerate().flat_map(|(at, it)| framed(at, it)).collect();
    for size in [293, 1_000, all.len()] {
        let before = server.head();
        let mut sender = frames::connect(server.address).await.ready().await.unwrap();
        let head = frames::head("UploadEvents", &ASKS);
        let (response, mut stream) = sender.send_request(head, false).unwrap();
        let pieces = all.chunks(size).take(if size == 293 { 3_000 } else { usize::MAX });
        // What does not fit through the window waits on our side.
        for piece in pieces.map(Bytes::copy_from_slice) {
            stream.send_data(piece, false).unwrap();
        }
        if size == 293 {
            until("the first events", || server.head() > before + 10).await;
            continue;
        }
        stream.send_data(Bytes::new(), true).unwrap();
        let (head, body) = within("response", response).await.unwrap().into_parts();
        let frames = Vec::new();
        let mut answer = Answer { head: head.headers, body, came: BytesMut::new(), frames };
        let (_, result): (_, pb::UploadResult) = answer.next().await.expect("a result");
        assert_eq!(result.received, 50, "{size}");
    }
    let mut client = server.client().await;
    let last = server.head() - 49;
    for (at, sent) in events.iter().enumerate() {
        let by = pb::get_event_request::By::Seq(last + at as u64);
        let request = pb::GetEventRequest { by: Some(by) };
        assert_eq!(client.get_event(request).await.unwrap().into_inner().body, sent.body);
    }
    // What is not ours is served alike: a message of the builtin services.
    let path = "http://x/grpc.health.v1.Health/Check";
    let mut head = frames::head("", &ASKS);
    *head.uri_mut() = path.parse().unwrap();
    let check = tonic_health::pb::HealthCheckRequest::default();
    assert_eq!(Answer::to(&server, head, packed_message(&check)).await.coding(), None);
    nothing_is_held(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn a_message_that_becomes_too_large_is_told_so() {
    let options = Options { message_bytes: 2 << 20, ..Options::default() };
    let server = start_with(new_log(), options).await;
    // A thousand times what came.
    let bomb = packed(&zip(&vec![0; 64 << 20]));
    assert!(bomb.len() < 100_000);
    for (method, limit) in [("UploadEvents", "2097152"), ("Append", "2097152"), ("Chat", "2097152")]
    {
        let status = call(&server, method, &ASKS, bomb.clone()).await.status().await;
        let info = expect(&status, Code::ResourceExhausted, "LIMIT_EXCEEDED");
        assert_eq!((info["what"].as_str(), info["limit"].as_str()), ("message_bytes", limit));
        assert!(status.message().contains("gzip becomes more than"), "{status:?}");
    }
    // A question may be far smaller.
    for method in ["Publish", "Watch", "GetLog"] {
        let status = call(&server, method, &ASKS, bomb.clone()).await.status().await;
        let info = expect(&status, Code::ResourceExhausted, "LIMIT_EXCEEDED");
        assert_eq!(info["what"], "message_bytes", "{method}");
        assert!(info["limit"].parse::<usize>().unwrap() < 1_200_000, "{method}");
    }
    // Each message within the limit, and all of them nothing but air.
    let air = pb::Event { data: vec![0; 1_000_000].into(), ..event("a", "") };
    let air = packed_message(&air).repeat(20);
    let status = call(&server, "UploadEvents", &ASKS, air).await.status().await;
    let info = expect(&status, Code::ResourceExhausted, "LIMIT_EXCEEDED");
    assert_eq!(info["what"], "decoded_bytes");
    assert!(status.message().contains("200 times"), "{status:?}");
    // Members that hold nothing make nothing that could be too much.
    let many = packed(&zip(&[]).repeat(50_000));
    let status = call(&server, "UploadEvents", &ASKS, many).await.status().await;
    assert!(status.message().contains("too many parts"), "{status:?}");
    let few = packed(&[zip(&[]).repeat(15), zip(&event("a", "few").encode_to_vec())].concat());
    let mut answer = call(&server, "UploadEvents", &ASKS, few).await;
    assert_eq!(answer.next::<pb::UploadResult>().await.unwrap().1.received, 1);
    // What is really that large is taken.
    let head = server.head();
    let large = packed_message(&publish(&text(1_000_000)));
    let mut answer = call(&server, "Publish", &ASKS, large).await;
    assert_eq!(answer.next::<pb::PublishResult>().await.unwrap().1.seq, head + 1);
    nothing_is_held(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn what_is_no_gzip_is_told_in_words() {
    let server = start().await;
    let good = zip(&publish("x").encode_to_vec());
    let with = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 0xff;
        bytes
    };
    let len = good.len();
    for (bad, words) in [
        (b"nothing of it".to_vec(), "does not begin as gzip does"),
        (Vec::new(), "it is cut off"),
        (good[..len - 1].to_vec(), "it is cut off"),
        (with(10), "deflate"),
        (with(len - 1), "checksum"),
        ([&good[..], b"more"].concat(), "does not begin as gzip does"),
    ] {
        for method in ["Publish", "UploadEvents"] {
            let status = call(&server, method, &ASKS, packed(&bad)).await.status().await;
            let info = expect(&status, Code::InvalidArgument, "MESSAGE_MALFORMED");
            assert_eq!(info["grpc-encoding"], "gzip");
            assert!(status.message().contains(words), "{status:?} lacks {words}");
        }
    }
    assert_eq!(server.head(), 0);
    nothing_is_held(&server).await;
    server.stop().await;
}

fn replay() -> pb::WatchRequest {
    pb::WatchRequest { start: from_oldest(), until_caught_up: true, ..Default::default() }
}

#[tokio::test]
async fn who_sends_gzip_is_answered_in_gzip_and_nobody_else() {
    let server = start().await;
    let mut client = server.client().await;
    let large = text(3_000);
    let bodies = [large.as_str(), "short", large.as_str(), "short", "short"];
    for body in bodies {
        client.publish(publish(body)).await.unwrap();
    }
    for headers in [&ASKS[..], &COULD, &SENDS, &[GRPC]] {
        let is_asked = headers.len() == ASKS.len();
        let message = frames::framed(&replay()).to_vec();
        let mut answer = call(&server, "Watch", headers, message.clone()).await;
        assert_eq!(answer.coding(), is_asked.then_some("gzip"), "{headers:?}");
        for body in bodies {
            let (is_packed, event): (_, pb::Event) = answer.next().await.expect("an event");
            assert_eq!(event.body, body);
            assert_eq!(is_packed, is_asked && body.len() > 1_024, "{headers:?}");
        }
        assert_eq!(answer.status().await.code(), Code::Ok);
        let mut answer = call(&server, "WatchBatches", headers, message).await;
        let (is_packed, batch): (_, pb::EventBatch) = answer.next().await.expect("a batch");
        assert_eq!((is_packed, batch.events[0].body == large), (is_asked, true));
        // One answer.
        let one = pb::GetEventRequest { by: Some(pb::get_event_request::By::Seq(1)) };
        let one = frames::framed(&one).to_vec();
        let mut answer = call(&server, "GetEvent", headers, one).await;
        let (is_packed, event): (_, pb::Event) = answer.next().await.expect("an event");
        assert_eq!((is_packed, event.body == large), (is_asked, true));
    }
    // Of a call that is refused nothing is compressed.
    let refused = frames::framed(&pb::WatchRequest { limit: -1, ..Default::default() }).to_vec();
    let mut answer = call(&server, "Watch", &ASKS, refused).await;
    assert_eq!(answer.coding(), None);
    assert_eq!(answer.status().await.code(), Code::InvalidArgument);
    nothing_is_held(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn what_is_live_comes_at_once_and_no_frame_is_small() {
    let server = start().await;
    let mut client = server.client().await;
    let watch = pb::WatchRequest { markers: true, ..Default::default() };
    for method in ["Watch", "WatchBatches"] {
        let mut answer = call(&server, method, &ASKS, packed_message(&watch)).await;
        let mut next = async || {
            loop {
                let (is_packed, body) = match method {
                    "Watch" => {
                        let (is_packed, event): (_, pb::Event) = answer.next().await.unwrap();
                        (is_packed, event.marker.is_none().then_some(event.body))
                    }
                    _ => {
                        let (is_packed, batch): (_, pb::EventBatch) = answer.next().await.unwrap();
                        (is_packed, batch.events.first().map(|event| event.body.clone()))
                    }
                };
                if let Some(body) = body {
                    return (is_packed, body, answer.frames.iter().copied().min());
                }
            }
        };
        // Nothing but repeats: it would be a small frame.
        for (body, is_packed) in
            [("x".repeat(2_000), true), ("y".to_owned(), false), (text(5_000), true)]
        {
            client.publish(publish(&body)).await.unwrap();
            let came = next().await;
            assert_eq!((came.0, came.1 == body), (is_packed, true), "{method}");
            assert!(came.2.unwrap() >= 256, "{method}: {:?}", came.2);
        }
        // Who waits holds no place.
        let held = "tailmark_memory_bytes{kind=\"coded\"} 0\n";
        assert!(get(&server, "/metrics").await.text().contains(held));
    }
    server.stop().await;
}

#[tokio::test]
async fn rooms_are_compressed_both_ways() {
    let server = start().await;
    let said = text(4_000);
    let messages = [
        pb::ChatMessage { from: "ann".into(), room: "r".into(), ..Default::default() },
        pb::ChatMessage {
            from: "ann".into(),
            room: "r".into(),
            text: said.clone(),
            ..Default::default()
        },
    ];
    let body: Vec<u8> = messages.iter().flat_map(packed_message).collect();
    let mut answer = call(&server, "Chat", &ASKS, body).await;
    assert_eq!(answer.coding(), Some("gzip"));
    let (is_packed, echo): (_, pb::ChatMessage) = answer.next().await.expect("an echo");
    assert_eq!((is_packed, echo.text), (true, format!("echo: {said}")));
    server.stop().await;
}

#[tokio::test]
async fn grpc_web_is_compressed_alike() {
    let server = start().await;
    let body = text(5_000);
    let headers = [
        ("content-type", "application/grpc-web+proto"),
        ("grpc-encoding", "gzip"),
        ("grpc-accept-encoding", "gzip"),
    ];
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let mut call = with(request(&server, "POST", "/feed.v1.FeedService/Publish"), &headers);
        *call.body_mut() = full(packed_message(&publish(&body)));
        let answer = ask(server.address, version, call).await;
        assert!(answer.body.ends_with(b"grpc-status:0\r\n"), "{:?}", answer.body);
        let one = pb::GetEventRequest { by: Some(pb::get_event_request::By::Seq(server.head())) };
        let mut call = with(request(&server, "POST", "/feed.v1.FeedService/GetEvent"), &headers);
        *call.body_mut() = full(packed_message(&one));
        let answer = ask(server.address, version, call).await;
        assert_eq!((answer.header("grpc-encoding"), answer.body[0]), ("gzip", 1));
        let len = u32::from_be_bytes(*answer.body[1..].first_chunk().unwrap()) as usize;
        let event = pb::Event::decode(&unzip(&answer.body[5..5 + len])[..]).unwrap();
        assert_eq!(event.body, body);
    }
    server.stop().await;
}

/// What is sent and answered over a network, with and without.
#[tokio::test]
async fn the_client_compresses_when_it_is_told_to() {
    let server = start().await;
    let bodies: Vec<String> =
        (0..2_000).map(|at| format!("{{\"order\":{at},\"paid\":true}}")).collect();
    let mut moved = Vec::new();
    for compress in [false, true] {
        let proxy = Proxy::to(server.address).await;
        let mut options = tailmark_client::Options::default();
        options.compress = compress;
        let client = Client::with_options(&proxy.url(), options).unwrap();
        client.publish(event("big", &text(200_000)), None).await.unwrap();
        let sent = proxy.moved();
        let topic = format!("orders.{compress}");
        let encoded: Vec<Bytes> =
            bodies.iter().map(|body| event(&topic, body).encode_to_vec().into()).collect();
        let stored = client.upload(tokio_stream::iter(encoded)).await.unwrap();
        assert_eq!(stored.received, 2_000);
        let mut options = WatchOptions::default();
        options.patterns = vec![topic];
        options.start = tailmark_client::Start::Oldest;
        options.until_caught_up = true;
        let mut watch = client.watch(options);
        let mut came = 0;
        while let Some(item) = watch.next().await {
            if let Item::Event(event) = item.unwrap() {
                assert_eq!(event.event().unwrap().body, bodies[came]);
                came += 1;
            }
        }
        assert_eq!(came, 2_000);
        moved.push((sent[0], proxy.moved()[1]));
    }
    let [(plain_sent, plain_answered), (sent, answered)] = moved[..] else { panic!() };
    assert!(sent * 3 < plain_sent * 2, "{sent} of {plain_sent}");
    assert!(answered * 3 < plain_answered, "{answered} of {plain_answered}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_compresses_when_it_is_told_to() {
    let server = start().await;
    let mut moved = Vec::new();
    for flags in [&[][..], &["--compress"]] {
        let proxy = Proxy::to(server.address).await;
        let url = proxy.url();
        let args = ["publish", "a", "-", "--addr", &url];
        let mut command = program(&[&args[..], flags].concat());
        let body = text(100_000);
        let output = tokio::task::spawn_blocking(move || feed(&mut command, body.as_bytes()));
        assert!(output.await.unwrap().status.success());
        moved.push(proxy.moved()[0]);
    }
    assert!(moved[1] * 3 < moved[0] * 2, "{moved:?}");
    server.stop().await;
}

/// The client of the generated code, with gRPC's own compression.
#[tokio::test]
async fn a_generated_client_watches_in_gzip() {
    let server = start().await;
    let mut client = server.client().await.send_compressed(Gzip).accept_compressed(Gzip);
    let body = text(20_000);
    for _ in 0..20 {
        client.publish(publish(&body)).await.unwrap();
    }
    let mut watch = client.watch(replay()).await.unwrap();
    assert_eq!(watch.metadata().get("grpc-encoding").unwrap(), "gzip");
    let mut came = 0;
    while let Some(event) = within("event", watch.get_mut().message()).await.unwrap() {
        assert_eq!(event.body, body);
        came += 1;
    }
    assert_eq!(came, 20);
    server.stop().await;
}

#[cfg(feature = "zstd")]
#[tokio::test]
async fn zstd_is_taken_and_answered_alike() {
    let server = start().await;
    let packed = |message: &[u8]| packed(&zstd::encode_all(message, 3).unwrap());
    let asks = [GRPC, ("grpc-encoding", "zstd"), ("grpc-accept-encoding", "identity, zstd")];
    let body = text(100_000);
    let message = packed(&publish(&body).encode_to_vec());
    let mut answer = call(&server, "Publish", &asks, message).await;
    assert_eq!(answer.next::<pb::PublishResult>().await.unwrap().1.seq, 1);
    let mut answer = call(&server, "Watch", &asks, packed(&replay().encode_to_vec())).await;
    assert_eq!(answer.coding(), Some("zstd"));
    let mut data = Vec::new();
    while data.len() < 5
        || data.len() < 5 + u32::from_be_bytes(*data[1..].first_chunk().unwrap()) as usize
    {
        let more = within("data", answer.body.data()).await.unwrap().unwrap();
        answer.body.flow_control().release_capacity(more.len()).unwrap();
        data.extend_from_slice(&more);
    }
    assert_eq!(data[0], 1);
    let event = zstd::decode_all(&data[5..]).unwrap();
    assert!(event.len() > 3 * data.len() / 2);
    assert_eq!(pb::Event::decode(&event[..]).unwrap().body, body);
    let status = call(&server, "Append", &asks, packed(&vec![0; 64 << 20])).await.status().await;
    let info = expect(&status, Code::ResourceExhausted, "LIMIT_EXCEEDED");
    assert!(["decoded_bytes", "message_bytes"].contains(&info["what"].as_str()));
    assert!(status.message().contains("zstd"), "{status:?}");
    nothing_is_held(&server).await;
    server.stop().await;
}

#[cfg(not(feature = "zstd"))]
#[tokio::test]
async fn zstd_is_not_offered_where_it_is_not_built() {
    let server = start().await;
    let asks = [GRPC, ("grpc-encoding", "zstd"), ("grpc-accept-encoding", "zstd")];
    let mut answer = call(&server, "Publish", &asks, packed(b"x")).await;
    let status = answer.status().await;
    expect(&status, Code::Unimplemented, "UNIMPLEMENTED");
    assert_eq!(answer.head["grpc-accept-encoding"], "identity, gzip");
    let asked = with(request(&server, "GET", "/v1/log"), &[("accept-encoding", "zstd")]);
    let plain = ask(server.address, Version::HTTP_11, asked).await;
    assert_eq!(plain.header("content-encoding"), "");
    server.stop().await;
}
