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
pub struct Plain(pub TcpStream);

impl Plain {
    pub async fn connect(server: &TestServer) -> Plain {
        let stream = within("connect", TcpStream::connect(server.address)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Plain(stream)
    }

    /// Writes everything; an error is one that a plain client would stop at.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        within("send", self.0.write_all(bytes.as_ref())).await.unwrap();
    }

    /// Says that nothing more comes.
    pub async fn shut(&mut self) {
        within("shut", self.0.shutdown()).await.unwrap();
    }

    /// Leaves so that the other side is told of it at once.
    pub fn reset(self) {
        let stream = self.0.into_std().unwrap();
        rustix::net::sockopt::set_socket_linger(&stream, Some(std::time::Duration::ZERO)).unwrap();
    }

    /// Reads until this text has come.
    pub async fn until(&mut self, text: &str) -> String {
        let mut all = Vec::new();
        while !String::from_utf8_lossy(&all).contains(text) {
            let mut buffer = [0; 4_096];
            let read = within(text, self.0.read(&mut buffer)).await.unwrap();
            assert!(read > 0, "the end before {text:?}: {}", String::from_utf8_lossy(&all));
            all.extend_from_slice(&buffer[..read]);
        }
        String::from_utf8_lossy(&all).into_owned()
    }

    /// Everything up to the end of the connection.
    pub async fn rest(&mut self) -> String {
        let mut all = Vec::new();
        within("the end", self.0.read_to_end(&mut all)).await.unwrap();
        String::from_utf8_lossy(&all).into_owned()
    }

    /// One whole answer, by its length or its last chunk, or without a body; the connection may go on.
    pub async fn answer(&mut self) -> String {
        let mut all = self.until("\r\n\r\n").await;
        let lower = all.to_ascii_lowercase();
        let end = lower.find("\r\n\r\n").unwrap() + 4;
        if lower[..end].contains("transfer-encoding: chunked") {
            while !all.ends_with("0\r\n\r\n") {
                all.push_str(&self.until("\r\n").await);
            }
            return all;
        }
        let length = lower[..end].split("content-length: ").nth(1).unwrap_or("0\r\n");
        let length: usize = length.split("\r\n").next().unwrap().parse().unwrap();
        while all.len() < end + length {
            let mut buffer = vec![0; end + length - all.len()];
            let read = within("body", self.0.read(&mut buffer)).await.unwrap();
            assert!(read > 0, "half an answer: {all}");
            all.push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
        all
    }
}
