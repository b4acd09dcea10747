//! Addresses and channels.

use std::time::Duration;

use bytes::Bytes;
use tonic::Status;
use tonic::body::Body;
use tonic::client::{Grpc, GrpcService};
use tonic::codec::CompressionEncoding::Gzip;
use tonic::codegen::StdError;
use tonic::transport::Endpoint;

use super::channel::Channel;
use super::connector::Connector;
use super::tls::Tls;
use super::{Error, Kind, TokenProvider};
use tailmark_wire::chat::chat_service_client::ChatServiceClient;
use tailmark_wire::feed_v1::feed_service_client::FeedServiceClient;

/// Largest frame that a server may send: a buffer of a busy stream crosses in one.
const MAX_FRAME_BYTES: u32 = 72 << 10;

/// How a client connects. The defaults suit a feed of small events.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Until a connection stands, and as long again until hands are shaken: 5 s if not set.
    pub connect_timeout: Duration,
    /// Until the answer of a call that is not a stream and stores or removes something: 30 s if not
    /// set.
    pub request_timeout: Duration,
    /// Until the answer of a call that is not a stream and changes nothing: 10 s if not set.
    pub read_timeout: Duration,
    /// Silence after which a connection is probed, also while idle: 30 s if not set.
    pub keepalive_interval: Duration,
    /// How long a probe may take before the connection counts as dead: 20 s if not set.
    pub keepalive_timeout: Duration,
    /// HTTP/2 window of the whole connection. h2 ends a connection whose reader stalls on many
    /// frames under 256 bytes; its patience is half of this window.
    /// 16 MiB if not set.
    pub connection_window_bytes: u32,
    /// HTTP/2 window of each stream. Small against the connection's for the same reason, and large
    /// enough that replay is not held back. 1 MiB if not set.
    pub stream_window_bytes: u32,
    /// Largest message taken: 10 MiB if not set.
    pub max_message_bytes: usize,
    /// Sends messages in gzip, and so asks for answers in gzip: fewer bytes over a slow network for more
    /// work on both sides, since the server then compresses for this client alone. Single events below
    /// 1 KiB come as they are; batches gain most. `false` if not set.
    pub compress: bool,
    /// For `https://` addresses.
    pub tls: Tls,
    /// Who asks. Nobody in particular if not set.
    pub token: Option<TokenProvider>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
            read_timeout: Duration::from_secs(10),
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(20),
            connection_window_bytes: 16 << 20,
            stream_window_bytes: 1 << 20,
            max_message_bytes: 10 << 20,
            compress: false,
            tls: Tls::default(),
            token: None,
        }
    }
}

/// A client of one server; cheap to clone. Connects when first used, and again when needed.
#[derive(Clone)]
pub struct Client {
    endpoint: Endpoint,
    connector: Connector,
    channel: Channel,
    options: Options,
}

impl Client {
    /// A client of the server at `addr`, as in `http://127.0.0.1:50051` or, with TLS,
    /// `https://log.example:50051`. Needs a tokio runtime.
    ///
    /// # Errors
    /// When `addr` is not such an address.
    pub fn new(addr: &str) -> Result<Client, Error> {
        Client::with_options(addr, Options::default())
    }

    /// As [`Client::new`], with options.
    ///
    /// # Errors
    /// When `addr` is not an address.
    pub fn with_options(addr: &str, options: Options) -> Result<Client, Error> {
        let bad = |why: &str| Error::new(Kind::InvalidRequest, format!("address `{addr}`: {why}"));
        let expected = "expected http://HOST:PORT or https://HOST:PORT";
        // It takes others than we do, and hides which it was.
        let scheme = addr.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
        if !matches!(scheme.as_deref(), Some("http" | "https")) {
            return Err(bad(expected));
        }
        let endpoint = Endpoint::from_shared(addr.to_owned()).map_err(|_| bad(expected))?;
        let uri = endpoint.uri();
        if let Some(wrong) = options.tls.wrong() {
            return Err(Error::new(Kind::InvalidRequest, wrong));
        }
        if uri.host().is_none_or(str::is_empty) || !matches!(uri.path(), "" | "/") {
            return Err(bad(expected));
        }
        let connector = Connector::new(uri, &options).map_err(bad)?;
        let endpoint = endpoint
            .http2_keep_alive_interval(options.keepalive_interval)
            .keep_alive_timeout(options.keepalive_timeout)
            .keep_alive_while_idle(true)
            .initial_connection_window_size(options.connection_window_bytes)
            .initial_stream_window_size(options.stream_window_bytes)
            .max_frame_size(MAX_FRAME_BYTES)
            .user_agent(concat!("tailmark/", env!("CARGO_PKG_VERSION")))
            .map_err(|_| bad(expected))?;
        let channel = Channel::new(&endpoint, connector.clone(), options.token.clone());
        Ok(Client { endpoint, connector, channel, options })
    }

    /// The options in force.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The connection itself, for services that this crate does not know. Errors are told by [`Error::of_status`].
    #[doc(hidden)]
    pub fn connection(
        &self,
    ) -> impl GrpcService<
        Body,
        ResponseBody = impl http_body::Body<Data = Bytes, Error = Status> + Send + 'static,
        Error = StdError,
        Future: Send,
    > + Clone
    + Send
    + 'static {
        self.channel.clone()
    }

    /// An error of something that goes on by itself: what another token may mend is tried again with
    /// the next one, if there may be another.
    pub(super) fn weigh(&self, error: Error) -> Error {
        match &self.options.token {
            Some(token) if token.renews() => error.renewable(),
            _ => error,
        }
    }

    /// What calls with codecs of their own are made with.
    pub(super) fn grpc(&self, channel: Channel) -> Grpc<Channel> {
        let grpc = Grpc::new(channel).max_decoding_message_size(self.options.max_message_bytes);
        match self.options.compress {
            true => grpc.send_compressed(Gzip).accept_compressed(Gzip),
            false => grpc,
        }
    }

    /// The feed's calls.
    pub(super) fn feed(&self, channel: Channel) -> FeedServiceClient<Channel> {
        let max_message_bytes = self.options.max_message_bytes;
        let feed = FeedServiceClient::new(channel).max_decoding_message_size(max_message_bytes);
        match self.options.compress {
            true => feed.send_compressed(Gzip).accept_compressed(Gzip),
            false => feed,
        }
    }

    /// The calls of rooms.
    pub(super) fn chat(&self, channel: Channel) -> ChatServiceClient<Channel> {
        let max_message_bytes = self.options.max_message_bytes;
        let chat = ChatServiceClient::new(channel).max_decoding_message_size(max_message_bytes);
        match self.options.compress {
            true => chat.send_compressed(Gzip).accept_compressed(Gzip),
            false => chat,
        }
    }

    /// The connection that calls share.
    pub(super) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// A connection of its own: what a watch takes after the shared one went silent.
    pub(super) fn fresh_channel(&self) -> Channel {
        Channel::new(&self.endpoint, self.connector.again(), self.options.token.clone())
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let uri = self.endpoint.uri();
        f.debug_struct("Client")
            .field("uri", uri)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
