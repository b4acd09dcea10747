//! Appending as callers see it: conditions and results.

use crate::storage::Level;
use tailmark_record::{ChainTag, Seq, Timestamp};

/// A condition on an append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpectedHead {
    /// `None` = the whole log.
    pub topic: Option<String>,
    /// Its last seq; 0 = none. Of a topic the last that can be read: 0 when all are trimmed.
    pub seq: Seq,
}

/// How a batch is appended.
#[derive(Clone, Debug, Default)]
pub struct AppendOptions {
    /// Recognise repeats of client-identified events.
    pub dedup: bool,
    /// Store only if this holds when the writer gets to it. A batch that consists of repeats is
    /// answered as such all the same, so that a lost answer can be asked for again.
    pub expected_head: Option<ExpectedHead>,
    /// The batch is whole or absent: never split over two commits.
    pub atomic: bool,
}

/// A durable batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Events newly stored.
    pub stored: u64,
    /// Events that were there already.
    pub duplicates: u64,
    /// First newly stored. Of a batch that its producer sent again: where its first lies, if that
    /// is still known.
    pub first: Option<Seq>,
    /// Last newly stored; of a batch sent again as `first`.
    pub last: Option<Seq>,
    /// Of the chain at the last newly stored.
    pub last_tag: Option<ChainTag>,
    /// Where the batch's last event lies, newly stored or not; 0 where that is not known.
    pub last_event: Seq,
    /// Whether that one was there already.
    pub last_is_duplicate: bool,
    /// The server's time of the commit: that of the newly stored events, not of repeats.
    pub appended_at: Timestamp,
    /// What durable means of it. Where nothing was newly stored, what it means of the log's newest commit.
    pub level: Level,
    /// The cursor of the last event, where another daemon stored it and said so.
    pub cursor: Option<Box<str>>,
}

/// Counts what becomes of a batch.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    /// Events dealt with.
    pub events: usize,
    stored: u64,
    duplicates: u64,
    first: Option<Seq>,
    last: Option<Seq>,
    last_tag: Option<ChainTag>,
    last_event: Seq,
    last_is_duplicate: bool,
    /// Highest seq that the answer speaks of.
    pub highest: Seq,
}

impl Tally {
    pub(super) fn store(&mut self, seq: Seq, tag: ChainTag) {
        self.events += 1;
        self.stored += 1;
        self.first.get_or_insert(seq);
        (self.last, self.last_tag) = (Some(seq), Some(tag));
        (self.last_event, self.last_is_duplicate) = (seq, false);
        self.highest = self.highest.max(seq);
    }

    pub(super) fn repeat(&mut self, seq: Seq) {
        self.events += 1;
        self.duplicates += 1;
        (self.last_event, self.last_is_duplicate) = (seq, true);
        self.highest = self.highest.max(seq);
    }

    /// A batch of so many events that its producer sent again.
    pub(super) fn again(events: usize, place: Option<(Seq, Seq)>) -> Tally {
        let last_event = place.map_or(Seq::ZERO, |(_, last)| last);
        Tally {
            events,
            stored: 0,
            duplicates: events as u64,
            first: place.map(|(first, _)| first),
            last: place.map(|(_, last)| last),
            last_tag: None,
            last_event,
            last_is_duplicate: true,
            highest: last_event,
        }
    }

    pub(super) fn finish(&self, appended_at: Timestamp, level: Level) -> Appended {
        Appended {
            stored: self.stored,
            duplicates: self.duplicates,
            first: self.first,
            last: self.last,
            last_tag: self.last_tag,
            last_event: self.last_event,
            last_is_duplicate: self.last_is_duplicate,
            appended_at,
            level,
            cursor: None,
        }
    }
}
