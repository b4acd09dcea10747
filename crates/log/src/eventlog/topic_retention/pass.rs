//! One pass: what is dead is told from the newest event to the oldest, and taken out segment by segment on the way.

use std::ops::Range;
use std::time::{Duration, Instant};

use super::survey::{Dead, Share, Surveyor};
use crate::eventlog::core::Core;
use crate::eventlog::topic_rules::{TopicPass, TopicRules};
use crate::storage::entries::RUN_BYTES;
use crate::storage::{RemovedReason, Sealed, StoreError, TakeOut};
use tailmark_record::{Seq, Timestamp};

/// Seqs of what is not sealed that are gone through at once: the newest come first.
const WINDOW: u64 = 1 << 18;
/// A segment is written anew when so much of its bytes is dead, in percent.
const WORTH: u64 = 20;
/// The same when nothing has come since the last pass.
const WORTH_IN_PEACE: u64 = 5;
/// Beside appends it works for a part of the time, and rests for so many times as long.
const REST: u32 = 3;
/// Segments that become one.
const MOST_NEIGHBOURS: usize = 64;
/// From the first to the last of them, what is gone included.
const MOST_SEQS: u64 = 1 << 30;
/// What a segment takes on disk however little it holds.
const EMPTY_BYTES: u64 = 2 << 20;
/// Between two rests.
const TURN: Duration = Duration::from_millis(50);

/// What a pass is to do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Order {
    pub(super) share: Share,
    /// Topics and keys that it may know at once.
    pub(super) room: usize,
    /// Little is worth it.
    pub(super) is_in_peace: bool,
    /// Nothing is taken out.
    pub(super) is_dry: bool,
}

/// What came of it.
pub(super) struct Done {
    pub(super) pass: TopicPass,
    /// There were more topics and keys than it has room for.
    pub(super) is_full: bool,
    /// Some that is dead is left that would be worth it in peace.
    pub(super) leaves_some: bool,
    /// Where what is sealed ended.
    pub(super) sealed_end: Seq,
    /// What kept it from taking something out; it went on behind that.
    pub(super) failure: Option<StoreError>,
}

pub(super) struct Pass<'a> {
    core: &'a Core,
    order: Order,
    surveyor: Surveyor<'a>,
    /// Since the last rest.
    turn: Instant,
    head: Seq,
    done: u64,
    all: u64,
    /// Hears the share that is done; ends the pass by answering false.
    goes_on: &'a mut dyn FnMut(f64) -> bool,
    pass: TopicPass,
    leaves_some: bool,
    failure: Option<StoreError>,
}

/// The pass was told to end.
fn ended() -> StoreError {
    StoreError::Stopped { reason: "the log is closing".to_owned() }
}

/// Goes through all that the rules concern.
///
/// # Errors
/// As a read and [`crate::storage::Store::take_out`]; [`StoreError::Stopped`] where `goes_on` said so.
pub(super) fn run(
    core: &Core,
    rules: &TopicRules,
    aged_to: Option<Timestamp>,
    order: Order,
    goes_on: &mut dyn FnMut(f64) -> bool,
) -> Result<Done, StoreError> {
    let begun = Instant::now();
    let store = &*core.store;
    let sealed = store.sealed();
    let bounds = store.bounds();
    let sealed_end = sealed.last().map_or(bounds.oldest, |last| last.end).max(bounds.oldest);
    let (key, wall) = (core.rules.key, (core.clock)());
    let surveyor = Surveyor::new(store, key, rules, aged_to, wall, order.share, order.room)?;
    let mut pass = Pass {
        core,
        order,
        surveyor,
        turn: Instant::now(),
        head: bounds.head,
        done: 0,
        all: bounds.oldest.distance_to(bounds.next()),
        goes_on,
        pass: TopicPass::default(),
        leaves_some: false,
        failure: None,
    };
    // What is not sealed takes the place of what is, and is not taken out itself.
    let mut end = bounds.next();
    while end > sealed_end {
        let start = Seq::new(end.get().saturating_sub(WINDOW)).max(sealed_end);
        pass.dead(start..end)?;
        end = start;
    }
    for one in sealed.iter().rev() {
        pass.one(one, bounds.oldest)?;
    }
    if !order.is_dry {
        pass.merge()?;
    }
    let Pass { surveyor, pass, leaves_some, failure, .. } = pass;
    let pass = TopicPass {
        at: (core.clock)(),
        took: begun.elapsed(),
        is_partial: surveyor.is_full || order.share.of > 1,
        rules: surveyor.found,
        ..pass
    };
    Ok(Done { is_full: surveyor.is_full, pass, leaves_some, sealed_end, failure })
}

