//! `POST /v1/events`.

use bytes::Bytes;
use http::Version;
use tailmark::server::Options;

use crate::support::server::{new_log, start, start_with, until, within};
use crate::support::web::{BOTH, Events, ask, full, get, pieces, post, request, send, seqs, with};

const JSON: &str = "application/json";
const LINES: &str = "application/x-ndjson";

#[tokio::test]
async fn one_event_is_stored_and_answered() {
    let server = start().await;
    let body = "{\n  \"topic\": \"a.b\",\n  \"body\": \"hello\",\n  \"id\": \"e-1\"\n}\n";
    for (content_type, duplicates) in [(JSON, None), ("Application/JSON; charset=utf-8", Some("1"))]
    {
        let answer = post(&server, content_type, body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let json = answer.json();
        assert_eq!((&json["received"], &json["durability"]), (&1.into(), &"FSYNC".into()));
        assert_eq!(json["last_cursor"], server.cursor(1));
        assert_eq!(json["duplicates"].as_str(), duplicates);
    }
    assert_eq!(server.head(), 1);
    let stored = get(&server, "/v1/events/1").await.json();
    assert_eq!((&stored["topic"], &stored["body"]), (&"a.b".into(), &"hello".into()));
    server.stop().await;
}

#[tokio::test]
async fn lines_are_stored_and_what_was_watched_can_be_posted_back() {
    let server = start().await;
    let lines = "\u{feff}{\"topic\":\"a\",\"body\":\"1\"}\r\n\n  \n{\"topic\":\"b\",\"data\":\"AAE=\"}\n\
                 {\"topic\":\"c\",\"headers\":{\"h\":\"v\"}}";
    for version in BOTH {
        let head = server.head();
        let mut request = with(request(&server, "POST", "/v1/events"), &[("content-type", LINES)]);
        *request.body_mut() = full(lines);
        let answer = ask(server.address, version, request).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let json = answer.json();
        assert_eq!((&json["received"], &json["stored"]), (&3.into(), &"3".into()));
        assert_eq!(json["first_seq"], (head + 1).to_string());
        assert_eq!(json["last_seq"], (head + 3).to_string());
    }
    let mut events = Events::open(&server, "/v1/watch?from=oldest&until_caught_up").await;
    let all = events.rest().await;
    let dump: Vec<_> = all.iter().filter(|sent| sent.event.is_empty()).map(|s| &*s.data).collect();
    let answer = post(&server, LINES, dump.join("\n")).await;
    assert_eq!(answer.json()["received"], 6, "{}", answer.text());
    // Nothing at all is nothing, not an error.
    for empty in ["", "\n\n"] {
        let answer = post(&server, LINES, empty).await;
        assert_eq!((answer.status.as_u16(), answer.json()["stored"].as_str()), (200, None));
    }
    server.stop().await;
}

#[tokio::test]
async fn a_content_type_is_required() {
    let server = start().await;
    let event = "{\"topic\":\"a\"}";
    for bad in ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "x"] {
        let mut request = request(&server, "POST", "/v1/events");
        if !bad.is_empty() {
            request = with(request, &[("content-type", bad)]);
        }
        *request.body_mut() = full(event);
        let answer = ask(server.address, Version::HTTP_11, request).await;
        answer.expect(415, "INVALID_ARGUMENT", "UNSUPPORTED_MEDIA_TYPE");
    }
    let mut zipped = with(
        request(&server, "POST", "/v1/events"),
        &[("content-type", JSON), ("content-encoding", "br")],
    );
    *zipped.body_mut() = full(event);
    let answer = ask(server.address, Version::HTTP_11, zipped).await;
    let metadata = answer.expect(415, "INVALID_ARGUMENT", "UNSUPPORTED_MEDIA_TYPE");
    assert_eq!(metadata["content-encoding"], "br");
    assert_eq!(server.head(), 0);
    assert_eq!(post(&server, JSON, event).await.status, 200);
    assert_eq!(server.head(), 1);
    server.stop().await;
}

