//! Bytes of slots and frames, little-endian. Frozen in `migrations/0002_history/FORMAT.md`.

use crate::chain::Link;
use crate::storage::crc::crc32c;
use crate::width::to_u32;
use tailmark_record::{ChainTag, Generation, LogId, Seq, Timestamp};

/// A slot header takes one page; it is written twice, at 0 and at one page.
pub(super) const PAGE_LEN: usize = 4096;
/// The same, in a file.
pub(super) const PAGE_BYTES: u64 = PAGE_LEN as u64;
/// Where frames begin.
pub const SLOT_HEADER_BYTES: u64 = 2 * PAGE_BYTES;
/// The same, in memory.
pub(super) const SLOT_HEADER_IN_MEMORY: usize = 2 * PAGE_LEN;
/// Bytes of a frame before its body, as this program writes it.
pub const FRAME_HEADER_BYTES: usize = FRAME_HEADER_LEN as usize;
const FRAME_HEADER_LEN: u16 = 144;
/// The same in format 1, where the checksum ends it too, and nothing is said of the chain.
const FRAME_HEADER_BYTES_1: usize = 96;
/// Frames begin at multiples of this.
pub(super) const FRAME_ALIGN: u64 = 8;

const SLOT_MAGIC: &[u8; 8] = b"TMSLOT\0\x01";
const SLOT_HEADER_LEN: usize = 160;
const FRAME_MAGIC: &[u8; 4] = b"TMF2";
const FRAME_MAGIC_1: &[u8; 4] = b"TMF1";
/// Bit 0 of flags: a reader that does not know the kind may pass over it.
pub(super) const FLAG_IGNORABLE: u8 = 1;

/// What the head of a slot file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotHeader {
    /// The format of the slot: that of this program, or an older one that it reads to copy it.
    pub format: u32,
    /// Bytes of the whole file.
    pub slot_bytes: u64,
    /// Whose log.
    pub log: LogId,
    /// Counts the uses of slots over the whole log, from 1.
    pub number: u64,
    /// Random for each use; seeds the checksums of its frames.
    pub nonce: u64,
    /// The first event that may be in it.
    pub first: Seq,
    /// When this use began.
    pub created_at: Timestamp,
    /// The generation its events belong to.
    pub generation: Generation,
    /// The slot before it; number 0 = none.
    pub previous: Previous,
}

/// The slot before another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Previous {
    /// Its number; 0 = none.
    pub number: u64,
    /// Its nonce.
    pub nonce: u64,
    /// Offset after its last valid frame: what lies beyond is not part of the log.
    pub end: u64,
}

