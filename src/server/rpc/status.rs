//! The one mapping from errors to gRPC statuses, and from those to plain HTTP answers
//! (`status/http.rs`).
//!
//! Invariants: each failure carries an `ErrorInfo` of the domain `tailmark` whose reason and
//! metadata are enough without the text; paths and texts of the operating system stay in the
//! program's log. The mapping is pure: `report.rs` logs, where a failure is met.

mod coded;
mod copies;
mod erasing;
mod http;
mod journal;
mod limits;
mod paths;
mod who;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tonic::metadata::{AsciiMetadataValue, MetadataMap};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

pub(crate) use self::coded::{
    compressed, compressed_message, not_coded, swells, swollen_message, uncoded_message,
};
pub(crate) use self::copies::{backup, backup_refused, no_backups, no_thread};
pub(crate) use self::erasing::{cancel, erase, erasure_running};
pub(crate) use self::http::{
    encoded_body, grpc_method_not_allowed, grpc_needs_http2, head_too_large, host_refused,
    is_of_position, malformed_json, method_not_allowed, no_path, not_grpc, not_ready,
    origin_refused, respond, respond_head_too_large, transfer_coding, unknown_parameter,
    unreadable, unsupported_media_type, write_json,
};
pub(crate) use self::journal::writer_away;
pub(crate) use self::limits::{gave_way, long_question, over_limit, too_many};
use self::who::{CHALLENGE, challenge};
pub(crate) use self::who::{
    certificate_unknown, right_missing, token_expired, token_invalid, token_missing, token_revoked,
    too_fast,
};
use tailmark_log::eventlog::{AppendError, CursorError, EventLog, ReadError};
use tailmark_log::storage::{Damage, Removed, StoreError};
use tailmark_record::topic::Meant;
use tailmark_record::{
    CursorFormatError, EventError, GapReason, InvalidEvent, LogId, Problem, Reason, Seq, Timestamp,
    excerpt, shorten,
};
use tailmark_wire::code;

/// The domain of every `ErrorInfo`.
pub const DOMAIN: &str = "tailmark";

/// An answer on its way to becoming a status. It stays in it as its source, where whoever finds the
/// status in a stream of ours knows it again ([`Failure::of`]); the wire does not get that.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}", .0.message)]
pub(crate) struct Failure(Box<Parts>);

#[derive(Clone, Debug)]
struct Parts {
    code: Code,
    reason: Reason,
    message: String,
    metadata: HashMap<String, String>,
    field: Option<(String, String)>,
    retry: Option<Duration>,
    quota: bool,
}

impl Failure {
    fn new(reason: Reason, message: impl Into<String>) -> Self {
        Failure::with_code(code::of(reason), reason, message)
    }

    fn with_code(code: Code, reason: Reason, message: impl Into<String>) -> Self {
        Failure(Box::new(Parts {
            code,
            reason,
            message: message.into(),
            metadata: HashMap::new(),
            field: None,
            retry: None,
            quota: false,
        }))
    }

