//! The Rust client against a real server over a way that fails: dead connections, waits that the
//! server asks for, gaps, and what each error says.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::{Duration, Instant};

use futures_core::Stream;
use tailmark::server::Options;
use tailmark_client::{
    self, Client, Error, Expect, Item, Kind, Moment, OnLost, ProducerOptions, Start, Watch,
    WatchOptions,
};
use tailmark_record::{GapReason, MarkerKind, Seq};
use tailmark_wire::feed_v1 as pb;

use crate::support::proxy::Proxy;
use crate::support::server::{TestServer, event, new_log, start, start_with, until, within};

fn url(server: &TestServer) -> String {
    format!("http://{}", server.address)
}

fn options() -> WatchOptions {
    let mut options = WatchOptions::default();
    options.start = Start::Oldest;
    options.shortest_retry = Duration::from_millis(1);
    options.longest_retry = Duration::from_millis(2);
    options
}

async fn item(watch: &mut Watch) -> Option<Result<Item, Error>> {
    within("item", poll_fn(|cx| Pin::new(&mut *watch).poll_next(cx))).await
}

async fn seq(watch: &mut Watch) -> u64 {
    match item(watch).await {
        Some(Ok(Item::Event(received))) => received.seq().get(),
        other => panic!("{other:?}"),
    }
}

async fn interrupted(watch: &mut Watch) -> (Error, Duration) {
    match item(watch).await {
        Some(Ok(Item::Interrupted { cause, retry_in })) => (cause, retry_in),
        other => panic!("{other:?}"),
    }
}

/// Nothing but the defaults, and a heartbeat that a test can wait for.
#[tokio::test]
async fn a_connection_that_falls_silent_is_left_for_a_new_one_and_nothing_is_missed() {
    let server = start().await;
    let proxy = Proxy::to(server.address).await;
    for patterns in [vec![], vec!["a.*".to_owned()]] {
        let from = server.head();
        let mut options = options();
        options.heartbeat = Duration::from_millis(200);
        options.after_cursor = Some(server.cursor(from));
        options.patterns = patterns;
        server.store("a.b", 3).await;
        let mut watch = Client::new(&proxy.url()).unwrap().watch(options);
        for at in 1..=3 {
            assert_eq!(seq(&mut watch).await, from + at);
        }
        let taken = proxy.taken();
        proxy.freeze();
        server.store("a.b", 3).await;
        let (cause, _) = interrupted(&mut watch).await;
        assert_eq!(cause.kind(), Kind::Timeout);
        for at in 4..=6 {
            assert_eq!(seq(&mut watch).await, from + at);
        }
        // One new attempt, on a connection of its own.
        assert_eq!(proxy.taken(), taken + 1);
        // The one left behind is still open for the server, which cannot know.
        assert_eq!(server.gauges.watches(), 2);
        // No heartbeat is missed on the new one: what follows comes without an interruption.
        server.store("a.b", 1).await;
        assert_eq!(seq(&mut watch).await, from + 7);
        proxy.cut();
        drop(watch);
        until("no watch", || server.gauges.watches() == 0).await;
    }
    server.stop().await;
}

