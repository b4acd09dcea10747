//! Building a segment: re-block, compress, bulk-load, compare, describe, sync, rename.
//!
//! Nothing that lies under a segment's name is ever unfinished: all is done in a `.tmp-` directory.
//! Memory is bounded by a block, sled's cache and what the footer says, not by the segment.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};

use super::block::{self, Compression, Encoder, FILLERS, MAX_BLOCK_BYTES, PART_BYTES, Row};
use super::db::{self, Database, Fault, Layout};
use super::describe::{Described, Describer, Plan};
use super::digest::{Hash, hash_file};
use super::footer::{FileEntry, Footer};
use super::identity::Identity;
use super::open::fetch;
use super::{DB, FOOTER, Segment, dir};
use crate::record::{Events, FingerprintKey, GenerationTable, LogId, Seq};
use crate::storage::disk::Disk;
use crate::storage::{Chunk, Damage, StoreError};

/// sled moves a leaf or value over a quarter of this into `blobs/`, which it never syncs. A leaf
/// holds at most 17 keys, hence 3 parts of 64 KB beside their fillers: 192 KB.
const SLED_SEGMENT_BYTES: usize = 1 << 20;
/// Written last, more than a segment of sled's: of damage in its last one sled says that it was
/// torn off, or does not open at all.
const PADDING_VALUES: usize = 17;
/// A block is one read; nobody needs larger ones.
const MAX_TARGET_BYTES: usize = 1 << 20;
/// Events of a segment have 32-bit places in it.
const MAX_EVENTS: u64 = 1 << 31;

/// The events that a segment is built from. Walked several times.
pub trait Source {
    /// All events, complete and in order: the first chunk begins at the spec's `first`, the last
    /// ends at its `end`, and none is longer than memory allows.
    fn chunks(&self) -> Box<dyn Iterator<Item = Result<Chunk, StoreError>> + '_>;

    /// The file to name when the events make no sense.
    fn origin(&self) -> PathBuf {
        PathBuf::new()
    }
}

/// A good [`BuildSpec::block_bytes`].
pub const BLOCK_BYTES: usize = 48 << 10;
/// A good [`BuildSpec::sled_cache_bytes`].
pub const SLED_CACHE_BYTES: u64 = 16 << 20;

/// What to build.
#[derive(Clone, Debug)]
pub struct BuildSpec {
    /// The log.
    pub log_id: LogId,
    /// Its history as of now.
    pub generations: GenerationTable,
    /// Secret for telling repeats.
    pub fingerprint_key: FingerprintKey,
    /// First seq.
    pub first: Seq,
    /// Seq after the last.
    pub end: Seq,
    /// 1, or more than that of every segment which this one replaces.
    pub revision: u32,
    /// How blocks are compressed.
    pub compression: Compression,
    /// Raw bytes at which a block ends; 32 to 64 KB.
    pub block_bytes: usize,
    /// sled's page cache while building.
    pub sled_cache_bytes: u64,
    /// Moves on while the build does.
    pub progress: Arc<Progress>,
    /// File operations, but for those of sled.
    pub disk: Disk,
}

/// A sign of life: whoever watches a build and sees no beat for long knows that sled hangs.
#[derive(Debug, Default)]
pub struct Progress(AtomicU64);

