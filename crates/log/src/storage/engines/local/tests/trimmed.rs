//! What is known of events that are trimmed away.

use super::regressions::{block_segments, unblock_segments};
use super::*;
use crate::storage::engines::local::trimmed::Trimmed;
use crate::storage::local::verify_trimmed;
use tailmark_record::LogId;

/// All named events that are known, oldest first.
fn known(engine: &LocalEngine) -> Vec<(Seq, Fingerprint)> {
    let mut found = Vec::new();
    engine
        .fingerprints(Seq::FIRST, &mut |seq, fingerprint| {
            found.push((seq, fingerprint));
            true
        })
        .unwrap();
    found.reverse();
    found
}

/// Equal, told in few words.
fn assert_known(engine: &LocalEngine, all: &[(Seq, Fingerprint)], when: &str) {
    let found = known(engine);
    let differs = found.iter().zip(all).find(|(one, other)| one != other);
    let differs = differs.map(|(one, other)| (one.0, other.0));
    assert_eq!((found.len(), differs), (all.len(), None), "{when}");
}

fn trim_to(engine: &LocalEngine, oldest: Seq) {
    append(engine, Commit { oldest, ..commit(engine, 0) }).unwrap();
}

fn runs(dir: &Path) -> Vec<PathBuf> {
    let disk = Disk::real();
    disk.list(&dir.join("trimmed")).unwrap()
}

#[test]
fn trimmed_events_are_known_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = reopen(dir.path());
    fill(&*engine, 10_000, 50);
    eventually("sealing", || engine.status().unsealed_slots <= 1);
    let all = known(&engine);
    assert_eq!(all.len(), 10_000);
    for oldest in [4_321, 9_000, 10_001] {
        trim_to(&engine, Seq::new(oldest));
        engine.reclaim().unwrap();
        assert_known(&engine, &all, &format!("trimmed to {oldest}"));
    }
    eventually("reclaiming", || engine.status().segments == 0);
    vanish(engine);
    let (engine, _) = reopen(dir.path());
    assert_known(&engine, &all, "opened again");
    fill(&*engine, 5_000, 50);
    let all = known(&engine);
    assert_eq!(all.len(), 15_000);
    trim_to(&engine, Seq::new(15_001));
    engine.reclaim().unwrap();
    engine.close().unwrap();
    vanish(engine);
    let (engine, _) = reopen(dir.path());
    assert_known(&engine, &all, "opened again");
}

#[test]
fn events_trimmed_before_they_were_sealed_are_known_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = reopen(dir.path());
    block_segments(dir.path());
    while engine.view().slots.len() < 3 {
        fill(&*engine, 50, 50);
    }
    let all = known(&engine);
    trim_to(&engine, engine.bounds().next());
    // Nothing was told to give anything back yet.
    vanish(engine);
    unblock_segments(dir.path());
    for _ in 0..3 {
        let (engine, _) = reopen(dir.path());
        assert_known(&engine, &all, "opened again");
        assert!(engine.bounds().is_empty());
        vanish(engine);
    }
    let (engine, _) = reopen(dir.path());
    fill(&*engine, 5_000, 50);
    assert!(known(&engine)[..all.len()] == all[..]);
}

#[test]
fn a_kill_at_any_step_of_a_trim_forgets_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let images = tempfile::tempdir().unwrap();
    let count = Arc::new(AtomicU64::new(u64::MAX));
    let disk = {
        let (count, from, to) = (count.clone(), dir.path().to_owned(), images.path().to_owned());
        Disk::watched(Arc::new(move |action, _| {
            let changes = ["write", "rename", "remove", "create", "sync"].contains(&action);
            if changes && count.load(Ordering::SeqCst) < 200 {
                let n = count.fetch_add(1, Ordering::SeqCst);
                copy_dir(&from, &to.join(n.to_string()));
            }
        }))
    };
    // No sealing meanwhile: every copy is of one moment.
    let seal_after = Duration::from_secs(3600);
    let (engine, _) = open(dir.path(), Options { disk, seal_after, ..no_marks() }).unwrap();
    fill(&*engine, 6_000, 50);
    eventually("sealing", || engine.status().unsealed_slots <= 1);
    eventually("rest", || !engine.work.signals.lock().seal && engine.retired.lock().is_empty());
    let (all, next) = (known(&engine), engine.bounds().next());
    count.store(0, Ordering::SeqCst);
    trim_to(&engine, next);
    engine.drop_trimmed();
    engine.move_discarded().unwrap();
    let taken = count.swap(u64::MAX, Ordering::SeqCst);
    assert!(taken >= 10, "{taken}");
    for n in 0..taken {
        let (engine, _) = reopen(&images.path().join(n.to_string()));
        assert_known(&engine, &all, &format!("image {n} of {taken}"));
        check_all(&*engine);
        vanish(engine);
    }
}

