//! An index of a run of events by topic: made in one walk, asked by many.
//!
//! Takes 4 bytes an event and 16 bytes a topic; holds no text, but finds it in the run. Must not know
//! where the run comes from. Invariant: what it finds is what a walk over the run would.

use std::ops::Range;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use xxhash_rust::xxh3::xxh3_64;

use crate::width::to_u32;
use tailmark_record::topic::Filter;
use tailmark_record::{Event, EventError, Events};

/// Bytes that it takes for each event, at most.
pub(super) const BYTES_PER_EVENT: usize = 4 + size_of::<Topic>();

/// See the module.
#[derive(Debug)]
pub(super) struct TopicIndex {
    /// By hash.
    topics: Vec<Topic>,
    /// Where each topic's entries begin in the run, topic after topic, each in order.
    places: Vec<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Topic {
    hash: u64,
    /// Its part of the places.
    first: u32,
    count: u32,
}

impl TopicIndex {
    /// Walks the run.
    pub(super) fn of(run: &[u8]) -> Result<TopicIndex, EventError> {
        u32::try_from(run.len()).map_err(|_| EventError::new("a run of more than 4 GiB"))?;
        let mut ids: HashTable<u32> = HashTable::new();
        let mut topics: Vec<Topic> = Vec::new();
        // Of each event, its topic and its place.
        let mut events = Vec::new();
        let mut texts: Vec<&str> = Vec::new();
        let mut walk = Events::new(run);
        loop {
            let place = run.len() - walk.remaining();
            let Some(event) = walk.next() else { break };
            let text = Event::topic_of(event?)?;
            let hash = xxh3_64(text.as_bytes());
            let is_it = |&id: &u32| texts.get(id as usize) == Some(&text);
            let hash_of = |&id: &u32| topics.get(id as usize).map_or(0, |topic| topic.hash);
            let id = match ids.entry(hash, is_it, hash_of) {
                Entry::Occupied(known) => *known.get(),
                Entry::Vacant(vacant) => {
                    let id = to_u32(topics.len());
                    vacant.insert(id);
                    topics.push(Topic { hash, first: 0, count: 0 });
                    texts.push(text);
                    id
                }
            };
            if let Some(topic) = topics.get_mut(id as usize) {
                topic.count += 1;
            }
            events.push((id, to_u32(place)));
        }
        Ok(TopicIndex::sorted(topics, &events))
    }

    /// Puts the places in the order of their topics.
    fn sorted(mut topics: Vec<Topic>, events: &[(u32, u32)]) -> TopicIndex {
        let mut next = 0;
        for topic in &mut topics {
            topic.first = next;
            next += topic.count;
        }
        let mut places = vec![0; events.len()];
        let mut filled: Vec<u32> = topics.iter().map(|topic| topic.first).collect();
        for &(id, place) in events {
            if let Some(at) = filled.get_mut(id as usize)
                && let Some(slot) = places.get_mut(*at as usize)
            {
                *slot = place;
                *at += 1;
            }
        }
        topics.sort_unstable_by_key(|topic| topic.hash);
        TopicIndex { topics, places }
    }

    /// How many topics there are.
    pub(super) fn len(&self) -> usize {
        self.topics.len()
    }

    /// Each topic, with the places of its entries in the run.
    pub(super) fn each<'a>(
        &'a self,
        run: &'a [u8],
    ) -> impl Iterator<Item = Result<(&'a str, &'a [u32]), EventError>> {
        self.topics.iter().map(|topic| {
            let places = self.places_of(topic);
            let first = places.first().ok_or(EventError::new("a topic without an event"))?;
            Ok((Event::topic_of(entry(run, *first)?.1)?, places))
        })
    }

    /// The places of the entries that a filter selects, in order.
    pub(super) fn find(&self, run: &[u8], filter: &Filter) -> Result<Vec<u32>, EventError> {
        let mut found = Vec::new();
        let mut topics = 0;
        if let Some(patterns) = filter.exact() {
            for pattern in patterns {
                if let Some(places) = self.find_topic(run, pattern.as_str())? {
                    found.extend_from_slice(places);
                    topics += 1;
                }
            }
        } else {
            for topic in self.each(run) {
                let (text, places) = topic?;
                if filter.matches(text) {
                    found.extend_from_slice(places);
                    topics += 1;
                }
            }
        }
        if topics > 1 {
            found.sort_unstable();
        }
        Ok(found)
    }

