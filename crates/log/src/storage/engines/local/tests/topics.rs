//! Topics: pages against a plain map, what they cost, and what damage does.

use std::collections::BTreeMap;

use super::*;
use crate::storage::{Store, TopicQuery, TopicStats};
use crate::testing::{commit_of, time_of, topic_head, topics_of};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tailmark_record::Limits;
use tailmark_record::topic::Pattern;

type Topics = BTreeMap<String, TopicStats>;

fn filter(patterns: &[&str]) -> Filter {
    let parse = |text: &&str| Pattern::parse(text, &Limits::default()).unwrap();
    Filter::new(patterns.iter().map(parse).collect())
}

fn store(engine: &LocalEngine, topics: &[String], body_len: usize) {
    let commit = commit_of(engine, topics.iter().cloned(), |_| "x".repeat(body_len));
    append(engine, commit).unwrap();
}

fn trim_to(engine: &LocalEngine, oldest: Seq) {
    append(engine, Commit { oldest, ..commit(engine, 0) }).unwrap();
    engine.reclaim().unwrap();
}

/// Every event that was ever stored: its topic and when it was appended.
#[derive(Default)]
struct Model(Vec<(String, Timestamp)>);

impl Model {
    fn store(&mut self, engine: &LocalEngine, topics: &[String], body_len: usize) {
        let at = time_of(engine.bounds().next());
        store(engine, topics, body_len);
        self.0.extend(topics.iter().map(|topic| (topic.clone(), at)));
    }

    fn topics(&self, oldest: Seq, prefix: &str, filter: &Filter) -> Topics {
        let mut topics = Topics::new();
        let events = (1..).map(Seq::new).zip(&self.0).filter(|(seq, _)| *seq >= oldest);
        for (seq, (topic, at)) in events {
            if topic.starts_with(prefix) && filter.matches(topic) {
                let stats = topics.entry(topic.clone()).or_default();
                let events = stats.events + 1;
                *stats = TopicStats { events, last_seq: seq, last_at: *at };
            }
        }
        topics
    }
}

fn random_topic(rng: &mut StdRng) -> String {
    match rng.random_range(0..10) {
        // Known before and after, and new ones all the time.
        0..4 => format!("a.{}", rng.random_range(0..20)),
        4..6 => format!("a.{}.x{}", rng.random_range(0..5), rng.random_range(0..50)),
        6..8 => format!("b{}.{:05}", rng.random_range(0..3), rng.random_range(0..100_000)),
        8 => format!("größe.{}", rng.random_range(0..300)),
        _ => "c".to_owned(),
    }
}

/// Appends, trims, seals and restarts in any order; after each, whatever is asked of topics is what a
/// plain map says.
#[test]
fn pages_are_what_a_plain_map_says_whatever_happens_between_them() {
    for seed in 0..3 {
        let mut rng = StdRng::seed_from_u64(seed);
        let dir = tempfile::tempdir().unwrap();
        let open_again = || open(dir.path(), options()).unwrap().0;
        let (mut engine, mut model) = (open_again(), Model::default());
        let (mut partly_trimmed, mut restarts) = (0, 0);
        for step in 0..120 {
            match rng.random_range(0..20) {
                0..14 => {
                    for _ in 0..rng.random_range(1..12) {
                        let count = rng.random_range(1..40);
                        let topics: Vec<_> = (0..count).map(|_| random_topic(&mut rng)).collect();
                        model.store(&engine, &topics, rng.random_range(0..300));
                    }
                }
                14..17 => {
                    let bounds = engine.bounds();
                    let readable = bounds.oldest.distance_to(bounds.next());
                    // A little, mostly: so that parts of segments are trimmed.
                    let most = if rng.random_range(0..5) == 0 { readable } else { readable / 8 };
                    trim_to(&engine, bounds.oldest.plus(rng.random_range(0..=most)));
                }
                17..19 => eventually("sealing", || engine.status().unsealed_slots <= 1),
                _ => {
                    if rng.random_range(0..2) == 0 {
                        engine.close().unwrap();
                    }
                    vanish(engine);
                    engine = open_again();
                    restarts += 1;
                }
            }
            let bounds = engine.bounds();
            let is_cut = |it: &Arc<_>| -> bool {
                let it: &crate::storage::segment::Segment = it;
                it.first() < bounds.oldest && bounds.oldest < it.end()
            };
            partly_trimmed += usize::from(engine.view().segments.iter().any(is_cut));
            let (prefix, patterns): (&str, &[&str]) = match rng.random_range(0..8) {
                0..3 => ("", &[]),
                3 => ("a.", &[]),
                4 => ("", &["a.*", "c"]),
                5 => ("b", &["b1.>", "a.>", "*.00001"]),
                6 => ("a.1", &["a.>"]),
                _ => ("", &["a.3", "größe.>", "none"]),
            };
            let (wanted, limit) = (filter(patterns), [1, 7, 100, 5_000][rng.random_range(0..4)]);
            let expected = model.topics(bounds.oldest, prefix, &wanted);
            let found = topics_of(&*engine, prefix, &wanted, limit).unwrap();
            assert!(found == expected, "seed {seed} step {step} {prefix:?} {patterns:?} {limit}");
            for _ in 0..3 {
                let topic = random_topic(&mut rng);
                let known = model.topics(bounds.oldest, &topic, &Filter::one(&topic));
                let head = known.get(&topic).map_or(Seq::ZERO, |stats| stats.last_seq);
                assert_eq!(topic_head(&*engine, &topic).unwrap(), head, "seed {seed} step {step}");
            }
        }
        // The control: a map that lacks an event is another one.
        let all = topics_of(&*engine, "", &Filter::ALL, 100).unwrap();
        store(&engine, &["c".to_owned()], 0);
        assert_ne!(topics_of(&*engine, "", &Filter::ALL, 100).unwrap(), all);
        assert!(partly_trimmed > 5 && restarts > 0, "{partly_trimmed} {restarts}");
    }
}

