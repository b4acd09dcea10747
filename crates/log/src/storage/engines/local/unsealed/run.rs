//! A part of the index of a slot: where the events of each topic lie, of some commits in a row.
//!
//! Never changes. Takes 16 bytes an event, 16 a topic and the topic's text. Must not read files: who asks
//! reads, and checks what came by the checksum of each entry.
//! Invariant: each event of its commits is in it once, under its topic, in order.

use std::ops::Range;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry as Slot;
use xxhash_rust::xxh3::xxh3_64;

use crate::storage::crc::crc32c;
use crate::storage::journal::CommitRead;
use crate::width::to_u32;
use tailmark_record::topic::{self, Filter};
use tailmark_record::{Event, EventError, Events, Seq};

/// Where the entry of one event lies in the slot's file, and what it has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Its seq, counted from the slot's first.
    pub(super) nth: u32,
    pub(super) offset: u32,
    pub(super) len: u32,
    pub(super) crc: u32,
}

impl Entry {
    pub(super) fn end(&self) -> u32 {
        self.offset.saturating_add(self.len)
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Run {
    /// In the order of their texts.
    topics: Box<[Topic]>,
    /// Topic after topic.
    entries: Box<[Entry]>,
    texts: Box<str>,
    /// Of its events, the first, and the one after the last.
    pub(super) nths: Range<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Topic {
    /// Its part of the texts.
    text: (u32, u32),
    /// Its part of the entries.
    entries: (u32, u32),
}

impl Run {
    /// How many events it has.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// How many topics it has.
    pub(super) fn topics(&self) -> usize {
        self.topics.len()
    }

    /// What it takes in memory.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.topics) + size_of_val(&*self.entries) + self.texts.len()
    }

    /// The entries of each topic that the filter selects, as far as they are wanted.
    pub(super) fn find<'a>(
        &'a self,
        filter: &Filter,
        nths: &Range<u32>,
        found: &mut Vec<&'a [Entry]>,
    ) {
        let mut add = |topic: &Topic| {
            let entries = self.entries_of(topic);
            let from = entries.partition_point(|entry| entry.nth < nths.start);
            let end = entries.partition_point(|entry| entry.nth < nths.end);
            found.extend(entries.get(from..end).filter(|entries| !entries.is_empty()));
        };
        for range in filter.ranges() {
            let from = self.seek(range.beginning());
            let rest = self.topics.iter().skip(from);
            let within = rest.take_while(|topic| range.has(self.text_of(topic)));
            // One that is alone in its range is what was asked for.
            let is_it = |topic: &&Topic| range.is_one() || filter.matches(self.text_of(topic));
            within.filter(is_it).for_each(&mut add);
        }
    }

    /// How many topics would be looked at to find those that match.
    pub(super) fn tries(&self, filter: &Filter) -> usize {
        let tries = |range: topic::Range<'_>| {
            if range.is_one() {
                return 1;
            }
            let from = self.seek(range.beginning());
            let rest = self.topics.get(from..).unwrap_or_default();
            rest.partition_point(|topic| range.has(self.text_of(topic)))
        };
        filter.ranges().into_iter().map(tries).sum()
    }

    /// The place of the first topic that is not below `text`.
    pub(super) fn seek(&self, text: &str) -> usize {
        self.topics.partition_point(|topic| self.text_of(topic) < text)
    }

    /// The topic at a place, and its entries.
    pub(super) fn topic_at(&self, at: usize) -> Option<(&str, &[Entry])> {
        self.topics.get(at).map(|topic| (self.text_of(topic), self.entries_of(topic)))
    }

    fn text_of(&self, topic: &Topic) -> &str {
        let (start, end) = topic.text;
        self.texts.get(start as usize..end as usize).unwrap_or_default()
    }

    fn entries_of(&self, topic: &Topic) -> &[Entry] {
        let (start, end) = topic.entries;
        self.entries.get(start as usize..end as usize).unwrap_or_default()
    }

    /// Both as one; `later` goes on where `self` ends.
    pub(super) fn merge(&self, later: &Run) -> Run {
        let mut parts = Parts::default();
        parts.entries.reserve_exact(self.len() + later.len());
        let (mut ours, mut theirs) =
            (self.topics.iter().peekable(), later.topics.iter().peekable());
        loop {
            let order = match (ours.peek(), theirs.peek()) {
                (Some(our), Some(their)) => self.text_of(our).cmp(later.text_of(their)),
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (None, None) => break,
            };
            let our = if order.is_le() { ours.next() } else { None };
            let their = if order.is_ge() { theirs.next() } else { None };
            let (our, their) = (our.map(|it| (self, it)), their.map(|it| (later, it)));
            parts.add(our.into_iter().chain(their));
        }
        parts.run(self.nths.start..later.nths.end)
    }

