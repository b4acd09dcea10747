//! Clients of plain HTTP, over HTTP/1.1 and HTTP/2, and a reader of server-sent events.

use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tonic::body::Body;

use super::server::{TestServer, within};

pub const BOTH: [Version; 2] = [Version::HTTP_11, Version::HTTP_2];

/// A request for the server itself, as a browser or curl would say it.
pub fn request(server: &TestServer, method: &str, path: &str) -> Request<Body> {
    let uri = format!("http://{}{path}", server.address);
    Request::builder().method(method).uri(uri).body(Body::empty()).unwrap()
}

pub fn with(mut request: Request<Body>, headers: &[(&'static str, &str)]) -> Request<Body> {
    for &(name, value) in headers {
        request.headers_mut().append(name, value.parse().unwrap());
    }
    request
}

pub fn full(bytes: impl Into<Bytes>) -> Body {
    Body::new(Full::new(bytes.into()))
}

/// Sends a request on a connection of its own.
pub async fn send(
    address: SocketAddr,
    version: Version,
    request: Request<Body>,
) -> Response<Incoming> {
    send_over(TcpStream::connect(address).await.unwrap(), version, request).await
}

/// Sends a request on a connection that is there, and is for nothing else.
pub async fn send_over<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    version: Version,
    mut request: Request<Body>,
) -> Response<Incoming> {
    let stream = TokioIo::new(stream);
    if version == Version::HTTP_2 {
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
        tokio::spawn(connection);
        return within("response", sender.send_request(request)).await.unwrap();
    }
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let authority = request.uri().authority().unwrap().to_string();
    let path = request.uri().path_and_query().unwrap().to_string();
    if !request.headers().contains_key("host") {
        request.headers_mut().insert("host", authority.parse().unwrap());
    }
    *request.uri_mut() = path.parse().unwrap();
    within("response", sender.send_request(request)).await.unwrap()
}

/// An answer read to its end.
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {:?}", self.text()))
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Checks that it is an error in JSON with this code and reason; answers its metadata.
    #[track_caller]
    pub fn expect(&self, status: u16, code: &str, reason: &str) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text());
        assert_eq!(self.header("content-type"), "application/json");
        let json = self.json();
        assert_eq!((&json["code"], &json["reason"]), (&code.into(), &reason.into()), "{json}");
        assert!(json["message"].is_string(), "{json}");
        json["metadata"].clone()
    }
}

pub async fn ask(address: SocketAddr, version: Version, request: Request<Body>) -> Answer {
    let (head, body) = send(address, version, request).await.into_parts();
    let body = within("body", body.collect()).await.unwrap().to_bytes();
    Answer { status: head.status, headers: head.headers, body }
}

pub async fn get(server: &TestServer, path: &str) -> Answer {
    ask(server.address, Version::HTTP_11, request(server, "GET", path)).await
}

pub async fn post(server: &TestServer, content_type: &str, body: impl Into<Bytes>) -> Answer {
    let mut request =
        with(request(server, "POST", "/v1/events"), &[("content-type", content_type)]);
    *request.body_mut() = full(body);
    ask(server.address, Version::HTTP_11, request).await
}

/// A body that a test sends piece by piece.
pub struct Pieces(mpsc::UnboundedReceiver<Bytes>);

pub fn pieces() -> (mpsc::UnboundedSender<Bytes>, Body) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (sender, Body::new(Pieces(receiver)))
}

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        self.0.poll_recv(cx).map(|piece| piece.map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// A server-sent event, or what stands between two empty lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    pub id: Option<String>,
    pub event: String,
    pub data: String,
    pub retry: String,
    pub comments: usize,
}

impl Sent {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub fn id(&self) -> &str {
        self.id.as_deref().unwrap_or_else(|| panic!("no id: {self:?}"))
    }
}

