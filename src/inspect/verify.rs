//! Reading every byte that counts, and naming each range that is not what it was.
//!
//! Slots: heads, the chain of frames, checksums, and every event of every commit. Segments: files
//! against the footer, every block, topics, fingerprints, the hash over events. Between them: that
//! every readable seq is somewhere, that all belong to one log. `log.meta`, and an order to
//! erase, beside them.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Error;
use super::cover::{Cover, SlotPart, bounds_of, is_not_found, look};
use super::scratch::Scratch;
use tailmark_log::chain::Link;
use tailmark_log::storage::disk::Disk;
use tailmark_log::storage::journal::FrameRef;
use tailmark_log::storage::journal::{TIP_FILE, TipState};
use tailmark_log::storage::local::JOURNAL_DIR;
use tailmark_log::storage::local::{Survey, load_order, verify_trimmed};
use tailmark_log::storage::meta::{META_FILE, Meta, MetaProblem};
use tailmark_log::storage::segment::{self, Segment};
use tailmark_log::storage::{Damage, FORMAT_VERSION, StoreError};
use tailmark_record::{Bounds, ChainTag, Cursor, Event, Events, Facts, FingerprintKey, LogId, Seq};

/// Rounds after which what a daemon moved meanwhile is not looked for any more.
const ROUNDS: usize = 64;

/// How far a verification is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes checked.
    pub done_bytes: u64,
    /// Bytes to check, as far as is known.
    pub total_bytes: u64,
}

/// What a verification found.
#[derive(Clone, Debug)]
pub struct Verified {
    /// Whose log, if that can be told.
    pub log: Option<LogId>,
    /// First readable seq.
    pub oldest: Seq,
    /// Last seq found.
    pub head: Seq,
    /// Segments checked.
    pub segments: u64,
    /// Live slots checked.
    pub slots: u64,
    /// Readable events that are whole, each once, also where slot and segment both have it.
    pub events: u64,
    /// Bytes checked.
    pub bytes: u64,
    /// Everything that is damaged, by seq; from 0 to 0 where that is not known.
    pub damage: Vec<Damage>,
    /// What is no damage and yet worth knowing.
    pub notes: Vec<String>,
}

impl Verified {
    /// Whether nothing is damaged.
    pub fn is_clean(&self) -> bool {
        self.damage.is_empty()
    }
}

/// Checks all of the log in `dir`. `watch` hears of progress, and of each damage as it is found;
/// it ends the verification with an error of its own.
///
/// # Errors
/// No log, another format, no room for a copy; what `watch` answers.
pub fn verify(
    dir: &Path,
    mut watch: impl FnMut(Progress, Option<&Damage>) -> io::Result<()>,
) -> Result<Verified, Error> {
    let found = look(dir)?;
    let mut check = Check {
        dir,
        bounds: bounds_of(&found),
        log: found.meta.as_ref().map(|meta| meta.log),
        key: found.meta.as_ref().map(|meta| meta.key),
        report: Verified {
            log: found.meta.as_ref().map(|meta| meta.log),
            oldest: found.oldest(),
            head: found.next().prev(),
            segments: 0,
            slots: 0,
            events: 0,
            bytes: 0,
            damage: Vec::new(),
            notes: Vec::new(),
        },
        whole: Runs::default(),
        gone: Runs::default(),
        progress: Progress::default(),
        scratch: Scratch::new(),
        watch: &mut watch,
    };
    check.run(found)?;
    let (mut report, whole, gone) = (check.report, check.whole, check.gone);
    let (from, end) = (report.oldest, report.head.next());
    // A slot that a segment was made of still has what rules took out of that.
    report.events = whole.count(from, end).saturating_sub(gone.count(from, end));
    report.damage.sort_by_key(|damage| (damage.from, damage.to));
    Ok(report)
}

struct Check<'a> {
    dir: &'a Path,
    bounds: Option<Bounds>,
    log: Option<LogId>,
    key: Option<FingerprintKey>,
    report: Verified,
    /// Events that are whole, wherever they lie.
    whole: Runs,
    /// Of these, what rules for topics took out since.
    gone: Runs,
    progress: Progress,
    scratch: Scratch,
    watch: &'a mut dyn FnMut(Progress, Option<&Damage>) -> io::Result<()>,
}

