//! What is whole of a segment that may be damaged anywhere.
//!
//! A block needs nothing but itself: its header says which events it has, and is proved by a checksum, as what
//! is behind it is by two. So blocks are looked for in the file that has the values, and the database is not
//! asked. What looks like a block may also be what somebody published: nothing counts that lies within a value,
//! that is of seqs which the segment cannot have, or that a readable footer does not name. Nothing is written.

use std::collections::{BTreeMap, BTreeSet};
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
use crate::storage::entries::{Entries, Entry};
use crate::storage::{Damage, StoreError};
use tailmark_record::{ChainTag, Cursor, Event, Facts, LogId, Seq};

/// In every header of a value: no flags, and its own length.
const MARK: [u8; 3] = [0, 48, 0];
/// Where.
const MARK_AT: usize = 3;
/// Bytes of a header.
const HEADER_LEN: u64 = HEADER_BYTES as u64;
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

    /// The file that it is in.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether both lie in the same place.
    pub fn is(&self, other: &Unit) -> bool {
        (&self.path, &self.row, &self.offsets) == (&other.path, &other.row, &other.offsets)
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

/// Looks at all of a segment's directory. With `log`, what belongs to another is damage. Without a footer that
/// can be read, nothing of it lies at `upto` or behind.
///
/// # Errors
/// Another format; I/O.
pub fn remains(
    dir: &Path,
    log: Option<LogId>,
    upto: Option<Seq>,
    disk: &Disk,
) -> Result<Remains, StoreError> {
    let mut found = Remains::default();
    let first = dir::parse_name(dir).map_or(Seq::ZERO, |(first, _)| first);
    let mut limits = Limits { first, end: upto, rows: None };
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
            limits = Limits::of(&segment);
            if let Ok(index) = Index::load(Arc::clone(&segment)) {
                found.tags = index.rows.iter().map(|row| (row.first, row.tag_before)).collect();
            }
            found.segment = Some(segment);
        }
        Err(StoreError::Damaged(damage)) => found.damage.push(damage),
        Err(error @ StoreError::Format { .. }) => match RemovedRange::load(dir, disk) {
            Ok(Some(RemovedRange { log: of, dir: file, range, .. }))
                if log.is_some_and(|log| log != of) =>
            {
                let (from, to) = (range.first, range.end.prev());
                let detail = "it belongs to another log".to_owned();
                found.damage.push(Damage { from, to, file, detail });
                return Ok(found);
            }
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
        found.look_for_blocks(dir, log, &limits, disk)?;
    }
    Ok(found)
}

/// The blocks of a segment that are whole.
///
/// # Errors
/// I/O.
pub fn units(segment: &Arc<Segment>, disk: &Disk) -> Result<Vec<Unit>, StoreError> {
    let mut found = Remains::default();
    let (log, limits) = (Some(segment.log_id()), Limits::of(segment));
    found.look_for_blocks(segment.dir(), log, &limits, disk)?;
    Ok(found.units)
}

/// How many events from a seq on were taken out of a segment that is whole.
///
/// # Errors
/// Damage, I/O.
pub fn removed_from(segment: &Segment, from: Seq, disk: &Disk) -> Result<u64, StoreError> {
    let segment = Arc::new(Segment::load(segment.dir(), disk)?);
    let mut removed = 0;
    for unit in units(&segment, disk)?.iter().filter(|unit| unit.end() > from) {
        let (entries, mut seq) = (unit.read(disk)?, unit.first());
        for entry in Entries::new(&entries) {
            let entry = entry.map_err(|error| unit.damage(error.what()))?;
            let end = seq.plus(entry.seqs());
            if let Entry::Run(_) = entry {
                removed += seq.max(from).distance_to(end.max(from));
            }
            seq = end;
        }
    }
    Ok(removed)
}

/// Which blocks a segment can have.
#[derive(Debug)]
struct Limits {
    first: Seq,
    /// Seq after the last, where that is known.
    end: Option<Seq>,
    /// All that it has, where the footer says it.
    rows: Option<BTreeSet<Key>>,
}

