//! What all commands have in common that talk to a server.

use std::path::PathBuf;
use std::sync::OnceLock;

use tailmark_client::{Client, Error, Options, Pem, TokenProvider};

use super::address::{self, Address, Origin};
use super::contexts::{Context, Contexts};
use super::output::say;
use super::{Exit, Failure};

/// What clap would print with its value.
const TOKEN: &str = "TAILMARK_TOKEN";
const TOKEN_FILE: &str = "TAILMARK_TOKEN_FILE";
const ADDR: &str = "TAILMARK_ADDR";
const CONTEXT: &str = "TAILMARK_CONTEXT";

// A command that talks to a server: no doc comment, since clap would print it as help.
#[derive(Debug, clap::Args)]
pub(super) struct Online<A: clap::Args> {
    #[command(flatten)]
    args: A,
    #[command(flatten)]
    target: Target,
}

// Which server: no doc comment, since clap would print it as help.
#[derive(Debug, clap::Args)]
pub(super) struct Target {
    /// The server to talk to: a URL, or HOST:PORT without TLS (TAILMARK_ADDR) [default:
    /// http://127.0.0.1:50051]
    #[arg(long, value_name = "URL")]
    addr: Option<String>,
    /// The same by a name that `tailmark context` gave it (TAILMARK_CONTEXT)
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    #[command(flatten)]
    identity: Identity,
}

impl Target {
    /// Whether an argument names a server, for a command that also works without one.
    pub(super) fn is_named(&self) -> bool {
        self.addr.is_some() || self.context.is_some()
    }

    /// As [`Target::settle`], where anybody names a server: an argument, a variable or the context in use.
    pub(super) fn settle_if_named(self) -> Result<Option<(Address, Identity)>, Failure> {
        let (address, identity) = self.settle()?;
        Ok((address.origin != Origin::Default).then_some((address, identity)))
    }

    /// The token that a flag gives.
    pub(super) fn given(&self) -> Result<Option<String>, Failure> {
        self.identity.given()
    }

    /// Which server it is, and as whom it is asked.
    pub(super) fn settle(self) -> Result<(Address, Identity), Failure> {
        let Target { addr, context, mut identity } = self;
        let said = Said { argument: None, flag: addr, context };
        let (address, context) = said.settle()?;
        identity.context = context;
        Ok((address, identity))
    }
}

/// What was said of the server to talk to.
pub(super) struct Said {
    pub argument: Option<String>,
    pub flag: Option<String>,
    pub context: Option<String>,
}

impl Said {
    /// What counts: arguments before variables, an address before a context.
    pub(super) fn settle(self) -> Result<(Address, Option<Context>), Failure> {
        let flag = match (self.argument, self.flag) {
            (Some(_), Some(_)) => return Err(twice("a URL")),
            (Some(argument), None) => Some((argument, Origin::Argument)),
            (None, flag) => flag.map(|flag| (flag, Origin::Flag)),
        };
        if let Some((text, origin)) = flag {
            return match self.context {
                Some(_) => Err(twice("--context")),
                None => Ok((address(&text, origin)?, None)),
            };
        }
        if self.context.is_none()
            && let Some(text) = variable(ADDR)
        {
            return Ok((address(&text, Origin::Environment)?, None));
        }
        let all = match self.context.or_else(|| variable(CONTEXT)) {
            Some(name) => Contexts { current: Some(name), ..Contexts::read()? },
            None => Contexts::read()?,
        };
        if let Some(name) = &all.current
            && let Some(context) = all.get(name)?
        {
            let origin = Origin::Context(name.clone());
            return Ok((address(&context.addr, origin)?, Some(context.clone())));
        }
        Ok((Address { url: address::DEFAULT.to_owned(), origin: Origin::Default }, None))
    }
}

fn address(text: &str, origin: Origin) -> Result<Address, Failure> {
    Address::of(text, origin).map_err(|problem| Failure::new(Exit::Usage, problem))
}

