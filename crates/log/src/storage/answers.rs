//! What an engine answers of its topics, of where events lie, and of itself.

use tailmark_record::topic::Filter;
use tailmark_record::{Seq, Timestamp};

/// Readable events of one topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TopicStats {
    /// How many.
    pub events: u64,
    /// The last one.
    pub last_seq: Seq,
    /// When the last one was appended.
    pub last_at: Timestamp,
}

/// Asks for topics, in the order of their names (bytes of UTF-8).
#[derive(Clone, Copy, Debug)]
pub struct TopicQuery<'a> {
    /// No name below this. Empty = from the first on.
    pub from: &'a str,
    /// What names begin with.
    pub prefix: &'a str,
    /// What selects them, beside that.
    pub filter: &'a Filter,
    /// At most so many.
    pub limit: usize,
}

/// Topics that were asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicPage {
    /// In the order of their names. May be fewer than asked for, or none, though there are more: the
    /// work for one page is bounded.
    pub topics: Vec<(Box<str>, TopicStats)>,
    /// [`TopicQuery::from`] of the next page; `None` = there are no more.
    pub next: Option<Box<str>>,
}

/// What was found by looking back from the end of a range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LookBack {
    /// How far it was looked: from here on to the end of the range there are exactly `events` that
    /// match. The seq of the first of them where that is as many as were wanted.
    pub from: Seq,
    /// How many were found; at most as many as were wanted.
    pub events: u64,
}

impl LookBack {
    /// Takes the newest of these into account, as far as they are wanted: they lie before what was
    /// looked at so far, and there are no others from `from` on.
    pub(crate) fn take(&mut self, seqs: &[Seq], wanted: u64) {
        let found = seqs.len() as u64;
        match found.checked_sub(wanted.saturating_sub(self.events)) {
            Some(too_many) => {
                let first = usize::try_from(too_many).ok().and_then(|at| seqs.get(at));
                self.from = first.copied().unwrap_or(self.from);
                self.events = wanted;
            }
            None => self.events += found,
        }
    }
}

/// Figures for operators.
#[derive(Clone, Debug, Default)]
pub struct StoreStatus {
    /// Bytes taken on disk.
    pub disk_bytes: u64,
    /// Those of them that the journal's slots take, empty ones included.
    pub journal_bytes: u64,
    /// Seqs between the oldest and the head that have no events any more.
    pub removed_events: u64,
    /// Sealed segments.
    pub segments: u64,
    /// Journal slots that hold unsealed events.
    pub unsealed_slots: u64,
    /// Databases open now.
    pub open_segments: u64,
    /// Readers holding a slot or segment now.
    pub leases: u64,
    /// A segment is being built.
    pub is_sealing: bool,
    /// Why appends or sealing have stopped, if they have.
    pub trouble: Option<String>,
}

impl StoreStatus {
    /// Bytes that sealed segments take.
    pub fn segment_bytes(&self) -> u64 {
        self.disk_bytes.saturating_sub(self.journal_bytes)
    }
}
