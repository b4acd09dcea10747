//! One request and its answer: what it is, whether it may be asked, who answers it, and what is put on
//! the answer on its way out.
//!
//! The future of a request is moved several times on its way into a task of its own, and allocated for it:
//! it is kept small. What is rarely asked is boxed.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ::http::request::Parts;
use ::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header};
use bytes::Bytes;
use hyper::body::Incoming;
use tokio::time::Instant;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::{Code, Status};
use tower::Service;

use crate::server::figures::{Expected, UnderWay};
use crate::server::principal::Caller;
use crate::server::quotas::Peer;
use crate::server::rpc::classify::{self, Answering, Call, GRPC_ENCODING, Kind, PAGE_BYTES};
use crate::server::rpc::{status, web};
use crate::server::tls::ClientCertificate;
use crate::server::transport::access::{self, Granted, Local};
use crate::server::transport::answer::{Answer, Ends, Weight};
use crate::server::transport::body::{Framing, Kept, Limited};
use crate::server::transport::coders::Coders;
use crate::server::transport::drain::Drained;
use crate::server::transport::ending::Endings;
use crate::server::transport::greeting::Hello;
use crate::server::transport::http1::HalfClosed;
use crate::server::transport::serving::Serving;
use crate::server::transport::{date, framing, packed, streams};
use tailmark_wire::methods::Asked;

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type BoxAnswer = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

/// Time after its deadline that a call has to say so, before its stream is reset.
const CUT_SLACK: Duration = Duration::from_secs(2);

/// What a request is answered with: its connection, and what the connection is served with.
#[derive(Clone)]
pub(crate) struct RequestContext {
    peer: Peer,
    pub(super) local: Local,
    /// What the client has shown.
    certificate: Option<ClientCertificate>,
    serving: Arc<Serving>,
    /// Of a connection of HTTP/1.1.
    pub(super) half_closed: Option<HalfClosed>,
}

impl RequestContext {
    /// Of a connection that was greeted; `None` where it is gone.
    pub(crate) fn new(peer: Peer, hello: &Hello, serving: &Arc<Serving>) -> Option<RequestContext> {
        let stream = hello.stream.inner();
        let local = Local { address: stream.tcp().local_addr().ok()?, is_tls: stream.is_tls() };
        Some(RequestContext {
            peer,
            local,
            certificate: hello.certificate.clone(),
            serving: Arc::clone(serving),
            half_closed: None,
        })
    }
}

/// A request on its way to its answer.
pub(crate) struct Exchange {
    step: Step,
    /// Absent before it is begun, and once it is answered.
    rest: Option<Rest>,
}

/// How far it is.
enum Step {
    /// Not begun: what looks at the stream's own task has to run on it.
    Asked(Request<Incoming>, RequestContext),
    /// Answered at once.
    Ready(Response<Body>),
    Call(Calling),
    Other(BoxAnswer),
    Over,
}

/// What is put on an answer, and what is said of it.
struct Rest {
    peer: SocketAddr,
    method: Method,
    uri: Uri,
    version: Version,
    expected: Expected,
    granted: Option<Granted>,
    asked: Option<Arc<AtomicBool>>,
}

/// Answers a request.
pub(crate) fn respond(request: Request<Incoming>, context: RequestContext) -> Exchange {
    Exchange { step: Step::Asked(request, context), rest: None }
}

fn begin_with(request: Request<Incoming>, context: RequestContext) -> (Step, Rest) {
    let (mut head, body) = request.into_parts();
    let expected = context.serving.calls.expect(head.uri.path(), &mut head.extensions);
    if let Some(half_closed) = &context.half_closed {
        half_closed.wait_until(None);
        head.extensions.insert(half_closed.clone());
    }
    if let Some(certificate) = &context.certificate {
        head.extensions.insert(certificate.clone());
    }
    let mut rest = Rest {
        peer: context.peer.address,
        method: head.method.clone(),
        uri: head.uri.clone(),
        version: head.version,
        expected,
        granted: None,
        asked: None,
    };
    let step = answer(head, body, context, &mut rest);
    (step, rest)
}

impl Future for Exchange {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if matches!(this.step, Step::Asked(..))
            && let Step::Asked(request, context) = std::mem::replace(&mut this.step, Step::Over)
        {
            let (step, rest) = begin_with(request, context);
            (this.step, this.rest) = (step, Some(rest));
        }
        let response = match &mut this.step {
            Step::Call(calling) => ready!(Pin::new(calling).poll(cx)),
            Step::Other(other) => ready!(other.as_mut().poll(cx)),
            Step::Ready(_) | Step::Asked(..) | Step::Over => {
                match std::mem::replace(&mut this.step, Step::Over) {
                    Step::Ready(response) => response,
                    // Nobody polls it after its end.
                    _ => return Poll::Pending,
                }
            }
        };
        this.step = Step::Over;
        match this.rest.take() {
            Some(rest) => Poll::Ready(Ok(rest.put_on(response))),
            None => Poll::Ready(Ok(response)),
        }
    }
}

