//! The chain over a log's events: what tells one history from another.
//!
//! Every event has a link, made of the link before it and of the event. So two logs that have the
//! same link at a seq have the same events up to there, and a directory that was put back, cloned or
//! patched together is found where its links do not join. 32 bits of a link are in the event's
//! cursor. XXH3-128 is enough against accidents; it proves nothing against somebody who forges.
//! `migrations/0002_history/FORMAT.md` freezes this.
//!
//! A link covers what an event says only through two hashes, of its payload and of the rest, so that
//! both can be erased later and the chain still proves everything else.

use std::fmt;
use std::ops::Range;

use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use tailmark_record::{ChainTag, Cursor, EventError, Facts, Seq, Timestamp, payload_of};

/// XXH3-128, seed 0, canonical (big-endian) bytes.
pub(crate) type Hash = [u8; 16];

pub(crate) fn hash(bytes: &[u8]) -> Hash {
    xxh3_128(bytes).to_be_bytes()
}

/// The link at one event; before the first, all zeros.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Link(Hash);

/// Behind the tag of a link of which no more is known.
const ONLY_TAG: [u8; 12] = *b"only the tag";

impl Link {
    /// Before the first event of a log.
    pub const START: Link = Link([0; 16]);

    /// One of which nothing is known: behind events that are gone, and what could tell of them too.
    pub const UNKNOWN: Link = Link::of_tag(ChainTag::START);

    /// One of which only the tag is known, from a cursor.
    pub const fn of_tag(tag: ChainTag) -> Link {
        let ([a, b, c, d], [e, f, g, h, i, j, k, l, m, n, o, p]) =
            (tag.get().to_be_bytes(), ONLY_TAG);
        Link([a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p])
    }

    /// Whether all of it is known.
    pub fn is_whole(self) -> bool {
        self.0[4..] != ONLY_TAG
    }

    /// What a cursor carries of it, if that is known.
    pub fn known_tag(self) -> Option<ChainTag> {
        (self != Link::UNKNOWN).then(|| self.tag())
    }

    /// Whether it may be the same as another, as far as both are known.
    pub fn joins(self, other: Link) -> bool {
        self == other
            || !(self.is_whole() && other.is_whole())
                && match (self.known_tag(), other.known_tag()) {
                    (Some(one), Some(two)) => one == two,
                    _ => true,
                }
    }

    /// Of its bytes.
    pub const fn new(bytes: [u8; 16]) -> Link {
        Link(bytes)
    }

    /// Its bytes.
    pub const fn bytes(self) -> [u8; 16] {
        self.0
    }

    /// What a cursor carries of it.
    pub const fn tag(self) -> ChainTag {
        let [a, b, c, d, ..] = self.0;
        ChainTag::new(u32::from_be_bytes([a, b, c, d]))
    }

    /// The link of the event after this one.
    #[must_use]
    pub fn then(self, seq: Seq, appended_at: Timestamp, said: Said) -> Link {
        let mut bytes = [0; 52];
        bytes[..16].copy_from_slice(&self.0);
        bytes[16..24].copy_from_slice(&seq.get().to_le_bytes());
        bytes[24..32].copy_from_slice(&appended_at.seconds.to_le_bytes());
        bytes[32..36].copy_from_slice(&appended_at.nanos.to_le_bytes());
        bytes[36..].copy_from_slice(&said.0);
        Link(hash(&bytes))
    }

    /// The link of a stored event after this one. Behind one that is not known whole, its cursor tells the
    /// tag, and no more.
    #[must_use]
    pub fn then_event(self, event: &[u8], facts: &Facts<'_>) -> Link {
        if !self.is_whole() {
            return tag_in(event).map_or(Link::UNKNOWN, Link::of_tag);
        }
        self.then(facts.seq, facts.appended_at, Digests::of_event(event, facts).said())
    }

