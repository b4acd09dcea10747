//! A question to another daemon: one connection to each, made when needed.

use std::collections::HashMap;
use std::time::Duration;

use http::uri::PathAndQuery;
use parking_lot::Mutex;
use tokio_stream::Stream;
use tonic::client::Grpc;
use tonic::metadata::AsciiMetadataValue;
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;

use super::secret::{HEADER, Secret};
use tailmark_client::{Client, Options, Tls};

/// Most bytes of a message: a batch, with what comes around it.
pub(super) const MESSAGE_BYTES: usize = 32 << 20;
/// Addresses that connections are kept for.
const MOST: usize = 64;

/// What became of a question that has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// It did not get there.
    Unsent,
    /// It may have got there, and may have been done.
    InDoubt,
}

/// Connections to other daemons.
pub(super) struct Peers {
    secret: Secret,
    tls: Tls,
    clients: Mutex<HashMap<String, Client>>,
}

impl Peers {
    pub(super) fn new(secret: Secret, tls: Tls) -> Peers {
        Peers { secret, tls, clients: Mutex::default() }
    }

    fn client(&self, address: &str) -> Option<Client> {
        let mut clients = self.clients.lock();
        if let Some(client) = clients.get(address) {
            return Some(client.clone());
        }
        let mut options = Options::default();
        options.connect_timeout = Duration::from_secs(1);
        // A machine that is gone without a word is noticed by its heartbeats first.
        options.keepalive_interval = Duration::from_secs(2);
        options.keepalive_timeout = Duration::from_secs(2);
        options.max_message_bytes = MESSAGE_BYTES;
        options.tls = self.tls.clone();
        let client = Client::with_options(address, options).ok()?;
        if clients.len() >= MOST {
            clients.clear();
        }
        clients.insert(address.to_owned(), client.clone());
        Some(client)
    }

    fn request<M>(&self, message: M) -> Request<M> {
        let mut request = Request::new(message);
        if let Ok(value) = AsciiMetadataValue::try_from(self.secret.token()) {
            request.metadata_mut().insert(HEADER, value);
        }
        request
    }

    /// Asks, and waits for the answer for so long.
    ///
    /// # Errors
    /// Where there is none.
    pub(super) async fn ask<Q, A>(
        &self,
        address: &str,
        path: &'static str,
        question: Q,
        patience: Duration,
    ) -> Result<A, Lost>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        let client = self.client(address).ok_or(Lost::Unsent)?;
        let mut grpc = Grpc::new(client.connection()).max_decoding_message_size(MESSAGE_BYTES);
        grpc.ready().await.map_err(|_| Lost::Unsent)?;
        let codec = ProstCodec::<Q, A>::default();
        let asked = grpc.unary(self.request(question), PathAndQuery::from_static(path), codec);
        match tokio::time::timeout(patience, asked).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(lost(status)),
            Err(_) => Err(Lost::InDoubt),
        }
    }

    /// Opens a stream both ways.
    ///
    /// # Errors
    /// Where it did not come about.
    pub(super) async fn stream<Q, A>(
        &self,
        address: &str,
        path: &'static str,
        questions: impl Stream<Item = Q> + Send + 'static,
    ) -> Result<Streaming<A>, Lost>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        let client = self.client(address).ok_or(Lost::Unsent)?;
        let mut grpc = Grpc::new(client.connection()).max_decoding_message_size(MESSAGE_BYTES);
        grpc.ready().await.map_err(|_| Lost::Unsent)?;
        let codec = ProstCodec::<Q, A>::default();
        let request = self.request(questions);
        let answers = grpc.streaming(request, PathAndQuery::from_static(path), codec).await;
        answers.map(tonic::Response::into_inner).map_err(lost)
    }
}

/// Only who could not connect knows that nothing was sent.
fn lost(status: Status) -> Lost {
    let error = tailmark_client::Error::of_status(status);
    match error.kind() {
        tailmark_client::Kind::Connect | tailmark_client::Kind::Untrusted => Lost::Unsent,
        // Refused as it came: another program is at that address, or a daemon with another secret.
        tailmark_client::Kind::Denied | tailmark_client::Kind::Unsupported => Lost::Unsent,
        _ => Lost::InDoubt,
    }
}
