//! A frame as bytes.
//!
//! It is a protobuf `feed.v1.EventBatch`: one field of its own, the head, and then the events as they are
//! stored everywhere. So whoever reads the journal by other means can read the events by the published types.
//! Each frame has one form, and nothing else is read. The head, little-endian:
//!
//! | bytes | what |
//! |---|---|
//! | 0-3 | `TMJF` |
//! | 4-5 | format: 1 |
//! | 6 | kind: 0 empty, 1 takeover, 2 commit, 3 checkpoint |
//! | 7 | bit 0: the tag before the trim mark is known |
//! | 8-23 | log id |
//! | 24-31 | term |
//! | 32-39 | writer |
//! | 40-47 | nonce |
//! | 48-63 | chain before it |
//! | 64-71 | first seq; of a checkpoint the next |
//! | 72-75 | count of events; of a checkpoint the length of its generations |
//! | 76-79 | length of the rest before the chain |
//! | 80-87 | trim mark |
//! | 88-95 | appended at, in nanoseconds; of a checkpoint the last that was |
//! | 96-99 | tag of the chain of events before the trim mark |
//! | 100-103 | 0 |
//! | 104-119 | link of the chain of events |
//! | 120- | a commit's delta; of a takeover the generations; of a checkpoint they, and the state |
//! | last 16 | chain up to and with it: XXH3-128, big-endian, over all other bytes of the frame |
//!
//! What is not of its kind is 0. A generation: counter (2), length of its cause (2), nonce (4), first seq
//! (8), since when in nanoseconds (8), cause.

use std::sync::Arc;

use bytes::Bytes;
use xxhash_rust::xxh3::Xxh3;

use super::{Body, Checkpoint, Content, Frame};
use crate::chain::Link;
use crate::storage::Commit;
use crate::storage::place::FrameChain;
use crate::width::{to_u32, to_usize};
use tailmark_record::{
    ChainTag, Generation, GenerationEntry, GenerationTable, LogId, Seq, Timestamp, put_varint,
    take_varint, varint_len,
};

/// Field 1000, length-delimited.
const TAG: [u8; 2] = [0xc2, 0x3e];
const MAGIC: [u8; 4] = *b"TMJF";
const FORMAT: u16 = 1;
const FIXED: usize = 120;
const CHAIN: usize = 16;
const ROW: usize = 24;

const EMPTY: u8 = 0;
const TERM: u8 = 1;
const COMMIT: u8 = 2;
const CHECKPOINT: u8 = 3;

/// Why bytes are no frame of this log that can be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameProblem {
    /// Somebody else's.
    #[error("it is no frame")]
    Foreign,
    /// Of another version of this program.
    #[error("it is of format {0}, and this program reads {FORMAT}: another version wrote it")]
    Version(u16),
    /// A frame of another log.
    #[error("it is of log {0}")]
    OtherLog(LogId),
    /// Not what was written.
    #[error("it is damaged: {0}")]
    Damaged(&'static str),
}

impl Content {
    /// The bytes of the frame, and the chain in them.
    pub(super) fn encode(&self) -> (Bytes, FrameChain) {
        let (mut fixed, mut rest, events) = ([0; FIXED], Vec::new(), self.body.events());
        let mut put = |at: usize, bytes: &[u8]| fixed[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &MAGIC);
        put(4, &FORMAT.to_le_bytes());
        put(8, self.log.uuid().as_bytes());
        put(24, &self.term.to_le_bytes());
        put(32, &self.writer.to_le_bytes());
        put(40, &self.nonce.to_le_bytes());
        put(48, &self.previous.0);
        match &self.body {
            Body::Empty => put(6, &[EMPTY]),
            Body::Term(table) => {
                put(6, &[TERM]);
                table.entries().iter().for_each(|row| put_row(&mut rest, row));
            }
            Body::Commit(commit) => {
                put(6, &[COMMIT, u8::from(commit.oldest_tag.is_some())]);
                put(64, &commit.first.get().to_le_bytes());
                put(72, &commit.count.to_le_bytes());
                put(80, &commit.oldest.get().to_le_bytes());
                put(88, &commit.appended_at.as_nanos().to_le_bytes());
                put(96, &commit.oldest_tag.unwrap_or_default().get().to_le_bytes());
                put(104, &commit.link.bytes());
                rest.extend_from_slice(&commit.delta);
            }
            // Below.
            Body::Checkpoint(_) => {}
        }
        if let Body::Checkpoint(it) = &self.body {
            put(6, &[CHECKPOINT, u8::from(it.oldest_tag.is_some())]);
            it.generations.entries().iter().for_each(|row| put_row(&mut rest, row));
            put(64, &it.next.get().to_le_bytes());
            put(72, &to_u32(rest.len()).to_le_bytes());
            put(80, &it.oldest.get().to_le_bytes());
            put(88, &it.last_at.as_nanos().to_le_bytes());
            put(96, &it.oldest_tag.unwrap_or_default().get().to_le_bytes());
            put(104, &it.link.bytes());
            rest.extend_from_slice(&it.state);
        }
        put(76, &to_u32(rest.len()).to_le_bytes());
        let head = FIXED + rest.len() + CHAIN;
        let all = TAG.len() + varint_len(head as u64) + head + events.len();
        let mut out = Vec::with_capacity(all);
        out.extend_from_slice(&TAG);
        put_varint(&mut out, head as u64);
        out.extend_from_slice(&fixed);
        out.extend_from_slice(&rest);
        let chain = chain(&out, events);
        out.extend_from_slice(&chain.0);
        out.extend_from_slice(events);
        (out.into(), chain)
    }
}

