//! What is left of an event that was erased: a shell.
//!
//! A shell keeps its topic, seq, times and cursor, and nothing else that its event said. Two digests take the
//! place of that, so that the chain over the events stays what it was. Only the server makes one:
//! `migrations/0002_history/FORMAT.md`.

use super::event::{ENTRY_TAG, put_timestamp, text, timestamp, timestamp_len};
use super::varint::{LEN, Reader, Value, put_bytes, put_varint, varint_len};
use super::{Event, EventError, Events, Stamp, Timestamp, write_entry};

/// `type` of an event that tells the readers of its topic what was erased.
pub const NOTICE: &str = "tailmark.erased";
/// What the ids of those begin with.
pub const NOTICE_ID: &str = "erased-";

const ERASED_TAG: u8 = 12 << 3 | LEN;
const AT_TAG: u8 = 4 << 3 | LEN;
/// Bytes of a digest.
const DIGEST_BYTES: usize = 16;

/// What a shell says of the erasure that made it, `feed.v1.Erased` on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Erased<'a> {
    /// Of what the event said beside its payload.
    pub rest_digest: [u8; DIGEST_BYTES],
    /// Of its payload.
    pub payload_digest: [u8; DIGEST_BYTES],
    /// Why, as who erased it said.
    pub reason: &'a str,
    /// When the erasure was ordered.
    pub erased_at: Timestamp,
    /// Id of the erasure.
    pub erasure: &'a str,
}

impl<'a> Erased<'a> {
    /// Most bytes of a reason.
    pub const MAX_REASON_BYTES: usize = 200;

    /// Reads the message.
    ///
    /// # Errors
    /// When it is not protobuf, a field has another type, or a digest another length.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Erased<'a>, EventError> {
        const NO_DIGEST: EventError = EventError::of("a digest of an erased event is missing");
        let (mut rest, mut payload, mut at) = (None, None, None);
        let (mut reason, mut erasure) = ("", "");
        let mut reader = Reader { rest: bytes };
        while let Some(field) = reader.field()? {
            match field {
                (1, Value::Bytes(v)) => rest = Some(v),
                (2, Value::Bytes(v)) => payload = Some(v),
                (3, Value::Bytes(v)) => reason = text(v)?,
                (4, Value::Bytes(v)) => at = Some(timestamp(v, at)?),
                (5, Value::Bytes(v)) => erasure = text(v)?,
                (1..=5, _) => return Err(EventError::new("a field has another type")),
                _ => {}
            }
        }
        let digest =
            |bytes: Option<&[u8]>| bytes.and_then(|it| it.try_into().ok()).ok_or(NO_DIGEST);
        let erased_at = at.ok_or(EventError::new("the time of an erasure is missing"))?;
        let (rest_digest, payload_digest) = (digest(rest)?, digest(payload)?);
        Ok(Erased { rest_digest, payload_digest, reason, erased_at, erasure })
    }

    /// In place of what it said, for people.
    pub fn in_words(&self) -> String {
        format!("(erased: {})", self.reason)
    }

    fn write(&self, out: &mut Vec<u8>) {
        let time = timestamp_len(self.erased_at);
        let text_len = |text: &str| match text.len() as u64 {
            0 => 0,
            len => 1 + varint_len(len) + text.len(),
        };
        let len = 2 * (2 + DIGEST_BYTES)
            + text_len(self.reason)
            + (1 + varint_len(time as u64) + time)
            + text_len(self.erasure);
        out.push(ERASED_TAG);
        put_varint(out, len as u64);
        put_bytes(out, 1, &self.rest_digest);
        put_bytes(out, 2, &self.payload_digest);
        put_bytes(out, 3, self.reason.as_bytes());
        put_timestamp(out, AT_TAG, self.erased_at);
        put_bytes(out, 5, self.erasure.as_bytes());
    }
}

/// Appends one `EventBatch.events` entry: the shell of a stored event. Its place, its times, its topic and its
/// cursor are kept as they are. That of a shell is the same shell, with what is now said of the erasure.
///
/// # Errors
/// When the bytes are no event.
pub fn write_shell(out: &mut Vec<u8>, event: &[u8], erased: &Erased<'_>) -> Result<(), EventError> {
    let mut shell = Vec::with_capacity(256 + erased.reason.len());
    let mut reader = Reader { rest: event };
    loop {
        let start = event.len() - reader.rest.len();
        let Some((number, _)) = reader.field()? else { break };
        let end = event.len() - reader.rest.len();
        if matches!(number, 2 | 4 | 5 | 6 | 11) {
            shell.extend_from_slice(event.get(start..end).unwrap_or_default());
        }
    }
    erased.write(&mut shell);
    out.push(ENTRY_TAG);
    put_varint(out, shell.len() as u64);
    out.extend_from_slice(&shell);
    Ok(())
}

/// Appends the entry of a shell in another place: its client part, and what the server adds to it there.
///
/// # Errors
/// When the part is none of an event.
pub fn write_shell_entry(
    out: &mut Vec<u8>,
    client_part: &[u8],
    stamp: &Stamp<'_>,
    erased: &Erased<'_>,
) -> Result<(), EventError> {
    let mut entry = Vec::with_capacity(client_part.len() + 256);
    write_entry(&mut entry, client_part, stamp);
    let event = Events::new(&entry).next().unwrap_or(Err(EventError::MISSING))?;
    write_shell(out, event, erased)
}

impl Event<'_> {
    /// Whether it is what is left of an event that was erased.
    pub fn is_erased(&self) -> bool {
        self.erased.is_some()
    }

    /// Whether it tells the readers of its topic what was erased. A sender may say the same of an event.
    pub fn is_notice(&self) -> bool {
        self.kind == NOTICE && self.id.starts_with(NOTICE_ID)
    }
}

#[cfg(test)]
mod tests;
