//! `GET /v1/watch`: a watch as server-sent events. The stream is the one that gRPC sends; this file
//! only parses the request and chooses the encoding.

use std::borrow::Cow;
use std::sync::Arc;

use axum::extract::{Request, State};
use http::request::Parts;
use http::{HeaderMap, Response, StatusCode};
use tonic::Status;
use tonic::body::Body;

use super::form::Form;
use super::query::Query;
use super::sse::{self, Probe, Sse};
use crate::server::principal::Caller;
use crate::server::quotas::Peer;
use crate::server::rpc::status::{self, Failure};
use crate::server::transport::http1::HalfClosed;
use crate::server::{Shared, watch};
use tailmark_record::topic::Meant;
use tailmark_record::{Cursor, OnLost, Timestamp, moment};
use tailmark_wire::feed_v1 as pb;

const PARAMETERS: [&str; 11] = [
    "topic",
    "after_cursor",
    "from",
    "limit",
    "until_caught_up",
    "on_lost",
    "heartbeat_ms",
    "name",
    "compacted",
    "json",
    "format",
];
const LAST_EVENT_ID: &str = "last-event-id";
/// What amvtek's eventsource-polyfill adds where it cannot set headers.
const POLYFILL: [&str; 2] = ["evs_buffer_size_limit", "evs_preamble"];

/// Begins a watch.
pub(super) async fn watch(State(shared): State<Arc<Shared>>, request: Request) -> Response<Body> {
    let (head, _) = request.into_parts();
    match begin(&shared, &head).await {
        Ok(response) => response,
        // EventSource shows its page nothing of an answer that is not 200.
        Err(status) if status::is_of_position(&status) => sse::response(Sse::lost(&status)),
        Err(status) => status::respond(&status),
    }
}

/// Names of the call as they are in a URL.
const NAMES: [(&str, &str); 4] =
    [("topics", "topic"), ("start", "from"), ("start.seq", "from"), ("start.time", "from")];

async fn begin(shared: &Shared, head: &Parts) -> Result<Response<Body>, Status> {
    let asked = read(shared, head)?;
    if asked.is_over {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        return Ok(response);
    }
    let doubt = asked.request.topics.iter().find_map(|topic| Meant::by_pattern(topic));
    let mut request = tonic::Request::new(asked.request);
    // The trace that it belongs to, and nothing else: what stands in the URL is not said twice.
    for name in ["traceparent", "tracestate"] {
        let value = head.headers.get(name).and_then(|value| value.to_str().ok());
        if let Some(value) = value.and_then(|value| value.parse().ok()) {
            request.metadata_mut().insert(name, value);
        }
    }
    if let Some(peer) = head.extensions.get::<Peer>() {
        request.extensions_mut().insert(peer.clone());
    }
    if let Some(caller) = head.extensions.get::<Caller>() {
        request.extensions_mut().insert(caller.clone());
    }
    let begun = watch::events(shared, request).await;
    let (metadata, stream) = begun.map_err(called)?;
    let headers = metadata.into_headers();
    let cursor = headers.get(watch::CURSOR).and_then(|value| value.to_str().ok());
    let cursor = cursor.unwrap_or_default();
    let probe = head.extensions.get::<HalfClosed>().cloned().map(|half_closed| {
        // More often than a silent connection is given up.
        Probe::new(half_closed, shared.options.unary_deadline / 3)
    });
    let mut sse = Sse::new(stream, cursor, probe, asked.form);
    if let Some(doubt) = doubt {
        // A pattern has no line ends.
        sse.remark(&doubt.to_string());
    }
    let mut response = sse::response(sse);
    response.headers_mut().extend(headers);
    Ok(response)
}

/// What a request asks for.
struct Asked {
    request: pb::WatchRequest,
    /// It was told that this watch has ended for good.
    is_over: bool,
    /// How events are written.
    form: Form,
}

/// A failure in the words of the request.
fn called(failure: Failure) -> Failure {
    NAMES.iter().fold(failure, |failure, (ours, theirs)| failure.called(ours, theirs))
}

fn read(shared: &Shared, head: &Parts) -> Result<Asked, Failure> {
    let is_known = |name: &str| is_last_event_id(name) || POLYFILL.contains(&name);
    let query = Query::read_with(head.uri.query(), &PARAMETERS, is_known)?;
    let mut request = pb::WatchRequest {
        topics: query.all("topic").filter(|topic| !topic.is_empty()).map(str::to_owned).collect(),
        limit: query.number("limit")?.unwrap_or_default(),
        until_caught_up: query.flag("until_caught_up")?,
        heartbeat_ms: query.number("heartbeat_ms")?.unwrap_or_default(),
        name: query.one("name")?.unwrap_or_default().to_owned(),
        compacted: query.flag("compacted")?,
        // A page that does not listen for them does not see them.
        markers: true,
        on_lost: query
            .parsed("on_lost", "expected fail, oldest, latest or last_common", OnLost::parse)?
            .map(|it| pb::OnLost::from(it).into())
            .unwrap_or_default(),
        ..pb::WatchRequest::default()
    };
    let start =
        query.parsed("from", moment::START, |text| moment::start(text, Timestamp::now()))?;
    let after = query.one("after_cursor")?;
    let last = last_event_id(&head.headers, &query)?;
    // A client that comes back sends the URL that it began with, and where it is by now.
    if last.is_none() {
        request.start = start.map(pb::Start::from);
    }
    let position = last.or_else(|| after.map(|after| ("after_cursor", after.into())));
    let mut is_over = false;
    if let Some((name, text)) = position {
        is_over = text.starts_with(sse::END);
        if !is_over && let Err(error) = Cursor::parse(&text) {
            return Err(status::malformed_cursor(name, error));
        }
        request.after_cursor = text.into_owned();
    }
    Ok(Asked { request, is_over, form: Form::of(&query, shared)? })
}

/// Where the client is, and by which name it says so: the header, which moves on as the stream does,
/// or the parameter of a library that cannot or will not set it.
fn last_event_id<'a>(
    headers: &'a HeaderMap,
    query: &'a Query,
) -> Result<Option<(&'a str, Cow<'a, str>)>, Failure> {
    let mut values = headers.get_all(LAST_EVENT_ID).iter();
    let first = values.next();
    if values.any(|value| Some(value) != first) {
        return Err(status::bad_field(LAST_EVENT_ID, "is given twice, with two values"));
    }
    // Browsers send the id as UTF-8. One that is not ours may be any; ours are ASCII.
    let header = first.map(|value| String::from_utf8_lossy(value.as_bytes()));
    let header = header.filter(|text| !text.is_empty()).map(|text| (LAST_EVENT_ID, text));
    let parameter = || query.last(is_last_event_id).map(|(name, text)| (name, text.into()));
    Ok(header.or_else(parameter))
}

/// `lastEventId` and the like: nobody has agreed on how it is written.
fn is_last_event_id(name: &str) -> bool {
    let name = name.strip_prefix("evs_").unwrap_or(name);
    let letters = name.bytes().filter(|c| !matches!(c, b'-' | b'_'));
    letters.map(|c| c.to_ascii_lowercase()).eq(*b"lasteventid")
}
