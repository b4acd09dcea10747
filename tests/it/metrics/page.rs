//! `/metrics`.

use std::sync::Arc;

use tailmark::server::Options;
use tailmark_log::storage::memory::{self, Memory};
use tailmark_wire::feed_v1 as pb;
use tonic::Code;

use super::{get, scrape};
use crate::support::openmetrics::Page;
use crate::support::server::{
    TestServer, event, from_oldest, generations, memory, new_log, open, start, start_with, until,
    watch, within,
};

/// Asks until a page has what is looked for: a stream's end is counted a moment after its client
/// saw it.
async fn scrape_until(server: &TestServer, what: &str, is_it: impl Fn(&Page) -> bool) -> Page {
    within(what, async {
        loop {
            let page = scrape(server).await;
            if is_it(&page) {
                return page;
            }
        }
    })
    .await
}

const FEED: &str = "/feed.v1.FeedService";

#[tokio::test]
async fn counters_grow_by_exactly_what_was_done() {
    let server = start().await;
    let mut client = server.client().await;
    let before = scrape(&server).await;
    assert_eq!(before.sum("tailmark_events_appended_total", &[]), 0.0);

    let named = pb::Event { id: "a".into(), ..event("orders.eu", "one") };
    for message in [named.clone(), event("orders.us", "two"), named] {
        let request = pb::PublishRequest { event: Some(message), expected_head: None };
        client.publish(request).await.unwrap();
    }
    let bad = pb::PublishRequest { event: Some(event("", "")), expected_head: None };
    let refused = client.publish(bad).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let events: Vec<_> = (0..5).map(|n| event("orders.eu", &n.to_string())).collect();
    client.upload_events(tokio_stream::iter(events)).await.unwrap();
    let request = pb::WatchRequest {
        topic: "orders.eu".into(),
        start: from_oldest(),
        limit: 4,
        ..pb::WatchRequest::default()
    };
    let (seen, _) = watch(&mut client, request).await.unwrap().rest().await;
    assert_eq!(seen.len(), 4);
    assert_eq!(get(server.address, "/healthz").await.0, 200);
    assert_eq!(get(server.address, "/nothing/here").await.0, 404);
    assert_eq!(get(server.address, &format!("{FEED}/Nothing")).await.0, 404);

    let ended = |page: &Page| {
        page.sum("tailmark_streams_ended_total", &[("stream", "watch")]) == 1.0
            && page.sum("tailmark_streams_ended_total", &[("stream", "upload")]) == 1.0
            && page.sum("tailmark_grpc_handled_total", &[]) == 6.0
            && page.sum("tailmark_watches", &[]) == 0.0
    };
    let page = scrape_until(&server, "the ends", ended).await;
    let publish = format!("{FEED}/Publish");
    for (name, labels, expected) in [
        ("tailmark_events_appended_total", &[][..], 7.0),
        ("tailmark_events_duplicate_total", &[], 1.0),
        ("tailmark_commits_failed_total", &[], 0.0),
        ("tailmark_events_delivered_total", &[("stream", "watch")], 4.0),
        ("tailmark_events_delivered_total", &[], 4.0),
        ("tailmark_streams_ended_total", &[("reason", "limit")], 1.0),
        ("tailmark_streams_ended_total", &[("reason", "done")], 1.0),
        ("tailmark_stream_seconds_count", &[("stream", "watch")], 1.0),
        ("tailmark_grpc_started_total", &[], 6.0),
        ("tailmark_grpc_started_total", &[("method", &publish)], 4.0),
        ("tailmark_grpc_handled_total", &[("method", &publish), ("code", "OK")], 3.0),
        ("tailmark_grpc_handled_total", &[("code", "INVALID_ARGUMENT")], 1.0),
        ("tailmark_grpc_handled_total", &[("code", "OK")], 5.0),
        ("tailmark_grpc_handling_seconds_count", &[("method", &publish)], 4.0),
        ("tailmark_http_requests_total", &[("route", "/healthz"), ("code", "200")], 1.0),
        ("tailmark_http_requests_total", &[("route", "other"), ("code", "404")], 2.0),
        ("tailmark_head_seq", &[], 7.0),
        ("tailmark_oldest_seq", &[], 1.0),
        ("tailmark_readable_events", &[], 7.0),
        ("tailmark_appends_stopped", &[], 0.0),
        ("tailmark_trouble", &[], 0.0),
        ("tailmark_watches", &[], 0.0),
    ] {
        assert_eq!(page.sum(name, labels), expected, "{name} {labels:?}");
    }
    // Repeats alone make no commit, and an upload makes as many as it likes.
    let commits = page.sum("tailmark_commits_total", &[]);
    assert!((3.0..=7.0).contains(&commits), "{commits}");
    assert_eq!(page.sum("tailmark_commit_seconds_count", &[]), commits);
    assert!(page.sum("tailmark_appended_bytes_total", &[]) > 7.0 * "orders.eu".len() as f64);
    let reads = page.sum("tailmark_reads_total", &[]);
    assert!(reads >= 1.0, "{reads}");
    server.trim(4).await;
    let page = scrape(&server).await;
    assert_eq!(page.sum("tailmark_oldest_seq", &[]), 4.0);
    assert_eq!(page.sum("tailmark_readable_events", &[]), 4.0);
}

