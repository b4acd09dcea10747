//! The one error of the client.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::wire::code::name;

/// What kind of failure it is: enough to decide what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// The server cannot be reached; nothing was sent.
    Connect,
    /// The connection broke, or the server is stopping.
    Unavailable,
    /// No answer in time.
    Timeout,
    /// The request is wrong; see [`Error::reason`] and [`Error::metadata`].
    InvalidRequest,
    /// There is no such thing.
    NotFound,
    /// What was asked for was there and is not any more: trimmed, or another log or history.
    Gone,
    /// What was asked for is damaged on the server's disk.
    Damaged,
    /// The expected head had moved, or a newer producer took over.
    Conflict,
    /// Over a limit, or the server's disk is full.
    LimitExceeded,
    /// This server does not have the call.
    Unsupported,
    /// Not allowed.
    Denied,
    /// The answer breaks the protocol.
    Protocol,
    /// The server failed.
    Internal,
    /// The place where a watch keeps its cursor failed.
    CursorStore,
}

/// Why a call failed. Opaque: ask it.
pub struct Error(Box<Inner>);

struct Inner {
    kind: Kind,
    code: Code,
    message: String,
    reason: String,
    metadata: HashMap<String, String>,
    fields: Vec<(String, String)>,
    retry_delay: Option<Duration>,
    is_retryable: bool,
    may_have_applied: bool,
    is_foreign: bool,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// What kind of failure it is.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// Its code, as `google.rpc.Code` names it; the nearest one where the server gave none.
    pub fn code(&self) -> &'static str {
        name(self.0.code)
    }

    /// Whether the same request may succeed later.
    pub fn is_retryable(&self) -> bool {
        self.0.is_retryable
    }

    /// Whether what was asked for may have happened all the same.
    pub fn may_have_applied(&self) -> bool {
        self.0.may_have_applied
    }

    /// Whether what answered does not speak gRPC at all, as a web server or a proxy.
    pub fn is_foreign(&self) -> bool {
        self.0.is_foreign
    }

    /// The server's stable name for the reason, as in `CURSOR_TRIMMED`; empty where it gave none.
    pub fn reason(&self) -> &str {
        &self.0.reason
    }

    /// Facts that belong to the reason, by name.
    pub fn metadata(&self, name: &str) -> Option<&str> {
        self.0.metadata.get(name).map(String::as_str)
    }

    /// All facts, in the order of their names.
    pub fn all_metadata(&self) -> Vec<(&str, &str)> {
        let mut all: Vec<_> =
            self.0.metadata.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        all.sort_unstable();
        all
    }

    /// Fields of the request that are wrong, each with what is wrong.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.fields.iter().map(|(field, why)| (field.as_str(), why.as_str()))
    }

    /// How long the server asks to wait.
    pub fn retry_delay(&self) -> Option<Duration> {
        self.0.retry_delay
    }

    /// An error of ours.
    pub(super) fn new(kind: Kind, message: impl Into<String>) -> Error {
        Error(Box::new(Inner {
            kind,
            code: nearest_code(kind),
            message: message.into(),
            reason: String::new(),
            metadata: HashMap::new(),
            fields: Vec::new(),
            retry_delay: None,
            is_retryable: matches!(kind, Kind::Connect | Kind::Unavailable | Kind::Timeout),
            may_have_applied: false,
            is_foreign: false,
            source: None,
        }))
    }

    pub(super) fn with_source(
        mut self,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Error {
        self.0.source = Some(source.into());
        self
    }

    pub(super) fn maybe_applied(mut self) -> Error {
        self.0.may_have_applied = true;
        self
    }

    /// Of a call that changes nothing.
    pub(super) fn of_read(mut self) -> Error {
        self.0.may_have_applied = false;
        self
    }

    /// The same again, for another who waits for the same thing.
    pub(super) fn duplicate(&self) -> Error {
        let Inner { kind, code, retry_delay, is_retryable, may_have_applied, is_foreign, .. } =
            *self.0;
        Error(Box::new(Inner {
            kind,
            code,
            message: self.0.message.clone(),
            reason: self.0.reason.clone(),
            metadata: self.0.metadata.clone(),
            fields: self.0.fields.clone(),
            retry_delay,
            is_retryable,
            may_have_applied,
            is_foreign,
            source: None,
        }))
    }

    fn foreign(mut self) -> Error {
        self.0.is_foreign = true;
        self
    }

    /// Reads what tonic reports, be it the server's answer or trouble on the way.
    pub(super) fn from_status(status: Status) -> Error {
        // A status that came from the server has no source; one that tonic made of a broken
        // connection has, whatever code it was given.
        if status.source().is_some() { from_transport(status) } else { from_server(&status) }
    }
}

