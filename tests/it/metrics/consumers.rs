//! Watches that say what they are called.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use futures_core::Stream;
use tailmark::server::Options;
use tailmark_client::{Client, Item, WatchOptions};
use tailmark_wire::feed_v1 as pb;
use tonic::Code;

use super::scrape;
use crate::support::server::{
    TestServer, bad_field, event, expect, from_oldest, start, start_on, watch, watch_batches,
    within,
};
use crate::support::web::{Events, get};

fn named(name: &str, topic: &str) -> pb::WatchRequest {
    pb::WatchRequest {
        name: name.to_owned(),
        topic: topic.to_owned(),
        start: from_oldest(),
        ..pb::WatchRequest::default()
    }
}

async fn consumers(server: &TestServer) -> Vec<pb::Consumer> {
    let mut client = server.client().await;
    client.get_log(pb::GetLogRequest {}).await.unwrap().into_inner().consumers
}

#[tokio::test]
async fn each_has_its_lag_and_its_events_under_its_name_over_every_call() {
    let server = start().await;
    let mut client = server.client().await;
    server.store("a", 3).await;
    let mut grpc = watch(&mut client, named("grpc", "")).await.unwrap();
    let mut batches = watch_batches(&mut client, named("batches", "a")).await.unwrap();
    let sse = "/v1/watch?name=eu/sse:1&from=oldest&topic=a";
    let mut sse = Events::open(&server, sse).await;
    let library = Client::new(&format!("http://{}", server.address)).unwrap();
    let mut options = WatchOptions::default();
    options.name = "library".to_owned();
    options.start = tailmark_client::Start::Oldest;
    let mut library = library.watch(options);
    for seq in 1..=3 {
        assert_eq!(grpc.event().await.seq, seq);
        assert_eq!(batches.event().await.seq, seq);
        sse.event().await;
        assert_eq!(next(&mut library).await, Some(seq));
    }
    library.report(true).await;
    let page = scrape(&server).await;
    for name in ["grpc", "batches", "eu/sse:1", "library"] {
        let of = |family: &str| page.sum(family, &[("name", name)]);
        assert_eq!(of("tailmark_consumer_watches"), 1.0, "{name}");
        assert_eq!(of("tailmark_consumer_events_delivered_total"), 3.0, "{name}");
        assert_eq!(of("tailmark_consumer_lag_events"), 0.0, "{name}");
        assert!(of("tailmark_consumer_idle_seconds") < 60.0, "{name}");
    }
    // Gone, it is known where it was.
    drop(grpc);
    let is_there = |all: &[pb::Consumer]| all.iter().any(|it| it.name == "grpc" && it.watches > 0);
    within("it has gone", async { while is_there(&consumers(&server).await) {} }).await;
    server.store("a", 5).await;
    let all = consumers(&server).await;
    let gone = all.iter().find(|it| it.name == "grpc").unwrap();
    assert_eq!((gone.watches, gone.delivered, gone.lag_events), (0, 3, 5));
    let json = get(&server, "/v1/log").await.json();
    let there = json["consumers"].as_array().unwrap().iter().find(|it| it["name"] == "grpc");
    assert_eq!(there.unwrap()["lag_events"], "5", "{json}");
    // Back, it is the same one.
    let cursor = server.cursor(3);
    let back = pb::WatchRequest { after_cursor: cursor, start: None, ..named("grpc", "") };
    let mut back = watch(&mut client, back).await.unwrap();
    for seq in 4..=8 {
        assert_eq!(back.event().await.seq, seq);
    }
    let all = consumers(&server).await;
    let again = all.iter().find(|it| it.name == "grpc").unwrap();
    assert_eq!((again.watches, again.delivered), (1, 8));
    assert_eq!(all.len(), 4);
    drop((back, batches, sse, library));
    server.stop().await;
}

/// The next item, which says that the ones before are done.
async fn next(watch: &mut tailmark_client::Watch) -> Option<u64> {
    loop {
        let item = poll_fn(|cx| Pin::new(&mut *watch).poll_next(cx));
        match within("an item", item).await {
            Some(Ok(Item::Event(event))) => return Some(event.seq().get()),
            Some(Ok(_)) => {}
            _ => return None,
        }
    }
}

