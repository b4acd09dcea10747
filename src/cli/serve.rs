//! `tailmark serve`: settings, sockets, signals and the ready line around the server.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::daemon::{self, Context, Ready};
use super::layer_options::{sockets, telemetry_options};
use super::notify::Notifier;
use super::output::print_line;
use super::reload;
use super::signals::DaemonSignals;
use super::{Exit, Failure, heap};
use crate::config::{Config, ConfigError, Loaded, Sources};
use crate::escape;
use crate::telemetry;

/// What `serve` can be told; `config` commands take the same.
#[derive(Debug, clap::Args)]
pub(super) struct Settings {
    /// A file of settings; `config print --default` prints one to begin with
    #[arg(long, env = "TAILMARK_CONFIG", hide_env_values = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the log lives (storage.data_dir)
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Where to listen: IP:PORT, localhost:PORT, or :PORT for every address; port 0 takes any free one
    /// (server.listen)
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Listen beyond the loopback without TLS, or without knowing who asks (server.insecure)
    #[arg(long)]
    insecure: bool,
    /// The server's certificate and its chain, as PEM: the port then speaks TLS (tls.cert_file)
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<String>,
    /// The certificate's key (tls.key_file)
    #[arg(long, value_name = "FILE")]
    tls_key: Option<String>,
    /// Who vouches for clients, which then need certificates (tls.client_ca_file)
    #[arg(long, value_name = "FILE")]
    tls_client_ca: Option<String>,
    /// What is logged: error, warn, info, debug, trace, or a filter (telemetry.log_level)
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// text or json (telemetry.log_format)
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
}

impl Settings {
    /// Merges the flags with the environment, the file and the defaults.
    pub(super) fn load(self) -> Result<Loaded, ConfigError> {
        self.sources().load()
    }

    fn sources(self) -> Sources {
        let mut sources = Sources::from_process(self.config);
        sources.flag("--data-dir", "storage.data_dir", self.data_dir);
        sources.flag("--listen", "server.listen", self.listen);
        sources.flag("--insecure", "server.insecure", self.insecure.then(|| "true".to_owned()));
        sources.flag("--tls-cert", "tls.cert_file", self.tls_cert);
        sources.flag("--tls-key", "tls.key_file", self.tls_key);
        sources.flag("--tls-client-ca", "tls.client_ca_file", self.tls_client_ca);
        sources.flag("--log-level", "telemetry.log_level", self.log_level);
        sources.flag("--log-format", "telemetry.log_format", self.log_format);
        sources
    }
}

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    settings: Settings,
    /// What client commands take; known here only to say so
    #[arg(long, hide = true)]
    addr: Option<String>,
}

pub(super) fn run(args: Args) -> Result<(), Failure> {
    if args.addr.is_some() {
        return Err(Failure::new(Exit::Usage, "--addr says where a client connects to")
            .hint("where the daemon listens is --listen IP:PORT"));
    }
    let sources = args.settings.sources();
    let loaded = sources.load()?;
    let settings = reload::Settings::new(sources, &loaded);
    let config = loaded.config;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Failure, "cannot start").because(&error))?;
    let telemetry = {
        let _inside = runtime.enter();
        telemetry::init(&telemetry_options(&config), &config.server.instance_id)
            .map_err(|why| Failure::new(Exit::Usage, why))?
    };
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    heap::look_after();
    let notifier = Notifier::of_process();
    let outcome = runtime.block_on(async {
        // Before anything is open that an end in disorder could harm.
        let signals = DaemonSignals::listen()?;
        let context =
            Context { telemetry: &telemetry, settings, signals, notifier: notifier.clone() };
        serve(&config, context).await
    });
    notifier.finish();
    telemetry.finish();
    // Not dropped: that would wait for a log that does not close.
    runtime.shutdown_background();
    outcome.map_err(|failure| failure.reported_within(PATIENCE))
}

/// For standard output and standard error to take a line.
const PATIENCE: Duration = Duration::from_secs(1);

