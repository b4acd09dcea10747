//! Tailmark measured side by side with its peers and with the limits of the machine; `README.md`.

mod abuse;
mod calls;
mod fan;
mod guard;
mod large;
mod limits;
mod load;
mod own;
mod peers;
mod process;
mod rounds;
mod sample;
mod stats;
mod table;
mod timing;
mod works;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::{Parser, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};

use peers::{Setup, Target};
use rounds::Rounds;
use table::Table;
use works::{Plan, Work};

/// Tailmark measured side by side with its peers and with the limits of the machine
#[derive(Debug, Parser)]
enum Command {
    /// Runs works in rounds on each target in turn, and prints one table
    Run(Run),
    /// Fails when appends, replays or publishes have become slow against the limits
    Guard(guard::Args),
    /// Tailmark alone on a large log: memory, opening, growth, stalled watchers, disk
    Large(large::Args),
    /// What a publisher, a watch and a reader feel beside attacks on the daemon
    Abuse(abuse::Args),
    /// Whether the time of an answer tells what one may not see
    Timing(timing::Args),
    /// The limit of the wire, as a server
    #[command(hide = true)]
    Passthrough,
}

#[derive(Debug, clap::Args)]
struct Run {
    /// The `tailmark` program
    #[arg(long, default_value = "target/release/tailmark")]
    daemon: PathBuf,
    /// The `nats-server` program
    #[arg(long, default_value = "nats-server")]
    nats_server: PathBuf,
    /// Drive a daemon that runs already, as in http://127.0.0.1:50051; its log may hold anything
    #[arg(long)]
    addr: Option<String>,
    /// Rounds of each work
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Events of an append; the other works are in proportion
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1_000..))]
    events: u64,
    /// These works alone
    #[arg(long, value_delimiter = ',')]
    only: Vec<Work>,
    /// These targets alone
    #[arg(long, value_delimiter = ',')]
    targets: Vec<Target>,
    /// Small sizes, two rounds: whether all of it works
    #[arg(long, conflicts_with_all = ["rounds", "events"])]
    quick: bool,
    /// Print one JSON object a cell instead of the table
    #[arg(long)]
    json: bool,
    /// Where servers put their data
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    dir: PathBuf,
    /// Seconds of one work on one target
    #[arg(long, default_value_t = 600)]
    timeout: u64,
    /// Bytes of a commit of the file limit before one of the daemon's was seen
    #[arg(long, default_value_t = 1 << 20, value_parser = clap::value_parser!(u32).range(4_096..=64 << 20))]
    commit_bytes: u32,
}

fn main() -> ExitCode {
    process::raise_open_files();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(unless_stopped(Command::parse())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Ends the work, and so its servers and directories, when asked to. The work is a task, as it is in
/// most programs: on a thread beside the runtime's it would be woken across threads for each buffer.
async fn unless_stopped(command: Command) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut work = tokio::spawn(dispatch(command));
    let stopped = tokio::select! {
        done = &mut work => return done?,
        _ = tokio::signal::ctrl_c() => "interrupted",
        _ = terminate.recv() => "terminated",
    };
    work.abort();
    // What it has started is ended when it is dropped.
    let _ = work.await;
    bail!(stopped)
}

async fn dispatch(command: Command) -> Result<()> {
    match command {
        Command::Run(args) => run(args).await,
        Command::Guard(args) => guard::run(args).await,
        Command::Large(args) => large::run(args).await,
        Command::Abuse(args) => abuse::run(args).await,
        Command::Timing(args) => timing::run(args).await,
        Command::Passthrough => limits::serve().await,
    }
}

async fn run(args: Run) -> Result<()> {
    let targets = match (args.targets.is_empty(), &args.addr) {
        (false, _) => args.targets,
        (true, Some(_)) => vec![Target::Tailmark],
        (true, None) => Target::value_variants().to_vec(),
    };
    let works = match args.only.is_empty() {
        true => Work::value_variants().to_vec(),
        false => args.only,
    };
    let plan = if args.quick { Plan::quick() } else { Plan::new(args.events) };
    let stores = targets.iter().filter(|target| target.keeps_events()).count();
    let (needed, free) = (plan.disk_bytes(stores), process::free_bytes(&args.dir)?);
    ensure!(
        free >= needed,
        "{} has {} MB free, up to {} MB are needed; fewer --events or --targets need less",
        args.dir.display(),
        free >> 20,
        needed >> 20
    );
    // Removed at the end with whatever is left in it.
    let dir = tempfile::Builder::new().prefix("tailmark-compare.").tempdir_in(&args.dir)?;
    let setup = Setup {
        nats_server: args.nats_server,
        addr: args.addr,
        commit_bytes: args.commit_bytes as usize,
        ..Setup::new(&args.daemon, dir.path())
    };
    let rounds = Rounds {
        setup,
        plan,
        works,
        targets: targets.clone(),
        rounds: if args.quick { 2 } else { args.rounds.into() },
        timeout: Duration::from_secs(args.timeout),
    };
    let mut table = Table::default();
    let outcome = rounds.run(&mut table).await;
    // What there is of it, also when a work has failed.
    match args.json {
        true => print!("{}", table.json()?),
        false => print!("{}", table.markdown(&targets)),
    }
    dir.close().context("cannot remove the directory of the servers")?;
    outcome
}
