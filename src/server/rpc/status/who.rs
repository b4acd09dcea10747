//! Who asks, and whether they may: refusals that say no more than their owner may know.

use tonic::metadata::AsciiMetadataValue;

use super::{Failure, over_limit};
use crate::server::shares::TooFast;
use tailmark_record::{Reason, excerpt};

/// The challenge of an answer that wants a token, or a better one (RFC 6750).
pub(super) const CHALLENGE: &str = "www-authenticate";
/// Whether it was the token or the lack of one.
const INVALID_TOKEN: &str = "Bearer error=\"invalid_token\"";

/// Nobody said who asks.
pub(crate) fn token_missing() -> Failure {
    let message = "this server wants to know who asks: send `authorization: Bearer TOKEN`";
    Failure::new(Reason::TokenMissing, message)
}

/// Whatever is wrong with it: what exactly would help who forges one.
pub(crate) fn token_invalid() -> Failure {
    Failure::new(Reason::TokenInvalid, "this server does not take this token")
}

/// A certificate whose name has no entry.
pub(crate) fn certificate_unknown(name: &str) -> Failure {
    let name = &excerpt(name);
    let message = format!("this server knows no principal for the certificate of {name}");
    Failure::new(Reason::TokenInvalid, message).with("certificate", name)
}

/// A token whose time is over.
pub(crate) fn token_expired() -> Failure {
    Failure::new(Reason::TokenExpired, "the token has expired")
}

/// A stream whose token is not in force any more.
pub(crate) fn token_revoked() -> Failure {
    let message = "the token was revoked, or has other rights now; come back with one in force";
    Failure::new(Reason::TokenRevoked, message)
}

/// More in a second than a principal may store.
pub(crate) fn too_fast(over: TooFast) -> Failure {
    let limit = usize::try_from(over.limit).unwrap_or(usize::MAX);
    let failure = over_limit(over.what, limit, over.actual);
    match over.wait {
        Some(wait) => failure.retry(wait),
        // It will never fit.
        None => failure,
    }
}

/// Says which of one's own rights was looked at, and nothing else.
pub(crate) fn right_missing(right: &'static str, granted: &[&str]) -> Failure {
    let message = match (right, granted) {
        ("admin", _) => "only a principal with the right `admin` may do this".to_owned(),
        (_, []) => format!("this principal may {right} nothing"),
        (_, granted) => {
            format!("this principal may {right} {} and nothing else", granted.join(","))
        }
    };
    let granted = granted.join(",");
    Failure::new(Reason::RightMissing, message).with("right", right).with("granted", granted)
}

/// What a client is told to bring, in the way of HTTP.
pub(super) fn challenge(reason: Reason) -> Option<AsciiMetadataValue> {
    Some(AsciiMetadataValue::from_static(match reason {
        Reason::TokenMissing => "Bearer",
        Reason::RightMissing => "Bearer error=\"insufficient_scope\"",
        _ if reason.is_of_token() => INVALID_TOKEN,
        _ => return None,
    }))
}
