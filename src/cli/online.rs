//! What all commands have in common that talk to a server.

use std::path::PathBuf;

use tailmark_client::{Client, Options, Pem};

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
    #[command(flatten)]
    tls: Tls,
}

// No doc comment, as above.
#[derive(Debug, clap::Args)]
pub(super) struct Tls {
    /// Who may vouch for the server at an https:// address, as PEM, in place of this system's
    /// authorities
    #[arg(long, env = "TAILMARK_CA", hide_env_values = true, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The certificate to show to the server, as PEM
    #[arg(long, env = "TAILMARK_CERT", hide_env_values = true, value_name = "FILE")]
    cert: Option<PathBuf>,
    /// Its key, where it is not in the same file
    #[arg(
        id = KEY,
        long = "key",
        alias = "tls-key",
        env = "TAILMARK_KEY",
        hide_env_values = true,
        value_name = "FILE",
        requires = "cert"
    )]
    key: Option<PathBuf>,
}

/// The argument for the certificate's key.
const KEY: &str = "tls_key";

/// Names the certificate's key otherwise where a command has a `--key` of its own.
pub(super) fn with_tls_key(command: clap::Command) -> clap::Command {
    command.mut_arg(KEY, |key| key.alias(None).long("tls-key"))
}

impl Tls {
    pub(super) fn options(&self) -> Options {
        let mut options = Options::default();
        let pem = |path: &Option<PathBuf>| path.as_ref().map(Pem::file);
        (options.tls.ca, options.tls.cert) = (pem(&self.ca), pem(&self.cert));
        options.tls.key = pem(&self.key).or_else(|| pem(&self.cert));
        options
    }
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
            let client = Client::with_options(&self.addr, self.tls.options()).map_err(|error| {
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