    /// Calls a field by the name under which the client sent it; which one of several it was is
    /// told beside it.
    pub(crate) fn called(mut self, ours: &str, theirs: &str) -> Self {
        let mut index = None;
        let mut rename = |text: &mut String| {
            let Some(rest) = text.strip_prefix(ours) else { return };
            let rest = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
                Some((at, rest)) => {
                    index = Some(at.to_owned());
                    rest
                }
                None => rest,
            };
            if rest.is_empty() || rest.starts_with([':', ' ']) {
                *text = format!("{theirs}{rest}");
            }
        };
        rename(&mut self.0.message);
        for name in ["field", "what"] {
            if let Some(field) = self.0.metadata.get_mut(name) {
                rename(field);
            }
        }
        if let Some((field, _)) = &mut self.0.field {
            rename(field);
        }
        match index {
            Some(index) => self.with("index", index),
            None => self,
        }
    }

    /// Adds an entry to the `ErrorInfo`.
    pub(crate) fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.0.metadata.insert(name.to_owned(), value.to_string());
        self
    }

    /// The same, unless it is there.
    pub(crate) fn with_new(mut self, name: &str, value: impl ToString) -> Self {
        self.0.metadata.entry(name.to_owned()).or_insert_with(|| value.to_string());
        self
    }

    /// Puts the field at fault under the name of the message that holds it.
    pub(crate) fn within(mut self, message: &str) -> Self {
        if let Some((field, _)) = &mut self.0.field {
            *field = format!("{message}.{field}");
        }
        if let Some(field) = self.0.metadata.get_mut("field") {
            *field = format!("{message}.{field}");
        }
        self
    }

    fn field(mut self, field: impl Into<String>, problem: impl Into<String>) -> Self {
        self.0.field = Some((field.into(), problem.into()));
        self
    }

    fn retry(mut self, delay: Duration) -> Self {
        self.0.retry = Some(delay);
        self
    }

    fn over(mut self, limit: usize, actual: usize) -> Self {
        self.0.quota = true;
        self.with("limit", limit).with("actual", actual)
    }

    /// For who may watch something, and asked for all there is by naming nothing.
    pub(crate) fn hint_patterns(mut self) -> Self {
        self.0.message.push_str("; a watch that names no pattern asks for everything: name yours");
        self
    }

    /// Why.
    pub(crate) fn reason(&self) -> Reason {
        self.0.reason
    }

    /// What a status of ours was made of, whatever has passed it on.
    fn of(status: &Status) -> Option<&Failure> {
        let source = std::error::Error::source(status);
        std::iter::successors(source, |error| error.source()).find_map(|it| it.downcast_ref())
    }

    /// The status, with metadata that goes out as trailers.
    pub(crate) fn with_trailer(self, name: &'static str, value: &str) -> Status {
        let mut status = Status::from(self);
        add_trailer(&mut status, name, value);
        status
    }
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Status {
        let source = Arc::new(failure.clone());
        let mut parts = *failure.0;
        // Whatever a client sent, it does not come back in full.
        shorten(&mut parts.message);
        for value in parts.metadata.values_mut() {
            if let Cow::Owned(shown) = excerpt(value) {
                *value = shown;
            }
        }
        let mut details = ErrorDetails::new();
        if let Some((field, problem)) = parts.field {
            details.add_bad_request_violation(excerpt(&field), excerpt(&problem));
        }
        if parts.quota {
            let subject =
                parts.metadata.get("what").map_or(parts.reason.as_str(), |what| what.as_str());
            details.add_quota_failure_violation(subject, parts.message.as_str());
        }
        if let Some(delay) = parts.retry {
            details.set_retry_info(Some(delay));
        }
        details.set_error_info(parts.reason.as_str(), DOMAIN, parts.metadata);
        let mut status = Status::with_error_details(parts.code, parts.message, details);
        status.set_source(source);
        if let Some(challenge) = challenge(parts.reason) {
            status.metadata_mut().insert(CHALLENGE, challenge);
        }
        status
    }
}

/// The end of a stream that went as planned, with the trailer that says how far it went: tonic
/// writes the metadata of a stream's last status into the trailers, also when its code is OK.
pub(crate) fn end_of_stream(trailer: &'static str, value: &str) -> Status {
    let mut status = Status::with_metadata(Code::Ok, "", MetadataMap::new());
    add_trailer(&mut status, trailer, value);
    status
}

/// Adds metadata that goes out as a trailer.
pub(crate) fn add_trailer(status: &mut Status, name: &'static str, value: &str) {
    if let Ok(value) = AsciiMetadataValue::try_from(value) {
        status.metadata_mut().insert(name, value);
    }
}

// Requests.

/// A field that makes no sense.
pub(crate) fn bad_field(field: &str, problem: &str) -> Failure {
    let message = format!("{}: {problem}", excerpt(field));
    Failure::new(Reason::InvalidField, message).with("field", field).field(field, problem)
}

/// A pattern or topic that breaks a rule.
pub(crate) fn bad_text(field: &str, problem: &Problem) -> Failure {
    match problem {
        Problem::Illegal(why) => bad_field(field, why),
        Problem::OverLimit { limit, actual } => over_limit(field, *limit, *actual),
        Problem::TooManySegments { limit, actual } => {
            over_limit("topic_segments", *limit, *actual).with("field", field)
        }
    }
}

/// A pattern that breaks a rule, with what was probably meant.
pub(crate) fn bad_pattern(field: &str, text: &str, problem: &Problem) -> Failure {
    match problem {
        Problem::Illegal(_) => bad_field(field, &Meant::instead_of(text, problem)),
        _ => bad_text(field, problem),
    }
}

/// An event that breaks a rule.
pub(crate) fn invalid_event(error: &InvalidEvent) -> Failure {
    bad_text(error.field, &error.problem)
}

