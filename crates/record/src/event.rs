//! One event, as the bytes of an encoded `feed.v1.Event`.
//!
//! An event is read as a view that borrows from those bytes, and written in one canonical order:
//! the **client part** (fields 1 2 3 4 7 8 9 10, absent ones left out, headers sorted), then the
//! **server part** (5 6 11, then 4 if the client gave no time, then 1 if it gave no id). So a
//! stored event tells what its sender really said: the client part is the prefix before field 5.
//! What is left of one that was erased has field 12 at its end ([`Erased`]).
//! `migrations/0002_history/FORMAT.md` freezes this.

use super::varint::{
    LEN, Reader, VARINT, Value, int32, of_int32, put_bytes, put_varint, varint_len,
};
use super::{ChainTag, CursorMint, Erased, Seq, Timestamp};

const SEQ_TAG: u8 = 5 << 3 | VARINT;
#[expect(clippy::cast_possible_truncation, reason = "of 33 characters")]
const CURSOR_HEAD: [u8; 2] = [6 << 3 | LEN, CursorMint::LEN as u8];
const APPENDED_AT_TAG: u8 = 11 << 3 | LEN;
const AT_TAG: u8 = 4 << 3 | LEN;
/// `EventBatch.events`.
pub(super) const ENTRY_TAG: u8 = 1 << 3 | LEN;

/// Bytes that are no event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed event: {what}")]
pub struct EventError {
    what: &'static str,
}

impl EventError {
    /// Fewer events than there should be.
    pub const MISSING: EventError = EventError { what: "an event is missing" };

    /// Bytes that are not what they should be, and in what.
    pub fn new(what: &'static str) -> Self {
        EventError::of(what)
    }

    pub(super) const fn of(what: &'static str) -> Self {
        EventError { what }
    }

    /// What is wrong, in a few words.
    pub fn what(&self) -> &'static str {
        self.what
    }
}

/// What an event says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content<'a> {
    /// Nothing.
    Empty,
    /// Text.
    Body(&'a str),
    /// Bytes.
    Data(&'a [u8]),
}

/// Where a delivered event stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    /// Its position; 0 for a marker.
    pub seq: Seq,
    /// Names it: ASCII, as all cursors are.
    pub cursor: &'a [u8],
    /// It is a marker and no event.
    pub has_marker: bool,
}

/// A view of one event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event<'a> {
    /// The sender's name for it, or one that the server gave.
    pub id: &'a str,
    /// Dot-separated segments.
    pub topic: &'a str,
    /// Text content.
    pub body: &'a str,
    /// Binary content; never together with `body` in a stored event.
    pub data: &'a [u8],
    /// The sender's time, or the append time where it gave none.
    pub at: Option<Timestamp>,
    /// 0 in an event that was not stored yet.
    pub seq: Seq,
    /// Empty in an event that was not stored yet.
    pub cursor: &'a str,
    /// `type` on the wire.
    pub kind: &'a str,
    /// What it is about.
    pub key: &'a str,
    /// As they came; sorted by name in a stored event.
    pub headers: Vec<(&'a str, &'a str)>,
    /// The server's time.
    pub appended_at: Option<Timestamp>,
    /// It was erased: what it said is gone. No client may send that.
    pub erased: Option<Erased<'a>>,
    /// A marker was set, which no client may send.
    pub has_marker: bool,
    /// The sender named it (false: the server did).
    pub has_client_id: bool,
    /// The sender gave a time (false: the server did).
    pub has_client_at: bool,
}

impl<'a> Event<'a> {
    /// Reads an encoded event. Unknown fields are passed over; of a repeated singular field the
    /// last counts, as protobuf has it.
    ///
    /// # Errors
    /// When the bytes are not protobuf, a known field has another type, or text is not UTF-8.
    pub fn parse(bytes: &'a [u8]) -> Result<Event<'a>, EventError> {
        let mut event = Event::default();
        // Two equal times, as where the sender gave none, are read once.
        let mut appended_at: &[u8] = &[];
        let mut reader = Reader { rest: bytes };
        while let Some((number, value)) = reader.field()? {
            match (number, value) {
                (1, Value::Bytes(v)) => {
                    event.id = text(v)?;
                    event.has_client_id = event.seq == Seq::ZERO && !v.is_empty();
                }
                (2, Value::Bytes(v)) => event.topic = text(v)?,
                (3, Value::Bytes(v)) => event.body = text(v)?,
                (4, Value::Bytes(v)) => {
                    let is_known = event.at.is_none() && !v.is_empty() && v == appended_at;
                    event.at = match event.appended_at {
                        Some(time) if is_known => Some(time),
                        _ => Some(timestamp(v, event.at)?),
                    };
                    event.has_client_at = event.seq == Seq::ZERO;
                }
                (5, Value::Varint(v)) => event.seq = Seq::new(v),
                (6, Value::Bytes(v)) => event.cursor = text(v)?,
                (7, Value::Bytes(v)) => event.data = v,
                (8, Value::Bytes(v)) => event.kind = text(v)?,
                (9, Value::Bytes(v)) => event.key = text(v)?,
                (10, Value::Bytes(v)) => event.headers.push(header(v)?),
                (11, Value::Bytes(v)) => {
                    appended_at = if event.appended_at.is_none() { v } else { &[] };
                    event.appended_at = Some(timestamp(v, event.appended_at)?);
                }
                (12, Value::Bytes(v)) => event.erased = Some(Erased::parse(v)?),
                (15, Value::Bytes(_)) => event.has_marker = true,
                (1..=12 | 15, _) => return Err(EventError::new("a field has another type")),
                _ => {}
            }
        }
        Ok(event)
    }

    /// What it says. `body` wins where both are set, which validation refuses.
    pub fn content(&self) -> Content<'a> {
        match (self.body, self.data) {
            ("", []) => Content::Empty,
            ("", data) => Content::Data(data),
            (body, _) => Content::Body(body),
        }
    }

