//! What is appended everywhere: events with bodies of 200 bytes, which differ and are text.
//!
//! The same for all: peers get topic and body, the limits the bytes that Tailmark would store.

use std::sync::LazyLock;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use prost::Message;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tailmark_wire::feed_v1 as pb;

pub(crate) const BODY_BYTES: usize = 200;
pub(crate) const TOPIC: &str = "bench.events";
pub(crate) const RARE_TOPIC: &str = "bench.rare";
/// Digits of the number of a numbered body.
const NUMBER_DIGITS: usize = 10;
/// JSON has no leading zeros.
const FIRST_NUMBER: u64 = 1_000_000_000;
const NUMBER_KEY: &str = r#"{"n":"#;

/// As long as one of ours.
const CURSOR: &str = "c1-0123456789abcdef-0123456789abc";

/// Together more than any compressor's window here looks back.
const BODIES: usize = 4_096;

const WORDS: [&str; 24] = [
    "order",
    "paid",
    "shipped",
    "customer",
    "basket",
    "returned",
    "amount",
    "currency",
    "street",
    "city",
    "parcel",
    "invoice",
    "card",
    "refused",
    "retry",
    "north",
    "warehouse",
    "pending",
    "late",
    "item",
    "price",
    "discount",
    "signed",
    "by",
];

/// So many distinct bodies of words and numbers.
pub(crate) static POOL: LazyLock<Vec<String>> = LazyLock::new(|| {
    let mut rng = StdRng::seed_from_u64(4);
    (0..BODIES).map(|_| body(&mut rng)).collect()
});

/// The same as encoded events, as a client sends them.
pub(crate) static EVENTS: LazyLock<Vec<Bytes>> = LazyLock::new(|| encoded(TOPIC));
/// See [`EVENTS`].
pub(crate) static RARE_EVENTS: LazyLock<Vec<Bytes>> = LazyLock::new(|| encoded(RARE_TOPIC));

/// The same as events with what the server adds: what is stored, and what a watch brings.
pub(crate) static STORED: LazyLock<Vec<Bytes>> = LazyLock::new(|| {
    let base = 1_700_000_000;
    let stored = |(at, body): (i64, &String)| {
        let time = Some(prost_types::Timestamp { seconds: base + at, nanos: 123_456_789 });
        let event = pb::Event {
            id: "01933b1e-7a2c-7def-8123-456789abcdef".into(),
            topic: TOPIC.into(),
            body: body.clone(),
            at: time,
            seq: 1_000_000 + at.unsigned_abs(),
            cursor: CURSOR.into(),
            appended_at: time,
            ..pb::Event::default()
        };
        event.encode_to_vec().into()
    };
    (0..).zip(POOL.iter()).map(stored).collect()
});

/// The same as a client of plain HTTP sends them.
pub(crate) static JSON: LazyLock<Vec<String>> = LazyLock::new(|| {
    let json = |body: &String| serde_json::json!({ "topic": TOPIC, "body": body }).to_string();
    POOL.iter().map(json).collect()
});

/// The topic of a watch that has one of its own.
pub(crate) fn own_topic(at: u64) -> String {
    format!("bench.own.{at:06}")
}

/// A body as long as the others that says which of its topic it is.
pub(crate) fn numbered(number: u64) -> String {
    let mut text = pick(&POOL, number).clone();
    // `{"text":"...` gives way; what is left is text within quotes.
    let head =
        format!(r#"{NUMBER_KEY}{:0width$},"t":""#, FIRST_NUMBER + number, width = NUMBER_DIGITS);
    text.replace_range(..head.len(), &head);
    text
}

/// Looks at the events of one topic as they come: each once, in order.
#[derive(Debug)]
pub(crate) struct InOrder {
    next: u64,
}

impl InOrder {
    /// The first that has to come is this.
    pub(crate) fn from(next: u64) -> InOrder {
        InOrder { next }
    }

    /// Takes the body that has come.
    pub(crate) fn take(&mut self, body: &[u8]) -> Result<()> {
        let number = number_of(body).context("a body without a number")?;
        ensure!(number == self.next, "number {number} came where {} was due", self.next);
        self.next += 1;
        Ok(())
    }
}

fn number_of(body: &[u8]) -> Option<u64> {
    let digits = body.get(NUMBER_KEY.len()..NUMBER_KEY.len() + NUMBER_DIGITS)?;
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    number.checked_sub(FIRST_NUMBER)
}

/// How much is appended, and what lies in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) events: u64,
    /// Of so many events one is of the rare topic; 0 = none.
    pub(crate) rare_every: u64,
}