impl Rest {
    fn put_on(self, mut response: Response<Body>) -> Response<Body> {
        let Rest { peer, method, uri, version, expected, granted, asked } = self;
        if let Some(granted) = granted {
            granted.mark(response.headers_mut());
        }
        close_unless(asked.as_deref(), &mut response);
        let mut response = without_wrong_length(response, &method);
        date::add(response.headers_mut());
        expected.answered(&response);
        let status = response.status().as_u16();
        tracing::debug!(%peer, %method, path = uri.path(), ?version, status, "request");
        response
    }
}

/// RFC 9110, sections 8.6 and 9.3.2: HEAD and 304 have no body, and no length but that of the answer
/// with one. The router takes out the bodies that it answers itself, hyper all of HTTP/1.1.
fn without_wrong_length(mut response: Response<Body>, method: &Method) -> Response<Body> {
    if response.status() == StatusCode::NOT_MODIFIED {
        response.headers_mut().remove(header::CONTENT_LENGTH);
    }
    if method != Method::HEAD {
        return response;
    }
    // One that is empty may have been left out before.
    let len = http_body::Body::size_hint(response.body()).exact().filter(|len| *len > 0);
    if let Some(len) = len {
        response.headers_mut().entry(header::CONTENT_LENGTH).or_insert(HeaderValue::from(len));
    }
    response.map(|_| Body::empty())
}

fn answer(head: Parts, body: Incoming, context: RequestContext, rest: &mut Rest) -> Step {
    if let Some(refusal) = framing::refused(&head) {
        return Step::Ready(refusal);
    }
    let is_native = classify::is_native(&head);
    let body = Drained::new(body, &head);
    rest.asked = body.asked();
    let access = context.serving.access.get();
    let granted = match access::check(&head, context.local, &access, is_native) {
        Ok(granted) => granted,
        Err(failure) => {
            let mut response = status::respond(&failure.into());
            access::vary(response.headers_mut());
            return Step::Ready(response);
        }
    };
    if let Some(response) = granted.preflight(&head) {
        rest.asked = None;
        return Step::Ready(response);
    }
    rest.granted = Some(granted);
    match classify::admit(&head, &context.serving.options) {
        Err(refusal) => Step::Ready(*refusal),
        // Clients of gRPC take an answer at any time.
        Ok(Kind::Grpc(call)) if call.answer == Answering::Large => {
            Step::Other(match body.into_inner() {
                Some(body) => Box::pin(large(Request::from_parts(head, body), call, context)),
                None => Box::pin(large(Request::from_parts(head, Body::empty()), call, context)),
            })
        }
        Ok(Kind::Grpc(call)) => Step::Call(match body.into_inner() {
            Some(body) => begin(Request::from_parts(head, body), call, context, None),
            None => begin(Request::from_parts(head, Body::empty()), call, context, None),
        }),
        Ok(Kind::Web(call, encoding)) => {
            // It may be done at the end of that time, and its client must hear of it.
            if let (Some(half_closed), true) = (&context.half_closed, call.is_unary) {
                half_closed.wait_until(call.deadline.of_client().map(|at| at + CUT_SLACK));
            }
            let request = Request::from_parts(head, body);
            let answer = move |request| large(request, call, context.clone());
            Step::Other(Box::pin(web::call(request, encoding, answer)))
        }
        Ok(Kind::Plain) => Step::Other(Box::pin(plain(Request::from_parts(head, body), context))),
    }
}

/// Ends a connection whose client waits to be asked for the body: now it may send it or not.
fn close_unless(asked: Option<&AtomicBool>, response: &mut Response<Body>) {
    if asked.is_some_and(|asked| !asked.load(Ordering::Relaxed)) {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
}

/// A call that the services answer.
struct Calling {
    answered: <Routes as Service<Request<Body>>>::Future,
    call: Call,
    /// Absent once it is answered.
    counted: Option<UnderWay>,
    /// Its path, where it is none of our methods.
    unknown: Option<Box<str>>,
    serving: Arc<Serving>,
    version: Version,
    weight: Option<Weight>,
    /// Of a call whose answer is compressed.
    coders: Option<Box<Coders>>,
}

/// Answers a call once there is room for an answer of its size.
async fn large<B>(request: Request<B>, call: Call, context: RequestContext) -> Response<Body>
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    let weight = match call.answer {
        Answering::Large => {
            let bytes = PAGE_BYTES.max(context.serving.event_bytes);
            let by = call.deadline.or(context.serving.options.unary_deadline);
            match Weight::reserve(context.peer.line(), bytes, by).await {
                Some(weight) => Some(weight),
                None => return Status::from(status::deadline()).into_http(),
            }
        }
        Answering::Short | Answering::Watch | Answering::Stream => None,
    };
    begin(request, call, context, weight).await
}

