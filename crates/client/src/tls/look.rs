//! A handshake for who wants to know what is wrong with it: what the server has shown is told, whether
//! or not it is trusted.

use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::shake::Shaker;
use super::words::problem_of;
use super::{Problem, Tls, TlsProblem};

/// What a handshake has shown, for who wants to know what is wrong with it.
pub struct Look {
    /// The server's certificates as DER, its own first; empty where it came to none.
    pub chain: Vec<Vec<u8>>,
    /// The connection, or what is wrong with it; without a [`TlsProblem`] it just broke.
    pub outcome: Result<Box<TlsStream<TcpStream>>, (Option<TlsProblem>, String)>,
}

/// Shakes hands as a client with these options does, saying that it speaks these protocols.
///
/// # Errors
/// Why no handshake can be begun.
pub async fn look(
    options: &Tls,
    host: &str,
    protocols: &[&str],
    stream: TcpStream,
) -> Result<Look, (Option<TlsProblem>, String)> {
    let shaker = Shaker::new(options.clone(), host).map_err(|why| (None, why.to_owned()))?;
    let recorder = Arc::new(Recorder::default());
    let config = shaker
        .recorded(&recorder, protocols)
        .map_err(|problem| (Some(problem.what), problem.to_string()))?;
    let connected = TlsConnector::from(Arc::new(config)).connect(shaker.name.clone(), stream).await;
    let chain = recorder.chain.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ok(Look { chain, outcome: connected.map(Box::new).map_err(|error| words(&error)) })
}

/// What an error of a connection with TLS means.
pub fn words(error: &io::Error) -> (Option<TlsProblem>, String) {
    match problem_of(error) {
        Some(problem) => (Some(problem.what), problem.to_string()),
        None => (None, error.to_string()),
    }
}

/// Remembers what the server has shown, and leaves it to another to judge.
#[derive(Debug, Default)]
struct Recorder {
    inner: OnceLock<Arc<WebPkiServerVerifier>>,
    chain: Mutex<Vec<Vec<u8>>>,
}

impl Recorder {
    fn inner(&self) -> Result<&WebPkiServerVerifier, rustls::Error> {
        self.inner.get().map(|inner| &**inner).ok_or_else(|| rustls::Error::General(String::new()))
    }
}

impl ServerCertVerifier for Recorder {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let chain = std::iter::once(own).chain(others).map(|der| der.to_vec()).collect();
        *self.chain.lock().unwrap_or_else(PoisonError::into_inner) = chain;
        self.inner()?.verify_server_cert(own, others, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner()?.verify_tls12_signature(message, cert, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner()?.verify_tls13_signature(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner().map(ServerCertVerifier::supported_verify_schemes).unwrap_or_default()
    }
}

impl Shaker {
    /// The same, by which the recorder hears what the server shows.
    fn recorded(
        &self,
        recorder: &Arc<Recorder>,
        protocols: &[&str],
    ) -> Result<ClientConfig, Problem> {
        let read = self.read()?;
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        let inner = WebPkiServerVerifier::builder_with_provider(self.roots(&read)?, ring).build();
        let inner = inner.map_err(|error| Problem::new(TlsProblem::Other, error.to_string()))?;
        let _ = recorder.inner.set(inner);
        let mut config = self.make(&read)?;
        config.dangerous().set_certificate_verifier(Arc::clone(recorder) as _);
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        Ok(config)
    }
}
