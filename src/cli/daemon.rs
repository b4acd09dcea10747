//! The daemon behind `serve`: opens the log, serves it, closes it. The one place where settings
//! become the options of the layers.

use std::net::TcpListener;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::notify::{self, Notifier};
use super::reload;
use super::signals::{DaemonSignals, Stop};
use super::{Exit, Failure};
use crate::config::{Config, LogFormat};
use crate::server::{self, AccessRules, ServeError, Server};
use crate::telemetry::{self, LogLevel, Telemetry};
use tailmark_log::eventlog::{self, EventLog};
use tailmark_log::storage::local;
use tailmark_record::{self as record, Seq};

/// What a daemon tells when it can serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ready {
    pub oldest: Seq,
    pub head: Seq,
}

/// What settings act on while the daemon runs, and what shows how it is.
#[derive(Clone)]
pub(super) struct Live {
    log: EventLog,
    access: AccessRules,
    level: LogLevel,
}

impl Live {
    /// Puts into force what may change.
    ///
    /// # Errors
    /// Nothing has changed then.
    pub(super) fn take(&self, config: &Config) -> Result<(), String> {
        // The one step that can fail is the first.
        self.level.set(&config.telemetry.log_level)?;
        self.log.set_retention(retention(config), config.retention.interval);
        self.access.set(access_rules(config));
        Ok(())
    }

    /// Returns when the writer thread has come to a question among its work.
    pub(super) async fn writer_answers(&self) {
        self.log.ping().await;
    }

    /// What does not work, in words.
    pub(super) fn trouble(&self) -> Option<String> {
        let status = self.log.status();
        status.trouble.or(status.store.trouble).or(status.clock)
    }
}

/// What a daemon has to do with the rest of the process and of the machine.
pub(super) struct Way<'a> {
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
    way: Way<'_>,
    ready: impl FnOnce(Ready) + Send,
) -> Result<(), Failure> {
    let Way { telemetry, settings, signals, notifier } = way;
    let DaemonSignals { mut stop, reload } = signals;
    let Some(log) = open(config, &mut stop, &notifier).await? else { return Ok(()) };
    let listeners = listeners
        .into_iter()
        .map(tokio::net::TcpListener::from_std)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| Failure::new(Exit::Failure, "cannot listen").because(&error))?;
    let server =
        Server::new(log.clone(), server_options(config)).map_err(|error| unserved(&error))?;
    server.show_dropped_log_lines(telemetry.dropped_lines());
    let live = Live { log: log.clone(), access: server.access_rules(), level: telemetry.level() };
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
        shutdown.cancel();
        std::future::pending::<()>().await;
    };
    let served = tokio::select! {
        served = server.run(listeners, shutdown.clone()) => served,
        // None of these ends.
        () = stopping => Ok(()),
        () = reload_for_ever(settings, reload, live.clone(), notifier.clone()) => Ok(()),
        () = notifier.watch_over(&live) => Ok(()),
    };
    // A disk that hangs must not keep the program: what was acknowledged is durable without this.
    let closed = tokio::time::timeout(config.server.shutdown_grace, log.close()).await;
    served.map_err(|error| unserved(&error))?;
    closed.map_err(|_| unclosed(config))??;
    tracing::info!(head = %log.bounds().head, "closed");
    Ok(())
}

/// For what comes after the grace of closing.
const STOPPING_RESERVE: Duration = Duration::from_secs(10);

/// Opens the log; `None` where it took too long for who asked to stop meanwhile.
async fn open(
    config: &Config,
    stop: &mut Stop,
    notifier: &Notifier,
) -> Result<Option<EventLog>, Failure> {
    let (dir, storage) = (config.storage.data_dir.clone(), storage_options(config));
    let options = log_options(config);
    let open = move || tailmark_log::open(dir, storage, options);
    let mut opening = tokio::task::spawn_blocking(open);
    let grace = config.server.shutdown_grace;
    let opened = tokio::select! {
        opened = &mut opening => opened,
        () = notifier.opening(notify::work_done) => return Ok(None),
        _ = stop.wait() => match tokio::time::timeout(grace, opening).await {
            Ok(opened) => opened,
            Err(_) => {
                tracing::warn!("stopped while the log was being opened; the next start begins anew");
                return Ok(None);
            }
        },
    };
    let opened = opened
        .map_err(|error| Failure::new(Exit::Failure, "cannot open the log").because(&error))?;
    Ok(Some(opened?))
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
    Failure::new(Exit::Failure, "cannot serve").because(error)
}

fn unclosed(config: &Config) -> Failure {
    let grace = config.server.shutdown_grace;
    Failure::new(Exit::Failure, format!("the log did not close within {grace:?}"))
        .hint("nothing acknowledged is lost: the next start recovers it as after a kill")
}

