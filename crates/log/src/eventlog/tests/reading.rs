//! What readers get, from memory and from the engine.

use super::*;
use crate::eventlog::repeats_ready::RepeatsReady;
use crate::storage::faulty::Faulty;
use tailmark_record::topic::Pattern;
use tailmark_record::{Limits, Start};

fn filter(patterns: &[&str]) -> Filter {
    Filter::new(patterns.iter().map(|p| Pattern::parse(p, &Limits::default()).unwrap()).collect())
}

async fn fill(log: &EventLog, commits: u64, events: u64) {
    for commit in 0..commits {
        let bodies: Vec<_> = (0..events).map(|n| (commit * events + n + 1).to_string()).collect();
        let topics = ["a", "b", "c.d"];
        let events: Vec<_> =
            bodies.iter().enumerate().map(|(n, body)| (topics[n % 3], body.as_str())).collect();
        log.append(batch(log, &events), AppendOptions::default()).await.unwrap();
    }
}

fn bodies(found: &[(u64, String)]) -> Vec<u64> {
    found
        .iter()
        .map(|(seq, body)| {
            assert_eq!(*body, seq.to_string());
            *seq
        })
        .collect()
}

#[tokio::test]
async fn every_position_reads_the_same_from_memory_and_from_the_engine() {
    for recent_bytes in [0, 1_200, 1 << 20] {
        let (log, _) = open(Options { recent_bytes, ..options() });
        fill(&log, 5, 7).await;
        for from in 1..=36 {
            let found = read_all(&log, from, Filter::ALL).await;
            assert_eq!(bodies(&found), (from..=35).collect::<Vec<_>>());
            let found = read_all(&log, from, filter(&["a", "c.>"])).await;
            let expected = (from..=35).filter(|seq| (seq - 1) % 7 % 3 != 1);
            assert_eq!(bodies(&found), expected.collect::<Vec<_>>());
        }
        let counters = log.status().counters;
        assert_eq!(counters.reads_recent > 0, recent_bytes > 0);
        assert_eq!(counters.reads_stored > 0, recent_bytes < 1 << 20);
    }
}

#[tokio::test]
async fn a_chunk_ends_where_it_was_told_and_says_where_it_came_from() {
    for recent_bytes in [0, 1 << 20] {
        let (log, _) = open(Options { recent_bytes, ..options() });
        fill(&log, 1, 10).await;
        let mut reader = log.reader(Seq::new(3), Filter::ALL);
        let delivery = reader.next(Seq::new(6)).await.unwrap();
        assert_eq!((delivery.chunk.first, delivery.chunk.end), (Seq::new(3), Seq::new(6)));
        assert_eq!(delivery.is_recent, recent_bytes > 0);
        assert_eq!(Events::new(&delivery.chunk.events).count(), 3);
        assert_eq!(reader.position(), Seq::new(6));
        // A range that is none is refused, and moves nothing.
        assert!(reader.next(Seq::new(6)).await.is_err());
        assert_eq!(reader.position(), Seq::new(6));
    }
}

#[tokio::test]
async fn a_reader_at_the_head_waits_for_the_next_event() {
    let (log, _) = open(options());
    let mut reader = log.reader(Seq::FIRST, Filter::ALL);
    let mut waits = Box::pin(reader.next(Seq::MAX));
    assert!(poll_once(waits.as_mut()).await.is_none());
    fill(&log, 1, 2).await;
    assert_eq!(waits.await.unwrap().chunk.end, Seq::new(3));
    // A dropped wait has moved nothing.
    drop(poll_once(Box::pin(reader.next(Seq::MAX)).as_mut()).await);
    assert_eq!(reader.position(), Seq::new(3));
    fill(&log, 1, 1).await;
    assert_eq!(reader.next(Seq::MAX).await.unwrap().chunk.first, Seq::new(3));
    assert_eq!(log.status().readers, 1);
    let mut waits = Box::pin(reader.next(Seq::MAX));
    assert!(poll_once(waits.as_mut()).await.is_none());
    log.close().await.unwrap();
    assert!(matches!(waits.await, Err(ReadError::Closing)));
    drop(reader);
    assert_eq!(log.status().readers, 0);
}

