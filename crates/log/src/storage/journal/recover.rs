//! Reading a slot back: what is proven, what is torn, what is rotten.
//!
//! A frame was durable if any later valid frame names bytes beyond its start as synced. A bad frame
//! that was durable is rot and is reported with its range. Only frames of the last write can be
//! torn; what they held was never acknowledged.

use std::fs::File;
use std::path::Path;

use super::format::{
    FRAME_ALIGN, Frame, FrameKind, HeaderProblem, NotAFrame, PAGE_BYTES, PAGE_LEN,
    SLOT_HEADER_BYTES, SLOT_HEADER_IN_MEMORY, SlotHeader, StateFrame, body_crc, padding_after,
};
use super::slot::{FrameRef, link_before};
use crate::chain::Link;
use crate::storage::{Damage, StoreError, disk::Disk};
use crate::width::to_usize;
use tailmark_record::{ChainTag, Seq, Timestamp};

/// What a slot file turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scan {
    /// Allocated, never used.
    Unused,
    /// Both copies of its head are damaged.
    Headless,
    /// In use at some time.
    Used(Box<SlotHeader>),
}

/// Reads the two copies of a slot's head; the newer valid one counts.
pub fn read_header(disk: &Disk, file: &File, path: &Path) -> Result<Scan, StoreError> {
    let mut pages = vec![0u8; SLOT_HEADER_IN_MEMORY];
    let len = file.metadata().map_err(StoreError::io("stat", path))?.len();
    if len < SLOT_HEADER_BYTES {
        return Ok(Scan::Headless);
    }
    disk.read_at(file, path, &mut pages, 0)?;
    let (one, two) = pages.split_at(PAGE_LEN);
    match (SlotHeader::decode(one), SlotHeader::decode(two)) {
        (Ok(one), Ok(two)) if two.number > one.number => Ok(Scan::Used(Box::new(two))),
        (Ok(header), _) | (_, Ok(header)) => Ok(Scan::Used(Box::new(header))),
        (Err(HeaderProblem::Format(found)), _) | (_, Err(HeaderProblem::Format(found))) => {
            let supported = crate::storage::FORMAT_VERSION;
            Err(StoreError::Format { path: path.to_owned(), found, supported })
        }
        (Err(HeaderProblem::Unused), Err(HeaderProblem::Unused)) => Ok(Scan::Unused),
        _ => Ok(Scan::Headless),
    }
}

/// What lies after the last valid frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// Zeros, as every write leaves them.
    Clean,
    /// The rest of a write that was never acknowledged, `from..to` in the file.
    Torn {
        /// First byte of it.
        from: u64,
        /// After its last byte that may matter.
        to: u64,
    },
}

/// A slot read from its head to its last valid frame.
#[derive(Debug)]
pub struct ScannedSlot {
    /// The state at its beginning; `None` when its first frame is not valid.
    pub state: Option<StateFrame>,
    /// Commits with events, all of them valid.
    pub frames: Vec<FrameRef>,
    /// Deltas of all commits, with their ranges.
    pub deltas: Vec<(Seq, Seq, Vec<u8>)>,
    /// Offset after the last valid frame.
    pub end: u64,
    /// Offset after the state: where the first commit begins.
    pub frames_begin: u64,
    /// Everything below this offset was synced by an earlier process.
    pub proven: u64,
    /// Seq after the last event.
    pub next: Seq,
    /// The chain before its first event and at its last; `None` when its first frame is not valid.
    pub links: Option<(Link, Link)>,
    /// The newest trim mark.
    pub oldest: Seq,
    /// The chain at the event before that, if it is known.
    pub oldest_tag: Option<ChainTag>,
    /// Time of the last commit.
    pub last_at: Timestamp,
    /// Valid commits at or above `proven`: written, perhaps acknowledged, not known to be synced.
    pub unproven: Vec<Frame>,
    /// Kind of the last valid frame.
    pub last_kind: Option<FrameKind>,
    /// What follows.
    pub tail: Tail,
    /// Ranges that were durable and cannot be read; recovery refuses, offline tools go on.
    pub damage: Vec<Damage>,
}

impl ScannedSlot {
    /// The chain before the event `seq`, where a commit begins with it or ends before it.
    pub fn link_before(&self, first: Seq, seq: Seq) -> Option<Link> {
        match self.links {
            Some((link, _)) if seq == first => Some(link),
            _ => link_before(&self.frames, seq),
        }
    }
}

/// What is known of a slot from elsewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Where it ends, as the next slot's head or a clean stop says: everything below was durable,
    /// and nothing beyond belongs to it.
    pub end: Option<u64>,
    /// Below which offset it was synced at least, and the seq after the last event there.
    pub synced: Option<(u64, Seq)>,
}

