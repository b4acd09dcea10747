//! The socket of an HTTP/1.1 connection, as hyper sees it, and what hyper leaves undone about it:
//!
//! - A client that has sent its request may close its side and wait for the answer. hyper lets it
//!   (`half_close`), and then no longer looks whether the client is there at all. Here that is
//!   looked at, and whoever streams an answer is told that its client may have gone.
//! - To what it cannot read as a request hyper answers with a bare status. That is held back, and
//!   sent with the words that belong to it.
//! - At its end hyper closes the socket over what a client still sends. Here it is given back, to be
//!   closed in order (`linger.rs`).

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::oneshot;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::linger;
use super::maybe_tls::MaybeTls;
use super::preface::Begun;
use crate::server::rpc::status;

/// How often a half-closed connection is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// Time to write what was held back.
const LAST_WORDS: Duration = Duration::from_secs(2);
const KEPT_FLUSHES: u8 = 4;
/// The longest head of hyper's own answers; they have 120 bytes.
const BARE_BYTES: usize = 256;

/// Cancelled when the client of an HTTP/1.1 connection has closed its side, and may have gone;
/// travels as a request extension.
#[derive(Clone, Debug, Default)]
pub(crate) struct HalfClosed {
    pub(crate) token: CancellationToken,
    /// Until when the connection may be silent in any case.
    patient_until: Arc<Mutex<Option<Instant>>>,
}

impl HalfClosed {
    /// Sets until when the answer to the request that has come may take, beyond the patience with
    /// any; a later request sets its own.
    pub(crate) fn wait_until(&self, until: Option<Instant>) {
        *self.patient_until.lock() = until;
    }

    fn is_waited_for(&self) -> bool {
        let until = *self.patient_until.lock();
        until.is_some_and(|until| Instant::now() < until)
    }
}

/// The socket, for hyper.
pub(crate) struct Socket {
    /// Absent once it was given back.
    stream: Option<Begun>,
    back: Option<oneshot::Sender<Rest>>,
    /// hyper's own answer, not sent.
    bare: Vec<u8>,
    /// How often it is still kept when hyper flushes. If it is the last that hyper says, this comes
    /// twice before the end.
    kept_flushes: u8,
    /// Bytes have come since something was written.
    has_heard: bool,
    half_closed: HalfClosed,
    /// Set once the client has closed its side.
    gone: Option<Gone>,
    /// How long a half-closed connection may be silent.
    patience: Duration,
}

struct Gone {
    look: Interval,
    /// When something was written last.
    written: Instant,
}

/// A connection with which hyper is done.
pub(crate) struct Rest {
    stream: MaybeTls,
    bare: Vec<u8>,
    has_heard: bool,
}

/// Where the socket comes back when hyper drops it.
pub(crate) struct Back(oneshot::Receiver<Rest>);

impl Socket {
    /// `patience` is how long a half-closed connection may say nothing before it is given up.
    pub(crate) fn new(
        stream: Begun,
        half_closed: HalfClosed,
        patience: Duration,
    ) -> (Socket, Back) {
        let (sender, receiver) = oneshot::channel();
        let socket = Socket {
            stream: Some(stream),
            back: Some(sender),
            bare: Vec::new(),
            kept_flushes: 0,
            // What was read to see which protocol it is.
            has_heard: true,
            half_closed,
            gone: None,
            patience,
        };
        (socket, Back(receiver))
    }

    fn stream(&mut self) -> io::Result<&mut Begun> {
        self.stream.as_mut().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Writes what was held back, because hyper goes on.
    fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.bare.is_empty() {
            let bare = std::mem::take(&mut self.bare);
            let written = Pin::new(self.stream()?).poll_write(cx, &bare);
            self.bare = bare;
            let written = ready!(written)?;
            self.bare.drain(..written);
        }
        Poll::Ready(Ok(()))
    }