/// A stream of server-sent events.
pub struct Events {
    pub status: StatusCode,
    pub headers: HeaderMap,
    body: Incoming,
    buffer: BytesMut,
    /// Of it, what is known to hold no end of a frame.
    scanned: usize,
    /// By somebody between, who is not to be blamed.
    pub may_be_cut: bool,
}

impl Events {
    pub async fn open(server: &TestServer, path: &str) -> Events {
        Events::send(server, Version::HTTP_11, request(server, "GET", path)).await
    }

    /// Comes back as a browser does.
    pub async fn reopen(server: &TestServer, path: &str, last_id: &str) -> Events {
        let request = with(request(server, "GET", path), &[("last-event-id", last_id)]);
        Events::send(server, Version::HTTP_11, request).await
    }

    pub async fn send(server: &TestServer, version: Version, request: Request<Body>) -> Events {
        Events::of(send(server.address, version, request).await)
    }

    /// What an answer has for a body.
    pub fn of(answer: Response<Incoming>) -> Events {
        let (head, body) = answer.into_parts();
        Events {
            status: head.status,
            headers: head.headers,
            body,
            buffer: BytesMut::new(),
            scanned: 0,
            may_be_cut: false,
        }
    }

    /// The next frame; `None` at the end of the stream.
    pub async fn next(&mut self) -> Option<Sent> {
        loop {
            let rest = &self.buffer[self.scanned..];
            if let Some(at) = rest.windows(2).position(|two| two == b"\n\n") {
                let frame = self.buffer.split_to(self.scanned + at + 2);
                self.scanned = 0;
                return Some(parse(&frame));
            }
            self.scanned = self.buffer.len().saturating_sub(1);
            match within("frame", self.body.frame()).await {
                Some(Ok(frame)) => self.buffer.extend_from_slice(&frame.into_data().unwrap()),
                Some(Err(error)) if self.may_be_cut => {
                    println!("the stream was cut: {error}");
                    return None;
                }
                Some(Err(error)) => panic!("the stream was cut: {error}"),
                None if self.may_be_cut => return None,
                None => {
                    assert!(self.buffer.is_empty(), "half a frame: {:?}", self.buffer);
                    return None;
                }
            }
        }
    }

    pub async fn frame(&mut self) -> Sent {
        self.next().await.expect("a frame")
    }

    /// The next frame with data that is no marker.
    pub async fn event(&mut self) -> Sent {
        loop {
            let sent = self.frame().await;
            if !sent.data.is_empty() && sent.event != "marker" {
                return sent;
            }
        }
    }

    /// The next marker, of this kind.
    pub async fn marker(&mut self, kind: &str) -> Sent {
        let sent = self.frame().await;
        assert_eq!(sent.event, "marker", "{sent:?}");
        assert_eq!(sent.json()["marker"]["kind"], kind, "{sent:?}");
        sent
    }

    /// Everything up to the end.
    pub async fn rest(&mut self) -> Vec<Sent> {
        let mut all = Vec::new();
        while let Some(sent) = self.next().await {
            all.push(sent);
        }
        all
    }
}

fn parse(frame: &[u8]) -> Sent {
    let mut sent = Sent::default();
    for line in std::str::from_utf8(frame).unwrap().lines().filter(|line| !line.is_empty()) {
        match line.split_once(": ").unwrap_or((line, "")) {
            ("id", value) => sent.id = Some(value.to_owned()),
            ("event", value) => value.clone_into(&mut sent.event),
            ("data", value) => sent.data.push_str(value),
            ("retry", value) => value.clone_into(&mut sent.retry),
            (":", _) => sent.comments += 1,
            _ => panic!("a line of another kind: {line:?}"),
        }
    }
    sent
}

/// The seqs of the events among these.
pub fn seqs(all: &[Sent]) -> Vec<u64> {
    let events = all.iter().filter(|sent| sent.event.is_empty() && !sent.data.is_empty());
    events.map(|sent| sent.json()["seq"].as_str().unwrap().parse().unwrap()).collect()
}
