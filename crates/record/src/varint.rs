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
#[expect(clippy::cast_possible_truncation, reason = "seven bits at a time")]
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// What a field of type int32 or an enum has for a varint: its low 32 bits, as protobuf says.
#[expect(clippy::cast_possible_truncation, reason = "the encoding cuts what is longer")]
pub(super) const fn int32(value: u64) -> i32 {
    value as i32
}

/// What an int32 is encoded as: ten bytes where it is negative.
pub(super) fn of_int32(value: i32) -> u64 {
    i64::from(value).cast_unsigned()
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

/// Takes a varint of any length off the front.
#[inline]
fn long_varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    // Up to eight bytes at once: the last one is the first without its highest bit.
    if let Some(eight) = bytes.first_chunk() {
        let eight = u64::from_le_bytes(*eight);
        let ends = !eight & 0x8080_8080_8080_8080;
        if ends != 0 {
            let len = ends.trailing_zeros() as usize / 8 + 1;
            // Seven bits of each, brought together in pairs, fours and eights.
            let sevens = eight & (u64::MAX >> (64 - 8 * len)) & 0x7f7f_7f7f_7f7f_7f7f;
            let pairs = sevens & 0x007f_007f_007f_007f | (sevens & 0x7f00_7f00_7f00_7f00) >> 1;
            let fours = pairs & 0x0000_3fff_0000_3fff | (pairs & 0x3fff_0000_3fff_0000) >> 2;
            let value = fours & 0x0fff_ffff | (fours >> 32) << 28;
            return Some((value, &bytes[len..]));
        }
    }
    let mut value = 0u64;
    for (at, &byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte < 0x80 {
            let fits = at < 9 || byte <= 1;
            return fits.then(|| (value, &bytes[at + 1..]));
        }
    }
    None
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
    #[inline(always)]
    pub(super) fn varint(&mut self) -> Result<u64, EventError> {
        // Tags and short lengths, then the lengths of most bodies. What is left is passed by value:
        // it would have to lie in memory else, and this is what reading events comes down to.
        let (value, rest) = match self.rest {
            [first @ 0..=0x7f, rest @ ..] => (u64::from(*first), rest),
            [first, second @ 0..=0x7f, rest @ ..] => {
                (u64::from(*first & 0x7f) | u64::from(*second) << 7, rest)
            }
            longer => long_varint(longer).ok_or(EventError::new("bad varint"))?,
        };
        self.rest = rest;
        Ok(value)
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
    #[inline(always)]
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
