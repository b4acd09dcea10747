//! A segment as it is known without its database: the footer's tables that stay in memory, and who
//! holds it.
//!
//! Must not know how its blocks are read. Invariant: a directory is moved away only when nobody
//! holds a [`Lease`] on it, and a retired segment gives out no new ones.

use std::fs::File;
use std::ops::Deref;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use super::filter_room::KeptFilter;
use super::footer::{self, FileEntry, Header, RunTotals, SECTION_HEADER_BYTES, Section, kind};
use super::identity::Identity;
use super::problem::{self, Problem};
use super::topics::Summary;
use super::{FOOTER, dir};
use crate::chain::Link;
use crate::storage::disk::Disk;
use crate::storage::{Damage, FORMAT_VERSION, StoreError};
use crate::width::to_usize;
use tailmark_record::{Fingerprint, GenerationTable, LogId, Seq, Timestamp};

/// Set in a segment's lease counter when no new lease is given out.
const RETIRED: u64 = 1 << 63;

/// What stays in memory of one segment.
#[derive(Debug)]
pub struct Segment {
    dir: PathBuf,
    pub(super) identity: Identity,
    pub(super) topics: Summary,
    /// Set when it is first asked for and there is room; `None` in it = it cannot be read.
    pub(super) filter: OnceLock<Option<KeptFilter>>,
    removed: RunTotals,
    pub(super) files: Box<[FileEntry]>,
    pub(super) sections: Box<[(u64, Section)]>,
    footer_bytes: u64,
    leases: AtomicU64,
    pub(super) disk: Disk,
}

impl Segment {
    /// Reads the footer of the segment in `dir`; its database is not touched.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when the footer is missing or altered, [`StoreError::Format`] when
    /// another version wrote it.
    pub fn load(dir: &Path, disk: &Disk) -> Result<Segment, StoreError> {
        Self::load_of(dir, disk, FORMAT_VERSION)
    }

    /// The same of another format, that this program reads to copy it. Of format 1 the topics are passed over.
    pub(in crate::storage) fn load_of(
        dir: &Path,
        disk: &Disk,
        format: u32,
    ) -> Result<Segment, StoreError> {
        let path = dir.join(FOOTER);
        // What the name promises; nothing else is known while the footer cannot be read.
        let from = dir::parse_name(dir).map_or(Seq::ZERO, |(first, _)| first);
        let damaged = |detail: &str| Damage {
            from,
            to: Seq::ZERO,
            file: path.clone(),
            detail: detail.to_owned(),
        };
        let file = match disk.open_read(&path) {
            Err(StoreError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                return Err(damaged("the footer is missing").into());
            }
            opened => opened?,
        };
        let read = disk.run("read", &path, || Ok(Self::read_footer(&file, dir, disk, format)))?;
        let mut segment = read.map_err(|error| error.or_damaged(&path, damaged))?;
        if dir::parse_name(dir)
            .is_some_and(|name| name != (segment.identity.first, segment.identity.revision))
        {
            return Err(damaged("the footer is that of another segment").into());
        }
        segment.footer_bytes = file.metadata().map_err(StoreError::io("examine", &path))?.len();
        Ok(segment)
    }