#[tokio::test]
async fn lines_before_a_bad_one_stay() {
    let server = start().await;
    let good = "{\"topic\":\"a\"}\n";
    for (bad, reason) in [
        ("not json", "EVENT_MALFORMED"),
        ("[]", "EVENT_MALFORMED"),
        ("{\"topic\":\"a\",\"nothing\":1}", "EVENT_MALFORMED"),
        ("{\"topic\":\"a\"", "EVENT_MALFORMED"),
        ("{\"topic\":\"a\"} {\"topic\":\"b\"}", "EVENT_MALFORMED"),
        ("{\"topic\":\"a b\"}", "INVALID_FIELD"),
        ("{\"body\":\"no topic\"}", "INVALID_FIELD"),
        ("{\"topic\":\"a\",\"body\":\"x\",\"data\":\"AA==\"}", "INVALID_FIELD"),
        ("{\"topic\":\"a\",\"marker\":{}}", "INVALID_FIELD"),
    ] {
        let head = server.head();
        let answer = post(&server, LINES, format!("{good}\n{good}{bad}\n{good}")).await;
        let metadata = answer.expect(400, "INVALID_ARGUMENT", reason);
        assert_eq!(metadata["index"], "2", "{bad}");
        assert_eq!(metadata["line"], "4", "{bad}");
        assert_eq!(metadata["received"], "2", "{bad}");
        assert_eq!(metadata["last_cursor"], server.cursor(head + 2), "{bad}");
        assert_eq!(server.head(), head + 2, "{bad}");
    }
    for bad in ["", "{}", "{\"topic\":\"a\"}\n{\"topic\":\"b\"}"] {
        let head = server.head();
        let answer = post(&server, JSON, bad).await;
        assert_eq!(answer.status, 400, "{bad}: {}", answer.text());
        assert_eq!(server.head(), head);
    }
    server.stop().await;
}

#[tokio::test]
async fn lines_are_durable_as_they_arrive() {
    let server = start().await;
    for version in BOTH {
        let head = server.head();
        let (sender, body) = pieces();
        let mut request = with(request(&server, "POST", "/v1/events"), &[("content-type", LINES)]);
        *request.body_mut() = body;
        let answer = tokio::spawn(send(server.address, version, request));
        sender.send(Bytes::from("{\"topic\":\"a\"}\n{\"topic\":")).unwrap();
        until("the first", || server.head() == head + 1).await;
        sender.send(Bytes::from("\"b\"}\n")).unwrap();
        until("the second", || server.head() == head + 2).await;
        assert_eq!(server.gauges.uploads(), 1);
        assert!(!answer.is_finished());
        sender.send(Bytes::from("{\"topic\":\"c\"}")).unwrap();
        drop(sender);
        let answer = within("answer", answer).await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(server.head(), head + 3);
    }
    server.stop().await;
}

#[tokio::test]
async fn a_body_that_is_cut_keeps_its_whole_lines() {
    let server = start().await;
    let (sender, body) = pieces();
    let mut request = with(request(&server, "POST", "/v1/events"), &[("content-type", LINES)]);
    *request.body_mut() = body;
    let sending = tokio::spawn(send(server.address, Version::HTTP_11, request));
    sender.send(Bytes::from("{\"topic\":\"a\"}\n{\"topic\":\"b\"}")).unwrap();
    until("the first", || server.head() == 1).await;
    // The connection goes with the task.
    sending.abort();
    drop(sending);
    drop(sender);
    until("the upload is over", || {
        server.gauges.uploads() == 0 && server.gauges.connections() == 0
    })
    .await;
    assert_eq!(server.head(), 1, "half a line is no event");
    server.stop().await;
}

