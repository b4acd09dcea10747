//! What is said on standard error: each message one line, bounded, and safe on a terminal.

use std::borrow::Cow;

use crate::escape::{self, cut, line, mark, name};

/// Bytes at the beginning and at the end of a message: what was sent is never repeated at length,
/// and what is wrong with it stands at the end.
const MESSAGE_BYTES: (usize, usize) = (700, 300);
/// Bytes of a name or text that a message is about.
const QUOTED_BYTES: usize = 100;

/// A message for standard error: on one line, bounded, and what is escaped stands out where
/// `anstream` finds a terminal that shows it.
pub(super) fn message(text: &str) -> String {
    let (head, tail) = MESSAGE_BYTES;
    if text.len() <= head + tail + 100 {
        return mark(&line(text)).into_owned();
    }
    let head = cut(text, head);
    let tail = cut(text, text.len() - tail);
    let left_out = format!(" ... ({} bytes) ... ", tail - head);
    mark(&line(&[&text[..head], &left_out, &text[tail..]].concat())).into_owned()
}

/// A name as a message quotes it.
pub(super) fn quoted(text: &str) -> String {
    beginning(text, name)
}

/// A text as a message quotes it.
pub(super) fn excerpt(text: &str) -> String {
    beginning(text, escape::text)
}

fn beginning(text: &str, shown: impl Fn(&str) -> Cow<'_, str>) -> String {
    let end = cut(text, QUOTED_BYTES);
    let more = if end < text.len() { format!("... ({} bytes)", text.len()) } else { String::new() };
    format!("{}{more}", shown(&text[..end]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_safe_line_that_keeps_its_end() {
        assert_eq!(message("all is well"), "all is well");
        let said = message("server says \u{1b}]0;x\u{7}\nerror: a\u{200b}");
        let plain = said.replace("\x1b[7m", "").replace("\x1b[27m", "");
        assert_eq!(plain, "server says \\u{1b}]0;x\\u{7}\\u{a}error: a\\u{200b}");
        let long = format!("no topic `{}`: too long", "é".repeat(1_000_000));
        let said = message(&long);
        assert!(said.len() < 1_100 && said.starts_with("no topic `éé"), "{said}");
        assert!(said.ends_with("éé`: too long") && said.contains(" bytes) ... "), "{said}");
    }

    #[test]
    fn what_is_quoted_is_short_and_whole() {
        assert_eq!(quoted("a\u{200b}"), "a\\u{200b}");
        assert_eq!(quoted(&"x".repeat(300)), format!("{}... (300 bytes)", "x".repeat(100)));
        assert_eq!(excerpt("two\nlines"), "two\\nlines");
    }
}
