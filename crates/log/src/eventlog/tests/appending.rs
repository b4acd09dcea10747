//! What an append answers, and what it leaves behind.

use super::*;
use crate::storage::Journal as _;
use crate::storage::faulty::{AppendFault, Faulty};

fn dedup() -> AppendOptions {
    AppendOptions { dedup: true, ..AppendOptions::default() }
}

fn expecting(topic: Option<&str>, seq: u64) -> AppendOptions {
    let topic = topic.map(str::to_owned);
    let expected_head = Some(ExpectedHead { topic, seq: Seq::new(seq) });
    AppendOptions { expected_head, dedup: true, ..AppendOptions::default() }
}

fn named(log: &EventLog, events: &[(&str, &str)]) -> Batch {
    let mut batch = log.batch();
    for (id, body) in events {
        batch.push(&event(id, "a", body)).unwrap();
    }
    batch
}

fn faulty() -> (EventLog, Arc<Faulty>) {
    let engine = Arc::new(Faulty::new(Arc::new(engine(memory::Options::default()))));
    let log = EventLog::open(engine.clone(), Recovered::default(), options()).unwrap();
    (log, engine)
}

#[tokio::test]
async fn what_is_appended_is_read_back_in_order() {
    let (log, _) = open(options());
    let done = log.append(batch(&log, &[("a", "1"), ("b", "2")]), AppendOptions::default()).await;
    let done = done.unwrap();
    assert_eq!((done.stored, done.first, done.last), (2, Some(Seq::FIRST), Some(Seq::new(2))));
    log.append(batch(&log, &[("a", "3")]), AppendOptions::default()).await.unwrap();
    let all = read_all(&log, 1, Filter::ALL).await;
    assert_eq!(all, [(1, "1".into()), (2, "2".into()), (3, "3".into())]);
    log.close().await.unwrap();
    log.close().await.unwrap();
    let refused = log.append(batch(&log, &[("a", "4")]), AppendOptions::default()).await;
    assert!(matches!(refused, Err(AppendError::Closing)));
    assert!(matches!(log.trim(Seq::new(2)).await, Err(AppendError::Closing)));
}

#[tokio::test]
async fn a_stored_event_carries_what_the_server_adds() {
    let (log, _) = open(options());
    let mut batch = batch(&log, &[("a", "1")]);
    assert_eq!(batch.last_id().map(str::len), Some(36));
    let given = batch.last_id().map(str::to_owned);
    batch.push(&Event { at: Some(Timestamp::EPOCH), ..event("mine", "b", "2") }).unwrap();
    assert_eq!(batch.last_id(), Some("mine"));
    let done = log.append(batch, AppendOptions::default()).await.unwrap();
    let first = log.event(Seq::FIRST).await.unwrap().unwrap();
    let first = Event::parse(&first).unwrap();
    assert_eq!(Some(first.id), given.as_deref());
    assert_eq!((first.at, first.appended_at), (Some(done.appended_at), Some(done.appended_at)));
    assert_eq!(first.cursor, log.cursor(Seq::FIRST).await);
    let second = log.event(Seq::new(2)).await.unwrap().unwrap();
    let second = Event::parse(&second).unwrap();
    assert_eq!((second.id, second.at), ("mine", Some(Timestamp::EPOCH)));
    assert_eq!(log.event(Seq::new(3)).await.unwrap(), None);
    assert_eq!(log.event(Seq::ZERO).await.unwrap(), None);
}

#[tokio::test]
async fn a_bad_event_leaves_a_batch_as_it_was() {
    let limits = Limits { event_bytes: 100, ..Limits::default() };
    let (log, _) = open(Options { limits, ..options() });
    let mut batch = named(&log, &[("one", "1")]);
    let before = batch.bytes();
    assert!(batch.push(&event("", "no topic", "")).is_err());
    let error = batch.push(&event("two", "a", &"x".repeat(100))).unwrap_err();
    assert_eq!(error.field, "event");
    assert_eq!((batch.len(), batch.bytes(), batch.last_id()), (1, before, Some("one")));
    assert_eq!(log.append(batch, AppendOptions::default()).await.unwrap().stored, 1);
}

