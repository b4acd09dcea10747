//! gRPC health checking, `grpc.health.v1`.

use std::sync::Arc;

use tailmark_log::storage::faulty::Faulty;
use tailmark_wire::methods::{chat_service, feed_service};
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus::{self, *};
use tonic_health::pb::health_client::HealthClient;

use crate::support::server::{
    TestServer, expect, generations, memory, open, start, start_with, within,
};

/// What this server serves, itself included.
const KNOWN: [&str; 3] = ["", feed_service::NAME, chat_service::NAME];
const UNKNOWN: [&str; 4] = ["nobody.Knows", "feed.v1", "feed.v1.feedservice", "größe"];

fn of(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.to_owned() }
}

struct Watching(tonic::Streaming<tonic_health::pb::HealthCheckResponse>);

impl Watching {
    async fn open(server: &TestServer, service: &str) -> Watching {
        let mut client = HealthClient::new(server.channel().await);
        Watching(within("watch", client.watch(of(service))).await.unwrap().into_inner())
    }

    async fn next(&mut self) -> Result<ServingStatus, tonic::Status> {
        let message = within("status", self.0.message()).await?;
        Ok(message.expect("no regular end").status())
    }
}

#[tokio::test]
async fn check_tells_what_is_served_and_does_not_find_the_rest() {
    let server = start().await;
    let mut client = HealthClient::new(server.channel().await);
    for service in KNOWN {
        let answer = client.check(of(service)).await.unwrap().into_inner();
        assert_eq!(answer.status(), Serving, "{service}");
    }
    for service in UNKNOWN {
        let status = client.check(of(service)).await.unwrap_err();
        let metadata = expect(&status, Code::NotFound, "SERVICE_NOT_FOUND");
        assert_eq!(metadata["service"], service);
    }
    server.stop().await;
}

#[tokio::test]
async fn a_connection_has_a_hundred_watches_of_health_and_no_more_at_once() {
    let server = start().await;
    let mut client = HealthClient::new(server.channel().await);
    let mut open = Vec::new();
    for at in 0..100 {
        let service = if at % 2 == 0 { "" } else { "nobody.Knows" };
        open.push(within("watch", client.watch(of(service))).await.unwrap());
    }
    let status = within("refusal", client.watch(of(""))).await.unwrap_err();
    let metadata = expect(&status, Code::ResourceExhausted, "LIMIT_EXCEEDED");
    let (what, limit) = (metadata["what"].as_str(), metadata["limit"].as_str());
    assert_eq!((what, limit), ("health_watches_per_connection", "100"));
    client.check(of("")).await.unwrap();
    drop(open);
    for _ in 0..100 {
        if client.watch(of("")).await.is_ok() {
            return server.stop().await;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("a place comes free with its watch");
}

#[tokio::test]
async fn a_watch_says_the_status_at_once_and_each_change_once() {
    let server = start().await;
    let mut open = Vec::new();
    for service in KNOWN {
        let mut watching = Watching::open(&server, service).await;
        assert_eq!(watching.next().await.unwrap(), Serving, "{service}");
        open.push(watching);
    }
    server.shutdown.cancel();
    for mut watching in open {
        assert_eq!(watching.next().await.unwrap(), NotServing);
        expect(&watching.next().await.unwrap_err(), Code::Unavailable, "STOPPING");
    }
    server.stop().await;
}

#[tokio::test]
async fn readiness_goes_by_whether_events_are_taken_and_what_is_served_does_not() {
    let engine = Arc::new(Faulty::new(Arc::new(memory(generations(&[1]), Default::default()))));
    let server = start_with(open(engine.clone(), Default::default()), Default::default()).await;
    let mut client = HealthClient::new(server.channel().await);
    let mut check = async |service| client.check(of(service)).await.unwrap().into_inner().status();
    let mut ready = Watching::open(&server, "readiness").await;
    assert_eq!(ready.next().await.unwrap(), Serving);
    assert_eq!(check("readiness").await, Serving);
    for _ in 0..2 {
        engine.set_full(true);
        assert_eq!(ready.next().await.unwrap(), NotServing);
        assert_eq!(check("readiness").await, NotServing);
        for service in KNOWN {
            // Reading goes on.
            assert_eq!(check(service).await, Serving, "{service}");
        }
        engine.set_full(false);
        assert_eq!(ready.next().await.unwrap(), Serving);
        assert_eq!(check("readiness").await, Serving);
    }
    server.shutdown.cancel();
    assert_eq!(ready.next().await.unwrap(), NotServing);
    expect(&ready.next().await.unwrap_err(), Code::Unavailable, "STOPPING");
    server.stop().await;
}

#[tokio::test]
async fn a_watch_of_a_service_that_nobody_knows_says_so_and_stays() {
    let server = start().await;
    let mut open = Vec::new();
    for service in UNKNOWN {
        let mut watching = Watching::open(&server, service).await;
        assert_eq!(watching.next().await.unwrap(), ServiceUnknown, "{service}");
        open.push(watching);
    }
    // Nothing follows until the server stops: that is what ends it.
    for watching in &mut open {
        let next = tokio::time::timeout(std::time::Duration::from_millis(20), watching.next());
        assert!(next.await.is_err(), "it said more, or ended");
    }
    server.shutdown.cancel();
    for mut watching in open {
        expect(&watching.next().await.unwrap_err(), Code::Unavailable, "STOPPING");
    }
    server.stop().await;
}
