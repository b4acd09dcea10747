//! Reading events out of blocks, however the blocks are fetched.
//!
//! Must not know where blocks come from. A block that was fetched has passed its checksums.

use bytes::Bytes;

use super::index::{Index, Wanted};
use super::run_block::RunBlock;
use crate::storage::entries::{Entries, Entry};
use crate::storage::sift::{FOUND_BYTES, SIFTED_BYTES, Sifter};
use crate::storage::{Chunk, LookBack, StoreError, part_of};
use tailmark_record::topic::Filter;
use tailmark_record::{Event, Events, Facts, Seq};

/// Neighbouring blocks are joined up to this.
const CHUNK_BYTES: usize = 256 << 10;

/// A way to the blocks of one segment.
pub(super) trait Blocks {
    /// Their table.
    fn index(&self) -> &Index;

    /// The events of one block, into a buffer of its raw length.
    fn block_into(&self, at: usize, out: &mut [u8]) -> Result<(), StoreError>;

    /// The events of one block.
    fn block(&self, at: usize) -> Result<Bytes, StoreError> {
        let mut raw = vec![0; self.index().rows[at].raw_len as usize];
        self.block_into(at, &mut raw)?;
        Ok(raw.into())
    }

    /// As `Store::read`, within `first..end` of the segment; a run of which nothing is before or after it in other
    /// segments.
    fn read(&self, from: Seq, end: Seq, filter: &Filter) -> Result<Chunk, StoreError> {
        let index = self.index();
        let end = end.min(index.segment.end());
        if from < index.segment.first() || from >= end {
            return Err(StoreError::Invalid("the range is not in the segment"));
        }
        let wanted = index.wanted(filter)?;
        let rows = &index.rows;
        let begin = index.block_of(from);
        if wanted.is_sparse || rows[begin].has_runs && !filter.is_all() {
            return self.sift(from, end, filter, &wanted);
        }
        if let Some(block) = self.run_block(from)? {
            let read = block.read(from, end);
            return read.map_err(|error| index.damage(begin, error.what()))?;
        }
        if !wanted.has(begin) {
            let next = (begin..rows.len()).find(|&at| wanted.has(at));
            let end = next.map_or(end, |at| rows[at].first.min(end));
            return Ok(Chunk { first: from, end, events: Bytes::new(), complete: false });
        }
        let mut bytes = rows[begin].raw_len as usize;
        let mut stop = begin + 1;
        while let Some(row) = rows.get(stop) {
            bytes += row.raw_len as usize;
            if row.first >= end || bytes > CHUNK_BYTES || !wanted.has(stop) || row.has_runs {
                break;
            }
            stop += 1;
        }
        let (events, stop) = self.join(begin, stop)?;
        self.slice(&events, begin..stop, from..end)
    }

    /// The block that has `from`, if it has runs.
    fn run_block(&self, from: Seq) -> Result<Option<RunBlock>, StoreError> {
        let at = self.index().block_of(from);
        let row = self.index().rows[at];
        if !row.has_runs {
            return Ok(None);
        }
        let block = RunBlock::new(row, self.block(at)?);
        block.map(Some).map_err(|error| self.index().damage(at, error.what()))
    }

    /// All entries of some blocks, runs included: for who writes them anew. Begins with the block that `from` begins.
    fn entries(&self, from: Seq) -> Result<Chunk, StoreError> {
        let rows = &self.index().rows;
        let begin = self.index().block_of(from);
        if rows[begin].first != from {
            return Err(StoreError::Invalid("no block begins there"));
        }
        let bytes = |at: usize| rows[at].raw_len as usize;
        let (mut sum, mut stop) = (bytes(begin), begin + 1);
        while stop < rows.len() && sum + bytes(stop) <= CHUNK_BYTES {
            sum += bytes(stop);
            stop += 1;
        }
        let (events, stop) = self.join(begin, stop)?;
        Ok(Chunk { first: from, end: rows[stop - 1].end(), events, complete: true })
    }