impl Check<'_> {
    fn run(&mut self, found: Survey) -> Result<(), Error> {
        self.meta(&found)?;
        self.notes(&found);
        self.tip(&found)?;
        for damage in &found.damage {
            self.damaged(damage.clone())?;
        }
        let slot_bytes: u64 = found.slots.iter().map(|slot| slot.scan.end).sum();
        let sealed: u64 = found.segments.iter().map(|segment| segment.disk_bytes()).sum();
        self.progress.total_bytes = slot_bytes + sealed;
        let cover = Cover::new(found)?;
        let mut has_moved = false;
        for part in &cover.slots {
            has_moved |= !self.slot(part)?;
        }
        if let Some(log) = self.log {
            for damage in verify_trimmed(self.dir, &Disk::real(), log)? {
                self.damaged(damage)?;
            }
            self.erasing(log)?;
        }
        self.segments(cover.segments, has_moved)
    }

    fn damaged(&mut self, damage: Damage) -> Result<(), Error> {
        if self.report.damage.contains(&damage) {
            return Ok(());
        }
        (self.watch)(self.progress, Some(&damage)).map_err(Error::Output)?;
        self.report.damage.push(damage);
        Ok(())
    }

    fn advance(&mut self, bytes: u64) -> Result<(), Error> {
        self.report.bytes += bytes;
        self.progress.done_bytes += bytes;
        self.progress.total_bytes = self.progress.total_bytes.max(self.progress.done_bytes);
        (self.watch)(self.progress, None).map_err(Error::Output)
    }

    fn meta(&mut self, found: &Survey) -> Result<(), Error> {
        let path = self.dir.join(META_FILE);
        let problem = match std::fs::read(&path) {
            Ok(bytes) => match Meta::decode(&bytes, FORMAT_VERSION) {
                Ok(_) => None,
                Err(MetaProblem::Damaged) => Some("it is damaged"),
                Err(MetaProblem::Format(_)) => Some("it has another format"),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Some("it is missing"),
            Err(source) => return Err(StoreError::Io { action: "read", path, source }.into()),
        };
        match problem {
            Some(problem) => {
                let rebuilt = match found.meta {
                    Some(_) => "; the journal has a copy, which the next start puts in its place",
                    None => "",
                };
                let detail = format!("{problem}{rebuilt}");
                self.damaged(Damage { from: Seq::ZERO, to: Seq::ZERO, file: path, detail })
            }
            None if found.meta_is_stale => {
                let note = "log.meta is behind the journal; the next start brings it up to date";
                self.report.notes.push(note.to_owned());
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// An order to erase that is not through.
    fn erasing(&mut self, log: LogId) -> Result<(), Error> {
        match load_order(self.dir, &Disk::real(), log) {
            Ok(None) => Ok(()),
            Ok(Some(order)) => {
                let (events, id) = (order.events(), order.id);
                self.report.notes.push(format!(
                    "the erasure {id} of {events} events is under way, or goes on at the next start"
                ));
                Ok(())
            }
            Err(StoreError::Damaged(damage)) => self.damaged(damage),
            Err(error) => Err(error.into()),
        }
    }

    /// The note of how far the journal is synced. Nothing is lost with it, but for what the newest slot would tell if that
    /// were lost too: where the log ended.
    fn tip(&mut self, found: &Survey) -> Result<(), Error> {
        let journal = self.dir.join(JOURNAL_DIR);
        let file = journal.join(TIP_FILE);
        let clean = found.meta.as_ref().and_then(|meta| meta.clean_stop).map(|clean| clean.slot);
        let newest = found.slots.last().map(|slot| slot.header.number);
        let detail = match TipState::of(&Disk::real(), &journal)? {
            TipState::Whole(tip) if self.log.is_none_or(|log| log == tip.log) => return Ok(()),
            // Where a log was closed in order, or has no slot yet, its end is known all the same.
            TipState::Missing if clean == newest => return Ok(()),
            TipState::Missing => {
                self.report.notes.push(format!(
                    "{}: it is missing, and the next commit writes it; until then nobody could tell where the log ended if \
                     the newest slot were lost too",
                    file.display()
                ));
                return Ok(());
            }
            TipState::Whole(_) => "it is of another log",
            TipState::Damaged => {
                "it is not what was written; no event is lost by that, and the next commit writes it anew"
            }
        };
        self.damaged(Damage { from: Seq::ZERO, to: Seq::ZERO, file, detail: detail.to_owned() })
    }

    fn notes(&mut self, found: &Survey) {
        use tailmark_log::storage::journal::Tail;
        let newest = found.slots.last().map(|slot| (&slot.path, slot.scan.tail));
        let unbegun = found.unbegun.as_ref().map(|(path, tail)| (path, *tail));
        for (path, tail) in newest.into_iter().chain(unbegun) {
            if let Tail::Torn { from, to } = tail {
                self.report.notes.push(format!(
                    "{}: the last write is not whole, offsets {from} to {to}; it was never \
                     acknowledged, or a daemon is just writing it",
                    path.display()
                ));
            }
        }
        for it in &found.removed {
            self.report.notes.push(format!("{}: {}", it.dir.display(), it.range));
        }
        for old in &found.superseded {
            self.report.notes.push(format!(
                "{}: a newer revision has its events; it waits to be removed",
                old.dir().display()
            ));
        }
    }

    /// Answers whether it still holds what it held.
    fn slot(&mut self, part: &SlotPart) -> Result<bool, Error> {
        let (slot, header) = (&part.slot, part.slot.header());
        let path = slot.path().to_owned();
        if self.log.is_some_and(|log| log != header.log) {
            let (from, to) = (slot.first(), slot.end().prev());
            let detail = "the slot belongs to another log".to_owned();
            self.damaged(Damage { from, to, file: path.clone(), detail })?;
        }
        self.report.slots += 1;
        for frame in &part.frames {
            let before = slot.link_before(frame.first);
            let damage = match slot.read(frame.first, frame.end()) {
                Ok(chunk) => self.events(&chunk.events, frame, before).map(|detail| Damage {
                    from: frame.first,
                    to: frame.end().prev(),
                    file: path.clone(),
                    detail: format!("{detail}, in the commit at offset {}", frame.offset),
                }),
                Err(StoreError::Damaged(damage)) => Some(damage),
                Err(other) => return Err(other.into()),
            };
            if let Some(damage) = damage {
                if self.slot_was_reused(part)? {
                    // Sealed meanwhile: its events are checked where they are now.
                    self.advance(u64::from(frame.len))?;
                    return Ok(false);
                }
                self.damaged(damage)?;
            }
            self.advance(u64::from(frame.len))?;
        }
        Ok(true)
    }

    fn slot_was_reused(&self, part: &SlotPart) -> Result<bool, Error> {
        use tailmark_log::storage::journal::{Scan, read_header};
        let disk = tailmark_log::storage::disk::Disk::real();
        let now = read_header(&disk, part.slot.file(), part.slot.path())?;
        Ok(!matches!(now, Scan::Used(header) if header.nonce == part.slot.header().nonce))
    }

    /// Reads the events of one commit; answers what is wrong with them.
    fn events(&mut self, bytes: &[u8], frame: &FrameRef, before: Option<Link>) -> Option<String> {
        let (mut next, end, at) = (frame.first, frame.end(), frame.appended_at);
        // Behind what could not be read nobody knows the chain.
        let mut link = before;
        for event in Events::new(bytes) {
            let read =
                event.and_then(|event| Ok((event, Event::parse(event)?, Facts::scan(event)?)));
            let event = match read {
                Ok((bytes, event, facts)) => {
                    link = link.map(|link| link.then_event(bytes, &facts));
                    event
                }
                Err(error) => return Some(format!("event {next}: {}", error.what())),
            };
            if event.seq != next {
                return Some(format!("event {next} has the seq {}", event.seq));
            }
            if event.appended_at != Some(at) {
                return Some(format!("event {next} has another append time than its commit"));
            }
            if !self.cursor_fits(&event, link.map(Link::tag)) {
                return Some(format!("event {next} has the cursor of another event"));
            }
            self.whole.push(next, next.next());
            next = next.next();
        }
        if next != end {
            return Some(format!("event {next} is missing"));
        }
        link.is_some_and(|link| !link.joins(frame.link))
            .then(|| "the chain over its events is another".to_owned())
    }

    fn cursor_fits(&self, event: &Event<'_>, here: Option<ChainTag>) -> bool {
        let cursor = Cursor::parse(event.cursor);
        let Ok(Cursor::Token { log, generation, seq, tag: Some(tag) }) = cursor else {
            return false;
        };
        let known = self.bounds.as_ref().map(|bounds| &bounds.generations);
        seq == event.seq
            && here.is_none_or(|here| here == tag)
            && self.log.is_none_or(|id| id.short() == log)
            && known.is_none_or(|known| known.of(seq).generation == generation)
    }

    /// Segments, and those that a daemon makes meanwhile of them, and of slots.
    fn segments(&mut self, segments: Vec<Arc<Segment>>, slots_moved: bool) -> Result<(), Error> {
        let mut checked: HashSet<PathBuf> = HashSet::new();
        let mut has_moved = slots_moved;
        let mut found = segments;
        for _ in 0..ROUNDS {
            for segment in found {
                if checked.insert(segment.dir().to_owned()) {
                    has_moved |= !self.segment(&segment)?;
                }
            }
            if !std::mem::take(&mut has_moved) {
                return Ok(());
            }
            found = look(self.dir)?.segments;
        }
        Err(StoreError::Unsettled { path: self.dir.to_owned() }.into())
    }

    /// Answers whether it is still there.
    fn segment(&mut self, segment: &Segment) -> Result<bool, Error> {
        let scratch = self.scratch.for_copy_of(segment)?.to_owned();
        let beats = segment::Progress::default();
        let result = segment::examine(segment.dir(), &scratch, self.key.as_ref(), &beats);
        let found = match result {
            Ok(found) => found,
            Err(error) if is_not_found(&error) && !segment.dir().exists() => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        if !found.damage.is_empty() && !segment.dir().exists() {
            return Ok(false);
        }
        for (from, end) in found.whole {
            self.whole.push(from, end);
        }
        for run in found.gone {
            self.gone.push(run.start, run.end);
        }
        for damage in found.damage {
            self.damaged(damage)?;
        }
        self.belongs_here(segment)?;
        self.report.segments += 1;
        self.advance(segment.disk_bytes())?;
        Ok(true)
    }

    fn belongs_here(&mut self, segment: &Segment) -> Result<(), Error> {
        let (from, to) = (segment.first(), segment.end().prev());
        let mut wrong = None;
        if self.log.is_some_and(|log| log != segment.log_id()) {
            wrong = Some("the segment belongs to another log");
        } else if let Some(bounds) = &self.bounds {
            let ours = bounds.generations.entries();
            let theirs = segment.generations().entries();
            if !theirs.iter().all(|entry| ours.contains(entry)) {
                wrong = Some("the segment was sealed in another history of this log");
            }
        }
        match wrong {
            Some(detail) => {
                let (file, detail) = (segment.dir().to_owned(), detail.to_owned());
                self.damaged(Damage { from, to, file, detail })
            }
            None => Ok(()),
        }
    }
}

/// Runs of seqs, which may overlap.
#[derive(Debug, Default)]
struct Runs(Vec<(Seq, Seq)>);

impl Runs {
    fn push(&mut self, from: Seq, end: Seq) {
        match self.0.last_mut() {
            Some(last) if last.1 == from => last.1 = end,
            _ => self.0.push((from, end)),
        }
    }

    /// How many seqs of `from..end` are in any of them.
    fn count(mut self, from: Seq, end: Seq) -> u64 {
        self.0.sort_unstable();
        let (mut count, mut upto) = (0, from);
        for (first, last) in self.0 {
            let (first, last) = (first.max(upto), last.min(end));
            if first < last {
                count += first.distance_to(last);
                upto = last;
            }
        }
        count
    }
}
