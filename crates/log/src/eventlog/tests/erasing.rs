//! Erasing as callers see it: what readers get, what they are told, and what is a repeat.
#![allow(clippy::single_range_in_vec_init, reason = "lists of ranges, some of one")]

use std::collections::BTreeMap;
use std::ops::Range;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::*;
use crate::storage::faulty::{AppendFault, Faulty};
use crate::storage::{ErasePhase, EraseProgress, local};

fn erasure(id: u128, ranges: &[Range<u64>]) -> Erasure {
    let seqs = ranges.iter().map(|it| Seq::new(it.start)..Seq::new(it.end)).collect();
    Erasure { id: Uuid::from_u128(id), seqs, reason: "a \"person\" asked".to_owned() }
}

/// On a thread that may block, as callers do it.
async fn erase(log: &EventLog, erasure: Erasure) -> Result<Erased, EraseError> {
    let log = log.clone();
    tokio::task::spawn_blocking(move || log.erase(erasure, &mut |_| {})).await.unwrap()
}

async fn append(log: &EventLog, events: &[(&str, &str, &str)]) -> Appended {
    let mut batch = log.batch();
    for (id, topic, body) in events {
        batch.push(&event(id, topic, body)).unwrap();
    }
    let dedup = AppendOptions { dedup: true, ..AppendOptions::default() };
    log.append(batch, dedup).await.unwrap()
}

/// Seq, topic and body of all that matches; of a shell the reason.
async fn all(log: &EventLog, filter: Filter) -> Vec<(u64, String, String)> {
    let end = log.bounds().next();
    let mut reader = log.reader(log.bounds().oldest, filter.clone());
    let mut found = Vec::new();
    while reader.position() < end {
        let delivery = reader.next(end).await.unwrap();
        for bytes in Events::new(&delivery.chunk.events) {
            let event = Event::parse(bytes.unwrap()).unwrap();
            if filter.matches(event.topic) {
                let text =
                    event.erased.map_or(event.body.to_owned(), |it| format!("<{}>", it.reason));
                found.push((event.seq.get(), event.topic.to_owned(), text));
            }
        }
    }
    found
}

fn filter(pattern: &str) -> Filter {
    Filter::new(vec![tailmark_record::topic::Pattern::parse(pattern, &Limits::default()).unwrap()])
}