fn twice(other: &str) -> Failure {
    Failure::new(Exit::Usage, format!("--addr and {other} name a server each"))
        .hint("leave one out")
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The server that this process asks.
static ASKED: OnceLock<Address> = OnceLock::new();

/// Why a connection was lost, and to which server.
pub(super) fn interruption(cause: &Error) -> String {
    let said = cause.to_string();
    // What the server says itself needs no address.
    let (true, Some(address)) = (cause.reason().is_empty(), ASKED.get()) else { return said };
    Failure::new(Exit::Unavailable, said).unmet().of_server(address).message().to_owned()
}

// As whom a command asks: no doc comment, since clap would print it as help.
#[derive(clap::Args)]
pub(super) struct Identity {
    /// Who asks, where the server wants to know: a token, better given as TAILMARK_TOKEN, for others on
    /// this machine see arguments
    #[arg(long, value_name = "TOKEN", conflicts_with = "token_file")]
    token: Option<String>,
    /// A file with the token, read again at each connection (TAILMARK_TOKEN_FILE)
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Send in gzip, and take answers in gzip: for slow networks
    #[arg(long)]
    compress: bool,
    #[command(flatten)]
    tls: Tls,
    /// What the server's context says, where nothing else does.
    #[arg(skip)]
    pub(super) context: Option<Context>,
}

/// Without the token.
impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("token_file", &self.token_file).finish_non_exhaustive()
    }
}

impl Identity {
    /// Where the token comes from; a flag counts before a variable, and that before the context.
    fn token(&self) -> Option<TokenProvider> {
        match (&self.token, &self.token_file) {
            (Some(token), _) => Some(TokenProvider::fixed(token.as_str())),
            (None, Some(path)) => Some(TokenProvider::file(path)),
            (None, None) => token_of_environment()
                .map(TokenProvider::fixed)
                .or_else(|| variable(TOKEN_FILE).map(TokenProvider::file))
                .or_else(|| self.context.as_ref()?.token_file.as_ref().map(TokenProvider::file)),
        }
    }

    fn given(&self) -> Result<Option<String>, Failure> {
        let Some(path) = &self.token_file else { return Ok(self.token.clone()) };
        let text = std::fs::read_to_string(path).map_err(|error| {
            Failure::new(Exit::Failure, format!("cannot read {}", path.display())).because(&error)
        })?;
        Ok(Some(text.trim().to_owned()))
    }

    /// Whether all that was said goes with the address.
    pub(super) fn check(&self, address: &Address) -> Result<(), Failure> {
        self.tls.check(&address.url)
    }

    /// As whom a client connects.
    pub(super) fn options(&self) -> Options {
        let mut options = Options::default();
        options.tls = self.tls.settled(self.context.as_ref());
        options.token = self.token();
        options.compress = self.compress;
        options
    }

    /// A client of the server at an address. Needs a tokio runtime.
    pub(super) fn client(&self, address: &Address) -> Result<Client, Failure> {
        let (options, addr) = (self.options(), &address.url);
        self.check(address)?;
        // The first one counts: a command asks one.
        let _ = ASKED.set(address.clone());
        if options.token.is_some() && !is_private(addr) {
            say(&format!(
                "warning: the token goes to {addr} without TLS: whoever is in between can take it"
            ));
        }
        Client::with_options(addr, options).map_err(|error| {
            // Made here: nothing was asked of a server yet.
            Failure::new(Exit::Usage, format!("{}: {error}", address.origin))
        })
    }
}

