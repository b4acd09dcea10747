//! The whole matrix: every method and path, by everybody, over every protocol that it is served over.
//!
//! The rows are held against the table of methods and against the router's source: whatever is added
//! there without a row here fails.

use std::collections::BTreeSet;

use bytes::Bytes;
use http::{Request, StatusCode, Version};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use prost::Message;
use tailmark::server::Options;
use tailmark_wire::methods::{self, Method};
use tailmark_wire::{chat, feed_v1 as feed};
use tonic::Code;
use tonic::body::Body;

use super::{Issuer, Known, Rights, after, options, rights, start};
use crate::support::logdir;
use crate::support::server::{TestServer, event, from_oldest, new_log, start_with, within};
use crate::support::web::{BOTH, ask, full, request, send, with};

/// What a row takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    /// Nothing: anybody may.
    Open,
    /// To say who it is.
    Name,
    Publish,
    Watch,
    /// The right to watch anything, be it something else.
    WatchSomething,
    /// Both, on the same topic.
    Both,
    Admin,
}

/// The topics that the rows are about.
const TOPIC: &str = "a.x";
const ROOM_TOPIC: &str = "chat.r";

/// A method of gRPC.
struct Call {
    path: &'static str,
    need: Need,
    messages: Vec<Vec<u8>>,
    /// Its stream has no end of its own: a message is enough.
    is_endless: bool,
}

/// A path of plain HTTP.
struct Path {
    route: &'static str,
    need: Need,
    method: &'static str,
    path: String,
    body: &'static str,
}

fn calls() -> Vec<Call> {
    let watch = feed::WatchRequest {
        topic: TOPIC.into(),
        start: from_oldest(),
        until_caught_up: true,
        ..Default::default()
    };
    let said = chat::Message {
        user: "u".into(),
        content: "c".into(),
        room: "r".into(),
        ..Default::default()
    };
    let append = |kind| feed::AppendRequest { kind: Some(kind) };
    use feed::append_request::{Batch, Kind, Open};
    let open = append(Kind::Open(Open { producer_id: "p".into(), epoch: 0 }));
    let batch = Batch { producer_seq: 1, events: vec![event(TOPIC, "b")], expected_head: None };
    let by_seq = |seq| Some(feed::get_event_request::By::Seq(seq));
    let before = Some(feed::trim_request::Before::Seq(1));
    let list = tonic_reflection::pb::v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(
            tonic_reflection::pb::v1::server_reflection_request::MessageRequest::ListServices(
                String::new(),
            ),
        ),
    };
    let health = tonic_health::pb::HealthCheckRequest::default().encode_to_vec();
    let one = |path, need, message: Vec<u8>| Call {
        path,
        need,
        messages: vec![message],
        is_endless: false,
    };
    let endless = |path, need, message: Vec<u8>| Call {
        path,
        need,
        messages: vec![message],
        is_endless: true,
    };
    use methods::{chat_service as c, feed_service as f};
    vec![
        one(f::WATCH.path, Need::Watch, watch.encode_to_vec()),
        one(f::UPLOAD_EVENTS.path, Need::Publish, event(TOPIC, "b").encode_to_vec()),
        one(f::CHAT.path, Need::Both, {
            let text = "t".into();
            feed::ChatMessage { text, room: "r".into(), ..Default::default() }.encode_to_vec()
        }),
        one(f::PUBLISH.path, Need::Publish, {
            let event = Some(event(TOPIC, "b"));
            feed::PublishRequest { event, expected_head: None }.encode_to_vec()
        }),
        Call {
            path: f::APPEND.path,
            need: Need::Publish,
            messages: vec![open.encode_to_vec(), append(Kind::Batch(batch)).encode_to_vec()],
            is_endless: false,
        },
        one(f::WATCH_BATCHES.path, Need::Watch, watch.encode_to_vec()),
        one(f::GET_EVENT.path, Need::WatchSomething, {
            feed::GetEventRequest { by: by_seq(1) }.encode_to_vec()
        }),
        one(f::GET_LOG.path, Need::Name, Vec::new()),
        one(f::LIST_TOPICS.path, Need::WatchSomething, Vec::new()),
        one(f::TRIM.path, Need::Admin, feed::TrimRequest { before }.encode_to_vec()),
        one(f::GET_PRINCIPAL.path, Need::Name, Vec::new()),
        one(f::BACKUP.path, Need::Admin, Vec::new()),
        one(f::ERASE.path, Need::Admin, {
            feed::EraseRequest { topic: TOPIC.into(), dry_run: true, ..Default::default() }
                .encode_to_vec()
        }),
        one(f::GET_RETENTION.path, Need::Admin, {
            feed::GetRetentionRequest::default().encode_to_vec()
        }),
        one(f::REPORT_PROGRESS.path, Need::Name, Vec::new()),
        one(c::SEND_MESSAGE.path, Need::Publish, {
            let (room, user, content) = ("r".into(), "u".into(), "c".into());
            chat::SendMessageRequest { room, user, content }.encode_to_vec()
        }),
        endless(c::SUBSCRIBE_MESSAGES.path, Need::Watch, {
            chat::SubscribeRequest { room: "r".into(), ..Default::default() }.encode_to_vec()
        }),
        one(c::UPLOAD_MESSAGES.path, Need::Publish, said.encode_to_vec()),
        one(c::CHAT.path, Need::Both, said.encode_to_vec()),
        endless(c::STREAM_METRICS.path, Need::Admin, Vec::new()),
        one("/grpc.health.v1.Health/Check", Need::Open, health.clone()),
        endless("/grpc.health.v1.Health/Watch", Need::Open, health),
        one(
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            Need::Name,
            list.encode_to_vec(),
        ),
        one(
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
            Need::Name,
            list.encode_to_vec(),
        ),
    ]
}

