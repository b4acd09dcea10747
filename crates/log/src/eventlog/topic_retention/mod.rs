//! Retention by topic, and compaction: what the rules say of events in the middle of a log.
//!
//! Where the global limits move the beginning of the log, these take events out of it. Sealed segments are written anew
//! without them, in the background, when enough of one is dead. What is left of the events is the range of their seqs
//! ([`crate::storage::Removed`]).

mod pass;
mod survey;
#[cfg(test)]
pub(super) mod testing;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::ReadError;
use super::core::Core;
use super::options::Elapsed;
use super::topic_rules::{Look, TopicPass, TopicRules};
use super::trouble::Job;
use crate::storage::StoreError;
use pass::{Done, Order};
use survey::{ROOM, Share};
use tailmark_record::Seq;

/// See [`super::EventLog::preview_topic_retention`].
pub(super) fn preview(
    core: &Core,
    rules: &TopicRules,
    goes_on: &mut dyn FnMut(f64) -> bool,
) -> Result<TopicPass, ReadError> {
    let order = Order { share: Share::ALL, room: ROOM, is_in_peace: false, is_dry: true };
    let aged_to = core.topic_keeper.age_clock().unwrap_or_else(|| (core.clock)());
    match pass::run(core, rules, Some(aged_to), order, goes_on) {
        Ok(done) => Ok(done.pass),
        Err(StoreError::Stopped { .. }) => Err(ReadError::Closing),
        Err(error) => Err(ReadError::new(Seq::FIRST, error)),
    }
}

/// Of a pass so much time is rest, as a multiple of what the last one took.
const PAUSE: u32 = 2;
/// By age, a pass is due when so much of the shortest age has gone by.
const AGES: u32 = 16;
/// And no more often, and no less.
const AGE_STEPS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3_600));

/// What the thread remembers from pass to pass.
struct Memory {
    share: Share,
    /// Of the last pass.
    last: Option<Last>,
}

struct Last {
    ended: Duration,
    took: Duration,
    sealed_end: Seq,
    is_partial: bool,
    leaves_some: bool,
    was_in_peace: bool,
}

/// Takes out what is dead, until the log ends.
pub(super) fn run(core: &Core, elapsed: &Elapsed) {
    let keeper = &core.topic_keeper;
    let mut memory = Memory { share: Share::ALL, last: None };
    let mut is_due = false;
    while let Some(look) = keeper.wait() {
        is_due |= look.has_changed;
        if look.rules.is_idle() {
            is_due = false;
            // What did not work is not asked for any more.
            core.troubles.note(Job::TopicRetention, Ok::<(), StoreError>(()));
            continue;
        }
        let now = elapsed();
        let Some(is_in_peace) = memory.due(core, &look, now, is_due) else { continue };
        is_due = false;
        let order = Order { share: memory.share, room: ROOM, is_in_peace, is_dry: false };
        keeper.running(true);
        // Rules that were taken back remove nothing more.
        let mut are_in_force = |_: f64| Arc::ptr_eq(&keeper.rules(), &look.rules);
        let pass = || pass::run(core, &look.rules, look.aged_to, order, &mut are_in_force);
        // Whatever happens, the thread goes on.
        let done = catch_unwind(AssertUnwindSafe(pass)).unwrap_or_else(|_| {
            Err(StoreError::Stopped { reason: "the thread that does it panicked".into() })
        });
        keeper.running(false);
        if keeper.has_ended() {
            return;
        }
        if !Arc::ptr_eq(&keeper.rules(), &look.rules) {
            continue;
        }
        let ended = elapsed();
        memory.note(&done, ended, ended.saturating_sub(now), is_in_peace);
        let failure = done.as_ref().map_or_else(Some, |done| done.failure.as_ref());
        core.troubles.note(Job::TopicRetention, failure.map_or(Ok(()), Err));
        if let Ok(done) = done {
            say(&done);
            keeper.passed(&look.rules, done.pass);
        }
    }
}

impl Memory {
    /// Whether a pass is due, and whether nothing has come since the last one.
    fn due(&self, core: &Core, look: &Look, now: Duration, has_changed: bool) -> Option<bool> {
        let by_age = look.rules.as_slice().iter().filter_map(|rule| rule.max_age).min();
        // Without a clock nothing is too old: the thread that has it looks soon.
        if by_age.is_some() && look.aged_to.is_none() {
            return None;
        }
        let Some(last) = self.last.as_ref().filter(|_| !has_changed) else { return Some(false) };
        let passed = now.saturating_sub(last.ended);
        if passed < last.took * PAUSE {
            return None;
        }
        let sealed = core.store.sealed().last().map_or(Seq::ZERO, |last| last.end);
        if sealed > last.sealed_end {
            return Some(false);
        }
        let step = by_age.map(|age| (age / AGES).clamp(AGE_STEPS.0, AGE_STEPS.1));
        let is_aged = step.is_some_and(|step| passed >= step);
        let is_left = last.leaves_some && !last.was_in_peace;
        (last.is_partial || is_left || is_aged).then_some(true)
    }

    fn note(
        &mut self,
        done: &Result<Done, StoreError>,
        ended: Duration,
        took: Duration,
        was_in_peace: bool,
    ) {
        let last = match done {
            Ok(done) => {
                self.share = self.share.next(done.is_full);
                Last {
                    ended,
                    took,
                    sealed_end: done.sealed_end,
                    // The others' turn comes before anything else is waited for.
                    is_partial: done.is_full || !self.share.is_first(),
                    leaves_some: done.leaves_some,
                    was_in_peace,
                }
            }
            // It is tried again after a while.
            Err(_) => Last {
                ended,
                took: took.max(RETRY / PAUSE),
                sealed_end: Seq::ZERO,
                is_partial: true,
                leaves_some: true,
                was_in_peace: false,
            },
        };
        self.last = Some(last);
    }
}

/// Between two attempts of which the first failed, at least.
const RETRY: Duration = Duration::from_secs(10);

fn say(done: &Done) {
    let TopicPass { removed, segments, freed_bytes, took, is_partial, .. } = &done.pass;
    if *removed > 0 {
        let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        tracing::info!(
            removed,
            segments,
            freed_bytes,
            took_ms,
            is_partial,
            "events were taken out by the retention of their topics"
        );
    }
}
