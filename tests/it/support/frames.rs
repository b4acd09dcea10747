//! Clients of HTTP/2 below gRPC: one that does what no gRPC library would, and one that writes
//! frames by hand. RFC 9113, RFC 7541.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::server::within;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const CANCEL: u32 = 8;

/// A connection on which a test decides what is sent, and what is read.
pub async fn connect(address: SocketAddr) -> h2::client::SendRequest<Bytes> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// The head of a call.
pub fn head(method: &str, headers: &[(&'static str, &'static str)]) -> Request<()> {
    let uri = format!("http://x/feed.v1.FeedService/{method}");
    let mut request = Request::post(uri).body(()).unwrap();
    for &(name, value) in headers {
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    request
}

/// Sends a call whole.
pub async fn call(
    address: SocketAddr,
    request: Request<()>,
    body: Bytes,
) -> Response<h2::RecvStream> {
    let mut sender = connect(address).await.ready().await.unwrap();
    let (response, mut stream) = sender.send_request(request, false).unwrap();
    stream.send_data(body, true).unwrap();
    within("response", response).await.unwrap()
}

/// The status of an answer that is nothing but its headers.
pub fn status(headers: &HeaderMap) -> tonic::Status {
    tonic::Status::from_header_map(headers).unwrap_or_else(|| panic!("no status: {headers:?}"))
}

/// A message as gRPC frames it.
pub fn framed(message: &impl prost::Message) -> Bytes {
    let message = message.encode_to_vec();
    let mut bytes = vec![0];
    bytes.extend((message.len() as u32).to_be_bytes());
    bytes.extend(message);
    bytes.into()
}

pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

pub struct Frames(TcpStream);

impl Frames {
    pub async fn connect(address: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
        Frames(stream)
    }

    pub async fn write(&mut self, bytes: &[u8]) {
        within("write", self.0.write_all(bytes)).await.unwrap();
    }

    pub async fn read(&mut self) -> Frame {
        let mut head = [0; 9];
        within("frame", self.0.read_exact(&mut head)).await.unwrap();
        let [a, b, c, kind, flags, d, e, f, g] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        within("frame", self.0.read_exact(&mut payload)).await.unwrap();
        Frame { kind, flags, stream: u32::from_be_bytes([d, e, f, g]), payload }
    }

    /// Reads up to the first frame of one of these kinds.
    pub async fn next_of(&mut self, kinds: &[u8]) -> Frame {
        loop {
            let frame = self.read().await;
            if kinds.contains(&frame.kind) {
                return frame;
            }
        }
    }
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A call whose message is empty; without it where `message` is false.
pub fn begin(stream: u32, method: &str, message: bool) -> Vec<u8> {
    begin_at(stream, &format!("/feed.v1.FeedService/{method}"), message)
}

/// The same of any service.
pub fn begin_at(stream: u32, path: &str, message: bool) -> Vec<u8> {
    let block = fields(&[
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "x"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ]);
    let mut bytes = frame(HEADERS, END_HEADERS, stream, &block);
    if message {
        bytes.extend(frame(DATA, END_STREAM, stream, &[0; 5]));
    }
    bytes
}

/// A request of plain HTTP.
pub fn get(stream: u32, authority: &str, path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &plain("GET", authority, path, &[]))
}

/// A request of plain HTTP with more headers, whose body follows.
pub fn post(stream: u32, authority: &str, path: &str, headers: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &plain("POST", authority, path, headers))
}

/// One that takes its answer in gzip.
pub fn get_gzip(stream: u32, authority: &str, path: &str) -> Vec<u8> {
    let block = plain("GET", authority, path, &[("accept-encoding", "gzip")]);
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &block)
}

fn plain(method: &str, authority: &str, path: &str, headers: &[(&str, &str)]) -> Vec<u8> {
    let own =
        [(":method", method), (":scheme", "http"), (":path", path), (":authority", authority)];
    fields(&[&own, headers].concat())
}

fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        // A literal without indexing, neither part Huffman coded.
        block.push(0);
        for text in [name, value] {
            // RFC 7541, section 5.1.
            match text.len().checked_sub(127) {
                None => block.push(text.len() as u8),
                Some(mut rest) => {
                    block.push(127);
                    while rest > 127 {
                        block.push(rest as u8 | 128);
                        rest >>= 7;
                    }
                    block.push(rest as u8);
                }
            }
            block.extend(text.as_bytes());
        }
    }
    block
}

pub fn cancel(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes())
}

pub fn ping() -> Vec<u8> {
    frame(PING, 0, 0, &[7; 8])
}
