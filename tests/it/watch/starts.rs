//! Where a watch begins, and what of the log it shows.

use tailmark_record::{Cursor, Seq};
use tailmark_wire::feed_v1::{self as pb, start::At};

use super::{Rpc, over_both};
use crate::support::server::{event, from_oldest, log_id, seqs, start, start_at, start_with};

over_both! {
    headers_come_at_once_also_on_an_idle_topic,
    a_watch_replays_and_goes_on_live_and_resumes_from_any_event,
    the_metadata_does_what_the_field_does,
    every_start_begins_where_it_says,
    a_filter_is_a_union_and_an_event_comes_once,
    many_events_of_many_sizes_come_whole_and_in_order,
}

async fn headers_come_at_once_also_on_an_idle_topic(rpc: Rpc) {
    let server = start().await;
    let mut client = server.client().await;
    let request = pb::WatchRequest { topic: "nobody.here".into(), ..Default::default() };
    let empty = rpc.watch(&mut client, request.clone()).await.unwrap();
    assert_eq!(empty.header("feed-cursor"), server.cursor(0));
    assert_eq!((empty.header("feed-oldest"), empty.header("feed-head")), ("1", "0"));
    assert_eq!(empty.header("feed-log-id"), log_id().to_string());

    server.store("other", 7).await;
    server.trim(3).await;
    let idle = rpc.watch(&mut client, request).await.unwrap();
    assert_eq!(idle.header("feed-cursor"), server.cursor(7));
    assert_eq!((idle.header("feed-oldest"), idle.header("feed-head")), ("3", "7"));
    assert!(matches!(
        Cursor::parse(idle.header("feed-cursor")),
        Ok(Cursor::Token { seq, .. }) if seq == Seq::new(7)
    ));
    server.stop().await;
}

async fn a_watch_replays_and_goes_on_live_and_resumes_from_any_event(rpc: Rpc) {
    let server = start().await;
    let mut client = server.client().await;
    server.store("a.b", 100).await;
    let request = pb::WatchRequest { start: from_oldest(), ..Default::default() };
    let mut all = rpc.watch(&mut client, request).await.unwrap();
    let mut cursors = vec![all.header("feed-cursor").to_owned()];
    for seq in 1..=100 {
        let event = all.event().await;
        assert_eq!((event.seq, event.cursor.as_str()), (seq, server.cursor(seq).as_str()));
        assert_eq!((event.topic.as_str(), event.body.as_str()), ("a.b", "body"));
        assert!(event.appended_at.is_some() && event.at == event.appended_at);
        cursors.push(event.cursor);
    }
    server.store("a.c", 1).await;
    assert_eq!(all.event().await.seq, 101);
    for (seq, cursor) in cursors.into_iter().enumerate() {
        for after_cursor in [cursor, seq.to_string()] {
            let request = pb::WatchRequest { after_cursor, limit: 1, ..Default::default() };
            let mut resumed = rpc.watch(&mut client, request).await.unwrap();
            assert_eq!(resumed.event().await.seq, seq as u64 + 1);
        }
    }
    server.stop().await;
}

async fn the_metadata_does_what_the_field_does(rpc: Rpc) {
    let server = start().await;
    let mut client = server.client().await;
    server.store("a", 5).await;
    for field in [String::new(), server.cursor(3)] {
        let message = pb::WatchRequest { after_cursor: field, limit: 1, ..Default::default() };
        let mut request = tonic::Request::new(message);
        request.metadata_mut().insert("feed-after-cursor", server.cursor(3).parse().unwrap());
        let mut watching = rpc.watch(&mut client, request).await.unwrap();
        assert_eq!(watching.event().await.seq, 4);
    }
    server.stop().await;
}