/// Hands a call to the services.
fn begin<B>(
    request: Request<B>,
    call: Call,
    context: RequestContext,
    weight: Option<Weight>,
) -> Calling
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    let RequestContext { peer, serving, .. } = context;
    let path = request.uri().path();
    let unknown = (!matches!(Asked::of(path), Asked::Method(..))).then(|| path.into());
    let counted = Some(serving.calls.begin(path, request.extensions()));
    let version = request.version();
    let (message_bytes, asks) = call.asks.message_bytes(&serving.options, serving.event_bytes);
    let framing = Framing { message_bytes, asks, one_by: call.message_by, is_ours: call.is_ours };
    let kept = call.is_unary.then(Kept::default);
    let arrival = serving.arrivals.arrival();
    let coders =
        call.coding.map(|_| Coders { quotas: Arc::clone(&serving.quotas), peer: peer.clone() });
    let mut request = request.map(|body| {
        let body = Limited::new(body, framing, arrival, kept.clone());
        match call.coding.zip(coders.clone()) {
            Some((coding, coders)) => body.unpacked(coding, coders),
            None => body,
        }
    });
    let coders = coders.filter(|_| call.answer_coding.is_some() && call.is_ours).map(Box::new);
    if let Some(kept) = kept {
        request.extensions_mut().insert(kept);
    }
    let is_stream = call.answer == Answering::Stream;
    let weight = weight.or_else(|| is_stream.then(|| Weight::of_stream(peer.line())));
    request.extensions_mut().insert(peer);
    request.extensions_mut().insert(call.deadline);
    // What is compressed is made what it was before tonic sees it.
    request.headers_mut().remove(GRPC_ENCODING);
    streams::cut_at(call.deadline.of_client().map(|at| at + CUT_SLACK));
    let answered = serving.routes.clone().call(request);
    Calling { answered, call, counted, unknown, serving, version, weight, coders }
}

impl Future for Calling {
    type Output = Response<Body>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Response<Body>> {
        let Ok(response) = ready!(Pin::new(&mut self.answered).poll(cx));
        let response = match self.counted.take() {
            Some(counted) => counted.answered(response),
            None => response,
        };
        Poll::Ready(self.wrap(response))
    }
}

impl Calling {
    fn wrap(&mut self, response: Response<Body>) -> Response<Body> {
        let (call, serving, weight) = (&self.call, &self.serving, self.weight.take());
        if let Some(path) = self.unknown.as_ref().filter(|_| is_unknown(response.headers())) {
            return status::unknown_method(path).into_http();
        }
        let response = match call.answer_coding.zip(self.coders.take()) {
            Some((coding, coders)) => packed::pack(response, coding, *coders, call.answer),
            None => response,
        };
        let ends = call.is_builtin.then(|| Ends {
            // Whose credential it was is known further in (`auth/guard.rs`).
            endings: Endings::new(call.deadline.of_client(), &serving.stop, Caller::anyone()),
            retry_delay: serving.options.retry_delay,
        });
        let is_cut = call.deadline.of_client().is_some();
        // Over HTTP/1.1 the connection outlives the answer. Made only where it is wanted: dropping it acts.
        let spare = (is_cut && self.version != Version::HTTP_2).then(|| streams::Spare);
        Answer::wrap(response, ends, weight, spare)
    }
}

/// Answers what is no call.
async fn plain(mut request: Request<Drained>, context: RequestContext) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let line = context.peer.line().clone();
    request.extensions_mut().insert(context.peer);
    let weight = match classify::answer_bytes(&path, context.serving.event_bytes) {
        None => None,
        Some(bytes) => {
            let by = Instant::now() + context.serving.options.unary_deadline;
            match Weight::reserve(&line, bytes, by).await {
                Some(weight) => Some(weight),
                None => return status::respond(&status::deadline().into()),
            }
        }
    };
    let Ok(response) = context.serving.routes.clone().call(request).await;
    // What answers as gRPC answers nobody else.
    let is_grpc = response.headers().contains_key(Status::GRPC_STATUS);
    if is_grpc { not_found(&path) } else { Answer::wrap(response, None, weight, None) }
}

/// What answers to a path that nobody has.
fn not_found(path: &str) -> Response<Body> {
    if path == "*" {
        // `OPTIONS *` asks whether the server is there at all.
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        return response;
    }
    status::no_path(path)
}

/// Whether the services answered that they have no such method: their own words say more.
fn is_unknown(headers: &HeaderMap) -> bool {
    let unimplemented = HeaderValue::from(i32::from(Code::Unimplemented));
    headers.get(Status::GRPC_STATUS) == Some(&unimplemented)
        && !headers.contains_key(Status::GRPC_STATUS_DETAILS)
}
