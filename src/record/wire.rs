//! The few protobuf wire primitives that the event codec needs.
//! <https://protobuf.dev/programming-guides/encoding/>

use super::EventError;

pub(super) const VARINT: u8 = 0;
pub(super) const FIXED64: u8 = 1;
pub(super) const LEN: u8 = 2;
pub(super) const FIXED32: u8 = 5;

/// CRC-32C (Castagnoli) of `bytes`, going on from `seed`.
pub(super) fn crc32c(seed: u32, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(seed, bytes)
}

/// Bytes that `value` takes as a varint.
pub const fn varint_len(value: u64) -> usize {
    // 7 bits a byte, at least one.
    ((64 - (value | 1).leading_zeros()) as usize).div_ceil(7)
}

/// Appends `value` as a varint.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes a varint off the front; `None` when there is none.
pub fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut reader = Reader { rest: bytes };
    let value = reader.varint().ok()?;
    *bytes = reader.rest;
    Some(value)
}

/// A length-delimited field; nothing for an empty value, as proto3 has it.
pub(super) fn put_bytes(out: &mut Vec<u8>, field: u8, value: &[u8]) {
    if !value.is_empty() {
        out.push(field << 3 | LEN);
        put_varint(out, value.len() as u64);
        out.extend_from_slice(value);
    }
}

/// Reads fields one after the other.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    pub(super) rest: &'a [u8],
}

/// One field's value.
pub(super) enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    /// Fixed-width numbers, which no field of ours has.
    Other,
}

impl<'a> Reader<'a> {
    #[inline]
    pub(super) fn varint(&mut self) -> Result<u64, EventError> {
        // Tags and short lengths, then the lengths of most bodies.
        match self.rest {
            [first @ 0..=0x7f, rest @ ..] => {
                self.rest = rest;
                Ok(u64::from(*first))
            }
            [first, second @ 0..=0x7f, rest @ ..] => {
                self.rest = rest;
                Ok(u64::from(*first & 0x7f) | u64::from(*second) << 7)
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64, EventError> {
        let mut value = 0u64;
        for (at, &byte) in self.rest.iter().enumerate().take(10) {
            value |= u64::from(byte & 0x7f) << (7 * at);
            if byte < 0x80 {
                if at == 9 && byte > 1 {
                    break;
                }
                self.rest = &self.rest[at + 1..];
                return Ok(value);
            }
        }
        Err(EventError::new("bad varint"))
    }

    #[inline]
    pub(super) fn take(&mut self, len: u64) -> Result<&'a [u8], EventError> {
        match usize::try_from(len) {
            Ok(len) if len <= self.rest.len() => {
                let (taken, rest) = self.rest.split_at(len);
                self.rest = rest;
                Ok(taken)
            }
            _ => Err(EventError::new("truncated")),
        }
    }

    /// The next field's number and value; `None` at the end.
    #[inline]
    pub(super) fn field(&mut self) -> Result<Option<(u64, Value<'a>)>, EventError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = tag >> 3;
        if number == 0 || number > 0x1fff_ffff {
            return Err(EventError::new("bad field number"));
        }
        let value = match (tag & 7) as u8 {
            VARINT => Value::Varint(self.varint()?),
            LEN => {
                let len = self.varint()?;
                Value::Bytes(self.take(len)?)
            }
            FIXED64 => {
                self.take(8)?;
                Value::Other
            }
            FIXED32 => {
                self.take(4)?;
                Value::Other
            }
            // Groups have been deprecated since before gRPC existed.
            _ => return Err(EventError::new("bad wire type")),
        };
        Ok(Some((number, value)))
    }
}
