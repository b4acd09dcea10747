//! Text that others chose, made safe and honest to show.
//!
//! Three kinds. A *name* (topic, user, room, id, type, key, header) is shown so that two different
//! ones never read alike because of what has no shape of its own; [`name`] can be undone. A *text*
//! (a body, a message) stays readable, and can neither drive a terminal nor reorder its line;
//! [`text`]. A *line* of our own words has names in it already; [`line`] escapes what is left, and
//! twice is as once. What is escaped reads `\u{200b}`. The page follows the same rules
//! (`web/js/shown.js`), held to them by `tests/shown.json`.

use std::borrow::Cow;
use std::fmt::Write;

use unicode_normalization::char::is_combining_mark;
use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc, is_nfc_quick};
use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};
use unicode_segmentation::{GraphemeCursor, UnicodeSegmentation};
use unicode_width::UnicodeWidthStr;

#[cfg(test)]
mod tests;

/// Marks above and below one letter that a reader still tells apart (UTS 39, 5.4).
const MARKS: usize = 4;

/// A name on one line. Different names are shown differently.
pub(crate) fn name(name: &str) -> Cow<'_, str> {
    escaped(name, is_plain, write_name)
}

/// A text on one line: line ends and tabs as `\n` and `\t`.
pub(crate) fn text(text: &str) -> Cow<'_, str> {
    escaped(text, is_plain, write_text)
}

/// A line of our own words and of words that a server sent.
pub(crate) fn line(line: &str) -> Cow<'_, str> {
    escaped(
        line,
        |c| (b' '..0x7f).contains(&c),
        |out, line| {
            for c in line.chars() {
                if is_unseen(c) { escape(out, c) } else { out.push(c) }
            }
        },
    )
}

/// ASCII that every kind shows as it is.
fn is_plain(c: u8) -> bool {
    (b'!'..0x7f).contains(&c) && c != b'\\'
}

fn escaped<'a>(
    text: &'a str,
    is_plain: impl Fn(u8) -> bool,
    write: impl Fn(&mut String, &str),
) -> Cow<'a, str> {
    // Nearly everything is plain, and needs no look at characters.
    if text.bytes().all(is_plain) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    write(&mut out, text);
    if out == text { Cow::Borrowed(text) } else { Cow::Owned(out) }
}

fn escape(out: &mut String, c: char) {
    // Writing to a String does not fail.
    let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
}

/// Whether `c` has no shape of its own, or none that is known: it is not seen, or changes how
/// others are.
fn is_unseen(c: char) -> bool {
    use GeneralCategory as Category;
    match c {
        ' '..='~' => false,
        // Of categories that are mostly seen: what Unicode calls default ignorable, and blanks.
        '\u{34f}'
        | '\u{115f}'..='\u{1160}'
        | '\u{17b4}'..='\u{17b5}'
        | '\u{180b}'..='\u{180f}'
        | '\u{2800}'
        | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}'
        | '\u{ffa0}'
        | '\u{fffc}'
        | '\u{13441}'..='\u{13442}'
        | '\u{16fe4}'
        | '\u{1d159}'
        | '\u{e0100}'..='\u{e01ef}' => true,
        c => matches!(
            c.general_category(),
            Category::Control
                | Category::Format
                | Category::LineSeparator
                | Category::ParagraphSeparator
                | Category::PrivateUse
                | Category::SpaceSeparator
                | Category::Surrogate
                | Category::Unassigned
        ),
    }
}

/// Whether `c` joins what stands before it to one shape: a mark, or the end of a syllable.
fn joins(c: char) -> bool {
    is_combining_mark(c) || is_nfc_quick(std::iter::once(c)) == IsNormalized::Maybe
}

fn write_name(out: &mut String, name: &str) {
    let mut rest = name;
    // Nothing before that a mark could stand on; nothing that shows where a space begins.
    let (mut is_bare, mut is_edge) = (true, true);
    while let Some(c) = rest.chars().next() {
        let len = c.len_utf8();
        let after = &rest[len..];
        match c {
            // Would read as one of ours.
            '\\' if after.starts_with("u{") => escape(out, c),
            ' ' if is_edge || after.is_empty() || after.starts_with(' ') => escape(out, c),
            c if is_unseen(c) || (is_bare && joins(c)) => escape(out, c),
            c => {
                let joined = after.chars().take_while(|&c| joins(c) && !is_unseen(c));
                let end = len + joined.map(char::len_utf8).sum::<usize>();
                write_cluster(out, &rest[..end], c);
                is_bare = matches!(c, '.' | ' ');
                is_edge = false;
                rest = &rest[end..];
                continue;
            }
        }
        (is_bare, is_edge) = (true, true);
        rest = after;
    }
}

/// A character that is seen, and what joins it.
fn write_cluster(out: &mut String, cluster: &str, base: char) {
    // A mark on a dot or a space would belong to no letter.
    let has_letter = !matches!(base, '.' | ' ');
    let is_alone = cluster.len() == base.len_utf8();
    if (is_alone && is_nfc(cluster)) || (has_letter && is_told(cluster, base)) {
        out.push_str(cluster);
        return;
    }
    for c in cluster.chars() {
        if c == base && is_nfc(base.encode_utf8(&mut [0; 4])) {
            out.push(c)
        } else {
            escape(out, c)
        }
    }
}

