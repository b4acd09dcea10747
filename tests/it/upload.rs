//! Uploading over real sockets: the contract's section 2.

use std::sync::Arc;

use bytes::Bytes;
use tailmark::server::Options;
use tailmark_log::storage::memory::{Memory, Options as MemoryOptions};
use tailmark_record::Seq;
use tailmark_wire::feed_v1 as pb;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Code, Status};

use crate::support::raw;
use crate::support::server::{
    DEADLINES, TestServer, bad_field, event, expect, from_oldest, generations, memory, open, start,
    start_with, until, watch, within,
};

async fn upload(server: &TestServer, events: Vec<pb::Event>) -> Result<pb::UploadResult, Status> {
    let mut client = server.client().await;
    let upload = client.upload_events(tokio_stream::iter(events));
    Ok(within("upload", upload).await?.into_inner())
}

async fn stored(server: &TestServer) -> Vec<pb::Event> {
    let request =
        pb::WatchRequest { start: from_oldest(), until_caught_up: true, ..Default::default() };
    watch(&mut server.client().await, request).await.unwrap().rest().await.0
}

#[tokio::test]
async fn nothing_is_a_regular_upload() {
    let server = start().await;
    let result = upload(&server, Vec::new()).await.unwrap();
    assert_eq!((result.received, result.stored, result.first_seq, result.last_seq), (0, 0, 0, 0));
    assert_eq!(result.last_cursor, "");
    assert_eq!(result.durability(), pb::Durability::Fsync);
    server.stop().await;
}

#[tokio::test]
async fn what_was_sent_is_stored_and_what_the_server_sets_is_not_taken_from_it() {
    let server = start().await;
    let sent = pb::Event {
        id: "mine".into(),
        topic: "a.b".into(),
        at: Some(prost_types::Timestamp { seconds: -5, nanos: 7 }),
        data: Bytes::from_static(&[0, 159, 146, 150]),
        r#type: "kind".into(),
        key: "key".into(),
        headers: [("one".to_owned(), "1".to_owned()), ("none".into(), String::new())].into(),
        // The server's own words.
        seq: 900,
        cursor: "tnonsense".into(),
        appended_at: Some(prost_types::Timestamp { seconds: 1, nanos: 0 }),
        ..Default::default()
    };
    let result = upload(&server, vec![sent.clone(), event("c", "text")]).await.unwrap();
    assert_eq!((result.received, result.stored, result.first_seq, result.last_seq), (2, 2, 1, 2));
    assert_eq!(result.last_cursor, server.cursor(2));
    let events = stored(&server).await;
    let appended_at = events[0].appended_at;
    assert!(appended_at.unwrap().seconds > 1_600_000_000);
    let expected = pb::Event { seq: 1, cursor: server.cursor(1), appended_at, ..sent };
    assert_eq!(events[0], expected);
    assert_eq!((events[1].body.as_str(), events[1].id.len()), ("text", 36));
    assert_eq!(events[1].at, events[1].appended_at);

    // So a dump can be uploaded again, and is recognised.
    let result = upload(&server, vec![events[0].clone()]).await.unwrap();
    assert_eq!((result.received, result.duplicates, result.stored), (1, 1, 0));
    assert_eq!((result.first_seq, result.last_cursor), (0, server.cursor(1)));
    server.stop().await;
}

#[tokio::test]
async fn repeats_are_counted_and_nothing_else_is_one() {
    let server = start().await;
    let named = |id: &str, body: &str| pb::Event { id: id.into(), ..event("a", body) };
    let first = vec![named("1", "x"), named("2", "x"), event("a", "x"), event("a", "x")];
    let result = upload(&server, first.clone()).await.unwrap();
    assert_eq!((result.received, result.stored, result.duplicates), (4, 4, 0));
    // Another body under a known id is another event; without ids nothing is a repeat.
    let mut again = first;
    again.push(named("1", "y"));
    let result = upload(&server, again).await.unwrap();
    assert_eq!((result.received, result.stored, result.duplicates), (5, 3, 2));
    assert_eq!((result.first_seq, result.last_seq), (5, 7));
    server.stop().await;
}

