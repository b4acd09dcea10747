//! The journal: what it is asked as questions to the stream, and what was learned of the stream.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::{HeaderMap, StatusCode};
use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::client::{Connected, Failure};
use crate::stream::{self, Strength};
use crate::tail::Tail;
use crate::{Error, Settings, Stray, answers, witness};
use tailmark_log::StoreError;
use tailmark_log::storage::Level;
use tailmark_log::storage::shared::{Frame, FrameChain, Identity, Published, SharedJournal, Slot};

/// Where nobody answers, before it is tried again.
const PAUSE: Duration = Duration::from_millis(100);
/// How often who finds nothing at a slot asks whether it is gone.
const LOOK: Duration = Duration::from_secs(1);
/// How often who follows asks a replica beside a tail that brings nothing.
const ASK: Duration = Duration::from_millis(100);
/// Until the stream can be used: servers that have just begun elect for some 5 s.
const READY: Duration = Duration::from_secs(30);

/// A daemon's connection to the journal of a log.
pub struct NatsJournal {
    pub(crate) connected: Connected,
    stream: String,
    pub(crate) subject: String,
    identity: Identity,
    /// When the stream was made: another one under its name is another.
    created: Value,
    strength: Mutex<Strength>,
    settings: Settings,
    looked: Mutex<Option<Instant>>,
    tail: Option<Tail>,
    /// When a slot was asked for last beside a tail that says that nothing has come.
    asked: Mutex<Option<Instant>>,
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
        let created_at = stream::created_of(&info).unwrap_or_default();
        remember(&connected, &info, &strength);
        let level = level(&strength);
        let identity = Identity { id, key, max_commit_bytes, level, created_at };
        let tail = connected
            .handle()
            .map(|handle| Tail::new(connected.client().clone(), handle, settings.stream()));
        Ok(NatsJournal {
            connected,
            tail,
            asked: Mutex::new(None),
            stream: name,
            subject: settings.subject(),
            identity,
            created: info.get("created").cloned().unwrap_or_default(),
            strength: Mutex::new(strength),
            settings: settings.clone(),
            looked: Mutex::new(None),
        })
    }

    /// What the stream promises, as of the last look: when this connected, or [`NatsJournal::look_again`].
    pub fn strength(&self) -> Strength {
        self.strength.lock().clone()
    }

    /// Looks again at what the stream promises, and from then on says so of what is stored. Servers are restarted with other
    /// settings, and those that were down when this connected can be asked now: a daemon calls it now and then.
    ///
    /// # Errors
    /// Where nobody answers, where the stream is another, or weaker than is asked for: of that too acks tell the truth
    /// from here on.
    pub fn look_again(&self) -> Result<Strength, Error> {
        let stream = self.stream.clone();
        let failed = |failure| Error::Stream { action: "look at", stream: stream.clone(), failure };
        let info = self.info().map_err(failed)?;
        let strength = stream::strength(&info, &self.settings, &self.connected.version());
        remember(&self.connected, &info, &strength);
        *self.strength.lock() = strength.clone();
        if !self.settings.allow_weaker && !strength.weaknesses.is_empty() {
            return Err(Error::Weaker { stream, reasons: strength.weaknesses });
        }
        Ok(strength)
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
    pub(crate) fn info(&self) -> Result<Value, Failure> {
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

    /// Whether a replica is to be asked: always without a tail, and now and then beside one that brings nothing.
    fn is_time_to_ask(&self) -> bool {
        let connection = self.connected.count();
        if !self.tail.as_ref().is_some_and(|tail| tail.is_quiet(connection)) {
            return true;
        }
        is_time(&self.asked, ASK)
    }

    fn is_time_to_look(&self) -> bool {
        is_time(&self.looked, LOOK)
    }

    fn slot(&self, message: &Bytes) -> Slot {
        Slot::of(message, self.identity.id)
    }

    fn not_taken(&self, failure: &Failure) -> Published {
        Published::NotTaken { reason: format!("the journal {}: {failure}", self.stream) }
    }
}

/// Whether something is due that was done last then; it is done now.
fn is_time(last: &Mutex<Option<Instant>>, every: Duration) -> bool {
    let mut last = last.lock();
    let is_time = last.is_none_or(|at| at.elapsed() > every);
    if is_time {
        *last = Some(Instant::now());
    }
    is_time
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

/// Keeps in the stream which servers sync, for daemons that begin while one of them is down. Where that fails it is kept
/// the next time.
fn remember(connected: &Connected, info: &Value, strength: &Strength) {
    if let Some((update, config)) = stream::remembering(info, strength) {
        let _ = connected.ask_api(&update, &config);
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
        Identity { level: level(&self.strength.lock()), ..self.identity }
    }

    fn name(&self) -> String {
        self.stream.clone()
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
        if let Some(message) = self.tail.as_ref().and_then(|tail| tail.take(slot)) {
            return Some(self.slot(&message));
        }
        if !self.is_time_to_ask() {
            return None;
        }
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

    fn wait(&self, slot: u64, timeout: Duration) -> bool {
        match &self.tail {
            Some(tail) => tail.wait(slot, self.connected.count(), timeout),
            None => {
                std::thread::sleep(timeout.min(PAUSE));
                true
            }
        }
    }

    fn end(&self) -> Option<u64> {
        stream::state(&self.info().ok()?, "last_seq")
    }

    fn first(&self) -> Option<u64> {
        stream::state(&self.info().ok()?, "first_seq")
    }

    fn connection(&self) -> u64 {
        self.connected.count()
    }

    fn patience(&self) -> Duration {
        self.settings.patience
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
