//! `POST /v1/events` of one event, over a connection that is kept.

use anyhow::{Context, Result, bail};

use super::{Session, first};
use crate::sample;

pub(crate) struct Http {
    host: String,
    at: u64,
}

impl Http {
    pub(crate) fn new(host: &str) -> Http {
        Http { host: host.to_owned(), at: first() }
    }
}

impl Session for Http {
    fn request(&mut self, out: &mut Vec<u8>) {
        let text = sample::pick(&sample::JSON, self.at);
        self.at += 1;
        let head = format!(
            "POST /v1/events HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            self.host,
            text.len()
        );
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(text.as_bytes());
    }

    fn answers(&mut self, input: &[u8], _: &mut Vec<u8>) -> Result<(usize, usize)> {
        let (mut read, mut acked) = (0, 0);
        while let Some(end) = input[read..].windows(4).position(|four| four == b"\r\n\r\n") {
            let head = std::str::from_utf8(&input[read..read + end])?;
            let len = body_len(head)?;
            let all = read + end + 4 + len;
            if input.len() < all {
                break;
            }
            if !head.starts_with("HTTP/1.1 200 ") {
                let body = String::from_utf8_lossy(&input[all - len..all]);
                bail!("{:?}: {body}", head.lines().next().unwrap_or_default());
            }
            (read, acked) = (all, acked + 1);
        }
        Ok((read, acked))
    }
}

fn body_len(head: &str) -> Result<usize> {
    let of = |line: &str| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    };
    head.lines().find_map(of).context("an answer without a length")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_once_they_are_whole() {
        let one = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
        let text = format!("{one}{one}");
        let mut session = Http::new("h:1");
        let mut answers = |text: &str| session.answers(text.as_bytes(), &mut Vec::new());
        assert_eq!(answers(&text).unwrap(), (text.len(), 2));
        assert_eq!(answers(&text[..text.len() - 1]).unwrap(), (one.len(), 1));
        assert_eq!(answers("HTTP/1.1 20").unwrap(), (0, 0));
        let refused =
            answers("HTTP/1.1 429 Too Many\r\ncontent-length: 4\r\n\r\nslow").unwrap_err();
        assert!(refused.to_string().contains("429") && refused.to_string().contains("slow"));
        assert!(answers("HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
