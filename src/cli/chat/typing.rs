//! Where the words come from: a terminal with line editing, or a pipe.

use std::io::BufRead;

use rustyline::config::Configurer;
use rustyline::error::ReadlineError;
use rustyline::{DefaultEditor, ExternalPrinter};
use tokio::sync::mpsc;

use super::print::Screen;
use crate::cli::{Exit, Failure};

/// What the user does.
#[derive(Debug)]
pub(super) enum Typed {
    Line(String),
    /// The end of the input.
    Ended,
    /// Ctrl-C.
    Interrupted,
}

/// Lines with editing; what is printed meanwhile stays above the line that is being typed.
pub(super) fn terminal(name: &str) -> Result<(mpsc::Receiver<Typed>, Screen), Failure> {
    let failed = |error: ReadlineError| {
        Failure::new(Exit::Failure, "cannot use the terminal").because(&error)
    };
    let saved = rustix::termios::tcgetattr(std::io::stdin()).ok();
    let mut editor = DefaultEditor::new().map_err(failed)?;
    editor.set_auto_add_history(true);
    let mut printer = editor.create_external_printer().map_err(failed)?;
    let print = Box::new(move |text: String| {
        printer.print(text).map_err(|error| {
            Failure::new(Exit::Failure, "cannot write to the terminal").because(&error)
        })
    });
    let (sender, receiver) = mpsc::channel(1);
    let prompt = format!("{}> ", crate::escape::name(name));
    std::thread::spawn(move || {
        loop {
            let typed = match editor.readline(&prompt) {
                Ok(line) if line.trim().is_empty() => continue,
                Ok(line) => Typed::Line(line.trim_end().to_owned()),
                Err(ReadlineError::Interrupted) => Typed::Interrupted,
                Err(_) => Typed::Ended,
            };
            let is_last = !matches!(typed, Typed::Line(_));
            if sender.blocking_send(typed).is_err() || is_last {
                break;
            }
        }
    });
    Ok((receiver, Screen::terminal(print, saved)))
}

/// Lines of standard input.
pub(super) fn lines() -> mpsc::Receiver<Typed> {
    let (sender, receiver) = mpsc::channel(1);
    std::thread::spawn(move || {
        let mut line = Vec::new();
        let mut input = std::io::stdin().lock();
        loop {
            line.clear();
            match input.read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
            let text = String::from_utf8_lossy(&line);
            let text = text.trim_end_matches(['\n', '\r']);
            if !text.is_empty() && sender.blocking_send(Typed::Line(text.to_owned())).is_err() {
                return;
            }
        }
        // Nobody to tell is as good.
        let _ = sender.blocking_send(Typed::Ended);
    });
    receiver
}

/// Somebody who only listens: the input has no end.
pub(super) fn nothing() -> mpsc::Receiver<Typed> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move { sender.closed().await });
    receiver
}
