//! Writing the journal.
//!
//! One caller at a time. A call either stored nothing, or its bytes are durable, or the journal is
//! broken for good: a failed write or sync is never tried again, because the kernel may have
//! dropped the pages (Rebello et al., "Can Applications Recover from fsync Failures?", 2020).

mod copy;

use std::sync::Arc;
use std::time::Duration;

use super::format::{
    FRAME_HEADER_BYTES, Frame, FrameKind, PAGE_BYTES, PAGE_LEN, Previous, SLOT_HEADER_BYTES,
    SLOT_HEADER_IN_MEMORY, SlotHeader, StateFrame, body_crc, padding_after,
};
use super::slot::{FrameRef, Slot};
use super::slots::{FreeSlot, JournalOptions, SlotSet};
use super::tip::{Tip, TipFile};
use crate::chain::Link;
use crate::storage::error::chain;
use crate::storage::{Commit, FORMAT_VERSION, StoreError, disk::Disk};
use crate::width::{to_u32, to_usize};
use tailmark_record::{ChainTag, Generation, LogId, Seq, Timestamp};

static ZEROS: [u8; PAGE_LEN] = [0; PAGE_LEN];

/// The end of a slot that other commits leave to trims: a full disk must still take them.
const TRIM_BYTES: u64 = PAGE_BYTES;

/// Deltas beyond this, and beyond the whole state, are folded into a new one.
const MAX_DELTA_BYTES: usize = 64 << 10;

/// What a journal goes on from.
#[derive(Debug)]
pub struct Origin {
    /// Whose log.
    pub log: LogId,
    /// Identity and generations, for the state at the head of each slot.
    pub meta: Vec<u8>,
    /// The generation new events belong to.
    pub generation: Generation,
    /// The slot before the one to begin.
    pub previous: Previous,
    /// Number of the slot to begin: above every one that any file of the journal has.
    pub number: u64,
    /// Seq of the next event.
    pub next: Seq,
    /// The chain before it.
    pub link: Link,
    /// The trim mark.
    pub oldest: Seq,
    /// The chain at the event before the trim mark, if that is known.
    pub oldest_tag: Option<ChainTag>,
    /// Time of the last commit.
    pub last_at: Timestamp,
    /// The caller's newest whole state, and the deltas after it.
    pub snapshot: Vec<u8>,
    /// See `snapshot`.
    pub deltas: Vec<(Seq, Seq, Vec<u8>)>,
}

/// Why an append stored nothing, or broke the journal.
#[derive(Debug)]
pub enum Failure {
    /// No slot is free and no more may be allocated: wait for sealing.
    NoSlot,
    /// Nothing was stored.
    Refused(StoreError),
    /// The outcome is unknown and the journal is broken.
    Broken(StoreError),
}

impl Failure {
    /// As an error of the engine.
    pub fn into_error(self) -> StoreError {
        match self {
            Failure::NoSlot => StoreError::Busy { reason: "no slot is free".to_owned() },
            Failure::Refused(error) | Failure::Broken(error) => error,
        }
    }
}

/// The journal, open for appending.
#[derive(Debug)]
pub struct SlotJournal {
    disk: Disk,
    slots: SlotSet,
    origin: Origin,
    active: Arc<Slot>,
    /// When it was begun, by time that passes.
    begun: Duration,
    /// Head and state of a slot that was begun but not written yet.
    pending: Vec<u8>,
    offset: u64,
    durable_upto: u64,
    previous_crc: u32,
    last_kind: FrameKind,
    /// Bytes of `origin.deltas`.
    delta_bytes: usize,
    broken: Option<String>,
    tip: TipFile,
    /// The head of the slot that is written is not on disk yet: nothing may be said of it.
    is_headless: bool,
}

impl SlotJournal {
    /// Begins a new slot after `origin`. Nothing is durable before the first write.
    ///
    /// # Errors
    /// When no slot can be had.
    pub fn begin(
        disk: Disk,
        mut slots: SlotSet,
        origin: Origin,
    ) -> Result<SlotJournal, StoreError> {
        let free = slots.take_at_start()?;
        let tip = TipFile::open(&disk, &slots.dir);
        let mut journal = SlotJournal {
            active: Arc::new(first_slot(&disk, free, &origin, &slots.options)?),
            begun: (slots.options.clocks.elapsed)(),
            disk,
            slots,
            origin,
            pending: Vec::new(),
            offset: 0,
            durable_upto: 0,
            previous_crc: 0,
            last_kind: FrameKind::State,
            delta_bytes: 0,
            broken: None,
            tip,
            is_headless: false,
        };
        journal.delta_bytes = journal.origin.deltas.iter().map(|(.., delta)| delta.len()).sum();
        journal.prepare_head();
        Ok(journal)
    }

