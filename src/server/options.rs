//! What the server allows and how it speaks HTTP/2.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;

use crate::server::TlsFiles;

/// How the server behaves. The defaults are those of the wire contract.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Bytes of one message on the wire. 10 MiB.
    pub message_bytes: usize,
    /// Patterns of one watch. 64.
    pub patterns_per_watch: usize,
    /// Watches open at once on one connection. 1,000.
    pub watches_per_connection: usize,
    /// Watches open at once in all; beyond that there is an eighth more for who has at most a 64th of
    /// it. The same goes for uploads and connections. 20,000.
    pub watches: usize,
    /// Connections open at once; one more is closed as it comes. 4,096.
    pub connections: usize,
    /// Connections open at once from one address (of IPv6, one network of 64 bits). As many as all.
    pub connections_per_address: Option<usize>,
    /// Watches open at once from one address. As many as all.
    pub watches_per_address: Option<usize>,
    /// Watches open at once of one principal. As many as all.
    pub watches_per_principal: Option<usize>,
    /// Connections open at once of one principal: one that many use counts to whoever used it last.
    /// As many as all.
    pub connections_per_principal: Option<usize>,
    /// Uploads and appends open at once, as all client streams whose events are stored, on one
    /// connection. 1,000.
    pub uploads_per_connection: usize,
    /// The same in all. 10,000.
    pub uploads: usize,
    /// The same from one address. As many as all.
    pub uploads_per_address: Option<usize>,
    /// The same of one principal. As many as all.
    pub uploads_per_principal: Option<usize>,
    /// Time for the first message of an upload or an append; `None` = for ever. 1 min.
    pub first_message_timeout: Option<Duration>,
    /// How long one may say nothing after that; `None` = for ever. 1 h.
    pub stream_idle_timeout: Option<Duration>,
    /// What a principal may store in a second. As much as comes.
    pub rates: Rates,
    /// What may be stored from one address in a second. As much as comes.
    pub rates_per_address: Rates,
    /// HTTP/2 streams open at once on one connection; more are queued by the client. Above
    /// `watches_per_connection`, so that a connection full of watches can still publish. 1,100.
    pub max_concurrent_streams: u32,
    /// Bytes of one upload that may wait to become durable. 8 MiB.
    pub stream_in_flight_bytes: usize,
    /// Bytes of messages and lines over 16 KiB that have begun and are not whole yet, in all. One
    /// that finds no room, or does not come on, for `unary_deadline` in all is refused. 64 MiB.
    pub arriving_bytes: usize,
    /// Bytes of chunks kept for watches whose clients do not take more; beyond that the one that
    /// has waited longest reads its chunk again. 64 MiB.
    pub parked_bytes: usize,
    /// Bytes that clients of HTTP/2 may send before they are read, over all connections: each has at most
    /// a sixteenth of what is left when it begins, and at least 512 KiB. 1 GiB.
    pub unread_bytes: usize,
    /// Bytes that wait to be sent to clients that do not take them, over all connections; beyond that
    /// streams are not read for. 128 MiB.
    pub unsent_bytes: usize,
    /// Time for a unary call whose client set none. 30 s.
    pub unary_deadline: Duration,
    /// Time between the order to stop and the cutting of what is still open. 10 s.
    pub shutdown_grace: Duration,
    /// Time for a new connection to shake hands, where there is TLS, and to say which protocol it
    /// speaks. 10 s.
    pub preface_timeout: Duration,
    /// Time for the head of an HTTP/1.1 request, also between two on one connection. 30 s.
    pub http1_header_timeout: Duration,
    /// Time that a client which is told to come back later should wait. 1 s.
    pub retry_delay: Duration,
    /// Time between two signs of life on a `chat.ChatService.Chat`. 5 s.
    pub chat_heartbeat: Duration,
    /// Where the log lies, for whoever asks for a backup of it; `None` = nobody is given one. `None`.
    pub data_dir: Option<PathBuf>,
    /// Certificates, where the server speaks TLS and nothing else.
    pub tls: Option<TlsFiles>,
    /// HTTP/2.
    pub http2: Http2,
    /// Which pages may ask, and under which names, at first.
    pub http: Http,
    /// Who must say who they are.
    pub auth: Auth,
    /// Events among which the log recognises repeats, as `GetLog` tells it. 1,000,000.
    pub dedup_window: usize,
    /// The name of this instance in logs and metrics. `server-01`.
    pub instance: String,
    /// The version that `GetLog` tells. This crate's.
    pub version: String,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            message_bytes: 10 << 20,
            patterns_per_watch: 64,
            watches_per_connection: 1_000,
            watches: 20_000,
            connections: 4_096,
            connections_per_address: None,
            watches_per_address: None,
            watches_per_principal: None,
            connections_per_principal: None,
            uploads_per_connection: 1_000,
            uploads: 10_000,
            uploads_per_address: None,
            uploads_per_principal: None,
            first_message_timeout: Some(Duration::from_secs(60)),
            stream_idle_timeout: Some(Duration::from_secs(3_600)),
            rates: Rates::default(),
            rates_per_address: Rates::default(),
            max_concurrent_streams: 1_100,
            stream_in_flight_bytes: 8 << 20,
            arriving_bytes: 64 << 20,
            parked_bytes: 64 << 20,
            unread_bytes: 1 << 30,
            unsent_bytes: 128 << 20,
            unary_deadline: Duration::from_secs(30),
            shutdown_grace: Duration::from_secs(10),
            preface_timeout: Duration::from_secs(10),
            http1_header_timeout: Duration::from_secs(30),
            retry_delay: Duration::from_secs(1),
            chat_heartbeat: Duration::from_secs(5),
            data_dir: None,
            tls: None,
            http2: Http2::default(),
            http: Http::default(),
            auth: Auth::default(),
            dedup_window: 1_000_000,
            instance: "server-01".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

