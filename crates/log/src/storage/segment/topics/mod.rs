//! The topics of a segment: a sorted table that is searched where it lies, and a small filter that
//! tells most names that are not in it.
//!
//! ```text
//! summary   how many, the first and the last name, where the root is      stays in memory
//! pages     a tree: leaves with names and what is known of each, and      read one at a time
//!           pages of names above them; each with its checksum
//! lists     the blocks of topics that are in many                         read one at a time
//! filter    a few bits a name                                             stays, within a bound
//! ```
//!
//! Owns the bytes of those four sections of a footer. Must not know files. Invariants: names rise
//! from entry to entry; what is read has passed its checksum, which covers where it lies; the same
//! events make the same bytes. `migrations/0002_history/FORMAT.md`, decision 0017.

mod bloom;
mod collect;
mod cursor;
mod page;
mod table;

pub(super) use bloom::Bloom;
pub(super) use collect::Collector;
pub(super) use cursor::{Cursor, find};
#[cfg(fuzzing)]
pub(super) use page::checksum;
pub(super) use page::{Blocks, Entry, Link, Origin};
pub(super) use table::{Table, TableBuilder};

use super::problem::{Problem, Result};
use crate::width::to_u32;

/// What reads pages and lists: where they lie is known to it alone.
pub(super) trait Pages {
    /// Why a read failed.
    type Error: From<Problem>;

    /// Bytes of the section of pages.
    fn page(&self, offset: u64, len: usize) -> Result<Vec<u8>, Self::Error>;

    /// Bytes of the section of lists.
    fn list(&self, offset: u64, len: usize) -> Result<Vec<u8>, Self::Error>;
}

/// What stays in memory of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Summary {
    /// How many topics there are; one at least.
    pub(super) topics: u64,
    /// Pages above the leaves, on the way down.
    pub(super) levels: u8,
    pub(super) root: Link,
    pub(super) first: Box<str>,
    pub(super) last: Box<str>,
}

impl Summary {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = self.topics.to_le_bytes().to_vec();
        out.extend_from_slice(&self.root.offset.to_le_bytes());
        out.extend_from_slice(&self.root.len.to_le_bytes());
        out.push(self.levels);
        for name in [&self.first, &self.last] {
            out.extend_from_slice(&to_u32(name.len()).to_le_bytes());
            out.extend_from_slice(name.as_bytes());
        }
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Summary> {
        let read = || {
            let (topics, rest) = bytes.split_first_chunk()?;
            let (offset, rest) = rest.split_first_chunk()?;
            let (len, rest) = rest.split_first_chunk()?;
            let (&levels, rest) = rest.split_first()?;
            let (first, rest) = name(rest)?;
            let (last, rest) = name(rest)?;
            let root = Link { offset: u64::from_le_bytes(*offset), len: u32::from_le_bytes(*len) };
            let topics = u64::from_le_bytes(*topics);
            let is_sound = rest.is_empty() && topics > 0 && first <= last && levels < 32;
            is_sound.then(|| Summary {
                topics,
                levels,
                root,
                first: first.into(),
                last: last.into(),
            })
        };
        read().ok_or(Problem::Damaged("its table of topics makes no sense"))
    }

    /// Whether a name that begins so may be in the table.
    pub(super) fn may_have(&self, beginning: &str) -> bool {
        *beginning <= *self.last && (*beginning >= *self.first || self.first.starts_with(beginning))
    }
}

fn name(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (len, rest) = bytes.split_first_chunk()?;
    let (name, rest) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
    Some((std::str::from_utf8(name).ok()?, rest))
}

#[cfg(test)]
mod tests;