    /// The slot that takes commits now.
    pub fn active(&self) -> &Arc<Slot> {
        &self.active
    }

    /// How long that slot has been it: whatever the clock said when it was begun, and says now.
    pub fn active_for(&self) -> Duration {
        (self.slots.options.clocks.elapsed)().saturating_sub(self.begun)
    }

    /// The chain at the last event.
    pub fn link(&self) -> Link {
        self.origin.link
    }

    /// The chain at the event before the trim mark, if that is known.
    pub fn oldest_tag(&self) -> Option<ChainTag> {
        self.origin.oldest_tag
    }

    /// The slot files.
    pub fn slots(&mut self) -> &mut SlotSet {
        &mut self.slots
    }

    /// Seq of the next event.
    pub fn next(&self) -> Seq {
        self.origin.next
    }

    /// The durable trim mark.
    pub fn oldest(&self) -> Seq {
        self.origin.oldest
    }

    /// Offset after the last durable frame of the active slot.
    pub fn end(&self) -> u64 {
        self.durable_upto
    }

    /// Kind of the last frame.
    pub fn last_kind(&self) -> FrameKind {
        self.last_kind
    }

    /// Why appends have stopped, if they have.
    pub fn broken(&self) -> Option<&str> {
        self.broken.as_deref()
    }

    /// Most bytes of events and delta that any slot takes at once.
    pub fn max_body_bytes(&self) -> u64 {
        max_body_bytes(self.slots.options.slot_bytes)
    }

    /// Whether a body of so many bytes begins a new slot.
    pub fn must_roll(&self, body: u64) -> bool {
        self.is_beyond(body, 2 * PAGE_BYTES + TRIM_BYTES)
    }

    /// Whether a commit with such a body should bring the caller's whole state: for the head of a
    /// new slot, or so that deltas do not pile up until there is one.
    pub fn wants_state(&self, body: u64) -> bool {
        let most = self.origin.snapshot.len().max(MAX_DELTA_BYTES);
        self.must_roll(body) || self.delta_bytes > most
    }

    fn is_beyond(&self, body: u64, reserve: u64) -> bool {
        let end = self.offset + FRAME_HEADER_BYTES as u64 + body;
        end + reserve > self.slots.options.slot_bytes
    }

    /// Why a commit with such a body would store nothing; `None` when it would be tried.
    pub fn refusal(&self, body: u64) -> Option<Failure> {
        if let Some(reason) = &self.broken {
            return Some(Failure::Refused(StoreError::Stopped { reason: reason.clone() }));
        }
        if !self.must_roll(body) {
            return None;
        }
        match self.slots.can_take() {
            true => self.slots.refusal_of_roll().map(Failure::Refused),
            false => Some(Failure::NoSlot),
        }
    }

    /// Makes a commit durable; answers the retired slot if one was filled.
    ///
    /// # Errors
    /// See [`Failure`].
    pub fn append(&mut self, commit: &Commit) -> Result<Option<Arc<Slot>>, Failure> {
        self.check(commit)?;
        let body = (commit.events.len() + commit.delta.len()) as u64;
        let mut retired = None;
        let is_trim = commit.count == 0 && commit.oldest > self.origin.oldest;
        let is_full = match is_trim {
            true => self.is_beyond(body, 2 * PAGE_BYTES),
            false => self.must_roll(body),
        };
        if is_full {
            let state = commit.state.as_deref();
            self.check_room(state, body)?;
            if self.is_begun() {
                retired = Some(self.roll(state)?);
            } else if let Some(state) = state {
                // Nothing of the active slot is on disk: it gets a smaller head, not a successor.
                self.take_state(state);
                self.prepare_head();
            }
        }
        if let Some(state) = &commit.state {
            // For the next head; this slot still has the deltas themselves.
            self.take_state(state);
        }
        let mut frame = self.frame(FrameKind::Commit, &commit.delta, &commit.events);
        frame.count = commit.count;
        (frame.oldest, frame.oldest_tag) = (commit.oldest, commit.oldest_tag);
        frame.link = commit.link;
        frame.appended_at = commit.appended_at;
        self.write(&mut frame, &commit.delta, &commit.events).map_err(Failure::Broken)?;
        if commit.count > 0 {
            self.active.push(FrameRef::of(&frame));
        }
        if !commit.delta.is_empty() {
            let range = (frame.first, frame.end_seq());
            self.delta_bytes += commit.delta.len();
            self.origin.deltas.push((range.0, range.1, commit.delta.to_vec()));
        }
        self.origin.next = frame.end_seq();
        self.origin.link = commit.link;
        (self.origin.oldest, self.origin.oldest_tag) = (commit.oldest, commit.oldest_tag);
        self.origin.last_at = commit.appended_at;
        Ok(retired)
    }

