//! Reading a sealed segment without changing a byte of it, and checking all of it.
//!
//! Opening a database writes to it, so its directory is copied and the copy is opened. Where a
//! file was altered the copy is opened all the same: each block is proved by its own checksums, and
//! so the damage is told to the block.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::block::Row;
use super::blocks::Blocks;
use super::build::Progress;
use super::direct::Places;
use super::files::locate;
use super::footer::kind;
use super::index::Index;
use super::open::Open;
use super::topics::{Collector, Table};
use super::{DB, FOOTER, RunTotals, Segment, footer};
use crate::chain::{Link, tag_in};
use crate::storage::disk::Disk;
use crate::storage::entries::{Entries, Entry};
use crate::storage::{Chunk, Damage, StoreError};
use crate::width::to_u32;
use tailmark_record::topic::Filter;
use tailmark_record::{Facts, FingerprintKey, Seq};

/// One segment, read from a copy that is deleted with this.
pub struct OfflineReader {
    segment: Arc<Segment>,
    open: Open,
}

impl OfflineReader {
    /// Copies the database of the segment in `dir` below `scratch` and opens the copy.
    ///
    /// # Errors
    /// A damaged footer, a database that cannot be opened at all; I/O, a full disk included.
    pub fn open(dir: &Path, scratch: &Path) -> Result<OfflineReader, StoreError> {
        Self::of(Arc::new(Segment::load(dir, &Disk::real())?), scratch)
    }

    /// The same of a segment whose footer is read.
    ///
    /// # Errors
    /// As [`OfflineReader::open`].
    pub fn of(segment: Arc<Segment>, scratch: &Path) -> Result<OfflineReader, StoreError> {
        let open = Open::copied(Arc::clone(&segment), scratch, Open::CACHE_BYTES)?;
        Ok(OfflineReader { segment, open })
    }

    /// What the footer says.
    pub fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }

    /// Set when a file of the database is not what was sealed. Its blocks are still checked one by
    /// one, so what [`OfflineReader::read`] answers is right.
    pub fn altered(&self) -> Option<&Damage> {
        self.open.altered.as_ref()
    }

    /// As [`super::Cache::read`].
    ///
    /// # Errors
    /// As there; a damaged block is told by its range, and reading goes on after it.
    pub fn read(&self, from: Seq, end: Seq, filter: &Filter) -> Result<Chunk, StoreError> {
        self.open.read(from, end, filter)
    }
}

/// What [`examine`] found.
#[derive(Debug, Default)]
pub struct Examined {
    /// Everything that is wrong.
    pub damage: Vec<Damage>,
    /// Runs `from..end` of seqs that are whole, in order.
    pub whole: Vec<(Seq, Seq)>,
    /// Those of them whose events were taken out, in order.
    pub gone: Vec<Range<Seq>>,
}

impl Examined {
    fn push_whole(&mut self, row: &Row) {
        match self.whole.last_mut() {
            Some((_, end)) if *end == row.first => *end = row.end(),
            _ => self.whole.push((row.first, row.end())),
        }
    }
}

/// As [`examine`], of which only the damage is wanted.
///
/// # Errors
/// As there.
pub fn verify(
    dir: &Path,
    scratch: &Path,
    key: Option<&FingerprintKey>,
    progress: &Progress,
) -> Result<Vec<Damage>, StoreError> {
    Ok(examine(dir, scratch, key, progress)?.damage)
}

/// Checks all of one segment, names everything that is wrong with it and what is whole all the
/// same; changes no byte of it. With the log's `key` it checks the fingerprints too.
///
/// # Errors
/// I/O, or a segment of another format: what says nothing about damage.
pub fn examine(
    dir: &Path,
    scratch: &Path,
    key: Option<&FingerprintKey>,
    progress: &Progress,
) -> Result<Examined, StoreError> {
    let mut found = Examined::default();
    let reader = match OfflineReader::open(dir, scratch) {
        Ok(reader) => reader,
        Err(StoreError::Damaged(damage)) => {
            found.damage.push(damage);
            return Ok(found);
        }
        Err(other) => return Err(other),
    };
    let mut check = Check::new(&reader, key);
    for (at, row) in reader.open.index().rows.iter().enumerate() {
        progress.beat();
        let runs_before = check.gone.len();
        match reader.open.block(at).map(|events| check.block(at, row, &events)) {
            Ok(Ok(())) => found.push_whole(row),
            Ok(Err(what)) => {
                check.gone.truncate(runs_before);
                found.damage.push(check.damage(row.first, row.end(), DB, what));
            }
            Err(StoreError::Damaged(damage)) => found.damage.push(damage),
            Err(other) => return Err(other),
        }
    }
    found.gone.clone_from(&check.gone);
    let damage = &mut found.damage;
    if damage.is_empty() {
        match check.finish(damage) {
            Err(StoreError::Damaged(one)) => damage.push(one),
            other => other?,
        }
    }
    if damage.is_empty() && reader.altered().is_none() {
        damage.extend(misplaced(reader.open.index())?);
    }
    if let Some(altered) = reader.altered()
        && damage.is_empty()
    {
        let detail = format!("{}; every event can be read all the same", altered.detail);
        damage.push(Damage { detail, ..altered.clone() });
    }
    Ok(found)
}

