//! Where two logs part.
//!
//! Two logs that have the same link at a seq have the same events up to there. So it is searched by
//! halves, at the cost of some thirty events of each, and not by reading both.

use std::ops::Range;
use std::path::Path;

use super::Error;
use super::cover::{bounds_of, look};
use super::walk::Walk;
use tailmark_log::storage::{Damage, Removed, StoreError};
use tailmark_record::topic::Filter;
use tailmark_record::{Bounds, ChainTag, LogId, Seq};

/// One of two logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Side {
    /// Whose log.
    pub log: LogId,
    /// What it has.
    pub bounds: Bounds,
}

/// How two logs lie to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// They have the same head, and the same events as far as both can be read.
    Equal,
    /// The first has all that the second has, and goes on after this.
    FirstGoesOn(Seq),
    /// The second has all that the first has, and goes on after this.
    SecondGoesOn(Seq),
    /// After this event they are not the same, or nobody knows: [`Compared::at_most`].
    Parted(Seq),
    /// They are not the same where both begin: at most up to this event, which one of them has
    /// trimmed.
    PartedBefore(Seq),
    /// Nothing is in both: one begins after the end of the other.
    Apart,
    /// Of two logs, each with an identity of its own.
    OtherLogs,
}

/// What a comparison came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compared {
    /// The first log.
    pub first: Side,
    /// The second log.
    pub second: Side,
    /// How they lie to each other.
    pub verdict: Verdict,
    /// They may be the same up to this event, beyond what is certain: one of them does not have the events
    /// between.
    pub at_most: Option<Seq>,
    /// Ranges that the first has lost to damage, and the second has not.
    pub first_lost: Vec<Range<Seq>>,
    /// Ranges that the second has lost to damage, and the first has not.
    pub second_lost: Vec<Range<Seq>>,
}

/// Compares the logs in two data directories, as they are now.
///
/// # Errors
/// No log, another format; damage where it is looked.
pub fn diff(first: &Path, second: &Path) -> Result<Compared, Error> {
    let (mut one, mut two) = (Log::open(first)?, Log::open(second)?);
    let (verdict, at_most) = match verdict(&mut one, &mut two)? {
        Verdict::Parted(seq) => {
            // Within a range that one of them does not have there is nothing to compare.
            let certain = known_to_both(&mut one, &mut two, seq);
            (Verdict::Parted(certain), Some(seq).filter(|seq| *seq > certain))
        }
        Verdict::PartedBefore(seq) => (Verdict::PartedBefore(seq), Some(seq.prev())),
        verdict => (verdict, None),
    };
    // The chain holds over what was lost, for a salvage keeps it.
    let common = match verdict {
        Verdict::OtherLogs | Verdict::Apart | Verdict::PartedBefore(_) => Seq::ZERO,
        Verdict::Equal => one.side.bounds.head,
        Verdict::FirstGoesOn(seq) | Verdict::SecondGoesOn(seq) => seq,
        // Where they part is not known where one has lost it; what is beyond is of two histories.
        Verdict::Parted(seq) => at_most.unwrap_or(seq),
    };
    let first_lost = one.lost_beside(&two, common.next());
    let second_lost = two.lost_beside(&one, common.next());
    Ok(Compared { first: one.side, second: two.side, verdict, at_most, first_lost, second_lost })
}

