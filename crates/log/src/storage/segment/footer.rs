//! The footer file: what is known of a segment without opening its database.
//!
//! Owns the bytes of that file, frozen in `migrations/0002_history/FORMAT.md`: a header, then
//! sections, each with a length and two CRCs. Must not know the database. Numbers are
//! little-endian, hashes in their canonical order. A section of an unknown kind refuses the file,
//! unless bit 0 of its flags says that it may be ignored.

use std::borrow::Cow;

use super::block::{MAX_BLOCK_BYTES, Row};
use super::digest::XXH3_128;
use super::identity::Identity;
use super::problem::{FORMAT, Problem, Result};
use super::topics::Table;
use crate::chain::Hash;
use crate::storage::RemovedReason;
use crate::storage::entries::Run;
use crate::width::to_u32;
use tailmark_record::{ChainTag, Fingerprint, Seq, Timestamp};

pub(super) const HEADER_BYTES: usize = HEADER_LEN as usize;
const HEADER_LEN: u16 = 64;
pub(super) const SECTION_HEADER_BYTES: usize = 24;
const MAGIC: &[u8; 8] = b"TMSEGFTR";
const KIND_EVENTS: u16 = 1;
/// Of a file that says of a range that its events are gone.
pub(super) const KIND_REMOVED: u16 = 2;
const MAY_BE_IGNORED: u16 = 1;
/// The same, of a row of the block table.
const IGNORABLE_BLOCK: u8 = 1;
/// The block has runs of events that are gone.
const HAS_RUNS: u8 = 2;
const ROW_BYTES: usize = 64;
const FINGERPRINT_BYTES: usize = 20;

/// Kinds of sections. 3 and 5 had the topics in format 1.
pub(super) mod kind {
    pub(in super::super) const IDENTITY: u16 = 1;
    pub(in super::super) const FILES: u16 = 2;
    pub(in super::super) const BLOCKS: u16 = 4;
    pub(in super::super) const FINGERPRINTS: u16 = 6;
    /// May be ignored, and is not there when the blocks were not found in the file.
    pub(in super::super) const PLACES: u16 = 7;
    pub(in super::super) const TOPICS: u16 = 8;
    pub(in super::super) const TOPIC_PAGES: u16 = 9;
    pub(in super::super) const TOPIC_LISTS: u16 = 10;
    pub(in super::super) const TOPIC_FILTER: u16 = 11;
    /// In a file of a range without events, and in no other.
    pub(in super::super) const REMOVED: u16 = 12;
    /// Of events that were taken out; only where some were.
    pub(in super::super) const RUNS: u16 = 13;
}

/// What every footer has.
pub(super) const REQUIRED: &[u16] =
    &[kind::IDENTITY, kind::FILES, kind::BLOCKS, kind::FINGERPRINTS];
/// Where topics are, beside that.
pub(super) const TABLE: &[u16] =
    &[kind::TOPICS, kind::TOPIC_PAGES, kind::TOPIC_LISTS, kind::TOPIC_FILTER];

/// A file of the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FileEntry {
    pub(super) name: String,
    pub(super) len: u64,
    pub(super) hash: Hash,
}

/// All that is written.
pub(super) struct Footer<'a> {
    pub(super) identity: &'a Identity,
    pub(super) files: &'a [FileEntry],
    pub(super) topics: &'a Table,
    pub(super) rows: &'a [Row],
    pub(super) fingerprints: &'a [(Seq, Fingerprint)],
    /// Where each part of each block lies in its file.
    pub(super) places: Option<&'a [u64]>,
    /// What was taken out.
    pub(super) runs: &'a RunTotals,
}

/// What was taken out of a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunTotals {
    /// Runs of neighbours.
    pub runs: u64,
    /// Events in runs of which all have expired.
    pub expired: u64,
    /// Events in runs of which one at least was compacted away.
    pub compacted: u64,
}

impl RunTotals {
    /// Events.
    pub fn events(&self) -> u64 {
        self.expired.saturating_add(self.compacted)
    }

    /// One more run.
    pub(super) fn add(&mut self, run: &Run) {
        self.runs += 1;
        match run.reason {
            RemovedReason::Expired => self.expired += u64::from(run.count),
            _ => self.compacted += u64::from(run.count),
        }
    }

