//! Unary calls over HTTP/2, as much of it as they take: headers from the table after the first call, answers by
//! their frames. A call that brings no message has failed.

use std::sync::LazyLock;

use anyhow::{Result, bail, ensure};
use bytes::Bytes;
use prost::Message;
use tailmark_wire::feed_v1 as pb;

use super::{Session, first};
use crate::sample;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The largest window of a connection, and what it is at first.
const WINDOW: u32 = i32::MAX as u32;
const FIRST_WINDOW: u32 = 65_535;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
/// Of data and headers; of settings and pings it is the ack.
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// `PublishRequest`s of the pool, each with the five bytes before a message.
static REQUESTS: LazyLock<Vec<Bytes>> = LazyLock::new(|| {
    let request = |body: &String| {
        let (topic, body) = (sample::TOPIC.to_owned(), body.clone());
        let event = Some(pb::Event { topic, body, ..pb::Event::default() });
        let message = pb::PublishRequest { event, ..pb::PublishRequest::default() };
        let len = u32::try_from(message.encoded_len()).unwrap_or_default();
        [&[0], &len.to_be_bytes()[..], &message.encode_to_vec()].concat().into()
    };
    sample::POOL.iter().map(request).collect()
});

pub(crate) struct Grpc {
    /// Headers of the first call, which put the names into the table; of the others, which find them there.
    first_block: Option<Vec<u8>>,
    block: [u8; 6],
    next_stream: u32,
    at: u64,
    /// Streams on which a message came, and that have not ended.
    answered: Vec<u32>,
    /// Since the connection's window was opened last.
    received: u32,
}

impl Grpc {
    pub(crate) fn new(host: &str, path: &str) -> Grpc {
        // :method POST and :scheme http are in the static table.
        let mut block = vec![0x83, 0x86];
        let mut put = |name: &[u8], value: &str| {
            block.extend_from_slice(name);
            block.push(u8::try_from(value.len()).unwrap_or(u8::MAX));
            block.extend_from_slice(value.as_bytes());
        };
        put(&[0x44], path);
        put(&[0x41], host);
        put(&[0x5f], "application/grpc");
        put(b"\x40\x02te", "trailers");
        Grpc {
            first_block: Some(block),
            // The newest is 62.
            block: [0x83, 0x86, 0x80 | 65, 0x80 | 64, 0x80 | 63, 0x80 | 62],
            next_stream: 1,
            at: first(),
            answered: Vec::new(),
            received: 0,
        }
    }
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&len.to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// Length, kind, flags and stream of the frame that begins here, once all of it is there.
fn head(input: &[u8]) -> Option<(usize, u8, u8, u32)> {
    let [a, b, c, kind, flags, stream @ ..] = input.first_chunk::<9>()?;
    let len = u32::from_be_bytes([0, *a, *b, *c]) as usize;
    let stream = u32::from_be_bytes(*stream) & !(1 << 31);
    (input.len() >= 9 + len).then_some((len, *kind, *flags, stream))
}

impl Session for Grpc {
    fn open(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(PREFACE);
        frame(out, SETTINGS, 0, 0, &[]);
        frame(out, WINDOW_UPDATE, 0, 0, &(WINDOW - FIRST_WINDOW).to_be_bytes());
    }

    fn request(&mut self, out: &mut Vec<u8>) {
        let stream = self.next_stream;
        self.next_stream += 2;
        match self.first_block.take() {
            Some(block) => frame(out, HEADERS, END_HEADERS, stream, &block),
            None => frame(out, HEADERS, END_HEADERS, stream, &self.block),
        }
        let message: &Bytes = sample::pick(&REQUESTS, self.at);
        frame(out, DATA, END_STREAM, stream, message);
        self.at += 1;
    }

    fn answers(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(usize, usize)> {
        let (mut read, mut acked) = (0, 0);
        while let Some((len, kind, flags, stream)) = head(&input[read..]) {
            let payload = &input[read + 9..read + 9 + len];
            read += 9 + len;
            match kind {
                DATA => {
                    self.received += u32::try_from(len)?;
                    // The five bytes alone are an empty message: no answer of ours.
                    if len > 5 && !self.answered.contains(&stream) {
                        self.answered.push(stream);
                    }
                }
                HEADERS if flags & END_STREAM != 0 => {
                    let found = self.answered.iter().position(|open| *open == stream);
                    let Some(found) = found else { bail!("a call was answered with an error") };
                    self.answered.swap_remove(found);
                    acked += 1;
                }
                SETTINGS if flags & END_STREAM == 0 => frame(out, SETTINGS, 1, 0, &[]),
                PING if flags & END_STREAM == 0 => frame(out, PING, 1, 0, payload),
                RST_STREAM => bail!("a call was reset"),
                GOAWAY => bail!("the server ends the connection: {:?}", payload.get(4..8)),
                _ => {}
            }
            ensure!(kind != DATA || flags & END_STREAM == 0, "an answer ended without a status");
        }
        if self.received > WINDOW / 2 {
            frame(out, WINDOW_UPDATE, 0, 0, &self.received.to_be_bytes());
            self.received = 0;
        }
        Ok((read, acked))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(frames: &[(u8, u8, u32, &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        for (kind, flags, stream, payload) in frames {
            frame(&mut out, *kind, *flags, *stream, payload);
        }
        out
    }

    fn session() -> Grpc {
        Grpc::new("127.0.0.1:7", "/a.B/C")
    }

    #[test]
    fn an_answer_is_a_message_and_a_status() {
        let all = frames(&[
            (SETTINGS, 0, 0, b""),
            (HEADERS, END_HEADERS, 1, b"\x88"),
            (DATA, 0, 1, b"\0\0\0\0\x01x"),
            (HEADERS, END_HEADERS | END_STREAM, 1, b"..."),
        ]);
        let mut out = Vec::new();
        assert_eq!(session().answers(&all, &mut out).unwrap(), (all.len(), 1));
        assert_eq!(out, frames(&[(SETTINGS, 1, 0, b"")]));
        // In pieces of any size it is the same.
        let (mut session, mut acked, mut rest) = (session(), 0, Vec::new());
        for byte in all {
            rest.push(byte);
            let (read, more) = session.answers(&rest, &mut out).unwrap();
            rest.drain(..read);
            acked += more;
        }
        assert_eq!((acked, rest.len()), (1, 0));
    }

    #[test]
    fn a_status_without_a_message_a_reset_and_a_goaway_are_errors() {
        for bad in [
            frames(&[(HEADERS, END_HEADERS | END_STREAM, 1, b"...")]),
            frames(&[(DATA, 0, 1, b"\0\0\0\0\0"), (HEADERS, END_STREAM, 1, b"...")]),
            frames(&[(DATA, 0, 3, b"\0\0\0\0\x01x"), (HEADERS, END_STREAM, 1, b"...")]),
            frames(&[(RST_STREAM, 0, 1, b"\0\0\0\0")]),
            frames(&[(GOAWAY, 0, 0, b"\0\0\0\0\0\0\0\x0b")]),
        ] {
            assert!(session().answers(&bad, &mut Vec::new()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn requests_are_events_of_the_pool() {
        let request = &REQUESTS[7];
        let message = pb::PublishRequest::decode(&request[5..]).unwrap();
        assert_eq!(message.event.unwrap().body, sample::POOL[7]);
        let len = u32::from_be_bytes(*request[1..].first_chunk().unwrap());
        assert_eq!((request[0], len as usize), (0, request.len() - 5));
    }
}
