//! One slot in use: its file and where its commits lie.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use parking_lot::RwLock;

use super::format::{Frame, SlotHeader, body_crc};
use super::slots::FreeSlot;
use crate::chain::Link;
use crate::storage::{Chunk, Damage, StoreError, disk::Disk};
use crate::width::to_usize;
use tailmark_record::{Seq, Timestamp};

/// Commits of one read are joined up to about this many bytes.
const READ_BYTES: u64 = 256 << 10;

/// Where one commit with events lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameRef {
    /// Offset of the frame.
    pub offset: u64,
    /// Bytes of the frame without padding.
    pub len: u32,
    /// Events in it.
    pub count: u32,
    /// Seq of the first.
    pub first: Seq,
    /// Time of the commit.
    pub appended_at: Timestamp,
    /// The chain at its last event.
    pub link: Link,
}

impl FrameRef {
    /// Of a frame with events.
    pub fn of(frame: &Frame) -> FrameRef {
        FrameRef {
            offset: frame.offset,
            // Of a frame in a slot, which has at most 1 GiB.
            len: u32::try_from(frame.bytes()).unwrap_or(u32::MAX),
            count: frame.count,
            first: frame.first,
            appended_at: frame.appended_at,
            link: frame.link,
        }
    }

    /// Seq after its last event.
    pub fn end(&self) -> Seq {
        self.first.plus(u64::from(self.count))
    }
}

/// The chain before the event `seq`, where one of these commits ends with the one before.
pub(super) fn link_before(frames: &[FrameRef], seq: Seq) -> Option<Link> {
    let at = frames.partition_point(|frame| frame.end() < seq);
    frames.get(at).filter(|frame| frame.end() == seq).map(|frame| frame.link)
}

/// The bytes of some commits, and where in them the events of each lie.
type Run = (Bytes, Vec<(FrameRef, Range<usize>)>);

/// The events of one commit, as read and checked.
#[derive(Debug)]
pub struct CommitRead {
    /// Seq of the first.
    pub first: Seq,
    /// Seq after the last.
    pub end: Seq,
    /// Where the events begin in the slot's file.
    pub offset: u64,
    /// Their entries.
    pub events: Bytes,
}

/// A slot that holds events. Shared with readers; the file is not reused while any of them has it.
#[derive(Debug)]
pub struct Slot {
    path: PathBuf,
    file: File,
    disk: Disk,
    header: SlotHeader,
    /// The chain before its first event.
    link_before: Link,
    frames: RwLock<Vec<FrameRef>>,
    /// As that of the file that it was begun in.
    clean_for: u64,
}

impl Slot {
    /// A slot whose durable commits are `frames`.
    pub fn new(
        path: PathBuf,
        file: File,
        disk: Disk,
        header: SlotHeader,
        link_before: Link,
        frames: Vec<FrameRef>,
    ) -> Slot {
        let (frames, clean_for) = (RwLock::new(frames), 0);
        Slot { path, file, disk, header, link_before, frames, clean_for }
    }

    /// The same, begun in a file that held nothing which was to be erased by then.
    pub(super) fn in_clean_file(self, clean_for: u64) -> Slot {
        Slot { clean_for, ..self }
    }

    /// Whether it holds nothing that was to be erased when slots were tainted so often.
    pub fn is_clean(&self, taints: u64) -> bool {
        self.clean_for >= taints
    }

    /// Its file, when nobody reads it any more.
    pub fn into_free(self) -> FreeSlot {
        FreeSlot { path: self.path, file: self.file, clean_for: self.clean_for }
    }

    /// Its file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// What its head says.
    pub fn header(&self) -> &SlotHeader {
        &self.header
    }

    /// First seq that may be in it.
    pub fn first(&self) -> Seq {
        self.header.first
    }

    /// The chain before the event `seq`, where a commit of this slot begins with it or ends before it.
    pub fn link_before(&self, seq: Seq) -> Option<Link> {
        if seq == self.header.first {
            return Some(self.link_before);
        }
        self.read_frames(|frames| link_before(frames, seq))
    }

    /// Seq after its last durable event.
    pub fn end(&self) -> Seq {
        self.read_frames(|frames| frames.last().map_or(self.header.first, FrameRef::end))
    }

    /// The stamp of its last durable event, if it has any.
    pub fn last_at(&self) -> Option<Timestamp> {
        self.read_frames(|frames| frames.last().map(|frame| frame.appended_at))
    }

    /// When its file was last written, as the file system says.
    pub fn written_at(&self) -> Option<Timestamp> {
        let written = self.file.metadata().and_then(|metadata| metadata.modified());
        written.ok().map(Timestamp::of)
    }

    /// Bytes of its frames with events.
    pub fn event_bytes(&self) -> u64 {
        self.read_frames(|frames| frames.iter().map(|frame| u64::from(frame.len)).sum())
    }

    /// Makes a durable commit visible to readers.
    pub fn push(&self, frame: FrameRef) {
        self.frames.write().push(frame);
    }

    fn read_frames<T>(&self, read: impl FnOnce(&[FrameRef]) -> T) -> T {
        read(&self.frames.read())
    }

