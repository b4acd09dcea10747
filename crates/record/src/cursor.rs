//! Cursors: printable tokens that name one event of one log. `docs/decisions/0002-cursor.md`.
//!
//! Version 1 is the letter `t` and 28 characters of canonical base64url (RFC 4648 section 5, no
//! padding) over 21 bytes, big-endian:
//!
//! | bytes | what |
//! |---|---|
//! | 4 | log id, short form |
//! | 2 | generation counter |
//! | 4 | generation nonce |
//! | 8 | seq |
//! | 3 | low 24 bits of CRC-32C over the letter and the 18 bytes before |
//!
//! Every version ever stored stays readable. A bare decimal number is a seq without the identity
//! check, for people.

use std::fmt;

use super::{Generation, LogId, Seq};

const VERSION_1: u8 = b't';
const BODY_LEN: usize = 21;
/// Characters of a version 1 cursor.
const TEXT_LEN: usize = 29;
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// What a client holds: exclusive, "after this event".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cursor {
    /// A token, whose identity is checked.
    Token {
        /// Short log id.
        log: u32,
        /// The generation its event belongs to.
        generation: Generation,
        /// The event; 0 = before the first.
        seq: Seq,
    },
    /// A bare number, taken at its word.
    Bare(Seq),
}

/// Which part of a cursor could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CursorPart {
    /// Not a version that this program knows.
    Version,
    /// Too long or too short.
    Length,
    /// A character outside the alphabet.
    Character,
    /// The checksum does not fit: mistyped or cut.
    Checksum,
    /// A number with leading zeros, or beyond 64 bits.
    Number,
}

impl CursorPart {
    /// Stable name for error metadata.
    pub fn as_str(self) -> &'static str {
        match self {
            CursorPart::Version => "version",
            CursorPart::Length => "length",
            CursorPart::Character => "character",
            CursorPart::Checksum => "checksum",
            CursorPart::Number => "number",
        }
    }
}

/// A text that is no cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed cursor: bad {}", part.as_str())]
pub struct CursorFormatError {
    /// The part that is wrong.
    pub part: CursorPart,
}

impl Cursor {
    /// The seq it names.
    pub fn seq(self) -> Seq {
        match self {
            Cursor::Token { seq, .. } | Cursor::Bare(seq) => seq,
        }
    }

    /// Reads a token or a bare number.
    ///
    /// # Errors
    /// Says which part is wrong. The text is never echoed: it may hold anything.
    pub fn parse(text: &str) -> Result<Cursor, CursorFormatError> {
        let fail = |part| Err(CursorFormatError { part });
        let bytes = text.as_bytes();
        match bytes.first() {
            None => return fail(CursorPart::Length),
            Some(b'0'..=b'9') => return parse_bare(text),
            Some(&VERSION_1) => {}
            Some(_) => return fail(CursorPart::Version),
        }
        if bytes.len() != TEXT_LEN {
            return fail(CursorPart::Length);
        }
        let mut body = [0u8; BODY_LEN];
        for (out, four) in body.chunks_exact_mut(3).zip(bytes[1..].chunks_exact(4)) {
            let mut word = 0u32;
            for &c in four {
                let Some(bits) = decode_char(c) else { return fail(CursorPart::Character) };
                word = word << 6 | u32::from(bits);
            }
            out.copy_from_slice(&word.to_be_bytes()[1..]);
        }
        if checksum(&body[..18]) != body[18..] {
            return fail(CursorPart::Checksum);
        }
        let be32 =
            |at: usize| u32::from_be_bytes([body[at], body[at + 1], body[at + 2], body[at + 3]]);
        Ok(Cursor::Token {
            log: be32(0),
            generation: Generation {
                counter: u16::from_be_bytes([body[4], body[5]]),
                nonce: be32(6),
            },
            seq: Seq::new(u64::from(be32(10)) << 32 | u64::from(be32(14))),
        })
    }
}

