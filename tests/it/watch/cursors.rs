//! The contract's cursor table, row by row, and the jumps that `on_lost` makes of its rows.

use std::sync::Arc;

use tailmark_log::storage::memory::Options as MemoryOptions;
use tailmark_record::{Cursor, CursorMint, Generation, LogId, Seq};
use tailmark_wire::feed_v1::{self as pb, OnLost, marker::Kind};
use tonic::Code;
use uuid::Uuid;

use super::{Rpc, over_both};
use crate::support::server::{
    TestServer, bad_field, expect, generations, log_id, memory, open, start_with,
};

over_both! {
    malformed,
    another_log,
    another_history,
    ahead,
    trimmed,
    else_exactly_after_it,
    on_lost_jumps_say_gap_then_resumed,
    fail_and_unspecified_fail,
}

/// 30 events in the generations 1 (seqs 1 to 9) and 2 (from 10 on); oldest 5.
async fn two_generations() -> TestServer {
    let engine = memory(generations(&[1, 10]), MemoryOptions::default());
    let server = start_with(open(Arc::new(engine), Default::default()), Default::default()).await;
    server.store("a", 30).await;
    server.trim(5).await;
    server
}

fn token(id: LogId, counter: u16, nonce: u32, seq: u64) -> String {
    // Of version 1, which says nothing of the chain: what stands there is for `copied.rs`.
    CursorMint::new(id, Generation { counter, nonce }).mint_place(Seq::new(seq))
}

fn ours(counter: u16, seq: u64) -> String {
    token(log_id(), counter, u32::from(counter), seq)
}

fn other_log() -> LogId {
    LogId::new(Uuid::from_u128(42))
}

fn after(cursor: &str) -> pb::WatchRequest {
    pb::WatchRequest { after_cursor: cursor.to_owned(), ..Default::default() }
}

async fn malformed(rpc: Rpc) {
    let server = two_generations().await;
    let mut client = server.client().await;
    let good = ours(2, 20);
    let cut = good[..28].to_owned();
    let altered = good.replacen(&good[20..21], if &good[20..21] == "A" { "B" } else { "A" }, 1);
    let strange = format!("{}!", &good[..28]);
    for (cursor, part) in [
        ("x", "version"),
        ("zzz", "version"),
        (" 5", "version"),
        ("-1", "version"),
        (cut.as_str(), "length"),
        (strange.as_str(), "character"),
        (altered.as_str(), "checksum"),
        ("05", "number"),
        ("18446744073709551616", "number"),
    ] {
        let status = rpc.watch(&mut client, after(cursor)).await.err().unwrap();
        let info = expect(&status, Code::InvalidArgument, "CURSOR_MALFORMED");
        assert_eq!(info["part"], part, "{cursor}");
        assert_eq!(bad_field(&status), "after_cursor");
        // `on_lost` never applies.
        for on_lost in [OnLost::Oldest, OnLost::Latest, OnLost::LastCommon] {
            let request =
                pb::WatchRequest { on_lost: on_lost.into(), markers: true, ..after(cursor) };
            let status = rpc.watch(&mut client, request).await.err().unwrap();
            expect(&status, Code::InvalidArgument, "CURSOR_MALFORMED");
        }
    }
    server.stop().await;
}

async fn another_log(rpc: Rpc) {
    let server = two_generations().await;
    let mut client = server.client().await;
    // Before any other row: its seq is beyond the head, too.
    for seq in [0, 20, 99] {
        let cursor = token(other_log(), 1, 1, seq);
        let status = rpc.watch(&mut client, after(&cursor)).await.err().unwrap();
        let info = expect(&status, Code::FailedPrecondition, "LOG_CHANGED");
        assert_eq!(info["log_id"], log_id().to_string());
        assert_eq!((info["oldest"].as_str(), info["head"].as_str()), ("5", "30"));
    }
    server.stop().await;
}

async fn another_history(rpc: Rpc) {
    let server = two_generations().await;
    let mut client = server.client().await;
    for (cursor, last_common, at_most) in [
        // Beyond the end of generation 1.
        (ours(1, 10), "9", None),
        (ours(1, 99), "9", None),
        // A second generation that is not ours: it was begun somewhere in the first.
        (token(log_id(), 2, 77, 12), "0", Some("9")),
        (token(log_id(), 2, 77, 8), "0", Some("7")),
        // A later one: both of ours may be shared, up to the head.
        (token(log_id(), 3, 3, 40), "0", Some("30")),
        // No generation is shared.
        (token(log_id(), 1, 77, 3), "0", None),
    ] {
        let status = rpc.watch(&mut client, after(&cursor)).await.err().unwrap();
        let info = expect(&status, Code::FailedPrecondition, "LOG_DIVERGED");
        assert_eq!(info["last_common_seq"], last_common, "{cursor}");
        let found = info.get("last_common_at_most_seq").map(String::as_str);
        assert_eq!(found, at_most, "{cursor}");
    }
    server.stop().await;
}

async fn ahead(rpc: Rpc) {
    let server = two_generations().await;
    let mut client = server.client().await;
    for cursor in [ours(2, 31), "31".to_owned(), u64::MAX.to_string()] {
        let status = rpc.watch(&mut client, after(&cursor)).await.err().unwrap();
        let info = expect(&status, Code::OutOfRange, "CURSOR_AHEAD");
        assert_eq!(info["head"], "30");
    }
    let start = crate::support::server::start_at(pb::start::At::Seq(32));
    let request = pb::WatchRequest { start, ..Default::default() };
    let status = rpc.watch(&mut client, request).await.err().unwrap();
    expect(&status, Code::OutOfRange, "CURSOR_AHEAD");
    server.stop().await;
}

