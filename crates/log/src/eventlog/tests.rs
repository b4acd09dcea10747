use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

use super::*;
use crate::storage::memory::{self, Memory};
use crate::storage::{Engine, Recovered};
use tailmark_record::topic::Filter;
use tailmark_record::{
    Cursor, Event, Events, FingerprintKey, GenerationTable, Limits, LogId, Seq, Timestamp,
};

mod appending;
mod clocks;
mod erasing;
mod fairness;
mod interested;
mod model;
mod order;
mod producing;
mod readiness;
mod reading;
mod retaining;
mod topic_retaining;
mod topic_values;

/// An engine over an empty log.
pub(super) fn engine(options: memory::Options) -> Memory {
    let generations = GenerationTable::created(7, Timestamp::EPOCH);
    let id = LogId::new(Uuid::from_u128(0xabcd));
    Memory::new(id, FingerprintKey::new([7; 16]), generations, options)
}

/// A clock that goes on by a second each time it is looked at.
pub(super) fn ticking() -> Clock {
    let seconds = AtomicI64::new(1_000);
    Arc::new(move || Timestamp { seconds: seconds.fetch_add(1, Ordering::Relaxed), nanos: 0 })
}

pub(super) fn options() -> Options {
    // No time passes but by order.
    Options { clock: ticking(), elapsed: Arc::new(|| Duration::ZERO), ..Options::default() }
}

/// An open log over an empty engine in memory.
pub(super) fn open(options: Options) -> (EventLog, Arc<Memory>) {
    let engine = Arc::new(engine(memory::Options::default()));
    let log = EventLog::open(engine.clone(), Recovered::default(), options).unwrap();
    (log, engine)
}

pub(super) fn event<'a>(id: &'a str, topic: &'a str, body: &'a str) -> Event<'a> {
    Event { id, topic, body, ..Event::default() }
}

/// A batch of events without ids.
pub(super) fn batch(log: &EventLog, events: &[(&str, &str)]) -> Batch {
    let mut batch = log.batch();
    for (topic, body) in events {
        batch.push(&event("", topic, body)).unwrap();
    }
    batch
}

/// Reads up to the head, all that matches.
pub(super) async fn read_all(log: &EventLog, from: u64, filter: Filter) -> Vec<(u64, String)> {
    let end = log.bounds().next();
    let mut reader = log.reader(Seq::new(from), filter.clone());
    let mut found = Vec::new();
    while reader.position() < end {
        let delivery = reader.next(end).await.unwrap();
        for bytes in Events::new(&delivery.chunk.events) {
            let event = Event::parse(bytes.unwrap()).unwrap();
            if filter.matches(event.topic) {
                found.push((event.seq.get(), event.body.to_owned()));
            }
        }
    }
    found
}

/// Polls once: what is ready now. Outside tokio's budget, which would make everything look pending
/// to a test that polls often without resting.
pub(super) async fn poll_once<F: Future>(future: std::pin::Pin<&mut F>) -> Option<F::Output> {
    use std::task::Poll;
    let mut future = std::pin::pin!(tokio::task::unconstrained(future));
    std::future::poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}
