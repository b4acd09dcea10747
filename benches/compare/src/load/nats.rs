//! Publishes to a stream of JetStream, each with a subject for its ack.

use anyhow::{Context, Result, bail};

use super::{Session, first, line};
use crate::sample;

pub(crate) struct Nats {
    inbox: String,
    at: u64,
}

impl Nats {
    pub(crate) fn new() -> Nats {
        Nats { inbox: format!("_INBOX.{:016x}", rand::random::<u64>()), at: first() }
    }
}

impl Session for Nats {
    fn open(&mut self, out: &mut Vec<u8>) {
        let options =
            r#"{"verbose":false,"pedantic":false,"lang":"bench","version":"1","protocol":1}"#;
        out.extend_from_slice(format!("CONNECT {options}\r\nSUB {} 1\r\n", self.inbox).as_bytes());
    }

    fn request(&mut self, out: &mut Vec<u8>) {
        let body = sample::pick(&sample::POOL, self.at);
        self.at += 1;
        let head = format!("PUB {} {} {}\r\n", sample::TOPIC, self.inbox, body.len());
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(body.as_bytes());
        out.extend_from_slice(b"\r\n");
    }

    fn answers(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(usize, usize)> {
        let (mut read, mut acked) = (0, 0);
        while let Some((head, taken)) = line(&input[read..]) {
            let text = std::str::from_utf8(head)?;
            if text.starts_with("MSG ") {
                let len = text.rsplit(' ').next().unwrap_or_default();
                let len: usize = len.parse().context("a message without a length")?;
                let all = read + taken + len + 2;
                let Some(payload) = input.get(read + taken..all) else { break };
                let payload = std::str::from_utf8(payload)?;
                if !payload.contains("\"seq\":") {
                    bail!("no ack: {payload}");
                }
                (read, acked) = (all, acked + 1);
                continue;
            }
            match text {
                "PING" => out.extend_from_slice(b"PONG\r\n"),
                _ if text.starts_with("INFO ") => {}
                "PONG" | "+OK" => {}
                _ => bail!("the server says {text}"),
            }
            read += taken;
        }
        Ok((read, acked))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_acks_with_a_sequence() {
        let mut session = Nats::new();
        let mut out = Vec::new();
        let text = "INFO {}\r\nPING\r\nMSG _INBOX.1 1 9\r\n{\"seq\":1}\r\n";
        assert_eq!(session.answers(text.as_bytes(), &mut out).unwrap(), (text.len(), 1));
        assert_eq!(out, b"PONG\r\n");
        let cut = &text.as_bytes()[..text.len() - 1];
        assert_eq!(session.answers(cut, &mut out).unwrap(), (15, 0));
        for bad in ["-ERR 'full'\r\n", "MSG _INBOX.1 1 14\r\n{\"error\":{..}}\r\n"] {
            assert!(session.answers(bad.as_bytes(), &mut out).is_err(), "{bad}");
        }
    }
}