fn paths(page_file: &str) -> Vec<Path> {
    let row = |route, need, method, path: &str, body| Path {
        route,
        need,
        method,
        path: path.to_owned(),
        body,
    };
    let watch = format!("/v1/watch?topic={TOPIC}&from=oldest&until_caught_up");
    vec![
        row("/", Need::Open, "GET", "/", ""),
        row("/page/{version}/{*path}", Need::Open, "GET", page_file, ""),
        row("/healthz", Need::Open, "GET", "/healthz", ""),
        row("/readyz", Need::Open, "GET", "/readyz", ""),
        row("/metrics", Need::Name, "GET", "/metrics", ""),
        row("/openapi.json", Need::Name, "GET", "/openapi.json", ""),
        row("/v1/watch", Need::Watch, "GET", &watch, ""),
        row("/v1/events", Need::Publish, "POST", "/v1/events", r#"{"topic":"a.x","body":"b"}"#),
        row("/v1/events/{seq}", Need::WatchSomething, "GET", "/v1/events/1", ""),
        row("/v1/history", Need::Name, "GET", "/v1/history", ""),
        row("/v1/log", Need::Name, "GET", "/v1/log", ""),
        row("/v1/principal", Need::Name, "GET", "/v1/principal", ""),
        row("/v1/topics", Need::WatchSomething, "GET", "/v1/topics", ""),
    ]
}

/// Everything but what a row needs: one of them for each right that it needs.
fn too_little(need: Need) -> Vec<Rights> {
    let all = &[">"][..];
    let other = &["a.y", "b.>", "chat.*.x", "chat.q"][..];
    match need {
        Need::Open | Need::Name => vec![Rights::default()],
        Need::Publish => vec![rights(other, all, true), rights(&[], all, true)],
        Need::Watch => vec![rights(all, other, true), rights(all, &[], true)],
        Need::WatchSomething => vec![rights(all, &[], true)],
        Need::Both => vec![rights(other, all, true), rights(all, other, true)],
        Need::Admin => vec![rights(all, all, false)],
    }
}

/// No more than a row needs.
fn just_enough(need: Need) -> Rights {
    let topics = &[TOPIC, ROOM_TOPIC][..];
    match need {
        Need::Open | Need::Name => Rights::default(),
        Need::Publish => rights(topics, &[], false),
        Need::Watch | Need::WatchSomething => rights(&[], topics, false),
        Need::Both => rights(topics, topics, false),
        Need::Admin => rights(&[], &[], true),
    }
}

/// Who asks, and how it must end.
struct Who {
    name: String,
    /// The header `authorization`.
    says: Option<String>,
    ends: Ends,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    Well,
    Unauthenticated,
    Denied,
}

fn everybody(server: &TestServer, need: Need) -> Vec<Who> {
    let (mut known, issuer, stranger) = (Known::default(), Issuer::new(), Issuer::new());
    let past = Timestamp { seconds: 1, nanos: 0 };
    let all = rights(&[">"], &[">"], true);
    let let_in = if need == Need::Open { Ends::Well } else { Ends::Unauthenticated };
    let denied = if matches!(need, Need::Open | Need::Name) { Ends::Well } else { Ends::Denied };
    let mut everybody = Vec::new();
    let mut add = |name: &str, says: Option<String>, ends| {
        everybody.push(Who { name: name.to_owned(), says, ends });
    };
    let bearer = |token: String| Some(format!("Bearer {token}"));
    add("nobody", None, let_in);
    add("wrong", bearer(tailmark::server::new_token().unwrap()), let_in);
    add("empty", bearer(String::new()), let_in);
    add("basic", Some("Basic dTpw".to_owned()), let_in);
    add("expired", bearer(known.give_until("late", all.clone(), Some(past))), let_in);
    add("expired jwt", bearer(issuer.token("late", &all, past)), let_in);
    add("jwt of a stranger", bearer(stranger.token("eve", &all, after(60))), let_in);
    for (at, little) in too_little(need).into_iter().enumerate() {
        let jwt = issuer.token("little", &little, after(60));
        add("too little", bearer(known.give(&format!("little {at}"), little)), denied);
        add("too little by jwt", bearer(jwt), denied);
    }
    add("just enough", bearer(known.give("just", just_enough(need))), Ends::Well);
    add("just enough by jwt", bearer(issuer.token("j", &just_enough(need), after(60))), Ends::Well);
    add("enough", bearer(known.give("root", all.clone())), Ends::Well);
    // The scheme is of any case.
    add("Enough", Some(format!("bEARER {}", known.give("second", all))), Ends::Well);
    known.enforce(server);
    server.credentials.set_keys(issuer.keys());
    everybody
}

use tailmark_record::Timestamp;

fn framed(messages: &[Vec<u8>]) -> Vec<u8> {
    let frame = |message: &Vec<u8>| {
        let len = u32::try_from(message.len()).unwrap().to_be_bytes();
        [&[0][..], &len, message].concat()
    };
    messages.iter().flat_map(frame).collect()
}

/// What a call comes to: a code, and the challenge that came with it.
async fn outcome(mut response: http::Response<Incoming>, is_endless: bool) -> (i32, String) {
    assert_eq!(response.status(), StatusCode::OK);
    let told = |headers: &http::HeaderMap| {
        let text = |name| headers.get(name).map(|it| it.to_str().unwrap().to_owned());
        let challenge = text("www-authenticate").unwrap_or_default();
        text("grpc-status").map(|code| (code.parse().unwrap(), challenge))
    };
    if let Some(told) = told(response.headers()) {
        return told;
    }
    loop {
        let frame = within("frame", response.body_mut().frame()).await.expect("a status").unwrap();
        if let Some(trailers) = frame.trailers_ref() {
            return told(trailers).expect("a status");
        }
        let data = frame.into_data().unwrap();
        // gRPC-Web has its trailers in a frame of their own, which may follow others.
        if let Some(at) = data.windows(12).position(|part| part == b"grpc-status:") {
            let text = String::from_utf8_lossy(&data[at..]).into_owned();
            let of = |name: &str| {
                let line = text.lines().find_map(|line| line.strip_prefix(name));
                line.map(|value| value.trim().to_owned())
            };
            let challenge = of("www-authenticate:").unwrap_or_default();
            return (of("grpc-status:").unwrap().parse().unwrap(), challenge);
        }
        if is_endless && !data.is_empty() {
            return (0, String::new());
        }
    }
}

#[track_caller]
fn check(what: &str, who: &Who, code: i32, challenge: &str) {
    let expected = match who.ends {
        Ends::Well => Code::Ok,
        Ends::Unauthenticated => Code::Unauthenticated,
        Ends::Denied => Code::PermissionDenied,
    };
    assert_eq!(Code::from(code), expected, "{what}, {}", who.name);
    let wanted = match who.ends {
        Ends::Well => "",
        Ends::Unauthenticated if who.says.is_none() => "Bearer",
        Ends::Unauthenticated => "Bearer error=\"invalid_token\"",
        Ends::Denied => "Bearer error=\"insufficient_scope\"",
    };
    assert_eq!(challenge, wanted, "{what}, {}", who.name);
}

fn saying(request: Request<Body>, who: &Who) -> Request<Body> {
    match &who.says {
        Some(says) => with(request, &[("authorization", says)]),
        None => request,
    }
}

#[tokio::test]
async fn every_method_by_everybody() {
    let rows = calls();
    let covered: BTreeSet<&str> = rows.iter().map(|row| row.path).collect();
    let all: BTreeSet<&str> = methods::all().map(|method| method.path).collect();
    assert_eq!(covered, all, "each method has a row");
    // Of which a backup is given.
    let dir = tempfile::tempdir().unwrap();
    logdir::close(dir.path(), logdir::open(dir.path()).0);
    let data_dir = Some(dir.path().to_owned());
    let server = start_with(new_log(), Options { data_dir, ..options() }).await;
    server.store(TOPIC, 1).await;
    for row in rows {
        let method: &Method = methods::all().find(|method| method.path == row.path).unwrap();
        for who in everybody(&server, row.need) {
            let head = server.head();
            let what = format!("{} over gRPC", row.path);
            let headers = [("content-type", "application/grpc"), ("te", "trailers")];
            let mut asked = with(request(&server, "POST", row.path), &headers);
            *asked.body_mut() = full(framed(&row.messages));
            let response = send(server.address, Version::HTTP_2, saying(asked, &who)).await;
            let (code, challenge) = outcome(response, row.is_endless).await;
            check(&what, &who, code, &challenge);
            if method.client_streams {
                // Nobody is served that over gRPC-Web.
                continue;
            }
            for version in BOTH {
                let what = format!("{} over gRPC-Web, {version:?}", row.path);
                let headers = [("content-type", "application/grpc-web+proto")];
                let mut asked = with(request(&server, "POST", row.path), &headers);
                *asked.body_mut() = full(framed(&row.messages));
                let response = send(server.address, version, saying(asked, &who)).await;
                let (code, challenge) = outcome(response, row.is_endless).await;
                check(&what, &who, code, &challenge);
            }
            if who.ends != Ends::Well {
                assert_eq!(server.head(), head, "{}, {}: stored all the same", row.path, who.name);
            }
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn every_path_by_everybody() {
    let server = start().await;
    server.store(TOPIC, 1).await;
    let index = ask(server.address, Version::HTTP_11, request(&server, "GET", "/")).await;
    let at = index.text().find("/page/").unwrap();
    let file = index.text()[at..].split('"').next().unwrap().to_owned();
    let rows = paths(&file);
    let covered: BTreeSet<&str> = rows.iter().map(|row| row.route).collect();
    assert_eq!(covered, routes(), "each path has a row");
    for row in rows {
        for who in everybody(&server, row.need) {
            for version in BOTH {
                let (what, head) = (format!("{} over {version:?}", row.path), server.head());
                let mut asked = request(&server, row.method, &row.path);
                if !row.body.is_empty() {
                    asked = with(asked, &[("content-type", "application/json")]);
                    *asked.body_mut() = full(Bytes::from_static(row.body.as_bytes()));
                }
                let answer = ask(server.address, version, saying(asked, &who)).await;
                let code = match answer.status.as_u16() {
                    200 => Code::Ok,
                    401 => Code::Unauthenticated,
                    403 => Code::PermissionDenied,
                    other => panic!("{what}, {}: {other}", who.name),
                };
                check(&what, &who, code.into(), answer.header("www-authenticate"));
                if who.ends != Ends::Well {
                    assert!(answer.json()["reason"].is_string(), "{what}");
                    assert_eq!(server.head(), head, "{what}, {}: stored all the same", who.name);
                }
            }
        }
    }
    server.stop().await;
}

/// As the router has them.
fn routes() -> BTreeSet<&'static str> {
    let sources = [
        include_str!("../../../src/server/http/mod.rs"),
        include_str!("../../../src/server/http/page.rs"),
    ];
    let mut routes = BTreeSet::new();
    for part in sources.iter().flat_map(|source| source.split(".route(\"").skip(1)) {
        routes.insert(part.split('"').next().unwrap());
    }
    assert!(routes.len() > 8);
    routes
}

/// What nobody knows is nobody's to find out.
#[tokio::test]
async fn paths_that_are_not_there_are_closed_too() {
    let server = start().await;
    for path in ["/v1/nothing", "/nothing", "/metrics/", "//metrics", "/page", "/v1/events/1/x"] {
        let answer = ask(server.address, Version::HTTP_11, request(&server, "GET", path)).await;
        answer.expect(401, "UNAUTHENTICATED", "TOKEN_MISSING");
    }
    let asked = with(
        request(&server, "POST", "/feed.v1.FeedService/Nothing"),
        &[("content-type", "application/grpc")],
    );
    let (code, _) = outcome(send(server.address, Version::HTTP_2, asked).await, false).await;
    assert_eq!(Code::from(code), Code::Unauthenticated);
    server.stop().await;
}
