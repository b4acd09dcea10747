//! Events on their way in.
//!
//! Owns the work that a caller can do by itself: validating, encoding, hashing, giving ids. What is
//! left to the one writer is a copy of bytes. Nothing here allocates per event, but for the ids
//! and hashes that are kept in two arrays.

use std::sync::Arc;

use uuid::Uuid;

use crate::chain::Said;
use tailmark_record::{
    CursorMint, Event, Fingerprint, FingerprintKey, InvalidEvent, Limits, Problem, Timestamp,
};

/// Characters of a UUID as we give them.
const ID_LEN: usize = 36;
/// Most bytes that an entry adds to its client part: tag and length; seq, cursor, two times, id.
pub(super) const MAX_SERVER_BYTES: usize =
    (1 + 5) + (1 + 10) + (2 + CursorMint::LEN) + 2 * (2 + 17) + (2 + ID_LEN);

/// What events are checked and hashed with; one of each log.
#[derive(Debug)]
pub(super) struct Rules {
    pub limits: Limits,
    pub key: FingerprintKey,
}

/// Events on their way in: validated, encoded, in order.
#[derive(Debug)]
pub struct Batch {
    rules: Arc<Rules>,
    /// The client parts, one after the other.
    parts: Vec<u8>,
    entries: Vec<Entry>,
    /// Of the events that their senders named.
    fingerprints: Vec<Fingerprint>,
    /// For the events that they did not name, one after the other.
    given_ids: String,
    last_given: Option<Uuid>,
    /// The last event's id where its sender gave it: a range of `parts`.
    last_id: Option<(usize, usize)>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Where its client part ends.
    end: usize,
    /// Index into `fingerprints` or `given_ids`.
    aside: u32,
    is_named: bool,
    fill_at: bool,
    said: Said,
}

/// A UUID of version 7: drawn for the first event of a batch, one more than the last for each after
/// it (RFC 9562, 6.2, method 2), because a clock and a random number for each cost more than all
/// other work on a small event.
fn next_id(last: Option<Uuid>) -> Uuid {
    /// What is neither time, version nor variant, at its end.
    const COUNTED: u128 = (1 << 62) - 1;
    match last.map(|last| last.as_u128()).filter(|last| last & COUNTED != COUNTED) {
        Some(last) => Uuid::from_u128(last + 1),
        None => id_at(Timestamp::now()),
    }
}

/// A UUID of version 7. `Uuid::now_v7` panics where the clock stands before 1970.
fn id_at(now: Timestamp) -> Uuid {
    let seconds = u64::try_from(now.seconds).unwrap_or_default();
    let nanos = u32::try_from(now.nanos).unwrap_or_default();
    Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, seconds, nanos))
}

/// One event of a batch, as the writer needs it.
#[derive(Clone, Copy)]
pub(super) struct Item<'a> {
    pub client_part: &'a [u8],
    pub fill_at: bool,
    pub said: Said,
    pub name: Name<'a>,
}

/// Who named an event.
#[derive(Clone, Copy)]
pub(super) enum Name<'a> {
    Sender(Fingerprint),
    Us(&'a str),
}

/// Where a batch stood.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    events: usize,
    bytes: usize,
    named: usize,
    given: usize,
    last_id: Option<(usize, usize)>,
}

impl Mark {
    /// Encoded bytes that were in it.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Batch {
    pub(super) fn new(rules: Arc<Rules>) -> Batch {
        Batch {
            rules,
            parts: Vec::new(),
            entries: Vec::new(),
            fingerprints: Vec::new(),
            given_ids: String::new(),
            last_given: None,
            last_id: None,
        }
    }

    /// Adds an event.
    ///
    /// # Errors
    /// What is wrong with it; the batch is as it was.
    pub fn push(&mut self, event: &Event<'_>) -> Result<(), InvalidEvent> {
        self.push_with(event, None)
    }

    /// Adds an event of another batch, as [`Batch::parts`] has it.
    ///
    /// # Errors
    /// What is wrong with it; the batch is as it was.
    pub fn push_part(&mut self, part: &[u8], given_id: &str) -> Result<(), InvalidEvent> {
        let wrong = |what| InvalidEvent { field: "event", problem: Problem::Illegal(what) };
        let event = Event::parse(part).map_err(|_| wrong("is no event"))?;
        if event.id.is_empty() && given_id.len() != ID_LEN || !given_id.is_ascii() {
            return Err(wrong("has no id"));
        }
        self.push_with(&event, Some(given_id))
    }

