//! The journal: what it is asked as questions to the stream, and what was learned of the stream.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::{HeaderMap, StatusCode};
use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::client::{Connected, Failure};
use crate::stream::{self, Strength};
use crate::{Error, Settings, Stray, answers, witness};
use tailmark_log::StoreError;
use tailmark_log::storage::Level;
use tailmark_log::storage::shared::{Frame, FrameChain, Identity, Published, SharedJournal, Slot};

/// Where nobody answers, before it is tried again.
const PAUSE: Duration = Duration::from_millis(100);
/// How often who finds nothing at a slot asks whether it is gone.
const LOOK: Duration = Duration::from_secs(1);
/// Until the stream can be used: servers that have just begun elect for some 5 s.
const READY: Duration = Duration::from_secs(30);

/// A daemon's connection to the journal of a log.
pub struct NatsJournal {
    connected: Connected,
    stream: String,
    subject: String,
    identity: Identity,
    /// When the stream was made: another one under its name is another.
    created: Value,
    strength: Strength,
    patience: Duration,
    looked: Mutex<Option<Instant>>,
}

impl NatsJournal {
    /// Connects, makes the stream if that is asked for and there is none, and looks at what it promises.
    /// Blocks; may be called within a runtime.
    ///
    /// # Errors
    /// Where nobody answers, where the stream is no journal of ours, or a weaker one than is asked for.
    pub fn connect(settings: &Settings) -> Result<NatsJournal, Error> {
        settings.check()?;
        let connected = Connected::new(settings)?;
        let name = settings.stream();
        let info = ready(&connected, settings)?;
        let reasons = stream::unusable(&info, settings, connected.max_payload());
        let id = stream::log_of(&info).filter(|_| reasons.is_empty());
        let Some(id) = id else { return Err(Error::Unusable { stream: name, reasons }) };
        let strength = stream::strength(&info, settings, &connected.version());
        let reasons = strength.weaknesses.clone();
        if !settings.allow_weaker && !reasons.is_empty() {
            return Err(Error::Weaker { stream: name, reasons });
        }
        let (key, max_commit_bytes) = (settings.key, stream::MAX_COMMIT_BYTES);
        let identity = Identity { id, key, max_commit_bytes, level: level(&strength) };
        Ok(NatsJournal {
            connected,
            stream: name,
            subject: settings.subject(),
            identity,
            created: info.get("created").cloned().unwrap_or_default(),
            strength,
            patience: settings.patience,
            looked: Mutex::new(None),
        })
    }

    /// What the stream promises.
    pub fn strength(&self) -> &Strength {
        &self.strength
    }

    /// Asks each replica whether it has these chains from a slot on: what it has otherwise, and the servers of which
    /// that was not heard to the end. The right ones are those of a copy whose chain the head joins.
    ///
    /// # Errors
    /// Where nobody answers.
    pub fn strays(
        &self,
        from: u64,
        known: &[FrameChain],
    ) -> Result<(Vec<Stray>, Vec<String>), Failure> {
        let info = self.info()?;
        let of = (&self.connected, self.stream.as_str(), self.identity.id);
        witness::compare(of, &info, (from, known))
    }

    /// What the stream says of itself, if it is still the one that was found at first.
    fn info(&self) -> Result<Value, Failure> {
        let info = info(&self.connected, &self.stream)?;
        let is_it = stream::log_of(&info) == Some(self.identity.id)
            && info.get("created") == Some(&self.created);
        if is_it { Ok(info) } else { Err(Failure::Another) }
    }

    /// Whether a slot is gone, by what the stream says of its first.
    fn is_gone(&self, slot: u64) -> bool {
        let Ok(info) = self.info() else { return false };
        stream::state(&info, "first_seq").is_some_and(|first| first > slot)
            && stream::state(&info, "last_seq").is_some_and(|last| last >= slot)
    }

    fn is_time_to_look(&self) -> bool {
        let mut looked = self.looked.lock();
        let is_time = looked.is_none_or(|at| at.elapsed() > LOOK);
        if is_time {
            *looked = Some(Instant::now());
        }
        is_time
    }

    fn slot(&self, message: &Bytes) -> Slot {
        Slot::of(message, self.identity.id)
    }

    fn not_taken(&self, failure: &Failure) -> Published {
        Published::NotTaken { reason: format!("the journal {}: {failure}", self.stream) }
    }
}

/// The truth about what is stored.
fn level(strength: &Strength) -> Level {
    match (strength.is_synced, strength.replicas) {
        (false, _) => Level::Unsynced,
        (true, 3..) => Level::Replicated,
        // Two are lost with one of them, but for what is on its disk.
        (true, _) => Level::Fsync,
    }
}

fn info(connected: &Connected, stream: &str) -> Result<Value, Failure> {
    connected.ask_api(&format!("STREAM.INFO.{stream}"), &Value::Null)
}

