//! `GET /openapi.json`: these paths as OpenAPI 3.1 has them, for generators and testers.
//!
//! The document lies beside this file; `tests/it/http/openapi.rs` holds it to what is answered.

use std::sync::LazyLock;

use bytes::Bytes;
use http::{HeaderValue, Response, header};
use http_body_util::Full;
use tonic::body::Body;

/// With the version of this program.
static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| {
    let version = concat!("\"version\": \"", env!("CARGO_PKG_VERSION"), "\"");
    include_str!("openapi.json").replacen("\"version\": \"0\"", version, 1).into()
});

/// The document.
pub(super) async fn document() -> Response<Body> {
    let mut response = Response::new(Body::new(Full::from(DOCUMENT.clone())));
    for (name, value) in
        [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-cache")]
    {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