impl Limits {
    fn of(segment: &Arc<Segment>) -> Limits {
        let index = Index::load(Arc::clone(segment));
        let rows = index.ok().map(|index| index.rows.iter().map(Key::of).collect());
        Limits { first: segment.first(), end: Some(segment.end()), rows }
    }

    fn allow(&self, key: &Key) -> bool {
        key.first >= self.first
            && self.end.is_none_or(|end| key.end() <= end)
            && self.rows.as_ref().is_none_or(|rows| rows.contains(key))
    }
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
        limits: &Limits,
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
        headers.0.retain(|key, _| limits.allow(key));
        let proved = disk.run("read", &path, || Ok(prove(&file, headers, log)))?;
        for (row, proof) in proved {
            let path = path.clone();
            match proof {
                Ok(offsets) => self.units.push(Unit { row, offsets, path }),
                Err(problem) => {
                    let unit = Unit { row, offsets: Vec::new(), path };
                    self.damage.push(unit.damage(problem));
                }
            }
        }
        Ok(())
    }
}

/// Where the parts of a block lie that is whole, or why it is not.
type Proof = Result<Vec<u64>, &'static str>;

/// Tells of each block whether it is whole. What lies in the bytes of a value is that value's, whatever it
/// looks like, and is not answered.
fn prove(file: &File, headers: Headers, log: Option<LogId>) -> Vec<(Row, Proof)> {
    let mut all: Vec<(Key, Parts, Proof)> = Vec::new();
    for (key, parts) in headers.0 {
        let proof = parts.prove(file, &key.row(), log);
        all.push((key, parts, proof));
    }
    let values = Ranges::outermost(all.iter().flat_map(|(key, parts, proof)| {
        let offsets = proof.as_deref().unwrap_or_default();
        parts.copies(file, &key.row(), offsets)
    }));
    for (key, parts, proof) in &mut all {
        if parts.retain(|offset| !values.is_within(offset)) {
            *proof = parts.prove(file, &key.row(), log);
        }
    }
    all.retain(|(_, parts, _)| !parts.are_none());
    // Two blocks of one segment have no event in common: of two of which one lies within what the other says
    // it takes, that one is what was published.
    let mut claims = Vec::new();
    for (key, parts, _) in all.iter().filter(|(.., proof)| proof.is_err()) {
        claims.extend(parts.ranges(&key.row()).into_iter().map(|range| (*key, range)));
    }
    let is_claimed = |key: &Key, offset: u64| {
        claims.iter().any(|(other, (start, end))| {
            other != key
                && (*start < offset && offset < *end)
                && (other.first < key.end() && key.first < other.end())
        })
    };
    // The same where the other is whole and lies apart.
    let is_inside =
        |offset: u64| claims.iter().any(|(_, (from, to))| *from < offset && offset < *to);
    let lies_apart = |offsets: &[u64]| !offsets.iter().any(|at| is_inside(*at));
    let apart: Vec<Key> = all
        .iter()
        .filter(|(.., proof)| proof.as_deref().is_ok_and(lies_apart))
        .map(|(key, ..)| *key)
        .collect();
    let is_own = |(key, _, proof): &(Key, Parts, Proof)| {
        let Ok(offsets) = proof else { return true };
        let meets = |it: &&Key| it.first < key.end() && key.first < it.end();
        !offsets.iter().any(|at| is_claimed(key, *at))
            && (lies_apart(offsets) || !apart.iter().any(|it| meets(&it)))
    };
    let own: Vec<bool> = all.iter().map(is_own).collect();
    let all = all.into_iter().zip(own).filter(|(_, is_own)| *is_own);
    all.map(|((key, _, proof), _)| (key.row(), proof)).collect()
}

