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