impl Body {
    fn events(&self) -> &[u8] {
        match self {
            Body::Commit(commit) => &commit.events,
            Body::Term(_) | Body::Empty | Body::Checkpoint(_) => &[],
        }
    }
}

fn chain(before: &[u8], behind: &[u8]) -> FrameChain {
    let mut hash = Xxh3::new();
    hash.update(before);
    hash.update(behind);
    FrameChain(hash.digest128().to_be_bytes())
}

fn put_row(out: &mut Vec<u8>, row: &GenerationEntry) {
    // Ours are one or two words.
    let cause = u16::try_from(row.cause.len()).map(|len| (len, row.cause.as_bytes()));
    let (len, cause) = cause.unwrap_or_default();
    out.extend_from_slice(&row.generation.counter.to_le_bytes());
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(&row.generation.nonce.to_le_bytes());
    out.extend_from_slice(&row.first.get().to_le_bytes());
    out.extend_from_slice(&row.since.as_nanos().to_le_bytes());
    out.extend_from_slice(cause);
}

impl Frame {
    /// Reads a message of the journal of a log.
    ///
    /// # Errors
    /// What it is, if it is no frame of that log.
    pub fn decode(bytes: &Bytes, log: LogId) -> Result<Frame, FrameProblem> {
        let damaged = |what| Err(FrameProblem::Damaged(what));
        let mut rest = bytes.strip_prefix(&TAG).ok_or(FrameProblem::Foreign)?;
        let len = take_varint(&mut rest).ok_or(FrameProblem::Foreign)?;
        if !rest.starts_with(&MAGIC) {
            return Err(FrameProblem::Foreign);
        }
        let Some(format) = rest.get(4..6).map(|it| u16::from_le_bytes(array(it))) else {
            return damaged("it is cut");
        };
        if format != FORMAT {
            return Err(FrameProblem::Version(format));
        }
        let begin = bytes.len() - rest.len();
        if begin != TAG.len() + varint_len(len) || to_usize(len) < FIXED + CHAIN {
            return damaged("the length of its head");
        }
        let Some((head, events)) = rest.split_at_checked(to_usize(len)) else {
            return damaged("it is cut");
        };
        let (head, last) = head.split_at(head.len() - CHAIN);
        let found = FrameChain(array(last));
        if chain(&bytes[..begin + head.len()], events) != found {
            return damaged("its chain is not of its bytes");
        }
        let (fixed, rest) = head.split_at(FIXED);
        let of = LogId::new(uuid::Uuid::from_bytes(array(&fixed[8..24])));
        if of != log {
            return Err(FrameProblem::OtherLog(of));
        }
        if to_usize(u64::from(u32_at(fixed, 76))) != rest.len() {
            return damaged("the length of what it carries");
        }
        let of = (begin + FIXED, begin + FIXED + rest.len(), bytes.len() - events.len());
        let Some(body) = decode_body(bytes, fixed, of) else {
            return damaged("what it carries");
        };
        let content = Content {
            log,
            previous: FrameChain(array(&fixed[48..64])),
            term: u64_at(fixed, 24),
            writer: u64_at(fixed, 32),
            nonce: u64_at(fixed, 40),
            body,
        };
        Ok(Frame { content, chain: found, bytes: bytes.clone() })
    }
}

