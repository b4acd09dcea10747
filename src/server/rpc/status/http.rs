//! Failures as plain HTTP tells them: one table of codes, one JSON object, and the few answers
//! that only HTTP knows.

use std::collections::BTreeMap;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use tonic::body::Body;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::{Failure, no_room, paths, with_room};
use crate::server::coding::NAMES;
use crate::server::permits::is_at_once;
use tailmark_log::eventlog::AppendError;
use tailmark_log::storage::StoreError;
use tailmark_record::json::{JsonError, Object};
use tailmark_record::{Reason, Timestamp, excerpt};
use tailmark_wire::code::name;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// When to come back where nothing better is known.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// The table, as `google.rpc.Code` has it.
fn code(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => {
            StatusCode::BAD_REQUEST
        }
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        // "Client closed request": known from proxies, registered nowhere.
        Code::Cancelled => StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
    }
}

/// Limits of the content of a request as a whole.
const OF_CONTENT: [&str; 5] =
    ["message_bytes", "event", "batch_bytes", "batch_events", "decoded_bytes"];

/// What HTTP says of a status. One place of gRPC's table is two of HTTP's: what is too much now may
/// be tried again, what is too much by itself may not.
fn status_code(status: &Status) -> StatusCode {
    let by_table = code(status.code());
    if by_table != StatusCode::TOO_MANY_REQUESTS {
        return by_table;
    }
    let info = status.get_details_error_info();
    let what = info
        .as_ref()
        .filter(|info| info.reason == Reason::LimitExceeded.as_str())
        .and_then(|info| info.metadata.get("what"))
        .map(String::as_str);
    match what {
        None => by_table,
        Some(what) if is_at_once(what) => by_table,
        Some(what) if OF_CONTENT.contains(&what) => StatusCode::PAYLOAD_TOO_LARGE,
        Some(_) => StatusCode::BAD_REQUEST,
    }
}

/// Appends `{code, reason, message, metadata}`.
pub(crate) fn write_json(out: &mut Vec<u8>, status: &Status) {
    let info = status.get_details_error_info();
    let mut object = Object::open(out);
    object.text("code", name(status.code()));
    object.text("reason", info.as_ref().map_or("", |info| &info.reason));
    object.text("message", status.message());
    if let Some(info) = &info {
        let sorted: BTreeMap<_, _> = info.metadata.iter().map(|(n, v)| (&**n, &**v)).collect();
        object.named_texts("metadata", sorted);
    }
    object.close();
}

/// Whether it is the position of a watch that is wrong, or gone.
pub(crate) fn is_of_position(status: &Status) -> bool {
    Failure::of(status).is_some_and(|failure| failure.0.reason.is_of_position())
}

/// A failure as an answer to a plain request.
pub(crate) fn respond(status: &Status) -> Response<Body> {
    respond_as(status_code(status), status)
}

