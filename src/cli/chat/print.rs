//! How a chat looks. Messages go to standard output; news about the chat itself goes to standard
//! error, except on a terminal, where both share the screen with the line being typed.

use std::io::IsTerminal;

use jiff::tz::TimeZone;
use rustix::termios::{OptionalActions, Termios, tcsetattr};

use crate::cli::Failure;
use crate::cli::message::message;
use crate::cli::output::{Output, has_color, print_json, say, say_dimmed};
use crate::escape::{self, mark};
use tailmark_record::Timestamp;
use tailmark_record::json::Object;
use tailmark_wire::chat as pb;
use tailmark_wire::values::from_timestamp;

type Print = Box<dyn FnMut(String) -> Result<(), Failure> + Send>;

/// Where a chat is shown.
pub(super) struct Screen {
    /// Prints above the line being typed; absent where nothing is edited.
    above: Option<Print>,
    /// A line is being typed.
    is_typing: bool,
    /// The terminal as it was found.
    saved: Option<Termios>,
    json: bool,
    color: bool,
}

/// Leaves the terminal as it was, whatever the editing was at.
impl Drop for Screen {
    fn drop(&mut self) {
        self.stop_editing();
    }
}

impl Screen {
    pub(super) fn terminal(print: Print, saved: Option<Termios>) -> Screen {
        Screen { above: Some(print), is_typing: true, saved, json: false, color: has_color() }
    }

    pub(super) fn plain(json: bool) -> Screen {
        Screen { above: None, is_typing: false, saved: None, json, color: has_color() }
    }

    /// The editor has given the terminal back by itself.
    pub(super) fn typing_ended(&mut self) {
        self.is_typing = false;
    }

    /// Takes the terminal from the editor, which would not print what comes just before the end.
    pub(super) fn stop_editing(&mut self) {
        self.above = None;
        if let Some(saved) = self.saved.take() {
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &saved);
        }
        if std::mem::take(&mut self.is_typing) {
            say("");
        }
    }

    pub(super) fn has_json(&self) -> bool {
        self.json
    }

    /// The first line.
    pub(super) fn greet(
        &mut self,
        room: &str,
        name: Option<&str>,
        shown: usize,
    ) -> Result<(), Failure> {
        if self.above.is_none() && !std::io::stderr().is_terminal() {
            return Ok(());
        }
        let who = match name {
            Some(name) => format!("as {}; Enter sends, Ctrl-D leaves", escape::name(name)),
            None => "listening; Ctrl-C leaves".to_owned(),
        };
        let history = match shown {
            0 => String::new(),
            1 => "; the last message:".to_owned(),
            n => format!("; the last {n} messages:"),
        };
        self.note(&format!("room {} {who}{history}", escape::name(room)))
    }

    pub(super) fn message(&mut self, message: &pb::Message) -> Result<(), Failure> {
        if self.json {
            return print_json(&json(message));
        }
        let name = match message.user.as_str() {
            "" => "?",
            name => name,
        };
        let (at, name) = (when(message), escape::name(name));
        // A person sees the lines of a text; a program gets one line a message.
        let text = match self.above {
            Some(_) => {
                let lines: Vec<_> = message.content.lines().map(escape::text).collect();
                lines.join("\n      ")
            }
            None => escape::text(&message.content).into_owned(),
        };
        let line = if self.color {
            let (name, text) = (mark(&name), mark(&text));
            format!("\x1b[2m{at}\x1b[0m \x1b[1;{}m{name}\x1b[0m: {text}\n", color_of(&name))
        } else {
            format!("{at} {name}: {text}\n")
        };
        match &mut self.above {
            Some(print) => print(line),
            None => Ok(Output::escaped(line.into_bytes()).flush()?),
        }
    }

    pub(super) fn presence(&mut self, user: &str, came: bool) -> Result<(), Failure> {
        // Neither a message nor trouble: a program that reads does not want it.
        if self.json {
            return Ok(());
        }
        self.note(&format!("{} {}", escape::name(user), if came { "came" } else { "left" }))
    }

    /// News about the chat itself.
    pub(super) fn note(&mut self, text: &str) -> Result<(), Failure> {
        match &mut self.above {
            Some(print) if self.color => print(format!("\x1b[2m-- {}\x1b[0m\n", message(text))),
            Some(print) => print(format!("-- {}\n", escape::line(text))),
            None => {
                say_dimmed(&format!("-- {text}"));
                Ok(())
            }
        }
    }
}

/// The same color for the same name; none that is hard to read on black or white.
fn color_of(name: &str) -> u8 {
    const COLORS: [u8; 5] = [32, 33, 34, 35, 36];
    let sum = name.bytes().fold(0_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    COLORS[sum as usize % COLORS.len()]
}

/// The time of day here; before today with the day.
fn when(message: &pb::Message) -> String {
    let at = message.timestamp.and_then(|at| jiff::Timestamp::new(at.seconds, at.nanos).ok());
    let Some(at) = at.map(|at| at.to_zoned_datetime(TimeZone::system())) else {
        return "--:--".to_owned();
    };
    // Not jiff's own clock, which panics beyond its years.
    let now = Timestamp::now();
    let now = jiff::Timestamp::new(now.seconds, now.nanos);
    let today = now.ok().map(|now| now.to_zoned_datetime(TimeZone::system()).date());
    let format = if Some(at.date()) == today { "%H:%M" } else { "%Y-%m-%d %H:%M" };
    at.strftime(format).to_string()
}

fn json(message: &pb::Message) -> Vec<u8> {
    let mut out = Vec::new();
    let mut object = Object::open(&mut out);
    object.text("id", &message.id);
    object.text("user", &message.user);
    object.text("content", &message.content);
    object.text("room", &message.room);
    object.time("timestamp", message.timestamp.map(from_timestamp));
    object.number("seq", message.seq);
    object.text("cursor", &message.cursor);
    object.close();
    out
}