impl Load {
    pub(crate) fn of(events: u64) -> Load {
        Load { events, rare_every: 0 }
    }

    /// Whether the event at this place, from 0, is of the rare topic.
    pub(crate) fn is_rare(self, at: u64) -> bool {
        self.rare_every > 0 && at % self.rare_every == self.rare_every / 2
    }

    /// Events of the rare topic.
    pub(crate) fn rare(self) -> u64 {
        (0..self.events).filter(|at| self.is_rare(*at)).count() as u64
    }
}

/// One of a pool, by its place in the log.
pub(crate) fn pick<T>(pool: &[T], at: u64) -> &T {
    &pool[usize::try_from(at).unwrap_or_default() % pool.len()]
}

/// The encoded event at a place of a load.
pub(crate) fn event(load: Load, at: u64) -> Bytes {
    let pool = if load.is_rare(at) { &*RARE_EVENTS } else { &*EVENTS };
    pick(pool, at).clone()
}

fn body(rng: &mut StdRng) -> String {
    let mut text = String::from(r#"{"text":""#);
    while text.len() < BODY_BYTES - 2 {
        let word = WORDS[rng.random_range(0..WORDS.len())];
        text.push_str(&format!("{word} {} ", rng.random_range(0..100_000)));
    }
    text.truncate(BODY_BYTES - 2);
    text.push_str(r#""}"#);
    text
}

fn encoded(topic: &str) -> Vec<Bytes> {
    let encode = |body: &String| {
        let (topic, body) = (topic.to_owned(), body.clone());
        pb::Event { topic, body, ..pb::Event::default() }.encode_to_vec().into()
    };
    POOL.iter().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_event_is_as_long_as_ours() {
        assert_eq!(CURSOR.len(), tailmark_record::CursorMint::LEN);
    }

    #[test]
    fn bodies_are_json_of_one_length_and_differ() {
        let mut seen = std::collections::HashSet::new();
        for body in POOL.iter() {
            assert_eq!(body.len(), BODY_BYTES);
            assert!(serde_json::from_str::<serde_json::Value>(body).is_ok(), "{body}");
            assert!(seen.insert(body));
        }
    }

    #[test]
    fn numbered_bodies_are_as_long_as_others_and_say_their_number() {
        for number in [0, 7, 4_095, 4_096, 1_000_000] {
            let body = numbered(number);
            assert_eq!(body.len(), BODY_BYTES);
            assert!(serde_json::from_str::<serde_json::Value>(&body).is_ok(), "{body}");
            assert_eq!(number_of(body.as_bytes()), Some(number));
        }
        assert_eq!(number_of(POOL[0].as_bytes()), None);
    }

    #[test]
    fn an_event_that_is_missing_double_or_out_of_order_is_an_error() {
        let take = |numbers: &[u64]| {
            let mut in_order = InOrder::from(3);
            numbers.iter().try_for_each(|number| in_order.take(numbered(*number).as_bytes()))
        };
        assert!(take(&[3, 4, 5]).is_ok());
        for bad in [&[4][..], &[3, 3], &[3, 5], &[3, 4, 3], &[2]] {
            assert!(take(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn rare_events_are_spread_evenly() {
        let load = Load { events: 5_000, rare_every: 1_000 };
        let rare: Vec<u64> = (0..load.events).filter(|at| load.is_rare(*at)).collect();
        assert_eq!(rare, [500, 1_500, 2_500, 3_500, 4_500]);
        assert_eq!(load.rare(), 5);
        assert_eq!(Load::of(5_000).rare(), 0);
        let topic = |at| pb::Event::decode(event(load, at)).unwrap().topic;
        assert_eq!((topic(499).as_str(), topic(500).as_str()), (TOPIC, RARE_TOPIC));
    }
}
