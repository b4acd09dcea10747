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
        lost_within(&self.removed, &other.removed, other.side.bounds.oldest..end)
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

/// Of the ranges that `ours` has lost to damage what lies within a range, and in none of `theirs`, whyever it is gone there.
/// Both are in order.
fn lost_within(ours: &[Removed], theirs: &[Removed], within: Range<Seq>) -> Vec<Range<Seq>> {
    let mut lost = Vec::new();
    for range in ours.iter().filter(|range| !range.is_intended()) {
        let (mut at, end) = (range.first.max(within.start), range.end.min(within.end));
        for theirs in theirs {
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

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "lists of ranges, some of one")]
mod tests {
    use std::collections::BTreeSet;

    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};
    use tailmark_log::chain::Link;
    use tailmark_log::storage::RemovedReason;

    use super::*;

    fn removed(reason: RemovedReason, seqs: Range<u64>) -> Removed {
        let (first, end) = (Seq::new(seqs.start), Seq::new(seqs.end));
        Removed { first, end, reason, link_before: Link::UNKNOWN, link: Link::UNKNOWN }
    }

    fn found(ours: &[Removed], theirs: &[Removed], within: Range<u64>) -> Vec<Range<u64>> {
        let within = Seq::new(within.start)..Seq::new(within.end);
        let lost = lost_within(ours, theirs, within);
        lost.into_iter().map(|it| it.start.get()..it.end.get()).collect()
    }

    #[test]
    fn what_one_log_has_lost_is_clipped_to_what_the_other_can_have() {
        use RemovedReason::{Compacted, Damaged, Expired};
        let ours = [removed(Damaged, 10..20), removed(Expired, 25..30), removed(Damaged, 40..50)];
        assert_eq!(found(&ours, &[], 1..100), [10..20, 40..50]);
        // The other begins or ends within it, or before, or behind.
        assert_eq!(found(&ours, &[], 15..45), [15..20, 40..45]);
        assert_eq!(found(&ours, &[], 20..40), []);
        assert_eq!(found(&ours, &[], 19..41), [19..20, 40..41]);
        // Gone there too, for whatever reason: all of it, an end of it, its middle.
        assert_eq!(found(&ours, &[removed(Damaged, 10..20)], 1..100), [40..50]);
        assert_eq!(found(&ours, &[removed(Compacted, 5..12)], 1..100), [12..20, 40..50]);
        assert_eq!(found(&ours, &[removed(Damaged, 12..14)], 1..100), [10..12, 14..20, 40..50]);
        let theirs = [removed(Damaged, 8..11), removed(Expired, 18..45)];
        assert_eq!(found(&ours, &theirs, 1..48), [11..18, 45..48]);
    }

    /// Ranges in order, none touching another.
    fn drawn(rng: &mut StdRng) -> Vec<Removed> {
        let (mut all, mut at) = (Vec::new(), 1);
        while at < 60 {
            let (first, len) = (at + rng.random_range(0..15), rng.random_range(1..12));
            let reasons = [RemovedReason::Damaged, RemovedReason::Expired];
            all.push(removed(reasons[rng.random_range(0..2)], first..first + len));
            at = first + len;
        }
        all
    }

    #[test]
    fn it_is_what_sets_of_seqs_say() {
        let rng = &mut StdRng::seed_from_u64(5);
        let mut lost = 0;
        for _ in 0..2_000 {
            let (ours, theirs) = (drawn(rng), drawn(rng));
            let (from, end) = (rng.random_range(1..70), rng.random_range(1..80));
            let seqs = |range: &Removed| range.first.get()..range.end.get();
            let damaged = ours.iter().filter(|range| !range.is_intended());
            let mut wanted: BTreeSet<u64> = damaged.flat_map(seqs).collect();
            let gone: BTreeSet<u64> = theirs.iter().flat_map(seqs).collect();
            wanted.retain(|seq| (from..end).contains(seq) && !gone.contains(seq));
            let told = found(&ours, &theirs, from..end);
            assert!(told.iter().all(|range| !range.is_empty()), "{told:?}");
            let told: Vec<u64> = told.into_iter().flatten().collect();
            lost += told.len();
            assert!(told.iter().eq(&wanted), "{ours:?} {theirs:?} {from}..{end}: {told:?}");
        }
        assert!(lost > 2_000, "{lost}");
    }
}