    /// What each event is without what the log adds to it, and the id that it was given; empty where its sender
    /// named it.
    pub fn parts(&self) -> impl Iterator<Item = (&[u8], &str)> {
        self.items(0).map(|item| match item.name {
            Name::Sender(_) => (item.client_part, ""),
            Name::Us(given_id) => (item.client_part, given_id),
        })
    }

    fn push_with(&mut self, event: &Event<'_>, given_id: Option<&str>) -> Result<(), InvalidEvent> {
        self.rules.limits.check(event)?;
        let start = self.parts.len();
        event.write_client_part(&mut self.parts);
        let (actual, limit) = (self.parts.len() - start, self.rules.limits.event_bytes);
        if actual > limit {
            self.parts.truncate(start);
            let problem = Problem::OverLimit { limit, actual };
            return Err(InvalidEvent { field: "event", problem });
        }
        let is_named = !event.id.is_empty();
        let aside = if is_named {
            self.fingerprints.push(self.rules.key.fingerprint(&self.parts[start..]));
            // The id is the first field: its tag, one or two bytes of length, its text.
            let at = start + 1 + tailmark_record::varint_len(event.id.len() as u64);
            self.last_id = Some((at, at + event.id.len()));
            self.fingerprints.len() - 1
        } else {
            match given_id {
                Some(given_id) => self.given_ids.push_str(given_id),
                None => {
                    let given = next_id(self.last_given);
                    self.last_given = Some(given);
                    self.given_ids.push_str(given.hyphenated().encode_lower(&mut [0; ID_LEN]));
                }
            }
            self.last_id = None;
            self.given_ids.len() / ID_LEN - 1
        };
        let given_id = if is_named { "" } else { &self.given_ids[aside * ID_LEN..] };
        let said = Said::of_part(&self.parts[start..], given_id);
        debug_assert!(said.is_ok(), "what was just written can be read");
        let said = said.unwrap_or_default();
        #[expect(clippy::cast_possible_truncation, reason = "memory holds no such batch")]
        let aside = aside as u32;
        self.entries.push(Entry {
            end: self.parts.len(),
            aside,
            is_named,
            fill_at: event.at.is_none(),
            said,
        });
        Ok(())
    }

    /// Where it stands, to come back to.
    pub fn mark(&self) -> Mark {
        Mark {
            events: self.entries.len(),
            bytes: self.parts.len(),
            named: self.fingerprints.len(),
            given: self.given_ids.len(),
            last_id: self.last_id,
        }
    }

    /// Takes out what was added since, and nothing else.
    pub fn undo(&mut self, mark: Mark) {
        self.entries.truncate(mark.events);
        self.parts.truncate(mark.bytes);
        self.fingerprints.truncate(mark.named);
        self.given_ids.truncate(mark.given);
        self.last_id = mark.last_id;
    }

    /// Events in it.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Encoded bytes in it.
    pub fn bytes(&self) -> usize {
        self.parts.len()
    }

    /// Most bytes that so many events take in the store, of which so many bytes came.
    pub fn most_stored_bytes(events: usize, bytes: usize) -> usize {
        events.saturating_mul(MAX_SERVER_BYTES).saturating_add(bytes)
    }

    /// Most bytes that it takes in the store.
    pub fn stored_bytes(&self) -> usize {
        self.stored_bytes_from(0)
    }

    /// The id of the last event, given by its sender or by us.
    pub fn last_id(&self) -> Option<&str> {
        match self.last_id {
            Some((start, end)) => std::str::from_utf8(&self.parts[start..end]).ok(),
            None => self.given_ids.get(self.given_ids.len().checked_sub(ID_LEN)?..),
        }
    }

    /// The topic of the first event.
    pub fn first_topic(&self) -> Option<&str> {
        let first = self.entries.first()?;
        Event::parse(self.parts.get(..first.end)?).ok().map(|event| event.topic)
    }

    /// Whether a sender named any of its events.
    pub(super) fn has_named(&self) -> bool {
        !self.fingerprints.is_empty()
    }

    /// Most bytes that the events from `at` on take in the store.
    pub(super) fn stored_bytes_from(&self, at: usize) -> usize {
        let events = self.entries.len().saturating_sub(at);
        self.parts.len() - self.start_of(at) + events * MAX_SERVER_BYTES
    }

    fn start_of(&self, at: usize) -> usize {
        match at.checked_sub(1) {
            None => 0,
            Some(before) => self.entries.get(before).map_or(self.parts.len(), |entry| entry.end),
        }
    }