    /// The places of one topic's entries.
    fn find_topic(&self, run: &[u8], text: &str) -> Result<Option<&[u32]>, EventError> {
        let hash = xxh3_64(text.as_bytes());
        let from = self.topics.partition_point(|topic| topic.hash < hash);
        let alike = self.topics.iter().skip(from).take_while(|topic| topic.hash == hash);
        for topic in alike {
            let places = self.places_of(topic);
            let first = places.first().ok_or(EventError::new("a topic without an event"))?;
            if Event::topic_of(entry(run, *first)?.1)? == text {
                return Ok(Some(places));
            }
        }
        Ok(None)
    }

    fn places_of(&self, topic: &Topic) -> &[u32] {
        let range = topic.first as usize..topic.first as usize + topic.count as usize;
        self.places.get(range).unwrap_or_default()
    }
}

/// The entry that begins at a place in a run: where it lies, and its event.
pub(super) fn entry(run: &[u8], place: u32) -> Result<(Range<usize>, &[u8]), EventError> {
    let start = place as usize;
    let rest = run.get(start..).ok_or(EventError::new("a place beyond the run"))?;
    let mut walk = Events::new(rest);
    let event = walk.next().ok_or(EventError::new("a place at the end of the run"))??;
    Ok((start..run.len() - walk.remaining(), event))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tailmark_record::topic::Pattern;
    use tailmark_record::{
        ChainTag, CursorMint, Generation, Limits, LogId, Seq, Stamp, Timestamp, write_entry,
    };

    fn run(topics: &[String]) -> Vec<u8> {
        let log = LogId::new(uuid::Uuid::from_u128(1));
        let mint = CursorMint::new(log, Generation { counter: 1, nonce: 1 });
        let mut entries = Vec::new();
        for (at, topic) in topics.iter().enumerate() {
            let mut client = Vec::new();
            Event { id: "id", topic, body: "a.b", ..Event::default() }
                .write_client_part(&mut client);
            let stamp = Stamp {
                seq: Seq::new(1 + at as u64),
                mint: &mint,
                tag: ChainTag::START,
                appended_at: Timestamp::EPOCH.into(),
                fill_at: true,
                fill_id: None,
            };
            write_entry(&mut entries, &client, &stamp);
        }
        entries
    }

    prop_compose! {
        fn topic()(segments in prop::collection::vec("[ab]", 1..4)) -> String {
            segments.join(".")
        }
    }

    proptest! {
        #[test]
        fn it_finds_what_a_walk_finds(
            topics in prop::collection::vec(topic(), 0..60),
            patterns in prop::collection::vec("[ab*](\\.[ab*]){0,3}", 1..4),
        ) {
            let run = run(&topics);
            let index = TopicIndex::of(&run).unwrap();
            let parse = |text: &String| Pattern::parse(text, &Limits::default()).unwrap();
            let filter = Filter::new(patterns.iter().map(parse).collect());
            let found = index.find(&run, &filter).unwrap();
            let seqs: Vec<u64> = found
                .iter()
                .map(|&place| Event::seq_of(entry(&run, place).unwrap().1).unwrap().get())
                .collect();
            let expected: Vec<u64> = (1..)
                .zip(&topics)
                .filter(|(_, topic)| filter.matches(topic))
                .map(|(seq, _)| seq)
                .collect();
            prop_assert_eq!(seqs, expected);
            let all: usize = index.each(&run).map(|topic| topic.unwrap().1.len()).sum();
            prop_assert_eq!(all, topics.len());
        }
    }

    #[test]
    fn what_is_no_run_is_refused() {
        let run = run(&["a".to_owned(), "b".to_owned()]);
        assert!(TopicIndex::of(&run[1..]).is_err());
        assert!(TopicIndex::of(&run[..run.len() - 1]).is_err());
        assert!(entry(&run, 1).is_err() && entry(&run, run.len() as u32).is_err());
        assert_eq!(TopicIndex::of(&[]).unwrap().len(), 0);
    }
}
