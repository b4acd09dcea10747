//! Settings: what they are, their defaults, and what values are allowed.
//!
//! Plain values that `load` merges from flags, the environment, a file and the defaults; nothing
//! here reads anything by itself or knows what the settings do. `config.toml` in the root is the
//! commented default and part of the program; a test holds the two together.

mod compression;
mod foreign;
mod load;
mod read;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use load::{ConfigError, Loaded, Origin, Sources};
pub use tailmark_log::Compression;
use tailmark_record::units;

/// The commented default.
pub const DEFAULT_TOML: &str = include_str!("../config.toml");

macro_rules! section {
    ($(#[$doc:meta])* $name:ident {
        $($(#[$field_doc:meta])* $field:ident: $type:ty $(as $with:literal)? = $default:expr,)*
    }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name {
            $($(#[$field_doc])* $(#[serde(with = $with)])? pub $field: $type,)*
        }

        impl Default for $name {
            fn default() -> Self {
                $name { $($field: $default,)* }
            }
        }
    };
}

// What it makes use of stands above it.
mod auth;
mod journal;
mod limits;
mod retention;

pub use auth::{Auth, AuthMode, JWT_ALGORITHMS};
pub use journal::{HAS_NATS, Journal, JournalKind};
pub use limits::Limits;
pub use retention::{Retention, TopicRetention};
pub use tailmark_log::eventlog::Keep;

section!(
    /// All settings.
    Config {
        /// The daemon.
        server: Server = Server::default(),
        /// Encryption.
        tls: Tls = Tls::default(),
        /// How the log rests on disk.
        storage: Storage = Storage::default(),
        /// Who keeps the journal.
        journal: Journal = Journal::default(),
        /// The log in memory.
        log: Log = Log::default(),
        /// What is removed by itself.
        retention: Retention = Retention::default(),
        /// Upper bounds.
        limits: Limits = Limits::default(),
        /// Rooms.
        chat: Chat = Chat::default(),
        /// HTTP/2.
        http2: Http2 = Http2::default(),
        /// Plain HTTP and gRPC-Web.
        http: Http = Http::default(),
        /// Who must say who they are.
        auth: Auth = Auth::default(),
        /// Logs.
        telemetry: Telemetry = Telemetry::default(),
    }
);

section!(
    /// The daemon.
    Server {
        /// `HOST:PORT`.
        listen: String = "127.0.0.1:50051".to_owned(),
        /// Listen beyond the loopback without TLS and authentication.
        insecure: bool = false,
        /// This daemon's name in metrics.
        instance_id: String = "server-01".to_owned(),
        /// From the first signal to the cut.
        shutdown_grace: Duration as "units::duration" = Duration::from_secs(10),
        /// For a new connection to say which protocol it speaks.
        preface_timeout: Duration as "units::duration" = Duration::from_secs(10),
        /// For the head of an HTTP/1.1 request.
        http1_header_timeout: Duration as "units::duration" = Duration::from_secs(30),
        /// What a client is asked to wait before it comes back.
        retry_delay: Duration as "units::duration" = Duration::from_secs(1),
    }
);

section!(
    /// Encryption; empty = none.
    Tls {
        /// The server's certificate and its chain, as PEM.
        cert_file: PathBuf = PathBuf::new(),
        /// Its key.
        key_file: PathBuf = PathBuf::new(),
        /// Who vouches for clients, each of which then needs a certificate.
        client_ca_file: PathBuf = PathBuf::new(),
    }
);

section!(
    /// How the log rests on disk.
    Storage {
        /// Where the log lives.
        data_dir: PathBuf = PathBuf::from("tailmark-data"),
        /// Size of one journal slot.
        slot_bytes: u64 as "units::size" = 64 << 20,
        /// Of sealed events.
        compression: Compression as "compression" = Compression::Lz4,
        /// A slot that is not full is sealed after this long.
        seal_after: Duration as "units::duration" = Duration::from_secs(3_600),
        /// Appends are refused while less is free.
        min_free_bytes: u64 as "units::size" = 256 << 20,
        /// Sealed segments kept open, by what has been read of them.
        open_segment_bytes: u64 as "units::size" = 64 << 20,
        /// Sealed segments kept open, by number.
        open_segments: u64 = 64,
    }
);

section!(
    /// The log in memory.
    Log {
        /// Events that repeats are recognised among.
        dedup_window: u64 = 1_000_000,
        /// Producers known at once.
        producers: u64 = 100_000,
        /// A producer not heard of for so long is forgotten.
        producer_idle: Duration as "units::duration" = Duration::from_secs(30 * 24 * 3_600),
        /// Recent commits kept for live watchers.
        recent_bytes: u64 as "units::size" = 32 << 20,
        /// What filters have found lately, kept for those who ask again.
        found_bytes: u64 as "units::size" = 8 << 20,
        /// Events that may wait for the writer.
        in_flight_bytes: u64 as "units::size" = 64 << 20,
        /// Threads that read from disk.
        reader_threads: u64 = 2,
    }
);

section!(
    /// Rooms.
    Chat {
        /// Between two signs of life on a `chat.ChatService.Chat`.
        heartbeat: Duration as "units::duration" = Duration::from_secs(5),
    }
);

section!(
    /// HTTP/2.
    Http2 {
        /// Streams open at once on one connection.
        max_concurrent_streams: u64 = 1_100,
        /// What a client may send on one stream before we have read it.
        stream_window_bytes: u64 as "units::size" = 512 << 10,
        /// What a client may send on one connection before we have read it.
        connection_window_bytes: u64 as "units::size" = 32 << 20,
        /// Largest frame that a client may send.
        max_frame_bytes: u64 as "units::size" = 72 << 10,
        /// What we buffer for one stream whose client does not read.
        max_send_buffer_bytes: u64 as "units::size" = 256 << 10,
        /// Largest list of headers that a client may send.
        max_header_list_bytes: u64 as "units::size" = 16 << 10,
        /// Silence after which a connection is probed.
        keepalive_interval: Duration as "units::duration" = Duration::from_secs(30),
        /// For the answer to a probe.
        keepalive_timeout: Duration as "units::duration" = Duration::from_secs(20),
    }
);

section!(
    /// Plain HTTP and gRPC-Web.
    Http {
        /// Origins of other sites whose pages may ask.
        cors_origins: Vec<String> = Vec::new(),
        /// Names that a request may be for, beside the loopback's.
        allowed_hosts: Vec<String> = Vec::new(),
    }
);

/// How logs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

section!(
    /// Logs and traces.
    Telemetry {
        /// A level or a filter.
        log_level: String = "info".to_owned(),
        /// How they are written.
        log_format: LogFormat = LogFormat::Text,
        /// Where traces go, over gRPC; empty = nowhere.
        otlp_endpoint: String = String::new(),
    }
);

/// A value that is not allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct Invalid {
    /// `section.key`.
    pub key: &'static str,
    /// What is wrong with it.
    pub problem: String,
    /// The other setting that it does not go with, where the range depends on one.
    pub against: Option<&'static str>,
}

impl Invalid {
    fn new(key: &'static str, problem: impl Into<String>) -> Invalid {
        Invalid { key, problem: problem.into(), against: None }
    }

    /// Says which setting the range depends on.
    fn against(mut self, other: &'static str) -> Invalid {
        self.problem = format!("{}, as {other} is set", self.problem);
        self.against = Some(other);
        self
    }
}

impl Config {
    /// Checks ranges, and what must not be done by accident.
    ///
    /// # Errors
    /// The first value that is not allowed.
    pub fn check(&self) -> Result<(), Invalid> {
        self.server.check()?;
        self.tls.check()?;
        self.check_exposure()?;
        self.storage.check()?;
        self.journal.check()?;
        self.log.check()?;
        self.retention.check(&self.limits)?;
        self.limits.check()?;
        time("chat.heartbeat", self.chat.heartbeat, 1, 3_600)?;
        self.http2.check(&self.limits)?;
        self.http.check()?;
        self.auth.check()?;
        crate::telemetry::filter(&self.telemetry.log_level)
            .map_err(|problem| Invalid::new("telemetry.log_level", problem))?;
        self.telemetry.check()
    }

    /// Whom other machines reach must know who asks, and nobody on the way may read along.
    fn check_exposure(&self) -> Result<(), Invalid> {
        let Some(address) = self.server.exposed()?.filter(|_| !self.server.insecure) else {
            return Ok(());
        };
        let missing = if !self.tls.is_on() {
            "there is no TLS; set tls.cert_file and tls.key_file, and auth.mode = \"required\" or \
             tls.client_ca_file for who may come"
        } else if self.auth.mode == AuthMode::None && self.tls.client_ca_file.as_os_str().is_empty()
        {
            "TLS alone lets everybody in; set auth.mode = \"required\" or tls.client_ca_file"
        } else {
            return Ok(());
        };
        let problem = format!(
            "{address} is reachable from other machines, and {missing}, listen on a loopback \
             address, or say --insecure"
        );
        Err(Invalid::new("server.listen", problem))
    }

    /// What is allowed, and may not be meant.
    pub fn warnings(&self) -> Vec<String> {
        let (event, slot) = (self.limits.event_bytes, self.storage.slot_bytes);
        let mut warnings = self.retention.warnings(&self.limits);
        if let Some(max) = self.retention.max_bytes.filter(|max| *max < 4 * slot) {
            warnings.push(format!(
                "retention.max_bytes: the two slots of storage.slot_bytes ({}) that there always are take more than half \
                 of {}: what is sealed may take {} beside them",
                units::size_text(slot),
                units::size_text(max),
                units::size_text(max / 2)
            ));
        }
        if event > slot / 4 {
            warnings.push(format!(
                "limits.event_bytes: {} is more than a quarter of storage.slot_bytes ({}): larger \
                 events than {} are refused",
                units::size_text(event),
                units::size_text(slot),
                units::size_text(slot / 4)
            ));
        }
        if let Ok(Some(address)) = self.server.exposed()
            && self.http.allowed_hosts.is_empty()
            // Nobody who points a name of his own here has a certificate for it here.
            && !self.tls.is_on()
        {
            warnings.push(format!(
                "http.allowed_hosts: names no host, so on {address} any name is taken, and a page \
                 that points a name of its own at this machine (DNS rebinding) may read and write; \
                 list the names that browsers use"
            ));
        }
        warnings
    }
}

impl Telemetry {
    fn check(&self) -> Result<(), Invalid> {
        let endpoint = &self.otlp_endpoint;
        let host = endpoint.strip_prefix("http://").unwrap_or_default();
        let problem = if endpoint.is_empty() {
            return Ok(());
        } else if !crate::telemetry::HAS_OTLP {
            "this program was built without traces; build it with `--features otlp`".to_owned()
        } else if host.is_empty() || host.contains(char::is_whitespace) {
            format!("`{endpoint}` is no address; expected http://HOST:PORT")
        } else {
            return Ok(());
        };
        Err(Invalid::new("telemetry.otlp_endpoint", problem))
    }
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// Settings that others must go with.
const EVENT_BYTES: &str = "limits.event_bytes";
const STREAM_WINDOW_BYTES: &str = "http2.stream_window_bytes";
/// Counts and windows fit 31 bits on the wire.
const MANY: u64 = (1 << 31) - 1;

impl Server {
    /// The first address that other machines reach.
    fn exposed(&self) -> Result<Option<SocketAddr>, Invalid> {
        let beyond = |address: &SocketAddr| !address.ip().to_canonical().is_loopback();
        Ok(self.addresses()?.into_iter().find(beyond))
    }

    fn check(&self) -> Result<(), Invalid> {
        time("server.shutdown_grace", self.shutdown_grace, 0, 3_600)?;
        time("server.preface_timeout", self.preface_timeout, 1, 3_600)?;
        time("server.http1_header_timeout", self.http1_header_timeout, 1, 3_600)?;
        time("server.retry_delay", self.retry_delay, 0, 3_600)?;
        let id = &self.instance_id;
        if id.is_empty() || id.len() > 255 || id.chars().any(char::is_control) {
            let problem = "must be 1 to 255 bytes without control characters";
            return Err(Invalid::new("server.instance_id", problem));
        }
        Ok(())
    }
}

impl Tls {
    /// Whether the daemon speaks TLS.
    pub fn is_on(&self) -> bool {
        !self.cert_file.as_os_str().is_empty()
    }

    fn check(&self) -> Result<(), Invalid> {
        let has = |path: &PathBuf| !path.as_os_str().is_empty();
        let missing = |key, other| Err(Invalid::new(key, "is missing").against(other));
        match (has(&self.cert_file), has(&self.key_file), has(&self.client_ca_file)) {
            (true, false, _) => missing("tls.key_file", "tls.cert_file"),
            (false, true, _) => missing("tls.cert_file", "tls.key_file"),
            (false, _, true) => missing("tls.cert_file", "tls.client_ca_file"),
            _ => Ok(()),
        }
    }
}

impl Storage {
    fn check(&self) -> Result<(), Invalid> {
        if self.data_dir.as_os_str().is_empty() {
            return Err(Invalid::new("storage.data_dir", "must not be empty"));
        }
        if matches!(self.compression, Compression::Zstd(_)) && !tailmark_log::HAS_ZSTD {
            let problem = "this program was built without zstd; build it with the feature \
                           `zstd`, or take lz4. A log that zstd wrote is read all the same";
            return Err(Invalid::new("storage.compression", problem));
        }
        bytes("storage.slot_bytes", self.slot_bytes, MIB / 4, GIB)?;
        bytes("storage.open_segment_bytes", self.open_segment_bytes, MIB, 64 * GIB)?;
        count("storage.open_segments", self.open_segments, 1, 10_000)?;
        time("storage.seal_after", self.seal_after, 1, 30 * 86_400)
    }
}

impl Log {
    fn check(&self) -> Result<(), Invalid> {
        count("log.dedup_window", self.dedup_window, 0, 100_000_000)?;
        count("log.producers", self.producers, 1, 10_000_000)?;
        let years = 100 * 365 * 24 * 3_600;
        time("log.producer_idle", self.producer_idle, 1, years)?;
        bytes("log.recent_bytes", self.recent_bytes, MIB, 64 * GIB)?;
        bytes("log.found_bytes", self.found_bytes, 0, 64 * GIB)?;
        bytes("log.in_flight_bytes", self.in_flight_bytes, MIB, 64 * GIB)?;
        count("log.reader_threads", self.reader_threads, 1, 256)
    }
}

impl Http2 {
    fn check(&self, limits: &Limits) -> Result<(), Invalid> {
        let watches = limits.watches_per_connection;
        let streams = self.max_concurrent_streams;
        count("http2.max_concurrent_streams", streams, 1, MANY)?;
        if streams <= watches {
            let problem = format!("{streams} is not more than {watches}");
            let invalid = Invalid::new("http2.max_concurrent_streams", problem);
            return Err(invalid.against("limits.watches_per_connection"));
        }
        let stream = self.stream_window_bytes;
        bytes(STREAM_WINDOW_BYTES, stream, 65_535, MANY)?;
        let connection = self.connection_window_bytes;
        bytes("http2.connection_window_bytes", connection, 65_535, MANY)?;
        at_least("http2.connection_window_bytes", connection, stream, STREAM_WINDOW_BYTES)?;
        bytes("http2.max_frame_bytes", self.max_frame_bytes, 16 * KIB, 16 * MIB - 1)?;
        bytes("http2.max_send_buffer_bytes", self.max_send_buffer_bytes, KIB, GIB)?;
        bytes("http2.max_header_list_bytes", self.max_header_list_bytes, KIB, MIB)?;
        time("http2.keepalive_interval", self.keepalive_interval, 1, 3_600)?;
        time("http2.keepalive_timeout", self.keepalive_timeout, 1, 3_600)
    }
}

impl Http {
    fn check(&self) -> Result<(), Invalid> {
        let bad = |key, text: &str, expected: &str| {
            Err(Invalid::new(key, format!("`{text}` is not {expected}")))
        };
        for origin in self.cors_origins.iter().filter(|origin| *origin != "*") {
            let host = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
            if !host.is_some_and(is_host) {
                let expected = "an origin, as in \"https://app.example\", nor \"*\"";
                return bad("http.cors_origins", origin, expected);
            }
        }
        match self.allowed_hosts.iter().find(|host| !is_host(host)) {
            Some(host) => {
                let expected = "a host, as in \"log.example\" or \"log.example:8080\"";
                bad("http.allowed_hosts", host, expected)
            }
            None => Ok(()),
        }
    }
}

/// A name or address, with a port or without.
fn is_host(text: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
    !text.is_empty() && text.len() <= 255 && text.chars().all(is_part)
}

impl Server {
    /// The sockets to bind: one, or both loopbacks for `localhost`. `:PORT` is the one socket that
    /// takes every address of this machine.
    ///
    /// # Errors
    /// When it is not `HOST:PORT` with an IP address, `localhost` or nothing.
    pub fn addresses(&self) -> Result<Vec<SocketAddr>, Invalid> {
        if let Ok(address) = self.listen.parse() {
            return Ok(vec![address]);
        }
        if let Some(Ok(port)) = self.listen.strip_prefix(':').map(str::parse) {
            return Ok(vec![SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port)]);
        }
        let port = self.listen.strip_prefix("localhost:").and_then(|port| port.parse().ok());
        match port {
            Some(port) => Ok([IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)]
                .map(|ip| SocketAddr::new(ip, port))
                .to_vec()),
            None => {
                let problem = format!(
                    "`{}` is not an address; expected IP:PORT as in 127.0.0.1:50051 or \
                     [::1]:50051, localhost:PORT, or :PORT for every address",
                    self.listen
                );
                Err(Invalid::new("server.listen", problem))
            }
        }
    }
}

fn bytes(key: &'static str, value: u64, low: u64, high: u64) -> Result<(), Invalid> {
    within(key, value, low, high, units::size_text)
}

/// A size that another setting bounds from below.
fn at_least(key: &'static str, value: u64, low: u64, other: &'static str) -> Result<(), Invalid> {
    if value < low {
        let (value, low) = (units::size_text(value), units::size_text(low));
        return Err(Invalid::new(key, format!("{value} is less than {low}")).against(other));
    }
    Ok(())
}

fn count(key: &'static str, value: u64, low: u64, high: u64) -> Result<(), Invalid> {
    within(key, value, low, high, |n| n.to_string())
}

fn time(key: &'static str, value: Duration, low: u64, high: u64) -> Result<(), Invalid> {
    let (low, high) = (Duration::from_secs(low), Duration::from_secs(high));
    within(key, value, low, high, units::duration_text)
}

fn within<T: Copy + PartialOrd>(
    key: &'static str,
    value: T,
    low: T,
    high: T,
    text: impl Fn(T) -> String,
) -> Result<(), Invalid> {
    if value < low || value > high {
        let (value, low, high) = (text(value), text(low), text(high));
        return Err(Invalid::new(key, format!("{value} is not within {low} to {high}")));
    }
    Ok(())
}
