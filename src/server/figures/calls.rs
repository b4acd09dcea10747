//! Request counters: gRPC calls by method and code, plain HTTP by route and status.
//!
//! Unknown methods and routes are counted under `other`, however many names clients invent.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;
use tonic::body::Body;
use tonic::{Code, Status};

use super::histogram::{Buckets, Histogram};
use tailmark_wire::code;
use tailmark_wire::methods::{self, Asked};

/// Where those are counted that have no place in the table: of a service that is served, and others.
const UNKNOWN: usize = methods::COUNT;
const OTHER: usize = UNKNOWN + 1;
/// The route of what no route takes.
const OTHER_ROUTE: &str = "other";
/// Routes and statuses that are told apart; ours are far fewer.
const MAX_ROUTES: usize = 1_000;

/// From a quarter of a millisecond to half a minute, in microseconds.
const BOUNDS: [u64; 11] =
    [250, 500, 1_000, 2_500, 5_000, 10_000, 50_000, 250_000, 1_000_000, 5_000_000, 30_000_000];

/// Counts requests.
#[derive(Debug)]
pub(crate) struct Calls {
    methods: [MethodCounters; OTHER + 1],
    routes: Mutex<BTreeMap<Route, u64>>,
}

/// A route as it is declared, and a status.
type Route = (Arc<str>, u16);

#[derive(Debug)]
struct MethodCounters {
    label: &'static str,
    started: AtomicU64,
    handled: [AtomicU64; code::ALL.len()],
    /// Of methods with one answer.
    seconds: Option<Histogram>,
}

/// What has been counted of one method.
#[derive(Clone, Debug)]
pub(super) struct MethodCount {
    pub(super) method: &'static str,
    pub(super) started: u64,
    /// By code, without those that never came.
    pub(super) handled: Vec<(&'static str, u64)>,
    /// Of methods with one answer.
    pub(super) seconds: Option<Buckets>,
}

impl Default for Calls {
    fn default() -> Self {
        let mut known = methods::all();
        let methods = std::array::from_fn(|at| {
            let (label, is_unary) = match known.next() {
                Some(method) => (method.path, method.is_unary()),
                None if at == UNKNOWN => ("unknown", true),
                None => ("other", true),
            };
            MethodCounters {
                label,
                started: AtomicU64::new(0),
                handled: [const { AtomicU64::new(0) }; code::ALL.len()],
                seconds: is_unary.then(|| Histogram::new(&BOUNDS)),
            }
        });
        Calls { methods, routes: Mutex::default() }
    }
}

impl Calls {
    /// Expects a request at the services and routes: one that is answered before it reaches them is
    /// counted by [`Expected::answered`].
    pub(crate) fn expect(
        self: &Arc<Self>,
        path: &str,
        extensions: &mut http::Extensions,
    ) -> Expected {
        let came = Came::default();
        extensions.insert(came.clone());
        Expected { calls: Arc::clone(self), method: method_of(path), came }
    }

    /// Counts a call that the services are asked to answer; end it by [`UnderWay::answered`].
    pub(crate) fn begin(self: &Arc<Self>, path: &str, extensions: &http::Extensions) -> UnderWay {
        came(extensions);
        UnderWay::begin(self, method_of(path))
    }

    fn answered(&self, route: Option<&str>, status: u16) {
        let mut routes = self.routes.lock();
        let is_full = routes.len() >= MAX_ROUTES;
        let route = route.filter(|_| !is_full).unwrap_or(OTHER_ROUTE);
        *routes.entry((Arc::from(route), status)).or_default() += 1;
    }

    pub(super) fn methods(&self) -> Vec<MethodCount> {
        let count = |method: &MethodCounters| MethodCount {
            method: method.label,
            started: method.started.load(Ordering::Relaxed),
            handled: code::ALL
                .iter()
                .zip(&method.handled)
                .map(|(code, count)| (code::name(*code), count.load(Ordering::Relaxed)))
                .filter(|(_, count)| *count > 0)
                .collect(),
            seconds: method.seconds.as_ref().map(Histogram::buckets),
        };
        self.methods.iter().map(count).collect()
    }

