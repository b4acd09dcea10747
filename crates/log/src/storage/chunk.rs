//! Runs of events, as an engine answers a read.

use std::ops::Range;

use bytes::Bytes;

use tailmark_record::topic::Filter;
use tailmark_record::{Event, EventError, Events, Seq};

/// A run of events. `end > first`.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// First seq covered.
    pub first: Seq,
    /// Seq after the last covered.
    pub end: Seq,
    /// `EventBatch.events` entries of the events in `first..end`, in order: all of them, or, in a
    /// filtered read, at least those that match. Empty = known that none matches.
    pub events: Bytes,
    /// Every event of `first..end` is there.
    pub complete: bool,
}

impl Chunk {
    /// The part of it from `from` on and below `end`, which may lie beyond it. A chunk that left
    /// events out can't be cut by counting: it must be `complete`, empty, or not need cutting.
    ///
    /// # Errors
    /// When the entries are not events, or not as many as the range says.
    pub fn cut(self, from: Seq, end: Seq) -> Result<Chunk, EventError> {
        let (first, last) = (from.max(self.first), end.min(self.end));
        if (first, last) == (self.first, self.end) {
            return Ok(self);
        }
        if self.events.is_empty() {
            return Ok(Chunk { first, end: last, ..self });
        }
        let mut entries = Events::new(&self.events);
        let total = entries.remaining();
        let mut skip = |count: u64| -> Result<usize, EventError> {
            for _ in 0..count {
                entries.next().transpose()?.ok_or(EventError::MISSING)?;
            }
            Ok(total - entries.remaining())
        };
        let start = skip(self.first.distance_to(first))?;
        let stop = if last == self.end { total } else { skip(first.distance_to(last))? };
        Ok(Chunk { first, end: last, events: part_of(&self.events, start..stop), ..self })
    }

    /// The events of its beginning that match, at most so many bytes of them, but one at least: of
    /// their own, so that the rest need not stay in memory. It ends before the first that was left
    /// out.
    ///
    /// # Errors
    /// When the entries are not events.
    pub fn filtered(self, filter: &Filter, max_bytes: usize) -> Result<Chunk, EventError> {
        let (mut entries, mut kept, mut start) = (Events::new(&self.events), Vec::new(), 0);
        let mut end = self.end;
        while let Some(event) = entries.next() {
            let event = event?;
            let stop = self.events.len() - entries.remaining();
            if filter.is_all() || filter.matches(Event::topic_of(event)?) {
                if !kept.is_empty() && kept.len() + stop - start > max_bytes {
                    end = Event::seq_of(event)?;
                    break;
                }
                kept.extend_from_slice(&self.events[start..stop]);
            }
            start = stop;
        }
        Ok(Chunk { end, events: kept.into(), complete: false, ..self })
    }
}

/// A part of some events, of its own where it is less than half: who keeps it would keep all.
pub fn part_of(events: &Bytes, range: Range<usize>) -> Bytes {
    match range.len() < events.len() / 2 {
        true => Bytes::copy_from_slice(&events[range]),
        false => events.slice(range),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tailmark_record::topic::Pattern;
    use tailmark_record::{
        ChainTag, CursorMint, Generation, Limits, LogId, Stamp, Timestamp, write_entry,
    };

    const TOPICS: [&str; 3] = ["a", "b", "a.c"];

    fn chunk(first: u64, count: u64) -> Chunk {
        let log = LogId::new(uuid::Uuid::from_u128(1));
        let mint = CursorMint::new(log, Generation { counter: 1, nonce: 1 });
        let mut events = Vec::new();
        for seq in first..first + count {
            let mut client = Vec::new();
            let topic = TOPICS[seq as usize % TOPICS.len()];
            Event { id: "x", topic, ..Event::default() }.write_client_part(&mut client);
            let appended_at = Timestamp::EPOCH.into();
            let seq = Seq::new(seq);
            let stamp = Stamp {
                seq,
                mint: &mint,
                tag: ChainTag::START,
                appended_at,
                fill_at: true,
                fill_id: None,
            };
            write_entry(&mut events, &client, &stamp);
        }
        let (first, end) = (Seq::new(first), Seq::new(first + count));
        Chunk { first, end, events: events.into(), complete: true }
    }

    fn seqs(chunk: &Chunk) -> Vec<u64> {
        let events = Events::new(&chunk.events).map(Result::unwrap);
        events.map(|event| Event::seq_of(event).unwrap().get()).collect()
    }

    #[test]
    fn a_chunk_taken_a_little_at_a_time_has_every_event_that_matches() {
        let a = Filter::new(vec![Pattern::parse("a", &Limits::default()).unwrap()]);
        let none = Filter::new(vec![Pattern::parse("z", &Limits::default()).unwrap()]);
        let whole = chunk(10, 50);
        for filter in [&Filter::ALL, &a, &none] {
            let expected: Vec<_> =
                (10..60).filter(|seq| filter.matches(TOPICS[*seq as usize % 3])).collect();
            for max_bytes in [0, 1, 100, 300, 1 << 20] {
                let (mut next, mut found) = (Seq::new(10), Vec::new());
                while next < whole.end {
                    let rest = whole.clone().cut(next, whole.end).unwrap();
                    let part = rest.filtered(filter, max_bytes).unwrap();
                    let some = seqs(&part);
                    assert!(part.first == next && part.end > next && !part.complete);
                    assert!(part.events.len() <= max_bytes || some.len() == 1, "{some:?}");
                    found.extend(some);
                    next = part.end;
                }
                assert_eq!((next, &found), (whole.end, &expected), "{max_bytes}");
            }
        }
        let cut = Chunk { events: whole.events.slice(..whole.events.len() - 1), ..whole };
        assert!(cut.filtered(&Filter::ALL, 1 << 20).is_err());
    }

    #[test]
    fn a_small_part_does_not_keep_the_whole() {
        let all = Bytes::from(vec![7; 100]);
        for (range, is_shared) in
            [(0..100, true), (10..60, true), (10..59, false), (100..100, false)]
        {
            let part = part_of(&all, range.clone());
            assert_eq!(part, all.slice(range.clone()));
            let lies_in = part.as_ptr() == all[range.clone()].as_ptr();
            assert_eq!(lies_in && !part.is_empty(), is_shared, "{range:?}");
        }
    }
}
