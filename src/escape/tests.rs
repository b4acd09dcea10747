use proptest::prelude::*;
use serde::Deserialize;

use super::*;

#[derive(Deserialize)]
struct Row {
    why: String,
    raw: String,
    name: String,
    text: String,
}

/// Read by the page's tests too.
fn rows() -> Vec<Row> {
    serde_json::from_str(include_str!("../../tests/shown.json")).unwrap()
}

#[test]
fn names_and_texts_are_shown_as_the_table_has_it() {
    let rows = rows();
    for Row { why, raw, name: as_name, text: as_text } in &rows {
        assert_eq!(name(raw), as_name.as_str(), "{why}, as a name");
        assert_eq!(text(raw), as_text.as_str(), "{why}, as a text");
    }
    let names: std::collections::HashSet<_> = rows.iter().map(|row| &row.name).collect();
    assert_eq!(names.len(), rows.len(), "two of them read alike");
}

#[test]
fn a_text_is_one_line() {
    assert_eq!(text("a\nb\tc\r"), "a\\nb\\tc\\r");
    assert_eq!(name("a\nb\tc\r"), "a\\u{a}b\\u{9}c\\u{d}");
    assert_eq!(line("a\nb"), "a\\u{a}b");
}

#[test]
fn json_keeps_its_value_and_shows_all_of_it() {
    for Row { raw, .. } in rows() {
        let written = serde_json::to_string(&[&raw]).unwrap();
        let shown = json(&written);
        assert_eq!(serde_json::from_str::<[String; 1]>(&shown).unwrap(), [raw.as_str()]);
        assert!(shown.chars().all(|c| !is_unseen(c)), "{shown:?}");
    }
    assert_eq!(json("\"\u{202e}\u{e0041}é\"\n"), "\"\\u202e\\udb40\\udc41é\"\n");
}

#[test]
fn what_was_escaped_stands_out_and_nothing_else() {
    assert_eq!(mark("a\\u{200b}b"), "a\x1b[7m\\u{200b}\x1b[27mb");
    for plain in ["", "plain", "a\\n", "\\u{}", "\\u{", "\\u{xyz}", "\\u{12"] {
        assert_eq!(mark(plain), plain);
    }
}

#[test]
fn a_text_is_cut_between_what_a_reader_sees_as_characters() {
    assert_eq!((cut("short", 5), cut("longer", 5)), (5, 5));
    // Within a letter, a family and a flag.
    assert_eq!(cut("aé", 2), 1);
    assert_eq!(cut("a\u{1f469}\u{200d}\u{1f4bb}b", 9), 1);
    assert_eq!(cut("a\u{1f1e9}\u{1f1ea}", 6), 1);
    let marks = "q".to_owned() + &"\u{301}".repeat(500);
    assert_eq!(cut(&marks, 10), 9);
}

#[test]
fn a_line_fits_in_columns_and_not_in_characters() {
    assert_eq!(fit("abc", 2), "ab");
    assert_eq!(fit("日本語", 4), "日本");
    assert_eq!(fit("日本語", 5), "日本");
    assert_eq!(fit("e\u{301}e\u{301}", 1), "e\u{301}");
    assert_eq!((width("日本"), width("abc")), (4, 3));
}

/// Undoes what [`name`] does: the proof that it can be.
fn unescaped(shown: &str) -> String {
    let mut out = String::new();
    let mut rest = shown;
    while let Some(at) = rest.find("\\u{") {
        let end = at + rest[at..].find('}').unwrap();
        out.push_str(&rest[..at]);
        out.push(char::from_u32(u32::from_str_radix(&rest[at + 3..end], 16).unwrap()).unwrap());
        rest = &rest[end + 1..];
    }
    out + rest
}

/// Characters that go together badly, more often than chance has them.
fn odd_text() -> impl Strategy<Value = String> {
    let odd = prop::sample::select(
        "aei.\\u{} \u{301}\u{307}\u{323}\u{e9}\u{200b}\u{200d}\u{202e}\u{2069}\u{ad}\u{fe0f}\u{1b}\
         \u{9b}\u{a0}\u{1100}\u{1161}\u{11a8}\u{ac00}\u{5e9}\u{5c1}\u{5bc}\u{1f469}\u{1f3f4}\u{e0067}\
         \u{212b}\u{fdd0}\n\u{2028}\u{e000}\u{378}\u{3164}"
            .chars()
            .collect::<Vec<_>>(),
    );
    prop::collection::vec(prop_oneof![3 => odd, 1 => any::<char>()], 0..12)
        .prop_map(|chars| chars.into_iter().collect())
}

proptest! {
    #[test]
    fn a_shown_name_has_nothing_unseen_and_only_one_name_reads_so(raw in odd_text()) {
        let shown = name(&raw);
        prop_assert!(!shown.chars().any(is_unseen), "{shown:?}");
        prop_assert!(is_nfc(&shown), "{shown:?}: another spelling reads the same");
        prop_assert_eq!(unescaped(&shown), raw);
    }

    #[test]
    fn a_shown_text_is_one_line_in_order(raw in odd_text()) {
        let shown = text(&raw);
        prop_assert!(!shown.chars().any(is_harmful), "{shown:?}");
    }

    #[test]
    fn a_line_has_nothing_unseen_and_twice_is_as_once(raw in odd_text()) {
        let once = line(&raw);
        prop_assert!(!once.chars().any(is_unseen), "{once:?}");
        prop_assert_eq!(&line(&once), &once);
        let name = name(&raw);
        prop_assert_eq!(line(&name), name.as_ref());
    }

    #[test]
    fn a_cut_is_short_and_a_beginning(raw in odd_text(), bytes in 0_usize..20) {
        let end = cut(&raw, bytes);
        prop_assert!(end <= bytes && raw.is_char_boundary(end));
        let fitted = fit(&raw, bytes);
        prop_assert!(raw.starts_with(fitted));
    }
}
