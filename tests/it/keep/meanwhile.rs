//! Backups of a log that does not stand still: it is written, sealed, trimmed, erased and compacted while they are taken.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tailmark::backup::{Upto, take};
use tailmark::inspect::{self, Found, Selection};
use tailmark_log::storage::salvage::salvage;
use tailmark_log::storage::{Engine, EraseOrder, RemovedReason, Store, TakeOut};
use tailmark_log::testing::Over;
use tailmark_record::{Seq, Timestamp};
use uuid::Uuid;

use super::backups::{is_whole, restored};
use crate::support::kept::expect_clean;
use crate::support::logdir;
use crate::support::server::PATIENCE;

/// Seqs to which something was done: those of which it was begun, and those of which it was over.
#[derive(Default)]
struct Done(Mutex<(BTreeSet<u64>, BTreeSet<u64>)>);

impl Done {
    /// `what` answers whether it did it.
    fn to(&self, seqs: &[u64], what: impl FnOnce() -> bool) {
        self.0.lock().unwrap().0.extend(seqs);
        if what() {
            self.0.lock().unwrap().1.extend(seqs);
        }
    }

    fn begun(&self) -> BTreeSet<u64> {
        self.0.lock().unwrap().0.clone()
    }

    fn over(&self) -> BTreeSet<u64> {
        self.0.lock().unwrap().1.clone()
    }
}

/// Events of a sealed segment, every third of them, go as rules let them go.
fn compact(engine: &dyn Engine, round: usize, gone: &Done) {
    let all = engine.sealed();
    let Some(sealed) = all.get(round * 7 % all.len().max(1)) else { return };
    let oldest = engine.bounds().oldest;
    let seqs: Vec<u64> =
        (sealed.first.max(oldest).get()..sealed.end.get()).filter(|seq| seq % 3 == 0).collect();
    let ranges = seqs.iter().map(|seq| (Seq::new(*seq)..Seq::new(seq + 1), RemovedReason::Expired));
    let order = TakeOut { sealed: vec![*sealed], seqs: ranges.collect(), named_from: Seq::FIRST };
    gone.to(&seqs, || match engine.take_out(&order) {
        Ok(taken) => taken.is_some(),
        Err(error) => panic!("{error}"),
    });
}

fn erase(engine: &dyn Engine, round: usize, erased: &Done) {
    let bounds = engine.bounds();
    let (oldest, head) = (bounds.oldest.get(), bounds.head.get());
    let first = oldest + (head - oldest) * (round as u64 * 13 % 97) / 100;
    let seqs: Vec<u64> = (first..first + 20).collect();
    let order = EraseOrder {
        id: Uuid::from_u128(round as u128 + 1),
        reason: "asked".to_owned(),
        at: Timestamp { seconds: 7, nanos: 0 },
        seqs: vec![Seq::new(first)..Seq::new(first + 20)],
    };
    erased.to(&seqs, || {
        let go_on = &mut |_| std::ops::ControlFlow::Continue(());
        engine.erase(&Arc::new(order), go_on).unwrap();
        engine.erased().unwrap();
        true
    });
}

/// What a restored log has: its events, those that are erased, and seqs without any.
pub(super) fn found(dir: &Path) -> (BTreeSet<u64>, BTreeSet<u64>, BTreeSet<u64>) {
    let (mut there, mut erased, mut gone) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    inspect::dump(dir, &Selection::default(), |found| {
        match found {
            Found::Event(event) if event.is_erased() => {
                erased.insert(event.seq.get());
            }
            Found::Event(event) => {
                assert!(event.body.starts_with(&format!("event {} ", event.seq)));
                there.insert(event.seq.get());
            }
            Found::Removed(range) => gone.extend(range.first.get()..range.end.get()),
            other => panic!("{other:?}"),
        }
        Ok(())
    })
    .unwrap();
    (there, erased, gone)
}