async fn serve(config: &Config, context: Context<'_>) -> Result<(), Failure> {
    let config = &within_open_files(config);
    let listeners = bind(config)?;
    let addresses =
        listeners
            .iter()
            .map(TcpListener::local_addr)
            .collect::<io::Result<Vec<_>>>()
            .map_err(|error| Failure::new(Exit::Failure, "cannot listen").because(&error))?;
    let ready = |ready: Ready| announce(ready_text(config, &addresses, ready));
    daemon::run(config, listeners, context, ready).await
}

/// Files for slots, readers and whatever else is open beside connections and sealed segments.
const OTHER_FILES: u64 = 512;

/// Raises the soft limit of open files, mostly 1,024, to what all connections need; where that is not
/// allowed there are fewer connections, for the log's own files come first.
fn within_open_files(config: &Config) -> Config {
    let mut config = config.clone();
    let own = 4 * config.storage.open_segments + OTHER_FILES;
    let needed = own + sockets(config.limits.connections);
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let Some(current) = current.filter(|current| *current < needed) else { return config };
    let mut allowed = maximum.map_or(needed, |maximum| maximum.min(needed));
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(allowed), maximum }) {
        tracing::warn!(current, needed, %error, "cannot raise the limit of open files");
        allowed = current;
    }
    let connections = connections_within(allowed, own).min(config.limits.connections);
    if connections < config.limits.connections {
        tracing::warn!(
            allowed,
            needed,
            connections,
            "fewer files may be open than limits.connections needs, so there are fewer connections: \
             raise the hard limit (ulimit -Hn), or lower the setting"
        );
        config.limits.connections = connections;
    }
    config
}

/// How many connections leave the log what it needs, but at most half of all.
fn connections_within(files: u64, own: u64) -> u64 {
    let left = files - own.min(files / 2);
    (1..=left).rev().find(|connections| sockets(*connections) <= left).unwrap_or(1)
}

/// Nobody reading the line is no reason to stop, nor to wait: standard output may be a pipe that is full,
/// and clients are there already.
fn announce(text: String) {
    let (done, printed) = sync_channel(1);
    let print = move || {
        let _ = print_line(&text);
        let _ = done.send(());
    };
    if std::thread::Builder::new().name("ready line".into()).spawn(print).is_ok() {
        let _ = printed.recv_timeout(PATIENCE);
    }
}

fn ready_text(config: &Config, addresses: &[SocketAddr], ready: Ready) -> String {
    let on: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    let scheme = if config.tls.is_on() { "https" } else { "http" };
    let addr = match addresses.first() {
        // Where client commands look by themselves.
        _ if !config.tls.is_on()
            && addresses.contains(&SocketAddr::from((Ipv4Addr::LOCALHOST, 50051))) =>
        {
            String::new()
        }
        None => String::new(),
        Some(first) => {
            let ip = match first.ip() {
                IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
                IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
                ip => ip,
            };
            format!(" --addr {scheme}://{}", SocketAddr::new(ip, first.port()))
        }
    };
    let next = if ready.head < ready.oldest {
        format!("tailmark publish hello.world 'first event'{addr}")
    } else {
        format!("tailmark watch --from oldest{addr}")
    };
    format!(
        "ready on {}, data in {}, oldest {}, head {}; try: {next}",
        on.join(" and "),
        escape::name(&config.storage.data_dir.display().to_string()),
        ready.oldest,
        ready.head
    )
}

