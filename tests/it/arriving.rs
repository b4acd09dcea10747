//! Messages and lines that have begun and are not whole: how many bytes of them the daemon takes on
//! their clients' word, and for how long.

use std::time::Duration;

use bytes::Bytes;
use h2::SendStream;
use tailmark::server::Options;
use tonic::Code;
use tonic_types::StatusExt;

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

/// How a call was refused.
async fn refused(answer: h2::client::ResponseFuture) -> tonic::Status {
    let answer = within("the refusal", answer).await.unwrap();
    match answer.headers().contains_key("grpc-status") {
        true => status(answer.headers()),
        false => {
            let mut body = answer.into_body();
            status(&within("trailers", body.trailers()).await.unwrap().unwrap())
        }
    }
}

#[tokio::test]
async fn unfinished_messages_take_no_more_room_than_there_is() {
    let server = start_with(new_log(), options(2 * MESSAGE_BYTES, PATIENCE)).await;
    let almost = MESSAGE_BYTES - 1;
    let mut sender = connect(server.address).await.ready().await.unwrap();
    let mut streams = Vec::new();
    for _ in 0..4 {
        let (answer, mut stream) = sender.send_request(head("UploadEvents", GRPC), false).unwrap();
        stream.send_data(prefix(), false).unwrap();
        // The third and the fourth have what the first and the second had, who do not go on.
        assert_eq!(fill(&mut stream, almost, PATIENCE).await, almost);
        streams.push((answer, stream));
    }
    let mut streams = streams.into_iter();
    for _ in 0..2 {
        let (answer, _stream) = streams.next().unwrap();
        let status = refused(answer).await;
        assert_eq!(status.code(), Code::ResourceExhausted);
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        let metadata = |name: &str| info.metadata[name].as_str();
        assert_eq!((info.reason.as_str(), metadata("what")), ("LIMIT_EXCEEDED", "in_flight_bytes"));
        assert_eq!(metadata("limit"), (2 * MESSAGE_BYTES).to_string());
    }
    // The others go on: their messages are whole, and no events.
    for (answer, mut stream) in streams {
        stream.send_data(Bytes::from_static(&[7]), true).unwrap();
        assert_eq!(refused(answer).await.code(), Code::InvalidArgument);
    }
    server.stop().await;
}

#[tokio::test]
async fn a_message_or_line_that_does_not_come_on_is_refused() {
    let server = start_with(new_log(), options(64 << 20, Duration::from_millis(300))).await;
    let mut sender = connect(server.address).await.ready().await.unwrap();
    let (answer, mut stream) = sender.send_request(head("UploadEvents", GRPC), false).unwrap();
    stream.send_data(prefix(), false).unwrap();
    assert_eq!(refused(answer).await.code(), Code::DeadlineExceeded);

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
