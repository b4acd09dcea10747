//! Group commits: which events of which batches, in which order, under which seqs.
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
use crate::chain::Link;
use crate::storage::Level;
use tailmark_record::{CursorMint, Seq, Stamp, Timestamp, write_entry};

/// A commit in the making.
pub(super) struct GroupCommit {
    pub first: Seq,
    pub next: Seq,
    pub at: Timestamp,
    /// At the last event in it.
    pub link: Link,
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
    /// The chain at the last durable event.
    pub link: Link,
    /// What durable means of the newest commit.
    pub level: Level,
    pub max_commit_bytes: usize,
}

/// Whether a batch went into the commit.
pub(super) enum Admission {
    /// All of it.
    Whole,
    /// None of it: the commit is full. It comes first in the next.
    Later(Box<Pending>),
    /// None of it, for a reason that rests on where the log ends. Nothing else is in the commit.
    Verdict(Box<Pending>, Box<AppendError>),
    /// As much as fits; the commit is full.
    Part,
}

/// What is to become of a batch, before any of it is copied.
enum Judgement {
    Take,
    /// After this commit.
    Later,
    /// Its producer sent it again.
    Repeat(Tally),
    Refuse(AppendError),
}

impl GroupCommit {
    /// A commit after the event at which the chain has this link.
    pub(super) fn new(first: Seq, link: Link, at: Timestamp, capacity: usize) -> GroupCommit {
        GroupCommit {
            first,
            next: first,
            at,
            link,
            events: Vec::with_capacity(capacity),
            duplicates: 0,
            answers: Vec::new(),
            opened: Vec::new(),
            unfinished: None,
        }
    }

    /// Events in it.
    pub(super) fn count(&self) -> u64 {
        self.first.distance_to(self.next)
    }

    /// Whether nothing in it has to become durable.
    pub(super) fn is_empty(&self, producers: &Producers) -> bool {
        self.count() == 0 && producers.staged_bytes().is_empty()
    }
}

/// What becomes of the opening of a producer's stream.
pub(super) enum OpenAdmission {
    /// It stands with the commit in the making.
    Staged,
    /// As [`Admission::Later`].
    Later(OpenRequest),
    /// It is answered by what is durable, as [`Admission::Verdict`].
    Verdict(OpenRequest, Result<Opened, AppendError>),
}

impl CommitBuilder {
    /// Bytes at which a commit of several batches ends. A watcher that stands still holds one.
    fn group_bytes(&self) -> usize {
        self.max_commit_bytes.min(4 << 20)
    }

    /// Puts a batch into the commit, or answers it at once when it is refused.
    pub(super) fn admit(
        &mut self,
        commit: &mut GroupCommit,
        mut batch: Box<Pending>,
        oldest: Seq,
    ) -> Admission {
        let limit = if batch.options.atomic { self.max_commit_bytes } else { self.group_bytes() };
        match self.judge(commit, &batch, limit, oldest) {
            Judgement::Take => {}
            Judgement::Later => return Admission::Later(batch),
            Judgement::Repeat(again) => {
                commit.duplicates += batch.batch.len() as u64;
                batch.answer(Ok(again.finish(commit.at, self.level)));
                return Admission::Whole;
            }
            Judgement::Refuse(
                error @ (AppendError::HeadMoved { .. } | AppendError::ProducerHole { .. }),
            ) => return Admission::Verdict(batch, Box::new(error)),
            Judgement::Refuse(error) => {
                batch.refuse(error);
                return Admission::Whole;
            }
        }
        batch.tally = batch.durable;
        if let Some(sent) = &batch.sent {
            let events = batch.batch.len() as u64;
            self.producers.stage(sent, commit.first, commit.next, events);
        }
        let is_whole =
            self.encode(commit, &batch.batch, batch.options.dedup, limit, &mut batch.tally);
        if is_whole {
            commit.answers.push(*batch);
            return Admission::Whole;
        }
        commit.unfinished = Some(batch);
        Admission::Part
    }

