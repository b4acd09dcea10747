//! Markers: their order, what they tell, when they come.

use std::sync::Arc;

use tailmark_log::eventlog;
use tailmark_log::storage::memory::Options as MemoryOptions;
use tailmark_wire::feed_v1::{self as pb, marker::Kind};

use super::{Rpc, over_both};
use crate::support::server::{event, from_oldest, generations, memory, open, start, start_with};

over_both! {
    an_empty_log_is_caught_up,
    resumed_is_first_and_caught_up_is_where_replay_ends,
    without_markers_there_are_none,
    silence_is_broken_by_heartbeats,
    a_filtered_watch_tells_how_far_it_has_looked,
    a_watch_says_how_far_the_log_has_come_while_nothing_concerned_it,
    a_live_watch_tells_after_so_many_events_that_it_skipped,
    who_falls_out_of_the_recent_ones_is_told_and_caught_up_again,
    who_falls_out_with_a_filter_is_caught_up_again_without_an_event,
}

fn marked(request: pb::WatchRequest) -> pb::WatchRequest {
    pb::WatchRequest { markers: true, ..request }
}

async fn an_empty_log_is_caught_up(rpc: Rpc) {
    let server = start().await;
    let mut client = server.client().await;
    let mut watching = rpc.watch(&mut client, marked(Default::default())).await.unwrap();
    let resumed = watching.expect_marker(Kind::Resumed).await;
    assert_eq!((resumed.oldest_seq, resumed.head_seq, resumed.lag_events), (1, 0, 0));
    assert_eq!(resumed.cursor, server.cursor(0));
    assert!(resumed.at.is_some());
    watching.expect_marker(Kind::CaughtUp).await;
    server.store("a", 1).await;
    assert_eq!(watching.event().await.seq, 1);
    server.stop().await;
}

async fn resumed_is_first_and_caught_up_is_where_replay_ends(rpc: Rpc) {
    let server = start().await;
    let mut client = server.client().await;
    server.store("a", 50).await;
    let request = pb::WatchRequest { after_cursor: server.cursor(10), ..Default::default() };
    let mut watching = rpc.watch(&mut client, marked(request)).await.unwrap();
    let resumed = watching.expect_marker(Kind::Resumed).await;
    assert_eq!((resumed.cursor, resumed.lag_events), (server.cursor(10), 40));
    for seq in 11..=50 {
        assert_eq!(watching.event().await.seq, seq);
    }
    let caught_up = watching.expect_marker(Kind::CaughtUp).await;
    assert_eq!((caught_up.cursor, caught_up.lag_events), (server.cursor(50), 0));
    // Live: no second CAUGHT_UP.
    for seq in 51..=60 {
        server.store("a", 1).await;
        assert_eq!(watching.event().await.seq, seq);
    }
    server.stop().await;
}

async fn without_markers_there_are_none(rpc: Rpc) {
    let server = start().await;
    let mut client = server.client().await;
    server.store("a", 3).await;
    let request = pb::WatchRequest {
        start: from_oldest(),
        heartbeat_ms: 1,
        until_caught_up: true,
        ..Default::default()
    };
    let (events, _) = rpc.watch(&mut client, request).await.unwrap().rest().await;
    assert_eq!(events.len(), 3);
    assert!(events.iter().all(|event| event.marker.is_none()));
    server.stop().await;
}

async fn silence_is_broken_by_heartbeats(rpc: Rpc) {
    let server = start().await;
    let mut client = server.client().await;
    server.store("a", 2).await;
    let request = pb::WatchRequest { heartbeat_ms: 20, ..Default::default() };
    let mut watching = rpc.watch(&mut client, marked(request)).await.unwrap();
    watching.expect_marker(Kind::Resumed).await;
    watching.expect_marker(Kind::CaughtUp).await;
    for _ in 0..3 {
        let heartbeat = watching.expect_marker(Kind::Heartbeat).await;
        assert_eq!((heartbeat.cursor, heartbeat.head_seq), (server.cursor(2), 2));
    }
    server.stop().await;
}

