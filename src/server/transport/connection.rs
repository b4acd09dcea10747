//! One connection: its protocol, its end.

use std::error::Error;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::server::Http2;
use crate::server::quotas::{ConnectionGrant, Peer};
use crate::server::transport::exchange::{RequestContext, respond};
use crate::server::transport::floods::{self, Budgets, Flood, Sentry};
use crate::server::transport::greeting::{self, Greeting, Hello};
use crate::server::transport::http1::{HalfClosed, Socket};
use crate::server::transport::outbox::Outbox;
use crate::server::transport::preface::{Begun, Protocol};
use crate::server::transport::serving::Serving;
use crate::server::transport::turns::Turns;
use crate::server::transport::windows::Window;
use crate::server::transport::{date, linger, refuse, streams};

type BoxError = Box<dyn Error + Send + Sync>;

/// Unanswered probes after which the system gives a connection up.
const PROBES: u32 = 4;
/// Streams that a client may cause us to reset by its errors, over the life of a connection; h2's
/// own default, said here because CVE-2025-8671 rests on there being one.
const ERROR_RESETS: usize = 1_024;
/// Of the limit on the head of a request over HTTP/2: what is read of one that exceeds it.
const HEAD_SLACK: u32 = 4;
/// Watches from which on what a connection writes is collected: it is run after all its streams.
const MANY_WATCHES: usize = 8;
/// What a connection of HTTP/1.1 holds of answers that its client does not read, but for the frame
/// that came last; and the longest head of a request. hyper's own default is six times as much, for
/// every reader that stalls.
const HTTP1_BUFFER_BYTES: usize = 64 << 10;

/// Serves a connection to its end.
pub(crate) async fn serve(
    stream: TcpStream,
    address: SocketAddr,
    serving: Arc<Serving>,
    _grant: ConnectionGrant,
) {
    if let Err(error) = keep_alive(&stream, &serving.options.http2) {
        tracing::debug!(%error, "cannot set SO_KEEPALIVE");
    }
    let Some(hello) = welcome(stream, address, &serving).await else { return };
    let peer = serving.quotas.peer(address);
    let Some(mut context) = RequestContext::new(peer.clone(), &hello, &serving) else { return };
    let local = context.local.address;
    let Hello { stream, protocol, .. } = hello;
    let mut is_flood = true;
    let suspicion = serving.quotas.suspicion(&peer);
    let was_suspect = suspicion.is_some();
    if let Some(wait) = suspicion.filter(|_| protocol == Protocol::Http2) {
        // Or a flood would only connect anew.
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = serving.stop.cancelled() => return,
        }
    }
    let half_closed = (protocol == Protocol::Http1).then(HalfClosed::default);
    context.half_closed.clone_from(&half_closed);
    let service = service_fn(move |request| respond(request, context.clone()));
    let ended = match protocol {
        Protocol::Http2 => {
            let (mut outbox, inlet) = Outbox::new(stream);
            let streams = serving.options.max_concurrent_streams;
            let budgets = Budgets::new(streams, was_suspect);
            let (metered, sentry) = floods::metered(inlet, budgets);
            let stream = TokioIo::new(metered);
            let window = serving.windows.grant(&serving.options.http2);
            let turns = Turns::default();
            let builder = http2_builder(&serving, &window, &turns);
            let connection = builder.serve_connection(stream, service);
            let run = |connection: Pin<&mut http2::Connection<_, _, _>>, cx: &mut Context<'_>| {
                let polled = outbox.poll(cx, connection, peer.watches() >= MANY_WATCHES);
                match sentry.flood().filter(|_| polled.is_pending()) {
                    None => polled,
                    Some(flood) => Poll::Ready(Err(flooded(flood, &sentry, &outbox))),
                }
            };
            let ended = drive(connection, run, &serving.stop, &serving.cut).await;
            turns.end();
            is_flood = !sentry.is_small_frames();
            tokio::select! {
                () = say_last(outbox, &serving.stop) => {}
                () = serving.cut.cancelled() => {}
            }
            ended
        }
        Protocol::Http1 if !date::can_be_written() => {
            return date::refuse(stream, &serving.stop).await;
        }
        Protocol::Http1 => {
            let patience = serving.options.unary_deadline;
            let (socket, back) = Socket::new(stream, half_closed.unwrap_or_default(), patience);
            let stream = TokioIo::new(socket);
            let connection = http1_builder(&serving).serve_connection(stream, service);
            let run = |connection: Pin<&mut http1::Connection<_, _>>, cx: &mut Context<'_>| {
                // The clock was set while it was open: hyper would panic over it.
                if !date::can_be_written() {
                    return Poll::Ready(Err("the clock is out of range".into()));
                }
                connection.poll(cx).map_err(Into::into)
            };
            let known = serving.vanished.look_after(local, address);
            let driven = drive(connection, run, &serving.stop, &serving.cut);
            // One that was cut at its deadline does not take what there is to say, nor who is gone.
            let ended = tokio::select! {
                ended = streams::cuttable(Box::pin(driven)) => ended,
                () = known.gone.cancelled() => {
                    tracing::debug!(%address, "a client of HTTP/1.1 is gone without a word");
                    return;
                }
            };
            let Some(ended) = ended else { return };
            let error = ended.as_ref().err().and_then(|error| error.downcast_ref());
            tokio::select! {
                () = back.close(error, &serving.stop) => {}
                () = serving.cut.cancelled() => {}
            }
            ended
        }
    };
    if let Err(error) = ended {
        if is_flood {
            note_flood(&*error, was_suspect, &peer, &serving);
        }
        // Clients go away as they like.
        tracing::debug!(%address, %error, "connection ended");
    }
}

