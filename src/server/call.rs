//! What a request is, decided before any of it is handled: a gRPC call of which kind, or nothing
//! that a gRPC service may see.
//!
//! Invariant: a request for a gRPC service reaches it only as gRPC: HTTP/2, POST, and the content
//! type `application/grpc`. A page in a browser can send none of these to another origin, whereas
//! it can send a POST of plain text to any address its user reaches.

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use tokio::time::Instant;
use tonic::Status;
use tonic::body::Body;

use super::deadline::{self, Deadline};
use super::{CHAT_SERVICE, Options, SERVICE, status};

/// Names of the services that answer to gRPC alone.
const SERVICES: [&str; 5] = [
    SERVICE,
    CHAT_SERVICE,
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
];
/// Methods to which a client sends as many messages as it likes; to all others exactly one.
const CLIENT_STREAMS: [&str; 7] = [
    "/feed.v1.FeedService/UploadEvents",
    "/feed.v1.FeedService/Chat",
    "/feed.v1.FeedService/Append",
    "/chat.ChatService/UploadMessages",
    "/chat.ChatService/Chat",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

/// A gRPC call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Call {
    /// The client's time, counted from when the head of the request was here.
    pub(super) deadline: Deadline,
    /// When the one message must be here; absent where there may be many.
    pub(super) message_by: Option<Instant>,
    /// Health or reflection.
    pub(super) is_builtin: bool,
}

/// Takes a request for what it is: `None` is no gRPC and not for a gRPC service.
///
/// # Errors
/// The answer to a request that is to be refused.
pub(super) fn admit<B>(
    request: &Request<B>,
    options: &Options,
) -> Result<Option<Call>, Box<Response<Body>>> {
    let path = request.uri().path();
    let is_http2 = request.version() == Version::HTTP_2;
    let is_grpc = is_grpc(request);
    let is_service = is_of_service(path);
    if is_service && !is_http2 {
        return Err(bare(StatusCode::NOT_FOUND));
    }
    if is_service && !is_grpc {
        return Err(bare(StatusCode::UNSUPPORTED_MEDIA_TYPE));
    }
    if !is_grpc {
        return Ok(None);
    }
    if request.method() != Method::POST {
        return Err(bare(StatusCode::METHOD_NOT_ALLOWED));
    }
    let refuse = |failure: status::Failure| Box::new(Status::from(failure).into_http());
    if let Some(encoding) = compression(request.headers()) {
        let mut response = refuse(status::compressed(&encoding));
        let identity = HeaderValue::from_static("identity");
        response.headers_mut().insert("grpc-accept-encoding", identity);
        return Err(response);
    }
    let deadline = deadline::read(request.headers()).map_err(refuse)?;
    let sends_one = is_service && !CLIENT_STREAMS.contains(&path);
    Ok(Some(Call {
        deadline,
        message_by: sends_one.then(|| deadline.or(options.unary_deadline)),
        is_builtin: is_service
            && ![SERVICE, CHAT_SERVICE].iter().any(|name| path[1..].starts_with(name)),
    }))
}

fn is_of_service(path: &str) -> bool {
    let Some(path) = path.strip_prefix('/') else { return false };
    SERVICES.iter().any(|name| path.strip_prefix(name).is_some_and(|rest| rest.starts_with('/')))
}

/// Whether it is to be answered as gRPC.
pub(super) fn is_grpc<B>(request: &Request<B>) -> bool {
    request.version() == Version::HTTP_2 && has_grpc_type(request.headers())
}

fn has_grpc_type(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok())
    else {
        return false;
    };
    let essence = value.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/grpc")
        || essence.eq_ignore_ascii_case("application/grpc+proto")
}

/// The encoding of the messages, where it is one.
fn compression(headers: &HeaderMap) -> Option<String> {
    let value = headers.get("grpc-encoding")?;
    (value != "identity").then(|| String::from_utf8_lossy(value.as_bytes()).into_owned())
}

fn bare(code: StatusCode) -> Box<Response<Body>> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = code;
    Box::new(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(version: Version, method: Method, path: &str, content_type: &str) -> Request<()> {
        let mut request = Request::builder().version(version).method(method).uri(path);
        if !content_type.is_empty() {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        request.body(()).unwrap()
    }

    /// 200 = it is let in as gRPC, 0 = as something else.
    fn code(request: &Request<()>) -> u16 {
        match admit(request, &Options::default()) {
            Ok(Some(_)) => 200,
            Ok(None) => 0,
            Err(response) => response.status().as_u16(),
        }
    }

    #[test]
    fn a_service_is_reached_by_grpc_alone() {
        let publish = "/feed.v1.FeedService/Publish";
        let (v1, v2) = (Version::HTTP_11, Version::HTTP_2);
        for (version, path, content_type, expected) in [
            (v2, publish, "application/grpc", 200),
            (v2, publish, "application/grpc+proto", 200),
            (v2, publish, "Application/gRPC; charset=utf-8", 200),
            (v2, publish, "application/grpc-web+proto", 415),
            (v2, publish, "application/grpc+json", 415),
            (v2, publish, "application/json", 415),
            (v2, publish, "text/plain", 415),
            (v2, publish, "", 415),
            (v1, publish, "application/grpc", 404),
            (v1, publish, "application/grpc-web+proto", 404),
            (v1, publish, "text/plain", 404),
            (v1, publish, "", 404),
            (v1, "/grpc.health.v1.Health/Check", "text/plain", 404),
            (v2, "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "", 415),
            (v1, "/", "text/plain", 0),
            (v1, "/other.Service/Call", "application/grpc", 0),
            (v2, "/other.Service/Call", "application/grpc", 200),
        ] {
            let request = ask(version, Method::POST, path, content_type);
            assert_eq!(code(&request), expected, "{version:?} {path} {content_type:?}");
        }
        assert_eq!(code(&ask(v2, Method::GET, publish, "application/grpc")), 405);
    }

    #[test]
    fn a_call_with_one_message_has_a_time_for_it() {
        let call = |path| {
            let request = ask(Version::HTTP_2, Method::POST, path, "application/grpc");
            admit(&request, &Options::default()).unwrap().unwrap()
        };
        assert!(call("/feed.v1.FeedService/Watch").message_by.is_some());
        assert!(call("/grpc.health.v1.Health/Check").message_by.is_some());
        for path in CLIENT_STREAMS {
            assert_eq!(call(path).message_by, None, "{path}");
        }
        assert!(call("/grpc.health.v1.Health/Check").is_builtin);
        assert!(!call("/feed.v1.FeedService/Watch").is_builtin);
    }
}
