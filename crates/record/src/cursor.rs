//! Cursors: printable tokens that name one event of one log. `docs/decisions/0002-cursor.md`,
//! `docs/decisions/0016-chain.md`.
//!
//! A letter, the version, and canonical base64url (RFC 4648 section 5, no padding) over these bytes,
//! big-endian:
//!
//! | `u`, version 2 | `t`, version 1 | what |
//! |---|---|---|
//! | 4 | 4 | log id, short form |
//! | 2 | 2 | generation counter |
//! | 4 | 4 | generation nonce |
//! | 8 | 8 | seq |
//! | 4 | | tag of the chain at that event; 0 with seq 0 |
//! | 2 | 3 | low bits of CRC-32C over the letter and the bytes before |
//!
//! Every version ever stored stays readable. A bare decimal number is a seq without the identity
//! check, for people.

use super::{Generation, LogId, Seq};

/// Bytes of every version up to the seq, which end in the same.
const PLACE_LEN: usize = 18;
/// Bytes of the longest body.
const MAX_BODY_LEN: usize = 24;
/// Characters of a cursor of version 2.
const TEXT_LEN: usize = 33;

/// What a version looks like.
struct Shape {
    letter: u8,
    /// Characters after the letter.
    chars: usize,
    /// Bytes before the checksum.
    covered: usize,
    /// Bytes of the checksum.
    sum: usize,
}

/// Without a tag.
const VERSION_1: Shape = Shape { letter: b't', chars: 28, covered: PLACE_LEN, sum: 3 };
const VERSION_2: Shape = Shape { letter: b'u', chars: 32, covered: PLACE_LEN + 4, sum: 2 };
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// 32 bits of the chain over a log's events, up to and with one of them: two logs that have the same
/// there are, but for one chance in four thousand million, the same up to there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ChainTag(u32);

impl ChainTag {
    /// Before the first event.
    pub const START: ChainTag = ChainTag(0);

    /// Of its bits.
    pub const fn new(bits: u32) -> ChainTag {
        ChainTag(bits)
    }

    /// Its bits.
    pub const fn get(self) -> u32 {
        self.0
    }
}

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
        /// Of the chain at that event; none in a cursor of version 1.
        tag: Option<ChainTag>,
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
        let shape = match bytes.first() {
            None => return fail(CursorPart::Length),
            Some(b'0'..=b'9') => return parse_bare(text),
            Some(&letter) if letter == VERSION_2.letter => VERSION_2,
            Some(&letter) if letter == VERSION_1.letter => VERSION_1,
            Some(_) => return fail(CursorPart::Version),
        };
        if bytes.len() != 1 + shape.chars {
            return fail(CursorPart::Length);
        }
        let mut body = [0u8; MAX_BODY_LEN];
        for (out, four) in body.chunks_exact_mut(3).zip(bytes[1..].chunks_exact(4)) {
            let mut word = 0u32;
            for &c in four {
                let Some(bits) = decode_char(c) else { return fail(CursorPart::Character) };
                word = word << 6 | u32::from(bits);
            }
            out.copy_from_slice(&word.to_be_bytes()[1..]);
        }
        let (covered, rest) = body.split_at(shape.covered);
        let sum = checksum(shape.letter, covered);
        if sum[4 - shape.sum..] != rest[..shape.sum] {
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
            tag: (shape.covered > PLACE_LEN).then(|| ChainTag(be32(PLACE_LEN))),
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

fn checksum(letter: u8, body: &[u8]) -> [u8; 4] {
    super::varint::crc32c(super::varint::crc32c(0, &[letter]), body).to_be_bytes()
}

/// Makes the cursors of one generation of one log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CursorMint {
    generation: Generation,
    /// Log id and generation.
    head: [u8; 10],
    /// The letter and the first 12 characters, the same for every seq.
    prefix: [u8; 13],
    /// CRC over everything before the seq.
    crc: u32,
}

impl CursorMint {
    /// Characters of every cursor that it makes with a tag.
    pub const LEN: usize = TEXT_LEN;

    /// A mint for `generation` of the log `id`.
    pub fn new(id: LogId, generation: Generation) -> Self {
        let mut head = [0u8; 10];
        head[..4].copy_from_slice(&id.short().to_be_bytes());
        head[4..6].copy_from_slice(&generation.counter.to_be_bytes());
        head[6..].copy_from_slice(&generation.nonce.to_be_bytes());
        let mut prefix = [VERSION_2.letter; 13];
        encode(&head[..9], &mut prefix[1..]);
        let crc = u32::from_be_bytes(checksum(VERSION_2.letter, &head));
        CursorMint { generation, head, prefix, crc }
    }

    /// The generation it mints for.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// The cursor of the event `seq`, at which the chain has this tag, as ASCII.
    pub fn mint(&self, seq: Seq, tag: ChainTag) -> [u8; TEXT_LEN] {
        // What shares a group of characters with the seq, the seq, the tag, the checksum.
        let mut tail = [0u8; 15];
        tail[0] = self.head[9];
        tail[1..9].copy_from_slice(&seq.get().to_be_bytes());
        tail[9..13].copy_from_slice(&tag.get().to_be_bytes());
        let crc = super::varint::crc32c(self.crc, &tail[1..13]).to_be_bytes();
        tail[13..].copy_from_slice(&crc[2..]);
        let mut text = [0u8; TEXT_LEN];
        text[..13].copy_from_slice(&self.prefix);
        encode(&tail, &mut text[13..]);
        text
    }

    /// The cursor of the event `seq`, as text.
    pub fn mint_string(&self, seq: Seq, tag: ChainTag) -> String {
        self.mint(seq, tag).iter().map(|&c| char::from(c)).collect()
    }

    /// A cursor of version 1, which names the place and nothing of what was there: for a seq whose event
    /// cannot be read.
    pub fn mint_place(&self, seq: Seq) -> String {
        let mut body = [0u8; 21];
        body[..10].copy_from_slice(&self.head);
        body[10..PLACE_LEN].copy_from_slice(&seq.get().to_be_bytes());
        let sum = checksum(VERSION_1.letter, &body[..PLACE_LEN]);
        body[PLACE_LEN..].copy_from_slice(&sum[1..]);
        let mut text = [VERSION_1.letter; 29];
        encode(&body, &mut text[1..]);
        text.iter().map(|&c| char::from(c)).collect()
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
