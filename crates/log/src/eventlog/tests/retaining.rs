//! What is removed by itself, and when.

use std::time::Duration;

use super::super::age_clock::AgeClock;
use super::*;
use crate::storage::{Intercept, Store, StoreError, StoreStatus};

pub(super) fn at(seconds: i64) -> Timestamp {
    Timestamp { seconds, nanos: 0 }
}

#[test]
fn the_age_clock_follows_the_wall_clock_but_does_not_jump_with_it() {
    let second = Duration::from_secs(1);
    let mut clock = AgeClock::new(at(1_000));
    assert_eq!(clock.advance(at(1_001), second), at(1_001));
    // A jump of a year: a minute a second.
    let year = 365 * 86_400;
    assert_eq!(clock.advance(at(1_001 + year), second), at(1_061));
    assert_eq!(clock.advance(at(1_001 + year), second), at(1_121));
    assert_eq!(clock.advance(at(1_001 + year), Duration::ZERO), at(1_121));
    // Set right again: never beyond the wall clock.
    assert_eq!(clock.advance(at(1_010), second), at(1_010));
    assert_eq!(clock.advance(at(1_200), second), at(1_181));
    assert_eq!(clock.advance(at(1_200), second), at(1_200));
    // The largest values are no trouble.
    let mut clock = AgeClock::new(at(253_402_300_799));
    clock.advance(at(253_402_300_799), Duration::MAX);
}

/// Waits for the oldest seq to become what it should: the thread is told, not waited for by time.
async fn oldest_becomes(log: &EventLog, oldest: u64) {
    log.enforce_retention_soon();
    let mut published = log.core().reads.published.subscribe();
    let now = published.wait_for(|now| now.oldest >= Seq::new(oldest)).await.unwrap();
    assert_eq!(now.oldest, Seq::new(oldest));
}

pub(super) async fn append(log: &EventLog, count: usize) {
    for _ in 0..count {
        let one = batch(log, &[("a", &"x".repeat(100))]);
        log.append(one, AppendOptions::default()).await.unwrap();
    }
}

fn retaining(retention: Retention) -> Options {
    // The interval never ends by itself here.
    Options { retention, retention_interval: Duration::from_secs(86_400), ..options() }
}

#[tokio::test]
async fn events_beyond_a_number_go() {
    let limits = Retention { max_events: Some(3), ..Retention::default() };
    let (log, _) = open(retaining(limits));
    append(&log, 10).await;
    oldest_becomes(&log, 8).await;
    append(&log, 1).await;
    oldest_becomes(&log, 9).await;
    assert_eq!(read_all(&log, 9, Filter::ALL).await.len(), 3);
}

#[tokio::test]
async fn bytes_beyond_a_number_go_in_whole_units() {
    let limits = Retention { max_bytes: Some(600), ..Retention::default() };
    let (log, engine) = open(retaining(limits));
    append(&log, 10).await;
    let each = engine.status().disk_bytes / 10;
    let kept = 600 / each;
    oldest_becomes(&log, 10 - kept + 1).await;
    // The space is given back after the mark moved, by the same thread.
    while engine.status().disk_bytes > 600 {
        tokio::task::yield_now().await;
    }
}

/// An engine whose space is given back by another thread, in the middle of a look at it.
struct GivesBackLate {
    inner: Memory,
    looks: AtomicI64,
}

impl Intercept for GivesBackLate {
    fn inner(&self) -> &dyn Engine {
        &self.inner
    }

    fn status(&self) -> StoreStatus {
        let status = self.inner.status();
        self.inner.reclaim().unwrap();
        self.looks.fetch_add(1, Ordering::SeqCst);
        status
    }

