//! Telling the readers of each topic what of it was erased, by an event of its own in that topic.
//!
//! What was erased is read off the shells, so that it is the same after a restart. A notice that was stored
//! before the erasure was cut is a repeat of itself.

use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use super::waiting;
use crate::chain::hash;
use crate::eventlog::Batch;
use crate::eventlog::core::Core;
use crate::eventlog::eraser::{EraseError, Erased};
use crate::eventlog::error::damage;
use crate::storage::{Chunk, EraseOrder, ErasePhase, EraseProgress, Store, StoreError};
use tailmark_record::json::write_string;
use tailmark_record::topic::Filter;
use tailmark_record::{Event, EventError, Events, Facts, NOTICE, NOTICE_ID, Seq};

/// Most bytes of its body, where events may be as large.
const MAX_BODY_BYTES: usize = 60 << 10;
/// What a notice takes beside its body.
const HEAD_BYTES: usize = 1 << 10;
/// Between two ranges so near, events are looked at that were not erased: a run of a topic may go on behind them.
const NEAR: u64 = 4_096;
/// Notices are stored so many at a time.
const BATCH_NOTICES: usize = 256;

/// Tells of what an erasure has left shells of, and counts it.
pub(super) fn tell(
    core: &Core,
    order: &EraseOrder,
    watch: &mut dyn FnMut(EraseProgress) -> ControlFlow<()>,
) -> Result<Erased, EraseError> {
    let (erasure, named) = (order.id.to_string(), order.events());
    let mut found = Found { erasure, named, ..Found::default() };
    for span in spans(&order.seqs) {
        found.look(&*core.store, order, span, watch)?;
    }
    let id = order.id;
    let trimmed = found.passed - found.events - found.already - found.removed;
    let Found { events, already, removed, topics, erasure, .. } = found;
    let notices =
        Notices { core, erasure, order, batch: new_batch(core), stored: 0 }.send(topics)?;
    Ok(Erased { id, events, already, trimmed, removed, notices, segments: 0 })
}

/// The ranges, joined where they are near.
fn spans(seqs: &[Range<Seq>]) -> Vec<Range<Seq>> {
    let mut spans: Vec<Range<Seq>> = Vec::new();
    for range in seqs {
        match spans.last_mut() {
            Some(last) if last.end.distance_to(range.start) <= NEAR => last.end = range.end,
            _ => spans.push(range.clone()),
        }
    }
    spans
}

/// What is erased of one topic: runs, of which no event of the topic is left.
#[derive(Default)]
struct Runs {
    runs: Vec<(Seq, Seq)>,
    /// The span in which the last one may go on.
    open_in: Option<Seq>,
}

#[derive(Default)]
struct Found {
    erasure: String,
    topics: BTreeMap<Box<str>, Runs>,
    events: u64,
    already: u64,
    /// Of the named seqs those that are gone out of the middle.
    removed: u64,
    /// How many seqs the order names, and how many of these are passed.
    named: u64,
    passed: u64,
}

impl Found {
    /// Reads a span.
    fn look(
        &mut self,
        store: &dyn Store,
        order: &EraseOrder,
        span: Range<Seq>,
        watch: &mut dyn FnMut(EraseProgress) -> ControlFlow<()>,
    ) -> Result<(), EraseError> {
        let unfinished = |error| EraseError::Unfinished(Arc::new(error));
        let mut at = span.start;
        while at < span.end {
            let next = match store.read(at, span.end, &Filter::ALL) {
                Ok(chunk) => {
                    let taken = self.take(order, &chunk, span.start);
                    let left = taken.map_err(|error| {
                        let what = error.what();
                        unfinished(damage(chunk.first, chunk.end, what).into())
                    })?;
                    if left > 0 {
                        let what = "an event that was to be erased is still there";
                        return Err(unfinished(StoreError::Invalid(what)));
                    }
                    chunk.end
                }
                Err(StoreError::Trimmed { oldest }) => oldest.max(at.next()),
                Err(StoreError::Removed(range)) => {
                    let end = range.end.max(at.next());
                    self.removed += order.events_in(at..end.min(span.end));
                    end
                }
                // Between what was erased, damage is no business of this.
                Err(StoreError::Damaged(damage))
                    if damage.from <= at
                        && damage.to >= at
                        && order.events_in(damage.from..damage.to.next()) == 0 =>
                {
                    self.topics.values_mut().for_each(|runs| runs.open_in = None);
                    damage.to.next()
                }
                Err(error) => return Err(unfinished(error)),
            };
            // Not counted from the beginning each time: there may be millions.
            self.passed += order.events_in(at..next.min(span.end));
            let now = EraseProgress {
                id: order.id,
                phase: ErasePhase::Telling,
                segments_done: 0,
                segments: 0,
                events_done: self.passed,
                events: self.named,
            };
            if watch(now).is_break() {
                return Err(EraseError::Closing);
            }
            at = next;
        }
        Ok(())
    }