/// Ranges of bytes of which none begins within another, in order.
struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    fn outermost(all: impl Iterator<Item = (u64, u64)>) -> Ranges {
        let mut all: Vec<_> = all.collect();
        all.sort_unstable();
        let mut covered = 0;
        all.retain(|(start, end)| {
            let is_outer = *start >= covered;
            if is_outer {
                covered = *end;
            }
            is_outer
        });
        Ranges(all)
    }

    /// Behind the beginning of one of them.
    fn is_within(&self, offset: u64) -> bool {
        let before = self.0.partition_point(|(start, _)| *start < offset);
        before.checked_sub(1).is_some_and(|at| offset < self.0[at].1)
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
    fn of(row: &Row) -> Key {
        let words =
            [row.count, row.raw_len, row.stored_len, row.dictionary, row.crc_stored, row.crc_raw];
        Key { first: row.first, words, codec: row.codec }
    }

    /// Seq after its last.
    fn end(&self) -> Seq {
        self.row().end()
    }

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

    /// Finds a way in which they are a block of this log.
    fn prove(&self, file: &File, row: &Row, log: Option<LogId>) -> Proof {
        let mut problem = "a part of the block is missing";
        for offsets in self.tries() {
            match read(file, row, &offsets).and_then(|events| check(&events, row, log)) {
                Ok(()) => return Ok(offsets),
                Err(what) => problem = what,
            }
        }
        Err(problem)
    }

    /// The bytes of every value that is the same as the one at `offsets`, which is whole.
    fn copies(&self, file: &File, row: &Row, offsets: &[u64]) -> Vec<(u64, u64)> {
        let mut found = Vec::new();
        for (part, (whole, places)) in offsets.iter().zip(&self.0).enumerate() {
            let len = part_len(row, part);
            let value = |at: u64| {
                let mut bytes = vec![0; len];
                file.read_exact_at(&mut bytes, at + HEADER_LEN).ok().map(|()| bytes)
            };
            let wanted = if places.len() > 1 { value(*whole) } else { None };
            let is_same = |at: &&u64| *at == whole || value(**at) == wanted;
            let ranges = places.iter().filter(is_same);
            found.extend(ranges.map(|at| (*at, at + HEADER_LEN + len as u64)));
        }
        found
    }

    /// The bytes that their headers say are theirs.
    fn ranges(&self, row: &Row) -> Vec<(u64, u64)> {
        let of_part = |(part, places): (usize, &Vec<u64>)| {
            let len = HEADER_LEN + part_len(row, part) as u64;
            places.iter().map(|at| (*at, at + len)).collect::<Vec<_>>()
        };
        self.0.iter().enumerate().flat_map(of_part).collect()
    }

    /// Whether any was taken away.
    fn retain(&mut self, is_kept: impl Fn(u64) -> bool) -> bool {
        let count = |parts: &Parts| parts.0.iter().map(Vec::len).sum::<usize>();
        let before = count(self);
        self.0.iter_mut().for_each(|places| places.retain(|at| is_kept(*at)));
        count(self) < before
    }

    fn are_none(&self) -> bool {
        self.0.iter().all(Vec::is_empty)
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

/// Stored bytes in one part of a block.
fn part_len(row: &Row, part: usize) -> usize {
    PART_BYTES.min((row.stored_len as usize).saturating_sub(part * PART_BYTES))
}

/// The events of a block, proved by its checksums.
fn read(file: &File, row: &Row, offsets: &[u64]) -> Result<Bytes, &'static str> {
    let stored_len = row.stored_len as usize;
    let mut stored = vec![0; stored_len];
    for (part, offset) in offsets.iter().enumerate() {
        let (start, end) = (part * PART_BYTES, stored_len.min((part + 1) * PART_BYTES));
        let read = file.read_exact_at(&mut stored[start..end], offset + HEADER_LEN);
        read.map_err(|_| "the file ends within a block")?;
    }
    let mut raw = vec![0; row.raw_len as usize];
    block::unpack(row, &stored, &mut raw)?;
    Ok(raw.into())
}

/// That a block has the events that its header says, and that they are of this log.
fn check(events: &[u8], row: &Row, log: Option<LogId>) -> Result<(), &'static str> {
    let mut seq = row.first;
    for entry in Entries::new(events) {
        let event = match entry.map_err(|error| error.what())? {
            Entry::Event(event) => event,
            Entry::Run(run) => {
                seq = seq.plus(u64::from(run.count));
                continue;
            }
        };
        let facts = Facts::scan(event).map_err(|error| error.what())?;
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