    /// Picks the events that match out of the blocks that hold any.
    fn sift(
        &self,
        from: Seq,
        end: Seq,
        filter: &Filter,
        wanted: &Wanted,
    ) -> Result<Chunk, StoreError> {
        let rows = &self.index().rows;
        let sifter = Sifter::new(filter);
        let (mut found, mut raw, mut sifted) = (Vec::new(), Vec::new(), 0);
        let mut upto = end;
        for at in (self.index().block_of(from)..rows.len()).filter(|&at| wanted.has(at)) {
            let row = &rows[at];
            if row.first >= end {
                break;
            }
            let is_enough = sifted + row.raw_len as usize > SIFTED_BYTES;
            if found.len() >= FOUND_BYTES || is_enough && sifted > 0 {
                upto = row.first;
                break;
            }
            raw.resize(row.raw_len as usize, 0);
            let before = found.len();
            let picked = self.block_into(at, &mut raw).and_then(|()| {
                let picked = sifter.pick(&raw, row.first, from..end, &mut found);
                match picked {
                    Ok(next) if next == row.end() => Ok(()),
                    Ok(_) => Err(self.index().damage(at, "an event is missing")),
                    Err(what) => Err(self.index().damage(at, what)),
                }
            });
            match picked {
                Ok(()) => sifted += row.raw_len as usize,
                // The error belongs to the read that begins with this block.
                Err(_) if row.first > from => {
                    found.truncate(before);
                    upto = row.first;
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Chunk { first: from, end: upto, events: found.into(), complete: false })
    }

    /// As [`Cache::look_back`](super::Cache::look_back), within the segment.
    fn look_back(
        &self,
        range: std::ops::Range<Seq>,
        filter: &Filter,
        count: u64,
    ) -> Result<LookBack, StoreError> {
        let index = self.index();
        let wanted = index.wanted(filter)?;
        let is_all = range.start <= index.segment.first() && range.end >= index.segment.end();
        // With as many as are wanted, the first of them has to be found.
        if let Some(events) = wanted.events.filter(|&events| is_all && events < count) {
            return Ok(LookBack { from: range.start, events });
        }
        let sifter = Sifter::new(filter);
        let (mut raw, mut found, mut looked) = (Vec::new(), 0, LookBack::default());
        let last = index.block_of(range.end.prev());
        for at in (index.block_of(range.start)..=last).rev() {
            let row = &index.rows[at];
            looked.from = row.first.max(range.start);
            if !wanted.has(at) {
                continue;
            }
            raw.resize(row.raw_len as usize, 0);
            self.block_into(at, &mut raw)?;
            let mut picked = Vec::new();
            match sifter.pick(&raw, row.first, range.clone(), &mut picked) {
                Ok(next) if next == row.end() => {}
                Ok(_) => return Err(index.damage(at, "an event is missing")),
                Err(what) => return Err(index.damage(at, what)),
            }
            let seqs = Events::new(&picked).map(|event| Event::seq_of(event?));
            let seqs: Result<Vec<_>, _> = seqs.collect();
            let seqs = seqs.map_err(|error| index.damage(at, error.what()))?;
            looked.take(&seqs, count);
            found += raw.len();
            if looked.events == count || found >= SIFTED_BYTES {
                break;
            }
        }
        Ok(looked)
    }

    /// The events of the blocks from `begin` to before `stop`, or to before the first damaged one
    /// after `begin`: its error belongs to the next read.
    fn join(&self, begin: usize, stop: usize) -> Result<(Bytes, usize), StoreError> {
        if stop == begin + 1 {
            return Ok((self.block(begin)?, stop));
        }
        let rows = &self.index().rows[begin..stop];
        let mut joined = vec![0; rows.iter().map(|row| row.raw_len as usize).sum()];
        let mut done = 0;
        for (at, row) in (begin..stop).zip(rows) {
            let out = &mut joined[done..done + row.raw_len as usize];
            match self.block_into(at, out) {
                Ok(()) => done += row.raw_len as usize,
                Err(error) if at == begin => return Err(error),
                Err(_) => {
                    joined.truncate(done);
                    return Ok((joined.into(), at));
                }
            }
        }
        Ok((joined.into(), stop))
    }

    /// Cuts the events of whole blocks down to a range.
    fn slice(
        &self,
        events: &Bytes,
        blocks: std::ops::Range<usize>,
        range: std::ops::Range<Seq>,
    ) -> Result<Chunk, StoreError> {
        let rows = &self.index().rows;
        let (first, last_end) = (rows[blocks.start].first, rows[blocks.end - 1].end());
        let (from, end) = (range.start, range.end.min(last_end));
        let malformed = || self.index().damage(blocks.start, "its events are malformed");
        let mut bytes = 0..events.len();
        let mut walk = Events::new(events);
        if from > first {
            walk = skip(walk, first.distance_to(from)).ok_or_else(malformed)?;
            bytes.start = events.len() - walk.remaining();
        }
        if end < last_end {
            walk = skip(walk, from.distance_to(end)).ok_or_else(malformed)?;
            bytes.end = events.len() - walk.remaining();
        }
        Ok(Chunk { first: from, end, events: part_of(events, bytes), complete: true })
    }

    /// Shows the events of a block until `visit` answers false.
    fn visit(
        &self,
        at: usize,
        visit: &mut dyn FnMut(&Facts<'_>) -> bool,
    ) -> Result<(), StoreError> {
        let events = self.block(at)?;
        let index = self.index();
        let mut seq = index.rows[at].first;
        for entry in Entries::new(&events) {
            let event = match entry.map_err(|error| index.damage(at, error.what()))? {
                Entry::Event(event) => event,
                Entry::Run(run) => {
                    seq = seq.plus(u64::from(run.count));
                    continue;
                }
            };
            let facts = Facts::scan(event).map_err(|error| index.damage(at, error.what()))?;
            if facts.seq != seq {
                return Err(index.damage(at, "an event has another seq"));
            }
            seq = seq.next();
            if !visit(&facts) {
                return Ok(());
            }
        }
        if seq != index.rows[at].end() {
            return Err(index.damage(at, "an event is missing"));
        }
        Ok(())
    }
}

/// Moves over `count` events; walking 64 KB of lengths takes microseconds.
fn skip(mut events: Events<'_>, count: u64) -> Option<Events<'_>> {
    for _ in 0..count {
        events.next()?.ok()?;
    }
    Some(events)
}
