//! Sync, then publish: nobody sees what a crash can undo.
//!
//! The checker lets many readers and appends run over an engine whose commits become durable one
//! at a time, by hand, crashes it at every point, and compares what readers and callers were told
//! with what is there afterwards. The same checker is run over an engine that answers before the
//! commit is durable, which to everyone else is a writer that publishes first and syncs then: that
//! it must catch.

use super::*;
use crate::storage::{Commit, Completion, Intercept, Journal, Level, Receipt, Store};

/// Answers first, stores then.
struct AnswersEarly(Arc<Memory>);

impl Intercept for AnswersEarly {
    fn inner(&self) -> &dyn Engine {
        &*self.0
    }

    fn append(&self, commit: Commit, done: Completion) {
        let (first, last) = (commit.first, commit.first.plus(commit.count.into()).prev());
        done(Ok(Receipt { first, last, level: Level::Fsync, term: 0 }));
        self.0.append(commit, Box::new(|_| {}));
    }

    fn wants_state(&self, _: usize) -> bool {
        true
    }
}

/// Runs appends, lets `released` commits become durable, and crashes. What was told and is not
/// true afterwards.
async fn lies(
    wrap: impl FnOnce(Arc<Memory>) -> Arc<dyn Engine>,
    released: usize,
) -> Option<String> {
    let held = memory::Options { hold: true, ..memory::Options::default() };
    let memory = Arc::new(engine(held));
    let log = EventLog::open(wrap(memory.clone()), Recovered::default(), options()).unwrap();
    let mut readers: Vec<_> = (0..3).map(|_| log.reader(Seq::FIRST, Filter::ALL)).collect();
    let mut told = Vec::new();
    for n in 0..=released {
        let batch = batch(&log, &[("a", &n.to_string())]);
        let mut append = Box::pin(log.append(batch, AppendOptions::default()));
        // Queued, and then in the engine's hands: held until it is released.
        let mut answer = poll_once(append.as_mut()).await;
        while memory.held() == 0 {
            std::thread::yield_now();
        }
        // The writer is waiting for the engine, or it has not waited: then let it come round.
        for _ in 0..1_000 {
            if answer.is_none() {
                answer = poll_once(append.as_mut()).await;
            }
            std::thread::yield_now();
        }
        for reader in &mut readers {
            let delivery = poll_once(Box::pin(reader.next(Seq::MAX)).as_mut()).await;
            told.extend(delivery.map(|d| ("delivered", d.unwrap().chunk.end.prev())));
        }
        told.push(("published", log.bounds().head));
        told.extend(answer.as_ref().map(|done| ("acked", done.as_ref().unwrap().last_event)));
        if n == released {
            break;
        }
        assert!(memory.release());
        let done = match answer {
            Some(done) => done,
            None => append.await,
        };
        told.push(("acked", done.unwrap().last_event));
    }
    let (after, _) = memory.crash();
    let head = after.bounds().head;
    assert_eq!(head, Seq::new(released as u64));
    let lie = told.iter().find(|(_, seq)| *seq > head);
    lie.map(|(what, seq)| format!("{what} {seq}, but after the crash the head is {head}"))
}

#[tokio::test]
async fn nothing_is_seen_or_acked_before_it_is_durable() {
    for released in 0..10 {
        assert_eq!(lies(|memory| memory, released).await, None);
    }
}

#[tokio::test]
async fn a_swapped_order_is_caught() {
    for released in 0..10 {
        let lie = lies(|memory| Arc::new(AnswersEarly(memory)), released).await;
        assert!(lie.is_some(), "the checker is blind at {released}");
    }
}
