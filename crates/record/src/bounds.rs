//! What a log is: its identity, its history of generations, its bounds.

use std::fmt;
use std::sync::Arc;

use uuid::Uuid;

use super::{Seq, Timestamp};

/// Identity of one log, drawn at random when its data directory is created. A copy made with the
/// file system keeps it; a restore or salvage begins a new generation of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LogId(Uuid);

impl LogId {
    /// Wraps an existing id.
    pub const fn new(id: Uuid) -> Self {
        LogId(id)
    }

    /// The full id.
    pub const fn uuid(self) -> Uuid {
        self.0
    }

    /// The four bytes of it that a cursor carries.
    pub fn short(self) -> u32 {
        let b = self.0.as_bytes();
        // The last bytes of a v4 UUID are all random.
        u32::from_be_bytes([b[12], b[13], b[14], b[15]])
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

/// Names one generation: a counter, and a random nonce so that two restores of one backup differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Generation {
    /// 1 for the first generation of a log.
    pub counter: u16,
    /// Random.
    pub nonce: u32,
}

/// One row of a log's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GenerationEntry {
    /// Its name.
    pub generation: Generation,
    /// The first seq that may belong to it; it ends where the next one begins.
    pub first: Seq,
    /// When it began.
    pub since: Timestamp,
    /// Why it began: `created`, `quarantined`, `copied`, `restored`, `salvaged`, `imported`.
    pub cause: String,
}

/// A log's generations, oldest first; never empty, counters and first seqs never go down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GenerationTable(Arc<[GenerationEntry]>);

impl GenerationTable {
    /// The table of a log that is new at that time: one generation, for all its events.
    pub fn created(nonce: u32, since: Timestamp) -> GenerationTable {
        let generation = Generation { counter: 1, nonce };
        let cause = "created".to_owned();
        let first = GenerationEntry { generation, first: Seq::FIRST, since, cause };
        GenerationTable(vec![first].into())
    }

    /// Builds a table; `None` when it is empty or out of order.
    pub fn new(entries: Vec<GenerationEntry>) -> Option<Self> {
        let ordered = entries
            .windows(2)
            .all(|w| w[0].generation.counter < w[1].generation.counter && w[0].first <= w[1].first);
        (!entries.is_empty() && ordered).then(|| GenerationTable(entries.into()))
    }

    /// All rows, oldest first.
    pub fn entries(&self) -> &[GenerationEntry] {
        &self.0
    }

    /// The row new events belong to.
    pub fn current(&self) -> &GenerationEntry {
        &self.0[self.0.len() - 1]
    }

    /// The generation that the event `seq` belongs to: the newest whose first is not above it.
    pub fn of(&self, seq: Seq) -> &GenerationEntry {
        let at = self.0.partition_point(|entry| entry.first <= seq.max(Seq::FIRST));
        &self.0[at.saturating_sub(1)]
    }

    /// The first seq that may belong to a generation known here.
    pub fn first_of(&self, generation: Generation) -> Option<Seq> {
        self.0.iter().find(|entry| entry.generation == generation).map(|entry| entry.first)
    }

    /// The last seq of a generation known here, `Seq::MAX` for the current one.
    pub fn end_of(&self, generation: Generation) -> Option<Seq> {
        let at = self.0.iter().position(|entry| entry.generation == generation)?;
        Some(self.0.get(at + 1).map_or(Seq::MAX, |next| next.first.prev()))
    }

    /// Whether there can be no other generation.
    pub fn is_full(&self) -> bool {
        self.current().generation.counter == u16::MAX
    }

    /// A table with one more generation, which begins at `first`; `None` when counters are used up.
    pub fn with_next(&self, nonce: u32, first: Seq, since: Timestamp, cause: &str) -> Option<Self> {
        let counter = self.current().generation.counter.checked_add(1)?;
        let mut entries = self.0.to_vec();
        // Of a log that is taken back to before they began: they end before `first`, as far as it knows.
        entries.iter_mut().for_each(|entry| entry.first = entry.first.min(first));
        entries.push(GenerationEntry {
            generation: Generation { counter, nonce },
            first,
            since,
            cause: cause.to_owned(),
        });
        GenerationTable::new(entries)
    }
}

/// What can be read now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// First readable seq; `head + 1` when nothing is readable.
    pub oldest: Seq,
    /// Seq of the last durable event; 0 when the log is empty.
    pub head: Seq,
    /// The log's history.
    pub generations: GenerationTable,
}

impl Bounds {
    /// The seq that the next event gets.
    pub fn next(&self) -> Seq {
        self.head.next()
    }

    /// Whether nothing is readable.
    pub fn is_empty(&self) -> bool {
        self.oldest > self.head
    }
}
