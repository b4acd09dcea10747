//! A write buffer for connections with many watches.
//!
//! HTTP/2 writes and flushes each DATA frame by itself, and runs a connection as soon as one of its
//! streams has something to send. With hundreds of live watches that is a system call, a segment
//! and a wake-up of the client for each watch at every commit. So such a connection runs after its
//! ready streams, and its small writes are collected and sent when it comes to rest. Nothing waits
//! for data that is not there yet. Knows nothing of what the bytes mean.

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What is collected at most.
const MAX_BYTES: usize = 16 << 10;
/// What is written in one piece of so much is not copied.
const LARGE_BYTES: usize = 4 << 10;
/// Slices of one write, with the one for what was collected.
const SLICES: usize = 8;

/// A stream of bytes whose small writes are collected, until [`Outbox::poll`] sends them.
#[derive(Debug)]
pub(crate) struct Outbox<T> {
    out: Arc<Mutex<Out<T>>>,
    /// The streams that are ready have been let go before.
    is_last: bool,
}

/// The other end of an [`Outbox`], for the connection.
#[derive(Debug)]
pub(crate) struct Inlet<T>(Arc<Mutex<Out<T>>>);

#[derive(Debug)]
struct Out<T> {
    inner: T,
    /// Written and not sent. Takes no room while the connection rests.
    waiting: Vec<u8>,
    /// Of `waiting`, sent.
    sent: usize,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Outbox<T> {
    pub(crate) fn new(inner: T) -> (Self, Inlet<T>) {
        let out = Arc::new(Mutex::new(Out { inner, waiting: Vec::new(), sent: 0 }));
        (Outbox { out: Arc::clone(&out), is_last: false }, Inlet(out))
    }

    /// Runs the connection that has the inlet, and sends what it has written. Where `is_shared`, what
    /// else is ready comes first.
    pub(crate) fn poll<C, E>(
        &mut self,
        cx: &mut Context<'_>,
        connection: Pin<&mut C>,
        is_shared: bool,
    ) -> Poll<Result<(), BoxError>>
    where
        C: Future<Output = Result<(), E>>,
        E: Into<BoxError>,
    {
        if is_shared && !self.is_last {
            // The scheduler puts a task that wakes itself behind all others.
            self.is_last = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.is_last = false;
        let polled = connection.poll(cx);
        // Of a connection that failed, too: its last words say why.
        let sent = self.out.lock().poll_send(cx);
        match (polled, sent) {
            (Poll::Ready(ended), _) => Poll::Ready(ended.map_err(Into::into)),
            (_, Poll::Ready(Err(error))) => Poll::Ready(Err(error.into())),
            _ => Poll::Pending,
        }
    }
}

impl<T: AsyncWrite + Unpin> Outbox<T> {
    /// Sends this behind all that was written, too.
    pub(crate) fn push(&self, bytes: &[u8]) {
        self.out.lock().waiting.extend_from_slice(bytes);
    }

    /// Sends what is left when the connection, with the inlet, is gone, and answers the stream. `None` where it
    /// cannot be sent.
    pub(crate) async fn finish(self) -> Option<T> {
        let mut out = Arc::into_inner(self.out)?.into_inner();
        poll_fn(|cx| out.poll_send(cx)).await.ok()?;
        Some(out.inner)
    }
}

impl<T: AsyncWrite + Unpin> Out<T> {
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.waiting.len() {
            ready!(self.poll_send_with(cx, &[]))?;
        }
        // What is encrypted may lie in a record.
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    /// Sends what waits and more behind it, or some of that: how much of `more`.
    fn poll_send_with(
        &mut self,
        cx: &mut Context<'_>,
        more: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let waiting = &self.waiting[self.sent..];
        let mut slices = [IoSlice::new(&[]); SLICES];
        slices[0] = IoSlice::new(waiting);
        let count = more.len().min(SLICES - 1);
        slices[1..=count].copy_from_slice(&more[..count]);
        let first = usize::from(waiting.is_empty());
        let inner = Pin::new(&mut self.inner);
        let sent = ready!(inner.poll_write_vectored(cx, &slices[first..=count]))?;
        if sent == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        let of_waiting = sent.min(waiting.len());
        self.sent += of_waiting;
        if self.sent == self.waiting.len() {
            (self.waiting, self.sent) = (Vec::new(), 0);
        }
        Poll::Ready(Ok(sent - of_waiting))
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let bytes: usize = slices.iter().map(|slice| slice.len()).sum();
        if bytes >= LARGE_BYTES {
            loop {
                let written = ready!(self.poll_send_with(cx, slices))?;
                if written > 0 {
                    return Poll::Ready(Ok(written));
                }
            }
        }
        if self.waiting.len() + bytes > MAX_BYTES {
            ready!(self.poll_send(cx))?;
        }
        if self.waiting.is_empty() {
            self.waiting.reserve_exact(MAX_BYTES);
        }
        slices.iter().for_each(|slice| self.waiting.extend_from_slice(slice));
        Poll::Ready(Ok(bytes))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Inlet<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.lock().inner).poll_read(cx, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Inlet<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.lock().poll_write(cx, &[IoSlice::new(bytes)])
    }

    /// What runs the connection does it.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut out = self.0.lock();
        ready!(out.poll_send(cx))?;
        Pin::new(&mut out.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.lock().poll_write(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Takes as much at a time as it is told, and refuses every other call.
    #[derive(Debug, Default)]
    struct Slow {
        taken: Vec<u8>,
        calls: usize,
        at_a_time: usize,
    }

    impl AsyncRead for Slow {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Slow {
        fn poll_write(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            slices: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            self.calls += 1;
            if self.calls.is_multiple_of(2) {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let before = self.taken.len();
            for slice in slices {
                let room = self.at_a_time - (self.taken.len() - before);
                let part = &slice[..slice.len().min(room)];
                self.taken.extend_from_slice(part);
            }
            Poll::Ready(Ok(self.taken.len() - before))
        }
    }

    /// Writes of many sizes, whose bytes tell their place.
    fn writes() -> Vec<Vec<u8>> {
        let sizes = [1, 300, 9, LARGE_BYTES - 1, LARGE_BYTES, 5, MAX_BYTES, 70_000, 256, 256];
        let mut at = 0u32;
        let mut next = || {
            at = at.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (at >> 24) as u8
        };
        let sizes = sizes.iter().cycle().take(60);
        sizes.map(|&size| (0..size).map(|_| next()).collect()).collect()
    }

    #[tokio::test]
    async fn all_is_sent_once_and_in_order_however_little_is_taken() {
        for at_a_time in [1_000, 5_000, 1 << 20] {
            let (mut outbox, mut inlet) = Outbox::new(Slow { at_a_time, ..Slow::default() });
            let sent = outbox.out.clone();
            let connection = async move {
                for write in writes() {
                    inlet.write_all(&write).await?;
                    inlet.flush().await?;
                }
                inlet.shutdown().await
            };
            let mut connection = pin!(connection);
            poll_fn(|cx| outbox.poll(cx, connection.as_mut(), true)).await.unwrap();
            let out = sent.lock();
            assert!(out.inner.taken == writes().concat(), "{at_a_time}");
            assert_eq!(out.waiting.capacity(), 0);
        }
    }

    #[tokio::test]
    async fn small_writes_leave_together_when_the_connection_rests() {
        let (mut outbox, mut inlet) = Outbox::new(Slow { at_a_time: 1 << 20, ..Slow::default() });
        let sent = outbox.out.clone();
        let connection = async move {
            for _ in 0..40 {
                inlet.write_all(&[7; 256]).await?;
                inlet.flush().await?;
            }
            std::future::pending::<io::Result<()>>().await
        };
        let mut connection = pin!(connection);
        let mut polls = 0;
        poll_fn(|cx| {
            polls += 1;
            assert!(outbox.poll(cx, connection.as_mut(), true).is_pending());
            let out = sent.lock();
            // What else is ready has been let go first.
            assert_eq!((out.inner.taken.is_empty(), out.inner.calls), (polls == 1, polls - 1));
            if polls == 2 { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        assert_eq!(sent.lock().inner.taken.len(), 40 * 256);
    }

    #[tokio::test]
    async fn what_was_written_last_is_sent_when_there_is_room_again() {
        let (near, mut far) = tokio::io::duplex(64);
        let (mut outbox, mut inlet) = Outbox::new(near);
        let mut connection = Box::pin(async move {
            inlet.write_all(&[7; 3_000]).await?;
            inlet.write_all(b"the reason").await?;
            Err::<(), _>(io::Error::other("over"))
        });
        let ended = poll_fn(|cx| outbox.poll(cx, connection.as_mut(), false)).await;
        assert_eq!(ended.unwrap_err().to_string(), "over");
        drop(connection);
        let mut read = Vec::new();
        let reads = async {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            far.read_to_end(&mut read).await.unwrap()
        };
        let finishes = async { drop(outbox.finish().await.unwrap()) };
        assert_eq!(tokio::join!(reads, finishes).0, 3_010);
        assert!(read.ends_with(b"the reason"));
    }

    #[tokio::test]
    async fn a_broken_stream_ends_its_connection() {
        let (near, mut far) = tokio::io::duplex(64);
        let (mut outbox, mut inlet) = Outbox::new(near);
        let connection = async move {
            inlet.write_all(b"ping").await?;
            inlet.flush().await?;
            std::future::pending::<io::Result<()>>().await
        };
        let mut connection = pin!(connection);
        let mut read = [0; 4];
        poll_fn(|cx| {
            assert!(outbox.poll(cx, connection.as_mut(), false).is_pending());
            Poll::Ready(())
        })
        .await;
        far.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"ping");
        drop(far);
        outbox.out.lock().waiting.push(1);
        let ended = poll_fn(|cx| outbox.poll(cx, connection.as_mut(), false)).await;
        let error = ended.unwrap_err().downcast::<io::Error>().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }

    /// Keeps what is written until it is flushed, as TLS may do.
    #[derive(Debug, Default)]
    struct Held {
        held: usize,
        flushed: usize,
    }

    impl AsyncRead for Held {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Held {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.held += bytes.len();
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.flushed += std::mem::take(&mut self.held);
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn what_lies_below_is_flushed_when_the_connection_rests() {
        let (mut outbox, mut inlet) = Outbox::new(Held::default());
        let sent = outbox.out.clone();
        let connection = async move {
            // What is not collected, and what is.
            for len in [LARGE_BYTES, 10] {
                inlet.write_all(&vec![7; len]).await?;
                inlet.flush().await?;
            }
            std::future::pending::<io::Result<()>>().await
        };
        let mut connection = pin!(connection);
        poll_fn(|cx| {
            assert!(outbox.poll(cx, connection.as_mut(), false).is_pending());
            Poll::Ready(())
        })
        .await;
        let out = sent.lock();
        assert_eq!((out.inner.held, out.inner.flushed), (0, LARGE_BYTES + 10));
    }
}
