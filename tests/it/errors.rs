//! Bad input and small calls: each gets its own clear answer.

use std::sync::Arc;

use bytes::Bytes;
use tailmark_log::storage::StoreError;
use tailmark_wire::feed_v1::{self as pb, get_event_request::By, start::At, trim_request::Before};
use tokio_stream::StreamExt;
use tonic::Code;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};

use crate::support::broken::Broken;
use crate::support::raw;
use crate::support::server::{
    TestServer, bad_field, event, expect, from_oldest, generations, log_id, memory, open, start,
    start_at, start_with, until, watch, within,
};

#[tokio::test]
async fn a_bad_watch_names_its_field() {
    let server = start().await;
    let mut client = server.client().await;
    server.store("a", 1).await;
    let base = pb::WatchRequest::default;
    let at = |at| pb::WatchRequest { start: start_at(at), ..base() };
    let time = |seconds, nanos| At::Time(prost_types::Timestamp { seconds, nanos });
    for (request, field) in [
        (pb::WatchRequest { limit: -1, ..base() }, "limit"),
        (pb::WatchRequest { limit: i64::MIN, ..base() }, "limit"),
        (pb::WatchRequest { topic: "a..b".into(), ..base() }, "topic"),
        (pb::WatchRequest { topic: "a.>.b".into(), ..base() }, "topic"),
        (pb::WatchRequest { topic: "a b".into(), ..base() }, "topic"),
        (pb::WatchRequest { topics: vec!["a".into(), String::new()], ..base() }, "topics[1]"),
        (pb::WatchRequest { topics: vec!["a*".into()], ..base() }, "topics[0]"),
        (pb::WatchRequest { on_lost: 2, ..base() }, "on_lost"),
        (pb::WatchRequest { on_lost: 3, ..base() }, "on_lost"),
        (pb::WatchRequest { on_lost: 4, ..base() }, "on_lost"),
        (pb::WatchRequest { on_lost: 5, markers: true, ..base() }, "on_lost"),
        (pb::WatchRequest { on_lost: -1, markers: true, ..base() }, "on_lost"),
        (pb::WatchRequest { after_cursor: "1".into(), start: from_oldest(), ..base() }, "start"),
        (
            pb::WatchRequest {
                after_cursor: "1".into(),
                start: Some(pb::Start::default()),
                ..base()
            },
            "start",
        ),
        (at(At::Seq(0)), "start.seq"),
        (at(At::Oldest(false)), "start.oldest"),
        (at(At::Latest(false)), "start.latest"),
        (at(time(253_402_300_800, 0)), "start.time"),
        (at(time(0, 1_000_000_000)), "start.time"),
        (at(time(0, -1)), "start.time"),
    ] {
        let status = watch(&mut client, request.clone()).await.err().unwrap();
        expect(&status, Code::InvalidArgument, "INVALID_FIELD");
        assert_eq!(bad_field(&status), field, "{request:?}");
    }
    // A watch that was refused leaves nothing behind.
    assert_eq!(server.gauges.watches(), 0);
    server.stop().await;
}

