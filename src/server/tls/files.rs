//! Reading certificates and keys, and what a handshake is done with.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};

use super::certificate::Validity;

/// Of one file; a chain takes a few KiB, all roots that there are 250.
const MAX_BYTES: u64 = 4 << 20;
/// What we speak, the preferred first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Files with what TLS needs, as PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate, then those between it and a root.
    pub cert: PathBuf,
    /// Its key, not encrypted: PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
    /// Who vouches for clients; with it, a client without a certificate gets no connection.
    pub client_ca: Option<PathBuf>,
}

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{setting}: cannot read {}: {source}", path.display())]
    Read {
        /// Which setting names it.
        setting: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file has not what it should have.
    #[error("{setting}: {}: {problem}", path.display())]
    Content {
        /// Which setting names it.
        setting: &'static str,
        /// Which.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// Certificate and key do not go together, or cannot be used.
    #[error("tls.cert_file, tls.key_file: {0}")]
    Pair(String),
    /// A certificate is not valid now.
    #[error("tls.cert_file: {}: {problem}", path.display())]
    NotValid {
        /// Which.
        path: PathBuf,
        /// Expired, or not valid yet.
        problem: String,
    },
}

/// What the files had in them.
#[derive(PartialEq, Eq)]
pub(super) struct Bytes {
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

/// What was made of them.
pub(super) struct Made {
    pub(super) config: Arc<ServerConfig>,
    /// When all of the chain is valid.
    pub(super) validity: Validity,
}

impl TlsFiles {
    /// Reads all of them. Blocks.
    pub(super) fn read(&self) -> Result<Bytes, TlsError> {
        let read = |setting, path: &Path| {
            read(path).map_err(|source| TlsError::Read { setting, path: path.to_owned(), source })
        };
        Ok(Bytes {
            cert: read(CERT, &self.cert)?,
            key: read(KEY, &self.key)?,
            client_ca: self.client_ca.as_deref().map(|path| read(CLIENT_CA, path)).transpose()?,
        })
    }

    /// Makes of these bytes what a handshake needs.
    pub(super) fn make(&self, bytes: &Bytes) -> Result<Made, TlsError> {
        let bad = |setting, path: &Path, problem: String| TlsError::Content {
            setting,
            path: path.to_owned(),
            problem,
        };
        let chain = certificates(&bytes.cert).map_err(|problem| bad(CERT, &self.cert, problem))?;
        let key = key(&bytes.key).map_err(|problem| bad(KEY, &self.key, problem))?;
        let mut validities = chain.iter().map(|der| Validity::read(der));
        let unreadable = |problem: &str| bad(CERT, &self.cert, problem.to_owned());
        // `certificates` gives at least one.
        let first =
            validities.next().unwrap_or(Err("it has no certificate")).map_err(unreadable)?;
        let validity = validities
            .try_fold(first, |all, one| one.map(|one| all.and(one)))
            .map_err(unreadable)?;
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&ring))
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError::Pair(error.to_string()))?;
        let builder = match (&self.client_ca, &bytes.client_ca) {
            (Some(path), Some(bytes)) => {
                let verifier =
                    verifier(bytes, ring).map_err(|problem| bad(CLIENT_CA, path, problem))?;
                builder.with_client_cert_verifier(verifier)
            }
            _ => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(chain, key).map_err(|error| {
            TlsError::Pair(match error {
                rustls::Error::InconsistentKeys(_) => {
                    "the key does not belong to the certificate".to_owned()
                }
                error => error.to_string(),
            })
        })?;
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        if self.client_ca.is_some() {
            // Whoever comes again shows its certificate again: it may have expired meanwhile.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        Ok(Made { config: Arc::new(config), validity })
    }
}

const CERT: &str = "tls.cert_file";
const KEY: &str = "tls.key_file";
const CLIENT_CA: &str = "tls.client_ca_file";

fn read(path: &Path) -> io::Result<Vec<u8>> {
    if !path.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is too large"));
    }
    Ok(bytes)
}

/// At least one.
fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let all = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    let all = all.map_err(|error| format!("it is not whole, or no PEM: {error}"))?;
    if all.is_empty() {
        return Err("it has no certificate as PEM (-----BEGIN CERTIFICATE-----)".to_owned());
    }
    Ok(all)
}

fn key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    use rustls::pki_types::pem::Error;
    let is_encrypted = pem.windows(ENCRYPTED.len()).any(|part| part == ENCRYPTED);
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| match error {
        Error::NoItemsFound if is_encrypted => {
            "its key is encrypted; `openssl pkey -in FILE -out PLAIN` takes that off".to_owned()
        }
        Error::NoItemsFound => {
            "it has no private key as PEM (-----BEGIN PRIVATE KEY-----)".to_owned()
        }
        error => format!("it is not whole, or no PEM: {error}"),
    })
}

const ENCRYPTED: &[u8] = b"-----BEGIN ENCRYPTED PRIVATE KEY-----";

fn verifier(
    pem: &[u8],
    ring: Arc<rustls::crypto::CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots
            .add(certificate)
            .map_err(|error| format!("a certificate of it is unusable: {error}"))?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), ring)
        .build()
        .map_err(|error| error.to_string())
}
