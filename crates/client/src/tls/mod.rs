//! TLS for addresses that begin with `https://`: whom the client trusts, and what it shows.
//!
//! Files are read again whenever a connection is made, so that what was renewed is taken up.

#[cfg(feature = "tls")]
pub mod look;
mod problem;
#[cfg(feature = "tls")]
mod shake;
#[cfg(feature = "tls")]
mod words;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

pub(super) use problem::Problem;
pub use problem::TlsProblem;
#[cfg(feature = "tls")]
pub(super) use shake::Shaker;
#[cfg(feature = "tls")]
pub(super) use words::problem_of;

/// How a client speaks TLS. The default trusts the authorities of the system, shows nothing, and
/// expects the server under the name in its address.
///
/// ```no_run
/// # fn main() -> Result<(), tailmark_client::Error> {
/// use tailmark_client::{Client, Options, Pem};
///
/// let mut options = Options::default();
/// options.tls.ca = Some(Pem::file("ca.pem"));
/// options.tls.cert = Some(Pem::file("alice.pem"));
/// options.tls.key = Some(Pem::file("alice.key"));
/// let client = Client::with_options("https://log.example:50051", options)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Tls {
    /// The authorities that may vouch for the server, in place of the system's.
    pub ca: Option<Pem>,
    /// The certificate that the client shows where it is asked for one, with those between it and a
    /// root behind it. Needs [`Tls::key`].
    pub cert: Option<Pem>,
    /// Its key, not encrypted.
    pub key: Option<Pem>,
    /// The name that the server's certificate must have, where it is not that of the address, as
    /// through a tunnel.
    pub server_name: Option<String>,
}

/// Certificates or a key as PEM.
#[derive(Clone)]
#[non_exhaustive]
pub enum Pem {
    /// In a file, which is read again whenever a connection is made.
    File(PathBuf),
    /// As they are.
    Bytes(Arc<[u8]>),
}

impl Pem {
    /// In a file.
    pub fn file(path: impl Into<PathBuf>) -> Pem {
        Pem::File(path.into())
    }

    /// As they are.
    pub fn bytes(bytes: impl Into<Arc<[u8]>>) -> Pem {
        Pem::Bytes(bytes.into())
    }
}

/// Without the bytes: they may be a key.
impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pem::File(path) => f.debug_tuple("File").field(path).finish(),
            Pem::Bytes(bytes) => write!(f, "Bytes({})", bytes.len()),
        }
    }
}

impl Tls {
    /// What cannot be meant.
    pub(super) fn wrong(&self) -> Option<&'static str> {
        match (&self.cert, &self.key) {
            (Some(_), None) => Some("a certificate needs its key"),
            (None, Some(_)) => Some("a key needs its certificate"),
            _ => None,
        }
    }
}
