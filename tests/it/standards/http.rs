//! HTTP semantics and HTTP/1.1 (RFC 9110, RFC 9112).

use http::Version;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::server::{TestServer, start, within};
use crate::support::web::{Answer, BOTH, ask, full, get, request, with};

/// What the server answers to these bytes, up to the end of the connection.
pub async fn raw(server: &TestServer, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    within("answer", stream.read_to_end(&mut answer)).await.unwrap();
    answer
}

/// A request of HTTP/1.1 by its lines; `HOST` stands for the server. Answers code and text.
async fn told(server: &TestServer, lines: &[&str], body: &str) -> (u16, String) {
    let host = server.address.to_string();
    let head = format!("{}\r\nconnection: close\r\n\r\n{body}", lines.join("\r\n"));
    let answer = raw(server, head.replace("HOST", &host).as_bytes()).await;
    let text = String::from_utf8_lossy(&answer).into_owned();
    let code = text.get(9..12).and_then(|code| code.parse().ok());
    (code.unwrap_or_else(|| panic!("{lines:?}: {text:?}")), text)
}

/// Paths that are read, of every kind.
const READ: [&str; 10] = [
    "/",
    "/healthz",
    "/readyz",
    "/metrics",
    "/v1/log",
    "/v1/topics",
    "/v1/events/1",
    "/v1/events/99",
    "/v1/watch?until_caught_up&from=oldest",
    "/v1/nothing",
];

async fn head(server: &TestServer, version: Version, path: &str) -> Answer {
    ask(server.address, version, request(server, "HEAD", path)).await
}

