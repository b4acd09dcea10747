//! One segment's database while it is open: checked files, block table, reads.
//!
//! Must not know how many are open, or for how long. Invariants: no file of the database differs
//! from the footer when sled first sees it; a block's bytes pass the CRC of what was stored and the
//! CRC of its events before anybody gets them.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::block::{self, CODEC_NONE, HEADER_BYTES, Row};
use super::copy::Copy;
use super::db::{self, Database, Fault, Layout, Value};
use super::digest::hash_file;
use super::footer::{self, FileEntry, Problem};
use super::{DB, Segment};
use crate::record::{Events, Seq};
use crate::storage::{Chunk, Damage, StoreError};
use crate::topic::Filter;

/// Neighbouring blocks are joined up to this.
const CHUNK_BYTES: usize = 256 << 10;
/// Filters whose blocks are remembered, per open database.
const REMEMBERED_FILTERS: usize = 8;
/// What an open database takes before anything was read: sled's log buffers and tables. Measured
/// as resident memory over many open ones; docs/performance.md.
pub(super) const OPEN_BYTES: u64 = 6 << 20;
/// sled keeps what it has read twice: as the page that it pulled and as the leaf made of it.
const COPIES: u64 = 2;

/// An open database.
pub(super) struct Open {
    segment: Arc<Segment>,
    db: Database,
    pub(super) rows: Vec<Row>,
    topic_blocks: Vec<u8>,
    filters: Mutex<Vec<(Filter, Arc<[bool]>)>>,
    /// Blocks that sled has read, which is memory that it may hold.
    pulled: Box<[AtomicBool]>,
    pulled_bytes: AtomicU64,
    /// What is wrong with the segment's files, where this is a copy of altered ones.
    pub(super) altered: Option<Damage>,
    // After the database, so that it is closed before the copy is deleted.
    _copy: Option<Copy>,
}

impl Open {
    /// Checks the segment's database against its footer and opens it in place. Where a file was
    /// altered, a copy is opened: what it says of each block is proved by the block's checksums,
    /// so the damage costs no more events than it must.
    pub(super) fn in_place(
        segment: Arc<Segment>,
        sled_cache_bytes: u64,
    ) -> Result<Open, StoreError> {
        let db_dir = segment.dir().join(DB);
        let altered = match check_files(&segment, &db_dir) {
            Ok(()) => return Self::start(segment, &db_dir, sled_cache_bytes),
            Err(StoreError::Damaged(damage)) => damage,
            Err(other) => return Err(other),
        };
        let scratch = segment.dir().parent().map(Path::to_owned).unwrap_or_default();
        // Whatever keeps the copy from being read, a full disk too: the damage is what counts.
        Self::copied(segment, &scratch, sled_cache_bytes).map_err(|_| altered.into())
    }

    /// Opens a copy made below `scratch`; not a byte of the segment changes.
    pub(super) fn copied(
        segment: Arc<Segment>,
        scratch: &Path,
        sled_cache_bytes: u64,
    ) -> Result<Open, StoreError> {
        let copy = Copy::of(&segment, scratch)?;
        let altered = match check_files(&segment, copy.path()) {
            Ok(()) => None,
            Err(StoreError::Damaged(mut damage)) => {
                // sled would make a fresh database where there is none.
                let is_missing = |file: &FileEntry| !copy.path().join(&file.name).exists();
                if segment.files.iter().any(is_missing) {
                    return Err(damage.into());
                }
                if let Some(name) = damage.file.file_name() {
                    damage.file = segment.dir().join(DB).join(name);
                }
                Some(damage)
            }
            Err(other) => return Err(other),
        };
        match Self::start(segment, copy.path(), sled_cache_bytes) {
            Ok(open) => Ok(Open { altered, _copy: Some(copy), ..open }),
            Err(error) => Err(altered.map_or(error, StoreError::from)),
        }
    }

