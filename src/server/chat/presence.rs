//! Presence: who is in which room, and the announcements of joins and leaves.
//!
//! Presence is not stored. A room keeps its last few changes; each stream in it holds the number of
//! the last change it has seen, and pulls. So announcing never blocks, and memory grows with rooms,
//! not with readers. A change records the head of the log when it happened; a stream shows it once
//! it has passed that seq and before anything after it. A stream that keeps up therefore sees a
//! join before all messages of that user, and a leave after them. A stream that is more than
//! [`KEPT`] changes behind misses the oldest changes, never a message.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_stream::Stream;
use tokio_stream::wrappers::WatchStream;

use tailmark_log::eventlog::EventLog;
use tailmark_record::Seq;

/// Changes that a room remembers.
const KEPT: usize = 256;

/// Who is in which room; cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Presence(Arc<Mutex<HashMap<Arc<str>, Occupants>>>);

struct Occupants {
    /// Streams of each user.
    users: HashMap<Arc<str>, usize>,
    /// All streams, those without a user too.
    streams: usize,
    changes: VecDeque<Change>,
    /// Changes so far: the number of the newest one.
    announced: watch::Sender<u64>,
}

/// Somebody came or left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) user: Arc<str>,
    pub(super) came: bool,
    /// The head of the log at that time.
    pub(super) head: Seq,
}

impl Presence {
    /// A stream comes into a room, for a user or, with an empty name, unseen.
    pub(super) fn enter(&self, log: &EventLog, room: &Arc<str>, user: &str) -> Arc<Stay> {
        let user: Arc<str> = user.into();
        let mut rooms = self.0.lock();
        let there = rooms.entry(Arc::clone(room)).or_insert_with(|| Occupants {
            users: HashMap::new(),
            streams: 0,
            changes: VecDeque::new(),
            announced: watch::Sender::new(0),
        });
        there.streams += 1;
        if !user.is_empty() {
            let streams = there.users.entry(Arc::clone(&user)).or_default();
            *streams += 1;
            if *streams == 1 {
                there.announce(Change {
                    user: Arc::clone(&user),
                    came: true,
                    head: log.bounds().head,
                });
            }
        }
        let (seen, announced) = (*there.announced.borrow(), there.announced.subscribe());
        drop(rooms);
        let (presence, room, log) = (self.clone(), Arc::clone(room), log.clone());
        Arc::new(Stay { presence, room, user, seen, announced, log })
    }

    /// Rooms with anybody in them.
    #[cfg(test)]
    fn rooms(&self) -> usize {
        self.0.lock().len()
    }
}

impl Occupants {
    fn announce(&mut self, change: Change) {
        if self.changes.len() == KEPT {
            self.changes.pop_front();
        }
        self.changes.push_back(change);
        self.announced.send_modify(|announced| *announced += 1);
    }

    /// The first change after `seen`, with its number.
    fn after(&self, seen: u64) -> Option<(u64, &Change)> {
        let announced = *self.announced.borrow();
        let oldest = announced - self.changes.len() as u64;
        let at = seen.max(oldest);
        let change = self.changes.get(usize::try_from(at - oldest).ok()?)?;
        Some((at + 1, change))
    }
}

/// A stream's stay in a room; when it is dropped, the stream has left.
pub(super) struct Stay {
    presence: Presence,
    room: Arc<str>,
    user: Arc<str>,
    /// The newest change when it came.
    seen: u64,
    announced: watch::Receiver<u64>,
    log: EventLog,
}

impl Drop for Stay {
    fn drop(&mut self) {
        let mut rooms = self.presence.0.lock();
        let Some(there) = rooms.get_mut(&self.room) else { return };
        there.streams -= 1;
        if there.streams == 0 {
            rooms.remove(&self.room);
            return;
        }
        if let Some(streams) = there.users.get_mut(&self.user) {
            *streams -= 1;
            if *streams == 0 {
                there.users.remove(&self.user);
                let (user, head) = (Arc::clone(&self.user), self.log.bounds().head);
                there.announce(Change { user, came: false, head });
            }
        }
    }
}

impl Stay {
    /// Hears what changes from the time of coming on.
    pub(super) fn listen(&self) -> Listener {
        Listener {
            presence: self.presence.clone(),
            room: Arc::clone(&self.room),
            user: Arc::clone(&self.user),
            seen: self.seen,
            announced: self.announced.clone(),
            wake: WatchStream::from_changes(self.announced.clone()),
            next: None,
        }
    }
}

/// One stream's ear in a room. Holds no place in it: the stay does.
pub(super) struct Listener {
    presence: Presence,
    room: Arc<str>,
    user: Arc<str>,
    seen: u64,
    announced: watch::Receiver<u64>,
    wake: WatchStream<u64>,
    /// Taken and not told yet.
    next: Option<Change>,
}

