//! The one error of the client.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::intermediary::{self, Foreign, Outlook};
use super::tls::{Problem, TlsProblem};
use super::token::NoToken;
use tailmark_record::Reason;
use tailmark_wire::code::name;

/// What kind of failure it is: enough to decide what to do.
///
/// | kind | the same again later | may have been done |
/// |---|---|---|
/// | `Connect` | yes | no |
/// | `Unavailable` | yes | no where the server says why ([`Error::reason`]), else yes |
/// | `Timeout` | yes | yes |
/// | `Internal` | no | yes, but for reason `STORE_STOPPED` |
/// | `LimitExceeded` | only with [`Error::retry_delay`] | no |
/// | `Protocol` | no | where the answer to a write cannot be read |
/// | all others | no | no |
///
/// That is what [`Error::is_retryable`] and [`Error::may_have_applied`] answer, with exceptions to
/// the last column: of a call that changes nothing it is always no; of an upload it is yes as soon
/// as a part of it may be stored; and it is yes wherever something between broke off what had been
/// sent.
///
/// A proxy that answers in the server's place has the kind and the code that gRPC's mapping of HTTP
/// statuses gives it: 408, 421, 425, 429 and errors of 5xx that pass by themselves are
/// `Unavailable`, 401, 403, 407 and 511 `Denied`, 404 `Unsupported`, 413, 414 and 431
/// `LimitExceeded`, and all else is `Protocol`. [`Error::http_status`] tells which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// The server cannot be reached; nothing was sent.
    Connect,
    /// The connection broke, the server is stopping (`STOPPING`) or overtaxed (`STORE_BUSY`), or
    /// something between says that it cannot reach it, or is itself in trouble: a failure without
    /// a reason of the server's.
    Unavailable,
    /// No answer in time: within [`Options`](super::Options)' limit for calls, or longer than a
    /// stream may be silent.
    Timeout,
    /// The request is wrong, and stays so: [`Error::fields`], [`Error::reason`] and
    /// [`Error::metadata`] say what. Also an address that is none, and a producer that is closed.
    InvalidRequest,
    /// There is no such thing, as an event beyond the head.
    NotFound,
    /// What was asked for was there and is not any more (`CURSOR_TRIMMED`), belongs to another log
    /// or history (`LOG_CHANGED`, `LOG_DIVERGED`, `CURSOR_AHEAD`), or is a producer that the log
    /// has forgotten (`PRODUCER_UNKNOWN`).
    Gone,
    /// What was asked for is damaged on the server's disk; `from` and `to` in the metadata.
    Damaged,
    /// The expected head had moved (`HEAD_MOVED`, with `actual`), or a newer life of the producer
    /// took over (`FENCED`).
    Conflict,
    /// Over a limit (`limit` and `actual` in the metadata), or the server's disk is full
    /// (`DISK_FULL`).
    LimitExceeded,
    /// This server does not have the call.
    Unsupported,
    /// Not allowed: no token that is taken ([`Error::code`] is `UNAUTHENTICATED`), or not within the
    /// rights of whoever has it (`RIGHT_MISSING`, with `right` and what is `granted`).
    Denied,
    /// TLS fails: the server is not who it must be, or does not take us for who we must be;
    /// [`Error::tls_problem`] says which.
    Untrusted,
    /// The answer breaks the protocol: an event out of order, a hole, what is no message. Nothing
    /// was handed over that is in doubt.
    Protocol,
    /// The server failed: its store has stopped (`STORE_STOPPED`), or does not know what became of
    /// a write (`OUTCOME_UNKNOWN`). Also a failure without a reason that a watch, a producer or a
    /// room has met ten times in a row at one place, as an answer that cannot be decoded.
    Internal,
    /// The place where a watch keeps its cursor failed.
    CursorStore,
}