/// Bytes that are no event.
pub(crate) fn malformed_event(error: EventError) -> Failure {
    Failure::new(Reason::EventMalformed, error.to_string())
}

/// Bytes that are no message of an `Append` stream.
pub(crate) fn malformed_append(error: EventError) -> Failure {
    Failure::new(Reason::MessageMalformed, error.to_string())
}

/// Bytes that are no message of the type that the method takes.
pub(crate) fn malformed_message(error: &prost::DecodeError) -> Failure {
    Failure::new(Reason::MessageMalformed, error.to_string())
}

/// Messages that are not framed as gRPC has it.
pub(crate) fn bad_framing(problem: &str) -> Failure {
    Failure::new(Reason::MessageMalformed, problem)
}

/// A call that gRPC-Web has no way to carry.
pub(crate) fn no_client_streams(path: &str) -> Failure {
    let path = &excerpt(path);
    let message = format!("{path} takes a stream, and gRPC-Web sends one message only: use gRPC");
    Failure::new(Reason::Unimplemented, message).with("method", path)
}

/// A service whose health nobody here knows.
pub(crate) fn unknown_service(name: &str) -> Failure {
    let shown = excerpt(name);
    let message = format!("this server has no service {shown:?}");
    Failure::new(Reason::ServiceNotFound, message).with("service", shown)
}

/// A service or method that nobody here has.
pub(crate) fn unknown_method(path: &str) -> Status {
    let path = &excerpt(path);
    let message = format!("this server has no method {path}");
    Failure::new(Reason::Unimplemented, message).with("method", path).into()
}

/// A client without TLS where there is nothing else.
pub(crate) fn tls_required() -> Failure {
    let message = "this port speaks TLS: the URL must begin with https://";
    Failure::new(Reason::TlsRequired, message)
}

/// A client's certificate that says not who he is.
pub(crate) fn certificate_unnamed(why: &str) -> Failure {
    Failure::new(Reason::CertificateUnnamed, format!("the client's certificate: {why}"))
}

/// Metrics of an instance that is not this one.
pub(crate) fn other_instance(asked: &str, ours: &str) -> Failure {
    let message = format!("this is {ours}, not {}", excerpt(asked));
    Failure::new(Reason::InstanceNotFound, message).with("instance_id", ours)
}

/// The client's or our own time is over.
pub(crate) fn deadline() -> Failure {
    Failure::new(Reason::Deadline, "the deadline has passed")
}

/// Nothing came on a client's stream for so long.
pub(crate) fn stream_idle(limit: Duration, retry_delay: Duration) -> Failure {
    let text = tailmark_record::units::duration_text(limit);
    let message = format!("nothing came for {text}; what came is stored, so go on with another");
    Failure::new(Reason::StreamIdle, message).with("limit", text).retry(retry_delay)
}

/// The server is about to stop.
pub(crate) fn stopping(retry_delay: Duration) -> Failure {
    Failure::new(Reason::Stopping, "the server is stopping").retry(retry_delay)
}

/// An upload that broke off. Our own refusal of what came passes as it is.
pub(crate) fn upload_broken(status: &Status) -> Failure {
    match Failure::of(status) {
        Some(ours) if ours.0.reason.is_of_upload() => ours.clone(),
        _ => Failure::new(Reason::UploadCut, "the upload broke off"),
    }
}

/// A defect of ours. What it is stays in our log (`report.rs`).
pub(crate) fn internal() -> Failure {
    Failure::new(Reason::Internal, "internal error")
}

// The log.