impl Progress {
    /// How often it has moved on.
    pub fn beats(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn beat(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Builds a segment in `parent`. It survives a power loss when this returns. After an error there
/// is at most a `.tmp-` directory left, which [`super::clean`] removes.
///
/// # Errors
/// What the source says; [`StoreError::Damaged`] when its events make no sense or sled gives back
/// other bytes than it got; I/O.
pub fn build(parent: &Path, spec: &BuildSpec, source: &dyn Source) -> Result<Segment, StoreError> {
    let events = spec.first.distance_to(spec.end);
    if spec.first == Seq::ZERO || events == 0 || events > MAX_EVENTS {
        return Err(StoreError::Invalid("a segment holds between 1 and 2^31 events"));
    }
    let tmp = parent.join(dir::tmp_name(spec.first, spec.revision));
    let disk = &spec.disk;
    disk.remove_tree(&tmp)?;
    disk.create_dir(&tmp)?;
    let build = Build { spec, source, db_dir: tmp.join(DB) };
    let built = build.run(&tmp).and_then(|()| {
        let target = parent.join(dir::name(spec.first, spec.revision));
        if target.exists() {
            // A build that failed after its rename: nobody was told of it.
            dir::trash(&target, disk)?;
        }
        disk.rename(&tmp, &target)?;
        disk.sync_dir(parent)?;
        Segment::load(&target, disk)
    });
    if built.is_err() {
        // It would be removed at the next start; the error is what matters.
        let _ = disk.remove_tree(&tmp);
    }
    built
}

struct Build<'a> {
    spec: &'a BuildSpec,
    source: &'a dyn Source,
    db_dir: PathBuf,
}

impl Build<'_> {
    fn run(&self, tmp: &Path) -> Result<(), StoreError> {
        let plans = self.plan()?;
        let described = self.fill(&plans)?;
        drop(plans);
        self.compare(&described.rows)?;
        // Once more, so that a snapshot of the closed database is there and the next open changes
        // no byte.
        self.open()?.close().map_err(|fault| self.fault(fault))?;
        self.spec.disk.run("close", &self.db_dir, || {
            db::wait_released(&self.db_dir)?;
            db::remove_half_snapshots(&self.db_dir)
        })?;
        self.seal(tmp, &described)
    }

    /// Where the blocks begin and end.
    fn plan(&self) -> Result<Vec<Plan>, StoreError> {
        let target = self.spec.block_bytes.min(MAX_TARGET_BYTES);
        let mut plans = Vec::new();
        let mut open = Plan { first: self.spec.first, count: 0, raw_len: 0 };
        let mut next = self.spec.first;
        for chunk in self.source.chunks() {
            let chunk = chunk?;
            if chunk.first != next || !chunk.complete {
                return Err(self.source_damage(next, chunk.end, "its events are not contiguous"));
            }
            let mut events = Events::new(&chunk.events);
            let mut before = events.remaining();
            while let Some(event) = events.next() {
                event.map_err(|error| self.source_damage(next, chunk.end, error.what()))?;
                let len = before - events.remaining();
                before = events.remaining();
                if len > MAX_BLOCK_BYTES {
                    return Err(self.source_damage(next, next.next(), "an event is too large"));
                }
                if open.count > 0 && open.raw_len + len > target {
                    plans.push(std::mem::replace(
                        &mut open,
                        Plan { first: next, count: 0, raw_len: 0 },
                    ));
                }
                open.count += 1;
                open.raw_len += len;
                next = next.next();
            }
            if next != chunk.end {
                return Err(self.source_damage(chunk.first, chunk.end, "events are missing"));
            }
            self.spec.progress.beat();
        }
        if next != self.spec.end {
            return Err(self.source_damage(next, self.spec.end, "events are missing"));
        }
        plans.push(open);
        Ok(plans)
    }

    /// Loads the database: first all keys, so that sled splits its leaves while they are empty,
    /// then the values.
    fn fill(&self, plans: &[Plan]) -> Result<Described, StoreError> {
        let db = self.open()?;
        let fault = |fault| self.fault(fault);
        let padding = || (0..PADDING_VALUES).map(|at| (Seq::MAX, at));
        let parts = plans.iter().flat_map(|plan| {
            let parts = plan.raw_len.div_ceil(PART_BYTES).max(1);
            (0..parts).map(move |part| (plan.first, part))
        });
        for (first, part) in parts.chain(padding()) {
            for filler in 0..=FILLERS {
                db.insert(&block::key(first, part, filler), &[]).map_err(fault)?;
            }
        }
        self.spec.progress.beat();
        let io = StoreError::io("compress", &self.db_dir);
        let mut encoder = Encoder::new(self.spec.compression).map_err(io)?;
        let mut describer = Describer::new(self.spec.first, &self.spec.fingerprint_key);
        let mut stream = Stream::new(self.source);
        let mut value = Vec::with_capacity(block::VALUE_BYTES);
        for plan in plans {
            let raw = stream.take(plan.raw_len)?;
            let (codec, stored) = encoder.encode(&raw);
            let row = describer
                .block(plan, &raw, codec, stored)
                .map_err(|what| self.source_damage(plan.first, describer.next().next(), what))?;
            for (part, bytes) in stored.chunks(PART_BYTES).enumerate() {
                value.clear();
                value.extend_from_slice(&row.header(part));
                value.extend_from_slice(bytes);
                db.insert(&block::key(plan.first, part, 0), &value).map_err(fault)?;
            }
            self.spec.progress.beat();
        }
        for (at, (first, part)) in padding().enumerate() {
            db.insert(&block::key(first, part, 0), &[at as u8 | 0x80; PART_BYTES])
                .map_err(fault)?;
        }
        db.flush().map_err(fault)?;
        self.spec.progress.beat();
        db.close().map_err(fault)?;
        Ok(describer.finish())
    }

    /// Reads everything back and compares it with the source: sled is not believed.
    fn compare(&self, rows: &[Row]) -> Result<(), StoreError> {
        let db = self.open()?;
        let mut stream = Stream::new(self.source);
        let mut raw = Vec::new();
        for row in rows {
            raw.clear();
            raw.resize(row.raw_len as usize, 0);
            fetch(&db, row, &mut raw).map_err(|fault| self.fault(fault))?;
            if stream.take(raw.len())? != raw {
                return Err(self.fault(Fault::Corrupt("sled gave back other bytes".into())));
            }
            self.spec.progress.beat();
        }
        db.close().map_err(|fault| self.fault(fault))
    }

    /// Describes and syncs what was built.
    fn seal(&self, tmp: &Path, described: &Described) -> Result<(), StoreError> {
        let files = self.files()?;
        let spec = self.spec;
        let (Some(first_row), Some(last_row)) = (described.rows.first(), described.rows.last())
        else {
            return Err(StoreError::Invalid("a segment without blocks"));
        };
        let identity = Identity {
            log_id: spec.log_id,
            first: spec.first,
            end: spec.end,
            revision: spec.revision,
            first_at: first_row.first_at,
            last_at: last_row.last_at,
            raw_bytes: described.rows.iter().map(|row| u64::from(row.raw_len)).sum(),
            stored_bytes: described.rows.iter().map(|row| u64::from(row.stored_len)).sum(),
            blocks: described.rows.len() as u32,
            sled_segment_bytes: SLED_SEGMENT_BYTES as u32,
            chain_start: Hash::default(),
            chain_end: described.chain_end,
            generations: spec.generations.clone(),
        };
        let footer = Footer {
            identity: &identity,
            files: &files,
            topics: &described.topics,
            rows: &described.rows,
            fingerprints: &described.fingerprints,
        };
        let path = tmp.join(FOOTER);
        let disk = &spec.disk;
        disk.run("write", &path, || fs::write(&path, footer.encode()))?;
        disk.sync_file(&path)?;
        for file in &files {
            disk.sync_file(&self.db_dir.join(&file.name))?;
            spec.progress.beat();
        }
        for directory in [&self.db_dir.join("blobs"), &self.db_dir, tmp] {
            disk.sync_dir(directory)?;
        }
        Ok(())
    }

    /// The files of the closed database.
    fn files(&self) -> Result<Vec<FileEntry>, StoreError> {
        let blobs = self.db_dir.join("blobs");
        let disk = &self.spec.disk;
        if !disk.list(&blobs)?.is_empty() {
            return Err(self.fault(Fault::Corrupt("sled used a blob file".into())));
        }
        let mut files = Vec::new();
        for (name, path) in
            disk.run("list", &self.db_dir, || super::open::list_files(&self.db_dir))?
        {
            let (len, hash) = disk.run("read", &path, || hash_file(&path))?;
            files.push(FileEntry { name, len, hash });
            self.spec.progress.beat();
        }
        Ok(files)
    }

    fn open(&self) -> Result<Database, StoreError> {
        let layout =
            Layout { segment_bytes: SLED_SEGMENT_BYTES, cache_bytes: self.spec.sled_cache_bytes };
        let db = Database::open(&self.db_dir, layout).map_err(|fault| self.fault(fault))?;
        self.spec.progress.beat();
        Ok(db)
    }

    fn fault(&self, fault: Fault) -> StoreError {
        match fault {
            Fault::Io(source) => {
                StoreError::Io { action: "build", path: self.db_dir.clone(), source }
            }
            Fault::Corrupt(detail) => StoreError::Damaged(Damage {
                from: self.spec.first,
                to: self.spec.end.prev(),
                file: self.db_dir.clone(),
                detail,
            }),
        }
    }

    fn source_damage(&self, from: Seq, end: Seq, what: &str) -> StoreError {
        let (file, detail) = (self.source.origin(), what.to_owned());
        StoreError::Damaged(Damage { from, to: end.prev(), file, detail })
    }
}

/// The source as one run of bytes.
struct Stream<'a> {
    chunks: Box<dyn Iterator<Item = Result<Chunk, StoreError>> + 'a>,
    rest: Bytes,
}

impl<'a> Stream<'a> {
    fn new(source: &'a dyn Source) -> Self {
        Stream { chunks: source.chunks(), rest: Bytes::new() }
    }

    /// The next `len` bytes; a slice of the chunk where they lie in one.
    fn take(&mut self, len: usize) -> Result<Bytes, StoreError> {
        self.refill()?;
        if len <= self.rest.len() {
            return Ok(self.rest.split_to(len));
        }
        let mut joined = BytesMut::with_capacity(len);
        while joined.len() < len {
            self.refill()?;
            let n = self.rest.len().min(len - joined.len());
            joined.extend_from_slice(&self.rest.split_to(n));
        }
        Ok(joined.freeze())
    }

    fn refill(&mut self) -> Result<(), StoreError> {
        while self.rest.is_empty() {
            match self.chunks.next() {
                Some(chunk) => self.rest = chunk?.events,
                None => return Err(StoreError::Invalid("the source changed while it was read")),
            }
        }
        Ok(())
    }
}