    fn reclaim(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

#[tokio::test]
async fn what_is_trimmed_and_not_given_back_yet_is_not_trimmed_for_again() {
    let inner = engine(memory::Options::default());
    let engine = Arc::new(GivesBackLate { inner, looks: AtomicI64::new(0) });
    let limits = Retention { max_bytes: Some(600), ..Retention::default() };
    let log = EventLog::open(engine.clone(), Recovered::default(), retaining(limits)).unwrap();
    append(&log, 10).await;
    let kept = 600 / (engine.inner.status().disk_bytes / 10);
    oldest_becomes(&log, 10 - kept + 1).await;
    for look in 2..10 {
        log.enforce_retention_soon();
        while engine.looks.load(Ordering::SeqCst) < look {
            tokio::task::yield_now().await;
        }
    }
    log.close().await.unwrap();
    assert_eq!(log.bounds().oldest, Seq::new(10 - kept + 1));
}

#[tokio::test]
async fn events_of_an_age_go_and_the_clock_survives_a_restart() {
    let wall = Arc::new(AtomicI64::new(1_000));
    let source = wall.clone();
    let clock: Clock = Arc::new(move || at(source.load(Ordering::Relaxed)));
    let limits = Retention { max_age: Some(Duration::from_secs(10)), ..Retention::default() };
    let memory = Arc::new(engine(memory::Options::default()));
    let open = |engine: Arc<dyn Engine>, recovered| {
        let options = Options { clock: clock.clone(), ..retaining(limits.clone()) };
        EventLog::open(engine, recovered, options).unwrap()
    };
    // The log's own commits carry its clock on: those of 1,100 let those of 1,000 go.
    let log = open(memory.clone(), Recovered::default());
    append(&log, 2).await;
    wall.store(1_100, Ordering::Relaxed);
    append(&log, 2).await;
    drop(log);
    let (again, recovered) = memory.crash();
    let again = Arc::new(again);
    let log = open(again.clone(), recovered);
    oldest_becomes(&log, 3).await;
    assert_eq!(log.bounds().head, Seq::new(4));
    // A wall clock that jumps by a year removes nothing at once, not even after a restart.
    wall.store(1_100 + 365 * 86_400, Ordering::Relaxed);
    append(&log, 1).await;
    log.enforce_retention_soon();
    log.close().await.unwrap();
    let (last, recovered) = again.reopen();
    let mut producers =
        super::super::producers::Producers::new(1, Duration::from_secs(1), 1_000, Timestamp::EPOCH);
    let state = super::super::state::LogState::recover(&recovered, &mut producers).unwrap();
    assert_eq!(state.age_clock(), Some(at(1_100)));
    assert_eq!(last.bounds().oldest, Seq::new(3));
    let log = open(Arc::new(last), recovered);
    log.enforce_retention_soon();
    log.close().await.unwrap();
    assert_eq!(log.bounds().oldest, Seq::new(3));
}

#[tokio::test]
async fn retention_by_age_works_on_a_log_that_was_just_made() {
    let wall = Arc::new(AtomicI64::new(1_700_000_000));
    let source = wall.clone();
    let clock: Clock = Arc::new(move || at(source.load(Ordering::Relaxed)));
    let retention = Retention { max_age: Some(Duration::from_secs(10)), ..Retention::default() };
    let interval = Duration::from_millis(20);
    let elapsed = Options::default().elapsed;
    let (log, _) =
        open(Options { clock, elapsed, retention, retention_interval: interval, ..options() });
    append(&log, 2).await;
    wall.store(1_700_000_100, Ordering::Relaxed);
    append(&log, 2).await;
    let mut published = log.core().reads.published.subscribe();
    let trimmed = published.wait_for(|now| now.oldest >= Seq::new(3));
    tokio::time::timeout(Duration::from_secs(60), trimmed).await.expect("in time").expect("open");
}

#[tokio::test]
async fn a_repeat_of_a_trimmed_event_gets_its_seq_also_after_a_restart() {
    use crate::storage::local;
    let dir = tempfile::tempdir().unwrap();
    let open = || {
        let slots = local::Options {
            slot_bytes: 256 << 10,
            min_free_bytes: 0,
            ..local::Options::default()
        };
        let (engine, recovered) = local::open(dir.path(), slots).unwrap();
        (EventLog::open(engine.clone(), recovered, options()).unwrap(), engine)
    };
    let named = |log: &EventLog, first: u64| {
        let mut batch = log.batch();
        for n in first..first + 500 {
            batch.push(&event(&format!("id {n}"), "a", &"x".repeat(200))).unwrap();
        }
        batch
    };
    let dedup = || AppendOptions { dedup: true, ..AppendOptions::default() };
    let (log, engine) = open();
    for first in (0..3_000).step_by(500) {
        log.append(named(&log, first), dedup()).await.unwrap();
    }
    while engine.status().unsealed_slots > 1 {
        tokio::task::yield_now().await;
    }
    log.trim(Seq::new(3_001)).await.unwrap();
    while engine.status().segments > 0 {
        tokio::task::yield_now().await;
    }
    log.close().await.unwrap();
    drop((log, engine));
    let (log, _engine) = open();
    for first in (0..3_000).step_by(500) {
        let done = log.append(named(&log, first), dedup()).await.unwrap();
        assert_eq!((done.stored, done.duplicates), (0, 500));
        assert_eq!(done.last_event, Seq::new(first + 500));
    }
    log.close().await.unwrap();
}

#[tokio::test]
async fn slots_that_a_burst_took_are_given_back_before_events_go() {
    use crate::storage::local;
    let dir = tempfile::tempdir().unwrap();
    let slot_bytes = 256 << 10;
    let open = |retention| {
        let slots = local::Options { slot_bytes, min_free_bytes: 0, ..local::Options::default() };
        let (engine, recovered) = local::open(dir.path(), slots).unwrap();
        (EventLog::open(engine.clone(), recovered, retaining(retention)).unwrap(), engine)
    };
    let (log, engine) = open(Retention::default());
    // Sealing finds no directory while the burst lasts.
    let (segments, aside) = (dir.path().join("segments"), dir.path().join("aside"));
    std::fs::rename(&segments, &aside).unwrap();
    std::fs::write(&segments, b"").unwrap();
    while engine.status().unsealed_slots < 4 {
        append(&log, 20).await;
    }
    std::fs::remove_file(&segments).unwrap();
    std::fs::rename(&aside, &segments).unwrap();
    while engine.status().unsealed_slots > 1 {
        tokio::task::yield_now().await;
    }
    log.close().await.unwrap();
    let head = log.bounds().head;
    let max_bytes = engine.status().disk_bytes - slot_bytes;
    drop((log, engine));
    let (log, engine) = open(Retention { max_bytes: Some(max_bytes), ..Retention::default() });
    while engine.status().disk_bytes > max_bytes {
        log.enforce_retention_soon();
        tokio::task::yield_now().await;
    }
    log.close().await.unwrap();
    assert_eq!((log.bounds().oldest, log.bounds().head), (Seq::FIRST, head));
}

#[tokio::test]
async fn a_panic_of_a_background_thread_is_seen_and_hangs_nobody() {
    use crate::storage::faulty::Faulty;
    let faulty = Arc::new(Faulty::new(Arc::new(engine(memory::Options::default()))));
    faulty.set_panicking(true);
    let limits = Retention { max_events: Some(3), ..Retention::default() };
    let log = EventLog::open(faulty.clone(), Recovered::default(), retaining(limits)).unwrap();
    // Whoever needs the window of repeats hears that it cannot be had.
    let mut batch = log.batch();
    batch.push(&event("named", "a", "")).unwrap();
    let dedup = AppendOptions { dedup: true, ..AppendOptions::default() };
    assert!(log.append(batch, dedup).await.is_err());
    assert!(log.status().trouble.unwrap().contains("panicked"));
    // Retention goes on: it trims, and gives space back once that works again.
    append(&log, 10).await;
    oldest_becomes(&log, 8).await;
    let trouble = |log: &EventLog| log.core().troubles.told();
    while trouble(&log).is_none() {
        tokio::task::yield_now().await;
    }
    assert!(trouble(&log).unwrap().starts_with("giving back space: "));
    faulty.set_panicking(false);
    append(&log, 1).await;
    oldest_becomes(&log, 9).await;
    while trouble(&log).is_some() {
        tokio::task::yield_now().await;
    }
    log.close().await.unwrap();
}
