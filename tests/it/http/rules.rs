//! Who may ask: pages of other sites may not, and nobody under a name that is not ours. Each rule
//! with the same request as it may be sent.

use bytes::Bytes;
use http::{Request, Version};
use tailmark::server::{Http, Options};
use tailmark_wire::feed_v1 as pb;
use tonic::body::Body;

use crate::support::frames;
use crate::support::server::{TestServer, event, new_log, start, start_with, until};
use crate::support::web::{Answer, BOTH, ask, full, request, with};

const EVIL: &str = "http://evil.example";

async fn serve(origins: &[&str], hosts: &[&str]) -> TestServer {
    let list = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
    let http = Http { cors_origins: list(origins), allowed_hosts: list(hosts) };
    start_with(new_log(), Options { http, ..Options::default() }).await
}

/// Everything that changes the log, in each way that a page could try.
fn writes(server: &TestServer) -> Vec<(&'static str, Request<Body>)> {
    let publish = pb::PublishRequest { event: Some(event("a", "x")), expected_head: None };
    let framed = frames::framed(&publish);
    let text = {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(&framed)
    };
    let json = Bytes::from("{\"topic\":\"a\"}");
    let method = "/feed.v1.FeedService/Publish";
    [
        ("/v1/events", "application/json", json.clone()),
        ("/v1/events", "application/x-ndjson", json),
        (method, "application/grpc-web+proto", framed),
        (method, "application/grpc-web-text", Bytes::from(text)),
    ]
    .into_iter()
    .map(|(path, content_type, body)| {
        let mut request = with(request(server, "POST", path), &[("content-type", content_type)]);
        *request.body_mut() = full(body);
        (content_type, request)
    })
    .collect()
}

/// The request under another name for the same server.
fn to_host(mut request: Request<Body>, version: Version, host: &str) -> Request<Body> {
    if version == Version::HTTP_2 {
        let path = request.uri().path_and_query().unwrap().to_string();
        *request.uri_mut() = format!("http://{host}{path}").parse().unwrap();
        return request;
    }
    with(request, &[("host", host)])
}

