use proptest::prelude::*;

use super::*;
use crate::json::{EventJson, write_event};
use crate::{ChainTag, CursorMint, Facts, Generation, Limits, LogId, Seq};

fn stored(event: &Event<'_>, fill_id: Option<&str>) -> Vec<u8> {
    let log = LogId::new(uuid::Uuid::from_u128(1));
    let mint = CursorMint::new(log, Generation { counter: 1, nonce: 1 });
    let (mut part, mut entry) = (Vec::new(), Vec::new());
    event.write_client_part(&mut part);
    let appended_at = Timestamp { seconds: 7, nanos: 5 }.into();
    let (seq, tag, fill_at) = (Seq::new(300), ChainTag::new(9), event.at.is_none());
    let stamp = Stamp { seq, mint: &mint, tag, appended_at, fill_at, fill_id };
    write_entry(&mut entry, &part, &stamp);
    one(&entry)
}

fn one(entry: &[u8]) -> Vec<u8> {
    let mut events = Events::new(entry);
    let event = events.next().unwrap().unwrap().to_vec();
    assert!(events.next().is_none());
    event
}

fn erased<'a>(reason: &'a str, erasure: &'a str) -> Erased<'a> {
    let erased_at = Timestamp { seconds: -3, nanos: 8 };
    Erased { rest_digest: [1; 16], payload_digest: [2; 16], reason, erased_at, erasure }
}

fn shell_of(event: &[u8], erased: &Erased<'_>) -> Vec<u8> {
    let mut entry = Vec::new();
    write_shell(&mut entry, event, erased).unwrap();
    one(&entry)
}

/// Frozen: this is what lies on disk.
#[test]
fn a_shell_is_what_it_was() {
    let event = Event { id: "i", topic: "a.b", body: "text", key: "key", ..Event::default() };
    let shell = shell_of(&stored(&event, None), &erased("why", "e"));
    let cursor = Event::parse(&shell).unwrap().cursor.to_owned();
    let expected = [
        &b"\x12\x03a.b\x28\xac\x02\x32\x21"[..],
        cursor.as_bytes(),
        b"\x5a\x04\x08\x07\x10\x05\x22\x04\x08\x07\x10\x05",
        b"\x62\x3b\x0a\x10",
        &[1; 16],
        b"\x12\x10",
        &[2; 16],
        b"\x1a\x03why\x22\x0d\x08\xfd\xff\xff\xff\xff\xff\xff\xff\xff\x01\x10\x08\x2a\x01e",
    ]
    .concat();
    assert_eq!(shell, expected);
}

#[test]
fn no_client_may_send_one() {
    let event = Event { topic: "a", erased: Some(erased("r", "e")), ..Event::default() };
    let refused = Limits::default().check(&event).unwrap_err();
    assert_eq!(refused.field, "erased");
    // Not even as what comes before the server's part of a stored event.
    let shell =
        shell_of(&stored(&Event { topic: "a", ..Event::default() }, None), &erased("r", "e"));
    assert!(Facts::scan(&shell).is_ok());
    let message = shell.windows(2).position(|two| two[0] == ERASED_TAG && two[1] > 30).unwrap();
    let forged = [&shell[message..], &shell[..message]].concat();
    assert!(Facts::scan(&forged).is_err());
    // As a client sends it, it is told as what it is.
    assert!(Event::parse(&forged).unwrap().is_erased());
}

#[test]
fn a_shell_that_says_something_is_none() {
    let event = Event { id: "i", topic: "a", body: "b", ..Event::default() };
    for event in [
        Event { id: "", body: "", ..event.clone() },
        Event { id: "", body: "", kind: "k", ..event.clone() },
        Event { id: "", body: "", key: "k", ..event.clone() },
        Event { id: "", body: "", headers: vec![("h", "1")], ..event.clone() },
        Event { id: "", body: "", data: b"d", ..event.clone() },
        Event { id: "", ..event.clone() },
        Event { body: "", ..event },
    ] {
        for fill_id in [None, Some("given")] {
            let mut bytes = stored(&event, fill_id);
            erased("r", "e").write(&mut bytes);
            let says = event != (Event { topic: "a", ..Event::default() }) || fill_id.is_some();
            assert_eq!(Facts::scan(&bytes).is_err(), says, "{event:?} {fill_id:?}");
        }
    }
}

fn texts() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), "\\PC{1,12}", "\\PC{200}"]
}

proptest! {
    /// Whatever the event said: its place stays, what it said goes, and it is read as it was written, in both
    /// of its forms.
    #[test]
    fn a_shell_of_any_event_keeps_its_place_alone(
        id in texts(), body in texts(), data in proptest::collection::vec(any::<u8>(), 0..40),
        kind in texts(), key in texts(), headers in proptest::collection::vec((texts(), texts()), 0..3),
        seconds in proptest::option::of(-62_135_596_800i64..253_402_300_799), given in any::<bool>(),
        reason in texts(), erasure in texts(),
    ) {
        let at = seconds.map(|seconds| Timestamp { seconds, nanos: 9 });
        let headers = headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let (id, body, kind, key) = (&*id, &*body, &*kind, &*key);
        let event = Event { id, topic: "t.x", body, data: &data, kind, key, headers, at, ..Event::default() };
        let fill_id = (given && id.is_empty()).then_some("an id that was given");
        let bytes = stored(&event, fill_id);
        let erased = erased(&reason, &erasure);
        let shell = shell_of(&bytes, &erased);
        let (was, is) = (Event::parse(&bytes).unwrap(), Event::parse(&shell).unwrap());
        let expected = Event {
            topic: "t.x", at: was.at, seq: was.seq, cursor: was.cursor, appended_at: was.appended_at,
            has_client_at: was.has_client_at, erased: Some(erased), ..Event::default()
        };
        prop_assert_eq!(&is, &expected);
        let facts = Facts::scan(&shell).unwrap();
        prop_assert_eq!((facts.erased, facts.topic, facts.seq), (Some(erased), &b"t.x"[..], was.seq));
        prop_assert!(!facts.has_client_id && facts.given_id.is_empty());
        // A shell's shell is that shell.
        prop_assert_eq!(&shell_of(&shell, &erased), &shell);
        let mut json = Vec::new();
        write_event(&mut json, &is);
        let read = EventJson::parse(&json).unwrap();
        prop_assert_eq!(read.event().erased, Some(erased));
    }
}
