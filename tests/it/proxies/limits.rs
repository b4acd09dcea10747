//! Limits of real proxies: idle time, the size of a body, a reload of their configuration. What they
//! cost is a reconnect; what they refuse is said.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use prost::Message as _;
use tailmark_client::{Client, Error, Item, Kind, ProducerOptions, Start, Watch, WatchOptions};
use tailmark_record::MarkerKind;
use tailmark_wire::feed_v1 as pb;

use crate::support::reverse_proxy::{Brand, ReverseProxy, are_there};
use crate::support::server::{TestServer, event, start, within};

const BRANDS: [Brand; 2] = [Brand::Nginx, Brand::HaProxy];

/// A proxy that cuts what is silent for a second.
async fn impatient(brand: Brand, server: &TestServer) -> ReverseProxy {
    let swaps: &[(&str, &str)] = match brand {
        Brand::Nginx => &[("grpc_read_timeout 24h;", "grpc_read_timeout 1s;")],
        _ => &[("timeout server 24h", "timeout server 1s")],
    };
    ReverseProxy::start(brand, server.address, swaps).await
}

fn options(heartbeat: Duration) -> WatchOptions {
    let mut options = WatchOptions::default();
    (options.start, options.markers, options.heartbeat) = (Start::Oldest, true, heartbeat);
    (options.shortest_retry, options.longest_retry) =
        (Duration::from_millis(1), Duration::from_millis(50));
    options
}

async fn next(watch: &mut Watch) -> Option<Result<Item, Error>> {
    within("item", poll_fn(|cx| Pin::new(&mut *watch).poll_next(cx))).await
}

/// The next event; nothing but markers and, if there may be any, interruptions come before it.
async fn seq(watch: &mut Watch, may_be_cut: bool) -> u64 {
    loop {
        match next(watch).await {
            Some(Ok(Item::Event(event))) => return event.seq().get(),
            Some(Ok(Item::Marker(_))) => {}
            Some(Ok(Item::Interrupted { .. })) if may_be_cut => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn heartbeats_keep_an_idle_watch_open() {
    if !are_there() {
        return;
    }
    for brand in BRANDS {
        let server = start().await;
        let proxy = impatient(brand, &server).await;
        let client = Client::new(&proxy.url()).unwrap();
        let mut watch = client.watch(options(Duration::from_millis(200)));
        let mut heartbeats = 0;
        // Over three times what the proxy has patience for.
        while heartbeats < 15 {
            match next(&mut watch).await {
                Some(Ok(Item::Marker(marker))) if marker.kind == MarkerKind::Heartbeat => {
                    heartbeats += 1;
                }
                Some(Ok(Item::Marker(_))) => {}
                other => panic!("{brand:?}: {other:?}"),
            }
        }
        server.store("a", 1).await;
        assert_eq!(seq(&mut watch, false).await, 1);
        drop(watch);
        server.stop().await;
    }
}

#[tokio::test]
async fn an_idle_timeout_costs_a_reconnect_and_no_event() {
    if !are_there() {
        return;
    }
    for brand in BRANDS {
        let server = start().await;
        let proxy = impatient(brand, &server).await;
        let client = Client::new(&proxy.url()).unwrap();
        // The control: without heartbeats it is cut.
        let mut watch = client.watch(options(Duration::from_secs(60)));
        let mut quick = ProducerOptions::default();
        (quick.shortest_retry, quick.longest_retry) =
            (Duration::from_millis(1), Duration::from_millis(50));
        let producer = within("producer", client.producer("p", quick)).await.unwrap();
        for at in 0..2 {
            let mut cuts = 0;
            while cuts < 2 {
                match next(&mut watch).await {
                    Some(Ok(Item::Interrupted { cause, .. })) => {
                        assert!(cause.is_retryable(), "{brand:?}: {cause:?}");
                        cuts += 1;
                    }
                    Some(Ok(Item::Marker(_))) => {}
                    other => panic!("{brand:?}: {other:?}"),
                }
            }
            // Its stream was silent for as long.
            let ack = producer.send(&event("a", "")).await.unwrap();
            let durable = within("ack", ack.durable()).await.unwrap();
            assert_eq!(durable.seq.unwrap().get(), at + 1);
            assert_eq!(seq(&mut watch, true).await, at + 1);
        }
        assert_eq!(server.head(), 2);
        drop((watch, producer));
        server.stop().await;
    }
}

fn events(count: usize) -> impl Stream<Item = Bytes> + Send + 'static {
    let event = |at| pb::Event { id: format!("u{at}"), ..event("a", &"x".repeat(1_000)) };
    let events: Vec<_> = (0..count).map(|at| Bytes::from(event(at).encode_to_vec())).collect();
    tokio_stream::iter(events)
}

#[tokio::test]
async fn a_limit_on_bodies_is_said_and_what_came_before_it_stays() {
    if !are_there() {
        return;
    }
    let server = start().await;
    let swap = [("client_max_body_size 0;", "client_max_body_size 64k;")];
    let proxy = ReverseProxy::start(Brand::Nginx, server.address, &swap).await;
    let client = Client::new(&proxy.url()).unwrap();
    let small = within("upload", client.upload(events(30))).await.unwrap();
    assert_eq!(small.stored, 30);
    let error = within("upload", client.upload(events(1_000))).await.unwrap_err();
    assert_eq!((error.kind(), error.http_status()), (Kind::LimitExceeded, Some(413)), "{error:?}");
    assert!(error.to_string().contains("413 Payload Too Large"), "{error}");
    assert!(error.may_have_applied() && !error.is_retryable());
    let stored = server.head();
    assert!((30..1_000).contains(&stored), "{stored}");
    // One message larger than that is not there at all.
    let large = event("b", &"x".repeat(100_000));
    let error = within("publish", client.publish(large, None)).await.unwrap_err();
    assert_eq!((error.kind(), error.may_have_applied()), (Kind::LimitExceeded, false));
    // A producer begins anew each time that it is cut, and gets through.
    let mut quick = ProducerOptions::default();
    quick.batch_bytes = 10_000;
    quick.shortest_retry = Duration::from_millis(1);
    let producer = within("producer", client.producer("p", quick)).await.unwrap();
    for _ in 0..200 {
        let sent = within("room", producer.send(&event("c", &"x".repeat(1_000)))).await;
        drop(sent.unwrap());
    }
    within("producer", producer.close()).await.unwrap();
    let topics = within("topics", client.topics("c", &[]).all()).await.unwrap();
    assert_eq!(topics[0].events, 200, "each once");
    server.stop().await;
}

#[tokio::test]
async fn a_reload_ends_connections_and_no_watch() {
    if !are_there() {
        return;
    }
    for brand in BRANDS {
        let server = start().await;
        let mut proxy = ReverseProxy::start(brand, server.address, &[]).await;
        let client = Client::new(&proxy.url()).unwrap();
        let mut watch = client.watch(options(Duration::from_secs(15)));
        for at in 0..5 {
            server.store("a", 1).await;
            assert_eq!(seq(&mut watch, true).await, 2 * at + 1, "{brand:?}");
            proxy.reload();
            let cut = async {
                loop {
                    match next(&mut watch).await {
                        Some(Ok(Item::Interrupted { .. })) => break,
                        Some(Ok(Item::Marker(_))) => {}
                        other => panic!("{brand:?}: {other:?}"),
                    }
                }
            };
            within("the old connection's end", cut).await;
            server.store("a", 1).await;
            assert_eq!(seq(&mut watch, true).await, 2 * at + 2, "{brand:?}");
        }
        drop(watch);
        server.stop().await;
    }
}
