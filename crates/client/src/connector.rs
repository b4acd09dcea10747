//! Making connections, and what comes over them first.
//!
//! Owns the way to the server: TCP, and TLS where the address begins with `https://`. What tonic
//! tells of a connection that breaks has lost its type by then, so what was wrong with TLS is left
//! where the channel finds it ([`Fate`]).

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tonic::codegen::http::Uri;
use tonic::codegen::{Service, StdError};

use super::connect::Options;
use super::tls::Problem;
#[cfg(feature = "tls")]
use super::tls::Shaker;

/// What a record of TLS begins with that ends a connection, an alert. No server's HTTP/2 begins so:
/// its first frame were longer than any may be.
const ALERT: u8 = 21;

/// What was wrong with TLS on the last connection that was made.
#[derive(Clone, Debug, Default)]
pub(super) struct Fate(Arc<Mutex<Option<Problem>>>);

impl Fate {
    /// What was wrong, if anything was.
    pub(super) fn problem(&self) -> Option<Problem> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, problem: Option<Problem>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = problem;
    }
}

/// Makes connections to one server.
#[derive(Clone)]
pub(super) struct Connector {
    http: HttpConnector,
    #[cfg(feature = "tls")]
    shaker: Option<Arc<Shaker>>,
    timeout: Duration,
    pub(super) fate: Fate,
}

impl Connector {
    /// To an address that was looked at.
    ///
    /// # Errors
    /// When TLS is asked for, and cannot be had.
    pub(super) fn new(uri: &Uri, options: &Options) -> Result<Connector, &'static str> {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_keepalive(Some(options.keepalive_interval));
        http.set_connect_timeout(Some(options.connect_timeout));
        let is_tls = uri.scheme_str() == Some("https");
        #[cfg(feature = "tls")]
        let shaker = match uri.host().filter(|_| is_tls) {
            Some(host) => Some(Arc::new(Shaker::new(options.tls.clone(), host)?)),
            None => None,
        };
        #[cfg(not(feature = "tls"))]
        if is_tls {
            return Err("this program was built without TLS");
        }
        Ok(Connector {
            http,
            #[cfg(feature = "tls")]
            shaker,
            timeout: options.connect_timeout,
            fate: Fate::default(),
        })
    }

    /// The same for a connection of its own.
    pub(super) fn again(&self) -> Connector {
        Connector { fate: Fate::default(), ..self.clone() }
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Connection>;
    type Error = StdError;
    type Future = Pin<Box<dyn Future<Output = Result<TokioIo<Connection>, StdError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StdError>> {
        self.http.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.http.call(uri);
        let (fate, timeout) = (self.fate.clone(), self.timeout);
        #[cfg(feature = "tls")]
        let shaker = self.shaker.clone();
        Box::pin(async move {
            fate.set(None);
            let stream = connecting.await?.into_inner();
            #[cfg(feature = "tls")]
            if let Some(shaker) = shaker {
                let shaken = tokio::time::timeout(timeout, shaker.shake(stream)).await;
                let shaken = shaken.map_err(|_| "no answer to the handshake of TLS in time")?;
                let stream = shaken.map_err(|error| match super::tls::problem_of(&error) {
                    Some(problem) => StdError::from(problem),
                    None => StdError::from(error),
                })?;
                let inner = Inner::Tls(Box::new(stream));
                return Ok(TokioIo::new(Connection { inner, fate, has_heard: false }));
            }
            #[cfg(not(feature = "tls"))]
            let _ = timeout;
            Ok(TokioIo::new(Connection { inner: Inner::Plain(stream), fate, has_heard: false }))
        })
    }
}

/// A connection to the server.
pub(super) struct Connection {
    inner: Inner,
    fate: Fate,
    /// Something has come.
    has_heard: bool,
}

enum Inner {
    Plain(TcpStream),
    #[cfg(feature = "tls")]
    Tls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

/// Does the same with either.
macro_rules! with {
    ($self:ident, $stream:ident => $do:expr) => {
        match &mut $self.inner {
            Inner::Plain($stream) => $do,
            #[cfg(feature = "tls")]
            Inner::Tls($stream) => $do,
        }
    };
}

impl Connection {
    /// Looks at the first that has come.
    fn hear(&mut self, first: Option<u8>) -> io::Result<()> {
        let is_first = !std::mem::replace(&mut self.has_heard, true);
        if is_first && first == Some(ALERT) && matches!(self.inner, Inner::Plain(_)) {
            self.fate.set(Some(Problem::required()));
            return Err(io::Error::new(io::ErrorKind::InvalidData, Problem::required()));
        }
        Ok(())
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = ready!(with!(self, stream => Pin::new(stream).poll_read(cx, buffer)));
        #[cfg(feature = "tls")]
        if let Err(error) = &read
            && let Some(problem) = super::tls::problem_of(error)
        {
            // After its own last word a client may hear that its certificate is not taken.
            self.fate.set(Some(problem));
        }
        read?;
        if !self.has_heard {
            let first = buffer.filled().get(before).copied();
            self.hear(first)?;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        with!(self, stream => Pin::new(stream).poll_write(cx, bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        with!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        with!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        with!(self, stream => Pin::new(stream).poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.inner {
            Inner::Plain(stream) => stream.is_write_vectored(),
            #[cfg(feature = "tls")]
            Inner::Tls(stream) => stream.is_write_vectored(),
        }
    }
}
