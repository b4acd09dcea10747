//! `tailmark config check` and `tailmark config print`.

use super::Failure;
use super::output::{Output, print_line, say};
use super::serve::Settings;
use crate::config::{DEFAULT_TOML, Loaded};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Check the settings that `serve` would use
    Check(Settings),
    /// Show the settings that `serve` would use, each with where it comes from
    Print(Print),
}

#[derive(Debug, clap::Args)]
pub(super) struct Print {
    #[command(flatten)]
    settings: Settings,
    /// Print the commented default instead, ready to be edited
    #[arg(long, conflicts_with = "json")]
    default: bool,
    /// One object a setting: {"key", "value", "origin"}
    #[arg(long)]
    json: bool,
}

pub(super) fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Check(settings) => {
            let warnings = settings.load()?.config.warnings();
            warnings.iter().for_each(|warning| say(&format!("warning: {warning}")));
            print_line("the settings are fine")
        }
        Command::Print(print) if print.default => print_line(DEFAULT_TOML.trim_end()),
        Command::Print(print) => {
            let loaded = print.settings.load()?;
            let mut output = Output::default();
            if print.json {
                write_json(&loaded, &mut output.buffer);
            } else {
                write_toml(&loaded, &mut output.buffer);
            }
            Ok(output.flush()?)
        }
    }
}

fn write_json(loaded: &Loaded, out: &mut Vec<u8>) {
    for (key, value) in loaded.entries() {
        let origin = loaded.origin(&key).to_string();
        let line = serde_json::json!({"key": key, "value": value, "origin": origin});
        out.extend_from_slice(format!("{line}\n").as_bytes());
    }
}

/// TOML that `--config` reads back, with the origins as comments.
fn write_toml(loaded: &Loaded, out: &mut Vec<u8>) {
    let entries = loaded.entries();
    let lines: Vec<_> = entries
        .iter()
        .map(|(key, value)| {
            let (section, name) = key.split_once('.').unwrap_or(("", key));
            (section, format!("{name} = {value}"), loaded.origin(key))
        })
        .collect();
    let width = lines.iter().map(|(_, line, _)| line.chars().count()).max().unwrap_or(0);
    let mut current = "";
    for (section, line, origin) in &lines {
        if *section != current {
            let gap = if current.is_empty() { "" } else { "\n" };
            out.extend_from_slice(format!("{gap}[{section}]\n").as_bytes());
            current = section;
        }
        out.extend_from_slice(format!("{line:width$}  # {origin}\n").as_bytes());
    }
}
