//! Shaking hands: files and trust.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::words::problem_of;
use super::{Pem, Problem, Tls, TlsProblem};

/// What is spoken: HTTP/2.
const PROTOCOL: &[u8] = b"h2";
/// Of a file.
const MAX_BYTES: u64 = 4 << 20;

/// Shakes hands with one server.
pub(crate) struct Shaker {
    options: Tls,
    pub(super) name: ServerName<'static>,
    /// What was made last, and of what.
    last: Mutex<Option<(Read3, Arc<ClientConfig>)>>,
}

/// The bytes of `ca`, `cert` and `key`.
pub(super) type Read3 = [Option<Vec<u8>>; 3];

impl Shaker {
    /// For the server at this host, unless the options name it otherwise.
    ///
    /// # Errors
    /// When it has no name that a certificate could have.
    pub(crate) fn new(options: Tls, host: &str) -> Result<Shaker, &'static str> {
        let name = options.server_name.as_deref().unwrap_or(host);
        let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
        let name = ServerName::try_from(bare.to_owned());
        let name = name.map_err(|_| "no certificate can have that name")?;
        Ok(Shaker { options, name, last: Mutex::default() })
    }

    /// Shakes hands over a new connection.
    ///
    /// # Errors
    /// A [`Problem`], or that the connection broke.
    pub(crate) async fn shake(
        self: Arc<Self>,
        stream: TcpStream,
    ) -> io::Result<TlsStream<TcpStream>> {
        let shaker = Arc::clone(&self);
        // Files may lie anywhere.
        let config = tokio::task::spawn_blocking(move || shaker.config()).await;
        let config = config.map_err(io::Error::other)?.map_err(io::Error::other)?;
        let connector = TlsConnector::from(config);
        connector.connect(self.name.clone(), stream).await.map_err(|error| {
            match problem_of(&error) {
                Some(problem) => io::Error::new(io::ErrorKind::InvalidData, problem),
                None => error,
            }
        })
    }

    /// The configuration by the files as they are now.
    fn config(&self) -> Result<Arc<ClientConfig>, Problem> {
        let now = self.read()?;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((read, config)) = &*last
            && *read == now
        {
            return Ok(Arc::clone(config));
        }
        let config = Arc::new(self.make(&now)?);
        *last = Some((now, Arc::clone(&config)));
        Ok(config)
    }

    /// Reads what the options name.
    pub(super) fn read(&self) -> Result<Read3, Problem> {
        let Tls { ca, cert, key, .. } = &self.options;
        Ok([read(ca)?, read(cert)?, read(key)?])
    }

    pub(super) fn roots(&self, [ca, ..]: &Read3) -> Result<Arc<RootCertStore>, Problem> {
        match ca {
            Some(bytes) => roots(&self.options.ca, bytes),
            None => system_roots(),
        }
    }

    pub(super) fn make(&self, read: &Read3) -> Result<ClientConfig, Problem> {
        let Tls { cert: of_cert, key: of_key, .. } = &self.options;
        let (roots, [_, cert, key]) = (self.roots(read)?, read);
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(ring)
            .with_safe_default_protocol_versions()
            .map_err(|error| Problem::new(TlsProblem::Other, error.to_string()))?
            .with_root_certificates(roots);
        let mut config = match (cert, key) {
            (Some(cert), Some(key)) => {
                let chain = certificates(of_cert, cert)?;
                let key = PrivateKeyDer::from_pem_slice(key)
                    .map_err(|error| bad(of_key, &format!("no private key in it: {error}")))?;
                builder.with_client_auth_cert(chain, key).map_err(|error| match error {
                    rustls::Error::InconsistentKeys(_) => {
                        bad(of_key, "the key does not belong to the certificate")
                    }
                    error => bad(of_cert, &error.to_string()),
                })?
            }
            _ => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        Ok(config)
    }
}

/// The authorities of the system, read once.
fn system_roots() -> Result<Arc<RootCertStore>, Problem> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    if let Some(roots) = ROOTS.get() {
        return Ok(Arc::clone(roots));
    }
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found.errors.first().map(|error| format!(": {error}")).unwrap_or_default();
        let words = format!("this system has no list of authorities to trust{why}");
        return Err(Problem::new(TlsProblem::Files, words));
    }
    Ok(Arc::clone(ROOTS.get_or_init(|| Arc::new(roots))))
}

fn roots(of: &Option<Pem>, bytes: &[u8]) -> Result<Arc<RootCertStore>, Problem> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(of, bytes)? {
        roots.add(certificate).map_err(|error| bad(of, &error.to_string()))?;
    }
    Ok(Arc::new(roots))
}

fn certificates(of: &Option<Pem>, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Problem> {
    let all = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    let all = all.map_err(|error| bad(of, &format!("not whole, or no PEM: {error}")))?;
    if all.is_empty() { Err(bad(of, "no certificate in it")) } else { Ok(all) }
}

fn read(pem: &Option<Pem>) -> Result<Option<Vec<u8>>, Problem> {
    match pem {
        None => Ok(None),
        Some(Pem::Bytes(bytes)) => Ok(Some(bytes.to_vec())),
        Some(Pem::File(path)) => {
            let bytes =
                read_file(path).map_err(|error| bad(pem, &format!("cannot read it: {error}")))?;
            Ok(Some(bytes))
        }
    }
}

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    if path.metadata()?.is_dir() {
        return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a directory"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn bad(pem: &Option<Pem>, problem: &str) -> Problem {
    let words = match pem {
        Some(Pem::File(path)) => format!("{}: {problem}", path.display()),
        _ => problem.to_owned(),
    };
    Problem::new(TlsProblem::Files, words)
}