#[tokio::test]
async fn head_is_get_without_its_body() {
    let server = start().await;
    server.store("a", 1).await;
    for version in BOTH {
        for path in READ {
            let whole = ask(server.address, version, request(&server, "GET", path)).await;
            let bare = head(&server, version, path).await;
            assert_eq!(bare.status, whole.status, "{path}");
            assert!(bare.body.is_empty(), "{path}: {:?}", bare.body);
            assert_ne!(whole.header("content-type"), "", "{path}");
            for name in ["content-type", "etag", "cache-control"] {
                assert_eq!(bare.header(name), whole.header(name), "{path} {name}");
            }
            let len = whole.body.len().to_string();
            let is_endless = whole.header("content-type") == "text/event-stream";
            let expected = if is_endless { "" } else { &len };
            // Figures change from one scrape to the next.
            if path != "/metrics" && path != "/v1/log" {
                assert_eq!(bare.header("content-length"), expected, "{version:?} {path}");
            }
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn what_is_allowed_is_told_by_options_and_beside_405() {
    let server = start().await;
    for (path, allowed) in [
        ("/", "GET,HEAD"),
        ("/healthz", "GET,HEAD"),
        ("/metrics", "GET,HEAD"),
        ("/v1/log", "GET,HEAD"),
        ("/v1/watch", "GET,HEAD"),
        ("/v1/events", "POST"),
        ("/v1/events/1", "GET,HEAD"),
    ] {
        for method in ["OPTIONS", "DELETE", "get", "X-OWN"] {
            let answer =
                ask(server.address, Version::HTTP_11, request(&server, method, path)).await;
            let expected = if method == "OPTIONS" { 204 } else { 405 };
            assert_eq!(answer.status, expected, "{method} {path}");
            assert_eq!(answer.header("allow"), allowed, "{method} {path}");
        }
    }
    // Of the server as a whole.
    let (code, text) = told(&server, &["OPTIONS * HTTP/1.1", "host: HOST"], "").await;
    assert_eq!(code, 204, "{text}");
    let (code, _) = told(&server, &["CONNECT HOST HTTP/1.1", "host: HOST"], "").await;
    assert!([400, 404, 405].contains(&code), "{code}");
    server.stop().await;
}

#[tokio::test]
async fn a_request_of_http_1_1_names_its_host_once() {
    let server = start().await;
    let line = "GET /v1/log HTTP/1.1";
    for (lines, code) in [
        (&[line, "host: HOST"][..], 200),
        (&[line, "Host:HOST"], 200),
        (&[line, "hOsT: \t HOST \t"], 200),
        (&[line], 400),
        (&[line, "host: HOST", "host: HOST"], 400),
        (&[line, "host: HOST, HOST"], 400),
        (&[line, "host: a b"], 400),
        (&[line, "host: user@HOST"], 400),
        (&[line, "host:"], 400),
        (&[line, "host : HOST"], 400),
        // In full, as a proxy is asked.
        (&["GET http://HOST/v1/log HTTP/1.1", "host: HOST"], 200),
        (&["GET http://HOST/v1/log HTTP/1.1"], 400),
        (&["GET HTTP://HOST/v1/log?_=1 HTTP/1.1", "host: HOST"], 200),
        (&["GET /v1/log HTTP/1.0"], 200),
    ] {
        let (told, text) = told(&server, lines, "").await;
        assert_eq!(told, code, "{lines:?}: {text}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_message_whose_end_is_in_doubt_is_refused_or_the_last_of_its_connection() {
    let server = start().await;
    let (line, host) = ("POST /v1/events HTTP/1.1", "host: HOST");
    let json = "content-type: application/json";
    let chunked = "5\r\n{\"top\r\n9\r\nic\":\"a\"}\n\r\n0\r\n\r\n";
    for (lines, body, code) in [
        (&[line, host, json, "transfer-encoding: chunked"][..], chunked, 200),
        (&[line, host, json, "Transfer-Encoding: CHUNKED"], chunked, 200),
        (&[line, host, json, "content-length: 13"], "{\"topic\":\"a\"}", 200),
        (&[line, host, json, "content-length: 13", "content-length: 13"], "{\"topic\":\"a\"}", 200),
        (&[line, host, json, "content-length: 13", "content-length: 14"], "{\"topic\":\"a\"}", 400),
        (&[line, host, json, "content-length: +13"], "{\"topic\":\"a\"}", 400),
        (&[line, host, json, "content-length: 13x"], "{\"topic\":\"a\"}", 400),
        // The chunks count, in either order; and the connection is closed, as below.
        (&[line, host, json, "content-length: 5", "transfer-encoding: chunked"], chunked, 200),
        (&[line, host, json, "transfer-encoding: chunked", "content-length: 5"], chunked, 200),
        (&[line, host, json, "transfer-encoding: gzip, chunked"], chunked, 501),
        (&[line, host, json, "transfer-encoding: gzip"], chunked, 400),
        (&["POST /v1/events HTTP/1.0", host, json, "transfer-encoding: chunked"], chunked, 400),
        // Folded lines and control characters.
        (&[line, host, json, "x-folded: a\r\n b", "content-length: 13"], "{\"topic\":\"a\"}", 400),
        (&[line, host, json, "x-nul: a\0b", "content-length: 13"], "{\"topic\":\"a\"}", 400),
    ] {
        let before = server.head();
        let (told, text) = told(&server, lines, body).await;
        assert_eq!(told, code, "{lines:?}: {text}");
        assert_eq!(server.head() - before, u64::from(code == 200), "{lines:?}");
    }
    // Nothing after a doubtful message is read as another one.
    let smuggled = format!(
        "{line}\r\nhost: {host}\r\n{json}\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n\
         0\r\n\r\nGET /healthz HTTP/1.1\r\nhost: {host}\r\n\r\n",
        host = server.address
    );
    let answer = raw(&server, smuggled.as_bytes()).await;
    let text = String::from_utf8_lossy(&answer);
    assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{text}");
    server.stop().await;
}

#[tokio::test]
async fn a_content_type_has_no_case_and_any_parameters() {
    let server = start().await;
    let event = "{\"topic\":\"a\"}";
    for (values, code) in [
        (&["application/json"][..], 200),
        (&["Application/JSON; charset=UTF-8"], 200),
        (&["application/json;charset=\"utf-8\";x=y"], 200),
        (&["APPLICATION/X-NDJSON"], 200),
        (&["application/json; by=gr\u{f6}\u{df}e"], 200),
        (&["application/json", "application/json"], 200),
        (&["application/json", "text/plain"], 415),
        (&["text/plain", "application/json"], 415),
        (&["application/json, text/plain"], 415),
        (&["application/jsonx"], 415),
        (&[""], 415),
    ] {
        for version in BOTH {
            let mut asked = request(&server, "POST", "/v1/events");
            for value in values {
                let value = http::HeaderValue::from_bytes(value.as_bytes()).unwrap();
                asked.headers_mut().append("content-type", value);
            }
            *asked.body_mut() = full(event);
            let answer = ask(server.address, version, asked).await;
            assert_eq!(answer.status, code, "{values:?}");
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn a_coding_that_is_not_ours_is_refused_and_ours_are_told() {
    let server = start().await;
    let json = ("content-type", "application/json");
    for (codings, code) in [
        (&["identity"][..], 200),
        (&["Identity"], 200),
        (&[""], 200),
        (&["identity, identity"], 200),
        (&["deflate"], 415),
        (&["GZIP"], 400),
        (&["identity", "gzip"], 400),
        (&["gzip, gzip"], 415),
        (&["identity, br"], 415),
    ] {
        let mut headers = vec![json];
        headers.extend(codings.iter().map(|&coding| ("content-encoding", coding)));
        let mut asked = with(request(&server, "POST", "/v1/events"), &headers);
        *asked.body_mut() = full("{\"topic\":\"a\"}");
        let answer = ask(server.address, Version::HTTP_11, asked).await;
        assert_eq!(answer.status, code, "{codings:?}");
        if code == 415 {
            answer.expect(415, "INVALID_ARGUMENT", "UNSUPPORTED_MEDIA_TYPE");
            let ours = if cfg!(feature = "zstd") { "gzip, zstd" } else { "gzip" };
            assert_eq!(answer.header("accept-encoding"), ours);
        }
    }
    // A type that is not taken is told which are.
    let asked = with(request(&server, "POST", "/v1/events"), &[("content-type", "text/plain")]);
    let answer = ask(server.address, Version::HTTP_11, asked).await;
    assert_eq!(answer.status, 415);
    let accept = "application/json, application/x-ndjson, application/cloudevents+json, \
                  application/cloudevents-batch+json";
    assert_eq!(answer.header("accept"), accept);
    server.stop().await;
}

#[tokio::test]
async fn a_document_that_is_known_is_not_sent_again() {
    let server = start().await;
    let first = get(&server, "/").await;
    let tag = first.header("etag").to_owned();
    assert!(tag.starts_with('"') && tag.ends_with('"'), "{tag}");
    let asset = first.text().split("src=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let asset_tag = get(&server, &asset).await.header("etag").to_owned();
    for (path, tag) in [("/", tag), (&*asset, asset_tag)] {
        for (values, code) in [
            (&[tag.clone()][..], 304),
            (&[format!("W/{tag}")], 304),
            (&["*".to_owned()], 304),
            (&[" * ".to_owned()], 304),
            (&[format!("\"other\", {tag}")], 304),
            (&[format!("\"a,b\",\tW/\"x\",{tag} ,")], 304),
            (&["\"other\"".to_owned(), tag.clone()], 304),
            (&["\"other\"".to_owned()], 200),
            // Not the tag, although its letters are in it.
            (&[format!("\"x,{}\"", tag.trim_matches('"'))], 200),
            (&[tag.trim_matches('"').to_owned()], 200),
            (&[format!("w/{tag}")], 200),
            (&[String::new()], 200),
        ] {
            for method in ["GET", "HEAD"] {
                let headers: Vec<_> =
                    values.iter().map(|value| ("if-none-match", value.as_str())).collect();
                for version in BOTH {
                    let asked = with(request(&server, method, path), &headers);
                    let answer = ask(server.address, version, asked).await;
                    assert_eq!(answer.status, code, "{method} {path} {values:?}");
                    // Its own length would be a lie about the document's.
                    assert!(code == 200 || !answer.headers.contains_key("content-length"));
                }
                let asked = with(request(&server, method, path), &headers);
                let answer = ask(server.address, Version::HTTP_11, asked).await;
                // What a cache keeps by comes with either.
                for name in ["etag", "cache-control", "vary"] {
                    assert_ne!(answer.header(name), "", "{name}");
                }
                assert!(code == 200 || answer.body.is_empty());
            }
        }
        // A part is asked for; the whole is an answer too.
        let asked = with(request(&server, "GET", path), &[("range", "bytes=0-3")]);
        let answer = ask(server.address, Version::HTTP_11, asked).await;
        assert_eq!(answer.status, 200);
        assert!(answer.body.len() > 4);
    }
    server.stop().await;
}

#[tokio::test]
async fn what_is_read_of_the_log_is_kept_by_no_cache() {
    let server = start().await;
    server.store("a", 1).await;
    for path in READ.into_iter().filter(|path| *path != "/") {
        let answer = get(&server, path).await;
        assert!(answer.header("cache-control").contains("no-store"), "{path}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_url_is_utf_8_escaped_or_not() {
    let server = start().await;
    server.store("gr\u{f6}\u{df}e", 1).await;
    server.store("a b+c", 0).await;
    for query in [
        "topic=gr%C3%B6%C3%9Fe",
        "topic=gr%c3%b6%c3%9fe",
        "topic=gr\u{f6}\u{df}e",
        "t%6Fpic=gr%C3%B6%C3%9Fe",
    ] {
        let line = format!("GET /v1/watch?from=oldest&limit=1&{query} HTTP/1.1");
        let (code, text) = told(&server, &[&line, "host: HOST"], "").await;
        assert_eq!(code, 200, "{query}: {text}");
        assert!(text.contains("event: end"), "{query}: {text}");
    }
    for (path, code) in [
        ("/v1/events/1", 200),
        ("/v1/events/%31", 200),
        ("/v1/events/%ff", 400),
        ("/v1/events/%zz", 400),
        ("/v1/topics?prefix=%ff", 400),
        ("/v1/log?", 200),
        ("/v1/log?&", 200),
        ("/v1/log#part", 200),
    ] {
        let line = format!("GET {path} HTTP/1.1");
        let (told, text) = told(&server, &[&line, "host: HOST"], "").await;
        assert_eq!(told, code, "{path}: {text}");
        assert!(text.contains("content-type: application/json"), "{path}: {text}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_connection_is_kept_or_closed_as_its_list_says() {
    let server = start().await;
    let line = "GET /healthz HTTP/1.1\r\nhost: HOST\r\n";
    for (first, kept) in [
        ("", true),
        ("connection: keep-alive\r\n", true),
        ("connection: x-own, Keep-Alive\r\n", true),
        ("connection: x-own, Close\r\n", false),
        ("Connection: x-own\r\nconnection: close\r\n", false),
    ] {
        let two = format!("{line}{first}\r\n{line}connection: close\r\n\r\n");
        let answer =
            raw(&server, two.replace("HOST", &server.address.to_string()).as_bytes()).await;
        let text = String::from_utf8_lossy(&answer);
        assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 1 + usize::from(kept), "{first}");
    }
    server.stop().await;
}
