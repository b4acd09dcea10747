//! The layer that every request passes where callers must say who they are: it lets through what is open
//! to everybody, and puts a name to all else. New paths are not open.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use http::{Response, Version, header};
use tonic::Status;
use tonic::body::Body;

use super::Auth;
use crate::server::principal::{Caller, Session};
use crate::server::quotas::{Peer, Quotas};
use crate::server::report;
use crate::server::rpc::status::{self, Failure};
use crate::server::tls::ClientCertificate;
use crate::server::transport::answer::{Answer, Ends};
use crate::server::transport::ending::Endings;
use crate::server::transport::streams;
use tailmark_record::Timestamp;
use tailmark_wire::methods::Asked;
use tokio_util::sync::CancellationToken;

/// What the layer needs.
#[derive(Clone)]
pub(crate) struct Guard {
    pub(crate) auth: Arc<Auth>,
    pub(crate) quotas: Arc<Quotas>,
    /// Cancelled when the server begins to stop.
    pub(crate) stop: CancellationToken,
}

/// Answers in the place of what is behind it, or lets a request through with a name to it.
pub(crate) async fn guard(
    State(guard): State<Guard>,
    mut request: Request,
    next: Next,
) -> Response<axum::body::Body> {
    let path = request.uri().path();
    if is_open(path, &guard.auth) {
        return next.run(request).await;
    }
    let is_reflection = Asked::of(path).is_builtin();
    let session = match guard.session(&request) {
        Ok(session) => session,
        Err(failure) => {
            let peer = request.extensions().get::<Peer>().map(|peer| peer.address);
            report::unauthenticated(peer, failure.reason());
            return refuse(&request, failure).map(axum::body::Body::new);
        }
    };
    if let Some(peer) = request.extensions().get::<Peer>()
        && let Err(over) = guard.quotas.used_by(peer, session.name())
    {
        return refuse(&request, status::too_many(over)).map(axum::body::Body::new);
    }
    // Nobody needs it any more, and what nobody has nobody can tell.
    request.headers_mut().remove(header::AUTHORIZATION);
    streams::cut_after(session.over());
    let caller = Caller::of(session);
    request.extensions_mut().insert(caller.clone());
    // Over HTTP/1.1 the connection outlives the answer, and what comes next may be another's.
    let spare = (request.version() != Version::HTTP_2).then(|| streams::Spare);
    let response = next.run(request).await;
    // It knows no caller, and its streams have no end of their own.
    let ends = is_reflection.then(|| Ends {
        endings: Endings::new(None, &guard.stop, caller),
        retry_delay: std::time::Duration::ZERO,
    });
    if ends.is_none() && spare.is_none() {
        return response;
    }
    Answer::wrap(response.map(Body::new), ends, None, spare).map(axum::body::Body::new)
}

impl Guard {
    fn session(&self, request: &Request) -> Result<Arc<Session>, Failure> {
        let certificate = request.extensions().get::<ClientCertificate>();
        let shown = certificate.map(|it| (&*it.name, Timestamp::of(it.not_after)));
        self.auth.authenticate(request.headers(), shown)
    }
}

/// Whether anybody may ask: whether the server is there, and the page, which then asks for a token.
fn is_open(path: &str, auth: &Auth) -> bool {
    matches!(path, "/" | "/healthz" | "/readyz")
        || path.starts_with("/page/")
        || path.starts_with("/grpc.health.v1.Health/")
        || path == "/metrics" && auth.options.metrics_open
}

/// In the way of whoever asks.
fn refuse(request: &Request, failure: Failure) -> Response<Body> {
    let content_type = request.headers().get(header::CONTENT_TYPE);
    let is_grpc = content_type.is_some_and(|it| it.as_bytes().starts_with(b"application/grpc"));
    let status = Status::from(failure);
    if is_grpc { status.into_http() } else { status::respond(&status) }
}
