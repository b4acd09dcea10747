//! How a connection begins: the handshake, where the server speaks TLS, and which protocol follows.
//!
//! Nothing here is bounded in time: whoever greets does that. Somebody who comes without TLS where it
//! is needed, or with it where it is not, is told so as far as his protocol allows.

use std::io;
use std::net::SocketAddr;

use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::maybe_tls::MaybeTls;
use super::preface::{self, Begun, HANDSHAKE, Protocol};
use super::rarely::Rarely;
use crate::server::rpc::status::{self, Failure};
use crate::server::tls::{Certificates, ClientCertificate};

/// A connection that can be served.
pub(crate) struct Hello {
    pub(crate) stream: Begun,
    pub(crate) protocol: Protocol,
    /// What the client has shown.
    pub(crate) certificate: Option<ClientCertificate>,
}

/// How it has begun.
pub(crate) enum Greeting {
    Served(Hello),
    /// It can be told why it is not served.
    Refused(Hello, Failure),
    /// The handshake has failed, and the client was told; to be closed in order.
    Over(MaybeTls),
}

/// What went wrong with connections, told a few times a minute at most.
#[derive(Debug, Default)]
pub(crate) struct Notices {
    handshakes: Mutex<Rarely>,
    plain: Mutex<Rarely>,
    encrypted: Mutex<Rarely>,
    pub(super) floods: Mutex<Rarely>,
}

/// Shakes hands, and reads until it is clear what the connection speaks.
///
/// # Errors
/// When it ends before that.
pub(crate) async fn greet(
    stream: TcpStream,
    address: SocketAddr,
    tls: Option<&Certificates>,
    notices: &Notices,
) -> io::Result<Greeting> {
    let Some(tls) = tls else { return greet_plain(stream, address, notices).await };
    let mut first = [0];
    if stream.peek(&mut first).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if first != [HANDSHAKE] {
        notices.plain.lock().log(|count| {
            tracing::warn!(%address, count, "clients without TLS came; their URL must begin with https://");
        });
        let (stream, protocol) = preface::begin(MaybeTls::Plain(stream)).await?;
        let hello = Hello { stream, protocol, certificate: None };
        return Ok(Greeting::Refused(hello, status::tls_required()));
    }
    let accept = TlsAcceptor::from(tls.current()).accept(stream).into_fallible();
    let stream = match accept.await {
        Ok(stream) => stream,
        Err((error, stream)) => {
            notices.handshakes.lock().log(|count| {
                tracing::warn!(%address, %error, count, "TLS handshakes failed");
            });
            // What the client has said behind its last word would turn our answer into a reset.
            return Ok(Greeting::Over(MaybeTls::Plain(stream)));
        }
    };
    let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let certificate = shown.map(|der| ClientCertificate::read(der)).transpose();
    let (stream, protocol) = preface::begin(MaybeTls::from(stream)).await?;
    Ok(match certificate {
        Ok(certificate) => Greeting::Served(Hello { stream, protocol, certificate }),
        Err(why) => {
            let hello = Hello { stream, protocol, certificate: None };
            Greeting::Refused(hello, status::certificate_unnamed(why))
        }
    })
}

async fn greet_plain(
    stream: TcpStream,
    address: SocketAddr,
    notices: &Notices,
) -> io::Result<Greeting> {
    let (stream, protocol) = preface::begin(MaybeTls::Plain(stream)).await?;
    if stream.is_handshake() {
        notices.encrypted.lock().log(|count| {
            tracing::warn!(
                %address, count,
                "clients with TLS came, and there is none here: their URL must begin with http://, \
                 or tls.cert_file and tls.key_file be set"
            );
        });
    }
    // Served like what is no HTTP: the answer says so, and clients of TLS know plain text.
    Ok(Greeting::Served(Hello { stream, protocol, certificate: None }))
}
