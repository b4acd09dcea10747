//! What has no client library, through nginx, HAProxy and Envoy with TLS as `deploy/` has them: browsers
//! and curl, over HTTP/1.1 and HTTP/2.

use http::{Request, Version};
use tonic::body::Body;

use crate::support::daemon::Daemon;
use crate::support::port::Port;
use crate::support::reverse_proxy::{Brand, ReverseProxy, are_there};
use crate::support::server::within;
use crate::support::tls::{Authority, Trust};
use crate::support::web::{BOTH, Events, full, send_over, with};

/// How often the daemon ends under each stream.
const ENDS: u64 = 6;
/// Events between two ends.
const EACH: u64 = 20;

/// What the files of `deploy/` and the daemon's `allowed_hosts` call it.
const HOST: &str = "log.example";
const SETTINGS: [(&str, &str); 1] = [("TAILMARK_HTTP_ALLOWED_HOSTS", HOST)];

/// Who comes to the proxy, as the browser or curl.
struct Visitor {
    proxy: ReverseProxy,
    trust: Trust,
    version: Version,
}

impl Visitor {
    fn new(proxy: ReverseProxy, authority: &Authority, version: Version) -> Visitor {
        let protocol = if version == Version::HTTP_2 { "h2" } else { "http/1.1" };
        Visitor { proxy, trust: Trust::new(authority).alpn(&[protocol]), version }
    }

    fn request(&self, method: &str, path: &str) -> Request<Body> {
        let uri = format!("https://{HOST}{path}");
        Request::builder().method(method).uri(uri).body(Body::empty()).unwrap()
    }

    async fn send(&self, request: Request<Body>) -> http::Response<hyper::body::Incoming> {
        let stream = self.trust.connect(self.proxy.address).await.unwrap();
        within("an answer", send_over(stream, self.version, request)).await
    }

    /// The body of an answer that must be 200.
    async fn get(&self, path: &str) -> String {
        use http_body_util::BodyExt as _;
        let answer = self.send(self.request("GET", path)).await;
        assert_eq!(answer.status(), 200, "{path}");
        let body = within("a body", answer.into_body().collect()).await.unwrap().to_bytes();
        String::from_utf8(body.into()).unwrap()
    }

    /// Stores so many events, as lines of JSON.
    async fn store(&self, count: u64) {
        let lines = "{\"topic\":\"a\",\"body\":\"x\"}\n".repeat(count as usize);
        let headers = [("content-type", "application/x-ndjson")];
        let mut request = with(self.request("POST", "/v1/events"), &headers);
        *request.body_mut() = full(lines);
        assert_eq!(self.send(request).await.status(), 200);
    }

    /// A stream of server-sent events, as a browser opens it again; `None` where the proxy says that
    /// there is no daemon.
    async fn watch(&self, last: Option<&str>) -> Option<Events> {
        let request = self.request("GET", "/v1/watch?from=oldest");
        let last = last.map(|last| ("last-event-id", last));
        let answer = self.send(with(request, last.as_slice())).await;
        if answer.status() != 200 {
            assert!([502, 503, 504].contains(&answer.status().as_u16()), "{}", answer.status());
            return None;
        }
        let mut events = Events::of(answer);
        events.may_be_cut = true;
        Some(events)
    }
}

/// The page comes, lines are stored, and a stream that begins again where it was misses and repeats
/// nothing, while the daemon stops and is killed.
async fn page_and_events(brand: Brand) {
    if brand != Brand::Envoy && !are_there() {
        return;
    }
    for version in BOTH {
        let (dir, port) = (tempfile::tempdir().unwrap(), Port::reserve());
        let mut daemon = Daemon::start_at(dir.path(), port.address, &SETTINGS);
        let authority = Authority::new("of the proxy");
        let proxy = ReverseProxy::start_tls(brand, port.address, &authority.server()).await;
        let visitor = Visitor::new(proxy, &authority, version);
        let page = visitor.get("/").await;
        assert!(page.contains("<script") && page.to_lowercase().starts_with("<!doctype"), "{page}");
        assert_eq!(visitor.get("/healthz").await.trim(), "ok");

        let (mut last, mut seen) = (None::<String>, 0);
        let mut watch = None;
        for end in 0..ENDS {
            visitor.store(EACH).await;
            while seen < (end + 1) * EACH {
                let Some(events) = &mut watch else {
                    watch = visitor.watch(last.as_deref()).await;
                    continue;
                };
                let Some(sent) = within("an event", events.next()).await else {
                    watch = None;
                    continue;
                };
                if sent.data.is_empty() || !sent.event.is_empty() {
                    continue;
                }
                seen += 1;
                assert_eq!(sent.json()["seq"], seen.to_string());
                last = sent.id;
            }
            if end % 2 == 0 {
                daemon.kill();
            } else {
                assert_eq!(daemon.stop(), Some(0));
            }
            daemon = Daemon::start_at(dir.path(), port.address, &SETTINGS);
        }
        assert_eq!(daemon.stop(), Some(0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_and_server_sent_events_come_through_nginx() {
    page_and_events(Brand::Nginx).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_and_server_sent_events_come_through_haproxy() {
    page_and_events(Brand::HaProxy).await;
}

/// `tests/clients/ci.sh` gets it from PyPI.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs ENVOY to name the program"]
async fn a_daemon_behind_envoy_serves_browsers() {
    page_and_events(Brand::Envoy).await;
}

/// The control: the certificate counts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_trusts_somebody_else_gets_nothing_of_a_proxy() {
    if !are_there() {
        return;
    }
    let (port, authority) = (Port::reserve(), Authority::new("of the proxy"));
    for brand in [Brand::Nginx, Brand::HaProxy] {
        let proxy = ReverseProxy::start_tls(brand, port.address, &authority.server()).await;
        let other = Trust::new(&Authority::new("another")).alpn(&["h2"]);
        assert!(other.connect(proxy.address).await.is_err());
        assert!(Trust::new(&authority).alpn(&["h2"]).connect(proxy.address).await.is_ok());
    }
}