async fn a_filtered_watch_tells_how_far_it_has_looked(rpc: Rpc) {
    let server = start().await;
    let mut client = server.client().await;
    server.store("other", 25_000).await;
    server.store("wanted", 1).await;
    server.store("other", 12_000).await;
    let request = pb::WatchRequest {
        topic: "wanted".into(),
        start: from_oldest(),
        until_caught_up: true,
        ..Default::default()
    };
    let mut watching = rpc.watch(&mut client, marked(request)).await.unwrap();
    watching.expect_marker(Kind::Resumed).await;
    for passed in [10_000, 20_000] {
        let heartbeat = watching.expect_marker(Kind::Heartbeat).await;
        assert_eq!(heartbeat.cursor, server.cursor(passed));
        assert_eq!(heartbeat.lag_events, 37_001 - passed);
    }
    assert_eq!(watching.event().await.seq, 25_001);
    let heartbeat = watching.expect_marker(Kind::Heartbeat).await;
    assert_eq!(heartbeat.cursor, server.cursor(35_001));
    watching.expect_marker(Kind::CaughtUp).await;
    let (events, cursor) = watching.rest().await;
    assert_eq!((events.len(), cursor), (0, server.cursor(37_001)));
    server.stop().await;
}

async fn a_watch_says_how_far_the_log_has_come_while_nothing_concerned_it(rpc: Rpc) {
    let server = start().await;
    let mut client = server.client().await;
    let request =
        pb::WatchRequest { topic: "wanted".into(), heartbeat_ms: 20, ..Default::default() };
    let mut watching = rpc.watch(&mut client, marked(request)).await.unwrap();
    watching.expect_marker(Kind::Resumed).await;
    watching.expect_marker(Kind::CaughtUp).await;
    for head in [5, 12] {
        server.store("other", head - server.head()).await;
        loop {
            let heartbeat = watching.expect_marker(Kind::Heartbeat).await;
            if heartbeat.head_seq == head && heartbeat.lag_events == 0 {
                assert_eq!(heartbeat.cursor, server.cursor(head));
                break;
            }
        }
    }
    server.store("wanted", 1).await;
    loop {
        let event = watching.next().await.unwrap().unwrap();
        if event.marker.is_none() {
            assert_eq!(event.seq, 13);
            break;
        }
    }
    server.stop().await;
}

async fn a_live_watch_tells_after_so_many_events_that_it_skipped(rpc: Rpc) {
    let server = start().await;
    let mut client = server.client().await;
    let request =
        pb::WatchRequest { topic: "wanted".into(), heartbeat_ms: 600_000, ..Default::default() };
    let mut watching = rpc.watch(&mut client, marked(request)).await.unwrap();
    watching.expect_marker(Kind::Resumed).await;
    watching.expect_marker(Kind::CaughtUp).await;
    server.store("other", 9_999).await;
    server.store("other", 15_000).await;
    let heartbeat = watching.expect_marker(Kind::Heartbeat).await;
    assert!(heartbeat.lag_events <= 14_999, "{}", heartbeat.lag_events);
    server.stop().await;
}

async fn who_falls_out_of_the_recent_ones_is_told_and_caught_up_again(rpc: Rpc) {
    falls_out(rpc, "").await;
}

async fn who_falls_out_with_a_filter_is_caught_up_again_without_an_event(rpc: Rpc) {
    falls_out(rpc, "a").await;
}

async fn falls_out(rpc: Rpc, topic: &str) {
    let engine = memory(generations(&[1]), MemoryOptions::default());
    let options = eventlog::Options { recent_bytes: 64 << 10, ..Default::default() };
    let server = start_with(open(Arc::new(engine), options), Default::default()).await;
    let mut client = server.client().await;
    let request = pb::WatchRequest { topic: topic.into(), ..Default::default() };
    let mut watching = rpc.watch(&mut client, marked(request)).await.unwrap();
    watching.expect_marker(Kind::Resumed).await;
    watching.expect_marker(Kind::CaughtUp).await;
    // More than all buffers between here and there, while nobody reads.
    let count = 64;
    let body = "x".repeat(512 << 10);
    let mut uploader = server.client().await;
    let events = vec![event("a", &body); count];
    let result = uploader.upload_events(tokio_stream::iter(events)).await.unwrap().into_inner();
    assert_eq!(result.received as usize, count);
    if !topic.is_empty() {
        // The head moves on, and nothing of that is for this one.
        server.store("b", 3).await;
    }
    let mut kinds = Vec::new();
    let mut next = 1;
    while next <= count as u64 || kinds.last() != Some(&Kind::CaughtUp) {
        let event = watching.next().await.unwrap().unwrap();
        match event.marker {
            Some(marker) => kinds.push(marker.kind()),
            None => {
                assert_eq!(event.seq, next);
                next += 1;
            }
        }
    }
    // As often as it happened, and always in this order.
    for pair in kinds.chunks(2) {
        assert_eq!(pair, [Kind::FellBehind, Kind::CaughtUp]);
    }
    server.stop().await;
}
