//! Reading of a stored event only what storage needs: one pass, no allocation.

use std::ops::Range;

use super::event::timestamp;
use super::varint::{Reader, Value};
use super::{Erased, EventError, Seq, Timestamp};

/// What storage needs to know of a stored event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts<'a> {
    /// Its position.
    pub seq: Seq,
    /// Its topic, as bytes that were text when it was stored.
    pub topic: &'a [u8],
    /// When it was appended.
    pub appended_at: Timestamp,
    /// Its sender named it.
    pub has_client_id: bool,
    /// The id that the server gave it, as bytes that were text; empty where its sender named it.
    pub given_id: &'a [u8],
    /// Length of the client part, which is a prefix.
    pub client_len: usize,
    /// Where the fields `body` and `data` lie, tag and length included; empty = absent.
    pub payload: [Range<usize>; 2],
    /// It was erased, and says nothing any more.
    pub erased: Option<Erased<'a>>,
}

impl<'a> Facts<'a> {
    /// Reads an encoded stored event.
    ///
    /// # Errors
    /// When the bytes are not protobuf, a field has another type, what the server adds to a
    /// stored event is not there, or an erased one says something all the same.
    pub fn scan(bytes: &'a [u8]) -> Result<Facts<'a>, EventError> {
        let mut reader = Reader { rest: bytes };
        let (mut topic, mut given_id, mut has_client_id): (&[u8], &[u8], bool) = (&[], &[], false);
        let (mut stored, mut appended_at) = (None, None);
        let (mut payload, mut erased, mut says_more) = ([0..0, 0..0], None, false);
        loop {
            let start = bytes.len() - reader.rest.len();
            let Some((number, value)) = reader.field()? else { break };
            let end = bytes.len() - reader.rest.len();
            match (number, value) {
                (1, Value::Bytes(v)) if stored.is_some() => given_id = v,
                (1, Value::Bytes(v)) => has_client_id |= !v.is_empty(),
                (2, Value::Bytes(v)) => topic = v,
                (3, Value::Bytes(_)) => payload[0] = start..end,
                (7, Value::Bytes(_)) => payload[1] = start..end,
                (5, Value::Varint(_)) if stored.is_some() => {
                    return Err(EventError::new("two seqs"));
                }
                (5, Value::Varint(v)) => stored = Some((Seq::new(v), start)),
                (11, Value::Bytes(v)) => appended_at = Some(timestamp(v, appended_at)?),
                (8..=10, _) => says_more = true,
                (12, Value::Bytes(v)) if stored.is_some() => erased = Some(Erased::parse(v)?),
                (1 | 2 | 3 | 5 | 7 | 11 | 12, _) => {
                    return Err(EventError::new("a field has another type"));
                }
                _ => {}
            }
        }
        let (seq, client_len) = stored.ok_or(EventError::new("no seq"))?;
        let appended_at = appended_at.ok_or(EventError::new("no append time"))?;
        let is_empty = payload.iter().all(Range::is_empty) && given_id.is_empty();
        if erased.is_some() && (says_more || has_client_id || !is_empty) {
            return Err(EventError::new("an erased event says something"));
        }
        let facts =
            Facts { seq, topic, appended_at, has_client_id, given_id, client_len, payload, erased };
        Ok(facts)
    }
}

/// Where the fields `body` and `data` lie in a client part, tag and length included; empty = absent.
///
/// # Errors
/// When the bytes are not protobuf.
pub fn payload_of(client_part: &[u8]) -> Result<[Range<usize>; 2], EventError> {
    let mut reader = Reader { rest: client_part };
    let mut payload = [0..0, 0..0];
    loop {
        let start = client_part.len() - reader.rest.len();
        let Some((number, _)) = reader.field()? else { return Ok(payload) };
        let end = client_part.len() - reader.rest.len();
        match number {
            3 => payload[0] = start..end,
            7 => payload[1] = start..end,
            _ => {}
        }
    }
}
