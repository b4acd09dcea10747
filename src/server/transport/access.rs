//! Access rules that keep pages of other sites away from a daemon on this machine: `Host`,
//! `Origin`, CORS.
//!
//! A browser lets every page send requests to any address that its user reaches. It tells us only
//! by headers that the page cannot set: `Origin`, `Sec-Fetch-Site`, `Host`. Other clients send what
//! they like and are not held up; these rules protect nothing from them. `docs/http.md`.

use std::net::{IpAddr, SocketAddr};

use ::http::request::Parts;
use ::http::uri::Authority;
use ::http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Version, header};
use tonic::body::Body;

use crate::server::Http;
use crate::server::rpc::status::{self, Failure};

const SEC_FETCH_SITE: &str = "sec-fetch-site";
const SEC_FETCH_MODE: &str = "sec-fetch-mode";
const SEC_FETCH_DEST: &str = "sec-fetch-dest";
/// What a page may read of an answer beyond the few headers that it always may.
const EXPOSED: &str = "grpc-status, grpc-message, grpc-status-details-bin, feed-cursor, \
                       feed-oldest, feed-head, feed-log-id, feed-watch, retry-after, allow, \
                       www-authenticate, grpc-encoding, grpc-accept-encoding";
const METHODS: &str = "GET, HEAD, POST, OPTIONS";
/// Seconds that a browser may remember the answer to its question. Two hours is Chromium's most.
const MAX_AGE: &str = "7200";

/// What a request that may be answered is told in return.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Granted {
    /// The origin of another site that may read the answer.
    origin: Option<HeaderValue>,
    /// No browser is involved, as far as we can tell.
    is_native: bool,
}

/// Our end of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Local {
    pub(crate) address: SocketAddr,
    pub(crate) is_tls: bool,
}

/// Decides. `local` is our end of the connection; `is_native` says that it is a gRPC call as no
/// browser can send it.
///
/// # Errors
/// Why it may not.
pub(crate) fn check(
    head: &Parts,
    local: Local,
    rules: &Http,
    is_native: bool,
) -> Result<Granted, Failure> {
    let is_from_browser = [header::ORIGIN.as_str(), SEC_FETCH_SITE]
        .iter()
        .any(|name| head.headers.contains_key(*name));
    if is_native && !is_from_browser {
        // Its authority is whatever its channel calls the other side: "x", a path of a socket.
        return Ok(Granted { origin: None, is_native });
    }
    check_host_header(head)?;
    let hosts = hosts(head)?;
    check_hosts(&hosts, local, rules, head.version)?;
    let origin = check_origin(head, &hosts, local, rules)?;
    Ok(Granted { origin, is_native: false })
}

/// RFC 9112, section 3.2: a request of HTTP/1.1 names its host, once, and nothing but a host.
fn check_host_header(head: &Parts) -> Result<(), Failure> {
    if head.version != Version::HTTP_11 {
        return Ok(());
    }
    let mut values = head.headers.get_all(header::HOST).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(status::bad_field("host", "must be given once"));
    };
    let host = value.to_str().ok().and_then(|text| text.parse::<Authority>().ok());
    match host {
        Some(host) if !host.as_str().contains('@') => Ok(()),
        _ => Err(status::bad_field("host", "must be a host, with a port or without")),
    }
}

/// Everything that names the host: the target itself and the header.
fn hosts(head: &Parts) -> Result<Vec<Authority>, Failure> {
    let mut hosts: Vec<Authority> = head.uri.authority().cloned().into_iter().collect();
    for value in head.headers.get_all(header::HOST) {
        let text = value.to_str().unwrap_or_default();
        let parsed = text.parse::<Authority>().map_err(|_| status::host_refused(text))?;
        hosts.push(parsed);
    }
    if let Some(bad) = hosts.iter().find(|host| host.as_str().contains('@')) {
        return Err(status::host_refused(bad.as_str()));
    }
    Ok(hosts)
}

/// Against DNS rebinding: a name that its owner points at this machine makes a foreign page one of
/// our own, but its requests say the name.
fn check_hosts(
    hosts: &[Authority],
    local: Local,
    rules: &Http,
    version: Version,
) -> Result<(), Failure> {
    let is_loopback = local.address.ip().to_canonical().is_loopback();
    if !is_loopback && rules.allowed_hosts.is_empty() {
        return Ok(());
    }
    if hosts.is_empty() && version < Version::HTTP_11 {
        // Older than the header, as are some probes; no browser speaks it.
        return Ok(());
    }
    let default_port = if local.is_tls { 443 } else { 80 };
    let is_port =
        |host: &Authority| host.port_u16().unwrap_or(default_port) == local.address.port();
    let is_allowed = |host: &Authority| {
        is_listed(host, &rules.allowed_hosts)
            || match ip_of(host) {
                Some(ip) if is_loopback => ip.is_loopback() && is_port(host),
                // An address is no name that somebody could point elsewhere.
                Some(_) => true,
                None => {
                    is_loopback && host.host().eq_ignore_ascii_case("localhost") && is_port(host)
                }
            }
    };
    match hosts.iter().find(|host| !is_allowed(host)) {
        Some(bad) => Err(status::host_refused(bad.as_str())),
        None if hosts.is_empty() => Err(status::host_refused("")),
        None => Ok(()),
    }
}

