//! Taking events out: everything that is asked holds against a list, whatever is taken out and in whatever order, cut
//! and failing at any file operation.

use std::collections::BTreeMap;
use std::ops::Range;

use super::*;
use crate::storage::disk::Watcher;
use crate::storage::segment::verify;
use crate::storage::{Removed, Sealed, Store, TakeOut, TopicStats};
use tailmark_record::{ChainTag, Facts};

type Reason = RemovedReason;
type Meant = fn(u64) -> bool;

/// What is left, and what is gone and why.
#[derive(Clone, Default)]
struct Model {
    gone: BTreeMap<u64, Reason>,
    tags: BTreeMap<u64, ChainTag>,
}

impl Model {
    /// As it was before anything went.
    fn of(engine: &dyn Engine) -> Model {
        let (bounds, mut model) = (engine.bounds(), Model::default());
        for seq in bounds.oldest.get()..=bounds.head.get() {
            model.tags.insert(seq, engine.tag_of(Seq::new(seq)).unwrap());
        }
        model
    }

    fn take(&mut self, sealed: &Sealed, reason: Reason, is_meant: impl Fn(u64) -> bool) -> TakeOut {
        let mut seqs: Vec<(Range<Seq>, Reason)> = Vec::new();
        for seq in (sealed.first.get()..sealed.end.get()).filter(|seq| is_meant(*seq)) {
            self.gone.entry(seq).or_insert(reason);
            match seqs.last_mut() {
                Some((range, _)) if range.end.get() == seq => range.end = range.end.next(),
                _ => seqs.push((Seq::new(seq)..Seq::new(seq + 1), reason)),
            }
        }
        TakeOut { sealed: vec![*sealed], seqs, named_from: Seq::ZERO }
    }

    /// The run that a seq is in, by the list: neighbours that are gone are one, and compacted if any of them was.
    fn run(&self, seq: u64) -> (u64, u64, Reason) {
        let is_gone = |seq: &u64| self.gone.contains_key(seq);
        let first = (1..=seq).rev().take_while(is_gone).last().unwrap();
        let last = (seq..).take_while(is_gone).last().unwrap();
        let is_compacted = (first..=last).any(|it| self.gone[&it] == Reason::Compacted);
        let reason = if is_compacted { Reason::Compacted } else { Reason::Expired };
        (first, last + 1, reason)
    }

    /// Compares everything that can be asked with the list.
    fn check(&self, engine: &dyn Engine) {
        let bounds = engine.bounds();
        self.check_reads(engine, &bounds);
        self.check_topics(engine, &bounds);
        let kept = |seq: &u64| !self.gone.contains_key(seq);
        let all: Vec<u64> =
            (bounds.oldest.get()..=bounds.head.get()).filter(|seq| kept(seq)).collect();
        // The newest, of everything and of a topic.
        for (filter, of_topic) in [(Filter::ALL, None), (Filter::one("t.2"), Some(2))] {
            let matching: Vec<u64> =
                all.iter().copied().filter(|it| of_topic.is_none_or(|t| it % 5 == t)).collect();
            for count in [1, 7, 500] {
                let (mut end, mut found, mut from) = (bounds.next(), 0, bounds.next());
                while end > bounds.oldest && found < count {
                    let back =
                        engine.look_back(bounds.oldest..end, &filter, count - found).unwrap();
                    assert!(back.from < end);
                    (found, from, end) = (found + back.events, back.from, back.from);
                }
                let expected = matching.iter().rev().take(count as usize).next_back();
                assert_eq!(found, matching.len().min(count as usize) as u64);
                if found == count {
                    assert_eq!(Some(&from.get()), expected, "{count} of {of_topic:?}");
                }
            }
        }
        // Repeats of all of them are told.
        let mut named = Vec::new();
        engine
            .fingerprints(bounds.oldest, &mut |seq, _| {
                named.push(seq.get());
                true
            })
            .unwrap();
        named.reverse();
        assert!(named.iter().copied().eq(bounds.oldest.get()..=bounds.head.get()));
    }