impl Listener {
    /// The next change, once everything up to `passed` has been shown.
    pub(super) fn due(&mut self, passed: Seq) -> Option<Change> {
        loop {
            if self.next.is_none() {
                if *self.announced.borrow() == self.seen {
                    return None;
                }
                let rooms = self.presence.0.lock();
                let (seen, change) = rooms.get(&self.room)?.after(self.seen)?;
                (self.seen, self.next) = (seen, Some(change.clone()));
            }
            // Nobody is told of themselves.
            let change =
                self.next.take_if(|change| change.user == self.user || change.head <= passed)?;
            if change.user != self.user {
                return Some(change);
            }
        }
    }

    /// Whether a change waits for the stream to move on.
    pub(super) fn is_held(&self) -> bool {
        self.next.is_some()
    }

    /// Ready when there may be more to tell.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // What is kept for later is told when the stream has moved on.
        Pin::new(&mut self.wake).poll_next(cx).map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tailmark_log::eventlog::{self, AppendOptions};
    use tailmark_log::storage::Recovered;
    use tailmark_log::storage::memory::{Memory, Options};
    use tailmark_record::{Event, FingerprintKey, GenerationTable, LogId, Timestamp};

    fn log() -> EventLog {
        let generations = GenerationTable::created(1, Timestamp::EPOCH);
        let id = LogId::new(uuid::Uuid::from_u128(1));
        let key = FingerprintKey::new([7; 16]);
        let engine = Memory::new(id, key, generations, Options::default());
        let options = eventlog::Options::default();
        EventLog::open(Arc::new(engine), Recovered::default(), options).unwrap()
    }

    fn heard(listener: &mut Listener, passed: Seq) -> Vec<(String, bool)> {
        std::iter::from_fn(|| listener.due(passed))
            .map(|change| (change.user.to_string(), change.came))
            .collect()
    }

    fn pairs(changes: &[(&str, bool)]) -> Vec<(String, bool)> {
        changes.iter().map(|(user, came)| ((*user).to_owned(), *came)).collect()
    }

    #[tokio::test]
    async fn the_first_stream_comes_and_the_last_leaves() {
        let (presence, log, room) = (Presence::default(), log(), Arc::from("r"));
        let eve = presence.enter(&log, &room, "eve");
        let mut ear = eve.listen();
        let unseen = presence.enter(&log, &room, "");
        let elsewhere = presence.enter(&log, &Arc::from("other"), "bob");
        assert_eq!(heard(&mut ear, Seq::MAX), []);
        let first = presence.enter(&log, &room, "ann");
        let second = presence.enter(&log, &room, "ann");
        // One more of her own.
        let eve_again = presence.enter(&log, &room, "eve");
        assert_eq!(heard(&mut ear, Seq::MAX), pairs(&[("ann", true)]));
        drop((first, unseen, eve_again));
        assert_eq!(heard(&mut ear, Seq::MAX), []);
        drop(second);
        assert_eq!(heard(&mut ear, Seq::MAX), pairs(&[("ann", false)]));
        assert_eq!(presence.rooms(), 2);
        drop((eve, elsewhere));
        assert_eq!(presence.rooms(), 0);
    }

    #[tokio::test]
    async fn a_change_stands_after_what_was_durable_before_it() {
        let (presence, log, room) = (Presence::default(), log(), Arc::from("r"));
        let stay = presence.enter(&log, &room, "");
        let mut ear = stay.listen();
        let ann = presence.enter(&log, &room, "ann");
        let mut batch = log.batch();
        batch.push(&Event { topic: "chat.r", ..Event::default() }).unwrap();
        log.append(batch, AppendOptions::default()).await.unwrap();
        drop(ann);
        assert_eq!(heard(&mut ear, Seq::ZERO), pairs(&[("ann", true)]));
        assert_eq!(heard(&mut ear, Seq::FIRST), pairs(&[("ann", false)]));
    }

    #[tokio::test]
    async fn a_room_remembers_so_many_changes_and_the_newest_come_in_order() {
        let (presence, log, room) = (Presence::default(), log(), Arc::from("r"));
        let stay = presence.enter(&log, &room, "");
        let mut ear = stay.listen();
        for at in 0..KEPT {
            drop(presence.enter(&log, &room, &at.to_string()));
        }
        let heard = heard(&mut ear, Seq::MAX);
        let expected: Vec<_> = (KEPT / 2..KEPT)
            .flat_map(|at| [(at.to_string(), true), (at.to_string(), false)])
            .collect();
        assert_eq!(heard, expected);
    }
}