async fn every_start_begins_where_it_says(rpc: Rpc) {
    let server = start().await;
    let mut client = server.client().await;
    for (topic, count) in [("a", 10), ("b", 5), ("a", 5)] {
        server.store(topic, count).await;
    }
    server.trim(3).await;
    let time_of = |seq| server.log.time_of(Seq::new(seq));
    let (early, late) = (time_of(3).await.unwrap(), time_of(20).await.unwrap());
    let time = |seconds| At::Time(prost_types::Timestamp { seconds, nanos: 0 });
    for (at, topic, expected) in [
        (At::Oldest(true), "", 3),
        (At::Seq(3), "", 3),
        (At::Seq(20), "", 20),
        (At::Seq(21), "", 21),
        (At::Latest(true), "", 21),
        (At::Last(0), "", 21),
        (At::Last(1), "", 20),
        (At::Last(99), "", 3),
        (At::Last(5), "a", 16),
        (At::Last(6), "a", 10),
        (At::Last(2), "b", 14),
        (At::Last(3), "none", 21),
        (time(0), "", 3),
        (time(early.seconds - 1), "", 3),
        (time(late.seconds + 1), "", 21),
    ] {
        let request =
            pb::WatchRequest { topic: topic.into(), start: start_at(at), ..Default::default() };
        let watching = rpc.watch(&mut client, request).await.unwrap();
        assert_eq!(watching.header("feed-cursor"), server.cursor(expected - 1), "{at:?} {topic}");
    }
    // No start and no cursor is live.
    let mut live = rpc.watch(&mut client, pb::WatchRequest::default()).await.unwrap();
    assert_eq!(live.header("feed-cursor"), server.cursor(20));
    server.store("a", 1).await;
    assert_eq!(live.event().await.seq, 21);
    server.stop().await;
}

async fn a_filter_is_a_union_and_an_event_comes_once(rpc: Rpc) {
    let server = start().await;
    let mut client = server.client().await;
    for topic in ["a.x", "b", "a.y", "c", "a.x.z", "b"] {
        server.store(topic, 1).await;
    }
    for (topic, topics, expected) in [
        ("", vec![], vec![1, 2, 3, 4, 5, 6]),
        ("a.*", vec![], vec![1, 3]),
        ("a.>", vec![], vec![1, 3, 5]),
        ("a.*", vec!["a.x", "b", "a.>"], vec![1, 2, 3, 5, 6]),
        ("", vec!["c", ">"], vec![1, 2, 3, 4, 5, 6]),
        ("none", vec![], vec![]),
    ] {
        let request = pb::WatchRequest {
            topic: topic.into(),
            topics: topics.iter().map(|&topic| topic.to_owned()).collect(),
            start: from_oldest(),
            until_caught_up: true,
            ..Default::default()
        };
        let (events, cursor) = rpc.watch(&mut client, request).await.unwrap().rest().await;
        assert_eq!(seqs(&events), expected, "{topic} {topics:?}");
        // Skipped events are passed.
        assert_eq!(cursor, server.cursor(6));
    }
    server.stop().await;
}

async fn many_events_of_many_sizes_come_whole_and_in_order(rpc: Rpc) {
    let server = start_with(crate::support::server::new_log(), Default::default()).await;
    let mut client = server.client().await;
    let mut sent = Vec::new();
    for at in 0..3_000_usize {
        let size = if at % 500 == 0 { 700_000 } else { at % 300 };
        sent.push(event("sizes", &"x".repeat(size)));
    }
    let expected: Vec<usize> = sent.iter().map(|event| event.body.len()).collect();
    let uploaded = client.upload_events(tokio_stream::iter(sent)).await.unwrap().into_inner();
    assert_eq!(uploaded.received, 3_000);
    let request =
        pb::WatchRequest { start: from_oldest(), until_caught_up: true, ..Default::default() };
    let (events, _) = rpc.watch(&mut client, request).await.unwrap().rest().await;
    assert_eq!(seqs(&events), (1..=3_000).collect::<Vec<_>>());
    assert_eq!(events.iter().map(|event| event.body.len()).collect::<Vec<_>>(), expected);
    server.stop().await;
}