#[tokio::test]
async fn a_slow_worker_of_small_events_is_behind_by_what_it_has_not_done() {
    let server = start().await;
    server.store("jobs", 2_000).await;
    let library = Client::new(&format!("http://{}", server.address)).unwrap();
    let mut options = WatchOptions::default();
    options.name = "slow".to_owned();
    options.start = tailmark_client::Start::Oldest;
    let mut slow = library.watch(options.clone());
    for seq in 1..=23 {
        assert_eq!(next(&mut slow).await, Some(seq));
        if seq == 22 {
            // So that a report is due.
            tokio::time::sleep(Duration::from_millis(1_100)).await;
        }
    }
    // For comparison one that does not report: all that its connection took counts.
    let mut client = server.client().await;
    let plain = watch(&mut client, named("plain", "")).await.unwrap();
    let of = async |name: &str| {
        let all = consumers(&server).await;
        let it = all.iter().find(|it| it.name == name).unwrap();
        (it.watches, it.delivered, it.lag_events)
    };
    within("it has all of it", async { while of("plain").await.1 < 2_000 {} }).await;
    assert_eq!(of("plain").await, (1, 2_000, 0));
    // It works on the 23rd, and tells nothing meanwhile; what comes on top is lag too.
    let expected = (1, 22, 1_978);
    within("it is told", async { while of("slow").await != expected {} }).await;
    server.store("jobs", 100).await;
    let expected = (1, 22, 2_078);
    within("it grows", async { while of("slow").await != expected {} }).await;
    assert_eq!(
        scrape(&server).await.sum("tailmark_consumer_lag_events", &[("name", "slow")]),
        2_078.0
    );
    // It ends while it works: the 23rd is not done. Then one that is done with it.
    slow.report(false).await;
    assert_eq!(of("slow").await.1, 22);
    slow.report(true).await;
    let cursor = slow.cursor().map(str::to_owned);
    drop(slow);
    within("it has gone", async { while of("slow").await.0 > 0 {} }).await;
    assert_eq!(of("slow").await, (0, 23, 2_077));
    // Back, it ends by itself at the head of then: what it was given is done when that was told.
    options.after_cursor = cursor;
    options.until_caught_up = true;
    let mut back = library.watch(options);
    while next(&mut back).await.is_some() {}
    back.report(true).await;
    assert_eq!(of("slow").await, (0, 2_100, 0));
    drop((plain, back));
    server.stop().await;
}

