//! Pages of a table: entries whose names share their beginnings, behind each other, and a checksum.

use super::Summary;
use crate::storage::TopicStats;
use crate::storage::segment::identity::Identity;
use crate::storage::segment::problem::{Problem, Result};
use crate::width::{to_u32, to_usize};
use tailmark_record::{Seq, Timestamp, put_varint, take_varint};

/// A page ends with the entry that reaches this.
const PAGE_BYTES: usize = 2 << 10;
const CRC_BYTES: usize = 4;
/// A list of blocks of more bytes lies outside of its entry.
const INLINE_BYTES: usize = 24;

/// Where a page is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::storage::segment) struct Link {
    pub(super) offset: u64,
    pub(super) len: u32,
}

/// Which blocks hold events of a topic: a list, or where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::storage::segment) enum Blocks {
    Here(Vec<u8>),
    There { link: Link, crc: u32 },
}

/// What a table has of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::storage::segment) struct Entry {
    pub(in crate::storage::segment) stats: TopicStats,
    pub(in crate::storage::segment) blocks: Blocks,
}

/// What numbers in a table count from: the segment's first event.
#[derive(Clone, Copy, Debug)]
pub(in crate::storage::segment) struct Origin {
    pub(in crate::storage::segment) first: Seq,
    pub(in crate::storage::segment) first_at: Timestamp,
}

impl Origin {
    pub(in crate::storage::segment) fn of(identity: &Identity) -> Origin {
        Origin { first: identity.first, first_at: identity.first_at }
    }
}

pub(super) const SENSELESS: Problem = Problem::Damaged("its table of topics makes no sense");

/// Writes a table, topic after topic in the order of their names.
pub(super) struct Writer {
    origin: Origin,
    pages: Vec<u8>,
    lists: Vec<u8>,
    leaf: Page,
    /// First names of the pages that are done, with where they are; of the leaves, then above.
    above: Vec<(Vec<u8>, Link)>,
    topics: u64,
}

#[derive(Default)]
struct Page {
    body: Vec<u8>,
    first: Vec<u8>,
    last: Vec<u8>,
}

impl Page {
    fn name(&mut self, name: &[u8]) {
        if self.body.is_empty() {
            self.first = name.to_vec();
            self.last.clear();
        }
        let shared = self.last.iter().zip(name).take_while(|(a, b)| a == b).count();
        put_varint(&mut self.body, shared as u64);
        put_varint(&mut self.body, (name.len() - shared) as u64);
        self.body.extend_from_slice(&name[shared..]);
        self.last.truncate(shared);
        self.last.extend_from_slice(&name[shared..]);
    }

    /// Puts it behind the others.
    fn end(&mut self, pages: &mut Vec<u8>) -> (Vec<u8>, Link) {
        let offset = pages.len() as u64;
        pages.extend_from_slice(&self.body);
        pages.extend_from_slice(&checksum(offset, &self.body).to_le_bytes());
        let len = to_u32(self.body.len() + CRC_BYTES);
        self.body.clear();
        (std::mem::take(&mut self.first), Link { offset, len })
    }
}

impl Writer {
    pub(super) fn new(origin: Origin) -> Writer {
        Writer {
            origin,
            pages: Vec::new(),
            lists: Vec::new(),
            leaf: Page::default(),
            above: Vec::new(),
            topics: 0,
        }
    }

    /// The next topic, with its blocks in order.
    pub(super) fn topic(&mut self, name: &[u8], stats: &TopicStats, blocks: &[u32]) {
        self.topics += 1;
        self.leaf.name(name);
        let out = &mut self.leaf.body;
        put_varint(out, stats.events);
        put_varint(out, self.origin.first.distance_to(stats.last_seq));
        let since = stats.last_at.seconds.wrapping_sub(self.origin.first_at.seconds);
        put_varint(out, since.cast_unsigned());
        put_varint(out, u64::from(stats.last_at.nanos.cast_unsigned()));
        let (start, mut next) = (self.lists.len(), 0);
        for &block in blocks {
            put_varint(&mut self.lists, u64::from(block - next));
            next = block + 1;
        }
        let list = &self.lists[start..];
        let len = list.len() as u64;
        if list.len() <= INLINE_BYTES {
            put_varint(out, len << 1);
            out.extend_from_slice(list);
            self.lists.truncate(start);
        } else {
            put_varint(out, len << 1 | 1);
            put_varint(out, start as u64);
            out.extend_from_slice(&checksum(start as u64, list).to_le_bytes());
        }
        if self.leaf.body.len() >= PAGE_BYTES {
            self.above.push(self.leaf.end(&mut self.pages));
        }
    }

    /// Sections of pages and lists, and the root. One topic at least was written.
    pub(super) fn finish(mut self) -> (Summary, Vec<u8>, Vec<u8>) {
        let last = to_text(&self.leaf.last);
        if !self.leaf.body.is_empty() {
            self.above.push(self.leaf.end(&mut self.pages));
        }
        let first = to_text(self.above.first().map_or(&[], |(name, _)| name));
        let mut levels = 0;
        while self.above.len() > 1 {
            levels += 1;
            let mut page = Page::default();
            for (name, link) in std::mem::take(&mut self.above) {
                page.name(&name);
                put_varint(&mut page.body, link.offset);
                put_varint(&mut page.body, u64::from(link.len));
                if page.body.len() >= PAGE_BYTES {
                    self.above.push(page.end(&mut self.pages));
                }
            }
            if !page.body.is_empty() {
                self.above.push(page.end(&mut self.pages));
            }
        }
        let root = self.above.first().map_or(Link::default(), |(_, link)| *link);
        let summary = Summary { topics: self.topics, levels, root, first, last };
        (summary, self.pages, self.lists)
    }
}

