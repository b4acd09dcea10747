//! Messages and lines that have begun and are not whole: how many bytes of them the daemon takes on
//! their clients' word, and for how long.

use std::time::Duration;

use bytes::Bytes;
use h2::SendStream;
use tailmark::server::Options;
use tonic::Code;

use crate::support::frames::{connect, head, status};
use crate::support::server::{PATIENCE, new_log, start_with, within};
use crate::support::web::{ask, full, pieces, request, with};

const GRPC: &[(&str, &str)] = &[("content-type", "application/grpc"), ("te", "trailers")];
const MESSAGE_BYTES: usize = 1 << 20;

fn options(arriving_bytes: usize, unary_deadline: Duration) -> Options {
    Options { arriving_bytes, unary_deadline, ..Options::default() }
}

/// The length prefix of a message of `MESSAGE_BYTES`.
fn prefix() -> Bytes {
    let mut prefix = vec![0];
    prefix.extend_from_slice(&(MESSAGE_BYTES as u32).to_be_bytes());
    prefix.into()
}

/// Sends as much as the daemon takes, up to `most`; answers how much that was once it has taken
/// nothing more for so long.
async fn fill(stream: &mut SendStream<Bytes>, most: usize, patience: Duration) -> usize {
    let mut sent = 0;
    while sent < most {
        stream.reserve_capacity((most - sent).min(64 << 10));
        let capacity = std::future::poll_fn(|cx| stream.poll_capacity(cx));
        let Ok(Some(Ok(room))) = tokio::time::timeout(patience, capacity).await else {
            break;
        };
        let piece = room.min(most - sent);
        stream.send_data(vec![7; piece].into(), false).unwrap();
        sent += piece;
    }
    sent
}

#[tokio::test]
async fn unfinished_messages_take_no_more_room_than_there_is() {
    let server = start_with(new_log(), options(2 * MESSAGE_BYTES, PATIENCE)).await;
    let window = Options::default().http2.stream_window_bytes as usize;
    let almost = MESSAGE_BYTES - 1;
    let mut sender = connect(server.address).await.ready().await.unwrap();
    let mut streams = Vec::new();
    let mut taken = Vec::new();
    // Too short a wait for the last two would only let the test pass.
    for patience in [PATIENCE, PATIENCE, Duration::from_secs(1), Duration::from_secs(1)] {
        let (answer, mut stream) = sender.send_request(head("UploadEvents", GRPC), false).unwrap();
        stream.send_data(prefix(), false).unwrap();
        taken.push(fill(&mut stream, almost, patience).await);
        streams.push((answer, stream));
    }
    assert_eq!(taken[..2], [almost; 2], "there was room for two");
    // What the others sent lies in their windows, where HTTP/2 has its own bound.
    assert!(taken[2..].iter().all(|&bytes| bytes <= window), "{taken:?}");
    // Who leaves makes room.
    drop(streams.remove(0));
    let rest = almost - taken[2];
    assert_eq!(fill(&mut streams[1].1, rest, PATIENCE).await, rest);
    drop(streams);
    server.stop().await;
}

#[tokio::test]
async fn a_message_or_line_that_does_not_come_on_is_refused() {
    let server = start_with(new_log(), options(64 << 20, Duration::from_millis(300))).await;
    let mut sender = connect(server.address).await.ready().await.unwrap();
    let (answer, mut stream) = sender.send_request(head("UploadEvents", GRPC), false).unwrap();
    stream.send_data(prefix(), false).unwrap();
    let answer = within("the refusal", answer).await.unwrap();
    let status = match answer.headers().contains_key("grpc-status") {
        true => status(answer.headers()),
        false => {
            let mut body = answer.into_body();
            status(&within("trailers", body.trailers()).await.unwrap().unwrap())
        }
    };
    assert_eq!(status.code(), Code::DeadlineExceeded);

    let mut post =
        with(request(&server, "POST", "/v1/events"), &[("content-type", "application/x-ndjson")]);
    let (lines, body) = pieces();
    *post.body_mut() = body;
    lines.send(Bytes::from_static(b"{\"topic\":\"a\"}\n{\"topic\":")).unwrap();
    let answer = within("the refusal", ask(server.address, http::Version::HTTP_11, post)).await;
    assert_eq!((answer.status.as_u16(), answer.json()["received"].as_str()), (504, None));
    assert_eq!(server.head(), 1, "what came whole stays");
    drop(lines);
    // One that is whole may stay open for as long as it likes.
    let mut post =
        with(request(&server, "POST", "/v1/events"), &[("content-type", "application/x-ndjson")]);
    *post.body_mut() = full("{\"topic\":\"a\"}\n");
    let answer = ask(server.address, http::Version::HTTP_11, post).await;
    assert_eq!(answer.status, 200);
    server.stop().await;
}
