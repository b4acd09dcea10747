//! Several event logs over one journal in memory, in one process, by random schedules: takeovers,
//! writers that are fenced, publishes that are passed on, commits in doubt, and a journal that loses
//! what it had. The checker is that of the `gapless` runs, over what the clients of all of them saw.
//!
//! A seed fixes a run, but for the order in which threads meet. `SHARED_SEEDS=17` runs seed 17, and
//! `SHARED_SEEDS=100..2000` as many. What each rule is for shows when it is taken out.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_sign_loss,
    unreachable_pub,
    reason = "a test ends where something is not as it must be"
)]

#[allow(dead_code, reason = "shared with other tests")]
#[path = "../it/support/checker.rs"]
mod checker;
mod cluster;
mod daemon;

use std::collections::BTreeMap;
use std::ops::Range;

use tailmark_log::storage::Journal;
use tailmark_log::storage::shared::{Role, Rule};
use tailmark_log::{CursorError, EventLog, Producer, ResolveError};
use tailmark_record::{Cursor, Event};

use self::cluster::{Cluster, Covered, Wrong};
use self::daemon::Without;
use crate::checker::{Outcome, violations};

/// What is wrong in a run, and what happened in it.
async fn run(seed: u64, without: Without) -> (Vec<Wrong>, Covered) {
    let count = 2 + u64::from(seed.is_multiple_of(3));
    let mut cluster = Cluster::new(count, seed, without);
    for _ in 0..250 {
        cluster.step().await;
        if !cluster.wrong.is_empty() {
            break;
        }
    }
    cluster.settle().await;
    for daemon in &cluster.daemons {
        if daemon.replica.role() == Role::Diverged {
            let what = format!("daemon {} tells of a loss that is none", daemon.name);
            cluster.wrong.push(("FalseLoss", what));
        }
    }
    let history = cluster.history().await;
    let mut wrong = std::mem::take(&mut cluster.wrong);
    wrong.extend(violations(&history));
    (wrong, cluster.covered)
}

fn seeds() -> Range<u64> {
    let Ok(text) = std::env::var("SHARED_SEEDS") else { return 0..60 };
    match text.split_once("..") {
        Some((from, to)) => from.parse().unwrap()..to.parse().unwrap(),
        None => text.parse().unwrap()..text.parse::<u64>().unwrap() + 1,
    }
}

#[tokio::test]
async fn event_logs_over_one_journal_are_one_log() {
    let mut covered = Covered::default();
    for seed in seeds() {
        let (wrong, run) = run(seed, Without::Nothing).await;
        assert!(wrong.is_empty(), "SHARED_SEEDS={seed}: {wrong:#?}");
        covered.add(&run);
    }
    println!("{covered:?}");
    assert!(covered.is_all() || seeds().end - seeds().start < 20, "{covered:?}");
}

#[tokio::test]
async fn what_the_journal_lost_is_found_and_told() {
    for seed in seeds() {
        let wrong = rolled_back(seed, Without::Nothing).await;
        assert!(wrong.is_empty(), "SHARED_SEEDS={seed}: {wrong:#?}");
    }
}

/// Counts, of so many runs without a rule, those in which something of a kind is wrong.
async fn falls(without: Without, runs: u64) -> BTreeMap<&'static str, u64> {
    let mut kinds = BTreeMap::new();
    for seed in 0..runs {
        let (mut wrong, _) = run(seed, without).await;
        wrong.extend(rolled_back(seed, without).await);
        wrong.sort_unstable();
        wrong.dedup_by_key(|it| it.0);
        wrong.iter().for_each(|(kind, _)| *kinds.entry(*kind).or_default() += 1);
    }
    println!("{without:?}: {kinds:?}");
    kinds
}