/// Why a batch was not stored.
pub(crate) fn append(error: &AppendError, retry_delay: Duration) -> Failure {
    match error {
        AppendError::HeadMoved { actual } => Failure::new(
            Reason::HeadMoved,
            format!("the head is at {actual}, not where it was expected"),
        )
        .with("actual", actual),
        AppendError::Fenced { epoch } => Failure::new(
            Reason::Fenced,
            "another stream of this producer was opened after this one, or in a newer epoch",
        )
        .with("epoch", epoch),
        AppendError::ProducerHole { expected } => {
            Failure::new(Reason::ProducerHole, format!("the producer's next batch is {expected}"))
                .with("expected", expected)
        }
        AppendError::ProducerUnknown => Failure::new(
            Reason::ProducerUnknown,
            "the log does not know this epoch of the producer: forgotten, or of another log",
        ),
        AppendError::DiskFull(store) => disk_full(store),
        AppendError::Busy(store) if journal::is_away(store) => journal::away(retry_delay),
        AppendError::Busy(_) => {
            let message = "the store cannot take events now; nothing was stored, try again";
            Failure::new(Reason::StoreBusy, message).retry(retry_delay)
        }
        AppendError::Closing => stopping(retry_delay),
        AppendError::Stopped(_) => Failure::new(
            Reason::StoreStopped,
            "the store stopped accepting events after a failed write; nothing was stored",
        ),
        AppendError::NotWriter(_) => writer_away(retry_delay),
        AppendError::Diverged(_) => journal::diverged(),
        AppendError::Unknown(store) if journal::is_away(store) => journal::in_doubt(retry_delay),
        AppendError::Unknown(_) => Failure::new(
            Reason::OutcomeUnknown,
            "the write failed: the events may be there after a restart, or not",
        ),
        AppendError::TooLarge { actual, limit } => over_limit("batch_bytes", *limit, *actual),
        AppendError::RepeatsUnknown(detail) => match &**detail {
            StoreError::Damaged(damage) => damaged(damage),
            _ => {
                let message = "repeats cannot be told from new events; nothing was stored";
                Failure::new(Reason::RepeatsUnknown, message)
            }
        },
        AppendError::Refused(_) => internal(),
        // What is durable of it is told beside the failure.
        AppendError::Partial { error, .. } => append(error, retry_delay),
    }
}

fn disk_full(store: &StoreError) -> Failure {
    let message = format!("{}; this was not stored, reading goes on", no_room(store));
    with_room(Failure::new(Reason::DiskFull, message), store)
}

/// The same words wherever it is told: what is, what is needed, and what to do.
fn no_room(store: &StoreError) -> String {
    let remedy = Reason::DiskFull.remedy();
    match store {
        StoreError::DiskFull { .. } => format!("{store}; {remedy}"),
        _ => format!("no room on disk; {remedy}"),
    }
}

/// Says how much room there is, and how much is wanted.
fn with_room(failure: Failure, store: &StoreError) -> Failure {
    match store {
        StoreError::DiskFull { available_bytes, needed_bytes } => {
            failure.with("available_bytes", available_bytes).with("needed_bytes", needed_bytes)
        }
        _ => failure,
    }
}

/// Why events could not be read; `resume_cursor` lies after what is lost.
pub(crate) fn read(error: &ReadError, facts: &LogFacts, retry_delay: Duration) -> Failure {
    match error {
        ReadError::Trimmed { from, oldest } => {
            let missed = from.distance_to(*oldest);
            let message = format!("events from {from} on were trimmed: {missed}");
            trimmed(message, *oldest, missed, facts)
        }
        ReadError::Damaged(damage) => damaged(damage),
        ReadError::Removed(range) => removed(range),
        ReadError::Closing => stopping(retry_delay),
        ReadError::Store(_) => Failure::new(Reason::ReadFailed, "the log could not be read"),
    }
}

fn damaged(damage: &Damage) -> Failure {
    let message = format!("damaged: {}", damage.range());
    Failure::new(Reason::Damaged, message).with("from_seq", damage.from).with("to_seq", damage.to)
}

/// What has no events any more, by why.
fn removed(range: &Removed) -> Failure {
    let reason = if range.is_intended() { Reason::EventRemoved } else { Reason::Damaged };
    let failure = Failure::new(reason, range.to_string())
        .with("from_seq", range.first)
        .with("to_seq", range.end.prev());
    match GapReason::from(range.reason).name() {
        Some(why) if range.is_intended() => failure.with("why", why),
        _ => failure,
    }
}

/// The event that was asked for is gone.
pub(crate) fn trimmed_event(seq: Seq, oldest: Seq, missed: u64, facts: &LogFacts) -> Failure {
    let message = format!("event {seq} was trimmed; the oldest is {oldest}");
    trimmed(message, oldest, missed, facts)
}

fn trimmed(message: String, oldest: Seq, missed: u64, facts: &LogFacts) -> Failure {
    let failure = Failure::new(Reason::CursorTrimmed, message)
        .with("oldest", oldest)
        .with("head", facts.head)
        .with("missed", missed);
    match facts.oldest_time {
        Some(time) => failure.with("oldest_time", time),
        None => failure,
    }
}

// Cursors, in the order of the contract's table.