    /// Takes an answer that hyper gives by itself, to be replaced; whether it is one.
    fn hold_back(&mut self, cx: &Context<'_>, bytes: &[u8]) -> bool {
        if !is_bare(bytes) {
            return false;
        }
        self.bare = bytes.to_vec();
        self.kept_flushes = KEPT_FLUSHES;
        // Should hyper go on after all, it comes back at once.
        cx.waker().wake_by_ref();
        true
    }

    fn wrote(&mut self) {
        self.has_heard = false;
        if let Some(gone) = &mut self.gone {
            gone.written = Instant::now();
        }
    }

    /// Looks whether the client is still there while nothing is read from it.
    fn poll_client(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let patience = self.patience;
        let Some(stream) = &mut self.stream else { return Ok(()) };
        let Some(gone) = &mut self.gone else {
            // What has come already hides what comes after it: then a write will show it.
            match stream.inner_mut().poll_closed(cx)? {
                Poll::Ready(true) => {}
                Poll::Ready(false) | Poll::Pending => return Ok(()),
            }
            let mut look = interval(LOOK);
            look.set_missed_tick_behavior(MissedTickBehavior::Delay);
            self.gone = Some(Gone { look, written: Instant::now() });
            self.half_closed.token.cancel();
            return self.poll_client(cx);
        };
        while gone.look.poll_tick(cx).is_ready() {
            // A read says nothing but "the end" from now on, whatever happens.
            if let Some(error) = stream.inner().tcp().take_error()? {
                return Err(error);
            }
            if gone.written.elapsed() > patience && !self.half_closed.is_waited_for() {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        Ok(())
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let (Some(stream), Some(back)) = (self.stream.take(), self.back.take()) {
            let (bare, has_heard) = (std::mem::take(&mut self.bare), self.has_heard);
            let _ = back.send(Rest { stream: stream.into_inner(), bare, has_heard });
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(self.stream()?).poll_read(cx, buffer))?;
        self.has_heard |= buffer.filled().len() > before;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_held(cx))?;
        if self.hold_back(cx, bytes) {
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = ready!(Pin::new(self.stream()?).poll_write(cx, bytes))?;
        self.wrote();
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_held(cx))?;
        if let [slice] = slices
            && self.hold_back(cx, slice)
        {
            return Poll::Ready(Ok(slice.len()));
        }
        let written = ready!(Pin::new(self.stream()?).poll_write_vectored(cx, slices))?;
        self.wrote();
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }

    /// hyper comes here each time it runs, also while it only waits for its service.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.kept_flushes > 0 && !self.bare.is_empty() {
            self.kept_flushes -= 1;
            cx.waker().wake_by_ref();
        } else {
            ready!(self.poll_held(cx))?;
        }
        ready!(Pin::new(self.stream()?).poll_flush(cx))?;
        Poll::Ready(self.poll_client(cx))
    }

    /// It is not shut down here, but where it comes back.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Whether these bytes are an answer of hyper's own. Ours to such statuses have a body.
fn is_bare(bytes: &[u8]) -> bool {
    if bytes.len() > BARE_BYTES || !bytes.starts_with(b"HTTP/1.") {
        return false;
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    ["400", "414", "431"].iter().any(|code| text.get(9..12) == Some(*code))
        && text.contains("\r\ncontent-length: 0\r\n")
        && text.find("\r\n\r\n") == Some(text.len() - 4)
}

impl Back {
    /// Says what is still to be said on a connection that hyper has dropped, and closes it in order.
    /// `error` is what hyper said of it.
    pub(crate) async fn close(mut self, error: Option<&hyper::Error>, stop: &CancellationToken) {
        let Ok(mut rest) = self.0.try_recv() else { return };
        let words = match error {
            Some(error) if error.is_parse() || error.is_timeout() && rest.has_heard => {
                status::unreadable(error)
            }
            _ => rest.bare,
        };
        let write = tokio::time::timeout(LAST_WORDS, rest.stream.write_all(&words));
        if matches!(write.await, Ok(Ok(()))) {
            linger::close(rest.stream, stop).await;
        }
    }
}