    /// The link at the last of some stored events, `EventBatch.events` entries.
    ///
    /// # Errors
    /// When they are not stored events.
    pub fn then_all(self, entries: &[u8]) -> Result<Link, EventError> {
        tailmark_record::Events::new(entries).try_fold(self, |link, event| {
            let event = event?;
            Ok(link.then_event(event, &Facts::scan(event)?))
        })
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The tag in a stored event's cursor.
///
/// # Errors
/// When it has none.
pub(crate) fn tag_in(event: &[u8]) -> Result<ChainTag, EventError> {
    let place = tailmark_record::Event::place_of(event)?;
    let text = std::str::from_utf8(place.cursor).unwrap_or_default();
    match Cursor::parse(text) {
        Ok(Cursor::Token { tag: Some(tag), .. }) => Ok(tag),
        _ => Err(EventError::new("its cursor cannot be read")),
    }
}

/// What an event says, hashed: everything but its place and its time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Said(Hash);

impl Said {
    /// Of a client part, and of the id that the server gave; empty where the sender named it.
    ///
    /// # Errors
    /// When the bytes are not protobuf.
    pub fn of_part(client_part: &[u8], given_id: &str) -> Result<Said, EventError> {
        Ok(Said::of(client_part, &payload_of(client_part)?, given_id.as_bytes()))
    }

    /// Of a client part, of the places in it that are payload, and of the id that the server gave;
    /// empty where the sender named it.
    pub(crate) fn of(client_part: &[u8], payload: &[Range<usize>; 2], given_id: &[u8]) -> Said {
        Digests::of(client_part, payload, given_id).said()
    }
}

/// The two hashes by which a link covers what an event says. They are kept of one that was erased.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Digests {
    pub(crate) rest: Hash,
    pub(crate) payload: Hash,
}

impl Digests {
    fn of(client_part: &[u8], payload: &[Range<usize>; 2], given_id: &[u8]) -> Digests {
        let [one, two] = in_order(payload);
        let part = |range: Range<usize>| client_part.get(range).unwrap_or_default();
        let rest = [part(0..one.start), part(one.end..two.start), part(two.end..client_part.len())];
        let payload = match (part(one), part(two)) {
            (whole, []) | ([], whole) => hash(whole),
            (first, second) => hash_all(&[first, second]),
        };
        let [head, middle, tail] = rest;
        Digests { rest: hash_all(&[head, middle, tail, given_id]), payload }
    }

    /// Of a stored event; those that are kept where it was erased.
    pub(crate) fn of_event(event: &[u8], facts: &Facts<'_>) -> Digests {
        match &facts.erased {
            Some(erased) => Digests { rest: erased.rest_digest, payload: erased.payload_digest },
            None => {
                let client_part = event.get(..facts.client_len).unwrap_or_default();
                Digests::of(client_part, &facts.payload, facts.given_id)
            }
        }
    }

