//! `tailmark journal repair`.

use std::path::PathBuf;

#[cfg(feature = "nats")]
mod work;

use super::super::{Exit, Failure};
use crate::config::{Config, Sources};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
For a daemon that says JOURNAL_DIVERGED, while it is stopped. Where the journal lost its end, --reappend puts
back what this copy has of it, with the same seqs and cursors: stop all daemons, and take the copy that has
most. --accept takes the journal as it is: the copy is set aside, and kept. docs/cluster.md has more.")]
pub(in crate::cli) struct Args {
    /// Put back into the journal what this copy has beyond its end; no daemon of the log may run
    #[arg(long, required_unless_present = "accept", conflicts_with = "accept")]
    reappend: bool,
    /// Take the journal as it is: set the copy aside, so that the daemon begins an empty one when it starts
    #[arg(long)]
    accept: bool,
    /// The daemon's settings
    #[arg(long, env = "TAILMARK_CONFIG", hide_env_values = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The copy, where it is not storage.data_dir of the settings
    #[arg(long = "data-dir", value_name = "DIR")]
    data_dir: Option<String>,
    /// Only say what would be put back or lost
    #[arg(long)]
    dry_run: bool,
    /// Do not ask; needed where standard input is no terminal
    #[arg(long, short)]
    yes: bool,
    /// Print the result, or with --dry-run what it would be, as one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(mut args: Args) -> Result<(), Failure> {
    let mut sources = Sources::from_process(args.config.take());
    sources.flag("--data-dir", "storage.data_dir", args.data_dir.take());
    let config: Config = sources.load()?.config;
    if !config.journal.is_shared() {
        let what = "these settings are of a log without a journal that others share";
        return Err(Failure::new(Exit::Usage, what)
            .hint("--config names the settings of the daemon whose copy this is"));
    }
    // Settings of a shared journal are refused by a program that has none.
    #[cfg(feature = "nats")]
    work::run(&args, &config)?;
    Ok(())
}