const GONE: &str = "<a \"person\" asked>";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_find_shells_and_are_told_in_their_topic() {
    let (log, _) = open(options());
    for n in 0..4 {
        append(&log, &[("", "a", "one"), ("", "b", "two"), ("", "a.x", &n.to_string())]).await;
    }
    // The caches have it.
    assert_eq!(all(&log, filter("a")).await.len(), 4);
    let cursor = log.cursor(Seq::new(5)).await;
    let mut phases = Vec::new();
    let (other, what) = (log.clone(), erasure(7, &[2..3, 4..6, 7..8, 10..11]));
    let (done, phases) = tokio::task::spawn_blocking(move || {
        let done = other.erase(what, &mut |now: EraseProgress| phases.push(now.phase)).unwrap();
        (done, phases)
    })
    .await
    .unwrap();
    assert!(phases.is_sorted() && phases.last() == Some(&ErasePhase::Telling), "{phases:?}");
    let id = Uuid::from_u128(7);
    let none = Erased { id, ..Erased::default() };
    let expected = Erased { events: 5, notices: 2, segments: 4, ..none };
    assert_eq!(done, expected);
    assert_eq!(log.erasing(), None);
    let notice =
        |seqs: &str| format!(r#"{{"erasure":"{id}","reason":"a \"person\" asked","seqs":{seqs}}}"#);
    let of_a = all(&log, filter("a")).await;
    let texts: Vec<_> = of_a.iter().map(|(seq, _, text)| (*seq, text.as_str())).collect();
    // All of topic `a` from 4 to 10 is gone.
    let told = notice("[[4,10]]");
    assert_eq!(texts, [(1, "one"), (4, GONE), (7, GONE), (10, GONE), (13, told.as_str())]);
    let of_b = all(&log, filter("b")).await;
    let texts: Vec<_> = of_b.iter().map(|(seq, _, text)| (*seq, text.as_str())).collect();
    let told = notice("[[2,5]]");
    assert_eq!(texts, [(2, GONE), (5, GONE), (8, "two"), (11, "two"), (14, told.as_str())]);
    assert_eq!(all(&log, filter("a.x")).await.len(), 4, "nobody else is told");
    let event = log.event(Seq::new(13)).await.unwrap().unwrap();
    let event = Event::parse(&event).unwrap();
    assert_eq!((event.kind, event.topic), ("tailmark.erased", "a"));
    // A cursor goes on exactly.
    assert_eq!(log.cursor(Seq::new(5)).await, cursor);
    let next = log.resolve(Cursor::parse(&cursor).unwrap()).await.unwrap();
    assert_eq!(next, Seq::new(6));
    // Again under another id: they are shells already, and nobody is told twice.
    let done = erase(&log, erasure(8, &[4..6])).await.unwrap();
    assert_eq!((done.events, done.already, done.notices), (0, 2, 0));
    assert_eq!(log.head(), Seq::new(14));
    // And others under the first id, with those that it erased before between them.
    let done = erase(&log, erasure(7, &[1..2, 8..9])).await.unwrap();
    assert_eq!((done.events, done.already, done.trimmed, done.notices), (2, 0, 0, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_makes_no_sense_is_refused_and_a_second_waits() {
    let (log, _) = open(options());
    append(&log, &[("", "a", "one"), ("", "b", "two")]).await;
    for bad in [&[][..], &[1..4], &[2..2], &[2..3, 1..2]] {
        let refused = erase(&log, erasure(1, bad)).await.unwrap_err();
        assert!(matches!(refused, EraseError::Invalid(_)), "{refused}");
    }
    let (other, second) = (log.clone(), log.clone());
    tokio::task::spawn_blocking(move || {
        let mut busy = None;
        let mut watch = |_| {
            busy.get_or_insert_with(|| second.erase(erasure(2, &[2..3]), &mut |_| {}));
            assert_eq!(second.erasing().unwrap().id, Uuid::from_u128(1));
        };
        other.erase(erasure(1, &[1..2]), &mut watch).unwrap();
        let id = Uuid::from_u128(1);
        assert!(matches!(busy, Some(Err(EraseError::Busy { id: found })) if found == id));
    })
    .await
    .unwrap();
    log.close().await.unwrap();
    assert!(matches!(erase(&log, erasure(3, &[1..2])).await, Err(EraseError::Closing)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeat_of_what_was_erased_is_stored_and_others_are_still_told() {
    let (log, engine) = open(options());
    let events = [("one", "a", "1"), ("two", "a", "2"), ("three", "a", "3")];
    append(&log, &events).await;
    assert_eq!(append(&log, &events).await.duplicates, 3);
    erase(&log, erasure(1, &[2..3])).await.unwrap();
    let again = append(&log, &events).await;
    assert_eq!((again.stored, again.duplicates), (1, 2));
    // Over a restart too.
    erase(&log, erasure(2, &[3..4])).await.unwrap();
    log.close().await.unwrap();
    let (memory, recovered) = engine.reopen();
    let log = EventLog::open(Arc::new(memory), recovered, options()).unwrap();
    let again = append(&log, &events).await;
    assert_eq!((again.stored, again.duplicates), (1, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_was_cut_goes_on_by_itself_and_tells_once() {
    let memory = Arc::new(engine(memory::Options::default()));
    let faulty = Arc::new(Faulty::new(memory.clone()));
    let log = EventLog::open(faulty.clone(), Recovered::default(), options()).unwrap();
    for _ in 0..3 {
        append(&log, &[("", "a", "one"), ("", "b", "two")]).await;
    }
    // The notice is stored, and nobody hears of it.
    faulty.fail_append(0, AppendFault::StoreAndStop);
    let failed = erase(&log, erasure(1, &[1..4])).await.unwrap_err();
    assert!(matches!(failed, EraseError::Untold(_)), "{failed}");
    assert_eq!(log.erasing().unwrap().phase, ErasePhase::Telling);
    drop(log);
    let (memory, recovered) = memory.crash();
    let log = EventLog::open(Arc::new(memory), recovered, options()).unwrap();
    assert!(log.erasing().is_some() || log.bounds().head == Seq::new(8));
    while log.erasing().is_some() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let texts: Vec<_> = all(&log, Filter::ALL).await.into_iter().map(|(.., text)| text).collect();
    assert_eq!(&texts[..6], [GONE, GONE, GONE, "two", "one", "two"]);
    assert_eq!(texts.len(), 8, "one notice a topic: {texts:?}");
}

/// Readers on other threads see each event once, as it was or as a shell.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_beside_an_erasure_miss_nothing() {
    let (log, _) = open(Options { recent_bytes: 3_000, ..options() });
    for _ in 0..200 {
        append(&log, &[("", "a", "one"), ("", "b", "two"), ("", "c", "three")]).await;
    }
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..4u64 {
        let mut reader = log.reader(Seq::FIRST, Filter::ALL);
        tasks.spawn(async move {
            while reader.position() <= Seq::new(600) {
                let next = reader.position();
                let delivery = reader.next(next.plus(n * 7 + 1)).await.unwrap();
                assert_eq!(delivery.chunk.first, next);
                for event in Events::new(&delivery.chunk.events) {
                    let event = Event::parse(event.unwrap()).unwrap();
                    assert!(event.is_erased() == event.body.is_empty());
                }
                tokio::task::yield_now().await;
            }
        });
    }
    for n in 0..20 {
        let from = 1 + n * 29;
        erase(&log, erasure(u128::from(n), &[from..from + 5, from + 9..from + 10])).await.unwrap();
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}

/// Files below a directory that hold a text.
fn files_with(dir: &std::path::Path, text: &str) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_with(&path, text));
        } else {
            // One that goes meanwhile holds nothing.
            let bytes = std::fs::read(&path).unwrap_or_default();
            if memchr::memmem::find(&bytes, text.as_bytes()).is_some() {
                found.push(path);
            }
        }
    }
    found
}

/// Whatever the field, whatever the size and the codec: nothing is found in any file, and nothing is read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_field_is_found_in_any_file() {
    use crate::storage::segment::Compression;
    for compression in [Compression::None, Compression::Lz4] {
        let dir = tempfile::tempdir().unwrap();
        let disk = local::Options {
            slot_bytes: 1 << 20,
            compression,
            min_free_bytes: 0,
            ..local::Options::default()
        };
        let (engine, recovered) = local::open(dir.path(), disk.clone()).unwrap();
        let log = EventLog::open(engine, recovered, options()).unwrap();
        let large = |n: u64| format!("large{n:05}{}", "0123456789".repeat(20_000));
        let word = |field: &str, n: u64| format!("{field}{n:05}quixotic");
        for n in 1..=60u64 {
            let mut batch = log.batch();
            let (id, body, key) = (word("id", n), word("body", n), word("key", n));
            let (kind, value, data, large) =
                (word("kind", n), word("header", n), word("data", n), large(n));
            let one = Event {
                id: &id,
                topic: "t.a",
                body: &body,
                key: &key,
                kind: &kind,
                headers: vec![("h", &value)],
                ..Event::default()
            };
            batch.push(&one).unwrap();
            batch.push(&Event { topic: "t.b", data: data.as_bytes(), ..Event::default() }).unwrap();
            batch.push(&Event { topic: "t.c", body: &large, ..Event::default() }).unwrap();
            log.append(batch, AppendOptions { dedup: true, ..AppendOptions::default() })
                .await
                .unwrap();
        }
        let words = |n: u64| {
            let fields = ["id", "body", "key", "kind", "header", "data"];
            let mut words: Vec<_> = fields.iter().map(|field| word(field, n)).collect();
            words.push(format!("large{n:05}"));
            words
        };
        let plain = compression == Compression::None;
        for n in [1, 30, 60] {
            for word in words(n) {
                assert!(!plain || !files_with(dir.path(), &word).is_empty(), "{word}");
            }
        }
        let done = erase(&log, erasure(1, &[1..4, 88..91, 178..181])).await.unwrap();
        assert_eq!((done.events, done.notices), (9, 3));
        log.close().await.unwrap();
        drop(log);
        for n in [1, 30, 60] {
            for word in words(n) {
                assert_eq!(
                    files_with(dir.path(), &word),
                    [""; 0].map(std::path::PathBuf::from),
                    "{word}"
                );
            }
        }
        assert!(!plain || words(2).iter().all(|word| !files_with(dir.path(), word).is_empty()));
        // Those that are compressed are read.
        let (engine, recovered) = local::open(dir.path(), disk).unwrap();
        let log = EventLog::open(engine, recovered, options()).unwrap();
        let mut next = Seq::FIRST;
        while next < Seq::new(181) {
            let bytes = log.event(next).await.unwrap().unwrap();
            let is_gone = matches!(next.get(), 1..4 | 88..91 | 178..181);
            let event = Event::parse(&bytes).unwrap();
            assert_eq!(event.is_erased(), is_gone);
            assert!(!is_gone || bytes.len() < 400, "{}", bytes.len());
            next = next.next();
        }
        log.close().await.unwrap();
    }
}

/// The log on disk against a plain list: appends, repeats, trims, erasures and reopenings at random.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_is_what_a_plain_list_says() {
    for seed in 0..12 {
        let mut rng = StdRng::seed_from_u64(seed);
        let dir = tempfile::tempdir().unwrap();
        let disk = local::Options {
            slot_bytes: 256 << 10,
            min_free_bytes: 0,
            ..local::Options::default()
        };
        let open_log = || {
            let begun = std::time::Instant::now();
            loop {
                match local::open(dir.path(), disk.clone()) {
                    Err(crate::storage::StoreError::Locked { .. })
                        if begun.elapsed() < Duration::from_secs(60) =>
                    {
                        std::thread::yield_now()
                    }
                    opened => break opened.unwrap(),
                }
            }
        };
        let (engine, recovered) = open_log();
        let mut log = EventLog::open(engine, recovered, options()).unwrap();
        // Topic, and what it says: `None` = erased, or a notice, which says more than the list knows.
        let mut list: Vec<(String, Option<String>)> = Vec::new();
        let mut names: BTreeMap<u32, u64> = BTreeMap::new();
        let (mut oldest, mut erasures) = (1u64, 0u128);
        for _ in 0..40 {
            let next = list.len() as u64 + 1;
            match rng.random_range(0..12) {
                0 => {
                    log.close().await.unwrap();
                    drop(log);
                    let (engine, recovered) = open_log();
                    log = EventLog::open(engine, recovered, options()).unwrap();
                }
                1 => {
                    let before = rng.random_range(oldest..=next.min(oldest + 40));
                    oldest = log.trim(Seq::new(before)).await.unwrap().oldest.get();
                }
                2 | 3 if next > 1 => {
                    let (mut ranges, mut from) = (Vec::new(), rng.random_range(1..next));
                    while from < next && ranges.len() < 4 {
                        let end = (from + rng.random_range(1..20)).min(next);
                        ranges.push(from..end);
                        from = end + rng.random_range(0..60);
                    }
                    erasures += 1;
                    let named: Vec<u64> = ranges.iter().cloned().flatten().collect();
                    let done = erase(&log, erasure(erasures, &ranges)).await.unwrap();
                    let (mut events, mut already, mut gone) = (0, 0, 0);
                    let mut topics = std::collections::BTreeSet::new();
                    for seq in named {
                        names.retain(|_, at| *at != seq);
                        let (topic, said) = &mut list[seq as usize - 1];
                        match said.as_deref() {
                            _ if seq < oldest => gone += 1,
                            None => already += 1,
                            Some(_) => {
                                events += 1;
                                topics.insert(topic.clone());
                            }
                        }
                        *said = None;
                    }
                    assert_eq!(
                        (done.events, done.already, done.trimmed),
                        (events, already, gone),
                        "{seed}"
                    );
                    assert_eq!(done.notices, topics.len() as u64);
                    // One notice a topic, in the order of their names; they can be erased too.
                    list.extend(topics.into_iter().map(|topic| (topic, Some("notice".to_owned()))));
                }
                _ => {
                    for _ in 0..rng.random_range(1..4) {
                        let topic = format!("t.{}", rng.random_range(0..4));
                        let body = "x".repeat(rng.random_range(0..4_000));
                        if rng.random_bool(0.4) {
                            let name = rng.random_range(0..20);
                            let done =
                                append(&log, &[(&format!("id {name}"), "named", "same")]).await;
                            assert_eq!(
                                done.duplicates == 1,
                                names.contains_key(&name),
                                "{seed}: {name}"
                            );
                            if done.stored == 1 {
                                list.push(("named".into(), Some("same".into())));
                                names.insert(name, list.len() as u64);
                            }
                        } else {
                            append(&log, &[("", &topic, &body)]).await;
                            list.push((topic, Some(body)));
                        }
                    }
                }
            }
            let found = all(&log, Filter::ALL).await;
            assert_eq!(found.len() as u64, list.len() as u64 + 1 - oldest, "{seed}");
            for ((seq, topic, text), (at, (expected, said))) in
                found.iter().zip((oldest..).zip(&list[oldest as usize - 1..]))
            {
                assert_eq!((*seq, topic), (at, expected), "{seed}");
                match said.as_deref() {
                    Some("notice") => assert!(text.starts_with("{\"erasure\""), "{text}"),
                    Some(said) => assert_eq!(text, said),
                    None => assert_eq!(text, GONE),
                }
            }
        }
        log.close().await.unwrap();
        assert!(
            local::survey(dir.path(), &crate::storage::disk::Disk::real())
                .unwrap()
                .damage
                .is_empty()
        );
    }
}

/// One topic of ten, a million events among ten million, each of them named.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: by hand, in release"]
async fn a_million_among_ten_million() {
    const EVENTS: u64 = 10_000_000;
    let dir = tempfile::tempdir().unwrap();
    let (engine, recovered) = local::open(dir.path(), local::Options::default()).unwrap();
    let log = EventLog::open(engine, recovered, Options::default()).unwrap();
    let body = "0123456789".repeat(15);
    for first in (0..EVENTS).step_by(5_000) {
        let mut batch = log.batch();
        for n in first..first + 5_000 {
            let topic = format!("topic.{}", n % 10);
            batch.push(&Event { topic: &topic, body: &body, ..Event::default() }).unwrap();
        }
        log.append(batch, AppendOptions::default()).await.unwrap();
    }
    let ranges: Vec<_> = (0..EVENTS / 10).map(|n| n * 10 + 1..n * 10 + 2).collect();
    let (begun, other) = (std::time::Instant::now(), log.clone());
    let mut phase = None;
    let mut watch = move |now: EraseProgress| {
        if phase.replace(now.phase) != Some(now.phase) {
            println!("{:?} {:?}", begun.elapsed(), now);
        }
    };
    let erase = move || other.erase(erasure(1, &ranges), &mut watch);
    let done = tokio::task::spawn_blocking(erase).await.unwrap().unwrap();
    let took = begun.elapsed();
    println!("{took:?} {done:?}");
    assert_eq!((done.events, done.notices), (EVENTS / 10, 1));
    assert!(took < Duration::from_secs(60), "{took:?}");
    log.close().await.unwrap();
}
