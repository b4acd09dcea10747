//! What holds which events: segments and slots as one look found them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tailmark_log::chain::Link;
use tailmark_log::storage::disk::Disk;
use tailmark_log::storage::journal::{FrameRef, Slot};
use tailmark_log::storage::local::{Survey, survey};
use tailmark_log::storage::segment::{RemovedRange, Segment};
use tailmark_log::storage::{Damage, Removed, StoreError};
use tailmark_record::{Bounds, Seq};

/// Looks at a data directory, also beside a daemon at work.
pub(super) fn look(dir: &Path) -> Result<Survey, StoreError> {
    let found = survey(dir, &Disk::real())?;
    if found.is_blank() && found.damage.is_empty() {
        return Err(StoreError::Missing { path: dir.to_owned() });
    }
    // A daemon may be about to make its newest commit durable. Nothing that is told here, or kept elsewhere, may
    // be undone by a loss of power.
    if let Some(slot) = found.slots.last() {
        match Disk::real().sync_file(&slot.path) {
            // Sealed and freed by now; or where nothing can be written.
            Err(error) if is_not_found(&error) || is_read_only(&error) => {}
            synced => synced?,
        }
    }
    Ok(found)
}

fn is_read_only(error: &StoreError) -> bool {
    use std::io::ErrorKind::{InvalidInput, ReadOnlyFilesystem, Unsupported};
    let StoreError::Io { source, .. } = error else { return false };
    matches!(source.kind(), InvalidInput | ReadOnlyFilesystem | Unsupported)
}

/// Whether a file was gone when it was opened.
pub(super) fn is_not_found(error: &StoreError) -> bool {
    matches!(error, StoreError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
}

/// A slot and its valid commits.
#[derive(Debug)]
pub(super) struct SlotPart {
    pub slot: Slot,
    pub frames: Vec<FrameRef>,
}

/// All that can be read.
#[derive(Debug)]
pub(super) struct Cover {
    pub segments: Vec<Arc<Segment>>,
    /// Ranges without events.
    pub removed: Vec<Arc<RemovedRange>>,
    pub slots: Vec<SlotPart>,
    /// First readable seq.
    pub oldest: Seq,
    /// Seq after the last event found.
    pub next: Seq,
    /// What the look found damaged.
    pub damage: Vec<Damage>,
}

/// What holds one event.
pub(super) enum Place<'a> {
    Segment(&'a Arc<Segment>),
    Frame(&'a SlotPart, FrameRef),
    /// It is known to be gone.
    Removed(Removed),
    /// Nothing does, nor any event before `end`.
    Hole {
        end: Seq,
    },
}

/// Tells places of two looks apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PlaceKey {
    Segment(PathBuf),
    Slot { number: u64, nonce: u64 },
    Removed(Seq),
    Hole,
}

impl Cover {
    /// Of a look. Its slots are opened for reading only.
    pub(super) fn new(mut found: Survey) -> Result<Cover, StoreError> {
        let (oldest, next) = (found.oldest(), found.next());
        let disk = Disk::real();
        let mut slots = Vec::new();
        for slot in std::mem::take(&mut found.slots) {
            let link = slot.scan.links.map_or(Link::START, |(first, _)| first);
            let frames = slot.scan.frames;
            let file = disk.open_read(&slot.path)?;
            let slot = Slot::new(slot.path, file, disk.clone(), slot.header, link, frames.clone());
            slots.push(SlotPart { slot, frames });
        }
        let Survey { segments, removed, damage, .. } = found;
        Ok(Cover { segments, removed, slots, oldest, next, damage })
    }

    /// What holds `at`; what is sealed is read from its segment.
    pub(super) fn locate(&self, at: Seq) -> Place<'_> {
        if let Some(segment) = self.segments.iter().find(|segment| segment.contains(at)) {
            return Place::Segment(segment);
        }
        if let Some(it) = self.removed.iter().find(|it| it.range.contains(at)) {
            return Place::Removed(it.range);
        }
        let mut end = self.next.max(at.next());
        for part in &self.slots {
            let after = part.frames.partition_point(|frame| frame.end() <= at);
            match part.frames.get(after) {
                Some(frame) if frame.first <= at => return Place::Frame(part, *frame),
                Some(frame) => end = end.min(frame.first),
                None => {}
            }
        }
        let segments = self.segments.iter().map(|segment| segment.first());
        let sealed = segments.chain(self.removed.iter().map(|it| it.range.first));
        Place::Hole { end: sealed.filter(|first| *first > at).min().map_or(end, |s| s.min(end)) }
    }

    /// The chain before `seq`, where a segment, slot or commit begins or ends there.
    pub(super) fn link_before(&self, seq: Seq) -> Option<Link> {
        let of_segment = |segment: &Arc<Segment>| match seq {
            seq if seq == segment.first() => Some(segment.link_before()),
            seq if seq == segment.end() => Some(segment.link()),
            _ => None,
        };
        let of_range = |it: &Arc<RemovedRange>| match seq {
            seq if seq == it.range.first => Some(it.range.link_before),
            seq if seq == it.range.end => Some(it.range.link),
            _ => None,
        };
        let of_slot = |part: &SlotPart| part.slot.link_before(seq);
        let segment = self.segments.iter().find_map(of_segment);
        let slot = segment.or_else(|| self.slots.iter().find_map(of_slot));
        slot.or_else(|| self.removed.iter().find_map(of_range))
    }

    /// The look's damage that explains why nothing holds `from`.
    pub(super) fn damage_at(&self, from: Seq) -> Option<usize> {
        let holds = |damage: &Damage| {
            damage.from != Seq::ZERO
                && damage.from <= from
                && (damage.to == Seq::ZERO || damage.to >= from)
        };
        self.damage.iter().position(holds)
    }
}

impl Place<'_> {
    pub(super) fn key(&self) -> PlaceKey {
        match self {
            Place::Segment(segment) => PlaceKey::Segment(segment.dir().to_owned()),
            Place::Frame(part, _) => {
                let header = part.slot.header();
                PlaceKey::Slot { number: header.number, nonce: header.nonce }
            }
            Place::Removed(range) => PlaceKey::Removed(range.first),
            Place::Hole { .. } => PlaceKey::Hole,
        }
    }
}

/// Bounds as a daemon would have them; `None` without an identity.
pub(super) fn bounds_of(found: &Survey) -> Option<Bounds> {
    let meta = found.meta.as_ref()?;
    let generations = meta.generations.clone();
    Some(Bounds { oldest: found.oldest(), head: found.next().prev(), generations })
}