    /// Writes commits that recovery found at the end of an older slot: first the bodies, synced,
    /// then the head, so that a valid head always stands before a whole copy. Without any
    /// commit it writes the head alone: a new generation must be on disk before it is used.
    ///
    /// # Errors
    /// The journal is broken; the older slot still has everything.
    pub fn rewrite(&mut self, commits: &[Commit]) -> Result<(), Failure> {
        let pending = std::mem::take(&mut self.pending);
        let (heads, state) = pending.split_at(SLOT_HEADER_IN_MEMORY);
        let slot = Arc::clone(&self.active);
        let (file, path) = (slot.file(), slot.path());
        let zeros = &ZEROS[..to_usize(padding_after(self.offset))];
        let broken = |error| Failure::Broken(error);
        self.disk.write_at(file, path, &[state, zeros], SLOT_HEADER_BYTES).map_err(broken)?;
        self.is_headless = true;
        for commit in commits {
            self.append(commit)?;
        }
        self.is_headless = false;
        self.disk.sync_data(file, path).map_err(broken)?;
        self.disk.write_at(file, path, &[heads], 0).map_err(broken)?;
        self.disk.sync_data(file, path).map_err(broken)?;
        self.durable_upto = self.offset;
        self.note_tip(self.origin.next);
        Ok(())
    }

    /// Whether the active slot's head is on disk, so that older slots may be reused.
    pub fn is_begun(&self) -> bool {
        self.pending.is_empty()
    }

    fn refusal_if_broken(&self) -> Result<(), Failure> {
        match &self.broken {
            Some(reason) => Err(Failure::Refused(StoreError::Stopped { reason: reason.clone() })),
            None => Ok(()),
        }
    }

    fn check(&self, commit: &Commit) -> Result<(), Failure> {
        self.refusal_if_broken()?;
        let refused = |error| Err(Failure::Refused(error));
        if commit.first != self.origin.next {
            let (expected, next) = (commit.first, self.origin.next);
            return refused(StoreError::Conflict { expected, next });
        }
        let end = commit.first.plus(u64::from(commit.count));
        if commit.oldest < self.origin.oldest || commit.oldest > end {
            return refused(StoreError::Invalid("the trim mark goes down or beyond the end"));
        }
        if commit.appended_at < self.origin.last_at {
            return refused(StoreError::Invalid("time goes back"));
        }
        if Timestamp::from_nanos(commit.appended_at.as_nanos()) != commit.appended_at {
            return refused(StoreError::Invalid("the time is beyond what can be stored"));
        }
        if (commit.count == 0) != commit.events.is_empty() {
            return refused(StoreError::Invalid("events and their count disagree"));
        }
        if commit.count == 0 && commit.link != self.origin.link {
            return refused(StoreError::Invalid("the chain goes on without an event"));
        }
        let body = (commit.events.len() + commit.delta.len()) as u64;
        if body > self.max_body_bytes() {
            return refused(StoreError::Invalid("a commit is larger than a slot takes"));
        }
        Ok(())
    }

    /// Notes after a pause that everything so far was synced.
    ///
    /// # Errors
    /// The journal is broken.
    pub fn mark(&mut self) -> Result<(), StoreError> {
        if self.is_begun() && self.broken.is_none() && !self.must_roll(PAGE_BYTES) {
            self.fill_page();
        }
        self.note(FrameKind::Mark)
    }

