//! Shaking hands: files, trust, and what a failure means.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore};
use tailmark_record::Timestamp;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Pem, Problem, Tls, TlsProblem};

/// What is spoken: HTTP/2.
const PROTOCOL: &[u8] = b"h2";
/// Of a file.
const MAX_BYTES: u64 = 4 << 20;
/// Names of a certificate that are told.
const MAX_NAMES: usize = 8;

/// Shakes hands with one server.
pub(crate) struct Shaker {
    options: Tls,
    name: ServerName<'static>,
    /// What was made last, and of what.
    last: Mutex<Option<(Read3, Arc<ClientConfig>)>>,
}

/// The bytes of `ca`, `cert` and `key`.
type Read3 = [Option<Vec<u8>>; 3];

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
        let Tls { ca, cert, key, .. } = &self.options;
        let now = [read(ca)?, read(cert)?, read(key)?];
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

    fn make(&self, [ca, cert, key]: &Read3) -> Result<ClientConfig, Problem> {
        let Tls { ca: of_ca, cert: of_cert, key: of_key, .. } = &self.options;
        let roots = match ca {
            Some(bytes) => roots(of_ca, bytes)?,
            None => system_roots()?,
        };
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

/// What an error of a connection with TLS means; `None` where the connection just broke.
pub(crate) fn problem_of(error: &io::Error) -> Option<Problem> {
    let error = error.get_ref()?;
    if let Some(problem) = error.downcast_ref::<Problem>() {
        return Some(problem.clone());
    }
    let (what, words) = match error.downcast_ref::<rustls::Error>()? {
        rustls::Error::InvalidCertificate(error) => of_certificate(error),
        rustls::Error::AlertReceived(alert) => of_alert(*alert)?,
        rustls::Error::InvalidMessage(_) => (
            TlsProblem::NotSpoken,
            "what answers does not speak TLS: its address may begin with http://".to_owned(),
        ),
        error => (TlsProblem::Other, format!("TLS failed: {error}")),
    };
    Some(Problem::new(what, words))
}

fn of_certificate(error: &CertificateError) -> (TlsProblem, String) {
    use CertificateError::{
        ExpiredContext, NotValidForNameContext, NotValidYetContext, UnknownIssuer,
    };
    match error {
        ExpiredContext { time, not_after } => (
            TlsProblem::Expired,
            format!(
                "the server's certificate expired at {}; here it is {}",
                at(*not_after),
                at(*time)
            ),
        ),
        NotValidYetContext { time, not_before } => (
            TlsProblem::NotYetValid,
            format!(
                "the server's certificate is not valid before {}; here it is {}",
                at(*not_before),
                at(*time)
            ),
        ),
        UnknownIssuer => (
            TlsProblem::UnknownIssuer,
            "the server's certificate is signed by an authority that is not trusted here"
                .to_owned(),
        ),
        CertificateError::BadSignature => (
            TlsProblem::UnknownIssuer,
            "the server's certificate is not signed by the authority that is trusted here, but by \
             one of the same name"
                .to_owned(),
        ),
        NotValidForNameContext { expected, presented } => (
            TlsProblem::WrongName,
            format!(
                "the server's certificate is for {}, not for {}",
                names(presented),
                expected.to_str()
            ),
        ),
        error => (TlsProblem::Other, format!("the server's certificate cannot be used: {error}")),
    }
}

/// As webpki has them: `DnsName("a.example")`, `IpAddress(127.0.0.1)`.
fn names(presented: &[String]) -> String {
    let bare = |name: &String| {
        let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
        inner.unwrap_or(name).trim_matches('"').to_owned()
    };
    let mut names: Vec<_> = presented.iter().take(MAX_NAMES).map(bare).collect();
    if presented.len() > MAX_NAMES {
        names.push(format!("{} more", presented.len() - MAX_NAMES));
    }
    if names.is_empty() { "no name at all".to_owned() } else { names.join(", ") }
}

/// What the other side says.
fn of_alert(alert: AlertDescription) -> Option<(TlsProblem, String)> {
    let refused = |why: &str| {
        (TlsProblem::ClientRefused, format!("the server refuses the client's certificate: {why}"))
    };
    Some(match alert {
        AlertDescription::CertificateRequired | AlertDescription::NoCertificate => (
            TlsProblem::ClientRefused,
            "the server wants a certificate of the client, and got none".to_owned(),
        ),
        AlertDescription::UnknownCA => refused("it does not trust who signed it"),
        AlertDescription::CertificateExpired => refused("it is not valid now"),
        AlertDescription::CertificateRevoked => refused("it was revoked"),
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::AccessDenied => refused(&format!("{alert:?}")),
        AlertDescription::NoApplicationProtocol => {
            (TlsProblem::NoHttp2, "what answers there speaks no HTTP/2, and so no gRPC".to_owned())
        }
        // It may get over that.
        AlertDescription::InternalError | AlertDescription::UserCanceled => return None,
        alert => (TlsProblem::Other, format!("the server refuses to speak TLS with us: {alert:?}")),
    })
}

fn at(time: UnixTime) -> String {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    Timestamp { seconds, nanos: 0 }.to_string()
}