/// Reads every frame of a slot.
pub fn scan_slot(
    disk: &Disk,
    file: &File,
    path: &Path,
    header: &SlotHeader,
    known: Known,
) -> Result<ScannedSlot, StoreError> {
    let len = file.metadata().map_err(StoreError::io("stat", path))?.len();
    let synced = known.synced.map_or(0, |(upto, _)| upto);
    let mut scanner = Scanner {
        window: Window {
            disk,
            file,
            path,
            len: len.min(header.slot_bytes),
            start: 0,
            bytes: vec![],
        },
        header,
        known,
        slot: ScannedSlot {
            state: None,
            frames: Vec::new(),
            deltas: Vec::new(),
            end: SLOT_HEADER_BYTES,
            frames_begin: SLOT_HEADER_BYTES,
            proven: known.end.unwrap_or(SLOT_HEADER_BYTES).max(synced),
            next: header.first,
            links: None,
            oldest: Seq::ZERO,
            oldest_tag: None,
            last_at: Timestamp::from_nanos(i64::MIN),
            unproven: Vec::new(),
            last_kind: None,
            tail: Tail::Clean,
            damage: Vec::new(),
        },
        previous_crc: 0,
    };
    if len < header.slot_bytes {
        let lost = format!("the file has {len} of {} bytes", header.slot_bytes);
        scanner.report(Seq::ZERO, Seq::ZERO, lost);
    }
    scanner.run()?;
    let mut slot = scanner.slot;
    slot.unproven.retain(|frame| frame.offset >= slot.proven);
    Ok(slot)
}

struct Scanner<'a> {
    window: Window<'a>,
    header: &'a SlotHeader,
    known: Known,
    slot: ScannedSlot,
    previous_crc: u32,
}

impl Scanner<'_> {
    fn run(&mut self) -> Result<(), StoreError> {
        loop {
            let at = self.slot.end;
            if self.known.end.is_some_and(|end| at >= end) {
                return Ok(());
            }
            let found = self.frame_at(at)?;
            if !self.take_if_whole(found.as_ref())? && !self.resync(at)? {
                return Ok(());
            }
        }
    }

    /// Takes a frame that is the next one and whole; answers whether it was.
    fn take_if_whole(&mut self, frame: Option<&Frame>) -> Result<bool, StoreError> {
        let chained = |frame: &&Frame| {
            frame.previous_crc == self.previous_crc
                && frame.first == self.slot.next
                && self.slot.links.is_none_or(|(_, link)| link == frame.link_before)
        };
        let Some(frame) = frame.filter(chained) else { return Ok(false) };
        if !self.body_is_valid(frame)? {
            return Ok(false);
        }
        self.take(frame)?;
        Ok(true)
    }

    /// The head of a frame at `at`, if it is one of this slot.
    fn frame_at(&mut self, at: u64) -> Result<Option<Frame>, StoreError> {
        let Some(head) = self.window.get(at, self.header.frame_header_bytes() as u64)? else {
            return Ok(None);
        };
        match Frame::decode(head, self.header, at) {
            Ok(frame) => Ok(Some(frame)),
            Err(NotAFrame::Unknown) => Err(format_error(self.window.path.to_owned())),
            Err(NotAFrame::Foreign) => Ok(None),
        }
    }

    fn body_is_valid(&mut self, frame: &Frame) -> Result<bool, StoreError> {
        let nonce = self.header.nonce;
        let body = self.window.get(frame.offset, frame.bytes())?;
        Ok(body.is_some_and(|bytes| {
            let (delta, events) = split_body(frame, bytes);
            body_crc(nonce, delta, events) == frame.body_crc
        }))
    }

    fn take(&mut self, frame: &Frame) -> Result<(), StoreError> {
        let range = (frame.first, frame.end_seq());
        let Some(bytes) = self.window.get(frame.offset, frame.bytes())? else { return Ok(()) };
        let (delta, _) = split_body(frame, bytes);
        match frame.kind {
            FrameKind::State => {
                self.slot.state = StateFrame::decode(delta);
                self.slot.frames_begin = frame.end();
                if self.slot.state.is_none() {
                    // Its checksum holds: a newer program wrote what this one does not know.
                    let path = self.window.path.to_owned();
                    return Err(format_error(path));
                }
            }
            // The body of a mark only fills its page.
            FrameKind::Ignored | FrameKind::Mark => {}
            _ if !delta.is_empty() => self.slot.deltas.push((range.0, range.1, delta.to_vec())),
            _ => {}
        }
        if frame.count > 0 {
            self.slot.frames.push(FrameRef::of(frame));
        }
        self.slot.end = frame.end();
        if frame.durable_upto > self.slot.proven {
            self.slot.proven = frame.durable_upto;
            self.slot.unproven.clear();
        }
        if frame.kind == FrameKind::Commit {
            self.slot.unproven.push(frame.clone());
        }
        self.slot.next = range.1;
        let first = self.slot.links.map_or(frame.link_before, |(first, _)| first);
        self.slot.links = Some((first, frame.link));
        if frame.oldest >= self.slot.oldest {
            (self.slot.oldest, self.slot.oldest_tag) = (frame.oldest, frame.oldest_tag);
        }
        self.slot.last_at = self.slot.last_at.max(frame.appended_at);
        self.slot.last_kind = Some(frame.kind);
        self.previous_crc = frame.crc;
        Ok(())
    }

    /// At a place where no valid frame begins: looks for proof that one was durable there. Answers
    /// whether there is a later frame to go on from.
    fn resync(&mut self, at: u64) -> Result<bool, StoreError> {
        let mut position = at + FRAME_ALIGN;
        let mut go_on = None;
        while let Some(next) = self.window.find_magic(self.header, position)? {
            position = next + FRAME_ALIGN;
            let Some(frame) = self.frame_at(next)? else { continue };
            self.slot.proven = self.slot.proven.max(frame.durable_upto);
            if go_on.is_none() && self.body_is_valid(&frame)? {
                go_on = Some(frame);
            }
            if self.slot.proven > at && go_on.is_some() {
                break;
            }
        }
        // A daemon may have written on between our reads: what was not there is whole by now.
        self.window.bytes.clear();
        let found = self.frame_at(at)?;
        if self.take_if_whole(found.as_ref())? {
            return Ok(true);
        }
        if self.slot.proven <= at {
            // Nobody ever synced beyond this point: the last write, torn or never begun.
            let zeros = self.window.is_zero(at, padding_after(at))?;
            if !zeros || found.is_some() || go_on.is_some() {
                let to = go_on.map_or(0, |frame| frame.end());
                let to = to.max(found.map_or(0, |frame| frame.end())).max(at + PAGE_BYTES);
                self.slot.tail = Tail::Torn { from: at, to: to.min(self.window.len) };
            }
            return Ok(false);
        }
        let from = self.slot.next;
        match go_on {
            Some(frame) => {
                let to = frame.first.prev();
                let to = if to < from { Seq::ZERO } else { to };
                self.report(from, to, format!("a frame that was durable is bad at offset {at}"));
                self.slot.end = frame.offset;
                self.slot.next = frame.first;
                self.slot.links = self.slot.links.map(|(first, _)| (first, frame.link_before));
                self.previous_crc = frame.previous_crc;
                Ok(true)
            }
            None => {
                let upto = self.slot.proven;
                let detail = format!("frames that were durable are bad, offsets {at} to {upto}");
                let to = self.known.synced.map_or(Seq::ZERO, |(_, next)| next.prev());
                let to = if to < from { Seq::ZERO } else { to };
                self.report(from, to, detail);
                Ok(false)
            }
        }
    }

    fn report(&mut self, from: Seq, to: Seq, detail: String) {
        let file = self.window.path.to_owned();
        self.slot.damage.push(Damage { from, to, file, detail });
    }
}