fn ip_of(host: &Authority) -> Option<IpAddr> {
    let text = host.host();
    let text = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    text.parse().ok().map(|ip: IpAddr| ip.to_canonical())
}

/// `name` means any port, `name:port` that one.
fn is_listed(host: &Authority, allowed: &[String]) -> bool {
    allowed.iter().any(|entry| {
        entry.eq_ignore_ascii_case(host.as_str()) || entry.eq_ignore_ascii_case(host.host())
    })
}

/// The origin to be told that it may read the answer, if it is not our own.
fn check_origin(
    head: &Parts,
    hosts: &[Authority],
    local: Local,
    rules: &Http,
) -> Result<Option<HeaderValue>, Failure> {
    let mut origins = head.headers.get_all(header::ORIGIN).iter();
    let (Some(origin), None) = (origins.next(), origins.next()) else {
        if head.headers.contains_key(header::ORIGIN) {
            return Err(status::origin_refused("more than one"));
        }
        return check_site(head).map(|()| None);
    };
    let text = origin.to_str().unwrap_or_default();
    if is_same_origin(text, hosts, local) {
        return Ok(None);
    }
    if rules.cors_origins.iter().any(|listed| listed == "*") {
        return Ok(Some(HeaderValue::from_static("*")));
    }
    if rules.cors_origins.iter().any(|listed| listed.eq_ignore_ascii_case(text)) {
        return Ok(Some(origin.clone()));
    }
    Err(status::origin_refused(text))
}

/// Whether the page comes from the very host and port that it asks.
fn is_same_origin(origin: &str, hosts: &[Authority], local: Local) -> bool {
    let (rest, default_port) = match origin.split_once("://") {
        // A proxy before us may have TLS where we have none, and not the other way round.
        Some(("http", rest)) if !local.is_tls => (rest, 80),
        Some(("https", rest)) => (rest, 443),
        _ => return false,
    };
    let Ok(origin) = rest.parse::<Authority>() else { return false };
    let port = |host: &Authority| host.port_u16().unwrap_or(default_port);
    !hosts.is_empty()
        && hosts.iter().all(|host| {
            host.host().eq_ignore_ascii_case(origin.host()) && port(host) == port(&origin)
        })
}

/// Requests that browsers send without an origin: images, scripts, forms that only ask. `same-site`
/// is another port of the same name, and so another program. A link that is followed is no read:
/// the page that has it sees nothing of where it leads.
fn check_site(head: &Parts) -> Result<(), Failure> {
    let value = |name| head.headers.get(name).and_then(|value| value.to_str().ok());
    let Some(site) = head.headers.get(SEC_FETCH_SITE) else { return Ok(()) };
    let is_ours = matches!(site.to_str(), Ok("same-origin" | "none"));
    let is_link = matches!(head.method, Method::GET | Method::HEAD)
        && value(SEC_FETCH_MODE) == Some("navigate")
        && value(SEC_FETCH_DEST) == Some("document");
    if is_ours || is_link { Ok(()) } else { Err(status::origin_refused("another site")) }
}

impl Granted {
    /// The answer to a browser that asks before it sends, if this is such a question.
    pub(crate) fn preflight(&self, head: &Parts) -> Option<Response<Body>> {
        let asks = head.headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        if self.origin.is_none() || head.method != Method::OPTIONS || !asks {
            return None;
        }
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        let fixed = HeaderValue::from_static;
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, fixed(METHODS));
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, fixed(MAX_AGE));
        // A listed origin may send what it likes: metadata of calls has any name.
        if let Some(wanted) = head.headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
        }
        self.mark(headers);
        headers.append(header::VARY, fixed("access-control-request-method"));
        headers.append(header::VARY, fixed("access-control-request-headers"));
        Some(response)
    }

    /// Says to the browser what its page may read.
    pub(crate) fn mark(&self, headers: &mut HeaderMap) {
        if self.is_native {
            return;
        }
        vary(headers);
        // What is asked of a log is another thing a moment later.
        headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if let Some(origin) = &self.origin {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            let exposed = HeaderValue::from_static(EXPOSED);
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
        }
    }
}