/// Why a call failed. Opaque: ask it.
///
/// ```
/// use tailmark_client::{Client, Error, Kind};
/// use tailmark_wire::feed_v1::Event;
///
/// /// Stores the event once, however often it takes. It needs an id for that.
/// async fn publish(client: &Client, event: Event) -> Result<u64, Error> {
///     loop {
///         match client.publish(event.clone(), None).await {
///             Ok(stored) => return Ok(stored.seq),
///             // It may be stored already: then the next attempt is answered as a duplicate.
///             Err(error) if error.is_retryable() => {
///                 let pause = error.retry_delay().unwrap_or_default();
///                 tokio::time::sleep(pause + std::time::Duration::from_millis(100)).await;
///             }
///             Err(error) => return Err(error),
///         }
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let server = tailmark::testing::serve().await?;
/// # let address = server.url();
/// let client = Client::new(&address)?;
/// let event = Event { id: "order-1".into(), topic: "orders.eu".into(), ..Event::default() };
/// assert_eq!(publish(&client, event).await?, 1);
///
/// let bad = Event { topic: "orders..eu".into(), ..Event::default() };
/// let error = publish(&client, bad).await.unwrap_err();
/// assert_eq!((error.kind(), error.reason()), (Kind::InvalidRequest, "INVALID_FIELD"));
/// assert!(!error.is_retryable() && !error.may_have_applied());
/// let (field, _why) = error.fields().next().unwrap();
/// assert_eq!(field, "event.topic");
/// # Ok(())
/// # }
/// ```
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
    http_status: Option<u16>,
    outlook: Outlook,
    tls_problem: Option<TlsProblem>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// What kind of failure it is.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// Its code, as `google.rpc.Code` names it (`"ABORTED"`); the nearest one where the server gave
    /// none.
    pub fn code(&self) -> &'static str {
        name(self.0.code)
    }

    /// Whether the same request may succeed later, unchanged. Says nothing of whether it is safe to
    /// repeat: see [`Error::may_have_applied`].
    pub fn is_retryable(&self) -> bool {
        self.0.is_retryable
    }

    /// Whether what was asked for, or a part of it, may have happened all the same. An event with an
    /// id may be sent again all the same: it is stored once. `false` is certain.
    pub fn may_have_applied(&self) -> bool {
        self.0.may_have_applied
    }

    /// Whether what answered does not speak gRPC at all, as a web server or a proxy.
    pub fn is_foreign(&self) -> bool {
        self.0.is_foreign
    }

    /// The HTTP status of an answer without gRPC in it: what a proxy or web server said in the
    /// server's place.
    pub fn http_status(&self) -> Option<u16> {
        self.0.http_status
    }

    /// What is wrong with TLS, where that is it.
    pub fn tls_problem(&self) -> Option<TlsProblem> {
        self.0.tls_problem
    }

    /// The server's stable name for the reason, as in `CURSOR_TRIMMED`; empty where it gave none.
    pub fn reason(&self) -> &str {
        &self.0.reason
    }

    /// The same, where this program knows it.
    pub fn known_reason(&self) -> Option<Reason> {
        Reason::parse(&self.0.reason)
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

    /// How long the server asks to wait before the same request is made again (`RetryInfo`).
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
            is_retryable: passes(kind),
            may_have_applied: false,
            is_foreign: false,
            http_status: None,
            outlook: if passes(kind) { Outlook::Passes } else { Outlook::Stays },
            tls_problem: None,
            source: None,
        }))
    }

    /// Whether who has met the server at this address may wait for it: what answers there now is
    /// another, as long as a proxy does not know the server.
    pub(super) fn passes_once_met(&self) -> bool {
        self.0.outlook != Outlook::Stays
    }

    /// Whether it may stay for ever, although it looks as if it passed.
    pub(super) fn is_doubtful(&self) -> bool {
        matches!(self.0.outlook, Outlook::Doubtful | Outlook::Untrusted)
    }

    /// Of a client that may have another token by now: who was let in before is let in again with the
    /// next one.
    pub(super) fn renewable(mut self) -> Error {
        if self.is_of_token() {
            self.0.outlook = Outlook::Misrouted;
        }
        self
    }

    /// Whether it is the token that was refused, or there was none to send.
    pub(super) fn is_of_token(&self) -> bool {
        self.known_reason().is_some_and(Reason::is_of_token)
    }

    /// It has stayed, for so many attempts.
    pub(super) fn given_up(mut self, attempts: u32) -> Error {
        if self.0.outlook != Outlook::Untrusted && !self.is_of_token() {
            self.0.kind = Kind::Internal;
        }
        (self.0.outlook, self.0.is_retryable) = (Outlook::Stays, false);
        self.0.message = format!("{} ({attempts} times in a row)", self.0.message);
        self
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
        let Inner { http_status, outlook, tls_problem, .. } = *self.0;
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
            http_status,
            outlook,
            tls_problem,
            source: None,
        }))
    }

    fn foreign(mut self) -> Error {
        self.0.is_foreign = true;
        self
    }

    fn with_code(mut self, code: Code) -> Error {
        self.0.code = code;
        self
    }

    /// Of a call that was made beside this crate, over [`Client::connection`](super::Client::connection).
    #[doc(hidden)]
    pub fn of_status(status: Status) -> Error {
        Error::from_status(status)
    }

    /// Reads what tonic reports, be it the server's answer or trouble on the way.
    pub(super) fn from_status(status: Status) -> Error {
        // A status that came from the server has no source; one that tonic made of a broken
        // connection has, whatever code it was given.
        if status.source().is_some() { from_transport(status) } else { from_server(&status) }
    }
}

fn passes(kind: Kind) -> bool {
    matches!(kind, Kind::Connect | Kind::Unavailable | Kind::Timeout)
}

