//! How a watch ends, and what it says of where.

use std::sync::Arc;
use std::time::Duration;

use tailmark_log::eventlog;
use tailmark_record::Seq;
use tailmark_wire::feed_v1::{self as pb, OnLost, marker::Kind};
use tonic::Code;

use super::{Rpc, over_both};
use crate::support::broken::Broken;
use crate::support::server::{
    DEADLINES, TestServer, event, expect, from_oldest, generations, memory, open, seqs, start,
    start_with,
};

over_both! {
    a_limit_counts_delivered_events_and_the_trailer_says_where_to_go_on,
    until_caught_up_stops_at_the_head_of_the_beginning,
    a_deadline_ends_a_stream,
    trimmed_while_running_is_said_with_where_to_go_on,
    trimmed_while_running_is_a_gap_where_that_was_asked_for,
    damage_is_said_with_its_range_and_where_to_go_on,
    damage_is_a_gap_where_that_was_asked_for,
    closing_comes_before_a_planned_end,
}

fn all() -> pb::WatchRequest {
    pb::WatchRequest { start: from_oldest(), ..Default::default() }
}

async fn a_limit_counts_delivered_events_and_the_trailer_says_where_to_go_on(rpc: Rpc) {
    let server = start().await;
    let mut client = server.client().await;
    for topic in ["a", "b", "a", "b", "a", "b"] {
        server.store(topic, 1).await;
    }
    let request = pb::WatchRequest { topic: "b".into(), limit: 2, markers: true, ..all() };
    let (events, cursor) = rpc.watch(&mut client, request.clone()).await.unwrap().rest().await;
    assert_eq!(seqs(&events), [2, 4]);
    assert_eq!(cursor, server.cursor(4));
    let request = pb::WatchRequest { after_cursor: cursor, start: None, limit: 1, ..request };
    let (events, cursor) = rpc.watch(&mut client, request).await.unwrap().rest().await;
    assert_eq!(seqs(&events), [6]);
    assert_eq!(cursor, server.cursor(6));
    server.stop().await;
}

async fn until_caught_up_stops_at_the_head_of_the_beginning(rpc: Rpc) {
    let server = start().await;
    let mut client = server.client().await;
    // Large enough to be still under way when more is stored.
    let body = "x".repeat(256 << 10);
    let events = vec![event("a", &body); 64];
    client.upload_events(tokio_stream::iter(events)).await.unwrap();
    let request = pb::WatchRequest { until_caught_up: true, markers: true, ..all() };
    let mut watching = rpc.watch(&mut client, request).await.unwrap();
    server.store("a", 10).await;
    let (events, cursor) = watching.rest().await;
    assert_eq!(seqs(&events), (1..=64).collect::<Vec<_>>());
    assert_eq!(cursor, server.cursor(64));
    let kinds: Vec<_> = events.iter().filter_map(|event| event.marker.as_ref()).collect();
    assert_eq!(kinds.len(), 2);
    assert_eq!((kinds[0].kind(), kinds[1].kind()), (Kind::Resumed, Kind::CaughtUp));

    // Whichever comes first.
    for (limit, count) in [(3, 3), (74, 74), (100, 74)] {
        let request = pb::WatchRequest { until_caught_up: true, limit, ..all() };
        let (events, cursor) = rpc.watch(&mut client, request).await.unwrap().rest().await;
        assert_eq!((events.len(), cursor), (count, server.cursor(count as u64)));
    }
    // Nothing to catch up with.
    let request = pb::WatchRequest { until_caught_up: true, ..Default::default() };
    let (events, cursor) = rpc.watch(&mut client, request).await.unwrap().rest().await;
    assert_eq!((events.len(), cursor), (0, server.cursor(74)));
    server.stop().await;
}

async fn a_deadline_ends_a_stream(rpc: Rpc) {
    let server = start().await;
    let mut client = server.client().await;
    server.store("a", 3).await;
    for deadline in DEADLINES {
        let mut request = tonic::Request::new(all());
        request.metadata_mut().insert("grpc-timeout", deadline.parse().unwrap());
        let Ok(mut watching) = rpc.watch(&mut client, request).await else { continue };
        let mut seen = 0;
        let status = loop {
            match watching.next().await {
                Ok(Some(event)) => {
                    seen += 1;
                    assert_eq!(event.seq, seen);
                }
                Ok(None) => panic!("a regular end"),
                Err(status) => break status,
            }
        };
        expect(&status, Code::DeadlineExceeded, "DEADLINE");
        assert_eq!(status.metadata().get("feed-cursor").unwrap(), server.cursor(seen).as_str());
        if seen == 3 {
            return server.stop().await;
        }
    }
    panic!("three events never came before a deadline");
}

/// 64 events that no buffer holds at once, watched by nobody in a hurry.
async fn large(server: &TestServer) {
    let mut client = server.client().await;
    let events = vec![event("a", &"x".repeat(512 << 10)); 64];
    client.upload_events(tokio_stream::iter(events)).await.unwrap();
}

async fn trimmed_while_running_is_said_with_where_to_go_on(rpc: Rpc) {
    let server = start().await;
    let mut client = server.client().await;
    large(&server).await;
    let mut watching = rpc.watch(&mut client, all()).await.unwrap();
    assert_eq!(watching.event().await.seq, 1);
    server.trim(60).await;
    let mut last = 1;
    let status = loop {
        match watching.next().await {
            Ok(Some(event)) => {
                assert_eq!(event.seq, last + 1);
                last = event.seq;
            }
            Ok(None) => panic!("a regular end"),
            Err(status) => break status,
        }
    };
    let info = expect(&status, Code::OutOfRange, "CURSOR_TRIMMED");
    assert_eq!(
        (info["oldest"].as_str(), info["missed"].as_str()),
        ("60", &*(59 - last).to_string())
    );
    let after_cursor = info["resume_cursor"].clone();
    assert_eq!(after_cursor, server.cursor(59));
    let request = pb::WatchRequest { after_cursor, limit: 1, ..Default::default() };
    assert_eq!(rpc.watch(&mut client, request).await.unwrap().event().await.seq, 60);
    server.stop().await;
}

