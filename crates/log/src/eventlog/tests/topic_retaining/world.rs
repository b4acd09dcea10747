//! A log, and the plain list that says what must be left of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::path::Path;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::super::super::topic_retention::testing::{Ordered, pass};
use super::super::*;
use super::rule;
use crate::storage::{EraseOrder, RemovedReason, StoreError, TopicQuery, local};
use tailmark_record::Start;
use tailmark_record::topic::Pattern;

const TOPICS: [&str; 4] = ["keep.a", "state.a", "state.b", "tick.a"];
const WINDOW: usize = 400;

#[derive(Clone)]
struct Stored {
    topic: usize,
    key: u8,
    id: Option<u32>,
    body: String,
    at: i64,
    is_erased: bool,
    /// It tells of an erasure.
    is_notice: bool,
}

fn filter(pattern: &str) -> Filter {
    Filter::new(vec![Pattern::parse(pattern, &Limits::default()).unwrap()])
}

pub(super) struct World {
    pub(super) rng: StdRng,
    pub(super) dir: tempfile::TempDir,
    /// Of one that is in memory.
    memory: Option<Arc<Memory>>,
    pub(super) log: EventLog,
    pub(super) options: Options,
    pub(super) now: Arc<AtomicI64>,
    /// `[n]` has seq n + 1.
    events: Vec<Stored>,
    cursors: HashMap<u64, String>,
    /// Seqs that some rule has let go, by when it was looked at.
    pub(super) dead: BTreeMap<u64, RemovedReason>,
    /// Those that are gone.
    pub(super) gone: BTreeSet<u64>,
    oldest: u64,
    /// Of ids in the window, which the list can tell for sure.
    ids: Vec<(u32, u64)>,
    /// First and last seq of each batch of the producer, and its stream.
    batches: Vec<(u64, u64)>,
    stream: Option<Producer>,
    /// Erasures that were taken back.
    pub(super) taken_back: usize,
}

pub(super) fn open_local(dir: &Path, options: &Options) -> EventLog {
    let stored = local::Options { slot_bytes: 256 << 10, min_free_bytes: 0, ..Default::default() };
    // Where one was let go without a word, its threads end in a moment.
    let (engine, recovered) = loop {
        match local::open(dir, stored.clone()) {
            Err(StoreError::Locked { .. }) => std::thread::yield_now(),
            opened => break opened.unwrap(),
        }
    };
    EventLog::open(engine, recovered, options.clone()).unwrap()
}

impl World {
    pub(super) fn new(seed: u64) -> World {
        let now = Arc::new(AtomicI64::new(1_700_000_000));
        let clock = {
            let now = now.clone();
            Arc::new(move || Timestamp { seconds: now.load(Ordering::SeqCst), nanos: 0 })
        };
        // The thread has no rules: passes are made here, so that the list can follow.
        let options = Options { clock, dedup_window: WINDOW, ..options() };
        let dir = tempfile::tempdir().unwrap();
        let log = open_local(dir.path(), &options);
        World {
            rng: StdRng::seed_from_u64(seed),
            dir,
            memory: None,
            log,
            options,
            now,
            events: Vec::new(),
            cursors: HashMap::new(),
            dead: BTreeMap::new(),
            gone: BTreeSet::new(),
            oldest: 1,
            ids: Vec::new(),
            batches: Vec::new(),
            stream: None,
            taken_back: 0,
        }
    }

    /// The same over an engine in memory.
    pub(super) fn in_memory(seed: u64) -> World {
        let mut world = World::new(seed);
        let memory = Arc::new(engine(memory::Options::default()));
        let recovered = Recovered::default();
        world.log = EventLog::open(memory.clone(), recovered, world.options.clone()).unwrap();
        world.memory = Some(memory);
        world
    }

