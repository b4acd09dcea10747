//! What rules for topics took out of the log, as watches meet it: one gap a run for who watches everything,
//! nothing for all others, and no cursor is fooled.

use std::sync::Arc;

use tailmark_log::eventlog;
use tailmark_log::storage::RemovedReason::{self, Compacted, Expired};
use tailmark_log::storage::memory::Memory;
use tailmark_record::Seq;
use tailmark_wire::feed_v1::{self as pb, OnLost, marker::Kind};
use tonic::Code;

use super::{Rpc, over_both};
use crate::support::server::{
    Client, TestServer, Watching, expect, from_oldest, generations, memory, open, seqs, start_at,
    start_with,
};

over_both! {
    a_run_is_one_gap_whatever_on_lost_says_and_all_seqs_are_told,
    who_wants_no_such_markers_gets_what_is_left,
    a_watch_without_markers_passes_over_it,
    a_watch_with_a_pattern_hears_nothing_of_it,
    within_a_run_a_watch_goes_on_exactly,
    a_limit_counts_no_gap,
    the_head_of_the_beginning_may_be_gone,
    what_goes_while_it_is_read_is_a_gap,
    damage_beside_it_still_fails,
    the_newest_so_many_are_those_that_are_left,
}

/// 20 events: 1 to 10 of `a`, 11 to 20 of `b`. Kept in memory are no recent ones, so that reads see what went.
struct Log {
    server: TestServer,
    engine: Arc<Memory>,
}

impl Log {
    async fn new() -> Log {
        let engine = Arc::new(memory(generations(&[1]), Default::default()));
        let options =
            eventlog::Options { recent_bytes: 0, found_bytes: 0, ..eventlog::Options::default() };
        let log = open(engine.clone(), options);
        let server = start_with(log, Default::default()).await;
        server.store("a", 10).await;
        server.store("b", 10).await;
        Log { server, engine }
    }

    /// With 4 to 6 expired, and 12 to 14 compacted away.
    async fn with_runs() -> (Log, Client) {
        let log = Log::new().await;
        log.remove(4, 6, Expired);
        log.remove(12, 14, Compacted);
        let client = log.server.client().await;
        (log, client)
    }

    fn remove(&self, first: u64, last: u64, reason: RemovedReason) {
        self.engine.remove(Seq::new(first)..Seq::new(last + 1), reason).unwrap();
    }
}

fn all() -> pb::WatchRequest {
    pb::WatchRequest {
        start: from_oldest(),
        markers: true,
        until_caught_up: true,
        ..Default::default()
    }
}

fn gaps(events: &[pb::Event]) -> Vec<(u64, u64, pb::gap::Reason)> {
    let gaps = events.iter().filter_map(|event| event.marker.as_ref()?.gap);
    gaps.map(|gap| (gap.from_seq, gap.to_seq, gap.reason())).collect()
}

/// Each seq once, by an event or a gap, from one on up to another.
fn assert_contiguous(events: &[pb::Event], first: u64, last: u64) {
    let mut next = first;
    for event in events {
        match event.marker.as_ref().map(|marker| marker.gap) {
            None => {
                assert_eq!(event.seq, next);
                next += 1;
            }
            Some(Some(gap)) => {
                assert_eq!(gap.from_seq, next);
                next = gap.to_seq + 1;
            }
            Some(None) => {}
        }
    }
    assert_eq!(next, last + 1);
}

/// The next event of a live watch, which hears of no gap before it.
async fn live(watching: &mut Watching) -> u64 {
    loop {
        let event = watching.next().await.unwrap().unwrap();
        match event.marker {
            None => return event.seq,
            // Nothing recent is kept in memory here.
            Some(marker) => assert!(matches!(marker.kind(), Kind::FellBehind | Kind::CaughtUp)),
        }
    }
}

const LEFT: [u64; 14] = [1, 2, 3, 7, 8, 9, 10, 11, 15, 16, 17, 18, 19, 20];

async fn a_run_is_one_gap_whatever_on_lost_says_and_all_seqs_are_told(rpc: Rpc) {
    let (log, mut client) = Log::with_runs().await;
    // What goes beside a run is of it.
    log.remove(15, 15, Expired);
    for on_lost in [OnLost::Unspecified, OnLost::Fail, OnLost::Oldest, OnLost::Latest] {
        let request = pb::WatchRequest { on_lost: on_lost.into(), ..all() };
        let (events, cursor) = rpc.watch(&mut client, request).await.unwrap().rest().await;
        assert_contiguous(&events, 1, 20);
        let expected = [(4, 6, pb::gap::Reason::Expired), (12, 15, pb::gap::Reason::Compacted)];
        assert_eq!(gaps(&events), expected);
        assert_eq!(cursor, log.server.cursor(20));
        // Its cursor lies behind it, and no other marker is about it.
        let marker = |event: &pb::Event| Some(event.marker.as_ref()?.kind());
        let kinds: Vec<_> = events.iter().filter_map(marker).collect();
        assert_eq!(kinds, [Kind::Resumed, Kind::Gap, Kind::Gap, Kind::CaughtUp]);
        for event in
            events.iter().filter(|it| it.marker.as_ref().is_some_and(|it| it.gap.is_some()))
        {
            let gap = event.marker.as_ref().unwrap().gap.unwrap();
            assert_eq!(event.cursor, log.server.cursor(gap.to_seq));
        }
    }
    // The pattern that selects everything is no pattern.
    let request = pb::WatchRequest { topic: ">".into(), ..all() };
    let (events, _) = rpc.watch(&mut client, request).await.unwrap().rest().await;
    assert_eq!(gaps(&events).len(), 2);
    log.server.stop().await;
}

