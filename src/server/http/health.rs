//! `GET /healthz`: the process answers. `GET /readyz`: it can take events.

use std::sync::Arc;

use axum::extract::State;
use http::Response;
use tonic::Status;
use tonic::body::Body;

use crate::server::Shared;
use crate::server::rpc::status;

/// Alive.
pub(super) async fn health() -> &'static str {
    "ok\n"
}

/// Serving, and the store takes events; else 503 and why.
pub(super) async fn ready(State(shared): State<Arc<Shared>>) -> Response<Body> {
    let failure = if shared.stop.is_cancelled() {
        status::stopping(shared.options.retry_delay)
    } else if !shared.log.takes_events() {
        status::not_ready()
    } else {
        return Response::new(Body::new("ok\n".to_owned()));
    };
    status::respond(&Status::from(failure))
}
