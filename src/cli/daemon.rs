//! The daemon behind `serve`: opens the log, serves it, closes it. The one place where settings
//! become the options of the layers.

use std::future::Future;
use std::net::TcpListener;

use tokio_util::sync::CancellationToken;

use super::{Exit, Failure};
use crate::config::{Compression, Config};
use crate::server;
use tailmark_log::eventlog;
use tailmark_log::storage::{local, segment};
use tailmark_record::{self as record, Seq};

/// zstd's level 1 keeps up with uploads; higher ones gain little on blocks of 48 KiB.
const ZSTD_LEVEL: i32 = 1;

/// What a daemon tells when it can serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ready {
    pub oldest: Seq,
    pub head: Seq,
}

/// Opens the log, serves it on the (non-blocking) listeners until `stop` ends, then stops
/// gracefully within `server.shutdown_grace`. Calls `ready` once, when the first call can be taken.
pub(super) async fn run(
    config: &Config,
    listeners: Vec<TcpListener>,
    stop: impl Future<Output = ()> + Send + 'static,
    ready: impl FnOnce(Ready) + Send,
) -> Result<(), Failure> {
    let log = {
        let (dir, storage) = (config.storage.data_dir.clone(), storage_options(config));
        let options = log_options(config);
        let open = move || tailmark_log::open(dir, storage, options);
        let opened = tokio::task::spawn_blocking(open).await;
        opened
            .map_err(|error| Failure::new(Exit::Failure, "cannot open the log").because(&error))??
    };
    let listeners = listeners
        .into_iter()
        .map(tokio::net::TcpListener::from_std)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| Failure::new(Exit::Failure, "cannot listen").because(&error))?;
    let shutdown = CancellationToken::new();
    let stopper = {
        let shutdown = shutdown.clone();
        tokio::spawn(async move {
            stop.await;
            shutdown.cancel();
        })
    };
    let bounds = log.bounds();
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"), log = %log.id(),
        dir = %config.storage.data_dir.display(), oldest = %bounds.oldest, head = %bounds.head,
        generation = bounds.generations.current().generation.counter, "open"
    );
    ready(Ready { oldest: bounds.oldest, head: bounds.head });
    let served = server::serve(listeners, log.clone(), server_options(config), shutdown).await;
    stopper.abort();
    // A disk that hangs must not keep the program: what was acknowledged is durable without this.
    let closed = tokio::time::timeout(config.server.shutdown_grace, log.close()).await;
    served.map_err(|error| Failure::new(Exit::Failure, "cannot serve").because(&error))?;
    closed.map_err(|_| unclosed(config))??;
    tracing::info!(head = %log.bounds().head, "closed");
    Ok(())
}

fn unclosed(config: &Config) -> Failure {
    let grace = config.server.shutdown_grace;
    Failure::new(Exit::Failure, format!("the log did not close within {grace:?}"))
        .hint("nothing acknowledged is lost: the next start recovers it as after a kill")
}

fn size(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

fn storage_options(config: &Config) -> local::Options {
    let storage = &config.storage;
    local::Options {
        slot_bytes: storage.slot_bytes,
        compression: match storage.compression {
            Compression::None => segment::Compression::None,
            Compression::Lz4 => segment::Compression::Lz4,
            Compression::Zstd => segment::Compression::Zstd(ZSTD_LEVEL),
        },
        seal_after: storage.seal_after,
        min_free_bytes: storage.min_free_bytes,
        open_bytes: storage.open_segment_bytes,
        open_segments: size(storage.open_segments),
        ..local::Options::default()
    }
}

fn log_options(config: &Config) -> eventlog::Options {
    let (log, limits, retention) = (&config.log, &config.limits, &config.retention);
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
        retention: eventlog::Retention {
            max_age: retention.max_age,
            max_bytes: retention.max_bytes,
            max_events: retention.max_events,
        },
        retention_interval: retention.interval,
        ..eventlog::Options::default()
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
        http: server::Http {
            cors_origins: config.http.cors_origins.clone(),
            allowed_hosts: config.http.allowed_hosts.clone(),
        },
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
    }
}
