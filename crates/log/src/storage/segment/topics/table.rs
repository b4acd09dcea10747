//! A table as a whole: while it is made, and where it is small and stays in memory.

use super::page::{Origin, Writer};
use super::{Bloom, Pages, Summary};
use crate::storage::TopicStats;
use crate::storage::segment::problem::{Problem, Result};
use crate::width::to_usize;

/// The four sections of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::storage::segment) struct Table {
    pub(in crate::storage::segment) summary: Summary,
    pub(in crate::storage::segment) pages: Vec<u8>,
    pub(in crate::storage::segment) lists: Vec<u8>,
    pub(in crate::storage::segment) filter: Bloom,
}

/// A table that is all in memory.
impl Pages for Table {
    type Error = Problem;

    fn page(&self, offset: u64, len: usize) -> Result<Vec<u8>> {
        part(&self.pages, offset, len)
    }

    fn list(&self, offset: u64, len: usize) -> Result<Vec<u8>> {
        part(&self.lists, offset, len)
    }
}

/// Bytes of a section in memory.
fn part(bytes: &[u8], offset: u64, len: usize) -> Result<Vec<u8>> {
    let rest = bytes.get(to_usize(offset)..);
    let part = rest.and_then(|rest| rest.get(..len)).map(<[u8]>::to_vec);
    part.ok_or(Problem::Damaged("its table of topics reaches beyond its end"))
}

/// Makes one, topic after topic in the order of their names.
pub(in crate::storage::segment) struct TableBuilder {
    writer: Writer,
    hashes: Vec<u64>,
}

impl TableBuilder {
    pub(in crate::storage::segment) fn new(origin: Origin) -> TableBuilder {
        TableBuilder { writer: Writer::new(origin), hashes: Vec::new() }
    }

    /// The next topic with its [`Bloom::hash`], and its blocks in order.
    pub(in crate::storage::segment) fn topic(
        &mut self,
        name: &[u8],
        hash: u64,
        stats: &TopicStats,
        blocks: &[u32],
    ) {
        self.hashes.push(hash);
        self.writer.topic(name, stats, blocks);
    }

    /// `None` without a topic.
    pub(in crate::storage::segment) fn finish(self) -> Option<Table> {
        if self.hashes.is_empty() {
            return None;
        }
        let filter = Bloom::of(self.hashes.into_iter());
        let (summary, pages, lists) = self.writer.finish();
        Some(Table { summary, pages, lists, filter })
    }
}
