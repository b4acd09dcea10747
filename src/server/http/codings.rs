//! Content codings: answers in gzip or zstd for who takes that, and bodies that come so (RFC 9110, section 8.4).
//!
//! Each that is open holds the state of its compressor, so they are counted as streams are: an answer
//! that would be one too many goes out as it is, which is always right; a body is refused.

mod decoded;
mod encoded;

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
use crate::server::coding::{Coding, Swelling, WORTHWHILE_BYTES};
use crate::server::permits::StreamKind;
use crate::server::principal::Caller;
use crate::server::quotas::{Grant, Peer};
use crate::server::rpc::status::{self, Failure};

/// How much a client wants a coding, where it says so (RFC 9110, section 12.5.3).
fn quality_of(asked: &HeaderMap, coding: &str) -> Option<f32> {
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
}

fn quality_of_gzip(asked: &HeaderMap) -> f32 {
    quality_of(asked, "gzip").or_else(|| quality_of(asked, "*")).unwrap_or(0.0)
}

/// Whether a client takes gzip and does not prefer the content as it is.
fn takes_gzip(asked: &HeaderMap) -> bool {
    let gzip = quality_of_gzip(asked);
    gzip > 0.0 && gzip >= quality_of(asked, "identity").unwrap_or(0.0)
}

/// The coding that a client takes: of two that it wants as much, zstd.
pub(super) fn wanted(asked: &HeaderMap) -> Option<Coding> {
    #[cfg(feature = "zstd")]
    {
        let zstd = quality_of(asked, Coding::Zstd.name()).unwrap_or(0.0);
        let others = quality_of_gzip(asked).max(quality_of(asked, "identity").unwrap_or(0.0));
        if zstd > 0.0 && zstd >= others {
            return Some(Coding::Zstd);
        }
    }
    takes_gzip(asked).then_some(Coding::Gzip)
}

/// Answers in a coding where the client takes that and it is worth it.
pub(super) async fn answer(
    State(shared): State<Arc<Shared>>,
    request: Request,
    next: Next,
) -> Response<Body> {
    let who = wanted(request.headers()).map(|coding| {
        let extensions = request.extensions();
        (coding, extensions.get::<Peer>().cloned(), extensions.get::<Caller>().cloned())
    });
    let mut response = next.run(request).await.map(Body::new);
    if !is_coded(&response) {
        return response;
    }
    response.headers_mut().append(VARY, HeaderValue::from_static("accept-encoding"));
    let is_short =
        response.body().size_hint().upper().is_some_and(|most| most < WORTHWHILE_BYTES as u64);
    let Some((coding, peer, caller)) = who.filter(|_| !is_short) else { return response };
    let grant = grant(&shared, StreamKind::Coded, peer.as_ref(), caller.as_ref());
    let Ok(grant) = grant else { return response };
    // Only a watch's pieces know themselves when they are gone.
    let is_counted = is_watch(&response);
    let headers = response.headers_mut();
    headers.remove(CONTENT_LENGTH);
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
    response.map(|body| Body::new(Encoded::new(body, coding, is_counted, grant)))
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
    let Some(name) = coding else { return Ok(body) };
    let Some(coding) = Coding::named(name) else {
        return Err(Box::new(status::encoded_body(name)));
    };
    let grant = grant(shared, coding.decoders(), extensions.get(), extensions.get());
    let grant = grant.map_err(|failure| Box::new(status::respond(&failure.into())))?;
    let swelling = Swelling::new(shared.options.message_bytes);
    Ok(Body::new(Decoded::new(body, coding, swelling, grant)))
}
