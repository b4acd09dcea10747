//! Erasing: what an engine is told, what it tells, and the shells that it makes.

use std::ops::Range;

use uuid::Uuid;

use super::Chunk;
use super::entries::{Entries, Entry};
use crate::chain::Digests;
use tailmark_record::{Erased, EventError, Facts, Seq, Timestamp, write_shell};

/// Most ranges of one order: 64 MiB of them.
pub const MAX_RANGES: usize = 1 << 22;

/// An order to erase events: what they said goes from everything that a store keeps, and their shells stay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EraseOrder {
    /// Names it.
    pub id: Uuid,
    /// Why. At most [`Erased::MAX_REASON_BYTES`].
    pub reason: String,
    /// When it was ordered.
    pub at: Timestamp,
    /// Which, in order; none is empty, none overlaps another. At most [`MAX_RANGES`].
    pub seqs: Vec<Range<Seq>>,
}

/// What an erasure is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ErasePhase {
    /// What is not sealed is sealed, so that it can be rewritten.
    Sealing,
    /// What holds events that go is written anew.
    Rewriting,
    /// What is left over is overwritten or deleted.
    Wiping,
    /// Readers of each topic are told.
    Telling,
}

/// How far an erasure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EraseProgress {
    /// Which.
    pub id: Uuid,
    /// What it is at.
    pub phase: ErasePhase,
    /// Segments that are through, in this phase.
    pub segments_done: u64,
    /// Of so many, as far as is known.
    pub segments: u64,
    /// Events that are through, in this phase.
    pub events_done: u64,
    /// Of so many.
    pub events: u64,
}

impl EraseOrder {
    /// What is wrong with it, in a log whose next event has this seq.
    ///
    /// # Errors
    /// The first thing.
    pub fn check(&self, next: Seq) -> Result<(), &'static str> {
        if self.reason.len() > Erased::MAX_REASON_BYTES {
            return Err("the reason has more than 200 bytes");
        }
        if self.seqs.is_empty() {
            return Err("no event is named");
        }
        if self.seqs.len() > MAX_RANGES {
            return Err("more than 4,194,304 ranges");
        }
        if self.seqs.iter().any(|range| range.start == Seq::ZERO || range.is_empty()) {
            return Err("a range of seqs is empty, or begins before the first");
        }
        if self.seqs.windows(2).any(|two| two[0].end > two[1].start) {
            return Err("the ranges of seqs are not in order");
        }
        if self.end() > next {
            return Err("a seq is beyond the head");
        }
        if !self.at.is_valid() {
            return Err("its time cannot be stored");
        }
        Ok(())
    }

    /// The seq after the last one.
    pub fn end(&self) -> Seq {
        self.seqs.last().map_or(Seq::ZERO, |range| range.end)
    }

    /// How many seqs it names.
    pub fn events(&self) -> u64 {
        self.events_in(Seq::ZERO..Seq::MAX)
    }

    /// Whether it names a seq.
    pub fn contains(&self, seq: Seq) -> bool {
        self.parts(seq..seq.next()).next().is_some()
    }

    /// What of a range it names, in order.
    pub fn parts(&self, within: Range<Seq>) -> impl Iterator<Item = Range<Seq>> + '_ {
        let at = self.seqs.partition_point(|range| range.end <= within.start);
        let from = self.seqs.get(at..).unwrap_or_default().iter();
        from.take_while(move |range| range.start < within.end)
            .map(move |range| range.start.max(within.start)..range.end.min(within.end))
            .filter(|range| !range.is_empty())
    }

    /// How many seqs of a range it names.
    pub fn events_in(&self, within: Range<Seq>) -> u64 {
        self.parts(within).map(|part| part.start.distance_to(part.end)).sum()
    }

    /// The same events, with shells in place of those that it names. What is one already stays it.
    ///
    /// # Errors
    /// When the entries are no stored events.
    pub(crate) fn shells(&self, chunk: Chunk) -> Result<Chunk, EventError> {
        if self.parts(chunk.first..chunk.end).next().is_none() {
            return Ok(chunk);
        }
        let erasure = self.id.to_string();
        let mut out = Vec::with_capacity(chunk.events.len());
        let mut entries = Entries::new(&chunk.events);
        // What is copied as it is.
        let mut copied = 0;
        let mut start = 0;
        while let Some(entry) = entries.next() {
            let end = chunk.events.len() - entries.remaining();
            let Entry::Event(event) = entry? else {
                start = end;
                continue;
            };
            let facts = Facts::scan(event)?;
            if facts.erased.is_none() && self.contains(facts.seq) {
                out.extend_from_slice(chunk.events.get(copied..start).unwrap_or_default());
                let Digests { rest, payload } = Digests::of_event(event, &facts);
                let erased = Erased {
                    rest_digest: rest,
                    payload_digest: payload,
                    reason: &self.reason,
                    erased_at: self.at,
                    erasure: &erasure,
                };
                write_shell(&mut out, event, &erased)?;
                copied = end;
            }
            start = end;
        }
        if copied == 0 {
            return Ok(chunk);
        }
        out.extend_from_slice(chunk.events.get(copied..).unwrap_or_default());
        Ok(Chunk { events: out.into(), ..chunk })
    }
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "lists of ranges, some of one")]
mod tests {
    use super::*;

    fn order(ranges: &[Range<u64>]) -> EraseOrder {
        let seqs = ranges.iter().map(|it| Seq::new(it.start)..Seq::new(it.end)).collect();
        EraseOrder { id: Uuid::from_u128(7), reason: "why".into(), at: Timestamp::EPOCH, seqs }
    }

    #[test]
    fn what_it_names_is_what_a_list_says() {
        let order = order(&[3..5, 5..6, 9..12]);
        let named: Vec<u64> = (0..20).filter(|seq| order.contains(Seq::new(*seq))).collect();
        assert_eq!(named, [3, 4, 5, 9, 10, 11]);
        for from in 0..20 {
            for end in from..20 {
                let parts = order.parts(Seq::new(from)..Seq::new(end));
                let found: Vec<u64> = parts.flat_map(|it| it.start.get()..it.end.get()).collect();
                let expected: Vec<u64> =
                    named.iter().copied().filter(|seq| (from..end).contains(seq)).collect();
                assert_eq!(found, expected, "{from}..{end}");
                let count = order.events_in(Seq::new(from)..Seq::new(end));
                assert_eq!(count, expected.len() as u64);
            }
        }
        assert_eq!((order.events(), order.end()), (6, Seq::new(12)));
    }

    #[test]
    fn an_order_that_makes_no_sense_is_refused() {
        let next = Seq::new(12);
        assert_eq!(order(&[3..5, 9..12]).check(next), Ok(()));
        for ranges in [&[][..], &[0..2], &[3..3], &[3..5, 4..6], &[5..6, 3..4], &[9..13]] {
            assert!(order(ranges).check(next).is_err(), "{ranges:?}");
        }
        let long = EraseOrder { reason: "x".repeat(201), ..order(&[1..2]) };
        assert!(long.check(next).is_err());
    }
}
