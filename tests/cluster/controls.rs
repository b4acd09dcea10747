//! What a run saw, with one thing wrong: each must be found, or what the run proves is nothing.

use crate::checker::{History, Note, Outcome, Request, violations};
use crate::load::judge;

/// The watch that is spoiled, and the place of an event well within it.
fn place(history: &History) -> usize {
    let notes = &history.watches[0].notes;
    let is_event = |at: &usize| {
        matches!(notes[*at], Note::Event(_)) && matches!(notes[*at + 1], Note::Event(_))
    };
    (notes.len() / 2..notes.len() - 1).find(is_event).expect("two events in a row")
}

fn must_fail(history: &History, what: &str, guarantee: &str) {
    let found = violations(history);
    let is_found = found.iter().any(|(name, _)| *name == guarantee);
    assert!(is_found, "{what}: {guarantee} is not found to be broken, but {found:?}");
}

/// Spoils what a run saw, in one way after the other, and puts it right again.
pub fn check(history: &mut History) {
    assert!(violations(history).is_empty());
    let at = place(history);

    // A watch that left an event out, one that had it twice, and one that had two in the other order.
    let note = history.watches[0].notes.remove(at);
    must_fail(history, "an event is not seen", "Gapless");
    history.watches[0].notes.insert(at, note.clone());
    history.watches[0].notes.insert(at, note);
    must_fail(history, "an event is seen twice", "NoRepeat");
    history.watches[0].notes.remove(at);
    history.watches[0].notes.swap(at, at + 1);
    must_fail(history, "two events are seen in another order", "Ordered");
    history.watches[0].notes.swap(at, at + 1);

    // An event that was acked, and is nowhere.
    let is_acked = |it: &Request| match it.outcome {
        Outcome::Published { seq, duplicate: false } => Some(seq),
        _ => None,
    };
    let acked = history.requests.iter().find_map(is_acked).expect("an ack");
    let mut kept = Vec::new();
    for watched in &mut history.watches {
        let is_it = |it: &Note| matches!(it, Note::Event(event) if event.seq == acked);
        let at = watched.notes.iter().position(is_it).expect("seen by everyone");
        kept.push((at, watched.notes.remove(at)));
    }
    let at = usize::try_from(acked - 1).expect("a place");
    let event = history.log.remove(at);
    must_fail(history, "an event that was acked is nowhere", "Durable");
    history.log.insert(at, event);
    for (watched, (at, note)) in history.watches.iter_mut().zip(kept) {
        watched.notes.insert(at, note);
    }

    // An event that was acked as another.
    let is_it = |it: &Request| matches!(it.outcome, Outcome::Published { seq, .. } if seq == acked);
    let at = history.requests.iter().position(is_it).expect("the same");
    let told = Outcome::Published { seq: acked + 1, duplicate: false };
    let told = std::mem::replace(&mut history.requests[at].outcome, told);
    must_fail(history, "an event is acked at another place", "Durable");
    history.requests[at].outcome = told;
    assert!(violations(history).is_empty(), "it is put right");
}

#[test]
fn an_old_head_is_found() {
    assert_eq!(judge("the head", 7, 7), Ok(true));
    assert_eq!(judge("the head", 8, 7), Ok(true));
    assert!(judge("the head", 6, 7).is_err());
}
