//! What all commands have in common that talk to a server.

use tailmark_client::Client;

use super::{Exit, Failure};

// A command that talks to a server: no doc comment, since clap would print it as help.
#[derive(Debug, clap::Args)]
pub(super) struct Online<A: clap::Args> {
    #[command(flatten)]
    args: A,
    /// The server to talk to
    #[arg(
        long,
        env = "TAILMARK_ADDR",
        hide_env_values = true,
        value_name = "URL",
        default_value = "http://127.0.0.1:50051"
    )]
    addr: String,
}

impl<A: clap::Args> Online<A> {
    /// Runs the command with a client of its server.
    pub(super) fn run<F>(self, command: impl FnOnce(A, Client) -> F) -> Result<(), Failure>
    where
        F: Future<Output = Result<(), Failure>>,
    {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(|error| Failure::new(Exit::Failure, "cannot start").because(&error))?;
        let outcome = runtime.block_on(async {
            let client = Client::new(&self.addr).map_err(|error| {
                // Made here: nothing was asked of a server yet.
                Failure::new(Exit::Usage, format!("--addr (TAILMARK_ADDR): {error}"))
            })?;
            command(self.args, client).await
        });
        // A thread that waits for standard input must not keep the program.
        runtime.shutdown_background();
        outcome
    }
}
