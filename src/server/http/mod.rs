//! Plain HTTP on the same port: one router, one file a path.
//!
//! Must not know how requests reach it. Whether a request may be answered at all (its Host, its
//! Origin) is decided before it comes here.

pub(super) mod accept;
pub(super) mod access;
mod events;
mod health;
mod metrics;
mod page;
mod query;
mod reads;
mod sse;
mod watch;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};
use http::{HeaderMap, Method, Response, StatusCode, header};
use tonic::body::Body;

use crate::server::Shared;
use crate::server::rpc::status;

/// The paths that are not gRPC.
pub(super) fn router(shared: &Arc<Shared>) -> Router {
    Router::new()
        .route("/healthz", get(health::health))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(metrics::metrics))
        .route("/v1/watch", get(watch::watch))
        .route("/v1/events", post(events::store))
        .route("/v1/events/{seq}", get(reads::event))
        .route("/v1/log", get(reads::log))
        .route("/v1/topics", get(reads::topics))
        .merge(page::router())
        .method_not_allowed_fallback(other_method)
        .with_state(Arc::clone(shared))
}

/// A path that is there, and a method that it has not; the router adds the header `allow`.
async fn other_method(method: Method) -> Response<Body> {
    if method == Method::OPTIONS {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        return response;
    }
    status::method_not_allowed(&method)
}

/// What answers to a path that nobody has.
pub(super) fn not_found(path: &str) -> Response<Body> {
    if path == "*" {
        // `OPTIONS *` asks whether the server is there at all.
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        return response;
    }
    status::no_path(path)
}

/// The content type without its parameters, in lower case; of several that differ all, which is none
/// that anybody takes. Parameters may hold any bytes.
pub(super) fn media_type(headers: &HeaderMap) -> Option<String> {
    let mut essences = headers.get_all(header::CONTENT_TYPE).iter().map(|value| {
        let text = String::from_utf8_lossy(value.as_bytes());
        text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
    });
    let first = essences.next().filter(|essence| !essence.is_empty())?;
    Some(essences.filter(|other| *other != first).fold(first.clone(), |all, one| all + ", " + &one))
}

/// The codings that a header lists, where one is another than `identity`.
pub(super) fn codings(headers: &HeaderMap, name: impl header::AsHeaderName) -> Option<String> {
    let values = headers.get_all(name).iter();
    let lists: Vec<_> = values.map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
    let all = lists.iter().flat_map(|list| list.split(',')).map(str::trim);
    let mut others = all.filter(|one| !one.is_empty() && !one.eq_ignore_ascii_case("identity"));
    let first = others.next()?.to_owned();
    Some(others.fold(first, |all, one| all + ", " + one))
}