    /// Whether a batch can go into the commit. A refusal must not rest on a commit that may still
    /// fail: what rests on what is in it is judged again when that is durable.
    fn judge(&self, commit: &GroupCommit, batch: &Pending, limit: usize, oldest: Seq) -> Judgement {
        let needed = batch.batch.stored_bytes_from(batch.durable.events)
            + batch.sent.map_or(0, |_| DELTA_BYTES + MAX_OP_BYTES);
        let taken = self.taken(commit);
        let has_room = needed <= limit.saturating_sub(taken);
        if !has_room && taken > 0 {
            return Judgement::Later;
        }
        let when_durable = |error| match commit.is_empty(&self.producers) {
            true => Judgement::Refuse(error),
            false => Judgement::Later,
        };
        match batch.sent.as_ref().map(|sent| self.producers.judge(sent)) {
            None | Some(Verdict::New) => {}
            Some(Verdict::Later) => return Judgement::Later,
            Some(Verdict::Repeat(place)) => {
                return Judgement::Repeat(Tally::again(batch.batch.len(), place));
            }
            Some(Verdict::Refused(error)) => return when_durable(error),
        }
        if !has_room && batch.options.atomic {
            let limit = self.max_commit_bytes;
            return Judgement::Refuse(AppendError::TooLarge { actual: needed, limit });
        }
        match &batch.options.expected_head {
            Some(expected) if batch.durable.events == 0 => self
                .expect(commit, batch, expected, oldest)
                .map_or_else(when_durable, |()| Judgement::Take),
            _ => Judgement::Take,
        }
    }

    /// Bytes of a commit so far. What it stages of producers takes room beside its events.
    fn taken(&self, commit: &GroupCommit) -> usize {
        commit.events.len() + self.producers.staged_bytes().len()
    }

    /// Opens a producer's stream: at once, with this commit, or after it.
    pub(super) fn open(&mut self, commit: &mut GroupCommit, request: OpenRequest) -> OpenAdmission {
        let taken = self.taken(commit);
        if taken + DELTA_BYTES + MAX_OP_BYTES > self.group_bytes() && taken > 0 {
            return OpenAdmission::Later(request);
        }
        match self.producers.open(request.key, request.epoch) {
            Opening::Staged(opened) => {
                commit.opened.push((request, opened));
                OpenAdmission::Staged
            }
            Opening::Resumed(opened) => OpenAdmission::Verdict(request, Ok(opened)),
            Opening::Refused(error) => OpenAdmission::Verdict(request, Err(error)),
            Opening::Later => OpenAdmission::Later(request),
        }
    }

    /// Copies events into the commit; false when it is full before the batch is at its end.
    fn encode(
        &mut self,
        commit: &mut GroupCommit,
        batch: &super::Batch,
        dedup: bool,
        limit: usize,
        tally: &mut Tally,
    ) -> bool {
        let keeps_topics = self.topic_heads.is_kept();
        let appended_at = commit.at.into();
        for item in batch.items(tally.events) {
            let seq = commit.next;
            let fill_id = match item.name {
                Name::Us(id) => Some(id),
                Name::Sender(fingerprint) => {
                    if dedup && let Some(original) = self.repeats.find(fingerprint) {
                        tally.repeat(original);
                        commit.duplicates += 1;
                        continue;
                    }
                    None
                }
            };
            let most = commit.events.len() + item.client_part.len() + MAX_SERVER_BYTES;
            if most > limit && !commit.events.is_empty() {
                return false;
            }
            if let Name::Sender(fingerprint) = item.name {
                self.repeats.stage(fingerprint, seq);
            }
            if keeps_topics {
                self.topic_heads.stage(item.client_part, seq);
            }
            commit.link = commit.link.then(seq, commit.at, item.said);
            let (mint, tag, fill_at) = (&self.mint, commit.link.tag(), item.fill_at);
            let stamp = Stamp { seq, mint, tag, appended_at, fill_at, fill_id };
            write_entry(&mut commit.events, item.client_part, &stamp);
            commit.next = seq.next();
            tally.store(seq, tag);
        }
        true
    }

    /// Checks a condition. A batch of nothing but repeats passes: it has been stored before.
    fn expect(
        &self,
        commit: &GroupCommit,
        batch: &Pending,
        expected: &ExpectedHead,
        oldest: Seq,
    ) -> Result<(), AppendError> {
        let actual = match &expected.topic {
            None => commit.next.prev(),
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
    pub(super) fn promote(&mut self, commit: &GroupCommit) {
        self.link = commit.link;
        self.repeats.promote();
        self.topic_heads.promote();
        self.producers.promote(commit.at);
    }

    /// The commit was not stored.
    pub(super) fn roll_back(&mut self) {
        self.repeats.roll_back();
        self.topic_heads.roll_back();
        self.producers.roll_back();
    }
}
