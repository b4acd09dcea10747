//! What daemons of one log ask each other, as messages: what is to be stored, and what became of it.
//!
//! All daemons of a log are of one version or of two that follow each other: fields are added, and none changes its
//! meaning.

use std::sync::Arc;

use tailmark_log::eventlog::{
    AppendError, AppendOptions, Appended, Batch, EventLog, ExpectedHead, Trimmed,
};
use tailmark_log::storage::{Damage, Level, StoreError};
use tailmark_record::{InvalidEvent, Seq, Timestamp};

/// Of an event of a batch.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Part {
    /// What its sender said of it.
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) part: bytes::Bytes,
    /// The id that it was given; empty where its sender named it.
    #[prost(string, tag = "2")]
    pub(super) given_id: String,
}

/// Where a head must be.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Expected {
    /// Absent = the whole log.
    #[prost(string, optional, tag = "1")]
    topic: Option<String>,
    #[prost(uint64, tag = "2")]
    seq: u64,
}

/// A batch, to be stored by who writes and passed on by nobody.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Store {
    #[prost(bool, tag = "2")]
    dedup: bool,
    #[prost(bool, tag = "3")]
    atomic: bool,
    #[prost(message, optional, tag = "4")]
    expected: Option<Expected>,
    #[prost(message, repeated, tag = "5")]
    parts: Vec<Part>,
}

/// One message of a producer's stream to who writes.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Produce {
    /// The first says who it is.
    #[prost(message, optional, tag = "1")]
    pub(super) open: Option<Open>,
    #[prost(uint64, tag = "2")]
    pub(super) seq: u64,
    #[prost(message, optional, tag = "3")]
    pub(super) batch: Option<Store>,
}

/// Who a producer is.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Open {
    #[prost(string, tag = "2")]
    pub(super) id: String,
    #[prost(uint64, tag = "3")]
    pub(super) epoch: u64,
}

/// What a stream of a producer is answered: first how it stands, then what became of each batch, in order.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Produced {
    #[prost(message, optional, tag = "1")]
    pub(super) opened: Option<Opened>,
    #[prost(message, optional, tag = "2")]
    pub(super) stored: Option<Stored>,
}

/// How a producer stands.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Opened {
    #[prost(uint64, tag = "1")]
    pub(super) epoch: u64,
    #[prost(uint64, tag = "2")]
    pub(super) last_seq: u64,
    /// 0 = not known.
    #[prost(uint64, tag = "3")]
    pub(super) last_event: u64,
    #[prost(message, optional, tag = "4")]
    pub(super) failed: Option<Failed>,
    #[prost(bool, tag = "5")]
    pub(super) is_elsewhere: bool,
    /// Of the last event; empty where that is not known.
    #[prost(string, tag = "6")]
    pub(super) last_cursor: String,
}

/// What became of a batch.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Stored {
    #[prost(message, optional, tag = "1")]
    pub(super) done: Option<Done>,
    #[prost(message, optional, tag = "2")]
    pub(super) failed: Option<Failed>,
    /// Who was asked does not write: nothing was stored.
    #[prost(bool, tag = "3")]
    pub(super) is_elsewhere: bool,
}

/// A durable batch: as [`Appended`].
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Done {
    #[prost(uint64, tag = "1")]
    stored: u64,
    #[prost(uint64, tag = "2")]
    duplicates: u64,
    #[prost(uint64, optional, tag = "3")]
    first: Option<u64>,
    #[prost(uint64, optional, tag = "4")]
    last: Option<u64>,
    #[prost(fixed32, optional, tag = "5")]
    last_tag: Option<u32>,
    #[prost(uint64, tag = "6")]
    last_event: u64,
    #[prost(bool, tag = "7")]
    last_is_duplicate: bool,
    #[prost(int64, tag = "8")]
    appended_at: i64,
    /// Of the last event; empty where that is not known.
    #[prost(string, tag = "9")]
    cursor: String,
    #[prost(enumeration = "Durable", tag = "10")]
    level: i32,
}

/// What durable means of it: as [`Level`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
enum Durable {
    /// Also what a newer daemon may say: it promises nothing that is not known here.
    Unsynced = 0,
    Fsync = 1,
    Replicated = 2,
}

impl From<Level> for Durable {
    fn from(level: Level) -> Durable {
        match level {
            Level::Fsync => Durable::Fsync,
            Level::Replicated => Durable::Replicated,
            Level::Unsynced => Durable::Unsynced,
        }
    }
}

impl From<Durable> for Level {
    fn from(level: Durable) -> Level {
        match level {
            Durable::Fsync => Level::Fsync,
            Durable::Replicated => Level::Replicated,
            Durable::Unsynced => Level::Unsynced,
        }
    }
}

