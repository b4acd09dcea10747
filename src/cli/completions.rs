//! `tailmark completions`.

use clap::CommandFactory;
use clap_complete::Shell;

use super::output::Output;
use super::{Cli, Failure};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The shell
    shell: Shell,
}

pub(super) fn run(args: Args) -> Result<(), Failure> {
    let mut output = Output::default();
    clap_complete::generate(args.shell, &mut Cli::command(), "tailmark", &mut output.buffer);
    Ok(output.flush()?)
}
