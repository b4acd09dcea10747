//! `GET /v1/watch`: what a browser's EventSource, and curl, see of a watch.

use std::time::Duration;

use bytes::Bytes;
use http::Version;
use tailmark::server::Options;

use crate::support::server::{new_log, start, start_with, until, within};
use crate::support::web::{BOTH, Events, ask, get, request, seqs, with};

#[tokio::test]
async fn a_watch_begins_with_its_cursor_replays_and_goes_on_live() {
    for version in BOTH {
        let server = start().await;
        server.store("a.b", 3).await;
        let head = server.head();
        let ask = request(&server, "GET", "/v1/watch?topic=a.%3E&from=oldest");
        let mut events = Events::send(&server, version, ask).await;
        assert_eq!(events.status, 200);
        assert_eq!(events.headers["content-type"], "text/event-stream");
        assert_eq!(events.headers["feed-cursor"], server.cursor(0).as_str());
        assert_eq!(events.headers["feed-head"], head.to_string().as_str());
        // The id alone: no data, so that nothing fires.
        let first = events.frame().await;
        assert_eq!((first.id(), &*first.data, &*first.event), (&*server.cursor(0), "", ""));
        events.marker("RESUMED").await;
        for seq in 1..=head {
            let sent = events.frame().await;
            assert_eq!((sent.id(), &*sent.event), (&*server.cursor(seq), ""));
            let json = sent.json();
            assert_eq!((&json["seq"], &json["topic"]), (&seq.to_string().into(), &"a.b".into()));
            assert_eq!(json["cursor"], server.cursor(seq).as_str());
        }
        let caught_up = events.marker("CAUGHT_UP").await;
        assert_eq!(caught_up.id(), server.cursor(head));
        assert_eq!(server.gauges.watches(), 1);
        server.store("other", 1).await;
        server.store("a.b", 1).await;
        assert_eq!(events.event().await.json()["seq"], (head + 2).to_string());
        drop(events);
        until("no watch is left", || {
            server.gauges.watches() == 0 && server.log.status().readers == 0
        })
        .await;
        server.stop().await;
    }
}

#[tokio::test]
async fn without_a_start_it_is_live_and_says_where() {
    let server = start().await;
    server.store("a", 5).await;
    let mut events = Events::open(&server, "/v1/watch").await;
    assert_eq!(events.frame().await.id(), server.cursor(5));
    events.marker("RESUMED").await;
    events.marker("CAUGHT_UP").await;
    server.store("a", 1).await;
    assert_eq!(events.event().await.json()["seq"], "6");
    server.stop().await;
}

#[tokio::test]
async fn the_last_event_id_beats_what_the_url_says() {
    let server = start().await;
    server.store("a", 9).await;
    for path in [
        "/v1/watch?from=oldest&until_caught_up=true",
        "/v1/watch?until_caught_up&after_cursor=2",
        "/v1/watch?until_caught_up&after_cursor=nonsense",
        "/v1/watch?until_caught_up&after_cursor=2&from=oldest",
    ] {
        let last = server.cursor(7);
        let mut events = Events::reopen(&server, path, &last).await;
        assert_eq!(events.frame().await.id(), last, "{path}");
        assert_eq!(seqs(&events.rest().await), [8, 9], "{path}");
    }
    // An empty one is none.
    let mut events = Events::reopen(&server, "/v1/watch?until_caught_up&after_cursor=5", "").await;
    assert_eq!(seqs(&events.rest().await), [6, 7, 8, 9]);
    server.stop().await;
}

