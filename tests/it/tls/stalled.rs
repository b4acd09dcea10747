//! Clients that begin a handshake, and then say nothing more.

use std::time::{Duration, Instant};

use tailmark::server::Options;
use tailmark_wire::feed_v1 as pb;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::server::{event, new_log, start_with, until, within};
use crate::support::tls::{Authority, Dir, Trust};

const STALLED: usize = 1_000;

/// A thousand of them, at several places, cost a publisher nothing, and leave at their time.
#[tokio::test]
async fn stalled_handshakes_cost_nobody_anything_and_end() {
    let authority = Authority::new("tests");
    let dir = Dir::new(&authority.server());
    let limit = Duration::from_secs(5);
    let options = Options {
        preface_timeout: limit,
        connections: STALLED + 1,
        tls: Some(dir.files()),
        ..Options::default()
    };
    let server = start_with(new_log(), options).await;
    let trust = Trust::new(&authority);
    let mut client = trust.client(&server).await;
    let mut publish = async || {
        let begun = Instant::now();
        let request = pb::PublishRequest { event: Some(event("a", "x")), expected_head: None };
        within("publish", client.publish(request)).await.unwrap();
        begun.elapsed()
    };
    publish().await;
    let mut stalled = Vec::new();
    let begun = Instant::now();
    for at in 0..STALLED {
        let mut stream = within("connect", TcpStream::connect(server.address)).await.unwrap();
        // Nothing, one byte, the head of a record, and half of one.
        let said = [&b""[..], b"\x16", b"\x16\x03\x01\x02\x00", &[22, 3, 1, 2, 0, 1, 0, 1]][at % 4];
        stream.write_all(said).await.unwrap();
        stalled.push(stream);
    }
    if begun.elapsed() < limit / 2 {
        until("all of them", || server.gauges.connections() > STALLED / 2).await;
    }
    let slowest = publish().await.max(publish().await);
    assert!(slowest < limit / 2, "{slowest:?}");
    // Full as it is, others come in once these have had their time.
    until("they are gone", || server.gauges.connections() == 1).await;
    let mut another = trust.client(&server).await;
    within("another", another.get_log(pb::GetLogRequest {})).await.unwrap();
    assert!(begun.elapsed() >= limit);
    drop(stalled);
    server.stop().await;
}