/// Why one was not: as [`AppendError`], by a number that does not change.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Failed {
    #[prost(enumeration = "Why", tag = "1")]
    why: i32,
    /// The actual head, the epoch, the batch that comes next, what is free, the limit.
    #[prost(uint64, tag = "2")]
    number: u64,
    /// What is needed; the actual size.
    #[prost(uint64, tag = "3")]
    other: u64,
    /// For the log of who asked.
    #[prost(string, tag = "4")]
    detail: String,
    /// Of a batch that took several commits: what is durable of it, how many events that is, and why the rest is not.
    #[prost(message, optional, tag = "5")]
    done: Option<Done>,
    #[prost(message, optional, boxed, tag = "6")]
    rest: Option<Box<Failed>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
enum Why {
    Unknown = 0,
    HeadMoved = 1,
    Fenced = 2,
    ProducerHole = 3,
    ProducerUnknown = 4,
    DiskFull = 5,
    Busy = 6,
    Stopped = 7,
    TooLarge = 8,
    RepeatsUnknown = 9,
    Refused = 10,
    Partial = 11,
    NotWriter = 12,
    Diverged = 13,
    /// The journal has not answered.
    InDoubt = 14,
    /// The journal does not answer.
    Unreachable = 15,
    Damaged = 16,
}

/// A mark to trim to.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Trim {
    #[prost(uint64, tag = "2")]
    pub(super) before: u64,
}

/// What became of it.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct TrimDone {
    #[prost(uint64, tag = "1")]
    pub(super) oldest: u64,
    #[prost(uint64, tag = "2")]
    pub(super) head: u64,
    #[prost(uint64, tag = "3")]
    pub(super) removed: u64,
    #[prost(message, optional, tag = "4")]
    pub(super) failed: Option<Failed>,
    #[prost(bool, tag = "5")]
    pub(super) is_elsewhere: bool,
}

/// Where does the log end?
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Confirm {}

/// There, as of a moment after the question; absent = who was asked does not know.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ConfirmDone {
    #[prost(message, optional, tag = "1")]
    pub(super) end: Option<End>,
}

/// An end of the log and of its journal.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct End {
    #[prost(uint64, tag = "1")]
    pub(super) head: u64,
    #[prost(uint64, tag = "2")]
    pub(super) slot: u64,
    /// The counter of the generation that is written.
    #[prost(uint32, tag = "3")]
    pub(super) generation: u32,
}

fn of_expected(expected: Option<&ExpectedHead>) -> Option<Expected> {
    expected.map(|it| Expected { topic: it.topic.clone(), seq: it.seq.get() })
}

impl Store {
    pub(super) fn new(batch: &Batch, options: &AppendOptions) -> Store {
        let part = |(part, given_id): (&[u8], &str)| Part {
            part: bytes::Bytes::copy_from_slice(part),
            given_id: given_id.to_owned(),
        };
        Store {
            dedup: options.dedup,
            atomic: options.atomic,
            expected: of_expected(options.expected_head.as_ref()),
            parts: batch.parts().map(part).collect(),
        }
    }

    pub(super) fn options(&self) -> AppendOptions {
        let expected = self.expected.clone();
        AppendOptions {
            dedup: self.dedup,
            atomic: self.atomic,
            expected_head: expected
                .map(|it| ExpectedHead { topic: it.topic, seq: Seq::new(it.seq) }),
        }
    }

    /// Whether it may be stored again without being stored twice.
    pub(super) fn is_repeatable(&self) -> bool {
        self.dedup && self.parts.iter().all(|it| it.given_id.is_empty())
    }

    /// The batch, by the rules of a log.
    pub(super) fn batch(&self, log: &EventLog) -> Result<Batch, InvalidEvent> {
        let mut batch = log.batch();
        for Part { part, given_id } in &self.parts {
            batch.push_part(part, given_id)?;
        }
        Ok(batch)
    }
}

impl Stored {
    pub(super) fn of(appended: &Result<Appended, AppendError>) -> Stored {
        match appended {
            Ok(done) => Stored { done: Some(Done::of(done)), ..Stored::default() },
            Err(error) => Stored { failed: Some(Failed::of(error)), ..Stored::default() },
        }
    }

    pub(super) fn elsewhere() -> Stored {
        Stored { is_elsewhere: true, ..Stored::default() }
    }

    /// What it says; a message that says nothing says that nobody knows.
    pub(super) fn read(self) -> Result<Appended, AppendError> {
        match (self.done, self.failed) {
            (Some(done), None) => Ok(done.read()),
            (_, Some(failed)) => Err(failed.read()),
            (None, None) => Err(unknown()),
        }
    }
}