#[tokio::test]
async fn events_are_durable_as_they_arrive() {
    let server = start().await;
    let mut watcher = server.client().await;
    let request = pb::WatchRequest { start: from_oldest(), ..Default::default() };
    let mut watching = watch(&mut watcher, request).await.unwrap();
    let (sender, receiver) = mpsc::unbounded_channel();
    let mut client = server.client().await;
    let uploading =
        tokio::spawn(
            async move { client.upload_events(UnboundedReceiverStream::new(receiver)).await },
        );
    for seq in 1..=20 {
        sender.send(event("a", &seq.to_string())).unwrap();
        assert_eq!(watching.event().await.seq, seq);
    }
    drop(sender);
    let result = within("upload", uploading).await.unwrap().unwrap().into_inner();
    assert_eq!((result.received, result.last_seq), (20, 20));
    server.stop().await;
}

#[tokio::test]
async fn a_large_upload_keeps_its_order() {
    let server = start().await;
    let events: Vec<_> = (0..100_000).map(|at| event("a", &at.to_string())).collect();
    let result = upload(&server, events).await.unwrap();
    assert_eq!((result.received, result.first_seq, result.last_seq), (100_000, 1, 100_000));
    for (at, event) in stored(&server).await.iter().enumerate() {
        assert_eq!((event.seq, event.body.as_str()), (at as u64 + 1, at.to_string().as_str()));
    }
    server.stop().await;
}

#[tokio::test]
async fn a_bad_event_ends_the_upload_after_those_before_it_are_durable() {
    let bad = |make: fn(&mut pb::Event)| {
        let mut event = event("a", "bad");
        make(&mut event);
        event
    };
    let time = |seconds, nanos| Some(prost_types::Timestamp { seconds, nanos });
    let mut cases = vec![
        (bad(|it| it.topic.clear()), "topic"),
        (bad(|it| it.topic = "a..b".into()), "topic"),
        (bad(|it| it.topic = "a b".into()), "topic"),
        (bad(|it| it.topic = "a.*".into()), "topic"),
        (bad(|it| it.topic = ">".into()), "topic"),
        (bad(|it| it.data = Bytes::from_static(b"too")), "data"),
        (bad(|it| it.marker = Some(pb::Marker::default())), "marker"),
        (bad(|it| it.headers = [(String::new(), "x".to_owned())].into()), "headers"),
    ];
    for at in [time(253_402_300_800, 0), time(-62_135_596_801, 0), time(0, -1), time(0, 1 << 30)] {
        cases.push((pb::Event { at, ..event("a", "bad") }, "at"));
    }
    let server = start().await;
    let mut head = 0;
    for (at, (bad, field)) in cases.into_iter().enumerate() {
        // The bad one is first, in the middle, far behind.
        let before = [0, 3, 2_000][at % 3];
        let mut events = vec![event("a", "good"); before];
        events.push(bad);
        events.extend(vec![event("a", "after"); 3]);
        let status = upload(&server, events).await.unwrap_err();
        let info = expect(&status, Code::InvalidArgument, "INVALID_FIELD");
        assert_eq!(bad_field(&status), field);
        head += before as u64;
        let count = before.to_string();
        assert_eq!((&info["index"], &info["received"]), (&count, &count));
        let last = if before == 0 { String::new() } else { server.cursor(head) };
        assert_eq!(info["last_cursor"], last);
        assert_eq!(server.head(), head);
    }
    server.stop().await;
}

#[tokio::test]
async fn bytes_that_are_no_event_are_a_bad_event() {
    let server = start().await;
    let good: &[u8] = b"\x12\x01a";
    for bad in [&b"\xff"[..], b"\x12\x05a", b"\x10\x01", b"\x12\x01\xff", b"\x0b", b"\x00\x00"] {
        let head = server.head();
        let messages = [good, good, bad, good].map(Bytes::copy_from_slice);
        let status = raw::upload(server.channel().await, messages.to_vec()).await.unwrap_err();
        let info = expect(&status, Code::InvalidArgument, "EVENT_MALFORMED");
        assert_eq!((info["index"].as_str(), info["received"].as_str()), ("2", "2"));
        assert_eq!(server.head(), head + 2);
    }
    // Unknown fields are dropped, not stored.
    let message = b"\x12\x01a\xa2\x06\x03xyz".to_vec();
    raw::upload(server.channel().await, vec![message.into()]).await.unwrap();
    let event = server.log.event(Seq::new(server.head())).await.unwrap().unwrap();
    assert!(!event.windows(3).any(|three| three == b"xyz"));
    server.stop().await;
}