    fn encode(&self) -> Vec<u8> {
        [self.runs, self.expired, self.compacted].iter().flat_map(|it| it.to_le_bytes()).collect()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<RunTotals> {
        let mut r = Reader(bytes);
        let totals = RunTotals { runs: r.u64()?, expired: r.u64()?, compacted: r.u64()? };
        r.end()?;
        summed(totals.events(), totals.runs)?;
        Ok(totals)
    }
}

impl Footer<'_> {
    /// The file's bytes.
    pub(super) fn encode(&self) -> Vec<u8> {
        let Table { summary, pages, lists, filter } = self.topics;
        let mut sections: Vec<(u16, Cow<'_, [u8]>)> = vec![
            (kind::IDENTITY, self.identity.encode().into()),
            (kind::FILES, encode_files(self.files).into()),
            (kind::TOPICS, summary.encode().into()),
            (kind::BLOCKS, encode_rows(self.rows).into()),
            (kind::TOPIC_PAGES, pages.into()),
            (kind::TOPIC_LISTS, lists.into()),
            (kind::TOPIC_FILTER, filter.bytes().into()),
            (
                kind::FINGERPRINTS,
                encode_fingerprints(self.identity.first, self.fingerprints).into(),
            ),
        ];
        sections.extend(self.places.map(|places| (kind::PLACES, encode_places(places).into())));
        if self.runs.runs > 0 {
            sections.push((kind::RUNS, self.runs.encode().into()));
        }
        encode(KIND_EVENTS, &sections)
    }
}

/// A file of this kind, with these sections.
pub(super) fn encode(file_kind: u16, sections: &[(u16, Cow<'_, [u8]>)]) -> Vec<u8> {
    let mut out = vec![0; HEADER_BYTES];
    for (kind, payload) in sections {
        let mut h = [0; SECTION_HEADER_BYTES];
        h[..2].copy_from_slice(&kind.to_le_bytes());
        if *kind == kind::PLACES {
            h[2..4].copy_from_slice(&MAY_BE_IGNORED.to_le_bytes());
        }
        h[8..16].copy_from_slice(&(payload.len() as u64).to_le_bytes());
        h[16..20].copy_from_slice(&crc32c::crc32c(payload).to_le_bytes());
        let crc = crc32c::crc32c(&h[..20]);
        h[20..].copy_from_slice(&crc.to_le_bytes());
        out.extend_from_slice(&h);
        out.extend_from_slice(payload);
    }
    let len = out.len() as u64;
    out[..8].copy_from_slice(MAGIC);
    out[8..10].copy_from_slice(&FORMAT.to_le_bytes());
    out[10..12].copy_from_slice(&HEADER_LEN.to_le_bytes());
    out[12..14].copy_from_slice(&file_kind.to_le_bytes());
    out[16..24].copy_from_slice(&len.to_le_bytes());
    out[24..28].copy_from_slice(&to_u32(sections.len()).to_le_bytes());
    let crc = crc32c::crc32c(&out[..60]);
    out[60..64].copy_from_slice(&crc.to_le_bytes());
    out
}

/// The header: what it says of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) file_len: u64,
    pub(super) header_len: u16,
    pub(super) sections: u32,
}

impl Header {
    /// Of a file with events.
    pub(super) fn decode(bytes: &[u8], wanted: u32) -> Result<Header> {
        Header::decode_kind(bytes, wanted, KIND_EVENTS)
    }

    pub(super) fn decode_kind(bytes: &[u8], wanted: u32, wanted_kind: u16) -> Result<Header> {
        let mut r = Reader(bytes);
        if r.take(8)? != MAGIC {
            return Err("not a segment footer".into());
        }
        let (version, header_len, file_kind, flags) = (r.u16()?, r.u16()?, r.u16()?, r.u16()?);
        // The first 64 bytes are the same in every version.
        let Some(head) = bytes.get(..HEADER_BYTES) else { return Err("truncated header".into()) };
        let crc = u32::from_le_bytes([head[60], head[61], head[62], head[63]]);
        if crc32c::crc32c(&head[..60]) != crc {
            return Err("the checksum of its header does not fit".into());
        }
        if u32::from(version) != wanted {
            return Err(Problem::Version(version));
        }
        if file_kind != wanted_kind || flags & !MAY_BE_IGNORED != 0 {
            return Err(Problem::Version(version));
        }
        if usize::from(header_len) < HEADER_BYTES {
            return Err("its header is too short".into());
        }
        Ok(Header { file_len: r.u64()?, header_len, sections: r.u32()? })
    }
}

/// The header of a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Section {
    pub(super) kind: u16,
    pub(super) len: u64,
    crc: u32,
}

