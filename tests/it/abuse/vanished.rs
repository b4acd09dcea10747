//! Clients that are gone without a word: their machines answer nothing any more. On every protocol that is
//! noticed in a time that the settings bound, and who is only slow is left alone.

use std::time::{Duration, Instant};

use socket2::{SockFilter, SockRef};
use tailmark::server::{Http2, Options};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::victim::{connect, elsewhere};
use crate::support::frames;
use crate::support::server::{TestServer, new_log, start_with, until, within};

/// As from now on no packet reached the machine of this client.
fn vanish(stream: &TcpStream) {
    // BPF_RET | BPF_K: of each packet nothing is taken.
    SockRef::from(stream).attach_filter(&[SockFilter::new(0x06, 0, 0, 0)]).unwrap();
}

/// Whoever is silent for a second is probed, and has a second to answer.
async fn start() -> TestServer {
    let second = Duration::from_secs(1);
    let http2 = Http2 { keepalive_interval: second, keepalive_timeout: second, ..Http2::default() };
    start_with(new_log(), Options { http2, ..Options::default() }).await
}

/// A request over HTTP/1.1 whose answer has begun.
async fn begun(server: &TestServer, line: &str, headers: &str, body: &[u8]) -> TcpStream {
    let mut stream = connect(server.address, elsewhere(1)).await;
    let head = format!("{line} HTTP/1.1\r\nhost: {}\r\n{headers}\r\n", server.address);
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body).await.unwrap();
    stream
}

async fn answered(stream: &mut TcpStream) {
    let mut answer = [0; 12];
    within("answer", stream.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
}

/// A minute, as the defaults bound it, of which a fiftieth is set here; and much for a busy machine.
async fn is_noticed(server: &TestServer, what: &str) {
    let begun = Instant::now();
    let gauges = &server.gauges;
    until(what, || (gauges.connections(), gauges.watches(), gauges.uploads()) == (0, 0, 0)).await;
    assert!(begun.elapsed() < Duration::from_secs(60), "{what}: {:?}", begun.elapsed());
}

#[tokio::test]
async fn a_watch_over_http_2_is() {
    let server = start().await;
    let mut stream = connect(server.address, elsewhere(1)).await;
    let watch = frames::begin(1, "Watch", true);
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    stream.write_all(&[preface, watch].concat()).await.unwrap();
    until("a watch", || server.gauges.watches() == 1).await;
    vanish(&stream);
    is_noticed(&server, "HTTP/2").await;
    server.stop().await;
}

/// Something is always on its way to it: the system would try for a quarter of an hour.
#[tokio::test]
async fn server_sent_events_over_http_1_1_are() {
    let server = start().await;
    let mut stream = begun(&server, "GET /v1/watch?heartbeat_ms=1000", "", b"").await;
    answered(&mut stream).await;
    assert_eq!(server.gauges.watches(), 1);
    vanish(&stream);
    server.store("a", 1).await;
    is_noticed(&server, "server-sent events").await;
    server.stop().await;
}

/// Nothing is on its way to this one, and nothing comes.
#[tokio::test]
async fn an_idle_watch_over_grpc_web_is() {
    let server = start().await;
    let headers = "content-type: application/grpc-web+proto\r\ncontent-length: 5\r\n";
    let line = "POST /feed.v1.FeedService/Watch";
    let mut stream = begun(&server, line, headers, &[0; 5]).await;
    answered(&mut stream).await;
    assert_eq!(server.gauges.watches(), 1);
    vanish(&stream);
    is_noticed(&server, "gRPC-Web").await;
    server.stop().await;
}

#[tokio::test]
async fn an_upload_over_http_1_1_is_and_what_came_is_stored() {
    let server = start().await;
    let headers = "content-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n";
    let chunk = b"e\r\n{\"topic\":\"a\"}\n\r\n";
    let stream = begun(&server, "POST /v1/events", headers, chunk).await;
    until("an event", || server.head() == 1).await;
    vanish(&stream);
    is_noticed(&server, "an upload").await;
    assert_eq!(server.head(), 1);
    server.stop().await;
}

#[tokio::test]
async fn half_a_preface_is() {
    let options = Options { preface_timeout: Duration::from_millis(500), ..Options::default() };
    let server = start_with(new_log(), options).await;
    let mut stream = connect(server.address, elsewhere(1)).await;
    stream.write_all(b"PRI * HT").await.unwrap();
    until("a connection", || server.gauges.connections() == 1).await;
    vanish(&stream);
    is_noticed(&server, "half a preface").await;
    server.stop().await;
}

/// The control: a reader that reads nothing for longer than that is not gone.
#[tokio::test]
async fn who_is_only_slow_is_left_alone() {
    let server = start().await;
    let mut stream = begun(&server, "GET /v1/watch?heartbeat_ms=1000&from=oldest", "", b"").await;
    answered(&mut stream).await;
    // More than the sockets take.
    for _ in 0..20 {
        server.store("a", 5_000).await;
    }
    tokio::time::sleep(Duration::from_secs(7)).await;
    assert_eq!((server.gauges.connections(), server.gauges.watches()), (1, 1));
    let last = format!("\"seq\":\"{}\"", server.head());
    let mut text = Vec::new();
    within("all events", async {
        while !text.windows(last.len()).rev().take(64 << 10).any(|part| part == last.as_bytes()) {
            assert!(stream.read_buf(&mut text).await.unwrap() > 0, "it was cut");
            // What was looked through need not be kept.
            let keep = text.len().min(64 << 10);
            text.drain(..text.len() - keep);
        }
    })
    .await;
    server.stop().await;
}