    /// Answers how many events are there that were to be erased.
    fn take(&mut self, order: &EraseOrder, chunk: &Chunk, span: Seq) -> Result<u64, EventError> {
        let mut left = 0;
        for event in Events::new(&chunk.events) {
            let facts = Facts::scan(event?)?;
            let topic = std::str::from_utf8(facts.topic);
            let topic = topic.map_err(|_| EventError::new("a topic is not text"))?;
            // An id may have been used before, for others.
            let is_ours = facts.erased.is_some_and(|it| it.erasure == self.erasure)
                && order.contains(facts.seq);
            if !is_ours {
                if let Some(runs) = self.topics.get_mut(topic) {
                    runs.open_in = None;
                }
                if order.contains(facts.seq) {
                    self.already += u64::from(facts.erased.is_some());
                    left += u64::from(facts.erased.is_none());
                }
                continue;
            }
            self.events += 1;
            let runs = match self.topics.get_mut(topic) {
                Some(runs) => runs,
                None => self.topics.entry(topic.into()).or_default(),
            };
            match runs.runs.last_mut().filter(|_| runs.open_in == Some(span)) {
                Some((_, last)) => *last = facts.seq,
                None => runs.runs.push((facts.seq, facts.seq)),
            }
            runs.open_in = Some(span);
        }
        Ok(left)
    }
}

fn new_batch(core: &Core) -> Batch {
    Batch::new(core.rules.clone())
}

/// Notices on their way into the log.
struct Notices<'a> {
    core: &'a Core,
    erasure: String,
    order: &'a EraseOrder,
    batch: Batch,
    stored: u64,
}

impl Notices<'_> {
    fn send(mut self, topics: BTreeMap<Box<str>, Runs>) -> Result<u64, EraseError> {
        let limit = self.core.rules.limits.event_bytes.saturating_sub(HEAD_BYTES);
        let limit = limit.min(MAX_BODY_BYTES);
        for (topic, runs) in &topics {
            let mut runs = runs.runs.as_slice();
            let mut part = 0;
            while !runs.is_empty() {
                let (body, taken) = body(&self.erasure, &self.order.reason, runs, limit);
                self.push(topic, &body, part)?;
                runs = runs.get(taken..).unwrap_or_default();
                part += 1;
            }
        }
        self.flush()?;
        Ok(self.stored)
    }

    fn push(&mut self, topic: &str, body: &str, part: u64) -> Result<(), EraseError> {
        let [a, b, c, d, ..] = hash(topic.as_bytes());
        let place = u32::from_be_bytes([a, b, c, d]);
        let id = format!("{NOTICE_ID}{}-{place:08x}-{part}", self.erasure);
        let notice = Event { id: &id, topic, body, kind: NOTICE, ..Event::default() };
        if let Err(error) = self.batch.push(&notice) {
            // It was taken under other limits.
            tracing::error!(%topic, %error, "readers of a topic are not told of an erasure");
        }
        let is_full = self.batch.len() >= BATCH_NOTICES || self.batch.bytes() >= 1 << 20;
        if is_full { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), EraseError> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let batch = std::mem::replace(&mut self.batch, new_batch(self.core));
        let done = waiting::append(self.core, batch);
        let done = done.map_err(|error| EraseError::Untold(Box::new(error)))?;
        self.stored += done.stored + done.duplicates;
        Ok(())
    }
}

/// The body of a notice about as many runs as it has room for, and how many those are.
fn body(erasure: &str, reason: &str, runs: &[(Seq, Seq)], limit: usize) -> (String, usize) {
    let mut text = Vec::new();
    write_string(&mut text, reason);
    let reason = String::from_utf8_lossy(&text);
    let mut body = format!("{{\"erasure\":\"{erasure}\",\"reason\":{reason},\"seqs\":[");
    let mut taken = 0;
    for (first, last) in runs {
        let run = format!("[{first},{last}]");
        if taken > 0 && body.len() + run.len() + 3 > limit {
            break;
        }
        if taken > 0 {
            body.push(',');
        }
        body.push_str(&run);
        taken += 1;
    }
    body.push_str("]}");
    (body, taken)
}
