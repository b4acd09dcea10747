//! Blocks: runs of whole events, compressed one by one, cut into parts that a database takes well.
//!
//! Must not know files or databases. Invariants: a block holds at least one event; a part with its
//! header is at most [`VALUE_BYTES`]; what a reader gets from a block has passed two CRCs.

use tailmark_record::{ChainTag, Seq, Timestamp};

/// The largest value that goes into the database.
pub(super) const VALUE_BYTES: usize = 64 << 10;
/// Bytes before each part.
pub(super) const HEADER_BYTES: usize = HEADER_LEN as usize;
const HEADER_LEN: u16 = 48;
/// Stored bytes in one part.
pub(super) const PART_BYTES: usize = VALUE_BYTES - HEADER_BYTES;
/// No block is larger, raw or stored: one event (at most 8 MiB and what the server adds) fits.
pub(super) const MAX_BLOCK_BYTES: usize = 32 << 20;

const VERSION: u8 = 1;
/// The first bytes of a header: those that are alike in most blocks of a segment.
const HEADER_PREFIX_BYTES: usize = 6;

/// Whether this build writes blocks in [`Compression::Zstd`]; any build reads them.
pub const HAS_ZSTD: bool = cfg!(feature = "zstd");

/// How blocks are compressed; each keeps the smaller of the two forms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Stored as they are.
    None,
    /// LZ4 block format.
    #[default]
    Lz4,
    /// Zstandard at this level, in builds with the feature `zstd`: [`HAS_ZSTD`].
    Zstd(i32),
}

pub(super) const CODEC_NONE: u8 = 0;
const CODEC_LZ4: u8 = 1;
const CODEC_ZSTD: u8 = 2;

/// One row of the block table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) first: Seq,
    pub(super) count: u32,
    pub(super) raw_len: u32,
    pub(super) stored_len: u32,
    pub(super) crc_stored: u32,
    pub(super) crc_raw: u32,
    pub(super) codec: u8,
    /// 0 = none; no other is known yet.
    pub(super) dictionary: u32,
    pub(super) first_at: Timestamp,
    pub(super) last_at: Timestamp,
    /// Of the chain before its first event.
    pub(super) tag_before: ChainTag,
    /// Some of its seqs have no events any more. A header of a part does not say it.
    pub(super) has_runs: bool,
}

impl Row {
    /// Seq after its last.
    pub(super) fn end(&self) -> Seq {
        self.first.plus(u64::from(self.count))
    }

    /// How many values hold it.
    pub(super) fn parts(&self) -> usize {
        parts_of(self.stored_len as usize)
    }

    /// The header of one of its parts: all of it follows from the row.
    pub(super) fn header(&self, part: usize) -> [u8; HEADER_BYTES] {
        let parts = self.parts();
        let kind = match part {
            _ if parts == 1 => 0,
            0 => 1,
            part if part + 1 == parts => 3,
            _ => 2,
        };
        let mut h = [0; HEADER_BYTES];
        h[0] = VERSION;
        h[1] = kind;
        h[2] = self.codec;
        h[4..6].copy_from_slice(&HEADER_LEN.to_le_bytes());
        h[6..8].copy_from_slice(&part_number(part).to_le_bytes());
        h[8..16].copy_from_slice(&self.first.get().to_le_bytes());
        let words = [
            self.count,
            self.raw_len,
            self.stored_len,
            self.dictionary,
            self.crc_stored,
            self.crc_raw,
        ];
        for (at, word) in words.into_iter().enumerate() {
            h[16 + 4 * at..20 + 4 * at].copy_from_slice(&word.to_le_bytes());
        }
        let crc = crc32c::crc32c(&h[..44]);
        h[44..].copy_from_slice(&crc.to_le_bytes());
        h
    }

    /// What the header of a part begins with.
    pub(super) fn header_prefix(&self, part: usize) -> [u8; HEADER_PREFIX_BYTES] {
        let mut prefix = [0; HEADER_PREFIX_BYTES];
        prefix.copy_from_slice(&self.header(part)[..HEADER_PREFIX_BYTES]);
        prefix
    }
}