    pub(super) fn routes(&self) -> Vec<(Route, u64)> {
        let routes = self.routes.lock();
        routes
            .iter()
            .map(|((route, status), count)| ((Arc::clone(route), *status), *count))
            .collect()
    }
}

/// Whether a request has come to the services and routes; travels as its extension.
#[derive(Clone, Debug, Default)]
struct Came(Arc<AtomicBool>);

/// A request that has not been answered yet.
#[derive(Debug)]
pub(crate) struct Expected {
    calls: Arc<Calls>,
    method: usize,
    came: Came,
}

impl Expected {
    /// Counts the answer, unless the request came where it is counted.
    pub(crate) fn answered<B>(self, answer: &http::Response<B>) {
        if self.came.0.load(Ordering::Relaxed) {
            return;
        }
        match code_of(answer.headers()) {
            Some(code) => UnderWay::begin(&self.calls, self.method).end(code),
            None => self.calls.answered(None, answer.status().as_u16()),
        }
    }
}

/// Counts what reaches the routes of plain HTTP; a layer around them.
pub(crate) async fn count(
    State(calls): State<Arc<Calls>>,
    request: Request,
    next: Next,
) -> Response {
    if came(request.extensions()) {
        // A call that comes to a route: counted as a call.
        return next.run(request).await;
    }
    let route = request.extensions().get::<MatchedPath>().cloned();
    let response = next.run(request).await;
    calls.answered(route.as_ref().map(MatchedPath::as_str), response.status().as_u16());
    response
}

/// The request has come to where it is counted; answers whether it had before.
fn came(extensions: &http::Extensions) -> bool {
    extensions.get::<Came>().is_some_and(|came| came.0.swap(true, Ordering::Relaxed))
}

fn method_of(path: &str) -> usize {
    match Asked::of(path) {
        Asked::Method(at, _) => at,
        // With more behind it than a name it is none of a method.
        Asked::Unknown { .. } if path.matches('/').count() == 2 => UNKNOWN,
        Asked::Unknown { .. } | Asked::Other => OTHER,
    }
}

fn code_of(headers: &HeaderMap) -> Option<Code> {
    headers.get(Status::GRPC_STATUS).map(|value| Code::from_bytes(value.as_bytes()))
}

/// A call that is being handled. Dropped before it has ended, it was cut or given up.
#[derive(Debug)]
pub(crate) struct UnderWay {
    calls: Arc<Calls>,
    method: usize,
    began: Instant,
    code: Code,
}

impl UnderWay {
    fn begin(calls: &Arc<Calls>, method: usize) -> Self {
        calls.methods[method].started.fetch_add(1, Ordering::Relaxed);
        let calls = Arc::clone(calls);
        UnderWay { calls, method, began: Instant::now(), code: Code::Cancelled }
    }

    fn end(mut self, code: Code) {
        self.code = code;
    }

    /// Counts its answer: at once where the head tells the code, else at its end.
    pub(crate) fn answered(self, response: http::Response<Body>) -> http::Response<Body> {
        match code_of(response.headers()) {
            Some(code) => {
                self.end(code);
                response
            }
            None => response.map(|inner| Body::new(Counted { inner, call: Some(self) })),
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let method = &self.calls.methods[self.method];
        if let Some(count) = method.handled.get(self.code as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(seconds) = &method.seconds {
            seconds.observe(self.began.elapsed());
        }
    }
}

/// An answer whose end tells the code.
struct Counted {
    inner: Body,
    /// Absent once it has ended.
    call: Option<UnderWay>,
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(code) = frame.trailers_ref().and_then(code_of)
            && let Some(call) = self.call.take()
        {
            call.end(code);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_is_counted_under_its_path() {
        let calls = Calls::default();
        for (method, count) in methods::all().zip(calls.methods()) {
            assert_eq!(count.method, method.path);
            assert_eq!(count.seconds.is_some(), method.is_unary(), "{}", method.path);
        }
        let rest: Vec<_> = calls.methods()[methods::COUNT..].iter().map(|it| it.method).collect();
        assert_eq!(rest, ["unknown", "other"]);
    }

    #[test]
    fn what_is_not_ours_is_one_method_and_one_route() {
        let calls = Arc::new(Calls::default());
        for n in 0..2_000u16 {
            assert_eq!(method_of(&format!("/a.B{n}/C")), OTHER);
            assert_eq!(method_of(&format!("/feed.v1.FeedService/No{n}")), UNKNOWN);
            calls.answered(None, 404);
            calls.answered(Some(&format!("/declared/{n}")), 200);
        }
        assert!(calls.routes().len() <= MAX_ROUTES + 1);
        assert_eq!(calls.routes().iter().map(|(_, count)| count).sum::<u64>(), 4_000);
    }

    #[test]
    fn a_call_that_is_dropped_was_cancelled() {
        let calls = Arc::new(Calls::default());
        drop(UnderWay::begin(&calls, 0));
        UnderWay::begin(&calls, 0).end(Code::NotFound);
        let watch = &calls.methods()[0];
        assert_eq!(
            (watch.started, &watch.handled[..]),
            (2, &[("CANCELLED", 1), ("NOT_FOUND", 1)][..])
        );
    }
}
