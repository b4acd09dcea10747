//! Standard output: fast, and safe on a terminal. Whatever is printed for people passes here.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};

use anstream::ColorChoice;

use super::Failure;
use super::message::message;
pub(super) use crate::escape::width;
use crate::escape::{self, line, mark, name, text};

/// A buffer in front of standard output. Writing is explicit, so that the caller knows what the
/// reader has got.
#[derive(Debug, Default)]
pub(super) struct Output {
    pub buffer: Vec<u8>,
    /// What is escaped stands out.
    has_marks: bool,
    /// It is JSON for a terminal, which must not act on it.
    is_seen: bool,
    /// Standard output is a terminal, and takes what others chose in safe form alone.
    is_guarded: bool,
}

impl Output {
    /// For people.
    pub(super) fn text() -> Output {
        Output { has_marks: has_color(), ..Output::default() }
    }

    /// For programs; on a terminal with everything escaped that is not seen.
    pub(super) fn json() -> Output {
        Output { is_seen: io::stdout().is_terminal(), ..Output::default() }
    }

    /// For bodies as they are; on a terminal as people see them elsewhere.
    pub(super) fn raw() -> Output {
        Output { is_guarded: io::stdout().is_terminal(), ..Output::text() }
    }

    /// Appends a content as it is, where that is safe.
    pub(super) fn content(&mut self, content: &[u8]) {
        match std::str::from_utf8(content) {
            _ if !self.is_guarded => self.buffer.extend_from_slice(content),
            Ok(text) => self.body(text),
            Err(_) => self.data(content),
        }
    }

    /// Appends how much data there is.
    pub(super) fn data(&mut self, data: &[u8]) {
        self.buffer.extend_from_slice(format!("({} bytes of data)", data.len()).as_bytes());
    }

    /// What is safe on a terminal already, colors included.
    pub(super) fn escaped(buffer: Vec<u8>) -> Output {
        Output { buffer, ..Output::default() }
    }

    /// Hands over everything.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        let written = match std::str::from_utf8(&self.buffer) {
            Ok(json) if self.is_seen => io::stdout().write_all(escape::json(json).as_bytes()),
            _ => io::stdout().write_all(&self.buffer),
        };
        self.buffer.clear();
        written.map_err(of_stdout).and_then(|()| flush())
    }

    /// Appends a name.
    pub(super) fn name(&mut self, text: &str) {
        self.shown(&name(text));
    }

    /// Appends a text, on the same line.
    pub(super) fn body(&mut self, body: &str) {
        self.shown(&text(body));
    }

    /// Appends lines of our own and a line end.
    pub(super) fn lines(&mut self, lines: &str) {
        for text in lines.split('\n') {
            self.shown(&line(text));
            self.buffer.push(b'\n');
        }
    }

    fn shown(&mut self, shown: &str) {
        let shown = if self.has_marks { mark(shown) } else { Cow::Borrowed(shown) };
        self.buffer.extend_from_slice(shown.as_bytes());
    }
}

/// Whether standard output shows colors.
pub(super) fn has_color() -> bool {
    anstream::AutoStream::choice(&io::stdout()) != ColorChoice::Never
}

/// Hands over what standard output itself holds back.
pub(super) fn flush() -> io::Result<()> {
    io::stdout().flush().map_err(of_stdout)
}

pub(super) fn of_stdout(error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("standard output: {error}"))
}

/// Prints lines, and a line end.
pub(super) fn print_line(text: &str) -> Result<(), Failure> {
    let mut output = Output::text();
    output.lines(text);
    Ok(output.flush()?)
}

/// Prints JSON and a line end.
pub(super) fn print_json(json: &[u8]) -> Result<(), Failure> {
    let mut output = Output { buffer: json.to_vec(), ..Output::json() };
    output.buffer.push(b'\n');
    Ok(output.flush()?)
}

/// Says a line on standard error. Where nobody can be told, the work goes on all the same.
pub(super) fn say(text: &str) {
    let _ = writeln!(anstream::stderr().lock(), "{}", message(text));
}

/// The same, less prominent.
pub(super) fn say_dimmed(text: &str) {
    let _ = writeln!(anstream::stderr().lock(), "\x1b[2m{}\x1b[0m", message(text));
}

/// `1 event`, `2 events`.
pub(super) fn events_text(count: u64) -> String {
    count_text(count, "event")
}

/// `1 thing`, `2 things`.
pub(super) fn count_text(count: u64, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// Three digits are enough for people.
pub(super) fn human_bytes(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}

/// A text with spaces behind it, up to so many columns.
pub(super) fn padded(text: &str, columns: usize) -> String {
    format!("{text}{}", " ".repeat(columns.saturating_sub(width(text))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_counted_as_a_terminal_shows_them() {
        assert_eq!(
            [padded("ab", 4), padded("日本", 5), padded("abc", 2)],
            ["ab  ", "日本 ", "abc"]
        );
    }
}
