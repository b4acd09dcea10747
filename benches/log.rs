//! The log without a network: durable appends and cold reads of 200-byte events on this disk.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    unreachable_pub,
    reason = "a benchmark ends where something fails, and counts small numbers"
)]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tailmark_log::eventlog::{AppendOptions, EventLog};
use tailmark_log::storage::{Engine, local};
use tailmark_record::topic::Filter;
use tailmark_record::{Event, Seq};

const BATCH: u64 = 1_000;
const EVENTS: u64 = 1_000_000;

fn open(dir: &std::path::Path) -> (EventLog, Arc<dyn Engine>) {
    let (engine, recovered) = local::open(dir, local::Options::default()).expect("a new log");
    let engine: Arc<dyn Engine> = engine;
    let log = EventLog::open(engine.clone(), recovered, Default::default()).expect("an open log");
    (log, engine)
}

async fn append(log: &EventLog, events: u64) {
    let body = "x".repeat(200);
    let mut in_flight = std::collections::VecDeque::new();
    for _ in 0..events / BATCH {
        let mut batch = log.batch();
        for _ in 0..BATCH {
            let event = Event { topic: "bench.append", body: &body, ..Event::default() };
            batch.push(&event).expect("a valid event");
        }
        let log = log.clone();
        let append = async move { log.append(batch, AppendOptions::default()).await };
        in_flight.push_back(tokio::spawn(append));
        if in_flight.len() > 8 {
            let oldest = in_flight.pop_front().expect("one is in flight");
            oldest.await.expect("no panic").expect("an ack");
        }
    }
    for rest in in_flight {
        rest.await.expect("no panic").expect("an ack");
    }
}

fn benches(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let dir = tempfile::tempdir().expect("a directory");
    let (log, engine) = open(dir.path());
    let mut group = criterion.benchmark_group("log");
    group.sample_size(10).throughput(Throughput::Elements(EVENTS));
    group.bench_function("append_durable", |bencher| {
        bencher.iter(|| runtime.block_on(append(&log, EVENTS)));
    });
    group.bench_function("read_cold", |bencher| {
        bencher.iter(|| {
            let (mut at, bounds) = (Seq::FIRST, engine.bounds());
            while at < Seq::new(EVENTS) {
                let chunk = engine.read(at, bounds.next(), &Filter::ALL).expect("a chunk");
                at = black_box(chunk).end;
            }
        });
    });
    group.finish();
    runtime.block_on(log.close()).expect("a clean stop");
}

criterion_group!(log, benches);
criterion_main!(log);
