//! A command of the user's, run for each event: the body on its standard input, what else there is in
//! its environment.
//!
//! One at a time and in order. An event counts as done when its command has ended with 0: only then may
//! its cursor be saved.

use std::ffi::OsString;
use std::process::{ExitStatus, Stdio};

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::form::content;
use super::signals::Stop;
use super::{Exit, Failure};
use tailmark_record::Event;

/// The command and its arguments.
pub(super) struct Each {
    command: Vec<OsString>,
    /// What is done is kept for the next run.
    is_kept: bool,
}

impl Each {
    /// `None` where no command was given.
    pub(super) fn of(command: &[OsString], is_kept: bool) -> Option<Each> {
        (!command.is_empty()).then(|| Each { command: command.to_vec(), is_kept })
    }

    /// Runs it. A signal that asks to stop is asked of the command too, by the terminal or by nobody: it
    /// is waited for in either case, for it may be in the middle of its work.
    ///
    /// # Errors
    /// When it cannot be run, or ends with anything but 0.
    pub(super) async fn run(&self, event: &Event<'_>, stop: &mut Stop) -> Result<(), Failure> {
        let Some((program, args)) = self.command.split_first() else { return Ok(()) };
        let name = program.display();
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::piped()).envs(variables(event));
        let mut child = command.spawn().map_err(|error| {
            let exit = match error.kind() {
                std::io::ErrorKind::NotFound => Exit::NotFound,
                _ => Exit::Failure,
            };
            Failure::new(exit, format!("cannot run {name}")).because(&error)
        })?;
        let content = content(event);
        let stdin = child.stdin.take();
        let feed = async {
            if let Some(mut stdin) = stdin {
                // A command need not read what it does not want.
                let _ = stdin.write_all(content).await;
            }
        };
        // Once it has ended nobody is to be fed, even where a child of its own holds the pipe.
        let work = async {
            let mut ended = std::pin::pin!(child.wait());
            tokio::select! {
                ended = &mut ended => ended,
                () = feed => ended.await,
            }
        };
        let mut work = std::pin::pin!(work);
        let ended = tokio::select! {
            ended = &mut work => ended,
            _ = stop.wait() => work.await,
        };
        let status = ended.map_err(|error| {
            Failure::new(Exit::Failure, format!("cannot wait for {name}")).because(&error)
        })?;
        if status.success() { Ok(()) } else { Err(self.failed(event, status)) }
    }

    fn failed(&self, event: &Event<'_>, status: ExitStatus) -> Failure {
        let name = self.command.first().map(|name| name.to_string_lossy().into_owned());
        let what = format!("{} failed at event {}: {status}", name.unwrap_or_default(), event.seq);
        Failure::new(Exit::Failure, what).hint(match self.is_kept {
            true => "the next run begins with that event again; what came before it is done",
            false => "what came before it is done; with --state FILE the next run would know that",
        })
    }
}

/// What of an event a variable can hold. Not `TAILMARK_...`: those are settings.
fn variables(event: &Event<'_>) -> Vec<(&'static str, String)> {
    let time = |at: Option<tailmark_record::Timestamp>| at.map(|at| at.to_string());
    let all = [
        ("EVENT_SEQ", event.seq.to_string()),
        ("EVENT_CURSOR", event.cursor.to_owned()),
        ("EVENT_TOPIC", event.topic.to_owned()),
        ("EVENT_ID", event.id.to_owned()),
        ("EVENT_TYPE", event.kind.to_owned()),
        ("EVENT_KEY", event.key.to_owned()),
        ("EVENT_APPENDED_AT", time(event.appended_at).unwrap_or_default()),
        ("EVENT_AT", time(event.at).unwrap_or_default()),
        ("EVENT_ERASED", event.erased.map_or("", |erased| erased.reason).to_owned()),
    ];
    // The system's variables hold no NUL.
    all.into_iter().map(|(name, value)| (name, value.replace('\0', "\u{fffd}"))).collect()
}