/// Reads of footers, and the bytes of memory that topics take.
struct Counted {
    engine: Arc<LocalEngine>,
    reads: Arc<AtomicU64>,
}

impl Counted {
    fn open(dir: &Path, slot_bytes: u64) -> Counted {
        let reads = Arc::new(AtomicU64::new(0));
        let counter = reads.clone();
        let disk = Disk::watched(Arc::new(move |action, path| {
            if action == "read" && path.ends_with("footer") {
                counter.fetch_add(1, Ordering::SeqCst);
            }
        }));
        let options = Options { disk, slot_bytes, ..options() };
        Counted { engine: open(dir, options).unwrap().0, reads }
    }

    /// What a question answers, and how many pages were read for it.
    fn ask<T>(&self, question: impl FnOnce(&dyn Engine) -> T) -> (T, u64) {
        let before = self.reads.load(Ordering::SeqCst);
        let answer = question(&*self.engine);
        (answer, self.reads.load(Ordering::SeqCst) - before)
    }
}

#[test]
fn a_page_of_200_000_topics_costs_what_it_returns() {
    many_topics(200_000, 4 << 20);
}

/// `cargo test --release -p tailmark-log --lib -- --ignored --nocapture millions_of_topics`.
#[test]
#[ignore = "takes minutes"]
fn a_page_of_millions_of_topics_costs_what_it_returns() {
    many_topics(4_000_000, 64 << 20);
}

fn query<'a>(from: &'a str, filter: &'a Filter, limit: usize) -> TopicQuery<'a> {
    TopicQuery { from, prefix: "", filter, limit }
}

fn many_topics(count: u64, slot_bytes: u64) {
    let dir = tempfile::tempdir().unwrap();
    let name = |n: u64| format!("site.{}.device.{n:08}", n % 97);
    {
        let engine = Counted::open(dir.path(), slot_bytes).engine;
        for begin in (0..count).step_by(1_000) {
            // Not in the order of their names.
            let topics: Vec<_> = (begin..begin + 1_000).map(|n| name(n * 7_919 % count)).collect();
            store(&engine, &topics, 40);
        }
        eventually("sealing", || engine.status().unsealed_slots <= 1);
        engine.close().unwrap();
    }
    let counted = Counted::open(dir.path(), slot_bytes);
    let segments = counted.engine.view().segments.len() as u64;
    assert!(segments >= 3, "{segments}");
    let at_start = counted.reads.load(Ordering::SeqCst);
    assert!(at_start <= segments * 2, "{at_start} reads of {segments} footers at the start");

    // Once, what is not sealed is indexed.
    let mut from: Box<str> = Box::default();
    let all = Filter::ALL;
    while counted.engine.topics(&query("", &all, 1)).unwrap().topics.is_empty() {}
    let (mut listed, mut most) = (0u64, 0);
    for _ in 0..50 {
        let ask = |engine: &dyn Engine| engine.topics(&query(&from, &all, 100)).unwrap();
        let (page, reads) = counted.ask(ask);
        assert_eq!(page.topics.len(), 100);
        listed += 100;
        most = most.max(reads);
        from = page.next.unwrap();
    }
    // To the place in each segment, and on as far as 100 names go.
    assert!(most <= segments * 7, "{most} reads a page of {segments} segments");
    let near: Vec<_> = (0..97u64).map(|n| name(n * (count / 97))).collect();
    let (_, reads) = counted.ask(|engine| {
        for topic in &near {
            assert_ne!(topic_head(engine, topic).unwrap(), Seq::ZERO, "{topic}");
            assert_eq!(topic_head(engine, &format!("{topic}x")).unwrap(), Seq::ZERO);
        }
    });
    let asked = near.len() as u64;
    assert!(reads <= segments + asked * 6, "{reads} reads for {asked} that are there");

    // A pattern goes to where its beginning lies; one without looks at all, a part at a time.
    let narrow = filter(&["site.5.device.*"]);
    let (page, reads) = counted.ask(|engine| engine.topics(&query("", &narrow, 100)).unwrap());
    assert_eq!(page.topics.len(), 100);
    assert!(reads <= segments * 7, "{reads}");
    let none = filter(&["*.*.*.none"]);
    let (page, reads) = counted.ask(|engine| engine.topics(&query("", &none, 100)).unwrap());
    assert!(page.topics.is_empty() && page.next.is_some());
    assert!(reads <= segments * 7 + 16_384 / 50, "{reads} reads for a page of nothing");

    let bytes = counted.engine.cache.status().filter_bytes;
    assert!(bytes > 0 && bytes <= count * 2 + segments * 64, "{bytes} bytes for {count} topics");
    assert!(listed < count);
}

