//! `XADD` to one stream, topic and body as its fields.

use anyhow::{Result, bail};

use super::{Session, first, line};
use crate::sample;

pub(crate) struct Redis {
    at: u64,
}

impl Default for Redis {
    fn default() -> Redis {
        Redis { at: first() }
    }
}

impl Session for Redis {
    fn request(&mut self, out: &mut Vec<u8>) {
        let body = sample::pick(&sample::POOL, self.at);
        self.at += 1;
        out.extend_from_slice(b"*7\r\n");
        for part in ["XADD", "bench", "*", "topic", sample::TOPIC, "body", body.as_str()] {
            out.extend_from_slice(format!("${}\r\n", part.len()).as_bytes());
            out.extend_from_slice(part.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
    }

    fn answers(&mut self, input: &[u8], _: &mut Vec<u8>) -> Result<(usize, usize)> {
        let (mut read, mut acked) = (0, 0);
        while let Some((head, taken)) = line(&input[read..]) {
            let [b'$', len @ ..] = head else { bail!("{}", String::from_utf8_lossy(head)) };
            let all = read + taken + std::str::from_utf8(len)?.parse::<usize>()? + 2;
            if input.len() < all {
                break;
            }
            (read, acked) = (all, acked + 1);
        }
        Ok((read, acked))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_ids_and_anything_else_is_an_error() {
        let mut session = Redis::default();
        let mut answers = |text: &str| session.answers(text.as_bytes(), &mut Vec::new());
        assert_eq!(answers("$3\r\n1-0\r\n$3\r\n1-1\r\n").unwrap(), (18, 2));
        assert_eq!(answers("$3\r\n1-0\r\n$3\r\n1-").unwrap(), (9, 1));
        assert!(answers("-ERR max number of clients reached\r\n").is_err());
        assert!(answers("$-1\r\n").is_err());
    }
}