async fn who_wants_no_such_markers_gets_what_is_left(rpc: Rpc) {
    let (log, mut client) = Log::with_runs().await;
    for on_lost in [OnLost::Fail, OnLost::Oldest] {
        let request = pb::WatchRequest { compacted: true, on_lost: on_lost.into(), ..all() };
        let (events, cursor) = rpc.watch(&mut client, request).await.unwrap().rest().await;
        assert_eq!((seqs(&events), gaps(&events)), (LEFT.to_vec(), vec![]));
        assert_eq!(cursor, log.server.cursor(20));
    }
    // It goes on live, and hears of nothing that went meanwhile.
    let request = pb::WatchRequest { compacted: true, until_caught_up: false, ..all() };
    let mut watching = rpc.watch(&mut client, request).await.unwrap();
    watching.expect_marker(Kind::Resumed).await;
    for seq in LEFT {
        assert_eq!(watching.event().await.seq, seq);
    }
    watching.expect_marker(Kind::CaughtUp).await;
    log.server.store("c", 2).await;
    assert_eq!((live(&mut watching).await, live(&mut watching).await), (21, 22));
    // With a pattern it says nothing.
    let request = pb::WatchRequest { compacted: true, topic: "a".into(), ..all() };
    let (events, _) = rpc.watch(&mut client, request).await.unwrap().rest().await;
    assert_eq!(seqs(&events), [1, 2, 3, 7, 8, 9, 10]);
    log.server.stop().await;
}

async fn a_watch_without_markers_passes_over_it(rpc: Rpc) {
    let (log, mut client) = Log::with_runs().await;
    let request = pb::WatchRequest { markers: false, ..all() };
    let (events, cursor) = rpc.watch(&mut client, request).await.unwrap().rest().await;
    assert_eq!(seqs(&events), LEFT);
    assert_eq!(events.len(), LEFT.len());
    assert_eq!(cursor, log.server.cursor(20));
    log.server.stop().await;
}

async fn a_watch_with_a_pattern_hears_nothing_of_it(rpc: Rpc) {
    let (log, mut client) = Log::with_runs().await;
    for (topic, left) in [("a", &[1, 2, 3, 7, 8, 9, 10][..]), ("b", &LEFT[7..]), ("c", &[])] {
        let request = pb::WatchRequest { topic: topic.into(), ..all() };
        let (events, cursor) = rpc.watch(&mut client, request).await.unwrap().rest().await;
        assert_eq!((seqs(&events), gaps(&events)), (left.to_vec(), vec![]), "{topic}");
        assert_eq!(cursor, log.server.cursor(20));
    }
    log.server.stop().await;
}

async fn within_a_run_a_watch_goes_on_exactly(rpc: Rpc) {
    let log = Log::new().await;
    // Cursors that were given when all was there, those of now, and bare seqs.
    let before: Vec<_> = (3..=7).map(|seq| log.server.cursor(seq)).collect();
    log.remove(4, 6, Expired);
    log.remove(12, 14, Compacted);
    let mut client = log.server.client().await;
    for (seq, before) in (3..=7).zip(before) {
        let left = if seq < 6 { 7 } else { seq + 1 };
        for after in [before, log.server.cursor(seq), seq.to_string()] {
            let request = pb::WatchRequest { after_cursor: after.clone(), start: None, ..all() };
            let (events, _) = rpc.watch(&mut client, request.clone()).await.unwrap().rest().await;
            assert_contiguous(&events, seq + 1, 20);
            assert_eq!(seqs(&events)[0], left, "{after}");
            // The same for who hears of no gap.
            let request = pb::WatchRequest { compacted: true, ..request };
            let (events, _) = rpc.watch(&mut client, request).await.unwrap().rest().await;
            assert_eq!((seqs(&events)[0], gaps(&events)), (left, vec![]), "{after}");
        }
        let start = start_at(pb::start::At::Seq(seq + 1));
        let request = pb::WatchRequest { start, ..all() };
        let (events, _) = rpc.watch(&mut client, request).await.unwrap().rest().await;
        assert_contiguous(&events, seq + 1, 20);
    }
    log.server.stop().await;
}

