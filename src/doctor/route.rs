//! From a name to who answers there: what lies below the calls.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use http::Uri;
use serde_json::{Value, json};
use tailmark_client::look::{self, Look};
use tailmark_client::{Tls, TlsProblem};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::page::{self, Page};
use super::{Hints, PATIENCE, Report, Step, Verdict};
use crate::certificate::{Certificate, time_text};

/// From so long before its end on a certificate is told about.
const ENDS_SOON: Duration = Duration::from_secs(14 * 86_400);
/// By so much two clocks may differ.
const CLOCK_SLACK_S: i64 = 30;

/// Where a URL leads.
pub(super) struct Target {
    is_tls: bool,
    host: String,
    port: u16,
    /// As a request names it.
    authority: String,
}

impl Target {
    pub(super) fn of(uri: &Uri) -> Option<Target> {
        let is_tls = uri.scheme_str() == Some("https");
        let authority = uri.authority()?;
        let port = authority.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        Some(Target { is_tls, host, port, authority: authority.to_string() })
    }
}

/// The way to it.
pub(super) struct Route<'a> {
    pub(super) target: Target,
    pub(super) tls: Tls,
    pub(super) hints: &'a Hints,
}

impl Route<'_> {
    /// Goes it; whether calls can be made over it.
    pub(super) async fn walk<T: FnMut(Step)>(&self, report: &mut Report<T>) -> bool {
        let addresses = match self.resolve().await {
            Ok((step, addresses)) => {
                report.tell(step);
                addresses
            }
            Err(step) => return report.tell(step),
        };
        let (step, reached) = self.reach(&addresses).await;
        let (true, Some(address)) = (report.tell(step), reached) else { return false };
        if !report.tell(self.shake(address).await) {
            return false;
        }
        let begun = SystemTime::now();
        let (step, page) = self.ask(address).await;
        let goes_on = report.tell(step);
        if let Some(step) = page.as_ref().and_then(|page| clock(page, begun, SystemTime::now())) {
            report.tell(step);
        }
        if goes_on && page.is_some_and(|page| page.status == 200) {
            report.tell(self.ready(address).await);
        }
        goes_on
    }

    async fn resolve(&self) -> Result<(Step, Vec<SocketAddr>), Step> {
        let Target { host, port, .. } = &self.target;
        let failed = |why: String| {
            Step::new("name", Verdict::Failure, format!("{host} has no address: {why}"))
                .hint("check the spelling, /etc/hosts and the name server (`getent hosts NAME`)")
        };
        let found = timeout(PATIENCE, tokio::net::lookup_host((host.as_str(), *port))).await;
        let found = found.map_err(|_| failed("no answer in time".to_owned()))?;
        let addresses: Vec<_> = found.map_err(|error| failed(error.to_string()))?.collect();
        if addresses.is_empty() {
            return Err(failed("the answer is empty".to_owned()));
        }
        let ips: Vec<_> = addresses.iter().map(|address| address.ip().to_string()).collect();
        let text = format!("{host} is {}", ips.join(", "));
        Ok((Step::new("name", Verdict::Ok, text).fact("addresses", ips), addresses))
    }

    /// The first address at which somebody listens; a client takes the same.
    async fn reach(&self, addresses: &[SocketAddr]) -> (Step, Option<SocketAddr>) {
        let mut silent = Vec::new();
        for &address in addresses {
            let begun = Instant::now();
            let why = match timeout(PATIENCE, TcpStream::connect(address)).await {
                Ok(Ok(_)) => {
                    let ms = begun.elapsed().as_secs_f64() * 1e3;
                    let verdict = if silent.is_empty() { Verdict::Ok } else { Verdict::Warning };
                    let text = format!("{address} answers in {ms:.1} ms");
                    let text = [silent, vec![text]].concat().join("; ");
                    let step = Step::new("tcp", verdict, text);
                    return (
                        step.fact("address", address.to_string()).fact("ms", ms),
                        Some(address),
                    );
                }
                Ok(Err(error)) => error,
                Err(_) => io::Error::from(io::ErrorKind::TimedOut),
            };
            silent.push(format!("{address}: {why}"));
        }
        let step = Step::new("tcp", Verdict::Failure, silent.join("; "));
        let hint = "refused: nothing listens there (is the daemon running, and on that address and \
                    port?); no answer: a firewall, or a machine that is down";
        (step.hint(hint), None)
    }

    async fn shake(&self, address: SocketAddr) -> Step {
        if !self.target.is_tls {
            return Step::new("tls", Verdict::Ok, "none is asked for (http://)");
        }
        let shaken = self.look(address, &["h2", "http/1.1"]).await;
        let (step, chain) = match shaken {
            Err(failed) => (self.untrusted(failed), Vec::new()),
            Ok(Look { chain, outcome: Err(failed) }) => (self.untrusted(failed), chain),
            Ok(Look { chain, outcome: Ok(stream) }) => {
                let session = stream.get_ref().1;
                let version = session.protocol_version().map_or(String::new(), |version| {
                    format!("{version:?}").replace("TLSv1_", "TLS 1.")
                });
                let alpn = session.alpn_protocol().map(String::from_utf8_lossy);
                let step = match alpn.as_deref() {
                    Some("h2") => Step::new("tls", Verdict::Ok, format!("{version}, HTTP/2")),
                    Some(other) => {
                        let text = format!("{version}, but {other} and no HTTP/2 (ALPN)");
                        self.with_tls_hint(
                            Step::new("tls", Verdict::Failure, text),
                            TlsProblem::NoHttp2,
                        )
                    }
                    None => {
                        let text = format!("{version}; nobody says whether there is HTTP/2 (ALPN)");
                        self.with_tls_hint(
                            Step::new("tls", Verdict::Warning, text),
                            TlsProblem::NoHttp2,
                        )
                    }
                };
                let alpn = alpn.map(|alpn| alpn.into_owned());
                (step.fact("version", version).fact("alpn", alpn), chain)
            }
        };
        with_chain(step, &chain, SystemTime::now())
    }

    fn untrusted(&self, (problem, words): (Option<TlsProblem>, String)) -> Step {
        let step = Step::new("tls", Verdict::Failure, words);
        match problem {
            Some(problem) => self.with_tls_hint(step, problem),
            None => step.hint("the other side ended the handshake: is this the right port?"),
        }
    }

    fn with_tls_hint(&self, step: Step, problem: TlsProblem) -> Step {
        match (self.hints.of_tls)(problem) {
            Some(hint) => step.hint(hint),
            None => step,
        }
    }

    /// Connects and shakes hands.
    async fn look(
        &self,
        address: SocketAddr,
        protocols: &[&str],
    ) -> Result<Look, (Option<TlsProblem>, String)> {
        let name = &self.target.host;
        let looked = timeout(PATIENCE, async {
            let stream = TcpStream::connect(address).await.map_err(|error| look::words(&error))?;
            look::look(&self.tls, name, protocols, stream).await
        });
        looked
            .await
            .unwrap_or_else(|_| Err((None, "no answer to the handshake in time".to_owned())))
    }

    /// Asks by plain HTTP for what everybody may see, to learn who answers.
    async fn ask(&self, address: SocketAddr) -> (Step, Option<Page>) {
        let failed = |why: String| Step::new("http", Verdict::Failure, why);
        let page = match self.get(address, "/healthz").await {
            Ok(page) => page,
            Err(Some(error)) => {
                let (problem, words) = look::words(&error);
                let step = failed(format!("GET /healthz has no answer: {words}"));
                return match problem {
                    Some(problem) => (self.with_tls_hint(step, problem), None),
                    None => (step.hint("is this a tailmark server, and nothing else?"), None),
                };
            }
            Err(None) => return (failed("GET /healthz has no answer in time".to_owned()), None),
        };
        (self.judge(&page), Some(page))
    }

    /// A plain answer; no error where none came in time.
    async fn get(&self, address: SocketAddr, path: &str) -> Result<Page, Option<io::Error>> {
        let authority = &self.target.authority;
        let asked = timeout(PATIENCE, async {
            if !self.target.is_tls {
                return page::get(TcpStream::connect(address).await?, authority, path).await;
            }
            match self.look(address, &["http/1.1"]).await {
                Ok(Look { outcome: Ok(stream), .. }) => page::get(stream, authority, path).await,
                Ok(Look { outcome: Err((_, words)), .. }) | Err((_, words)) => {
                    Err(io::Error::other(words))
                }
            }
        });
        asked.await.map_err(|_| None)?.map_err(Some)
    }

    /// Whether events are taken.
    async fn ready(&self, address: SocketAddr) -> Step {
        let step = |verdict, text: String| Step::new("ready", verdict, text);
        match self.get(address, "/readyz").await {
            Ok(page) if page.status == 200 => {
                step(Verdict::Ok, "the server takes events".to_owned())
            }
            Ok(page) => {
                let said = page.message().map_or(String::new(), |said| format!(": {said}"));
                let text = format!("GET /readyz is answered {}{said}", page.status);
                step(Verdict::Warning, text)
                    .fact("status", page.status)
                    .fact("reason", page.reason())
            }
            Err(_) => step(Verdict::Warning, "GET /readyz has no answer".to_owned()),
        }
    }

    fn judge(&self, page: &Page) -> Step {
        if page.is_tls() || page.reason() == Some("TLS_REQUIRED") {
            let text = "the server speaks TLS at this port, and was asked without";
            return self
                .with_tls_hint(Step::new("http", Verdict::Failure, text), TlsProblem::Required);
        }
        let by = page.answered_by();
        let who = by.as_deref().map_or(String::new(), |by| format!(" ({by})"));
        let step = match (page.status, &by) {
            (200, _) if page.body.trim() != "ok" => {
                let text = format!("what answers is no tailmark server{who}");
                Step::new("http", Verdict::Failure, text).hint("--addr names another")
            }
            (200, None) => Step::new("http", Verdict::Ok, "the server answers itself"),
            (200, Some(by)) => {
                Step::new("http", Verdict::Ok, format!("a proxy passes it on: {by}"))
            }
            (status @ (502..=504), _) => {
                let text = format!("a proxy answers {status} in the server's place{who}");
                Step::new("http", Verdict::Failure, text)
                    .hint("the proxy cannot reach the server: is the daemon running behind it?")
            }
            (status, _) => {
                let said = page.message().map_or(String::new(), |said| format!(": {said}"));
                let text = format!("GET /healthz is answered {status}{who}{said}");
                Step::new("http", Verdict::Warning, text)
                    .hint("gRPC may work all the same; a proxy must pass on every path")
            }
        };
        step.fact("status", page.status).fact("answered_by", by)
    }
}

