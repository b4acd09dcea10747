//! gRPC over HTTP/2 (PROTOCOL-HTTP2.md, compression.md), its statuses as HTTP carries them, and
//! gRPC-Web (PROTOCOL-WEB.md).

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, StatusCode};
use tailmark::server::Options;
use tailmark_wire::feed_v1 as pb;
use tonic::Code;

use crate::support::frames;
use crate::support::server::{TestServer, event, expect, new_log, start, start_with, within};
use crate::support::web::{Answer, BOTH, ask, full, request, with};

fn publish() -> Bytes {
    let request = pb::PublishRequest { event: Some(event("a", "x")), expected_head: None };
    frames::framed(&request)
}

/// A call of the feed with these headers.
fn call(method: &str, headers: &[(&str, &[u8])]) -> Request<()> {
    let mut head = frames::head(method, &[]);
    for &(name, value) in headers {
        let name: HeaderName = name.parse().unwrap();
        head.headers_mut().append(name, HeaderValue::from_bytes(value).unwrap());
    }
    head
}

const GRPC: (&str, &[u8]) = ("content-type", b"application/grpc");

/// The trailers of a call that is answered with messages.
async fn trailers(server: &TestServer, head: Request<()>, body: Bytes) -> http::HeaderMap {
    let response = frames::call(server.address, head, body).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "application/grpc");
    if response.headers().contains_key("grpc-status") {
        return response.headers().clone();
    }
    let mut body = response.into_body();
    while let Some(data) = within("data", body.data()).await {
        let data = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
    }
    within("trailers", body.trailers()).await.unwrap().expect("trailers")
}

#[tokio::test]
async fn a_content_type_of_grpc_is_known_in_any_case_and_with_parameters() {
    let server = start().await;
    for content_type in [
        "application/grpc",
        "application/grpc+proto",
        "application/grpc;charset=utf-8",
        "APPLICATION/GRPC ; x=\"y;z\"",
    ] {
        let head = call("Publish", &[("content-type", content_type.as_bytes())]);
        let trailers = trailers(&server, head, publish()).await;
        assert_eq!(trailers["grpc-status"], "0", "{content_type}");
    }
    // Parameters may hold any bytes.
    let head = call("Publish", &[("content-type", b"application/grpc; by=gr\xc3\xb6\xc3\x9fe")]);
    assert_eq!(trailers(&server, head, publish()).await["grpc-status"], "0");
    for content_type in ["application/grpc+json", "application/grpcweb", "application/grpc+"] {
        let mut head = call("Publish", &[("content-type", content_type.as_bytes())]);
        // It is none of gRPC, so its authority has to be ours.
        let uri = format!("http://{}/feed.v1.FeedService/Publish", server.address);
        *head.uri_mut() = uri.parse().unwrap();
        let response = frames::call(server.address, head, publish()).await;
        assert_eq!(response.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE, "{content_type}");
    }
    // `te: trailers` is for proxies; who leaves it out is served.
    let head = call("Publish", &[GRPC, ("te", b"trailers")]);
    assert_eq!(trailers(&server, head, publish()).await["grpc-status"], "0");
    server.stop().await;
}

