//! What must not pass: a client or a network that is wrong is found out.

use std::time::Duration;

use crate::plan::{Act, END, Fate, Manner, Plan, TOPICS, Way};
use crate::run::{Done, run, runtime, with_watchers};
use crate::way::Happened;

fn run_now(plan: Plan) -> Done {
    runtime().block_on(run(plan, Happened::default()))
}

/// Cuts that fall into what watches read.
fn cuts() -> Vec<Fate> {
    (1..6).map(|n| Fate::After(Way::Down, n * 4_000, Act::Cut { reset: n % 2 == 0 })).collect()
}

/// Plans without anything else in them than senders and watchers.
fn plain(seed: u64, manner: Manner, patterns: &[&'static str], fates: &[Fate]) -> Plan {
    with_watchers(seed, manner, |plan| {
        plan.produces.clear();
        plan.rooms.clear();
        plan.turns.clear();
        for send in &mut plan.sends {
            send.fates.clear();
            send.turns = 12;
        }
        for watch in &mut plan.watches {
            watch.patterns = patterns.to_vec();
            watch.has_markers = false;
            watch.fates = fates.to_vec();
        }
    })
}

/// The first of these seeds for which the run says this.
fn finds(what: &str, plan: impl Fn(u64) -> Plan) {
    for seed in 1..20 {
        let done = run_now(plan(seed));
        if done.wrong.iter().any(|(name, _)| *name == what) {
            println!("  seed {seed}: {what} is missed");
            return;
        }
    }
    panic!("nothing was found out: {what}");
}

pub fn every_control_is_caught() {
    // Who resumes one event too far misses it, and one too early sees it twice.
    finds("Gapless", |seed| plain(seed, Manner::Off(1), &[], &cuts()));
    finds("NoRepeat", |seed| plain(seed, Manner::Off(-1), &[], &cuts()));
    // Who sends again what has no id stores it twice.
    finds("Idempotent", |seed| {
        let mut plan = plain(seed, Manner::Once, &[], &[]);
        for send in &mut plan.sends {
            (send.is_named, send.is_careless) = (false, true);
            let swallow = Act::Swallow { then_cut: Duration::from_millis(30) };
            send.fates = vec![Fate::After(Way::Down, 200, swallow); 3];
        }
        plan
    });
    // A message that is left out where the client cannot know: it asked for some topics only.
    let dropped = [Fate::After(Way::Down, 6, Act::DropMessage)];
    finds("Gapless", |seed| plain(seed, Manner::Once, &[TOPICS[0], END], &dropped));
    // The control of the controls: the same without the fault.
    for manner in [Manner::Once, Manner::Off(0)] {
        let done = run_now(plain(1, manner, &[], &cuts()));
        assert!(done.wrong.is_empty() && done.told.is_empty(), "{:?} {:?}", done.wrong, done.told);
    }
}

/// A watch of everything that is not sent a message says so, or gets it after all; it never goes on
/// as if nothing were missing.
pub fn a_dropped_message_is_told() {
    let mut told = 0;
    for seed in 1..9 {
        let happened = Happened::default();
        let dropped = [Fate::After(Way::Down, 3 + seed, Act::DropMessage)];
        let plan = plain(seed, Manner::Once, &[], &dropped);
        let done = runtime().block_on(run(plan, happened.clone()));
        assert!(done.wrong.is_empty(), "{:?}", done.wrong);
        let dropped = happened.all().get("dropmessage").copied().unwrap_or(0);
        println!("  seed {seed}: {dropped} dropped, told: {:?}", done.told);
        told += done.told.len();
    }
    assert!(told > 0, "nothing was dropped, or it was not told");
}

/// The plan is a function of the seed.
pub fn a_seed_is_one_plan() {
    for seed in 1..500 {
        assert_eq!(format!("{:?}", Plan::of(seed)), format!("{:?}", Plan::of(seed)));
    }
    assert_ne!(format!("{:?}", Plan::of(1)), format!("{:?}", Plan::of(2)));
}
