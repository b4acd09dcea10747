use std::time::Duration;

use super::super::{GapReason, MarkerKind, Seq};
use super::*;

fn written(event: &Event<'_>) -> String {
    let mut out = Vec::new();
    write_event(&mut out, event);
    String::from_utf8(out).unwrap()
}

fn read(text: &str) -> Result<Vec<u8>, String> {
    let event = EventJson::parse(text.as_bytes()).map_err(|e| e.to_string())?;
    let mut out = Vec::new();
    event.event().write_client_part(&mut out);
    Ok(out)
}

fn encoded(event: &Event<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    event.write_client_part(&mut out);
    out
}

fn full<'a>() -> Event<'a> {
    Event {
        id: "id-1",
        topic: "orders.eu",
        body: "größe \"1\"\\\n\t\r\u{1}\u{7f}\u{9b}31m\u{a9}\u{2028}日本 😀",
        at: Timestamp::parse("2013-06-06T17:43:32.5-07:00"),
        seq: Seq::new(u64::MAX),
        cursor: "tAAAA",
        kind: "created",
        key: "k",
        headers: vec![("a", "1"), ("b \"", "")],
        appended_at: Timestamp::parse("2026-01-01T00:00:00.000001Z"),
        ..Event::default()
    }
}

#[test]
fn an_event_is_written_as_proto3_json() {
    assert_eq!(
        written(&full()),
        concat!(
            r#"{"id":"id-1","topic":"orders.eu","body":"größe \"1\"\\\n\t\r\u0001\u007f\u009b31m"#,
            "\u{a9}\u{2028}日本 😀",
            r#"","at":"2013-06-07T00:43:32.500Z","seq":"18446744073709551615","cursor":"tAAAA","#,
            r#""type":"created","key":"k","headers":{"a":"1","b \"":""},"#,
            r#""appended_at":"2026-01-01T00:00:00.000001Z"}"#
        )
    );
    assert_eq!(written(&Event::default()), "{}");
    let data = Event { data: &[0xff, 0xfe, 0, 1], ..Event::default() };
    assert_eq!(written(&data), r#"{"data":"//4AAQ=="}"#);
}

#[test]
fn what_is_written_parses_as_json_and_reads_back() {
    for event in [full(), Event { topic: "a", data: &[0, 200, 3], ..Event::default() }] {
        let text = written(&event);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["topic"], event.topic);
        assert_eq!(value.get("body").and_then(|b| b.as_str()).unwrap_or(""), event.body);
        assert_eq!(read(&text).unwrap(), encoded(&event), "{text}");
    }
}