/// What a frame carries, of its head and of where the rest, its end and the events begin.
fn decode_body(
    bytes: &Bytes,
    fixed: &[u8],
    (rest, end, events): (usize, usize, usize),
) -> Option<Body> {
    let (kind, flags) = (fixed[6], fixed[7]);
    if kind != COMMIT && kind != CHECKPOINT {
        let is_bare = flags == 0
            && fixed[64..76].iter().chain(&fixed[80..FIXED]).all(|byte| *byte == 0)
            && events == bytes.len();
        return match kind {
            EMPTY if is_bare && rest == end => Some(Body::Empty),
            TERM if is_bare => decode_table(&bytes[rest..end]).map(Body::Term),
            _ => None,
        };
    }
    let tag = u32_at(fixed, 96);
    let oldest_tag = match flags {
        0 if tag == 0 => None,
        1 => Some(ChainTag::new(tag)),
        _ => return None,
    };
    let (first, count) = (u64_at(fixed, 64), u32_at(fixed, 72));
    // The seq after it is one, too.
    first.checked_add(u64::from(count))?.checked_add(1)?;
    if first == 0 || u32_at(fixed, 100) != 0 {
        return None;
    }
    if kind == CHECKPOINT {
        let (table, state) = bytes[rest..end].split_at_checked(to_usize(count.into()))?;
        let is_bare = events == bytes.len() && u64_at(fixed, 80) <= first;
        return is_bare.then_some(Body::Checkpoint(Arc::new(Checkpoint {
            next: Seq::new(first),
            link: Link::new(array(&fixed[104..120])),
            oldest: Seq::new(u64_at(fixed, 80)),
            oldest_tag,
            last_at: time_at(fixed, 88)?,
            generations: decode_table(table)?,
            state: bytes.slice_ref(state),
        })));
    }
    Some(Body::Commit(Commit {
        first: Seq::new(first),
        count,
        appended_at: time_at(fixed, 88)?,
        events: bytes.slice(events..),
        delta: bytes.slice(rest..end),
        state: None,
        link: Link::new(array(&fixed[104..120])),
        oldest: Seq::new(u64_at(fixed, 80)),
        oldest_tag,
    }))
}

fn decode_table(mut rest: &[u8]) -> Option<GenerationTable> {
    let mut rows = Vec::new();
    while !rest.is_empty() {
        let (row, behind) = rest.split_at_checked(ROW)?;
        let len = u16::from_le_bytes(array(&row[2..4]));
        let (cause, behind) = behind.split_at_checked(usize::from(len))?;
        let counter = u16::from_le_bytes(array(&row[..2]));
        rows.push(GenerationEntry {
            generation: Generation { counter, nonce: u32_at(row, 4) },
            first: Seq::new(u64_at(row, 8)),
            since: time_at(row, 16)?,
            cause: std::str::from_utf8(cause).ok()?.to_owned(),
        });
        rest = behind;
    }
    GenerationTable::new(rows)
}

/// Of bytes that are as many.
fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(bytes);
    array
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array(&bytes[at..at + 4]))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array(&bytes[at..at + 8]))
}

/// The first second that has such a number is cut by it: a time in it would be written otherwise.
fn time_at(bytes: &[u8], at: usize) -> Option<Timestamp> {
    let nanos = u64_at(bytes, at).cast_signed();
    let time = Timestamp::from_nanos(nanos);
    (time.as_nanos() == nanos).then_some(time)
}

/// A message with the log and the chain that it would need to be a frame of that log, if it has room for them.
#[cfg(fuzzing)]
pub(crate) fn with_its_chain(bytes: &[u8], log: LogId) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let mut rest = bytes.strip_prefix(&TAG).unwrap_or_default();
    let len = to_usize(take_varint(&mut rest).unwrap_or_default());
    let begin = bytes.len() - rest.len();
    if rest.is_empty() || len < FIXED + CHAIN || len > rest.len() {
        return bytes;
    }
    bytes[begin + 8..begin + 24].copy_from_slice(log.uuid().as_bytes());
    let (before, behind) = (begin + len - CHAIN, begin + len);
    let chain = chain(&bytes[..before], &bytes[behind..]);
    bytes[before..behind].copy_from_slice(&chain.0);
    bytes
}

#[cfg(test)]
mod tests;