impl SlotHeader {
    /// One page.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(PAGE_LEN);
        out.extend_from_slice(SLOT_MAGIC);
        out.extend_from_slice(&self.format.to_le_bytes());
        out.extend_from_slice(&to_u32(SLOT_HEADER_LEN).to_le_bytes());
        out.extend_from_slice(&[0; 8]); // kind, flags, reserved
        out.extend_from_slice(&self.slot_bytes.to_le_bytes());
        out.extend_from_slice(self.log.uuid().as_bytes());
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&self.nonce.to_le_bytes());
        out.extend_from_slice(&self.first.get().to_le_bytes());
        out.extend_from_slice(&self.created_at.as_nanos().to_le_bytes());
        out.extend_from_slice(&0u64.to_le_bytes()); // term
        out.extend_from_slice(&u32::from(self.generation.counter).to_le_bytes());
        out.extend_from_slice(&self.generation.nonce.to_le_bytes());
        out.extend_from_slice(&self.previous.number.to_le_bytes());
        out.extend_from_slice(&self.previous.nonce.to_le_bytes());
        out.extend_from_slice(&self.previous.end.to_le_bytes());
        out.resize(SLOT_HEADER_LEN - 4, 0);
        let crc = crc32c(0, &out);
        out.extend_from_slice(&crc.to_le_bytes());
        out.resize(PAGE_LEN, 0);
        out
    }

    /// How its frames begin.
    pub(super) fn frame_magic(&self) -> &'static [u8; 4] {
        if self.format == 1 { FRAME_MAGIC_1 } else { FRAME_MAGIC }
    }

    /// Bytes of its frames before their bodies.
    pub(super) fn frame_header_bytes(&self) -> usize {
        if self.format == 1 { FRAME_HEADER_BYTES_1 } else { FRAME_HEADER_BYTES }
    }

    /// Reads one copy of a header.
    pub fn decode(page: &[u8]) -> Result<SlotHeader, HeaderProblem> {
        if page.iter().all(|&b| b == 0) {
            return Err(HeaderProblem::Unused);
        }
        let header = page.get(..SLOT_HEADER_LEN).ok_or(HeaderProblem::Damaged)?;
        if &header[..8] != SLOT_MAGIC {
            return Err(HeaderProblem::Damaged);
        }
        let crc = crc32c(0, &header[..SLOT_HEADER_LEN - 4]);
        if crc != u32_at(header, SLOT_HEADER_LEN - 4) {
            return Err(HeaderProblem::Damaged);
        }
        let format = u32_at(header, 8);
        if !(1..=crate::storage::FORMAT_VERSION).contains(&format) {
            return Err(HeaderProblem::Format(format));
        }
        if u32_at(header, 12) as usize != SLOT_HEADER_LEN || header[16..24] != [0; 8] {
            return Err(HeaderProblem::Format(format + 1));
        }
        let mut log = [0; 16];
        log.copy_from_slice(&header[32..48]);
        let counter = u16::try_from(u32_at(header, 88)).map_err(|_| HeaderProblem::Damaged)?;
        // The next one has the number after it.
        let number = u64_at(header, 48);
        if number == u64::MAX {
            return Err(HeaderProblem::Damaged);
        }
        Ok(SlotHeader {
            format,
            slot_bytes: u64_at(header, 24),
            log: LogId::new(uuid::Uuid::from_bytes(log)),
            number,
            nonce: u64_at(header, 56),
            first: Seq::new(u64_at(header, 64)),
            created_at: Timestamp::from_nanos(u64_at(header, 72).cast_signed()),
            generation: Generation { counter, nonce: u32_at(header, 92) },
            previous: Previous {
                number: u64_at(header, 96),
                nonce: u64_at(header, 104),
                end: u64_at(header, 112),
            },
        })
    }
}

/// Why a header page is not a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderProblem {
    /// All zeros: allocated, never used.
    Unused,
    /// Not what was written.
    Damaged,
    /// Of another format version.
    Format(u32),
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// First of a slot: everything a log needs besides its events.
    State,
    /// A commit.
    Commit,
    /// Nothing but a newer `durable_upto`, after a pause.
    Mark,
    /// A clean stop.
    Close,
    /// Of a later program, which allows to pass over it.
    Ignored,
}

impl FrameKind {
    fn to_byte(self) -> u8 {
        match self {
            FrameKind::State => 1,
            FrameKind::Commit => 2,
            FrameKind::Mark => 3,
            FrameKind::Close => 4,
            FrameKind::Ignored => 0,
        }
    }

    fn from_byte(byte: u8) -> Option<FrameKind> {
        Some(match byte {
            1 => FrameKind::State,
            2 => FrameKind::Commit,
            3 => FrameKind::Mark,
            4 => FrameKind::Close,
            _ => return None,
        })
    }
}

/// The head of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Bytes of it, by the slot's format.
    pub header_bytes: usize,
    /// What it is.
    pub kind: FrameKind,
    /// Bytes of the caller's delta, or of the state.
    pub delta_len: u32,
    /// Bytes of events after it.
    pub events_len: u32,
    /// Events in it.
    pub count: u32,
    /// Seq of its first event, or of the next one if it has none.
    pub first: Seq,
    /// The trim mark from here on.
    pub oldest: Seq,
    /// The chain at the event before the trim mark, if that was known.
    pub oldest_tag: Option<ChainTag>,
    /// The chain before its first event.
    pub link_before: Link,
    /// The chain at its last event; as before where it has none.
    pub link: Link,
    /// Time of the commit.
    pub appended_at: Timestamp,
    /// Offset in this slot below which everything was synced before this frame was written.
    pub durable_upto: u64,
    /// Checksum of the frame before it; 0 in a slot's first.
    pub previous_crc: u32,
    /// Where it lies in the slot.
    pub offset: u64,
    /// Checksum of the body.
    pub body_crc: u32,
    /// Checksum of the head; set by `encode` and `decode`.
    pub crc: u32,
}