/// Tells caches that another origin gets another answer.
pub(crate) fn vary(headers: &mut HeaderMap) {
    headers.append(header::VARY, HeaderValue::from_static("origin"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::http::Request;

    const LOCAL: &str = "127.0.0.1:50051";

    fn at(address: &str) -> Local {
        Local { address: address.parse().unwrap(), is_tls: false }
    }

    fn head(method: &str, uri: &str, version: Version, headers: &[(&'static str, &str)]) -> Parts {
        let mut request = Request::builder().method(method).uri(uri).version(version);
        for &(name, value) in headers {
            request = request.header(name, value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn rules(origins: &[&str], hosts: &[&str]) -> Http {
        let list = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
        Http { cors_origins: list(origins), allowed_hosts: list(hosts) }
    }

    /// What the answer says about the origin; `Err` = refused, with the reason.
    fn ask(local: &str, rules: &Http, headers: &[(&'static str, &str)]) -> Result<String, String> {
        let head = head("GET", "/v1/log", Version::HTTP_11, headers);
        told(check(&head, at(local), rules, false))
    }

    fn told(result: Result<Granted, Failure>) -> Result<String, String> {
        use tonic_types::StatusExt;
        match result {
            Ok(granted) => Ok(granted
                .origin
                .map_or(String::new(), |origin| origin.to_str().unwrap().to_owned())),
            Err(failure) => {
                let status = tonic::Status::from(failure);
                Err(status.get_details_error_info().unwrap().reason)
            }
        }
    }

    #[test]
    fn a_loopback_answers_to_its_own_names_alone() {
        let none = rules(&[], &[]);
        let host = |local: &str, rules: &Http, host: &str| ask(local, rules, &[("host", host)]);
        for good in [
            "localhost:50051",
            "LocalHost:50051",
            "127.0.0.1:50051",
            "[::1]:50051",
            "127.1.2.3:50051",
        ] {
            assert_eq!(host(LOCAL, &none, good), Ok(String::new()), "{good}");
        }
        for bad in [
            "evil.example:50051",
            "evil.example",
            "localhost",
            "localhost:80",
            "localhost:50052",
            "localhost.evil.example:50051",
            "127.0.0.1.evil.example:50051",
            "localhost.:50051",
            "192.0.2.1:50051",
        ] {
            assert_eq!(host(LOCAL, &none, bad), Err("HOST_REFUSED".to_owned()), "{bad}");
        }
        // None, two, or what is no host: whatever the address.
        let two = [("host", "localhost:50051"), ("host", "evil.example")];
        for local in [LOCAL, "192.0.2.1:81"] {
            for bad in ["user@localhost:50051", "local host", ""] {
                assert_eq!(host(local, &none, bad), Err("INVALID_FIELD".to_owned()), "{bad}");
            }
            for bad in [&[][..], &two] {
                assert_eq!(ask(local, &none, bad), Err("INVALID_FIELD".to_owned()), "{bad:?}");
            }
        }
        assert_eq!(host("127.0.0.1:80", &none, "localhost"), Ok(String::new()));
        assert_eq!(host("[::ffff:127.0.0.1]:9", &none, "[::1]:9"), Ok(String::new()));

        let some = rules(&[], &["log.example", "other.example:81"]);
        for (name, is_good) in [
            ("log.example", true),
            ("LOG.example:99", true),
            ("other.example:81", true),
            ("other.example:82", false),
            ("other.example", false),
            ("evil.example", false),
        ] {
            assert_eq!(host(LOCAL, &some, name).is_ok(), is_good, "{name}");
            // With a list the rule holds on every address.
            assert_eq!(host("192.0.2.1:81", &some, name).is_ok(), is_good, "{name}");
        }
        assert!(host("192.0.2.1:81", &some, "192.0.2.1:81").is_ok());
        assert!(host("192.0.2.1:81", &some, "localhost:81").is_err());
        assert!(host("192.0.2.1:81", &none, "anything.example").is_ok());
    }

    #[test]
    fn the_target_itself_counts_as_much_as_the_header() {
        let local = at(LOCAL);
        let none = rules(&[], &[]);
        let go = |uri: &str, version, headers: &[(&'static str, &str)]| {
            told(check(&head("GET", uri, version, headers), local, &none, false))
        };
        let (v1, v2) = (Version::HTTP_11, Version::HTTP_2);
        assert!(go("http://localhost:50051/x", v2, &[]).is_ok());
        assert!(go("http://evil.example:50051/x", v2, &[]).is_err());
        assert!(go("http://localhost:50051/x", v2, &[("host", "evil.example")]).is_err());
        assert!(go("http://evil.example/x", v1, &[("host", "localhost:50051")]).is_err());
        assert!(go("/x", Version::HTTP_10, &[]).is_ok());
        assert!(go("/x", Version::HTTP_10, &[("host", "evil.example")]).is_err());
    }

    #[test]
    fn only_our_own_pages_and_listed_ones_may_ask() {
        let none = rules(&[], &[]);
        let list = rules(&["https://app.example", "http://localhost:3000"], &[]);
        let all = rules(&["*"], &[]);
        let ours = ("host", "localhost:50051");
        let go = |rules: &Http, origin: &str| ask(LOCAL, rules, &[ours, ("origin", origin)]);
        for own in ["http://localhost:50051", "https://localhost:50051", "http://LOCALHOST:50051"] {
            assert_eq!(go(&none, own), Ok(String::new()), "{own}");
        }
        for foreign in [
            "https://app.example",
            "http://localhost:3000",
            "http://localhost",
            "http://127.0.0.1:50051",
            "http://localhost.evil.example:50051",
            "ftp://localhost:50051",
            "localhost:50051",
            "null",
            "",
        ] {
            assert_eq!(go(&none, foreign), Err("ORIGIN_REFUSED".to_owned()), "{foreign}");
            assert_eq!(go(&all, foreign), Ok("*".to_owned()), "{foreign}");
            let listed = foreign == "https://app.example" || foreign == "http://localhost:3000";
            let expected =
                if listed { Ok(foreign.to_owned()) } else { Err("ORIGIN_REFUSED".to_owned()) };
            assert_eq!(go(&list, foreign), expected, "{foreign}");
        }
        let two = [ours, ("origin", "http://localhost:50051"), ("origin", "null")];
        assert!(ask(LOCAL, &all, &two).is_err());
        // Behind something that ends TLS, under a name of its own.
        let named = rules(&[], &["log.example"]);
        let behind = [("host", "log.example"), ("origin", "https://log.example")];
        assert_eq!(ask(LOCAL, &named, &behind), Ok(String::new()));
        // A listed origin does not make up for a foreign name.
        let rebound = [("host", "evil.example:50051"), ("origin", "http://evil.example:50051")];
        assert_eq!(ask(LOCAL, &all, &rebound), Err("HOST_REFUSED".to_owned()));
    }

    #[test]
    fn what_a_browser_sends_without_an_origin_is_told_by_its_site() {
        let none = rules(&[], &[]);
        let go = |extra: &[(&'static str, &str)]| {
            let mut headers = vec![("host", "localhost:50051")];
            headers.extend(extra);
            ask(LOCAL, &none, &headers).is_ok()
        };
        assert!(go(&[]));
        for (site, is_good) in
            [("none", true), ("same-origin", true), ("same-site", false), ("cross-site", false)]
        {
            assert_eq!(go(&[(SEC_FETCH_SITE, site)]), is_good, "{site}");
        }
        let link = |mode, dest| {
            go(&[(SEC_FETCH_SITE, "cross-site"), (SEC_FETCH_MODE, mode), (SEC_FETCH_DEST, dest)])
        };
        assert!(link("navigate", "document"));
        assert!(!link("navigate", "iframe"));
        assert!(!link("no-cors", "image"));
    }

    #[test]
    fn native_calls_are_free_until_a_browser_is_behind_them() {
        let none = rules(&[], &[]);
        let go = |headers: &[(&'static str, &str)]| {
            let head = head("POST", "http://anything/x.Y/Z", Version::HTTP_2, headers);
            told(check(&head, at(LOCAL), &none, true))
        };
        assert!(go(&[]).is_ok());
        assert!(go(&[("origin", "http://evil.example")]).is_err());
        assert!(go(&[(SEC_FETCH_SITE, "cross-site")]).is_err());
    }

    #[test]
    fn with_tls_the_port_that_is_not_said_and_the_scheme_are_its_own() {
        let local = |is_tls| Local { address: "127.0.0.1:443".parse().unwrap(), is_tls };
        let none = rules(&[], &[]);
        let ask = |is_tls, origin: &str| {
            let headers = [("host", "localhost"), ("origin", origin)];
            let head = head("GET", "/", Version::HTTP_11, &headers);
            told(check(&head, local(is_tls), &none, false))
        };
        assert_eq!(ask(true, "https://localhost"), Ok(String::new()));
        assert_eq!(ask(true, "http://localhost"), Err("ORIGIN_REFUSED".to_owned()));
        assert_eq!(ask(false, "https://localhost"), Err("HOST_REFUSED".to_owned()));
    }
}