#[test]
fn the_first_question_for_a_head_does_no_more_than_a_later_one() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Counted::open(dir.path(), 64 << 20).engine;
    for n in 0..48 {
        store(&engine, &[format!("first.{n}"), "last".to_owned()], 500_000);
    }
    // Of 48 MB that are not sealed one question indexes a part, whose bytes are bounded.
    let mut asked = 1;
    while engine.topic_head("first.0").unwrap().is_none() {
        asked += 1;
    }
    assert!(asked >= 3, "{asked}");
    assert_eq!(engine.topic_head("first.0").unwrap(), Some(Seq::FIRST));
    assert_eq!(engine.topic_head("last").unwrap(), Some(engine.bounds().head));
    assert_eq!(engine.topic_head("none").unwrap(), Some(Seq::ZERO));
}

#[test]
fn damage_in_a_table_is_told_with_its_range_and_hides_no_event() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = reopen(dir.path());
    let mut model = Model::default();
    let mut rng = StdRng::seed_from_u64(7);
    for _ in 0..60 {
        let topics: Vec<_> = (0..50).map(|_| random_topic(&mut rng)).collect();
        model.store(&engine, &topics, 200);
    }
    eventually("sealing", || engine.status().unsealed_slots <= 1);
    let segments = engine.view().segments.clone();
    assert!(segments.len() >= 2, "{}", segments.len());
    let (range, footer) = {
        let segment = &segments[1];
        (segment.first()..segment.end(), segment.dir().join("footer"))
    };
    drop(segments);
    vanish(engine);
    let whole = std::fs::read(&footer).unwrap();
    let name = "größe.".as_bytes();
    let at = whole.windows(name.len()).rposition(|bytes| bytes == name).unwrap();
    let mut bad = whole;
    bad[at] ^= 4;
    std::fs::write(&footer, bad).unwrap();
    let (engine, _) = reopen(dir.path());
    let is_told = |error: StoreError| match error {
        StoreError::Damaged(damage) => {
            let found = (damage.from..damage.to.next(), damage.file.clone());
            assert_eq!(found, (range.clone(), footer.clone()), "{damage}");
        }
        other => panic!("{other}"),
    };
    is_told(topics_of(&*engine, "", &Filter::ALL, 100).unwrap_err());
    is_told(topics_of(&*engine, "grö", &Filter::ALL, 1).unwrap_err());
    // What does not need the page is answered.
    let some = topics_of(&*engine, "zzz", &Filter::ALL, 1).unwrap();
    assert_eq!(some, Topics::new());
    for patterns in [&["größe.>"][..], &["größe.7", "c"], &["a.*"]] {
        let filter = filter(patterns);
        let (mut at, mut found) = (Seq::FIRST, 0);
        while at < engine.bounds().next() {
            let chunk = engine.read(at, engine.bounds().next(), &filter).unwrap();
            let events = Events::new(&chunk.events).map(Result::unwrap);
            found += events.filter(|it| filter.matches(Event::topic_of(it).unwrap())).count();
            at = chunk.end;
        }
        assert_eq!(found, model.0.iter().filter(|(topic, _)| filter.matches(topic)).count());
        let (mut end, mut seen) = (engine.bounds().next(), 0);
        while end > Seq::FIRST {
            let back = engine.look_back(Seq::FIRST..end, &filter, u64::MAX).unwrap();
            (end, seen) = (back.from, seen + back.events);
        }
        assert_eq!(seen, found as u64, "{patterns:?}");
    }
    let trouble = engine.status().trouble.unwrap_or_default();
    assert!(trouble.contains("page of topics"), "{trouble}");
}