    /// One without an event, after it.
    #[cfg(test)]
    pub(super) fn nothing(&self) -> Run {
        Parts::default().run(self.nths.end..self.nths.end)
    }

    #[cfg(test)]
    pub(super) fn entries_mut(&mut self) -> &mut [Entry] {
        &mut self.entries
    }
}

/// What a run is put together from, topic after topic.
#[derive(Default)]
struct Parts {
    topics: Vec<Topic>,
    entries: Vec<Entry>,
    texts: String,
}

impl Parts {
    /// Adds a topic: what runs that follow each other have of it.
    fn add<'a>(&mut self, of: impl Iterator<Item = (&'a Run, &'a Topic)>) {
        let begin = self.entries.len();
        let mut known = None;
        for (run, topic) in of {
            self.entries.extend_from_slice(run.entries_of(topic));
            known.get_or_insert(run.text_of(topic));
        }
        if let Some(text) = known {
            self.end_topic(text, begin);
        }
    }

    /// What was added to the entries since is all of one topic.
    fn end_topic(&mut self, text: &str, begin: usize) {
        let at = to_u32(self.texts.len());
        self.texts.push_str(text);
        let entries = (to_u32(begin), to_u32(self.entries.len()));
        self.topics.push(Topic { text: (at, to_u32(self.texts.len())), entries });
    }

    fn run(self, nths: Range<u32>) -> Run {
        let Parts { topics, entries, texts } = self;
        debug_assert_eq!(entries.len(), nths.len(), "each event once");
        // None of them has more room than it needs.
        Run { topics: topics.into(), entries: entries.into(), texts: texts.into(), nths }
    }
}

/// Makes a run, commit by commit.
pub(super) struct Builder {
    /// The slot's first seq.
    origin: Seq,
    nths: Range<u32>,
    ids: HashTable<u32>,
    topics: Vec<(u64, String, Vec<Entry>)>,
}

impl Builder {
    /// Of what begins at `from`, in a slot that begins at `origin`.
    pub(super) fn new(origin: Seq, from: Seq) -> Builder {
        let nth = to_u32(origin.distance_to(from));
        Builder { origin, nths: nth..nth, ids: HashTable::new(), topics: Vec::new() }
    }

    /// The seq that it goes on with.
    pub(super) fn next(&self) -> Seq {
        self.origin.plus(u64::from(self.nths.end))
    }

    /// Adds all events of the next commit, or none of them.
    pub(super) fn add(&mut self, commit: &CommitRead) -> Result<(), EventError> {
        if commit.first != self.next() {
            return Err(EventError::new("a commit that does not follow"));
        }
        let mut found = Vec::new();
        let (mut walk, mut seq, mut place) = (Events::new(&commit.events), commit.first, 0);
        while let Some(event) = walk.next() {
            let event = event?;
            if Event::seq_of(event)? != seq {
                return Err(EventError::new("an event has another seq"));
            }
            let end = commit.events.len() - walk.remaining();
            let bytes = commit.events.get(place..end).unwrap_or_default();
            let entry = Entry {
                nth: to_u32(self.origin.distance_to(seq)),
                offset: to_u32(commit.offset + place as u64),
                len: to_u32(bytes.len()),
                crc: crc32c(0, bytes),
            };
            found.push((Event::topic_of(event)?, entry));
            (seq, place) = (seq.next(), end);
        }
        if seq != commit.end {
            return Err(EventError::MISSING);
        }
        found.into_iter().for_each(|(topic, entry)| self.put(topic, entry));
        self.nths.end = to_u32(self.origin.distance_to(seq));
        Ok(())
    }

    fn put(&mut self, topic: &str, entry: Entry) {
        let hash = xxh3_64(topic.as_bytes());
        let topics = &self.topics;
        let is_it = |&id: &u32| topics.get(id as usize).is_some_and(|(_, text, _)| text == topic);
        let hash_of = |&id: &u32| topics.get(id as usize).map_or(0, |(hash, ..)| *hash);
        match self.ids.entry(hash, is_it, hash_of) {
            Slot::Occupied(known) => {
                if let Some((.., entries)) = self.topics.get_mut(*known.get() as usize) {
                    entries.push(entry);
                }
            }
            Slot::Vacant(vacant) => {
                vacant.insert(to_u32(self.topics.len()));
                self.topics.push((hash, topic.to_owned(), vec![entry]));
            }
        }
    }

    /// The run, unless it would be empty.
    pub(super) fn finish(mut self) -> Option<Run> {
        if self.nths.is_empty() {
            return None;
        }
        self.topics.sort_unstable_by(|a, b| a.1.cmp(&b.1));
        let mut parts = Parts::default();
        parts.entries.reserve_exact(self.nths.len());
        for (_, text, entries) in self.topics {
            let begin = parts.entries.len();
            parts.entries.extend(entries);
            parts.end_topic(&text, begin);
        }
        Some(parts.run(self.nths))
    }
}