#[tokio::test]
async fn what_is_trimmed_is_gone_even_if_memory_still_has_it() {
    for recent_bytes in [0, 1 << 20] {
        let (log, _) = open(Options { recent_bytes, ..options() });
        fill(&log, 3, 3).await;
        let mut reader = log.reader(Seq::new(2), Filter::ALL);
        let trimmed = log.trim(Seq::new(5)).await.unwrap();
        let expected = Trimmed { oldest: Seq::new(5), head: Seq::new(9), removed: 4 };
        assert_eq!(trimmed, expected);
        let error = reader.next(Seq::MAX).await.unwrap_err();
        let (from, oldest) = (Seq::new(2), Seq::new(5));
        assert!(
            matches!(error, ReadError::Trimmed { from: f, oldest: o } if (f, o) == (from, oldest))
        );
        assert_eq!(reader.position(), from);
        assert!(matches!(log.event(Seq::new(4)).await, Err(ReadError::Trimmed { .. })));
        assert!(matches!(log.time_of(Seq::new(4)).await, Err(ReadError::Trimmed { .. })));
        reader.jump(oldest);
        assert_eq!(reader.next(Seq::MAX).await.unwrap().chunk.first, oldest);
        // Never backward, and never beyond the end.
        assert_eq!(log.trim(Seq::new(3)).await.unwrap().removed, 0);
        let all = log.trim(Seq::MAX).await.unwrap();
        assert_eq!((all.oldest, all.removed), (Seq::new(10), 5));
        assert!(log.bounds().is_empty());
    }
}

#[tokio::test]
async fn damage_is_told_with_its_range_and_everything_else_is_read() {
    let faulty = Arc::new(Faulty::new(Arc::new(engine(memory::Options::default()))));
    let no_cache = Options { recent_bytes: 0, ..options() };
    let log = EventLog::open(faulty.clone(), Recovered::default(), no_cache).unwrap();
    fill(&log, 1, 9).await;
    faulty.damage(Seq::new(4), Seq::new(6));
    let mut reader = log.reader(Seq::FIRST, Filter::ALL);
    assert_eq!(reader.next(Seq::MAX).await.unwrap().chunk.end, Seq::new(4));
    let error = reader.next(Seq::MAX).await.unwrap_err();
    let ReadError::Damaged(damage) = error else { panic!("{error:?}") };
    assert_eq!((damage.from, damage.to), (Seq::new(4), Seq::new(6)));
    assert_eq!(reader.position(), Seq::new(4));
    reader.jump(damage.to.next());
    assert_eq!(reader.next(Seq::MAX).await.unwrap().chunk.end, Seq::new(10));
}

#[tokio::test]
async fn what_is_read_ahead_counts_only_where_the_reader_comes_to() {
    let faulty = Arc::new(Faulty::new(Arc::new(engine(memory::Options::default()))));
    let no_cache = Options { recent_bytes: 0, ..options() };
    let log = EventLog::open(faulty.clone(), Recovered::default(), no_cache).unwrap();
    fill(&log, 1, 12).await;
    let (s, all) = (Seq::new, Seq::MAX);
    let mut reader = log.reader(s(1), Filter::ALL);
    let ahead = reader.read_ahead(s(4), Some).unwrap();
    assert_eq!((ahead.from(), reader.position()), (s(1), s(1)));
    let delivery = ahead.kept().await.unwrap();
    assert!(!delivery.is_recent);
    // It is not what the next read is about: it ends too late, or begins elsewhere.
    assert!(reader.accept(delivery.clone(), s(3)).is_none());
    reader.jump(s(2));
    assert!(reader.accept(delivery.clone(), all).is_none());
    assert_eq!((reader.position(), log.status().counters.reads_stored), (s(2), 0));
    reader.jump(s(1));
    assert_eq!(reader.accept(delivery.clone(), all).unwrap().chunk.end, s(4));
    assert_eq!((reader.position(), log.status().counters.reads_stored), (s(4), 1));
    assert!(reader.accept(delivery, all).is_none(), "twice");
    // What was trimmed meanwhile is gone, whatever was read before.
    let ahead = reader.read_ahead(all, Some).unwrap();
    let delivery = ahead.kept().await.unwrap();
    log.trim(s(6)).await.unwrap();
    assert!(reader.accept(delivery, all).is_none());
    assert!(matches!(reader.next(all).await, Err(ReadError::Trimmed { .. })));
    // Damage is told to who reads it.
    reader.jump(s(8));
    faulty.damage(s(8), s(8));
    let ahead = reader.read_ahead(all, |_| -> Option<Delivery> { panic!("kept damage") }).unwrap();
    assert!(ahead.kept().await.is_none());
    assert!(matches!(reader.next(all).await, Err(ReadError::Damaged(_))));
    // Nothing to win: at the head, or nowhere.
    reader.jump(s(13));
    assert!(reader.read_ahead(all, Some).is_none());
    reader.jump(s(9));
    assert!(reader.read_ahead(s(9), Some).is_none());
    log.close().await.unwrap();
    assert!(reader.read_ahead(all, Some).is_none());

    let (log, _) = open(options());
    fill(&log, 1, 3).await;
    assert!(log.reader(s(1), Filter::ALL).read_ahead(all, Some).is_none());
}

