//! A cursor as a client sends it: refused, or one text for one place.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tailmark_record::Cursor;

const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

fuzz_target!(|text: &str| {
    let Ok(cursor) = Cursor::parse(text) else { return };
    let is_number = text.bytes().all(|c| c.is_ascii_digit());
    if is_number {
        assert_eq!(cursor.seq().to_string(), text);
    }
    // Its last letter has bits to spare; no other letter there says the same.
    let Some((at, _)) = text.char_indices().last() else { return };
    let (rest, last) = text.split_at(at);
    for other in ALPHABET.iter().filter(|other| last.as_bytes()[0] != **other) {
        let other = format!("{rest}{}", char::from(*other));
        assert_ne!(Cursor::parse(&other).ok(), Some(cursor), "{other} is {text}");
    }
});
