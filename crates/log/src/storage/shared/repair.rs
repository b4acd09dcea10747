//! What an operator does about a journal that has lost its end: says what a copy has that the journal has not, and puts
//! that back.
//!
//! A copy keeps events, generations and the log's state, and no frames. So what is put back are other frames that say
//! the same: each event with its bytes, seq, cursor and time, each generation where it began, and at last the state,
//! whole. Who has nothing and follows them has the log that was acked. No daemon may run meanwhile: one that took over
//! in between would write behind half of it (decision 0040).

mod frames;

use super::{Body, CopyStore, FrameChain, Place, SharedJournal, Slot};
use crate::chain::Link;
use crate::storage::{Damage, StoreError};
use tailmark_record::{ChainTag, GenerationTable, Seq, Timestamp};

pub use frames::{PutBack, State, prove, put_back};

/// How a copy is to its journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// It is a beginning of the journal, or all of it: there is nothing to repair.
    Joined,
    /// The journal has only a beginning of what the copy has, and nothing else: what is missing can be put back.
    Ahead,
    /// The journal begins behind the copy, with a checkpoint: by that nothing that the copy lacks or has is needed.
    Behind,
    /// The journal goes on otherwise than the copy, or is of other takeovers.
    Parted,
    /// The journal has only a beginning of what the copy has, and the copy has no longer all that is missing: it was
    /// trimmed.
    Trimmed,
}

/// A copy beside its journal.
#[derive(Clone, Debug)]
pub struct Compared {
    /// What the two are to each other.
    pub relation: Relation,
    /// The last slot of the journal, by the word of whoever answered.
    pub end: u64,
    /// The last event of the journal; 0 = it has none.
    pub journal_head: Seq,
    /// The last event of the copy.
    pub copy_head: Seq,
    /// The last event that is the same in both; 0 = none is.
    pub common: Seq,
    /// When the first and the last event of the copy were appended that the journal has not, where that is known.
    pub missing_at: Option<(Timestamp, Timestamp)>,
    tip: Tip,
}

impl Compared {
    /// How many events the copy has that the journal has not.
    pub fn missing(&self) -> u64 {
        self.common.distance_to(self.copy_head)
    }
}

/// What a journal says up to a slot.
#[derive(Clone, Debug)]
struct Tip {
    chain: FrameChain,
    head: Seq,
    link: Link,
    oldest: (Seq, Option<ChainTag>),
    last_at: Timestamp,
    /// Takeovers behind the last frame that says where events are.
    table: Option<GenerationTable>,
    /// Of that frame.
    term: u64,
    /// Nothing of it is left, and its slots go on.
    is_purged: bool,
}

fn unanswered() -> StoreError {
    StoreError::Unreachable { reason: "nobody says what it has".to_owned() }
}

/// Reads back to the last frame that says where events are.
fn tip(journal: &dyn SharedJournal, from: u64, first: u64) -> Result<Tip, StoreError> {
    let mut it = Tip {
        chain: FrameChain::default(),
        head: Seq::ZERO,
        link: Link::START,
        oldest: (Seq::FIRST, None),
        last_at: Timestamp::EPOCH,
        table: None,
        term: 0,
        is_purged: false,
    };
    let mut has_chain = false;
    for slot in (first.max(1)..=from).rev() {
        let frame = match journal.read_back(slot).ok_or_else(unanswered)? {
            Slot::Foreign => continue,
            Slot::Gone => break,
            Slot::Unreadable(problem) => {
                let (from, to) = (Seq::ZERO, Seq::ZERO);
                let file = format!("slot {slot} of the journal").into();
                return Err(Damage { from, to, file, detail: problem.to_string() }.into());
            }
            Slot::Frame(frame) => frame,
        };
        if !has_chain {
            (it.chain, has_chain) = (frame.chain(), true);
        }
        match &frame.body {
            Body::Empty => continue,
            Body::Term(table) => {
                it.table.get_or_insert_with(|| table.clone());
                continue;
            }
            Body::Commit(commit) => {
                it.head = commit.first.plus(commit.count.into()).prev();
                (it.link, it.last_at) = (commit.link, commit.appended_at);
                it.oldest = (commit.oldest, commit.oldest_tag);
            }
            Body::Checkpoint(at) => {
                it.head = at.next.prev();
                (it.link, it.last_at) = (at.link, at.last_at);
                it.oldest = (at.oldest, at.oldest_tag);
                it.table.get_or_insert_with(|| at.generations.clone());
            }
        }
        it.term = frame.term;
        return Ok(it);
    }
    it.is_purged = first > 1;
    Ok(it)
}