#[tokio::test]
async fn bad_metadata_names_its_field() {
    let server = start().await;
    let mut client = server.client().await;
    server.store("a", 2).await;
    for (name, value, field) in [
        ("feed-after-cursor", "2", "after_cursor"),
        ("grpc-timeout", "soon", "grpc-timeout"),
        ("grpc-timeout", "123456789S", "grpc-timeout"),
    ] {
        let message = pb::WatchRequest { after_cursor: "1".into(), ..Default::default() };
        let mut request = tonic::Request::new(message);
        request.metadata_mut().insert(name, value.parse().unwrap());
        let status = within("watch", client.watch(request)).await.unwrap_err();
        expect(&status, Code::InvalidArgument, "INVALID_FIELD");
        assert_eq!(bad_field(&status), field);
    }
    for (second, is_good) in [("2", false), ("1", true)] {
        let mut request = tonic::Request::new(pb::WatchRequest::default());
        request.metadata_mut().append("feed-after-cursor", "1".parse().unwrap());
        request.metadata_mut().append("feed-after-cursor", second.parse().unwrap());
        let result = within("watch", client.watch(request)).await;
        assert_eq!(result.is_ok(), is_good, "{result:?}");
        if let Err(status) = result {
            expect(&status, Code::InvalidArgument, "INVALID_FIELD");
            assert_eq!(bad_field(&status), "feed-after-cursor");
        }
    }
    let mut request = tonic::Request::new(pb::WatchRequest::default());
    request.metadata_mut().insert("feed-after-cursor", "nonsense".parse().unwrap());
    let status = within("watch", client.watch(request)).await.unwrap_err();
    expect(&status, Code::InvalidArgument, "CURSOR_MALFORMED");
    server.stop().await;
}

#[tokio::test]
async fn bytes_that_are_no_message_are_the_clients_fault() {
    let server = start().await;
    for method in ["Publish", "GetEvent", "ListTopics", "Trim", "GetLog", "Watch"] {
        let message = Bytes::from_static(b"\x0a\xff");
        let status = raw::call(server.channel().await, method, message).await.unwrap_err();
        expect(&status, Code::InvalidArgument, "MESSAGE_MALFORMED");
    }
    server.stop().await;
}

#[tokio::test]
async fn publish_answers_with_the_place_and_knows_repeats() {
    let server = start().await;
    let mut client = server.client().await;
    let request = |event| pb::PublishRequest { event: Some(event), expected_head: None };
    let mine = pb::Event { id: "mine".into(), ..event("a.b", "x") };
    let first = client.publish(request(mine.clone())).await.unwrap().into_inner();
    assert_eq!((first.id.as_str(), first.seq, first.duplicate), ("mine", 1, false));
    assert_eq!(
        (first.cursor.clone(), first.durability()),
        (server.cursor(1), pb::Durability::Fsync)
    );
    let second = client.publish(request(event("a.b", "x"))).await.unwrap().into_inner();
    assert_eq!((second.id.len(), second.seq, second.duplicate), (36, 2, false));
    let again = client.publish(request(mine)).await.unwrap().into_inner();
    assert_eq!((again.id.as_str(), again.seq, again.duplicate), ("mine", 1, true));
    assert_eq!(again.cursor, first.cursor);
    // A repeat has no time of its own.
    assert!(first.appended_at.is_some() && second.appended_at.is_some());
    assert_eq!(again.appended_at, None);

    let by = Some(By::Seq(2));
    let stored = client.get_event(pb::GetEventRequest { by }).await.unwrap().into_inner();
    assert_eq!((stored.id, stored.appended_at), (second.id, second.appended_at));

    let status = client.publish(pb::PublishRequest::default()).await.unwrap_err();
    expect(&status, Code::InvalidArgument, "INVALID_FIELD");
    assert_eq!(bad_field(&status), "event");
    let status = client.publish(request(event("a b", "x"))).await.unwrap_err();
    assert_eq!(bad_field(&status), "event.topic");
    let info = expect(&status, Code::InvalidArgument, "INVALID_FIELD");
    assert_eq!(info["field"], "event.topic");
    server.stop().await;
}