/// The stream, once it has a leader.
fn ready(connected: &Connected, settings: &Settings) -> Result<Value, Error> {
    let (name, begun) = (settings.stream(), Instant::now());
    let mut action = "find";
    loop {
        let failure = match info(connected, &name) {
            Ok(info) => {
                let leader = info.pointer("/cluster/leader");
                if info.get("cluster").is_none() || leader.is_some_and(Value::is_string) {
                    return Ok(info);
                }
                Failure::NoLeader
            }
            Err(Failure::JetStream(error)) if error.is_no_stream() && settings.create => {
                action = "create";
                let create = format!("STREAM.CREATE.{name}");
                match connected.ask_api(&create, &stream::config(settings)) {
                    // What it has become is looked at as if it had been there. Another daemon may have been first.
                    Ok(_) => continue,
                    Err(failure) => failure,
                }
            }
            Err(failure) => failure,
        };
        let is_final = matches!(&failure, Failure::JetStream(error) if error.is_no_stream());
        if is_final || begun.elapsed() > READY {
            return Err(Error::Stream { action, stream: name, failure });
        }
        std::thread::sleep(PAUSE);
    }
}

/// A message, by whichever replica answers; `None` where that one has nothing there.
pub(crate) fn direct(
    connected: &Connected,
    stream: &str,
    slot: u64,
) -> Result<Option<Bytes>, Failure> {
    let request = Bytes::from(json!({ "seq": slot }).to_string());
    let message = connected.ask(format!("$JS.API.DIRECT.GET.{stream}"), request, None)?;
    if message.status == Some(StatusCode::NOT_FOUND) {
        return Ok(None);
    }
    let header = |name: &str| message.headers.as_ref()?.get(name).map(|it| it.as_str());
    let is_it = header("Nats-Stream") == Some(stream)
        && header("Nats-Sequence") == Some(slot.to_string().as_str());
    if is_it { Ok(Some(message.payload)) } else { Err(Failure::NoAnswer) }
}

impl SharedJournal for NatsJournal {
    fn identity(&self) -> Identity {
        self.identity
    }

    fn publish(&self, after: u64, frame: &Arc<Frame>) -> Published {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Expected-Stream", self.stream.as_str());
        headers.insert("Nats-Expected-Last-Sequence", after.to_string().as_str());
        let sent = self.connected.ask(self.subject.clone(), frame.bytes().clone(), Some(headers));
        match sent {
            Ok(answer) => match answers::published(&answer.payload, &self.stream) {
                // An end before what was stored is an old leader's word, a loss, or another stream's.
                Published::Refused { end } if end < after => match self.info() {
                    Err(failure @ Failure::Another) => self.not_taken(&failure),
                    _ => Published::Refused { end },
                },
                published => published,
            },
            Err(failure @ (Failure::NotConnected | Failure::NoResponders | Failure::TooLarge)) => {
                std::thread::sleep(PAUSE);
                match self.info() {
                    Err(Failure::JetStream(error)) if error.is_no_stream() => {
                        self.not_taken(&error.into())
                    }
                    _ => self.not_taken(&failure),
                }
            }
            Err(_) => Published::NoAnswer,
        }
    }

    fn read(&self, slot: u64) -> Option<Slot> {
        match direct(&self.connected, &self.stream, slot).ok()? {
            Some(message) => Some(self.slot(&message)),
            // Mostly the end. Who waits for what was purged would wait for ever.
            None => (self.is_time_to_look() && self.is_gone(slot)).then_some(Slot::Gone),
        }
    }

    fn read_back(&self, slot: u64) -> Option<Slot> {
        let request = json!({ "seq": slot });
        match self.connected.ask_api(&format!("STREAM.MSG.GET.{}", self.stream), &request) {
            Ok(answer) => answers::message(&answer, slot).map(|message| self.slot(&message)),
            Err(Failure::JetStream(error)) if error.is_no_message() => {
                self.is_gone(slot).then_some(Slot::Gone)
            }
            Err(_) => None,
        }
    }

    fn end(&self) -> Option<u64> {
        stream::state(&self.info().ok()?, "last_seq")
    }

    fn connection(&self) -> u64 {
        self.connected.count()
    }

    fn patience(&self) -> Duration {
        self.patience
    }

    fn forget(&self, before: u64, acked: u64) -> Result<(), StoreError> {
        if before > acked {
            return Err(StoreError::Invalid("what is not known to be stored cannot be forgotten"));
        }
        let busy = |failure: Failure| StoreError::Busy { reason: failure.to_string() };
        // Up to it, and not with it; of 0 it would purge all.
        if before < 2 {
            return Ok(());
        }
        self.info().map_err(busy)?;
        let request = json!({ "seq": before });
        let purge = format!("STREAM.PURGE.{}", self.stream);
        self.connected.ask_api(&purge, &request).map(drop).map_err(busy)
    }
}