/// Adds what the server has shown.
fn with_chain(step: Step, chain: &[Vec<u8>], now: SystemTime) -> Step {
    let all: Vec<_> = chain.iter().filter_map(|der| Certificate::read(der).ok()).collect();
    let Some(own) = all.first() else { return step };
    // The one that ends first ends them all.
    let end = all.iter().map(Certificate::not_after).min().unwrap_or_else(|| own.not_after());
    let days = end.duration_since(now).unwrap_or_default().as_secs() / 86_400;
    let mut step = step;
    step.text = format!(
        "{}; for {}, by {}, until {}",
        step.text,
        own.hosts().join(", "),
        own.issuer(),
        time_text(end)
    );
    if step.verdict == Verdict::Ok && end < now + ENDS_SOON {
        step.verdict = Verdict::Warning;
        step = step.hint(format!("it expires in {days} days: the server needs a new one"));
    }
    let facts: Vec<Value> = all
        .iter()
        .map(|one| {
            json!({
                "subject": one.subject(), "issuer": one.issuer(), "hosts": one.hosts(),
                "not_before": time_text(one.not_before()), "not_after": time_text(one.not_after()),
            })
        })
        .collect();
    step.fact("chain", facts)
}

/// How far the other clock is from ours.
fn clock(page: &Page, begun: SystemTime, ended: SystemTime) -> Option<Step> {
    let theirs = page.date()?;
    let seconds = |time: SystemTime| {
        time.duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
    };
    // Between asking and answer it was right: then it is. It has whole seconds.
    let (theirs, from, to) = (seconds(theirs), seconds(begun), seconds(ended));
    let ahead = if theirs > to { theirs - to } else { (theirs - from).min(0) };
    let text = match ahead {
        0 => "the server's clock says the same as ours".to_owned(),
        ahead if ahead > 0 => format!("the server's clock is {ahead} s ahead of ours"),
        behind => format!("the server's clock is {} s behind ours", -behind),
    };
    let step = Step::new("clock", Verdict::Ok, text).fact("ahead_s", ahead);
    if ahead.abs() <= CLOCK_SLACK_S {
        return Some(step);
    }
    let step = Step { verdict: Verdict::Warning, ..step };
    Some(step.hint("set the one that is wrong (NTP): certificates and tokens expire by them"))
}
