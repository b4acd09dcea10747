//! Tests of sealed segments, and what they share.

mod cost;
mod damage;
mod direct;
mod life;
mod reading;
mod remains;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use uuid::Uuid;

use super::*;
use crate::chain::{Link, Said};
use crate::storage::disk::Disk;
use crate::storage::segment::footer::{self, SECTION_HEADER_BYTES};

use crate::storage::{Chunk, Damage, FORMAT_VERSION, StoreError, TopicStats};
use tailmark_record::topic::{Filter, Pattern};
use tailmark_record::{
    CursorMint, Event, Events, FingerprintKey, Generation, GenerationTable, Limits, LogId, Seq,
    Stamp, Timestamp, write_entry,
};

/// Every one that this build can write.
fn compressions() -> impl Iterator<Item = Compression> {
    let zstd = HAS_ZSTD.then_some(Compression::Zstd(1));
    [Compression::None, Compression::Lz4].into_iter().chain(zstd)
}

/// Every read opens the database.
const OPENING: CacheOptions = CacheOptions {
    max_open: 64,
    max_bytes: 128 << 20,
    db_cache_bytes: 8 << 20,
    max_table_bytes: 0,
    max_filter_bytes: 1 << 20,
};
const KEY: FingerprintKey = FingerprintKey::new([7; 16]);

fn log_id() -> LogId {
    LogId::new(Uuid::from_u128(0x1234_5678_9abc_4def_8123_4567_89ab_cdef))
}

fn generations() -> GenerationTable {
    GenerationTable::created(99, Timestamp::EPOCH)
}

/// Events in memory, as chunks of some events each.
#[derive(Clone)]
struct Log {
    chunks: Vec<Chunk>,
    /// The chain at the last event.
    link: Link,
}

/// The chain before the first event.
const LINK_BEFORE: Link = Link::new([5; 16]);

impl Source for Log {
    fn chunks(&self) -> Box<dyn Iterator<Item = Result<Chunk, StoreError>> + '_> {
        Box::new(self.chunks.iter().cloned().map(Ok))
    }
}

/// What one made-up event is like.
struct Made {
    topic: String,
    id: Option<String>,
    body: String,
    data: Vec<u8>,
}

impl Log {
    /// Events from `first` on; 7 of them have the same append time, then it moves on by a second.
    fn new(first: u64, made: impl IntoIterator<Item = Made>, per_chunk: usize) -> Log {
        let mint = CursorMint::new(log_id(), Generation { counter: 1, nonce: 99 });
        let mut chunks = Vec::new();
        let (mut entries, mut begin, mut seq) = (Vec::new(), first, first);
        let mut link = LINK_BEFORE;
        for event in made {
            let mut client = Vec::new();
            Event {
                id: event.id.as_deref().unwrap_or_default(),
                topic: &event.topic,
                body: &event.body,
                data: &event.data,
                headers: vec![("a", "b")],
                ..Event::default()
            }
            .write_client_part(&mut client);
            let fill_id = event.id.is_none().then_some("given");
            let said = Said::of_part(&client, fill_id.unwrap_or_default()).unwrap();
            link = link.then(Seq::new(seq), time_of(seq), said);
            let stamp = Stamp {
                seq: Seq::new(seq),
                mint: &mint,
                tag: link.tag(),
                appended_at: time_of(seq).into(),
                fill_at: true,
                fill_id,
            };
            write_entry(&mut entries, &client, &stamp);
            seq += 1;
            if (seq - begin) as usize == per_chunk {
                chunks.push(chunk(begin, seq, std::mem::take(&mut entries)));
                begin = seq;
            }
        }
        if begin < seq {
            chunks.push(chunk(begin, seq, entries));
        }
        Log { chunks, link }
    }

    /// `count` small events over ten topics, every third of them named by its sender.
    fn small(first: u64, count: u64) -> Log {
        let made = (first..first + count).map(|seq| Made {
            topic: format!("t.{}", seq % 10),
            id: (seq % 3 == 0).then(|| format!("id-{seq}")),
            body: format!("event number {seq} {}", "x".repeat(150)),
            data: Vec::new(),
        });
        Log::new(first, made, 1_000)
    }

    /// Events of all sizes up to some MiB, over many topics, some in runs.
    fn random(first: u64, count: usize, seed: u64) -> Log {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut topic = 0;
        let made = (0..count).map(|at| {
            if rng.random_range(0..30) == 0 {
                topic = rng.random_range(0..200);
            }
            let len = match rng.random_range(0..400) {
                _ if at == 123 => 8 << 20,
                0 => rng.random_range(1 << 20..8 << 20),
                1..10 => rng.random_range(30_000..200_000),
                10..100 => 0,
                _ => rng.random_range(0..600),
            };
            let mut data = vec![0; len];
            if rng.random_range(0..2) == 0 {
                rng.fill(&mut data[..]);
            }
            Made {
                topic: format!("r.{topic}.{}", at % 3),
                id: rng.random_range(0..2).eq(&0).then(|| format!("id{at}")),
                body: if len == 0 { "text".into() } else { String::new() },
                data,
            }
        });
        Log::new(first, made, 37)
    }