async fn a_limit_counts_no_gap(rpc: Rpc) {
    let (log, mut client) = Log::with_runs().await;
    let request = pb::WatchRequest { limit: 5, ..all() };
    let (events, cursor) = rpc.watch(&mut client, request.clone()).await.unwrap().rest().await;
    assert_eq!(seqs(&events), LEFT[..5]);
    assert_eq!(cursor, log.server.cursor(8));
    // It ends with its last event, before a gap that follows.
    let request = pb::WatchRequest { limit: 3, ..request };
    let (events, cursor) = rpc.watch(&mut client, request).await.unwrap().rest().await;
    assert_eq!((seqs(&events), gaps(&events)), (vec![1, 2, 3], vec![]));
    assert_eq!(cursor, log.server.cursor(3));
    log.server.stop().await;
}

async fn the_head_of_the_beginning_may_be_gone(rpc: Rpc) {
    let log = Log::new().await;
    let mut client = log.server.client().await;
    log.remove(16, 20, Expired);
    let (events, cursor) = rpc.watch(&mut client, all()).await.unwrap().rest().await;
    assert_contiguous(&events, 1, 20);
    assert_eq!(cursor, log.server.cursor(20));
    for request in [
        pb::WatchRequest { compacted: true, ..all() },
        pb::WatchRequest { topic: "b".into(), ..all() },
        pb::WatchRequest { markers: false, ..all() },
    ] {
        let (events, cursor) = rpc.watch(&mut client, request).await.unwrap().rest().await;
        assert_eq!((*seqs(&events).last().unwrap(), cursor), (15, log.server.cursor(20)));
    }
    // All of the log may be.
    log.remove(1, 15, Compacted);
    let (events, _) = rpc.watch(&mut client, all()).await.unwrap().rest().await;
    assert_eq!(gaps(&events), [(1, 20, pb::gap::Reason::Compacted)]);
    log.server.stop().await;
}

async fn what_goes_while_it_is_read_is_a_gap(rpc: Rpc) {
    let log = Log::new().await;
    let mut client = log.server.client().await;
    let request = pb::WatchRequest { until_caught_up: false, ..all() };
    let mut watching = rpc.watch(&mut client, request).await.unwrap();
    watching.expect_marker(Kind::Resumed).await;
    for seq in 1..=20 {
        assert_eq!(watching.event().await.seq, seq);
    }
    watching.expect_marker(Kind::CaughtUp).await;
    // What was delivered is delivered; and it goes on.
    log.remove(1, 20, Expired);
    log.server.store("a", 1).await;
    assert_eq!(live(&mut watching).await, 21);
    log.server.stop().await;
}

async fn damage_beside_it_still_fails(rpc: Rpc) {
    let (log, mut client) = Log::with_runs().await;
    log.engine.lose(Seq::new(7)..Seq::new(9)).unwrap();
    for compacted in [false, true] {
        let request = pb::WatchRequest { compacted, ..all() };
        let status = rpc.watch(&mut client, request.clone()).await.unwrap().failure().await;
        let info = expect(&status, Code::DataLoss, "DAMAGED");
        assert_eq!((info["from_seq"].as_str(), info["to_seq"].as_str()), ("7", "8"));
        assert!(!info.contains_key("why"));
        let request = pb::WatchRequest { on_lost: OnLost::Oldest.into(), ..request };
        let (events, _) = rpc.watch(&mut client, request).await.unwrap().rest().await;
        let damaged = (7, 8, pb::gap::Reason::Damaged);
        assert!(gaps(&events).contains(&damaged), "{:?}", gaps(&events));
        assert_eq!(gaps(&events).len(), if compacted { 1 } else { 3 });
    }
    log.server.stop().await;
}

async fn the_newest_so_many_are_those_that_are_left(rpc: Rpc) {
    let (log, mut client) = Log::with_runs().await;
    for (last, first) in [(6, 15), (7, 11), (8, 10), (100, 1)] {
        for compacted in [false, true] {
            let start = start_at(pb::start::At::Last(last));
            let request = pb::WatchRequest { start, compacted, ..all() };
            let (events, _) = rpc.watch(&mut client, request).await.unwrap().rest().await;
            assert_eq!(seqs(&events)[0], first, "{last}");
            assert_eq!(seqs(&events).len() as u64, last.min(14));
        }
    }
    log.server.stop().await;
}

/// One event that is gone is not there, and its caller is told why.
#[tokio::test]
async fn who_asks_for_such_an_event_is_told_why() {
    let (log, mut client) = Log::with_runs().await;
    let by_seq = |seq| Some(pb::get_event_request::By::Seq(seq));
    for (seq, from, to, why) in [(5, "4", "6", "EXPIRED"), (14, "12", "14", "COMPACTED")] {
        let cursor = pb::get_event_request::By::Cursor(log.server.cursor(seq));
        for by in [by_seq(seq), Some(cursor)] {
            let status = client.get_event(pb::GetEventRequest { by }).await.unwrap_err();
            let info = expect(&status, Code::NotFound, "EVENT_REMOVED");
            let told = (info["from_seq"].as_str(), info["to_seq"].as_str(), info["why"].as_str());
            assert_eq!(told, (from, to, why));
        }
    }
    let left = client.get_event(pb::GetEventRequest { by: by_seq(7) }).await.unwrap();
    assert_eq!(left.into_inner().seq, 7);
    log.server.stop().await;
}
