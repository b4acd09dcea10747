//! What an error of a connection with TLS means.

use std::io;

use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError};
use tailmark_record::Timestamp;

use super::{Problem, TlsProblem};

/// Names of a certificate that are told.
const MAX_NAMES: usize = 8;

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
