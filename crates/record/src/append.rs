//! One message of an `Append` stream, as the bytes of an encoded `feed.v1.AppendRequest`: a view,
//! so that a batch's events are read where they lie, once.

use super::varint::{Reader, Value};
use super::{EventError, Seq};

/// What a client says on an `Append` stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendMessage<'a> {
    /// Nothing that this program knows.
    Empty,
    /// Begins.
    Open {
        /// Who.
        producer: &'a str,
        /// 0 = a new one.
        epoch: u64,
    },
    /// Events.
    Batch(BatchMessage<'a>),
}

/// A batch as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchMessage<'a> {
    /// The producer's number for it.
    pub producer_seq: u64,
    /// The topic, empty for the whole log, and its expected last seq.
    pub expected_head: Option<(&'a str, Seq)>,
    /// Events in it.
    pub count: usize,
    body: &'a [u8],
}

impl<'a> AppendMessage<'a> {
    /// Reads a message. Of two kinds in one message the last counts, as protobuf has it.
    ///
    /// # Errors
    /// When the bytes are not protobuf, a known field has another type, or one kind is there twice.
    pub fn parse(bytes: &'a [u8]) -> Result<AppendMessage<'a>, EventError> {
        let mut message = AppendMessage::Empty;
        let mut reader = Reader { rest: bytes };
        while let Some((number, value)) = reader.field()? {
            message = match (number, value, message) {
                // Parts that a parser of protobuf would merge; no encoder makes them.
                (1, Value::Bytes(_), AppendMessage::Open { .. })
                | (2, Value::Bytes(_), AppendMessage::Batch(_)) => {
                    return Err(EventError::new("two of a kind in one message"));
                }
                (1, Value::Bytes(open), _) => parse_open(open)?,
                (2, Value::Bytes(batch), _) => AppendMessage::Batch(BatchMessage::parse(batch)?),
                (1 | 2, ..) => return Err(EventError::new("a field has another type")),
                (.., message) => message,
            };
        }
        Ok(message)
    }
}

fn parse_open(bytes: &[u8]) -> Result<AppendMessage<'_>, EventError> {
    let (mut producer, mut epoch) = ("", 0);
    let mut reader = Reader { rest: bytes };
    while let Some(field) = reader.field()? {
        match field {
            (1, Value::Bytes(v)) => producer = text(v)?,
            (2, Value::Varint(v)) => epoch = v,
            (1 | 2, _) => return Err(EventError::new("a field has another type")),
            _ => {}
        }
    }
    Ok(AppendMessage::Open { producer, epoch })
}

impl<'a> BatchMessage<'a> {
    fn parse(body: &'a [u8]) -> Result<BatchMessage<'a>, EventError> {
        let mut batch = BatchMessage { producer_seq: 0, expected_head: None, count: 0, body };
        let mut reader = Reader { rest: body };
        while let Some(field) = reader.field()? {
            match field {
                (1, Value::Varint(v)) => batch.producer_seq = v,
                (2, Value::Bytes(_)) => batch.count += 1,
                (3, Value::Bytes(v)) => batch.expected_head = Some(parse_expected(v)?),
                (1..=3, _) => return Err(EventError::new("a field has another type")),
                _ => {}
            }
        }
        Ok(batch)
    }

    /// The encoded events, in order.
    pub fn events(&self) -> impl Iterator<Item = &'a [u8]> {
        let mut reader = Reader { rest: self.body };
        std::iter::from_fn(move || {
            loop {
                // The whole body was walked when it was parsed.
                match reader.field().ok().flatten()? {
                    (2, Value::Bytes(event)) => return Some(event),
                    _ => continue,
                }
            }
        })
    }
}

fn parse_expected(bytes: &[u8]) -> Result<(&str, Seq), EventError> {
    let (mut topic, mut seq) = ("", Seq::ZERO);
    let mut reader = Reader { rest: bytes };
    while let Some(field) = reader.field()? {
        match field {
            (1, Value::Bytes(v)) => topic = text(v)?,
            (2, Value::Varint(v)) => seq = Seq::new(v),
            (1 | 2, _) => return Err(EventError::new("a field has another type")),
            _ => {}
        }
    }
    Ok((topic, seq))
}

fn text(bytes: &[u8]) -> Result<&str, EventError> {
    std::str::from_utf8(bytes).map_err(|_| EventError::new("text is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use pb::append_request::{Batch, Kind, Open};
    use tailmark_wire::feed_v1 as pb;

    fn encode(kind: Kind) -> Vec<u8> {
        pb::AppendRequest { kind: Some(kind) }.encode_to_vec()
    }

    #[test]
    fn what_an_encoder_writes_is_read() {
        let open = encode(Kind::Open(Open { producer_id: "größe".into(), epoch: 7 }));
        let read = AppendMessage::parse(&open);
        assert_eq!(read, Ok(AppendMessage::Open { producer: "größe", epoch: 7 }));
        let event = |topic: &str| pb::Event { topic: topic.into(), ..pb::Event::default() };
        let events = vec![event("a"), pb::Event::default(), event("b")];
        let expected_head = Some(pb::ExpectedHead { topic: "t".into(), seq: 9 });
        let bytes =
            encode(Kind::Batch(Batch { producer_seq: 300, events: events.clone(), expected_head }));
        let Ok(AppendMessage::Batch(batch)) = AppendMessage::parse(&bytes) else {
            panic!("no batch")
        };
        assert_eq!((batch.producer_seq, batch.expected_head), (300, Some(("t", Seq::new(9)))));
        assert_eq!(batch.count, 3);
        let read: Vec<_> = batch.events().map(|it| pb::Event::decode(it).unwrap()).collect();
        assert_eq!(read, events);
        assert_eq!(AppendMessage::parse(&[]), Ok(AppendMessage::Empty));
    }

    #[test]
    fn what_none_writes_is_refused() {
        let batch = encode(Kind::Batch(Batch { producer_seq: 1, ..Batch::default() }));
        let twice = [batch.clone(), batch.clone()].concat();
        for bad in [&twice[..], &batch[..batch.len() - 1], &[0x08, 1], &[0x12, 2, 0x10, 1]] {
            assert!(AppendMessage::parse(bad).is_err(), "{bad:?}");
        }
        // The last kind counts.
        let open = encode(Kind::Open(Open::default()));
        let both = [batch, open].concat();
        assert!(matches!(AppendMessage::parse(&both), Ok(AppendMessage::Open { epoch: 0, .. })));
    }
}
