//! What is whole of a segment that may be damaged anywhere.
//!
//! A block needs nothing but itself: its header says which events it has, and is proved by a checksum, as what
//! is behind it is by two. So blocks are looked for in the file that has the values, and neither the footer
//! nor the database is asked. Nothing is written.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use memchr::memmem::Finder;

use super::block::{self, HEADER_BYTES, MAX_BLOCK_BYTES, PART_BYTES, Row};
use super::database::Database;
use super::digest::hash_windows;
use super::index::Index;
use super::store::Store;
use super::{DB, RemovedRange, Segment, dir};
use crate::storage::disk::Disk;
use crate::storage::{Damage, StoreError};
use tailmark_record::{ChainTag, Cursor, Event, EventError, Events, Facts, LogId, Seq};

/// In every header of a value: no flags, and its own length.
const MARK: [u8; 3] = [0, 48, 0];
/// Where.
const MARK_AT: usize = 3;
/// Ways in which the parts of one block are put together before it is given up.
const MAX_TRIES: usize = 64;

/// What is whole of a directory with a segment's name.
#[derive(Debug, Default)]
pub struct Remains {
    /// What its footer says, where that can be read.
    pub segment: Option<Arc<Segment>>,
    /// Every byte of the segment is what was sealed: the blocks were not looked for.
    pub is_whole: bool,
    /// It is a range without events.
    pub removed: Option<RemovedRange>,
    /// Blocks that are whole, by their first event.
    pub units: Vec<Unit>,
    /// Tags of the chain before the first events of blocks, as the footer has them.
    pub tags: BTreeMap<Seq, ChainTag>,
    /// What is wrong.
    pub damage: Vec<Damage>,
}

/// A block that is whole.
#[derive(Clone, Debug)]
pub struct Unit {
    row: Row,
    /// Where its parts lie.
    offsets: Vec<u64>,
    path: PathBuf,
}

impl Unit {
    /// First seq.
    pub fn first(&self) -> Seq {
        self.row.first
    }

    /// Seq after the last.
    pub fn end(&self) -> Seq {
        self.row.end()
    }

    /// Bytes of its events.
    pub fn raw_bytes(&self) -> u64 {
        u64::from(self.row.raw_len)
    }

    /// Its events, proved.
    ///
    /// # Errors
    /// Damage, I/O.
    pub fn read(&self, disk: &Disk) -> Result<Bytes, StoreError> {
        let file = disk.open_read(&self.path)?;
        disk.run("read", &self.path, || Ok(read(&file, &self.row, &self.offsets)))?
            .map_err(|what| self.damage(what).into())
    }

    fn damage(&self, what: &str) -> Damage {
        let (from, to, file) = (self.first(), self.end().prev(), self.path.clone());
        Damage { from, to, file, detail: what.to_owned() }
    }
}

/// Looks at all of a segment's directory. With `log`, what belongs to another is damage.
///
/// # Errors
/// Another format; I/O.
pub fn remains(dir: &Path, log: Option<LogId>, disk: &Disk) -> Result<Remains, StoreError> {
    let mut found = Remains::default();
    match Segment::load(dir, disk) {
        Ok(segment) if log.is_some_and(|log| log != segment.log_id()) => {
            found.damage.push(segment.damage_of_all(dir, "it belongs to another log"));
            return Ok(found);
        }
        Ok(segment) => {
            let segment = Arc::new(segment);
            match segment.check_files().and_then(|()| segment.check_sections()) {
                Ok(()) => found.is_whole = true,
                Err(StoreError::Damaged(damage)) => found.damage.push(damage),
                Err(other) => return Err(other),
            }
            if let Ok(index) = Index::load(Arc::clone(&segment)) {
                found.tags = index.rows.iter().map(|row| (row.first, row.tag_before)).collect();
            }
            found.segment = Some(segment);
        }
        Err(StoreError::Damaged(damage)) => found.damage.push(damage),
        Err(error @ StoreError::Format { .. }) => match RemovedRange::load(dir, disk) {
            Ok(Some(range)) => {
                found.removed = Some(range);
                return Ok(found);
            }
            Ok(None) => return Err(error),
            Err(StoreError::Damaged(damage)) => found.damage.push(damage),
            Err(other) => return Err(other),
        },
        Err(other) => return Err(other),
    }
    if !found.is_whole {
        found.look_for_blocks(dir, log, disk)?;
    }
    Ok(found)
}

/// The blocks that are whole in a segment's directory, whatever else is there.
///
/// # Errors
/// I/O.
pub fn units(dir: &Path, log: Option<LogId>, disk: &Disk) -> Result<Vec<Unit>, StoreError> {
    let mut found = Remains::default();
    found.look_for_blocks(dir, log, disk)?;
    Ok(found.units)
}

impl Segment {
    /// Reads every section of its footer.
    fn check_sections(&self) -> Result<(), StoreError> {
        self.sections.iter().try_for_each(|(_, section)| self.section(section.kind).map(drop))
    }
}