#[tokio::test]
async fn repeats_are_answered_with_the_original() {
    let (log, _) = open(options());
    log.append(batch(&log, &[("z", "")]), dedup()).await.unwrap();
    // Also among the events of one batch.
    let done = log.append(named(&log, &[("x", "1"), ("y", "1"), ("x", "1")]), dedup()).await;
    let done = done.unwrap();
    assert_eq!((done.stored, done.duplicates), (2, 1));
    assert_eq!((done.last_event, done.last_is_duplicate), (Seq::new(2), true));
    let again = log.append(named(&log, &[("x", "1"), ("y", "1")]), dedup()).await.unwrap();
    assert_eq!((again.stored, again.duplicates, again.first), (0, 2, None));
    assert_eq!((again.last_event, again.last_is_duplicate), (Seq::new(3), true));
    // The same id says something else: stored. Without dedup: stored.
    let done = log.append(named(&log, &[("x", "2")]), dedup()).await.unwrap();
    assert_eq!((done.stored, done.last_event), (1, Seq::new(4)));
    let done = log.append(named(&log, &[("x", "1")]), AppendOptions::default()).await.unwrap();
    assert_eq!((done.stored, done.last_event), (1, Seq::new(5)));
    // Nothing that has no name of its sender's is a repeat.
    for _ in 0..2 {
        assert_eq!(log.append(batch(&log, &[("a", "1")]), dedup()).await.unwrap().stored, 1);
    }
    assert_eq!(log.status().counters.duplicates, 3);
}

#[tokio::test]
async fn the_window_survives_a_restart_and_a_trim_may_outlive_it() {
    let memory = Arc::new(engine(memory::Options::default()));
    let small = || Options { dedup_window: 2, ..options() };
    let log = EventLog::open(memory.clone(), Recovered::default(), small()).unwrap();
    log.append(named(&log, &[("1", ""), ("2", ""), ("3", "")]), dedup()).await.unwrap();
    log.trim(Seq::new(4)).await.unwrap();
    // Trimmed, and still known.
    assert_eq!(log.append(named(&log, &[("3", "")]), dedup()).await.unwrap().duplicates, 1);
    log.append(named(&log, &[("4", "")]), dedup()).await.unwrap();
    let (reopened, recovered) = memory.crash();
    let log = EventLog::open(Arc::new(reopened), recovered, small()).unwrap();
    let done = log.append(named(&log, &[("3", "")]), dedup()).await.unwrap();
    assert_eq!((done.last_event, done.duplicates), (Seq::new(3), 1), "trimmed before the restart");
    let done = log.append(named(&log, &[("4", ""), ("5", "")]), dedup()).await.unwrap();
    assert_eq!((done.stored, done.duplicates), (1, 1));
    // Out of the window: stored again.
    log.append(named(&log, &[("6", "")]), dedup()).await.unwrap();
    assert_eq!(log.append(named(&log, &[("4", "")]), dedup()).await.unwrap().stored, 1);
}

#[tokio::test]
async fn only_appends_that_need_the_window_wait_for_it() {
    let memory = engine(memory::Options::default());
    let log = EventLog::open(Arc::new(memory), Recovered::default(), options()).unwrap();
    log.append(named(&log, &[("old", "")]), dedup()).await.unwrap();
    log.close().await.unwrap();
    let (memory, recovered) = {
        let store = log.core().store.clone();
        let bounds = store.bounds();
        assert_eq!(bounds.head, Seq::FIRST);
        let fresh = engine(memory::Options::default());
        let chunk = store.read(Seq::FIRST, Seq::new(2), &Filter::ALL).unwrap();
        let commit = crate::storage::Commit {
            first: Seq::FIRST,
            count: 1,
            appended_at: Timestamp { seconds: 1_000, nanos: 0 },
            events: chunk.events,
            delta: Bytes::new(),
            state: Some(Bytes::new()),
            link: store.links().head,
            oldest: Seq::FIRST,
            oldest_tag: None,
        };
        fresh.append(commit, Box::new(|result| assert!(result.is_ok())));
        fresh.reopen()
    };
    let faulty = Arc::new(Faulty::new(Arc::new(memory)));
    faulty.hold_reads();
    let log = EventLog::open(faulty.clone(), recovered, options()).unwrap();
    faulty.wait_for_held_reads(1);
    let mut waits = Box::pin(log.append(named(&log, &[("old", ""), ("early", "")]), dedup()));
    assert!(poll_once(waits.as_mut()).await.is_none());
    let early = log.append(named(&log, &[("early", "")]), AppendOptions::default()).await.unwrap();
    assert_eq!(early.last_event, Seq::new(2));
    faulty.release_reads();
    let done = waits.await.unwrap();
    assert_eq!((done.stored, done.duplicates), (0, 2));
}

