//! Certificates made for a test, and clients that speak TLS as bare as can be.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hyper_util::rt::TokioIo;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType, date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tailmark::server::{Options, TlsFiles};
use tailmark_wire::feed_v1::feed_service_client::FeedServiceClient;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};

use super::server::{Client, TestServer, new_log, start_with, within};

pub const DAY: Duration = Duration::from_secs(86_400);

/// Who vouches for certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub pem: String,
}

/// A certificate with its key, as PEM.
#[derive(Clone)]
pub struct Pair {
    pub cert: String,
    pub key: String,
}

impl Authority {
    pub fn new(name: &str) -> Authority {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    /// For a server or a client, by its parameters.
    pub fn sign(&self, params: &CertificateParams) -> Pair {
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap().pem();
        Pair { cert, key: key.serialize_pem() }
    }

    /// For a server under all names of the loopback.
    pub fn server(&self) -> Pair {
        self.sign(&server())
    }

    /// For a client, by its alternative name, or else its common one.
    pub fn client(&self, name: &str) -> Pair {
        self.sign(&client(name))
    }
}

pub fn server() -> CertificateParams {
    CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap()
}

pub fn client(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::DnsName(name.try_into().unwrap())];
    params
}

/// Valid from so many days from now on, for a day; days before now are negative.
pub fn for_a_day(mut params: CertificateParams, from: i32) -> CertificateParams {
    let away = DAY * from.unsigned_abs();
    let now = SystemTime::now();
    let begin = if from < 0 { now - away } else { now + away };
    params.not_before = begin.into();
    params.not_after = (begin + DAY).into();
    params
}

/// Valid for so long from now on.
pub fn valid_for(mut params: CertificateParams, time: Duration) -> CertificateParams {
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = (SystemTime::now() + time).into();
    params
}

/// Where a server finds its certificate.
pub struct Dir {
    dir: tempfile::TempDir,
}

impl Dir {
    pub fn new(pair: &Pair) -> Dir {
        let dir = Dir { dir: tempfile::tempdir().unwrap() };
        dir.put(pair);
        dir
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn put(&self, pair: &Pair) {
        std::fs::write(self.path("cert.pem"), &pair.cert).unwrap();
        std::fs::write(self.path("key.pem"), &pair.key).unwrap();
    }

    pub fn files(&self) -> TlsFiles {
        TlsFiles { cert: self.path("cert.pem"), key: self.path("key.pem"), client_ca: None }
    }

    /// Where clients need a certificate of this authority's.
    pub fn files_with_clients(&self, authority: &Authority) -> TlsFiles {
        let path = self.path("clients.pem");
        std::fs::write(&path, &authority.pem).unwrap();
        TlsFiles { client_ca: Some(path), ..self.files() }
    }
}

pub fn options(files: TlsFiles) -> Options {
    Options { tls: Some(files), ..Options::default() }
}

/// A server with a certificate of this authority's.
pub async fn start(authority: &Authority) -> (TestServer, Dir) {
    let dir = Dir::new(&authority.server());
    (start_with(new_log(), options(dir.files())).await, dir)
}

/// What a client trusts, shows and speaks.
#[derive(Clone)]
pub struct Trust {
    config: ClientConfig,
}

impl Trust {
    pub fn new(authority: &Authority) -> Trust {
        Trust::of(authority, None, rustls::ALL_VERSIONS)
    }

    pub fn showing(authority: &Authority, pair: &Pair) -> Trust {
        Trust::of(authority, Some(pair), rustls::ALL_VERSIONS)
    }

    pub fn of(
        authority: &Authority,
        pair: Option<&Pair>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Trust {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap()).unwrap();
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(ring)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match pair {
            Some(pair) => {
                let chain = vec![CertificateDer::from_pem_slice(pair.cert.as_bytes()).unwrap()];
                let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        config.resumption = rustls::client::Resumption::disabled();
        Trust { config }
    }

    /// What the client says that it speaks.
    #[must_use]
    pub fn alpn(mut self, protocols: &[&str]) -> Trust {
        self.config.alpn_protocols =
            protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        self
    }

    /// A client that keeps what it needs to come again quickly.
    #[must_use]
    pub fn resuming(mut self) -> Trust {
        self.config.resumption = rustls::client::Resumption::in_memory_sessions(8);
        self
    }

    pub async fn connect(&self, address: SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = within("connect", TcpStream::connect(address)).await?;
        stream.set_nodelay(true)?;
        let connector = TlsConnector::from(Arc::new(self.config.clone()));
        let name = ServerName::try_from("localhost").unwrap();
        within("handshake", connector.connect(name, stream)).await
    }

    /// The certificate that the server shows.
    pub async fn shown(&self, address: SocketAddr) -> std::io::Result<CertificateDer<'static>> {
        let stream = self.connect(address).await?;
        Ok(stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned())
    }

    /// A channel of gRPC.
    pub async fn channel(&self, address: SocketAddr) -> Result<Channel, tonic::transport::Error> {
        let trust = self.clone().alpn(&["h2"]);
        let connector = tower::service_fn(move |_: http::Uri| {
            let trust = trust.clone();
            async move { trust.connect(address).await.map(TokioIo::new) }
        });
        let endpoint = Endpoint::from_shared(format!("https://{address}")).unwrap();
        // More than sockets hold.
        let endpoint =
            endpoint.initial_stream_window_size(4 << 20).initial_connection_window_size(64 << 20);
        within("connect", endpoint.connect_with_connector(connector)).await
    }

    pub async fn client(&self, server: &TestServer) -> Client {
        FeedServiceClient::new(self.channel(server.address).await.unwrap())
    }
}

/// A pair's certificate as a server shows it.
pub fn der(pair: &Pair) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pair.cert.as_bytes()).unwrap()
}
