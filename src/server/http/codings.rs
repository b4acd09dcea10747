//! Content codings: answers in gzip for who takes it, and bodies that come in gzip (RFC 9110, section 8.4).
//!
//! Each that is open holds the state of its compressor, so they are counted as streams are: an answer
//! that would be one too many goes out as it is, which is always right; a body is refused.

mod decoded;
mod encoded;
mod gunzip;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, VARY};
use http::{HeaderMap, HeaderValue, Response};
use http_body::Body as _;
use tonic::body::Body;

use self::decoded::Decoded;
use self::encoded::Encoded;
use crate::server::Shared;
use crate::server::permits::StreamKind;
use crate::server::principal::Caller;
use crate::server::quotas::{Grant, Peer};
use crate::server::rpc::status::{self, Failure};

const GZIP: HeaderValue = HeaderValue::from_static("gzip");
/// What the state of a compressor takes.
pub(crate) const ENCODER_BYTES: usize = 336 << 10;
/// What that of a decompressor takes, with what it has made.
pub(crate) const DECODER_BYTES: usize = 64 << 10;
/// So much may be made of a body, whatever came of it.
const FREE_BYTES: usize = 1 << 20;
/// An answer that is known to be shorter gains nothing.
const WORTHWHILE_BYTES: u64 = 1_024;

/// Whether a client takes gzip and does not prefer the content as it is (RFC 9110, section 12.5.3).
pub(super) fn takes_gzip(asked: &HeaderMap) -> bool {
    let quality_of = |coding: &str| {
        let values = asked.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
        let mut parts = values.flat_map(|value| value.split(','));
        parts.find_map(|part| {
            let mut part = part.split(';').map(str::trim);
            if !part.next()?.eq_ignore_ascii_case(coding) {
                return None;
            }
            let weight = part.find_map(|it| it.strip_prefix("q=").or(it.strip_prefix("Q=")));
            weight.map_or(Some(1.0), |weight| weight.trim().parse::<f32>().ok())
        })
    };
    let gzip = quality_of("gzip").or_else(|| quality_of("*")).unwrap_or(0.0);
    gzip > 0.0 && gzip >= quality_of("identity").unwrap_or(0.0)
}

/// Answers in gzip where the client takes that and it is worth it.
pub(super) async fn answer(
    State(shared): State<Arc<Shared>>,
    request: Request,
    next: Next,
) -> Response<Body> {
    let is_asked = takes_gzip(request.headers());
    let who = is_asked.then(|| {
        let extensions = request.extensions();
        (extensions.get::<Peer>().cloned(), extensions.get::<Caller>().cloned())
    });
    let mut response = next.run(request).await.map(Body::new);
    if !is_coded(&response) {
        return response;
    }
    response.headers_mut().append(VARY, HeaderValue::from_static("accept-encoding"));
    let is_short = response.body().size_hint().upper().is_some_and(|most| most < WORTHWHILE_BYTES);
    let Some((peer, caller)) = who.filter(|_| !is_short) else { return response };
    let grant = grant(&shared, StreamKind::Coded, peer.as_ref(), caller.as_ref());
    let Ok(grant) = grant else { return response };
    // Only a watch's pieces know themselves when they are gone.
    let is_counted = is_watch(&response);
    let headers = response.headers_mut();
    headers.remove(CONTENT_LENGTH);
    headers.insert(CONTENT_ENCODING, GZIP);
    response.map(|body| Body::new(Encoded::new(body, is_counted, grant)))
}

/// Whether it is text, and nobody has decided how it is sent.
fn is_coded(response: &Response<Body>) -> bool {
    let headers = response.headers();
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let is_text = ["application/json", "application/openmetrics-text", "text/"]
        .iter()
        .any(|known| kind.starts_with(known));
    is_text && !headers.contains_key(CONTENT_ENCODING) && !headers.contains_key(ETAG)
}

fn is_watch(response: &Response<Body>) -> bool {
    let kind = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    kind.is_some_and(|kind| kind.starts_with("text/event-stream"))
}

fn grant(
    shared: &Shared,
    kind: StreamKind,
    peer: Option<&Peer>,
    caller: Option<&Caller>,
) -> Result<Grant, Failure> {
    let principal = caller.and_then(Caller::name);
    shared.quotas.stream(kind, peer, principal).map_err(status::too_many)
}

/// A body as it was before it was coded: in gzip, or not at all.
///
/// # Errors
/// Another coding, as an answer. Too many that are coded are open.
pub(super) fn decode(
    shared: &Shared,
    body: Body,
    coding: Option<&str>,
    extensions: &http::Extensions,
) -> Result<Body, Box<Response<Body>>> {
    match coding {
        None => Ok(body),
        Some(name) if ["gzip", "x-gzip"].iter().any(|gzip| name.eq_ignore_ascii_case(gzip)) => {
            let grant = grant(shared, StreamKind::Decoded, extensions.get(), extensions.get());
            let grant = grant.map_err(|failure| Box::new(status::respond(&failure.into())))?;
            let free = shared.options.message_bytes.min(FREE_BYTES);
            Ok(Body::new(Decoded::new(body, free, grant)))
        }
        Some(other) => Err(Box::new(status::encoded_body(other))),
    }
}