/// Ends a connection on which there was too much, with a word.
fn flooded<T: AsyncRead + AsyncWrite + Unpin>(
    flood: Flood,
    sentry: &Sentry,
    outbox: &Outbox<T>,
) -> BoxError {
    if let Some(words) = sentry.last_words(flood) {
        outbox.push(&words);
    }
    flood.into()
}

/// Keeps in mind from where a connection came that was ended because there was too much on it.
fn note_flood(error: &(dyn Error + 'static), was_suspect: bool, peer: &Peer, serving: &Serving) {
    let Some(cause) = floods::cause(error) else { return };
    serving.quotas.flooded(peer, floods::is_held_against(cause, was_suspect));
    let address = peer.address;
    serving.notices.floods.lock().log(|count| {
        tracing::warn!(%address, %error, count, "connections that flooded were ended");
    });
}

/// Gives a client that does not read just now time to take what was said last: why the connection ends.
async fn say_last(outbox: Outbox<Begun>, stop: &CancellationToken) {
    if let Ok(Some(stream)) = tokio::time::timeout(linger::TIME, outbox.finish()).await {
        linger::close(stream.into_inner(), stop).await;
    }
}

/// Greets a connection within its time; `None` where it is not to be served, and has heard why.
async fn welcome(stream: TcpStream, address: SocketAddr, serving: &Serving) -> Option<Hello> {
    let Serving { tls, notices, stop, options, .. } = serving;
    let greeting = greeting::greet(stream, address, tls.as_ref(), notices);
    let greeting = tokio::select! {
        greeting = tokio::time::timeout(options.preface_timeout, greeting) => greeting,
        () = stop.cancelled() => return None,
    };
    match greeting {
        Ok(Ok(Greeting::Served(hello))) => return Some(hello),
        Ok(Ok(Greeting::Refused(hello, why))) => refuse::refuse(hello, why, stop).await,
        Ok(Ok(Greeting::Over(stream))) => linger::close(stream, stop).await,
        Ok(Err(_)) | Err(_) => {
            tracing::debug!(%address, "a connection that did not say what it speaks");
        }
    }
    None
}

/// Lets the system probe a silent peer: HTTP/1.1 has no probe of its own, and one that only waits
/// for the next line of a dead client would wait for ever.
fn keep_alive(stream: &TcpStream, http2: &Http2) -> std::io::Result<()> {
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, http2.keepalive_interval)?;
    sockopt::set_tcp_keepintvl(
        stream,
        (http2.keepalive_timeout / PROBES).max(Duration::from_secs(1)),
    )?;
    sockopt::set_tcp_keepcnt(stream, PROBES)?;
    Ok(())
}

/// Runs a connection; when the server stops it takes no new requests and ends with the last one.
async fn drive<C: GracefulConnection>(
    connection: C,
    mut run: impl FnMut(Pin<&mut C>, &mut Context<'_>) -> Poll<Result<(), BoxError>>,
    stop: &CancellationToken,
    cut: &CancellationToken,
) -> Result<(), BoxError> {
    let mut connection = pin!(connection);
    tokio::select! {
        ended = poll_fn(|cx| run(connection.as_mut(), cx)) => return ended,
        () = cut.cancelled() => return Ok(()),
        () = stop.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    tokio::select! {
        ended = poll_fn(|cx| run(connection.as_mut(), cx)) => ended,
        () = cut.cancelled() => Ok(()),
    }
}

fn http2_builder(serving: &Serving, window: &Window, turns: &Turns) -> http2::Builder<Turns> {
    let (options, http2) = (&serving.options, &serving.options.http2);
    let mut builder = http2::Builder::new(turns.clone());
    builder
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .max_concurrent_streams(options.max_concurrent_streams)
        // Streams that were reset before we came to look at them. Too many is an attack ("rapid
        // reset", CVE-2023-44487) and ends the connection with all its streams; h2 takes 20 for
        // too many, which a client reaches that gives up a few dozen watches at once. Whoever may
        // have so many streams open may also give all of them up. What they cost meanwhile is
        // their headers: no handler has run.
        .max_pending_accept_reset_streams(options.max_concurrent_streams as usize)
        .max_local_error_reset_streams(ERROR_RESETS)
        .initial_stream_window_size(window.stream)
        .initial_connection_window_size(window.connection)
        .max_frame_size(http2.max_frame_bytes)
        .max_send_buf_size(http2.max_send_buffer_bytes)
        // What exceeds the limit is told so (`call.rs`); h2 itself only has a bare status for it.
        .max_header_list_size(http2.max_header_list_bytes.saturating_mul(HEAD_SLACK))
        .keep_alive_interval(http2.keepalive_interval)
        .keep_alive_timeout(http2.keepalive_timeout);
    builder
}

fn http1_builder(serving: &Serving) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .header_read_timeout(serving.options.http1_header_timeout)
        .max_buf_size(HTTP1_BUFFER_BYTES)
        // Whoever has said all that there is to say may wait for the answer. `http1.rs` looks
        // whether somebody does.
        .half_close(true)
        .max_headers(100);
    builder
}