#[tokio::test]
async fn what_is_open_is_gauged_and_comes_back_to_zero_when_clients_are_cut() {
    let server = start().await;
    let mut client = server.client().await;
    let mut open = Vec::new();
    for _ in 0..7 {
        open.push(watch(&mut client, pb::WatchRequest::default()).await.unwrap());
    }
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let uploading = tokio::spawn({
        let mut client = client.clone();
        let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
        async move { client.upload_events(stream).await }
    });
    until("the upload", || server.gauges.uploads() == 1).await;
    let page = scrape(&server).await;
    for (name, labels, expected) in [
        ("tailmark_watches", &[][..], 7.0),
        ("tailmark_uploads", &[], 1.0),
        ("tailmark_streams", &[("stream", "watch")], 7.0),
        ("tailmark_streams", &[("stream", "upload")], 1.0),
        ("tailmark_readers", &[], 7.0),
        ("tailmark_watch_lag_events", &[], 0.0),
    ] {
        assert_eq!(page.sum(name, labels), expected, "{name}");
    }
    // The client's and the scrape's own.
    assert_eq!(page.sum("tailmark_connections", &[]), 2.0);

    uploading.abort();
    drop((open, client, sender));
    // A call's last figure comes after its stream's, and each is dropped when its turn comes.
    let page = scrape_until(&server, "the cut", |page| {
        page.sum("tailmark_connections", &[]) == 1.0
            && page.sum("tailmark_streams", &[]) == 0.0
            && page.sum("tailmark_grpc_handled_total", &[])
                == page.sum("tailmark_grpc_started_total", &[])
    })
    .await;
    for name in ["tailmark_watches", "tailmark_uploads", "tailmark_streams", "tailmark_readers"] {
        assert_eq!(page.sum(name, &[]), 0.0, "{name}");
    }
    let gone = [("stream", "watch"), ("reason", "client gone")];
    assert_eq!(page.sum("tailmark_streams_ended_total", &gone), 7.0);
    let cancelled = [("method", "/feed.v1.FeedService/Watch"), ("code", "CANCELLED")];
    assert_eq!(page.sum("tailmark_grpc_handled_total", &cancelled), 7.0);
    assert_eq!(page.sum("tailmark_grpc_started_total", &[]), 8.0);
}

#[tokio::test]
async fn the_lag_is_that_of_the_slowest_watch() {
    let server = start().await;
    let mut client = server.client().await;
    let body = "x".repeat(64 << 10);
    let all = pb::WatchRequest { start: from_oldest(), ..pb::WatchRequest::default() };
    // Nobody reads it: HTTP/2 lets a few of the events through.
    let mut slow = watch(&mut client, all.clone()).await.unwrap();
    for _ in 0..100 {
        let request = pb::PublishRequest { event: Some(event("t", &body)), expected_head: None };
        client.publish(request).await.unwrap();
    }
    let mut fast_client = server.client().await;
    let fast = pb::WatchRequest { limit: 100, ..all };
    assert_eq!(watch(&mut fast_client, fast).await.unwrap().rest().await.0.len(), 100);
    let page = scrape(&server).await;
    let lag = page.sum("tailmark_watch_lag_events", &[]);
    assert!((1.0..=100.0).contains(&lag), "{lag}");
    for _ in 0..100 {
        slow.event().await;
    }
    let caught_up = |page: &Page| page.sum("tailmark_watch_lag_events", &[]) == 0.0;
    scrape_until(&server, "the end of the lag", caught_up).await;
}

