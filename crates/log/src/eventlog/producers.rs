//! Producers: who may append next, and what was appended.
//!
//! Owns the judgement on a producer's batch (new, repeated, fenced, with a hole), epochs, and the
//! bytes of all this in a commit's delta and in the whole state. What belongs to a commit that is
//! not durable is staged; a verdict never rests on it, but for that of a batch right behind a
//! staged one. Must not know of threads or engines.
//!
//! A producer has one stream that may append, the one opened last. So when an opening is answered,
//! nothing of an older stream can be stored behind its back.

mod history;
mod table;

use std::collections::HashMap;
use std::time::Duration;

use self::table::{Bounds, Producer, Table};
use super::AppendError;
use super::age_clock::AgeClock;
use tailmark_record::{
    Fingerprint, FingerprintKey, Generation, Seq, Timestamp, put_varint, take_varint,
};

/// A producer's id, hashed with the log's secret: of one length, and nobody can craft two alike.
pub(super) type Key = Fingerprint;

/// A batch's place among those of its producer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub key: Key,
    pub session: u64,
    /// From 1.
    pub seq: u64,
}

/// What is to become of a batch.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It is the next one.
    New,
    /// It was stored, there if that is still known.
    Repeat(Option<(Seq, Seq)>),
    /// It cannot be judged before the commit in the making is durable.
    Later,
    Refused(AppendError),
}

/// A stream that was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Opened {
    pub epoch: u64,
    pub session: u64,
    /// The producer's last batch; 0 = none.
    pub last_seq: u64,
    pub last_event: Option<Seq>,
}

/// What an opening leads to.
#[derive(Debug)]
pub(super) enum Opening {
    /// It stands when the commit in the making is durable.
    Staged(Opened),
    /// It stands.
    Resumed(Opened),
    /// As [`Verdict::Later`].
    Later,
    Refused(AppendError),
}

pub(super) struct Producers {
    table: Table,
    next_epoch: u64,
    next_session: u64,
    idle: Duration,
    clock: AgeClock,
    /// When `clock` was moved last, in time that has passed.
    clock_moved: Option<Duration>,
    staged: Staged,
}

/// What the commit in the making changes.
#[derive(Default)]
struct Staged {
    ops: Vec<Op>,
    touched: HashMap<Key, Touch>,
    /// `ops` as they are stored.
    bytes: Vec<u8>,
    /// Of the last batch in `bytes`.
    last: Option<(Key, u64, u64)>,
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Open { key: Key, epoch: u64, session: u64, is_new: bool },
    Batch { key: Key, seq: u64, first: Seq, events: u64 },
}

#[derive(Clone, Copy, Debug)]
struct Touch {
    session: u64,
    /// `None` = opened.
    next: Option<u64>,
}

/// Most bytes that one staged change takes in a delta: tag, hash, three numbers.
pub(super) const MAX_OP_BYTES: usize = 1 + 16 + 3 * 10;

const OPEN_NEW: u8 = 1;
const OPEN_AGAIN: u8 = 2;
const BATCH: u8 = 3;
/// Of the producer of the batch before, with its next seq.
const NEXT_BATCH: u8 = 4;
/// All of them anew, to the end of the delta: what was known before counts no more.
const RESTATED: u8 = 5;

impl Producers {
    /// `now` is how far the log's clock had come, `bytes` what all may take in the whole state.
    pub(super) fn new(most: usize, idle: Duration, bytes: usize, now: Timestamp) -> Producers {
        Producers {
            table: Table::new(Bounds { producers: most.max(1), bytes }),
            next_epoch: 1,
            next_session: 1,
            idle,
            clock: AgeClock::new(now),
            clock_moved: None,
            staged: Staged::default(),
        }
    }

    /// Lifts the epochs to come above all that an older generation of the log may have given, also
    /// where this one has forgotten or never had what that knew.
    pub(super) fn raise_epochs(&mut self, generation: Generation) {
        let base = u64::from(generation.counter.saturating_sub(1)) << 32;
        self.next_epoch = self.next_epoch.max(base + 1);
    }

    /// The name that producers go by here.
    pub(super) fn key(secret: FingerprintKey, id: &str) -> Key {
        secret.fingerprint(id.as_bytes())
    }

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    /// Forgets who has been idle for too long, at `now` of the time that has passed. Between two
    /// commits.
    pub(super) fn forget_idle(&mut self, wall: Timestamp, now: Duration) {
        let before = self.clock_moved.replace(now).unwrap_or(now);
        self.forget_idle_after(now.saturating_sub(before), wall);
    }

