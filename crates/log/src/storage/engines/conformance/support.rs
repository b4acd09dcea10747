//! Commits for the cases, and a plain list to compare an engine with.

use std::ops::{ControlFlow, Range};
use std::sync::{Arc, mpsc};

use bytes::Bytes;

use super::{Factory, Opened, Recovered, Reopen, all_topics, topic_head, topics_of};
use crate::chain::{Said, hash, tag_in};
use crate::storage::{
    Chunk, Commit, Engine, EraseOrder, ErasePhase, EraseProgress, Journal, Level, Links, Receipt,
    RemovedReason, Store, StoreError, TopicStats,
};
use crate::width::{to_u32, to_usize};
use tailmark_record::topic::{Filter, Pattern};
use tailmark_record::{
    ChainTag, CursorMint, Erased, Event, Events, Facts, Fingerprint, Limits, Seq, Stamp, Timestamp,
    write_entry, write_shell,
};

/// One event as it was appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    pub topic: String,
    pub body: String,
    /// Empty = named by us.
    pub id: String,
}

/// A stored event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    pub seq: Seq,
    pub at: Timestamp,
    pub fingerprint: Option<Fingerprint>,
    pub sent: Sent,
    /// The entry's bytes.
    pub event: Vec<u8>,
}

/// An engine beside the list of what it must hold.
pub(super) struct Subject<'f, F> {
    factory: &'f mut F,
    engine: Option<Arc<dyn Engine>>,
    /// As the last open returned it.
    pub recovered: Recovered,
    /// Every event ever stored: `events[n]` has seq n + 1.
    pub events: Vec<Stored>,
    pub oldest: Seq,
    pub at: Timestamp,
    /// Ranges that are lost for good.
    pub lost: Vec<Range<Seq>>,
    erasures: u128,
}

/// What an event's shell must be, field by field.
fn shell_by_hand(event: &[u8], order: &EraseOrder) -> Vec<u8> {
    let (view, facts) =
        (Event::parse(event).expect("well formed"), Facts::scan(event).expect("well formed"));
    let part = &event[..facts.client_len];
    let [one, two] = facts.payload.clone();
    let payload = [&part[one.clone()], &part[two.clone()]].concat();
    let rest: Vec<u8> = (0..part.len())
        .filter(|at| !one.contains(at) && !two.contains(at))
        .map(|at| part[at])
        .chain(facts.given_id.iter().copied())
        .collect();
    let (rest_digest, payload_digest) = (hash(&rest), hash(&payload));
    let erasure = order.id.to_string();
    let (reason, erased_at) = (&*order.reason, order.at);
    let erased = Erased { rest_digest, payload_digest, reason, erased_at, erasure: &erasure };
    let mut entry = Vec::new();
    write_shell(&mut entry, event, &erased).expect("well formed");
    let shell = Events::new(&entry).next().expect("one").expect("well formed").to_vec();
    let left = Event::parse(&shell).expect("well formed");
    let place = |event: &Event<'_>| (event.seq, event.at, event.appended_at);
    assert_eq!((place(&left), left.topic, left.cursor), (place(&view), view.topic, view.cursor));
    assert_eq!(left.erased, Some(erased));
    shell
}

impl<'f, F: Factory> Subject<'f, F> {
    pub(super) fn new(factory: &'f mut F) -> Self {
        let Opened { engine, recovered } = factory.create();
        Subject {
            factory,
            engine: Some(engine),
            recovered,
            events: Vec::new(),
            oldest: Seq::FIRST,
            at: Timestamp { seconds: 1_000, nanos: 0 },
            lost: Vec::new(),
            erasures: 0,
        }
    }

    pub(super) fn engine(&self) -> &Arc<dyn Engine> {
        self.engine.as_ref().expect("an open engine")
    }

    /// The half that takes commits.
    pub(super) fn journal(&self) -> &dyn Journal {
        &**self.engine()
    }

    /// The half that is read.
    pub(super) fn store(&self) -> &dyn Store {
        &**self.engine()
    }

    pub(super) fn next(&self) -> Seq {
        Seq::new(self.events.len() as u64 + 1)
    }

    /// The chain at an event, as its cursor tells it.
    pub(super) fn tag_of(&self, seq: Seq) -> ChainTag {
        let event = to_usize(seq.get()).checked_sub(1).map(|at| &self.events[at].event);
        event.map_or(ChainTag::START, |event| tag_in(event).expect("a cursor"))
    }

    pub(super) fn reopen(&mut self, how: Reopen) {
        let engine = self.engine.take().expect("an open engine");
        if how == Reopen::Clean {
            engine.close().expect("a clean close");
        }
        let Opened { engine, recovered } = self.factory.reopen(engine, how);
        (self.engine, self.recovered) = (Some(engine), recovered);
    }