impl Section {
    /// Reads it; `None` = of an unknown kind that may be ignored.
    pub(super) fn decode(bytes: &[u8]) -> Result<(Section, bool)> {
        let mut r = Reader(bytes);
        let (kind, flags, _) = (r.u16()?, r.u16()?, r.u32()?);
        let (len, crc, own_crc) = (r.u64()?, r.u32()?, r.u32()?);
        if crc32c::crc32c(&bytes[..20]) != own_crc {
            return Err("the checksum of a section's header does not fit".into());
        }
        let known = (kind::IDENTITY..=kind::RUNS).contains(&kind);
        if !known && flags & MAY_BE_IGNORED == 0 || flags & !MAY_BE_IGNORED != 0 {
            return Err(Problem::Version(FORMAT));
        }
        Ok((Section { kind, len, crc }, known))
    }

    /// Checks its payload.
    pub(super) fn check(&self, payload: &[u8]) -> Result<()> {
        if payload.len() as u64 != self.len || crc32c::crc32c(payload) != self.crc {
            return Err("the checksum of a section does not fit".into());
        }
        Ok(())
    }
}

fn encode_places(places: &[u64]) -> Vec<u8> {
    places.iter().flat_map(|place| place.to_le_bytes()).collect()
}

/// One for each of so many parts; `None` = the bytes are something else.
pub(super) fn decode_places(bytes: &[u8], parts: usize) -> Option<Vec<u64>> {
    let (places, rest) = bytes.as_chunks::<8>();
    (places.len() == parts && rest.is_empty())
        .then(|| places.iter().map(|place| u64::from_le_bytes(*place)).collect())
}

/// No segment has so many bytes or events: sums of such numbers, over all segments too, must not wrap.
const TOO_MUCH: u64 = 1 << 50;

fn summed(sum: u64, more: u64) -> Result<u64> {
    let sum = sum.saturating_add(more);
    if sum < TOO_MUCH { Ok(sum) } else { Err("it has more than any segment".into()) }
}

fn encode_files(files: &[FileEntry]) -> Vec<u8> {
    let mut out = to_u32(files.len()).to_le_bytes().to_vec();
    for file in files {
        out.extend_from_slice(&name_len(file).to_le_bytes());
        out.extend_from_slice(file.name.as_bytes());
        out.extend_from_slice(&file.len.to_le_bytes());
        out.push(XXH3_128);
        out.extend_from_slice(&file.hash);
    }
    out
}

pub(super) fn decode_files(bytes: &[u8]) -> Result<Vec<FileEntry>> {
    let mut r = Reader(bytes);
    let (mut files, mut sum) = (Vec::new(), 0);
    for _ in 0..r.u32()? {
        let name_len = r.u16()?;
        let name = r.text(usize::from(name_len))?.to_owned();
        // A name leads nowhere but into the directory of the database.
        if name.is_empty() || name.contains('/') || name.contains('\\') || name.starts_with('.') {
            return Err("a file has an illegal name".into());
        }
        let len = r.u64()?;
        sum = summed(sum, len)?;
        if r.u8()? != XXH3_128 {
            return Err(Problem::Version(FORMAT));
        }
        files.push(FileEntry { name, len, hash: r.hash()? });
    }
    r.end()?;
    Ok(files)
}

#[expect(clippy::cast_possible_truncation, reason = "no file system takes so long a name")]
fn name_len(file: &FileEntry) -> u16 {
    file.name.len() as u16
}

fn encode_rows(rows: &[Row]) -> Vec<u8> {
    let mut out = Vec::with_capacity(rows.len() * ROW_BYTES);
    for row in rows {
        out.extend_from_slice(&row.first.get().to_le_bytes());
        for word in
            [row.count, row.raw_len, row.stored_len, row.crc_stored, row.crc_raw, row.dictionary]
        {
            out.extend_from_slice(&word.to_le_bytes());
        }
        put_time(&mut out, row.first_at);
        put_time(&mut out, row.last_at);
        out.push(row.codec);
        // Flags, then room for what a later version has to say of a block.
        out.extend_from_slice(&[if row.has_runs { HAS_RUNS } else { 0 }, 0, 0]);
        out.extend_from_slice(&row.tag_before.get().to_le_bytes());
    }
    out
}