#[tokio::test]
async fn who_waits_for_the_window_of_a_log_that_closes_is_told() {
    let faulty = Arc::new(Faulty::new(Arc::new(engine(memory::Options::default()))));
    faulty.hold_reads();
    let log = EventLog::open(faulty.clone(), Recovered::default(), options()).unwrap();
    faulty.wait_for_held_reads(1);
    let mut waits = Box::pin(log.append(named(&log, &[("x", "")]), dedup()));
    assert!(poll_once(waits.as_mut()).await.is_none());
    let closing = tokio::spawn({
        let log = log.clone();
        async move { log.close().await }
    });
    while log.core().queue.ended().is_none() {
        tokio::task::yield_now().await;
    }
    faulty.release_reads();
    let told = tokio::time::timeout(std::time::Duration::from_secs(30), waits).await;
    let refused = told.expect("an answer");
    assert!(matches!(refused, Err(AppendError::Closing)), "{refused:?}");
    closing.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_window_that_cannot_be_read_refuses_to_guess() {
    let faulty = Arc::new(Faulty::new(Arc::new(engine(memory::Options::default()))));
    faulty.fail_fingerprints();
    let log = EventLog::open(faulty, Recovered::default(), options()).unwrap();
    let refused = log.append(named(&log, &[("x", "")]), dedup()).await;
    assert!(matches!(refused, Err(AppendError::RepeatsUnknown(_))), "{refused:?}");
    assert!(log.status().trouble.is_some());
    assert_eq!(log.append(batch(&log, &[("a", "")]), dedup()).await.unwrap().stored, 1);
    let plain = log.append(named(&log, &[("x", "")]), AppendOptions::default()).await.unwrap();
    assert_eq!(plain.stored, 1);
}

#[tokio::test]
async fn an_expected_head_is_held_against_the_log_and_the_topic() {
    let (log, _) = open(options());
    let moved = |result, seq| match result {
        Err(AppendError::HeadMoved { actual }) => assert_eq!(actual, Seq::new(seq)),
        other => panic!("{other:?}"),
    };
    log.append(batch(&log, &[("a", ""), ("b", "")]), expecting(None, 0)).await.unwrap();
    moved(log.append(batch(&log, &[("a", "")]), expecting(None, 1)).await, 2);
    moved(log.append(batch(&log, &[("a", "")]), expecting(Some("a"), 2)).await, 1);
    log.append(batch(&log, &[("a", "")]), expecting(Some("a"), 1)).await.unwrap();
    moved(log.append(batch(&log, &[("a", "")]), expecting(Some("a"), 1)).await, 3);
    log.append(batch(&log, &[("new", "")]), expecting(Some("new"), 0)).await.unwrap();
    // A repeat of what succeeded is a repeat, not a conflict.
    let one = || named(&log, &[("once", "")]);
    assert_eq!(log.append(one(), expecting(Some("a"), 3)).await.unwrap().stored, 1);
    assert_eq!(log.append(one(), expecting(Some("a"), 3)).await.unwrap().duplicates, 1);
    // A topic whose events are all gone has no last one.
    log.trim(log.bounds().next()).await.unwrap();
    moved(log.append(batch(&log, &[("a", "")]), expecting(Some("a"), 5)).await, 0);
    moved(log.append(batch(&log, &[("a", "")]), expecting(None, 0)).await, 5);
}

#[tokio::test]
async fn of_two_that_expect_the_same_head_one_wins() {
    let memory = Arc::new(engine(memory::Options { hold: true, ..memory::Options::default() }));
    let log = EventLog::open(memory.clone(), Recovered::default(), options()).unwrap();
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..8 {
        let (log, topic) = (log.clone(), ["a", "b"][n % 2]);
        let batch = batch(&log, &[(topic, "")]);
        calls.spawn(async move { log.append(batch, expecting(Some(topic), 0)).await });
    }
    let mut won = 0;
    while !calls.is_empty() {
        memory.release();
        if let Some(done) = calls.try_join_next() {
            won += usize::from(done.unwrap().is_ok());
        }
        tokio::task::yield_now().await;
    }
    assert_eq!((won, log.bounds().head), (2, Seq::new(2)));
}

/// Many topics beside each other, and beside events that expect nothing: of each two that expect the
/// same head one wins, however they fall into commits, also when topics were not kept for a while.
#[tokio::test]
async fn heads_of_many_topics_are_right_in_every_commit() {
    const TOPICS: usize = 60;
    let (log, _) = open(options());
    let mut heads = vec![0; TOPICS];
    for round in 0..4 {
        let mut calls = tokio::task::JoinSet::new();
        for n in 0..TOPICS * 2 {
            let (log, at) = (log.clone(), n % TOPICS);
            let (name, expected) = (format!("t.{at}"), heads[at]);
            calls.spawn(async move {
                if n % 7 == 0 {
                    let other = batch(&log, &[("other", "")]);
                    log.append(other, AppendOptions::default()).await.unwrap();
                }
                let one = batch(&log, &[(&name, "")]);
                (at, log.append(one, expecting(Some(&name), expected)).await)
            });
        }
        let mut won = vec![0; TOPICS];
        let mut lost = Vec::new();
        while let Some(done) = calls.join_next().await {
            match done.unwrap() {
                (at, Ok(done)) => (won[at], heads[at]) = (won[at] + 1, done.last_event.get()),
                (at, Err(AppendError::HeadMoved { actual })) => lost.push((at, actual.get())),
                (_, other) => panic!("{other:?}"),
            }
        }
        assert!(won.iter().all(|&count| count == 1), "round {round}: {won:?}");
        assert_eq!(lost.len(), TOPICS);
        for (at, actual) in lost {
            assert_eq!(actual, heads[at], "round {round}: who lost hears of the winner");
        }
        // Longer than topics are kept for nobody, and with events of some of them.
        for n in 0..300 {
            let name = format!("t.{}", n % 10);
            let done = log.append(batch(&log, &[(&name, "")]), AppendOptions::default()).await;
            heads[n % 10] = done.unwrap().last_event.get();
        }
    }
}

#[tokio::test]
async fn a_large_batch_takes_several_commits_unless_it_must_be_whole() {
    let options_of_engine =
        memory::Options { max_commit_bytes: 1_000, ..memory::Options::default() };
    let faulty = Arc::new(Faulty::new(Arc::new(engine(options_of_engine))));
    let log = EventLog::open(faulty.clone(), Recovered::default(), options()).unwrap();
    let bodies: Vec<_> = (0..20).map(|n| format!("{n:0100}")).collect();
    let events: Vec<_> = bodies.iter().map(|body| ("a", body.as_str())).collect();
    let whole = AppendOptions { atomic: true, ..AppendOptions::default() };
    let refused = log.append(batch(&log, &events), whole).await;
    assert!(matches!(refused, Err(AppendError::TooLarge { limit: 1_000, .. })), "{refused:?}");
    assert_eq!(log.bounds().head, Seq::ZERO);
    let done = log.append(batch(&log, &events), AppendOptions::default()).await.unwrap();
    assert_eq!((done.stored, done.first, done.last), (20, Some(Seq::FIRST), Some(Seq::new(20))));
    assert!(log.status().counters.commits >= 4);
    // A part that was stored is said to be.
    faulty.fail_append(2, AppendFault::DiskFull);
    let failed = log.append(batch(&log, &events), AppendOptions::default()).await;
    let Err(AppendError::Partial { done, events, error }) = failed else { panic!("{failed:?}") };
    assert!(matches!(*error, AppendError::DiskFull(_)));
    assert_eq!(log.bounds().head, done.last.unwrap());
    assert_eq!(events as u64, done.stored);
    assert_eq!(read_all(&log, 21, Filter::ALL).await.len(), events);
    // No event may be larger than a commit: said before anything is appended.
    let mut batch = log.batch();
    assert!(batch.push(&event("", "a", &"x".repeat(990))).is_err());
}

#[tokio::test]
async fn a_full_disk_refuses_and_goes_on() {
    let (log, engine) = faulty();
    engine.set_full(true);
    let one = || named(&log, &[("x", "1")]);
    let full = log.append(one(), dedup()).await;
    assert!(matches!(full, Err(AppendError::DiskFull(_))), "{full:?}");
    assert_eq!(log.bounds().head, Seq::ZERO);
    engine.set_full(false);
    // What was refused left no trace: it is no repeat.
    assert_eq!(log.append(one(), dedup()).await.unwrap().stored, 1);
    engine.set_full(true);
    // A repeat needs no room.
    assert_eq!(log.append(one(), dedup()).await.unwrap().duplicates, 1);
    assert!(matches!(log.trim(Seq::new(2)).await, Err(AppendError::DiskFull(_))));
    assert_eq!(log.bounds().oldest, Seq::FIRST);
    engine.set_full(false);
    assert_eq!(log.trim(Seq::new(2)).await.unwrap().removed, 1);
}

#[tokio::test]
async fn a_failed_commit_stops_the_writer_and_not_the_readers() {
    for fault in [AppendFault::LoseAndStop, AppendFault::StoreAndStop, AppendFault::NoAnswer] {
        let (log, engine) = faulty();
        log.append(batch(&log, &[("a", "1")]), dedup()).await.unwrap();
        engine.fail_append(0, fault);
        let unknown = log.append(batch(&log, &[("a", "2")]), dedup()).await;
        assert!(matches!(unknown, Err(AppendError::Unknown(_))), "{unknown:?}");
        let stopped = log.append(batch(&log, &[("a", "3")]), dedup()).await;
        assert!(matches!(stopped, Err(AppendError::Stopped(_))), "{stopped:?}");
        assert!(matches!(log.trim(Seq::new(2)).await, Err(AppendError::Stopped(_))));
        // Nobody is shown what nobody knows.
        assert_eq!(log.bounds().head, Seq::FIRST);
        assert_eq!(read_all(&log, 1, Filter::ALL).await, [(1, "1".into())]);
        assert!(log.status().trouble.is_some());
        log.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_conflict_is_refused() {
    let (log, engine) = faulty();
    engine.fail_append(0, AppendFault::Conflict);
    let refused = log.append(batch(&log, &[("a", "1")]), dedup()).await;
    assert!(matches!(refused, Err(AppendError::Refused(_))), "{refused:?}");
    assert_eq!(log.append(batch(&log, &[("a", "1")]), dedup()).await.unwrap().stored, 1);
}

#[tokio::test]
async fn the_time_of_commits_never_goes_back() {
    let seconds = Arc::new(AtomicI64::new(500));
    let source = seconds.clone();
    let clock: Clock =
        Arc::new(move || Timestamp { seconds: source.load(Ordering::Relaxed), nanos: 0 });
    let (log, _) = open(Options { clock, ..Options::default() });
    for (wall, expected) in [(500, 500), (400, 500), (501, 501), (i64::MAX, 501)] {
        seconds.store(wall, Ordering::Relaxed);
        let done = log.append(batch(&log, &[("a", "")]), AppendOptions::default()).await.unwrap();
        assert_eq!(done.appended_at.seconds, expected);
        assert_eq!(log.time_of(done.last_event).await.unwrap(), done.appended_at);
    }
    let seek = |seconds| log.seek_time(Timestamp { seconds, nanos: 0 });
    assert_eq!(seek(0).await.unwrap(), Seq::FIRST);
    assert_eq!(seek(501).await.unwrap(), Seq::new(3));
    assert_eq!(seek(502).await.unwrap(), Seq::new(5));
}

#[tokio::test]
async fn bytes_in_flight_are_bounded_and_come_back() {
    let memory = Arc::new(engine(memory::Options { hold: true, ..memory::Options::default() }));
    let log = EventLog::open(
        memory.clone(),
        Recovered::default(),
        Options { in_flight_bytes: 1_000, ..options() },
    )
    .unwrap();
    let mut calls: Vec<_> = (0..4)
        .map(|_| {
            let batch = batch(&log, &[("a", &"x".repeat(600))]);
            Box::pin(log.append(batch, AppendOptions::default()))
        })
        .collect();
    for call in &mut calls {
        assert!(poll_once(call.as_mut()).await.is_none());
    }
    assert!(log.status().in_flight_bytes <= 1_000);
    // A caller that gives up while it waits for room gives its place up.
    drop(calls.remove(1));
    let release = {
        let (memory, log) = (memory.clone(), log.clone());
        std::thread::spawn(move || {
            while log.bounds().head < Seq::new(3) {
                if !memory.release() {
                    std::thread::yield_now();
                }
            }
        })
    };
    for call in calls {
        call.await.unwrap();
    }
    release.join().unwrap();
    assert_eq!(log.bounds().head, Seq::new(3));
    assert_eq!(log.status().in_flight_bytes, 0);
}
