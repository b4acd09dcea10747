//! `tailmark completions`.

use clap_complete::Shell;

use super::Failure;
use super::output::Output;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The shell
    shell: Shell,
}

/// Prints those of `command`, the whole program.
pub(super) fn run(args: Args, mut command: clap::Command) -> Result<(), Failure> {
    let mut output = Output::default();
    clap_complete::generate(args.shell, &mut command, "tailmark", &mut output.buffer);
    Ok(output.flush()?)
}