    fn start(
        segment: Arc<Segment>,
        db_dir: &Path,
        sled_cache_bytes: u64,
    ) -> Result<Open, StoreError> {
        let rows = footer::decode_rows(&segment.section(footer::kind::BLOCKS)?, &segment.identity)
            .map_err(|problem| footer_damage(&segment, &problem))?;
        let topic_blocks = segment.section(footer::kind::TOPIC_BLOCKS)?;
        let layout = Layout {
            segment_bytes: segment.identity.sled_segment_bytes as usize,
            cache_bytes: sled_cache_bytes,
        };
        let db = Database::open(db_dir, layout).map_err(|fault| match fault {
            Fault::Io(source) => StoreError::Io { action: "open", path: db_dir.to_owned(), source },
            Fault::Corrupt(detail) => segment.damage_of_all(db_dir, &detail).into(),
        })?;
        let pulled = rows.iter().map(|_| AtomicBool::new(false)).collect();
        Ok(Open {
            segment,
            db,
            rows,
            topic_blocks,
            filters: Mutex::default(),
            pulled,
            pulled_bytes: AtomicU64::new(0),
            altered: None,
            _copy: None,
        })
    }

    /// Bytes that it is taken to hold: what sled has read since it was opened, because
    /// `cache_capacity` does not bound it.
    pub(super) fn held_bytes(&self) -> u64 {
        OPEN_BYTES + COPIES * self.pulled_bytes.load(Ordering::Relaxed)
    }

    /// The place of the block that holds `seq`, which is in the segment.
    pub(super) fn block_of(&self, seq: Seq) -> usize {
        self.rows.partition_point(|row| row.end() <= seq).min(self.rows.len() - 1)
    }

    /// As `Engine::read`, within `first..end` of the segment.
    pub(super) fn read(&self, from: Seq, end: Seq, filter: &Filter) -> Result<Chunk, StoreError> {
        let end = end.min(self.segment.end());
        if from < self.segment.first() || from >= end {
            return Err(StoreError::Invalid("the range is not in the segment"));
        }
        let wanted = self.wanted(filter)?;
        let is_wanted = |at: usize| wanted.as_ref().is_none_or(|wanted| wanted[at]);
        let begin = self.block_of(from);
        if !is_wanted(begin) {
            let next = (begin..self.rows.len()).find(|&at| is_wanted(at));
            let end = next.map_or(end, |at| self.rows[at].first.min(end));
            return Ok(Chunk { first: from, end, events: Bytes::new(), complete: false });
        }
        let mut bytes = self.rows[begin].raw_len as usize;
        let mut stop = begin + 1;
        while let Some(row) = self.rows.get(stop) {
            bytes += row.raw_len as usize;
            if row.first >= end || bytes > CHUNK_BYTES || !is_wanted(stop) {
                break;
            }
            stop += 1;
        }
        let (events, stop) = self.join(begin, stop)?;
        self.slice(events, begin, stop, from, end)
    }

    /// The events of the blocks from `begin` to before `stop`, or to before the first damaged one
    /// after `begin`: its error belongs to the next read.
    fn join(&self, begin: usize, stop: usize) -> Result<(Bytes, usize), StoreError> {
        if stop == begin + 1 {
            return Ok((self.block(begin)?, stop));
        }
        let rows = &self.rows[begin..stop];
        let mut joined = vec![0; rows.iter().map(|row| row.raw_len as usize).sum()];
        let mut done = 0;
        for (at, row) in (begin..stop).zip(rows) {
            let out = &mut joined[done..done + row.raw_len as usize];
            match self.block_into(at, out) {
                Ok(()) => done += row.raw_len as usize,
                Err(error) if at == begin => return Err(error),
                Err(_) => {
                    joined.truncate(done);
                    return Ok((joined.into(), at));
                }
            }
        }
        Ok((joined.into(), stop))
    }

