//! Retention by topic against a plain list: whatever rules, trims, erasures, rewrites and kills there were, what is left
//! is what was appended, nothing goes that no rule let go, and everything that is asked fits what is left.

mod world;

use self::world::{World, open_local};
use super::super::topic_retention::testing::{Ordered, Shares, pass, pass_while};
use super::*;
use crate::storage::{RemovedReason, StoreError};
use rand::RngExt as _;
use tailmark_record::topic::Pattern;

pub(super) fn rule(
    pattern: &str,
    age: Option<u64>,
    max_events: Option<u64>,
    keep: Keep,
) -> TopicRule {
    let pattern = Pattern::parse(pattern, &Limits::default()).unwrap();
    TopicRule { pattern, max_age: age.map(Duration::from_secs), max_events, keep }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_is_what_the_list_says_whatever_the_rules_do() {
    live_through(World::new, true).await;
}

/// An engine in memory has the rules too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_is_left_in_memory() {
    live_through(World::in_memory, false).await;
}

/// `can_take_back`: whether the engine takes back an erasure that has begun nothing.
async fn live_through(world: fn(u64) -> World, can_take_back: bool) {
    let (mut taken, mut taken_back) = (0, 0);
    for seed in 0..3 {
        let mut world = world(seed);
        world.append(3_000).await;
        for _ in 0..12 {
            match world.rng.random_range(0..11) {
                0 => world.reopen().await,
                1 => world.trim().await,
                2 => world.erase().await,
                3 | 4 => world.append(1_200).await,
                10 => world.erase_and_take_back().await,
                _ => world.run_rules().await,
            }
            world.check_all().await;
            world.check_writes().await;
            world.produce().await;
        }
        taken += world.gone.len();
        taken_back += world.taken_back;
        world.log.close().await.unwrap();
    }
    assert!(taken > 2_000, "{taken}");
    assert_eq!(taken_back > 0, can_take_back, "{taken_back}");
}

/// The limit of the whole log is one of events: what rules took out is none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_number_of_events_that_a_log_keeps_is_of_those_that_are_left() {
    let mut world = World::new(6);
    world.append(4_000).await;
    while world.gone.len() < 1_500 {
        world.run_rules().await;
        world.append(200).await;
    }
    let left = world.log.bounds().head.get() - world.gone.len() as u64;
    let limits = Retention { max_events: Some(left * 9 / 10), ..Retention::default() };
    world.log.set_retention(limits, Duration::from_millis(5));
    let begun = std::time::Instant::now();
    while world.log.bounds().oldest == Seq::FIRST {
        assert!(begun.elapsed() < Duration::from_secs(120), "nothing is trimmed");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (bounds, mut stay) = (world.log.bounds(), 0);
    for seq in bounds.oldest.get()..=bounds.head.get() {
        stay += u64::from(!world.gone.contains(&seq));
    }
    assert!((left * 9 / 10..left).contains(&stay), "{stay} of {left} stay");
}

/// Who has an old event erased must not lose the newest for what tells of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_erasure_takes_the_place_of_no_event_that_a_rule_keeps() {
    let dir = tempfile::tempdir().unwrap();
    let log = open_local(dir.path(), &options());
    for text in ["first", "second", "third"] {
        let one = batch(&log, &[("state.a", text), ("state.b", text)]);
        log.append(one, AppendOptions::default()).await.unwrap();
    }
    let rules = TopicRules::new(vec![rule("state.*", None, Some(1), Keep::All)]);
    let found = |log: &EventLog| {
        let at = Timestamp { seconds: 1_000_000, nanos: 0 };
        let dry = Ordered { is_in_peace: true, is_dry: true, ..Ordered::default() };
        let it = pass(log.core(), &rules, at, dry).unwrap().rules[0];
        (it.events, it.expired)
    };
    assert_eq!(found(&log), (6, 4));
    for (seq, expired) in [(1, 4), (2, 4), (3, 5)] {
        let seqs = vec![Seq::new(seq)..Seq::new(seq + 1)];
        let erasure = Erasure { id: Uuid::from_u128(seq.into()), seqs, reason: "asked".to_owned() };
        let its = log.clone();
        tokio::task::spawn_blocking(move || its.erase(erasure, &mut |_| {}))
            .await
            .unwrap()
            .unwrap();
        // The newest of each stays, and one that tells of erasures.
        assert_eq!(found(&log).1, expired, "{seq}");
    }
}

