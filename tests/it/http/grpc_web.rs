//! gRPC-Web, binary and text, over HTTP/1.1 and HTTP/2: the calls and streams of gRPC, with its
//! limits, deadlines and statuses.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Version};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use prost::Message;
use tailmark::server::Options;
use tailmark_wire::feed_v1 as pb;
use tonic::body::Body;
use tonic::{Code, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::support::frames;
use crate::support::server::{
    TestServer, event, expect, from_oldest, new_log, start, start_with, until, within,
};
use crate::support::web::{BOTH, full, pieces, request, send, with};

const BINARY: &str = "application/grpc-web+proto";
const TEXT: &str = "application/grpc-web-text";
const FEED: &str = "/feed.v1.FeedService/";

/// The head of a call; the body is empty.
fn head(server: &TestServer, path: &str, content_type: &str) -> Request<Body> {
    let path = if path.starts_with('/') { path.to_owned() } else { format!("{FEED}{path}") };
    let headers = [("content-type", content_type), ("x-grpc-web", "1"), ("accept", content_type)];
    with(request(server, "POST", &path), &headers)
}

fn body(content_type: &str, framed: &[u8]) -> Bytes {
    if content_type == TEXT { STANDARD.encode(framed).into() } else { framed.to_vec().into() }
}

/// An answer as it comes in: messages, then trailers in a frame of their own.
struct Web {
    headers: HeaderMap,
    is_text: bool,
    body: Incoming,
    raw: BytesMut,
    decoded: BytesMut,
}

impl Web {
    async fn call(
        server: &TestServer,
        version: Version,
        content_type: &str,
        path: &str,
        message: &impl Message,
    ) -> Web {
        let mut request = head(server, path, content_type);
        *request.body_mut() = full(body(content_type, &frames::framed(message)));
        Web::of(send(server.address, version, request).await, content_type)
    }

    fn of(response: Response<Incoming>, content_type: &str) -> Web {
        let (head, body) = response.into_parts();
        assert_eq!(head.status, 200);
        let answered = head.headers["content-type"].to_str().unwrap();
        assert!(answered.starts_with(content_type), "{answered} for {content_type}");
        Web {
            headers: head.headers,
            is_text: content_type == TEXT,
            body,
            raw: BytesMut::new(),
            decoded: BytesMut::new(),
        }
    }

    /// The next message, or the status at the end.
    async fn next<T: Message + Default>(&mut self) -> Result<T, Status> {
        loop {
            if let [flag, a, b, c, d, rest @ ..] = &self.decoded[..] {
                let len = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
                if rest.len() >= len {
                    let is_trailers = *flag == 0x80;
                    let frame = self.decoded.split_to(5 + len);
                    if is_trailers {
                        return Err(Status::from_header_map(&trailers(&frame[5..])).unwrap());
                    }
                    return Ok(T::decode(&frame[5..]).unwrap());
                }
            }
            match within("frame", self.body.frame()).await {
                Some(frame) => {
                    self.raw.extend_from_slice(&frame.unwrap().into_data().unwrap());
                    self.decode();
                }
                None => {
                    assert!(self.decoded.is_empty());
                    return Err(Status::from_header_map(&self.headers).expect("a status"));
                }
            }
        }
    }

    fn decode(&mut self) {
        if !self.is_text {
            return self.decoded.unsplit(self.raw.split());
        }
        // Every frame is padded by itself: groups of four.
        let whole = self.raw.len() / 4 * 4;
        for group in self.raw.split_to(whole).chunks(4) {
            self.decoded.extend_from_slice(&STANDARD.decode(group).unwrap());
        }
    }

    async fn failure<T: Message + Default + std::fmt::Debug>(&mut self) -> Status {
        match self.next::<T>().await {
            Ok(message) => panic!("{message:?}"),
            Err(status) => status,
        }
    }
}

fn trailers(block: &[u8]) -> HeaderMap {
    let text = std::str::from_utf8(block).unwrap();
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs
        .map(|(name, value)| {
            let name: HeaderName = name.parse().unwrap();
            (name, HeaderValue::from_str(value.trim()).unwrap())
        })
        .collect()
}

fn each() -> impl Iterator<Item = (Version, &'static str)> {
    BOTH.into_iter().flat_map(|version| [BINARY, TEXT].map(|encoding| (version, encoding)))
}

#[tokio::test]
async fn unary_calls_are_answered() {
    let server = start().await;
    for (version, encoding) in each() {
        let head = server.head();
        let ask = pb::PublishRequest { event: Some(event("a", "x")), expected_head: None };
        let mut web = Web::call(&server, version, encoding, "Publish", &ask).await;
        let result: pb::PublishResult = web.next().await.unwrap();
        assert_eq!(result.seq, head + 1);
        assert_eq!(web.failure::<pb::PublishResult>().await.code(), Code::Ok);

        let ask = pb::GetEventRequest { by: Some(pb::get_event_request::By::Seq(result.seq)) };
        let mut web = Web::call(&server, version, encoding, "GetEvent", &ask).await;
        assert_eq!(web.next::<pb::Event>().await.unwrap().body, "x");
        let mut web = Web::call(&server, version, encoding, "GetLog", &pb::GetLogRequest {}).await;
        assert_eq!(web.next::<pb::LogStatus>().await.unwrap().head_seq, head + 1);
        let ask = pb::ListTopicsRequest::default();
        let mut web = Web::call(&server, version, encoding, "ListTopics", &ask).await;
        assert_eq!(web.next::<pb::ListTopicsResponse>().await.unwrap().topics[0].topic, "a");
        let ask = pb::TrimRequest { before: Some(pb::trim_request::Before::Seq(1)) };
        let mut web = Web::call(&server, version, encoding, "Trim", &ask).await;
        assert_eq!(web.next::<pb::TrimResult>().await.unwrap().removed, 0);
        let ask = HealthCheckRequest::default();
        let mut web =
            Web::call(&server, version, encoding, "/grpc.health.v1.Health/Check", &ask).await;
        let health: HealthCheckResponse = web.next().await.unwrap();
        assert_eq!(health.status(), ServingStatus::Serving);
    }
    server.stop().await;
}

#[tokio::test]
async fn a_watch_answers_at_once_goes_on_live_and_ends_with_its_cursor() {
    let server = start().await;
    for (version, encoding) in each() {
        let ask = pb::WatchRequest { limit: 2, ..Default::default() };
        // Nothing is there to be sent: the head of the answer comes all the same.
        let mut web = Web::call(&server, version, encoding, "Watch", &ask).await;
        let head = server.head();
        assert_eq!(web.headers["feed-cursor"], server.cursor(head).as_str());
        server.store("a", 1).await;
        assert_eq!(web.next::<pb::Event>().await.unwrap().seq, head + 1);
        server.store("a", 1).await;
        assert_eq!(web.next::<pb::Event>().await.unwrap().seq, head + 2);
        let end = web.failure::<pb::Event>().await;
        assert_eq!(end.code(), Code::Ok);
        assert_eq!(end.metadata().get("feed-cursor").unwrap(), server.cursor(head + 2).as_str());
        drop(web);
        until("no watch", || server.gauges.watches() == 0).await;
    }
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_and_a_server_that_stops_end_a_watch() {
    // Over HTTP/1.1 it may have closed its side alone: it is given up after so much silence.
    let options = Options { unary_deadline: Duration::from_millis(500), ..Options::default() };
    let server = start_with(new_log(), options).await;
    for (version, encoding) in each() {
        let web =
            Web::call(&server, version, encoding, "Watch", &pb::WatchRequest::default()).await;
        assert_eq!(server.gauges.watches(), 1);
        drop(web);
        until("no watch", || server.gauges.watches() == 0).await;
    }
    let mut open = Vec::new();
    for (version, encoding) in each() {
        let ask = pb::WatchRequest::default();
        open.push(Web::call(&server, version, encoding, "Watch", &ask).await);
        let ask = HealthCheckRequest::default();
        let path = "/grpc.health.v1.Health/Watch";
        let mut health = Web::call(&server, version, encoding, path, &ask).await;
        assert_eq!(health.next::<HealthCheckResponse>().await.unwrap().status, 1);
        open.push(health);
    }
    server.shutdown.cancel();
    for web in &mut open {
        let status = loop {
            match web.next::<()>().await {
                // Health says first that it does not serve any more.
                Ok(_) => {}
                Err(status) => break status,
            }
        };
        expect(&status, Code::Unavailable, "STOPPING");
    }
    server.stop().await;
}

#[tokio::test]
async fn statuses_come_with_their_details() {
    let server = start().await;
    server.store("a", 3).await;
    for (version, encoding) in each() {
        let ask = pb::WatchRequest { after_cursor: "9".into(), ..Default::default() };
        let mut web = Web::call(&server, version, encoding, "Watch", &ask).await;
        let info = expect(&web.failure::<pb::Event>().await, Code::OutOfRange, "CURSOR_AHEAD");
        assert_eq!(info["head"], "3");
        let ask = pb::PublishRequest::default();
        let mut web = Web::call(&server, version, encoding, "Publish", &ask).await;
        expect(&web.failure::<pb::Event>().await, Code::InvalidArgument, "INVALID_FIELD");
        for path in ["Nothing", "/other.Service/Call"] {
            let mut web = Web::call(&server, version, encoding, path, &ask).await;
            expect(&web.failure::<pb::Event>().await, Code::Unimplemented, "UNIMPLEMENTED");
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn streams_to_the_server_are_refused_in_words() {
    let server = start().await;
    for (version, encoding) in each() {
        for path in [
            "UploadEvents",
            "Chat",
            "Append",
            "/chat.ChatService/Chat",
            "/chat.ChatService/UploadMessages",
        ] {
            let mut web = Web::call(&server, version, encoding, path, &event("a", "x")).await;
            let status = web.failure::<pb::Event>().await;
            let info = expect(&status, Code::Unimplemented, "UNIMPLEMENTED");
            assert!(info["method"].ends_with(path.rsplit('/').next().unwrap()));
            assert!(status.message().contains("gRPC-Web"), "{status:?}");
        }
    }
    assert_eq!(server.head(), 0);
    server.stop().await;
}

#[tokio::test]
async fn limits_and_framing_hold() {
    let options = Options { message_bytes: 1_000, ..Options::default() };
    let server = start_with(new_log(), options).await;
    let publish = |len: usize| pb::PublishRequest {
        event: Some(event("a", &"x".repeat(len))),
        expected_head: None,
    };
    for (version, encoding) in each() {
        let head_seq = server.head();
        let mut web = Web::call(&server, version, encoding, "Publish", &publish(900)).await;
        assert_eq!(web.next::<pb::PublishResult>().await.unwrap().seq, head_seq + 1);
        let mut web = Web::call(&server, version, encoding, "Publish", &publish(2_000)).await;
        let status = web.failure::<pb::PublishResult>().await;
        let info = expect(&status, Code::ResourceExhausted, "LIMIT_EXCEEDED");
        assert_eq!((&*info["what"], &*info["limit"]), ("message_bytes", "1000"));

        let framed = frames::framed(&publish(10));
        let two = [&framed[..], &framed[..]].concat();
        for bad in [&framed[..framed.len() - 1], &framed[..3], &[], &two, &[9, 0, 0, 0, 0]] {
            let mut request = head(&server, "Publish", encoding);
            *request.body_mut() = full(body(encoding, bad));
            let response = send(server.address, version, request).await;
            let status = Web::of(response, encoding).failure::<pb::PublishResult>().await;
            expect(&status, Code::InvalidArgument, "MESSAGE_MALFORMED");
        }
        assert_eq!(server.head(), head_seq + 1);
    }
    for version in BOTH {
        for bad in ["not base64!", "AAAA=AAA", "AAAAA"] {
            let mut request = head(&server, "Publish", TEXT);
            *request.body_mut() = full(bad);
            let response = send(server.address, version, request).await;
            let status = Web::of(response, TEXT).failure::<pb::PublishResult>().await;
            expect(&status, Code::InvalidArgument, "MESSAGE_MALFORMED");
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn text_in_padded_pieces_is_the_message_however_it_comes() {
    let server = start().await;
    let publish = pb::PublishRequest { event: Some(event("a", "x")), expected_head: None };
    let framed = frames::framed(&publish);
    for version in BOTH {
        for size in [1, 2, 3, 4, 5, framed.len()] {
            let pieces_of_text: Vec<String> =
                framed.chunks(size).map(|piece| STANDARD.encode(piece)).collect();
            // In one read, and piece by piece.
            for is_whole in [true, false] {
                let head_seq = server.head();
                let mut request = head(&server, "Publish", TEXT);
                *request.body_mut() = if is_whole {
                    full(pieces_of_text.concat())
                } else {
                    let (sender, body) = pieces();
                    for piece in &pieces_of_text {
                        sender.send(Bytes::from(piece.clone())).unwrap();
                    }
                    body
                };
                let response = send(server.address, version, request).await;
                let result: pb::PublishResult = Web::of(response, TEXT).next().await.unwrap();
                assert_eq!(result.seq, head_seq + 1, "pieces of {size}");
            }
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn deadlines_hold() {
    let server = start().await;
    for (version, encoding) in each() {
        // One that ends a silent watch.
        let ask = frames::framed(&pb::WatchRequest::default());
        let mut request = with(head(&server, "Watch", encoding), &[("grpc-timeout", "100m")]);
        *request.body_mut() = full(body(encoding, &ask));
        let mut web = Web::of(send(server.address, version, request).await, encoding);
        expect(&web.failure::<pb::Event>().await, Code::DeadlineExceeded, "DEADLINE");
        // One for a message that does not come to its end.
        let mut request = with(head(&server, "Publish", encoding), &[("grpc-timeout", "100m")]);
        let (sender, pieces) = pieces();
        sender.send(body(encoding, &[0, 0, 0])).unwrap();
        *request.body_mut() = pieces;
        let mut web = Web::of(send(server.address, version, request).await, encoding);
        expect(&web.failure::<pb::Event>().await, Code::DeadlineExceeded, "DEADLINE");
        let mut request = with(head(&server, "GetLog", encoding), &[("grpc-timeout", "soon")]);
        *request.body_mut() = full(body(encoding, &[0; 5]));
        let mut web = Web::of(send(server.address, version, request).await, encoding);
        expect(&web.failure::<pb::Event>().await, Code::InvalidArgument, "INVALID_FIELD");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_stalls_is_cut_at_its_deadline() {
    let server = start().await;
    let mut client = server.client().await;
    let events = vec![event("a", &"x".repeat(512 << 10)); 64];
    client.upload_events(tokio_stream::iter(events)).await.unwrap();
    let ask = pb::WatchRequest { start: from_oldest(), ..Default::default() };
    for (version, encoding) in each() {
        let mut request = with(head(&server, "Watch", encoding), &[("grpc-timeout", "300m")]);
        *request.body_mut() = full(body(encoding, &frames::framed(&ask)));
        let web = Web::of(send(server.address, version, request).await, encoding);
        // Nothing is read, and nothing given up.
        until("nothing is held", || {
            server.gauges.watches() == 0 && server.log.status().readers == 0
        })
        .await;
        drop(web);
    }
    server.stop().await;
}

#[tokio::test]
async fn the_answer_is_written_as_it_is_accepted() {
    let server = start().await;
    for (sent, accept, answered) in [
        (TEXT, "", TEXT),
        (TEXT, "*/*", TEXT),
        (TEXT, BINARY, BINARY),
        (BINARY, TEXT, TEXT),
        (BINARY, "", BINARY),
    ] {
        let mut request = head(&server, "GetLog", sent);
        request.headers_mut().remove("accept");
        if !accept.is_empty() {
            request = with(request, &[("accept", accept)]);
        }
        *request.body_mut() = full(body(sent, &[0; 5]));
        let response = send(server.address, Version::HTTP_11, request).await;
        Web::of(response, answered).next::<pb::LogStatus>().await.unwrap();
    }
    server.stop().await;
}