impl Remains {
    fn look_for_blocks(
        &mut self,
        dir: &Path,
        log: Option<LogId>,
        disk: &Disk,
    ) -> Result<(), StoreError> {
        let path = dir.join(DB).join(Database::VALUES_FILE);
        let file = match disk.open_read(&path) {
            Ok(file) => file,
            Err(StoreError::Io { source, .. })
                if matches!(source.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
            {
                let from = dir::parse_name(dir).map_or(Seq::ZERO, |(first, _)| first);
                let detail = "it is missing".to_owned();
                self.damage.push(Damage { from, to: Seq::ZERO, file: path, detail });
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let mut headers = Headers::default();
        disk.run("read", &path, || {
            hash_windows(&path, HEADER_BYTES - 1, |at, window| headers.see(at, window))
        })?;
        for (key, parts) in headers.0 {
            let row = key.row();
            let mut problem = "a part of the block is missing";
            let mut whole = None;
            for offsets in parts.tries() {
                let read = disk.run("read", &path, || Ok(read(&file, &row, &offsets)))?;
                match read.and_then(|events| check(&events, &row, log)) {
                    Ok(()) => whole = Some(offsets),
                    Err(what) => problem = what,
                }
                if whole.is_some() {
                    break;
                }
            }
            let path = path.clone();
            match whole {
                Some(offsets) => self.units.push(Unit { row, offsets, path }),
                None => {
                    let unit = Unit { row, offsets: Vec::new(), path };
                    self.damage.push(unit.damage(problem));
                }
            }
        }
        Ok(())
    }
}

/// Everything that a header says of its block, in the order of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    first: Seq,
    /// Events, raw length, stored length, dictionary, checksums of what is stored and raw.
    words: [u32; 6],
    codec: u8,
}

impl Key {
    fn row(&self) -> Row {
        let [count, raw_len, stored_len, dictionary, crc_stored, crc_raw] = self.words;
        let (first, codec) = (self.first, self.codec);
        Row {
            first,
            count,
            raw_len,
            stored_len,
            crc_stored,
            crc_raw,
            codec,
            dictionary,
            ..Row::default()
        }
    }
}

/// Where each part of a block was seen.
#[derive(Debug)]
struct Parts(Vec<Vec<u64>>);

impl Parts {
    /// Offsets of all parts, in ways in which they may belong together: a database may have old copies of a part,
    /// which are as good as the new one.
    fn tries(&self) -> Vec<Vec<u64>> {
        let mut ways = vec![Vec::new()];
        for places in &self.0 {
            let longer = |way: &Vec<u64>| {
                let way = way.clone();
                places.iter().rev().map(move |place| [&way[..], &[*place]].concat())
            };
            ways = ways.iter().flat_map(longer).take(MAX_TRIES).collect();
        }
        ways
    }
}

/// All headers in a file.
#[derive(Default)]
struct Headers(BTreeMap<Key, Parts>);

impl Headers {
    fn see(&mut self, offset: u64, window: &[u8]) {
        for at in Finder::new(&MARK).find_iter(window) {
            let Some(begin) = at.checked_sub(MARK_AT) else { continue };
            // One that is cut is whole in the next window.
            let Some(header) = window.get(begin..).and_then(|rest| rest.first_chunk()) else {
                break;
            };
            self.header(header, offset + begin as u64);
        }
    }

    fn header(&mut self, header: &[u8; HEADER_BYTES], offset: u64) {
        let mut words = [0; 6];
        for (word, bytes) in words.iter_mut().zip(header[16..40].as_chunks::<4>().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        let (first, part) = block::place_of(header);
        let key = Key { first, words, codec: header[2] };
        let row = key.row();
        let fits = |len: u32| len > 0 && len as usize <= MAX_BLOCK_BYTES;
        let is_one = first > Seq::ZERO
            && row.count > 0
            && fits(row.raw_len)
            && fits(row.stored_len)
            && part < row.parts()
            && row.header(part) == *header;
        if is_one {
            let parts = self.0.entry(key).or_insert_with(|| Parts(vec![Vec::new(); row.parts()]));
            parts.0[part].push(offset);
        }
    }
}

/// The events of a block, proved by its checksums.
fn read(file: &File, row: &Row, offsets: &[u64]) -> Result<Bytes, &'static str> {
    let stored_len = row.stored_len as usize;
    let mut stored = vec![0; stored_len];
    for (part, offset) in offsets.iter().enumerate() {
        let (start, end) = (part * PART_BYTES, stored_len.min((part + 1) * PART_BYTES));
        let read = file.read_exact_at(&mut stored[start..end], offset + HEADER_BYTES as u64);
        read.map_err(|_| "the file ends within a block")?;
    }
    let mut raw = vec![0; row.raw_len as usize];
    block::unpack(row, &stored, &mut raw)?;
    Ok(raw.into())
}

/// That a block has the events that its header says, and that they are of this log.
fn check(events: &[u8], row: &Row, log: Option<LogId>) -> Result<(), &'static str> {
    let mut seq = row.first;
    for event in Events::new(events) {
        let facts = event.and_then(|event| Ok((event, Facts::scan(event)?)));
        let (event, facts) = facts.map_err(|error: EventError| error.what())?;
        if facts.seq != seq {
            return Err("an event has another seq");
        }
        let place = Event::place_of(event).map_err(|error| error.what())?;
        let cursor = std::str::from_utf8(place.cursor).ok().map(Cursor::parse);
        match cursor {
            Some(Ok(Cursor::Token { log: of, .. })) if log.is_none_or(|it| it.short() == of) => {}
            _ => return Err("an event has the cursor of another log"),
        }
        seq = seq.next();
    }
    if seq == row.end() { Ok(()) } else { Err("an event is missing") }
}
