//! What the terminal behind a stream can do.
//!
//! Colour is what `anstream` decides, for which `NO_COLOR`, `CLICOLOR` and `CLICOLOR_FORCE` count too.
//! Moving the cursor is another matter: it needs a terminal that says it can.

use std::io::{BufRead, IsTerminal, Write};

use anstream::ColorChoice;
use indicatif::ProgressDrawTarget;

use super::{Exit, Failure};

/// Whether this is a terminal that does more than print one line below the other: an editor's shell
/// window, a serial line or a log of a build has `TERM=dumb`, or none, and shows escape sequences as
/// they are.
pub(super) fn is_capable(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && !is_dumb()
}

fn is_dumb() -> bool {
    std::env::var_os("TERM").is_none_or(|name| name.is_empty() || name == "dumb")
}

/// Settles for the whole program that a dumb terminal gets no colour. `anstream` alone would send it
/// some where `CI` or `CLICOLOR` is set.
pub(super) fn settle_colors() {
    let is_forced = std::env::var_os("CLICOLOR_FORCE").is_some_and(|value| value != "0");
    if is_dumb() && !is_forced {
        ColorChoice::Never.write_global();
    }
}

/// Goes to the beginning of a line, where this program cannot know whether it stands at one: another one has
/// written to the same terminal. As shells do it: a line of spaces ends on the next one unless it began at the left.
pub(super) fn go_to_new_line() {
    let mut stderr = std::io::stderr();
    if !is_capable(&stderr) || !std::io::stdout().is_terminal() {
        return;
    }
    let columns = rustix::termios::tcgetwinsize(&stderr).map_or(0, |size| usize::from(size.ws_col));
    let line = match columns {
        0 => "\n".to_owned(),
        columns => format!("{}\r", " ".repeat(columns)),
    };
    // Only looks are at stake.
    let _ = stderr.write_all(line.as_bytes());
}

/// Where progress is drawn: on standard error, if anywhere.
pub(super) fn progress_target() -> ProgressDrawTarget {
    match is_capable(&std::io::stderr()) {
        true => ProgressDrawTarget::stderr(),
        false => ProgressDrawTarget::hidden(),
    }
}

/// Asks, and waits for the answer: whether it is yes. `so` says what not being able to ask comes to.
pub(super) fn says_yes(question: &str, so: &str) -> Result<bool, Failure> {
    let mut stderr = std::io::stderr();
    stderr.write_all(question.as_bytes()).and_then(|()| stderr.flush()).map_err(|error| {
        Failure::new(Exit::Failure, format!("cannot ask, and so {so}")).because(&error)
    })?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}