impl Pass<'_> {
    fn dead(&mut self, range: Range<Seq>) -> Result<Dead, StoreError> {
        let store = &*self.core.store;
        let Pass { surveyor, turn, head, done, all, goes_on, order, core, .. } = self;
        let mut step = |seqs: u64, _: u64| {
            *done += seqs;
            rest(core, order.is_dry, turn, head, &mut **goes_on, share(*done, *all))
        };
        surveyor.dead(store, range, &mut step)
    }

    /// Takes out of one what is dead in it, if it is worth it.
    fn one(&mut self, sealed: &Sealed, oldest: Seq) -> Result<(), StoreError> {
        let range = sealed.first.max(oldest)..sealed.end;
        if range.is_empty() {
            return Ok(());
        }
        let mut dead = self.dead(range)?;
        let events = dead.events();
        if events == 0 {
            return Ok(());
        }
        // What is trimmed in it goes too.
        if sealed.first < oldest {
            dead.seqs.insert(0, (sealed.first..oldest, RemovedReason::Expired));
        }
        let runs = dead.seqs.len() as u64;
        let saved = dead.bytes.saturating_sub(runs.saturating_mul(RUN_BYTES as u64));
        // Of all that is dead this pass is about a share.
        let saved = saved.saturating_mul(100 * u64::from(self.order.share.of));
        let is_worth = |percent: u64| saved >= sealed.raw_bytes.max(1).saturating_mul(percent);
        let limit = if self.order.is_in_peace { WORTH_IN_PEACE } else { WORTH };
        if self.order.is_dry || !(dead.has_aged || is_worth(limit)) {
            self.leaves_some |= is_worth(WORTH_IN_PEACE);
            return Ok(());
        }
        let named_from = self.core.topic_keeper.needs_repeats_from();
        let take_out = TakeOut { sealed: vec![*sealed], seqs: dead.seqs, named_from };
        if self.take_out(&take_out)? {
            self.pass.removed += events;
        } else {
            self.leaves_some = true;
        }
        Ok(())
    }

    /// Answers false where they are there no more as they were.
    fn take_out(&mut self, order: &TakeOut) -> Result<bool, StoreError> {
        if !(self.goes_on)(share(self.done, self.all)) {
            return Err(ended());
        }
        let taken = match self.core.store.take_out(order) {
            // What is damaged stays, and nothing else stays for it.
            Err(error @ (StoreError::Damaged(_) | StoreError::Io { .. })) => {
                self.failure.get_or_insert(error);
                None
            }
            taken => taken?,
        };
        if let Some(taken) = &taken {
            // In this order: who reads from here on keeps nothing of what is gone.
            let end = order.sealed.last().map_or(Seq::ZERO, |last| last.end);
            self.core.reads.hot.forget_below(end);
            self.core.topic_keeper.taken(taken);
            self.pass.segments += 1;
            self.pass.freed_bytes += taken.freed_bytes;
        }
        let share = share(self.done, self.all);
        rest(self.core, false, &mut self.turn, &mut self.head, &mut *self.goes_on, share)?;
        Ok(taken.is_some())
    }

    /// Makes one of neighbours that are small because events were taken out: each has a price of its own on disk.
    fn merge(&mut self) -> Result<(), StoreError> {
        let named_from = self.core.topic_keeper.needs_repeats_from();
        for sealed in small_neighbours(&self.core.store.sealed()) {
            self.take_out(&TakeOut { sealed, seqs: Vec::new(), named_from })?;
        }
        Ok(())
    }
}