#[tokio::test]
async fn a_line_and_a_body_have_limits() {
    let options = Options { message_bytes: 2_000, ..Options::default() };
    let server = start_with(new_log(), options).await;
    let line = |len: usize| {
        let frame = "{\"topic\":\"a\",\"body\":\"\"}";
        format!("{{\"topic\":\"a\",\"body\":\"{}\"}}", "x".repeat(len - frame.len()))
    };
    assert_eq!(post(&server, LINES, line(2_000)).await.status, 200);
    assert_eq!(post(&server, JSON, line(2_000)).await.status, 200);
    let many = vec![line(1_500); 50].join("\n");
    assert_eq!(post(&server, LINES, many).await.json()["received"], 50);
    let head = server.head();
    for (content_type, body) in [
        (JSON, line(2_001)),
        (LINES, line(2_001)),
        (LINES, format!("{}\n", line(2_001))),
        // Without an end, and far more than is ever kept.
        (LINES, "x".repeat(1 << 20)),
        (JSON, "x".repeat(1 << 20)),
    ] {
        let answer = post(&server, content_type, body).await;
        let metadata = answer.expect(413, "RESOURCE_EXHAUSTED", "LIMIT_EXCEEDED");
        assert_eq!(
            (&metadata["what"], &metadata["limit"]),
            (&"message_bytes".into(), &"2000".into())
        );
        assert_eq!((&metadata["index"], &metadata["line"]), (&"0".into(), &"1".into()));
    }
    assert_eq!(server.head(), head);
    server.stop().await;
}

#[tokio::test]
async fn the_reason_reaches_a_sender_that_never_ends() {
    let server = start().await;
    for version in BOTH {
        let head = server.head();
        let (sender, body) = pieces();
        let mut request = with(request(&server, "POST", "/v1/events"), &[("content-type", LINES)]);
        *request.body_mut() = body;
        sender.send(Bytes::from("{\"topic\":\"a\"}\nbad\n")).unwrap();
        let endless = tokio::spawn(async move {
            while sender.send(Bytes::from("{\"topic\":\"b\"}\n".repeat(100))).is_ok() {
                tokio::task::yield_now().await;
            }
        });
        let response = send(server.address, version, request).await;
        assert_eq!(response.status(), 400);
        assert_eq!(server.head(), head + 1);
        drop(response);
        within("the sender hears that nobody listens", endless).await.unwrap();
    }
    until("nothing is held", || server.gauges.connections() == 0).await;
    server.stop().await;
}

#[tokio::test]
async fn one_event_must_come_in_time_and_a_stop_ends_an_endless_body() {
    let options =
        Options { unary_deadline: std::time::Duration::from_millis(100), ..Options::default() };
    let server = start_with(new_log(), options).await;
    let begin = |content_type: &'static str| {
        let (sender, body) = pieces();
        let mut request =
            with(request(&server, "POST", "/v1/events"), &[("content-type", content_type)]);
        *request.body_mut() = body;
        (sender, request)
    };
    let (slow, request) = begin(JSON);
    slow.send(Bytes::from("{\"topic\":")).unwrap();
    let response = send(server.address, Version::HTTP_11, request).await;
    assert_eq!(response.status(), 504);
    assert_eq!(server.head(), 0);
    // Lines have no such time.
    let (lines, request) = begin(LINES);
    let sending = tokio::spawn(send(server.address, Version::HTTP_11, request));
    lines.send(Bytes::from("{\"topic\":\"a\"}\n")).unwrap();
    until("the line", || server.head() == 1).await;
    server.shutdown.cancel();
    let response = within("answer", sending).await.unwrap();
    assert_eq!(response.status(), 503);
    assert_eq!(response.headers()["retry-after"], "1");
    drop((slow, lines));
    server.stop().await;
}

#[tokio::test]
async fn what_is_posted_is_watched() {
    let server = start().await;
    let mut events = Events::open(&server, "/v1/watch?topic=a&limit=2").await;
    events.frame().await;
    post(&server, LINES, "{\"topic\":\"b\"}\n{\"topic\":\"a\"}\n{\"topic\":\"a\"}").await;
    assert_eq!(seqs(&events.rest().await), [2, 3]);
    server.stop().await;
}
