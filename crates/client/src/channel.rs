//! The connection that calls go over, which lets nothing but gRPC come back.
//!
//! Owns the look at an answer before tonic decodes it. Of an answer without gRPC in it tonic keeps
//! no more than a text, and an answer that was cut off it tells like one that the server failed.
//! What each means is in `intermediary`.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Frame;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{HeaderMap, Request, Response, StatusCode, header};
use tonic::codegen::{Service, StdError};
use tonic::transport::{self, Endpoint};

use super::connector::{Connector, Fate};
use super::intermediary::Foreign;
use super::token::TokenProvider;

/// Where the status of a call is.
const STATUS: &str = "grpc-status";

/// A connection, made when needed.
#[derive(Clone, Debug)]
pub(super) struct Channel {
    inner: transport::Channel,
    fate: Fate,
    /// Who asks.
    token: Option<TokenProvider>,
}

impl Channel {
    pub(super) fn new(
        endpoint: &Endpoint,
        connector: Connector,
        token: Option<TokenProvider>,
    ) -> Channel {
        let fate = connector.fate.clone();
        Channel { inner: endpoint.connect_with_connector_lazy(connector), fate, token }
    }
}

impl Service<Request<Body>> for Channel {
    type Response = Response<Answer>;
    type Error = StdError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Answer>, StdError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StdError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let (fate, token) = (self.fate.clone(), self.token.clone());
        // The one that is ready goes along; what stays behind has to become so.
        let another = self.inner.clone();
        let mut ready = std::mem::replace(&mut self.inner, another);
        Box::pin(async move {
            if let Some(token) = token {
                request.headers_mut().insert(header::AUTHORIZATION, token.header().await?);
            }
            let response = ready.call(request).await.map_err(|error| match fate.problem() {
                Some(problem) => StdError::from(problem),
                None => error.into(),
            })?;
            Ok(checked(response)?)
        })
    }
}

/// Takes an answer for gRPC, or says what it is instead.
fn checked(response: Response<Body>) -> Result<Response<Answer>, Foreign> {
    let (head, body) = response.into_parts();
    // Where there is one, it counts, whatever the rest looks like.
    let has_status = head.headers.contains_key(STATUS);
    let may_follow = head.status == StatusCode::OK && is_grpc(&head.headers);
    if !has_status && !may_follow {
        return Err(Foreign::answer(head.status, &head.headers));
    }
    let is_compressed = head.headers.contains_key("grpc-encoding");
    let answer = Answer { body, messages: Messages::new(is_compressed), has_status };
    Ok(Response::from_parts(head, answer))
}

/// `application/grpc`, `application/grpc+proto` and so on; not `application/grpc-web`.
fn is_grpc(headers: &HeaderMap) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    let value = headers.get(header::CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    value.get(..GRPC.len()).is_some_and(|start| start.eq_ignore_ascii_case(GRPC))
        && matches!(value.get(GRPC.len()), None | Some(b'+' | b';' | b' '))
}

/// The body of an answer: whole messages, and at the end a status.
pub(super) struct Answer {
    body: Body,
    messages: Messages,
    /// It was in the head, or has come, or its absence was told.
    has_status: bool,
}

impl Answer {
    /// What is wrong, told once.
    fn wrong(&mut self, what: Foreign) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.has_status = true;
        Poll::Ready(Some(Err(Status::from_error(Box::new(what)))))
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    if let Err(what) = this.messages.pass(data) {
                        return this.wrong(what);
                    }
                } else if let Some(trailers) = frame.trailers_ref() {
                    let is_good = trailers.get(STATUS).is_some_and(|status| status == "0");
                    if !trailers.contains_key(STATUS) || (is_good && !this.messages.are_whole()) {
                        return this.wrong(Foreign::Cut);
                    }
                    this.has_status = true;
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(status)) => Poll::Ready(Some(Err(status))),
            None if this.has_status => Poll::Ready(None),
            None => this.wrong(Foreign::Cut),
        }
    }

    /// Never before the status has come: it has to be missed.
    fn is_end_stream(&self) -> bool {
        self.has_status && self.body.is_end_stream()
    }
}

/// Length of what is before a message: a flag, and four bytes that say how long it is.
const HEAD: usize = 5;

/// Where in a row of messages an answer is.
struct Messages {
    /// The highest flag that makes sense.
    max_flag: u8,
    head: [u8; HEAD],
    /// How much of the head has come.
    came: usize,
    /// How much of the message has not.
    left: usize,
}

impl Messages {
    fn new(is_compressed: bool) -> Messages {
        Messages { max_flag: is_compressed.into(), head: [0; HEAD], came: 0, left: 0 }
    }

    fn pass(&mut self, mut data: &[u8]) -> Result<(), Foreign> {
        while !data.is_empty() {
            if self.left > 0 {
                let passed = self.left.min(data.len());
                self.left -= passed;
                data = &data[passed..];
                continue;
            }
            let taken = (HEAD - self.came).min(data.len());
            self.head[self.came..self.came + taken].copy_from_slice(&data[..taken]);
            self.came += taken;
            data = &data[taken..];
            let [flag, length @ ..] = self.head;
            if flag > self.max_flag {
                return Err(Foreign::Body);
            }
            if self.came == HEAD {
                (self.came, self.left) = (0, u32::from_be_bytes(length) as usize);
            }
        }
        Ok(())
    }

    fn are_whole(&self) -> bool {
        self.came == 0 && self.left == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_told_from_pages_however_they_come() {
        let stream =
            [&b"\0\0\0\0\x03abc"[..], b"\0\0\0\0\0", b"\0\0\0\x01\x00", &[7; 256]].concat();
        for size in 1..=stream.len() {
            let mut messages = Messages::new(false);
            for piece in stream.chunks(size) {
                messages.pass(piece).unwrap();
            }
            assert!(messages.are_whole(), "in pieces of {size}");
            for cut in [1, 4, 6, 12, 20] {
                let mut messages = Messages::new(false);
                for piece in stream[..cut].chunks(size) {
                    messages.pass(piece).unwrap();
                }
                assert!(!messages.are_whole(), "cut at {cut}, in pieces of {size}");
            }
            let page = [&stream[..8], b"<html>"].concat();
            let mut messages = Messages::new(false);
            assert!(page.chunks(size).any(|piece| messages.pass(piece).is_err()));
        }
        // Compressed is what says so in its head, too.
        let compressed = b"\x01\0\0\0\x01a";
        assert!(Messages::new(true).pass(compressed).is_ok());
        assert!(Messages::new(false).pass(compressed).is_err());
    }

    #[test]
    fn media_types_are_told_apart() {
        let with = |value: &'static [u8]| {
            let value = header::HeaderValue::from_bytes(value).unwrap();
            is_grpc(&HeaderMap::from_iter([(header::CONTENT_TYPE, value)]))
        };
        for good in ["application/grpc", "application/grpc+proto", "Application/GRPC;x=y"] {
            assert!(with(good.as_bytes()), "{good}");
        }
        for bad in ["application/grpc-web", "application/grpc-web+proto", "text/html", "", "app"] {
            assert!(!with(bad.as_bytes()), "{bad}");
        }
        assert!(!with(b"\xff\xfe") && !is_grpc(&HeaderMap::new()));
    }
}
