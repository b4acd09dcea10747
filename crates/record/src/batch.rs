//! What lies in an encoded `feed.v1.EventBatch`, one after the other.

use super::EventError;
use super::varint::{Reader, Value};

/// A part of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// An encoded `feed.v1.Event`.
    Event(&'a [u8]),
    /// An encoded `feed.v1.Marker`.
    Marker(&'a [u8]),
}

/// Walks the parts of a batch. Unknown fields are passed over.
#[derive(Clone, Copy)]
pub struct Parts<'a> {
    reader: Reader<'a>,
}

impl<'a> Parts<'a> {
    /// Over an encoded batch, or what is left of one.
    pub fn new(batch: &'a [u8]) -> Self {
        Parts { reader: Reader { rest: batch } }
    }

    /// Bytes not walked yet.
    pub fn remaining(&self) -> usize {
        self.reader.rest.len()
    }

    fn step(&mut self) -> Result<Option<Part<'a>>, EventError> {
        while let Some((number, value)) = self.reader.field()? {
            match (number, value) {
                (1, Value::Bytes(event)) => return Ok(Some(Part::Event(event))),
                (15, Value::Bytes(marker)) => return Ok(Some(Part::Marker(marker))),
                (1 | 15, _) => return Err(EventError::new("a field has another type")),
                _ => {}
            }
        }
        Ok(None)
    }
}

impl<'a> Iterator for Parts<'a> {
    type Item = Result<Part<'a>, EventError>;

    fn next(&mut self) -> Option<Self::Item> {
        let part = self.step();
        if part.is_err() {
            // There is no way to tell where the next part would be.
            self.reader.rest = &[];
        }
        part.transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_come_in_order_and_unknown_fields_do_not() {
        // Two events, filler, a marker; then what is no batch.
        let batch = b"\x0a\x02\x28\x07\xfa\x7f\x03\0\0\0\x0a\0\x7a\x02\x08\x02";
        let mut parts = Parts::new(batch);
        assert_eq!(parts.next(), Some(Ok(Part::Event(b"\x28\x07"))));
        assert_eq!(parts.next(), Some(Ok(Part::Event(b""))));
        assert_eq!(parts.remaining(), 4);
        assert_eq!(parts.next(), Some(Ok(Part::Marker(b"\x08\x02"))));
        assert_eq!((parts.next(), parts.remaining()), (None, 0));
        for bad in [&b"\x08\x01"[..], b"\x0a\x05\x00", b"\x7f", b"\x0b"] {
            let mut parts = Parts::new(bad);
            assert!(matches!(parts.next(), Some(Err(_))), "{bad:?}");
            assert_eq!(parts.next(), None);
        }
    }
}