impl Frame {
    /// Bytes of the frame without its padding.
    pub fn bytes(&self) -> u64 {
        self.header_bytes as u64 + u64::from(self.delta_len) + u64::from(self.events_len)
    }

    /// Where the next frame begins.
    pub fn end(&self) -> u64 {
        (self.offset + self.bytes()).next_multiple_of(FRAME_ALIGN)
    }

    /// Seq after its last event.
    pub fn end_seq(&self) -> Seq {
        self.first.plus(u64::from(self.count))
    }

    /// Encodes the head, with the checksum seeded by the slot's nonce.
    pub fn encode(&mut self, nonce: u64) -> [u8; FRAME_HEADER_BYTES] {
        let mut out = [0u8; FRAME_HEADER_BYTES];
        out[..4].copy_from_slice(FRAME_MAGIC);
        out[4..6].copy_from_slice(&FRAME_HEADER_LEN.to_le_bytes());
        out[6] = self.kind.to_byte();
        out[8..12].copy_from_slice(&self.delta_len.to_le_bytes());
        out[12..16].copy_from_slice(&self.events_len.to_le_bytes());
        out[16..20].copy_from_slice(&self.count.to_le_bytes());
        // 20..24: codec and dictionary of the events; 0 = as they are.
        out[24..32].copy_from_slice(&self.first.get().to_le_bytes());
        out[32..40].copy_from_slice(&self.oldest.get().to_le_bytes());
        out[40..48].copy_from_slice(&self.appended_at.as_nanos().to_le_bytes());
        out[48..56].copy_from_slice(&self.durable_upto.to_le_bytes());
        // 56..64: term, of a replicated log.
        out[64..68].copy_from_slice(&self.previous_crc.to_le_bytes());
        out[68..72].copy_from_slice(&self.body_crc.to_le_bytes());
        // 72..80: checksum and length of the raw bytes where a codec is used; reserved.
        out[80..88].copy_from_slice(&self.offset.to_le_bytes());
        out[88..104].copy_from_slice(&self.link_before.bytes());
        out[104..120].copy_from_slice(&self.link.bytes());
        if let Some(tag) = self.oldest_tag {
            out[120..124].copy_from_slice(&tag.get().to_le_bytes());
            out[124] = 1;
        }
        // 128..136: place in a replicated journal; reserved.
        let crc_at = FRAME_HEADER_BYTES - 4;
        self.crc = crc32c(seed(nonce), &out[..crc_at]);
        out[crc_at..].copy_from_slice(&self.crc.to_le_bytes());
        out
    }

    /// Reads the head of a frame that lies at `offset` of the slot.
    ///
    /// # Errors
    /// When there is none of this slot, or one that this program does not know and must not ignore.
    pub fn decode(bytes: &[u8], slot: &SlotHeader, offset: u64) -> Result<Frame, NotAFrame> {
        let (header_bytes, nonce) = (slot.frame_header_bytes(), slot.nonce);
        let crc_at = header_bytes - 4;
        let head = bytes.get(..header_bytes).ok_or(NotAFrame::Foreign)?;
        if &head[..4] != slot.frame_magic()
            || u32_at(head, crc_at) != crc32c(seed(nonce), &head[..crc_at])
            || u64_at(head, 80) != offset
        {
            return Err(NotAFrame::Foreign);
        }
        let is_ignorable = head[7] & FLAG_IGNORABLE != 0;
        let kind = match FrameKind::from_byte(head[6]) {
            Some(kind) => kind,
            None if is_ignorable => FrameKind::Ignored,
            None => return Err(NotAFrame::Unknown),
        };
        // A codec, or a longer head: the bytes are ours, this program is too old for them.
        if head[20..24] != [0; 4] || usize::from(u16_at(head, 4)) != header_bytes {
            return Err(NotAFrame::Unknown);
        }
        let has_links = header_bytes == FRAME_HEADER_BYTES;
        Ok(Frame {
            header_bytes,
            kind,
            delta_len: u32_at(head, 8),
            events_len: u32_at(head, 12),
            count: u32_at(head, 16),
            first: Seq::new(u64_at(head, 24)),
            oldest: Seq::new(u64_at(head, 32)),
            oldest_tag: (has_links && head[124] != 0).then(|| ChainTag::new(u32_at(head, 120))),
            link_before: if has_links { link_at(head, 88) } else { Link::START },
            link: if has_links { link_at(head, 104) } else { Link::START },
            appended_at: Timestamp::from_nanos(u64_at(head, 40).cast_signed()),
            durable_upto: u64_at(head, 48),
            previous_crc: u32_at(head, 64),
            body_crc: u32_at(head, 68),
            offset,
            crc: u32_at(head, crc_at),
        })
    }
}