fn to_text(name: &[u8]) -> Box<str> {
    // Names are text before they come here.
    String::from_utf8_lossy(name).into()
}

pub(in crate::storage::segment) fn checksum(offset: u64, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&offset.to_le_bytes()), bytes)
}

/// A page that passed its checksum, entry after entry. Moving on copies nothing but the end of a
/// name: searches pass over many entries.
#[derive(Debug, Default)]
pub(super) struct Walk {
    body: Vec<u8>,
    at: usize,
    /// The name that was read last.
    pub(super) name: Vec<u8>,
    /// What a leaf has of it.
    pub(super) stats: TopicStats,
    list: List,
    /// A link that is to come again.
    ahead: Option<Link>,
}

/// Where the list of an entry is: in the page, or outside.
#[derive(Clone, Copy, Debug)]
enum List {
    Here { start: usize, end: usize },
    There { link: Link, crc: u32 },
}

impl Default for List {
    fn default() -> Self {
        List::Here { start: 0, end: 0 }
    }
}

impl Walk {
    /// Of the bytes at a link.
    pub(super) fn of(mut bytes: Vec<u8>, link: Link) -> Result<Walk> {
        let found = bytes.split_last_chunk::<CRC_BYTES>();
        let is_right = found
            .is_some_and(|(body, crc)| u32::from_le_bytes(*crc) == checksum(link.offset, body));
        if !is_right {
            return Err(Problem::Damaged("the checksum of a page of topics does not fit"));
        }
        bytes.truncate(bytes.len() - CRC_BYTES);
        Ok(Walk { body: bytes, ..Walk::default() })
    }

    /// Reads the next name and answers what follows it; `None` at the end.
    fn next_name(&mut self) -> Result<Option<&[u8]>> {
        let mut rest = self.body.get(self.at..).unwrap_or_default();
        if rest.is_empty() {
            return Ok(None);
        }
        let shared = to_usize(number(&mut rest)?);
        let len = to_usize(number(&mut rest)?);
        let (suffix, rest) = rest.split_at_checked(len).ok_or(SENSELESS)?;
        let before = self.name.get(shared..).ok_or(SENSELESS)?;
        if self.at > 0 && before >= suffix {
            return Err(Problem::Damaged("its topics are out of order"));
        }
        self.name.truncate(shared);
        self.name.extend_from_slice(suffix);
        Ok(Some(rest))
    }

    /// Moves to the next entry of a leaf; false at the end.
    pub(super) fn next_entry(&mut self, origin: &Origin) -> Result<bool> {
        let total = self.body.len();
        let Some(mut rest) = self.next_name()? else { return Ok(false) };
        let events = number(&mut rest)?;
        let last_seq = origin.first.plus(number(&mut rest)?);
        let seconds = origin.first_at.seconds.wrapping_add(number(&mut rest)?.cast_signed());
        let nanos = u32::try_from(number(&mut rest)?).map_err(|_| SENSELESS)?.cast_signed();
        let tag = number(&mut rest)?;
        let len = tag >> 1;
        let list = if tag & 1 == 0 {
            let start = total - rest.len();
            rest = rest.get(to_usize(len)..).ok_or(SENSELESS)?;
            List::Here { start, end: total - rest.len() }
        } else {
            let offset = number(&mut rest)?;
            let (crc, behind) = rest.split_first_chunk().ok_or(SENSELESS)?;
            rest = behind;
            let len = u32::try_from(len).map_err(|_| SENSELESS)?;
            List::There { link: Link { offset, len }, crc: u32::from_le_bytes(*crc) }
        };
        self.at = total - rest.len();
        self.stats = TopicStats { events, last_seq, last_at: Timestamp { seconds, nanos } };
        self.list = list;
        Ok(true)
    }

    /// The blocks of the entry that it is at.
    pub(super) fn blocks(&self) -> Blocks {
        match self.list {
            List::Here { start, end } => {
                Blocks::Here(self.body.get(start..end).unwrap_or_default().to_vec())
            }
            List::There { link, crc } => Blocks::There { link, crc },
        }
    }

    /// The next link of a page above the leaves.
    pub(super) fn next_link(&mut self) -> Result<Option<Link>> {
        if let Some(link) = self.ahead.take() {
            return Ok(Some(link));
        }
        let total = self.body.len();
        let Some(mut rest) = self.next_name()? else { return Ok(None) };
        let offset = number(&mut rest)?;
        let len = u32::try_from(number(&mut rest)?).map_err(|_| SENSELESS)?;
        self.at = total - rest.len();
        Ok(Some(Link { offset, len }))
    }

    /// The link that was read last comes again.
    pub(super) fn put_back(&mut self, link: Link) {
        self.ahead = Some(link);
    }
}

fn number(rest: &mut &[u8]) -> Result<u64> {
    take_varint(rest).ok_or(SENSELESS)
}

/// Checks a list that was read.
pub(super) fn check_list(link: Link, crc: u32, list: &[u8]) -> Result<()> {
    if checksum(link.offset, list) != crc {
        return Err(Problem::Damaged("the checksum of a list of blocks does not fit"));
    }
    Ok(())
}

/// Visits the blocks of a list.
pub(super) fn each_block(mut list: &[u8], mut visit: impl FnMut(u32)) -> Result<()> {
    let mut next = 0u32;
    while !list.is_empty() {
        let block = number(&mut list)?.checked_add(u64::from(next));
        let block = block.and_then(|block| u32::try_from(block).ok()).ok_or(SENSELESS)?;
        visit(block);
        next = block.saturating_add(1);
    }
    Ok(())
}