#[tokio::test]
async fn a_lost_expectation_is_aborted_with_what_is() {
    let server = start().await;
    let mut client = server.client().await;
    let request = |topic: &str, of: &str, seq| pb::PublishRequest {
        event: Some(event(topic, "x")),
        expected_head: Some(pb::ExpectedHead { topic: of.into(), seq }),
    };
    for (topic, of, seq, actual) in [
        ("a", "", 0, None),
        ("a", "", 0, Some("1")),
        ("b", "b", 0, None),
        ("b", "b", 0, Some("2")),
        ("b", "b", 1, Some("2")),
        ("a", "a", 1, None),
        ("b", "", 3, None),
    ] {
        let result = client.publish(request(topic, of, seq)).await;
        match actual {
            None => assert!(result.is_ok(), "{topic} {of:?} {seq}: {result:?}"),
            Some(actual) => {
                let info = expect(&result.unwrap_err(), Code::Aborted, "HEAD_MOVED");
                assert_eq!(info["actual"], actual, "{topic} {of:?} {seq}");
            }
        }
    }
    assert_eq!(server.head(), 4);
    for topic in ["a..b", "a.*", ">", "a b"] {
        let status = client.publish(request("a", topic, 0)).await.unwrap_err();
        let info = expect(&status, Code::InvalidArgument, "INVALID_FIELD");
        assert_eq!(
            (&*info["field"], &*bad_field(&status)),
            ("expected_head.topic", &*info["field"])
        );
    }
    assert_eq!(server.head(), 4);
    // Nothing of a topic is left: it is as if it had never been.
    server.trim(4).await;
    client.publish(request("a", "a", 0)).await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn an_event_is_got_by_seq_or_cursor() {
    let server = start().await;
    let mut client = server.client().await;
    server.store("a", 9).await;
    server.trim(4).await;
    let cursor = |seq| By::Cursor(server.cursor(seq));
    for (by, seq) in [(By::Seq(4), 4), (By::Seq(9), 9), (cursor(4), 4), (By::Cursor("9".into()), 9)]
    {
        let request = pb::GetEventRequest { by: Some(by) };
        let event = client.get_event(request).await.unwrap().into_inner();
        assert_eq!((event.seq, event.cursor), (seq, server.cursor(seq)));
    }
    use Code::{FailedPrecondition, InvalidArgument, NotFound, OutOfRange};
    for (by, code, reason) in [
        (None, InvalidArgument, "INVALID_FIELD"),
        (Some(By::Seq(0)), InvalidArgument, "INVALID_FIELD"),
        (Some(By::Seq(3)), OutOfRange, "CURSOR_TRIMMED"),
        (Some(By::Seq(10)), NotFound, "EVENT_NOT_FOUND"),
        (Some(By::Seq(u64::MAX)), NotFound, "EVENT_NOT_FOUND"),
        (Some(By::Cursor(String::new())), InvalidArgument, "CURSOR_MALFORMED"),
        (Some(By::Cursor("x".into())), InvalidArgument, "CURSOR_MALFORMED"),
        (Some(cursor(0)), NotFound, "EVENT_NOT_FOUND"),
        (Some(cursor(1)), OutOfRange, "CURSOR_TRIMMED"),
        (Some(cursor(3)), OutOfRange, "CURSOR_TRIMMED"),
        (Some(By::Cursor("10".into())), NotFound, "EVENT_NOT_FOUND"),
        (Some(other_log()), FailedPrecondition, "LOG_CHANGED"),
    ] {
        let status = client.get_event(pb::GetEventRequest { by: by.clone() }).await.unwrap_err();
        assert_eq!((status.code(), by.clone()), (code, by));
        expect(&status, code, reason);
        if reason == "CURSOR_TRIMMED" {
            assert!(status.message().starts_with("event "), "{status:?}");
        }
    }
    for (seq, code, reason, words) in [
        (1, OutOfRange, "CURSOR_TRIMMED", "start.seq 1: 3 events from there on were trimmed"),
        (11, OutOfRange, "CURSOR_AHEAD", "start.seq 11 is ahead of the head 9"),
    ] {
        let request = pb::WatchRequest { start: start_at(At::Seq(seq)), ..Default::default() };
        let status = watch(&mut client, request).await.err().unwrap();
        expect(&status, code, reason);
        assert_eq!(status.message(), words);
    }
    server.stop().await;
}

fn other_log() -> By {
    use tailmark_record::{CursorMint, Generation, LogId, Seq};
    let mint =
        CursorMint::new(LogId::new(uuid::Uuid::from_u128(9)), Generation { counter: 1, nonce: 1 });
    By::Cursor(mint.mint_place(Seq::new(5)))
}

#[tokio::test]
async fn the_log_tells_what_it_is() {
    let server = start().await;
    let mut client = server.client().await;
    let empty = client.get_log(pb::GetLogRequest {}).await.unwrap().into_inner();
    assert_eq!((empty.oldest_seq, empty.head_seq, empty.oldest_time), (1, 0, None));
    assert_eq!((empty.log_id, empty.head_cursor), (log_id().to_string(), server.cursor(0)));
    server.store("a", 9).await;
    server.trim(4).await;
    let _watching = watch(&mut client, pb::WatchRequest::default()).await.unwrap();
    let log = client.get_log(pb::GetLogRequest {}).await.unwrap().into_inner();
    assert_eq!((log.oldest_seq, log.head_seq, log.watches), (4, 9, 1));
    assert!(log.oldest_time.is_some() && log.head_time.is_some() && log.uptime.is_some());
    let generation = log.generation.unwrap();
    assert_eq!((generation.counter, generation.nonce, generation.first_seq), (1, 1, 1));
    let limits = log.limits.unwrap();
    assert_eq!((limits.message_bytes, limits.event_bytes), (10 << 20, 1 << 20));
    assert_eq!((limits.watches, limits.patterns_per_watch), (20_000, 64));
    assert_eq!(log.version, env!("CARGO_PKG_VERSION"));
    server.stop().await;
}

#[tokio::test]
async fn topics_come_in_pages() {
    let server = start().await;
    let mut client = server.client().await;
    for at in 0..205 {
        server.store(&format!("t.{at:03}"), 1 + at % 3).await;
    }
    server.store("z", 1).await;
    let mut names = Vec::new();
    let mut request = pb::ListTopicsRequest { prefix: "t.".into(), ..Default::default() };
    let mut pages = 0;
    loop {
        let response = client.list_topics(request.clone()).await.unwrap().into_inner();
        pages += 1;
        names.extend(response.topics.into_iter().map(|topic| (topic.topic, topic.events)));
        if response.next_page_token.is_empty() {
            break;
        }
        request.page_token = response.next_page_token;
    }
    let expected: Vec<_> = (0..205).map(|at| (format!("t.{at:03}"), 1 + at % 3)).collect();
    assert_eq!((names, pages), (expected, 3));
    for (size, count) in [(1_000, 206), (5_000, 206), (7, 7)] {
        let request = pb::ListTopicsRequest { page_size: size, ..Default::default() };
        let response = client.list_topics(request).await.unwrap().into_inner();
        assert_eq!(response.topics.len(), count);
    }
    for (prefix, patterns, count) in [
        ("", &["t.*"][..], 205),
        ("t.1", &["t.*"], 100),
        ("", &["t.007", "t.204", "z", "x"], 3),
        ("t.", &["z"], 0),
        ("", &["*.007", "z"], 2),
    ] {
        let patterns = patterns.iter().map(|&it| it.to_owned()).collect();
        let request = pb::ListTopicsRequest {
            prefix: prefix.into(),
            page_size: 1_000,
            patterns,
            ..Default::default()
        };
        let response = client.list_topics(request.clone()).await.unwrap().into_inner();
        assert_eq!((response.topics.len(), &*response.next_page_token), (count, ""), "{request:?}");
    }
    let bad_patterns = vec!["a".into(), "b..c".into()];
    for (request, field) in [
        (pb::ListTopicsRequest { patterns: bad_patterns, ..Default::default() }, "patterns[1]"),
        (pb::ListTopicsRequest { page_size: -1, ..Default::default() }, "page_size"),
        (pb::ListTopicsRequest { page_token: "?".into(), ..Default::default() }, "page_token"),
    ] {
        let status = client.list_topics(request).await.unwrap_err();
        expect(&status, Code::InvalidArgument, "INVALID_FIELD");
        assert_eq!(bad_field(&status), field);
    }
    let patterns = vec!["a".to_owned(); 65];
    let request = pb::ListTopicsRequest { patterns, ..Default::default() };
    let status = client.list_topics(request).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    server.stop().await;
}

#[tokio::test]
async fn trimming_goes_by_seq_or_time_and_never_beyond_the_head() {
    let server = start().await;
    let mut client = server.client().await;
    server.store("a", 10).await;
    let seq = |seq| pb::TrimRequest { before: Some(Before::Seq(seq)) };
    let time = |seconds| pb::TrimRequest {
        before: Some(Before::Time(prost_types::Timestamp { seconds, nanos: 0 })),
    };
    for (request, oldest, removed) in
        [(seq(1), 1, 0), (seq(4), 4, 3), (seq(2), 4, 0), (time(0), 4, 0), (seq(11), 11, 7)]
    {
        let result = client.trim(request).await.unwrap().into_inner();
        assert_eq!((result.oldest_seq, result.head_seq, result.removed), (oldest, 10, removed));
    }
    server.store("a", 2).await;
    let result = client.trim(time(253_402_300_799)).await.unwrap().into_inner();
    assert_eq!((result.oldest_seq, result.removed), (13, 2));
    for (request, field) in
        [(pb::TrimRequest { before: None }, "before"), (seq(14), "seq"), (time(1 << 60), "time")]
    {
        let status = client.trim(request).await.unwrap_err();
        expect(&status, Code::InvalidArgument, "INVALID_FIELD");
        assert_eq!(bad_field(&status), field);
    }
    server.stop().await;
}

#[tokio::test]
async fn a_deadline_that_has_passed_is_said() {
    let server = start().await;
    let request = pb::PublishRequest { event: Some(event("a", "x")), expected_head: None };
    let status = raw::publish_until(server.address, request, "1n").await.unwrap_err();
    expect(&status, Code::DeadlineExceeded, "DEADLINE");
    assert_eq!(server.head(), 0);
    server.stop().await;
}

#[tokio::test]
async fn health_answers_and_its_watchers_hear_of_the_stop() {
    let server = start().await;
    let mut health = HealthClient::new(server.channel().await);
    for service in ["", "feed.v1.FeedService"] {
        let request = HealthCheckRequest { service: service.into() };
        let response = health.check(request).await.unwrap().into_inner();
        assert_eq!(response.status(), ServingStatus::Serving, "{service:?}");
    }
    let unknown = HealthCheckRequest { service: "other".into() };
    assert_eq!(health.check(unknown).await.unwrap_err().code(), Code::NotFound);
    let request = HealthCheckRequest { service: "feed.v1.FeedService".into() };
    let mut watching = health.watch(request).await.unwrap().into_inner();
    let first = within("health", watching.next()).await.unwrap().unwrap();
    assert_eq!(first.status(), ServingStatus::Serving);
    server.shutdown.cancel();
    let last = within("health", watching.next()).await.unwrap().unwrap();
    assert_eq!(last.status(), ServingStatus::NotServing);
    let status = within("health", watching.next()).await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    server.stop().await;
}

#[tokio::test]
async fn reflection_answers_in_both_versions() {
    let server = start().await;
    macro_rules! names {
        ($version:ident) => {{
            use tonic_reflection::pb::$version::ServerReflectionRequest;
            use tonic_reflection::pb::$version::server_reflection_client::ServerReflectionClient;
            use tonic_reflection::pb::$version::server_reflection_request::MessageRequest;
            use tonic_reflection::pb::$version::server_reflection_response::MessageResponse;
            let mut client = ServerReflectionClient::new(server.channel().await);
            let ask = |message| ServerReflectionRequest {
                host: String::new(),
                message_request: Some(message),
            };
            let requests = [
                ask(MessageRequest::ListServices(String::new())),
                ask(MessageRequest::FileContainingSymbol("feed.v1.FeedService.Watch".into())),
            ];
            let response = client.server_reflection_info(tokio_stream::iter(requests)).await;
            let mut stream = response.unwrap().into_inner();
            let first = within("services", stream.message()).await.unwrap().unwrap();
            let Some(MessageResponse::ListServicesResponse(list)) = first.message_response else {
                panic!("no list");
            };
            let second = within("file", stream.message()).await.unwrap().unwrap();
            let Some(MessageResponse::FileDescriptorResponse(file)) = second.message_response
            else {
                panic!("no file");
            };
            assert!(!file.file_descriptor_proto.is_empty());
            list.service.into_iter().map(|service| service.name).collect::<Vec<_>>()
        }};
    }
    for names in [names!(v1), names!(v1alpha)] {
        for name in [
            "feed.v1.FeedService",
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection",
            "grpc.reflection.v1alpha.ServerReflection",
        ] {
            assert!(names.iter().any(|found| found == name), "{name}: {names:?}");
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn paths_that_are_not_there_are_not_found() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let server = start().await;
    for path in ["/none", "/v1/none", "/feed.v1.Nothing/GetLog"] {
        let mut stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
        let host = server.address;
        let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        within("answer", stream.read_to_string(&mut answer)).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    }
    until("the end", || server.gauges.connections() == 0).await;
    server.stop().await;
}

fn publish(body: &str) -> pb::PublishRequest {
    pb::PublishRequest { event: Some(event("a", body)), expected_head: None }
}

async fn breakable() -> (Arc<Broken>, TestServer) {
    let engine = Arc::new(Broken::whole(memory(generations(&[1]), Default::default())));
    let server = start_with(open(engine.clone(), Default::default()), Default::default()).await;
    (engine, server)
}

#[tokio::test]
async fn a_full_disk_refuses_and_recovers() {
    let (engine, server) = breakable().await;
    let mut client = server.client().await;
    let full = || StoreError::DiskFull { available_bytes: 5, needed_bytes: 70 };
    engine.fail_next(full());
    let status = client.publish(publish("x")).await.unwrap_err();
    let info = expect(&status, Code::ResourceExhausted, "DISK_FULL");
    assert_eq!((info["available_bytes"].as_str(), info["needed_bytes"].as_str()), ("5", "70"));
    assert_eq!(client.publish(publish("x")).await.unwrap().into_inner().seq, 1);
    engine.fail_next(full());
    let status = client.upload_events(tokio_stream::iter([event("a", "x")])).await.unwrap_err();
    let info = expect(&status, Code::ResourceExhausted, "DISK_FULL");
    assert_eq!((info["index"].as_str(), info["received"].as_str()), ("0", "0"));
    assert_eq!(server.head(), 1);
    server.stop().await;
}

#[tokio::test]
async fn a_failed_write_is_unknown_to_who_waits_and_a_stop_for_all_others() {
    let (engine, server) = breakable().await;
    let mut client = server.client().await;
    client.publish(publish("x")).await.unwrap();
    let source = std::io::Error::other("secret words of the system");
    engine.fail_next(StoreError::Io { action: "write", path: "/secret/place".into(), source });
    let status = client.publish(publish("y")).await.unwrap_err();
    expect(&status, Code::Internal, "OUTCOME_UNKNOWN");
    assert!(!format!("{status:?}").contains("secret"));
    let status = client.publish(publish("z")).await.unwrap_err();
    expect(&status, Code::Internal, "STORE_STOPPED");
    assert!(!format!("{status:?}").contains("secret"));
    // Reads go on.
    let request = pb::WatchRequest { start: from_oldest(), limit: 1, ..Default::default() };
    assert_eq!(watch(&mut client, request).await.unwrap().event().await.seq, 1);
    server.stop().await;
}
