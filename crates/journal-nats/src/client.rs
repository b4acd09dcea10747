//! The connection: questions that wait for their answers, on threads of its own.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use async_nats::client::{Request, RequestErrorKind};
use async_nats::connection::State;
use async_nats::{Client, ConnectOptions, Event, HeaderMap, Message};
use bytes::Bytes;
use serde_json::Value;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::watch;

use crate::answers::JetStreamError;
use crate::{Error, Login, Settings};

/// A server that is gone without a word is noticed after two of them.
const PING: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(20);

/// Why there is no answer, or none that says yes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// It was not sent.
    #[error("no server is connected")]
    NotConnected,
    /// Nobody listens there.
    #[error("no server answers for it")]
    NoResponders,
    /// It is larger than the server takes.
    #[error("it is larger than the server takes")]
    TooLarge,
    /// It was sent, and nothing came.
    #[error("no answer")]
    NoAnswer,
    /// The stream is not the one that was found at first.
    #[error("the stream was made anew, or is of another log")]
    Another,
    /// It has no leader.
    #[error("it has no leader")]
    NoLeader,
    /// The answer is no.
    #[error(transparent)]
    JetStream(#[from] JetStreamError),
}

/// A connection to any of the servers, made anew when it is lost.
pub(crate) struct Connected {
    client: Client,
    /// How often it was lost.
    losses: watch::Receiver<u64>,
    answer: Duration,
    /// Taken when it is dropped, which may be within another runtime.
    runtime: Option<Runtime>,
}

impl Connected {
    pub(crate) fn new(settings: &Settings) -> Result<Connected, Error> {
        let failed =
            |reason: String| Error::Connect { servers: settings.servers.join(", "), reason };
        let (lost, losses) = watch::channel(0);
        let lost = Arc::new(lost);
        let options = options(settings).map_err(failed)?.event_callback(move |event| {
            if matches!(event, Event::Disconnected) {
                lost.send_modify(|count| *count += 1);
            }
            std::future::ready(())
        });
        let servers = settings.servers.clone();
        let runtime =
            Builder::new_multi_thread().worker_threads(1).thread_name("nats").enable_all().build();
        let runtime = runtime.map_err(|error| failed(error.to_string()))?;
        let client = match wait(&runtime, async move { options.connect(servers).await }) {
            Some(Ok(client)) => client,
            other => {
                // Within another runtime it must not be waited for.
                runtime.shutdown_background();
                let reason = other.and_then(Result::err).map(|error| error.to_string());
                return Err(failed(reason.unwrap_or_else(|| "nothing came of it".to_owned())));
            }
        };
        Ok(Connected { client, losses, answer: settings.answer, runtime: Some(runtime) })
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Waits for something on the threads of the connection.
    pub(crate) fn wait<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        self.runtime.as_ref().and_then(|runtime| wait(runtime, future))
    }

    /// Where what goes on by itself runs.
    pub(crate) fn handle(&self) -> Option<Handle> {
        self.runtime.as_ref().map(|runtime| runtime.handle().clone())
    }

    pub(crate) fn max_payload(&self) -> usize {
        self.client.max_payload()
    }

    pub(crate) fn version(&self) -> String {
        self.client.server_info().version
    }

    /// Counts connections that were made.
    pub(crate) fn count(&self) -> u64 {
        self.client.statistics().connects.load(Ordering::SeqCst)
    }

    /// Asks, and waits for the answer: not beyond the loss of the connection, behind which none comes.
    pub(crate) fn ask(
        &self,
        subject: String,
        payload: Bytes,
        headers: Option<HeaderMap>,
    ) -> Result<Message, Failure> {
        self.ask_with(subject, Request { payload: Some(payload), headers, ..Request::default() })
    }

    /// Asks for a stored message, which comes with its own subject: on a subscription of its own, since those that
    /// all questions share are told apart by the subject.
    pub(crate) fn ask_for_stored(
        &self,
        subject: String,
        payload: Bytes,
    ) -> Result<Message, Failure> {
        let inbox = Some(self.client.new_inbox());
        self.ask_with(subject, Request { payload: Some(payload), inbox, ..Request::default() })
    }