/// Who may ask over plain HTTP and gRPC-Web. Empty lists: nobody but this server's own pages, and
/// on a loopback address only under a loopback name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Http {
    /// Origins of other sites whose pages may, as in `https://app.example`; `*` = all.
    pub cors_origins: Vec<String>,
    /// Names beside the loopback's that a request may be for, with a port or for any. Where there
    /// are some, they are checked on every address.
    pub allowed_hosts: Vec<String>,
}

/// How much one may store in a second; a second's worth may come at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// Events; `None` = as many as come.
    pub events: Option<NonZeroU32>,
    /// Bytes of events; `None` = as many as come.
    pub bytes: Option<NonZeroU32>,
}

/// Whether callers must say who they are, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Auth {
    /// Nobody is answered who does not, but about health and with the files of the page. `false`.
    pub required: bool,
    /// `/metrics` is for everybody. `false`.
    pub metrics_open: bool,
    /// Tokens of issuers.
    pub jwt: Jwt,
}

/// What a token of an issuer (JWT) must say; the issuer's keys are set while the server runs
/// ([`Credentials`](super::Credentials)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jwt {
    /// Who must have issued it; empty = whoever has one of the keys.
    pub issuer: String,
    /// Whom it must be meant for; empty = only one that is meant for nobody by name is taken.
    pub audience: String,
    /// By which algorithms it may be signed. EdDSA, ES256, RS256.
    pub algorithms: Vec<JwtAlgorithm>,
}

impl Default for Jwt {
    fn default() -> Self {
        let algorithms = vec![JwtAlgorithm::EdDsa, JwtAlgorithm::Es256, JwtAlgorithm::Rs256];
        Jwt { issuer: String::new(), audience: String::new(), algorithms }
    }
}

/// How a token of an issuer is signed (RFC 7518, RFC 8037): with a key of which this server knows the
/// public half alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum JwtAlgorithm {
    EdDsa,
    Es256,
    Es384,
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
}

impl JwtAlgorithm {
    /// All of them, as the header of a token names them.
    pub const ALL: [(&str, JwtAlgorithm); 9] = [
        ("EdDSA", JwtAlgorithm::EdDsa),
        ("ES256", JwtAlgorithm::Es256),
        ("ES384", JwtAlgorithm::Es384),
        ("RS256", JwtAlgorithm::Rs256),
        ("RS384", JwtAlgorithm::Rs384),
        ("RS512", JwtAlgorithm::Rs512),
        ("PS256", JwtAlgorithm::Ps256),
        ("PS384", JwtAlgorithm::Ps384),
        ("PS512", JwtAlgorithm::Ps512),
    ];

    /// The one with this name.
    pub fn parse(name: &str) -> Option<JwtAlgorithm> {
        JwtAlgorithm::ALL.iter().find(|(known, _)| *known == name).map(|(_, algorithm)| *algorithm)
    }
}

/// Who may ask, while the server runs: the one part of the options that can change then. Clones are the
/// same.
#[derive(Clone, Debug)]
pub struct AccessRules(Arc<RwLock<Arc<Http>>>);

impl AccessRules {
    pub(super) fn new(rules: Http) -> AccessRules {
        AccessRules(Arc::new(RwLock::new(Arc::new(rules))))
    }

    /// Holds these against every request from now on.
    pub fn set(&self, rules: Http) {
        *self.0.write() = Arc::new(rules);
    }

    pub(super) fn get(&self) -> Arc<Http> {
        self.0.read().clone()
    }
}

/// HTTP/2 settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http2 {
    /// What a client may send on one stream before we have read it. 512 KiB.
    pub stream_window_bytes: u32,
    /// What a client may send on one connection before we have read it. 64 times as much as on one
    /// stream, so that an upload that has to wait may consist of the smallest messages there are,
    /// each in a frame of its own; docs/decisions/0004. 32 MiB.
    pub connection_window_bytes: u32,
    /// Largest frame a client may send: what a busy one fills its buffer with in one. 72 KiB.
    pub max_frame_bytes: u32,
    /// What we buffer for one stream that its client does not read. 256 KiB.
    pub max_send_buffer_bytes: usize,
    /// Silence after which a connection is probed. 30 s.
    pub keepalive_interval: Duration,
    /// Time for the answer to a probe; then the connection is cut. 20 s.
    pub keepalive_timeout: Duration,
    /// Largest header list a client may send. 16 KiB.
    pub max_header_list_bytes: u32,
}

impl Default for Http2 {
    fn default() -> Self {
        Http2 {
            stream_window_bytes: 512 << 10,
            connection_window_bytes: 32 << 20,
            max_frame_bytes: 72 << 10,
            max_send_buffer_bytes: 256 << 10,
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(20),
            max_header_list_bytes: 16 << 10,
        }
    }
}
