//! Whether appends would be refused, asked by many.

use std::sync::atomic::AtomicUsize;

use parking_lot::{Condvar, Mutex};

use super::*;
use crate::storage::{Intercept, StoreError};

/// An engine that counts who looks, and makes them wait while it is told to.
struct Looked {
    inner: Memory,
    looks: AtomicUsize,
    is_hanging: Mutex<bool>,
    changed: Condvar,
    refuses: AtomicI64,
}

impl Intercept for Looked {
    fn inner(&self) -> &dyn Engine {
        &self.inner
    }

    fn refusal(&self) -> Option<StoreError> {
        self.looks.fetch_add(1, Ordering::SeqCst);
        self.changed.wait_while(&mut self.is_hanging.lock(), |hangs| *hangs);
        let refuses = self.refuses.load(Ordering::SeqCst) != 0;
        refuses.then(|| StoreError::Busy { reason: "told to".into() })
    }
}

fn looked(is_hanging: bool) -> (EventLog, Arc<Looked>) {
    let inner = engine(memory::Options::default());
    let engine = Arc::new(Looked {
        inner,
        looks: AtomicUsize::new(0),
        is_hanging: Mutex::new(is_hanging),
        changed: Condvar::new(),
        refuses: AtomicI64::new(0),
    });
    let log = EventLog::open(engine.clone(), Recovered::default(), options()).unwrap();
    (log, engine)
}

#[tokio::test(start_paused = true)]
async fn what_was_seen_within_a_second_is_answered_without_another_look() {
    let (log, engine) = looked(false);
    for _ in 0..100 {
        assert!(log.refusal().await.is_none());
    }
    assert_eq!(engine.looks.load(Ordering::SeqCst), 1);
    engine.refuses.store(1, Ordering::SeqCst);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(matches!(log.refusal().await, Some(AppendError::Busy(_))));
    assert_eq!(engine.looks.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_look_that_hangs_is_the_only_one_and_is_told_to_all_who_ask() {
    let (log, engine) = looked(true);
    let begun = std::time::Instant::now();
    // Who goes away leaves no look behind, and who comes begins no other.
    for _ in 0..20 {
        let asked = tokio::time::timeout(Duration::from_millis(1), log.refusal()).await;
        assert!(asked.is_err());
    }
    let asked = (0..20).map(|_| {
        let log = log.clone();
        tokio::spawn(async move { log.refusal().await })
    });
    for asked in asked.collect::<Vec<_>>() {
        let told = tokio::time::timeout(Duration::from_secs(60), asked).await;
        let told = told.expect("an answer").unwrap();
        let is_hanging = matches!(&told, Some(AppendError::Busy(store))
            if matches!(**store, StoreError::Hanging { .. }));
        assert!(is_hanging, "{told:?} after {:?}", begun.elapsed());
    }
    assert_eq!(engine.looks.load(Ordering::SeqCst), 1);
    *engine.is_hanging.lock() = false;
    engine.changed.notify_all();
    // It ends, and the next to ask hears of it.
    let told = tokio::time::timeout(Duration::from_secs(60), async {
        while log.refusal().await.is_some() {
            tokio::task::yield_now().await;
        }
    });
    told.await.expect("an answer");
}
