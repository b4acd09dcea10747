use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use proptest::prelude::*;

use super::super::read::sift;
use super::super::{LocalEngine, Options, open};
use super::*;
use crate::chain::Said;
use crate::storage::disk::Disk;
use crate::storage::{Commit, Journal, Links, Store};
use crate::testing::{append, copy_dir, time_of};
use tailmark_record::topic::Pattern;
use tailmark_record::{CursorMint, Limits, Stamp, write_entry};

fn options() -> Options {
    Options { slot_bytes: 4 << 20, min_free_bytes: 0, ..Options::default() }
}

fn body_of(seq: Seq, len: usize) -> String {
    format!("{seq} {}", "x".repeat(len))
}

/// Appends a commit with an event of each topic.
fn store(engine: &LocalEngine, topics: &[&str], body_len: usize) {
    let bounds = Store::bounds(engine);
    let first = bounds.next();
    let mint = CursorMint::new(Journal::id(engine), bounds.generations.current().generation);
    let Links { head: mut link, oldest_tag } = Store::links(engine);
    let mut events = Vec::new();
    for (at, topic) in (0..).zip(topics) {
        let seq = first.plus(at);
        let (id, body) = (format!("id-{seq}"), body_of(seq, body_len));
        let mut client_part = Vec::new();
        Event { id: &id, topic, body: &body, ..Event::default() }
            .write_client_part(&mut client_part);
        link = link.then(seq, time_of(first), Said::of_part(&client_part, "").unwrap());
        let (tag, appended_at) = (link.tag(), time_of(first).into());
        let stamp = Stamp { seq, mint: &mint, tag, appended_at, fill_at: true, fill_id: None };
        write_entry(&mut events, &client_part, &stamp);
    }
    let state = engine.wants_state(events.len()).then(Bytes::new);
    let (count, appended_at) = (topics.len() as u32, time_of(first));
    let (events, delta, oldest) = (events.into(), Bytes::new(), bounds.oldest);
    let commit =
        Commit { first, count, appended_at, events, delta, state, link, oldest, oldest_tag };
    append(engine, commit).unwrap();
}

fn filter(patterns: &[&str]) -> Filter {
    let parse = |text: &&str| Pattern::parse(text, &Limits::default()).unwrap();
    Filter::new(patterns.iter().map(parse).collect())
}

/// The events of a chunk that match, whole.
fn matching(events: &[u8], filter: &Filter) -> Vec<Vec<u8>> {
    let events = Events::new(events).map(Result::unwrap);
    let matches = |event: &&[u8]| filter.matches(Event::topic_of(event).unwrap());
    events.filter(matches).map(<[u8]>::to_vec).collect()
}

/// What a reader gets: the events that match, and the damages that it was told of and passed.
type Answer = (Vec<Vec<u8>>, Vec<(Seq, Seq)>);

fn read_with(
    range: Range<Seq>,
    filter: &Filter,
    mut read: impl FnMut(Seq, Seq) -> Result<Chunk, StoreError>,
) -> Answer {
    let (mut found, mut damages, mut at) = (Vec::new(), Vec::new(), range.start);
    let mut end = range.end;
    while at < range.end {
        match read(at, end) {
            Ok(chunk) => {
                assert!(chunk.first == at && chunk.end > at && chunk.end <= end, "contiguous");
                found.extend(matching(&chunk.events, filter));
                at = chunk.end;
            }
            // As a feed does: what lies before it first, then the gap.
            Err(StoreError::Damaged(damage)) if damage.from > at => end = damage.from,
            Err(StoreError::Damaged(damage)) => {
                damages.push((damage.from, damage.to));
                at = damage.to.next();
            }
            Err(error) => panic!("{error:?}"),
        }
        if at >= end {
            end = range.end;
        }
    }
    (found, damages)
}

fn indexed(engine: &LocalEngine, range: Range<Seq>, filter: &Filter) -> Answer {
    read_with(range, filter, |from, end| Store::read(engine, from, end, filter))
}

/// The same by the walk.
fn walked(engine: &LocalEngine, range: Range<Seq>, filter: &Filter) -> Answer {
    let view = engine.view();
    read_with(range, filter, |from, end| {
        let slot = view.slots.iter().find(|slot| from < slot.end()).unwrap();
        sift(slot, from, end.min(slot.end()), filter)
    })
}