// No doc comment, as above.
#[derive(Debug, clap::Args)]
struct Tls {
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
    /// What was said here for TLS goes with no address that has none: it was meant to be encrypted. Variables are for
    /// whatever server comes.
    fn check(&self, addr: &str) -> Result<(), Failure> {
        let all = [
            ("--ca", &self.ca, "TAILMARK_CA"),
            ("--cert", &self.cert, "TAILMARK_CERT"),
            ("--key", &self.key, "TAILMARK_KEY"),
        ];
        let said = all.iter().find(|(_, file, name)| {
            let file = file.as_ref().map(|file| file.as_os_str());
            file.is_some() && file != std::env::var_os(name).as_deref()
        });
        match said {
            Some((flag, ..)) if addr.starts_with("http://") => Err(Failure::new(
                Exit::Usage,
                format!("{flag}: {addr} has no TLS"),
            )
            .hint(format!("an address with TLS begins with https://, as in {}", secured(addr)))),
            _ => Ok(()),
        }
    }

    /// What is said here, else by the context. A certificate and its key go together.
    fn settled(&self, context: Option<&Context>) -> tailmark_client::Tls {
        let pem = |path: &Option<PathBuf>| path.as_ref().map(Pem::file);
        let (cert, key) = match context.filter(|_| self.cert.is_none()) {
            Some(context) => (&context.cert, &context.key),
            None => (&self.cert, &self.key),
        };
        let mut tls = tailmark_client::Tls::default();
        tls.ca = pem(&self.ca).or_else(|| pem(&context?.ca));
        (tls.cert, tls.key) = (pem(cert), pem(key).or_else(|| pem(cert)));
        tls
    }
}

/// The token that the environment has.
pub(super) fn token_of_environment() -> Option<String> {
    variable(TOKEN)
}

/// The same address with TLS.
pub(super) fn secured(addr: &str) -> String {
    addr.replacen("http://", "https://", 1)
}

/// Whether nobody else sees what is sent to this address: it is encrypted, or does not leave the machine.
fn is_private(addr: &str) -> bool {
    let Some(rest) = addr.strip_prefix("http://") else { return true };
    let authority = rest.split('/').next().unwrap_or_default();
    let host = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, _)) => host,
        None => authority.split(':').next().unwrap_or_default(),
    };
    let ip = host.parse::<std::net::IpAddr>();
    host.eq_ignore_ascii_case("localhost") || ip.is_ok_and(|ip| ip.to_canonical().is_loopback())
}

impl<A: clap::Args> Online<A> {
    /// Runs the command with a client of its server.
    pub(super) fn run<F>(self, command: impl FnOnce(A, Client) -> F) -> Result<(), Failure>
    where
        F: Future<Output = Result<(), Failure>>,
    {
        let Online { args, target } = self;
        let (address, identity) = target.settle()?;
        let outcome = run(async { command(args, identity.client(&address)?).await });
        outcome.map_err(|failure| failure.of_server(&address))
    }
}

/// Runs a command that talks to a server.
pub(super) fn run<T>(command: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Failure, "cannot start").because(&error))?;
    let outcome = runtime.block_on(command);
    // A thread that waits for standard input must not keep the program.
    runtime.shutdown_background();
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leaves_the_machine_in_the_open_is_told() {
        for addr in [
            "https://log.example",
            "http://localhost:50051",
            "http://127.0.0.1:1",
            "http://127.9.9.9/",
            "http://[::1]:50051",
            "http://[::ffff:127.0.0.1]:1",
        ] {
            assert!(is_private(addr), "{addr}");
        }
        for addr in [
            "http://log.example:50051",
            "http://10.0.0.1",
            "http://[2001:db8::1]:1",
            "http://localhost.evil",
        ] {
            assert!(!is_private(addr), "{addr}");
        }
    }

    #[derive(Debug, clap::Args)]
    struct Nothing {}

    #[test]
    fn a_token_is_in_no_debug_output() {
        let tls = Tls { ca: None, cert: None, key: None };
        let token = Some("tailmark_secret".to_owned());
        let identity = Identity { token, token_file: None, compress: false, tls, context: None };
        let target = Target { addr: None, context: None, identity };
        let online = Online { args: Nothing {}, target };
        assert!(!format!("{online:?}").contains("secret"));
    }
}