#[tokio::test]
async fn what_a_stopping_server_asks_for_is_waited() {
    let asked = Duration::from_millis(1_500);
    let stopping = || Options { retry_delay: asked, ..Options::default() };
    let log = new_log();
    let server = start_with(log.clone(), stopping()).await;
    server.store("a", 1).await;
    let proxy = Proxy::to(server.address).await;
    let client = Client::new(&proxy.url()).unwrap();
    let mut watch = client.watch(options());
    assert_eq!(seq(&mut watch).await, 1);
    let mut quick = ProducerOptions::default();
    (quick.shortest_retry, quick.longest_retry) =
        (Duration::from_millis(1), Duration::from_millis(2));
    let producer = within("open", client.producer("p", quick)).await.unwrap();

    server.stop().await;
    let (cause, retry_in) = interrupted(&mut watch).await;
    assert_eq!((cause.kind(), cause.reason()), (Kind::Unavailable, "STOPPING"));
    assert_eq!(cause.retry_delay(), Some(asked));
    // On top of it the jittered wait of its own, of 1 to 2 ms at first.
    assert!(retry_in > asked && retry_in <= asked + Duration::from_millis(2), "{retry_in:?}");
    until("an interruption", || producer.interruption().is_some()).await;
    let cause = producer.interruption().unwrap();
    assert_eq!((cause.reason(), cause.retry_delay()), ("STOPPING", Some(asked)));

    let told = Instant::now();
    let server = start_with(log, stopping()).await;
    let taken = proxy.taken();
    proxy.lead_to(server.address);
    server.store("a", 1).await;
    assert_eq!(seq(&mut watch).await, 2);
    assert!(told.elapsed() >= asked / 2, "came back after {:?}", told.elapsed());
    // Each came back once: no attempt before its time.
    within("an ack", producer.send(&event("a", "")).await.unwrap().durable()).await.unwrap();
    assert!(proxy.taken() <= taken + 2, "{} connections", proxy.taken() - taken);
    drop((watch, producer));
    server.stop().await;
}

#[tokio::test]
async fn a_gap_is_told_also_to_who_asked_for_no_markers() {
    let server = start().await;
    server.store("a", 10).await;
    server.trim(6).await;
    let mut options = options();
    options.after_cursor = Some(server.cursor(1));
    options.on_lost = OnLost::Oldest;
    options.until_caught_up = true;
    assert!(!options.markers);
    let mut watch = Client::new(&url(&server)).unwrap().watch(options);
    match item(&mut watch).await {
        Some(Ok(Item::Marker(marker))) if marker.kind == MarkerKind::Gap => {
            let gap = marker.gap.unwrap();
            assert_eq!((gap.from.get(), gap.to.get()), (2, 5));
            assert_eq!(gap.reason, GapReason::Trimmed);
        }
        other => panic!("{other:?}"),
    }
    for at in 6..=10 {
        assert_eq!(seq(&mut watch).await, at);
    }
    assert!(item(&mut watch).await.is_none());
    server.stop().await;
}

fn facts(error: &Error) -> (Kind, &str, bool, bool) {
    (error.kind(), error.reason(), error.is_retryable(), error.may_have_applied())
}

