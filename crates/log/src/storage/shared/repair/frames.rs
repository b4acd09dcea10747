//! The frames that are put back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use xxhash_rust::xxh3::xxh3_64;

use super::{Compared, Relation, Tip, generations};
use crate::chain::Link;
use crate::storage::shared::{
    Body, Checkpoint, Content, CopyStore, Frame, FrameChain, Place, Published, SharedJournal, Slot,
};
use crate::storage::{Commit, Damage, StoreError};
use tailmark_record::topic::Filter;
use tailmark_record::{Events, Facts, GenerationTable, Seq, Timestamp};

/// Bytes of events in a frame, beside those of one event.
const FRAME_BYTES: usize = 1 << 20;
/// For how long a frame is tried at least.
const PATIENCE: Duration = Duration::from_secs(15);
/// Between tries.
const PAUSE: Duration = Duration::from_millis(50);

/// What the log keeps about itself, of a copy that is to be put back: both say the same.
#[derive(Clone, Debug)]
pub struct State {
    /// Whole ([`crate::eventlog::whole_state`]).
    pub whole: Bytes,
    /// As a change ([`crate::eventlog::restated`]).
    pub restated: Bytes,
}

/// What was put back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PutBack {
    /// Events.
    pub events: u64,
    /// Frames.
    pub frames: u64,
    /// The last slot of the journal from then on.
    pub end: u64,
}

/// Appends to a journal that nobody else appends to.
struct Writer<'a> {
    journal: &'a dyn SharedJournal,
    name: u64,
    slot: u64,
    chain: FrameChain,
    term: u64,
    /// On which the last frame was seen to be there.
    connection: u64,
    drawn: u64,
}

