//! What a request is, decided before any of it is handled: a gRPC call of which kind, or nothing
//! that a gRPC service may see.
//!
//! Invariant: a request for a gRPC service reaches it only as gRPC (HTTP/2, POST, and the content
//! type `application/grpc`) or as gRPC-Web (POST and a content type of its own). A page in a browser
//! can send none of these to another origin without asking first, whereas it can send a POST of
//! plain text to any address its user reaches. Whether it may is decided before (`transport/access.rs`).

use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Version, header};
use tokio::time::Instant;
use tonic::Status;
use tonic::body::Body;

use crate::server::Options;
use crate::server::coding::{Coding, NAMES};
use crate::server::rpc::deadline::{self, Deadline};
use crate::server::rpc::negotiation::{codings, media_type};
use crate::server::rpc::status::{self, Failure};
use crate::server::rpc::web::{self, Encoding};
use tailmark_wire::methods::{self, Asked, chat_service, feed_service};

/// How the messages of a call, or of an answer, may be compressed.
pub(crate) const GRPC_ENCODING: &str = "grpc-encoding";
const GRPC_ACCEPT_ENCODING: &str = "grpc-accept-encoding";
/// What a header counts beyond its name and its value.
const HEADER_OVERHEAD: usize = 32;

/// A gRPC call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    /// The client's time, counted from when the head of the request was here.
    pub(crate) deadline: Deadline,
    /// When the one message must be here; absent where there may be many.
    pub(crate) message_by: Option<Instant>,
    /// One message comes, one goes.
    pub(crate) is_unary: bool,
    /// Health or reflection.
    pub(crate) is_builtin: bool,
    /// A method of our own services.
    pub(crate) is_ours: bool,
    /// What is answered.
    pub(crate) answer: Answering,
    /// What its messages hold.
    pub(crate) asks: Asking,
    /// How its messages may be compressed.
    pub(crate) coding: Option<Coding>,
    /// How the messages of its answer may be: as its own are, where it takes that. gRPC's compression.md has
    /// a server answer so unless it is told otherwise. What a client could read asks for nothing: libraries
    /// say that in every call, wanted or not.
    pub(crate) answer_coding: Option<Coding>,
}

/// What the messages of a call hold, as far as their size goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asking {
    /// A question: names, a position, patterns.
    Question,
    /// One event.
    Event,
    /// Events, one after the other or many in one.
    Events,
}

/// Most bytes of a question, beside its patterns; and of what may be around an event.
const QUESTION_BYTES: usize = 64 << 10;
/// Most bytes of a pattern, with what comes around it.
const PATTERN_BYTES: usize = 264;
/// Most bytes of a page of topics or of metrics.
pub(crate) const PAGE_BYTES: usize = 1 << 20;

impl Asking {
    fn to(asked: Asked) -> Asking {
        let Asked::Method(_, method) = asked else { return Asking::Events };
        let is = |other: methods::Method| method.path == other.path;
        if is(feed_service::PUBLISH) {
            return Asking::Event;
        }
        let takes_events = method.client_streams || is(chat_service::SEND_MESSAGE);
        if takes_events && !asked.is_builtin() { Asking::Events } else { Asking::Question }
    }

    /// Longest message, and whose limit that is: what is longer would be refused anyway, after it had
    /// been taken apart, which may take twenty times as much.
    pub(crate) fn message_bytes(self, options: &Options, event_bytes: usize) -> (usize, Asking) {
        let most = match self {
            Asking::Question => QUESTION_BYTES + options.patterns_per_watch * PATTERN_BYTES,
            Asking::Event => QUESTION_BYTES + event_bytes,
            Asking::Events => usize::MAX,
        };
        match options.message_bytes {
            of_all if of_all < most => (of_all, Asking::Events),
            _ => (most, self),
        }
    }

    /// A message that is longer: in the words of what can be changed.
    pub(crate) fn too_long(self, limit: usize, actual: usize) -> Failure {
        match self {
            Asking::Question => status::long_question(limit, actual),
            Asking::Event => {
                status::over_limit("event", limit.saturating_sub(QUESTION_BYTES), actual)
            }
            Asking::Events => status::over_limit("message_bytes", limit, actual),
        }
    }
}

/// What kind of answer a call has, as far as its memory goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answering {
    /// One message, of a few hundred bytes, or none of ours.
    Short,
    /// One message that may be far larger than the question.
    Large,
    /// A stream of messages.
    Stream,
    /// A watch, which counts by itself what it sends.
    Watch,
}

impl Answering {
    fn to(asked: Asked) -> Answering {
        let Asked::Method(_, method) = asked else { return Answering::Short };
        let is = |other: methods::Method| method.path == other.path;
        if is(feed_service::WATCH) || is(feed_service::WATCH_BATCHES) {
            return Answering::Watch;
        }
        if is(feed_service::GET_EVENT) || is(feed_service::LIST_TOPICS) {
            return Answering::Large;
        }
        let streams = method.server_streams && !asked.is_builtin();
        if streams { Answering::Stream } else { Answering::Short }
    }
}

