//! Building a segment: re-block, compress and describe, bulk-load, compare, sync, rename.
//!
//! Nothing that lies under a segment's name is ever unfinished: all is done in a `.tmp-` directory.
//! Memory is bounded by a window of blocks, the database's cache and what the footer says, not by
//! the segment.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};

use super::block::{Compression, Encoder, MAX_BLOCK_BYTES, PART_BYTES, Row, VALUE_BYTES};
use super::database::Database;
use super::describe::{Described, Describer, Plan};
use super::digest::{hash_file, hash_windows};
use super::direct::{Locator, Places};
use super::footer::{FileEntry, Footer};
use super::identity::Identity;
use super::store::{Fault, Store};
use super::topics::Table;
use super::{DB, FOOTER, Segment, dir};
use crate::chain::{Link, hash};
use crate::storage::disk::{Disk, make_private};
use crate::storage::entries::{Entries, Entry};
use crate::storage::{Chunk, Damage, StoreError};
use crate::width::to_u32;
use tailmark_record::{Fingerprint, FingerprintKey, GenerationTable, LogId, Seq};

/// A block is one read; nobody needs larger ones.
const MAX_TARGET_BYTES: usize = 1 << 20;
/// Blocks are loaded when so much was read of the source.
const WINDOW_BYTES: usize = 4 << 20;
/// Events of a segment have 32-bit places in it.
const MAX_EVENTS: u64 = 1 << 31;
/// Who makes one of several stops here.
pub const MANY_EVENTS: u64 = 1 << 30;

/// The events that a segment is built from.
pub trait Source {
    /// All events, complete and in order, and runs in place of those that are gone: the first chunk begins at the
    /// spec's `first`, the last ends at its `end`, and none is longer than memory allows.
    fn chunks(&self) -> Box<dyn Iterator<Item = Result<Chunk, StoreError>> + '_>;

    /// The file to name when the events make no sense.
    fn origin(&self) -> PathBuf {
        PathBuf::new()
    }
}

/// A good [`BuildSpec::block_bytes`].
pub const BLOCK_BYTES: usize = 48 << 10;
/// A good [`BuildSpec::db_cache_bytes`].
pub const DB_CACHE_BYTES: u64 = 16 << 20;

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
    /// Named events, in order: of those that the source has as runs only, repeats are still repeats.
    pub named_before: Vec<(Seq, Fingerprint)>,
    /// The chain before the first.
    pub link_before: Link,
    /// The chain at the last, as the source has it; `None` where nobody knows.
    pub link: Option<Link>,
    /// 1, or more than that of every segment which this one replaces.
    pub revision: u32,
    /// How blocks are compressed.
    pub compression: Compression,
    /// Raw bytes at which a block ends; 32 to 64 KB.
    pub block_bytes: usize,
    /// Memory of the database while it is filled.
    pub db_cache_bytes: u64,
    /// Moves on while the build does.
    pub progress: Arc<Progress>,
    /// File operations, but for those of the database.
    pub disk: Disk,
}