    /// Loses ranges for good.
    pub(super) fn lose(&mut self, ranges: &[Range<u64>]) {
        let engine = self.engine.take().expect("an open engine");
        let seqs = |range: &Range<u64>| Seq::new(range.start)..Seq::new(range.end);
        self.lost = ranges.iter().map(seqs).collect();
        let Opened { engine, recovered } = self.factory.lose(engine, &self.lost);
        (self.engine, self.recovered) = (Some(engine), recovered);
    }

    /// Erases events, and the seqs between them that are trimmed or lost do no harm. The order is not through before
    /// [`Subject::erased`].
    pub(super) fn erase(&mut self, ranges: &[Range<u64>]) {
        let seqs = ranges.iter().map(|it| Seq::new(it.start)..Seq::new(it.end)).collect();
        self.erasures += 1;
        let id = uuid::Uuid::from_u128(self.erasures);
        let reason = format!("the reason {}", self.erasures);
        let order = Arc::new(EraseOrder { id, reason, at: self.at, seqs });
        let mut phases = Vec::new();
        let mut watch = |now: EraseProgress| {
            assert_eq!((now.id, now.events), (id, order.events()));
            phases.push(now.phase);
            ControlFlow::Continue(())
        };
        self.store().erase(&order, &mut watch).expect("erased");
        assert!(phases.is_sorted() && !phases.contains(&ErasePhase::Telling), "{phases:?}");
        assert_eq!(self.store().erasing().as_ref(), Some(&order));
        let key = self.journal().fingerprint_key();
        for event in self.events.iter_mut().filter(|event| order.contains(event.seq)) {
            let facts = Facts::scan(&event.event).expect("well formed");
            if facts.erased.is_some() {
                continue;
            }
            event.fingerprint = None;
            let shell = shell_by_hand(&event.event, &order);
            // Nothing of what it said is in it.
            let is_said = |said: &[u8]| shell.windows(said.len()).any(|part| part == said);
            for said in [&*event.sent.body, &*event.sent.id].iter().filter(|said| said.len() > 8) {
                assert!(!is_said(said.as_bytes()));
            }
            let part = &event.event[..facts.client_len];
            assert!(!is_said(&key.fingerprint(part).0));
            event.event = shell;
        }
    }

    /// The order is through.
    pub(super) fn erased(&self) {
        self.store().erased().expect("the order is taken away");
        assert_eq!(self.store().erasing(), None);
    }

    fn lost_at(&self, seq: Seq) -> Option<&Range<Seq>> {
        self.lost.iter().find(|range| range.contains(&seq))
    }

    /// A commit that the engine must take.
    pub(super) fn commit(&self, sent: &[Sent]) -> (Commit, Vec<Stored>) {
        let (journal, store) = (self.journal(), self.store());
        let mint = CursorMint::new(journal.id(), store.bounds().generations.current().generation);
        let Links { head: mut link, .. } = store.links();
        let mut entries = Vec::new();
        let mut stored = Vec::new();
        let mut seq = self.next();
        for one in sent {
            let mut part = Vec::new();
            let event =
                Event { id: &one.id, topic: &one.topic, body: &one.body, ..Event::default() };
            event.write_client_part(&mut part);
            let is_named = !one.id.is_empty();
            let fill_id = (!is_named).then_some("given");
            let said = Said::of_part(&part, fill_id.unwrap_or_default()).expect("well formed");
            link = link.then(seq, self.at, said);
            let stamp = Stamp {
                seq,
                mint: &mint,
                tag: link.tag(),
                appended_at: self.at.into(),
                fill_at: true,
                fill_id,
            };
            let start = entries.len();
            write_entry(&mut entries, &part, &stamp);
            let mut one_entry = Events::new(&entries[start..]);
            let event = one_entry.next().expect("one entry").expect("well formed").to_vec();
            let fingerprint = is_named.then(|| journal.fingerprint_key().fingerprint(&part));
            stored.push(Stored { seq, at: self.at, fingerprint, sent: one.clone(), event });
            seq = seq.next();
        }
        let state = store.wants_state(entries.len()).then(|| Bytes::from_static(b"state"));
        let commit = Commit {
            first: self.next(),
            count: to_u32(sent.len()),
            appended_at: self.at,
            events: entries.into(),
            delta: Bytes::new(),
            state,
            link,
            oldest: self.oldest,
            oldest_tag: Some(self.tag_of(self.oldest.prev())),
        };
        (commit, stored)
    }

    /// Appends, and expects it to be durable.
    pub(super) fn append(&mut self, sent: &[Sent]) {
        let (commit, stored) = self.commit(sent);
        let expected = Receipt {
            first: commit.first,
            last: commit.first.plus(sent.len() as u64).prev(),
            level: Level::Fsync,
            term: 0,
        };
        let receipt = append(self.journal(), commit).expect("a durable commit");
        assert_eq!(receipt, Receipt { term: receipt.term, ..expected });
        self.events.extend(stored);
    }