async fn trimmed_while_running_is_a_gap_where_that_was_asked_for(rpc: Rpc) {
    let server = start().await;
    let mut client = server.client().await;
    large(&server).await;
    let request = pb::WatchRequest {
        markers: true,
        on_lost: OnLost::Oldest.into(),
        until_caught_up: true,
        ..all()
    };
    let mut watching = rpc.watch(&mut client, request).await.unwrap();
    watching.expect_marker(Kind::Resumed).await;
    assert_eq!(watching.event().await.seq, 1);
    server.trim(60).await;
    let (events, cursor) = watching.rest().await;
    assert_eq!(cursor, server.cursor(64));
    // Events and gaps are all seqs.
    let mut next = 2;
    let mut gaps = 0;
    for event in events {
        match event.marker {
            None => {
                assert_eq!(event.seq, next);
                next += 1;
            }
            Some(marker) if marker.kind() == Kind::Gap => {
                let gap = marker.gap.unwrap();
                assert_eq!((gap.from_seq, gap.reason()), (next, pb::gap::Reason::Trimmed));
                // Resuming from it does not meet the gap again.
                assert_eq!(marker.cursor, server.cursor(gap.to_seq));
                next = gap.to_seq + 1;
                gaps += 1;
            }
            Some(marker) => assert_eq!(marker.kind(), Kind::CaughtUp),
        }
    }
    assert_eq!((next, gaps), (65, 1));
    server.stop().await;
}

/// 30 events of which 11 to 15 cannot be read.
async fn damaged() -> TestServer {
    let engine = Broken::new(memory(generations(&[1]), Default::default()), 11, 15);
    let options = eventlog::Options { recent_bytes: 0, ..Default::default() };
    let server = start_with(open(Arc::new(engine), options), Default::default()).await;
    server.store("a", 30).await;
    server
}

async fn damage_is_said_with_its_range_and_where_to_go_on(rpc: Rpc) {
    let server = damaged().await;
    let mut client = server.client().await;
    let mut watching = rpc.watch(&mut client, all()).await.unwrap();
    for seq in 1..=10 {
        assert_eq!(watching.event().await.seq, seq);
    }
    let status = watching.failure().await;
    let info = expect(&status, Code::DataLoss, "DAMAGED");
    assert_eq!((info["from_seq"].as_str(), info["to_seq"].as_str()), ("11", "15"));
    let after_cursor = info["resume_cursor"].clone();
    let request = pb::WatchRequest { after_cursor, limit: 1, ..Default::default() };
    assert_eq!(rpc.watch(&mut client, request).await.unwrap().event().await.seq, 16);

    let request = pb::GetEventRequest { by: Some(pb::get_event_request::By::Seq(12)) };
    let status = client.get_event(request).await.unwrap_err();
    expect(&status, Code::DataLoss, "DAMAGED");
    server.stop().await;
}

async fn damage_is_a_gap_where_that_was_asked_for(rpc: Rpc) {
    let server = damaged().await;
    let mut client = server.client().await;
    let on_lost = OnLost::Oldest.into();
    let request = pb::WatchRequest { markers: true, on_lost, until_caught_up: true, ..all() };
    let (events, _) = rpc.watch(&mut client, request).await.unwrap().rest().await;
    assert_eq!(seqs(&events), (1..=10).chain(16..=30).collect::<Vec<_>>());
    let gaps: Vec<_> = events.iter().filter_map(|event| event.marker.as_ref()?.gap).collect();
    assert_eq!(gaps.len(), 1);
    assert_eq!((gaps[0].from_seq, gaps[0].to_seq), (11, 15));
    assert_eq!(gaps[0].reason(), pb::gap::Reason::Damaged);
    server.stop().await;
}

async fn closing_comes_before_a_planned_end(rpc: Rpc) {
    let server = start().await;
    let mut client = server.client().await;
    server.store("a", 2).await;
    let mut marked =
        rpc.watch(&mut client, pb::WatchRequest { markers: true, ..all() }).await.unwrap();
    let mut plain = rpc.watch(&mut client, all()).await.unwrap();
    marked.expect_marker(Kind::Resumed).await;
    for seq in 1..=2 {
        assert_eq!(marked.event().await.seq, seq);
        assert_eq!(plain.event().await.seq, seq);
    }
    marked.expect_marker(Kind::CaughtUp).await;
    let cursor = server.cursor(2);
    server.shutdown.cancel();
    let closing = marked.expect_marker(Kind::Closing).await;
    assert_eq!(closing.cursor, cursor);
    assert_eq!(closing.retry_delay, Some(prost_types::Duration { seconds: 1, nanos: 0 }));
    for watching in [&mut marked, &mut plain] {
        let status = watching.failure().await;
        expect(&status, Code::Unavailable, "STOPPING");
        let retry = tonic_types::StatusExt::get_details_retry_info(&status).unwrap();
        assert_eq!(retry.retry_delay, Some(Duration::from_secs(1)));
        assert_eq!(status.metadata().get("feed-cursor").unwrap(), cursor.as_str());
    }
    assert_eq!(server.log.bounds().head, Seq::new(2));
    server.stop().await;
}