    pub(super) async fn append(&mut self, count: usize) {
        for _ in 0..count.div_ceil(20) {
            let at = self.now.fetch_add(self.rng.random_range(0..3), Ordering::SeqCst);
            let at = self.now.load(Ordering::SeqCst).max(at);
            let mut batch = self.log.batch();
            let first = self.events.len() as u64 + 1;
            for _ in 0..20 {
                let topic = self.rng.random_range(0..TOPICS.len());
                let key = self.rng.random_range(0..9u8);
                let seq = self.events.len() as u64 + 1;
                let id = seq.is_multiple_of(7).then_some(seq as u32);
                let body = format!("{seq} {}", "x".repeat(self.rng.random_range(0..120)));
                let (text, name) = (key.to_string(), id.map_or(String::new(), |it| it.to_string()));
                // Without a key where it is 0.
                let key_text = if key == 0 { "" } else { &*text };
                let event = Event {
                    id: &name,
                    topic: TOPICS[topic],
                    key: key_text,
                    body: &body,
                    ..Event::default()
                };
                batch.push(&event).unwrap();
                self.ids.extend(id.map(|id| (id, seq)));
                self.events.push(Stored {
                    topic,
                    key,
                    id,
                    body,
                    at,
                    is_erased: false,
                    is_notice: false,
                });
            }
            let dedup = AppendOptions { dedup: true, ..AppendOptions::default() };
            let done = self.log.append(batch, dedup).await.unwrap();
            assert_eq!((done.first, done.stored), (Some(Seq::new(first)), 20));
            let seq = self.rng.random_range(first..first + 20);
            self.cursors.insert(seq, self.log.cursor(Seq::new(seq)).await);
        }
        // What is full is sealed by a thread of its own, and only what is sealed can be taken out.
        let begun = std::time::Instant::now();
        while self.log.status().store.unsealed_slots > 1 {
            assert!(begun.elapsed() < Duration::from_secs(120), "sealing did not come about");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// What rules let go now, by the list: of what is left, from the newest on.
    pub(super) fn judge(&self, rules: &TopicRules, now: i64) -> Vec<(u64, usize, RemovedReason)> {
        let (mut keys, mut counts) = (BTreeSet::new(), HashMap::<usize, [u64; 2]>::new());
        let mut dead = Vec::new();
        for seq in (self.oldest..=self.events.len() as u64).rev() {
            let it = &self.events[seq as usize - 1];
            let Some(nth) = rules.of(TOPICS[it.topic]).filter(|_| !self.gone.contains(&seq)) else {
                continue;
            };
            let rule = &rules.as_slice()[nth];
            let age = rule.max_age.map(|age| now - age.as_secs() as i64);
            if age.is_some_and(|until| it.at < until) {
                dead.push((seq, nth, RemovedReason::Expired));
                continue;
            }
            let has_key = it.key > 0 && !it.is_erased && rule.keep == Keep::LatestPerKey;
            if has_key && !keys.insert((it.topic, it.key)) {
                dead.push((seq, nth, RemovedReason::Compacted));
                continue;
            }
            // What is left of an event, or tells of that, takes the place of none.
            let is_other = usize::from(it.is_erased || it.is_notice);
            let count = &mut counts.entry(it.topic).or_default()[is_other];
            if rule.max_events.is_some_and(|max| *count >= max) {
                dead.push((seq, nth, RemovedReason::Expired));
                continue;
            }
            *count += 1;
        }
        dead
    }

    fn rules(&mut self) -> TopicRules {
        let mut rules = Vec::new();
        if self.rng.random_bool(0.3) {
            rules.push(rule("state.b", None, None, Keep::All));
        }
        if self.rng.random_bool(0.8) {
            let max = self.rng.random_bool(0.3).then(|| self.rng.random_range(1..50));
            rules.push(rule("state.*", None, max, Keep::LatestPerKey));
        }
        let age = self.rng.random_bool(0.5).then(|| self.rng.random_range(5..300));
        let max = self.rng.random_bool(0.5).then(|| self.rng.random_range(1..200));
        rules.push(rule("tick.>", age, max, Keep::All));
        TopicRules::new(rules)
    }

    pub(super) async fn run_rules(&mut self) {
        let rules = self.rules();
        let now = self.now.load(Ordering::SeqCst);
        let dead = self.judge(&rules, now);
        // A dry run counts what the list does.
        let log = self.log.clone();
        let at = Timestamp { seconds: now, nanos: 0 };
        let is_in_peace = self.rng.random_bool(0.7);
        let (found, done) = {
            let rules = rules.clone();
            tokio::task::spawn_blocking(move || {
                let dry = Ordered { is_in_peace, is_dry: true, ..Ordered::default() };
                let wet = Ordered { is_in_peace, is_dry: false, ..Ordered::default() };
                (
                    pass(log.core(), &rules, at, dry).unwrap(),
                    pass(log.core(), &rules, at, wet).unwrap(),
                )
            })
            .await
            .unwrap()
        };
        for (nth, found) in found.rules.iter().enumerate() {
            let count = |reason| {
                dead.iter().filter(|(_, of, why)| *of == nth && *why == reason).count() as u64
            };
            assert_eq!(found.expired, count(RemovedReason::Expired), "{:?}", rules.as_slice()[nth]);
            assert_eq!(found.compacted, count(RemovedReason::Compacted));
        }
        assert_eq!(found.removed, 0);
        assert_eq!(done.rules, found.rules);
        for (seq, _, reason) in dead {
            self.dead.entry(seq).or_insert(reason);
        }
        let before = self.gone.len();
        self.look().await;
        assert_eq!(self.gone.len() - before, done.removed as usize, "{done:?}");
    }

    /// Reads all of it as one that asks for everything: what is gone is among what some rule let go.
    pub(super) async fn look(&mut self) {
        let end = self.log.bounds().next();
        let mut reader = self.log.reader(Seq::new(self.oldest), Filter::ALL);
        let mut next = self.oldest;
        let mut gone = BTreeSet::new();
        while reader.position() < end {
            match reader.next(end).await {
                Ok(delivery) => {
                    for bytes in Events::new(&delivery.chunk.events) {
                        let event = Event::parse(bytes.unwrap()).unwrap();
                        assert_eq!(event.seq.get(), next);
                        self.check(&event);
                        next += 1;
                    }
                }
                Err(ReadError::Removed(range)) => {
                    assert!(range.is_intended() && range.first.get() <= next);
                    gone.extend(next..range.end.get());
                    next = range.end.get();
                    reader.jump(range.end);
                }
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(next, end.get());
        assert!(gone.iter().all(|seq| self.dead.contains_key(seq)), "no rule let it go");
        // What is in memory may be seen for longer than it is on disk.
        assert!(self.gone.iter().all(|seq| gone.contains(seq) || *seq < self.oldest));
        self.gone = gone;
    }

    fn check(&self, event: &Event<'_>) {
        let it = &self.events[event.seq.get() as usize - 1];
        assert_eq!(event.topic, TOPICS[it.topic]);
        assert_eq!(event.erased.is_some(), it.is_erased);
        assert_eq!(event.body, if it.is_erased { "" } else { &*it.body });
        if let Some(cursor) = self.cursors.get(&event.seq.get()) {
            assert_eq!(event.cursor, cursor);
        }
    }

    pub(super) async fn check_all(&mut self) {
        self.look().await;
        let left = |world: &World, seq: &u64| !world.gone.contains(seq);
        // By topic, and everything that is left: no word of what is gone.
        let filters = [filter("state.a"), filter("tick.>"), Filter::all_that_is_left()];
        for filter in filters {
            let seen = read_all(&self.log, self.oldest, filter.clone()).await;
            let all = self.oldest..=self.events.len() as u64;
            let expected = all.filter(|seq| {
                left(self, seq) && filter.matches(TOPICS[self.events[*seq as usize - 1].topic])
            });
            assert!(seen.iter().map(|(seq, _)| *seq).eq(expected), "{filter:?}");
        }
        // Counts, the newest, and expected heads.
        let query = TopicQuery { from: "", prefix: "", filter: &Filter::ALL, limit: 100 };
        let mut topics = Vec::new();
        let mut next: Option<Box<str>> = Some("".into());
        while let Some(from) = next {
            let query = TopicQuery { from: &from, ..query };
            let page = self.log.topics().page(&query).await.unwrap();
            topics.extend(page.topics);
            next = page.next;
        }
        let mut counted = BTreeMap::new();
        for seq in (self.oldest..=self.events.len() as u64).filter(|seq| left(self, seq)) {
            let entry: &mut (u64, u64) =
                counted.entry(TOPICS[self.events[seq as usize - 1].topic].to_owned()).or_default();
            *entry = (entry.0 + 1, seq);
        }
        let found: BTreeMap<_, _> = topics
            .iter()
            .map(|(name, stats)| (name.to_string(), (stats.events, stats.last_seq.get())))
            .collect();
        assert_eq!(found, counted);
        for count in [1u64, 30] {
            let start = self.log.start(Start::Last(count), &Filter::ALL).await.unwrap();
            let all = (self.oldest..=self.events.len() as u64).rev().filter(|it| left(self, it));
            let nth: Vec<_> = all.take(count as usize).collect();
            if nth.len() as u64 == count {
                assert_eq!(start.get(), *nth.last().unwrap());
            }
        }
        // Cursors that were given out lead to what comes next, whatever became of their events.
        for (seq, cursor) in self.cursors.iter().filter(|(seq, _)| **seq + 1 >= self.oldest) {
            let next = self.log.resolve(Cursor::parse(cursor).unwrap()).await.unwrap();
            assert_eq!(next.get(), seq + 1);
        }
    }

    pub(super) async fn check_writes(&mut self) {
        // A repeat of what is gone is a repeat, and told with the seq that it had.
        let newest = self.ids.len().saturating_sub(WINDOW / 2);
        let known: Vec<_> = self.ids[newest..].to_vec();
        for (id, seq) in known.iter().rev().step_by(17) {
            let it = self.events[*seq as usize - 1].clone();
            if it.is_erased {
                continue;
            }
            let (name, key) = (id.to_string(), it.key.to_string());
            let key = if it.key == 0 { "" } else { &*key };
            let topic = TOPICS[it.topic];
            let event = Event { id: &name, topic, key, body: &it.body, ..Event::default() };
            let mut batch = self.log.batch();
            batch.push(&event).unwrap();
            let dedup = AppendOptions { dedup: true, ..AppendOptions::default() };
            let done = self.log.append(batch, dedup).await.unwrap();
            assert_eq!((done.stored, done.duplicates), (0, 1), "{seq}");
            assert_eq!(it.id, Some(*id));
        }
        // The head of a topic is the last that is left of it.
        for (topic, name) in TOPICS.iter().enumerate() {
            let of_topic = |seq: &u64| {
                self.events[*seq as usize - 1].topic == topic && !self.gone.contains(seq)
            };
            let mut all = (self.oldest..=self.events.len() as u64).rev();
            let head = all.clone().find(of_topic).unwrap_or(0);
            let wrong = all.find(|seq| self.gone.contains(seq) || *seq != head);
            let expect = |seq: u64| AppendOptions {
                expected_head: Some(ExpectedHead {
                    topic: Some((*name).into()),
                    seq: Seq::new(seq),
                }),
                ..AppendOptions::default()
            };
            if let Some(wrong) = wrong.filter(|wrong| *wrong != head) {
                let one = batch(&self.log, &[(name, "never")]);
                let refused = self.log.append(one, expect(wrong)).await;
                assert!(refused.is_err(), "{head} {wrong}");
            }
            let one = batch(&self.log, &[(name, "next")]);
            self.log.append(one, expect(head)).await.unwrap();
            let at = self.log.time_of(self.log.head()).await.unwrap().seconds;
            self.stored(topic, "next", at);
        }
    }

    /// Notes an event without a key and an id.
    fn stored(&mut self, topic: usize, body: &str, at: i64) {
        let (body, is_erased, is_notice) = (body.to_owned(), false, false);
        self.events.push(Stored { topic, key: 0, id: None, body, at, is_erased, is_notice });
    }

    /// A producer goes on where it was, and an older batch of it is a repeat with the seqs that it had, whatever became of
    /// its events.
    pub(super) async fn produce(&mut self) {
        let stream = match &self.stream {
            Some(stream) => stream.clone(),
            None => {
                let stream = self.log.open_producer("one", 0).await.unwrap();
                let last = self.batches.last().map(|(_, last)| Seq::new(*last));
                assert_eq!(stream.last_seq(), self.batches.len() as u64);
                assert_eq!(stream.last_event(), last);
                self.stream = Some(stream.clone());
                stream
            }
        };
        let at = self.now.load(Ordering::SeqCst);
        let first = self.events.len() as u64 + 1;
        let one = batch(&self.log, &[("tick.a", "made"), ("tick.a", "made")]);
        let next = self.batches.len() as u64 + 1;
        let done = stream.submit(next, one, None).await.unwrap().await.unwrap();
        assert_eq!((done.first, done.last), (Some(Seq::new(first)), Some(Seq::new(first + 1))));
        for _ in 0..2 {
            self.stored(3, "made", at);
        }
        self.batches.push((first, first + 1));
        let newest = self.batches.len().saturating_sub(60);
        let nth = self.rng.random_range(newest..self.batches.len());
        let again = batch(&self.log, &[("tick.a", "made"), ("tick.a", "made")]);
        let done = stream.submit(nth as u64 + 1, again, None).await.unwrap().await.unwrap();
        assert_eq!((done.stored, done.duplicates), (0, 2));
        assert_eq!(done.last_event.get(), self.batches[nth].1);
    }

    pub(super) async fn trim(&mut self) {
        let before = self.rng.random_range(self.oldest..=self.oldest + 400);
        let before = before.min(self.events.len() as u64);
        let trimmed = self.log.trim(Seq::new(before)).await.unwrap();
        let left = (self.oldest..before).filter(|seq| !self.gone.contains(seq));
        assert_eq!(trimmed.removed, left.count() as u64, "what rules took out was not trimmed");
        self.oldest = self.oldest.max(before);
        let oldest = self.oldest;
        self.gone.retain(|seq| *seq >= oldest);
    }

    /// One that is ordered and stopped somewhere, as by a full disk: taken back if it has erased nothing, and else gone on
    /// with.
    pub(super) async fn erase_and_take_back(&mut self) {
        let from = self.rng.random_range(self.oldest..=self.events.len() as u64);
        let end = (from + self.rng.random_range(1..250)).min(self.events.len() as u64 + 1);
        let seqs = vec![Seq::new(from)..Seq::new(end)];
        let id = Uuid::from_u128(self.rng.random());
        let at = Timestamp { seconds: self.now.load(Ordering::SeqCst), nanos: 0 };
        let order = EraseOrder { id, reason: "asked".to_owned(), at, seqs: seqs.clone() };
        let mut steps = self.rng.random_range(0..5);
        let log = self.log.clone();
        let stop = move || {
            let stopped = log.core().store.erase(&Arc::new(order), &mut |_| {
                steps -= 1;
                if steps < 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            (stopped, log.cancel_erasure(id))
        };
        let (stopped, cancelled) = tokio::task::spawn_blocking(stop).await.unwrap();
        let is_shell =
            |event: &Event<'_>| event.erased.is_some_and(|it| it.erasure == id.to_string());
        // From the store: memory may have them as they were.
        let (mut shells, mut at, end_seq) = (0, Seq::new(from), Seq::new(end));
        while at < end_seq {
            match self.log.core().store.read(at, end_seq, &Filter::ALL) {
                Ok(chunk) => {
                    for bytes in Events::new(&chunk.events) {
                        shells += u64::from(is_shell(&Event::parse(bytes.unwrap()).unwrap()));
                    }
                    at = chunk.end;
                }
                Err(StoreError::Removed(range)) => at = range.end,
                Err(error) => panic!("{error}"),
            }
        }
        match cancelled {
            Ok(()) => {
                assert!(stopped.is_err() && shells == 0, "{stopped:?}: {shells} shells");
                assert!(self.log.core().store.erasing().is_none());
                self.taken_back += 1;
            }
            // What was taken out may have been a shell.
            Err(CancelError::Begun { .. }) => {
                let is_known = shells > 0 || (from..end).any(|seq| self.gone.contains(&seq));
                assert!(is_known || self.memory.is_some(), "{from}..{end}: {stopped:?}");
                self.erase_these(id, seqs).await;
            }
            Err(error) => panic!("{error}"),
        }
    }

    pub(super) async fn erase(&mut self) {
        let from = self.rng.random_range(self.oldest..=self.events.len() as u64);
        let end = (from + self.rng.random_range(1..40)).min(self.events.len() as u64 + 1);
        let id = Uuid::from_u128(self.rng.random());
        self.erase_these(id, vec![Seq::new(from)..Seq::new(end)]).await;
    }

    async fn erase_these(&mut self, id: Uuid, seqs: Vec<std::ops::Range<Seq>>) {
        let (from, end) = (seqs[0].start.get(), seqs[0].end.get());
        let log = self.log.clone();
        let erasure = Erasure { id, seqs, reason: "asked".to_owned() };
        let done = tokio::task::spawn_blocking(move || log.erase(erasure, &mut |_| {}));
        let done = done.await.unwrap().unwrap();
        let gone = (from..end).filter(|seq| self.gone.contains(seq)).count() as u64;
        assert_eq!((done.trimmed, done.removed), (0, gone));
        for seq in (from..end).filter(|seq| !self.gone.contains(seq)) {
            self.events[seq as usize - 1].is_erased = true;
        }
        self.ids.retain(|(_, seq)| !(from..end).contains(seq));
        // Readers are told, each topic by an event of its own.
        let first = self.events.len() as u64 + 1;
        for seq in first..first + done.notices {
            let bytes = self.log.event(Seq::new(seq)).await.unwrap().unwrap();
            let event = Event::parse(&bytes).unwrap();
            let topic = TOPICS.iter().position(|topic| *topic == event.topic).unwrap();
            let (body, at) = (event.body.to_owned(), event.appended_at.unwrap().seconds);
            let it =
                Stored { topic, key: 0, id: None, body, at, is_erased: false, is_notice: true };
            self.events.push(it);
        }
    }

    pub(super) async fn reopen(&mut self) {
        if self.rng.random_bool(0.5) {
            self.log.close().await.unwrap();
        }
        self.stream = None;
        let old = std::mem::replace(&mut self.log, open(options()).0);
        drop(old);
        self.log = match &mut self.memory {
            Some(memory) => {
                let (again, recovered) = memory.crash();
                *memory = Arc::new(again);
                EventLog::open(memory.clone(), recovered, self.options.clone()).unwrap()
            }
            None => open_local(self.dir.path(), &self.options),
        };
        self.log.repeats_ready().await.unwrap();
    }
}