fn respond_as(code: StatusCode, status: &Status) -> Response<Body> {
    let mut json = Vec::new();
    write_json(&mut json, status);
    json.push(b'\n');
    let mut response = Response::new(Body::new(http_body_util::Full::from(json)));
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, JSON);
    let retry = status.get_details_retry_info().and_then(|retry| retry.retry_delay);
    let is_for_now =
        matches!(code, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
    if let Some(delay) = retry.or(is_for_now.then_some(RETRY_AFTER)) {
        // Whole seconds, and never at once.
        let seconds = delay.as_secs() + u64::from(delay.subsec_nanos() > 0);
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
    }
    if let Some(challenge) = status.metadata().get(super::CHALLENGE)
        && let Ok(challenge) = HeaderValue::from_bytes(challenge.as_bytes())
    {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    response
}

/// The whole answer to what hyper could not read as a request, head included, after which the
/// connection is closed. `error` is what hyper said of it.
pub(crate) fn unreadable(error: &hyper::Error) -> Vec<u8> {
    let (code, reason, hint) = if error.is_timeout() {
        let hint = "the head of the request did not come in its time";
        (StatusCode::REQUEST_TIMEOUT, Reason::HeadTimeout, hint)
    } else if error.is_parse_too_large() {
        let hint = "send fewer and shorter headers: at most 100, and 64 KiB with the request line";
        (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, Reason::HeadTooLarge, hint)
    } else {
        let (code, hint) = malformed_part(&error.to_string());
        (code, Reason::RequestMalformed, hint)
    };
    let failure = Failure::new(reason, format!("{error}: {hint}"));
    let mut json = Vec::new();
    write_json(&mut json, &failure.into());
    json.push(b'\n');
    // Not jiff's own clock, which panics where no date can be written.
    let now = Timestamp::now();
    let date = jiff::Timestamp::new(now.seconds, now.nanos).map_or(String::new(), |now| {
        now.strftime("date: %a, %d %b %Y %H:%M:%S GMT\r\n").to_string()
    });
    let head = format!(
        "HTTP/1.1 {code}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         connection: close\r\nx-content-type-options: nosniff\r\n{date}\r\n",
        json.len(),
    );
    [head.into_bytes(), json].concat()
}

/// What hyper's words mean for whoever wrote the request.
fn malformed_part(error: &str) -> (StatusCode, &'static str) {
    let bad = StatusCode::BAD_REQUEST;
    match error {
        "invalid URI" => (
            bad,
            "a URL holds no space, no control characters and none of \" < > { } ` as they are: \
             percent-encode them, > as %3E",
        ),
        "URI too long" => (StatusCode::URI_TOO_LONG, "send less in the URL"),
        "invalid HTTP method parsed" => {
            (bad, "this port speaks HTTP without TLS; is that what was meant?")
        }
        "invalid HTTP version parsed" => (bad, "HTTP/1.0, HTTP/1.1 and HTTP/2 are spoken here"),
        "invalid content-length parsed" => {
            (bad, "content-length is one whole number, the same wherever it is given")
        }
        _ => (bad, "each header is `name: value` on a line of its own, as RFC 9112 has it"),
    }
}

/// No such path.
pub(crate) fn no_path(path: &str) -> Response<Body> {
    let (path, meant) = (&excerpt(path), paths::meant(path));
    let failure = match meant {
        Some(meant) => {
            let message = format!("nothing is at {path}; did you mean {meant}?");
            Failure::new(Reason::PathNotFound, message).with("meant", meant)
        }
        None => Failure::new(Reason::PathNotFound, format!("nothing is at {path}")),
    };
    let failure = failure.with("path", path);
    respond_as(StatusCode::NOT_FOUND, &failure.into())
}

/// A path that is there, but not for this method; the header `allow` is set by the router, and few see it.
pub(crate) fn method_not_allowed(method: &http::Method, path: &str) -> Response<Body> {
    let has = match path {
        "/v1/events" => {
            "POST; GET has one event at /v1/events/{seq}, and all from anywhere at /v1/watch"
        }
        _ => "GET; events are stored by POST /v1/events",
    };
    no_method(method, has)
}

fn no_method(method: &http::Method, has: &str) -> Response<Body> {
    let method = &excerpt(method.as_str());
    let message = format!("this path has no {method}; it has {has}");
    let failure = Failure::new(Reason::MethodNotAllowed, message);
    respond_as(StatusCode::METHOD_NOT_ALLOWED, &failure.with("method", method).into())
}

/// A method of gRPC that was asked for in another way.
pub(crate) fn grpc_method_not_allowed(method: &http::Method) -> Response<Body> {
    let mut response = no_method(method, "POST");
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
    response
}

/// gRPC over a version of HTTP that cannot carry it.
pub(crate) fn grpc_needs_http2(version: http::Version) -> Response<Body> {
    let message = format!(
        "gRPC needs HTTP/2, and this came over {version:?}; a proxy in between has to speak HTTP/2 \
         to this server too, and over HTTP/1.1 gRPC-Web is served"
    );
    let failure = Failure::new(Reason::HttpVersion, message);
    respond_as(StatusCode::HTTP_VERSION_NOT_SUPPORTED, &failure.into())
}

/// A path of gRPC that was asked for in another protocol, such as Connect or JSON.
pub(crate) fn not_grpc(found: &str, is_connect: bool) -> Response<Body> {
    const TAKEN: &str = "application/grpc, application/grpc-web, application/grpc-web-text";
    let taken = format!("{TAKEN}; JSON is taken at /v1/events and answered at /v1/");
    let mut response = if is_connect {
        let message = format!("the Connect protocol is not spoken here; this path takes {taken}");
        let failure = Failure::new(Reason::UnsupportedMediaType, message);
        respond_as(StatusCode::UNSUPPORTED_MEDIA_TYPE, &failure.with("content-type", found).into())
    } else {
        unsupported_media_type(found, &format!("this path is of gRPC and takes {taken}"))
    };
    // RFC 9110 section 15.5.16 knows only `accept-encoding` and `accept`; clients of Connect look for
    // this one.
    response
        .headers_mut()
        .insert(HeaderName::from_static("accept-post"), HeaderValue::from_static(TAKEN));
    response
}

/// Metadata or other headers over the limit.
pub(crate) fn head_too_large(limit: usize, actual: usize) -> Failure {
    let message = format!(
        "the headers of the request take {actual} bytes, over the limit of {limit} \
         (http2.max_header_list_bytes)"
    );
    Failure::new(Reason::HeadTooLarge, message)
        .with("what", "header_list_bytes")
        .over(limit, actual)
}

/// A head over the limit, as an answer to a plain request.
pub(crate) fn respond_head_too_large(failure: Failure) -> Response<Body> {
    respond_as(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, &failure.into())
}

/// A body of a type that is not taken here.
pub(crate) fn unsupported_media_type(found: &str, taken: &str) -> Response<Body> {
    let message = match found {
        "" => format!("a content type is required: {taken}"),
        found => {
            format!("the content type {} is not taken here: {taken}", excerpt(found))
        }
    };
    let failure = Failure::new(Reason::UnsupportedMediaType, message).with("content-type", found);
    respond_as(StatusCode::UNSUPPORTED_MEDIA_TYPE, &failure.into())
}

/// A body that is compressed or otherwise encoded.
pub(crate) fn encoded_body(encoding: &str) -> Response<Body> {
    let encoding = &excerpt(encoding);
    let message =
        format!("bodies in {encoding} are not taken here; send them as they are, or in {NAMES}");
    let failure =
        Failure::new(Reason::UnsupportedMediaType, message).with("content-encoding", encoding);
    let mut response = respond_as(StatusCode::UNSUPPORTED_MEDIA_TYPE, &failure.into());
    let names = HeaderValue::from_static(NAMES);
    response.headers_mut().insert(header::ACCEPT_ENCODING, names);
    response
}

/// A body under a transfer coding that is not served.
pub(crate) fn transfer_coding() -> Response<Body> {
    let message = "of the transfer codings only chunked is served";
    let failure = Failure::new(Reason::Unimplemented, message);
    let mut response = respond_as(StatusCode::NOT_IMPLEMENTED, &failure.into());
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// A parameter of a URL that this path does not have.
pub(crate) fn unknown_parameter(name: &str, known: &[&str]) -> Failure {
    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    super::bad_field(name, &format!("is not a parameter of this path; known: {known}"))
}

/// A text that is no event.
pub(crate) fn malformed_json(error: &JsonError) -> Failure {
    let mut failure = Failure::new(Reason::EventMalformed, error.to_string());
    if let Some(field) = error.field() {
        failure = failure.with("field", excerpt(field));
    }
    for (name, place) in [("line", error.line()), ("column", error.column())] {
        if let Some(place) = place {
            failure = failure.with(name, place);
        }
    }
    failure
}

/// A host that is none of ours: the name may have been pointed here by somebody else.
pub(crate) fn host_refused(host: &str) -> Failure {
    let host = &excerpt(host);
    let message = format!(
        "this server does not answer to the host `{host}`; http.allowed_hosts in its settings lists \
         those that it answers to"
    );
    Failure::new(Reason::HostRefused, message).with("host", host)
}

/// A page of another origin.
pub(crate) fn origin_refused(origin: &str) -> Failure {
    let origin = &excerpt(origin);
    let message = format!(
        "pages of another origin may not ask here: {origin}; http.cors_origins in the server's settings lists those that may"
    );
    Failure::new(Reason::OriginRefused, message).with("origin", origin)
}

/// The store takes no event: nobody should be sent here who has some. In our own words: what failed names
/// files of this machine, and the log has it.
pub(crate) fn not_ready(refusal: &AppendError) -> Failure {
    let (reason, why) = match refusal {
        AppendError::DiskFull(store) => (Reason::DiskFull, no_room(store)),
        AppendError::Busy(store) if super::journal::is_away(store) => {
            (Reason::JournalUnavailable, "the journal does not answer".to_owned())
        }
        AppendError::NotWriter(_) => {
            let why = "the daemon that writes this log cannot be reached from here";
            (Reason::WriterUnavailable, why.to_owned())
        }
        AppendError::Diverged(_) => {
            let why = "the journal is of another history than this daemon's copy of it";
            (Reason::JournalDiverged, why.to_owned())
        }
        // As an append would be refused.
        AppendError::Busy(store) => (
            Reason::StoreBusy,
            match **store {
                StoreError::Displaced { .. } => {
                    "the data directory or a part of it is gone, or another lies in its place"
                }
                StoreError::Hanging { .. } => "a commit is under way and the disk does not answer",
                _ => "the journal is full, and sealing does not go on",
            }
            .to_owned(),
        ),
        AppendError::RepeatsUnknown(_) => {
            (Reason::RepeatsUnknown, "repeats cannot be told".to_owned())
        }
        AppendError::Closing => (Reason::Stopping, "the log is being closed".to_owned()),
        AppendError::Stopped(_) => {
            (Reason::StoreStopped, "the store has stopped after a failed write".to_owned())
        }
        // Nothing has been written yet.
        _ => (Reason::StoreBusy, "the disk cannot be looked at".to_owned()),
    };
    let taken = match refusal {
        AppendError::RepeatsUnknown(_) => "no events with ids are taken",
        // Where it is the directory of segments alone.
        AppendError::Busy(store) if matches!(**store, StoreError::Displaced { .. }) => {
            "no events are taken, at the latest when the journal is full"
        }
        _ => "no events are taken",
    };
    let message = format!("{why}; {taken}, reading goes on");
    let failure = Failure::with_code(Code::Unavailable, reason, message);
    match refusal {
        AppendError::DiskFull(store) => with_room(failure, store),
        _ => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_place() {
        for (from, to) in [
            (Code::InvalidArgument, 400),
            (Code::OutOfRange, 400),
            (Code::Unauthenticated, 401),
            (Code::FailedPrecondition, 400),
            (Code::PermissionDenied, 403),
            (Code::NotFound, 404),
            (Code::Aborted, 409),
            (Code::ResourceExhausted, 429),
            (Code::Cancelled, 499),
            (Code::Internal, 500),
            (Code::DataLoss, 500),
            (Code::Unimplemented, 501),
            (Code::Unavailable, 503),
            (Code::DeadlineExceeded, 504),
        ] {
            assert_eq!(code(from).as_u16(), to, "{from:?}");
        }
    }

    #[test]
    fn what_is_too_much_for_ever_is_not_to_be_tried_again() {
        use super::super::over_limit;
        for what in OF_CONTENT {
            assert_eq!(respond(&over_limit(what, 1, 2).into()).status(), 413, "{what}");
        }
        for what in
            ["topic", "topic_segments", "id", "headers", "header_bytes", "patterns_per_watch"]
        {
            let response = respond(&over_limit(what, 1, 2).into());
            assert_eq!(response.status(), 400, "{what}");
            assert_eq!(response.headers().get(header::RETRY_AFTER), None, "{what}");
        }
        let full = Failure::new(Reason::DiskFull, "");
        for status in crate::server::permits::AT_ONCE
            .map(|what| over_limit(what, 1, 2))
            .into_iter()
            .chain([full])
        {
            let response = respond(&status.into());
            assert_eq!(response.status(), 429);
            assert_eq!(response.headers()[header::RETRY_AFTER], "5");
        }
        assert_eq!(
            respond(&not_ready(&AppendError::Closing).into()).headers()[header::RETRY_AFTER],
            "5"
        );
    }

    #[test]
    fn a_store_that_takes_nothing_says_what_it_is() {
        let io = || {
            let source = std::io::Error::other("secret");
            StoreError::Io { action: "examine", path: "/secret".into(), source }
        };
        let busy = || StoreError::Busy { reason: "secret".into() };
        let displaced =
            || StoreError::Displaced { path: "/secret".into(), detail: "secret".into() };
        let full = || StoreError::DiskFull { available_bytes: 1, needed_bytes: 2 };
        let hanging = || StoreError::Hanging { seconds: 10 };
        let away = || StoreError::Unreachable { reason: "secret".into() };
        for (refusal, reason, words) in [
            (AppendError::Closing, "STOPPING", "closed"),
            (AppendError::Stopped("secret".into()), "STORE_STOPPED", "failed write"),
            (AppendError::DiskFull(full().into()), "DISK_FULL", "no room"),
            (AppendError::Busy(busy().into()), "STORE_BUSY", "sealing"),
            (AppendError::Busy(displaced().into()), "STORE_BUSY", "data directory"),
            (AppendError::Busy(hanging().into()), "STORE_BUSY", "does not answer"),
            (AppendError::Busy(away().into()), "JOURNAL_UNAVAILABLE", "does not answer"),
            (
                AppendError::Busy(StoreError::InDoubt.into()),
                "JOURNAL_UNAVAILABLE",
                "does not answer",
            ),
            (AppendError::NotWriter("secret".into()), "WRITER_UNAVAILABLE", "cannot be reached"),
            (AppendError::Diverged("secret".into()), "JOURNAL_DIVERGED", "another history"),
            (AppendError::RepeatsUnknown(io().into()), "REPEATS_UNKNOWN", "repeats"),
            (AppendError::Refused(io().into()), "STORE_BUSY", "looked at"),
        ] {
            let response = respond(&not_ready(&refusal).into());
            assert_eq!(response.status(), 503, "{refusal:?}");
            let mut json = Vec::new();
            write_json(&mut json, &Status::from(not_ready(&refusal)));
            let json = String::from_utf8(json).unwrap();
            assert!(json.contains(&format!("\"reason\":\"{reason}\"")), "{refusal:?}: {json}");
            assert!(json.contains(words) && !json.contains("secret"), "{refusal:?}: {json}");
        }
    }

    #[test]
    fn a_failure_is_one_object() {
        let status = Status::from(super::super::over_limit("patterns", 64, 65));
        let mut json = Vec::new();
        write_json(&mut json, &status);
        assert_eq!(
            String::from_utf8(json).unwrap(),
            concat!(
                r#"{"code":"RESOURCE_EXHAUSTED","reason":"LIMIT_EXCEEDED","#,
                r#""message":"patterns: 65 is over the limit of 64 (limits.topic_bytes)","#,
                r#""metadata":{"actual":"65","limit":"64","what":"patterns"}}"#
            )
        );
    }

    #[test]
    fn who_is_told_to_come_back_is_told_when() {
        let after = |millis| {
            let delay = std::time::Duration::from_millis(millis);
            let response = respond(&super::super::stopping(delay).into());
            assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
            response.headers()[header::RETRY_AFTER].to_str().unwrap().to_owned()
        };
        assert_eq!([after(0), after(1), after(1_000), after(1_001)], ["1", "1", "1", "2"]);
    }
}
