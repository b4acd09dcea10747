//! What clap says of arguments, with what was typed made short and safe.

use clap::Error;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::message::quoted;

/// Makes the texts of an error fit to be printed.
pub(super) fn tame(error: &mut Error) {
    let found: Vec<_> = error.context().map(|(kind, value)| (kind, value.clone())).collect();
    let mut is_changed = false;
    for (kind, value) in found {
        let tamed = match &value {
            ContextValue::String(text) => ContextValue::String(quoted(text)),
            ContextValue::Strings(texts) => {
                ContextValue::Strings(texts.iter().map(|text| quoted(text)).collect())
            }
            // Numbers, and words of our own: usage and what may be meant.
            _ => continue,
        };
        if tamed != value {
            is_changed = true;
            error.insert(kind, tamed);
        }
    }
    if error.kind() == ErrorKind::InvalidSubcommand && is_of_program(error) {
        point_to_command(error);
    }
    // Says again what was typed, as it was typed. Or how to put it behind `--`, where it would be a command to be run.
    if is_changed || error.kind() == ErrorKind::UnknownArgument {
        error.remove(ContextKind::Suggested);
    }
    // Where a flag takes its value by an equals sign alone.
    if let Some(ContextValue::String(typed)) = error.get(ContextKind::InvalidArg)
        && error.kind() == ErrorKind::UnknownArgument
        && let "value" | "text" = &**typed
    {
        let tip = format!("did you mean --json={typed}?");
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
}

/// What commands are called elsewhere, and here.
const ELSEWHERE: [(&[&str], &str); 8] = [
    (&["tail", "subscribe", "sub", "consume", "follow", "listen", "read", "stream"], "watch"),
    (&["produce", "pub", "send", "append", "push", "write", "put", "add"], "publish"),
    (&["list", "ls"], "topics"),
    (&["info", "ping", "health"], "status"),
    (&["stats", "top"], "metrics"),
    (&["delete", "rm", "remove", "purge"], "trim` or `tailmark erase"),
    (&["start", "run", "server", "daemon"], "serve"),
    (&["dump", "verify", "export", "import"], "log --help"),
];

/// Whether it is about a command of the program, and not about one of a command's own.
fn is_of_program(error: &Error) -> bool {
    let usage = error.get(ContextKind::Usage);
    matches!(usage, Some(ContextValue::StyledStr(text)) if text.to_string().contains("tailmark <COMMAND>"))
}

fn point_to_command(error: &mut Error) {
    let Some(ContextValue::String(typed)) = error.get(ContextKind::InvalidSubcommand) else {
        return;
    };
    let Some((_, ours)) = ELSEWHERE.iter().find(|(names, _)| names.contains(&&**typed)) else {
        return;
    };
    let tip = format!("did you mean `tailmark {ours}`?");
    // What is only spelled like it.
    error.remove(ContextKind::SuggestedSubcommand);
    error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
}