/// Bytes whose checksum holds and whose meaning is not known here.
fn format_error(path: std::path::PathBuf) -> StoreError {
    let supported = crate::storage::FORMAT_VERSION;
    StoreError::Format { path, found: supported + 1, supported }
}

fn split_body<'b>(frame: &Frame, bytes: &'b [u8]) -> (&'b [u8], &'b [u8]) {
    bytes[frame.header_bytes..].split_at(frame.delta_len as usize)
}

/// A moving window over a file.
struct Window<'a> {
    disk: &'a Disk,
    file: &'a File,
    path: &'a Path,
    len: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl Window<'_> {
    const READ_BYTES: u64 = 4 << 20;

    /// `len` bytes at `at`; `None` beyond the end of the file.
    fn get(&mut self, at: u64, len: u64) -> Result<Option<&[u8]>, StoreError> {
        let Some(end) = at.checked_add(len).filter(|&end| end <= self.len) else { return Ok(None) };
        if at < self.start || end > self.start + self.bytes.len() as u64 {
            let want = len.max(Self::READ_BYTES).min(self.len - at);
            self.bytes.resize(to_usize(want), 0);
            self.start = at;
            self.disk.read_at(self.file, self.path, &mut self.bytes, at)?;
        }
        let from = to_usize(at - self.start);
        Ok(Some(&self.bytes[from..from + to_usize(len)]))
    }

    /// The next place at or after `at` where a frame may begin.
    fn find_magic(&mut self, slot: &SlotHeader, at: u64) -> Result<Option<u64>, StoreError> {
        let (magic, header_bytes) = (slot.frame_magic(), slot.frame_header_bytes() as u64);
        let mut at = at.next_multiple_of(FRAME_ALIGN);
        while at + header_bytes <= self.len {
            let span = (self.len - at).min(1 << 20);
            let Some(bytes) = self.get(at, span)? else { return Ok(None) };
            let step = to_usize(FRAME_ALIGN);
            if let Some(found) = bytes.chunks_exact(step).position(|c| c.starts_with(magic)) {
                return Ok(Some(at + (found * step) as u64));
            }
            at += span.next_multiple_of(FRAME_ALIGN);
        }
        Ok(None)
    }

    fn is_zero(&mut self, at: u64, len: u64) -> Result<bool, StoreError> {
        let len = len.min(self.len.saturating_sub(at));
        Ok(self.get(at, len)?.is_none_or(|bytes| bytes.iter().all(|&b| b == 0)))
    }
}
