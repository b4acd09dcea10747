//! What daemons of a log say to each other beside the journal: heard by those who listen at that moment, and nowhere kept.
//! Core NATS carries it, which needs no quorum.

use async_nats::connection::State;
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::task::AbortHandle;

use crate::NatsJournal;
use crate::client::Failure;

/// Hears what is said, until it is dropped.
pub struct Listening(AbortHandle);

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl NatsJournal {
    /// Says something to all daemons of this log that listen now, this one included. Where no server is connected it is
    /// not said: later it would not be true any more.
    ///
    /// # Errors
    /// Where no server is connected; what is too large; a client that has ended.
    pub fn tell(&self, what: Bytes) -> Result<(), Failure> {
        if self.connected.client().connection_state() != State::Connected {
            return Err(Failure::NotConnected);
        }
        let (client, subject) = (self.connected.client().clone(), self.spoken());
        let told = self.connected.wait(async move { client.publish(subject, what).await });
        match told {
            Some(Ok(())) => Ok(()),
            _ => Err(Failure::NotConnected),
        }
    }

    /// Hears all that is told from now on, on a thread of the connection's: `hear` must not block.
    ///
    /// # Errors
    /// A client that has ended.
    pub fn listen(&self, hear: impl Fn(Bytes) + Send + 'static) -> Result<Listening, Failure> {
        let (client, subject) = (self.connected.client().clone(), self.spoken());
        let subscribed = self.connected.wait(async move { client.subscribe(subject).await });
        let Some(Ok(mut spoken)) = subscribed else { return Err(Failure::NotConnected) };
        // A server takes what comes by one connection in order: behind its answer it has heard of this.
        let _ = self.info();
        let handle = self.connected.handle().ok_or(Failure::NotConnected)?;
        let task = handle.spawn(async move {
            while let Some(message) = spoken.next().await {
                hear(message.payload);
            }
        });
        Ok(Listening(task.abort_handle()))
    }

    fn spoken(&self) -> String {
        // Not a subject of the stream: it would be stored.
        format!("{}.hb", self.subject.trim_end_matches(".j"))
    }
}