/// What it has of the old one would keep it busy for long: it comes back when it is told that there is another.
#[tokio::test]
async fn a_slow_worker_is_there_again_when_the_server_is() {
    let server = start().await;
    server.store("jobs", 2_000).await;
    let library = Client::new(&format!("http://{}", server.address)).unwrap();
    let mut options = WatchOptions::default();
    options.name = "slow".to_owned();
    options.start = tailmark_client::Start::Oldest;
    let mut slow = library.watch(options);
    assert_eq!(next(&mut slow).await, Some(1));
    let is_all_there = async || {
        let page = scrape(&server).await;
        page.sum("tailmark_events_delivered_total", &[("stream", "watch")]) >= 2_000.0
    };
    within("it has all of it", async { while !is_all_there().await {} }).await;
    let (port, log) = (server.port.clone(), server.log.clone());
    server.stop().await;
    let server = start_on(port, log, Options::default()).await;
    let mut last = 1;
    while consumers(&server).await.is_empty() {
        // Nothing is missed, and nothing comes twice.
        last += 1;
        assert_eq!(next(&mut slow).await, Some(last));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(last < 1_000, "{last}");
    for _ in 0..12 {
        last += 1;
        assert_eq!(next(&mut slow).await, Some(last));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let expected = 2_001 - last;
    slow.report(false).await;
    assert_eq!(consumers(&server).await[0].lag_events, expected);
    drop(slow);
    server.stop().await;
}

#[tokio::test]
async fn one_that_waits_has_told_of_all_that_is_done_and_forged_reports_change_nothing() {
    let server = start().await;
    server.store("jobs", 3).await;
    let library = Client::new(&format!("http://{}", server.address)).unwrap();
    let mut options = WatchOptions::default();
    options.name = "idle".to_owned();
    options.start = tailmark_client::Start::Oldest;
    let mut idle = library.watch(options);
    for seq in 1..=3 {
        assert_eq!(next(&mut idle).await, Some(seq));
    }
    let waiting = tokio::spawn(async move { next(&mut idle).await });
    let is_behind = async || consumers(&server).await[0].lag_events > 0;
    within("all is told", async { while is_behind().await {} }).await;
    waiting.abort();
    let mut client = server.client().await;
    let request = pb::WatchRequest { reports_progress: true, ..named("other", "") };
    let other = watch(&mut client, request).await.unwrap();
    let id = other.header("feed-watch");
    let mut report = async |watch: &str, done| {
        let request = pb::ReportProgressRequest { watch: watch.to_owned(), done };
        client.report_progress(request).await.unwrap().into_inner().known
    };
    assert!(report(id, 1).await);
    assert!(!report(&id.replace("other", "idle"), 1).await);
    assert!(!report("other", 1).await && !report("", 1).await);
    assert!(report(id, u64::MAX).await);
    let all = consumers(&server).await;
    let told = all.iter().find(|it| it.name == "other").unwrap();
    assert_eq!((told.delivered, told.lag_events), (3, 0), "never more than it has");
    drop(other);
    server.stop().await;
}

#[tokio::test]
async fn one_that_nothing_concerns_is_not_behind_and_one_without_a_name_is_not_told() {
    let server = start().await;
    let mut client = server.client().await;
    let request = |name| pb::WatchRequest { start: None, ..named(name, "quiet") };
    let quiet = watch(&mut client, request("quiet")).await.unwrap();
    let nameless = watch(&mut client, request("")).await.unwrap();
    server.store("loud", 1_000).await;
    // A thread beside the writer says what concerned nobody.
    let is_behind = async || consumers(&server).await[0].lag_events > 0;
    within("what does not concern it is passed", async { while is_behind().await {} }).await;
    let all = consumers(&server).await;
    assert_eq!(all.len(), 1);
    assert_eq!((&*all[0].name, all[0].lag_events, all[0].delivered), ("quiet", 0, 0));
    // Gone, it has still looked at what did not concern it, as far as that thread was then: nobody can ask it.
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    drop((quiet, nameless));
    within("it has gone", async { while consumers(&server).await[0].watches > 0 {} }).await;
    assert_eq!(consumers(&server).await[0].lag_events, 0);
    server.store("loud", 10).await;
    assert_eq!(consumers(&server).await[0].lag_events, 10);
    server.stop().await;
}

#[tokio::test]
async fn names_are_plain_and_there_are_so_many_at_most() {
    let server = start().await;
    let mut client = server.client().await;
    for bad in ["a b", "(others)", "é", &"x".repeat(65), "a\"b"] {
        let refused = watch(&mut client, named(bad, "")).await.err().unwrap();
        expect(&refused, Code::InvalidArgument, "INVALID_FIELD");
        assert_eq!(bad_field(&refused), "name");
    }
    let answer = get(&server, "/v1/watch?name=a%20b").await;
    assert_eq!(answer.expect(400, "INVALID_ARGUMENT", "INVALID_FIELD")["field"], "name");
    let mut open = Vec::new();
    for at in 0..103 {
        open.push(watch(&mut client, named(&format!("n{at}"), "a")).await.unwrap());
    }
    client
        .publish(pb::PublishRequest { event: Some(event("a", "b")), expected_head: None })
        .await
        .unwrap();
    for watch in &mut open {
        watch.event().await;
    }
    let all = consumers(&server).await;
    assert_eq!(all.len(), 101);
    let others = all.last().unwrap();
    assert_eq!((&*others.name, others.watches, others.delivered), ("(others)", 3, 3));
    drop(open);
    server.stop().await;
}

#[tokio::test]
async fn the_last_minutes_are_there_for_who_comes_later() {
    let server = start().await;
    server.store("a", 7).await;
    let points = loop {
        let json = get(&server, "/v1/history").await.json();
        match json["points"].as_array() {
            // The first looks may have come before.
            Some(points) if points.iter().filter(|it| it["head_seq"] == "7").count() >= 2 => {
                break points.clone();
            }
            _ => tokio::time::sleep(std::time::Duration::from_millis(100)).await,
        }
    };
    for point in &points {
        let head = point["head_seq"].as_str().unwrap_or("0");
        assert!(head.parse::<u64>().unwrap() <= 7, "{point}");
        assert!(point["appended_per_second"].as_f64().unwrap() >= 0.0);
        assert!(point["at"].as_str().unwrap() <= &*now(), "{point}");
    }
    let refused = get(&server, "/v1/history?minutes=5").await;
    refused.expect(400, "INVALID_ARGUMENT", "INVALID_FIELD");
    server.stop().await;
}

fn now() -> String {
    tailmark_record::Timestamp::now().to_string()
}