fn slot_topics(engine: &LocalEngine) -> Vec<Arc<SlotTopics>> {
    engine.unsealed.0.lock().values().cloned().collect()
}

fn newest(engine: &LocalEngine) -> Arc<SlotTopics> {
    slot_topics(engine).pop().unwrap()
}

/// Spoils the index.
fn spoil(topics: &SlotTopics, change: impl Fn(&mut Run)) {
    let mut built = topics.built.write();
    let mut runs: Vec<_> = built.runs.iter().map(|run| run.merge(&run.nothing())).collect();
    runs.iter_mut().for_each(change);
    *built = Arc::new(Built { upto: built.upto, runs: runs.into_iter().map(Arc::new).collect() });
}

fn whole(engine: &LocalEngine) -> Range<Seq> {
    let bounds = Store::bounds(engine);
    bounds.oldest..bounds.next()
}

#[derive(Clone, Debug)]
enum Step {
    Append(Vec<String>, usize),
    Read(Vec<String>, prop::sample::Index, prop::sample::Index),
}

fn step() -> impl Strategy<Value = Step> {
    let topics = prop::collection::vec("[abc]{1,2}(\\.[ab]){0,2}", 1..40);
    let patterns = prop::collection::vec("[abc*]{1}(\\.[ab*]){0,2}|[ab]\\.>|aa|c\\.b", 1..5);
    let place = any::<prop::sample::Index>;
    prop_oneof![
        3 => (topics, prop_oneof![0..300usize, Just(20_000)]).prop_map(|(t, len)| Step::Append(t, len)),
        2 => (patterns, place(), place()).prop_map(|(p, from, end)| Step::Read(p, from, end)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_the_index_finds_is_what_the_walk_finds(steps in prop::collection::vec(step(), 4..40)) {
        let dir = tempfile::tempdir().unwrap();
        let (engine, _) = open(dir.path(), Options { slot_bytes: 32 << 20, ..options() }).unwrap();
        store(&engine, &["a", "b"], 10);
        for step in &steps {
            match step {
                Step::Append(topics, len) => {
                    let topics: Vec<_> = topics.iter().map(String::as_str).collect();
                    store(&engine, &topics, *len);
                }
                Step::Read(patterns, from, end) => {
                    let patterns: Vec<_> = patterns.iter().map(String::as_str).collect();
                    let all = whole(&engine);
                    let count = to_u32(all.start.distance_to(all.end)) as usize;
                    let from = all.start.plus(from.index(count) as u64);
                    let rest = to_u32(from.distance_to(all.end)) as usize;
                    let range = from..from.plus(1 + end.index(rest) as u64);
                    let filter = filter(&patterns);
                    let found = indexed(&engine, range.clone(), &filter);
                    prop_assert!(found.1.is_empty());
                    prop_assert_eq!(found, walked(&engine, range, &filter));
                }
            }
        }
        let filter = filter(&["*", "*.>"]);
        let found = indexed(&engine, whole(&engine), &filter).0.len() as u64;
        prop_assert_eq!(found, Store::bounds(&*engine).head.get());
        // It was the index that was asked.
        prop_assert!(newest(&engine).built().upto > Seq::FIRST);
    }
}

/// A log of small commits, of topics `t.0` to `t.<topics - 1>` in turn.
fn log(dir: &Path, options: Options, events: usize, topics: usize) -> Arc<LocalEngine> {
    let (engine, _) = open(dir, options).unwrap();
    let names: Vec<_> = (0..topics).map(|topic| format!("t.{topic}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).cycle().take(events).collect();
    names.chunks(7).for_each(|topics| store(&engine, topics, 50));
    engine
}

#[test]
fn an_index_that_lacks_events_would_be_found_and_one_that_is_wrong_of_them_shows_nothing_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let engine = log(dir.path(), options(), 2_000, 100);
    let one = filter(&["t.42"]);
    let range = whole(&engine);
    let expected = walked(&engine, range.clone(), &one);
    assert_eq!((expected.0.len(), &indexed(&engine, range.clone(), &one)), (20, &expected));
    let topics = newest(&engine);
    assert_eq!(topics.built().upto, range.end);
    for spoiled in [
        |entry: &mut Entry| entry.crc ^= 1,
        |entry: &mut Entry| entry.offset += 1,
        |entry: &mut Entry| entry.len -= 1,
        |entry: &mut Entry| entry.len = u32::MAX >> 1,
        |entry: &mut Entry| entry.offset = u32::MAX,
    ] {
        let before = topics.built();
        spoil(&topics, |run| run.entries_mut().iter_mut().skip(3).step_by(5).for_each(spoiled));
        assert_eq!(indexed(&engine, range.clone(), &one), expected, "the walk is asked");
        *topics.built.write() = before;
    }
    spoil(&topics, |run| *run = run.nothing());
    assert_ne!(indexed(&engine, range, &one), expected, "the comparison sees");
}

#[test]
fn a_read_costs_what_it_returns_in_small_commits_as_in_large_ones() {
    for (in_commit, topics) in [(1, 500), (2_000, 500)] {
        let dir = tempfile::tempdir().unwrap();
        let reads = Arc::new(AtomicUsize::new(0));
        let disk = {
            let reads = Arc::clone(&reads);
            Disk::watched(Arc::new(move |action, _| {
                reads.fetch_add(usize::from(action == "read"), Ordering::SeqCst);
            }))
        };
        let (engine, _) = open(dir.path(), Options { disk, ..options() }).unwrap();
        let names: Vec<_> = (0..topics).map(|topic| format!("t.{topic}")).collect();
        let names: Vec<_> = names.iter().map(String::as_str).cycle().take(4_000).collect();
        names.chunks(in_commit).for_each(|topics| store(&engine, topics, 50));
        let first = filter(&["t.1"]);
        assert_eq!(indexed(&engine, whole(&engine), &first).0.len(), 8);
        let before = reads.load(Ordering::SeqCst);
        for topic in 100..110 {
            let name = format!("t.{topic}");
            let one = filter(&[&name]);
            let all = whole(&engine);
            let chunk = Store::read(&*engine, all.start, all.end, &one).unwrap();
            assert_eq!((chunk.end, chunk.complete), (all.end, false));
            assert_eq!(matching(&chunk.events, &one).len(), Events::new(&chunk.events).count());
            assert_eq!(Events::new(&chunk.events).count(), 8);
        }
        assert_eq!(reads.load(Ordering::SeqCst) - before, 80, "{in_commit} events a commit");
    }
}

/// Spoils a byte of an event's body in the file of its slot, or mends it.
fn rot(engine: &LocalEngine, seq: Seq) {
    let view = engine.view();
    let slot = view.slots.iter().find(|slot| seq < slot.end()).unwrap();
    let whole = body_of(seq, 50).into_bytes();
    let mut spoiled = whole.clone();
    spoiled[10] ^= 1;
    let mut bytes = std::fs::read(slot.path()).unwrap();
    let find = |needle: &[u8]| memchr::memmem::find(&bytes, needle);
    let at = find(&whole).or_else(|| find(&spoiled)).unwrap();
    bytes[at + 10] ^= 1;
    std::os::unix::fs::FileExt::write_all_at(slot.file(), &bytes[at..at + 20], at as u64).unwrap();
}

#[test]
fn damage_is_told_where_it_lies_and_hides_nothing_else_whether_it_was_there_before_the_index() {
    let dir = tempfile::tempdir().unwrap();
    let engine = log(dir.path(), options(), 2_000, 10);
    let (one, range) = (filter(&["t.4"]), whole(&engine));
    let intact = walked(&engine, range.clone(), &one);
    assert_eq!(indexed(&engine, range.clone(), &one), intact);
    // Of topic t.4: what was indexed is not there any more.
    let rotten = Seq::new(1_005);
    rot(&engine, rotten);
    let (found, damages) = indexed(&engine, range.clone(), &one);
    assert_eq!(damages.len(), 1);
    let (from, to) = damages[0];
    assert!(from <= rotten && rotten <= to && from.distance_to(to) == 6, "{from} to {to}");
    let lies_there = |event: &Vec<u8>| (from..=to).contains(&Event::seq_of(event).unwrap());
    let whole_ones: Vec<_> = intact.0.iter().filter(|it| !lies_there(it)).cloned().collect();
    assert_eq!(found, whole_ones);
    // A log that never was indexed while it was whole.
    *newest(&engine).built.write() = Arc::new(Built { upto: range.start, runs: Vec::new() });
    for _ in 0..2 {
        assert_eq!(indexed(&engine, range.clone(), &one), (whole_ones.clone(), damages.clone()));
        assert_eq!(walked(&engine, range.clone(), &one), (whole_ones.clone(), damages.clone()));
        assert_eq!(newest(&engine).built().upto, from, "it ends where the damage begins");
    }
    assert!(newest(&engine).building.lock().ended.is_some());
    let slot = Arc::clone(engine.view().slots.last().unwrap());
    let told = newest(&engine).reach(&slot, range.end).unwrap_err();
    assert!(matches!(told, StoreError::Damaged(damage) if (damage.from, damage.to) == (from, to)));

    // What was read wrong once is no damage, and the index goes on.
    rot(&engine, rotten);
    while !newest(&engine).reach(&slot, range.end).unwrap() {}
    assert_eq!(indexed(&engine, range.clone(), &one), intact);
    assert_eq!(newest(&engine).built().upto, range.end);
}

#[test]
fn slots_are_indexed_after_a_kill_too() {
    let dir = tempfile::tempdir().unwrap();
    let engine = log(dir.path(), options(), 3_000, 50);
    let copy = tempfile::tempdir().unwrap();
    copy_dir(dir.path(), copy.path()).unwrap();
    let one = filter(&["t.7", "t.8"]);
    let expected = walked(&engine, whole(&engine), &one);
    let (engine, _) = open(copy.path(), options()).unwrap();
    store(&engine, &["t.7", "t.9"], 50);
    let found = indexed(&engine, whole(&engine), &one).0;
    assert_eq!(found.len(), expected.0.len() + 1);
    assert_eq!(found[..expected.0.len()], expected.0);
    let upto: Vec<_> = slot_topics(&engine).iter().map(|topics| topics.built().upto).collect();
    let view = engine.view();
    if view.sealed_end().is_none() {
        let ends: Vec<_> = view.slots.iter().map(|slot| slot.end()).collect();
        assert_eq!(upto, ends);
    }
}

#[test]
fn an_index_takes_what_it_says_and_few_runs_whatever_the_commits() {
    for topics in [1, 20, 3_000] {
        let dir = tempfile::tempdir().unwrap();
        let engine = log(dir.path(), options(), 3, topics);
        let one = filter(&["t.0"]);
        let mut texts = 0;
        for round in 0..600 {
            let names = [0, 1, 2, 3, 4].map(|at| format!("t.{}", (round * 5 + at) % topics));
            texts += names.iter().map(String::len).sum::<usize>();
            store(&engine, &names.each_ref().map(String::as_str), 30);
            // Each read indexes one commit more.
            let end = whole(&engine).end;
            indexed(&engine, end.prev()..end, &one);
        }
        let built = newest(&engine).built();
        assert_eq!(built.upto, whole(&engine).end);
        let sum: usize = built.runs.iter().map(|run| run.len()).sum();
        assert_eq!(sum, 3_003);
        assert!(built.runs.len() <= 12, "{} runs", built.runs.len());
        let per_run: usize = built.runs.iter().map(|run| run.topics()).sum();
        assert!(per_run <= topics * 12);
        let most = 16 * sum + 24 * per_run + (texts + 9) + built.runs.len() * size_of::<Run>();
        assert!(newest(&engine).bytes() <= most, "{} of {most}", newest(&engine).bytes());
    }
}

#[test]
fn an_index_is_gone_when_its_slot_is() {
    let dir = tempfile::tempdir().unwrap();
    let small = Options { slot_bytes: 256 << 10, ..options() };
    let engine = log(dir.path(), small, 100, 10);
    let one = filter(&["t.3"]);
    let mut seen = BTreeSet::new();
    for _ in 0..300 {
        store(&engine, &["t.1", "t.2", "t.3"], 2_000);
        indexed(&engine, whole(&engine), &one);
        seen.extend(engine.unsealed.0.lock().keys().copied());
    }
    assert!(seen.len() > 3, "{seen:?}");
    let begun = std::time::Instant::now();
    while engine.view().slots.len() > 1 || engine.unsealed.0.lock().len() > 1 {
        assert!(begun.elapsed().as_secs() < 120, "nothing is sealed");
        std::thread::yield_now();
    }
    let number = engine.view().slots[0].header().number;
    assert!(engine.unsealed.0.lock().keys().all(|&it| it == number));
    // A read that began while the slot was there makes no other.
    let slot = Arc::clone(&engine.view().slots[0]);
    engine.unsealed.forget(&slot);
    assert!(engine.unsealed.of(&slot, || false).is_none() && engine.unsealed.0.lock().is_empty());
    assert!(engine.unsealed.of(&slot, || true).is_some());
}