#[tokio::test]
async fn odd_requests_do_not_grow_the_label_sets() {
    let server = start().await;
    let channel = server.channel().await;
    let odd = |n: usize| match n % 4 {
        0 => format!("/feed.v1.FeedService/No{n}"),
        1 => format!("/other.Service{n}/Method"),
        2 => format!("/{n}/{n}"),
        _ => format!("/chat.ChatService/{n}/{n}"),
    };
    for n in 0..800 {
        let path = odd(n).parse().unwrap();
        let mut grpc = tonic::client::Grpc::new(channel.clone());
        grpc.ready().await.unwrap();
        let codec = tonic_prost::ProstCodec::<pb::GetLogRequest, pb::LogStatus>::default();
        let request = tonic::Request::new(pb::GetLogRequest {});
        let status = within("call", grpc.unary(request, path, codec)).await.unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented, "{}", odd(n));
    }
    for n in 0..200 {
        assert_eq!(get(server.address, &odd(n)).await.0, 404);
    }
    let page = scrape(&server).await;
    assert_eq!(page.sum("tailmark_grpc_started_total", &[]), 800.0);
    assert_eq!(page.sum("tailmark_grpc_started_total", &[("method", "other")]), 600.0);
    assert_eq!(page.sum("tailmark_grpc_started_total", &[("method", "unknown")]), 200.0);
    let unimplemented = page.sum("tailmark_grpc_handled_total", &[("code", "UNIMPLEMENTED")]);
    assert_eq!(unimplemented, 800.0);
    assert_eq!(page.sum("tailmark_http_requests_total", &[("route", "other")]), 200.0);
    let samples = page.samples.len();
    assert!(samples < 400, "{samples}");
    for n in 1_000..1_200 {
        assert_eq!(get(server.address, &odd(n)).await.0, 404);
    }
    // One more than before: the route of the scrape itself.
    assert_eq!(scrape(&server).await.samples.len(), samples + 1);
}

#[tokio::test]
async fn what_is_refused_at_the_door_is_counted_too() {
    let server = start().await;
    let mut client = server.client().await;
    let request = pb::PublishRequest { event: Some(event("t", "b")), expected_head: None };
    let mut request = tonic::Request::new(request);
    request.metadata_mut().insert("grpc-timeout", "soon".parse().unwrap());
    let status = within("publish", client.publish(request)).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(get(server.address, &format!("{FEED}/Publish")).await.0, 405);
    let page = scrape(&server).await;
    let publish = format!("{FEED}/Publish");
    let refused = [("method", publish.as_str()), ("code", "INVALID_ARGUMENT")];
    assert_eq!(page.sum("tailmark_grpc_handled_total", &refused), 1.0);
    assert_eq!(page.sum("tailmark_grpc_started_total", &[]), 1.0);
    let other = [("route", "other"), ("code", "405")];
    assert_eq!(page.sum("tailmark_http_requests_total", &other), 1.0);
    assert_eq!(page.sum("tailmark_http_requests_total", &[]), 1.0);
}

#[tokio::test]
async fn a_scrape_waits_for_no_commit() {
    let options = memory::Options { hold: true, ..memory::Options::default() };
    let engine: Arc<Memory> = Arc::new(memory(generations(&[1]), options));
    let log = open(engine.clone(), tailmark_log::eventlog::Options::default());
    let server = start_with(log, Options::default()).await;
    let mut client = server.client().await;
    let publishing = tokio::spawn(async move {
        let request = pb::PublishRequest { event: Some(event("t", "body")), expected_head: None };
        client.publish(request).await
    });
    let is_waiting = |page: &Page| page.sum("tailmark_in_flight_bytes", &[]) > 0.0;
    let page = scrape_until(&server, "the append", is_waiting).await;
    assert_eq!(page.sum("tailmark_events_appended_total", &[]), 0.0);
    assert!(!publishing.is_finished());
    until("the commit", || {
        engine.release();
        publishing.is_finished()
    })
    .await;
    publishing.await.unwrap().unwrap();
    // Given back after the answer.
    let is_back = |page: &Page| page.sum("tailmark_in_flight_bytes", &[]) == 0.0;
    let page = scrape_until(&server, "all room", is_back).await;
    assert_eq!(page.sum("tailmark_events_appended_total", &[]), 1.0);
}

#[tokio::test]
async fn names_that_need_escaping_come_through() {
    let instance = "a \"quoted\\ name".to_owned();
    let options = Options { instance: instance.clone(), ..Options::default() };
    let server = start_with(new_log(), options).await;
    let page = scrape(&server).await;
    assert_eq!(page.sum("tailmark_build_info", &[("instance_id", &instance)]), 1.0);
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(page.sum("tailmark_build_info", &[("version", version)]), 1.0);
    assert!(page.sum("process_cpu_seconds_total", &[]) > 0.0);
    assert!(page.sum("process_resident_memory_bytes", &[]) > 1e6);
    assert!(page.sum("process_open_fds", &[]) >= 3.0);
    assert!(page.sum("process_start_time_seconds", &[]) > 1.7e9);
}
