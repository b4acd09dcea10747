//! Logs on standard error, as text or as JSON.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, Telemetry};

/// Reads a level or a filter.
///
/// # Errors
/// What is wrong with it.
pub fn filter(text: &str) -> Result<EnvFilter, String> {
    // A name alone would pass for a target and silence everything else.
    let is_known = |part: &str| {
        let level = part.rsplit('=').next().unwrap_or(part).trim();
        !level.is_empty() && level.parse::<tracing_subscriber::filter::LevelFilter>().is_ok()
    };
    match text.split(',').find(|part| !is_known(part)) {
        Some(part) => {
            Err(format!("`{part}` is no level; expected error, warn, info, debug, trace"))
        }
        None => EnvFilter::try_new(text).map_err(|error| format!("`{text}`: {error}")),
    }
}

/// Begins to log, for the rest of the process. A second call changes nothing.
///
/// # Errors
/// When the filter cannot be read.
pub fn init(settings: &Telemetry) -> Result<(), String> {
    let filter = filter(&settings.log_level)?;
    let has_colour = std::io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(has_colour);
    // Refused only when another part of the process has set one up, which then stays.
    let _ = match settings.log_format {
        LogFormat::Text => logs.try_init(),
        LogFormat::Json => logs.json().flatten_event(true).try_init(),
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::filter;

    #[test]
    fn levels_and_filters_are_told_from_typing_errors() {
        for good in ["info", "WARN", "off", "info,tailmark::storage=debug", "tailmark=trace"] {
            assert!(filter(good).is_ok(), "{good}");
        }
        for bad in ["", "loud", "info,tailmark::storage", "tailmark=loud"] {
            assert!(filter(bad).is_err(), "{bad}");
        }
    }
}