#[tokio::test]
async fn each_rule_keeps_something_from_being_wrong() {
    // Each with what falls without it, beside whatever else does.
    let rules = [
        (Without::CompareAndSwap, "Durable"),
        (Without::AheadIsConfirmed, "Verdict"),
        (Without::Rule(Rule::NoAnswerIsDoubt), "Durable"),
        (Without::Rule(Rule::ReadWhoseItIs), "Durable"),
        (Without::Rule(Rule::FencedByTerm), "OneLog"),
        (Without::Rule(Rule::LossIsProven), "FalseLoss"),
        (Without::Rule(Rule::ConfirmedByCommit), "Verdict"),
        (Without::Rule(Rule::RejoinByChain), "OneLog"),
        (Without::Rules(Rule::RejoinByChain, Rule::FramesJoin), "OneLog"),
        (Without::Rule(Rule::TermIsAGeneration), "Verdict"),
        (Without::Rule(Rule::DivergedStops), "Durable"),
    ];
    let mut missing = Vec::new();
    for (without, kind) in rules {
        let kinds = falls(without, 30).await;
        if !kinds.contains_key(kind) {
            missing.push(format!("without {without:?} no {kind}: {kinds:?}"));
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

/// What a writer that was relieved, and does not know it, tells a producer.
async fn relieved(without: Without) -> [Result<u64, String>; 2] {
    let mut cluster = Cluster::new(2, 1, without);
    assert!(cluster.take_over(0).await);
    let old = cluster.daemons[0].log.clone();
    let first = old.open_producer("p", 0).await.unwrap();
    append(&old, &first, 1).await;
    cluster.follow(1, 100).await;
    assert!(cluster.take_over(1).await);
    let new = cluster.daemons[1].log.clone();
    let second = new.open_producer("p", first.epoch()).await.unwrap();
    assert_eq!(second.last_seq(), 1);
    append(&new, &second, 2).await;
    let other = new.open_producer("q", 0).await.unwrap();
    let mut told = [("p", first.epoch()), ("q", other.epoch())].map(|_| Ok(0));
    for (told, (name, epoch)) in told.iter_mut().zip([("p", first.epoch()), ("q", other.epoch())]) {
        let opened = old.open_producer(name, epoch).await;
        *told = opened.map(|it| it.last_seq()).map_err(|error| error.to_string());
    }
    told
}

async fn append(log: &EventLog, producer: &Producer, seq: u64) {
    let mut batch = log.batch();
    batch.push(&Event { topic: "users", ..Event::default() }).unwrap();
    producer.submit(seq, batch, None).await.unwrap().await.unwrap();
}

/// A producer's place, and whether there is such a producer, is told by who writes: a stream that is opened again
/// in its epoch is no commit of its own.
#[tokio::test]
async fn a_writer_that_was_relieved_tells_no_producer_its_place() {
    for told in relieved(Without::Nothing).await {
        let told = told.unwrap_err();
        assert!(told.contains("another daemon writes"), "{told}");
    }
    // Without the rule it tells a place that was passed, and that there is no such producer.
    let [place, unknown] = relieved(Without::Rule(Rule::ConfirmedByCommit)).await;
    assert_eq!(place, Ok(1));
    assert!(unknown.is_err_and(|it| !it.contains("another daemon writes")));
}

/// A journal that is put back to an older state. Answers what is wrong.
async fn rolled_back(seed: u64, without: Without) -> Vec<Wrong> {
    let mut cluster = Cluster::new(2 + u64::from(seed.is_multiple_of(3)), seed, without);
    if !cluster.take_over(0).await {
        return vec![("Progress", "nobody writes".to_owned())];
    }
    for step in 0..40 {
        let at = cluster.any();
        cluster.publish(at).await;
        let (at, slots) = (cluster.any(), 3);
        cluster.follow(at, slots).await;
        cluster.look(step % 3, 5).await;
    }
    let writer = 0;
    cluster.follow(writer, 1_000).await;
    cluster.look(0, 1_000).await;
    let before = cluster.read_all(writer).await;
    let lost_slots = 1 + seed % 12;
    cluster.stream.roll_back(cluster.stream.end() - lost_slots);

    // Whatever is done now, nobody goes on from what was lost, and nobody is told that it is there.
    let told = cluster.requests.len();
    for _ in 0..60 {
        let at = cluster.any();
        match seed % 4 {
            0 => cluster.publish(writer).await,
            1 => cluster.publish(at).await,
            _ => {
                if cluster.take_over(at).await {
                    cluster.publish(at).await;
                }
            }
        }
        cluster.follow(at, 4).await;
    }
    // The operator accepts the loss: what the journal does not have is set aside.
    for at in 0..cluster.daemons.len() {
        cluster.follow(at, 1_000).await;
        if cluster.daemons[at].replica.role() == Role::Diverged {
            if Journal::refusal(&*cluster.daemons[at].replica).is_none() {
                cluster.wrong.push(("Stops", "who diverged takes events".to_owned()));
            }
            cluster.kill(at, true).await;
            cluster.follow(at, 1_000).await;
        }
    }
    let is_taken = cluster.take_over(1).await;
    if !is_taken {
        let what = "nobody writes after the loss was accepted".to_owned();
        cluster.wrong.push(("Progress", what));
    }
    for at in 0..cluster.daemons.len() {
        cluster.follow(at, 1_000).await;
    }
    let after = cluster.read_all(1).await;
    let common = before.iter().zip(&after).take_while(|(one, other)| one == other).count();
    // A cursor of what was lost never means another event, and the others mean what they did.
    for (at, event) in before.iter().enumerate() {
        let cursor = Cursor::parse(&event.cursor).unwrap();
        for daemon in &cluster.daemons {
            let answer = daemon.log.resolve(cursor).await;
            let is_right = match (at < common, &answer) {
                (true, Ok(next)) => next.get() == event.seq + 1,
                (false, Err(ResolveError::Cursor(CursorError::LogDiverged { .. }))) => true,
                _ => false,
            };
            if !is_right {
                let what = format!("daemon {} of {} of {common}: {answer:?}", daemon.name, at + 1);
                cluster.wrong.push(("Verdict", what));
            }
        }
    }
    // What was acked since is there, and in every copy.
    let bodies: Vec<_> = after.iter().map(|event| event.body.as_str()).collect();
    for request in &cluster.requests[told..] {
        // A repeat of what was lost is told as one by whoever has it still.
        let is_acked = matches!(&request.outcome, Outcome::Uploaded(done) if done.stored > 0);
        for sent in request.sent.iter().filter(|_| is_acked) {
            let is_there = bodies.contains(&sent.event.body.as_str());
            if !is_there {
                let what = format!("{} is acked, and is not there", sent.label);
                cluster.wrong.push(("Durable", what));
            }
        }
    }
    for at in 0..cluster.daemons.len() {
        if cluster.read_all(at).await != after {
            cluster.wrong.push(("OneLog", format!("daemon {} has another log", at + 1)));
        }
        let closed = cluster.daemons[at].log.close().await;
        cluster.wrong.extend(closed.err().map(|error| ("Closing", error.to_string())));
    }
    std::mem::take(&mut cluster.wrong)
}