async fn reads(server: &TestServer, version: Version, headers: &[(&'static str, &str)]) -> Answer {
    ask(server.address, version, with(request(server, "GET", "/v1/log"), headers)).await
}

#[tokio::test]
async fn a_page_of_another_origin_neither_reads_nor_writes() {
    let server = start().await;
    let own = format!("http://{}", server.address);
    for version in BOTH {
        for origin in [EVIL, "https://evil.example", "http://localhost:1", "null"] {
            for (what, request) in writes(&server) {
                let head = server.head();
                let answer =
                    ask(server.address, version, with(request, &[("origin", origin)])).await;
                let metadata = answer.expect(403, "PERMISSION_DENIED", "ORIGIN_REFUSED");
                assert_eq!(metadata["origin"], origin, "{what}");
                assert_eq!(answer.header("access-control-allow-origin"), "", "{what}");
                assert_eq!(answer.header("vary"), "origin", "{what}");
                assert_eq!(server.head(), head, "{what}");
            }
            for path in ["/v1/log", "/v1/watch", "/v1/topics", "/healthz", "/nothing"] {
                let ask_for = with(request(&server, "GET", path), &[("origin", origin)]);
                let answer = ask(server.address, version, ask_for).await;
                answer.expect(403, "PERMISSION_DENIED", "ORIGIN_REFUSED");
            }
        }
        assert_eq!(server.gauges.watches(), 0);
        // The same from our own page, and from no page.
        for headers in [&[("origin", own.as_str())][..], &[]] {
            for (what, request) in writes(&server) {
                let head = server.head();
                let answer = ask(server.address, version, with(request, headers)).await;
                assert_eq!(answer.status, 200, "{what}: {:?}", answer.body);
                assert_eq!(server.head(), head + 1, "{what}");
                assert_eq!(answer.header("access-control-allow-origin"), "", "{what}");
            }
            assert_eq!(reads(&server, version, headers).await.status, 200);
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn a_name_that_was_pointed_here_does_not_make_a_page_ours() {
    let server = start().await;
    let port = server.address.port();
    for version in BOTH {
        // The page came from evil.example:port, whose address is now this machine's: to the
        // browser it is the same origin.
        let names = [format!("evil.example:{port}"), "evil.example".to_owned()];
        for name in &names {
            let origin = format!("http://{name}");
            for (what, request) in writes(&server) {
                for headers in [&[("origin", origin.as_str())][..], &[]] {
                    let (head, body) = (request.headers().clone(), request.uri().clone());
                    let mut copy = Request::post(body).body(Body::empty()).unwrap();
                    *copy.headers_mut() = head;
                    let copy = with(to_host(copy, version, name), headers);
                    let answer = ask(server.address, version, copy).await;
                    let metadata = answer.expect(403, "PERMISSION_DENIED", "HOST_REFUSED");
                    assert_eq!(metadata["host"], name.as_str(), "{what}");
                }
            }
            for path in ["/v1/log", "/v1/watch", "/healthz", "/"] {
                let ask_for = to_host(request(&server, "GET", path), version, name);
                let answer = ask(server.address, version, ask_for).await;
                answer.expect(403, "PERMISSION_DENIED", "HOST_REFUSED");
            }
        }
        assert_eq!((server.head(), server.gauges.watches()), (0, 0));
        // The names that are ours.
        for name in ["localhost", "127.0.0.1", "[::1]"] {
            let name = format!("{name}:{port}");
            let ask_for = to_host(request(&server, "GET", "/v1/log"), version, &name);
            assert_eq!(ask(server.address, version, ask_for).await.status, 200, "{name}");
        }
    }
    for (_, request) in writes(&server) {
        let name = format!("localhost:{port}");
        let answer =
            ask(server.address, Version::HTTP_11, to_host(request, Version::HTTP_11, &name)).await;
        assert_eq!(answer.status, 200);
    }
    assert_eq!(server.head(), 4);
    server.stop().await;
}

#[tokio::test]
async fn a_name_that_is_listed_is_ours() {
    let server = serve(&[], &["log.example", "other.example:81"]).await;
    for (name, is_ours) in [
        ("log.example", true),
        ("log.example:8443", true),
        ("other.example:81", true),
        ("other.example:82", false),
        ("evil.example", false),
    ] {
        for version in BOTH {
            let ask_for = to_host(request(&server, "GET", "/v1/log"), version, name);
            let origin = format!("https://{name}");
            // As behind something that ends TLS.
            for headers in [&[][..], &[("origin", origin.as_str())]] {
                let mut copy = Request::get(ask_for.uri().clone()).body(Body::empty()).unwrap();
                *copy.headers_mut() = ask_for.headers().clone();
                let answer = ask(server.address, version, with(copy, headers)).await;
                assert_eq!(answer.status == 200, is_ours, "{name}: {}", answer.text());
            }
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn a_listed_origin_is_answered_and_asked_before() {
    let app = "https://app.example";
    for (list, told) in [(&[app, "http://localhost:3000"][..], app), (&["*"], "*")] {
        let server = serve(list, &[]).await;
        for version in BOTH {
            for (what, request) in writes(&server) {
                let head = server.head();
                let answer = ask(server.address, version, with(request, &[("origin", app)])).await;
                assert_eq!((answer.status.as_u16(), server.head()), (200, head + 1), "{what}");
                assert_eq!(answer.header("access-control-allow-origin"), told);
                let exposed = answer.header("access-control-expose-headers");
                for name in
                    ["grpc-status", "grpc-message", "grpc-status-details-bin", "feed-cursor"]
                {
                    assert!(exposed.contains(name), "{exposed}");
                }
                assert_eq!(answer.header("access-control-allow-credentials"), "");
            }
            for path in ["/v1/events", "/feed.v1.FeedService/Publish", "/v1/watch"] {
                let asks = [
                    ("origin", app),
                    ("access-control-request-method", "POST"),
                    ("access-control-request-headers", "content-type,x-grpc-web,feed-after-cursor"),
                ];
                let preflight = with(request(&server, "OPTIONS", path), &asks);
                let answer = ask(server.address, version, preflight).await;
                assert_eq!(answer.status, 204, "{path}");
                assert_eq!(answer.header("access-control-allow-origin"), told);
                assert_eq!(answer.header("access-control-allow-headers"), asks[2].1);
                assert!(answer.header("access-control-allow-methods").contains("POST"));
                assert_eq!(answer.header("access-control-max-age"), "7200");
                let vary: Vec<_> = answer.headers.get_all("vary").iter().collect();
                assert!(vary.iter().any(|value| *value == "origin"), "{vary:?}");
                let mut evil = [("origin", EVIL), asks[1], asks[2]];
                if told == "*" {
                    // Nobody is left out, but for a name that was pointed here.
                    evil[0].1 = "http://rebound.example";
                    let preflight = with(request(&server, "OPTIONS", path), &evil);
                    let preflight = to_host(preflight, version, "rebound.example");
                    let answer = ask(server.address, version, preflight).await;
                    answer.expect(403, "PERMISSION_DENIED", "HOST_REFUSED");
                    continue;
                }
                let preflight = with(request(&server, "OPTIONS", path), &evil);
                let answer = ask(server.address, version, preflight).await;
                answer.expect(403, "PERMISSION_DENIED", "ORIGIN_REFUSED");
                assert_eq!(answer.header("access-control-allow-methods"), "");
            }
        }
        server.stop().await;
    }
}

#[tokio::test]
async fn what_a_browser_sends_without_an_origin_is_refused_too() {
    let server = start().await;
    for version in BOTH {
        for (site, status) in
            [("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200)]
        {
            let answer = reads(&server, version, &[("sec-fetch-site", site)]).await;
            assert_eq!(answer.status, status, "{site}");
        }
        let link = [
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-mode", "navigate"),
            ("sec-fetch-dest", "document"),
        ];
        assert_eq!(reads(&server, version, &link).await.status, 200);
        let frame = [link[0], link[1], ("sec-fetch-dest", "iframe")];
        reads(&server, version, &frame).await.expect(403, "PERMISSION_DENIED", "ORIGIN_REFUSED");
        // A form of another site says both.
        for (what, request) in writes(&server) {
            let answer = ask(server.address, version, with(request, &link)).await;
            answer.expect(403, "PERMISSION_DENIED", "ORIGIN_REFUSED");
            assert_eq!(server.head(), 0, "{what}");
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn native_clients_have_any_authority_and_no_origin() {
    let server = start().await;
    let publish = pb::PublishRequest { event: Some(event("a", "x")), expected_head: None };
    let body = frames::framed(&publish);
    let grpc = ("content-type", "application/grpc");
    for (at, authority) in ["x", "evil.example:1", "localhost"].into_iter().enumerate() {
        let mut head = frames::head("Publish", &[grpc]);
        let uri = format!("http://{authority}/feed.v1.FeedService/Publish");
        *head.uri_mut() = uri.parse().unwrap();
        let response = frames::call(server.address, head, body.clone()).await;
        assert_eq!(response.status(), 200, "{authority}");
        until("the event", || server.head() == at as u64 + 1).await;
    }
    for browser in [("origin", EVIL), ("sec-fetch-site", "cross-site")] {
        let mut head = frames::head("Publish", &[grpc, browser]);
        let uri = format!("http://{}/feed.v1.FeedService/Publish", server.address);
        *head.uri_mut() = uri.parse().unwrap();
        let response = frames::call(server.address, head, body.clone()).await;
        assert_eq!(response.status(), 403);
    }
    assert_eq!(server.head(), 3);
    server.stop().await;
}
