//! `tailmark config check` and `tailmark config print`.

use super::Failure;
use super::output::{Output, padded, print_line, say, width};
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
            if print.json {
                let mut output = Output::json();
                write_json(&loaded, &mut output.buffer);
                return Ok(output.flush()?);
            }
            print_line(&toml(&loaded))
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
fn toml(loaded: &Loaded) -> String {
    let entries = loaded.entries();
    let lines: Vec<_> = entries
        .iter()
        .map(|(key, value)| {
            let (section, name) = key.split_once('.').unwrap_or(("", key));
            (section, format!("{name} = {value}"), loaded.origin(key))
        })
        .collect();
    let columns = lines.iter().map(|(_, line, _)| width(line)).max().unwrap_or(0);
    let mut out = String::new();
    let mut current = "";
    for (section, line, origin) in &lines {
        if *section != current {
            let gap = if current.is_empty() { "" } else { "\n" };
            out.push_str(&format!("{gap}[{section}]\n"));
            current = section;
        }
        out.push_str(&format!("{}  # {origin}\n", padded(line, columns)));
    }
    out.truncate(out.trim_end().len());
    out
}
