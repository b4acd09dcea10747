//! `GET /v1/watch`: a watch as server-sent events. The stream is the one that gRPC sends; here is
//! only how it is asked for and how it is written.

use std::sync::Arc;

use axum::extract::{Request, State};
use http::request::Parts;
use http::{HeaderMap, Response, StatusCode};
use tonic::Status;
use tonic::body::Body;

use super::query::Query;
use super::sse::{self, Sse};
use crate::server::gauges::Peer;
use crate::server::status::{self, Failure};
use crate::server::{Shared, convert, watch};
use tailmark_record::Timestamp;
use tailmark_record::moment::{self, Moment, Position};
use tailmark_wire::feed_v1 as pb;

const PARAMETERS: [&str; 7] =
    ["topic", "after_cursor", "from", "limit", "until_caught_up", "on_lost", "heartbeat_ms"];
const LAST_EVENT_ID: &str = "last-event-id";

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

async fn begin(shared: &Shared, head: &Parts) -> Result<Response<Body>, Status> {
    let asked = read(head)?;
    if asked.is_over {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        return Ok(response);
    }
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
    let (metadata, stream) = watch::events(shared, request).await?;
    let headers = metadata.into_headers();
    let cursor = headers.get(watch::CURSOR).and_then(|value| value.to_str().ok());
    let cursor = cursor.unwrap_or_default();
    let mut response = sse::response(Sse::new(stream, cursor));
    response.headers_mut().extend(headers);
    Ok(response)
}

/// What a request asks for.
struct Asked {
    request: pb::WatchRequest,
    /// It was told that this watch has ended for good.
    is_over: bool,
}

fn read(head: &Parts) -> Result<Asked, Failure> {
    let query = Query::read(head.uri.query(), &PARAMETERS)?;
    let last = last_event_id(&head.headers)?;
    let mut request = pb::WatchRequest {
        topics: query.all("topic").filter(|topic| !topic.is_empty()).map(str::to_owned).collect(),
        limit: query.number("limit")?.unwrap_or_default(),
        until_caught_up: query.flag("until_caught_up")?,
        heartbeat_ms: query.number("heartbeat_ms")?.unwrap_or_default(),
        // A page that does not listen for them does not see them.
        markers: true,
        on_lost: query
            .parsed("on_lost", "expected fail, oldest, latest or last_common", on_lost)?
            .unwrap_or_default()
            .into(),
        ..pb::WatchRequest::default()
    };
    let start = query.parsed("from", moment::POSITION, |text| start(text, Timestamp::now()))?;
    let after = query.one("after_cursor")?;
    // A browser that comes back sends the URL that it began with, and where it is by now.
    match last {
        Some(last) => request.after_cursor = last.to_owned(),
        None => {
            request.after_cursor = after.unwrap_or_default().to_owned();
            request.start = start.map(|at| pb::Start { at: Some(at) });
        }
    }
    Ok(Asked { request, is_over: last.is_some_and(|last| last.starts_with(sse::END)) })
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<&str>, Failure> {
    let Some(value) = headers.get(LAST_EVENT_ID) else { return Ok(None) };
    match value.to_str() {
        Ok(text) => Ok(Some(text).filter(|text| !text.is_empty())),
        Err(_) => Err(status::bad_field(LAST_EVENT_ID, "must be printable ASCII")),
    }
}

fn on_lost(text: &str) -> Option<pb::OnLost> {
    Some(match text {
        "fail" => pb::OnLost::Fail,
        "oldest" => pb::OnLost::Oldest,
        "latest" => pb::OnLost::Latest,
        "last_common" => pb::OnLost::LastCommon,
        _ => return None,
    })
}

fn start(text: &str, now: Timestamp) -> Option<pb::start::At> {
    Some(match moment::position(text, now)? {
        Position::Oldest => pb::start::At::Oldest(true),
        Position::Latest => pb::start::At::Latest(true),
        Position::Last(count) => pb::start::At::Last(count),
        Position::At(Moment::Seq(seq)) => pb::start::At::Seq(seq.get()),
        Position::At(Moment::Time(time)) => pb::start::At::Time(convert::timestamp(time)),
    })
}
