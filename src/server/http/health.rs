//! `GET /healthz`: the process answers. `GET /readyz`: it can take events.

use std::sync::Arc;

use axum::extract::State;
use http::{HeaderValue, Response, header};
use tonic::Status;
use tonic::body::Body;

use crate::server::Shared;
use crate::server::rpc::status;

/// Alive.
pub(super) async fn health() -> &'static str {
    "ok\n"
}

/// Serving, and the store takes events as far as that is known without one; else 503 and why.
pub(super) async fn ready(State(shared): State<Arc<Shared>>) -> Response<Body> {
    let failure = if shared.stop.is_cancelled() {
        status::stopping(shared.options.retry_delay)
    } else if let Some(refusal) = shared.log.refusal().await {
        status::not_ready(&refusal)
    } else {
        let mut response = Response::new(Body::new("ok\n".to_owned()));
        let text = HeaderValue::from_static("text/plain; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, text);
        return response;
    };
    status::respond(&Status::from(failure))
}
