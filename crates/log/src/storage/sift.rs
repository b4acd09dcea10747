//! Picking the events that match a filter out of a run of events.
//!
//! Must not know where the events come from. Whoever hands them over has checked their bytes.

use std::ops::Range;

use memchr::memmem::Finder;

use super::entries::{Entries, Entry};
use tailmark_record::topic::{Filter, Verdicts};
use tailmark_record::{Event, Seq};

/// Bytes of events that one read goes through to find some that match.
pub(super) const SIFTED_BYTES: usize = 1 << 20;
/// Bytes of events found with which a read is content.
pub(super) const FOUND_BYTES: usize = 256 << 10;

/// Picks what matches a filter.
pub(super) struct Sifter<'a> {
    filter: &'a Filter,
    /// Bytes that every event which matches has in it. Looking for them is a fraction of the work
    /// of reading every event's topic.
    bytes: Option<Finder<'a>>,
}

impl<'a> Sifter<'a> {
    pub(super) fn new(filter: &'a Filter) -> Self {
        let beginning = filter.beginning();
        let bytes = (!beginning.is_empty()).then(|| Finder::new(beginning));
        Sifter { filter, bytes }
    }

    /// Adds the events of `wanted` that match to `found`; answers the seq after the last of these entries, which
    /// begin with `first`.
    pub(super) fn pick(
        &self,
        run: &[u8],
        first: Seq,
        wanted: Range<Seq>,
        found: &mut Vec<u8>,
    ) -> Result<Seq, &'static str> {
        let mut verdicts = Verdicts::default();
        let mut next_hit = self.hit(run, 0);
        let (mut entries, mut seq, mut start) = (Entries::new(run), first, 0);
        while let Some(entry) = entries.next() {
            let entry = entry.map_err(|error| error.what())?;
            let end = run.len() - entries.remaining();
            let Entry::Event(event) = entry else {
                if next_hit < end {
                    next_hit = self.hit(run, end);
                }
                (seq, start) = (seq.plus(entry.seqs()), end);
                continue;
            };
            if next_hit < end {
                if wanted.contains(&seq) && self.matches(&mut verdicts, run, event)? {
                    if Event::seq_of(event).map_err(|error| error.what())? != seq {
                        return Err("an event has another seq");
                    }
                    found.extend_from_slice(&run[start..end]);
                }
                next_hit = self.hit(run, end);
            }
            (seq, start) = (seq.next(), end);
        }
        Ok(seq)
    }

    fn matches(
        &self,
        verdicts: &mut Verdicts,
        run: &[u8],
        event: &[u8],
    ) -> Result<bool, &'static str> {
        let topic = Event::topic_of(event).map_err(|error| error.what())?;
        Ok(verdicts.on(self.filter, run, topic).is_match)
    }

    /// The first place from `start` on at which an event that matches may have its topic.
    fn hit(&self, run: &[u8], start: usize) -> usize {
        match &self.bytes {
            None => start,
            Some(bytes) => {
                let hit = run.get(start..).and_then(|rest| bytes.find(rest));
                hit.map_or(usize::MAX, |at| start + at)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tailmark_record::topic::Pattern;
    use tailmark_record::{
        ChainTag, CursorMint, Events, Generation, Limits, LogId, Stamp, Timestamp, write_entry,
    };

    const TOPICS: [&str; 7] = ["a.b", "a.b.c", "a", "x.a.b", "a.bc", "b", "a.c"];

    fn run(first: u64, count: u64) -> Vec<u8> {
        let log = LogId::new(uuid::Uuid::from_u128(1));
        let mint = CursorMint::new(log, Generation { counter: 1, nonce: 1 });
        let mut entries = Vec::new();
        for seq in first..first + count {
            // Bodies that hold topics, too.
            let body = TOPICS[(seq / 3) as usize % TOPICS.len()];
            let topic = TOPICS[seq as usize % TOPICS.len()];
            let mut client = Vec::new();
            Event { id: "a.b", topic, body, ..Event::default() }.write_client_part(&mut client);
            let appended_at = Timestamp::EPOCH;
            let stamp = Stamp {
                seq: Seq::new(seq),
                mint: &mint,
                tag: ChainTag::START,
                appended_at: appended_at.into(),
                fill_at: true,
                fill_id: None,
            };
            write_entry(&mut entries, &client, &stamp);
        }
        entries
    }

    #[test]
    fn what_is_picked_is_what_matches_by_reading_every_topic() {
        let entries = run(10, 200);
        for patterns in
            [&["a.b"][..], &["a.*"], &["a.>"], &["*.b"], &["a.b", "b"], &["zz"], &["x.a.b"]]
        {
            let pattern = |text: &&str| Pattern::parse(text, &Limits::default()).unwrap();
            let filter = Filter::new(patterns.iter().map(pattern).collect());
            for wanted in [10..210, 10..11, 57..91, 209..210, 1..5] {
                let range = Seq::new(wanted.start)..Seq::new(wanted.end);
                let mut expected = Vec::new();
                for event in Events::new(&entries) {
                    let event = event.unwrap();
                    let seq = Event::seq_of(event).unwrap();
                    if range.contains(&seq) && filter.matches(Event::topic_of(event).unwrap()) {
                        expected.push(event);
                    }
                }
                let mut found = vec![];
                let end = Sifter::new(&filter).pick(&entries, Seq::new(10), range, &mut found);
                assert_eq!(end, Ok(Seq::new(210)));
                let picked: Vec<_> = Events::new(&found).map(Result::unwrap).collect();
                assert_eq!(picked, expected, "{patterns:?} {wanted:?}");
            }
        }
    }

    #[test]
    fn a_run_that_is_not_what_it_says_is_refused() {
        let entries = run(10, 20);
        let filter = Filter::new(vec![Pattern::parse("a.b", &Limits::default()).unwrap()]);
        let pick = |run: &[u8], first: u64| {
            Sifter::new(&filter).pick(run, Seq::new(first), Seq::ZERO..Seq::MAX, &mut vec![])
        };
        assert_eq!(pick(&entries, 10), Ok(Seq::new(30)));
        assert_eq!(pick(&entries, 11), Err("an event has another seq"));
        assert!(pick(&entries[..entries.len() - 1], 10).is_err(), "cut");
        assert!(pick(&entries[1..], 10).is_err(), "not at an entry");
    }
}
