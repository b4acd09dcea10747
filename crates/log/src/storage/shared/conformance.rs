//! What every shared journal must do, whatever it is reached by. One that lives elsewhere runs it too.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a suite ends where something is not as it must be"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{Body, Content, Frame, FrameChain, Published, SharedJournal, Slot};
use crate::chain::Link;
use crate::storage::{Commit, StoreError};
use tailmark_record::{Seq, Timestamp};

/// How a suite comes to its journals.
pub trait Journals {
    /// Connects to one journal, which was empty at first: each call is another daemon.
    fn connect(&self) -> Arc<dyn SharedJournal>;

    /// Somebody else's message, behind all others.
    fn put_foreign(&self);

    /// Somebody purges what is before a slot.
    fn purge(&self, before: u64);
}

/// Until a replica has what another has acked.
const PATIENCE: Duration = Duration::from_secs(20);

/// A case: what it is of, and itself.
pub type Case = (&'static str, fn(&dyn Journals));

/// All cases; each needs an empty journal.
pub const CASES: &[Case] = &[
    ("a frame is stored at its slot or nowhere", places),
    ("the same frame again is stored once", once),
    ("of two that publish at a slot one is stored", race),
    ("what is read is what was stored", read),
    ("who waits hears of what comes, and reads it", wait),
    ("a foreign message takes a slot", foreign),
    ("what is forgotten is gone, and slots stay what they are", forget),
    ("a purge beyond the end moves the end, and is seen", purged),
];

struct Writer {
    journal: Arc<dyn SharedJournal>,
    slot: u64,
    chain: FrameChain,
    nonce: u64,
}

impl Writer {
    fn new(journals: &dyn Journals) -> Writer {
        Writer { journal: journals.connect(), slot: 0, chain: FrameChain::default(), nonce: 0 }
    }

    fn frame(&mut self, body: Body) -> Arc<Frame> {
        self.nonce += 1;
        let (log, previous) = (self.journal.identity().id, self.chain);
        let content = Content { log, previous, term: 1, writer: 1, nonce: self.nonce, body };
        Arc::new(Frame::new(content))
    }

    fn store(&mut self, body: Body) -> Arc<Frame> {
        let frame = self.frame(body);
        assert_eq!(stored(&*self.journal, self.slot, &frame), Published::Stored(self.slot + 1));
        (self.slot, self.chain) = (self.slot + 1, frame.chain());
        frame
    }
}

/// Publishes until it is answered.
fn stored(journal: &dyn SharedJournal, after: u64, frame: &Arc<Frame>) -> Published {
    let begun = Instant::now();
    loop {
        match journal.publish(after, frame) {
            Published::NoAnswer | Published::NotTaken { .. } if begun.elapsed() < PATIENCE => {}
            answer => return answer,
        }
    }
}

/// Reads until something is there: a replica may lag.
fn there(journal: &dyn SharedJournal, slot: u64) -> Slot {
    let begun = Instant::now();
    loop {
        match journal.read(slot) {
            Some(found) => return found,
            None if begun.elapsed() > PATIENCE => panic!("nothing at {slot}"),
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

fn nonce_at(journal: &dyn SharedJournal, slot: u64) -> u64 {
    match there(journal, slot) {
        Slot::Frame(frame) => frame.nonce,
        other => panic!("{other:?} at {slot}"),
    }
}

fn commit(bytes: usize) -> Body {
    // Not events: a journal does not look.
    let events = Bytes::from_iter((0..bytes).map(|at| (at % 251).to_le_bytes()[0]));
    Body::Commit(Commit {
        first: Seq::FIRST,
        count: 1,
        appended_at: Timestamp::EPOCH,
        events,
        delta: Bytes::from_static(b"delta"),
        state: None,
        link: Link::new([3; 16]),
        oldest: Seq::FIRST,
        oldest_tag: None,
    })
}

fn places(journals: &dyn Journals) {
    let mut writer = Writer::new(journals);
    assert_eq!(writer.journal.end(), Some(0));
    assert!(writer.journal.read(1).is_none());
    assert!(writer.journal.read_back(1).is_none());
    writer.store(Body::Empty);
    writer.store(commit(100));
    let wrong = writer.frame(Body::Empty);
    for after in [0, 1, 3, 100] {
        assert_eq!(stored(&*writer.journal, after, &wrong), Published::Refused { end: 2 });
    }
    assert_eq!(writer.journal.end(), Some(2));
    assert!(writer.journal.read_back(3).is_none());
    writer.store(Body::Empty);
}

fn once(journals: &dyn Journals) {
    let mut writer = Writer::new(journals);
    let first = writer.store(commit(10));
    for _ in 0..3 {
        assert_eq!(stored(&*writer.journal, 0, &first), Published::Refused { end: 1 });
    }
    assert_eq!(writer.journal.end(), Some(1));
    assert_eq!(nonce_at(&*writer.journal, 1), first.nonce);
}

fn race(journals: &dyn Journals) {
    const SLOTS: u64 = 30;
    let run = |name: u64| {
        let mut writer = Writer { nonce: name << 32, ..Writer::new(journals) };
        move || {
            let mut won = Vec::new();
            while writer.slot < SLOTS {
                let frame = writer.frame(Body::Empty);
                let at = writer.slot + 1;
                match stored(&*writer.journal, writer.slot, &frame) {
                    Published::Stored(slot) => {
                        assert_eq!(slot, at);
                        won.push((slot, frame.nonce));
                        writer.slot = slot;
                    }
                    Published::Refused { end } => {
                        assert!(end >= at, "refused at {at} by {end}");
                        // It may have been stored by a try that was not answered.
                        let is_own = nonce_at(&*writer.journal, at) == frame.nonce;
                        won.extend(is_own.then_some((at, frame.nonce)));
                        writer.slot = at;
                    }
                    other => panic!("{other:?}"),
                }
            }
            won
        }
    };
    let (one, other) = (std::thread::spawn(run(1)), std::thread::spawn(run(2)));
    let mut won: Vec<_> = [one, other].into_iter().flat_map(|it| it.join().unwrap()).collect();
    won.sort_unstable();
    let slots: Vec<u64> = won.iter().map(|it| it.0).collect();
    assert_eq!(slots, (1..=SLOTS).collect::<Vec<_>>());
    let journal = journals.connect();
    for (slot, nonce) in won {
        assert_eq!(nonce_at(&*journal, slot), nonce);
    }
}

fn read(journals: &dyn Journals) {
    let mut writer = Writer::new(journals);
    let large = writer.journal.identity().max_commit_bytes;
    let frames: Vec<_> = [commit(0), Body::Empty, commit(1), commit(large), commit(70_000)]
        .map(|it| writer.store(it))
        .into();
    let journal = journals.connect();
    let mut chain = FrameChain::default();
    for (slot, frame) in (1..).zip(frames) {
        for found in [there(&*journal, slot), journal.read_back(slot).unwrap()] {
            let Slot::Frame(found) = found else { panic!("{found:?}") };
            assert_eq!(found.bytes(), frame.bytes());
            assert_eq!((found.previous, found.chain()), (chain, frame.chain()));
        }
        chain = frame.chain();
    }
}

fn wait(journals: &dyn Journals) {
    let mut writer = Writer::new(journals);
    let follower = journals.connect();
    let begun = Instant::now();
    assert!(!follower.wait(1, Duration::from_millis(300)), "nothing is there");
    assert!(begun.elapsed() >= Duration::from_millis(300));
    let mut slot = 0;
    let mut follow = |upto: u64| {
        let begun = Instant::now();
        while slot < upto {
            assert!(begun.elapsed() < PATIENCE, "nothing comes at {}", slot + 1);
            if follower.wait(slot + 1, Duration::from_millis(500))
                && let Some(found) = follower.read(slot + 1)
            {
                let Slot::Frame(frame) = found else { panic!("{found:?}") };
                slot += 1;
                assert_eq!(frame.nonce, slot);
            }
        }
    };
    for _ in 0..200 {
        writer.store(commit(3_000));
    }
    follow(200);
    for upto in 201..230 {
        writer.store(Body::Empty);
        follow(upto);
    }
    // What was read otherwise meanwhile is not brought again.
    for _ in 0..20 {
        writer.store(Body::Empty);
    }
    for slot in 230..=240 {
        assert_eq!(nonce_at(&*follower, slot), slot);
    }
    assert!(follower.wait(241, PATIENCE));
    assert_eq!(nonce_at(&*follower, 241), 241);
    // And one that goes back reads again.
    assert!(follower.wait(7, PATIENCE));
    assert_eq!(nonce_at(&*follower, 7), 7);
    let begun = Instant::now();
    assert!(!follower.wait(250, Duration::from_millis(300)) && begun.elapsed() < PATIENCE);
}

fn foreign(journals: &dyn Journals) {
    let mut writer = Writer::new(journals);
    writer.store(Body::Empty);
    journals.put_foreign();
    let frame = writer.frame(Body::Empty);
    assert_eq!(stored(&*writer.journal, 1, &frame), Published::Refused { end: 2 });
    assert!(matches!(there(&*writer.journal, 2), Slot::Foreign));
    assert!(matches!(writer.journal.read_back(2), Some(Slot::Foreign)));
    assert_eq!(stored(&*writer.journal, 2, &frame), Published::Stored(3));
}

fn forget(journals: &dyn Journals) {
    let mut writer = Writer::new(journals);
    for _ in 0..5 {
        writer.store(Body::Empty);
    }
    let journal = &*writer.journal;
    assert!(matches!(journal.forget(6, 5), Err(StoreError::Invalid(_))));
    assert!(journal.first().is_some_and(|first| first <= 1));
    journal.forget(4, 5).unwrap();
    assert_eq!(journal.first(), Some(4));
    assert!(matches!(journal.read_back(3), Some(Slot::Gone)));
    assert!(matches!(journal.read_back(1), Some(Slot::Gone)));
    assert_eq!(nonce_at(journal, 4), 4);
    // All but the last.
    journal.forget(5, 5).unwrap();
    assert_eq!((journal.end(), nonce_at(journal, 5)), (Some(5), 5));
    writer.store(Body::Empty);
    assert_eq!(nonce_at(&*writer.journal, 6), 6);
}

fn purged(journals: &dyn Journals) {
    let mut writer = Writer::new(journals);
    writer.store(Body::Empty);
    journals.purge(10);
    let frame = writer.frame(Body::Empty);
    let Published::Refused { end: 9 } = stored(&*writer.journal, 1, &frame) else {
        panic!("stored behind a purge")
    };
    assert!(matches!(writer.journal.read_back(2), Some(Slot::Gone)));
}