/// Binds every address; for `localhost` both loopbacks on one port, or the one that this machine
/// has.
fn bind(config: &Config) -> Result<Vec<TcpListener>, Failure> {
    let addresses = config
        .server
        .addresses()
        .map_err(|invalid| Failure::new(Exit::Usage, invalid.to_string()))?;
    let mut listeners: Vec<TcpListener> = Vec::new();
    for mut address in addresses {
        if address.port() == 0
            && let Some(Ok(bound)) = listeners.first().map(TcpListener::local_addr)
        {
            address.set_port(bound.port());
        }
        match listen(address) {
            Ok(listener) => listeners.push(listener),
            Err(error) if is_absent(&error) && !listeners.is_empty() => {
                tracing::warn!(%address, %error, "this loopback is not there; going on without it");
            }
            // `:PORT` on a machine without IPv6.
            Err(error) if is_absent(&error) && config.server.listen.starts_with(':') => {
                let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
                listeners.push(listen(address).map_err(|error| bind_failure(address, &error))?);
            }
            Err(error) => return Err(bind_failure(address, &error)),
        }
    }
    Ok(listeners)
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// A machine without IPv6.
fn is_absent(error: &io::Error) -> bool {
    // EAFNOSUPPORT has no kind of its own.
    error.kind() == io::ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
}

fn bind_failure(address: SocketAddr, error: &io::Error) -> Failure {
    let what = format!("cannot listen on {address}");
    match error.kind() {
        io::ErrorKind::AddrInUse => Failure::new(Exit::Unavailable, what)
            .because(error)
            .hint("another daemon may be running; stop it, or use another port: --listen"),
        io::ErrorKind::AddrNotAvailable => Failure::new(Exit::Failure, what)
            .because(error)
            .hint("this machine does not have that address; `ip address` lists those it has"),
        io::ErrorKind::PermissionDenied => Failure::new(Exit::Failure, what)
            .because(error)
            .hint("ports below 1024 are mostly for root; use another one: --listen"),
        _ => Failure::new(Exit::Failure, what).because(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tailmark_record::Seq;

    fn config(listen: &str) -> Config {
        let mut config = Config::default();
        config.server.listen = listen.to_owned();
        config
    }

    #[test]
    fn localhost_is_both_loopbacks_on_one_port() {
        let listeners = bind(&config("localhost:0")).unwrap();
        let addresses: Vec<_> = listeners.iter().map(|l| l.local_addr().unwrap()).collect();
        assert!(addresses[0].is_ipv4() && addresses[0].ip().is_loopback());
        // A machine without IPv6 has the first alone.
        for address in &addresses {
            assert_eq!(address.port(), addresses[0].port());
            assert!(address.ip().is_loopback());
        }
    }

    #[test]
    fn connections_leave_room_for_the_log() {
        for (files, own) in [(64, 768), (256, 768), (1_024, 768), (65_536, 768), (4_000, 100)] {
            let connections = connections_within(files, own);
            let room = files - own.min(files / 2);
            assert!(sockets(connections) <= room || connections == 1, "{files}: {connections}");
            assert!(sockets(connections + 1) > room, "{files}: {connections}");
        }
        assert_eq!(connections_within(1_024, 768), 399);
    }

    #[test]
    fn a_taken_port_is_unavailable() {
        let first = bind(&config("127.0.0.1:0")).unwrap();
        let address = first[0].local_addr().unwrap();
        let failure = bind(&config(&address.to_string())).unwrap_err();
        assert_eq!(failure.exit(), Exit::Unavailable);
    }

    #[test]
    fn the_ready_line_says_what_to_try() {
        let address = "127.0.0.1:50051".parse().unwrap();
        let empty = Ready { oldest: Seq::FIRST, head: Seq::ZERO };
        assert_eq!(
            ready_text(&config("127.0.0.1:50051"), &[address], empty),
            "ready on 127.0.0.1:50051, data in tailmark-data, oldest 1, head 0; \
             try: tailmark publish hello.world 'first event'"
        );
        let filled = Ready { oldest: Seq::FIRST, head: Seq::new(7) };
        let other = "127.0.0.1:7000".parse().unwrap();
        assert_eq!(
            ready_text(&config("127.0.0.1:7000"), &[other], filled),
            "ready on 127.0.0.1:7000, data in tailmark-data, oldest 1, head 7; \
             try: tailmark watch --from oldest --addr http://127.0.0.1:7000"
        );
        let everywhere = "[::]:7000".parse().unwrap();
        let text = ready_text(&config("[::]:7000"), &[everywhere], filled);
        assert!(text.ends_with("--addr http://[::1]:7000"), "{text}");
    }
}