/// The thread: rules from the start, others by a reload, none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_are_kept_in_the_background_and_may_change() {
    let mut world = World::new(5);
    let begun = std::time::Instant::now();
    world.options = Options {
        topic_rules: TopicRules::new(vec![rule("state.*", None, None, Keep::LatestPerKey)]),
        retention_interval: Duration::from_secs(86_400),
        elapsed: Arc::new(move || begun.elapsed()),
        ..world.options.clone()
    };
    world.reopen().await;
    world.append(4_000).await;
    // As a reload gives it.
    world.log.set_retention(Retention::default(), Duration::from_millis(5));
    let wait_for = async |world: &World, what: fn(&TopicRetention) -> bool| {
        let begun = std::time::Instant::now();
        while !what(&world.log.topic_retention()) {
            assert!(
                begun.elapsed() < Duration::from_secs(120),
                "{:?}",
                world.log.topic_retention()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    wait_for(&world, |it| it.compacted > 500).await;
    let report = world.log.topic_retention();
    assert!(report.expired == 0 && report.segments > 0 && report.passes > 0);
    let status = world.log.status();
    assert!(status.store.removed_events >= report.compacted);
    // An age, by the clock: the log's own is told by the thread that trims.
    world.now.fetch_add(100_000, Ordering::SeqCst);
    let rules = TopicRules::new(vec![rule("tick.>", Some(60), None, Keep::All)]);
    world.log.set_topic_rules(rules.clone());
    assert_eq!(*world.log.topic_retention().rules, rules);
    wait_for(&world, |it| it.expired > 500).await;
    // What a dry run counts is what rules would let go that are not in force, and nothing goes.
    let dry = TopicRules::new(vec![rule(">", None, Some(1), Keep::All)]);
    let log = world.log.clone();
    let found = tokio::task::spawn_blocking(move || {
        let mut shares = Vec::new();
        let found = log.preview_topic_retention(&dry, &mut |share| {
            shares.push(share);
            true
        });
        assert!(shares.is_sorted());
        found.unwrap()
    });
    let found = found.await.unwrap();
    assert!(found.removed == 0 && found.rules[0].expired > 1_000, "{found:?}");
    world.log.set_topic_rules(TopicRules::default());
    assert_eq!(world.log.topic_retention().last, None);
    world.log.close().await.unwrap();
}

/// More topics and keys than a pass has room for: each is looked at in its turn, and the same goes in the end.
async fn without_room(max_events: Option<u64>) -> (World, Vec<(u64, usize, RemovedReason)>) {
    let mut world = World::new(77);
    world.append(8_000).await;
    let rules = TopicRules::new(vec![rule("state.*", None, max_events, Keep::LatestPerKey)]);
    let dead = world.judge(&rules, 0);
    for (seq, _, reason) in &dead {
        world.dead.insert(*seq, *reason);
    }
    let log = world.log.clone();
    // Every key of what is sealed is one of a share at last.
    tokio::task::spawn_blocking(move || {
        let (mut share, at) = (Shares::default(), Timestamp::EPOCH);
        for _ in 0..40 {
            let order = Ordered { is_in_peace: true, room: Some(5), share, is_dry: false };
            share = share.after(&pass(log.core(), &rules, at, order).unwrap());
        }
    })
    .await
    .unwrap();
    (world, dead)
}

/// A rule with both goes by shares of topics: nothing goes that one pass over all would keep.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_room_nothing_goes_that_a_number_of_events_would_keep() {
    let (mut world, _) = without_room(Some(4)).await;
    // It asks of each that is gone whether the list lets it go.
    world.check_all().await;
}

/// Of a rule that is in force no more nothing is taken out any more, and damage keeps nothing but itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pass_ends_with_its_rules_and_goes_on_behind_damage() {
    let mut world = World::new(78);
    world.append(8_000).await;
    let rules = TopicRules::new(vec![rule("state.*", None, None, Keep::LatestPerKey)]);
    let log = world.log.clone();
    let sealed = log.core().store.sealed();
    assert!(sealed.len() > 3);
    let asked = std::cell::Cell::new(0);
    let order = Ordered { is_in_peace: true, ..Ordered::default() };
    let goes_on = &mut |_: f64| {
        asked.set(asked.get() + 1);
        asked.get() < 2
    };
    let ended = pass_while(log.core(), &rules, Timestamp::EPOCH, order, goes_on);
    assert!(matches!(ended, Err(StoreError::Stopped { .. })), "{:?}", ended.err());
    let rewritten = log.core().store.sealed().iter().filter(|it| it.removed > 0).count();
    assert!(rewritten <= 1, "{rewritten}");
    // A block of one in the middle.
    let name = format!("segments/{:020}-1/db/db", sealed[1].first.get());
    let file = std::fs::OpenOptions::new().write(true).open(world.dir.path().join(name)).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[0xa5; 30_000], 20_000).unwrap();
    let done = pass(log.core(), &rules, Timestamp::EPOCH, order).unwrap();
    assert!(matches!(done.failure, Some(StoreError::Damaged(_))), "{:?}", done.failure);
    let now = log.core().store.sealed();
    let of = |first: Seq| now.iter().find(|it| it.first <= first && first < it.end).unwrap();
    assert_eq!(of(sealed[1].first).removed, 0);
    assert!(of(sealed[0].first).removed > 0 && of(sealed[2].first).removed > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_there_is_no_room_for_goes_in_later_passes() {
    let (mut world, dead) = without_room(None).await;
    world.look().await;
    // What is dead and sealed has gone, but for what is not worth it.
    let sealed = world.log.core().store.sealed().last().unwrap().end.get();
    let left = dead.iter().filter(|(seq, ..)| *seq < sealed && !world.gone.contains(seq)).count();
    let all = dead.iter().filter(|(seq, ..)| *seq < sealed).count();
    assert!(left * 10 < all, "{left} of {all} are left");
    world.check_all().await;
}