    fn forget_idle_after(&mut self, elapsed: Duration, wall: Timestamp) {
        let now = self.clock.advance(wall, elapsed);
        self.table.forget_idle(seconds(now).saturating_sub(self.idle.as_secs()));
    }

    pub(super) fn judge(&self, sent: &Sent) -> Verdict {
        if let Some(touch) = self.staged.touched.get(&sent.key) {
            let is_next = touch.session == sent.session && touch.next == Some(sent.seq);
            return if is_next { Verdict::New } else { Verdict::Later };
        }
        let Some(producer) = self.table.get(&sent.key) else {
            return Verdict::Refused(AppendError::ProducerUnknown);
        };
        if producer.session != sent.session {
            return Verdict::Refused(AppendError::Fenced { epoch: producer.epoch });
        }
        let expected = producer.seq.saturating_add(1);
        match producer.seq.checked_sub(sent.seq) {
            Some(back) => Verdict::Repeat(producer.history.find(back)),
            None if sent.seq == expected => Verdict::New,
            None => Verdict::Refused(AppendError::ProducerHole { expected }),
        }
    }

    /// Adds a batch that was judged [`Verdict::New`] to the commit whose first event is
    /// `commit_first`.
    pub(super) fn stage(&mut self, sent: &Sent, commit_first: Seq, first: Seq, events: u64) {
        let staged = &mut self.staged;
        let offset = commit_first.distance_to(first);
        match staged.last {
            Some((key, seq, end)) if (key, seq.wrapping_add(1)) == (sent.key, sent.seq) => {
                staged.bytes.push(NEXT_BATCH);
                put_varint(&mut staged.bytes, offset.saturating_sub(end));
            }
            _ => {
                staged.bytes.push(BATCH);
                staged.bytes.extend_from_slice(&sent.key.0);
                put_varint(&mut staged.bytes, sent.seq);
                put_varint(&mut staged.bytes, offset);
            }
        }
        put_varint(&mut staged.bytes, events);
        staged.last = Some((sent.key, sent.seq, offset + events));
        staged.ops.push(Op::Batch { key: sent.key, seq: sent.seq, first, events });
        let next = Some(sent.seq.saturating_add(1));
        staged.touched.insert(sent.key, Touch { session: sent.session, next });
    }

    /// Opens a stream; epoch 0 asks for a new one.
    pub(super) fn open(&mut self, key: Key, epoch: u64) -> Opening {
        if self.staged.touched.contains_key(&key) {
            return Opening::Later;
        }
        let known = self.table.get(&key).map(|it| (it.epoch, it.seq, it.history.last_event()));
        let session = self.next_session;
        self.next_session += 1;
        match known {
            None if epoch != 0 => Opening::Refused(AppendError::ProducerUnknown),
            Some((current, ..)) if epoch != 0 && epoch < current => {
                Opening::Refused(AppendError::Fenced { epoch: current })
            }
            // Given out by a history that this log does not have.
            Some((current, ..)) if epoch > current => {
                Opening::Refused(AppendError::ProducerUnknown)
            }
            Some((current, last_seq, last_event)) if epoch == current => {
                self.table.set_session(&key, session);
                Opening::Resumed(Opened { epoch, session, last_seq, last_event })
            }
            _ => {
                let epoch = self.next_epoch + self.staged.ops.len() as u64;
                let is_new = known.is_none();
                self.staged.bytes.push(if is_new { OPEN_NEW } else { OPEN_AGAIN });
                self.staged.bytes.extend_from_slice(&key.0);
                put_varint(&mut self.staged.bytes, epoch);
                self.staged.ops.push(Op::Open { key, epoch, session, is_new });
                self.staged.touched.insert(key, Touch { session, next: None });
                let (_, last_seq, last_event) = known.unwrap_or_default();
                Opening::Staged(Opened { epoch, session, last_seq, last_event })
            }
        }
    }

    /// What the commit in the making changes, as it is stored; empty = nothing.
    pub(super) fn staged_bytes(&self) -> &[u8] {
        &self.staged.bytes
    }