    /// Moves the trim mark.
    pub(super) fn trim(&mut self, oldest: Seq) {
        self.oldest = oldest;
        self.append(&[]);
        self.store().reclaim().expect("reclaimed");
    }

    /// Compares everything that can be asked with the list.
    pub(super) fn check(&self) {
        self.check_bounds();
        let readable = &*self.readable();
        for filter in [Filter::ALL, filter(&["a.>"]), filter(&["a.x", "c"]), filter(&["none"])] {
            let matching = readable.iter().filter(|e| filter.matches(&e.sent.topic));
            let expected: Vec<_> = matching.map(|e| e.event.clone()).collect();
            assert_eq!(self.read_all(self.oldest, self.next(), &filter), expected, "{filter:?}");
        }
        self.check_chain(readable);
        self.check_topics(readable);
        self.check_look_back(readable);
        self.check_times(readable);
        self.check_fingerprints(readable);
    }

    pub(super) fn readable(&self) -> Vec<Stored> {
        let from_oldest = &self.events[to_usize(self.oldest.get()) - 1..];
        from_oldest.iter().filter(|event| self.lost_at(event.seq).is_none()).cloned().collect()
    }

    pub(super) fn check_bounds(&self) {
        let bounds = self.store().bounds();
        assert_eq!((bounds.oldest, bounds.head), (self.oldest, self.next().prev()));
    }

    fn check_chain(&self, readable: &[Stored]) {
        let Links { head, oldest_tag } = self.store().links();
        assert_eq!(head.tag(), self.tag_of(self.next().prev()), "the chain at the head");
        assert_eq!(
            oldest_tag,
            Some(self.tag_of(self.oldest.prev())),
            "the chain before the oldest"
        );
        for event in readable {
            let tag = self.store().tag_of(event.seq).expect("a tag");
            assert_eq!(tag, self.tag_of(event.seq), "the chain at {}", event.seq);
        }
        // Of what is lost nothing is known but the chain at its end.
        for lost in self.lost.iter().filter(|lost| lost.end > self.oldest) {
            let last = lost.end.prev();
            assert_eq!(self.store().tag_of(last).expect("a tag"), self.tag_of(last));
            for seq in [lost.start.max(self.oldest), last] {
                self.check_lost(self.store().time_of(seq), lost);
                if seq != last {
                    self.check_lost(self.store().tag_of(seq), lost);
                }
            }
        }
    }

    fn check_lost<T>(&self, answer: Result<T, StoreError>, lost: &Range<Seq>) -> Seq {
        let range = match answer {
            Err(StoreError::Removed(range)) => Some(range),
            _ => None,
        };
        let range = range.expect("to be told of what is lost");
        assert_eq!(range.first..range.end, *lost);
        assert_eq!(range.reason, RemovedReason::Damaged);
        range.end
    }

    fn check_topics(&self, readable: &[Stored]) {
        let store = self.store();
        let mut expected = std::collections::BTreeMap::<String, TopicStats>::new();
        for event in readable {
            let stats = expected.entry(event.sent.topic.clone()).or_default();
            let events = stats.events + 1;
            *stats = TopicStats { events, last_seq: event.seq, last_at: event.at };
        }
        for limit in [1, 2, 1_000] {
            assert_eq!(all_topics(store, limit).expect("topics"), expected, "{limit}");
        }
        for patterns in [&["a.>"][..], &["a.x", "c", "none"], &["*.x", "b"]] {
            for prefix in ["", "a", "a.x", "z"] {
                let filter = filter(patterns);
                let found = topics_of(store, prefix, &filter, 2).expect("topics");
                let is_wanted = |topic: &str| topic.starts_with(prefix) && filter.matches(topic);
                let wanted = expected.iter().filter(|(topic, _)| is_wanted(topic));
                let wanted: std::collections::BTreeMap<_, _> =
                    wanted.map(|(topic, stats)| (topic.clone(), *stats)).collect();
                assert_eq!(found, wanted, "{patterns:?} {prefix}");
            }
        }
        for event in self.events.iter().rev().take(20) {
            let topic = &event.sent.topic;
            let head = expected.get(topic).map_or(Seq::ZERO, |stats| stats.last_seq);
            assert_eq!(topic_head(store, topic).expect("a head"), head, "{topic}");
        }
        assert_eq!(topic_head(store, "a.x.none").expect("a head"), Seq::ZERO);
    }