    fn check_reads(&self, engine: &dyn Engine, bounds: &tailmark_record::Bounds) {
        let (mut at, mut runs) = (bounds.oldest, 0);
        while at <= bounds.head {
            match engine.read(at, bounds.next(), &Filter::ALL) {
                Ok(chunk) => {
                    assert!(chunk.first == at && chunk.complete);
                    for event in Events::new(&chunk.events) {
                        self.check_event(engine, event.unwrap(), at);
                        at = at.next();
                    }
                    assert_eq!(at, chunk.end);
                }
                Err(StoreError::Removed(Removed { first, end, reason, link, .. })) => {
                    let expected = self.run(at.get());
                    assert_eq!((end.get(), reason), (expected.1, expected.2), "at {at}");
                    assert!(first <= at);
                    let expected = self.tags.get(&end.prev().get()).copied();
                    assert_eq!(link.known_tag(), expected.or(link.known_tag()));
                    assert_eq!(engine.tag_of(end.prev()).unwrap(), link.tag());
                    assert!(matches!(engine.time_of(at), Err(StoreError::Removed(_))));
                    // Within it, too.
                    let middle = Seq::new(at.get().midpoint(end.get()));
                    match engine.read(middle, middle.next(), &Filter::ALL) {
                        Err(StoreError::Removed(it)) => assert_eq!(it.end, end),
                        other => panic!("{other:?}"),
                    }
                    (at, runs) = (end, runs + 1);
                }
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(runs > 0, !self.gone.is_empty());
        // Who asks for some topics, or for all that is left, hears of nothing that is gone.
        for filter in [Filter::one("t.3"), Filter::all_that_is_left()] {
            let (mut at, mut seen) = (bounds.oldest, Vec::new());
            while at <= bounds.head {
                let chunk = engine.read(at, bounds.next(), &filter).unwrap();
                assert!(chunk.first == at && chunk.end > at);
                let chunk = chunk.filtered(&filter, usize::MAX).unwrap();
                for event in Events::new(&chunk.events) {
                    seen.push(Event::seq_of(event.unwrap()).unwrap().get());
                }
                at = chunk.end;
            }
            let all = bounds.oldest.get()..=bounds.head.get();
            let is_meant = |seq: &u64| {
                !self.gone.contains_key(seq) && (filter != Filter::one("t.3") || seq % 5 == 3)
            };
            assert!(seen.iter().copied().eq(all.filter(is_meant)), "{filter:?}");
        }
    }

    fn check_event(&self, engine: &dyn Engine, event: &[u8], at: Seq) {
        let (facts, view) = (Facts::scan(event).unwrap(), Event::parse(event).unwrap());
        assert_eq!((facts.seq, view.body), (at, &*body_of(at.get())));
        assert!(!self.gone.contains_key(&at.get()), "{at} is gone");
        let tag = crate::chain::tag_in(event).unwrap();
        assert_eq!(self.tags.get(&at.get()).copied().unwrap_or(tag), tag);
        if at.get().is_multiple_of(53) {
            assert_eq!(engine.tag_of(at).unwrap(), tag);
            assert_eq!(engine.time_of(at).unwrap(), facts.appended_at);
            // A start by its time misses nothing that is left: what is between is gone or of that time.
            let start = engine.seek_time(facts.appended_at).unwrap();
            assert!(start <= at);
            let earlier = (start.get()..at.get()).filter(|it| !self.gone.contains_key(it));
            for seq in earlier {
                assert_eq!(engine.time_of(Seq::new(seq)).unwrap(), facts.appended_at);
            }
        }
    }

    fn check_topics(&self, engine: &dyn Engine, bounds: &tailmark_record::Bounds) {
        let mut expected: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        let left = bounds.oldest.get()..=bounds.head.get();
        for seq in left.filter(|seq| !self.gone.contains_key(seq)) {
            let entry = expected.entry(format!("t.{}", seq % 5)).or_default();
            *entry = (entry.0 + 1, seq);
        }
        let found = all_topics(engine, 100).unwrap();
        let found = found.into_iter().map(|(name, TopicStats { events, last_seq, .. })| {
            assert_eq!(engine.topic_head(&name).unwrap(), Some(last_seq));
            (name, (events, last_seq.get()))
        });
        assert_eq!(found.collect::<BTreeMap<_, _>>(), expected);
    }
}

/// Every sealed segment is what its footer says, every event and run included.
fn verify_all(dir: &Path, engine: &dyn Engine) {
    let scratch = tempfile::tempdir().unwrap();
    let key = engine.fingerprint_key();
    for entry in std::fs::read_dir(dir.join(SEGMENTS_DIR)).unwrap() {
        let path = entry.unwrap().path();
        if crate::storage::segment::parse_name(&path).is_some() && path.join("db").is_dir() {
            let damage = verify(&path, scratch.path(), Some(&key), &Default::default()).unwrap();
            assert!(damage.is_empty(), "{damage:?}");
        }
    }
    assert!(survey(dir, &Disk::real()).unwrap().damage.is_empty());
}

fn sealed_log(dir: &Path, events: u32) -> Arc<LocalEngine> {
    let (engine, _) = reopen(dir);
    fill(&*engine, events, 20);
    eventually("sealing", || engine.status().unsealed_slots <= 1);
    engine
}

#[test]
fn what_is_asked_after_it_is_what_a_list_says() {
    let dir = tempfile::tempdir().unwrap();
    let engine = sealed_log(dir.path(), 9_000);
    let mut model = Model::of(&*engine);
    model.check(&*engine);
    let before = engine.status().disk_bytes;
    let segments = Store::sealed(&*engine);
    assert!(segments.len() >= 4, "{}", segments.len());
    // Single ones, long runs, both ends, all of one, all of its neighbour for another reason.
    let steps: [(usize, Reason, Meant); 7] = [
        (0, Reason::Expired, |seq| seq.is_multiple_of(3)),
        (0, Reason::Compacted, |seq| (200..900).contains(&seq)),
        (0, Reason::Expired, |seq| seq < 30),
        (1, Reason::Expired, |_| true),
        (2, Reason::Compacted, |seq| !seq.is_multiple_of(7)),
        (2, Reason::Expired, |_| true),
        (3, Reason::Compacted, |seq| seq % 50 > 1),
    ];
    for (nth, reason, is_meant) in steps {
        let at = segments[nth].first;
        let all = Store::sealed(&*engine);
        let Some(sealed) = all.iter().find(|it| it.first == at) else { panic!("{nth}") };
        let order = model.take(sealed, reason, is_meant);
        let taken = Store::take_out(&*engine, &order).unwrap().unwrap();
        assert!(taken.expired + taken.compacted > 0);
        model.check(&*engine);
        // What it was is there no more.
        assert_eq!(Store::take_out(&*engine, &order).unwrap(), None);
        verify_all(dir.path(), &*engine);
    }
    eventually("space", || engine.status().disk_bytes < before);
    // It goes on, also after a stop and a kill.
    fill(&*engine, 400, 20);
    model.check(&*engine);
    engine.close().unwrap();
    drop(engine);
    for _ in 0..2 {
        let (engine, _) = reopen(dir.path());
        model.check(&*engine);
        fill(&*engine, 2_000, 20);
        vanish(engine);
    }
    let (engine, _) = reopen(dir.path());
    model.check(&*engine);
    verify_all(dir.path(), &*engine);
    // And a trim passes through runs, exactly.
    for oldest in [31, 700, segments[1].first.get() + 5, segments[3].first.get() + 40] {
        let trim = Commit { oldest: Seq::new(oldest), ..commit(&*engine, 0) };
        append(&*engine, trim).unwrap();
        engine.reclaim().unwrap();
        model.gone.retain(|seq, _| *seq >= oldest);
        model.check(&*engine);
    }
}

/// Neighbours become one, with the range between them that has no events.
#[test]
fn neighbours_become_one_and_what_lies_between_them_with_them() {
    let dir = tempfile::tempdir().unwrap();
    let engine = sealed_log(dir.path(), 8_000);
    let mut model = Model::of(&*engine);
    let all = Store::sealed(&*engine);
    for (nth, one) in all[..4].iter().enumerate() {
        let order = match nth {
            1 => model.take(one, Reason::Expired, |_| true),
            _ => model.take(one, Reason::Compacted, |seq| seq % 9 > 0),
        };
        Store::take_out(&*engine, &order).unwrap().unwrap();
    }
    let before = Store::sealed(&*engine);
    assert_eq!(before.len(), all.len() - 1);
    // All but the first, which is told as it was before.
    let stale = TakeOut { sealed: all[..2].to_vec(), seqs: Vec::new(), named_from: Seq::ZERO };
    assert_eq!(Store::take_out(&*engine, &stale).unwrap(), None);
    let order = TakeOut { sealed: before[..3].to_vec(), seqs: Vec::new(), named_from: Seq::ZERO };
    let taken = Store::take_out(&*engine, &order).unwrap().unwrap();
    assert_eq!((taken.expired, taken.compacted), (0, 0));
    let after = Store::sealed(&*engine);
    assert_eq!((after[0].first, after[0].end), (all[0].first, all[3].end));
    assert_eq!(after.len(), before.len() - 2);
    model.check(&*engine);
    verify_all(dir.path(), &*engine);
    // And then nothing is left of it.
    let order = model.take(&after[0], Reason::Expired, |_| true);
    vanish(engine);
    let (engine, _) = reopen(dir.path());
    Store::take_out(&*engine, &order).unwrap().unwrap();
    model.check(&*engine);
    engine.close().unwrap();
    drop(engine);
    let (engine, _) = reopen(dir.path());
    model.check(&*engine);
    verify_all(dir.path(), &*engine);
}

/// All of the newest segment, before which and behind which the log goes on; then a start.
#[test]
fn the_last_segment_may_go_as_a_whole() {
    let dir = tempfile::tempdir().unwrap();
    let engine = sealed_log(dir.path(), 4_000);
    let mut model = Model::of(&*engine);
    let last = *Store::sealed(&*engine).last().unwrap();
    let order = model.take(&last, Reason::Expired, |_| true);
    Store::take_out(&*engine, &order).unwrap().unwrap();
    model.check(&*engine);
    vanish(engine);
    let (engine, _) = reopen(dir.path());
    model.check(&*engine);
    // What is not sealed is sealed behind it.
    fill(&*engine, 4_000, 20);
    eventually("sealing", || engine.status().unsealed_slots <= 1);
    model.check(&*engine);
    engine.close().unwrap();
    drop(engine);
    let (engine, _) = reopen(dir.path());
    model.check(&*engine);
    verify_all(dir.path(), &*engine);
}

/// A small segment at the end is folded into the next one, with its runs and what tells repeats of them.
#[test]
fn a_segment_with_runs_is_folded_like_others() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = reopen(dir.path());
    fill(&*engine, 600, 20);
    engine.close().unwrap();
    drop(engine);
    let (engine, _) = reopen(dir.path());
    eventually("sealing", || !Store::sealed(&*engine).is_empty());
    let mut model = Model::of(&*engine);
    let small = Store::sealed(&*engine)[0];
    let order = model.take(&small, Reason::Compacted, |seq| !seq.is_multiple_of(4));
    Store::take_out(&*engine, &order).unwrap().unwrap();
    model.check(&*engine);
    fill(&*engine, 700, 20);
    engine.close().unwrap();
    drop(engine);
    let (engine, _) = reopen(dir.path());
    eventually("folding", || {
        Store::sealed(&*engine)[0].end > small.end && Store::sealed(&*engine)[0].removed > 0
    });
    model.check(&*engine);
    verify_all(dir.path(), &*engine);
}

/// Repeats are told as far as they are asked for, and no further.
#[test]
fn what_tells_repeats_of_events_that_are_gone_is_kept_as_far_as_it_is_needed() {
    let dir = tempfile::tempdir().unwrap();
    let engine = sealed_log(dir.path(), 4_000);
    let mut model = Model::default();
    let first = Store::sealed(&*engine)[0];
    let border = first.first.get().midpoint(first.end.get());
    let mut order = model.take(&first, Reason::Expired, |seq| seq.is_multiple_of(2));
    order.named_from = Seq::new(border);
    Store::take_out(&*engine, &order).unwrap().unwrap();
    let mut named = std::collections::BTreeSet::new();
    engine
        .fingerprints(Seq::FIRST, &mut |seq, _| {
            named.insert(seq.get());
            true
        })
        .unwrap();
    for seq in first.first.get()..first.end.get() {
        assert_eq!(named.contains(&seq), seq % 2 == 1 || seq >= border, "{seq}");
    }
    verify_all(dir.path(), &*engine);
}

fn orders(engine: &dyn Engine, model: &mut Model) -> Vec<TakeOut> {
    let all = engine.sealed();
    vec![
        model.take(&all[0], Reason::Compacted, |seq| !seq.is_multiple_of(3)),
        model.take(&all[1], Reason::Expired, |_| true),
        model.take(&all[2], Reason::Compacted, |seq| !seq.is_multiple_of(3)),
    ]
}

/// What is left of the first three, as one.
fn merged(engine: &dyn Engine) -> TakeOut {
    let sealed = engine.sealed()[..2].to_vec();
    TakeOut { sealed, seqs: Vec::new(), named_from: Seq::ZERO }
}

/// What a cut has left is either of both for each segment, and what was told is done.
fn check_cut(dir: &Path, model: &Model, tags: &Model, head: u64) {
    let (engine, _) = reopen(dir);
    assert!(engine.bounds().head.get() >= head);
    let mut found = tags.clone();
    let (mut at, next) = (engine.bounds().oldest, engine.bounds().next());
    while at < next {
        match engine.read(at, next, &Filter::ALL) {
            Ok(chunk) => at = chunk.end,
            Err(StoreError::Removed(gone)) => {
                for seq in at.get()..gone.end.get() {
                    found.gone.insert(seq, model.gone[&seq]);
                }
                at = gone.end;
            }
            Err(error) => panic!("{error}"),
        }
    }
    let left: Vec<_> = model.gone.keys().filter(|seq| !found.gone.contains_key(seq)).collect();
    // All of a segment, or nothing of it.
    let border = tags.gone.len();
    assert_eq!(border, 0);
    if found.gone.is_empty() || left.is_empty() {
        found.check(&*engine);
    } else {
        assert!(left.first() > found.gone.keys().next_back().as_ref());
        found.check(&*engine);
    }
    engine.close().unwrap();
    assert!(survey(dir, &Disk::real()).unwrap().damage.is_empty());
}

#[test]
fn it_may_be_killed_at_any_operation() {
    let dir = tempfile::tempdir().unwrap();
    let (log, copies) = (dir.path().join("log"), dir.path().join("copies"));
    vanish(sealed_log(&log, 4_200));
    let count = Arc::new(AtomicU64::new(0));
    let is_on = Arc::new(AtomicBool::new(false));
    let watcher: Watcher = {
        let (log, copies, is_on) = (log.clone(), copies.clone(), is_on.clone());
        Arc::new(move |_, _| {
            let nth = count.fetch_add(1, Ordering::SeqCst);
            if is_on.load(Ordering::SeqCst) && nth.is_multiple_of(7) {
                // Of what others do meanwhile a file may go between the list and the copy.
                let to = copies.join(nth.to_string());
                if testing::copy_dir(&log, &to).is_err() {
                    let _ = std::fs::remove_dir_all(&to);
                }
            }
        })
    };
    let (engine, _) = open(&log, Options { disk: Disk::watched(watcher), ..options() }).unwrap();
    let (tags, mut model) = (Model::of(&*engine), Model::of(&*engine));
    let head = engine.bounds().head.get();
    let orders = orders(&*engine, &mut model);
    is_on.store(true, Ordering::SeqCst);
    for order in &orders {
        Store::take_out(&*engine, order).unwrap().unwrap();
    }
    Store::take_out(&*engine, &merged(&*engine)).unwrap().unwrap();
    is_on.store(false, Ordering::SeqCst);
    model.check(&*engine);
    vanish(engine);
    let mut cuts = 0;
    for entry in std::fs::read_dir(&copies).unwrap() {
        let copy = entry.unwrap().path();
        check_cut(&copy, &model, &tags, head);
        std::fs::remove_dir_all(&copy).unwrap();
        cuts += 1;
    }
    assert!(cuts > 5, "{cuts} cuts");
}

#[test]
fn any_operation_of_it_may_fail() {
    let base = tempfile::tempdir().unwrap();
    let begun = base.path().join("begun");
    vanish(sealed_log(&begun, 4_200));
    let (engine, _) = reopen(&begun);
    let (tags, mut model) = (Model::of(&*engine), Model::of(&*engine));
    let head = engine.bounds().head.get();
    let _ = orders(&*engine, &mut model);
    vanish(engine);
    let run = |dir: &Path, disk: Disk| -> Result<(), StoreError> {
        testing::copy_dir(&begun, dir).unwrap();
        let (engine, _) = open(dir, Options { disk, ..options() })?;
        let done = orders(&*engine, &mut Model::default())
            .iter()
            .try_for_each(|order| Store::take_out(&*engine, order).map(drop))
            .and_then(|()| Store::take_out(&*engine, &merged(&*engine)).map(drop));
        // It goes on, whatever came of that.
        fill(&*engine, 20, 20);
        done?;
        engine.close()
    };
    let counter = Faults::none();
    run(&base.path().join("counted"), Disk::with_faults(counter.clone())).unwrap();
    let operations = counter.seen();
    assert!(operations > 40, "{operations}");
    let opening = {
        let counter = Faults::none();
        let dir = base.path().join("opened");
        testing::copy_dir(&begun, &dir).unwrap();
        let disk = Disk::with_faults(counter.clone());
        vanish(open(&dir, Options { disk, ..options() }).unwrap().0);
        counter.seen()
    };
    let mut failed = 0;
    for (at, nth) in (opening + 1..operations).step_by(11).enumerate() {
        let dir = base.path().join(nth.to_string());
        let faults = Faults::nth(nth, std::io::ErrorKind::Other, at % 2 == 0);
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            run(&dir, Disk::with_faults(faults))
        }));
        failed += u32::from(!matches!(ran, Ok(Ok(()))));
        check_cut(&dir, &model, &tags, head);
        std::fs::remove_dir_all(&dir).unwrap();
    }
    assert!(failed > 3, "only {failed} runs saw the failure");
}

