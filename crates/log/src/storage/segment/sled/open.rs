//! One segment's database while it is open: checked files, block table, reads.
//!
//! Must not know how many are open, or for how long. Invariants: no file of the database differs
//! from the footer when sled first sees it; a block's bytes pass the CRC of what was stored and the
//! CRC of its events before anybody gets them.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;

use super::super::block::{self, CODEC_NONE, HEADER_BYTES, Row};
use super::super::blocks::Blocks;
use super::super::digest::{hash_file, hash_windows};
use super::super::dir::list_files;
use super::super::direct::{Locator, Places, VALUES_FILE};
use super::super::footer::FileEntry;
use super::super::index::Index;
use super::super::{DB, Segment};
use super::copy::Copy;
use super::db::{self, Database, Fault, Layout, Value};
use crate::storage::{Damage, StoreError};

/// What an open database takes before anything was read: sled's log buffers and tables. Measured
/// as resident memory over many open ones; docs/performance.md.
pub(in crate::storage::segment) const OPEN_BYTES: u64 = 6 << 20;
/// sled keeps what it has read twice: as the page that it pulled and as the leaf made of it.
const COPIES: u64 = 2;

/// An open database.
pub(in crate::storage::segment) struct Open {
    index: Arc<Index>,
    db: Database,
    /// Blocks that sled has read, which is memory that it may hold.
    pulled: Box<[AtomicBool]>,
    pulled_bytes: AtomicU64,
    /// What is wrong with the segment's files, where this is a copy of altered ones.
    pub(in crate::storage::segment) altered: Option<Damage>,
    // After the database, so that it is closed before the copy is deleted.
    _copy: Option<Copy>,
}

impl Open {
    /// Checks the segment's database against its footer and opens it in place. Where a file was
    /// altered, a copy is opened: what it says of each block is proved by the block's checksums, so
    /// the damage costs no more events than it must.
    pub(in crate::storage::segment) fn in_place(
        segment: Arc<Segment>,
        sled_cache_bytes: u64,
    ) -> Result<Open, StoreError> {
        let index = Arc::new(Index::load(Arc::clone(&segment))?);
        let db_dir = segment.dir().join(DB);
        let checked = check_files(&segment, &db_dir, None);
        let altered = match checked {
            Ok(()) => {
                let remove = || db::remove_half_snapshots(&db_dir);
                segment.disk.run("clean", &db_dir, remove)?;
                return Self::start(index, &db_dir, sled_cache_bytes);
            }
            Err(StoreError::Damaged(damage)) => damage,
            Err(other) => return Err(other),
        };
        let scratch = segment.dir().parent().map(Path::to_owned).unwrap_or_default();
        // Whatever keeps the copy from being read, a full disk too: the damage is what counts.
        match Self::copied(segment, &scratch, sled_cache_bytes) {
            Ok(open) => Ok(open),
            Err(_) => Err(altered.into()),
        }
    }

