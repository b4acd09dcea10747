//! The state machine of a watch: which event or marker is sent next, and when it ends. No I/O, no
//! clock, no wire types.
//!
//! The stream around it feeds in what was read and asks for the next step. Invariants: `next` only
//! grows; every seq below it was delivered, did not match, or lies in a gap that was announced; a
//! marker is sent at its position, never before an event that precedes it.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::Bytes;

use crate::server::rpc::frames;
use tailmark_log::eventlog::Delivery;
use tailmark_log::storage::Chunk;
use tailmark_record::topic::{Filter, Verdicts};
use tailmark_record::{Event, EventError, Events, Gap, GapReason, MarkerKind, Seq};

/// Skipped events after which a filtered watch tells how far it has looked.
pub(crate) const SKIPPED_PER_HEARTBEAT: u64 = 10_000;
/// What a watch spends on its filter before it lets others run, and what a verdict costs: one that was given
/// before, one that is new, and that for each pattern more. So about a tenth of a millisecond, a whole one at most.
const EFFORT_PER_POLL: usize = 16 << 10;
const KNOWN_VERDICT: usize = 4;
const NEW_VERDICT: usize = 16;

/// What a watch wants.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Which events.
    pub(crate) filter: Filter,
    /// The first seq to look at.
    pub(crate) start: Seq,
    /// Ends after so many delivered events.
    pub(crate) limit: Option<u64>,
    /// Ends when this seq has been passed.
    pub(crate) until: Option<Seq>,
    /// Sends markers.
    pub(crate) markers: bool,
    /// What is lost before the start; announced first.
    pub(crate) gaps: Vec<Gap>,
    /// How many events it gives out at once.
    pub(crate) bundle: Bundle,
}

/// News about the watch itself that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct News {
    pub(crate) kind: MarkerKind,
    /// With [`MarkerKind::Gap`].
    pub(crate) gap: Option<Gap>,
    /// The last seq passed when it came up.
    pub(crate) passed: Seq,
}

/// The next thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Send it: one event; where the watch is in frames, some as gRPC messages; where it is in
    /// batches, the entries of some.
    Event(Bytes),
    /// Send it.
    News(News),
    /// Read from `next` on, up to `end` (exclusive), and hand over what came.
    Read { end: Seq },
    /// Send nothing: the next event has more than may be sent at once. So many bytes, framed.
    Large(usize),
    /// Let others run: it has looked at a lot. [`Machine::rested`], then go on.
    Rest,
    /// Finish: all that was wanted has been sent.
    End(End),
    /// A chunk is not what it should be.
    Broken(&'static str),
}

/// Why a watch is finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// So many events were wanted.
    Limit,
    /// The head of the beginning was reached.
    CaughtUp,
}

/// The state of one watch.
#[derive(Debug)]
pub(crate) struct Machine {
    filter: Filter,
    next: Seq,
    remaining: Option<u64>,
    until: Option<Seq>,
    markers: bool,
    /// CAUGHT_UP was reached and the watch has not fallen behind since.
    is_live: bool,
    /// Events passed over since the client last got a cursor.
    skipped: u64,
    delivered: u64,
    queue: VecDeque<News>,
    run: Option<ChunkWalk>,
    /// How far the chunk was walked that was taken out.
    walked_of_taken: usize,
    end: Option<End>,
    bundle: Bundle,
    /// What may be sent at once.
    most: usize,
    /// The next event has so much more.
    large: Option<usize>,
    /// On the topics of the chunk at hand.
    verdicts: Verdicts,
    /// Spent on the filter since it has rested.
    effort: usize,
}

/// Which events are sent at once: what is ready, up to so many bytes unless one event has more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bundle {
    /// One.
    One,
    /// Some, each as a message.
    Frames(usize),
    /// Some, their entries in one message.
    Batch(usize),
}

/// What was read, and how far it has been walked.
#[derive(Debug)]
struct ChunkWalk {
    delivery: Delivery,
    walked: usize,
}

impl ChunkWalk {
    fn chunk(&self) -> &Chunk {
        &self.delivery.chunk
    }

    /// Bytes not walked yet.
    fn left(&self) -> usize {
        self.chunk().events.len() - self.walked
    }
}

/// A place between two events: the seq of the second, and what of the chunk lies before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChunkPosition {
    pub(crate) next: Seq,
    pub(crate) walked: usize,
}

/// Where in a chunk an event lies that is wanted.
#[derive(Debug)]
struct Found {
    seq: Seq,
    /// With the tag and the length before it.
    entry: Range<usize>,
    event: Range<usize>,
}