    /// Lays out a mark that fills the page in which the log ends, so that the next one lies in
    /// another: if this page is lost, with all it proves of itself, that one still tells.
    fn fill_page(&mut self) {
        if self.offset.is_multiple_of(PAGE_BYTES) {
            return;
        }
        let smallest = self.offset + FRAME_HEADER_BYTES as u64;
        let body = to_usize(smallest.next_multiple_of(PAGE_BYTES) - smallest);
        let zeros = &ZEROS[..body];
        let nonce = self.active.header().nonce;
        let mut frame = self.frame(FrameKind::Mark, zeros, &[]);
        frame.body_crc = body_crc(nonce, zeros, &[]);
        self.pending.extend_from_slice(&frame.encode(nonce));
        self.pending.extend_from_slice(zeros);
        (self.offset, self.previous_crc) = (frame.end(), frame.crc);
    }

    /// Notes a clean stop.
    ///
    /// # Errors
    /// The journal is broken.
    pub fn close(&mut self) -> Result<(), StoreError> {
        self.note(FrameKind::Close)
    }

    fn note(&mut self, kind: FrameKind) -> Result<(), StoreError> {
        if let Some(reason) = &self.broken {
            return Err(StoreError::Stopped { reason: reason.clone() });
        }
        if self.is_beyond(0, 2 * PAGE_BYTES) {
            // A full slot: the next one's head will say where this one ends.
            return Ok(());
        }
        let mut frame = self.frame(kind, &[], &[]);
        self.write(&mut frame, &[], &[])
    }

    /// Begins a new slot. The old one ends at its last durable frame.
    ///
    /// # Errors
    /// See [`Failure`]; nothing is written yet.
    pub fn roll(&mut self, state: Option<&[u8]>) -> Result<Arc<Slot>, Failure> {
        if !self.slots.can_take() {
            return Err(Failure::NoSlot);
        }
        let free = self.slots.take_for_roll().map_err(|error| {
            // Nothing of the log was touched: the next append may find it mended.
            Failure::Refused(match error {
                full @ StoreError::DiskFull { .. } => full,
                other => StoreError::Busy { reason: chain(&other) },
            })
        })?;
        if let Some(state) = state {
            self.take_state(state);
        }
        let header = self.active.header();
        self.origin.number = header.number + 1;
        self.origin.previous =
            Previous { number: header.number, nonce: header.nonce, end: self.durable_upto };
        let next = first_slot(&self.disk, free, &self.origin, &self.slots.options)
            .map_err(Failure::Refused)?;
        let old = std::mem::replace(&mut self.active, Arc::new(next));
        self.begun = (self.slots.options.clocks.elapsed)();
        self.prepare_head();
        Ok(old)
    }

    fn take_state(&mut self, state: &[u8]) {
        self.origin.snapshot = state.to_vec();
        self.origin.deltas.clear();
        self.delta_bytes = 0;
    }

    /// Whether a new slot has room for a commit after its head and this state, or, without one,
    /// the state and deltas so far.
    fn check_room(&self, state: Option<&[u8]>, body: u64) -> Result<(), Failure> {
        const SECTION_BYTES: usize = 24;
        let kept: usize = match state {
            Some(state) => state.len(),
            None => {
                let deltas = self.origin.deltas.iter();
                let deltas: usize = deltas.map(|(.., delta)| delta.len() + SECTION_BYTES).sum();
                self.origin.snapshot.len() + deltas
            }
        };
        let state = (self.origin.meta.len() + kept + 3 * SECTION_BYTES) as u64;
        let head = SLOT_HEADER_BYTES + state + 2 * FRAME_HEADER_BYTES as u64;
        if head + body + 2 * PAGE_BYTES + TRIM_BYTES > self.slots.options.slot_bytes {
            let what = "the state leaves no room for the commit in a slot";
            return Err(Failure::Refused(StoreError::Invalid(what)));
        }
        Ok(())
    }

