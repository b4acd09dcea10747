//! A plain client of HTTP/1.1 that sends bytes as they are, all of them before it reads any.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::server::{TestServer, within};

/// A request as text, without the header that says how long its body is.
pub fn head(server: &TestServer, line: &str, headers: &[&str]) -> String {
    let mut head = format!("{line} HTTP/1.1\r\nhost: {}\r\n", server.address);
    for header in headers {
        head.push_str(header);
        head.push_str("\r\n");
    }
    head
}

/// One connection.
pub struct Plain {
    pub stream: TcpStream,
    /// What came and was not asked for yet.
    ahead: Vec<u8>,
}

impl Plain {
    pub async fn connect(server: &TestServer) -> Plain {
        let stream = within("connect", TcpStream::connect(server.address)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Plain { stream, ahead: Vec::new() }
    }

    /// Writes everything; an error is one that a plain client would stop at.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        within("send", self.stream.write_all(bytes.as_ref())).await.unwrap();
    }

    /// Says that nothing more comes.
    pub async fn shut(&mut self) {
        within("shut", self.stream.shutdown()).await.unwrap();
    }

    /// Leaves so that the other side is told of it at once.
    pub fn reset(self) {
        let stream = self.stream.into_std().unwrap();
        rustix::net::sockopt::set_socket_linger(&stream, Some(std::time::Duration::ZERO)).unwrap();
    }

    /// Everything up to this text, and it.
    pub async fn until(&mut self, text: &str) -> String {
        let mut from = 0;
        loop {
            if let Some(at) = find(&self.ahead[from..], text.as_bytes()) {
                return self.take(from + at + text.len());
            }
            from = (self.ahead.len() + 1).saturating_sub(text.len());
            let seen = String::from_utf8_lossy(&self.ahead[self.ahead.len().saturating_sub(200)..]);
            let seen = seen.into_owned();
            assert!(self.more(text).await, "the end before {text:?}: {seen}");
        }
    }

    /// Everything up to the end of the connection.
    pub async fn rest(&mut self) -> String {
        while self.more("the end").await {}
        self.take(self.ahead.len())
    }

    /// One whole answer, by its length or its last chunk, or without a body.
    pub async fn answer(&mut self) -> String {
        let mut all = self.until("\r\n\r\n").await;
        let lower = all.to_ascii_lowercase();
        if lower.contains("transfer-encoding: chunked") {
            while !all.ends_with("\r\n0\r\n\r\n") {
                all.push_str(&self.until("\r\n").await);
            }
            return all;
        }
        let length = lower.split("content-length: ").nth(1).unwrap_or("0\r\n");
        let length: usize = length.split("\r\n").next().unwrap().parse().unwrap();
        while self.ahead.len() < length {
            assert!(self.more("body").await, "half an answer: {all}");
        }
        all + &self.take(length)
    }

    /// Reads once; whether there was anything.
    async fn more(&mut self, what: &str) -> bool {
        let before = self.ahead.len();
        within(what, self.stream.read_buf(&mut self.ahead)).await.unwrap();
        self.ahead.len() > before
    }

    fn take(&mut self, len: usize) -> String {
        let rest = self.ahead.split_off(len);
        String::from_utf8_lossy(&std::mem::replace(&mut self.ahead, rest)).into_owned()
    }
}

fn find(bytes: &[u8], text: &[u8]) -> Option<usize> {
    bytes.windows(text.len()).position(|part| part == text)
}
