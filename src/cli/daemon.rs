//! The daemon behind `serve`: opens the log, serves it, closes it.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;

use super::layer_options::server_options;
use super::live::Live;
use super::notify::{self, Notifier};
use super::part::{self, Opened};
use super::reload;
use super::signals::{DaemonSignals, Stop};
use super::{Exit, Failure};
use crate::config::{AuthMode, Config};
use crate::server::{ServeError, Server};
use crate::telemetry::Telemetry;
use crate::tokens::Files;
use tailmark_record::Seq;

/// What a daemon tells when it can serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ready {
    pub oldest: Seq,
    pub head: Seq,
}

/// What a daemon has to do with the rest of the process and of the machine.
pub(super) struct Context<'a> {
    pub telemetry: &'a Telemetry,
    pub settings: reload::Settings,
    pub signals: DaemonSignals,
    pub notifier: Notifier,
}

/// Opens the log, serves it on the (non-blocking) listeners until a signal asks to stop, then stops
/// gracefully within `server.shutdown_grace`. Calls `ready` once, when the first call can be taken.
pub(super) async fn run(
    config: &Config,
    listeners: Vec<TcpListener>,
    context: Context<'_>,
    ready: impl FnOnce(Ready) + Send,
) -> Result<(), Failure> {
    let Context { telemetry, settings, signals, notifier } = context;
    let DaemonSignals { mut stop, reload } = signals;
    let addresses = addresses(&listeners)?;
    let Some(opened) = open(config, addresses, &mut stop, &notifier).await? else { return Ok(()) };
    let log = opened.log.clone();
    let listeners = listeners
        .into_iter()
        .map(tokio::net::TcpListener::from_std)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| Failure::new(Exit::Failure, "cannot listen").because(&error))?;
    let mut server = Server::with_peers(log.clone(), server_options(config), opened.peers())
        .map_err(|error| unserved(&error))?;
    let (handle, part) = (server.served_log(), opened.start(&mut server)?);
    server.show_dropped_log_lines(telemetry.dropped_lines());
    let files = credentials(config, &server)?;
    let live = Live::new(&server, part.clone(), telemetry.level());
    let bounds = log.bounds();
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"), log = %log.id(),
        dir = %config.storage.data_dir.display(), oldest = %bounds.oldest, head = %bounds.head,
        generation = bounds.generations.current().generation.counter, "open"
    );
    if stop.requested().is_none() {
        ready(Ready { oldest: bounds.oldest, head: bounds.head });
        notifier.ready("serving");
    }
    let shutdown = CancellationToken::new();
    let stopping = async {
        let _ = stop.wait().await;
        // Twice the grace: for what is served, and for the log.
        notifier.stopping(2 * config.server.shutdown_grace + STOPPING_RESERVE);
        // While others are served still: who writes next is found before they come back.
        part.leave().await;
        shutdown.cancel();
        std::future::pending::<()>().await;
    };
    let served = tokio::select! {
        served = server.run(listeners, shutdown.clone()) => served,
        // None of these ends.
        () = stopping => Ok(()),
        () = reload_for_ever(settings, reload, live.clone(), notifier.clone()) => Ok(()),
        () = notifier.watch_over(&live) => Ok(()),
        () = follow_for_ever(files) => Ok(()),
    };
    // A disk that hangs must not keep the program: what was acknowledged is durable without this.
    let closed = tokio::time::timeout(config.server.shutdown_grace, part.close(&handle)).await;
    served.map_err(|error| unserved(&error))?;
    closed.map_err(|_| unclosed(config))??;
    tracing::info!(head = %handle.log().bounds().head, "closed");
    Ok(())
}

/// Takes the files of tokens and keys, where callers must say who they are.
fn credentials(config: &Config, server: &Server) -> Result<Option<Files>, Failure> {
    let auth = &config.auth;
    if auth.mode == AuthMode::None {
        return Ok(None);
    }
    let (tokens, keys) = (auth.tokens_file.clone(), auth.jwt_keys_file.clone());
    let files = Files::take(tokens, keys, server.credentials());
    Ok(Some(files.map_err(|error| Failure::new(Exit::Usage, error.to_string()).because(&error))?))
}

/// Also when there are none.
async fn follow_for_ever(files: Option<Files>) {
    match files {
        Some(files) => files.follow().await,
        None => std::future::pending().await,
    }
}

/// For what comes after the grace of closing.
const STOPPING_RESERVE: Duration = Duration::from_secs(10);

fn addresses(listeners: &[TcpListener]) -> Result<Vec<SocketAddr>, Failure> {
    let addresses = listeners.iter().map(TcpListener::local_addr).collect::<Result<_, _>>();
    addresses.map_err(|error| Failure::new(Exit::Failure, "cannot listen").because(&error))
}

/// Opens the log; `None` where it took too long for who asked to stop meanwhile.
async fn open(
    config: &Config,
    addresses: Vec<SocketAddr>,
    stop: &mut Stop,
    notifier: &Notifier,
) -> Result<Option<Opened>, Failure> {
    let ends = Arc::new(AtomicBool::new(false));
    // Whoever is not waited for any more.
    let _ends = EndsOnDrop(Arc::clone(&ends));
    let open = part::opens(config.clone(), addresses, Arc::clone(&ends));
    let mut opening = tokio::task::spawn_blocking(open);
    let grace = config.server.shutdown_grace;
    let opened = tokio::select! {
        opened = &mut opening => opened,
        () = notifier.opening(notify::work_done) => return Ok(None),
        _ = stop.wait() => match tokio::time::timeout(grace, ended(&ends, opening)).await {
            Ok(opened) => opened,
            Err(_) => {
                tracing::warn!("stopped while the log was being opened; the next start begins anew");
                return Ok(None);
            }
        },
    };
    opened.map_err(|error| Failure::new(Exit::Failure, "cannot open the log").because(&error))?
}

/// Has what may end early do so, and waits.
async fn ended<T>(ends: &AtomicBool, opening: JoinHandle<T>) -> Result<T, JoinError> {
    ends.store(true, Ordering::Relaxed);
    opening.await
}

/// Tells who works for nobody to end.
struct EndsOnDrop(Arc<AtomicBool>);

impl Drop for EndsOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Also when nobody can wish it.
async fn reload_for_ever(
    settings: reload::Settings,
    wishes: mpsc::Receiver<()>,
    live: Live,
    notifier: Notifier,
) {
    reload::run(settings, wishes, live, notifier).await;
    std::future::pending().await
}

fn unserved(error: &ServeError) -> Failure {
    if let ServeError::Tls(error) = error {
        return Failure::new(Exit::Usage, "no TLS").because(error).hint(
            "docs/operations.md says how to make certificates; `openssl x509 -noout -text -in \
             FILE` shows one",
        );
    }
    Failure::new(Exit::Failure, "cannot serve").because(error)
}

fn unclosed(config: &Config) -> Failure {
    let grace = config.server.shutdown_grace;
    Failure::new(Exit::Failure, format!("the log did not close within {grace:?}"))
        .hint("nothing acknowledged is lost: the next start recovers it as after a kill")
}
