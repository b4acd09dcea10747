//! What readers pay for each other: how many steps of others are begun while one waits for its own.

use std::sync::atomic::{AtomicBool, AtomicU64};

use super::*;
use crate::storage::{Chunk, Intercept, Store, StoreError};
use tailmark_record::topic::Pattern;

const EVENTS: u64 = 40_000;
const SEARCHES: u64 = 100;
const THREADS: usize = 2;

/// An engine whose long reads are short steps that take a while, and are counted.
struct Slow {
    inner: Memory,
    steps: AtomicU64,
}

impl Intercept for Slow {
    fn inner(&self) -> &dyn Engine {
        &self.inner
    }

    fn read(&self, from: Seq, end: Seq, filter: &Filter) -> Result<Chunk, StoreError> {
        if from.distance_to(end) <= 1_000 {
            return self.inner.read(from, end, filter);
        }
        self.steps.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(2));
        self.inner.read(from, from.plus(1_000).min(end), filter)
    }
}

fn filter(pattern: &str) -> Filter {
    Filter::new(vec![Pattern::parse(pattern, &Limits::default()).unwrap()])
}

/// Runs `victim` again and again beside searches that each have a step queued all the time; answers how many of
/// their steps were begun meanwhile, of each time the number, least first.
async fn steps_beside<T>(victim: impl AsyncFn(&EventLog) -> T) -> Vec<u64> {
    let engine = Slow { inner: engine(memory::Options::default()), steps: AtomicU64::new(0) };
    let engine = Arc::new(engine);
    let options = Options {
        recent_bytes: 0,
        found_bytes: 0,
        dedup_window: 0,
        reader_threads: THREADS,
        ..options()
    };
    let log = EventLog::open(engine.clone(), Recovered::default(), options).unwrap();
    let often: Vec<_> = (0..1_000).map(|_| ("often", "")).collect();
    for _ in 0..EVENTS / 1_000 {
        log.append(batch(&log, &often), AppendOptions::default()).await.unwrap();
    }
    let is_over = Arc::new(AtomicBool::new(false));
    let search = |at: u64| {
        let (log, is_over) = (log.clone(), Arc::clone(&is_over));
        tokio::spawn(async move {
            let mut reader = log.reader(Seq::FIRST, filter(&format!("rare.{at}")));
            while !is_over.load(Ordering::Relaxed) {
                reader.next(Seq::new(EVENTS)).await.unwrap();
                if reader.position() == Seq::new(EVENTS) {
                    reader.jump(Seq::FIRST);
                }
            }
        })
    };
    let searches: Vec<_> = (0..SEARCHES).map(search).collect();
    let steps = || engine.steps.load(Ordering::Relaxed);
    // Each has had its first.
    while steps() < 2 * SEARCHES {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut found = Vec::new();
    for _ in 0..15 {
        let before = steps();
        victim(&log).await;
        found.push(steps() - before);
    }
    is_over.store(true, Ordering::Relaxed);
    for search in searches {
        search.await.unwrap();
    }
    found.sort_unstable();
    found
}

/// First come first served, all that wait come first: about as many as there are searches.
const FEW: u64 = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_event_is_read_beside_a_hundred_searches() {
    let steps = steps_beside(async |log| log.event(Seq::new(777)).await.unwrap().unwrap()).await;
    assert!(steps[12] <= FEW, "{steps:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_live_watch_reads_beside_a_hundred_searches() {
    let steps = steps_beside(async |log| {
        let mut live = log.reader(log.bounds().next(), filter("live"));
        log.append(batch(log, &[("live", "")]), AppendOptions::default()).await.unwrap();
        live.next(Seq::MAX).await.unwrap()
    });
    let steps = steps.await;
    assert!(steps[12] <= FEW, "{steps:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_search_begins_beside_a_hundred_others() {
    let steps = steps_beside(async |log| {
        log.reader(Seq::FIRST, filter("new")).next(Seq::new(EVENTS)).await.unwrap()
    });
    let steps = steps.await;
    assert!(steps[12] <= FEW, "{steps:?}");
}