/// Compares what the footer says of where blocks lie with where they do.
fn misplaced(index: &Index) -> Result<Option<Damage>, StoreError> {
    let segment = &index.segment;
    if !segment.has_section(kind::PLACES) {
        return Ok(None);
    }
    let located = match locate(index) {
        Err(StoreError::Damaged(damage)) => return Ok(Some(damage)),
        located => located?,
    };
    let noted = Places::noted(index);
    if noted.as_ref().map(Places::offsets) == located.as_ref().map(Places::offsets) {
        return Ok(None);
    }
    let detail = "it does not say where its blocks lie; every event can be read all the same";
    Ok(Some(segment.damage_of_all(&segment.dir().join(FOOTER), detail)))
}

/// Computes again what the footer says.
struct Check<'a> {
    segment: &'a Segment,
    key: Option<&'a FingerprintKey>,
    link: Link,
    /// The seq after the last event in `link`.
    next: Seq,
    /// All up to there was in `link`: what cannot be read has no link, and nobody after it is to blame.
    is_joined: bool,
    topics: Collector,
    fingerprints: Vec<(Seq, tailmark_record::Fingerprint)>,
    runs: RunTotals,
    /// Seqs of runs, in order.
    gone: Vec<Range<Seq>>,
}

impl<'a> Check<'a> {
    fn new(reader: &'a OfflineReader, key: Option<&'a FingerprintKey>) -> Self {
        Check {
            segment: &reader.segment,
            key,
            link: reader.segment.identity.link_before,
            next: reader.segment.first(),
            is_joined: true,
            topics: Collector::default(),
            fingerprints: Vec::new(),
            runs: RunTotals::default(),
            gone: Vec::new(),
        }
    }

    fn damage(&self, from: Seq, end: Seq, file: &str, detail: &str) -> Damage {
        let (file, detail) = (self.segment.dir().join(file), detail.to_owned());
        Damage { from, to: end.prev(), file, detail }
    }

    fn block(&mut self, at: usize, row: &Row, events: &[u8]) -> Result<(), &'static str> {
        let mut seq = row.first;
        let mut last_at = row.first_at;
        let (mut has_events, mut has_runs) = (false, false);
        self.is_joined &= self.next == row.first;
        if self.is_joined && self.link.tag() != row.tag_before {
            return Err("the chain before it is another");
        }
        for entry in Entries::new(events) {
            let event = match entry.map_err(|error| error.what())? {
                Entry::Event(event) => event,
                Entry::Run(run) => {
                    has_runs = true;
                    let first = seq;
                    seq = seq.plus(u64::from(run.count));
                    self.link = run.link;
                    self.runs.add(&run);
                    self.gone.push(first..seq);
                    continue;
                }
            };
            let facts = Facts::scan(event).map_err(|error| error.what())?;
            if facts.seq != seq {
                return Err("an event has another seq");
            }
            if facts.appended_at < last_at {
                return Err("the append time goes back");
            }
            if !has_events && facts.appended_at != row.first_at {
                return Err("the time of its first event is another");
            }
            has_events = true;
            last_at = facts.appended_at;
            seq = seq.next();
            self.link = self.link.then_event(event, &facts);
            if self.is_joined && tag_in(event) != Ok(self.link.tag()) {
                return Err("an event has the cursor of another");
            }
            if facts.has_client_id
                && let (Some(key), Some(client)) = (self.key, event.get(..facts.client_len))
            {
                self.fingerprints.push((facts.seq, key.fingerprint(client)));
            }
            self.topics.note(facts.topic, facts.seq, facts.appended_at, to_u32(at))?;
        }
        if seq != row.end() || !has_events {
            return Err("an event is missing");
        }
        if has_runs != row.has_runs {
            return Err("it does not say whether events are gone");
        }
        if last_at != row.last_at {
            return Err("the time of its last event is another");
        }
        self.next = seq;
        Ok(())
    }

    fn finish(self, found: &mut Vec<Damage>) -> Result<(), StoreError> {
        let segment = self.segment;
        let mut wrong = |what: &str| {
            found.push(segment.damage_of_all(&segment.dir().join(FOOTER), what));
        };
        if !self.link.joins(segment.identity.link) {
            wrong("the chain over its events is another");
        }
        let table = self.topics.finish(segment.origin());
        let topics_fit = match table {
            None => false,
            Some(Table { summary, pages, lists, filter }) => {
                summary == segment.topics
                    && pages == segment.section(kind::TOPIC_PAGES)?
                    && lists == segment.section(kind::TOPIC_LISTS)?
                    && filter.bytes() == segment.section(kind::TOPIC_FILTER)?
            }
        };
        if self.runs != segment.removed() {
            wrong("the numbers of events that are gone are others");
        }
        if !topics_fit {
            wrong("its topics are not those of its events");
        }
        match segment.section(kind::FINGERPRINTS) {
            Ok(section) if self.key.is_some() => {
                // Of events that are gone some are kept, and nothing is left to compare them with.
                let is_gone = |seq: Seq| {
                    let after = self.gone.partition_point(|run| run.end <= seq);
                    self.gone.get(after).is_some_and(|run| run.contains(&seq))
                };
                let stored = footer::fingerprints(&section, segment.first());
                let stored = stored.filter(|(seq, _)| !is_gone(*seq));
                if !stored.eq(self.fingerprints.iter().rev().copied()) {
                    wrong("its fingerprints are not those of its events");
                }
            }
            Ok(_) => {}
            Err(StoreError::Damaged(damage)) => found.push(damage),
            Err(other) => return Err(other),
        }
        Ok(())
    }
}