/// Entries that go out together: a part of the chunk, copied only where others lay between them.
#[derive(Debug, Default)]
struct EntryBatch {
    copied: Vec<u8>,
    /// What follows `copied`, where it lies in the chunk.
    rest: Range<usize>,
}

impl EntryBatch {
    fn len(&self) -> usize {
        self.copied.len() + self.rest.len()
    }

    fn push(&mut self, entry: Range<usize>, chunk: &Bytes) {
        if self.rest.end == entry.start && !self.rest.is_empty() {
            self.rest.end = entry.end;
            return;
        }
        self.copied.extend_from_slice(&chunk[self.rest.clone()]);
        self.rest = entry;
    }

    fn finish(mut self, chunk: &Bytes) -> Bytes {
        if self.copied.is_empty() {
            return chunk.slice(self.rest);
        }
        self.copied.extend_from_slice(&chunk[self.rest]);
        self.copied.into()
    }
}

impl Machine {
    pub(crate) fn new(plan: Plan) -> Self {
        let mut machine = Machine {
            filter: plan.filter,
            next: plan.start,
            remaining: plan.limit,
            until: plan.until,
            markers: plan.markers,
            is_live: false,
            skipped: 0,
            delivered: 0,
            queue: VecDeque::new(),
            run: None,
            walked_of_taken: 0,
            end: None,
            bundle: plan.bundle,
            most: usize::MAX,
            large: None,
            verdicts: Verdicts::default(),
            effort: 0,
        };
        for gap in plan.gaps {
            machine.announce(MarkerKind::Gap, Some(gap));
        }
        machine.announce(MarkerKind::Resumed, None);
        machine
    }

    /// The first seq not looked at yet.
    pub(crate) fn next(&self) -> Seq {
        self.next
    }

    /// The last seq passed: delivered, skipped or announced as missing.
    pub(crate) fn passed(&self) -> Seq {
        self.next.prev()
    }

    /// The last seq that the client knows to be passed.
    pub(crate) fn reported(&self) -> Seq {
        Seq::new(self.passed().get().saturating_sub(self.skipped))
    }

    /// Whether it has caught up and not fallen behind since.
    pub(crate) fn is_live(&self) -> bool {
        self.is_live
    }

    /// Moves past events, up to one, that are known not to be wanted.
    pub(crate) fn pass_quiet(&mut self, upto: Seq) {
        if self.run.is_none() && upto >= self.next {
            self.skipped += self.next.distance_to(upto.next());
            self.next = upto.next();
        }
    }

    /// Events delivered.
    pub(crate) fn delivered(&self) -> u64 {
        self.delivered
    }

    /// How many bytes may be sent at once from now on.
    pub(crate) fn send_at_most(&mut self, bytes: usize) {
        self.most = bytes;
    }

    /// Whether an event may go with what goes already.
    fn has_room(&mut self, taken: usize, bytes: usize) -> bool {
        let is_too_much = taken.saturating_add(bytes) > self.most;
        self.large = (is_too_much && taken == 0).then_some(bytes);
        !is_too_much
    }

    /// Others have run.
    pub(crate) fn rested(&mut self) {
        self.effort = 0;
    }

    fn is_tired(&self) -> bool {
        self.effort >= EFFORT_PER_POLL
    }

    /// The next thing to do. `head` is asked for only where the answer depends on it.
    pub(crate) fn step(&mut self, head: impl Fn() -> Seq) -> Step {
        loop {
            if let Some(news) = self.queue.pop_front() {
                return Step::News(news);
            }
            if let Some(end) = self.end {
                return Step::End(end);
            }
            if let Some(mut run) = self.run.take() {
                let found = match self.bundle {
                    Bundle::One => self.take_event(&mut run),
                    Bundle::Frames(bytes) => self.take_frames(&mut run, bytes),
                    Bundle::Batch(bytes) => self.take_batch(&mut run, bytes),
                };
                match found {
                    Ok(Some(events)) => {
                        self.run = Some(run);
                        return Step::Event(events);
                    }
                    Ok(None) if self.large.is_some() => {
                        self.run = Some(run);
                        return Step::Large(self.large.take().unwrap_or_default());
                    }
                    Ok(None) if self.queue.is_empty() && run.left() > 0 && self.is_tired() => {
                        self.run = Some(run);
                        return Step::Rest;
                    }
                    Ok(None) if self.queue.is_empty() => self.verdicts.clear(),
                    // A heartbeat in the middle of a run.
                    Ok(None) => self.run = Some(run),
                    Err(what) => return Step::Broken(what),
                }
                continue;
            }
            if self.until.is_some_and(|until| self.next > until) {
                self.announce(MarkerKind::CaughtUp, None);
                self.end = Some(End::CaughtUp);
            } else if !self.is_live && self.next > head() {
                self.is_live = true;
                self.announce(MarkerKind::CaughtUp, None);
            } else {
                return Step::Read { end: self.until.map_or(Seq::MAX, Seq::next) };
            }
        }
    }