async fn trimmed(rpc: Rpc) {
    let server = two_generations().await;
    let mut client = server.client().await;
    for (cursor, missed) in
        [(ours(1, 3), "1"), (ours(1, 0), "4"), ("3".to_owned(), "1"), ("0".to_owned(), "4")]
    {
        let status = rpc.watch(&mut client, after(&cursor)).await.err().unwrap();
        let info = expect(&status, Code::OutOfRange, "CURSOR_TRIMMED");
        assert_eq!((info["oldest"].as_str(), info["head"].as_str()), ("5", "30"));
        assert_eq!(info["missed"], missed, "{cursor}");
        assert!(info["oldest_time"].ends_with('Z'), "{info:?}");
    }
    let start = crate::support::server::start_at(pb::start::At::Seq(4));
    let request = pb::WatchRequest { start, ..Default::default() };
    let status = rpc.watch(&mut client, request).await.err().unwrap();
    assert_eq!(expect(&status, Code::OutOfRange, "CURSOR_TRIMMED")["missed"], "1");

    // Nothing left: still told, with no time.
    server.trim(31).await;
    let status = rpc.watch(&mut client, after("3")).await.err().unwrap();
    let info = expect(&status, Code::OutOfRange, "CURSOR_TRIMMED");
    assert_eq!((info["oldest"].as_str(), info.get("oldest_time")), ("31", None));
    server.stop().await;
}

async fn else_exactly_after_it(rpc: Rpc) {
    let server = two_generations().await;
    let mut client = server.client().await;
    for (cursor, seq) in [
        (ours(1, 4), 5),
        ("4".to_owned(), 5),
        (ours(1, 9), 10),
        (ours(2, 10), 11),
        // A cursor of the second generation may name an event before it began.
        (ours(2, 6), 7),
        (ours(2, 29), 30),
    ] {
        let mut watching = rpc.watch(&mut client, after(&cursor)).await.unwrap();
        let event = watching.event().await;
        assert_eq!(event.seq, seq, "{cursor}");
        let start = server.cursor(seq - 1);
        let named = |text: &str| match Cursor::parse(text) {
            Ok(Cursor::Token { generation, seq, .. }) => (generation.counter, seq.get()),
            other => panic!("{other:?}"),
        };
        assert_eq!(named(&start), (if seq <= 10 { 1 } else { 2 }, seq - 1));
        assert_eq!(watching.header("feed-cursor"), start);
    }
    let mut live = rpc.watch(&mut client, after(&ours(2, 30))).await.unwrap();
    server.store("a", 1).await;
    assert_eq!(live.event().await.seq, 31);
    server.stop().await;
}

async fn on_lost_jumps_say_gap_then_resumed(rpc: Rpc) {
    use pb::gap::Reason;
    let server = two_generations().await;
    let mut client = server.client().await;
    let changed = token(other_log(), 1, 1, 20);
    let (diverged, ahead, trimmed) = (ours(1, 12), ours(2, 31), ours(1, 2));
    for (cursor, on_lost, start, from, to, reason) in [
        (&changed, OnLost::Oldest, 5, 0, 0, Reason::LogChanged),
        (&changed, OnLost::Latest, 31, 0, 0, Reason::LogChanged),
        (&changed, OnLost::LastCommon, 5, 0, 0, Reason::LogChanged),
        (&diverged, OnLost::Oldest, 5, 0, 0, Reason::LogDiverged),
        (&diverged, OnLost::Latest, 31, 0, 0, Reason::LogDiverged),
        (&diverged, OnLost::LastCommon, 10, 0, 0, Reason::LogDiverged),
        (&ahead, OnLost::Oldest, 5, 0, 0, Reason::Ahead),
        (&ahead, OnLost::Latest, 31, 0, 0, Reason::Ahead),
        (&ahead, OnLost::LastCommon, 31, 0, 0, Reason::Ahead),
        (&trimmed, OnLost::Oldest, 5, 3, 4, Reason::Trimmed),
        (&trimmed, OnLost::Latest, 31, 3, 30, Reason::Trimmed),
        (&trimmed, OnLost::LastCommon, 5, 3, 4, Reason::Trimmed),
    ] {
        let request = pb::WatchRequest {
            markers: true,
            on_lost: on_lost.into(),
            until_caught_up: true,
            ..after(cursor)
        };
        let mut watching = rpc.watch(&mut client, request).await.unwrap();
        let at_start = server.cursor(start - 1);
        assert_eq!(watching.header("feed-cursor"), at_start);
        let marker = watching.expect_marker(Kind::Gap).await;
        let gap = marker.gap.unwrap();
        assert_eq!((gap.from_seq, gap.to_seq, gap.reason()), (from, to, reason), "{on_lost:?}");
        assert_eq!(marker.cursor, at_start);
        assert_eq!(watching.expect_marker(Kind::Resumed).await.cursor, at_start);
        for seq in start..=30 {
            assert_eq!(watching.event().await.seq, seq);
        }
        watching.expect_marker(Kind::CaughtUp).await;
        assert_eq!(watching.next().await.unwrap(), None);
    }
    server.stop().await;
}

async fn fail_and_unspecified_fail(rpc: Rpc) {
    let server = two_generations().await;
    let mut client = server.client().await;
    for on_lost in [OnLost::Unspecified, OnLost::Fail] {
        for markers in [false, true] {
            let request = pb::WatchRequest { markers, on_lost: on_lost.into(), ..after("1") };
            let status = rpc.watch(&mut client, request).await.err().unwrap();
            expect(&status, Code::OutOfRange, "CURSOR_TRIMMED");
        }
    }
    server.stop().await;
}
