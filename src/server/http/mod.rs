//! Plain HTTP on the same port: one router, one file a path.
//!
//! Must not know how requests reach it. Whether a request may be answered at all (its Host, its
//! Origin) is decided before it comes here.

mod cloud;
mod codings;
mod events;
mod form;
mod health;
mod metrics;
mod openapi;
mod page;
mod query;
mod reads;
mod sse;
mod watch;

use axum::routing::{get, post};
use axum::{Router, middleware};
use http::{Method, Response, StatusCode, Uri};
use tonic::body::Body;

use crate::server::rpc::status;
use crate::server::shared::Current;

/// The paths that are not gRPC.
pub(super) fn router(current: &Current) -> Router {
    let coded = middleware::from_fn_with_state(current.clone(), codings::answer);
    let answers = Router::new()
        .route("/metrics", get(metrics::metrics))
        .route("/openapi.json", get(openapi::document))
        .route("/v1/watch", get(watch::watch))
        .route("/v1/events/{seq}", get(reads::event))
        .route("/v1/history", get(reads::history))
        .route("/v1/log", get(reads::log))
        .route("/v1/principal", get(reads::principal))
        .route("/v1/topics", get(reads::topics))
        .route_layer(coded);
    Router::new()
        .route("/healthz", get(health::health))
        .route("/readyz", get(health::ready))
        .route("/v1/events", post(events::store))
        .merge(answers)
        .merge(page::router())
        .method_not_allowed_fallback(other_method)
        .with_state(current.clone())
}

/// A path that is there, and a method that it has not; the router adds the header `allow`.
async fn other_method(method: Method, uri: Uri) -> Response<Body> {
    if method == Method::OPTIONS {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        return response;
    }
    status::method_not_allowed(&method, uri.path())
}