/// How the messages begin that tonic makes of an HTTP answer without gRPC in it.
const FOREIGN: [&str; 2] = [
    "grpc-status header missing",
    "protocol error: received message with invalid compression flag",
];

fn from_transport(status: Status) -> Error {
    let mut connect = None;
    let mut refused = false;
    let mut not_http2 = false;
    let mut cause: Option<&(dyn StdError + 'static)> = status.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<tonic::ConnectError>() {
            connect = Some(root(error));
        }
        if error.is::<tonic::TimeoutExpired>() {
            return Error::new(Kind::Timeout, "no answer in time").maybe_applied();
        }
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            // The peer promises that it did nothing with the stream.
            refused |= error.reason() == Some(h2::Reason::REFUSED_STREAM);
            // What came is no HTTP/2: found here, not told by the peer.
            not_http2 |= error.is_go_away() && error.is_library();
        }
        cause = error.source();
    }
    match connect {
        Some(why) => Error::new(Kind::Connect, format!("cannot connect: {why}")),
        None => {
            let why = status.source().map(root).unwrap_or_default();
            let error = Error::new(Kind::Unavailable, format!("the connection broke: {why}"));
            let error = if refused { error } else { error.maybe_applied() };
            let error = if not_http2 { error.foreign() } else { error };
            error.with_source(status)
        }
    }
}