    /// The topic of a stored event, without reading the rest.
    ///
    /// # Errors
    /// As [`Event::parse`].
    pub fn topic_of(bytes: &'a [u8]) -> Result<&'a str, EventError> {
        let mut reader = Reader { rest: bytes };
        while let Some((number, value)) = reader.field()? {
            if let (2, Value::Bytes(v)) = (number, value) {
                return text(v);
            }
        }
        Err(EventError::new("no topic"))
    }

    /// Where a delivered event stands, without reading the rest.
    ///
    /// # Errors
    /// As [`Event::parse`], and when the cursor is not ASCII.
    pub fn place_of(bytes: &'a [u8]) -> Result<Place<'a>, EventError> {
        let mut place = Place { seq: Seq::ZERO, cursor: &[], has_marker: false };
        let mut reader = Reader { rest: bytes };
        while let Some((number, value)) = reader.field()? {
            match (number, value) {
                (5, Value::Varint(v)) => place.seq = Seq::new(v),
                (6, Value::Bytes(v)) if v.is_ascii() => place.cursor = v,
                (6, Value::Bytes(_)) => return Err(EventError::new("a cursor is not ASCII")),
                (15, Value::Bytes(_)) => place.has_marker = true,
                (5 | 6 | 15, _) => return Err(EventError::new("a field has another type")),
                _ => {}
            }
        }
        Ok(place)
    }

    /// The seq of a stored event, without reading the rest.
    ///
    /// # Errors
    /// As [`Event::parse`], and when there is none.
    pub fn seq_of(bytes: &'a [u8]) -> Result<Seq, EventError> {
        let mut reader = Reader { rest: bytes };
        while let Some((number, value)) = reader.field()? {
            if let (5, Value::Varint(v)) = (number, value) {
                return Ok(Seq::new(v));
            }
        }
        Err(EventError::new("no seq"))
    }

    /// The part of a stored event that its sender gave: the prefix before the seq.
    ///
    /// # Errors
    /// When there is no seq.
    pub fn client_part(bytes: &'a [u8]) -> Result<&'a [u8], EventError> {
        let mut reader = Reader { rest: bytes };
        loop {
            let before = reader.rest.len();
            match reader.field()? {
                Some((5, Value::Varint(_))) => return Ok(&bytes[..bytes.len() - before]),
                Some(_) => {}
                None => return Err(EventError::new("no seq")),
            }
        }
    }

    /// Writes the canonical client part: what is stored of what the sender said.
    pub fn write_client_part(&self, out: &mut Vec<u8>) {
        put_bytes(out, 1, self.id.as_bytes());
        put_bytes(out, 2, self.topic.as_bytes());
        put_bytes(out, 3, self.body.as_bytes());
        if let Some(at) = self.at {
            put_timestamp(out, AT_TAG, at);
        }
        put_bytes(out, 7, self.data);
        put_bytes(out, 8, self.kind.as_bytes());
        put_bytes(out, 9, self.key.as_bytes());
        if !self.headers.is_empty() {
            // A map: one entry a name, the last wins; sorted, so that equal events are equal bytes.
            let headers: std::collections::BTreeMap<_, _> = self.headers.iter().copied().collect();
            for (name, value) in headers {
                let len = field_len(name) + field_len(value);
                out.push(10 << 3 | LEN);
                put_varint(out, len as u64);
                put_bytes(out, 1, name.as_bytes());
                put_bytes(out, 2, value.as_bytes());
            }
        }
    }
}

fn field_len(value: &str) -> usize {
    if value.is_empty() { 0 } else { 1 + varint_len(value.len() as u64) + value.len() }
}

pub(super) fn text(bytes: &[u8]) -> Result<&str, EventError> {
    std::str::from_utf8(bytes).map_err(|_| EventError::new("text is not UTF-8"))
}

fn header(bytes: &[u8]) -> Result<(&str, &str), EventError> {
    let (mut name, mut value) = ("", "");
    let mut reader = Reader { rest: bytes };
    while let Some(field) = reader.field()? {
        match field {
            (1, Value::Bytes(v)) => name = text(v)?,
            (2, Value::Bytes(v)) => value = text(v)?,
            (1 | 2, _) => return Err(EventError::new("a header has another type")),
            _ => {}
        }
    }
    Ok((name, value))
}

pub(super) fn timestamp(
    bytes: &[u8],
    merged_into: Option<Timestamp>,
) -> Result<Timestamp, EventError> {
    let mut t = merged_into.unwrap_or_default();
    let mut reader = Reader { rest: bytes };
    while let Some(field) = reader.field()? {
        match field {
            (1, Value::Varint(v)) => t.seconds = v.cast_signed(),
            (2, Value::Varint(v)) => t.nanos = int32(v),
            (1 | 2, _) => return Err(EventError::new("a time has another type")),
            _ => {}
        }
    }
    Ok(t)
}

pub(super) fn timestamp_len(t: Timestamp) -> usize {
    let part = |v: u64| if v == 0 { 0 } else { 1 + varint_len(v) };
    part(t.seconds.cast_unsigned()) + part(of_int32(t.nanos))
}

pub(super) fn put_timestamp(out: &mut Vec<u8>, tag: u8, t: Timestamp) {
    out.push(tag);
    put_varint(out, timestamp_len(t) as u64);
    for (field, v) in [(1u8, t.seconds.cast_unsigned()), (2, of_int32(t.nanos))] {
        if v != 0 {
            out.push(field << 3 | VARINT);
            put_varint(out, v);
        }
    }
}

/// A time as a field's length and value, for all events of a commit alike.
#[derive(Clone, Copy, Debug)]
pub struct EncodedTime {
    bytes: [u8; 1 + MAX_TIME_BYTES],
    len: usize,
}

/// Two numbers, each with its tag.
const MAX_TIME_BYTES: usize = 2 * (1 + 10);

impl From<Timestamp> for EncodedTime {
    fn from(time: Timestamp) -> Self {
        let mut text = Vec::with_capacity(2 + MAX_TIME_BYTES);
        put_timestamp(&mut text, AT_TAG, time);
        let mut bytes = [0; 1 + MAX_TIME_BYTES];
        let len = text.len() - 1;
        bytes[..len].copy_from_slice(&text[1..]);
        EncodedTime { bytes, len }
    }
}

impl EncodedTime {
    fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// What the server adds to an event when it appends it.
#[derive(Clone, Copy, Debug)]
pub struct Stamp<'a> {
    /// Its position.
    pub seq: Seq,
    /// Makes its cursor.
    pub mint: &'a CursorMint,
    /// Of the chain at it.
    pub tag: ChainTag,
    /// When.
    pub appended_at: EncodedTime,
    /// The sender gave no time.
    pub fill_at: bool,
    /// An id for an event whose sender gave none.
    pub fill_id: Option<&'a str>,
}

/// Appends one `EventBatch.events` entry: the client part as encoded, then the server part.
pub fn write_entry(out: &mut Vec<u8>, client_part: &[u8], stamp: &Stamp<'_>) {
    let time = stamp.appended_at.as_slice();
    let server_len = 1
        + varint_len(stamp.seq.get())
        + 2
        + CursorMint::LEN
        + (1 + time.len()) * if stamp.fill_at { 2 } else { 1 }
        + stamp.fill_id.map_or(0, field_len);
    out.push(ENTRY_TAG);
    put_varint(out, (client_part.len() + server_len) as u64);
    out.extend_from_slice(client_part);
    out.push(SEQ_TAG);
    put_varint(out, stamp.seq.get());
    out.extend_from_slice(&CURSOR_HEAD);
    out.extend_from_slice(&stamp.mint.mint(stamp.seq, stamp.tag));
    out.push(APPENDED_AT_TAG);
    out.extend_from_slice(time);
    if stamp.fill_at {
        out.push(AT_TAG);
        out.extend_from_slice(time);
    }
    if let Some(id) = stamp.fill_id {
        put_bytes(out, 1, id.as_bytes());
    }
}

/// Walks the events of an encoded `EventBatch`: each item is one encoded event.
#[derive(Clone, Copy)]
pub struct Events<'a> {
    reader: Reader<'a>,
}

impl<'a> Events<'a> {
    /// Over `EventBatch.events` entries and nothing else.
    pub fn new(entries: &'a [u8]) -> Self {
        Events { reader: Reader { rest: entries } }
    }

    /// Bytes not walked yet.
    pub fn remaining(&self) -> usize {
        self.reader.rest.len()
    }

    fn step(&mut self) -> Result<&'a [u8], EventError> {
        if self.reader.take(1)? != [ENTRY_TAG] {
            return Err(EventError::new("not an entry"));
        }
        let len = self.reader.varint()?;
        self.reader.take(len)
    }
}

impl<'a> Iterator for Events<'a> {
    type Item = Result<&'a [u8], EventError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.reader.rest.is_empty() {
            return None;
        }
        let step = self.step();
        if step.is_err() {
            // After a malformed entry there is no telling where the next begins.
            self.reader.rest = &[];
        }
        Some(step)
    }
}
