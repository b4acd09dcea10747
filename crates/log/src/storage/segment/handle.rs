//! A segment as it is known without its database: the footer's tables that stay in memory, and who
//! holds it.
//!
//! Must not know how its blocks are read. Invariant: a directory is moved away only when nobody
//! holds a [`Lease`] on it, and a retired segment gives out no new ones.

use std::fs::File;
use std::ops::Deref;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::footer::{self, FileEntry, Header, SECTION_HEADER_BYTES, Section};
use super::identity::Identity;
use super::problem::{self, Problem};
use super::{FOOTER, dir};
use crate::storage::disk::Disk;
use crate::storage::{Damage, StoreError, TopicStats};
use crate::width::to_usize;
use tailmark_record::topic::Filter;
use tailmark_record::{Fingerprint, GenerationTable, LogId, Seq, Timestamp};

/// Set in a segment's lease counter when no new lease is given out.
const RETIRED: u64 = 1 << 63;

/// What stays in memory of one segment.
#[derive(Debug)]
pub struct Segment {
    dir: PathBuf,
    pub(super) identity: Identity,
    pub(super) topics: Box<[(Arc<str>, TopicStats)]>,
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
        let read = disk.run("read", &path, || Ok(Self::read_footer(&file, dir, disk)))?;
        let mut segment = read.map_err(|error| error.or_damaged(&path, damaged))?;
        if dir::parse_name(dir)
            .is_some_and(|name| name != (segment.identity.first, segment.identity.revision))
        {
            return Err(damaged("the footer is that of another segment").into());
        }
        segment.footer_bytes = file.metadata().map_err(StoreError::io("examine", &path))?.len();
        Ok(segment)
    }

    fn read_footer(file: &File, dir: &Path, disk: &Disk) -> Result<Segment, FooterError> {
        let len = file.metadata()?.len();
        // Nearly always all that stays in memory.
        let mut head = vec![0; to_usize(len.min(64 << 10))];
        file.read_exact_at(&mut head, 0)?;
        let header = Header::decode(&head)?;
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
        let (mut identity, mut files, mut topics) = (None, None, None);
        let mut sections = Vec::new();
        for _ in 0..header.sections {
            let (section, known) = Section::decode(&read(at, SECTION_HEADER_BYTES as u64)?)?;
            at += SECTION_HEADER_BYTES as u64;
            if known
                && sections.iter().any(|(_, other): &(u64, Section)| other.kind == section.kind)
            {
                return Err(Problem::Damaged("a section is there twice").into());
            }
            if matches!(
                section.kind,
                footer::kind::IDENTITY | footer::kind::FILES | footer::kind::TOPICS
            ) {
                let payload = read(at, section.len)?;
                section.check(&payload)?;
                match section.kind {
                    footer::kind::IDENTITY => identity = Some(Identity::decode(&payload)?),
                    footer::kind::FILES => files = Some(footer::decode_files(&payload)?),
                    _ => topics = Some(footer::decode_topics(&payload)?),
                }
            }
            if known {
                sections.push((at, section));
            }
            at = at
                .checked_add(section.len)
                .filter(|&at| at <= len)
                .ok_or(Problem::Damaged("a section reaches beyond its end"))?;
        }
        let (Some(identity), Some(files), Some(topics)) = (identity, files, topics) else {
            return Err(Problem::Damaged("a section is missing").into());
        };
        let required = sections.iter().filter(|(_, it)| it.kind <= footer::kind::FINGERPRINTS);
        if at != len || required.count() != usize::from(footer::kind::FINGERPRINTS) {
            return Err(Problem::Damaged("a section is missing").into());
        }
        Ok(Segment {
            dir: dir.to_owned(),
            identity,
            topics: topics.into(),
            files: files.into(),
            sections: sections.into(),
            footer_bytes: len,
            leases: AtomicU64::new(0),
            disk: disk.clone(),
        })
    }

    /// Whether there is such a section. Only that of places may be missing.
    pub(super) fn has_section(&self, kind: u16) -> bool {
        self.sections.iter().any(|(_, section)| section.kind == kind)
    }

    /// Reads a section that does not stay in memory.
    pub(super) fn section(&self, kind: u16) -> Result<Vec<u8>, StoreError> {
        let path = self.dir.join(FOOTER);
        let read = || -> Result<Vec<u8>, FooterError> {
            let found = self.sections.iter().find(|(_, section)| section.kind == kind);
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
        read.map_err(|error| error.or_damaged(&path, |detail| self.damage_of_all(&path, detail)))
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

    /// All events of each topic, in the order of their names.
    pub fn topics(&self) -> &[(Arc<str>, TopicStats)] {
        &self.topics
    }

    /// Whether any event of it matches.
    pub fn may_match(&self, filter: &Filter) -> bool {
        filter.is_all() || self.matching(filter).next().is_some()
    }

    /// The topics that match, by their place among all.
    pub(super) fn matching<'a>(
        &'a self,
        filter: &'a Filter,
    ) -> impl Iterator<Item = (usize, &'a TopicStats)> + 'a {
        // They are in the order of their names: of many only those with the right beginning are
        // looked at.
        let beginning = filter.beginning();
        let start = self.topics.partition_point(|(topic, _)| &**topic < beginning);
        let topics = self.topics.iter().enumerate().skip(start);
        topics
            .take_while(move |(_, (topic, _))| topic.starts_with(beginning))
            .filter(move |(_, (topic, _))| filter.matches(topic))
            .map(|(at, (_, stats))| (at, stats))
    }

    /// Bytes of its events, not compressed.
    pub fn raw_bytes(&self) -> u64 {
        self.identity.raw_bytes
    }

    /// Bytes of its files.
    pub fn disk_bytes(&self) -> u64 {
        self.footer_bytes + self.files.iter().map(|file| file.len).sum::<u64>()
    }

    /// End of the chain over its events' digests: equal for equal events.
    pub fn logical_hash(&self) -> [u8; 16] {
        self.identity.chain_end
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
enum FooterError {
    Problem(Problem),
    Io(std::io::Error),
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
        }
    }
}