/// What failures about positions tell of the log.
#[derive(Clone, Debug)]
pub(crate) struct LogFacts {
    pub(crate) id: LogId,
    pub(crate) oldest: Seq,
    pub(crate) head: Seq,
    /// When the oldest event was appended, where it could be read.
    pub(crate) oldest_time: Option<Timestamp>,
}

impl LogFacts {
    /// Those that nobody has to wait for.
    pub(crate) fn at_hand(log: &EventLog) -> Self {
        let bounds = log.bounds();
        LogFacts { id: log.id(), oldest: bounds.oldest, head: bounds.head, oldest_time: None }
    }

    /// Those of a log now.
    pub(crate) async fn of(log: &EventLog) -> Self {
        let bounds = log.bounds();
        let oldest_time =
            if bounds.is_empty() { None } else { log.time_of(bounds.oldest).await.ok() };
        LogFacts { id: log.id(), oldest: bounds.oldest, head: bounds.head, oldest_time }
    }
}

/// A text that is no cursor.
pub(crate) fn malformed_cursor(field: &str, error: CursorFormatError) -> Failure {
    let message = format!("{field}: expected a cursor, whole, or a sequence number ({error})");
    Failure::new(Reason::CursorMalformed, message)
        .with("field", field)
        .with("part", error.part.as_str())
        .field(field, error.to_string())
}

/// A cursor that a watch can't go on from.
pub(crate) fn cursor(error: &CursorError, facts: &LogFacts) -> Failure {
    let failure = Failure::new(error.reason(), error.to_string());
    match error {
        CursorError::LogChanged => {
            failure.with("log_id", facts.id).with("oldest", facts.oldest).with("head", facts.head)
        }
        CursorError::LogDiverged { last_common, at_most } => {
            let failure = failure.with("last_common_seq", last_common);
            match at_most > last_common {
                true => failure.with("last_common_at_most_seq", at_most),
                false => failure,
            }
        }
        CursorError::Ahead { head } => failure.with("head", head),
        CursorError::Trimmed { oldest, missed } => {
            trimmed(error.to_string(), *oldest, *missed, facts)
        }
    }
}

/// A first seq that a watch can't begin with.
pub(crate) fn start(seq: Seq, error: &CursorError, facts: &LogFacts) -> Failure {
    match error {
        CursorError::Ahead { head } => {
            let message = format!("start.seq {seq} is ahead of the head {head}");
            Failure::new(Reason::CursorAhead, message).with("head", head)
        }
        CursorError::Trimmed { oldest, missed } => {
            let message = format!("start.seq {seq}: {missed} events from there on were trimmed");
            trimmed(message, *oldest, *missed, facts)
        }
        // A seq names neither a log nor a history.
        CursorError::LogChanged | CursorError::LogDiverged { .. } => cursor(error, facts),
    }
}

/// No event has this seq yet.
pub(crate) fn not_found(seq: Seq, head: Seq) -> Failure {
    Failure::new(Reason::EventNotFound, format!("no event {seq}; the head is {head}"))
        .with("seq", seq)
        .with("head", head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_everything_in_its_details() {
        let status = Status::from(over_limit("patterns", 64, 65));
        assert_eq!(status.code(), Code::ResourceExhausted);
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!((info.domain.as_str(), info.reason.as_str()), (DOMAIN, "LIMIT_EXCEEDED"));
        assert_eq!(info.metadata["limit"], "64");
        assert_eq!(info.metadata["actual"], "65");
        assert_eq!(details.quota_failure().unwrap().violations[0].subject, "patterns");
    }

    #[test]
    fn paths_stay_in_our_log() {
        let damage = Damage {
            from: Seq::new(3),
            to: Seq::new(9),
            file: "/var/secret/place".into(),
            detail: "checksum".into(),
        };
        let status = Status::from(damaged(&damage));
        assert_eq!(status.code(), Code::DataLoss);
        assert!(!status.message().contains("secret"));
        let info = status.get_details_error_info().unwrap();
        assert_eq!((&*info.metadata["from_seq"], &*info.metadata["to_seq"]), ("3", "9"));
    }

    #[test]
    fn a_field_is_named_where_it_lies() {
        let error = InvalidEvent { field: "topic", problem: Problem::Illegal("no") };
        let status = Status::from(invalid_event(&error).within("event"));
        let details = status.get_error_details();
        assert_eq!(details.bad_request().unwrap().field_violations[0].field, "event.topic");
    }
}
