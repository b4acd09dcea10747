mod parsers;

use prost::Message;

use super::*;
use uuid::Uuid;

fn mint() -> CursorMint {
    let id = LogId::new(Uuid::from_u128(0x1234_5678_9abc_4def_8123_4567_89ab_cdef));
    CursorMint::new(id, Generation { counter: 3, nonce: 0xdead_beef })
}

#[test]
fn a_cursor_survives_the_round_trip() {
    let ours = Generation { counter: 3, nonce: 0xdead_beef };
    for seq in [0, 1, 2, 255, 1 << 40, u64::MAX].map(Seq::new) {
        for bits in [0, 1, 0x8000_0000, u32::MAX] {
            let text = mint().mint_string(seq, ChainTag::new(bits));
            assert_eq!(text.len(), CursorMint::LEN);
            let (log, generation, tag) = (0x89ab_cdef, ours, Some(ChainTag::new(bits)));
            assert_eq!(Cursor::parse(&text), Ok(Cursor::Token { log, generation, seq, tag }));
        }
        let (log, generation, tag) = (0x89ab_cdef, ours, None);
        let text = mint().mint_place(seq);
        assert_eq!(Cursor::parse(&text), Ok(Cursor::Token { log, generation, seq, tag }));
    }
}

#[test]
fn cursors_are_what_they_were() {
    // Somebody has kept these.
    assert_eq!(mint().mint_place(Seq::new(77)), "tiavN7wAD3q2-7wAAAAAAAABNRNAU");
    assert_eq!(
        mint().mint_string(Seq::new(77), ChainTag::new(0x0102_0304)),
        "uiavN7wAD3q2-7wAAAAAAAABNAQIDBAGY"
    );
}

#[test]
fn every_altered_character_of_a_cursor_is_refused() {
    let alphabet: Vec<char> =
        ('A'..='Z').chain('a'..='z').chain('0'..='9').chain(['-', '_', '=', 'é']).collect();
    let (seq, tag) = (Seq::new(77), ChainTag::new(0x1234_5678));
    // Whether an alteration is found does not depend on the text: a CRC is linear.
    for text in [mint().mint_string(seq, tag), mint().mint_place(seq)] {
        for at in 0..text.len() {
            for &c in &alphabet {
                let mut altered: Vec<char> = text.chars().collect();
                if altered[at] == c {
                    continue;
                }
                altered[at] = c;
                let altered: String = altered.into_iter().collect();
                assert!(Cursor::parse(&altered).is_err(), "{altered}");
            }
            assert!(Cursor::parse(&text[..at]).is_err());
        }
    }
}

