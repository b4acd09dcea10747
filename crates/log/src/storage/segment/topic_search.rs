//! Looking for topics in a sealed segment: by name, by filter, and in order.
//!
//! Reads pages of the footer's table, a few for each question; nothing of a topic stays in memory
//! but a few bits, and those within a bound ([`FilterRoom`]).

use std::cell::OnceCell;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::filter_room::{FilterRoom, KeptFilter};
use super::footer::kind;
use super::handle::FooterError;
use super::problem::Problem;
use super::topics::{self, Blocks, Bloom, Cursor, Entry, Origin, Pages};
use super::{FOOTER, Lease, Segment};
use crate::storage::{StoreError, TopicStats};
use tailmark_record::topic::{Filter, Range};

/// The footer of a segment, open.
pub(super) struct TableFile<'a> {
    segment: &'a Segment,
    /// Opened by who reads a page: a list over many segments must not hold as many files.
    file: OnceCell<File>,
}

impl TableFile<'_> {
    fn open(&self) -> Result<&File, FooterError> {
        if let Some(file) = self.file.get() {
            return Ok(file);
        }
        match self.segment.disk.open_read(&self.segment.dir().join(FOOTER)) {
            Ok(file) => Ok(self.file.get_or_init(|| file)),
            Err(StoreError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                Err(FooterError::Io(source))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn read(&self, kind: u16, offset: u64, len: usize) -> Result<Vec<u8>, FooterError> {
        const BEYOND: Problem = Problem::Damaged("its table of topics reaches beyond its end");
        let (begin, section) = self.segment.place_of(kind).ok_or(BEYOND)?;
        let end = offset.checked_add(len as u64).filter(|end| *end <= section.len);
        end.ok_or(BEYOND)?;
        let mut bytes = vec![0; len];
        let (file, path) = (self.open()?, self.segment.dir().join(FOOTER));
        let read = || Ok(file.read_exact_at(&mut bytes, begin + offset));
        self.segment.disk.run("read", &path, read)??;
        Ok(bytes)
    }
}

impl Pages for TableFile<'_> {
    type Error = FooterError;

    fn page(&self, offset: u64, len: usize) -> Result<Vec<u8>, FooterError> {
        self.read(kind::TOPIC_PAGES, offset, len)
    }

    fn list(&self, offset: u64, len: usize) -> Result<Vec<u8>, FooterError> {
        self.read(kind::TOPIC_LISTS, offset, len)
    }
}

impl Segment {
    pub(super) fn origin(&self) -> Origin {
        Origin::of(&self.identity)
    }

    fn table(&self) -> TableFile<'_> {
        TableFile { segment: self, file: OnceCell::new() }
    }

    fn find_topic(&self, name: &str) -> Result<Option<Entry>, StoreError> {
        let found = topics::find(&self.table(), &self.topics, self.origin(), name);
        found.map_err(|error| self.footer_error(error))
    }

    /// What is known of one topic; `None` if no event has it.
    ///
    /// # Errors
    /// A damaged table, with the segment's range; I/O.
    pub fn topic(&self, name: &str) -> Result<Option<TopicStats>, StoreError> {
        Ok(self.find_topic(name)?.map(|entry| entry.stats))
    }

    /// Its table of topics says what its events do not.
    pub fn wrong_topics(&self) -> StoreError {
        let detail = "its topics are not those of its events";
        self.damage_of_all(&self.dir().join(FOOTER), detail).into()
    }

    /// Visits the topics that match: each with `None`, then with each block that holds events of it.
    ///
    /// # Errors
    /// As [`Segment::find_topic`].
    pub(super) fn each_topic(
        &self,
        filter: &Filter,
        visit: &mut dyn FnMut(&TopicStats, Option<u32>),
    ) -> Result<(), StoreError> {
        let table = self.table();
        self.show_topics(&table, filter, visit).map_err(|error| self.footer_error(error))
    }

    fn show_topics(
        &self,
        table: &TableFile<'_>,
        filter: &Filter,
        visit: &mut dyn FnMut(&TopicStats, Option<u32>),
    ) -> Result<(), FooterError> {
        let mut show = |stats: &TopicStats, blocks: &Blocks| {
            visit(stats, None);
            blocks.each(table, |block| visit(stats, Some(block)))
        };
        let (summary, origin) = (&self.topics, self.origin());
        for range in filter.ranges() {
            if range.is_one() {
                let found = topics::find(table, summary, origin, range.beginning())?;
                found.map_or(Ok(()), |entry| show(&entry.stats, &entry.blocks))?;
                continue;
            }
            if !summary.may_have(range.beginning()) {
                continue;
            }
            let mut cursor = Cursor::seek(table, summary, origin, range.beginning())?;
            while let Some(name) = cursor.name()
                && range.has(name)
            {
                if filter.matches(name) {
                    show(cursor.stats(), &cursor.blocks())?;
                }
                cursor.advance(table)?;
            }
        }
        Ok(())
    }

    /// Whether any topic of it may be in the range, by what is in memory.
    pub(super) fn may_have(&self, range: &Range<'_>, room: &Arc<FilterRoom>) -> bool {
        if !range.is_one() {
            return self.topics.may_have(range.beginning());
        }
        let name = range.beginning();
        if name < &*self.topics.first || name > &*self.topics.last {
            return false;
        }
        let hash = Bloom::hash(name.as_bytes());
        self.kept_filter(room).is_none_or(|filter| filter.may_have(hash))
    }

    /// Whether any topic of it matches, by its table; true where that cannot be read.
    pub fn may_match(&self, filter: &Filter) -> bool {
        let mut found = filter.is_all();
        if !found {
            let read = self.each_topic(filter, &mut |_, _| found = true);
            found |= read.is_err();
        }
        found
    }

    fn kept_filter(&self, room: &Arc<FilterRoom>) -> Option<&Bloom> {
        if let Some(kept) = self.filter.get() {
            return kept.as_ref().map(|kept| &kept.filter);
        }
        let (_, section) = self.place_of(kind::TOPIC_FILTER)?;
        let share = room.take(section.len)?;
        // One that is damaged tells nothing; the table does. An error of the system passes.
        let kept = match self.section(kind::TOPIC_FILTER) {
            Ok(section) => Bloom::decode(section).ok().map(|filter| KeptFilter { filter, share }),
            Err(StoreError::Damaged(_)) => None,
            Err(_) => return None,
        };
        self.filter.get_or_init(|| kept).as_ref().map(|kept| &kept.filter)
    }
}

/// The topics of a segment in order, from some name on.
pub struct SegmentTopics {
    lease: Lease,
    cursor: Cursor,
}

impl SegmentTopics {
    /// # Errors
    /// A damaged table, with the segment's range; I/O.
    pub fn seek(lease: Lease, from: &str) -> Result<SegmentTopics, StoreError> {
        let table = lease.table();
        let cursor = Cursor::seek(&table, &lease.topics, lease.origin(), from);
        let cursor = cursor.map_err(|error| lease.footer_error(error))?;
        Ok(SegmentTopics { lease, cursor })
    }

    /// The name that it is at, and what is known of it; `None` at the end.
    pub fn get(&self) -> Option<(&str, &TopicStats)> {
        Some((self.cursor.name()?, self.cursor.stats()))
    }

    /// Moves to the next name.
    ///
    /// # Errors
    /// A damaged table, with the segment's range; I/O.
    pub fn advance(&mut self) -> Result<(), StoreError> {
        let table = self.lease.table();
        let moved = self.cursor.advance(&table);
        moved.map_err(|error| self.lease.footer_error(error))
    }

    /// The segment.
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Pages that were read.
    pub fn pages_read(&self) -> u64 {
        self.cursor.pages_read
    }
}
