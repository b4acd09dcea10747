//! `GET /metrics`: all figures, in the text format that the scraper asks for.

use std::sync::Arc;

use axum::extract::State;
use http::{Extensions, HeaderMap, HeaderValue, Response, header};
use tonic::body::Body;

use crate::server::figures::{self, Format, Snapshot};
use crate::server::principal::Caller;
use crate::server::rpc::negotiation::{self, Offer};
use crate::server::rpc::status;
use crate::server::{Shared, report};

/// The format that is answered where nothing else is asked for comes first: everybody reads it.
const FORMATS: [(Offer, Format, HeaderValue); 3] = [
    (
        Offer { essence: "text/plain", version: "0.0.4" },
        Format::Prometheus,
        HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"),
    ),
    (
        Offer { essence: "application/openmetrics-text", version: "1.0.0" },
        Format::OpenMetrics,
        HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8"),
    ),
    // The same text: what 1.0.0 forbids beyond it is not written here.
    (
        Offer { essence: "application/openmetrics-text", version: "0.0.1" },
        Format::OpenMetrics,
        HeaderValue::from_static("application/openmetrics-text; version=0.0.1; charset=utf-8"),
    ),
];

/// What clients call themselves is for whoever may see all of it, or for everybody where nobody is asked
/// who they are.
fn may_see_names(shared: &Shared, extensions: &Extensions) -> bool {
    let is_required = shared.options.auth.required;
    extensions.get::<Caller>().map_or(!is_required, Caller::is_admin)
}

pub(super) async fn metrics(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    extensions: Extensions,
) -> Response<Body> {
    let formats = FORMATS;
    let offers = formats.each_ref().map(|(offer, ..)| Offer { ..*offer });
    // Refusing a scraper for its header would lose its figures, and 406 helps nobody.
    let (_, format, content_type) = &formats[negotiation::choose(&headers, &offers).unwrap_or(0)];
    let text = match Snapshot::take(&shared.figures).await {
        Some(snapshot) if may_see_names(&shared, &extensions) => figures::text(snapshot, *format),
        Some(snapshot) => figures::text(snapshot.without_names(), *format),
        None => return status::respond(&status::stopping(shared.options.retry_delay).into()),
    };
    let Ok(text) = text else {
        report::defect("figures cannot be written");
        return status::respond(&status::internal().into());
    };
    let mut response = Response::new(Body::new(text));
    response.headers_mut().insert(header::CONTENT_TYPE, content_type.clone());
    response.headers_mut().append(header::VARY, HeaderValue::from_static("accept"));
    response
}
