use std::sync::Arc;

mod copies;
mod repair;

use super::conformance::{CASES, Journals};
use super::*;
use crate::storage::Store;
use crate::storage::memory::{Memory, Options};
use tailmark_record::{GenerationTable, Timestamp};

struct InMemory(Arc<Stream>);

impl Journals for InMemory {
    fn connect(&self) -> Arc<dyn SharedJournal> {
        self.0.connect()
    }

    fn put_foreign(&self) {
        self.0.put_foreign();
    }

    fn purge(&self, before: u64) {
        self.0.purge(before);
    }
}

fn identity() -> Identity {
    let (id, key) = (LogId::new(uuid::Uuid::from_u128(16)), FingerprintKey::new([7; 16]));
    let (max_commit_bytes, created_at) = (1 << 20, Timestamp::EPOCH);
    Identity { id, key, max_commit_bytes, level: Level::Replicated, created_at }
}

#[test]
fn a_journal_in_memory_is_one() {
    for (name, case) in CASES {
        println!("{name}");
        case(&InMemory(Stream::new(identity(), true)));
    }
}

/// The suite finds a journal that compares nothing.
#[test]
#[should_panic(expected = "assertion")]
fn one_that_compares_nothing_is_none() {
    CASES[0].1(&InMemory(Stream::new(identity(), false)));
}

fn replica(stream: &Arc<Stream>, name: u64) -> Replica {
    let options = Options { max_commit_bytes: 1 << 20, ..Options::default() };
    let copy = copy_in_memory(options, &*stream.connect()).unwrap();
    let state_of: StateOf = Box::new(|_| Ok(Bytes::new()));
    Replica::new((name, 0), stream.connect(), copy, state_of, &[]).unwrap()
}

fn follows(replica: &Replica) -> Result<u64, StoreError> {
    let mut taken = 0;
    while replica.follow()?.is_some() {
        taken += 1;
    }
    Ok(taken)
}

/// Neither passed over nor taken for the end of the log: what is behind it is not shown, and why is said.
#[test]
fn what_cannot_be_read_stops_who_follows_and_is_told() {
    let content = |log, nonce| {
        let (previous, term, writer) = (FrameChain::default(), 1, 1);
        Content { log, previous, term, writer, nonce, body: Body::Empty }
    };
    let good = Frame::new(content(identity().id, 1));
    let mut damaged = good.bytes().to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    let mut newer = good.bytes().to_vec();
    newer[8] = 2;
    let other = Frame::new(content(LogId::new(uuid::Uuid::from_u128(17)), 1));
    for (message, why) in [
        (damaged.into(), "damaged"),
        (newer.into(), "format 2"),
        (other.bytes().clone(), "log 00000000"),
    ] {
        let stream = Stream::new(identity(), true);
        stream.put(message);
        let it = replica(&stream, 1);
        let error = follows(&it).unwrap_err().to_string();
        assert!(error.contains("slot 1 of the journal") && error.contains(why), "{error}");
        // It says so until it can be read, and does not tell of a loss that it cannot know of.
        assert!(Store::status(&it).trouble.is_some_and(|it| it.contains(why)));
        assert_eq!(it.role(), Role::Following);
        assert!(it.take_over(Timestamp::EPOCH).is_err());
        stream.put_foreign();
        assert!(follows(&it).is_err());
    }
}

#[test]
fn a_foreign_message_is_passed_over() {
    let stream = Stream::new(identity(), true);
    stream.put_foreign();
    let (one, other) = (replica(&stream, 1), replica(&stream, 2));
    one.take_over(Timestamp::EPOCH).unwrap();
    stream.put_foreign();
    one.confirm().unwrap();
    assert_eq!(follows(&other).unwrap(), 4);
}

/// What was at N+1 is not known, and others may have seen it: nobody goes on by himself.
#[test]
fn a_purge_beyond_the_end_stops_the_writer() {
    let stream = Stream::new(identity(), true);
    let (one, other) = (replica(&stream, 1), replica(&stream, 2));
    one.take_over(Timestamp::EPOCH).unwrap();
    stream.purge(8);
    assert!(matches!(one.confirm(), Err(StoreError::InDoubt)));
    assert_eq!(one.role(), Role::Diverged);
    assert!(Store::status(&one).trouble.is_some_and(|it| it.contains("purged from outside")));
    assert!(one.resolve().is_ok() && !one.is_in_doubt());
    assert!(matches!(follows(&other), Err(StoreError::Diverged { .. })));
}

#[test]
fn generations_that_are_not_the_copys_are_another_history() {
    let stream = Stream::new(identity(), true);
    replica(&stream, 1).take_over(Timestamp::EPOCH).unwrap();
    let Identity { id, key, .. } = identity();
    let copy =
        Memory::new(id, key, GenerationTable::created(2, Timestamp::EPOCH), Options::default());
    let state_of: StateOf = Box::new(|_| Ok(Bytes::new()));
    let it = Replica::new((2, 0), stream.connect(), Arc::new(copy), state_of, &[]).unwrap();
    assert!(matches!(follows(&it), Err(StoreError::Diverged { .. })));
    assert_eq!(it.role(), Role::Diverged);
}

/// A journal of which nothing comes back.
struct Hangs(Arc<dyn SharedJournal>, std::sync::mpsc::Sender<()>);

impl SharedJournal for Hangs {
    fn identity(&self) -> Identity {
        self.0.identity()
    }

    fn name(&self) -> String {
        self.0.name()
    }

    fn publish(&self, after: u64, frame: &Arc<Frame>) -> Published {
        if matches!(frame.body, Body::Term(_)) {
            return self.0.publish(after, frame);
        }
        self.1.send(()).unwrap();
        std::thread::sleep(Duration::from_millis(300));
        Published::NoAnswer
    }

    fn read(&self, slot: u64) -> Option<Slot> {
        self.0.read(slot)
    }

    fn wait(&self, slot: u64, timeout: Duration) -> bool {
        self.0.wait(slot, timeout)
    }

    fn end(&self) -> Option<u64> {
        self.0.end()
    }

    fn first(&self) -> Option<u64> {
        self.0.first()
    }

    fn connection(&self) -> u64 {
        self.0.connection()
    }

    fn forget(&self, before: u64, acked: u64) -> Result<(), StoreError> {
        self.0.forget(before, acked)
    }
}

/// Readiness and status are asked while a frame is under way.
#[test]
fn nobody_waits_for_the_journal_to_hear_how_it_is() {
    let stream = Stream::new(identity(), true);
    let (told, is_under_way) = std::sync::mpsc::channel();
    let journal = Arc::new(Hangs(stream.connect(), told));
    let copy = copy_in_memory(Options::default(), &*journal).unwrap();
    let state_of: StateOf = Box::new(|_| Ok(Bytes::new()));
    let it = Arc::new(Replica::new((1, 0), journal, copy, state_of, &[]).unwrap());
    it.take_over(Timestamp::EPOCH).unwrap();
    let other = Arc::clone(&it);
    let confirms = std::thread::spawn(move || other.confirm());
    is_under_way.recv().unwrap();
    let began = std::time::Instant::now();
    assert_eq!((it.role(), it.term(), it.is_in_doubt()), (Role::Writing, 1, false));
    assert!(Store::status(&*it).trouble.is_none());
    assert!(crate::storage::Journal::refusal(&*it).is_none());
    assert!(began.elapsed() < Duration::from_millis(200));
    assert!(matches!(confirms.join().unwrap(), Err(StoreError::InDoubt)));
    assert!(it.is_in_doubt());
}
