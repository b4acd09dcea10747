//! Sealing and scanning one 64 MB segment of 200-byte events.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    unreachable_pub,
    reason = "a benchmark ends where something fails, and counts small numbers"
)]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tailmark_log::chain::Link;
use tailmark_log::storage::disk::Disk;
use tailmark_log::storage::segment::{
    BLOCK_BYTES, BuildSpec, Cache, Compression, DB_CACHE_BYTES, Segment, Source, build, delete,
};
use tailmark_log::storage::{Chunk, StoreError};
use tailmark_record::topic::Filter;
use tailmark_record::{
    ChainTag, CursorMint, Event, FingerprintKey, Generation, GenerationTable, LogId, Seq, Stamp,
    Timestamp, write_entry,
};

const SEGMENT_BYTES: usize = 64 << 20;

struct Memory(Vec<Chunk>);

impl Source for Memory {
    fn chunks(&self) -> Box<dyn Iterator<Item = Result<Chunk, StoreError>> + '_> {
        Box::new(self.0.iter().cloned().map(Ok))
    }
}

/// Events of about 200 bytes in chunks of 1 MB, as commits of a busy journal are.
fn events(is_named: bool) -> Memory {
    let log = LogId::new(uuid::Uuid::from_u128(1));
    let mint = CursorMint::new(log, Generation { counter: 1, nonce: 1 });
    let (mut chunks, mut entries) = (Vec::new(), Vec::new());
    let (mut first, mut seq, mut total) = (1, 1, 0);
    let mut state = 1u64;
    while total < SEGMENT_BYTES {
        // Hexadecimal of a generator: compresses about as well as what people send.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let body =
            format!("{{\"order\":{seq},\"state\":\"{:016x}\",\"note\":\"a short text\"}}", state);
        let (topic, id) = (format!("orders.eu.{}", state >> 60), format!("id-{seq}"));
        let mut client = Vec::new();
        Event {
            id: if is_named { &id } else { "" },
            topic: &topic,
            body: &body,
            kind: "order.created",
            ..Event::default()
        }
        .write_client_part(&mut client);
        let stamp = Stamp {
            seq: Seq::new(seq),
            mint: &mint,
            tag: ChainTag::START,
            appended_at: Timestamp { seconds: 1_700_000_000 + (seq / 5_000) as i64, nanos: 1 }
                .into(),
            fill_at: true,
            fill_id: (!is_named).then_some("0190b5a0-7c1e-7abc-8def-0123456789ab"),
        };
        write_entry(&mut entries, &client, &stamp);
        seq += 1;
        if entries.len() >= 1 << 20 {
            total += entries.len();
            let (begin, end) = (Seq::new(first), Seq::new(seq));
            let events = std::mem::take(&mut entries).into();
            chunks.push(Chunk { first: begin, end, events, complete: true });
            first = seq;
        }
    }
    Memory(chunks)
}

fn spec(source: &Memory, compression: Compression) -> BuildSpec {
    let generations = GenerationTable::created(1, Timestamp::EPOCH);
    BuildSpec {
        log_id: LogId::new(uuid::Uuid::from_u128(1)),
        generations,
        fingerprint_key: FingerprintKey::new([3; 16]),
        first: Seq::FIRST,
        end: source.0.last().map_or(Seq::FIRST, |chunk| chunk.end),
        named_before: Vec::new(),
        link_before: Link::START,
        link: None,
        revision: 1,
        compression,
        block_bytes: BLOCK_BYTES,
        db_cache_bytes: DB_CACHE_BYTES,
        progress: Arc::default(),
        disk: Disk::real(),
    }
}

fn scan(cache: &Cache, segment: &Arc<Segment>) -> u64 {
    let Some(lease) = segment.lease() else { return 0 };
    let (mut next, mut bytes) = (segment.first(), 0);
    while next < segment.end() {
        match cache.read(&lease, next, segment.end(), &Filter::ALL) {
            Ok(chunk) => {
                bytes += chunk.events.len() as u64;
                next = chunk.end;
            }
            Err(error) => panic!("{error}"),
        }
    }
    bytes
}

fn seal(parent: &Path, source: &Memory, compression: Compression, times: u64) -> Duration {
    let spec = spec(source, compression);
    let mut took = Duration::ZERO;
    for _ in 0..times {
        let start = Instant::now();
        let segment = build(parent, &spec, source).expect("a build on a healthy disk");
        took += start.elapsed();
        delete(segment.dir(), &Disk::real()).expect("a healthy disk");
    }
    took
}

fn segments(c: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a directory");
    let kinds =
        [("none", Compression::None), ("lz4", Compression::Lz4), ("zstd1", Compression::Zstd(1))];
    for (named, is_named) in [("named", true), ("unnamed", false)] {
        let source = events(is_named);
        let count = source.0.last().map_or(0, |chunk| chunk.end.get() - 1);
        let mut group = c.benchmark_group(format!("seal-{named}"));
        group.sample_size(10).throughput(Throughput::Elements(count));
        for (label, compression) in kinds {
            group.bench_function(label, |b| {
                b.iter_custom(|times| seal(dir.path(), &source, compression, times));
            });
        }
    }
    let source = events(true);
    let mut group = c.benchmark_group("scan");
    for (label, compression) in kinds {
        let parent = dir.path().join(label);
        let segment = build(&parent, &spec(&source, compression), &source);
        let segment = Arc::new(segment.expect("a build on a healthy disk"));
        eprintln!("{label}: {} raw, {} on disk", segment.raw_bytes(), segment.disk_bytes());
        group.sample_size(10).throughput(Throughput::Bytes(segment.raw_bytes()));
        group.bench_function(format!("{label}-cold"), |b| {
            b.iter(|| scan(&Cache::default(), &segment));
        });
        let cache = Cache::default();
        group.bench_function(format!("{label}-open"), |b| b.iter(|| scan(&cache, &segment)));
        group.bench_function(format!("{label}-load"), |b| {
            b.iter(|| Segment::load(segment.dir(), &Disk::real()))
        });
    }
}

criterion_group!(benches, segments);
criterion_main!(benches);