    /// Opens a copy made below `scratch`; not a byte of the segment changes.
    pub(in crate::storage::segment) fn copied(
        segment: Arc<Segment>,
        scratch: &Path,
        sled_cache_bytes: u64,
    ) -> Result<Open, StoreError> {
        let copy = Copy::of(&segment, scratch)?;
        let altered = match check_files(&segment, copy.path(), None) {
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
        let index = Index::load(segment).map(Arc::new);
        match index.and_then(|index| Self::start(index, copy.path(), sled_cache_bytes)) {
            Ok(open) => Ok(Open { altered, _copy: Some(copy), ..open }),
            Err(error) => Err(altered.map_or(error, StoreError::from)),
        }
    }

    fn start(index: Arc<Index>, db_dir: &Path, sled_cache_bytes: u64) -> Result<Open, StoreError> {
        let layout = Layout {
            segment_bytes: index.segment.identity.sled_segment_bytes as usize,
            cache_bytes: sled_cache_bytes,
        };
        let db = Database::open(db_dir, layout).map_err(|fault| match fault {
            Fault::Io(source) => StoreError::Io { action: "open", path: db_dir.to_owned(), source },
            Fault::Corrupt(detail) => index.segment.damage_of_all(db_dir, &detail).into(),
        })?;
        let pulled = index.rows.iter().map(|_| AtomicBool::new(false)).collect();
        Ok(Open { index, db, pulled, pulled_bytes: AtomicU64::new(0), altered: None, _copy: None })
    }

    /// Bytes that it is taken to hold: what sled has read since it was opened, because
    /// `cache_capacity` does not bound it.
    pub(in crate::storage::segment) fn held_bytes(&self) -> u64 {
        OPEN_BYTES + COPIES * self.pulled_bytes.load(Ordering::Relaxed)
    }

    fn pull(&self, at: usize) {
        if !self.pulled[at].swap(true, Ordering::Relaxed) {
            let bytes = u64::from(self.index.rows[at].stored_len);
            self.pulled_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    fn failed(&self, at: usize, fault: Fault) -> StoreError {
        match fault {
            // sled reads beyond the end of a file that was cut.
            Fault::Io(error) if self.altered.is_some() => self.index.damage(at, &error.to_string()),
            Fault::Io(source) => {
                StoreError::Io { action: "read", path: self.index.segment.dir().join(DB), source }
            }
            Fault::Corrupt(detail) => self.index.damage(at, &detail),
        }
    }
}

impl Blocks for Open {
    fn index(&self) -> &Index {
        &self.index
    }

    fn block_into(&self, at: usize, out: &mut [u8]) -> Result<(), StoreError> {
        self.pull(at);
        fetch(&self.db, &self.index.rows[at], out).map_err(|fault| self.failed(at, fault))
    }

    fn block(&self, at: usize) -> Result<Bytes, StoreError> {
        let row = &self.index.rows[at];
        if row.codec == CODEC_NONE && row.parts() == 1 {
            self.pull(at);
            let value = fetch_part(&self.db, row, 0).map_err(|fault| self.failed(at, fault))?;
            let events = Bytes::from_owner(value).slice(HEADER_BYTES..);
            block::check_plain(row, &events).map_err(|what| self.index.damage(at, what))?;
            return Ok(events);
        }
        let mut raw = vec![0; row.raw_len as usize];
        self.block_into(at, &mut raw)?;
        Ok(raw.into())
    }
}

/// Reads one block into `out`, which has its raw length.
pub(in crate::storage::segment) fn fetch(
    db: &Database,
    row: &Row,
    out: &mut [u8],
) -> Result<(), Fault> {
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
    block::unpack(row, stored, out).map_err(|what| Fault::Corrupt(what.to_owned()))
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

/// Compares the files of a segment's database with its footer, and finds where its blocks lie in them;
/// `None` where that is not known of every block.
pub(in crate::storage::segment) fn locate(index: &Index) -> Result<Option<Places>, StoreError> {
    let mut locator = Locator::new(&index.rows);
    check_files(&index.segment, &index.segment.dir().join(DB), Some(&mut locator))?;
    Ok(locator.finish())
}

/// Compares the files of a segment's database with its footer.
pub(in crate::storage::segment) fn compare(index: &Index) -> Result<(), StoreError> {
    check_files(&index.segment, &index.segment.dir().join(DB), None)
}

/// Compares the files of a database with the footer. Shows the bytes of its values on the way. Writes
/// nothing, deletes nothing: it looks at directories that are somebody else's.
fn check_files(
    segment: &Segment,
    db_dir: &Path,
    mut locator: Option<&mut Locator<'_>>,
) -> Result<(), StoreError> {
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
        .run("list", db_dir, || list_files(db_dir))
        .map_err(|error| gone(db_dir, error))?;
    for (name, path) in there.iter().filter(|(name, _)| !db::is_half_snapshot(name)) {
        if !segment.files.iter().any(|file| file.name == *name) {
            let detail = "it was not there when the segment was sealed";
            return Err(segment.damage_of_all(path, detail).into());
        }
    }
    for file in &segment.files {
        let path = db_dir.join(&file.name);
        let hashed = segment.disk.run("read", &path, || match &mut locator {
            Some(locator) if file.name == VALUES_FILE => {
                hash_windows(&path, Locator::OVERLAP, |at, window| locator.see(at, window))
            }
            _ => hash_file(&path),
        });
        let (len, hash) = hashed.map_err(|error| gone(&path, error))?;
        if (len, hash) != (file.len, file.hash) {
            return Err(segment.damage_of_all(&path, "its bytes are not what was sealed").into());
        }
    }
    Ok(())
}