#[tokio::test]
async fn every_start_is_understood() {
    let server = start().await;
    server.store("a", 6).await;
    for (from, expected) in [
        ("oldest", vec![1, 2, 3, 4, 5, 6]),
        ("latest", vec![]),
        ("5", vec![5, 6]),
        ("last:2", vec![5, 6]),
        ("1970-01-01", vec![1, 2, 3, 4, 5, 6]),
        ("9999-12-31T23:59:59Z", vec![]),
        ("1h", vec![1, 2, 3, 4, 5, 6]),
    ] {
        let path = format!("/v1/watch?from={from}&until_caught_up=true");
        let mut events = Events::open(&server, &path).await;
        assert_eq!(seqs(&events.rest().await), expected, "{from}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_bounded_watch_ends_and_its_browser_stops() {
    let server = start().await;
    server.store("a", 5).await;
    for (path, last) in [
        ("/v1/watch?from=oldest&limit=3", 3),
        ("/v1/watch?from=oldest&until_caught_up=true", 5),
        ("/v1/watch?from=latest&until_caught_up=true", 5),
    ] {
        let mut events = Events::open(&server, path).await;
        let all = events.rest().await;
        let end = all.last().unwrap();
        assert_eq!(end.event, "end", "{path}");
        assert_eq!(end.json()["cursor"], server.cursor(last), "{path}");
        // EventSource comes back by itself, with the id that came last.
        let again = with(request(&server, "GET", path), &[("last-event-id", end.id())]);
        let again = ask(server.address, Version::HTTP_11, again).await;
        assert_eq!((again.status.as_u16(), &*again.body), (204, &b""[..]), "{path}");
        // Coming back with an event's id is no such thing.
        let mut more = Events::reopen(&server, path, &server.cursor(4)).await;
        assert_eq!(more.status, 200);
        assert_eq!(more.event().await.id(), server.cursor(5), "{path}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_lost_position_is_told_where_a_page_can_see_it() {
    let server = start().await;
    server.store("a", 9).await;
    server.trim(6).await;
    let foreign = {
        let mut bytes = server.cursor(3).into_bytes();
        bytes[8] ^= 1;
        String::from_utf8(bytes).unwrap()
    };
    for (after, code, reason) in [
        ("3", "OUT_OF_RANGE", "CURSOR_TRIMMED"),
        ("99", "OUT_OF_RANGE", "CURSOR_AHEAD"),
        ("nonsense", "INVALID_ARGUMENT", "CURSOR_MALFORMED"),
        (&foreign, "INVALID_ARGUMENT", "CURSOR_MALFORMED"),
    ] {
        let path = format!("/v1/watch?after_cursor={after}");
        let mut events = Events::open(&server, &path).await;
        assert_eq!(events.status, 200, "{after}");
        let all = events.rest().await;
        assert_eq!(all.len(), 1, "{all:?}");
        let lost = &all[0];
        assert_eq!(lost.event, "lost");
        let json = lost.json();
        assert_eq!((&json["code"], &json["reason"]), (&code.into(), &reason.into()), "{json}");
        if reason == "CURSOR_TRIMMED" {
            assert_eq!(json["metadata"]["oldest"], "6");
            assert_eq!(json["metadata"]["missed"], "2");
        }
        // A page that does not listen must not come back for ever.
        let again = with(request(&server, "GET", &path), &[("last-event-id", lost.id())]);
        assert_eq!(ask(server.address, Version::HTTP_11, again).await.status, 204);
    }
    // With a jump allowed it goes on, and says over what.
    let mut events = Events::open(&server, "/v1/watch?after_cursor=3&on_lost=oldest&limit=1").await;
    assert_eq!(events.frame().await.id(), server.cursor(5));
    let gap = events.marker("GAP").await.json();
    assert_eq!(gap["marker"]["gap"]["from_seq"], "4");
    assert_eq!(gap["marker"]["gap"]["to_seq"], "5");
    events.marker("RESUMED").await;
    assert_eq!(seqs(&events.rest().await), [6]);
    server.stop().await;
}

#[tokio::test]
async fn silence_is_broken_and_a_filter_moves_the_id() {
    let server = start().await;
    let path = "/v1/watch?topic=wanted&heartbeat_ms=100";
    let mut events = Events::open(&server, path).await;
    events.frame().await;
    events.marker("RESUMED").await;
    events.marker("CAUGHT_UP").await;
    let idle = events.frame().await;
    assert_eq!((idle.comments, idle.id), (1, None));
    server.store("other", 4).await;
    // A comment may have been on its way.
    let moved = loop {
        let sent = events.frame().await;
        match sent.id {
            None => assert_eq!(sent.comments, 1),
            Some(_) => break sent,
        }
    };
    assert_eq!((moved.id(), &*moved.data, &*moved.event), (&*server.cursor(4), "", ""));
    server.stop().await;
}

#[tokio::test]
async fn a_filter_that_skips_many_says_how_far_it_is() {
    let server = start().await;
    server.store("other", 25_000).await;
    let mut events =
        Events::open(&server, "/v1/watch?topic=wanted&from=oldest&until_caught_up").await;
    let all = events.rest().await;
    let bare: Vec<_> = all
        .iter()
        .filter(|sent| sent.data.is_empty() && sent.event.is_empty())
        .map(|sent| sent.id().to_owned())
        .collect();
    assert_eq!(bare, [server.cursor(0), server.cursor(10_000), server.cursor(20_000)]);
    server.stop().await;
}

#[tokio::test]
async fn a_stopping_server_says_when_to_come_back() {
    let options = Options { retry_delay: Duration::from_millis(1_500), ..Default::default() };
    for version in BOTH {
        let server = start_with(new_log(), options.clone()).await;
        server.store("a", 2).await;
        let ask = request(&server, "GET", "/v1/watch?from=oldest");
        let mut events = Events::send(&server, version, ask).await;
        for _ in 0..5 {
            events.frame().await;
        }
        server.shutdown.cancel();
        let closing = events.marker("CLOSING").await;
        assert_eq!((closing.id(), &*closing.retry), (&*server.cursor(2), "1500"));
        assert_eq!(events.next().await, None);
        server.stop().await;
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_url_is_named() {
    let server = start().await;
    for (query, field) in [
        ("topics=a", "topics"),
        ("topic=a..b", "topic"),
        ("topic=a&topic=b%20c", "topic"),
        ("limit=-1", "limit"),
        ("limit=1&limit=2", "limit"),
        ("from=yesterday", "from"),
        ("from=0", "from"),
        ("from=oldest&after_cursor=1", "from"),
        ("until_caught_up=maybe", "until_caught_up"),
        ("on_lost=never", "on_lost"),
        ("heartbeat_ms=x", "heartbeat_ms"),
    ] {
        let answer = get(&server, &format!("/v1/watch?{query}")).await;
        let metadata = answer.expect(400, "INVALID_ARGUMENT", "INVALID_FIELD");
        assert_eq!(metadata["field"], field, "{query}");
    }
    assert_eq!(server.gauges.watches(), 0);
    server.stop().await;
}

#[tokio::test]
async fn watches_are_counted_with_those_of_grpc() {
    let options = Options { watches: 1, ..Options::default() };
    let server = start_with(new_log(), options).await;
    let mut first = Events::open(&server, "/v1/watch").await;
    first.frame().await;
    let refused = get(&server, "/v1/watch").await;
    let metadata = refused.expect(429, "RESOURCE_EXHAUSTED", "LIMIT_EXCEEDED");
    assert_eq!((&metadata["what"], &metadata["limit"]), (&"watches".into(), &"1".into()));
    drop(first);
    until("its place is free", || server.gauges.watches() == 0).await;
    assert_eq!(Events::open(&server, "/v1/watch").await.status, 200);
    server.stop().await;
}

#[tokio::test]
async fn a_reader_that_stops_costs_only_itself() {
    let server = start().await;
    let body = "x".repeat(256 << 10);
    for _ in 0..8 {
        let mut batch = server.log.batch();
        for _ in 0..12 {
            let event = tailmark_record::Event { topic: "a", body: &body, ..Default::default() };
            batch.push(&event).unwrap();
        }
        server.log.append(batch, Default::default()).await.unwrap();
    }
    for version in BOTH {
        let ask = request(&server, "GET", "/v1/watch?from=oldest&until_caught_up");
        let mut slow = Events::send(&server, version, ask).await;
        assert_eq!(slow.frame().await.id(), server.cursor(0));
        // The whole log passes another while this one reads nothing more.
        let mut fast = Events::open(&server, "/v1/watch?from=oldest&until_caught_up").await;
        assert_eq!(seqs(&fast.rest().await).len(), 96);
        // Of those that have ended the server hears after their clients.
        until("the slow one alone", || server.gauges.watches() == 1).await;
        // And the slow one misses nothing.
        assert_eq!(seqs(&slow.rest().await), (1..=96).collect::<Vec<_>>());
    }
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_dies_leaves_nothing() {
    let server = start().await;
    server.store("a", 1).await;
    for _ in 0..3 {
        let mut events = Events::open(&server, "/v1/watch?from=oldest").await;
        events.frame().await;
        assert_eq!(server.gauges.watches(), 1);
        drop(events);
        until("nothing is held", || {
            server.gauges.watches() == 0
                && server.gauges.connections() == 0
                && server.log.status().readers == 0
        })
        .await;
    }
    server.stop().await;
}

/// What is written is what the terminal prints.
#[tokio::test]
async fn data_is_the_event_as_json_whatever_is_in_it() {
    let server = start().await;
    let mut batch = server.log.batch();
    let event = tailmark_record::Event {
        id: "e-1",
        topic: "a.ü",
        body: "two\nlines \u{7} \"quoted\" \r\n\n",
        kind: "t",
        key: "k",
        headers: vec![("h", "v\n")],
        has_client_id: true,
        ..Default::default()
    };
    batch.push(&event).unwrap();
    server.log.append(batch, Default::default()).await.unwrap();
    let mut events = Events::open(&server, "/v1/watch?from=oldest&limit=1").await;
    let sent = events.event().await;
    let json = sent.json();
    assert_eq!(json["body"], event.body);
    assert_eq!(json["headers"]["h"], "v\n");
    let direct = within("event", get(&server, "/v1/events/1")).await;
    assert_eq!(Bytes::from(sent.data + "\n"), direct.body);
    server.stop().await;
}