    /// The events from `at` on.
    pub(super) fn items(&self, at: usize) -> impl Iterator<Item = Item<'_>> {
        let mut start = self.start_of(at);
        self.entries.get(at..).unwrap_or_default().iter().map(move |entry| {
            let client_part = &self.parts[start..entry.end];
            start = entry.end;
            let aside = entry.aside as usize;
            let name = if entry.is_named {
                Name::Sender(self.fingerprints[aside])
            } else {
                Name::Us(&self.given_ids[aside * ID_LEN..(aside + 1) * ID_LEN])
            };
            Item { client_part, fill_at: entry.fill_at, said: entry.said, name }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_undone_was_never_there() {
        let key = FingerprintKey::new([7; 16]);
        let mut batch = Batch::new(Arc::new(Rules { limits: Limits::default(), key }));
        let event = |id, body| Event { id, topic: "a", body, ..Event::default() };
        let shape = |batch: &Batch| {
            let of = |item: Item<'_>| (item.client_part.to_vec(), matches!(item.name, Name::Us(_)));
            (batch.items(0).map(of).collect::<Vec<_>>(), batch.last_id().map(str::to_owned))
        };
        for id in ["one", "", "two"] {
            batch.push(&event(id, "x")).unwrap();
            let (before, mark) = (shape(&batch), batch.mark());
            for other in ["", "three"] {
                batch.push(&event(other, "longer than before")).unwrap();
                assert_ne!(shape(&batch), before);
            }
            batch.undo(mark);
            assert_eq!(shape(&batch), before);
            assert_eq!(batch.bytes(), mark.bytes());
        }
        assert_eq!(batch.len(), 3);
    }

    /// What is passed on to another daemon is there what it was here.
    #[test]
    fn a_batch_of_parts_is_the_same_batch() {
        let key = FingerprintKey::new([7; 16]);
        let rules = Arc::new(Rules { limits: Limits::default(), key });
        let mut batch = Batch::new(rules.clone());
        let at = Some(Timestamp::EPOCH);
        for event in [
            Event { id: "one", topic: "a", body: "x", ..Event::default() },
            Event { topic: "b.c", data: b"\0", at, key: "k", ..Event::default() },
            Event { topic: "a", headers: vec![("h", "v")], kind: "t", ..Event::default() },
        ] {
            batch.push(&event).unwrap();
        }
        let mut other = Batch::new(rules);
        for (part, given_id) in batch.parts() {
            other.push_part(part, given_id).unwrap();
        }
        let shape = |batch: &Batch| {
            let of = |item: Item<'_>| match item.name {
                Name::Sender(print) => {
                    (item.client_part.to_vec(), format!("{print:?}"), item.fill_at)
                }
                Name::Us(id) => (item.client_part.to_vec(), id.to_owned(), item.fill_at),
            };
            (batch.items(0).map(of).collect::<Vec<_>>(), batch.last_id().map(str::to_owned))
        };
        assert_eq!(shape(&other), shape(&batch));
        assert_eq!(other.stored_bytes(), batch.stored_bytes());
        // Nothing that would get into the log unseen.
        assert!(other.push_part(b"\xff", "").is_err());
        let (unnamed, _) = batch.parts().nth(1).unwrap();
        for id in ["", "short", "\u{e9}123456789012345678901234567890123\u{e9}"] {
            assert!(other.push_part(unnamed, id).is_err(), "{id}");
        }
        assert_eq!(other.len(), 3);
    }

    #[test]
    fn given_ids_are_of_version_7_and_rise() {
        let mut last = next_id(None);
        for _ in 0..10_000 {
            let next = next_id(Some(last));
            assert!(next > last && next.get_version_num() == 7);
            assert_eq!(next.get_variant(), uuid::Variant::RFC4122);
            last = next;
        }
        // One that has no next is followed by one that is drawn.
        let highest = Uuid::from_u128(last.as_u128() | ((1 << 62) - 1));
        let next = next_id(Some(highest));
        assert_eq!(next.get_variant(), uuid::Variant::RFC4122);
        assert_ne!(next, highest);
    }
    #[test]
    fn ids_are_given_whatever_the_clock_says() {
        let at = |seconds, nanos| Timestamp { seconds, nanos };
        for now in [
            Timestamp::EPOCH,
            at(-1, 999_999_999),
            at(i64::MIN, 0),
            at(1_800_000_000, 5),
            at(253_402_300_799, 999_999_999),
            at(i64::MAX, i32::MAX),
            at(0, -1),
        ] {
            let (one, two) = (id_at(now), id_at(now));
            assert!(one != two && one.get_version_num() == 7, "{now:?}");
            assert_eq!(one.get_variant(), uuid::Variant::RFC4122);
        }
    }
}