    /// Cuts the events of whole blocks down to `from..end`.
    fn slice(
        &self,
        events: Bytes,
        begin: usize,
        stop: usize,
        from: Seq,
        end: Seq,
    ) -> Result<Chunk, StoreError> {
        let (first, last_end) = (self.rows[begin].first, self.rows[stop - 1].end());
        let end = end.min(last_end);
        let malformed = || self.damage(begin, "its events are malformed");
        let mut range = 0..events.len();
        let mut walk = Events::new(&events);
        if from > first {
            walk = skip(walk, first.distance_to(from)).ok_or_else(malformed)?;
            range.start = events.len() - walk.remaining();
        }
        if end < last_end {
            walk = skip(walk, from.distance_to(end)).ok_or_else(malformed)?;
            range.end = events.len() - walk.remaining();
        }
        Ok(Chunk { first: from, end, events: events.slice(range), complete: true })
    }

    /// The events of one block.
    pub(super) fn block(&self, at: usize) -> Result<Bytes, StoreError> {
        let row = &self.rows[at];
        if row.codec == CODEC_NONE && row.parts() == 1 {
            self.pull(at);
            let value = fetch_part(&self.db, row, 0).map_err(|fault| self.failed(at, fault))?;
            let events = Bytes::from_owner(value).slice(HEADER_BYTES..);
            if row.raw_len != row.stored_len || row.dictionary != 0 {
                return Err(self.damage(at, "stored and raw length differ"));
            }
            for crc in [row.crc_stored, row.crc_raw] {
                // Equal in a block that is not compressed, and then computed once.
                if crc != row.crc_stored || crc32c::crc32c(&events) != crc {
                    return Err(self.damage(at, "the checksum of its events does not fit"));
                }
                if row.crc_raw == row.crc_stored {
                    break;
                }
            }
            return Ok(events);
        }
        let mut raw = vec![0; row.raw_len as usize];
        self.block_into(at, &mut raw)?;
        Ok(raw.into())
    }

    fn block_into(&self, at: usize, out: &mut [u8]) -> Result<(), StoreError> {
        self.pull(at);
        fetch(&self.db, &self.rows[at], out).map_err(|fault| self.failed(at, fault))
    }