#[tokio::test]
async fn a_call_that_is_no_post_is_told_what_is_allowed() {
    let server = start().await;
    let mut head = call("Publish", &[GRPC]);
    *head.method_mut() = http::Method::GET;
    let response = frames::call(server.address, head, Bytes::new()).await;
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(response.headers()["allow"], "POST");
    // By any version and with any content type.
    for method in ["GET", "HEAD", "PUT", "OPTIONS"] {
        for version in BOTH {
            let asked = request(&server, method, "/feed.v1.FeedService/Publish");
            let answer = ask(server.address, version, asked).await;
            assert_eq!(answer.status, if method == "OPTIONS" { 204 } else { 405 }, "{method}");
            assert_eq!(answer.header("allow"), "POST", "{method}");
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn an_encoding_that_is_not_ours_is_unimplemented_and_ours_are_told() {
    let server = start().await;
    for encodings in [&["deflate"][..], &["snappy"], &["gzip", "deflate"], &["br", "gzip"]] {
        let mut headers = vec![GRPC];
        headers.extend(encodings.iter().map(|one| ("grpc-encoding", one.as_bytes())));
        let trailers = trailers(&server, call("Publish", &headers), publish()).await;
        assert_eq!(trailers["grpc-status"], "12", "{encodings:?}");
        assert!(trailers["grpc-accept-encoding"].to_str().unwrap().starts_with("identity, gzip"));
    }
    // The body as a whole no more than its messages.
    let headers = [GRPC, ("content-encoding", b"gzip".as_slice())];
    let whole = trailers(&server, call("Publish", &headers), publish()).await;
    assert_eq!(whole["grpc-status"], "12");
    for identity in ["identity", "Identity", "gzip", "GZIP"] {
        let headers = [GRPC, ("grpc-encoding", identity.as_bytes())];
        let trailers = trailers(&server, call("Publish", &headers), publish()).await;
        assert_eq!(trailers["grpc-status"], "0", "{identity}");
    }
    // What a client would take back is its own affair.
    let headers = [GRPC, ("grpc-accept-encoding", b"gzip,deflate".as_slice())];
    let trailers = trailers(&server, call("Publish", &headers), publish()).await;
    assert_eq!(trailers["grpc-status"], "0");
    server.stop().await;
}

#[tokio::test]
async fn a_message_marked_as_compressed_without_an_encoding_is_internal() {
    let server = start().await;
    let mut marked = publish().to_vec();
    marked[0] = 1;
    for headers in [&[GRPC][..], &[GRPC, ("grpc-encoding", b"identity")]] {
        for method in ["Publish", "UploadEvents", "Watch"] {
            let head = call(method, headers);
            let trailers = trailers(&server, head, marked.clone().into()).await;
            let status = frames::status(&trailers);
            expect(&status, Code::Internal, "MESSAGE_MALFORMED");
            assert!(status.message().contains("compressed"), "{status:?}");
        }
    }
    assert_eq!(server.head(), 0);
    server.stop().await;
}

#[tokio::test]
async fn a_timeout_is_read_as_the_grammar_has_it() {
    let server = start().await;
    let timed = |values: &[&'static str]| {
        let mut headers = vec![GRPC];
        headers.extend(values.iter().map(|value| ("grpc-timeout", value.as_bytes())));
        call("Publish", &headers)
    };
    for (values, status) in [
        (&["99999999H"][..], "0"),
        (&["1H"], "0"),
        (&["10M"], "0"),
        (&["600S"], "0"),
        (&["600000m"], "0"),
        // The same twice, as a proxy may repeat it.
        (&["1H", "1H"], "0"),
        // Over before it began.
        (&["0n"], "4"),
        (&["0H"], "4"),
        (&["1n"], "4"),
        (&["1u"], "4"),
        (&["1H", "2H"], "3"),
        (&["1h"], "3"),
        (&["100000000S"], "3"),
        (&["-1S"], "3"),
        (&["+1S"], "3"),
        (&["1.5S"], "3"),
        (&["1"], "3"),
        (&["S"], "3"),
        (&[""], "3"),
        (&["1 S"], "3"),
    ] {
        let trailers = trailers(&server, timed(values), publish()).await;
        assert_eq!(trailers["grpc-status"], status, "{values:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_message_of_a_status_is_percent_encoded() {
    let options = Options { instance: "größe 100%\u{1}".to_owned(), ..Options::default() };
    let server = start_with(new_log(), options).await;
    let mut head = call("", &[GRPC]);
    *head.uri_mut() = "http://x/chat.ChatService/StreamMetrics".parse().unwrap();
    let ask =
        tailmark_wire::chat::MetricsRequest { instance_id: "日本".into(), ..Default::default() };
    let trailers = trailers(&server, head, frames::framed(&ask)).await;
    let raw = trailers["grpc-message"].to_str().unwrap();
    assert!(raw.is_ascii() && raw.bytes().all(|c| (0x20..0x7f).contains(&c)), "{raw}");
    assert!(raw.contains("%E6%97%A5") && raw.contains("100%25%01"), "{raw}");
    let status = frames::status(&trailers);
    assert_eq!(status.message(), "this is größe 100%\u{1}, not 日本");
    // Binary metadata goes out without padding, as it should be.
    let details = trailers["grpc-status-details-bin"].to_str().unwrap();
    assert!(STANDARD_NO_PAD.decode(details).is_ok(), "{details}");
    server.stop().await;
}

#[tokio::test]
async fn metadata_given_twice_or_joined_by_a_comma_is_one_list() {
    let server = start().await;
    server.store("a", 4).await;
    let (two, three) = (server.cursor(2), server.cursor(3));
    let ask = pb::WatchRequest { until_caught_up: true, ..Default::default() };
    let last = server.cursor(4);
    for (values, status) in [
        (&[two.clone()][..], "0"),
        (&[two.clone(), two.clone()], "0"),
        (&[format!("{two},{two}")], "0"),
        (&[format!("{two} , {two}"), two.clone()], "0"),
        (&[String::new(), two.clone()], "0"),
        (&[two.clone(), three.clone()], "3"),
        (&[format!("{two},{three}")], "3"),
    ] {
        let mut headers = vec![GRPC];
        headers.extend(values.iter().map(|value| ("feed-after-cursor", value.as_bytes())));
        let trailers = trailers(&server, call("Watch", &headers), frames::framed(&ask)).await;
        assert_eq!(trailers["grpc-status"], status, "{values:?}");
        if status == "0" {
            assert_eq!(trailers["feed-cursor"], last.as_str());
        }
    }
    // Metadata that nobody here knows is passed over, whatever is in it.
    let headers = [
        GRPC,
        ("x-other", b"gr\xc3\xb6\xc3\x9fe".as_slice()),
        ("x-other-bin", b"AAE="),
        ("x-other-bin", b"AAE"),
        ("x-other-bin", b"not base64!"),
        ("grpc-previous-rpc-attempts", b"1"),
    ];
    let trailers = trailers(&server, call("Publish", &headers), publish()).await;
    assert_eq!(trailers["grpc-status"], "0");
    server.stop().await;
}

/// A call of gRPC-Web, answered whole.
async fn web(
    server: &TestServer,
    version: http::Version,
    headers: &[(&'static str, &str)],
    body: impl Into<Bytes>,
) -> Answer {
    let mut asked = with(request(server, "POST", "/feed.v1.FeedService/Watch"), headers);
    *asked.body_mut() = full(body);
    ask(server.address, version, asked).await
}

#[tokio::test]
async fn grpc_web_answers_in_the_encoding_that_is_accepted() {
    let server = start().await;
    let framed = frames::framed(&pb::WatchRequest { until_caught_up: true, ..Default::default() });
    let text = STANDARD.encode(&framed);
    let (binary, base64) = ("application/grpc-web+proto", "application/grpc-web-text+proto");
    for (content_type, accept, answered) in [
        ("application/grpc-web", "", binary),
        ("application/grpc-web+proto", "*/*", binary),
        ("Application/GRPC-Web; charset=UTF-8", "application/json", binary),
        ("application/grpc-web-text", "", base64),
        ("application/grpc-web-text+proto", "*/*", base64),
        ("application/grpc-web", "application/grpc-web-text", base64),
        ("application/grpc-web", "Application/Grpc-Web-Text+Proto;q=1", base64),
        ("application/grpc-web-text", "application/grpc-web+proto", binary),
        ("application/grpc-web", "application/grpc-web-text;q=0, */*", binary),
        (
            "application/grpc-web-text",
            "application/grpc-web;q=0.2, application/grpc-web-text",
            base64,
        ),
        ("application/grpc-web", "application/grpc-web-text;q=0.2, application/grpc-web", binary),
    ] {
        for version in BOTH {
            let is_text = content_type.contains("text");
            let body = if is_text { text.clone().into() } else { framed.clone() };
            let mut headers = vec![("content-type", content_type)];
            if !accept.is_empty() {
                headers.push(("accept", accept));
            }
            let answer = web(&server, version, &headers, body).await;
            assert_eq!(answer.header("content-type"), answered, "{content_type} {accept}");
            // One frame of trailers: 0x80, and header lines in lower case.
            let bytes = match answered == base64 {
                true => Bytes::from(STANDARD.decode(&answer.body).unwrap()),
                false => answer.body.clone(),
            };
            assert_eq!(bytes[0], 0x80, "{bytes:?}");
            assert_eq!(
                u32::from_be_bytes(bytes[1..5].try_into().unwrap()) as usize,
                bytes.len() - 5
            );
            let block = std::str::from_utf8(&bytes[5..]).unwrap();
            assert!(block.lines().any(|line| line.trim_end() == "grpc-status:0"), "{block}");
            assert_eq!(
                block,
                block.to_lowercase().replace(&server.cursor(0).to_lowercase(), &server.cursor(0)),
                "{block}"
            );
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn names_of_metadata_have_no_case_over_http_1() {
    let server = start().await;
    server.store("a", 3).await;
    let ask = pb::WatchRequest { until_caught_up: true, start: None, ..Default::default() };
    let framed = frames::framed(&ask);
    let raw = format!(
        "POST /feed.v1.FeedService/Watch HTTP/1.1\r\nHOST: {}\r\nCONTENT-TYPE: application/grpc-web\r\n\
         Feed-After-Cursor: 1\r\nGRPC-TIMEOUT: 1H\r\nConnection: Close\r\ncontent-Length: {}\r\n\r\n",
        server.address,
        framed.len()
    );
    let answer = super::http::raw(&server, &[raw.as_bytes(), &framed[..]].concat()).await;
    assert!(answer.starts_with(b"HTTP/1.1 200 "));
    let cursor = server.cursor(3);
    let found = answer.windows(cursor.len()).any(|part| part == cursor.as_bytes());
    assert!(found, "{}", String::from_utf8_lossy(&answer));
    server.stop().await;
}