    fn read_footer(
        file: &File,
        dir: &Path,
        disk: &Disk,
        format: u32,
    ) -> Result<Segment, FooterError> {
        let len = file.metadata()?.len();
        // Nearly always all that stays in memory.
        let mut head = vec![0; to_usize(len.min(64 << 10))];
        file.read_exact_at(&mut head, 0)?;
        let header = Header::decode(&head, format)?;
        if header.file_len != len {
            return Err(Problem::Damaged("its length is not what it was").into());
        }
        let read = |at: u64, n: u64| -> Result<Vec<u8>, FooterError> {
            let end = at.checked_add(n).filter(|&end| end <= len);
            let end = end.ok_or(Problem::Damaged("a section reaches beyond its end"))?;
            if let Some(bytes) = head.get(to_usize(at)..to_usize(end)) {
                return Ok(bytes.to_vec());
            }
            let mut bytes = vec![0; to_usize(n)];
            file.read_exact_at(&mut bytes, at)?;
            Ok(bytes)
        };
        let mut at = u64::from(header.header_len);
        let (mut identity, mut files) = (None, None);
        // Those of format 1 are passed over: whoever reads it copies its events.
        let mut topics = (format == 1).then(Summary::default);
        let mut removed = RunTotals::default();
        let mut sections = Vec::new();
        for _ in 0..header.sections {
            let (section, known) = Section::decode(&read(at, SECTION_HEADER_BYTES as u64)?)?;
            at += SECTION_HEADER_BYTES as u64;
            if known
                && sections.iter().any(|(_, other): &(u64, Section)| other.kind == section.kind)
            {
                return Err(Problem::Damaged("a section is there twice").into());
            }
            let payload = || -> Result<Vec<u8>, FooterError> {
                let payload = read(at, section.len)?;
                section.check(&payload)?;
                Ok(payload)
            };
            match section.kind {
                kind::IDENTITY => identity = Some(Identity::decode(&payload()?)?),
                kind::FILES => files = Some(footer::decode_files(&payload()?)?),
                kind::TOPICS => topics = Some(Summary::decode(&payload()?)?),
                kind::RUNS => removed = RunTotals::decode(&payload()?)?,
                _ => {}
            }
            if known {
                sections.push((at, section));
            }
            at = at
                .checked_add(section.len)
                .filter(|&at| at <= len)
                .ok_or(Problem::Damaged("a section reaches beyond its end"))?;
        }
        const MISSING: Problem = Problem::Damaged("a section is missing");
        let (Some(identity), Some(files), Some(topics)) = (identity, files, topics) else {
            return Err(MISSING.into());
        };
        let has = |kind: &u16| sections.iter().any(|(_, section)| section.kind == *kind);
        let table = if format == 1 { &[] } else { footer::TABLE };
        if at != len || !footer::REQUIRED.iter().chain(table).all(has) {
            return Err(MISSING.into());
        }
        Ok(Segment {
            dir: dir.to_owned(),
            identity,
            topics,
            filter: OnceLock::new(),
            removed,
            files: files.into(),
            sections: sections.into(),
            footer_bytes: len,
            leases: AtomicU64::new(0),
            disk: disk.clone(),
        })
    }

    /// Whether there is such a section. Only that of places may be missing.
    pub(super) fn has_section(&self, kind: u16) -> bool {
        self.place_of(kind).is_some()
    }

    /// Where a section begins, and its header.
    pub(super) fn place_of(&self, kind: u16) -> Option<&(u64, Section)> {
        self.sections.iter().find(|(_, section)| section.kind == kind)
    }

    /// Reads a section that does not stay in memory.
    pub(super) fn section(&self, kind: u16) -> Result<Vec<u8>, StoreError> {
        let path = self.dir.join(FOOTER);
        let read = || -> Result<Vec<u8>, FooterError> {
            let found = self.place_of(kind);
            let (at, section) = found.ok_or(Problem::Damaged("a section is missing"))?;
            let file = File::open(&path)?;
            if file.metadata()?.len() != self.footer_bytes {
                return Err(Problem::Damaged("its length is not what it was").into());
            }
            let mut payload = vec![0; to_usize(section.len)];
            file.read_exact_at(&mut payload, *at)?;
            section.check(&payload)?;
            Ok(payload)
        };
        let read = self.disk.run("read", &path, || Ok(read()))?;
        read.map_err(|error| self.footer_error(error))
    }

    /// What it means that the footer cannot be read.
    pub(super) fn footer_error(&self, error: FooterError) -> StoreError {
        let path = self.dir.join(FOOTER);
        error.or_damaged(&path, |detail| self.damage_of_all(&path, detail))
    }