    /// Takes what was read from `next` on.
    pub(crate) fn deliver(&mut self, delivery: Delivery) {
        if self.is_live && !delivery.is_recent {
            self.is_live = false;
            self.announce(MarkerKind::FellBehind, None);
        }
        self.verdicts.clear();
        self.run = Some(ChunkWalk { delivery, walked: 0 });
    }

    /// The end (exclusive) of what is wanted behind the chunk at hand, if it is known that something
    /// of that will be.
    pub(crate) fn reads_on(&self) -> Option<Seq> {
        let run_end = self.run.as_ref()?.chunk().end;
        let covered = self.next.distance_to(run_end);
        let end = self.until.map_or(Seq::MAX, Seq::next);
        (self.end.is_none() && self.remaining.is_none_or(|left| left > covered) && run_end < end)
            .then_some(end)
    }

    /// Where it stands, if every watch without a filter that stands there sends the same next.
    pub(crate) fn shared_place(&self) -> Option<ChunkPosition> {
        let run = self.run.as_ref()?;
        let is_alone = self.remaining.is_some() || self.end.is_some() || !self.queue.is_empty();
        let is_common =
            run.delivery.is_recent && run.chunk().complete && self.filter.is_all() && !is_alone;
        (is_common && matches!(self.bundle, Bundle::Frames(_)))
            .then_some(ChunkPosition { next: self.next, walked: run.walked })
    }

    /// Whether what is at hand has all been walked.
    pub(crate) fn is_walked(&self) -> bool {
        self.run.as_ref().is_none_or(|run| run.left() == 0)
    }

    /// Passes what another watch has sent from the same place on, if that is in the chunk.
    pub(crate) fn pass_shared(&mut self, to: ChunkPosition) -> bool {
        let Some(run) = &mut self.run else { return false };
        if to.next <= self.next || to.next > run.chunk().end || to.walked > run.chunk().events.len()
        {
            return false;
        }
        self.delivered += self.next.distance_to(to.next);
        self.skipped = 0;
        self.next = to.next;
        run.walked = to.walked;
        true
    }

    /// Takes out the chunk, unless there is none. If it is not put back, what was left in it has to be
    /// read again, from `next` on.
    pub(crate) fn take_chunk(&mut self) -> Option<Delivery> {
        let run = self.run.take()?;
        self.verdicts.clear();
        self.walked_of_taken = run.walked;
        Some(run.delivery)
    }

    /// Puts back what [`Machine::take_chunk`] took out last.
    pub(crate) fn put_back(&mut self, delivery: Delivery) {
        self.run = Some(ChunkWalk { delivery, walked: self.walked_of_taken });
    }

    /// Moves past events that are gone, and says so.
    pub(crate) fn skip_gap(&mut self, to: Seq, reason: GapReason) {
        let gap = Gap { from: self.next, to, reason };
        self.next = to.next().max(self.next);
        self.announce(MarkerKind::Gap, Some(gap));
    }

    /// Breaks a silence.
    pub(crate) fn heartbeat(&mut self) {
        self.announce(MarkerKind::Heartbeat, None);
    }

    /// Announces the planned end.
    pub(crate) fn close(&mut self) {
        self.announce(MarkerKind::Closing, None);
    }

    fn announce(&mut self, kind: MarkerKind, gap: Option<Gap>) {
        if self.markers {
            self.skipped = 0;
            self.queue.push_back(News { kind, gap, passed: self.passed() });
        }
    }

