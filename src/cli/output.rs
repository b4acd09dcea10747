//! Standard output: fast, and safe on a terminal.

use std::borrow::Cow;
use std::io::{self, Write};

use super::Failure;

/// A buffer in front of standard output. Writing is explicit, so that the caller knows what the
/// reader has got.
#[derive(Debug, Default)]
pub(super) struct Output {
    pub buffer: Vec<u8>,
}

impl Output {
    /// Hands over everything.
    pub fn flush(&mut self) -> io::Result<()> {
        let written = io::stdout().write_all(&self.buffer);
        self.buffer.clear();
        written.map_err(of_stdout).and_then(|()| flush())
    }
}

/// Hands over what standard output itself holds back.
pub(super) fn flush() -> io::Result<()> {
    io::stdout().flush().map_err(of_stdout)
}

pub(super) fn of_stdout(error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("standard output: {error}"))
}

/// Prints a text and a line end.
pub(super) fn print_line(text: &str) -> Result<(), Failure> {
    print_bytes(text.as_bytes())
}

/// Prints bytes and a line end.
pub(super) fn print_bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut output = Output { buffer: bytes.to_vec() };
    output.buffer.push(b'\n');
    Ok(output.flush()?)
}

/// Says a line on standard error. Where nobody can be told, the work goes on all the same.
pub(super) fn say(text: &str) {
    let _ = writeln!(anstream::stderr().lock(), "{text}");
}

/// `1 event`, `2 events`.
pub(super) fn events_text(count: u64) -> String {
    count_text(count, "event")
}

/// `1 thing`, `2 things`.
pub(super) fn count_text(count: u64, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// Whether a terminal would do something with `c` other than show it: controls, and the marks that
/// reverse the order of what follows.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Appends `text` with everything escaped that a terminal would act on. The result is one line.
pub(super) fn write_printable(out: &mut Vec<u8>, text: &str) {
    // Plain ASCII, which is nearly everything, needs no look at characters.
    if text.bytes().all(|c| (0x20..0x7f).contains(&c)) {
        out.extend_from_slice(text.as_bytes());
        return;
    }
    for c in text.chars() {
        if is_unsafe(c) {
            out.extend(c.escape_default().map(|c| c as u8));
        } else {
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }
}

/// `text` with everything escaped that a terminal would act on.
pub(super) fn printable(text: &str) -> Cow<'_, str> {
    if text.chars().any(is_unsafe) {
        let mut out = Vec::new();
        write_printable(&mut out, text);
        Cow::Owned(String::from_utf8_lossy(&out).into_owned())
    } else {
        Cow::Borrowed(text)
    }
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn what_a_terminal_acts_on_is_escaped() {
        for (text, expected) in [
            ("plain größe 日本 😀", "plain größe 日本 😀"),
            ("a\nb\tc\r", "a\\nb\\tc\\r"),
            ("\u{1b}[31mred", "\\u{1b}[31mred"),
            ("\u{9b}31m\u{7f}\0", "\\u{9b}31m\\u{7f}\\u{0}"),
            ("a\u{202e}b\u{2066}", "a\\u{202e}b\\u{2066}"),
        ] {
            assert_eq!(printable(text), expected);
        }
    }
}
