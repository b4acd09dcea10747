//! One commit in the making: which events of which batches, in which order, under which seqs.
//!
//! Owns the copy of encoded bytes, and what depends on the commit becoming durable: batches that
//! wait for it, fingerprints, topic heads and producers. Must not know of threads or engines.

use super::AppendError;
use super::append::{ExpectedHead, Tally};
use super::batch::{MAX_SERVER_BYTES, Name};
use super::producers::{MAX_OP_BYTES, Opened, Opening, Producers, Verdict};
use super::queue::{OpenRequest, Pending};
use super::repeats::Repeats;
use super::state::DELTA_BYTES;
use super::topic_heads::TopicHeads;
use tailmark_record::{CursorMint, Seq, Stamp, Timestamp, write_entry};

/// A commit in the making.
pub(super) struct GroupCommit {
    pub first: Seq,
    pub next: Seq,
    pub at: Timestamp,
    pub events: Vec<u8>,
    pub duplicates: u64,
    /// Batches that are answered when it is durable.
    pub answers: Vec<Pending>,
    /// Producers that hear of their opening when it is durable.
    pub opened: Vec<(OpenRequest, Opened)>,
    /// A large batch of which this commit has a part.
    pub unfinished: Option<Box<Pending>>,
}

/// What commits draw on, and change when they are durable.
pub(super) struct CommitBuilder {
    pub repeats: Repeats,
    pub topic_heads: TopicHeads,
    pub producers: Producers,
    pub mint: CursorMint,
    pub max_commit_bytes: usize,
}

/// Whether a batch went into the commit.
pub(super) enum Admission {
    /// All of it.
    Whole,
    /// None of it: the commit is full. It comes first in the next.
    Later(Box<Pending>),
    /// As much as fits; the commit is full.
    Part,
}

impl GroupCommit {
    pub fn new(first: Seq, at: Timestamp, capacity: usize) -> GroupCommit {
        GroupCommit {
            first,
            next: first,
            at,
            events: Vec::with_capacity(capacity),
            duplicates: 0,
            answers: Vec::new(),
            opened: Vec::new(),
            unfinished: None,
        }
    }

    /// Events in it.
    pub fn count(&self) -> u64 {
        self.first.distance_to(self.next)
    }

    /// Whether nothing in it has to become durable.
    pub fn is_empty(&self, producers: &Producers) -> bool {
        self.count() == 0 && producers.staged_bytes().is_empty()
    }
}

impl CommitBuilder {
    /// Bytes at which a commit of several batches ends. A watcher that stands still holds one.
    fn group_bytes(&self) -> usize {
        self.max_commit_bytes.min(4 << 20)
    }

    /// Puts a batch into the commit, or answers it at once when it is refused.
    pub fn admit(
        &mut self,
        staged: &mut GroupCommit,
        mut batch: Box<Pending>,
        oldest: Seq,
    ) -> Admission {
        let needed = batch.batch.stored_bytes_from(batch.durable.events);
        let limit = if batch.options.atomic { self.max_commit_bytes } else { self.group_bytes() };
        // What a commit stages of producers takes room beside its events.
        let taken = staged.events.len() + self.producers.staged_bytes().len();
        let needed = needed + batch.sent.map_or(0, |_| DELTA_BYTES + MAX_OP_BYTES);
        let room = limit.saturating_sub(taken);
        if needed > room && taken > 0 {
            return Admission::Later(batch);
        }
        if let Some(sent) = &batch.sent {
            match self.producers.judge(sent) {
                Verdict::New => {}
                Verdict::Later => return Admission::Later(batch),
                Verdict::Repeat(place) => {
                    staged.duplicates += batch.batch.len() as u64;
                    let again = Tally::again(batch.batch.len(), place);
                    batch.answer(Ok(again.finish(staged.at)));
                    return Admission::Whole;
                }
                Verdict::Refused(error) if staged.is_empty(&self.producers) => {
                    batch.refuse(error);
                    return Admission::Whole;
                }
                // As for a head that has moved, below.
                Verdict::Refused(_) => return Admission::Later(batch),
            }
        }
        if needed > room && batch.options.atomic {
            batch.refuse(AppendError::TooLarge { actual: needed, limit: self.max_commit_bytes });
            return Admission::Whole;
        }
        if let Some(expected) = &batch.options.expected_head
            && batch.durable.events == 0
            && let Err(error) = self.expect(staged, &batch, expected, oldest)
        {
            if !staged.is_empty(&self.producers) {
                // Judged again when this commit is durable: a refusal must not rest on one that
                // may still fail.
                return Admission::Later(batch);
            }
            batch.refuse(error);
            return Admission::Whole;
        }
        batch.tally = batch.durable;
        if let Some(sent) = &batch.sent {
            let events = batch.batch.len() as u64;
            self.producers.stage(sent, staged.first, staged.next, events);
        }
        let is_whole =
            self.encode(staged, &batch.batch, batch.options.dedup, limit, &mut batch.tally);
        if is_whole {
            staged.answers.push(*batch);
            return Admission::Whole;
        }
        staged.unfinished = Some(batch);
        Admission::Part
    }