    fn ask_with(&self, subject: String, mut request: Request) -> Result<Message, Failure> {
        let begun = Instant::now();
        // What is sent without a connection is sent when there is one, whatever was learned meanwhile.
        while self.client.connection_state() != State::Connected {
            if begun.elapsed() > self.answer {
                return Err(Failure::NotConnected);
            }
            std::thread::sleep(POLL);
        }
        let (client, mut losses) = (self.client.clone(), self.losses.clone());
        losses.mark_unchanged();
        request.timeout = Some(Some(self.answer));
        let answer = self.runtime.as_ref().and_then(|runtime| {
            wait(runtime, async move {
                tokio::select! {
                    answer = client.send_request(subject, request) => Some(answer),
                    _ = losses.changed() => None,
                }
            })
        });
        match answer.flatten() {
            Some(Ok(message)) => Ok(message),
            Some(Err(error)) => Err(match error.kind() {
                RequestErrorKind::NoResponders => Failure::NoResponders,
                RequestErrorKind::MaxPayloadExceeded => Failure::TooLarge,
                _ => Failure::NoAnswer,
            }),
            None => Err(Failure::NoAnswer),
        }
    }

    /// Asks JetStream, of which every answer is JSON.
    pub(crate) fn ask_api(&self, what: &str, request: &Value) -> Result<Value, Failure> {
        let payload = if request.is_null() { Bytes::new() } else { request.to_string().into() };
        let message = self.ask(format!("$JS.API.{what}"), payload, None)?;
        let answer: Value =
            serde_json::from_slice(&message.payload).map_err(|_| Failure::NoAnswer)?;
        match JetStreamError::of(&answer) {
            Some(error) => Err(error.into()),
            None => Ok(answer),
        }
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Waits on a thread that may be one of another runtime.
fn wait<T: Send + 'static>(
    runtime: &Runtime,
    future: impl Future<Output = T> + Send + 'static,
) -> Option<T> {
    let (done, answer) = mpsc::sync_channel(1);
    runtime.spawn(async move {
        let _ = done.send(future.await);
    });
    answer.recv().ok()
}

fn options(settings: &Settings) -> Result<ConnectOptions, String> {
    let options = match settings.login.clone() {
        Login::None => ConnectOptions::new(),
        Login::User(user, password) => ConnectOptions::with_user_and_password(user, password),
        Login::Token(token) => ConnectOptions::with_token(token),
        Login::Credentials(path) => {
            let text = std::fs::read_to_string(&path);
            let text = text.map_err(|error| format!("cannot read {}: {error}", path.display()))?;
            let options = ConnectOptions::with_credentials(&text);
            options.map_err(|error| format!("{}: {error}", path.display()))?
        }
    };
    let mut options = options
        .name(format!("tailmark {}", settings.name))
        // Those that are named, and no others.
        .ignore_discovered_servers()
        .ping_interval(PING)
        .connection_timeout(settings.answer)
        .reconnect_delay_callback(|tries| Duration::from_millis(if tries < 2 { 20 } else { 250 }));
    if let Some(path) = &settings.authorities {
        options = options.add_root_certificates(path.clone());
    }
    if let Some((certificate, key)) = &settings.certificate {
        options = options.add_client_certificate(certificate.clone(), key.clone());
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tailmark_record::FingerprintKey;

    /// A daemon connects within its own runtime, where no other may be waited for.
    #[tokio::test]
    async fn that_nobody_is_there_is_an_error_within_a_runtime_too() {
        let servers = vec!["nats://127.0.0.1:1".to_owned()];
        let settings = Settings::new(servers, "a", FingerprintKey::new([7; 16]));
        assert!(matches!(Connected::new(&settings), Err(Error::Connect { .. })));
    }
}