/// What a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Grpc(Call),
    Web(Call, Encoding),
    /// No gRPC, and not for a gRPC service.
    Plain,
}

/// Whether it is gRPC as no browser can send it.
pub(crate) fn is_native(head: &Parts) -> bool {
    head.version == Version::HTTP_2 && media_type(&head.headers).as_deref().is_some_and(is_grpc)
}

fn is_grpc(media_type: &str) -> bool {
    matches!(media_type, "application/grpc" | "application/grpc+proto")
}

/// What what answers to this path of plain HTTP, in one piece, may have; `None` where that is little.
pub(crate) fn answer_bytes(path: &str, event_bytes: usize) -> Option<usize> {
    // A byte takes six at most, as JSON.
    let is_event = path.starts_with("/v1/events/");
    let bytes = if is_event { 6 * event_bytes } else { PAGE_BYTES };
    (is_event || matches!(path, "/v1/topics" | "/metrics")).then_some(bytes)
}

/// Takes a request for what it is.
///
/// # Errors
/// The answer to a request that is to be refused.
pub(crate) fn admit(head: &Parts, options: &Options) -> Result<Kind, Box<Response<Body>>> {
    let path = head.uri.path();
    let web = Encoding::of_request(&head.headers);
    let asked = Asked::of(path);
    let is_service = asked.is_of_service();
    let is_native = is_native(head);
    let refuse = |failure: status::Failure| {
        let status = Status::from(failure);
        Box::new(match web {
            Some(encoding) => web::refuse(status, encoding, &head.headers),
            None => status.into_http(),
        })
    };
    if let Some(failure) = over_size(head, options) {
        return Err(match web.is_some() || is_native {
            true => refuse(failure),
            false => Box::new(status::respond_head_too_large(failure)),
        });
    }
    if web.is_none() && !is_native {
        return if is_service { Err(Box::new(not_a_call(head))) } else { Ok(Kind::Plain) };
    }
    if head.method != Method::POST {
        return Err(Box::new(status::grpc_method_not_allowed(&head.method)));
    }
    let coding = coding(&head.headers).map_err(|other| {
        let mut response = refuse(status::compressed(&other));
        if let Ok(taken) = HeaderValue::try_from(format!("identity, {NAMES}")) {
            response.headers_mut().insert(GRPC_ACCEPT_ENCODING, taken);
        }
        response
    })?;
    let deadline = deadline::read(&head.headers).map_err(refuse)?;
    if web.is_some() && asked.client_streams() {
        return Err(refuse(status::no_client_streams(path)));
    }
    let sends_one = is_service && !asked.client_streams();
    let call = Call {
        deadline,
        message_by: sends_one.then(|| deadline.or(options.unary_deadline)),
        is_unary: matches!(asked, Asked::Method(_, method) if method.is_unary()),
        is_builtin: asked.is_builtin(),
        is_ours: asked.is_method() && !asked.is_builtin(),
        answer: Answering::to(asked),
        asks: Asking::to(asked),
        coding,
        answer_coding: coding.filter(|coding| takes(&head.headers, *coding)),
    };
    Ok(web.map_or(Kind::Grpc(call), |encoding| Kind::Web(call, encoding)))
}

/// The head of a request over HTTP/2 that is larger than allowed. What is far larger h2 refuses by
/// itself, without a word; over HTTP/1.1 the buffer of the connection is the limit.
fn over_size(head: &Parts, options: &Options) -> Option<status::Failure> {
    if head.version != Version::HTTP_2 {
        return None;
    }
    // As RFC 9113 section 6.5.2 counts.
    let own = head.uri.path_and_query().map_or(0, |path| path.as_str().len());
    let actual = head
        .headers
        .iter()
        .fold(own, |sum, (name, value)| sum + name.as_str().len() + value.len() + HEADER_OVERHEAD);
    let limit = options.http2.max_header_list_bytes as usize;
    (actual > limit).then(|| status::head_too_large(limit, actual))
}

/// Why a request for a path of gRPC is none.
fn not_a_call(head: &Parts) -> Response<Body> {
    if !Asked::of(head.uri.path()).is_method() {
        return status::no_path(head.uri.path());
    }
    if head.method == Method::OPTIONS {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
        return response;
    }
    let media_type = media_type(&head.headers).unwrap_or_default();
    if head.method != Method::POST {
        // Connect asks with GET where a method changes nothing, and says so in the query.
        let query = head.uri.query().unwrap_or_default();
        if head.method == Method::GET && query.split('&').any(|pair| pair.starts_with("connect=")) {
            return status::not_grpc(&media_type, true);
        }
        return status::grpc_method_not_allowed(&head.method);
    }
    if is_grpc(&media_type) {
        return status::grpc_needs_http2(head.version);
    }
    let is_connect = head.headers.contains_key("connect-protocol-version")
        || media_type == "application/proto"
        || media_type.starts_with("application/connect+");
    status::not_grpc(&media_type, is_connect)
}

