//! gRPC-Web: the same calls in bodies that a browser can send and read, also over HTTP/1.1.
//!
//! tonic-web translates; this file covers what it leaves open. Invariant: the service behind it
//! sees a gRPC call whose messages were checked after decoding, so limits and deadlines are those
//! of gRPC.

mod text;

use std::convert::Infallible;

use ::http::{HeaderMap, HeaderValue, Request, Response, header};
use bytes::Bytes;
use http_body_util::BodyExt;
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

use crate::server::rpc::negotiation::{self, Offer, media_type};
use crate::server::rpc::status;

/// How the bytes are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Binary,
    /// Base64.
    Text,
}

impl Encoding {
    /// That of a request, if it is gRPC-Web.
    pub(crate) fn of_request(headers: &HeaderMap) -> Option<Encoding> {
        match media_type(headers).as_deref() {
            Some("application/grpc-web" | "application/grpc-web+proto") => Some(Encoding::Binary),
            Some("application/grpc-web-text" | "application/grpc-web-text+proto") => {
                Some(Encoding::Text)
            }
            _ => None,
        }
    }

    fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Encoding::Binary => "application/grpc-web+proto",
            Encoding::Text => "application/grpc-web-text+proto",
        })
    }

    /// What is accepted most, if it is said; else what was sent.
    fn of_answer(self, headers: &HeaderMap) -> Encoding {
        let other = if self == Encoding::Text { Encoding::Binary } else { Encoding::Text };
        let offers = [self, self, other, other];
        let essences = [self.essences(), other.essences()].concat();
        let essences: Vec<_> =
            essences.into_iter().map(|essence| Offer { essence, version: "" }).collect();
        negotiation::choose(headers, &essences).map_or(self, |at| offers[at])
    }

    fn essences(self) -> [&'static str; 2] {
        match self {
            Encoding::Binary => ["application/grpc-web", "application/grpc-web+proto"],
            Encoding::Text => ["application/grpc-web-text", "application/grpc-web-text+proto"],
        }
    }
}

/// Translates a call for `inner`, and its answer.
pub(crate) async fn call<B, F>(
    mut request: Request<B>,
    encoding: Encoding,
    mut inner: impl FnMut(Request<Body>) -> F,
) -> Response<Body>
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: std::error::Error + Send + Sync + 'static,
    F: Future<Output = Response<Body>>,
{
    // tonic-web knows four exact texts only, and what is text is decoded before it comes there.
    let answer = encoding.of_answer(request.headers());
    request.headers_mut().insert(header::CONTENT_TYPE, Encoding::Binary.content_type());
    request.headers_mut().insert(header::ACCEPT, answer.content_type());
    let request = request.map(|body| match encoding {
        Encoding::Binary => Body::new(body),
        Encoding::Text => Body::new(text::Decoded::new(body)),
    });
    let inner = tower::service_fn(move |request: Request<Body>| {
        let answer = inner(request.map(|body| Body::new(body.map_err(broken))));
        async { Ok::<_, Infallible>(answer.await) }
    });
    let answered = tonic_web::GrpcWebLayer::new().layer(inner).call(request).await;
    match answered {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

/// A body that broke off, or is not what its content type says: our answer reaches nobody, or the
/// one whose mistake it is.
fn broken(error: impl std::fmt::Display) -> Status {
    tracing::debug!(%error, "a gRPC-Web body that cannot be read");
    status::bad_framing("the body broke off, or is not base64 as its content type says").into()
}

/// A call refused before it is handled.
pub(crate) fn refuse(status: Status, encoding: Encoding, headers: &HeaderMap) -> Response<Body> {
    let mut response = status.into_http();
    let content_type = encoding.of_answer(headers).content_type();
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}