    fn first(&self) -> Seq {
        self.chunks[0].first
    }

    fn end(&self) -> Seq {
        self.chunks.last().unwrap().end
    }

    fn bytes(&self) -> Vec<u8> {
        self.chunks.iter().flat_map(|chunk| chunk.events.to_vec()).collect()
    }

    /// Every event, encoded, by its place.
    fn events(&self) -> Vec<Vec<u8>> {
        let bytes = self.bytes();
        Events::new(&bytes).map(|event| event.unwrap().to_vec()).collect()
    }

    /// What is known of each topic.
    fn topics(&self) -> BTreeMap<String, TopicStats> {
        let mut topics = BTreeMap::<String, TopicStats>::new();
        for (seq, event) in (self.first().get()..).zip(self.events()) {
            let stats = topics.entry(Event::topic_of(&event).unwrap().into()).or_default();
            let events = stats.events + 1;
            *stats = TopicStats { events, last_seq: Seq::new(seq), last_at: time_of(seq) };
        }
        topics
    }

    fn spec(&self) -> BuildSpec {
        BuildSpec {
            log_id: log_id(),
            generations: generations(),
            fingerprint_key: KEY,
            first: self.first(),
            end: self.end(),
            named_before: Vec::new(),
            link_before: LINK_BEFORE,
            link: Some(self.link),
            revision: 1,
            compression: Compression::Lz4,
            block_bytes: BLOCK_BYTES,
            db_cache_bytes: DB_CACHE_BYTES,
            progress: Arc::default(),
            disk: Disk::real(),
        }
    }

    fn build(&self, parent: &Path) -> Arc<Segment> {
        Arc::new(build(parent, &self.spec(), self).unwrap())
    }
}

fn time_of(seq: u64) -> Timestamp {
    Timestamp { seconds: 1_700_000_000 + (seq / 7) as i64, nanos: 5 }
}

fn chunk(first: u64, end: u64, entries: Vec<u8>) -> Chunk {
    Chunk { first: Seq::new(first), end: Seq::new(end), events: entries.into(), complete: true }
}

fn filter(patterns: &[&str]) -> Filter {
    let limits = Limits::default();
    Filter::new(patterns.iter().map(|text| Pattern::parse(text, &limits).unwrap()).collect())
}

/// Reads `from..end` chunk by chunk; checks what the contract says of each.
fn read_all(
    cache: &Cache,
    lease: &Lease,
    from: Seq,
    end: Seq,
    filter: &Filter,
) -> Result<Vec<Chunk>, StoreError> {
    let mut chunks = Vec::new();
    let mut next = from;
    while next < end {
        let chunk = cache.read(lease, next, end, filter)?;
        assert_eq!(chunk.first, next);
        assert!(chunk.end > next && chunk.end <= end);
        if chunk.complete {
            let count = Events::new(&chunk.events).map(Result::unwrap).count() as u64;
            assert_eq!(count, chunk.first.distance_to(chunk.end));
        }
        next = chunk.end;
        chunks.push(chunk);
    }
    Ok(chunks)
}

/// What a segment says of each topic.
fn all_topics(segment: &Arc<Segment>) -> Result<BTreeMap<String, TopicStats>, StoreError> {
    let mut topics = SegmentTopics::seek(segment.lease().unwrap(), "")?;
    let mut found = BTreeMap::new();
    while let Some((name, stats)) = topics.get() {
        found.insert(name.to_owned(), *stats);
        topics.advance()?;
    }
    Ok(found)
}

fn join(chunks: &[Chunk]) -> Vec<u8> {
    chunks.iter().flat_map(|chunk| chunk.events.to_vec()).collect()
}

fn copy_dir(from: &Path, to: &Path) {
    crate::testing::copy_dir(from, to).unwrap();
}

/// Every file below `dir` with its bytes' hash.
fn snapshot(dir: &Path) -> Vec<(PathBuf, u64, crate::chain::Hash)> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            files.extend(snapshot(&entry.path()));
        } else {
            let (len, hash) = digest::hash_file(&entry.path()).unwrap();
            files.push((entry.path(), len, hash));
        }
    }
    files.sort();
    files
}

fn bytes_of(range: std::ops::Range<usize>, events: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    for event in &events[range] {
        out.push(0x0a);
        let mut len = event.len();
        while len >= 0x80 {
            out.push(len as u8 | 0x80);
            len >>= 7;
        }
        out.push(len as u8);
        out.extend_from_slice(event);
    }
    out
}

fn empty() -> Bytes {
    Bytes::new()
}
