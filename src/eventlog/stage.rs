//! One commit in the making: which events of which batches, in which order, under which seqs.
//!
//! Owns the copy of encoded bytes, and what depends on the commit becoming durable: batches that
//! wait for it, fingerprints and topic heads. Must not know of threads or engines.

use super::AppendError;
use super::append::{Appended, ExpectedHead, Tally};
use super::batch::{MAX_SERVER_BYTES, Name};
use super::queue::Pending;
use super::repeats::Repeats;
use super::topic_heads::TopicHeads;
use crate::record::{CursorMint, Seq, Stamp, Timestamp, write_entry};

/// A commit in the making.
pub(super) struct Staged {
    pub first: Seq,
    pub next: Seq,
    pub at: Timestamp,
    pub events: Vec<u8>,
    pub duplicates: u64,
    /// Batches that are answered when it is durable.
    pub answers: Vec<Pending>,
    /// A large batch of which this commit has a part.
    pub unfinished: Option<Box<Pending>>,
}

/// What commits draw on, and change when they are durable.
pub(super) struct Staging {
    pub repeats: Repeats,
    pub topic_heads: TopicHeads,
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

impl Staged {
    pub fn new(first: Seq, at: Timestamp, capacity: usize) -> Staged {
        Staged {
            first,
            next: first,
            at,
            events: Vec::with_capacity(capacity),
            duplicates: 0,
            answers: Vec::new(),
            unfinished: None,
        }
    }

    /// Events in it.
    pub fn count(&self) -> u64 {
        self.first.distance_to(self.next)
    }
}

impl Staging {
    /// Bytes at which a commit of several batches ends. A watcher that stands still holds one.
    fn group_bytes(&self) -> usize {
        self.max_commit_bytes.min(4 << 20)
    }

    /// Puts a batch into the commit, or answers it at once when it is refused.
    pub fn admit(
        &mut self,
        staged: &mut Staged,
        mut batch: Box<Pending>,
        oldest: Seq,
    ) -> Admission {
        let needed = batch.batch.stored_bytes_from(batch.durable.events);
        let limit = if batch.options.atomic { self.max_commit_bytes } else { self.group_bytes() };
        let room = limit.saturating_sub(staged.events.len());
        if needed > room && !staged.events.is_empty() {
            return Admission::Later(batch);
        }
        if needed > room && batch.options.atomic {
            batch.refuse(AppendError::TooLarge { actual: needed, limit: self.max_commit_bytes });
            return Admission::Whole;
        }
        if let Some(expected) = &batch.options.expected_head
            && batch.durable.events == 0
            && let Err(error) = self.expect(staged, &batch, expected, oldest)
        {
            if staged.count() > 0 {
                // Judged again when this commit is durable: a refusal must not rest on one that
                // may still fail.
                return Admission::Later(batch);
            }
            batch.refuse(error);
            return Admission::Whole;
        }
        batch.tally = batch.durable;
        let is_whole =
            self.encode(staged, &batch.batch, batch.options.dedup, limit, &mut batch.tally);
        if is_whole {
            staged.answers.push(*batch);
            return Admission::Whole;
        }
        staged.unfinished = Some(batch);
        Admission::Part
    }

    /// Copies events into the commit; false when it is full before the batch is at its end.
    fn encode(
        &mut self,
        staged: &mut Staged,
        batch: &super::Batch,
        dedup: bool,
        limit: usize,
        tally: &mut Tally,
    ) -> bool {
        let keeps_topics = self.topic_heads.is_kept();
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
            let stamp = Stamp {
                seq,
                mint: &self.mint,
                appended_at: staged.at,
                fill_at: item.fill_at,
                fill_id,
            };
            write_entry(&mut staged.events, item.client_part, &stamp);
            staged.next = seq.next();
            tally.store(seq);
        }
        true
    }

    /// Checks a condition. A batch of nothing but repeats passes: it has been stored before.
    fn expect(
        &self,
        staged: &Staged,
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
    pub fn promote(&mut self) {
        self.repeats.promote();
        self.topic_heads.promote();
    }

    /// The commit was not stored.
    pub fn roll_back(&mut self) {
        self.repeats.roll_back();
        self.topic_heads.roll_back();
    }
}

impl Pending {
    /// Answers with an error about what is not durable yet.
    pub fn refuse(self, error: AppendError) {
        let answer = if self.durable.events == 0 {
            error
        } else {
            AppendError::Partial {
                done: self.durable.finish(self.durable_at),
                events: self.durable.events,
                error: Box::new(error),
            }
        };
        self.answer(Err(answer));
    }

    /// Gives its share of the bytes in flight back, then answers.
    pub fn answer(self, answer: Result<Appended, AppendError>) {
        drop(self.share);
        // The caller may have gone.
        let _ = self.reply.send(answer);
    }
}