fn parse_bare(text: &str) -> Result<Cursor, CursorFormatError> {
    let canonical = text == "0" || !text.starts_with('0');
    let digits = text.bytes().all(|c| c.is_ascii_digit());
    match text.parse::<u64>() {
        Ok(seq) if canonical && digits => Ok(Cursor::Bare(Seq::new(seq))),
        _ => Err(CursorFormatError { part: CursorPart::Number }),
    }
}

fn decode_char(c: u8) -> Option<u8> {
    Some(match c {
        b'A'..=b'Z' => c - b'A',
        b'a'..=b'z' => c - b'a' + 26,
        b'0'..=b'9' => c - b'0' + 52,
        b'-' => 62,
        b'_' => 63,
        _ => return None,
    })
}

fn checksum(body: &[u8]) -> [u8; 3] {
    let crc = super::varint::crc32c(super::varint::crc32c(0, &[VERSION_1]), body);
    let b = crc.to_be_bytes();
    [b[1], b[2], b[3]]
}

/// Makes the cursors of one generation of one log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CursorMint {
    log: u32,
    generation: Generation,
    /// The letter and the first 12 characters, the same for every seq.
    prefix: [u8; 13],
    /// Last byte of the nonce, which shares its character group with the seq.
    nonce_low: u8,
    /// CRC over everything before the seq.
    crc: u32,
}

impl CursorMint {
    /// Characters of every cursor it makes.
    pub const LEN: usize = TEXT_LEN;

    /// A mint for `generation` of the log `id`.
    pub fn new(id: LogId, generation: Generation) -> Self {
        let mut head = [0u8; 10];
        head[..4].copy_from_slice(&id.short().to_be_bytes());
        head[4..6].copy_from_slice(&generation.counter.to_be_bytes());
        head[6..].copy_from_slice(&generation.nonce.to_be_bytes());
        let mut prefix = [VERSION_1; 13];
        encode(&head[..9], &mut prefix[1..]);
        let crc = super::varint::crc32c(super::varint::crc32c(0, &[VERSION_1]), &head);
        CursorMint { log: id.short(), generation, prefix, nonce_low: head[9], crc }
    }

    /// The generation it mints for.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// The cursor of the event `seq`, as ASCII.
    pub fn mint(&self, seq: Seq) -> [u8; TEXT_LEN] {
        let mut tail = [0u8; 12];
        tail[0] = self.nonce_low;
        tail[1..9].copy_from_slice(&seq.get().to_be_bytes());
        let crc = super::varint::crc32c(self.crc, &tail[1..9]).to_be_bytes();
        tail[9..].copy_from_slice(&crc[1..]);
        let mut text = [0u8; TEXT_LEN];
        text[..13].copy_from_slice(&self.prefix);
        encode(&tail, &mut text[13..]);
        text
    }

    /// The cursor of the event `seq`, as text.
    pub fn mint_string(&self, seq: Seq) -> String {
        self.mint(seq).iter().map(|&c| char::from(c)).collect()
    }
}

/// Two characters for each 12 bits.
static PAIRS: [[u8; 2]; 1 << 12] = {
    let mut pairs = [[0; 2]; 1 << 12];
    let mut bits = 0;
    while bits < pairs.len() {
        pairs[bits] = [ALPHABET[bits >> 6], ALPHABET[bits & 63]];
        bits += 1;
    }
    pairs
};

fn encode(bytes: &[u8], out: &mut [u8]) {
    for (three, four) in bytes.chunks_exact(3).zip(out.chunks_exact_mut(4)) {
        let word = usize::from(three[0]) << 16 | usize::from(three[1]) << 8 | usize::from(three[2]);
        four[..2].copy_from_slice(&PAIRS[word >> 12]);
        four[2..].copy_from_slice(&PAIRS[word & 0xfff]);
    }
}

impl fmt::Display for CursorMint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "log {:08x} generation {}", self.log, self.generation.counter)
    }
}
