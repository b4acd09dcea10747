//! Tailmark over TLS, by the works that go through its client library: what TLS costs is the ratio of
//! the two columns.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use async_trait::async_trait;
use tailmark_client::{Options, Pem};

use super::tailmark::Tailmark;
use super::{Peer, Replay, Setup};
use crate::fan::Fan;
use crate::process::Server;
use crate::sample::Load;

/// A daemon with a certificate of its own, and a client that trusts it.
pub(crate) struct TailmarkTls(Tailmark);

impl TailmarkTls {
    pub(crate) async fn start(setup: &Setup) -> Result<TailmarkTls> {
        Ok(TailmarkTls(Tailmark::start_with(setup, certificate).await?))
    }
}

/// Makes a certificate in the daemon's directory; answers its settings, and how a client trusts it.
fn certificate(dir: &Path) -> Result<(Vec<(String, String)>, Options)> {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
    let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    fs::write(&cert, made.cert.pem())?;
    fs::write(&key, made.signing_key.serialize_pem())?;
    let mut options = Options::default();
    options.tls.ca = Some(Pem::file(&cert));
    let setting = |name: &str, path: &Path| (name.to_owned(), path.display().to_string());
    let settings =
        vec![setting("TAILMARK_TLS_CERT_FILE", &cert), setting("TAILMARK_TLS_KEY_FILE", &key)];
    Ok((settings, options))
}

#[async_trait]
impl Peer for TailmarkTls {
    fn server(&self) -> Option<&Server> {
        self.0.server()
    }

    async fn restart(&mut self) -> Result<()> {
        self.0.restart().await
    }

    async fn append(&self, load: Load) -> Result<Option<Duration>> {
        self.0.append(load).await
    }

    async fn append_batches(&self, load: Load, batch: usize) -> Result<Option<Duration>> {
        self.0.append_batches(load, batch).await
    }

    async fn replay(&self, how: Replay, events: u64) -> Result<Option<Duration>> {
        match how {
            Replay::Batches => self.0.replay(how, events).await,
            // Through tonic's own channel, which has no TLS here.
            Replay::Received | Replay::Decoded => Ok(None),
        }
    }

    async fn fan_out(&self, fan: &Arc<Fan>) -> Result<Option<Duration>> {
        if fan.is_single { Ok(None) } else { self.0.fan_out(fan).await }
    }

    async fn publish(&self, events: usize) -> Result<Option<Vec<Duration>>> {
        self.0.publish(events).await
    }

    async fn resume(&self, place: u64) -> Result<Option<Duration>> {
        self.0.resume(place).await
    }
}