impl<'a> Writer<'a> {
    /// Goes on behind what the journal was seen to have.
    fn behind(journal: &'a dyn SharedJournal, name: u64, it: &Compared) -> Writer<'a> {
        let Tip { chain, term, .. } = it.tip;
        let connection = journal.connection();
        Writer { journal, name, slot: it.end, chain, term, connection, drawn: 0 }
    }

    fn nonce(&mut self) -> u64 {
        self.drawn += 1;
        xxh3_64([self.name, self.slot, self.drawn].map(u64::to_le_bytes).as_flattened())
    }

    /// Stores a frame at the next slot, and nowhere else.
    fn put(&mut self, body: Body) -> Result<(), StoreError> {
        let (log, nonce) = (self.journal.identity().id, self.nonce());
        let (previous, term, writer) = (self.chain, self.term, self.name);
        let frame = Arc::new(Frame::new(Content { log, previous, term, writer, nonce, body }));
        let (begun, mut said) = (Instant::now(), "nobody answers".to_owned());
        let mut is_in_doubt = false;
        while begun.elapsed() < self.journal.patience().max(PATIENCE) {
            if !self.is_joined()? {
                std::thread::sleep(PAUSE);
                continue;
            }
            match self.journal.publish(self.slot, &frame) {
                // Of a new connection it may be said of another history.
                Published::Stored(slot)
                    if slot == self.slot + 1 && self.connection == self.journal.connection() =>
                {
                    (self.slot, self.chain) = (slot, frame.chain());
                    return Ok(());
                }
                Published::NotTaken { reason } => said = reason,
                Published::Stored(_) | Published::NoAnswer => is_in_doubt = true,
                Published::Refused { .. } => match self.journal.read_back(self.slot + 1) {
                    Some(Slot::Frame(there)) if there.nonce == nonce => {
                        (self.slot, self.chain) = (self.slot + 1, frame.chain());
                        return Ok(());
                    }
                    Some(Slot::Frame(there)) => {
                        return Err(StoreError::Fenced { term: there.term });
                    }
                    Some(_) => return Err(changed("somebody else's message came between")),
                    // An old leader, or nobody.
                    None => {}
                },
            }
            std::thread::sleep(PAUSE);
        }
        if is_in_doubt {
            Err(StoreError::InDoubt)
        } else {
            Err(StoreError::Unreachable { reason: said })
        }
    }

    /// Whether what was there is there, on the connection that there is now.
    fn is_joined(&mut self) -> Result<bool, StoreError> {
        let now = self.journal.connection();
        if now == self.connection {
            return Ok(true);
        }
        let mut slot = self.slot;
        while slot > 0 && self.chain != FrameChain::default() {
            match self.journal.read_back(slot) {
                None => return Ok(false),
                Some(Slot::Foreign) => slot -= 1,
                Some(Slot::Frame(frame)) if frame.chain() == self.chain => break,
                Some(_) => return Err(changed("what it had is there no more")),
            }
        }
        self.connection = now;
        Ok(true)
    }
}

fn changed(what: &str) -> StoreError {
    StoreError::Diverged { detail: format!("the journal changed meanwhile: {what}") }
}

/// Proves that the journal ends where [`super::compare`] was told: by a frame of nothing that it takes there. Who was
/// cut off from the others may have told an end that was.
///
/// # Errors
/// [`StoreError::Fenced`] where it goes on, [`StoreError::InDoubt`] and [`StoreError::Unreachable`] where nobody says.
pub fn prove(journal: &dyn SharedJournal, name: u64, it: &Compared) -> Result<(), StoreError> {
    Writer::behind(journal, name, it).put(Body::Empty)
}

/// Reads what is missing in runs that were appended at one time and are of one generation.
fn runs(
    copy: &dyn CopyStore,
    table: &GenerationTable,
    (from, head): (Seq, Seq),
    take: &mut dyn FnMut(Seq, u32, Timestamp, Bytes) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let (mut next, end) = (from, head.next());
    let (mut first, mut count, mut at) = (from, 0_u32, Timestamp::EPOCH);
    let mut run = BytesMut::new();
    let begins = |seq: Seq| table.entries().iter().any(|entry| entry.first == seq);
    while next < end {
        let chunk = copy.read(next, end, &Filter::ALL)?;
        let mut events = Events::new(&chunk.events);
        let mut start = 0;
        while let Some(event) = events.next() {
            let facts = event.and_then(Facts::scan).map_err(|error| unreadable(next, &error))?;
            let stop = chunk.events.len() - events.remaining();
            let entry = &chunk.events[start..stop];
            start = stop;
            if facts.seq != next {
                return Err(unreadable(next, &"it is not where it should be"));
            }
            let is_full = run.len() + entry.len() > FRAME_BYTES;
            if count > 0 && (facts.appended_at != at || is_full || begins(next)) {
                take(first, count, at, run.split().freeze())?;
                (first, count) = (next, 0);
            }
            at = facts.appended_at;
            run.extend_from_slice(entry);
            (count, next) = (count + 1, next.next());
        }
        if next != chunk.end {
            return Err(unreadable(next, &"it is not there"));
        }
    }
    if count > 0 {
        take(first, count, at, run.freeze())?;
    }
    Ok(())
}

fn unreadable(seq: Seq, why: &dyn std::fmt::Display) -> StoreError {
    Damage { from: seq, to: seq, file: "the copy".into(), detail: why.to_string() }.into()
}

fn join(link: Link, first: Seq, events: &Bytes) -> Result<Link, StoreError> {
    link.then_all(events).map_err(|error| unreadable(first, &error))
}

/// Puts back what a copy has that the journal has not: events with their seqs, cursors and times, generations, and the
/// log's state. All of it is read and proven by its chain before anything is written. The copy is at the end of the journal
/// then. No daemon may run meanwhile: where one takes over, this ends.
///
/// Where it ends early, some of it is there. Run again, it puts back the rest; nobody may take over before.
/// `name` is drawn anew each time, and `tell` hears the last event that was put back.
///
/// # Errors
/// [`StoreError::Invalid`] where nothing can be put back; [`StoreError::Fenced`] where another writes;
/// [`StoreError::InDoubt`], [`StoreError::Unreachable`] where the journal does not answer; as a read of the copy.
pub fn put_back(
    (journal, copy): (&dyn SharedJournal, &dyn CopyStore),
    name: u64,
    it: &Compared,
    state: &State,
    tell: &mut dyn FnMut(Seq),
) -> Result<PutBack, StoreError> {
    let (bounds, links) = (copy.bounds(), copy.links());
    let table = &bounds.generations;
    let known = generations(table, &it.tip).filter(|_| it.relation == Relation::Ahead);
    let Some(mut known) = known else {
        return Err(StoreError::Invalid("there is nothing that could be put back"));
    };
    if state.restated.len() > journal.identity().max_commit_bytes {
        return Err(StoreError::Invalid("the state of the log is too large for a frame"));
    }
    let range = (it.tip.head.next(), bounds.head);
    let mut link = it.tip.link;
    runs(copy, table, range, &mut |first, _, _, events| {
        link = join(link, first, &events)?;
        Ok(())
    })?;
    if !link.joins(links.head) {
        return Err(unreadable(range.0, &"its events do not join the end of the copy"));
    }
    let mut last_at = it.tip.last_at;
    let mut to = Writer::behind(journal, name, it);
    to.term = known as u64 - 1;
    if it.tip.is_purged {
        // Else who has nothing would find no beginning.
        to.put(Body::Checkpoint(Arc::new(Checkpoint {
            next: Seq::FIRST,
            link: Link::START,
            oldest: Seq::FIRST,
            oldest_tag: None,
            last_at: Timestamp::EPOCH,
            generations: GenerationTable::new(table.entries()[..1].to_vec())
                .ok_or(StoreError::Invalid("the copy has no generation"))?,
            state: Bytes::new(),
        })))?;
    }
    let mut link = it.tip.link;
    let mut terms = |to: &mut Writer<'_>, upto: Seq| -> Result<(), StoreError> {
        while table.entries().get(known).is_some_and(|entry| entry.first <= upto) {
            known += 1;
            to.term = known as u64 - 1;
            let begun = GenerationTable::new(table.entries()[..known].to_vec());
            to.put(Body::Term(begun.ok_or(StoreError::Invalid("the copy has no generation"))?))?;
        }
        Ok(())
    };
    runs(copy, table, range, &mut |first, count, appended_at, events| {
        terms(&mut to, first)?;
        link = join(link, first, &events)?;
        last_at = last_at.max(appended_at);
        let (oldest, oldest_tag) = it.tip.oldest;
        let (delta, state) = (Bytes::new(), None);
        to.put(Body::Commit(Commit {
            first,
            count,
            appended_at,
            events,
            delta,
            state,
            link,
            oldest,
            oldest_tag,
        }))?;
        tell(first.plus(count.into()).prev());
        Ok(())
    })?;
    terms(&mut to, bounds.next())?;
    let last_at = last_at.max(copy.recovered().last_at);
    let mut mark = Commit {
        first: bounds.next(),
        count: 0,
        appended_at: last_at,
        events: Bytes::new(),
        delta: state.restated.clone(),
        state: None,
        link: links.head,
        oldest: bounds.oldest.max(it.tip.oldest.0),
        oldest_tag: links.oldest_tag,
    };
    if bounds.oldest < it.tip.oldest.0 {
        mark.oldest_tag = it.tip.oldest.1;
    }
    to.put(Body::Commit(mark.clone()))?;
    let place = Place { slot: to.slot, chain: to.chain, term: to.term, writer: name };
    mark.delta = place.before(&[]);
    if copy.wants_state(mark.delta.len()) {
        let before = Place::of(&copy.recovered())?.0;
        mark.state = Some(before.before(&state.whole));
    }
    copy.take(mark, None)?;
    let (events, frames) = (it.tip.head.distance_to(bounds.head), to.slot - it.end);
    Ok(PutBack { events, frames, end: to.slot })
}