/// Reads the block table and checks that it covers `first..end` without a hole.
pub(super) fn decode_rows(bytes: &[u8], identity: &Identity) -> Result<Vec<Row>> {
    let mut r = Reader(bytes);
    let mut rows = Vec::with_capacity(bytes.len() / ROW_BYTES);
    let mut next = identity.first;
    while !r.0.is_empty() {
        let mut row = Row { first: Seq::new(r.u64()?), ..Row::default() };
        row.count = r.u32()?;
        row.raw_len = r.u32()?;
        row.stored_len = r.u32()?;
        row.crc_stored = r.u32()?;
        row.crc_raw = r.u32()?;
        row.dictionary = r.u32()?;
        row.first_at = r.time()?;
        row.last_at = r.time()?;
        row.codec = r.u8()?;
        let flags = r.u8()?;
        if flags & !(IGNORABLE_BLOCK | HAS_RUNS) != 0 {
            return Err(Problem::Version(FORMAT));
        }
        row.has_runs = flags & HAS_RUNS != 0;
        r.take(2)?;
        row.tag_before = ChainTag::new(r.u32()?);
        let fits = |len: u32| len > 0 && len as usize <= MAX_BLOCK_BYTES;
        if row.first != next || row.count == 0 || !fits(row.raw_len) || !fits(row.stored_len) {
            return Err("its block table makes no sense".into());
        }
        next = row.end();
        rows.push(row);
    }
    if next != identity.end || rows.len() != identity.blocks as usize {
        return Err("its block table does not cover its events".into());
    }
    Ok(rows)
}

fn encode_fingerprints(first: Seq, fingerprints: &[(Seq, Fingerprint)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(fingerprints.len() * FINGERPRINT_BYTES);
    for (seq, fingerprint) in fingerprints {
        out.extend_from_slice(&to_u32(first.distance_to(*seq)).to_le_bytes());
        out.extend_from_slice(&fingerprint.0);
    }
    out
}

/// Walks the fingerprints of an intact section, newest first.
pub(super) fn fingerprints(
    bytes: &[u8],
    first: Seq,
) -> impl Iterator<Item = (Seq, Fingerprint)> + '_ {
    bytes.rchunks_exact(FINGERPRINT_BYTES).map(move |row| {
        let (delta, hash) = row.split_at(4);
        let delta = u32::from_le_bytes([delta[0], delta[1], delta[2], delta[3]]);
        let mut fingerprint = [0; 16];
        fingerprint.copy_from_slice(hash);
        (first.plus(u64::from(delta)), Fingerprint(fingerprint))
    })
}

fn put_time(out: &mut Vec<u8>, t: Timestamp) {
    out.extend_from_slice(&t.seconds.to_le_bytes());
    out.extend_from_slice(&t.nanos.to_le_bytes());
}

/// Takes numbers off the front of a slice.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Problem::Damaged("truncated"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub(super) fn u8(&mut self) -> Result<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Result<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn hash(&mut self) -> Result<Hash> {
        self.array()
    }

    fn time(&mut self) -> Result<Timestamp> {
        let seconds = self.array().map(i64::from_le_bytes)?;
        Ok(Timestamp { seconds, nanos: self.array().map(i32::from_le_bytes)? })
    }

    fn text(&mut self, len: usize) -> Result<&'a str> {
        std::str::from_utf8(self.take(len)?).map_err(|_| "a name is not text".into())
    }

    pub(super) fn end(&self) -> Result<()> {
        if self.0.is_empty() { Ok(()) } else { Err("trailing bytes".into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checksums hold, and yet it makes no sense: written by another program, or for this purpose.
    #[test]
    fn counts_and_lengths_that_no_segment_has_are_damage_and_do_not_wrap() {
        let file = |name: &str, len| FileEntry { name: name.into(), len, hash: Hash::default() };
        let files =
            |lens: [u64; 2]| decode_files(&encode_files(&[file("a", lens[0]), file("b", lens[1])]));
        assert_eq!(files([1 << 40, 7]).unwrap().len(), 2);
        assert!(matches!(files([u64::MAX, 1]), Err(Problem::Damaged(_))));
    }
}
