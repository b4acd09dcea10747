//! The first bytes of a connection: which protocol it speaks, read under a deadline.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use super::maybe_tls::MaybeTls;

/// What every HTTP/2 connection begins with. RFC 9113 section 3.4.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a handshake of TLS begins with, and no method of HTTP. RFC 8446 section 5.1.
pub(crate) const HANDSHAKE: u8 = 22;

/// What a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

/// A connection whose first bytes were read already.
pub(crate) struct Begun<T = MaybeTls> {
    inner: T,
    first: [u8; PREFACE.len()],
    read: usize,
    /// Of `read`, given out again.
    given: usize,
}

/// Reads until it is clear what the connection speaks.
pub(crate) async fn begin<T: AsyncRead + Unpin>(mut inner: T) -> io::Result<(Begun<T>, Protocol)> {
    let mut first = [0; PREFACE.len()];
    let mut read = 0;
    while read < PREFACE.len() && first[..read] == PREFACE[..read] {
        match inner.read(&mut first[read..]).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => read += n,
        }
    }
    let protocol = if first == *PREFACE { Protocol::Http2 } else { Protocol::Http1 };
    Ok((Begun { inner, first, read, given: 0 }, protocol))
}

impl<T> Begun<T> {
    /// Whether it begins with a handshake of TLS.
    pub(crate) fn is_handshake(&self) -> bool {
        self.first[0] == HANDSHAKE
    }

    /// What lies below.
    pub(crate) fn inner(&self) -> &T {
        &self.inner
    }

    /// The same.
    pub(crate) fn inner_mut(&mut self) -> &mut T {
        &mut self.inner
    }

    /// Gives up what was read and not given out.
    pub(crate) fn into_inner(self) -> T {
        self.inner
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Begun<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.given < self.read {
            let step = (self.read - self.given).min(buffer.remaining());
            buffer.put_slice(&self.first[self.given..self.given + step]);
            self.given += step;
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Begun<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    async fn begun(bytes: &[u8]) -> io::Result<(Protocol, Vec<u8>)> {
        let (mut client, server) = tokio::io::duplex(256);
        client.write_all(bytes).await?;
        drop(client);
        let (mut stream, protocol) = begin(server).await?;
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await?;
        Ok((protocol, all))
    }

    #[tokio::test]
    async fn the_protocol_is_told_and_no_byte_is_lost() {
        let mut http2 = PREFACE.to_vec();
        http2.extend_from_slice(b"and more");
        assert_eq!(begun(&http2).await.unwrap(), (Protocol::Http2, http2));
        for http1 in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"PRI / HTTP/1.1\r\n\r\n", b"PUT / HTTP/1.1"]
        {
            assert_eq!(begun(http1).await.unwrap(), (Protocol::Http1, http1.to_vec()));
        }
    }

    #[tokio::test]
    async fn the_protocol_is_the_same_however_its_first_bytes_are_cut() {
        let mut http2 = PREFACE.to_vec();
        http2.extend_from_slice(b"and more");
        for (bytes, expected) in [
            (&http2[..], Protocol::Http2),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\x20", Protocol::Http1),
            (b"GET / HTTP/1.1\r\n\r\n", Protocol::Http1),
        ] {
            for at in 1..bytes.len() {
                let (mut client, server) = tokio::io::duplex(256);
                let begun = tokio::spawn(begin(server));
                client.write_all(&bytes[..at]).await.unwrap();
                // The other task reads what there is before the rest comes.
                tokio::task::yield_now().await;
                client.write_all(&bytes[at..]).await.unwrap();
                drop(client);
                let (mut stream, protocol) = begun.await.unwrap().unwrap();
                let mut all = Vec::new();
                stream.read_to_end(&mut all).await.unwrap();
                assert_eq!((protocol, &all[..]), (expected, bytes), "at {at}");
            }
        }
    }

    #[tokio::test]
    async fn a_connection_that_says_nothing_is_an_error() {
        for cut in [0, 1, 3, 23] {
            let error = begun(&PREFACE[..cut]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{cut}");
        }
    }
}
