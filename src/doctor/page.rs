//! One plain request, and its answer as it came.

use std::io;
use std::time::SystemTime;

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Of an answer; a server's own has a few hundred bytes.
const MAX_BYTES: u64 = 64 << 10;
/// Of what others say of themselves.
const MAX_SAID: usize = 80;

/// An answer.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) status: u16,
    headers: Vec<(String, String)>,
    pub(super) body: String,
    /// It is no HTTP, but an alert of TLS.
    is_alert: bool,
}

/// Asks for a path.
pub(super) async fn get<S>(mut stream: S, authority: &str, path: &str) -> io::Result<Page>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let request = format!("GET {path} HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let mut bytes = Vec::new();
    let read = stream.take(MAX_BYTES).read_to_end(&mut bytes).await;
    // An end that nobody announced, behind an answer, takes nothing from it.
    if bytes.is_empty() {
        read?;
    }
    Page::parse(&bytes).ok_or_else(|| io::Error::other("what came is no HTTP"))
}

impl Page {
    fn parse(bytes: &[u8]) -> Option<Page> {
        if bytes.starts_with(&[21, 3]) {
            return Some(Page { is_alert: true, ..Page::default() });
        }
        let text = String::from_utf8_lossy(bytes);
        let (head, body) = text.split_once("\r\n\r\n")?;
        let mut lines = head.split("\r\n");
        let status = lines.next()?.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
        let headers = lines.filter_map(|line| line.split_once(':'));
        let headers = headers.map(|(name, value)| {
            (name.to_ascii_lowercase(), value.trim().chars().take(MAX_SAID).collect())
        });
        Some(Page { status, headers: headers.collect(), body: body.to_owned(), is_alert: false })
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(of, _)| of == name);
        found.next().map(|(_, value)| value.as_str())
    }

    /// Whether TLS answers what was asked without.
    pub(super) fn is_tls(&self) -> bool {
        self.is_alert || self.status == 400 && self.body.contains("HTTPS port")
    }

    /// Who says that it has answered or passed it on; a server of ours says nothing.
    pub(super) fn answered_by(&self) -> Option<String> {
        self.header("server").or_else(|| self.header("via")).map(str::to_owned)
    }

    pub(super) fn date(&self) -> Option<SystemTime> {
        httpdate::parse_http_date(self.header("date")?).ok()
    }

    fn json(&self) -> Option<Value> {
        serde_json::from_str(&self.body).ok()
    }

    /// The reason of an error of ours.
    pub(super) fn reason(&self) -> Option<&'static str> {
        let json = self.json()?;
        let reason = tailmark_record::Reason::parse(json.get("reason")?.as_str()?)?;
        Some(reason.as_str())
    }

    /// Its words.
    pub(super) fn message(&self) -> Option<String> {
        Some(self.json()?.get("message")?.as_str()?.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_apart() {
        let ours = "HTTP/1.1 200 OK\r\ndate: Sun, 29 Nov 2026 16:00:00 GMT\r\n\r\nok\n";
        let ours = Page::parse(ours.as_bytes()).unwrap();
        assert_eq!((ours.status, ours.answered_by(), ours.is_tls()), (200, None, false));
        assert!(ours.date().is_some());
        let nginx = "HTTP/1.1 400 Bad Request\r\nServer: nginx\r\n\r\n\
                     The plain HTTP request was sent to HTTPS port";
        let nginx = Page::parse(nginx.as_bytes()).unwrap();
        assert!(nginx.is_tls() && nginx.answered_by().as_deref() == Some("nginx"));
        assert!(Page::parse(&[21, 3, 1, 0, 2, 2, 70]).unwrap().is_tls());
        let refused = "HTTP/1.1 400 x\r\n\r\n{\"reason\":\"TLS_REQUIRED\",\"message\":\"m\"}";
        let refused = Page::parse(refused.as_bytes()).unwrap();
        assert_eq!(refused.reason(), Some("TLS_REQUIRED"));
        assert_eq!(refused.message().as_deref(), Some("m"));
        for bad in [&b""[..], b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 x\r\n\r\n", b"\xff\xfe"] {
            assert!(Page::parse(bad).is_none(), "{bad:?}");
        }
    }
}