/// Nobody knows what became of it.
pub(super) fn unknown() -> AppendError {
    AppendError::Unknown(Arc::new(StoreError::InDoubt))
}

impl Done {
    fn of(done: &Appended) -> Done {
        Done {
            stored: done.stored,
            duplicates: done.duplicates,
            first: done.first.map(Seq::get),
            last: done.last.map(Seq::get),
            last_tag: done.last_tag.map(|tag| tag.get()),
            last_event: done.last_event.get(),
            last_is_duplicate: done.last_is_duplicate,
            appended_at: done.appended_at.as_nanos(),
            cursor: done.cursor.as_deref().unwrap_or_default().to_owned(),
            level: Durable::from(done.level).into(),
        }
    }

    fn read(self) -> Appended {
        let level = self.level().into();
        Appended {
            stored: self.stored,
            duplicates: self.duplicates,
            first: self.first.map(Seq::new),
            last: self.last.map(Seq::new),
            last_tag: self.last_tag.map(tailmark_record::ChainTag::new),
            last_event: Seq::new(self.last_event),
            last_is_duplicate: self.last_is_duplicate,
            appended_at: Timestamp::from_nanos(self.appended_at),
            cursor: Some(self.cursor.into()),
            level,
        }
    }
}

impl Failed {
    pub(super) fn of(error: &AppendError) -> Failed {
        let detail = error.to_string();
        let with =
            |why: Why, number: u64| Failed { why: why.into(), number, detail, ..Failed::default() };
        match error {
            AppendError::HeadMoved { actual } => with(Why::HeadMoved, actual.get()),
            AppendError::Fenced { epoch } => with(Why::Fenced, *epoch),
            AppendError::ProducerHole { expected } => with(Why::ProducerHole, *expected),
            AppendError::ProducerUnknown => with(Why::ProducerUnknown, 0),
            AppendError::DiskFull(store) => match **store {
                StoreError::DiskFull { available_bytes, needed_bytes } => {
                    Failed { other: needed_bytes, ..with(Why::DiskFull, available_bytes) }
                }
                _ => with(Why::DiskFull, 0),
            },
            AppendError::Busy(store) => match **store {
                StoreError::Unreachable { .. } | StoreError::InDoubt => with(Why::Unreachable, 0),
                _ => with(Why::Busy, 0),
            },
            // Of a log that is closed here another takes the place.
            AppendError::Closing => with(Why::NotWriter, 0),
            AppendError::Stopped(_) => with(Why::Stopped, 0),
            AppendError::NotWriter(_) => with(Why::NotWriter, 0),
            AppendError::Diverged(_) => with(Why::Diverged, 0),
            AppendError::Unknown(store) => match **store {
                StoreError::InDoubt => with(Why::InDoubt, 0),
                _ => with(Why::Unknown, 0),
            },
            AppendError::TooLarge { actual, limit } => {
                Failed { other: *actual as u64, ..with(Why::TooLarge, *limit as u64) }
            }
            AppendError::RepeatsUnknown(store) => match &**store {
                StoreError::Damaged(damage) => {
                    Failed { other: damage.to.get(), ..with(Why::Damaged, damage.from.get()) }
                }
                _ => with(Why::RepeatsUnknown, 0),
            },
            AppendError::Refused(_) => with(Why::Refused, 0),
            AppendError::Partial { done, events, error } => Failed {
                done: Some(Done::of(done)),
                rest: Some(Box::new(Failed::of(error))),
                ..with(Why::Partial, *events as u64)
            },
        }
    }

    pub(super) fn read(self) -> AppendError {
        let Failed { number, other, detail, done, rest, .. } = self;
        let stopped = |reason| Arc::new(StoreError::Stopped { reason });
        let size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        match Why::try_from(self.why).unwrap_or(Why::Unknown) {
            Why::HeadMoved => AppendError::HeadMoved { actual: Seq::new(number) },
            Why::Fenced => AppendError::Fenced { epoch: number },
            Why::ProducerHole => AppendError::ProducerHole { expected: number },
            Why::ProducerUnknown => AppendError::ProducerUnknown,
            Why::DiskFull => AppendError::DiskFull(Arc::new(StoreError::DiskFull {
                available_bytes: number,
                needed_bytes: other,
            })),
            Why::Busy => AppendError::Busy(Arc::new(StoreError::Busy { reason: detail })),
            Why::Unreachable => {
                AppendError::Busy(Arc::new(StoreError::Unreachable { reason: detail }))
            }
            Why::Stopped => AppendError::Stopped(detail),
            Why::NotWriter => AppendError::NotWriter(detail),
            Why::Diverged => AppendError::Diverged(detail),
            Why::TooLarge => AppendError::TooLarge { actual: size(other), limit: size(number) },
            Why::RepeatsUnknown => AppendError::RepeatsUnknown(stopped(detail)),
            Why::Damaged => {
                let (from, to) = (Seq::new(number), Seq::new(other));
                let damage = Damage { from, to, file: "the log of who writes".into(), detail };
                AppendError::RepeatsUnknown(Arc::new(damage.into()))
            }
            Why::Refused => AppendError::Refused(stopped(detail)),
            Why::InDoubt => unknown(),
            Why::Unknown => AppendError::Unknown(stopped(detail)),
            Why::Partial => match (done, rest) {
                (Some(done), Some(rest)) => AppendError::Partial {
                    done: done.read(),
                    events: size(number),
                    error: Box::new(rest.read()),
                },
                _ => unknown(),
            },
        }
    }
}