    fn pull(&self, at: usize) {
        if !self.pulled[at].swap(true, Ordering::Relaxed) {
            let bytes = u64::from(self.rows[at].stored_len);
            self.pulled_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// Which blocks hold events that match; `None` = all.
    fn wanted(&self, filter: &Filter) -> Result<Option<Arc<[bool]>>, StoreError> {
        if filter.is_all() {
            return Ok(None);
        }
        // The lists stay valid whatever a panicking holder did.
        let mut filters = self.filters.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = filters.iter().position(|(known, _)| known == filter) {
            filters[..=at].rotate_right(1);
            return Ok(Some(Arc::clone(&filters[0].1)));
        }
        let mut wanted = vec![false; self.rows.len()];
        for (at, (topic, _)) in self.segment.topics().iter().enumerate() {
            if !filter.matches(topic) {
                continue;
            }
            let mut beyond = false;
            footer::topic_blocks(&self.topic_blocks, at, |block| {
                match wanted.get_mut(block as usize) {
                    Some(wanted) => *wanted = true,
                    None => beyond = true,
                }
            })
            .map_err(|problem| footer_damage(&self.segment, &problem))?;
            if beyond {
                let problem = Problem::Damaged("the index of topics makes no sense");
                return Err(footer_damage(&self.segment, &problem));
            }
        }
        let wanted: Arc<[bool]> = wanted.into();
        filters.truncate(REMEMBERED_FILTERS - 1);
        filters.insert(0, (filter.clone(), Arc::clone(&wanted)));
        Ok(Some(wanted))
    }

    pub(super) fn damage(&self, at: usize, detail: &str) -> StoreError {
        let row = &self.rows[at];
        StoreError::Damaged(Damage {
            from: row.first,
            to: row.end().prev(),
            file: self.segment.dir().join(DB),
            detail: detail.to_owned(),
        })
    }

    fn failed(&self, at: usize, fault: Fault) -> StoreError {
        match fault {
            // sled reads beyond the end of a file that was cut.
            Fault::Io(error) if self.altered.is_some() => self.damage(at, &error.to_string()),
            Fault::Io(source) => {
                StoreError::Io { action: "read", path: self.segment.dir().join(DB), source }
            }
            Fault::Corrupt(detail) => self.damage(at, &detail),
        }
    }
}

/// Moves over `count` events; walking 64 KB of lengths takes microseconds.
fn skip(mut events: Events<'_>, count: u64) -> Option<Events<'_>> {
    for _ in 0..count {
        events.next()?.ok()?;
    }
    Some(events)
}

/// Reads one block into `out`, which has its raw length.
pub(super) fn fetch(db: &Database, row: &Row, out: &mut [u8]) -> Result<(), Fault> {
    let corrupt = |what: &str| Fault::Corrupt(what.to_owned());
    let first = fetch_part(db, row, 0)?;
    let joined;
    let stored = if row.parts() == 1 {
        first.get(HEADER_BYTES..).unwrap_or_default()
    } else {
        let mut all = Vec::with_capacity(row.stored_len as usize);
        all.extend_from_slice(first.get(HEADER_BYTES..).unwrap_or_default());
        for part in 1..row.parts() {
            let value = fetch_part(db, row, part)?;
            all.extend_from_slice(value.get(HEADER_BYTES..).unwrap_or_default());
        }
        joined = all;
        &joined
    };
    if stored.len() != row.stored_len as usize || crc32c::crc32c(stored) != row.crc_stored {
        return Err(corrupt("the checksum of what was stored does not fit"));
    }
    block::decode(row, stored, out).map_err(corrupt)
}

/// Reads one part: its header is what it must be, its bytes are not checked yet.
fn fetch_part(db: &Database, row: &Row, part: usize) -> Result<Value, Fault> {
    let value = db.get(&block::key(row.first, part, 0))?;
    let value = value.ok_or_else(|| Fault::Corrupt("a block is missing".into()))?;
    if value.get(..HEADER_BYTES) != Some(&row.header(part)[..]) {
        return Err(Fault::Corrupt("a block has another header".into()));
    }
    Ok(value)
}

/// The files of a database by name, in order. Directories, sled's `blobs`, are left out.
pub(super) fn list_files(db_dir: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(db_dir)? {
        let entry = entry?;
        if !entry.file_type()?.is_dir() {
            files.push((entry.file_name().to_string_lossy().into_owned(), entry.path()));
        }
    }
    files.sort();
    Ok(files)
}

/// Compares the files of a database with the footer.
fn check_files(segment: &Segment, db_dir: &Path) -> Result<(), StoreError> {
    let gone = |path: &Path, error: StoreError| match &error {
        StoreError::Io { source, .. }
            if matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            segment.damage_of_all(path, "it is missing").into()
        }
        _ => error,
    };
    let there = segment
        .disk
        .run("list", db_dir, || {
            db::remove_half_snapshots(db_dir)?;
            list_files(db_dir)
        })
        .map_err(|error| gone(db_dir, error))?;
    for (name, path) in &there {
        if !segment.files.iter().any(|file| file.name == *name) {
            let detail = "it was not there when the segment was sealed";
            return Err(segment.damage_of_all(path, detail).into());
        }
    }
    for file in &segment.files {
        let path = db_dir.join(&file.name);
        let hashed = segment.disk.run("read", &path, || hash_file(&path));
        let (len, hash) = hashed.map_err(|error| gone(&path, error))?;
        if (len, hash) != (file.len, file.hash) {
            return Err(segment.damage_of_all(&path, "its bytes are not what was sealed").into());
        }
    }
    Ok(())
}

fn footer_damage(segment: &Segment, problem: &Problem) -> StoreError {
    let detail = match problem {
        Problem::Damaged(what) => what,
        Problem::Version(_) => "it has a section of another version",
    };
    segment.damage_of_all(&segment.dir().join(super::FOOTER), detail).into()
}