    pub(crate) fn said(&self) -> Said {
        let mut both = [0; 32];
        both[..16].copy_from_slice(&self.rest);
        both[16..].copy_from_slice(&self.payload);
        Said(hash(&both))
    }
}

/// The two ranges by place, an absent one at the end of the other.
fn in_order([body, data]: &[Range<usize>; 2]) -> [Range<usize>; 2] {
    match (body.is_empty(), data.is_empty()) {
        (true, true) => [0..0, 0..0],
        (false, true) => [body.clone(), body.end..body.end],
        (true, false) => [data.clone(), data.end..data.end],
        (false, false) if body.start < data.start => [body.clone(), data.clone()],
        (false, false) => [data.clone(), body.clone()],
    }
}

/// The hash of some bytes one after the other.
fn hash_all(parts: &[&[u8]]) -> Hash {
    /// What fits is hashed at once, which costs a small part of a hasher that is fed.
    const AT_ONCE: usize = 512;
    let len = parts.iter().map(|part| part.len()).sum();
    let mut joined = [0; AT_ONCE];
    match joined.get_mut(..len) {
        Some(joined) => {
            let mut at = 0;
            for part in parts {
                joined[at..at + part.len()].copy_from_slice(part);
                at += part.len();
            }
            hash(joined)
        }
        None => {
            let mut hasher = Xxh3::new();
            parts.iter().for_each(|part| hasher.update(part));
            hasher.digest128().to_be_bytes()
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use tailmark_record::{
        CursorMint, Erased, Event, Events, Generation, LogId, Stamp, write_entry, write_shell,
    };

    fn stored(event: &Event<'_>, seq: u64, seconds: i64, fill_id: Option<&str>) -> Vec<u8> {
        let log = LogId::new(uuid::Uuid::from_u128(1));
        let mint = CursorMint::new(log, Generation { counter: 1, nonce: 1 });
        let (mut part, mut entry) = (Vec::new(), Vec::new());
        event.write_client_part(&mut part);
        let appended_at = Timestamp { seconds, nanos: 5 }.into();
        let (seq, tag, fill_at) = (Seq::new(seq), ChainTag::START, event.at.is_none());
        write_entry(
            &mut entry,
            &part,
            &Stamp { seq, mint: &mint, tag, appended_at, fill_at, fill_id },
        );
        entry
    }

    fn event() -> Event<'static> {
        Event { id: "i", topic: "a.b", body: "text", kind: "k", key: "key", ..Event::default() }
    }

    /// Frozen: the bytes of a log depend on it.
    #[test]
    fn links_are_what_they_were() {
        let one = Link::START.then_all(&stored(&event(), 1, 7, None)).unwrap();
        let two = one.then_all(&stored(&event(), 2, 7, None)).unwrap();
        assert_eq!(
            (one.to_string().as_str(), two.to_string().as_str()),
            ("2ad4db225135be11fdeaf65b606ce827", "5d1fc60489053087ad448c069127c4ee")
        );
        assert_eq!(one.tag().get().to_be_bytes(), one.bytes()[..4]);
        // By hand, from the description.
        let (payload, rest) = (b"\x1a\x04text", b"\x0a\x01i\x12\x03a.bB\x01kJ\x03key");
        let said = hash(&[hash(rest), hash(payload)].concat());
        let place = [&1u64.to_le_bytes()[..], &7i64.to_le_bytes(), &5i32.to_le_bytes()].concat();
        let link = hash(&[&[0; 16][..], &place, &said].concat());
        assert_eq!(one, Link::new(link));
    }

    /// The shell of a stored event, as an entry.
    fn shell(event: &[u8]) -> Vec<u8> {
        let Digests { rest, payload } = Digests::of_event(event, &Facts::scan(event).unwrap());
        let (reason, erasure) = ("why", "1");
        let (rest_digest, payload_digest, erased_at) = (rest, payload, Timestamp::EPOCH);
        let erased = Erased { rest_digest, payload_digest, reason, erased_at, erasure };
        let mut out = Vec::new();
        write_shell(&mut out, event, &erased).unwrap();
        out
    }

    proptest! {
        /// Whatever an event said: what is left of it when it is erased has its link, alone and among others.
        #[test]
        fn a_shell_has_the_link_of_its_event(
            id in "\\PC{0,9}", body in "\\PC{0,9}", key in "\\PC{0,9}", kind in "\\PC{0,700}",
            data in proptest::collection::vec(any::<u8>(), 0..9), header in "\\PC{1,9}",
            at in proptest::option::of(0i64..9), given in any::<bool>(), seq in 1u64..u64::MAX,
        ) {
            let at = at.map(|seconds| Timestamp { seconds, nanos: 0 });
            let headers = vec![(&*header, "value")];
            let one = Event { id: &id, topic: "t", body: &body, data: &data, kind: &kind, key: &key,
                headers, at, ..Event::default() };
            let fill_id = (given && id.is_empty()).then_some("given");
            let entries = [stored(&event(), seq - 1, 1, None), stored(&one, seq, 2, fill_id)];
            let [before, after] = entries.map(|entry| {
                let event = Events::new(&entry).next().unwrap().unwrap().to_vec();
                (entry, shell(&event))
            });
            let link = Link::START.then_all(&[&*before.0, &*after.0].concat()).unwrap();
            for other in [[&before.1, &after.0], [&before.0, &after.1], [&before.1, &after.1]] {
                prop_assert_eq!(Link::START.then_all(&other.map(|it| &**it).concat()), Ok(link));
            }
            // Of other digests it has another.
            let place = after.1.windows(2).rposition(|two| two == [0x0a, 16]).unwrap() + 2;
            let mut altered = after.1;
            altered[place] ^= 1;
            let altered = [&*before.0, &*altered].concat();
            prop_assert_ne!(Link::START.then_all(&altered), Ok(link));
        }
    }

    #[test]
    fn a_link_covers_all_that_an_event_says_and_where_it_stands() {
        let long = "x".repeat(600);
        let same = stored(&event(), 1, 7, None);
        let link = Link::START.then_all(&same).unwrap();
        let mut others = vec![
            stored(&event(), 2, 7, None),
            stored(&event(), 1, 8, None),
            stored(&Event { id: "", ..event() }, 1, 7, None),
            stored(&Event { id: "", ..event() }, 1, 7, Some("i")),
            stored(&Event { id: "", ..event() }, 1, 7, Some("j")),
            stored(&Event { topic: "a.c", ..event() }, 1, 7, None),
            stored(&Event { body: "texT", ..event() }, 1, 7, None),
            stored(&Event { body: "", ..event() }, 1, 7, None),
            stored(&Event { body: "", data: b"text", ..event() }, 1, 7, None),
            stored(&Event { data: b"more", ..event() }, 1, 7, None),
            stored(&Event { kind: "kk", ..event() }, 1, 7, None),
            stored(&Event { key: "", ..event() }, 1, 7, None),
            stored(&Event { key: &long, ..event() }, 1, 7, None),
            stored(&Event { headers: vec![("h", "1")], ..event() }, 1, 7, None),
            stored(&Event { at: Some(Timestamp::EPOCH), ..event() }, 1, 7, None),
        ];
        others.push([same.clone(), same].concat());
        let mut links: Vec<_> =
            others.iter().map(|entries| Link::START.then_all(entries).unwrap()).collect();
        links.push(link);
        links.push(Link::new([1; 16]).then_all(&others[0]).unwrap());
        let distinct: std::collections::HashSet<_> = links.iter().collect();
        assert_eq!(distinct.len(), links.len());
    }

    #[test]
    fn a_link_does_not_depend_on_the_cursor_or_on_how_entries_are_joined() {
        let entries = [stored(&event(), 1, 7, None), stored(&event(), 2, 7, None)];
        let apart = Link::START.then_all(&entries[0]).unwrap().then_all(&entries[1]).unwrap();
        assert_eq!(Link::START.then_all(&entries.concat()), Ok(apart));
        let log = LogId::new(uuid::Uuid::from_u128(2));
        let mint = CursorMint::new(log, Generation { counter: 9, nonce: 3 });
        let (mut part, mut other) = (Vec::new(), Vec::new());
        event().write_client_part(&mut part);
        let appended_at = Timestamp { seconds: 7, nanos: 5 }.into();
        let tag = ChainTag::new(77);
        let (seq, fill_id) = (Seq::FIRST, None);
        write_entry(
            &mut other,
            &part,
            &Stamp { seq, mint: &mint, tag, appended_at, fill_at: true, fill_id },
        );
        assert_ne!(other, entries[0]);
        assert_eq!(Link::START.then_all(&other), Link::START.then_all(&entries[0]));
        assert_eq!(Events::new(&other).count(), 1);
    }
}