/// Whether the copy has the events that a journal has up to there.
fn is_own(copy: &dyn CopyStore, tip: &Tip) -> Result<bool, StoreError> {
    let (bounds, links) = (copy.bounds(), copy.links());
    if tip.head == Seq::ZERO {
        return Ok(true);
    }
    if tip.head >= bounds.head {
        return Ok(tip.head == bounds.head && tip.link.joins(links.head));
    }
    if tip.head < bounds.oldest {
        let known = links.oldest_tag.filter(|_| tip.head.next() == bounds.oldest);
        return Ok(known.is_none_or(|tag| tag == tip.link.tag()));
    }
    Ok(copy.tag_of(tip.head)? == tip.link.tag())
}

/// How many of the copy's generations the journal has; `None` where it has others.
fn generations(copy: &GenerationTable, tip: &Tip) -> Option<usize> {
    let known = copy.entries();
    let count = match &tip.table {
        Some(table) => {
            known.starts_with(table.entries()).then_some(())?;
            table.entries().len()
        }
        // A term is a generation, the first of which nobody took over for.
        None => usize::try_from(tip.term).ok()?.checked_add(1)?,
    };
    let began = known.get(count.checked_sub(1)?)?;
    let next = known.get(count).is_none_or(|next| next.first > tip.head);
    (next && (tip.head == Seq::ZERO || began.first <= tip.head.next())).then_some(count)
}

/// Looks at what a copy has beside the journal, and changes nothing. Reads back a few frames; where the two have parted
/// it looks for where, in some dozens of steps.
///
/// # Errors
/// [`StoreError::Unreachable`] where the journal does not answer; as [`crate::storage::Store::read`] of the copy; damage of the journal.
pub fn compare(journal: &dyn SharedJournal, copy: &dyn CopyStore) -> Result<Compared, StoreError> {
    let place = Place::of(&copy.recovered())?.0;
    let (end, first) = journal.end().zip(journal.first()).ok_or_else(unanswered)?;
    let (bounds, mut last) = (copy.bounds(), tip(journal, end, first)?);
    let is_joined = match place.slot {
        0 => bounds.head == Seq::ZERO && first <= 1,
        slot if slot > end || slot < first => false,
        slot => match journal.read_back(slot).ok_or_else(unanswered)? {
            Slot::Frame(frame) => frame.chain() == place.chain,
            _ => false,
        },
    };
    let is_ahead = is_own(copy, &last)? && generations(&bounds.generations, &last).is_some();
    // A purge from outside that left something at the end: who has nothing can begin nowhere.
    let is_cut = last.is_purged && first <= end;
    let relation = match () {
        () if is_joined => Relation::Joined,
        () if begins_behind(journal, first, bounds.head)? => Relation::Behind,
        () if !is_ahead || is_cut => Relation::Parted,
        () if bounds.oldest > last.head.next() => Relation::Trimmed,
        () => Relation::Ahead,
    };
    let common = match relation {
        Relation::Joined | Relation::Behind => bounds.head,
        Relation::Ahead | Relation::Trimmed => last.head,
        Relation::Parted => common(journal, copy, (first, end))?,
    };
    let mut missing_at = None;
    let from = common.next().max(bounds.oldest);
    if from <= bounds.head {
        missing_at = Some((copy.time_of(from)?, copy.time_of(bounds.head)?));
    }
    let (journal_head, copy_head) = (last.head, bounds.head);
    if last.is_purged {
        last.chain = FrameChain::default();
    }
    Ok(Compared { relation, end, journal_head, copy_head, common, missing_at, tip: last })
}

/// Whether the journal gave back all up to a checkpoint behind an event.
fn begins_behind(journal: &dyn SharedJournal, first: u64, head: Seq) -> Result<bool, StoreError> {
    if first <= 1 {
        return Ok(false);
    }
    Ok(match journal.read_back(first) {
        Some(Slot::Frame(frame)) => {
            matches!(&frame.body, Body::Checkpoint(it) if it.next > head.next())
        }
        _ => false,
    })
}

/// The last event that both have, where what the journal has at its end is another's.
fn common(
    journal: &dyn SharedJournal,
    copy: &dyn CopyStore,
    (first, end): (u64, u64),
) -> Result<Seq, StoreError> {
    // What is the same is the same from the beginning.
    let (mut own, mut other) = (first.max(1) - 1, end + 1);
    let mut head = Seq::ZERO;
    while other - own > 1 {
        let middle = own + (other - own) / 2;
        let tip = tip(journal, middle, first)?;
        if is_own(copy, &tip)? {
            (own, head) = (middle, tip.head);
        } else {
            other = middle;
        }
    }
    Ok(head.min(copy.bounds().head))
}