impl TrimDone {
    pub(super) fn of(trimmed: &Result<Trimmed, AppendError>) -> TrimDone {
        match trimmed {
            Ok(Trimmed { oldest, head, removed }) => TrimDone {
                oldest: oldest.get(),
                head: head.get(),
                removed: *removed,
                ..TrimDone::default()
            },
            Err(error) => TrimDone { failed: Some(Failed::of(error)), ..TrimDone::default() },
        }
    }

    pub(super) fn read(self) -> Result<Trimmed, AppendError> {
        match self.failed {
            Some(failed) => Err(failed.read()),
            None => Ok(Trimmed {
                oldest: Seq::new(self.oldest),
                head: Seq::new(self.head),
                removed: self.removed,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message as _;

    /// What a caller hears of another daemon is what that one would have told it.
    #[test]
    fn every_answer_comes_through() {
        let busy = || Arc::new(StoreError::Busy { reason: "full".into() });
        let appended = Appended {
            stored: 3,
            duplicates: 1,
            first: Some(Seq::new(7)),
            last: Some(Seq::new(9)),
            last_tag: Some(tailmark_record::ChainTag::new(5)),
            last_event: Seq::new(9),
            last_is_duplicate: false,
            appended_at: Timestamp::from_nanos(1_800_000_000_000_000_001),
            cursor: Some("c".into()),
            level: Level::Replicated,
        };
        let all = [
            AppendError::HeadMoved { actual: Seq::new(4) },
            AppendError::Fenced { epoch: 5 },
            AppendError::ProducerHole { expected: 6 },
            AppendError::ProducerUnknown,
            AppendError::DiskFull(Arc::new(StoreError::DiskFull {
                available_bytes: 1,
                needed_bytes: 2,
            })),
            AppendError::Busy(busy()),
            AppendError::Busy(Arc::new(StoreError::Unreachable { reason: "away".into() })),
            AppendError::Stopped("x".into()),
            AppendError::NotWriter("x".into()),
            AppendError::Diverged("x".into()),
            AppendError::Unknown(Arc::new(StoreError::InDoubt)),
            AppendError::Unknown(busy()),
            AppendError::TooLarge { actual: 3, limit: 2 },
            AppendError::RepeatsUnknown(busy()),
            AppendError::Refused(busy()),
            AppendError::Partial {
                done: appended.clone(),
                events: 3,
                error: Box::new(AppendError::Busy(busy())),
            },
        ];
        // Without the texts, which each daemon words for itself.
        let shape = |error: &AppendError| {
            let text = format!("{error:?}");
            text.split('"').step_by(2).collect::<String>()
        };
        for error in all {
            let is_kept = !matches!(
                error,
                AppendError::RepeatsUnknown(_) | AppendError::Refused(_) | AppendError::Unknown(_)
            );
            let sent = Stored::of(&Err(error.clone())).encode_to_vec();
            let heard = Stored::decode(&*sent).unwrap().read().unwrap_err();
            let is_same = std::mem::discriminant(&heard) == std::mem::discriminant(&error);
            assert!(
                is_same && (!is_kept || shape(&heard) == shape(&error)),
                "{error:?}: {heard:?}"
            );
        }
        let sent = Stored::of(&Ok(appended.clone())).encode_to_vec();
        assert_eq!(Stored::decode(&*sent).unwrap().read().unwrap(), appended);
        // Silence, and what a newer daemon may say, is no answer.
        for nothing in [
            Stored::default(),
            Stored { failed: Some(Failed { why: 99, ..Failed::default() }), ..Stored::default() },
        ] {
            assert!(matches!(nothing.read(), Err(AppendError::Unknown(_))));
        }
    }
}