#[test]
fn a_backup_of_a_log_that_is_erased_and_compacted_too_is_right() {
    let dir = tempfile::tempdir().unwrap();
    let (data, to) = (dir.path().join("data"), dir.path().join("to"));
    std::fs::create_dir(&data).unwrap();
    let (engine, _) = logdir::open(&data);
    logdir::fill(&*engine, 8_000, 50);
    logdir::wait_for_sealing(&*engine);
    let (is_over, gone, erased) = (AtomicBool::new(false), Done::default(), Done::default());
    let mut backups = Vec::new();
    std::thread::scope(|scope| {
        let over = Over(&is_over);
        let (engine, is_over) = (&engine, &is_over);
        let (its_gone, its_erased) = (&gone, &erased);
        scope.spawn(move || {
            for round in 0.. {
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
                logdir::fill(&**engine, 200, 50);
                let bounds = engine.bounds();
                if bounds.head.get() - bounds.oldest.get() > 10_000 {
                    logdir::trim(&**engine, bounds.head.get() - 8_000);
                }
                match round % 3 {
                    0 => erase(&**engine, round, its_erased),
                    _ => compact(&**engine, round, its_gone),
                }
            }
        });
        let enough = |backups: &[_]| {
            backups.len() >= 4 && gone.over().len() > 1_000 && erased.over().len() > 100
        };
        let begun = Instant::now();
        while !enough(&backups) && begun.elapsed() < PATIENCE {
            // As many as there is time to look at.
            if backups.len() == 60 {
                backups.remove(0);
            }
            let before = (gone.over(), erased.over());
            let taken = take(&data, &to, |_| Ok(())).unwrap();
            backups.push((taken, before, (gone.begun(), erased.begun())));
        }
        drop(over);
    });
    assert!(gone.over().len() > 1_000 && erased.over().len() > 100, "it stood still");
    logdir::close(&data, engine);
    let mut moved = 0;
    for (taken, (gone_before, erased_before), (gone_after, erased_after)) in &backups {
        is_whole(&to, Some(&taken.name)).unwrap();
        let copy = dir.path().join("copy");
        restored(&to, Some(&taken.name), Upto::Head, &copy).unwrap();
        expect_clean(&copy);
        let (there, shells, holes) = found(&copy);
        let readable = taken.manifest.oldest_seq..=taken.manifest.head_seq;
        let all: BTreeSet<u64> = readable.clone().collect();
        let seen: BTreeSet<u64> = there
            .iter()
            .chain(&shells)
            .chain(&holes)
            .copied()
            .filter(|it| readable.contains(it))
            .collect();
        assert_eq!(seen, all);
        // What was over by then is done in it, and nothing that had not been begun.
        let of = |seqs: &BTreeSet<u64>| -> BTreeSet<u64> {
            seqs.iter().copied().filter(|seq| readable.contains(seq)).collect()
        };
        assert!(of(&holes).is_subset(gone_after));
        assert!(of(gone_before).is_subset(&holes) && of(erased_before).is_disjoint(&there));
        assert!(of(&shells).is_subset(erased_after));
        moved += usize::from(
            gone_before.len() < gone_after.len() || erased_before.len() < erased_after.len(),
        );
        std::fs::remove_dir_all(&copy).unwrap();
    }
    assert!(moved > 0, "nothing was done while a backup was taken");
}

/// The seqs of which repeats are told.
pub(super) fn named(dir: &Path) -> BTreeSet<u64> {
    let (engine, _) = logdir::open(dir);
    let mut named = BTreeSet::new();
    let visit = &mut |seq: Seq, _| named.insert(seq.get());
    engine.fingerprints(Seq::FIRST, visit).unwrap();
    logdir::close(dir, engine);
    named
}

/// Rules may leave nothing of a segment; what tells repeats of its events lies beside what tells of those that are trimmed.
#[test]
fn what_tells_repeats_of_a_range_without_events_comes_along_and_tells_of_no_trim() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let (data, to) = (path("data"), path("to"));
    std::fs::create_dir(&data).unwrap();
    let (engine, _) = logdir::open(&data);
    logdir::fill(&*engine, 6_000, 50);
    logdir::wait_for_sealing(&*engine);
    let sealed = engine.sealed()[2];
    let all = vec![(sealed.first..sealed.end, RemovedReason::Expired)];
    let order = TakeOut { sealed: vec![sealed], seqs: all, named_from: Seq::FIRST };
    engine.take_out(&order).unwrap().unwrap();
    logdir::close(&data, engine);
    let gone: BTreeSet<u64> = (sealed.first.get()..sealed.end.get()).collect();
    let wanted = found(&data);
    assert_eq!((&wanted.2, named(&data).len()), (&gone, 6_000));
    let (copy, saved, poor) = (path("copy"), path("saved"), path("poor"));
    take(&data, &to, |_| Ok(())).unwrap();
    is_whole(&to, None).unwrap();
    restored(&to, None, Upto::Head, &copy).unwrap();
    salvage(&data, &saved, logdir::options(), &mut |_| Ok(())).unwrap();
    for dir in [&copy, &saved] {
        expect_clean(dir);
        assert_eq!(found(dir), wanted);
        assert_eq!(named(dir).len(), 6_000, "repeats of what rules took out are not told");
    }
    // Nothing says any more how far it was trimmed: what came before that range was not.
    std::fs::remove_dir_all(data.join("journal")).unwrap();
    std::fs::create_dir(data.join("journal")).unwrap();
    let done = salvage(&data, &poor, logdir::options(), &mut |_| Ok(())).unwrap();
    assert_eq!(done.oldest, Seq::FIRST, "{:?}", done.lost);
    let there = found(&poor).0;
    assert!((1..sealed.first.get()).all(|seq| there.contains(&seq)));
}
