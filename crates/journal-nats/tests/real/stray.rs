//! Store directories that are put back on two of three servers, while the third keeps what it had.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tailmark_journal_nats::{NatsJournal, Settings, Stray};
use tailmark_log::storage::shared::{Body, Content, Frame, FrameChain, Published, SharedJournal};

use crate::outsider::Outsider;
use crate::servers::{Servers, program};

/// Frames without events, each behind the one before.
struct Writer {
    chains: Vec<FrameChain>,
    nonce: u64,
}

impl Writer {
    fn write(&mut self, journal: &NatsJournal, count: usize) {
        for _ in 0..count {
            self.nonce += 1;
            let (log, nonce) = (journal.identity().id, self.nonce);
            let previous = self.chains.last().copied().unwrap_or_default();
            let content = Content { log, previous, term: 1, writer: 1, nonce, body: Body::Empty };
            let (frame, after) = (Arc::new(Frame::new(content)), self.chains.len() as u64);
            let begun = Instant::now();
            loop {
                match journal.publish(after, &frame) {
                    Published::Stored(slot) if slot == after + 1 => break,
                    Published::Refused { end } if end == after + 1 => break,
                    other => assert!(begun.elapsed() < Duration::from_secs(30), "{other:?}"),
                }
            }
            self.chains.push(frame.chain());
        }
    }
}

/// What each server has otherwise than the writer wrote it, once all are heard.
fn strays(journal: &NatsJournal, writer: &Writer) -> Vec<Stray> {
    let begun = Instant::now();
    loop {
        match journal.strays(1, &writer.chains) {
            Ok((strays, unheard)) if unheard.is_empty() => return strays,
            other => assert!(begun.elapsed() < Duration::from_secs(60), "{other:?}"),
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}

#[test]
fn a_replica_that_keeps_what_its_peers_lost_is_named() {
    let Some(program) = program() else { return };
    let mut servers = Servers::start(&program, 3, true);
    let outsider = Outsider::connect(&servers, "tm");
    // One of them is down now and then, and cannot be asked whether it syncs.
    let settings = Settings { allow_weaker: true, ..crate::settings(&servers, "a", 0) };
    let journal = NatsJournal::connect(&settings).unwrap();
    let mut writer = Writer { chains: Vec::new(), nonce: 0 };
    writer.write(&journal, 20);
    assert!(outsider.wait_current("a"));
    assert!(strays(&journal, &writer).is_empty());

    (0..3).for_each(|at| servers.kill(at));
    (0..2).for_each(|at| servers.save(at));
    (0..3).for_each(|at| servers.begin(at));
    writer.write(&journal, 20);
    assert!(outsider.wait_current("a"));

    // Two are put back and go on; the third comes later.
    (0..3).for_each(|at| servers.kill(at));
    (0..2).for_each(|at| servers.put_back(at));
    (0..2).for_each(|at| servers.begin(at));
    let journal = NatsJournal::connect(&settings).unwrap();
    assert_eq!(journal.end(), Some(20));
    writer.chains.truncate(20);
    writer.write(&journal, 30);
    servers.begin(2);
    assert!(outsider.wait_current("a"), "the third is told as not current");
    let found = strays(&journal, &writer);
    let slots: Vec<u64> = found.iter().map(|it| it.slot).collect();
    assert_eq!(slots, (21..=40).collect::<Vec<_>>());
    assert!(found.iter().all(|it| it.server == "tm3"), "{found:?}");
    println!("{}", found[0]);

    // The cure that it is told with.
    servers.kill(2);
    servers.empty(2);
    servers.begin(2);
    assert!(outsider.wait_current("a"));
    assert!(strays(&journal, &writer).is_empty());
}
