//! A shared journal in memory, and the connections to it: for tests of what is above.
//!
//! It holds bytes. It does what a quorum of JetStream was measured to do, and no more: a request or an answer can
//! be lost or late, an old leader tells an end that was, others write to it or purge it, an older snapshot can
//! be put back.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;

use super::{Frame, Identity, Published, SharedJournal, Slot};
use crate::storage::StoreError;
use crate::width::to_usize;

/// What happens to one publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    Pass,
    /// It never arrives.
    LoseRequest,
    /// It arrives when [`Stream::deliver_late`] says so, and nobody hears of it.
    DelayRequest,
    /// It is stored or refused, and its sender does not hear of it.
    LoseAnswer,
    /// An old leader refuses it by an end that was.
    OldLeader,
}

/// The journal itself.
pub struct Stream {
    identity: Identity,
    /// Without it nothing is compared, and everything is stored: to see what that breaks.
    compares: bool,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// Slots that are gone from its beginning.
    gone: u64,
    messages: Vec<Bytes>,
    late: Vec<(u64, Bytes)>,
    /// Times that every connection was made anew.
    restarts: u64,
}

/// A daemon's connection to a [`Stream`].
pub struct Connection {
    stream: Arc<Stream>,
    faults: Mutex<VecDeque<Fault>>,
    is_cut: AtomicBool,
}

impl Stream {
    /// An empty journal.
    pub fn new(identity: Identity, compares: bool) -> Arc<Stream> {
        Arc::new(Stream { identity, compares, inner: Mutex::default() })
    }

    /// Another connection to it.
    pub fn connect(self: &Arc<Stream>) -> Arc<Connection> {
        let (faults, is_cut) = (Mutex::default(), AtomicBool::new(false));
        Arc::new(Connection { stream: Arc::clone(self), faults, is_cut })
    }

    /// The last slot.
    pub fn end(&self) -> u64 {
        self.inner.lock().end()
    }

    /// All that it holds.
    pub fn slots(&self) -> Vec<Slot> {
        let messages = self.inner.lock().messages.clone();
        messages.iter().map(|message| Slot::of(message, self.identity.id)).collect()
    }

    /// A publish that was late arrives now; `nth` of them. False when none is.
    pub fn deliver_late(&self, nth: usize) -> bool {
        let mut inner = self.inner.lock();
        if inner.late.is_empty() {
            return false;
        }
        let at = nth % inner.late.len();
        let (after, message) = inner.late.swap_remove(at);
        inner.store(after, &message, self.compares);
        true
    }

    /// Somebody else's message.
    pub fn put_foreign(&self) {
        self.put(Bytes::from_static(b"somebody else's"));
    }

    /// Any message, by whoever is let.
    pub fn put(&self, message: Bytes) {
        self.inner.lock().messages.push(message);
    }

    /// Somebody purges what is before a slot; where that is behind the end, the end moves.
    pub fn purge(&self, before: u64) {
        let mut inner = self.inner.lock();
        let gone = before.saturating_sub(1).saturating_sub(inner.gone);
        let kept = inner.messages.len();
        inner.messages.drain(..to_usize(gone).min(kept));
        inner.gone += gone;
    }

    /// An older snapshot is put back, which ends here. All have to connect again.
    pub fn roll_back(&self, end: u64) {
        let mut inner = self.inner.lock();
        let kept = to_usize(end.saturating_sub(inner.gone));
        inner.messages.truncate(kept);
        inner.restarts += 1;
    }
}

impl Stream {
    /// The same, and nobody notices: what whoever followed has read may be of another history than what comes.
    pub fn roll_back_unnoticed(&self, end: u64) {
        self.roll_back(end);
        self.inner.lock().restarts -= 1;
    }
}

impl Inner {
    fn end(&self) -> u64 {
        self.gone + self.messages.len() as u64
    }

    fn store(&mut self, after: u64, message: &Bytes, compares: bool) -> Published {
        let end = self.end();
        if compares && after != end {
            return Published::Refused { end };
        }
        self.messages.push(message.clone());
        // Without a comparison an ack would name another slot than is expected.
        Published::Stored(if compares { end + 1 } else { after + 1 })
    }
}

impl Connection {
    /// What happens to the publishes that come next, one after the other.
    pub fn fail(&self, faults: impl IntoIterator<Item = Fault>) {
        self.faults.lock().extend(faults);
    }

    /// Everything passes again.
    pub fn heal(&self) {
        self.faults.lock().clear();
        self.is_cut.store(false, Ordering::SeqCst);
    }

    /// Nothing arrives either way, until it is healed.
    pub fn cut(&self) {
        self.is_cut.store(true, Ordering::SeqCst);
    }

    fn is_cut(&self) -> bool {
        self.is_cut.load(Ordering::SeqCst)
    }
}

impl SharedJournal for Connection {
    fn identity(&self) -> Identity {
        self.stream.identity
    }

    fn name(&self) -> String {
        "a journal in memory".to_owned()
    }

    fn publish(&self, after: u64, frame: &Arc<Frame>) -> Published {
        if self.is_cut() {
            return Published::NoAnswer;
        }
        let fault = self.faults.lock().pop_front().unwrap_or(Fault::Pass);
        let message = frame.bytes();
        let mut inner = self.stream.inner.lock();
        match fault {
            Fault::Pass => inner.store(after, message, self.stream.compares),
            Fault::LoseRequest => Published::NoAnswer,
            Fault::DelayRequest => {
                inner.late.push((after, message.clone()));
                Published::NoAnswer
            }
            Fault::LoseAnswer => {
                inner.store(after, message, self.stream.compares);
                Published::NoAnswer
            }
            Fault::OldLeader => Published::Refused { end: after.saturating_sub(1) },
        }
    }

    fn read(&self, slot: u64) -> Option<Slot> {
        if self.is_cut() {
            return None;
        }
        let inner = self.stream.inner.lock();
        let at = slot.checked_sub(1)?;
        if at < inner.gone {
            return Some(Slot::Gone);
        }
        let message = inner.messages.get(to_usize(at - inner.gone))?;
        Some(Slot::of(message, self.stream.identity.id))
    }

    fn wait(&self, slot: u64, timeout: Duration) -> bool {
        let begun = Instant::now();
        loop {
            if !self.is_cut() && self.stream.end() >= slot {
                return true;
            }
            if begun.elapsed() >= timeout {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn end(&self) -> Option<u64> {
        (!self.is_cut()).then(|| self.stream.end())
    }

    fn first(&self) -> Option<u64> {
        (!self.is_cut()).then(|| self.stream.inner.lock().gone + 1)
    }

    fn connection(&self) -> u64 {
        self.stream.inner.lock().restarts
    }

    fn forget(&self, before: u64, acked: u64) -> Result<(), StoreError> {
        if before > acked {
            return Err(StoreError::Invalid("what is not known to be stored cannot be forgotten"));
        }
        self.stream.purge(before);
        Ok(())
    }
}