    /// The commit is durable.
    pub(super) fn promote(&mut self, at: Timestamp) {
        let mut staged = std::mem::take(&mut self.staged);
        for op in staged.ops.drain(..) {
            self.apply(op, seconds(at));
        }
        self.table.shrink();
        // Their room is used again.
        staged.touched.clear();
        staged.bytes.clear();
        self.staged = Staged { last: None, ..staged };
    }

    /// The commit was not stored.
    pub(super) fn roll_back(&mut self) {
        self.staged = Staged::default();
    }

    fn apply(&mut self, op: Op, at: u64) {
        match op {
            Op::Open { key, epoch, session, is_new } => {
                self.next_epoch = self.next_epoch.max(epoch.saturating_add(1));
                self.table.update(key, epoch, |producer| {
                    if is_new {
                        *producer = Producer::new(key, epoch);
                    }
                    (producer.epoch, producer.session, producer.active_at) = (epoch, session, at);
                });
            }
            Op::Batch { key, seq, first, events } => {
                self.table.update(key, 0, |producer| {
                    (producer.seq, producer.active_at) = (seq, at);
                    producer.history.push(first, events);
                });
            }
        }
    }

    /// All that is durable.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.next_epoch);
        self.table.encode(out);
    }

    /// Reads what `encode` wrote; `None` when it did not.
    pub(super) fn decode(&mut self, mut bytes: &[u8]) -> Option<()> {
        self.next_epoch = take_varint(&mut bytes).filter(|&epoch| epoch > 0)?;
        self.table.decode(bytes)
    }

    /// What a delta holds of producers: the time, then what is staged.
    pub(super) fn encode_staged(&self, at: Timestamp, out: &mut Vec<u8>) {
        put_varint(out, seconds(at));
        out.extend_from_slice(&self.staged.bytes);
    }

    /// What a delta holds of producers that says all that is durable, whatever was before it.
    #[cfg(any(test, feature = "shared"))]
    pub(super) fn encode_restated(&self, at: Timestamp, out: &mut Vec<u8>) {
        put_varint(out, seconds(at));
        out.push(RESTATED);
        self.encode(out);
    }

    /// Does again what a delta says of the commit whose first event is `commit_first`; `None` when
    /// it cannot be read.
    pub(super) fn replay(&mut self, commit_first: Seq, mut bytes: &[u8]) -> Option<()> {
        let at = take_varint(&mut bytes)?;
        let mut last: Option<(Key, u64, u64)> = None;
        while let Some((&tag, rest)) = bytes.split_first() {
            bytes = rest;
            let op = match tag {
                OPEN_NEW | OPEN_AGAIN => {
                    let key = take_key(&mut bytes)?;
                    let epoch = take_varint(&mut bytes)?;
                    let is_new = tag == OPEN_NEW;
                    if !is_new {
                        self.table.get(&key)?;
                    }
                    Op::Open { key, epoch, session: 0, is_new }
                }
                BATCH | NEXT_BATCH => {
                    let (key, seq, from) = match (tag, last) {
                        (BATCH, _) => (take_key(&mut bytes)?, take_varint(&mut bytes)?, 0),
                        (_, Some((key, seq, end))) => (key, seq.checked_add(1)?, end),
                        (_, None) => return None,
                    };
                    let offset = from.checked_add(take_varint(&mut bytes)?)?;
                    let events = take_varint(&mut bytes)?;
                    last = Some((key, seq, offset.checked_add(events)?));
                    let first = Seq::new(commit_first.get().checked_add(offset)?);
                    self.table.get(&key)?;
                    Op::Batch { key, seq, first, events }
                }
                RESTATED => {
                    self.table.clear();
                    let epoch = self.next_epoch;
                    self.decode(bytes)?;
                    // Epochs never go down.
                    self.next_epoch = self.next_epoch.max(epoch);
                    return Some(());
                }
                _ => return None,
            };
            self.apply(op, at);
        }
        Some(())
    }

    /// Keeps to the bounds, after everything was read back.
    pub(super) fn shrink(&mut self) {
        self.table.shrink();
    }
}

fn take_key(bytes: &mut &[u8]) -> Option<Key> {
    let (key, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(Fingerprint(*key))
}

/// Producers are idle for days: seconds will do.
fn seconds(at: Timestamp) -> u64 {
    u64::try_from(at.seconds).unwrap_or_default()
}

#[cfg(test)]
mod tests;