#[test]
fn reading_is_lenient_as_proto3_json_demands() {
    let event = |f: fn(&mut Event<'_>)| {
        let mut e = Event { topic: "a", ..Event::default() };
        f(&mut e);
        encoded(&e)
    };
    for (text, expected) in [
        (r#" {"topic": "a"} "#, event(|_| {})),
        (
            r#"{"topic":"a","id":null,"headers":null,"at":null,"data":null,"marker":null}"#,
            event(|_| {}),
        ),
        (r#"{"topic":"a","seq":"7","cursor":"x","appended_at":"never"}"#, event(|_| {})),
        (r#"{"topic":"a","seq":7,"appendedAt":"2020-01-01T00:00:00Z"}"#, event(|_| {})),
        (r#"{"topic":"a","body":"x\ud83d\ude00\/"}"#, event(|e| e.body = "x😀/")),
        (r#"{"topic":"a","data":"-_8"}"#, event(|e| e.data = &[0xfb, 0xff])),
        (r#"{"topic":"a","data":"+/8="}"#, event(|e| e.data = &[0xfb, 0xff])),
        (
            r#"{"topic":"a","at":"1970-01-01T01:00:00+01:00"}"#,
            event(|e| e.at = Some(Timestamp::EPOCH)),
        ),
        (
            r#"{"topic":"a","headers":{"k":null,"a":"b"}}"#,
            event(|e| e.headers = vec![("a", "b"), ("k", "")]),
        ),
    ] {
        assert_eq!(read(text), Ok(expected), "{text}");
    }
}

#[test]
fn what_is_wrong_is_named() {
    for (text, part) in [
        ("", "expected a JSON object"),
        ("[]", "expected a JSON object"),
        ("{", "the JSON ends within an object"),
        (r#"{"topic":"a"} x"#, "more follows the JSON value"),
        (r#"{"topik":"a"}"#, "unknown field `topik`"),
        (r#"{"topic":1}"#, "expected a string"),
        (r#"{"topic":"a","topic":"b"}"#, "field `topic` is given twice"),
        (
            r#"{"at":"yesterday"}"#,
            "expected a time as in 2026-01-31T09:30:00Z, of the years 1 to 9999, not \"yesterday\"",
        ),
        (r#"{"at":"0000-01-01T00:00:00Z"}"#, "expected a time"),
        (r#"{"at":5}"#, "expected a string"),
        (r#"{"data":"a*b"}"#, "not base64"),
        (r#"{"headers":["a"]}"#, "expected an object of strings"),
        (r#"{"headers":{"a":1}}"#, "expected a string"),
        (r#"{"headers":{"a":"1","b":"2","a":"1"}}"#, "headers: `a` is given twice"),
        (r#"{"headers":{"\u0061":"1","a":"2"}}"#, "headers: `a` is given twice"),
        (r#"{"headers":{"a":"1"},"headers":{"b":"2"}}"#, "field `headers` is given twice"),
        ("{\"body\":\"\u{1}\"}", "control character"),
        (r#"{"body":"\ud83d"}"#, "half of a surrogate pair"),
    ] {
        let error = read(text).unwrap_err();
        assert!(error.contains(part), "{text}: {error}");
        assert!(!error.contains("line"), "{error}");
    }
    assert!(EventJson::parse(b"{\"body\":\"\xff\"}").is_err());
    let marker = EventJson::parse(br#"{"topic":"a","marker":{"kind":"GAP"}}"#).unwrap();
    assert!(marker.event().has_marker);
}

#[test]
fn a_wrong_value_is_told_with_its_field() {
    for (text, expected) in [
        (r#"{"topic":"j","body":1,"key":5}"#, "key: expected a string, not `5`"),
        (r#"{"id":true,"topic":"j"}"#, "id: expected a string, not `true`"),
        (
            "{\"topic\": \"j\",\n  \"type\":\n 1.5,\n\"body\":{}}",
            "type: expected a string, not `1.5` (line 3, column 4)",
        ),
        (r#"{"topic":"j","key":{"a":1}}"#, "key: expected a string, not an object"),
        (
            r#"{"topic":"j","headers":["a"]}"#,
            "headers: expected an object of strings, not an array",
        ),
        (r#"{"topic":"j","headers":{"a":1},"body":"x"}"#, "headers: expected a string, not `1`"),
        (r#"{"topic":"j","at":"soon","body":"x"}"#, "at: expected a time as in"),
        (r#"{"topic":"j","body":{"a":1e400}}"#, "body: a value with a number beyond a double"),
        (r#"{"body":{"a":1e400},"topic":"j"}"#, "body: a value with a number beyond a double"),
        (r#"{"topic":"j","data":"a*b"}"#, "data: "),
        (r#"{"data":"a*b","topic":"j"}"#, "data: "),
        (r#"{"topic":"j","at":"soon" }"#, "at: expected a time as in"),
        (r#"{"at":"soon","topic":"j"}"#, "at: expected a time as in"),
        // These name it themselves, or have none.
        (r#"{"topic":"j","headers":{"a":"1","a":"2"}}"#, "headers: `a` is given twice"),
        (r#"{"topic":"j","other":1}"#, "unknown field `other`"),
        (r#"{"topic":1,"#, "expected a string, not `1`"),
        (r#"{"topic":"j","key":}"#, "expected a JSON value"),
    ] {
        let said = EventJson::parse(text.as_bytes()).unwrap_err().to_string();
        assert!(said.starts_with(expected), "{text}: {said}");
    }
}

#[test]
fn markers_are_written_with_names() {
    let mut marker = Marker::new(MarkerKind::Gap, "tC");
    marker.at = Some(Timestamp::EPOCH);
    marker.oldest = Seq::new(5);
    marker.head = Seq::new(9);
    marker.lag_events = 4;
    marker.gap = Some(Gap { from: Seq::new(1), to: Seq::new(4), reason: GapReason::Trimmed });
    marker.retry_delay = Some(Duration::from_millis(1500));
    let mut out = Vec::new();
    write_marker(&mut out, &marker);
    assert_eq!(
        String::from_utf8(out).unwrap(),
        concat!(
            r#"{"cursor":"tC","marker":{"kind":"GAP","cursor":"tC","at":"1970-01-01T00:00:00Z","#,
            r#""oldest_seq":"5","head_seq":"9","lag_events":"4","#,
            r#""gap":{"from_seq":"1","to_seq":"4","reason":"TRIMMED"},"retry_delay":"1.500s"}}"#
        )
    );
    let mut out = Vec::new();
    write_marker(&mut out, &Marker::new(MarkerKind::Other(-3), ""));
    assert_eq!(out, br#"{"marker":{"kind":-3}}"#);
}

#[test]
fn a_marker_is_read_as_the_generated_code_writes_it() {
    use prost::Message;
    use tailmark_wire::feed_v1 as pb;

    let event = pb::Event {
        cursor: "tC".into(),
        marker: Some(pb::Marker {
            kind: pb::marker::Kind::Gap as i32,
            cursor: "tC".into(),
            at: Some(prost_types::Timestamp { seconds: -1, nanos: 5 }),
            oldest_seq: 5,
            head_seq: u64::MAX,
            lag_events: 4,
            gap: Some(pb::Gap { from_seq: 1, to_seq: 4, reason: 2 }),
            retry_delay: Some(prost_types::Duration { seconds: 1, nanos: 5 }),
        }),
        ..pb::Event::default()
    };
    let marker = Marker::of_event(&event.encode_to_vec()).unwrap().unwrap();
    let mut expected = Marker::new(MarkerKind::Gap, "tC");
    expected.at = Some(Timestamp { seconds: -1, nanos: 5 });
    expected.oldest = Seq::new(5);
    expected.head = Seq::MAX;
    expected.lag_events = 4;
    expected.gap = Some(Gap { from: Seq::new(1), to: Seq::new(4), reason: GapReason::Damaged });
    expected.retry_delay = Some(Duration::new(1, 5));
    assert_eq!(marker, expected);
    assert_eq!(Marker::of_event(&pb::Event::default().encode_to_vec()), Ok(None));
    assert!(Marker::of_event(&[0x7a, 5, 1]).is_err());
}