#[tokio::test]
async fn what_a_filter_has_found_is_not_searched_again_and_is_never_stale() {
    for found_bytes in [0, 1 << 20] {
        let (log, _) = open(Options { recent_bytes: 0, found_bytes, ..options() });
        let rare = filter(&["rare"]);
        let store = async |count: u64| {
            let topics =
                (0..count).map(|n| if n % 500 == 7 { ("rare", "") } else { ("often", "") });
            let topics: Vec<_> = topics.collect();
            log.append(batch(&log, &topics), AppendOptions::default()).await.unwrap();
        };
        let read = async |from| {
            let mut seqs = Vec::new();
            let mut reader = log.reader(Seq::new(from), rare.clone());
            let head = log.bounds().head;
            while reader.position() <= head {
                for event in Events::new(&reader.next(Seq::MAX).await.unwrap().chunk.events) {
                    let event = Event::parse(event.unwrap()).unwrap();
                    if event.topic == "rare" {
                        seqs.push(event.seq.get());
                    }
                }
            }
            seqs
        };
        let stored = || log.status().counters.reads_stored;
        store(2_000).await;
        assert_eq!(read(1).await, [8, 508, 1_008, 1_508]);
        let before = stored();
        assert_eq!(read(1).await, [8, 508, 1_008, 1_508]);
        assert_eq!(read(509).await, [1_008, 1_508]);
        assert_eq!(stored() == before, found_bytes > 0, "{} {before}", stored());
        // What comes later is found beside it, and what is trimmed is gone.
        store(1_000).await;
        assert_eq!(read(508).await, [508, 1_008, 1_508, 2_008, 2_508]);
        log.trim(Seq::new(1_008)).await.unwrap();
        let mut reader = log.reader(Seq::new(508), rare.clone());
        assert!(matches!(reader.next(Seq::MAX).await, Err(ReadError::Trimmed { .. })));
        assert_eq!(read(1_008).await, [1_008, 1_508, 2_008, 2_508]);
    }
}

#[tokio::test]
async fn a_slow_read_delays_nobody_who_reads_from_memory_and_a_cancelled_one_is_passed_over() {
    let faulty = Arc::new(Faulty::new(Arc::new(engine(memory::Options::default()))));
    // Room for the second commit only.
    let small = Options { recent_bytes: 700, reader_threads: 1, ..options() };
    let log = EventLog::open(faulty.clone(), Recovered::default(), small).unwrap();
    fill(&log, 2, 3).await;
    log.core()
        .repeats_ready
        .subscribe()
        .wait_for(|r| matches!(r, RepeatsReady::Ready))
        .await
        .unwrap();
    faulty.hold_reads();
    let mut readers: Vec<_> = (0..5).map(|_| log.reader(Seq::FIRST, Filter::ALL)).collect();
    let mut waits: Vec<_> = readers.iter_mut().map(|r| Box::pin(r.next(Seq::MAX))).collect();
    for wait in &mut waits {
        assert!(poll_once(wait.as_mut()).await.is_none());
    }
    // By the one thread, and the one that takes short reads only.
    faulty.wait_for_held_reads(2);
    assert_eq!(log.core().reads.pool.waiting(), 3);
    let live = log.reader(Seq::new(4), Filter::ALL).next(Seq::MAX).await.unwrap();
    assert!(live.is_recent);
    // Two lose patience: one whose read is under way, one in the queue.
    drop(waits.drain(1..3));
    faulty.release_reads();
    for wait in waits {
        assert_eq!(wait.await.unwrap().chunk.first, Seq::FIRST);
    }
    let positions: Vec<_> = readers.iter().map(|r| r.position().get()).collect();
    assert_eq!(positions, [4, 1, 1, 4, 4]);
    assert_eq!(log.status().counters.reads_stored, 3);
}