/// The first seq of the block and the part that a header, or what looks like one, speaks of.
pub(super) fn place_of(header: &[u8; HEADER_BYTES]) -> (Seq, usize) {
    let mut first = [0; 8];
    first.copy_from_slice(&header[8..16]);
    let part = u16::from_le_bytes([header[6], header[7]]);
    (Seq::new(u64::from_le_bytes(first)), usize::from(part))
}

/// The number of a part as it is stored.
#[expect(clippy::cast_possible_truncation, reason = "a block has at most 32 MiB")]
pub(super) fn part_number(part: usize) -> u16 {
    part as u16
}

/// How many values `stored_len` bytes take.
pub(super) fn parts_of(stored_len: usize) -> usize {
    stored_len.div_ceil(PART_BYTES).max(1)
}

/// Compresses blocks; keeps its buffers.
pub(super) struct Encoder {
    codec: u8,
    buffer: Vec<u8>,
    #[cfg(feature = "zstd")]
    zstd: Option<zstd::bulk::Compressor<'static>>,
    lz4: lz4_flex::block::CompressTable,
}

impl Encoder {
    pub(super) fn new(compression: Compression) -> std::io::Result<Self> {
        let codec = match compression {
            Compression::None => CODEC_NONE,
            Compression::Lz4 => CODEC_LZ4,
            Compression::Zstd(_) if !HAS_ZSTD => {
                let problem = "this program was built without zstd";
                return Err(std::io::Error::new(std::io::ErrorKind::Unsupported, problem));
            }
            Compression::Zstd(_) => CODEC_ZSTD,
        };
        Ok(Encoder {
            codec,
            buffer: Vec::new(),
            #[cfg(feature = "zstd")]
            zstd: match compression {
                Compression::Zstd(level) => Some(zstd::bulk::Compressor::new(level)?),
                _ => None,
            },
            lz4: lz4_flex::block::CompressTable::default(),
        })
    }

    /// The smaller form of `raw`, and the id of its codec.
    pub(super) fn encode<'a>(&'a mut self, raw: &'a [u8]) -> (u8, &'a [u8]) {
        // Room for less than the raw length only: a block that does not shrink stays as it is.
        let bound = match self.codec {
            CODEC_LZ4 => lz4_flex::block::get_maximum_output_size(raw.len()),
            CODEC_ZSTD => raw.len().saturating_sub(1),
            _ => return (CODEC_NONE, raw),
        };
        if self.buffer.len() < bound {
            self.buffer.resize(bound, 0);
        }
        match self.compress(raw, bound) {
            Some(len) if len < raw.len() => (self.codec, &self.buffer[..len]),
            _ => (CODEC_NONE, raw),
        }
    }

    fn compress(&mut self, raw: &[u8], bound: usize) -> Option<usize> {
        let room = &mut self.buffer[..bound];
        #[cfg(feature = "zstd")]
        if let Some(zstd) = &mut self.zstd {
            return zstd.compress_to_buffer(raw, room).ok();
        }
        lz4_flex::block::compress_into_with_table(raw, room, &mut self.lz4).ok()
    }
}

#[cfg(feature = "zstd")]
fn decompress_zstd(stored: &[u8], out: &mut [u8]) -> Option<usize> {
    zstd::bulk::decompress_to_buffer(stored, out).ok()
}

#[cfg(not(feature = "zstd"))]
use decompress_zstd_without_c as decompress_zstd;

/// A log that a build with zstd wrote stays readable without its C library. Compiled in each test, so that
/// it is tried on what the C library writes.
#[cfg(any(test, not(feature = "zstd")))]
fn decompress_zstd_without_c(stored: &[u8], out: &mut [u8]) -> Option<usize> {
    ruzstd::decoding::FrameDecoder::new().decode_all(stored, out).ok()
}