/// Neighbours of which each is less than a quarter full, and all together are not more than one, where that saves a
/// good part of what they take on disk.
fn small_neighbours(all: &[Sealed]) -> Vec<Vec<Sealed>> {
    let is_small = |one: &Sealed| one.removed > 0 && one.raw_bytes < one.full_bytes / 4;
    let (mut groups, mut group): (Vec<Vec<Sealed>>, Vec<Sealed>) = (Vec::new(), Vec::new());
    for one in all {
        let sum: u64 = group.iter().map(|it| it.raw_bytes).sum();
        let seqs = group.first().map_or(0, |first| first.first.distance_to(one.end));
        let has_room = group.len() < MOST_NEIGHBOURS
            && sum + one.raw_bytes <= one.full_bytes
            && seqs <= MOST_SEQS;
        if !is_small(one) || !has_room {
            groups.push(std::mem::take(&mut group));
        }
        if is_small(one) {
            group.push(*one);
        }
    }
    groups.push(group);
    groups.retain(|group| {
        let on_disk: u64 = group.iter().map(|it| it.disk_bytes).sum();
        let raw: u64 = group.iter().map(|it| it.raw_bytes).sum();
        // About what one takes: compressed to half, and what a database takes however little it holds.
        let as_one = raw / 2 + EMPTY_BYTES;
        group.len() > 1 && on_disk > as_one + as_one / 4
    });
    groups
}

#[expect(clippy::cast_precision_loss, reason = "a share that somebody looks at")]
fn share(done: u64, all: u64) -> f64 {
    (done as f64 / all.max(1) as f64).min(1.0)
}

/// Rests for a multiple of the time that it has worked, while others append; ends where it is told to.
fn rest(
    core: &Core,
    is_dry: bool,
    turn: &mut Instant,
    head: &mut Seq,
    goes_on: &mut dyn FnMut(f64) -> bool,
    share: f64,
) -> Result<(), StoreError> {
    let worked = turn.elapsed();
    if worked < TURN {
        return Ok(());
    }
    if !goes_on(share) || core.topic_keeper.has_ended() {
        return Err(ended());
    }
    let now = core.store.bounds().head;
    if now != *head && !is_dry {
        core.topic_keeper.pause(worked * REST);
    }
    (*head, *turn) = (now, Instant::now());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(first: u64, raw_mb: u64, disk_mb: u64, removed: u64) -> Sealed {
        Sealed {
            first: Seq::new(first),
            end: Seq::new(first + 10),
            revision: 1,
            last_at: Timestamp::EPOCH,
            raw_bytes: raw_mb << 20,
            disk_bytes: disk_mb << 20,
            removed,
            full_bytes: 64 << 20,
        }
    }

    fn groups(all: &[Sealed]) -> Vec<Vec<u64>> {
        let of = |group: &Vec<Sealed>| group.iter().map(|it| it.first.get()).collect();
        small_neighbours(all).iter().map(of).collect()
    }

    #[test]
    fn neighbours_become_one_where_that_saves_a_good_part_of_what_they_take() {
        let tiny = |first| sealed(first, 0, 2, 9);
        assert_eq!(groups(&[tiny(1), tiny(11), tiny(21)]), [[1, 11, 21]]);
        // One that is large, or of which nothing was taken out, parts them.
        let all =
            [tiny(1), tiny(11), sealed(21, 20, 10, 9), tiny(31), sealed(41, 0, 2, 0), tiny(51)];
        assert_eq!(groups(&all), [[1, 11]]);
        // A larger one beside a tiny one, while the space that comes free is worth the copy.
        assert_eq!(groups(&[sealed(1, 5, 4, 9), tiny(11)]), [[1, 11]]);
        assert_eq!(groups(&[sealed(1, 15, 8, 9), sealed(11, 15, 8, 9)]), [[0; 0]; 0]);
        // Not more than one that is full, and not more than so many at once.
        let many: Vec<_> = (0..100).map(|n| tiny(1 + n * 10)).collect();
        assert_eq!(groups(&many).iter().map(Vec::len).collect::<Vec<_>>(), [64, 36]);
        assert_eq!(groups(&[tiny(1)]), [[0; 0]; 0]);
        // Not so many seqs that places in one would not do, however little is left of them.
        let far = sealed(MOST_SEQS - 5, 0, 2, 9);
        assert_eq!(
            groups(&[tiny(1), tiny(11), far, tiny(MOST_SEQS + 5)]),
            [vec![1, 11], vec![MOST_SEQS - 5, MOST_SEQS + 5]]
        );
    }
}