#[test]
fn a_bare_number_is_canonical_decimal() {
    assert_eq!(Cursor::parse("0"), Ok(Cursor::Bare(Seq::ZERO)));
    assert_eq!(Cursor::parse("18446744073709551615"), Ok(Cursor::Bare(Seq::MAX)));
    for bad in ["", "00", "01", "-1", "+1", "1 ", "18446744073709551616", "1e3", "0x1"] {
        assert!(Cursor::parse(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn a_stored_event_tells_what_its_sender_said() {
    let sent = Event {
        topic: "a.b",
        body: "text",
        headers: vec![("z", "1"), ("a", "2"), ("z", "3")],
        ..Event::default()
    };
    let mut client = Vec::new();
    sent.write_client_part(&mut client);
    let appended_at = Timestamp { seconds: 1_700_000_000, nanos: 5 };
    let mut entries = Vec::new();
    let long = "i".repeat(200);
    for (seq, fill_id) in [(1, Some("given")), (300, None), (301, Some(&long))] {
        let stamp = event::Stamp {
            seq: Seq::new(seq),
            mint: &mint(),
            tag: ChainTag::START,
            appended_at: appended_at.into(),
            fill_at: fill_id.is_some(),
            fill_id,
        };
        write_entry(&mut entries, &client, &stamp);
    }
    let stored: Vec<_> = Events::new(&entries).map(|e| e.unwrap()).collect();
    assert_eq!(stored.len(), 3);
    let first = Event::parse(stored[0]).unwrap();
    assert_eq!((first.id, first.at), ("given", Some(appended_at)));
    assert!(!first.has_client_id && !first.has_client_at);
    assert_eq!(first.headers, [("a", "2"), ("z", "3")]);
    assert_eq!(Event::client_part(stored[0]).unwrap(), client);
    let second = Event::parse(stored[1]).unwrap();
    assert_eq!((second.seq, second.id, second.at), (Seq::new(300), "", None));
    assert_eq!(second.cursor, mint().mint_string(Seq::new(300), ChainTag::START));
    assert_eq!(Event::topic_of(stored[1]), Ok("a.b"));
    assert_eq!(Event::parse(stored[2]).unwrap().id, long);
}

#[test]
fn times_are_merged_as_protobuf_has_it_in_whatever_order_they_come() {
    let time = |parts: &[u8]| [&[u8::try_from(parts.len()).unwrap()], parts].concat();
    let (one, two, seconds, nanos) =
        (time(&[8, 7, 16, 9]), time(&[8, 6]), time(&[8, 7]), time(&[16, 9]));
    let none = time(&[]);
    let fields: Vec<_> = [&one, &two, &seconds, &nanos, &none]
        .iter()
        .flat_map(|time| [[&[4 << 3 | 2][..], time].concat(), [&[11 << 3 | 2][..], time].concat()])
        .collect();
    let value = |t: Option<prost_types::Timestamp>| t.map(|t| (t.seconds, t.nanos));
    let own = |t: Option<Timestamp>| t.map(|t| (t.seconds, t.nanos));
    for a in &fields {
        for b in &fields {
            for c in &fields {
                let bytes = [&a[..], b, c].concat();
                let event = Event::parse(&bytes).unwrap();
                let expected = tailmark_wire::feed_v1::Event::decode(&bytes[..]).unwrap();
                let found = (own(event.at), own(event.appended_at));
                assert_eq!(found, (value(expected.at), value(expected.appended_at)), "{bytes:?}");
            }
        }
    }
}

#[test]
fn varints_of_every_length_are_read_as_prost_reads_them() {
    let ends = (0..64).flat_map(|bit| [1u64 << bit, (1u64 << bit) - 1, !(1u64 << bit)]);
    for value in ends {
        let mut bytes = Vec::new();
        put_varint(&mut bytes, value);
        for behind in [&[][..], &[0x80; 9], &[0x7f; 3], &[0xff; 20]] {
            let all = [&bytes[..], behind].concat();
            let mut rest = &all[..];
            assert_eq!(take_varint(&mut rest), Some(value), "{all:x?}");
            assert_eq!(rest, behind);
        }
        for len in 0..bytes.len() {
            assert_eq!(take_varint(&mut &bytes[..len]), None, "{value} cut to {len}");
        }
    }
    // Longer than need be is a varint, too; more than 64 bits are none.
    for bytes in [&[0x80, 0][..], &[0xff, 0x80, 0x80, 0], &[0xff; 10], &[0x80; 11]] {
        let expected = prost::encoding::decode_varint(&mut &bytes[..]).ok();
        assert_eq!(take_varint(&mut &bytes[..]), expected, "{bytes:x?}");
    }
    let most = [&[0xff; 9][..], &[1]].concat();
    assert_eq!(take_varint(&mut &most[..]), Some(u64::MAX));
    assert_eq!(take_varint(&mut &[&[0xff; 9][..], &[2]].concat()[..]), None);
}

#[test]
fn malformed_bytes_are_errors_and_never_panics() {
    let mut client = Vec::new();
    Event { id: "x", topic: "a", body: "b", ..Event::default() }.write_client_part(&mut client);
    for len in 0..client.len() {
        let _ = Event::parse(&client[..len]);
    }
    for bad in [&[0x0a, 0x7f][..], &[0x0a, 1, 0xff], &[0x0b], &[0x08, 1], &[0xff; 11], &[0]] {
        assert!(Event::parse(bad).is_err(), "{bad:?}");
    }
    assert!(Events::new(&[0x0a, 5, 1]).next().unwrap().is_err());
    assert!(Events::new(&[0x12, 0]).next().unwrap().is_err());
}

#[test]
fn times_print_as_proto3_json_has_it() {
    for (seconds, nanos, text) in [
        (0, 0, "1970-01-01T00:00:00Z"),
        (1_370_565_812, 0, "2013-06-07T00:43:32Z"),
        (-1, 500_000_000, "1969-12-31T23:59:59.500Z"),
        (0, 1_000, "1970-01-01T00:00:00.000001Z"),
        (0, 1, "1970-01-01T00:00:00.000000001Z"),
        (-62_135_596_800, 0, "0001-01-01T00:00:00Z"),
    ] {
        let t = Timestamp { seconds, nanos };
        assert_eq!(t.to_string(), text);
        assert_eq!(Timestamp::parse(text), Some(t));
    }
    assert_eq!(Timestamp::parse("2013-06-06T17:43:32-07:00").unwrap().seconds, 1_370_565_812);
    assert!(!Timestamp { seconds: 253_402_300_800, nanos: 0 }.is_valid());
    assert!(!Timestamp { seconds: 0, nanos: 1_000_000_000 }.is_valid());
}

#[test]
fn generations_know_their_ends() {
    let table = GenerationTable::created(7, Timestamp::EPOCH);
    let table = table.with_next(8, Seq::new(11), Timestamp::EPOCH, "restored").unwrap();
    let (one, two) = (Generation { counter: 1, nonce: 7 }, Generation { counter: 2, nonce: 8 });
    assert_eq!(table.of(Seq::new(10)).generation, one);
    assert_eq!(table.of(Seq::new(11)).generation, two);
    assert_eq!(table.end_of(one), Some(Seq::new(10)));
    assert_eq!(table.end_of(two), Some(Seq::MAX));
    assert_eq!(table.end_of(Generation { counter: 1, nonce: 8 }), None);
    // Taken back to before the second began: whoever was in it shares what is before the third.
    let back = table.with_next(9, Seq::new(6), Timestamp::EPOCH, "restored").unwrap();
    let three = Generation { counter: 3, nonce: 9 };
    assert_eq!([one, two].map(|it| back.end_of(it)), [Some(Seq::new(5)); 2]);
    assert_eq!((back.of(Seq::new(5)).generation, back.of(Seq::new(6)).generation), (one, three));
}