#[test]
fn no_more_than_the_newest_trimmed_events_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let small = || Options { kept_fingerprints: 1_000, ..options() };
    let (engine, _) = open(dir.path(), small()).unwrap();
    fill(&*engine, 20_000, 50);
    eventually("sealing", || engine.status().unsealed_slots <= 1);
    let largest = engine.view().segments.iter().map(|s| s.first().distance_to(s.end())).max();
    let unsealed = 20_001 - engine.view().slots.last().unwrap().first().get();
    trim_to(&engine, Seq::new(20_001));
    engine.reclaim().unwrap();
    let kept = known(&engine);
    assert!(kept.len() as u64 >= 1_000, "{}", kept.len());
    assert!(kept.len() as u64 <= 1_000 + largest.unwrap() + unsealed, "{}", kept.len());
    assert!(kept.windows(2).all(|pair| pair[0].0.next() == pair[1].0));
    assert!(runs(dir.path()).len() < 5);
    vanish(engine);
    // Not any: nothing is written, and nothing is asked for.
    let (engine, _) = open(dir.path(), Options { kept_fingerprints: 0, ..options() }).unwrap();
    let before = runs(dir.path());
    fill(&*engine, 5_000, 50);
    trim_to(&engine, engine.bounds().next());
    engine.reclaim().unwrap();
    assert!(runs(dir.path()).len() <= before.len());
}

/// A segment takes along what was kept of its neighbours when it became one with them: those files stay, and count for
/// nothing.
#[test]
fn what_two_files_tell_counts_once() {
    let dir = tempfile::tempdir().unwrap();
    let log = LogId::new(uuid::Uuid::from_u128(7));
    let trimmed = Trimmed::open(dir.path(), &Disk::real(), log, 100).unwrap();
    let keep = |first: u64, end: u64| {
        let named = (first..end).map(|seq| (Seq::new(seq), Fingerprint([seq as u8; 16])));
        trimmed.keep(Seq::new(first), Seq::new(end), Ok(named.collect()));
    };
    keep(1, 41);
    keep(41, 81);
    keep(41, 121);
    let firsts: Vec<_> =
        trimmed.runs().iter().map(|run| (run.first.get(), run.end.get())).collect();
    assert_eq!(firsts, [(1, 41), (41, 81), (41, 121)], "of the newest 100 some are forgotten");
    keep(121, 181);
    // And no longer than they are needed.
    let firsts: Vec<_> = trimmed.runs().iter().map(|run| run.first.get()).collect();
    assert_eq!(firsts, [41, 121]);
}

#[test]
fn a_damaged_file_of_trimmed_events_is_named_and_costs_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = reopen(dir.path());
    fill(&*engine, 5_000, 50);
    eventually("sealing", || engine.status().unsealed_slots <= 1);
    trim_to(&engine, Seq::new(5_001));
    engine.reclaim().unwrap();
    let log = engine.id();
    let all = known(&engine);
    vanish(engine);
    let file = runs(dir.path())[0].clone();
    let name = file.file_name().unwrap().to_string_lossy().into_owned();
    let (first, end) = name.split_once('-').unwrap();
    let lost = Seq::new(first.parse().unwrap())..Seq::new(end.parse().unwrap());
    let whole = std::fs::read(&file).unwrap();
    assert_eq!(verify_trimmed(dir.path(), &Disk::real(), log).unwrap(), []);
    for at in [0, 9, 30, 50, 62, 64, 70, whole.len() - 1] {
        let mut bad = whole.clone();
        bad[at] ^= 4;
        std::fs::write(&file, bad).unwrap();
        let (engine, _) = reopen(dir.path());
        // The others are known, and appends go on.
        let others = all.iter().filter(|(seq, _)| !lost.contains(seq)).copied();
        assert_known(&engine, &others.collect::<Vec<_>>(), &format!("byte {at}"));
        let trouble = engine.status().trouble.unwrap_or_default();
        assert!(trouble.contains(&*file.to_string_lossy()), "byte {at}: {trouble}");
        vanish(engine);
        assert_eq!(verify_trimmed(dir.path(), &Disk::real(), log).unwrap().len(), 1);
    }
    // One that the system will not read, as of a bad sector: a directory is no file.
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    let (engine, _) = reopen(dir.path());
    let others = all.iter().filter(|(seq, _)| !lost.contains(seq)).copied();
    assert_known(&engine, &others.collect::<Vec<_>>(), "a file that cannot be read");
    let trouble = engine.status().trouble.unwrap_or_default();
    assert!(trouble.contains(&*file.to_string_lossy()), "{trouble}");
}
