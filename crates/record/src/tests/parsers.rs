//! Whatever a client sends, a file holds or a clock says: an answer or an error, never a panic.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use crate::json::{CloudEvent, Elements, EventJson};
use crate::json::{write_cloud_event, write_event, write_marker};
use crate::topic::Pattern;
use crate::*;

/// All that reads text.
fn read_text(text: &str, now: Timestamp) {
    let limits = Limits::default();
    let _ = Timestamp::parse(text);
    let _ = Cursor::parse(text);
    let _ = moment::moment(text, now);
    let _ = moment::start(text, now);
    let _ = units::parse_duration(text).map(units::duration_text);
    let _ = units::parse_size(text).map(units::size_text);
    if let Ok(pattern) = Pattern::parse(text, &limits) {
        pattern.matches(text);
    }
    let topic = room::topic(text);
    assert!(!topic.is_empty());
    if let Ok(event) = EventJson::parse(text.as_bytes()) {
        let _ = limits.check(&event.event());
    }
}

/// All that reads bytes.
fn read_bytes(bytes: &[u8]) {
    let mut out = Vec::new();
    if let Ok(event) = Event::parse(bytes) {
        write_event(&mut out, &event);
        let _ = Limits::default().check(&event);
    }
    let _ = Facts::scan(bytes);
    let _ = (Event::topic_of(bytes), Event::seq_of(bytes));
    for event in Events::new(bytes).take(100) {
        let Ok(event) = event else { break };
        let _ = Event::parse(event);
    }
    if let Ok(marker) = Marker::parse(bytes) {
        write_marker(&mut out, &marker);
    }
    if let Ok(Some(marker)) = Marker::of_event(bytes) {
        write_marker(&mut out, &marker);
    }
    if let Ok(AppendMessage::Batch(batch)) = AppendMessage::parse(bytes) {
        batch.events().take(100).for_each(|event| drop(Event::parse(event)));
    }
    for part in Parts::new(bytes).take(100) {
        if part.is_err() {
            break;
        }
    }
    let _ = take_varint(&mut &*bytes);
    let _ = EventJson::parse(bytes);
    if let Ok(mut elements) = Elements::of(bytes) {
        while let Ok(Some(_)) = elements.next(bytes) {}
    }
    if let Ok(event) = CloudEvent::structured(bytes) {
        write_cloud_event(&mut out, &event.event(None), "log");
    }
}

/// Bytes that are a message nearly: field tags, small lengths, and what follows.
fn nearly_a_message() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        prop::sample::select(vec![
            0x08, 0x0a, 0x12, 0x1a, 0x22, 0x28, 0x32, 0x3a, 0x52, 0x5a, 0x7a
        ]),
        0u8..8,
        Just(0xff),
        Just(0x80),
        any::<u8>(),
    ];
    vec(byte, 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_text_ends_in_a_panic(
        any_text in "\\PC{0,40}",
        nearly in "[-0-9TtZz:.+a-zM%*>,#{}\" \u{e4}]{0,40}",
        nearly_a_time in "[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9:]{8}[.0-9]{0,12}[-+Zz0-9:]{0,6}",
        seconds in any::<i64>(),
        nanos in any::<i32>(),
    ) {
        let now = Timestamp { seconds, nanos };
        for text in [&any_text, &nearly, &nearly_a_time] {
            read_text(text, now);
        }
    }

    #[test]
    fn no_bytes_end_in_a_panic(any_bytes in vec(any::<u8>(), 0..80), nearly in nearly_a_message()) {
        read_bytes(&any_bytes);
        read_bytes(&nearly);
    }

    #[test]
    fn no_time_ends_in_a_panic(
        seconds in any::<i64>(),
        nanos in any::<i32>(),
        by in any::<u64>(),
    ) {
        for seconds in [seconds, seconds % 400_000_000_000, i64::MIN, i64::MAX] {
            let time = Timestamp { seconds, nanos };
            let _ = (time.to_string(), time.is_valid(), time.as_nanos());
            let before = time.before(Duration::from_secs(by));
            prop_assert!(before.is_valid() || !time.is_valid(), "{time:?}");
            let again = Timestamp::from_nanos(time.as_nanos());
            prop_assert!(again.is_valid(), "64 bits of nanoseconds are all within the years");
        }
        let _ = Timestamp::EPOCH.before(Duration::MAX);
    }
}
