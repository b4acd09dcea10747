//! What is asked for by time, where an event was stamped by a clock that was ahead: such a stamp is later than
//! any time that is asked for, and so are those of all later events, until the clock has come up.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use tailmark_log::eventlog;
use tailmark_log::storage::memory::Options as MemoryOptions;
use tailmark_record::{Seq, Timestamp};
use tailmark_wire::feed_v1::{self as pb, start::At, trim_request::Before};

use crate::support::server::{
    TestServer, generations, memory, open, seqs, start_at, start_with, watch, watch_batches, within,
};
use crate::support::web::{self, Events};

const HOUR: i64 = 3_600;
const YEAR: i64 = 365 * 24 * HOUR;

/// 1 to 3 are an hour old, 4 and 5 are recent; 6 was stamped a year ahead, 7 to 9 came after the clock was set
/// right.
async fn server() -> TestServer {
    let off = Arc::new(AtomicI64::new(0));
    let clock = {
        let off = Arc::clone(&off);
        Arc::new(move || ago(-off.load(Ordering::SeqCst)))
    };
    let engine = Arc::new(memory(generations(&[1]), MemoryOptions::default()));
    let log = open(engine, eventlog::Options { clock, ..eventlog::Options::default() });
    let server = start_with(log, Default::default()).await;
    for (by, count) in [(-HOUR, 3), (0, 2), (YEAR, 1), (0, 3)] {
        off.store(by, Ordering::SeqCst);
        server.store("a", count).await;
    }
    let stamp = |seq| server.log.time_of(Seq::new(seq));
    assert!(stamp(9).await.unwrap() >= stamp(6).await.unwrap());
    assert!(server.log.status().clock.unwrap().contains("ahead of this machine's clock"));
    server
}

fn ago(seconds: i64) -> Timestamp {
    let now = Timestamp::now();
    Timestamp { seconds: now.seconds - seconds, ..now }
}

fn wire(time: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: time.seconds, nanos: time.nanos }
}

/// Each time, and the first event that is stamped so late.
fn starts() -> [(i64, u64); 5] {
    [(2 * HOUR, 1), (HOUR / 4, 4), (0, 6), (-HOUR, 6), (-2 * YEAR, 10)]
}

#[tokio::test]
async fn a_watch_from_a_time_begins_with_the_first_event_that_is_stamped_so_late() {
    let server = server().await;
    let mut client = server.client().await;
    for (seconds, first) in starts() {
        let request = || pb::WatchRequest {
            start: start_at(At::Time(wire(ago(seconds)))),
            until_caught_up: true,
            ..Default::default()
        };
        let expected: Vec<u64> = (first..=9).collect();
        for mut watching in [
            watch(&mut client, request()).await.unwrap(),
            watch_batches(&mut client, request()).await.unwrap(),
        ] {
            assert_eq!(watching.header("feed-cursor"), server.cursor(first - 1), "{seconds}");
            assert_eq!(seqs(&watching.rest().await.0), expected, "{seconds}");
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn a_stream_of_plain_http_from_a_time_or_an_age_begins_there_too() {
    let server = server().await;
    for (from, first) in [
        ("2h".to_owned(), 1),
        ("15m".to_owned(), 4),
        (format!("{}", ago(HOUR / 4)), 4),
        (format!("{}", ago(0)), 6),
        (format!("{}", ago(-2 * YEAR)), 10),
    ] {
        let path = format!("/v1/watch?from={from}&until_caught_up=true");
        let sent = Events::open(&server, &path).await.rest().await;
        assert_eq!(web::seqs(&sent), (first..=9).collect::<Vec<_>>(), "{from}: {sent:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_trim_before_a_time_removes_less_never_more() {
    let server = server().await;
    let mut client = server.client().await;
    for (seconds, first) in starts() {
        let before = Some(Before::Time(wire(ago(seconds))));
        let trim = client.trim(pb::TrimRequest { before });
        let result = within("trim", trim).await.unwrap().into_inner();
        assert_eq!((result.oldest_seq, result.head_seq), (first, 9), "{seconds}");
        // Everything from there on is readable.
        let request = pb::WatchRequest {
            start: start_at(At::Oldest(true)),
            until_caught_up: true,
            ..Default::default()
        };
        let left = watch(&mut client, request).await.unwrap().rest().await.0;
        assert_eq!(seqs(&left), (first..=9).collect::<Vec<_>>(), "{seconds}");
    }
    server.stop().await;
}
