//! Plain HTTP on the same port: one router, one file a path.
//!
//! Must not know how requests reach it. Whether a request may be answered at all (its Host, its
//! Origin) is decided before it comes here.

mod metrics;

use std::sync::Arc;

use axum::Router;
use axum::routing::get;

use super::Shared;

/// The paths that are not gRPC.
pub(super) fn router(shared: &Arc<Shared>) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/metrics", get(metrics::metrics).with_state(Arc::clone(shared)))
}
