//! Where a producer's newest batches lie, in a few bytes a batch.
//!
//! Kept as it is stored: for each batch two varints, the events of others between it and the batch
//! before, then its own events. Up to 64 batches, oldest first.

use tailmark_record::{Seq, put_varint, take_varint, varint_len};

/// Batches whose seqs are known when they are sent again.
pub(super) const MAX_BATCHES: u8 = 64;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct History {
    /// Where the walk over `ranges` begins; without any, the seq after the last event. 0 = the
    /// producer has not stored an event.
    base: u64,
    /// The seq after the last event.
    end: u64,
    count: u8,
    ranges: Vec<u8>,
}

impl History {
    /// The last event of the last batch.
    pub(super) fn last_event(&self) -> Option<Seq> {
        self.end.checked_sub(1).map(Seq::new)
    }

    /// Adds a batch; seqs go up.
    pub(super) fn push(&mut self, first: Seq, events: u64) {
        let first = first.get();
        if self.count == 0 {
            (self.base, self.end) = (first, first);
        }
        if self.count == MAX_BATCHES {
            self.drop_oldest();
        }
        put_varint(&mut self.ranges, first.saturating_sub(self.end));
        put_varint(&mut self.ranges, events);
        self.end = first.saturating_add(events);
        self.count += 1;
    }

    /// First and last event of the batch so many before the last; `None` = not known any more.
    pub(super) fn find(&self, back: u64) -> Option<(Seq, Seq)> {
        let at = u64::from(self.count).checked_sub(1)?.checked_sub(back)?;
        let mut rest = &self.ranges[..];
        let mut next = self.base;
        for step in 0.. {
            let (gap, events) = (take_varint(&mut rest)?, take_varint(&mut rest)?);
            let first = next + gap;
            next = first + events;
            if step == at {
                return Some((Seq::new(first), Seq::new(next - 1)));
            }
        }
        None
    }

    /// Forgets where batches lie, but for the end of the last.
    pub(super) fn clear(&mut self) {
        *self = History { base: self.end, end: self.end, ..History::default() };
    }

    fn drop_oldest(&mut self) {
        let mut rest = &self.ranges[..];
        if let (Some(gap), Some(events)) = (take_varint(&mut rest), take_varint(&mut rest)) {
            self.base += gap + events;
            let taken = self.ranges.len() - rest.len();
            self.ranges.drain(..taken);
            self.count -= 1;
        }
    }

    /// Bytes that [`History::encode`] writes.
    pub(super) fn encoded_len(&self) -> usize {
        varint_len(self.base) + 1 + self.ranges.len()
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.base);
        out.push(self.count);
        out.extend_from_slice(&self.ranges);
    }

    /// Reads what `encode` wrote; `None` when it did not.
    pub(super) fn decode(bytes: &mut &[u8]) -> Option<History> {
        let base = take_varint(bytes)?;
        let (&count, rest) = bytes.split_first()?;
        *bytes = rest;
        if count > MAX_BATCHES {
            return None;
        }
        let mut end = base;
        let before = *bytes;
        for _ in 0..count {
            let gap = take_varint(bytes)?;
            let events = take_varint(bytes).filter(|&events| events > 0)?;
            end = end.checked_add(gap)?.checked_add(events)?;
        }
        let ranges = before[..before.len() - bytes.len()].to_vec();
        Some(History { base, end, count, ranges })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_batches_are_found_and_survive_the_round_trip() {
        let mut history = History::default();
        assert_eq!((history.last_event(), history.find(0)), (None, None));
        let mut batches = Vec::new();
        let mut next = 5;
        for n in 0..200u64 {
            let (first, events) = (next + n % 3 * 1_000, n % 7 + 1);
            history.push(Seq::new(first), events);
            batches.push((Seq::new(first), Seq::new(first + events - 1)));
            next = first + events;
            for (back, batch) in batches.iter().rev().enumerate() {
                let known = back < usize::from(MAX_BATCHES);
                assert_eq!(history.find(back as u64), known.then_some(*batch), "{n} {back}");
            }
            assert_eq!(history.last_event(), Some(Seq::new(next - 1)));
            let mut bytes = Vec::new();
            history.encode(&mut bytes);
            assert_eq!(bytes.len(), history.encoded_len());
            assert_eq!(History::decode(&mut &bytes[..]), Some(history.clone()));
            assert_eq!(History::decode(&mut &bytes[..bytes.len() - 1]), None);
        }
        let last = history.last_event();
        history.clear();
        assert_eq!((history.last_event(), history.find(0)), (last, None));
        history.push(Seq::new(next + 10), 2);
        assert_eq!(history.find(0), Some((Seq::new(next + 10), Seq::new(next + 11))));
        assert_eq!(history.find(1), None);
    }
}