/// A sign of life: whoever watches a build and sees no beat for long knows that it hangs.
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
/// What the source says; [`StoreError::Damaged`] when its events make no sense or the database
/// gives back other bytes than it got; I/O.
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
    let target = parent.join(dir::name(spec.first, spec.revision));
    let mut is_named = false;
    let built = build.run(&tmp).and_then(|()| {
        if target.exists() {
            // A build that failed after its rename: nobody was told of it.
            dir::trash(&target, disk)?;
        }
        is_named = true;
        disk.rename(&tmp, &target)?;
        disk.sync_dir(parent)?;
        Segment::load(&target, disk)
    });
    if built.is_err() {
        // It would be removed at the next start; the error is what matters.
        let _ = disk.remove_tree(&tmp);
        if is_named && target.exists() {
            // Nobody is told of it. Left there, it could take the place of what is written after it.
            let _ = dir::trash(&target, disk);
        }
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
        let mut described = self.fill()?;
        let (topics, origin) = (std::mem::take(&mut described.topics), described.origin);
        // Sorting many topics takes a while, and needs nothing of the database.
        let table = std::thread::scope(|scope| {
            let named = std::thread::Builder::new().name("tailmark-topics".to_owned());
            let table = named.spawn_scoped(scope, move || topics.finish(origin));
            let table = table.map_err(StoreError::io("start a thread for", tmp))?;
            self.compare(&described)?;
            let table = table.join().ok().flatten();
            table.ok_or(StoreError::Invalid("a segment without topics"))
        })?;
        // Once more, so that a snapshot of the closed database is there and the next open changes
        // no byte.
        self.open()?.close().map_err(|fault| self.fault(fault))?;
        self.spec.disk.run("close", &self.db_dir, || {
            Database::release(&self.db_dir)?;
            // The database makes them as the umask has it.
            make_private(&self.db_dir)?;
            for inner in Database::EMPTY_DIRS {
                make_private(&self.db_dir.join(inner))?;
            }
            dir::list_files(&self.db_dir)?.iter().try_for_each(|(_, path)| make_private(path))
        })?;
        self.seal(tmp, &described, &table)
    }

    /// Loads the database, a window of blocks at a time: first room for them, then their values.
    /// The source is walked once.
    fn fill(&self) -> Result<Described, StoreError> {
        let db = self.open()?;
        let mut loader = Loader::new(self, &db)?;
        let mut window = Window::new(self.spec);
        for chunk in self.source.chunks() {
            self.cut(&mut window, chunk?)?;
            if window.bytes >= WINDOW_BYTES {
                loader.load(&mut window)?;
            }
        }
        if window.next != self.spec.end {
            return Err(self.source_damage(window.next, self.spec.end, "events are missing"));
        }
        window.close();
        loader.load(&mut window)?;
        let described = loader.describer.finish();
        let mut described = described.ok_or(StoreError::Invalid("a segment without events"))?;
        if let Some(link) = self.spec.link {
            if !link.joins(described.link) {
                let what = "the chain over its events is another";
                return Err(self.source_damage(self.spec.first, self.spec.end, what));
            }
            described.link = link;
        }
        db.finish().map_err(|fault| self.fault(fault))?;
        self.spec.progress.beat();
        db.close().map_err(|fault| self.fault(fault))?;
        Ok(described)
    }

    /// Cuts a chunk into blocks.
    fn cut(&self, window: &mut Window, chunk: Chunk) -> Result<(), StoreError> {
        let begin = window.next;
        if chunk.first != begin || !chunk.complete {
            return Err(self.source_damage(begin, chunk.end, "its events are not contiguous"));
        }
        let mut entries = Entries::new(&chunk.events);
        let mut before = entries.remaining();
        while let Some(entry) = entries.next() {
            let entry =
                entry.map_err(|error| self.source_damage(window.next, chunk.end, error.what()))?;
            let len = before - entries.remaining();
            before = entries.remaining();
            if len > MAX_BLOCK_BYTES {
                let next = window.next;
                return Err(self.source_damage(next, next.next(), "an event is too large"));
            }
            window.add(len, &entry);
        }
        if window.next != chunk.end {
            return Err(self.source_damage(begin, chunk.end, "events are missing"));
        }
        window.bytes += chunk.events.len();
        window.chunks.push_back(chunk.events);
        self.spec.progress.beat();
        Ok(())
    }

    /// Reads everything back and compares it with what was read of the source: the database is
    /// not believed.
    fn compare(&self, described: &Described) -> Result<(), StoreError> {
        let db = self.open()?;
        let mut raw = Vec::new();
        for (row, expected) in described.rows.iter().zip(&described.hashes) {
            raw.resize(row.raw_len as usize, 0);
            db.fetch(row, &mut raw).map_err(|fault| self.fault(fault))?;
            if hash(&raw) != *expected {
                return Err(self.fault(Fault::Corrupt("the database gave back other bytes".into())));
            }
            self.spec.progress.beat();
        }
        db.close().map_err(|fault| self.fault(fault))
    }

    /// Describes and syncs what was built.
    fn seal(&self, tmp: &Path, described: &Described, table: &Table) -> Result<(), StoreError> {
        let (files, places) = self.files(&described.rows)?;
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
            blocks: to_u32(described.rows.len()),
            unit_bytes: Database::UNIT_BYTES,
            link_before: spec.link_before,
            link: described.link,
            generations: spec.generations.clone(),
        };
        let footer = Footer {
            identity: &identity,
            files: &files,
            topics: table,
            rows: &described.rows,
            fingerprints: &described.fingerprints,
            places: places.as_ref().map(Places::offsets),
            runs: &described.runs,
        };
        let path = tmp.join(FOOTER);
        let disk = &spec.disk;
        disk.write_new(&path, &footer.encode())?;
        disk.sync_file(&path)?;
        for file in &files {
            disk.sync_file(&self.db_dir.join(&file.name))?;
            spec.progress.beat();
        }
        for inner in Database::EMPTY_DIRS {
            disk.sync_dir(&self.db_dir.join(inner))?;
        }
        disk.sync_dir(&self.db_dir)?;
        disk.sync_dir(tmp)?;
        Ok(())
    }

    /// The files of the closed database, and where in them the blocks lie.
    fn files(&self, rows: &[Row]) -> Result<(Vec<FileEntry>, Option<Places>), StoreError> {
        let disk = &self.spec.disk;
        for inner in Database::EMPTY_DIRS {
            if !disk.list(&self.db_dir.join(inner))?.is_empty() {
                let detail = format!("the database has put something into {inner}/");
                return Err(self.fault(Fault::Corrupt(detail)));
            }
        }
        let (mut files, mut locator) = (Vec::new(), Locator::new(rows));
        for (name, path) in disk.run("list", &self.db_dir, || dir::list_files(&self.db_dir))? {
            let (len, hash) = disk.run("read", &path, || match name.as_str() {
                Database::VALUES_FILE => hash_windows(&path, Locator::OVERLAP, |at, window| {
                    locator.see(at, window);
                }),
                _ => hash_file(&path),
            })?;
            files.push(FileEntry { name, len, hash });
            self.spec.progress.beat();
        }
        Ok((files, locator.finish()))
    }

    fn open(&self) -> Result<Database, StoreError> {
        let (dir, cache_bytes) = (&self.db_dir, self.spec.db_cache_bytes);
        let opened = Database::open(dir, Database::UNIT_BYTES, cache_bytes);
        let db = opened.map_err(|fault| self.fault(fault))?;
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

/// Blocks on their way into the database: where they are cut, and their bytes.
struct Window {
    target: usize,
    /// The seq after what was cut so far.
    next: Seq,
    /// Cut, not loaded.
    plans: Vec<Plan>,
    /// The block that still grows.
    open: Plan,
    /// It has more than runs.
    has_events: bool,
    /// What `plans` and `open` are cut from.
    chunks: VecDeque<Bytes>,
    /// Of `chunks`.
    bytes: usize,
}

impl Window {
    fn new(spec: &BuildSpec) -> Self {
        Window {
            target: spec.block_bytes.min(MAX_TARGET_BYTES),
            next: spec.first,
            plans: Vec::new(),
            open: Plan { first: spec.first, count: 0, raw_len: 0 },
            has_events: false,
            chunks: VecDeque::new(),
            bytes: 0,
        }
    }

    /// The next entry has `len` bytes. A block has an event at least, and runs before the first of a segment or
    /// behind those that they follow.
    fn add(&mut self, len: usize, entry: &Entry<'_>) {
        let is_event = matches!(entry, Entry::Event(_));
        if is_event && self.has_events && self.open.raw_len + len > self.target {
            self.close();
        }
        self.has_events |= is_event;
        // Neither a segment nor a run has more seqs than that.
        self.open.count = self.open.count.saturating_add(to_u32(entry.seqs()));
        self.open.raw_len += len;
        self.next = self.next.plus(entry.seqs());
    }

    /// The block that grows is at its end.
    fn close(&mut self) {
        let next = Plan { first: self.next, count: 0, raw_len: 0 };
        self.has_events = false;
        self.plans.push(std::mem::replace(&mut self.open, next));
    }

    /// The next `len` bytes; a slice of the chunk where they lie in one.
    fn take(&mut self, len: usize) -> Bytes {
        self.bytes = self.bytes.saturating_sub(len);
        let mut joined = BytesMut::new();
        while let Some(front) = self.chunks.front_mut() {
            let wanted = len - joined.len();
            if wanted < front.len() {
                let part = front.split_to(wanted);
                if joined.is_empty() {
                    return part;
                }
                joined.extend_from_slice(&part);
                break;
            }
            let part = self.chunks.pop_front().unwrap_or_default();
            if joined.is_empty() {
                if part.len() == len {
                    return part;
                }
                joined.reserve(len);
            }
            joined.extend_from_slice(&part);
        }
        joined.freeze()
    }
}

/// Puts blocks into the database.
struct Loader<'a> {
    build: &'a Build<'a>,
    db: &'a Database,
    encoder: Encoder,
    describer: Describer<'a>,
    value: Vec<u8>,
}