/// A log whose commits wait until they are let go.
async fn held(options: Options) -> (Arc<Memory>, TestServer) {
    let options_of_log = MemoryOptions { hold: true, ..Default::default() };
    let engine = Arc::new(memory(generations(&[1]), options_of_log));
    let log = open(engine.clone(), Default::default());
    (engine, start_with(log, options).await)
}

#[tokio::test]
async fn what_arrived_whole_before_a_cut_is_kept() {
    let (engine, server) = held(Options::default()).await;
    let (sender, receiver) = mpsc::unbounded_channel();
    let mut client = server.client().await;
    let uploading =
        tokio::spawn(
            async move { client.upload_events(UnboundedReceiverStream::new(receiver)).await },
        );
    for at in 0..500 {
        sender.send(event("a", &at.to_string())).unwrap();
    }
    until("a commit under way", || engine.held() > 0).await;
    // The client goes away: its task is dropped, with the connection and half a stream.
    uploading.abort();
    assert!(uploading.await.unwrap_err().is_cancelled());
    until("the cut", || server.gauges.connections() == 0).await;
    assert_eq!((server.gauges.uploads(), server.head()), (1, 0));
    until("the end of the upload", || {
        engine.release();
        server.gauges.uploads() == 0
    })
    .await;
    let head = server.head();
    assert!(head > 0);
    for seq in 1..=head {
        let bytes = server.log.event(Seq::new(seq)).await.unwrap().unwrap();
        let event = tailmark_record::Event::parse(&bytes).unwrap();
        assert_eq!(event.body, (seq - 1).to_string());
    }
    server.stop().await;
}

#[tokio::test]
async fn a_deadline_ends_an_upload_that_waits_for_more() {
    let server = start().await;
    for deadline in DEADLINES {
        let (sender, receiver) = mpsc::unbounded_channel();
        sender.send(Bytes::from_static(b"\x12\x01a")).unwrap();
        let stream = UnboundedReceiverStream::new(receiver);
        let status = raw::upload_until(server.address, stream, deadline).await.unwrap_err();
        drop(sender);
        let info = expect(&status, Code::DeadlineExceeded, "DEADLINE");
        // It says what is durable, unless the event came too late for that.
        if info.get("received").is_some_and(|received| received == "1") {
            assert_eq!(info["last_cursor"], server.cursor(server.head()));
            return server.stop().await;
        }
    }
    panic!("an event never came before a deadline");
}

#[tokio::test]
async fn a_deadline_is_kept_while_the_disk_is_not_ready() {
    let (engine, server) = held(Options::default()).await;
    for is_upload in [true, false] {
        for deadline in DEADLINES {
            let status = if is_upload {
                let stream = tokio_stream::iter([Bytes::from_static(b"\x12\x01a")]);
                raw::upload_until(server.address, stream, deadline).await.unwrap_err()
            } else {
                let event = Some(event("a", "x"));
                let request = pb::PublishRequest { event, expected_head: None };
                raw::publish_until(server.address, request, deadline).await.unwrap_err()
            };
            expect(&status, Code::DeadlineExceeded, "DEADLINE");
            // Else the deadline came before the event.
            if engine.held() > 0 {
                break;
            }
        }
        // It is stored once the disk is ready: a deadline takes nothing back.
        let before = server.head();
        assert!(engine.held() > 0, "no event ever came before a deadline");
        until("the event", || {
            engine.release();
            server.head() > before && engine.held() == 0
        })
        .await;
    }
    server.stop().await;
}

#[tokio::test]
async fn a_stopping_server_says_how_far_an_upload_came() {
    let server = start().await;
    let (sender, receiver) = mpsc::unbounded_channel();
    let mut client = server.client().await;
    let uploading =
        tokio::spawn(
            async move { client.upload_events(UnboundedReceiverStream::new(receiver)).await },
        );
    for _ in 0..10 {
        sender.send(event("a", "x")).unwrap();
    }
    until("ten events", || server.head() == 10).await;
    server.shutdown.cancel();
    let status = within("upload", uploading).await.unwrap().unwrap_err();
    let info = expect(&status, Code::Unavailable, "STOPPING");
    assert_eq!((info["received"].as_str(), info["index"].as_str()), ("10", "10"));
    assert_eq!(info["last_cursor"], server.cursor(10));
    server.stop().await;
}
