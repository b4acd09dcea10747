//! The command line: one file per command.
//!
//! Owns arguments, output and exit codes. Data goes to standard output, everything else to
//! standard error. Client commands speak through `client` alone; `serve` reaches the server and
//! the log through `daemon` and `layer_options`, `log` the data directory through `inspect`.

mod address;
mod ahead;
mod backup;
mod bench;
mod chat;
mod completions;
mod config;
mod context;
mod contexts;
mod daemon;
mod doctor;
mod each;
mod erase;
mod failure;
mod form;
mod get;
mod heap;
mod input;
mod journal;
mod layer_options;
mod live;
mod log;
mod message;
mod metrics;
mod moment;
mod notify;
mod online;
mod output;
mod part;
mod pattern;
mod progress;
mod publish;
mod reload;
mod restore;
mod retention;
mod serve;
#[cfg(feature = "nats")]
mod shared;
mod signals;
mod state;
mod status;
mod terminal;
mod token;
mod topics;
mod trim;
mod upload;
mod usage;
mod watch;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

pub use failure::{Exit, Failure};
use online::Online;
use output::{flush, of_stdout};

const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    failed
  2    wrong usage or bad input
  3    not found, or there no more (trimmed, another log)
  4    data is damaged
  5    locked by another process, or the server is not available
  130  interrupted (129: terminal gone, 131: quit, 143: terminated)";

/// A persistent event-log feed: durable uploads, watches that resume exactly.
#[derive(Debug, Parser)]
#[command(name = "tailmark", version, after_help = EXIT_CODES, arg_required_else_help = true)]
pub struct Cli {
    /// Which server, said before the command; each command that talks to one has it too.
    #[arg(long, global = true, hide = true, value_name = "URL")]
    addr: Option<String>,
    #[arg(long, global = true, hide = true, value_name = "NAME")]
    context: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon
    Serve(serve::Args),
    /// Store one event, and wait until it is durable
    Publish(Online<publish::Args>),
    /// Store events from a file or standard input
    Upload(Online<upload::Args>),
    /// Print events as they come, from any point on; reconnects and resumes by itself
    Watch(Online<watch::Args>),
    /// Print one event, by its number or cursor
    Get(Online<get::Args>),
    /// Talk in a room: its history, then what others say; reconnects and resumes by itself
    Chat(Online<chat::Args>),
    /// Show the log's identity, bounds and limits
    Status(Online<status::Args>),
    /// Show the journal that several daemons share
    #[command(subcommand)]
    Journal(journal::Command),
    /// List topics with the number of their events
    Topics(Online<topics::Args>),
    /// Show what the daemon measures of itself, live
    Metrics(Online<metrics::Args>),
    /// Remove the oldest events
    Trim(Online<trim::Args>),
    /// Take what events said out of the log for good; their places stay
    Erase(Online<erase::Args>),
    /// Show what is removed by itself, and what would be
    #[command(subcommand)]
    Retention(retention::Command),
    /// Measure uploads and replays of a running daemon
    #[command(subcommand)]
    Bench(bench::Command),
    /// Say step by step what is wrong between here and a server
    Doctor(doctor::Args),
    /// Give servers names, so that nobody types addresses
    #[command(subcommand)]
    Context(context::Command),
    /// Give out tokens, and take them back
    #[command(subcommand)]
    Token(token::Command),
    /// Check or show the daemon's settings
    #[command(subcommand)]
    Config(config::Command),
    /// Inspect a data directory offline; changes nothing unless it says so
    #[command(subcommand)]
    Log(log::Command),
    /// Keep the log elsewhere, what is there already once; also beside a running daemon, or from one
    Backup(Box<backup::Args>),
    /// Make a log of a backup, in a new directory
    Restore(restore::Args),
    /// Print completions for a shell
    Completions(completions::Args),
}

/// Runs the program with the arguments of this process.
pub fn main() -> ExitCode {
    run(std::env::args_os())
}

/// Runs the program with these arguments, the first being its name.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    terminal::settle_colors();
    let parsed = command().try_get_matches_from(args);
    let cli = match parsed.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(mut error) => {
            usage::tame(&mut error);
            if error.use_stderr() {
                let _ = error.print();
                return ExitCode::from(Exit::Usage.code());
            }
            // Help and version are data.
            return exit_code(
                error.print().map_err(of_stdout).and_then(|()| flush()).map_err(Failure::from),
            );
        }
    };
    exit_code(cli.dispatch())
}

/// What the program takes.
fn command() -> clap::Command {
    // An event has a key, too.
    let command = Cli::command().mut_subcommand("publish", online::with_tls_key);
    command.mut_subcommand("erase", online::with_tls_key)
}

fn exit_code(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.report();
            ExitCode::from(failure.exit().code())
        }
    }
}

impl Cli {
    fn dispatch(self) -> Result<(), Failure> {
        let is_of_server = self.addr.is_some() || self.context.is_some();
        match self.command {
            Command::Config(_)
            | Command::Log(_)
            | Command::Context(_)
            | Command::Completions(_)
                if is_of_server =>
            {
                Err(Failure::new(Exit::Usage, "--addr and --context: this command asks no server"))
            }
            Command::Serve(args) => serve::run(args),
            Command::Publish(online) => online.run(publish::run),
            Command::Upload(online) => online.run(upload::run),
            Command::Watch(online) => online.run(watch::run),
            Command::Get(online) => online.run(get::run),
            Command::Chat(online) => online.run(chat::run),
            Command::Status(online) => online.run(status::run),
            Command::Journal(command) => journal::run(command),
            Command::Topics(online) => online.run(topics::run),
            Command::Metrics(online) => online.run(metrics::run),
            Command::Trim(online) => online.run(trim::run),
            Command::Erase(online) => online.run(erase::run),
            Command::Retention(command) => retention::run(command),
            Command::Bench(command) => bench::run(command),
            Command::Doctor(args) => doctor::run(args),
            Command::Context(command) => context::run(command),
            Command::Token(command) => token::run(command),
            Command::Config(command) => config::run(command),
            Command::Log(command) => log::run(command),
            Command::Backup(args) => backup::run(*args),
            Command::Restore(args) => restore::run(&args),
            Command::Completions(args) => completions::run(args, command()),
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_arguments_are_consistent() {
        super::command().debug_assert();
    }
}