    /// Looks back for the newest events that match, in as many steps as it takes.
    fn check_look_back(&self, readable: &[Stored]) {
        for filter in [Filter::ALL, filter(&["a.>"]), filter(&["a.x", "c"]), filter(&["none"])] {
            let matching = readable.iter().filter(|e| filter.matches(&e.sent.topic));
            let seqs: Vec<_> = matching.map(|e| e.seq).collect();
            for count in [1, 2, 7, seqs.len().max(1), seqs.len() + 1] {
                let (mut end, mut missing) = (self.next(), count as u64);
                while end > self.oldest && missing > 0 {
                    let range = self.oldest..end;
                    let found = self.store().look_back(range, &filter, missing).expect("found");
                    assert!(found.from < end && found.from >= self.oldest, "it gets on");
                    let between = seqs.iter().filter(|seq| (found.from..end).contains(seq));
                    assert_eq!(between.count() as u64, found.events, "{filter:?} {count}");
                    (end, missing) = (found.from, missing - found.events);
                }
                let first = seqs.len().checked_sub(count).map(|at| seqs[at]);
                assert_eq!(first, (missing == 0).then_some(end), "{filter:?} {count}");
            }
        }
    }

    fn check_times(&self, readable: &[Stored]) {
        let store = self.store();
        for event in readable {
            assert_eq!(store.time_of(event.seq).expect("a time"), event.at);
            for nanos in [-1, 0, 1] {
                let time = Timestamp::from_nanos(event.at.as_nanos() + nanos);
                let expected = readable.iter().find(|e| e.at >= time).map(|e| e.seq);
                let expected = expected.unwrap_or(self.next());
                // What is lost just before it may have been appended then.
                let lost = self.lost.iter().find(|lost| lost.end == expected);
                let expected = lost.map_or(expected, |lost| lost.start.max(self.oldest));
                assert_eq!(store.seek_time(time).expect("a seq"), expected);
            }
        }
    }

    fn check_fingerprints(&self, readable: &[Stored]) {
        let mut found = Vec::new();
        let mut visit = |seq: Seq, fingerprint| {
            found.push((seq, fingerprint));
            true
        };
        self.store().fingerprints(self.oldest, &mut visit).expect("fingerprints");
        let named = readable.iter().rev().filter_map(|e| Some((e.seq, e.fingerprint?)));
        assert_eq!(found, named.collect::<Vec<_>>());
    }

    /// The matching events in `from..end`, read chunk after chunk, each chunk checked.
    pub(super) fn read_all(&self, from: Seq, end: Seq, filter: &Filter) -> Vec<Vec<u8>> {
        let mut next = from;
        let mut found = Vec::new();
        while next < end {
            let read = self.store().read(next, end, filter);
            if let Some(lost) = self.lost_at(next) {
                next = self.check_lost(read, lost);
                continue;
            }
            let chunk = read.expect("a chunk");
            self.check_chunk(&chunk, next, end, filter);
            for event in Events::new(&chunk.events) {
                let event = event.expect("well formed");
                if filter.matches(Event::topic_of(event).expect("a topic")) {
                    found.push(event.to_vec());
                }
            }
            next = chunk.end;
        }
        found
    }

    fn check_chunk(&self, chunk: &Chunk, from: Seq, end: Seq, filter: &Filter) {
        assert_eq!(chunk.first, from, "a chunk begins where it was asked to");
        assert!(chunk.end > from && chunk.end <= end, "{chunk:?} of {from}..{end}");
        let mut last = from.prev();
        for event in Events::new(&chunk.events) {
            let seq = Event::seq_of(event.expect("well formed")).expect("a seq");
            assert!(self.lost_at(seq).is_none(), "what is lost has no event");
            assert!(seq > last && seq < chunk.end, "in order and in range");
            assert!(!chunk.complete || seq == last.next(), "complete means all");
            last = seq;
        }
        assert!(!chunk.complete || last.next() == chunk.end, "complete means all");
        assert!(chunk.complete || !filter.is_all(), "without a filter, chunks are complete");
    }
}

/// Appends, and waits for the outcome.
pub(super) fn append(journal: &dyn Journal, commit: Commit) -> Result<Receipt, StoreError> {
    let (done, outcome) = mpsc::sync_channel(1);
    journal.append(commit, Box::new(move |result| drop(done.send(result))));
    outcome.recv().expect("an answer")
}

pub(super) fn filter(patterns: &[&str]) -> Filter {
    let parse = |text: &&str| Pattern::parse(text, &Limits::default()).expect("a pattern");
    Filter::new(patterns.iter().map(parse).collect())
}

pub(super) fn sent(topic: &str, body: &str) -> Sent {
    Sent { topic: topic.into(), body: body.into(), id: String::new() }
}

pub(super) fn named(topic: &str, id: &str) -> Sent {
    Sent { topic: topic.into(), body: format!("body of {id}"), id: id.into() }
}
