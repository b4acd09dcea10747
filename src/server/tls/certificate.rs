//! What a certificate says of itself.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use x509_cert::Certificate;
use x509_cert::der::asn1::{Ia5StringRef, PrintableStringRef, Utf8StringRef};
use x509_cert::der::{Decode, oid::db::rfc4519};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

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
        let certificate = Certificate::from_der(der).map_err(|_| UNREADABLE)?;
        let name = principal(&certificate)
            .ok_or("it names nobody: no DNS name, URI, mail address or common name")?;
        if name.is_empty() || name.len() > MAX_NAME_BYTES || name.chars().any(char::is_control) {
            return Err("its name is not 1 to 255 bytes without control characters");
        }
        Ok(ClientCertificate { name: name.into(), not_after: end(&certificate) })
    }
}

const UNREADABLE: &str = "it is no X.509 certificate";

/// When it is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) not_before: SystemTime,
    pub(super) not_after: SystemTime,
}

impl Validity {
    /// Reads a certificate's DER.
    pub(super) fn read(der: &[u8]) -> Result<Validity, &'static str> {
        let certificate = Certificate::from_der(der).map_err(|_| UNREADABLE)?;
        let not_before = certificate.tbs_certificate.validity.not_before.to_system_time();
        Ok(Validity { not_before, not_after: end(&certificate) })
    }

    /// When both are valid.
    pub(super) fn and(self, other: Validity) -> Validity {
        Validity {
            not_before: self.not_before.max(other.not_before),
            not_after: self.not_after.min(other.not_after),
        }
    }
}

fn end(certificate: &Certificate) -> SystemTime {
    certificate.tbs_certificate.validity.not_after.to_system_time()
}

fn principal(certificate: &Certificate) -> Option<String> {
    let certificate = &certificate.tbs_certificate;
    // One that cannot be read counts as none; the rest was verified.
    let names = certificate.get::<SubjectAltName>().ok().flatten();
    let names = names.map(|(_, names)| names.0).unwrap_or_default();
    let alternative = names.iter().find_map(|name| match name {
        GeneralName::DnsName(name)
        | GeneralName::UniformResourceIdentifier(name)
        | GeneralName::Rfc822Name(name) => Some(name.as_str().to_owned()),
        _ => None,
    });
    alternative.or_else(|| common_name(certificate))
}

fn common_name(certificate: &x509_cert::TbsCertificate) -> Option<String> {
    let parts = certificate.subject.0.iter().flat_map(|part| part.0.iter());
    let value = parts.filter(|part| part.oid == rfc4519::CN).map(|part| &part.value).next_back()?;
    let text = value.decode_as::<Utf8StringRef<'_>>().map(|text| text.as_str().to_owned());
    text.or_else(|_| {
        value.decode_as::<PrintableStringRef<'_>>().map(|text| text.as_str().to_owned())
    })
    .or_else(|_| value.decode_as::<Ia5StringRef<'_>>().map(|text| text.as_str().to_owned()))
    .ok()
}

/// A time for people.
pub(super) fn time_text(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds)
        .map_or_else(|_| "never".to_owned(), |time| time.to_string())
}
