//! Journals that lost their end, were purged, or went on otherwise, and what is put back of a copy.

use super::copies::{all, in_memory, journal, on_disk, publish, state_of};
use super::*;
use crate::storage::Engine;
use tailmark_record::Seq;

/// What a copy says of itself, as it is put back.
fn state(copy: &dyn CopyStore) -> State {
    let whole = state_of()(&copy.recovered().without_places().unwrap()).unwrap();
    State { restated: whole.clone(), whole }
}

fn repair(stream: &Arc<Stream>, copy: &dyn CopyStore, name: u64) -> Result<PutBack, StoreError> {
    let journal = stream.connect();
    let it = compare(&*journal, copy)?;
    put_back((&*journal, copy), name, &it, &state(copy), &mut |_| {})
}

fn relation(stream: &Arc<Stream>, copy: &dyn CopyStore) -> (Relation, u64, u64) {
    let it = compare(&*stream.connect(), copy).unwrap();
    (it.relation, it.common.get(), it.missing())
}

/// The same events, chain, generations and marks.
fn is_the_log(one: &dyn Engine, other: &dyn Engine) {
    assert_eq!((one.bounds(), one.links()), (other.bounds(), other.links()));
    assert!(all(one) == all(other), "other events");
}

/// A journal that ends anywhere before its end: who has nothing then has the log that was, and it goes on.
#[test]
fn what_a_journal_lost_is_put_back_wherever_it_ended() {
    let end = journal(90, 50).0.end();
    let mut lost = 0;
    for at in (0..=end).rev() {
        let (stream, writer) = journal(90, 50);
        let (bounds, links) = (writer.bounds(), writer.links());
        let last_at = writer.recovered().unwrap().last_at;
        stream.roll_back(at);
        // Some find out before an operator does: their proofs are in the way of nothing.
        if at % 3 == 0 {
            let _ = writer.follow();
        }
        let copy = Arc::clone(writer.copy());
        drop(writer);
        let it = compare(&*stream.connect(), &*copy).unwrap();
        if at == end {
            assert_eq!((it.relation, it.missing()), (Relation::Joined, 0));
            assert!(matches!(repair(&stream, &*copy, 9), Err(StoreError::Invalid(_))));
            continue;
        }
        if it.relation == Relation::Trimmed {
            assert!(bounds.oldest > it.common.next());
            assert!(matches!(repair(&stream, &*copy, 9), Err(StoreError::Invalid(_))));
            continue;
        }
        // What was behind it may have been nothing but others' messages.
        if it.relation == Relation::Joined {
            assert_eq!(it.common, bounds.head);
            continue;
        }
        assert_eq!((it.relation, it.journal_head), (Relation::Ahead, it.common), "{at}");
        lost += it.missing();
        let done = repair(&stream, &*copy, 9).unwrap();
        assert_eq!((done.events, done.end), (it.missing(), stream.end()));
        assert_eq!((copy.bounds(), copy.links()), (bounds.clone(), links));

        let empty = in_memory(3, &stream);
        follows(&empty).unwrap();
        is_the_log(&empty, &*copy);
        assert_eq!(empty.recovered().unwrap().last_at, last_at);
        // The state is what it was, once, and is told last.
        let deltas = empty.recovered().unwrap().deltas;
        assert_eq!(deltas.last().map(|it| it.2.clone()), Some(state(&*copy).restated));
        // The copy has its place, and its daemon takes over.
        let again = Replica::new((1, 77), stream.connect(), copy, state_of(), &[]).unwrap();
        assert_eq!(follows(&again).unwrap(), 0);
        assert_eq!(again.place().slot, stream.end());
        again.take_over(Timestamp::EPOCH).unwrap();
        publish(&again, 3, 10);
        follows(&empty).unwrap();
        is_the_log(&empty, &again);
        assert!(again.bounds().generations.entries().starts_with(bounds.generations.entries()));
        assert_eq!(again.bounds().generations.current().first, bounds.next());
    }
    assert!(lost > 1_000, "{lost}");
}

/// All of it is gone, and its slots go on: what is put back begins with a checkpoint of nothing.
#[test]
fn a_journal_that_was_purged_gets_all_back() {
    let stream = Stream::new(super::copies::small(), true);
    let writer = in_memory(1, &stream);
    writer.take_over(Timestamp::EPOCH).unwrap();
    (0..20).for_each(|_| publish(&writer, 3, 50));
    writer.take_over(Timestamp::EPOCH).unwrap();
    publish(&writer, 3, 50);
    stream.purge(stream.end() + 1);
    let copy = Arc::clone(writer.copy());
    assert_eq!(relation(&stream, &*copy), (Relation::Ahead, 0, 63));
    repair(&stream, &*copy, 9).unwrap();
    let empty = in_memory(3, &stream);
    follows(&empty).unwrap();
    is_the_log(&empty, &*copy);
    assert_eq!(relation(&stream, &*copy), (Relation::Joined, 63, 0));
}