/// How the messages are compressed, if they are.
///
/// # Errors
/// The name of a coding that is not taken, or in which the whole body is.
fn coding(headers: &HeaderMap) -> Result<Option<Coding>, String> {
    if let Some(name) = codings(headers, header::CONTENT_ENCODING) {
        return Err(name);
    }
    let name = codings(headers, GRPC_ENCODING);
    name.map(|name| Coding::named(&name).ok_or(name)).transpose()
}

/// Whether the client can read messages in this coding.
fn takes(headers: &HeaderMap, coding: Coding) -> bool {
    let values = headers.get_all(GRPC_ACCEPT_ENCODING).iter();
    let mut names = values.filter_map(|value| value.to_str().ok()).flat_map(|it| it.split(','));
    names.any(|name| Coding::named(name.trim()) == Some(coding))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn ask(version: Version, method: Method, path: &str, content_type: &str) -> Parts {
        let mut request = Request::builder().version(version).method(method).uri(path);
        if !content_type.is_empty() {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        request.body(()).unwrap().into_parts().0
    }

    /// 200 = it is let in as gRPC, 201 = as gRPC-Web, 0 = as something else.
    fn code(head: &Parts) -> u16 {
        match admit(head, &Options::default()) {
            Ok(Kind::Grpc(_)) => 200,
            Ok(Kind::Web(..)) => 201,
            Ok(Kind::Plain) => 0,
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
            (v2, publish, "application/grpc-web+proto", 201),
            (v2, publish, "application/grpc-web-text; charset=utf-8", 201),
            (v2, publish, "application/grpc-web+json", 415),
            (v2, publish, "application/grpc-websocket", 415),
            (v2, publish, "application/grpc+json", 415),
            (v2, publish, "application/json", 415),
            (v2, publish, "text/plain", 415),
            (v2, publish, "", 415),
            (v1, publish, "application/grpc", 505),
            (v1, publish, "application/grpc-web+proto", 201),
            (v1, publish, "Application/gRPC-Web-Text+Proto", 201),
            (v1, publish, "application/grpc-web+json", 415),
            (v1, publish, "text/plain", 415),
            (v1, publish, "", 415),
            (v1, "/grpc.health.v1.Health/Check", "text/plain", 415),
            (v2, "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "", 415),
            (v1, "/", "text/plain", 0),
            (v1, "/other.Service/Call", "application/grpc", 0),
            (v2, "/other.Service/Call", "application/grpc", 200),
        ] {
            let request = ask(version, Method::POST, path, content_type);
            assert_eq!(code(&request), expected, "{version:?} {path} {content_type:?}");
        }
        assert_eq!(code(&ask(v2, Method::GET, publish, "application/grpc")), 405);
        let get_log = "/feed.v1.FeedService/GetLog";
        assert_eq!(code(&ask(v1, Method::GET, &format!("{get_log}?encoding=json"), "")), 405);
        let connect = format!("{get_log}?encoding=json&message=%7B%7D&connect=v1");
        assert_eq!(code(&ask(v1, Method::GET, &connect, "")), 415);
    }

    #[test]
    fn a_call_with_one_message_has_a_time_for_it() {
        let call = |path| {
            let request = ask(Version::HTTP_2, Method::POST, path, "application/grpc");
            match admit(&request, &Options::default()) {
                Ok(Kind::Grpc(call)) => call,
                other => panic!("{other:?}"),
            }
        };
        assert!(call("/feed.v1.FeedService/Watch").message_by.is_some());
        assert!(call("/grpc.health.v1.Health/Check").message_by.is_some());
        for method in methods::all().filter(|method| method.client_streams) {
            assert_eq!(call(method.path).message_by, None, "{}", method.path);
        }
        assert!(call("/grpc.health.v1.Health/Check").is_builtin);
        assert!(!call("/feed.v1.FeedService/Watch").is_builtin);
    }

    #[test]
    fn streams_to_the_server_do_not_come_over_grpc_web() {
        let paths = || methods::all().filter(|it| it.client_streams).map(|it| it.path);
        assert_eq!(paths().count(), 7);
        for (path, encoding) in paths()
            .flat_map(|path| [(path, "application/grpc-web"), (path, "application/grpc-web-text")])
        {
            let head = ask(Version::HTTP_11, Method::POST, path, encoding);
            let response = admit(&head, &Options::default()).unwrap_err();
            assert_eq!(response.status(), StatusCode::OK);
            assert_eq!(response.headers()["grpc-status"], "12");
            let answered = response.headers()["content-type"].to_str().unwrap();
            assert_eq!(answered, format!("{encoding}+proto"));
        }
    }
}