/// Whether a cluster reads like no other: it is not another spelling of one (é in two ways), and
/// every mark of it is seen.
fn is_told(cluster: &str, base: char) -> bool {
    use GeneralCategory::{EnclosingMark, NonspacingMark};
    if !is_nfc(cluster) {
        return false;
    }
    let has_dot = matches!(base, 'i' | 'j' | 'l' | 'ı' | 'ȷ');
    let (mut before, mut marks) = (base, 0);
    for c in cluster.nfd() {
        if matches!(c.general_category(), NonspacingMark | EnclosingMark) {
            marks += 1;
            if c == before || marks > MARKS || (has_dot && c == '\u{307}') {
                return false;
            }
        }
        before = c;
    }
    true
}

/// Whether `c` drives a terminal, ends its line, reorders it, or is no character at all.
fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{fdd0}'..='\u{fdef}')
        || u32::from(c) & 0xfffe == 0xfffe
}

/// Whether `c` works on its neighbours and is not seen itself: joiners, variation selectors, tags.
fn is_silent(c: char) -> bool {
    use GeneralCategory::{PrivateUse, SpaceSeparator, Unassigned};
    !is_harmful(c)
        && is_unseen(c)
        && !matches!(c.general_category(), PrivateUse | SpaceSeparator | Unassigned)
}

fn write_text(out: &mut String, text: &str) {
    let mut rest = text;
    let mut before = ' ';
    while let Some(c) = rest.chars().next() {
        let mut len = c.len_utf8();
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' if rest.starts_with("\\u{") => escape(out, c),
            c if is_harmful(c) => escape(out, c),
            c if is_silent(c) => {
                let run = rest.find(|c| !is_silent(c)).unwrap_or(rest.len());
                len = run;
                let (run, after) = rest.split_at(run);
                if has_work(run, before, after.chars().next().unwrap_or(' ')) {
                    out.push_str(run);
                } else {
                    run.chars().for_each(|c| escape(out, c));
                }
            }
            c => out.push(c),
        }
        before = c;
        rest = &rest[len..];
    }
}

/// Whether silent characters do what they are for: they join letters or choose the look of an
/// emoji. Between ASCII, or in a long run, they hide something instead.
fn has_work(run: &str, before: char, after: char) -> bool {
    let is_flag =
        before == '\u{1f3f4}' && run.chars().all(|c| matches!(c, '\u{e0020}'..='\u{e007f}'));
    match run.chars().count() {
        1 | 2 => !before.is_ascii() || !after.is_ascii(),
        // A region's flag: tags that spell its code.
        count => is_flag && count <= 8,
    }
}

/// JSON with everything escaped that is not seen or drives a terminal; its value stays the same.
pub(crate) fn json(json: &str) -> Cow<'_, str> {
    // Below 0x80 JSON has its own escapes, and line ends lie between values.
    let is_told = |c: char| c != '\u{7f}' && (c.is_ascii() || !is_unseen(c));
    if json.chars().all(is_told) {
        return Cow::Borrowed(json);
    }
    let mut out = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if is_told(c) {
            out.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            let _ = write!(out, "\\u{unit:04x}");
        }
    }
    Cow::Owned(out)
}

/// A line in which what [`name`], [`text`] and [`line`] have escaped stands out.
pub(crate) fn mark(line: &str) -> Cow<'_, str> {
    let mut rest = line;
    let mut out = String::new();
    while let Some(at) = rest.find("\\u{") {
        let digits = &rest[at + 3..];
        let end = digits.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(digits.len());
        out.push_str(&rest[..at]);
        if end > 0 && digits[end..].starts_with('}') {
            let escape = &rest[at..at + 3 + end + 1];
            out.push_str("\x1b[7m");
            out.push_str(escape);
            out.push_str("\x1b[27m");
            rest = &rest[at + escape.len()..];
        } else {
            out.push_str("\\u{");
            rest = digits;
        }
    }
    if out.is_empty() { Cow::Borrowed(line) } else { Cow::Owned(out + rest) }
}

/// Where to cut a text so that at most so many bytes are kept, and no character as a reader sees it
/// is cut in two.
pub(crate) fn cut(text: &str, bytes: usize) -> usize {
    if text.len() <= bytes {
        return text.len();
    }
    let mut end = (0..=bytes).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    let mut cursor = GraphemeCursor::new(end, text.len(), true);
    if let Ok(false) = cursor.is_boundary(text, 0)
        && let Ok(Some(before)) = cursor.prev_boundary(text, 0)
        // One of thousands of marks is cut all the same.
        && before > 0
    {
        end = before;
    }
    end
}

/// As much of a line as fits in so many columns.
pub(crate) fn fit(line: &str, columns: usize) -> &str {
    if line.len() <= columns {
        return line;
    }
    let mut used = 0;
    for (at, grapheme) in line.grapheme_indices(true) {
        used += grapheme.width();
        if used > columns {
            return &line[..at];
        }
    }
    line
}

/// Columns that a line takes on a terminal.
pub(crate) fn width(line: &str) -> usize {
    line.width()
}