/// A directory, opened again and again: what is put back is in it once, and it is at the end.
#[test]
fn a_copy_on_a_disk_is_put_back_and_goes_on() {
    let (stream, writer) = journal(200, 700);
    let dir = tempfile::tempdir().unwrap();
    let copy = on_disk(3, &stream, dir.path());
    follows(&copy).unwrap();
    copy.close().unwrap();
    stream.roll_back(stream.end() / 2);
    repair(&stream, &**copy.copy(), 9).unwrap_err();
    drop(copy);
    let again = on_disk(3, &stream, dir.path());
    repair(&stream, &**again.copy(), 9).unwrap();
    again.close().unwrap();
    drop(again);
    let again = on_disk(3, &stream, dir.path());
    assert_eq!(again.place().slot, stream.end());
    assert_eq!(follows(&again).unwrap(), 0);
    is_the_log(&again, &writer);
    // Who has the old frames is of another history, and hears that he lacks nothing.
    assert!(matches!(follows(&writer), Err(StoreError::Diverged { .. })));
    assert_eq!(relation(&stream, &**writer.copy()).2, 0);
}

/// Who took over since goes on from there: nothing is put back behind it, and where the two part is told.
#[test]
fn nothing_is_put_back_behind_what_others_wrote() {
    for more in [0, 1, 40] {
        let stream = Stream::new(super::copies::small(), true);
        let writer = in_memory(1, &stream);
        writer.take_over(Timestamp::EPOCH).unwrap();
        (0..50).for_each(|_| publish(&writer, 2, 50));
        stream.roll_back(31);
        let other = in_memory(2, &stream);
        follows(&other).unwrap();
        other.take_over(Timestamp::EPOCH).unwrap();
        (0..more).for_each(|_| publish(&other, 3, 60));
        let copy = Arc::clone(writer.copy());
        assert_eq!(relation(&stream, &*copy), (Relation::Parted, 60, 40), "{more}");
        let end = stream.end();
        assert!(matches!(repair(&stream, &*copy, 9), Err(StoreError::Invalid(_))));
        assert_eq!(stream.end(), end);
        // The other's copy is the journal.
        assert_eq!(relation(&stream, &**other.copy()).0, Relation::Joined);
    }
}

/// A daemon that takes over meanwhile ends it, and an end that is none is no proof.
#[test]
fn one_that_writes_meanwhile_ends_it() {
    let (stream, writer) = journal(60, 50);
    stream.roll_back(20);
    let copy = Arc::clone(writer.copy());
    let journal = stream.connect();
    let it = compare(&*journal, &*copy).unwrap();
    let other = in_memory(7, &stream);
    follows(&other).unwrap();
    other.take_over(Timestamp::EPOCH).unwrap();
    let end = stream.end();
    let failed = put_back((&*journal, &*copy), 9, &it, &state(&*copy), &mut |_| {});
    assert!(matches!(failed, Err(StoreError::Fenced { .. })), "{failed:?}");
    assert!(matches!(prove(&*journal, 9, &it), Err(StoreError::Fenced { .. })));
    assert_eq!(stream.end(), end);
    prove(&*journal, 9, &compare(&*journal, &*copy).unwrap()).unwrap();
}

/// Answers that are lost on the way: each frame is there once, and broken off it goes on.
#[test]
fn what_is_put_back_is_there_once_whatever_becomes_of_answers() {
    let (stream, writer) = journal(90, 50);
    stream.roll_back(30);
    let copy = Arc::clone(writer.copy());
    let journal = stream.connect();
    let faults = [Fault::LoseAnswer, Fault::LoseRequest, Fault::OldLeader, Fault::Pass];
    journal.fail(faults.into_iter().cycle().take(40));
    let it = compare(&*journal, &*copy).unwrap();
    let state = state(&*copy);
    put_back((&*journal, &*copy), 9, &it, &state, &mut |_| {}).unwrap();
    let empty = in_memory(3, &stream);
    follows(&empty).unwrap();
    is_the_log(&empty, &*copy);

    // As if it had been broken off at any frame before its end.
    for at in it.end..stream.end() {
        let (stream, writer) = self::journal(90, 50);
        stream.roll_back(30);
        let copy = Arc::clone(writer.copy());
        repair(&stream, &*copy, 9).unwrap();
        stream.roll_back(at);
        repair(&stream, &*copy, 10).unwrap();
        let empty = in_memory(3, &stream);
        follows(&empty).unwrap();
        is_the_log(&empty, &*copy);
    }
}

/// The journal gave back what is before a checkpoint that the copy never came to.
#[test]
fn a_journal_that_begins_behind_a_copy_lost_nothing() {
    let stream = Stream::new(super::copies::small(), true);
    let (writer, away) = (in_memory(1, &stream), in_memory(2, &stream));
    writer.take_over(Timestamp::EPOCH).unwrap();
    publish(&writer, 3, 50);
    follows(&away).unwrap();
    publish(&writer, 3, 50);
    let slot = writer.checkpoint().unwrap();
    stream.purge(slot);
    assert_eq!(relation(&stream, &**away.copy()), (Relation::Behind, 3, 0));
    assert_eq!(relation(&stream, &**writer.copy()), (Relation::Joined, 6, 0));
    assert_eq!(compare(&*stream.connect(), &**away.copy()).unwrap().journal_head, Seq::new(6));
}