#[tokio::test]
async fn a_start_is_found() {
    let (log, _) = open(options());
    let start =
        async |start, patterns: &[&str]| log.start(start, &filter(patterns)).await.map(Seq::get);
    for (begin, expected) in [
        (Start::Oldest, 1),
        (Start::Latest, 1),
        (Start::Last(5), 1),
        (Start::Time(Timestamp::EPOCH), 1),
        (Start::Seq(Seq::ZERO), 1),
        (Start::Seq(Seq::new(99)), 99),
    ] {
        assert_eq!(start(begin, &[]).await.unwrap(), expected);
    }
    assert_eq!(start(Start::Last(5), &["a"]).await.unwrap(), 1);
    fill(&log, 4, 6).await;
    log.trim(Seq::new(3)).await.unwrap();
    assert_eq!(start(Start::Oldest, &[]).await.unwrap(), 3);
    assert_eq!(start(Start::Latest, &[]).await.unwrap(), 25);
    let error = start(Start::Seq(Seq::new(2)), &[]).await.unwrap_err();
    assert!(matches!(error, ReadError::Trimmed { .. }));
    for (count, expected) in [(0, 25), (1, 24), (22, 3), (23, 3), (u64::MAX, 3)] {
        assert_eq!(start(Start::Last(count), &[]).await.unwrap(), expected);
    }
    // "a" is at 4 7 10 13 16 19 22, "c.d" at 3 6 9 ... 24.
    for (count, expected) in [(0, 25), (1, 22), (2, 19), (7, 4), (8, 3), (u64::MAX, 3)] {
        assert_eq!(start(Start::Last(count), &["a"]).await.unwrap(), expected, "{count}");
    }
    assert_eq!(start(Start::Last(3), &["a", "c.*"]).await.unwrap(), 21);
    assert_eq!(start(Start::Last(3), &["none"]).await.unwrap(), 25);
    let third = log.time_of(Seq::new(13)).await.unwrap();
    assert_eq!(start(Start::Time(third), &["a"]).await.unwrap(), 13);
    let later = Timestamp { seconds: third.seconds + 1_000_000, nanos: 0 };
    assert_eq!(start(Start::Time(later), &[]).await.unwrap(), 25);
}

#[tokio::test]
async fn the_last_of_a_rare_topic_are_found_far_back() {
    let (log, _) = open(Options { recent_bytes: 0, ..options() });
    for _ in 0..2 {
        log.append(batch(&log, &[("rare", "")]), AppendOptions::default()).await.unwrap();
        let many: Vec<_> = (0..5_000).map(|_| ("often", "")).collect();
        log.append(batch(&log, &many), AppendOptions::default()).await.unwrap();
    }
    let start = async |n| log.start(Start::Last(n), &filter(&["rare"])).await.unwrap().get();
    assert_eq!((start(1).await, start(2).await, start(3).await), (5_002, 1, 1));
}

#[tokio::test]
async fn ten_thousand_idle_readers_all_wake() {
    let (log, _) = open(options());
    assert!(size_of::<Reader>() <= 72);
    let mut readers: Vec<_> = (0..10_000).map(|_| log.reader(Seq::FIRST, Filter::ALL)).collect();
    let mut waits: Vec<_> = readers.iter_mut().map(|r| Box::pin(r.next(Seq::MAX))).collect();
    for wait in &mut waits {
        assert!(poll_once(wait.as_mut()).await.is_none());
    }
    assert_eq!(log.status().readers, 10_000);
    fill(&log, 1, 1).await;
    let mut shared = None;
    for wait in waits {
        let chunk = wait.await.unwrap().chunk;
        let bytes = chunk.events.as_ptr();
        // One copy for all.
        assert_eq!(*shared.get_or_insert(bytes), bytes);
    }
    drop(readers);
    assert_eq!(log.status().readers, 0);
}
