//! `GET /metrics`: all figures, as Prometheus reads them.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};

use crate::server::Shared;
use crate::server::figures::{self, Snapshot};

pub(super) async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    let text = match Snapshot::take(&shared).await {
        Some(snapshot) => figures::text(snapshot).ok(),
        None => None,
    };
    match text {
        Some(text) => ([(header::CONTENT_TYPE, figures::CONTENT_TYPE)], text).into_response(),
        None => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}
