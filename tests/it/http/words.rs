//! Nothing is refused without a word: what is wrong and what to do is told, in the names that the
//! client used, and what the client sent does not come back in full.

use http::{Request, Version};
use tailmark::server::{Http2, Options};
use tonic::Code;
use tonic::body::Body;

use crate::support::plain::{Plain, head};
use crate::support::server::{TestServer, expect, new_log, start, start_with};
use crate::support::web::{Answer, BOTH, ask, full, get, post, request, with};

const PUBLISH: &str = "/feed.v1.FeedService/Publish";
const JSON: &str = "application/json";

fn to(server: &TestServer, method: &str, path: &str, content_type: &str) -> Request<Body> {
    with(request(server, method, path), &[("content-type", content_type)])
}

/// What a refusal says in its text.
fn says(answer: &Answer, words: &[&str]) {
    let json = answer.json();
    let message = json["message"].as_str().unwrap();
    for word in words {
        assert!(message.contains(word), "{word:?} in {message:?}");
    }
}

#[tokio::test]
async fn what_is_no_request_is_told_what_is_wrong_with_it() {
    let server = start().await;
    let host = format!("host: {}\r\n", server.address);
    let get = |line: &str| format!("{line}\r\n{host}\r\n");
    for (text, code, reason, word) in [
        (get("GET /v1/watch?topic=orders.> HTTP/1.1"), 400, "REQUEST_MALFORMED", "%3E"),
        (get("GET /v1/watch?topic=<a> HTTP/1.1"), 400, "REQUEST_MALFORMED", "%3E"),
        (get("GET /v1/log HTTP/2.0"), 400, "REQUEST_MALFORMED", "HTTP/1.1"),
        (get("GET /a b HTTP/1.1"), 400, "REQUEST_MALFORMED", ""),
        (get("G@T / HTTP/1.1"), 400, "REQUEST_MALFORMED", "TLS"),
        (
            "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}".to_owned() + &"x".repeat(200),
            400,
            "REQUEST_MALFORMED",
            "TLS",
        ),
        (get("GET /v1/log HTTP/1.1\r\nno header"), 400, "REQUEST_MALFORMED", "name: value"),
        (
            get("GET /v1/log HTTP/1.1\r\ncontent-length: x"),
            400,
            "REQUEST_MALFORMED",
            "content-length",
        ),
        (get("GET /v1/log HTTP/1.1\r\ntransfer-encoding: gzip"), 400, "REQUEST_MALFORMED", ""),
        (get(&format!("GET /{} HTTP/1.1", "x".repeat(70_000))), 431, "HEAD_TOO_LARGE", "64 KiB"),
        (
            get(&format!("GET / HTTP/1.1\r\nx: {}", "x".repeat(70_000))),
            431,
            "HEAD_TOO_LARGE",
            "64 KiB",
        ),
        (get(&format!("GET / HTTP/1.1{}", "\r\nx: x".repeat(110))), 431, "HEAD_TOO_LARGE", "100"),
    ] {
        let mut plain = Plain::connect(&server).await;
        plain.send(&text).await;
        let answer = plain.rest().await;
        let shown = &text[..text.len().min(80)];
        assert!(answer.starts_with(&format!("HTTP/1.1 {code} ")), "{shown:?}: {answer}");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("\r\nconnection: close\r\n"), "{answer}");
        assert!(head.contains(&format!("\r\ncontent-length: {}\r\n", body.len())), "{answer}");
        assert!(head.contains("\r\ncontent-type: application/json\r\n"), "{answer}");
        assert!(head.contains("\r\ndate: "), "{answer}");
        let json: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(json["reason"], reason, "{shown:?}: {answer}");
        assert!(json["message"].as_str().unwrap().contains(word), "{shown:?}: {answer}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_head_that_does_not_come_to_its_end_is_told_so_and_an_idle_connection_is_just_closed() {
    let time = std::time::Duration::from_millis(100);
    let options = Options { http1_header_timeout: time, ..Options::default() };
    let server = start_with(new_log(), options).await;
    let mut plain = Plain::connect(&server).await;
    plain.send(head(&server, "GET /v1/log", &[])).await;
    let answer = plain.rest().await;
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("HEAD_TIMEOUT"), "{answer}");
    let mut plain = Plain::connect(&server).await;
    plain.send(head(&server, "GET /v1/log", &[]) + "\r\n").await;
    assert!(plain.answer().await.starts_with("HTTP/1.1 200 "));
    assert_eq!(plain.rest().await, "");
    server.stop().await;
}