    /// Opens a producer's stream: at once, with this commit, or after it.
    pub fn open(&mut self, staged: &mut GroupCommit, request: OpenRequest) -> Option<OpenRequest> {
        let taken = staged.events.len() + self.producers.staged_bytes().len();
        if taken + DELTA_BYTES + MAX_OP_BYTES > self.group_bytes() && taken > 0 {
            return Some(request);
        }
        match self.producers.open(request.key, request.epoch) {
            Opening::Staged(opened) => staged.opened.push((request, opened)),
            Opening::Resumed(opened) => request.answer(Ok(opened)),
            Opening::Refused(error) => request.answer(Err(error)),
            Opening::Later => return Some(request),
        }
        None
    }

    /// Copies events into the commit; false when it is full before the batch is at its end.
    fn encode(
        &mut self,
        staged: &mut GroupCommit,
        batch: &super::Batch,
        dedup: bool,
        limit: usize,
        tally: &mut Tally,
    ) -> bool {
        let keeps_topics = self.topic_heads.is_kept();
        let appended_at = staged.at.into();
        for item in batch.items(tally.events) {
            let seq = staged.next;
            let fill_id = match item.name {
                Name::Us(id) => Some(id),
                Name::Sender(fingerprint) => {
                    if dedup && let Some(original) = self.repeats.find(fingerprint) {
                        tally.repeat(original);
                        staged.duplicates += 1;
                        continue;
                    }
                    None
                }
            };
            let most = staged.events.len() + item.client_part.len() + MAX_SERVER_BYTES;
            if most > limit && !staged.events.is_empty() {
                return false;
            }
            if let Name::Sender(fingerprint) = item.name {
                self.repeats.stage(fingerprint, seq);
            }
            if keeps_topics {
                self.topic_heads.stage(item.client_part, seq);
            }
            let stamp =
                Stamp { seq, mint: &self.mint, appended_at, fill_at: item.fill_at, fill_id };
            write_entry(&mut staged.events, item.client_part, &stamp);
            staged.next = seq.next();
            tally.store(seq);
        }
        true
    }

    /// Checks a condition. A batch of nothing but repeats passes: it has been stored before.
    fn expect(
        &self,
        staged: &GroupCommit,
        batch: &Pending,
        expected: &ExpectedHead,
        oldest: Seq,
    ) -> Result<(), AppendError> {
        let actual = match &expected.topic {
            None => staged.next.prev(),
            Some(topic) => self.topic_heads.get(topic, oldest),
        };
        let is_repeat = || {
            batch.options.dedup
                && !batch.batch.is_empty()
                && batch.batch.items(0).all(|item| match item.name {
                    Name::Sender(fingerprint) => self.repeats.find(fingerprint).is_some(),
                    Name::Us(_) => false,
                })
        };
        if actual == expected.seq || is_repeat() {
            return Ok(());
        }
        Err(AppendError::HeadMoved { actual })
    }

    /// The commit is durable.
    pub fn promote(&mut self, at: Timestamp) {
        self.repeats.promote();
        self.topic_heads.promote();
        self.producers.promote(at);
    }

    /// The commit was not stored.
    pub fn roll_back(&mut self) {
        self.repeats.roll_back();
        self.topic_heads.roll_back();
        self.producers.roll_back();
    }
}
