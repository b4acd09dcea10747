//! What the writer costs: events of 200 bytes through the log into memory, so that no disk hides
//! it. Batches are made before the clock starts, as callers do that on their own cores.
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
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tailmark_log::eventlog::{AppendOptions, Batch, EventLog, Options};
use tailmark_log::storage::Recovered;
use tailmark_log::storage::memory::{self, Memory};
use tailmark_record::{Event, FingerprintKey, GenerationTable, LogId, Timestamp};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

const BATCHES: u64 = 200;
const EVENTS: u64 = 1_000;

fn engine() -> Arc<Memory> {
    let generations = GenerationTable::created(7, Timestamp::EPOCH);
    let id = LogId::new(uuid::Uuid::from_u128(1));
    let options = memory::Options::default();
    Arc::new(Memory::new(id, FingerprintKey::new([1; 16]), generations, options))
}

fn batches(log: &EventLog, named_from: Option<u64>) -> Vec<Batch> {
    let body = "x".repeat(200);
    let make = |batch: u64| {
        let mut out = log.batch();
        for n in 0..EVENTS {
            let id = named_from.map(|from| format!("{:032x}", from + batch * EVENTS + n));
            let event = Event {
                id: id.as_deref().unwrap_or(""),
                topic: "orders.eu.created",
                body: &body,
                ..Event::default()
            };
            out.push(&event).expect("a valid event");
        }
        out
    };
    (0..BATCHES).map(make).collect()
}

async fn append_all(log: &EventLog, batches: Vec<Batch>) -> Duration {
    let began = Instant::now();
    let mut calls = JoinSet::new();
    for batch in batches {
        let log = log.clone();
        let options = AppendOptions { dedup: true, ..AppendOptions::default() };
        calls.spawn(async move { log.append(batch, options).await });
    }
    while let Some(done) = calls.join_next().await {
        black_box(done.expect("no panic").expect("appended"));
    }
    began.elapsed()
}

fn append(c: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let mut group = c.benchmark_group("append");
    group.throughput(Throughput::Elements(BATCHES * EVENTS)).sample_size(20);
    for (name, named) in [("unnamed", false), ("named, window of 1,000,000", true)] {
        group.bench_function(BenchmarkId::from_parameter(name), |b| {
            let engine = engine();
            let log = EventLog::open(engine, Recovered::default(), Options::default())
                .expect("an open log");
            let mut next_name = 0;
            b.iter_custom(|rounds| {
                let mut took = Duration::ZERO;
                for _ in 0..rounds {
                    let batches = batches(&log, named.then_some(next_name));
                    next_name += BATCHES * EVENTS;
                    took += runtime.block_on(append_all(&log, batches));
                    // Keeps memory bounded; not timed.
                    let all = log.bounds().next();
                    runtime.block_on(log.trim(all)).expect("trimmed");
                }
                took
            });
            runtime.block_on(log.close()).expect("closed");
        });
    }
    group.finish();
}

criterion_group!(benches, append);
criterion_main!(benches);