/// Undoes [`Encoder::encode`] into `out`, which has exactly the raw length, and checks the CRC.
pub(super) fn decode(row: &Row, stored: &[u8], out: &mut [u8]) -> Result<(), &'static str> {
    if row.dictionary != 0 {
        return Err("compressed with an unknown dictionary");
    }
    let len = match row.codec {
        CODEC_NONE if stored.len() == out.len() => {
            out.copy_from_slice(stored);
            out.len()
        }
        CODEC_NONE => return Err("stored and raw length differ"),
        CODEC_LZ4 => {
            lz4_flex::block::decompress_into(stored, out).map_err(|_| "lz4 cannot decompress it")?
        }
        CODEC_ZSTD => decompress_zstd(stored, out).ok_or("zstd cannot decompress it")?,
        _ => return Err("compressed with an unknown codec"),
    };
    if len != row.raw_len as usize || len != out.len() {
        return Err("decompressed to another length");
    }
    if crc32c::crc32c(out) != row.crc_raw {
        return Err("the checksum of its events does not fit");
    }
    Ok(())
}

/// Checks what was stored of a block and undoes its compression into `out`, of its raw length.
pub(super) fn unpack(row: &Row, stored: &[u8], out: &mut [u8]) -> Result<(), &'static str> {
    if stored.len() != row.stored_len as usize || crc32c::crc32c(stored) != row.crc_stored {
        return Err("the checksum of what was stored does not fit");
    }
    decode(row, stored, out)
}

/// Checks a block that is not compressed: its bytes are its events.
pub(super) fn check_plain(row: &Row, events: &[u8]) -> Result<(), &'static str> {
    if row.raw_len != row.stored_len || row.raw_len as usize != events.len() || row.dictionary != 0
    {
        return Err("stored and raw length differ");
    }
    let crc = crc32c::crc32c(events);
    if crc != row.crc_stored || crc != row.crc_raw {
        return Err("the checksum of its events does not fit");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What libzstd 1.5 makes of 200 bytes, at level 1.
    const STORED: &[u8] = &[
        40, 181, 47, 253, 0, 72, 141, 0, 0, 80, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 1, 0, 187,
        82, 5, 9,
    ];

    #[test]
    fn every_build_reads_what_builds_with_zstd_wrote() {
        let raw = b"0123456789".repeat(20);
        let row = Row {
            count: 1,
            raw_len: 200,
            stored_len: STORED.len() as u32,
            crc_stored: crc32c::crc32c(STORED),
            crc_raw: crc32c::crc32c(&raw),
            codec: CODEC_ZSTD,
            ..Row::default()
        };
        let mut out = vec![0; raw.len()];
        assert_eq!(unpack(&row, STORED, &mut out), Ok(()));
        assert_eq!(out, raw);
        // A frame that claims more than the block has does not get the room.
        let mut short = vec![0; raw.len() - 1];
        for decompress in [decompress_zstd, decompress_zstd_without_c] {
            out.fill(0);
            assert_eq!(decompress(STORED, &mut out), Some(raw.len()));
            assert_eq!(out, raw);
            assert!(decompress(STORED, &mut short).is_none());
            assert!(decompress(&STORED[..STORED.len() - 4], &mut out).is_none());
        }
    }

    /// Blocks of all kinds, as they are written now.
    #[cfg(feature = "zstd")]
    #[test]
    fn a_build_without_zstd_reads_each_block_that_one_with_it_writes() {
        for level in [1, 3, 19] {
            let mut encoder = Encoder::new(Compression::Zstd(level)).unwrap();
            for size in [100, 4_000, 48 << 10, 200 << 10] {
                let raw: Vec<u8> =
                    (0..size).map(|at: usize| ((at * at) >> 9).to_le_bytes()[0] % 50).collect();
                let (codec, stored) = encoder.encode(&raw);
                assert_eq!(codec, CODEC_ZSTD, "{size}");
                let mut out = vec![0; raw.len()];
                assert_eq!(decompress_zstd_without_c(stored, &mut out), Some(size));
                assert!(out == raw, "{size} at level {level}");
            }
        }
    }

    #[test]
    fn a_build_without_zstd_says_that_it_cannot_write_it() {
        assert_eq!(Encoder::new(Compression::Zstd(1)).is_ok(), HAS_ZSTD);
    }
}