    /// A damage that may concern every event.
    pub(super) fn damage_of_all(&self, file: &Path, detail: &str) -> Damage {
        Damage {
            from: self.first(),
            to: self.end().prev(),
            file: file.to_owned(),
            detail: detail.to_owned(),
        }
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its footer's file.
    pub fn footer_path(&self) -> PathBuf {
        self.dir.join(FOOTER)
    }

    /// The log it belongs to.
    pub fn log_id(&self) -> LogId {
        self.identity.log_id
    }

    /// First seq.
    pub fn first(&self) -> Seq {
        self.identity.first
    }

    /// Seq after the last.
    pub fn end(&self) -> Seq {
        self.identity.end
    }

    /// How often its events were sealed, from 1.
    pub fn revision(&self) -> u32 {
        self.identity.revision
    }

    /// Whether `seq` lies in it.
    pub fn contains(&self, seq: Seq) -> bool {
        self.first() <= seq && seq < self.end()
    }

    /// When its first event was appended.
    pub fn first_at(&self) -> Timestamp {
        self.identity.first_at
    }

    /// When its last event was appended.
    pub fn last_at(&self) -> Timestamp {
        self.identity.last_at
    }

    /// When its footer was written, as the file system says.
    pub fn sealed_at(&self) -> Option<Timestamp> {
        let written = std::fs::metadata(self.dir.join(FOOTER)).and_then(|it| it.modified());
        written.ok().map(Timestamp::of)
    }

    /// The log's history when it was sealed.
    pub fn generations(&self) -> &GenerationTable {
        &self.identity.generations
    }

    /// How many topics its events have.
    pub fn topics(&self) -> u64 {
        self.topics.topics
    }

    /// What was taken out of it.
    pub fn removed(&self) -> RunTotals {
        self.removed
    }

    /// Bytes of its events, not compressed.
    pub fn raw_bytes(&self) -> u64 {
        self.identity.raw_bytes
    }

    /// Bytes of its files.
    pub fn disk_bytes(&self) -> u64 {
        self.footer_bytes + self.files.iter().map(|file| file.len).sum::<u64>()
    }

    /// The chain before its first event.
    pub fn link_before(&self) -> Link {
        self.identity.link_before
    }

    /// The chain at its last event.
    pub fn link(&self) -> Link {
        self.identity.link
    }

    /// Visits the events that their senders named, newest first, until `visit` answers false or
    /// `from` is reached. Answers false if `visit` did.
    ///
    /// # Errors
    /// Damage, or I/O.
    pub fn fingerprints(
        &self,
        from: Seq,
        visit: &mut dyn FnMut(Seq, Fingerprint) -> bool,
    ) -> Result<bool, StoreError> {
        let section = self.section(footer::kind::FINGERPRINTS)?;
        for (seq, fingerprint) in footer::fingerprints(&section, self.first()) {
            if seq < from {
                break;
            }
            if !visit(seq, fingerprint) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The same, in order.
    ///
    /// # Errors
    /// Damage, or I/O.
    pub fn named(&self) -> Result<Vec<(Seq, Fingerprint)>, StoreError> {
        let mut named = Vec::new();
        self.fingerprints(Seq::ZERO, &mut |seq, fingerprint| {
            named.push((seq, fingerprint));
            true
        })?;
        named.reverse();
        Ok(named)
    }

    /// Takes a lease; `None` once it is retired.
    pub fn lease(self: &Arc<Self>) -> Option<Lease> {
        let taken = self.leases.fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| {
            (count & RETIRED == 0).then_some(count + 1)
        });
        taken.ok().map(|_| Lease(Arc::clone(self)))
    }

    /// Leases held now.
    pub fn leases(&self) -> u64 {
        self.leases.load(Ordering::Acquire) & !RETIRED
    }

    /// Gives out no more leases; answers whether none is held.
    pub fn retire(&self) -> bool {
        self.leases.fetch_or(RETIRED, Ordering::AcqRel) & !RETIRED == 0
    }
}

/// Keeps a segment's files where they are.
#[derive(Debug)]
pub struct Lease(Arc<Segment>);

impl Lease {
    /// The segment.
    pub fn segment(&self) -> &Arc<Segment> {
        &self.0
    }
}

impl Deref for Lease {
    type Target = Segment;

    fn deref(&self) -> &Segment {
        &self.0
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.leases.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Why reading a footer stopped.
pub(super) enum FooterError {
    Problem(Problem),
    Io(std::io::Error),
    Store(StoreError),
}

impl From<StoreError> for FooterError {
    fn from(error: StoreError) -> Self {
        FooterError::Store(error)
    }
}

impl From<Problem> for FooterError {
    fn from(problem: Problem) -> Self {
        FooterError::Problem(problem)
    }
}

impl From<std::io::Error> for FooterError {
    fn from(error: std::io::Error) -> Self {
        FooterError::Io(error)
    }
}

impl FooterError {
    fn or_damaged(self, path: &Path, damaged: impl Fn(&str) -> Damage) -> StoreError {
        match self {
            FooterError::Problem(Problem::Damaged(detail)) => damaged(detail).into(),
            FooterError::Problem(Problem::Version(found)) => StoreError::Format {
                path: path.to_owned(),
                found: u32::from(found),
                supported: u32::from(problem::FORMAT),
            },
            FooterError::Io(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::NotFound
                ) =>
            {
                damaged("the footer is missing or truncated").into()
            }
            FooterError::Io(error) => StoreError::io("read", path)(error),
            FooterError::Store(error) => error,
        }
    }
}
