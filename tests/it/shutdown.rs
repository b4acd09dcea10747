//! Stopping, and what is left when clients go away without a word.

use std::time::Duration;

use tailmark::server::Options;
use tailmark_wire::feed_v1 as pb;
use tonic::Code;

use crate::support::server::{
    Client, PATIENCE, TestServer, Watching, event, expect, new_log, start, start_with, until,
    watch, within,
};

const WATCHES: usize = 1_000;

/// A thousand watches over ten connections.
async fn crowd(server: &TestServer) -> Vec<Watching> {
    let mut clients: Vec<Client> = Vec::new();
    for _ in 0..10 {
        clients.push(server.client().await);
    }
    let mut open = Vec::with_capacity(WATCHES);
    for at in 0..WATCHES {
        let client = &mut clients[at % 10];
        open.push(watch(client, pb::WatchRequest::default()).await.unwrap());
    }
    open
}

#[tokio::test]
async fn a_thousand_watches_end_long_before_the_grace() {
    // Longer than the test waits for anything.
    let options = Options { shutdown_grace: PATIENCE * 2, ..Default::default() };
    let server = start_with(new_log(), options).await;
    let mut open = crowd(&server).await;
    assert_eq!(server.gauges.watches(), WATCHES);
    server.shutdown.cancel();
    for watching in &mut open {
        expect(&watching.failure().await, Code::Unavailable, "STOPPING");
    }
    let gauges = server.gauges.clone();
    server.stop().await;
    until("nothing is open", || gauges.watches() == 0 && gauges.connections() == 0).await;
}

#[tokio::test]
async fn a_thousand_watches_cut_without_a_word_leave_nothing() {
    let server = start().await;
    for _ in 0..2 {
        let open = crowd(&server).await;
        assert_eq!(server.gauges.watches(), WATCHES);
        assert_eq!(server.log.status().readers, WATCHES as u64);
        drop(open);
        until("all gone", || {
            server.gauges.watches() == 0
                && server.gauges.connections() == 0
                && server.log.status().readers == 0
        })
        .await;
    }
    // Half of the streams of a connection whose socket simply closes.
    let mut sockets = Vec::new();
    for _ in 0..100 {
        sockets.push(half_a_request(&server).await);
    }
    until("connections", || server.gauges.connections() == 100).await;
    drop(sockets);
    until("all gone", || server.gauges.connections() == 0).await;
    server.stop().await;
}

/// A socket that has begun to speak HTTP/2 and says no more.
async fn half_a_request(server: &TestServer) -> tokio::net::TcpStream {
    use tokio::io::AsyncWriteExt;
    let mut stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    stream
}

#[tokio::test]
async fn a_stopped_server_takes_nobody() {
    let server = start().await;
    let mut client = server.client().await;
    client.get_log(pb::GetLogRequest {}).await.unwrap();
    let port = server.port.clone();
    server.stop().await;
    // A process that another test is starting has a copy of the socket until it is that program.
    within("the end of the port", async {
        while tokio::net::TcpStream::connect(port.address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let request = pb::PublishRequest { event: Some(event("a", "x")), expected_head: None };
    let status = within("publish", client.publish(request)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_cut_when_the_grace_is_over() {
    let options = Options { shutdown_grace: Duration::from_millis(300), ..Default::default() };
    let server = start_with(new_log(), options).await;
    let mut client = server.client().await;
    let events = vec![event("a", &"x".repeat(512 << 10)); 40];
    client.upload_events(tokio_stream::iter(events)).await.unwrap();
    let request =
        pb::WatchRequest { start: crate::support::server::from_oldest(), ..Default::default() };
    let watching = watch(&mut client, request).await.unwrap();
    let gauges = server.gauges.clone();
    server.stop().await;
    drop(watching);
    until("all gone", || gauges.watches() == 0 && gauges.connections() == 0).await;
}

#[tokio::test]
async fn a_log_that_closes_ends_watches_and_refuses_events() {
    let server = start().await;
    let mut client = server.client().await;
    let mut watching = watch(&mut client, pb::WatchRequest::default()).await.unwrap();
    server.log.close().await.unwrap();
    expect(&watching.failure().await, Code::Unavailable, "STOPPING");
    let request = pb::PublishRequest { event: Some(event("a", "x")), expected_head: None };
    expect(&client.publish(request).await.unwrap_err(), Code::Unavailable, "STOPPING");
    let upload = client.upload_events(tokio_stream::iter([event("a", "x")])).await;
    let info = expect(&upload.unwrap_err(), Code::Unavailable, "STOPPING");
    assert_eq!((info["index"].as_str(), info["received"].as_str()), ("0", "0"));
    server.stop().await;
}
