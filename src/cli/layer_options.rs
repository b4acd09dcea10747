//! The one place where settings become the options of the layers.

use std::num::NonZeroU32;

use crate::config::{AuthMode, Config, LogFormat};
use crate::{server, telemetry};
use tailmark_log::eventlog;
use tailmark_log::storage::local;
use tailmark_record as record;

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

pub(super) fn storage_options(config: &Config) -> local::Options {
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

pub(super) fn log_options(config: &Config) -> eventlog::Options {
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
        topic_rules: topic_rules(config),
        ..eventlog::Options::default()
    }
}

/// These three may change while the daemon runs.
pub(super) fn topic_rules(config: &Config) -> eventlog::TopicRules {
    // Others were refused with the settings.
    config.retention.rules(&config.limits.of_topics()).unwrap_or_default()
}

pub(super) fn retention(config: &Config) -> eventlog::Retention {
    let retention = &config.retention;
    eventlog::Retention {
        max_age: retention.max_age,
        max_bytes: retention.max_bytes,
        max_events: retention.max_events,
    }
}

pub(super) fn access_rules(config: &Config) -> server::Http {
    server::Http {
        cors_origins: config.http.cors_origins.clone(),
        allowed_hosts: config.http.allowed_hosts.clone(),
    }
}

fn auth(config: &Config) -> server::Auth {
    let auth = &config.auth;
    let algorithms = auth.jwt_algorithms.iter();
    server::Auth {
        required: auth.mode == AuthMode::Required,
        metrics_open: auth.metrics_open,
        jwt: server::Jwt {
            issuer: auth.jwt_issuer.clone(),
            audience: auth.jwt_audience.clone(),
            // Others were refused with the settings.
            algorithms: algorithms.filter_map(|it| server::JwtAlgorithm::parse(it)).collect(),
        },
    }
}

pub(super) fn server_options(config: &Config) -> server::Options {
    let (server, limits, http2) = (&config.server, &config.limits, &config.http2);
    let window = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    server::Options {
        message_bytes: size(limits.message_bytes),
        patterns_per_watch: size(limits.patterns_per_watch),
        watches_per_connection: size(limits.watches_per_connection),
        watches: size(limits.watches),
        connections: size(limits.connections),
        connections_per_address: limits.connections_per_address.map(size),
        watches_per_address: limits.watches_per_address.map(size),
        watches_per_principal: limits.watches_per_principal.map(size),
        connections_per_principal: limits.connections_per_principal.map(size),
        uploads_per_connection: size(limits.uploads_per_connection),
        uploads: size(limits.uploads),
        uploads_per_address: limits.uploads_per_address.map(size),
        uploads_per_principal: limits.uploads_per_principal.map(size),
        first_message_timeout: limits.first_message_timeout,
        stream_idle_timeout: limits.stream_idle_timeout,
        rates: server::Rates {
            events: rate(limits.events_per_principal),
            bytes: rate(limits.bytes_per_principal),
        },
        rates_per_address: server::Rates {
            events: rate(limits.events_per_address),
            bytes: rate(limits.bytes_per_address),
        },
        max_concurrent_streams: window(http2.max_concurrent_streams),
        stream_in_flight_bytes: size(limits.stream_in_flight_bytes),
        arriving_bytes: size(config.log.in_flight_bytes),
        parked_bytes: size(limits.parked_bytes),
        unread_bytes: size(limits.unread_bytes),
        unsent_bytes: size(limits.unsent_bytes),
        unary_deadline: limits.unary_deadline,
        shutdown_grace: server.shutdown_grace,
        preface_timeout: server.preface_timeout,
        http1_header_timeout: server.http1_header_timeout,
        retry_delay: server.retry_delay,
        chat_heartbeat: config.chat.heartbeat,
        data_dir: (!config.journal.is_shared()).then(|| config.storage.data_dir.clone()),
        http2: server::Http2 {
            stream_window_bytes: window(http2.stream_window_bytes),
            connection_window_bytes: window(http2.connection_window_bytes),
            max_frame_bytes: window(http2.max_frame_bytes),
            max_send_buffer_bytes: size(http2.max_send_buffer_bytes),
            keepalive_interval: http2.keepalive_interval,
            keepalive_timeout: http2.keepalive_timeout,
            max_header_list_bytes: window(http2.max_header_list_bytes),
        },
        tls: tls_files(config),
        http: access_rules(config),
        auth: auth(config),
        dedup_window: size(config.log.dedup_window),
        instance: server.instance_id.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// Files that so many connections may have open.
pub(super) fn sockets(connections: u64) -> u64 {
    u64::try_from(server::sockets_of(size(connections))).unwrap_or(u64::MAX)
}

fn tls_files(config: &Config) -> Option<server::TlsFiles> {
    let tls = &config.tls;
    let client_ca =
        (!tls.client_ca_file.as_os_str().is_empty()).then(|| tls.client_ca_file.clone());
    tls.is_on().then(|| server::TlsFiles {
        cert: tls.cert_file.clone(),
        key: tls.key_file.clone(),
        client_ca,
    })
}

/// So many a second; checked with the settings.
fn rate(value: Option<u64>) -> Option<NonZeroU32> {
    value.and_then(|value| NonZeroU32::new(u32::try_from(value).unwrap_or(u32::MAX)))
}

fn size(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
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
        // A library's log need not lie on a disk.
        let data_dir = Some(config.storage.data_dir.clone());
        let there =
            server::Options { version: here.version.clone(), data_dir, ..Default::default() };
        assert_eq!(here, there);
        assert_eq!(telemetry_options(&config), telemetry::Options::default());
    }

    #[test]
    fn the_algorithms_of_the_settings_are_those_of_the_server() {
        let known = server::JwtAlgorithm::ALL.map(|(name, _)| name);
        assert_eq!(known, crate::config::JWT_ALGORITHMS);
    }
}