impl<'a> Loader<'a> {
    fn new(build: &'a Build<'a>, db: &'a Database) -> Result<Self, StoreError> {
        let spec = build.spec;
        let io = StoreError::io("compress", &build.db_dir);
        Ok(Loader {
            build,
            db,
            encoder: Encoder::new(spec.compression).map_err(io)?,
            describer: Describer::new(
                spec.first,
                spec.link_before,
                &spec.fingerprint_key,
                &spec.named_before,
            ),
            value: Vec::with_capacity(VALUE_BYTES),
        })
    }

    /// The blocks that were cut.
    fn load(&mut self, window: &mut Window) -> Result<(), StoreError> {
        let plans = std::mem::take(&mut window.plans);
        for plan in &plans {
            let reserved = self.db.reserve(plan.first, plan.raw_len.div_ceil(PART_BYTES).max(1));
            reserved.map_err(|fault| self.build.fault(fault))?;
        }
        self.build.spec.progress.beat();
        for plan in &plans {
            self.block(plan, &window.take(plan.raw_len))?;
            self.build.spec.progress.beat();
        }
        Ok(())
    }

    fn block(&mut self, plan: &Plan, raw: &[u8]) -> Result<(), StoreError> {
        let (codec, stored) = self.encoder.encode(raw);
        let row = self.describer.block(plan, raw, codec, stored).map_err(|what| {
            self.build.source_damage(plan.first, self.describer.next().next(), what)
        })?;
        self.db.put(&row, stored, &mut self.value).map_err(|fault| self.build.fault(fault))
    }
}