    /// The first commit at or after `time`, if any.
    pub fn seek_time(&self, time: Timestamp) -> Option<FrameRef> {
        self.read_frames(|frames| {
            frames.get(frames.partition_point(|frame| frame.appended_at < time)).copied()
        })
    }

    /// The commit that holds `seq`.
    pub fn frame_of(&self, seq: Seq) -> Option<FrameRef> {
        self.read_frames(|frames| {
            let at = frames.partition_point(|frame| frame.end() <= seq);
            frames.get(at).filter(|frame| frame.first <= seq).copied()
        })
    }

    /// The commit that holds `from` and those after it, as far as one read goes.
    fn run_at(&self, from: Seq, end: Seq) -> Vec<FrameRef> {
        self.read_frames(|frames| {
            let at = frames.partition_point(|frame| frame.end() <= from);
            let mut run = Vec::new();
            for frame in &frames[at..] {
                let bytes = run.first().map_or(0, |first: &FrameRef| {
                    frame.offset + u64::from(frame.len) - first.offset
                });
                if frame.first >= end || bytes > READ_BYTES {
                    break;
                }
                run.push(*frame);
            }
            run
        })
    }

    /// Reads events from `from`, below `end`, both within the slot. Every byte is checked.
    pub fn read(&self, from: Seq, end: Seq) -> Result<Chunk, StoreError> {
        let (buffer, run) = self.read_run(from, end)?;
        let (Some((head, _)), Some((last, _))) = (run.first(), run.last()) else {
            return Err(StoreError::Invalid("no commit of this slot holds that seq"));
        };
        let events = match run.as_slice() {
            [(_, part)] => buffer.slice(part.clone()),
            run => {
                let mut joined = Vec::with_capacity(run.iter().map(|(_, part)| part.len()).sum());
                run.iter().for_each(|(_, part)| joined.extend_from_slice(&buffer[part.clone()]));
                joined.into()
            }
        };
        let chunk = Chunk { first: head.first, end: last.end(), events, complete: true };
        chunk.cut(from, end).map_err(|_| self.damage(head, "a commit does not hold its events"))
    }

    /// Reads the commits that hold `from` and what follows, below `end`, as far as one read goes, with where
    /// their events lie in the file. Every byte is checked.
    pub fn read_commits(&self, from: Seq, end: Seq) -> Result<Vec<CommitRead>, StoreError> {
        let (buffer, run) = self.read_run(from, end)?;
        let begin = run.first().map_or(0, |(frame, _)| frame.offset);
        let read = |(frame, part): (FrameRef, Range<usize>)| CommitRead {
            first: frame.first,
            end: frame.end(),
            offset: begin + part.start as u64,
            events: buffer.slice(part),
        };
        Ok(run.into_iter().map(read).collect())
    }

    /// Reads bytes of the file, whatever they are. Who asks has to check them.
    pub fn read_unchecked(&self, offset: u64, len: usize) -> Result<Vec<u8>, StoreError> {
        self.disk.read_new(&self.file, &self.path, len, offset)
    }

    /// The bytes of a run of commits, and where in them the events of each lie. Checked.
    fn read_run(&self, from: Seq, end: Seq) -> Result<Run, StoreError> {
        let run = self.run_at(from, end);
        let (Some(head), Some(last)) = (run.first(), run.last()) else {
            return Err(StoreError::Invalid("no commit of this slot holds that seq"));
        };
        let (begin, span) = (head.offset, last.offset + u64::from(last.len) - head.offset);
        let buffer = self.disk.read_new(&self.file, &self.path, to_usize(span), begin)?;
        let mut parts = Vec::with_capacity(run.len());
        for frame in run {
            let at = to_usize(frame.offset - begin);
            let events = self.check(&frame, &buffer[at..at + frame.len as usize])?;
            parts.push((frame, at + events.start..at + events.end));
        }
        Ok((buffer.into(), parts))
    }

    /// Checks a frame as read; answers where its events lie.
    fn check(&self, frame: &FrameRef, bytes: &[u8]) -> Result<Range<usize>, StoreError> {
        let nonce = self.header.nonce;
        let head = Frame::decode(bytes, &self.header, frame.offset)
            .ok()
            .filter(|head| FrameRef::of(head) == *frame)
            .ok_or_else(|| self.damage(frame, "the head of a commit is damaged"))?;
        let events = head.header_bytes + head.delta_len as usize;
        let (delta, rest) = (&bytes[head.header_bytes..events], &bytes[events..]);
        if body_crc(nonce, delta, rest) != head.body_crc {
            return Err(self.damage(frame, "a commit does not match its checksum"));
        }
        Ok(events..bytes.len())
    }

    /// Bytes that have passed their checksum and are not events all the same.
    pub fn malformed(&self, seq: Seq, what: &str) -> StoreError {
        let (file, detail) = (self.path.clone(), what.to_owned());
        StoreError::Damaged(Damage { from: seq, to: seq, file, detail })
    }

    fn damage(&self, frame: &FrameRef, what: &str) -> StoreError {
        StoreError::Damaged(Damage {
            from: frame.first,
            to: frame.end().prev(),
            file: self.path.clone(),
            detail: format!("{what} at offset {}", frame.offset),
        })
    }
}
