//! A block with runs of events that are gone, decoded: reads go through it in many small steps, and it is kept for a
//! while so that each of them does not decode it again.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::block::Row;
use crate::chain::{Link, tag_in};
use crate::storage::entries::{Entries, Entry, Run};
use crate::storage::{Chunk, StoreError, part_of};
use crate::width::to_u32;
use tailmark_record::{ChainTag, EventError, Seq};

/// So many are kept, for all readers: 8 MiB at most.
const KEPT: usize = 32;
/// A larger one is not.
const MOST_BYTES: usize = 256 << 10;

/// What a part of a block is.
#[derive(Clone, Copy)]
enum Part {
    /// Events, of which the bytes begin here.
    Events(u32),
    Run(Run),
}

/// A decoded block.
pub(super) struct RunBlock {
    row: Row,
    entries: Bytes,
    /// Runs of events, and of those that are gone, by their first seq.
    parts: Vec<(Seq, Part)>,
}

impl RunBlock {
    /// # Errors
    /// When its entries are not those that its row says.
    pub(super) fn new(row: Row, entries: Bytes) -> Result<RunBlock, EventError> {
        let (mut parts, mut walk, mut seq) = (Vec::new(), Entries::new(&entries), row.first);
        let mut start = 0;
        while let Some(entry) = walk.next() {
            let entry = entry?;
            match entry {
                Entry::Run(run) => parts.push((seq, Part::Run(run))),
                Entry::Event(_) if matches!(parts.last(), Some((_, Part::Events(_)))) => {}
                Entry::Event(_) => parts.push((seq, Part::Events(to_u32(start)))),
            }
            start = entries.len() - walk.remaining();
            seq = seq.plus(entry.seqs());
        }
        if seq != row.end() {
            return Err(EventError::MISSING);
        }
        Ok(RunBlock { row, entries, parts })
    }

    /// The events from `from` on, up to the next run.
    ///
    /// # Errors
    /// [`StoreError::Removed`] where there are none.
    pub(super) fn read(
        &self,
        from: Seq,
        end: Seq,
    ) -> Result<Result<Chunk, StoreError>, EventError> {
        let at = self.parts.partition_point(|(first, _)| *first <= from).saturating_sub(1);
        let Some((first, part)) = self.parts.get(at).copied() else {
            return Err(EventError::MISSING);
        };
        let next = self.parts.get(at + 1).map_or(self.row.end(), |(next, _)| *next);
        let start = match part {
            Part::Run(run) => {
                let link_before = Link::of_tag(self.tag_before(at)?);
                return Ok(Err(StoreError::Removed(run.removed(first, link_before))));
            }
            Part::Events(start) => start as usize,
        };
        let mut walk = Entries::new(self.entries.get(start..).unwrap_or_default());
        let (mut seq, mut begin) = (first, start);
        let end = next.min(end);
        while seq < end {
            if seq == from {
                begin = self.entries.len() - walk.remaining();
            }
            walk.next().ok_or(EventError::MISSING)??;
            seq = seq.next();
        }
        let stop = self.entries.len() - walk.remaining();
        let events = part_of(&self.entries, begin..stop);
        Ok(Ok(Chunk { first: from, end, events, complete: true }))
    }

    /// Of the chain before a part.
    fn tag_before(&self, at: usize) -> Result<ChainTag, EventError> {
        match at.checked_sub(1).and_then(|before| self.parts.get(before)) {
            None => Ok(self.row.tag_before),
            Some((_, Part::Run(run))) => Ok(run.link.tag()),
            Some((_, Part::Events(start))) => {
                let events = self.entries.get(*start as usize..).unwrap_or_default();
                let mut last = None;
                for entry in Entries::new(events) {
                    match entry? {
                        Entry::Event(event) => last = Some(event),
                        Entry::Run(_) => break,
                    }
                }
                tag_in(last.ok_or(EventError::MISSING)?)
            }
        }
    }
}

/// The newest that were decoded.
#[derive(Default)]
pub(super) struct RunBlocks(Mutex<VecDeque<(PathBuf, Arc<RunBlock>)>>);

impl RunBlocks {
    /// The one of a segment that has a seq.
    pub(super) fn get(&self, dir: &Path, seq: Seq) -> Option<Arc<RunBlock>> {
        let mut kept = self.0.lock();
        let is_it = |(of, block): &(PathBuf, Arc<RunBlock>)| {
            (block.row.first..block.row.end()).contains(&seq) && of == dir
        };
        let at = kept.iter().position(is_it)?;
        let found = kept.remove(at)?;
        let block = Arc::clone(&found.1);
        kept.push_front(found);
        Some(block)
    }

    pub(super) fn keep(&self, dir: &Path, block: Arc<RunBlock>) {
        if block.entries.len() > MOST_BYTES {
            return;
        }
        let mut kept = self.0.lock();
        kept.push_front((dir.to_owned(), block));
        kept.truncate(KEPT);
    }

    /// Nothing of a segment is read any more.
    pub(super) fn forget(&self, dir: &Path) {
        self.0.lock().retain(|(of, _)| of != dir);
    }
}
