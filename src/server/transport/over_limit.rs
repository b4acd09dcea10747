//! Connections over the limit: each request gets an answer that says so, and the connection is
//! closed.
//!
//! Bounded, so that a flood costs no more than the limit allows: few at a time (`permits.rs`), a
//! few seconds each, a few requests, next to no buffers, and no service is reached.

use std::convert::Infallible;
use std::time::Duration;

use http::{Request, Response};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::body::Body;

use crate::server::permits::{OverLimit, Permit};
use crate::server::rpc::{classify, status};
use crate::server::transport::http1::{HalfClosed, Socket};
use crate::server::transport::preface::{self, Protocol};
use crate::server::transport::{date, streams};

/// A connection is closed after this long, whatever it has said.
const LIFE: Duration = Duration::from_secs(5);
/// From the first answer on a connection of HTTP/2 to its end: a client that opened it for several
/// calls gets an answer to each.
const LINGER: Duration = Duration::from_millis(200);
/// Requests on one connection at a time.
const STREAMS: u32 = 16;
/// Bytes of a request that are taken in, on one connection.
const WINDOW: u32 = 64 << 10;

/// Answers what comes until the connection, its time or the server ends.
pub(crate) async fn tell(
    stream: TcpStream,
    over: OverLimit,
    stop: CancellationToken,
    _permit: Permit,
) {
    tokio::select! {
        () = answer(stream, over, &stop) => {}
        () = tokio::time::sleep(LIFE) => {}
        () = stop.cancelled() => {}
    }
}

async fn answer(stream: TcpStream, over: OverLimit, stop: &CancellationToken) {
    let Ok((stream, protocol)) = preface::begin(stream).await else { return };
    let answered = CancellationToken::new();
    let service = service_fn(|request| {
        answered.cancel();
        let mut refusal = refusal(request, over);
        date::add(refusal.headers_mut());
        std::future::ready(Ok::<_, Infallible>(refusal))
    });
    match protocol {
        Protocol::Http2 => {
            let stream = TokioIo::new(stream);
            let mut builder = http2::Builder::new(streams::Executor);
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

fn refusal<B>(request: Request<B>, over: OverLimit) -> Response<Body> {
    let status = Status::from(status::too_many(over));
    let (head, _) = request.into_parts();
    if classify::is_native(&head) { status.into_http() } else { status::respond(&status) }
}
