//! `GET /v1/log`, `/v1/topics`, `/v1/principal` and `/v1/events/{seq}`: the unary calls that only read, as JSON;
//! and `/v1/history`, for the page.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use http::{Extensions, HeaderValue, Response, header};
use tokio::time::timeout;
use tonic::Status;
use tonic::body::Body;

use super::form::{self, Form};
use super::query::Query;
use crate::server::principal::Caller;
use crate::server::rpc::status::{self, Failure};
use crate::server::{Shared, read, report};
use tailmark_record::{Cursor, Event};
use tailmark_wire::{feed_v1 as pb, json};

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// `GET /v1/log`.
pub(super) async fn log(
    State(shared): State<Arc<Shared>>,
    extensions: Extensions,
    RawQuery(query): RawQuery,
) -> Response<Body> {
    let shared = &*shared;
    answer(shared, &extensions, |caller| async move {
        Query::read(query.as_deref(), &[])?;
        Ok(json::log_status(&read::get_log(shared, caller).await?))
    })
    .await
}

/// `GET /v1/history`.
pub(super) async fn history(
    State(shared): State<Arc<Shared>>,
    extensions: Extensions,
    RawQuery(query): RawQuery,
) -> Response<Body> {
    let shared = &*shared;
    answer(shared, &extensions, |_| async move {
        Query::read(query.as_deref(), &[])?;
        Ok(shared.figures.history())
    })
    .await
}

/// `GET /v1/principal`.
pub(super) async fn principal(
    State(shared): State<Arc<Shared>>,
    extensions: Extensions,
    RawQuery(query): RawQuery,
) -> Response<Body> {
    answer(&shared, &extensions, |caller| async move {
        Query::read(query.as_deref(), &[])?;
        Ok(json::principal(&read::get_principal(&caller)))
    })
    .await
}

/// `GET /v1/topics`.
pub(super) async fn topics(
    State(shared): State<Arc<Shared>>,
    extensions: Extensions,
    RawQuery(query): RawQuery,
) -> Response<Body> {
    let shared = &*shared;
    answer(shared, &extensions, |caller| async move {
        let known = ["prefix", "pattern", "page_size", "page_token"];
        let query = Query::read(query.as_deref(), &known)?;
        let request = pb::ListTopicsRequest {
            prefix: query.one("prefix")?.unwrap_or_default().to_owned(),
            page_size: query.number("page_size")?.unwrap_or_default(),
            page_token: query.one("page_token")?.unwrap_or_default().to_owned(),
            patterns: query.all("pattern").map(str::to_owned).collect(),
        };
        let topics = read::list_topics(shared, caller, request).await;
        Ok(json::topics(&topics.map_err(|failure| failure.called("patterns", "pattern"))?))
    })
    .await
}

/// `GET /v1/events/{seq}`; a cursor in place of the seq is checked.
pub(super) async fn event(
    State(shared): State<Arc<Shared>>,
    extensions: Extensions,
    which: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
) -> Response<Body> {
    use pb::get_event_request::By;
    let shared = &*shared;
    answer(shared, &extensions, |caller| async move {
        let Path(which) = which.map_err(|_| status::bad_field("seq", "is not UTF-8"))?;
        let form = Form::of(&Query::read(query.as_deref(), &form::PARAMETERS)?, shared)?;
        let is_seq = which.bytes().all(|c| c.is_ascii_digit());
        if !is_seq && let Err(error) = Cursor::parse(&which) {
            return Err(status::malformed_cursor("seq", error));
        }
        let by = if is_seq {
            let seq = which.parse().map_err(|_| status::bad_field("seq", "is too large"))?;
            By::Seq(seq)
        } else {
            By::Cursor(which)
        };
        let request = pb::GetEventRequest { by: Some(by) };
        let encoded = read::get_event(shared, caller, request).await?.0;
        let event = Event::parse(&encoded).map_err(|error| {
            report::defect(error.what());
            status::internal()
        })?;
        let mut out = Vec::with_capacity(encoded.len() * 2);
        form.write(&mut out, &event);
        Ok((out, form.content_type()))
    })
    .await
}

/// One JSON object, and what kind of one.
struct Answer {
    json: Vec<u8>,
    content_type: HeaderValue,
}

impl From<Vec<u8>> for Answer {
    fn from(json: Vec<u8>) -> Answer {
        Answer { json, content_type: JSON }
    }
}

impl From<(Vec<u8>, HeaderValue)> for Answer {
    fn from((json, content_type): (Vec<u8>, HeaderValue)) -> Answer {
        Answer { json, content_type }
    }
}

/// Bounds the work and makes an answer of what comes of it.
async fn answer<F, A>(
    shared: &Shared,
    extensions: &Extensions,
    work: impl FnOnce(Caller) -> F,
) -> Response<Body>
where
    F: Future<Output = Result<A, Failure>>,
    A: Into<Answer>,
{
    let caller = match shared.auth.caller(extensions) {
        Ok(caller) => caller,
        Err(failure) => return status::respond(&failure.into()),
    };
    let result = match timeout(shared.options.unary_deadline, work(caller)).await {
        Ok(result) => result,
        Err(_) => Err(status::deadline()),
    };
    match result {
        Ok(answer) => {
            let Answer { json, content_type } = answer.into();
            let mut response = json_body(json);
            response.headers_mut().insert(header::CONTENT_TYPE, content_type);
            response
        }
        Err(failure) => status::respond(&Status::from(failure)),
    }
}

/// One JSON object as an answer.
pub(super) fn json_body(mut json: Vec<u8>) -> Response<Body> {
    json.push(b'\n');
    let mut response = Response::new(Body::new(http_body_util::Full::from(json)));
    response.headers_mut().insert(header::CONTENT_TYPE, JSON);
    response
}