fn size(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// What is logged and traced.
pub(super) fn telemetry_options(config: &Config) -> telemetry::Options {
    telemetry::Options {
        log_level: config.telemetry.log_level.clone(),
        log_format: match config.telemetry.log_format {
            LogFormat::Text => telemetry::Format::Text,
            LogFormat::Json => telemetry::Format::Json,
        },
        otlp_endpoint: config.telemetry.otlp_endpoint.clone(),
    }
}

fn storage_options(config: &Config) -> local::Options {
    let storage = &config.storage;
    local::Options {
        slot_bytes: storage.slot_bytes,
        compression: storage.compression,
        seal_after: storage.seal_after,
        min_free_bytes: storage.min_free_bytes,
        open_bytes: storage.open_segment_bytes,
        open_segments: size(storage.open_segments),
        ..local::Options::default()
    }
}

fn log_options(config: &Config) -> eventlog::Options {
    let (log, limits) = (&config.log, &config.limits);
    eventlog::Options {
        limits: record::Limits {
            event_bytes: size(limits.event_bytes),
            batch_events: size(limits.batch_events),
            batch_bytes: size(limits.batch_bytes),
            topic_bytes: size(limits.topic_bytes),
            topic_segments: size(limits.topic_segments),
            name_bytes: size(limits.name_bytes),
            headers: size(limits.headers),
            header_bytes: size(limits.header_bytes),
        },
        dedup_window: size(log.dedup_window),
        producers: size(log.producers),
        producer_idle: log.producer_idle,
        recent_bytes: size(log.recent_bytes),
        found_bytes: size(log.found_bytes),
        in_flight_bytes: size(log.in_flight_bytes),
        reader_threads: size(log.reader_threads),
        retention: retention(config),
        retention_interval: config.retention.interval,
        ..eventlog::Options::default()
    }
}

/// Both of these may change while the daemon runs.
fn retention(config: &Config) -> eventlog::Retention {
    let retention = &config.retention;
    eventlog::Retention {
        max_age: retention.max_age,
        max_bytes: retention.max_bytes,
        max_events: retention.max_events,
    }
}

fn access_rules(config: &Config) -> server::Http {
    server::Http {
        cors_origins: config.http.cors_origins.clone(),
        allowed_hosts: config.http.allowed_hosts.clone(),
    }
}

fn server_options(config: &Config) -> server::Options {
    let (server, limits, http2) = (&config.server, &config.limits, &config.http2);
    let window = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    server::Options {
        message_bytes: size(limits.message_bytes),
        patterns_per_watch: size(limits.patterns_per_watch),
        watches_per_connection: size(limits.watches_per_connection),
        watches: size(limits.watches),
        connections: size(limits.connections),
        max_concurrent_streams: window(http2.max_concurrent_streams),
        stream_in_flight_bytes: size(limits.stream_in_flight_bytes),
        arriving_bytes: size(config.log.in_flight_bytes),
        parked_bytes: size(limits.parked_bytes),
        unary_deadline: limits.unary_deadline,
        shutdown_grace: server.shutdown_grace,
        preface_timeout: server.preface_timeout,
        http1_header_timeout: server.http1_header_timeout,
        retry_delay: server.retry_delay,
        chat_heartbeat: config.chat.heartbeat,
        http2: server::Http2 {
            stream_window_bytes: window(http2.stream_window_bytes),
            connection_window_bytes: window(http2.connection_window_bytes),
            max_frame_bytes: window(http2.max_frame_bytes),
            max_send_buffer_bytes: size(http2.max_send_buffer_bytes),
            keepalive_interval: http2.keepalive_interval,
            keepalive_timeout: http2.keepalive_timeout,
            max_header_list_bytes: window(http2.max_header_list_bytes),
        },
        http: access_rules(config),
        dedup_window: size(config.log.dedup_window),
        instance: server.instance_id.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each default stands twice: where a library's user finds it, and in the settings.
    #[test]
    fn the_layers_defaults_are_those_of_the_settings() {
        let config = Config::default();
        let (here, there) = (storage_options(&config), local::Options::default());
        assert_eq!(format!("{here:#?}"), format!("{there:#?}"));
        let (here, there) = (log_options(&config), eventlog::Options::default());
        assert_eq!(format!("{here:#?}"), format!("{there:#?}"));
        let here = server_options(&config);
        let there = server::Options { version: here.version.clone(), ..Default::default() };
        assert_eq!(here, there);
        assert_eq!(telemetry_options(&config), telemetry::Options::default());
    }
}
