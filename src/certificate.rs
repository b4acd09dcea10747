//! What a certificate says of itself.
//!
//! Reads X.509 that a peer or a file has shown, whoever vouches for it; trust is decided elsewhere.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use x509_cert::TbsCertificate;
use x509_cert::der::asn1::{Ia5StringRef, PrintableStringRef, Utf8StringRef};
use x509_cert::der::oid::db::rfc4519;
use x509_cert::der::{Any, Decode};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::name::Name;

/// A certificate that can be read.
pub(crate) struct Certificate(TbsCertificate);

impl Certificate {
    /// Reads DER.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub(crate) fn read(der: &[u8]) -> Result<Certificate, &'static str> {
        let certificate = x509_cert::Certificate::from_der(der);
        let certificate = certificate.map_err(|_| "it is no X.509 certificate")?;
        Ok(Certificate(certificate.tbs_certificate))
    }

    /// From when it is valid.
    pub(crate) fn not_before(&self) -> SystemTime {
        self.0.validity.not_before.to_system_time()
    }

    /// Until when it is.
    pub(crate) fn not_after(&self) -> SystemTime {
        self.0.validity.not_after.to_system_time()
    }

    /// Whom it is of, where it is one who comes to a server: the first alternative name that is a DNS
    /// name, a URI or a mail address, else the common name.
    pub(crate) fn principal(&self) -> Option<String> {
        let alternative = self.alternative_names().into_iter().find_map(|name| match name {
            GeneralName::DnsName(name)
            | GeneralName::UniformResourceIdentifier(name)
            | GeneralName::Rfc822Name(name) => Some(name.as_str().to_owned()),
            _ => None,
        });
        alternative.or_else(|| common_name(&self.0.subject))
    }

    /// The names and addresses that a server may have by it.
    #[cfg(feature = "cli")]
    pub(crate) fn hosts(&self) -> Vec<String> {
        let host = |name| match name {
            GeneralName::DnsName(name) => Some(name.as_str().to_owned()),
            GeneralName::IpAddress(bytes) => address(bytes.as_bytes()).map(|ip| ip.to_string()),
            _ => None,
        };
        self.alternative_names().into_iter().filter_map(host).collect()
    }

    /// Whom it names, as directories write it.
    #[cfg(feature = "cli")]
    pub(crate) fn subject(&self) -> String {
        common_name(&self.0.subject).unwrap_or_else(|| self.0.subject.to_string())
    }

    /// Who has signed it.
    #[cfg(feature = "cli")]
    pub(crate) fn issuer(&self) -> String {
        common_name(&self.0.issuer).unwrap_or_else(|| self.0.issuer.to_string())
    }

    /// One that cannot be read counts as none.
    fn alternative_names(&self) -> Vec<GeneralName> {
        let names = self.0.get::<SubjectAltName>().ok().flatten();
        names.map(|(_, names)| names.0).unwrap_or_default()
    }
}

#[cfg(feature = "cli")]
fn address(bytes: &[u8]) -> Option<std::net::IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(std::net::IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(std::net::IpAddr::from)).ok()
}

fn common_name(name: &Name) -> Option<String> {
    let parts = name.0.iter().flat_map(|part| part.0.iter());
    let value = parts.filter(|part| part.oid == rfc4519::CN).map(|part| &part.value).next_back()?;
    text(value)
}

fn text(value: &Any) -> Option<String> {
    let utf8 = value.decode_as::<Utf8StringRef<'_>>().map(|text| text.as_str().to_owned());
    let printable = || value.decode_as::<PrintableStringRef<'_>>().map(|t| t.as_str().to_owned());
    let ia5 = || value.decode_as::<Ia5StringRef<'_>>().map(|text| text.as_str().to_owned());
    utf8.or_else(|_| printable()).or_else(|_| ia5()).ok()
}

/// A time for people.
pub(crate) fn time_text(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    let time = jiff::Timestamp::from_second(seconds);
    time.map_or_else(|_| "the end of time".to_owned(), |time| time.to_string())
}
