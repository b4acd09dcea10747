//! Cases of the half that takes commits.

use std::sync::{Arc, mpsc};

use bytes::Bytes;

use super::support::{Subject, append, sent};
use super::{Factory, Reopen};
use crate::storage::{Commit, Store, StoreError};
use tailmark_record::topic::Filter;
use tailmark_record::{Seq, Timestamp};

/// Something done to a good commit that makes it a bad one.
type Break = fn(&mut Commit);

pub(super) fn refusals<F: Factory>(factory: &mut F) {
    let mut subject = Subject::new(factory);
    subject.append(&[sent("a.x", "1"), sent("a.x", "2")]);
    subject.trim(Seq::new(2));
    let conflicts: [Break; 2] =
        [|commit| commit.first = commit.first.next(), |commit| commit.first = Seq::FIRST];
    for breaks in conflicts {
        let (mut commit, _) = subject.commit(&[sent("a.x", "3")]);
        breaks(&mut commit);
        let result = append(subject.journal(), commit);
        assert!(matches!(result, Err(StoreError::Conflict { next, .. }) if next == subject.next()));
        subject.check();
    }
    let breaches: [Break; 3] = [
        |commit| commit.oldest = Seq::FIRST,
        |commit| commit.oldest = commit.first.plus(2),
        |commit| commit.appended_at = Timestamp::EPOCH,
    ];
    for breaks in breaches {
        let (mut commit, _) = subject.commit(&[sent("a.x", "3")]);
        breaks(&mut commit);
        let result = append(subject.journal(), commit);
        assert!(matches!(result, Err(StoreError::Invalid(_))), "{result:?}");
        subject.check();
    }
    let too_large = "x".repeat(subject.journal().max_commit_bytes());
    let (commit, _) = subject.commit(&[sent("a.x", &too_large)]);
    let result = append(subject.journal(), commit);
    assert!(matches!(result, Err(StoreError::Invalid(_))), "{result:?}");
    // It goes on as if nothing had been tried.
    subject.append(&[sent("b", "3")]);
    subject.check();
    subject.reopen(Reopen::Crash);
    subject.check();
}

/// When a commit completes, the store beside the journal has it.
pub(super) fn readable_when_complete<F: Factory>(factory: &mut F) {
    let mut subject = Subject::new(factory);
    for n in 1..=20 {
        assert!(subject.journal().refusal().is_none());
        let (commit, stored) = subject.commit(&[sent("a.x", &n.to_string()), sent("b", "")]);
        let (first, end, link) = (commit.first, commit.first.plus(2), commit.link);
        let store: Arc<dyn Store> = subject.engine().clone();
        let (found, finds) = mpsc::sync_channel(1);
        let done = move |outcome| {
            let chunk = store.read(first, end, &Filter::ALL);
            drop(found.send((outcome, store.bounds(), store.links(), chunk)));
        };
        subject.journal().append(commit, Box::new(done));
        let (outcome, bounds, links, chunk) = finds.recv().expect("it completes once");
        let receipt = outcome.expect("a durable commit");
        assert_eq!((receipt.first, receipt.last), (first, end.prev()));
        assert_eq!((bounds.head, links.head), (end.prev(), link));
        let chunk = chunk.expect("readable");
        assert_eq!((chunk.first, chunk.end, chunk.complete), (first, end, true));
        subject.events.extend(stored);
    }
    subject.check();
}

pub(super) fn state_and_deltas<F: Factory>(factory: &mut F) {
    let mut subject = Subject::new(factory);
    // What a caller keeps: here, a list of all deltas ever.
    let mut whole: Vec<u8> = Vec::new();
    for n in 0..40u8 {
        let events = if n % 3 == 0 { vec![] } else { vec![sent("a.x", "body")] };
        let (mut commit, stored) = subject.commit(&events);
        commit.delta = Bytes::from(vec![n + 1]);
        let wants = subject.store().wants_state(commit.events.len() + commit.delta.len());
        // It may also be given unasked.
        commit.state = (wants || n == 20).then(|| whole.clone().into());
        append(subject.journal(), commit).expect("a durable commit");
        subject.events.extend(stored);
        whole.push(n + 1);
        if n % 7 == 0 {
            subject.reopen(if n % 2 == 0 { Reopen::Clean } else { Reopen::Crash });
            let mut back = subject.recovered.state.to_vec();
            for (first, end, delta) in &subject.recovered.deltas {
                assert!(first <= end && *end <= subject.next());
                back.extend_from_slice(delta);
            }
            assert_eq!(back, whole);
            assert_eq!(subject.recovered.last_at, subject.at);
        }
        subject.at.seconds += 1;
    }
    subject.check();
}

pub(super) fn closed<F: Factory>(factory: &mut F) {
    let mut subject = Subject::new(factory);
    subject.append(&[sent("a.x", "1")]);
    let (commit, _) = subject.commit(&[sent("a.x", "2")]);
    subject.store().close().expect("a clean close");
    assert!(append(subject.journal(), commit).is_err());
    subject.reopen(Reopen::Clean);
    subject.check();
}
