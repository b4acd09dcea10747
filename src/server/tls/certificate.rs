//! Whom a client's certificate names, and when ours is valid.

use std::sync::Arc;
use std::time::SystemTime;

use crate::certificate::Certificate;

/// Bytes of a principal's name at most: as long as any other name here.
const MAX_NAME_BYTES: usize = 255;

/// Who a client is by its certificate, which was verified; travels as a request extension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClientCertificate {
    /// The first name among its alternative ones that is a DNS name, a URI or a mail address; else
    /// its common name. 1 to 255 bytes without control characters.
    pub(crate) name: Arc<str>,
    /// Until when it is valid.
    pub(crate) not_after: SystemTime,
}

impl ClientCertificate {
    /// Reads a certificate's DER.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub(crate) fn read(der: &[u8]) -> Result<ClientCertificate, &'static str> {
        let certificate = Certificate::read(der)?;
        let nobody = "it names nobody: no DNS name, URI, mail address or common name";
        let name = certificate.principal().ok_or(nobody)?;
        if name.is_empty() || name.len() > MAX_NAME_BYTES || name.chars().any(char::is_control) {
            return Err("its name is not 1 to 255 bytes without control characters");
        }
        Ok(ClientCertificate { name: name.into(), not_after: certificate.not_after() })
    }
}

/// When it is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) not_before: SystemTime,
    pub(super) not_after: SystemTime,
}

impl Validity {
    /// Reads a certificate's DER.
    pub(super) fn read(der: &[u8]) -> Result<Validity, &'static str> {
        let certificate = Certificate::read(der)?;
        let (not_before, not_after) = (certificate.not_before(), certificate.not_after());
        Ok(Validity { not_before, not_after })
    }

    /// When both are valid.
    pub(super) fn and(self, other: Validity) -> Validity {
        Validity {
            not_before: self.not_before.max(other.not_before),
            not_after: self.not_after.min(other.not_after),
        }
    }
}
