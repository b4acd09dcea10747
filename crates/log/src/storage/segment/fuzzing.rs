//! Ways for the fuzzer (`fuzz/`) into what is private here. Checksums are made to fit: they keep
//! accidents out, and would keep the fuzzer out of everything behind them. In no other build.

use super::block::{self, Row};
use super::footer::{self, HEADER_BYTES, Header, SECTION_HEADER_BYTES, Section};
use super::identity::Identity;
use super::problem::{Problem, Result};
use super::topics::{Bloom, Cursor, Origin, Pages, Summary, checksum, find};
use crate::storage::FORMAT_VERSION;
use tailmark_record::{Seq, Timestamp};

/// The header of a footer, and the head of a section.
pub fn heads(bytes: &[u8]) {
    let mut header = bytes.to_vec();
    if let Some(head) = header.get_mut(..HEADER_BYTES) {
        let crc = crc32c::crc32c(&head[..60]);
        head[60..64].copy_from_slice(&crc.to_le_bytes());
    }
    let _ = Header::decode(&header, FORMAT_VERSION);
    let mut section = bytes.to_vec();
    if let Some(head) = section.get_mut(..SECTION_HEADER_BYTES) {
        let crc = crc32c::crc32c(&head[..20]);
        head[20..24].copy_from_slice(&crc.to_le_bytes());
        if let Ok((section, _)) = Section::decode(&section) {
            let _ = section.check(bytes);
        }
    }
}

/// The identity, whose length is the first byte, and the table of blocks after it.
pub fn identity_and_rows(bytes: &[u8]) {
    let Some((&len, bytes)) = bytes.split_first() else { return };
    let (identity, rows) = bytes.split_at(usize::from(len).min(bytes.len()));
    if let Ok(identity) = Identity::decode(identity) {
        assert_eq!(Identity::decode(&identity.encode()).as_ref(), Ok(&identity));
        if let Ok(rows) = footer::decode_rows(rows, &identity) {
            assert_eq!(rows.last().map(Row::end), Some(identity.end));
        }
    }
}

/// The files of the database, the places of blocks, and what tells repeats.
pub fn files_and_numbers(bytes: &[u8]) {
    let _ = footer::decode_files(bytes);
    let _ = footer::decode_places(bytes, bytes.len() / 8);
    assert!(footer::fingerprints(bytes, Seq::FIRST).count() <= bytes.len());
    if let Ok(bloom) = Bloom::decode(bytes.to_vec()) {
        let _ = bloom.may_have(Bloom::hash(bytes));
    }
}

/// A block: the first byte is the codec, the next two the length that it is to have.
pub fn block(bytes: &[u8]) {
    let &[codec, high, low, ref stored @ ..] = bytes else { return };
    let raw_len = u32::from(u16::from_be_bytes([high, low]));
    let mut out = vec![0; raw_len as usize];
    let row = Row {
        codec,
        raw_len,
        stored_len: crate::width::to_u32(stored.len()),
        crc_stored: crc32c::crc32c(stored),
        ..Row::default()
    };
    let _ = block::unpack(&row, stored, &mut out);
    // What it decompresses to has the right checksum now.
    let row = Row { crc_raw: crc32c::crc32c(&out), ..row };
    let _ = block::unpack(&row, stored, &mut out);
    let _ = block::check_plain(&row, stored);
}

/// Pages of topics whose checksums fit.
struct Memory<'a>(&'a [u8]);

impl Pages for Memory<'_> {
    type Error = Problem;

    fn page(&self, offset: u64, len: usize) -> Result<Vec<u8>> {
        let mut body = self.list(offset, len.saturating_sub(4))?;
        let crc = checksum(offset, &body);
        body.extend_from_slice(&crc.to_le_bytes());
        Ok(body)
    }

    fn list(&self, offset: u64, len: usize) -> Result<Vec<u8>> {
        let rest = usize::try_from(offset).ok().and_then(|at| self.0.get(at..));
        let list = rest.and_then(|rest| rest.get(..len));
        list.map(<[u8]>::to_vec).ok_or(Problem::Damaged("it lies beyond the end"))
    }
}

/// The table of topics: the summary, whose length is the first byte, and pages.
pub fn topics(bytes: &[u8]) {
    let Some((&len, bytes)) = bytes.split_first() else { return };
    let (summary, pages) = bytes.split_at(usize::from(len).min(bytes.len()));
    let Ok(summary) = Summary::decode(summary) else { return };
    let (pages, origin) = (Memory(pages), Origin { first: Seq::FIRST, first_at: Timestamp::EPOCH });
    let _ = find(&pages, &summary, origin, "orders.eu")
        .map(|entry| entry.map(|entry| entry.blocks.each(&pages, |_| {})));
    let Ok(mut cursor) = Cursor::seek(&pages, &summary, origin, "") else { return };
    let mut last = None::<String>;
    // What refers to itself ends all the same: names rise.
    while let Some(name) = cursor.name() {
        assert!(last.as_deref() < Some(name), "{last:?} {name}");
        last = Some(name.to_owned());
        if cursor.advance(&pages).is_err() {
            break;
        }
    }
}