/// Why bytes are not a frame that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAFrame {
    /// No frame of this slot.
    Foreign,
    /// One of this slot, of a kind, codec or length that this program does not know.
    Unknown,
}

/// Checksum of a frame's body.
pub fn body_crc(nonce: u64, delta: &[u8], events: &[u8]) -> u32 {
    crc32c(crc32c(seed(nonce), delta), events)
}

fn seed(nonce: u64) -> u32 {
    crc32c(0, &nonce.to_le_bytes())
}

/// The body of a STATE frame: sections of type, flags, length, bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StateFrame {
    /// Identity and generations, as `log.meta` has them.
    pub meta: Vec<u8>,
    /// The caller's newest whole state.
    pub snapshot: Vec<u8>,
    /// Deltas after it that an earlier slot holds, with their ranges `first..end`.
    pub deltas: Vec<(Seq, Seq, Vec<u8>)>,
}

const SECTION_META: u16 = 1;
const SECTION_SNAPSHOT: u16 = 2;
const SECTION_DELTA: u16 = 3;

impl StateFrame {
    /// Encodes all sections.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut section = |kind: u16, parts: &[&[u8]]| {
            let len: usize = parts.iter().map(|part| part.len()).sum();
            out.extend_from_slice(&kind.to_le_bytes());
            out.extend_from_slice(&0u16.to_le_bytes());
            out.extend_from_slice(&to_u32(len).to_le_bytes());
            parts.iter().for_each(|part| out.extend_from_slice(part));
        };
        section(SECTION_META, &[&self.meta]);
        section(SECTION_SNAPSHOT, &[&self.snapshot]);
        for (first, end, delta) in &self.deltas {
            let range = [first.get().to_le_bytes(), end.get().to_le_bytes()];
            section(SECTION_DELTA, &[&range[0], &range[1], delta]);
        }
        out
    }

    /// Reads all sections; `None` when they are not what `encode` writes.
    pub fn decode(mut bytes: &[u8]) -> Option<StateFrame> {
        let mut state = StateFrame::default();
        while !bytes.is_empty() {
            let (kind, flags) = (bytes.get(..2)?, *bytes.get(2)?);
            let len = u32_at(bytes.get(..8)?, 4) as usize;
            let body = bytes.get(8..8usize.checked_add(len)?)?;
            bytes = &bytes[8 + len..];
            match u16_at(kind, 0) {
                SECTION_META => state.meta = body.to_vec(),
                SECTION_SNAPSHOT => state.snapshot = body.to_vec(),
                SECTION_DELTA if len >= 16 => state.deltas.push((
                    Seq::new(u64_at(body, 0)),
                    Seq::new(u64_at(body, 8)),
                    body[16..].to_vec(),
                )),
                _ if flags & FLAG_IGNORABLE != 0 => {}
                _ => return None,
            }
        }
        Some(state)
    }
}

/// Zeros after a write that ends at `end`: up to the end of the page, or one whole page.
pub(super) fn padding_after(end: u64) -> u64 {
    PAGE_BYTES - end % PAGE_BYTES
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn link_at(bytes: &[u8], at: usize) -> Link {
    let mut link = [0; 16];
    link.copy_from_slice(&bytes[at..at + 16]);
    Link::new(link)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_that_leaves_no_number_for_the_next_is_none() {
        let header = |number| SlotHeader {
            format: crate::storage::FORMAT_VERSION,
            slot_bytes: 1 << 20,
            log: LogId::new(uuid::Uuid::nil()),
            number,
            nonce: 1,
            first: Seq::FIRST,
            created_at: Timestamp::EPOCH,
            generation: Generation { counter: 1, nonce: 1 },
            previous: Previous::default(),
        };
        let decoded = |number| SlotHeader::decode(&header(number).encode());
        assert_eq!(decoded(u64::MAX - 1), Ok(header(u64::MAX - 1)));
        assert_eq!(decoded(u64::MAX), Err(HeaderProblem::Damaged));
    }
}