    /// The next matching event of a run; `None` at its end, or when a marker or a rest is due.
    fn take_event(&mut self, run: &mut ChunkWalk) -> Result<Option<Bytes>, &'static str> {
        let Some(found) = self.find(run)? else { return Ok(None) };
        if !self.has_room(0, found.event.len()) {
            return Ok(None);
        }
        self.pass(run, &found);
        Ok(Some(run.chunk().events.slice(found.event)))
    }

    /// The next matching events of a run, framed; `None` as for one.
    fn take_frames(
        &mut self,
        run: &mut ChunkWalk,
        frames_bytes: usize,
    ) -> Result<Option<Bytes>, &'static str> {
        let mut frames = Vec::new();
        while self.end.is_none() && (frames.is_empty() || frames.len() < frames_bytes) {
            let Some(found) = self.find(run)? else { break };
            if !self.has_room(frames.len(), frames::PREFIX_BYTES + found.event.len()) {
                break;
            }
            if frames.is_empty() && run.chunk().complete && self.filter.is_all() {
                // All of it goes, and the most that framing adds to an entry is three bytes.
                let entries = usize::try_from(self.next.distance_to(run.chunk().end));
                let added = entries.unwrap_or(usize::MAX).saturating_mul(3);
                let framed = run.left().saturating_add(added);
                frames.reserve_exact(
                    framed.min(
                        frames_bytes.min(self.most) + found.entry.len() + frames::PREFIX_BYTES,
                    ),
                );
            }
            self.pass(run, &found);
            frames::push(&mut frames, &run.chunk().events[found.event]);
        }
        Ok((!frames.is_empty()).then(|| frames::finished(frames)))
    }

    /// The entries of the next matching events of a run; `None` as for one.
    fn take_batch(
        &mut self,
        run: &mut ChunkWalk,
        batch_bytes: usize,
    ) -> Result<Option<Bytes>, &'static str> {
        let mut batch = EntryBatch::default();
        while self.end.is_none() {
            let Some(found) = self.find(run)? else { break };
            if batch.len() > 0 && batch.len() + found.entry.len() > batch_bytes {
                // It is found again as the first of the next batch.
                break;
            }
            if !self.has_room(batch.len(), found.entry.len()) {
                break;
            }
            self.pass(run, &found);
            batch.push(found.entry, &run.chunk().events);
        }
        Ok((batch.len() > 0).then(|| batch.finish(&run.chunk().events)))
    }

    /// The next event that is wanted. Passes those before it; it is not passed itself.
    fn find(&mut self, run: &mut ChunkWalk) -> Result<Option<Found>, &'static str> {
        loop {
            if self.is_tired() && run.left() > 0 {
                return Ok(None);
            }
            let start = run.walked;
            let mut events = Events::new(&run.chunk().events[start..]);
            let Some(event) = events.next() else { return self.finish(run) };
            let event = event.map_err(|error| error.what())?;
            let end = run.chunk().events.len() - events.remaining();
            let (seq, matches) = self.judge(event, run.chunk()).map_err(|error| error.what())?;
            if seq < self.next || seq >= run.chunk().end {
                return Err("an event outside its chunk");
            }
            if matches {
                return Ok(Some(Found { seq, entry: start..end, event: end - event.len()..end }));
            }
            run.walked = end;
            if self.skip_to(seq.next()) {
                return Ok(None);
            }
        }
    }

    /// Moves past an event that is sent.
    fn pass(&mut self, run: &mut ChunkWalk, found: &Found) {
        run.walked = found.entry.end;
        self.next = found.seq.next();
        self.skipped = 0;
        self.delivered += 1;
        if let Some(remaining) = &mut self.remaining {
            *remaining -= 1;
            if *remaining == 0 {
                self.end = Some(End::Limit);
            }
        }
    }

    /// The seq of the event at the position, and whether it is wanted.
    fn judge(&mut self, event: &[u8], chunk: &Chunk) -> Result<(Seq, bool), EventError> {
        let seq = if chunk.complete { self.next } else { Event::seq_of(event)? };
        if self.filter.is_all() {
            return Ok((seq, true));
        }
        let topic = Event::topic_of(event)?;
        let verdict = self.verdicts.on(&self.filter, &chunk.events, topic);
        let cost = match verdict.is_new {
            true => NEW_VERDICT + self.filter.patterns().len(),
            false => KNOWN_VERDICT,
        };
        self.effort = self.effort.saturating_add(cost);
        Ok((seq, verdict.is_match))
    }

    /// The end of a run: what it covers beyond its last event did not match.
    fn finish(&mut self, run: &ChunkWalk) -> Result<Option<Found>, &'static str> {
        if run.chunk().complete && self.next != run.chunk().end {
            return Err("a chunk with fewer events than it covers");
        }
        self.skip_to(run.chunk().end);
        Ok(None)
    }

    /// Passes events that do not match; true when the client is due to hear how far.
    fn skip_to(&mut self, next: Seq) -> bool {
        self.skipped += self.next.distance_to(next);
        self.next = next.max(self.next);
        let due = self.markers && self.skipped >= SKIPPED_PER_HEARTBEAT;
        if due {
            self.heartbeat();
        }
        due
    }
}

#[cfg(test)]
mod tests;