/// Appends and reads go on beside it.
#[test]
fn appends_and_reads_go_on_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let engine = sealed_log(dir.path(), 6_000);
    let mut model = Model::of(&*engine);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _over = Over(&is_over);
        scope.spawn(|| {
            while !is_over.load(Ordering::SeqCst) {
                fill(&*engine, 20, 20);
            }
        });
        scope.spawn(|| {
            while !is_over.load(Ordering::SeqCst) {
                let (mut at, end) = (Seq::FIRST, engine.bounds().next());
                while at < end {
                    match engine.read(at, end, &Filter::ALL) {
                        Ok(chunk) => at = chunk.end,
                        Err(StoreError::Removed(gone)) => at = gone.end,
                        Err(error) => panic!("{error}"),
                    }
                }
            }
        });
        for round in 0..3 {
            for sealed in Store::sealed(&*engine) {
                let order = model.take(&sealed, Reason::Compacted, |seq| seq % 5 <= round);
                let _ = Store::take_out(&*engine, &order).unwrap();
            }
        }
    });
    // Of those that were sealed meanwhile some were not taken out.
    let sealed = Store::sealed(&*engine);
    for one in &sealed {
        let order = model.take(one, Reason::Compacted, |seq| seq % 5 <= 2);
        Store::take_out(&*engine, &order).unwrap();
    }
    let end = sealed.last().unwrap().end.get();
    model.gone.retain(|seq, _| *seq < end);
    model.check_reads(&*engine, &engine.bounds());
    model.check_topics(&*engine, &engine.bounds());
}