#[tokio::test]
async fn an_old_client_is_answered_in_its_own_version() {
    let server = start().await;
    for (line, code, word) in [
        ("GET /v1/log HTTP/1.0", "200", "log_id"),
        ("GET /v1/nothing HTTP/1.0", "404", "PATH_NOT_FOUND"),
        ("POST /v1/watch HTTP/1.0", "405", "METHOD_NOT_ALLOWED"),
        ("GET /v1/watch?until_caught_up HTTP/1.0", "200", "event: end"),
    ] {
        let mut plain = Plain::connect(&server).await;
        plain.send(format!("{line}\r\n\r\n")).await;
        let answer = plain.rest().await;
        assert!(answer.starts_with(&format!("HTTP/1.0 {code} ")), "{line}: {answer}");
        assert!(answer.contains(word), "{line}: {answer}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_path_of_grpc_says_how_it_is_asked() {
    let server = start().await;
    let grpc = "application/grpc";
    for version in BOTH {
        for (content_type, word) in [
            ("", "a content type is required"),
            ("text/plain", "text/plain"),
            (JSON, "/v1/events"),
            ("application/proto", "Connect"),
            ("application/connect+proto", "Connect"),
            ("application/grpc+json", "application/grpc+json"),
        ] {
            let mut ask_for = request(&server, "POST", PUBLISH);
            if !content_type.is_empty() {
                ask_for = with(ask_for, &[("content-type", content_type)]);
            }
            let answer = ask(server.address, version, ask_for).await;
            answer.expect(415, "INVALID_ARGUMENT", "UNSUPPORTED_MEDIA_TYPE");
            says(&answer, &[word, "application/grpc-web"]);
            assert!(answer.header("accept-post").contains(grpc));
        }
        let connect =
            with(to(&server, "POST", PUBLISH, JSON), &[("connect-protocol-version", "1")]);
        says(&ask(server.address, version, connect).await, &["Connect", "/v1/events"]);
        for method in ["GET", "PUT", "DELETE"] {
            for content_type in [grpc, "application/grpc-web", JSON] {
                let ask_for = to(&server, method, PUBLISH, content_type);
                let answer = ask(server.address, version, ask_for).await;
                answer.expect(405, "UNIMPLEMENTED", "METHOD_NOT_ALLOWED");
                assert_eq!(answer.header("allow"), "POST");
            }
        }
        let options = ask(server.address, version, request(&server, "OPTIONS", PUBLISH)).await;
        assert_eq!((options.status.as_u16(), options.header("allow")), (204, "POST"));
    }
    let old = ask(server.address, Version::HTTP_11, to(&server, "POST", PUBLISH, grpc)).await;
    old.expect(505, "UNIMPLEMENTED", "HTTP_VERSION");
    says(&old, &["HTTP/2", "gRPC-Web"]);
    assert_eq!(server.head(), 0);
    server.stop().await;
}

#[tokio::test]
async fn a_path_that_is_not_there_and_a_method_that_is_not_are_told_in_json() {
    let server = start().await;
    for version in BOTH {
        for (method, path, code) in [
            ("GET", "/nothing", 404),
            ("GET", "/feed.v1.FeedService/Nothing", 404),
            ("POST", "/feed.v1.FeedService/Nothing", 404),
            ("POST", "/other.Service/Call", 404),
            ("DELETE", "/v1/events", 405),
            ("POST", "/metrics", 405),
            ("POST", "/readyz", 405),
            ("DELETE", "/", 405),
        ] {
            let answer = ask(server.address, version, request(&server, method, path)).await;
            assert_eq!(answer.status, code, "{method} {path}");
            let word = if code == 404 { path } else { "; it has " };
            says(&answer, &[word]);
            assert_eq!(answer.header("allow").is_empty(), code == 404, "{method} {path}");
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn metadata_that_is_too_large_is_told_so_over_http_2() {
    let http2 = Http2 { max_header_list_bytes: 4_096, ..Http2::default() };
    let server = start_with(new_log(), Options { http2, ..Options::default() }).await;
    let large = "x".repeat(8_000);
    let ask_for = with(request(&server, "GET", "/v1/log"), &[("x-large", &large)]);
    let answer = ask(server.address, Version::HTTP_2, ask_for).await;
    let metadata = answer.expect(431, "RESOURCE_EXHAUSTED", "HEAD_TOO_LARGE");
    assert_eq!(metadata["limit"], "4096");
    // What exceeds it by far h2 refuses by itself, which has no words.
    let far = with(request(&server, "GET", "/v1/log"), &[("x-large", &"x".repeat(20_000))]);
    let answer = ask(server.address, Version::HTTP_2, far).await;
    assert_eq!((answer.status.as_u16(), answer.body.len()), (431, 0));
    let mut client = server.client().await;
    let mut call = tonic::Request::new(tailmark_wire::feed_v1::GetLogRequest {});
    call.metadata_mut().insert("x-large", large.parse().unwrap());
    let status = client.get_log(call).await.unwrap_err();
    let info = expect(&status, Code::ResourceExhausted, "HEAD_TOO_LARGE");
    assert_eq!(info["what"], "header_list_bytes");
    client.get_log(tailmark_wire::feed_v1::GetLogRequest {}).await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn what_can_never_be_stored_is_not_asked_for_again_later() {
    let server = start().await;
    let topic = "x".repeat(300);
    let event = |topic: &str, more: &str| format!("{{\"topic\":\"{topic}\"{more}}}");
    let body = format!(",\"body\":\"{}\"", "x".repeat(2 << 20));
    let headers: Vec<_> = (0..40).map(|at| format!("\"h{at}\":\"v\"")).collect();
    let headers = format!(",\"headers\":{{{}}}", headers.join(","));
    let long_header = format!(",\"headers\":{{\"h\":\"{}\"}}", "x".repeat(9_000));
    for (text, code, what) in [
        (event(&topic, ""), 400, "topic"),
        (event(&["a"; 33].join("."), ""), 400, "topic_segments"),
        (event("a", &format!(",\"id\":\"{topic}\"")), 400, "id"),
        (event("a", &format!(",\"key\":\"{topic}\"")), 400, "key"),
        (event("a", &headers), 400, "headers"),
        (event("a", &long_header), 400, "header_bytes"),
        (event("a", &body), 413, "event"),
    ] {
        let answer = post(&server, JSON, text).await;
        let metadata = answer.expect(code, "RESOURCE_EXHAUSTED", "LIMIT_EXCEEDED");
        assert_eq!(metadata["what"], what);
        assert_eq!(answer.header("retry-after"), "", "{what}");
    }
    let many = vec!["topic=a"; 65].join("&");
    for (query, what) in [(format!("topic={topic}"), "topic"), (many, "patterns_per_watch")] {
        let answer = get(&server, &format!("/v1/watch?{query}")).await;
        let metadata = answer.expect(400, "RESOURCE_EXHAUSTED", "LIMIT_EXCEEDED");
        assert_eq!(metadata["what"], what);
    }
    server.stop().await;
}

#[tokio::test]
async fn what_may_pass_later_says_when() {
    let server = start_with(new_log(), Options { watches: 0, ..Options::default() }).await;
    let answer = get(&server, "/v1/watch").await;
    answer.expect(429, "RESOURCE_EXHAUSTED", "LIMIT_EXCEEDED");
    assert_eq!(answer.header("retry-after"), "5");
    server.stop().await;
}

#[tokio::test]
async fn an_error_does_not_repeat_what_was_sent() {
    let server = start().await;
    let huge = "y".repeat(1 << 20);
    let long = "y".repeat(20_000);
    let within_reason = |what: &str, answer: &Answer| {
        assert!(answer.status.is_client_error(), "{what}: {}", answer.status);
        assert!(answer.body.len() < 2_000, "{what}: {} bytes", answer.body.len());
        assert!(!answer.text().contains(&huge[..500]), "{what}: {}", answer.text());
    };
    for text in [
        format!("{{\"{huge}\":1}}"),
        format!("{{\"topic\":\"a\",\"at\":\"{huge}\"}}"),
        format!("{{\"topic\":\"a\",\"data\":\"!{huge}\"}}"),
        format!("{{\"topic\":\"a\",\"headers\":\"{huge}\"}}"),
        format!("{{\"topic\":\"{huge}\"}}"),
        format!("{{\"topic\":\"a\",\"id\":\"{huge}\"}}"),
        format!("{{\"topic\":\"a\",\"seq\":{huge}}}"),
        huge.clone(),
    ] {
        within_reason(&text[..30], &post(&server, JSON, text.clone()).await);
    }
    let unknown = post(&server, JSON, format!("{{\"{huge}\":1}}")).await;
    says(&unknown, &["unknown field `yyy", "…", "expected"]);
    for path in [
        format!("/v1/watch?{long}=1"),
        format!("/v1/watch?topic=a&topic={long}"),
        format!("/v1/watch?after_cursor={long}"),
        format!("/v1/watch?from={long}"),
        format!("/v1/watch?on_lost={long}"),
        format!("/v1/watch?limit={long}"),
        format!("/v1/topics?page_token={long}"),
        format!("/v1/events/{long}"),
        format!("/v1/{long}"),
        format!("/{long}"),
    ] {
        let answer = get(&server, &path).await;
        if answer.status == 200 {
            // A position that is wrong is an event of the stream.
            assert!(
                answer.body.len() < 2_000 && answer.text().contains("event: lost"),
                "{path:.40}"
            );
            continue;
        }
        within_reason(&path[..20], &answer);
    }
    for (name, path) in [
        ("content-type", "/v1/events"),
        ("content-encoding", "/v1/events"),
        ("origin", "/v1/log"),
        ("content-type", PUBLISH),
    ] {
        let mut ask_for = with(request(&server, "POST", path), &[(name, &long)]);
        if name == "content-encoding" {
            ask_for = with(ask_for, &[("content-type", JSON)]);
        }
        *ask_for.body_mut() = full("{}");
        within_reason(name, &ask(server.address, Version::HTTP_11, ask_for).await);
    }
    let method = "Y".repeat(20_000);
    let ask_for = request(&server, &method, "/v1/log");
    within_reason("method", &ask(server.address, Version::HTTP_11, ask_for).await);
    server.stop().await;
}

#[tokio::test]
async fn a_parameter_is_called_by_the_name_under_which_it_came() {
    let server = start().await;
    server.store("a", 3).await;
    for (query, header, field, words) in [
        ("topic=a..b", "", "topic", "topic: "),
        ("topic=a&topic=b..c", "", "topic", "topic: "),
        ("from=0", "", "from", "from: "),
        ("from=oldest&after_cursor=1", "", "from", "from: cannot stand beside after_cursor"),
    ] {
        let ask_for = request(&server, "GET", &format!("/v1/watch?{query}"));
        assert!(header.is_empty());
        let answer = ask(server.address, Version::HTTP_11, ask_for).await;
        let metadata = answer.expect(400, "INVALID_ARGUMENT", "INVALID_FIELD");
        assert_eq!(metadata["field"], field, "{query}");
        says(&answer, &[words]);
    }
    let second = get(&server, "/v1/watch?topic=a&topic=b..c").await;
    assert_eq!(second.json()["metadata"]["index"], "1");
    for (query, header, words) in [
        ("after_cursor=bad", "", "\"message\":\"after_cursor: "),
        ("", "bad", "\"message\":\"last-event-id: "),
        ("from=9", "", "\"message\":\"from 9 is ahead of the head 3\""),
    ] {
        let mut ask_for = request(&server, "GET", &format!("/v1/watch?{query}"));
        if !header.is_empty() {
            ask_for = with(ask_for, &[("last-event-id", header)]);
        }
        let answer = ask(server.address, Version::HTTP_11, ask_for).await;
        assert!(answer.text().contains(words), "{query} {header}: {}", answer.text());
    }
    server.stop().await;
}
