//! What lies in a directory of segments.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::dir::{is_passing, parse_name};
use super::{RemovedRange, Segment};
use crate::storage::disk::Disk;
use crate::storage::{Damage, StoreError};
use tailmark_record::Seq;

/// What lies in a directory of segments.
#[derive(Debug, Default)]
pub struct Scan {
    /// The segments to read from, in order, none overlapping another.
    pub segments: Vec<Arc<Segment>>,
    /// Ranges without events, in order, none overlapping another or a segment.
    pub removed: Vec<Arc<RemovedRange>>,
    /// Segments whose events are all in one of a higher revision; may be moved away.
    pub superseded: Vec<Arc<Segment>>,
    /// Ranges without events that are in a segment or range of a higher revision; may be moved away.
    pub superseded_ranges: Vec<Arc<RemovedRange>>,
    /// Segments that overlap another without either covering the other: never happens by itself.
    pub overlapping: Vec<Arc<Segment>>,
    /// Footers that cannot be read.
    pub damaged: Vec<Damage>,
    /// Ranges `from..end` between neighbours that no segment holds.
    pub holes: Vec<(Seq, Seq)>,
    /// Names that mean nothing here.
    pub unknown: Vec<PathBuf>,
}

/// Reads the footers of all segments in `parent`. Where two hold the same events, the highest valid
/// revision wins.
///
/// # Errors
/// I/O, and [`StoreError::Format`] when another version wrote one. A damaged footer is reported in
/// the answer.
pub fn scan(parent: &Path, disk: &Disk, format: u32) -> Result<Scan, StoreError> {
    let mut scan = Scan::default();
    let mut found = Vec::new();
    for path in disk.list(parent)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if is_passing(&name) {
            continue;
        }
        if parse_name(&path).is_none() {
            scan.unknown.push(path);
            continue;
        }
        match Segment::load_of(&path, disk, format) {
            Ok(segment) => found.push(Arc::new(segment)),
            // Trimmed or folded into another since it was listed.
            Err(_) if !path.exists() => {}
            Err(StoreError::Damaged(damage)) => scan.damaged.push(damage),
            Err(error @ StoreError::Format { .. }) => match RemovedRange::load(&path, disk) {
                Ok(Some(range)) => scan.removed.push(Arc::new(range)),
                Ok(None) => return Err(error),
                Err(_) if !path.exists() => {}
                Err(StoreError::Damaged(damage)) => scan.damaged.push(damage),
                Err(other) => return Err(other),
            },
            Err(other) => return Err(other),
        }
    }
    // Newest first, and of equal revisions the longer, so that what covers comes before what it
    // covers.
    found.sort_by_key(|s| {
        (std::cmp::Reverse((s.revision(), s.first().distance_to(s.end()))), s.first())
    });
    let mut kept: BTreeMap<Seq, Arc<Segment>> = BTreeMap::new();
    for segment in found {
        // Those kept do not overlap each other: if one covers it, no other overlaps it.
        let before_its_end = kept.range(..segment.end()).next_back().map(|(_, other)| other);
        match before_its_end.filter(|other| other.end() > segment.first()) {
            None => {
                kept.insert(segment.first(), segment);
            }
            Some(other) if other.first() <= segment.first() && segment.end() <= other.end() => {
                scan.superseded.push(segment);
            }
            Some(_) => scan.overlapping.push(segment),
        }
    }
    scan.segments = kept.into_values().collect();
    scan.keep_removed_apart();
    scan.holes = scan
        .segments
        .windows(2)
        .map(|pair| (scan.after_removed(pair[0].end()), pair[1].first()))
        .filter(|(end, first)| end < first)
        .collect();
    Ok(scan)
}

impl Scan {
    /// Puts ranges without events in order. What all events were taken out of is left over; any other overlap is
    /// damage: either says what the other denies.
    fn keep_removed_apart(&mut self) {
        self.removed.sort_by_key(|it| (it.range.first, it.range.end));
        self.drop_superseded_ranges();
        let mut end = Seq::ZERO;
        let (segments, damaged) = (&self.segments, &mut self.damaged);
        self.removed.retain(|it| {
            let (first, next) = (it.range.first, it.range.end);
            let overlaps = |s: &Arc<Segment>| s.first() < next && first < s.end();
            let is_apart = first >= end && !segments.iter().any(overlaps);
            if is_apart {
                end = next;
            } else {
                let (from, to, file) = (first, next.prev(), it.dir.clone());
                let detail = "it says that events are gone which another directory has".to_owned();
                damaged.push(Damage { from, to, file, detail });
            }
            is_apart
        });
    }

    /// Of ranges that were meant to go, and of segments, what lies within a later one.
    fn drop_superseded_ranges(&mut self) {
        let of_range = |it: &RemovedRange| (it.range.first, it.range.end, it.revision);
        let of_segment = |it: &Segment| (it.first(), it.end(), it.revision());
        let takes = |new: (Seq, Seq, u32), old: (Seq, Seq, u32)| {
            new.0 <= old.0 && old.1 <= new.1 && new.2 > old.2
        };
        // What covers comes before what it covers.
        self.removed.sort_by_key(|it| (it.range.first, std::cmp::Reverse(it.range.end)));
        let (mut kept, mut cover): (Vec<Arc<RemovedRange>>, Option<Arc<RemovedRange>>) =
            Default::default();
        for it in std::mem::take(&mut self.removed) {
            let is_taken = cover.as_ref().is_some_and(|new| takes(of_range(new), of_range(&it)));
            if !it.range.is_intended() {
                kept.push(it);
            } else if is_taken {
                self.superseded_ranges.push(it);
            } else {
                cover = Some(Arc::clone(&it));
                kept.push(it);
            }
        }
        let range_at = |seq: Seq| {
            let at = kept.partition_point(|it| it.range.first <= seq);
            at.checked_sub(1).map(|at| &kept[at]).filter(|it| it.range.is_intended())
        };
        let (taken, segments): (Vec<_>, Vec<_>) = self.segments.drain(..).partition(|old| {
            range_at(old.first()).is_some_and(|new| takes(of_range(new), of_segment(old)))
        });
        (self.segments, self.superseded) =
            (segments, std::mem::take(&mut self.superseded).into_iter().chain(taken).collect());
        let segments = &self.segments;
        let is_taken_in = |old: &Arc<RemovedRange>| {
            let at = segments.partition_point(|it| it.first() <= old.range.first);
            let segment = at.checked_sub(1).map(|at| &segments[at]);
            old.range.is_intended()
                && segment.is_some_and(|new| takes(of_segment(new), of_range(old)))
        };
        let (taken, kept) = kept.into_iter().partition(is_taken_in);
        self.superseded_ranges.extend::<Vec<_>>(taken);
        self.removed = kept;
        self.removed.sort_by_key(|it| (it.range.first, it.range.end));
    }

    /// The seq behind the ranges without events that begin with `seq`, if any does.
    fn after_removed(&self, seq: Seq) -> Seq {
        let from = self.removed.partition_point(|it| it.range.first < seq);
        let ranges = self.removed.get(from..).unwrap_or_default().iter();
        let mut end = seq;
        for it in ranges {
            if it.range.first != end {
                break;
            }
            end = it.range.end;
        }
        end
    }
}