fn verdict(one: &mut Log, two: &mut Log) -> Result<Verdict, Error> {
    if one.side.log != two.side.log {
        return Ok(Verdict::OtherLogs);
    }
    let (ours, theirs) = (one.side.bounds.clone(), two.side.bounds.clone());
    // The event before the first that both have; that can be compared too.
    let begin = ours.oldest.max(theirs.oldest).prev();
    let end = ours.head.min(theirs.head);
    if begin > end {
        return Ok(Verdict::Apart);
    }
    let mut is_same = |seq| -> Result<bool, Error> {
        let known = known_to_both(one, two, seq);
        Ok(one.tag(known)? == two.tag(known)?)
    };
    let (mut same, mut other) = (begin, end.next());
    let begins_alike = is_same(begin)?;
    if !begins_alike {
        return Ok(Verdict::PartedBefore(begin));
    }
    // Mostly one is a copy of the other.
    if is_same(end)? {
        same = end;
    }
    while same.next() < other {
        let middle = same.plus(same.distance_to(other) / 2);
        if is_same(middle)? {
            same = middle;
        } else {
            other = middle;
        }
    }
    // What was compared has 32 bits.
    if same >= ours.oldest && same >= theirs.oldest {
        let next = known_to_both(one, two, same).next();
        let (ours, theirs) = (one.walk.link_before_seq(next)?, two.walk.link_before_seq(next)?);
        if !ours.joins(theirs) {
            let (file, detail) =
                (one.dir.clone(), "its chain is not that of its events".to_owned());
            return Err(StoreError::from(Damage { from: same, to: same, file, detail }).into());
        }
    }
    if known_to_both(one, two, same) < same {
        return Ok(Verdict::Parted(same));
    }
    Ok(match (same == ours.head, same == theirs.head) {
        (true, true) => Verdict::Equal,
        (true, false) => Verdict::SecondGoesOn(same),
        (false, true) => Verdict::FirstGoesOn(same),
        (false, false) => Verdict::Parted(same),
    })
}

/// The last seq up to this one at which both know the chain.
fn known_to_both(one: &mut Log, two: &mut Log, seq: Seq) -> Seq {
    let mut at = seq;
    loop {
        let known = two.walk.known_upto(one.walk.known_upto(at));
        if known == at {
            return at;
        }
        at = known;
    }
}

struct Log {
    dir: std::path::PathBuf,
    side: Side,
    oldest_tag: Option<ChainTag>,
    walk: Walk,
    /// Ranges without events, in order.
    removed: Vec<Removed>,
}

impl Log {
    fn open(dir: &Path) -> Result<Log, Error> {
        let found = look(dir)?;
        let (Some(meta), Some(bounds)) = (found.meta.as_ref(), bounds_of(&found)) else {
            return Err(StoreError::Invalid("the log has no identity").into());
        };
        let log = meta.log;
        let oldest_tag = found.slots.last().and_then(|slot| slot.scan.oldest_tag);
        let range = (bounds.oldest, bounds.next());
        let removed = found.removed.iter().map(|it| it.range).collect();
        let walk = Walk::over(dir, found, range, Filter::ALL, (None, None))?;
        Ok(Log { dir: dir.to_owned(), side: Side { log, bounds }, oldest_tag, walk, removed })
    }

    /// What it has lost before `end` that another log can have: not what is trimmed or gone there too.
    fn lost_beside(&self, other: &Log, end: Seq) -> Vec<Range<Seq>> {
        let from = other.side.bounds.oldest;
        let mut lost = Vec::new();
        for range in self.removed.iter().filter(|range| !range.is_intended()) {
            let (mut at, end) = (range.first.max(from), range.end.min(end));
            for theirs in &other.removed {
                let (first, last) = (theirs.first.min(end), theirs.end.min(end));
                if first > at {
                    lost.push(at..first);
                }
                at = at.max(last);
            }
            if at < end {
                lost.push(at..end);
            }
        }
        lost
    }

    /// The chain at an event, or at the one before the oldest.
    fn tag(&mut self, seq: Seq) -> Result<ChainTag, Error> {
        let known = match seq {
            Seq::ZERO => Some(ChainTag::START),
            seq if seq.next() == self.side.bounds.oldest => self.oldest_tag,
            _ => None,
        };
        let tag = match known {
            Some(tag) => Some(tag),
            None if seq.next() == self.side.bounds.oldest => None,
            None => self.walk.tag_of(seq)?,
        };
        match tag {
            Some(tag) => Ok(tag),
            None => Ok(self.walk.link_before_seq(seq.next())?.tag()),
        }
    }
}