fn from_transport(status: Status) -> Error {
    let mut connect = None;
    let mut broken = None;
    let mut not_http2 = false;
    let mut cause: Option<&(dyn StdError + 'static)> = status.source();
    while let Some(error) = cause {
        if let Some(foreign) = error.downcast_ref::<Foreign>() {
            return from_foreign(foreign);
        }
        if let Some(problem) = error.downcast_ref::<Problem>() {
            return from_tls(problem);
        }
        if let Some(error) = error.downcast_ref::<NoToken>() {
            let mut error = Error::new(Kind::Denied, error.to_string());
            error.0.reason = Reason::TokenMissing.as_str().to_owned();
            return error.with_code(Code::Unauthenticated);
        }
        if let Some(error) = error.downcast_ref::<tonic::ConnectError>() {
            connect = Some(root(error));
        }
        if error.is::<tonic::TimeoutExpired>() {
            return Error::new(Kind::Timeout, "no answer in time").maybe_applied();
        }
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            // What came is no HTTP/2: found here, not told by the peer.
            not_http2 |= error.is_go_away() && error.is_library();
            if let Some(reason) = error.reason().filter(|_| !error.is_library()) {
                broken = Some((reason, error.is_go_away()));
            }
        }
        cause = error.source();
    }
    if let Some(why) = connect {
        return Error::new(Kind::Connect, format!("cannot connect: {why}"));
    }
    let error = match broken {
        Some((reason, is_closed)) => {
            let (found, name) =
                (intermediary::classify(reason, is_closed), intermediary::name(reason));
            let what = if is_closed { "it was closed" } else { "the stream was reset" };
            let error = Error::new(found.kind, format!("the connection broke: {what} ({name})"));
            let error = error.with_code(found.code);
            if found.is_unseen { error } else { error.maybe_applied() }
        }
        None => {
            let why = status.source().map(root).unwrap_or_default();
            let error = Error::new(Kind::Unavailable, format!("the connection broke: {why}"));
            let error = error.maybe_applied();
            if not_http2 { error.foreign() } else { error }
        }
    };
    error.with_source(status)
}

/// Of what is no gRPC.
fn from_foreign(foreign: &Foreign) -> Error {
    let mut error = Error::new(foreign.kind(), foreign.to_string()).with_code(foreign.code());
    error.0.may_have_applied = foreign.may_have_passed_it_on();
    error.0.retry_delay = foreign.retry_after();
    error.0.http_status = foreign.http_status();
    error.0.outlook = foreign.outlook();
    // An answer that was cut off was one.
    error.0.is_foreign = *foreign != Foreign::Cut;
    error
}

/// Of hands that were not shaken: nothing was asked for.
fn from_tls(problem: &Problem) -> Error {
    // A file of ours, and the wrong address, are for the caller to mend.
    let kind = match problem.what {
        TlsProblem::Files | TlsProblem::Required => Kind::InvalidRequest,
        _ => Kind::Untrusted,
    };
    let mut error = Error::new(kind, problem.to_string());
    (error.0.outlook, error.0.tls_problem) = (Outlook::Untrusted, Some(problem.what));
    error
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
    let known = Reason::parse(&reason);
    let kind = match known {
        Some(Reason::ProducerHole) => Kind::InvalidRequest,
        _ => kind_of(status.code(), &reason),
    };
    let message = match status.message() {
        "" => describe(kind).to_owned(),
        message => message.to_owned(),
    };
    let is_retryable = retry_delay.is_some() || passes(kind);
    Error(Box::new(Inner {
        kind,
        code: status.code(),
        message,
        metadata,
        fields,
        retry_delay,
        is_retryable,
        may_have_applied: match status.code() {
            // A store that had stopped before says so: it has refused, and stored nothing.
            Code::Internal => known != Some(Reason::StoreStopped),
            Code::Unknown | Code::DeadlineExceeded | Code::Cancelled => true,
            // The server says why it refuses. One without a reason is of something between, which
            // may have passed the request on before it lost the server.
            Code::Unavailable | Code::ResourceExhausted => {
                reason.is_empty() && retry_delay.is_none()
            }
            _ => false,
        },
        is_foreign: false,
        http_status: None,
        outlook: match status.code() {
            // So says tonic, too, when it cannot decode what came.
            Code::Internal | Code::Unknown if reason.is_empty() && retry_delay.is_none() => {
                Outlook::Doubtful
            }
            _ if is_retryable => Outlook::Passes,
            // What a proxy says that knows no server for it.
            Code::Unimplemented if reason.is_empty() => Outlook::Misrouted,
            // The server has got TLS since it was met, perhaps by mistake.
            _ if known == Some(Reason::TlsRequired) => Outlook::Untrusted,
            _ => Outlook::Stays,
        },
        tls_problem: (known == Some(Reason::TlsRequired)).then_some(TlsProblem::Required),
        reason,
        source: None,
    }))
}

fn kind_of(code: Code, reason: &str) -> Kind {
    match code {
        // The server gives a reason. Something between has none, and fails for the time being.
        Code::Internal | Code::Unknown | Code::ResourceExhausted if reason.is_empty() => {
            Kind::Unavailable
        }
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
        Kind::Untrusted => Code::Unauthenticated,
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
        Kind::Untrusted => "TLS failed",
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
mod tests;
