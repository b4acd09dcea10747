//! Connections that are not served, as those over the limit: each request gets an answer that says
//! why, and the connection is closed.
//!
//! Bounded, so that a flood costs no more than the limit allows: of those over the limit few at a
//! time (`permits.rs`), a few seconds each, a few requests, next to no buffers, and no service is
//! reached.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::body::Body;

use crate::server::permits::OverLimit;
use crate::server::quotas::ConnectionGrant;
use crate::server::rpc::status::Failure;
use crate::server::rpc::{classify, status};
use crate::server::transport::exchange::{self, RequestContext};
use crate::server::transport::greeting::{self, Greeting, Hello};
use crate::server::transport::http1::{HalfClosed, Socket};
use crate::server::transport::preface::Protocol;
use crate::server::transport::serving::Serving;
use crate::server::transport::turns::Turns;
use crate::server::transport::{date, linger};

/// A connection is closed after this long, whatever it has said.
const LIFE: Duration = Duration::from_secs(5);
/// From the first answer on a connection of HTTP/2 to its end: a client that opened it for several
/// calls gets an answer to each.
const LINGER: Duration = Duration::from_millis(200);
/// What is answered even so.
const HEALTH: [&str; 3] = ["/healthz", "/readyz", "/grpc.health.v1.Health/Check"];
/// Requests on one connection at a time.
const STREAMS: u32 = 16;
/// Bytes of a request that are taken in, on one connection.
const WINDOW: u32 = 64 << 10;

/// Tells a connection that it is one too many.
pub(crate) async fn over_limit(
    stream: TcpStream,
    address: SocketAddr,
    over: OverLimit,
    serving: Arc<Serving>,
    _grant: ConnectionGrant,
) {
    let Serving { tls, notices, stop, .. } = &*serving;
    let answered = async {
        match greeting::greet(stream, address, tls.as_ref(), notices).await {
            Ok(Greeting::Served(hello) | Greeting::Refused(hello, _)) => {
                let why = Status::from(status::too_many(over));
                let context = RequestContext::new(serving.quotas.peer(address), &hello, &serving);
                answer(hello, why, context, stop).await;
            }
            Ok(Greeting::Over(stream)) => linger::close(stream, stop).await,
            Err(_) => {}
        }
    };
    bounded(answered, stop).await;
}

/// Tells a connection why it is not served.
pub(crate) async fn refuse(hello: Hello, why: Failure, stop: &CancellationToken) {
    bounded(answer(hello, Status::from(why), None, stop), stop).await;
}

/// Until its end, its time or the server's end.
async fn bounded(answered: impl Future<Output = ()>, stop: &CancellationToken) {
    tokio::select! {
        () = answered => {}
        () = tokio::time::sleep(LIFE) => {}
        () = stop.cancelled() => {}
    }
}

/// Answers with a refusal whatever is asked; but about health as ever, where `context` is given: whoever
/// watches over the server must not take a full one for a dead one.
async fn answer(
    hello: Hello,
    why: Status,
    context: Option<RequestContext>,
    stop: &CancellationToken,
) {
    let Hello { stream, protocol, .. } = hello;
    let (answered, why) = (CancellationToken::new(), Arc::new(why));
    let service = service_fn(|request: Request<Incoming>| {
        answered.cancel();
        let why = Arc::clone(&why);
        let context = context.clone().filter(|_| HEALTH.contains(&request.uri().path()));
        async move {
            if let Some(context) = context {
                return exchange::respond(request, context).await;
            }
            let mut refusal = refusal(request, &why);
            date::add(refusal.headers_mut());
            Ok::<_, Infallible>(refusal)
        }
    });
    match protocol {
        Protocol::Http2 => {
            let stream = TokioIo::new(stream);
            let mut builder = http2::Builder::new(Turns::default());
            builder
                .timer(TokioTimer::new())
                .auto_date_header(false)
                .max_concurrent_streams(STREAMS)
                .initial_stream_window_size(WINDOW)
                .initial_connection_window_size(WINDOW);
            close_after(builder.serve_connection(stream, service), &answered, LINGER).await;
        }
        Protocol::Http1 if !date::can_be_written() => date::refuse(stream, stop).await,
        Protocol::Http1 => {
            let (socket, back) = Socket::new(stream, HalfClosed::default(), LIFE);
            let stream = TokioIo::new(socket);
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).auto_date_header(false);
            builder.keep_alive(false).half_close(true);
            let connection = builder.serve_connection(stream, service);
            let error = close_after(connection, &answered, LIFE).await;
            back.close(error.as_ref(), stop).await;
        }
    }
}

/// Drives a connection, and closes it in order once something has been answered.
async fn close_after<C: GracefulConnection>(
    connection: C,
    answered: &CancellationToken,
    linger: Duration,
) -> Option<C::Error> {
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return ended.err(),
        () = async { answered.cancelled().await; tokio::time::sleep(linger).await } => {}
    }
    connection.as_mut().graceful_shutdown();
    connection.await.err()
}

fn refusal<B>(request: Request<B>, why: &Status) -> Response<Body> {
    let (head, _) = request.into_parts();
    if classify::is_native(&head) { why.clone().into_http() } else { status::respond(why) }
}
