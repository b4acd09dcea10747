//! What it means that something between us and the server has answered, or has ended a call.
//!
//! Owns the mapping of HTTP statuses and HTTP/2 errors to gRPC's codes
//! (`doc/http-grpc-status-mapping.md`, `doc/PROTOCOL-HTTP2.md` in grpc/grpc), and what passes by
//! itself. Pure.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use h2::Reason;
use tonic::Code;
use tonic::codegen::http::{HeaderMap, StatusCode, header};

use super::Kind;

/// However long is said. Who waits by itself does not wait even so long (`backoff`).
const LONGEST_RETRY: u64 = 3_600;
/// Of a name that another gave itself, for a person to read.
const MAX_NAME: usize = 60;

/// What came in the place of gRPC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Foreign {
    /// An HTTP answer.
    Answer {
        status: StatusCode,
        /// What it is; empty = it does not say.
        content_type: String,
        /// Who says that it has answered; empty = nobody.
        server: String,
        retry_after: Option<Duration>,
    },
    /// Something else, where messages should be.
    Body,
    /// Nothing more, where messages or a status should be.
    Cut,
}

/// Whether trying again can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outlook {
    /// It passes by itself.
    Passes,
    /// It passes, or it is an answer that cannot be read, and stays.
    Doubtful,
    /// What answers is another than the server. Who has met the server there may wait for it to
    /// come back; who has not has the wrong address.
    Misrouted,
    /// TLS fails. Who has met the server there may wait until a certificate is renewed or the server
    /// restarted, and not for ever.
    Untrusted,
    /// It does not pass.
    Stays,
}

impl Foreign {
    /// The answer with this head.
    pub(super) fn answer(status: StatusCode, headers: &HeaderMap) -> Foreign {
        let text = |name| {
            let value = headers.get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default().chars().take(MAX_NAME).collect::<String>()
        };
        // As a date it is left alone: clocks differ, and the backoff does as well.
        let seconds = text(header::RETRY_AFTER).trim().parse::<u64>().ok();
        let retry_after = seconds.map(|seconds| Duration::from_secs(seconds.min(LONGEST_RETRY)));
        let (content_type, server) = (text(header::CONTENT_TYPE), text(header::SERVER));
        Foreign::Answer { status, content_type, server, retry_after }
    }

    /// The code that gRPC has for it.
    pub(super) fn code(&self) -> Code {
        let Foreign::Answer { status, .. } = self else { return Code::Unknown };
        match status.as_u16() {
            400 | 431 => Code::Internal,
            401 => Code::Unauthenticated,
            403 => Code::PermissionDenied,
            404 => Code::Unimplemented,
            429 | 502..=504 => Code::Unavailable,
            _ => Code::Unknown,
        }
    }

    pub(super) fn outlook(&self) -> Outlook {
        let status = match self {
            Foreign::Answer { status, .. } => status.as_u16(),
            Foreign::Body => return Outlook::Misrouted,
            Foreign::Cut => return Outlook::Passes,
        };
        match status {
            408 | 421 | 425 | 429 => Outlook::Passes,
            // Of servers' errors those that are of how things are set up: not implemented, a version
            // of HTTP, negotiation, a loop, extensions, a network that wants to know who is there.
            501 | 505 | 506 | 508 | 510 | 511 => Outlook::Stays,
            500.. => Outlook::Passes,
            // A page that says that something is being worked on comes so, too.
            200..=399 | 404 => Outlook::Misrouted,
            _ => Outlook::Stays,
        }
    }

    pub(super) fn kind(&self) -> Kind {
        let status = match self {
            Foreign::Answer { status, .. } => status.as_u16(),
            Foreign::Body => return Kind::Protocol,
            Foreign::Cut => return Kind::Unavailable,
        };
        match status {
            401 | 403 | 407 | 511 => Kind::Denied,
            404 => Kind::Unsupported,
            413 | 414 | 431 => Kind::LimitExceeded,
            _ if self.outlook() == Outlook::Passes => Kind::Unavailable,
            _ => Kind::Protocol,
        }
    }

    /// Whether the request may have reached the server all the same. Not where its head was enough to
    /// refuse it.
    pub(super) fn may_have_passed_it_on(&self) -> bool {
        let Foreign::Answer { status, .. } = self else { return true };
        let is_refusal = matches!(
            status.as_u16(),
            300..=399
                | 401 | 403..=405 | 407 | 411 | 413..=415 | 421 | 425 | 426 | 429 | 431 | 501 | 505 | 511
        );
        !is_refusal
    }

    /// As in `Retry-After`.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Foreign::Answer { retry_after, .. } if self.outlook() == Outlook::Passes => {
                *retry_after
            }
            _ => None,
        }
    }

    /// Of an HTTP answer.
    pub(super) fn http_status(&self) -> Option<u16> {
        match self {
            Foreign::Answer { status, .. } => Some(status.as_u16()),
            _ => None,
        }
    }
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (status, content_type, server) = match self {
            Foreign::Answer { status, content_type, server, .. } => (status, content_type, server),
            Foreign::Body => return f.write_str("what came in the server's place is not gRPC"),
            Foreign::Cut => return f.write_str("the answer was cut off on its way"),
        };
        write!(f, "a proxy or web server answered {}", status.as_u16())?;
        if let Some(words) = status.canonical_reason() {
            write!(f, " {words}")?;
        }
        // Of an error it says nothing; of a good answer it is what is wrong.
        if status.is_success() && !content_type.is_empty() {
            write!(f, " with {content_type}")?;
        }
        f.write_str(" in the server's place")?;
        if !server.is_empty() {
            write!(f, " ({server})")?;
        }
        Ok(())
    }
}

impl StdError for Foreign {}

/// How HTTP/2 has ended a stream, or the connection under it.
pub(super) struct Classified {
    pub code: Code,
    pub kind: Kind,
    /// The peer promises that it has not looked at it.
    pub is_unseen: bool,
}

/// What it means. `is_closed` = by GOAWAY; else by RST_STREAM.
pub(super) fn classify(reason: Reason, is_closed: bool) -> Classified {
    let (code, kind) = match reason {
        Reason::INADEQUATE_SECURITY => (Code::PermissionDenied, Kind::Denied),
        Reason::HTTP_1_1_REQUIRED => (Code::Unknown, Kind::Unsupported),
        // Whatever it was, another connection may do.
        _ if is_closed => (Code::Unavailable, Kind::Unavailable),
        Reason::REFUSED_STREAM => (Code::Unavailable, Kind::Unavailable),
        Reason::CANCEL => (Code::Cancelled, Kind::Unavailable),
        Reason::ENHANCE_YOUR_CALM => (Code::ResourceExhausted, Kind::Unavailable),
        // Those that are not known count as INTERNAL_ERROR: RFC 9113, section 7.
        _ => (Code::Internal, Kind::Unavailable),
    };
    Classified { code, kind, is_unseen: reason == Reason::REFUSED_STREAM && !is_closed }
}

/// As HTTP/2 names it.
pub(super) fn name(reason: Reason) -> String {
    match format!("{reason:?}") {
        other if other.starts_with("Reason(") => format!("error {}", u32::from(reason)),
        name => name,
    }
}