#[tokio::test]
async fn what_was_refused_was_not_done_and_says_why() {
    let server = start().await;
    let client = Client::new(&url(&server)).unwrap();
    server.store("a", 10).await;
    client.trim(Moment::Seq(Seq::new(5))).await.unwrap();
    let expect = |topic: &str, seq| Some(Expect { topic: topic.into(), seq: Seq::new(seq) });

    let error = client.publish(event("a", ""), expect("", 3)).await.unwrap_err();
    assert_eq!(facts(&error), (Kind::Conflict, "HEAD_MOVED", false, false));
    assert_eq!(error.metadata("actual"), Some("10"));
    let error = client.publish(event("b", ""), expect("b", 1)).await.unwrap_err();
    assert_eq!(facts(&error), (Kind::Conflict, "HEAD_MOVED", false, false));
    assert_eq!(error.metadata("actual"), Some("0"));
    let error = client.publish(event("a..b", ""), None).await.unwrap_err();
    assert_eq!(facts(&error), (Kind::InvalidRequest, "INVALID_FIELD", false, false));
    assert_eq!(error.fields().next().unwrap().0, "event.topic");
    let large = event("a", &"x".repeat(2 << 20));
    let error = client.publish(large, None).await.unwrap_err();
    assert_eq!(facts(&error), (Kind::LimitExceeded, "LIMIT_EXCEEDED", false, false));
    let (limit, actual) = (error.metadata("limit").unwrap(), error.metadata("actual").unwrap());
    assert!(limit.parse::<u64>().unwrap() < actual.parse().unwrap());
    let error = client.event(Seq::new(11)).await.unwrap_err();
    assert_eq!(facts(&error), (Kind::NotFound, "EVENT_NOT_FOUND", false, false));
    let error = client.event(Seq::new(3)).await.unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (Kind::Gone, false));
    let error = client.producer("", ProducerOptions::default()).await.unwrap_err();
    assert_eq!((error.kind(), error.may_have_applied()), (Kind::InvalidRequest, false));
    assert_eq!(server.head(), 10, "nothing of all that was stored");

    // Both hold: the log's and a topic's.
    client.publish(event("b", ""), expect("b", 0)).await.unwrap();
    client.publish(event("a", ""), expect("", 11)).await.unwrap();

    // An upload is not atomic, and says so.
    let encoded = |topic| prost::Message::encode_to_vec(&event(topic, "")).into();
    let upload = |topics: &[&'static str]| {
        let events: Vec<bytes::Bytes> = topics.iter().map(|topic| encoded(topic)).collect();
        client.upload(tokio_stream::iter(events))
    };
    let error = within("upload", upload(&["a", "a", "a..b"])).await.unwrap_err();
    assert_eq!(facts(&error), (Kind::InvalidRequest, "INVALID_FIELD", false, true));
    assert_eq!((error.metadata("index"), error.metadata("received")), (Some("2"), Some("2")));
    let error = within("upload", upload(&["a..b", "a"])).await.unwrap_err();
    assert_eq!((error.metadata("received"), error.may_have_applied()), (Some("0"), false));
    assert_eq!(server.head(), 14);

    // A server that stops refuses; then there is none, and nothing was sent.
    let shutdown = server.shutdown.clone();
    let mut watch = client.watch(options());
    let error = match item(&mut watch).await {
        Some(Err(error)) => panic!("{error}"),
        _ => {
            shutdown.cancel();
            loop {
                let error = client.publish(event("a", ""), None).await;
                match error {
                    Err(error) if error.kind() == Kind::Connect => break error,
                    Err(error) => assert!(error.is_retryable(), "{error:?}"),
                    Ok(_) => {}
                }
            }
        }
    };
    assert_eq!(facts(&error), (Kind::Connect, "", true, false));
    drop(watch);
    let log = server.log.clone();
    server.stop().await;
    assert!(log.bounds().head >= Seq::new(14));
}

fn named(id: &str) -> pb::Event {
    pb::Event { id: id.to_owned(), ..event("a", "") }
}

/// A publish whose answer is lost, in three ways: each time it is stored, the error says that it may
/// be, and with an id it may be sent again.
#[tokio::test]
async fn a_lost_answer_may_have_been_a_yes() {
    let server = start().await;
    let proxy = Proxy::to(server.address).await;
    let mut short = tailmark_client::Options::default();
    short.request_timeout = Duration::from_secs(2);
    short.read_timeout = Duration::from_millis(500);
    for (at, kind) in [Kind::Unavailable, Kind::Timeout].into_iter().enumerate() {
        let head = server.head();
        let client = match kind {
            Kind::Timeout => Client::with_options(&proxy.url(), short.clone()).unwrap(),
            _ => Client::new(&proxy.url()).unwrap(),
        };
        // The connection stands before the answers are lost.
        client.log().await.unwrap();
        proxy.lose_answers();
        let id = format!("event {at}");
        let publish = client.publish(named(&id), None);
        let lost = async {
            until("the event", || server.head() > head).await;
            if kind == Kind::Unavailable {
                proxy.cut();
            }
        };
        let (outcome, ()) = tokio::join!(publish, lost);
        let error = outcome.unwrap_err();
        assert_eq!(facts(&error), (kind, "", true, true), "{error}");
        assert_eq!(server.head(), head + 1, "it is stored all the same");
        if kind == Kind::Timeout {
            // A read changes nothing, whatever becomes of it.
            let error = client.log().await.unwrap_err();
            assert_eq!(facts(&error), (Kind::Timeout, "", true, false));
            proxy.cut();
        }
        let again = within("again", async {
            loop {
                match client.publish(named(&id), None).await {
                    Ok(result) => break result,
                    Err(error) => assert!(error.is_retryable(), "{error}"),
                }
            }
        })
        .await;
        assert!(again.duplicate && again.seq == head + 1);
        assert_eq!(server.head(), head + 1);
    }
    drop(proxy);
    server.stop().await;
}