/// The innermost cause, which is the one that says something.
fn root(error: &(dyn StdError + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

fn from_server(status: &Status) -> Error {
    let details = status.get_error_details();
    let (reason, metadata) = match details.error_info() {
        Some(info) => (info.reason.clone(), info.metadata.clone()),
        None => (String::new(), HashMap::new()),
    };
    let fields = details.bad_request().map_or_else(Vec::new, |bad| {
        let fields = bad.field_violations.iter();
        fields.map(|v| (v.field.clone(), v.description.clone())).collect()
    });
    let retry_delay = details.retry_info().and_then(|info| info.retry_delay);
    let kind = match reason.as_str() {
        "PRODUCER_HOLE" => Kind::InvalidRequest,
        reason => kind_of(status.code(), reason),
    };
    let message = match status.message() {
        "" => describe(kind).to_owned(),
        message => message.to_owned(),
    };
    Error(Box::new(Inner {
        kind,
        code: status.code(),
        message,
        metadata,
        fields,
        retry_delay,
        is_retryable: retry_delay.is_some() || matches!(kind, Kind::Unavailable | Kind::Timeout),
        // A store that had stopped before says so: it has refused, and stored nothing.
        may_have_applied: reason != "STORE_STOPPED"
            && matches!(
                status.code(),
                Code::Unknown | Code::Internal | Code::DeadlineExceeded | Code::Cancelled
            ),
        is_foreign: FOREIGN.iter().any(|sign| status.message().starts_with(sign)),
        reason,
        source: None,
    }))
}

fn kind_of(code: Code, reason: &str) -> Kind {
    match code {
        Code::InvalidArgument => Kind::InvalidRequest,
        Code::NotFound => Kind::NotFound,
        Code::OutOfRange if reason.is_empty() => Kind::LimitExceeded,
        Code::OutOfRange | Code::FailedPrecondition => Kind::Gone,
        Code::DataLoss => Kind::Damaged,
        Code::Aborted | Code::AlreadyExists => Kind::Conflict,
        Code::ResourceExhausted => Kind::LimitExceeded,
        // Nobody but the server can have cancelled here: dropping a call yields no status.
        Code::Unavailable | Code::Cancelled => Kind::Unavailable,
        Code::DeadlineExceeded => Kind::Timeout,
        Code::Unimplemented => Kind::Unsupported,
        Code::PermissionDenied | Code::Unauthenticated => Kind::Denied,
        Code::Ok => Kind::Protocol,
        Code::Unknown | Code::Internal => Kind::Internal,
    }
}

fn nearest_code(kind: Kind) -> Code {
    match kind {
        Kind::Connect | Kind::Unavailable => Code::Unavailable,
        Kind::Timeout => Code::DeadlineExceeded,
        Kind::InvalidRequest => Code::InvalidArgument,
        Kind::NotFound => Code::NotFound,
        Kind::Gone => Code::OutOfRange,
        Kind::Damaged => Code::DataLoss,
        Kind::Conflict => Code::Aborted,
        Kind::LimitExceeded => Code::ResourceExhausted,
        Kind::Unsupported => Code::Unimplemented,
        Kind::Denied => Code::PermissionDenied,
        Kind::Protocol | Kind::Internal | Kind::CursorStore => Code::Internal,
    }
}

fn describe(kind: Kind) -> &'static str {
    match kind {
        Kind::Connect => "cannot connect",
        Kind::Unavailable => "the server is not available",
        Kind::Timeout => "no answer in time",
        Kind::InvalidRequest => "the request is wrong",
        Kind::NotFound => "not found",
        Kind::Gone => "not there any more",
        Kind::Damaged => "damaged on the server's disk",
        Kind::Conflict => "somebody else was faster",
        Kind::LimitExceeded => "over a limit",
        Kind::Unsupported => "this server does not have the call",
        Kind::Denied => "not allowed",
        Kind::Protocol => "the answer breaks the protocol",
        Kind::Internal => "the server failed",
        Kind::CursorStore => "the cursor store failed",
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("message", &self.0.message)
            .field("reason", &self.0.reason)
            .field("metadata", &self.0.metadata)
            .field("retry_delay", &self.0.retry_delay)
            .field("may_have_applied", &self.0.may_have_applied)
            .finish_non_exhaustive()
    }
}

impl StdError for Error {}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_types::ErrorDetails;

    fn with_reason(code: Code, reason: &str) -> Error {
        let mut details = ErrorDetails::new();
        let metadata = [("oldest".to_owned(), "5".to_owned())];
        details.set_error_info(reason, "tailmark", metadata);
        Error::from_status(Status::with_error_details(code, "said so", details))
    }

    #[test]
    fn each_code_has_its_kind() {
        for (code, reason, kind, retryable, maybe) in [
            (Code::InvalidArgument, "CURSOR_MALFORMED", Kind::InvalidRequest, false, false),
            (Code::OutOfRange, "CURSOR_TRIMMED", Kind::Gone, false, false),
            (Code::FailedPrecondition, "LOG_CHANGED", Kind::Gone, false, false),
            (Code::DataLoss, "DAMAGED", Kind::Damaged, false, false),
            (Code::Aborted, "HEAD_MOVED", Kind::Conflict, false, false),
            (Code::ResourceExhausted, "DISK_FULL", Kind::LimitExceeded, false, false),
            (Code::Unavailable, "STOPPING", Kind::Unavailable, true, false),
            (Code::DeadlineExceeded, "", Kind::Timeout, true, true),
            (Code::Internal, "STORE_STOPPED", Kind::Internal, false, false),
            (Code::Internal, "OUTCOME_UNKNOWN", Kind::Internal, false, true),
            (Code::Unimplemented, "", Kind::Unsupported, false, false),
            (Code::NotFound, "", Kind::NotFound, false, false),
            (Code::PermissionDenied, "", Kind::Denied, false, false),
            (Code::OutOfRange, "", Kind::LimitExceeded, false, false),
        ] {
            let error = with_reason(code, reason);
            assert_eq!(error.kind(), kind, "{code:?}");
            assert_eq!(error.is_retryable(), retryable, "{code:?}");
            assert_eq!(error.may_have_applied(), maybe, "{code:?}");
            assert_eq!(error.reason(), reason);
            assert_eq!(error.code(), name(code));
            assert_eq!(error.metadata("oldest"), Some("5"));
            assert_eq!(error.to_string(), "said so");
        }
    }

    #[test]
    fn retry_info_makes_an_error_retryable() {
        let mut details = ErrorDetails::new();
        details.set_retry_info(Some(Duration::from_secs(2)));
        let status = Status::with_error_details(Code::ResourceExhausted, "", details);
        let error = Error::from_status(status);
        assert!(error.is_retryable());
        assert_eq!(error.retry_delay(), Some(Duration::from_secs(2)));
        assert_eq!(error.to_string(), "over a limit");
    }

    #[test]
    fn field_violations_are_told() {
        let mut details = ErrorDetails::new();
        details.add_bad_request_violation("topic", "has an empty segment");
        let error =
            Error::from_status(Status::with_error_details(Code::InvalidArgument, "", details));
        assert_eq!(error.fields().collect::<Vec<_>>(), [("topic", "has an empty segment")]);
    }

    #[test]
    fn an_answer_without_grpc_is_foreign() {
        let message = "grpc-status header missing, mapped from HTTP status code 404";
        let error = Error::from_status(Status::new(Code::Unimplemented, message));
        assert!(error.is_foreign());
        assert!(!with_reason(Code::Unimplemented, "").is_foreign());
        let read = Error::new(Kind::Timeout, "").maybe_applied().of_read();
        assert!(!read.may_have_applied());
    }

    #[test]
    fn garbage_in_the_details_is_no_panic() {
        let status =
            Status::with_details(Code::DataLoss, "x", bytes::Bytes::from_static(&[0xff; 9]));
        assert_eq!(Error::from_status(status).kind(), Kind::Damaged);
    }
}