    /// Lays out head and state of the active slot, to be written with its first frame.
    fn prepare_head(&mut self) {
        let header = self.active.header();
        let (page, nonce) = (header.encode(), header.nonce);
        self.pending.clear();
        self.pending.extend_from_slice(&page);
        self.pending.extend_from_slice(&page);
        (self.offset, self.durable_upto, self.previous_crc) =
            (SLOT_HEADER_BYTES, SLOT_HEADER_BYTES, 0);
        let state = StateFrame {
            meta: self.origin.meta.clone(),
            snapshot: self.origin.snapshot.clone(),
            deltas: self.origin.deltas.clone(),
        }
        .encode();
        let mut frame = self.frame(FrameKind::State, &state, &[]);
        frame.body_crc = body_crc(nonce, &state, &[]);
        self.pending.extend_from_slice(&frame.encode(nonce));
        self.pending.extend_from_slice(&state);
        self.pending.resize(to_usize(frame.end()), 0);
        (self.offset, self.previous_crc) = (frame.end(), frame.crc);
        self.last_kind = FrameKind::State;
    }

    fn frame(&self, kind: FrameKind, delta: &[u8], events: &[u8]) -> Frame {
        Frame {
            header_bytes: FRAME_HEADER_BYTES,
            kind,
            delta_len: to_u32(delta.len()),
            events_len: to_u32(events.len()),
            count: 0,
            first: self.origin.next,
            oldest: self.origin.oldest,
            oldest_tag: self.origin.oldest_tag,
            link_before: self.origin.link,
            link: self.origin.link,
            appended_at: self.origin.last_at,
            durable_upto: self.durable_upto,
            previous_crc: self.previous_crc,
            offset: self.offset,
            body_crc: 0,
            crc: 0,
        }
    }

    /// Writes a frame, and what is pending before it, and syncs.
    fn write(&mut self, frame: &mut Frame, delta: &[u8], events: &[u8]) -> Result<(), StoreError> {
        let nonce = self.active.header().nonce;
        frame.body_crc = body_crc(nonce, delta, events);
        let head = frame.encode(nonce);
        let end = frame.offset + frame.bytes();
        let zeros = &ZEROS[..to_usize(padding_after(end))];
        // What is pending lies at the start of the slot, directly before this frame.
        let at = frame.offset - self.pending.len() as u64;
        let heads = if at == 0 { SLOT_HEADER_IN_MEMORY } else { 0 };
        let (heads, pending) = self.pending.split_at(heads);
        let parts: [&[u8]; 5] = [pending, &head, delta, events, zeros];
        let (file, path) = (self.active.file(), self.active.path());
        // A new head in a call of its own: whoever reads the slot's earlier frames meanwhile, and
        // then still finds the old head, has not read a byte of the new ones. One sync makes both
        // durable.
        let result = match heads {
            [] => Ok(()),
            heads => self.disk.write_at(file, path, &[heads], 0),
        }
        .and_then(|()| self.disk.write_at(file, path, &parts, at + heads.len() as u64))
        .and_then(|()| self.disk.sync_data(file, path));
        if let Err(error) = result {
            self.broken = Some(chain(&error));
            return Err(error);
        }
        self.pending = Vec::new();
        (self.offset, self.durable_upto) = (frame.end(), frame.end());
        self.previous_crc = frame.crc;
        self.last_kind = frame.kind;
        self.note_tip(frame.end_seq());
        Ok(())
    }

    /// Before anybody hears that it is synced: whatever is acknowledged outlives the loss of its
    /// page.
    fn note_tip(&mut self, next: Seq) {
        if self.is_headless {
            return;
        }
        let header = self.active.header();
        let (log, number, nonce) = (header.log, header.number, header.nonce);
        self.tip.note(&self.disk, &Tip { log, number, nonce, upto: self.durable_upto, next });
    }
}

/// Most bytes of events and delta that a slot of this size takes at once. A quarter, so that a slot
/// holds several of the largest commits and the state beside them.
pub fn max_body_bytes(slot_bytes: u64) -> u64 {
    (slot_bytes / 4).min(16 << 20)
}

fn first_slot(
    disk: &Disk,
    free: FreeSlot,
    origin: &Origin,
    options: &JournalOptions,
) -> Result<Slot, StoreError> {
    let header = SlotHeader {
        format: FORMAT_VERSION,
        slot_bytes: options.slot_bytes,
        log: origin.log,
        number: origin.number,
        nonce: rand::random(),
        first: origin.next,
        created_at: (options.clocks.wall)(),
        generation: origin.generation,
        previous: origin.previous,
    };
    let slot = Slot::new(free.path, free.file, disk.clone(), header, origin.link, Vec::new());
    Ok(slot.in_clean_file(free.clean_for))
}
