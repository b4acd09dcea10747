//! Each rule taken out in turn: the checker finds what it is for.

#![allow(missing_docs)]

use std::time::Duration;

use stateright::{Checker, HasDiscoveries, Model, Path, Property};
use tailmark_replication_model::properties::*;
use tailmark_replication_model::rules::{self, Rule, Rule::*, Rules};
use tailmark_replication_model::scenes::*;
use tailmark_replication_model::sessions::{NEWEST, Sessions};
use tailmark_replication_model::trust::{NO_OTHER, Since, TAKES_OVER, Trust};
use tailmark_replication_model::world::{Action, Protocol, Scene, World};

/// What falls without some rules.
struct Control {
    without: &'static [Rule],
    scene: Scene,
    property: &'static str,
    /// Steps of the shortest way there; none where something becomes impossible.
    steps: Option<usize>,
}

const fn falls(
    without: &'static [Rule],
    scene: Scene,
    property: &'static str,
    steps: usize,
) -> Control {
    Control { without, scene, property, steps: Some(steps) }
}

const fn ends(without: &'static [Rule], scene: Scene, property: &'static str) -> Control {
    Control { without, scene, property, steps: None }
}

/// Every rule that something falls without.
const CONTROLS: [Control; 33] = [
    falls(&[CompareAndSwap], TAKEOVER, ONE_CHAIN, 6),
    falls(&[DurableBeforeShown], TAKEOVER, SHOWN_IS_HELD, 1),
    falls(&[NoAnswerIsDoubt], TAKEOVER, VERDICTS, 4),
    falls(&[SameBytesSamePlace], TAKEOVER, ACKED_ONCE, 6),
    falls(&[DoubtIsKept], TAKEOVER, ACKED_ONCE, 8),
    falls(&[AcksInOrder], PIPELINE, ACKED_ONCE, 5),
    falls(&[RefusedGoesAlone], PIPELINE, VAIN_ONCE, 8),
    falls(&[ReadWhoseItIs], TAKEOVER, VERDICTS, 5),
    falls(&[UnreadableIsDoubt], TAKEOVER, VERDICTS, 5),
    falls(&[FencedByTerm], TAKEOVER, CURSORS, 7),
    ends(&[ForeignIsSkipped], OTHERS_ALONE, BEHIND_FOREIGN),
    falls(&[PurgedEndStops], OTHERS, ONE_CHAIN, 8),
    falls(&[PurgedEndStops], OTHERS, ACKED_ONCE, 8),
    falls(&[TermIsAppended], QUESTIONS, VERDICTS, 10),
    falls(&[TermIsAGeneration], ROLLBACK, LOSS_IS_TOLD, 8),
    falls(&[TermReadsBack], STRAY, ONE_CHAIN, 9),
    falls(&[SilenceFirst], QUESTIONS, VERDICTS, 12),
    falls(&[WindowFollows], TAKEOVER, ACKED_ONCE, 11),
    falls(&[RepeatsAreDurable], TAKEOVER, ACKED_ONCE, 3),
    falls(&[InFlightFirst], QUESTIONS, VERDICTS, 8),
    falls(&[ConfirmedByCommit], QUESTIONS, VERDICTS, 8),
    falls(&[InfoIsNoProof], CUT_QUESTIONS, VERDICTS, 10),
    falls(&[CaughtUpIsConfirmed], QUESTIONS, VERDICTS, 5),
    falls(&[AheadIsConfirmed], TAKEOVER, VERDICTS, 3),
    falls(&[TailHasNoHoles], TAKEOVER, SHOWN_IS_HELD, 7),
    falls(&[FramesJoin], STRAY, NOT_MIXED, 10),
    falls(&[DeadIsPassed], PIPELINE, LOSS_IS_TRUE, 6),
    falls(&[CompareAndSwap, AckNamesItsPlace], TAKEOVER, ACKED_ONCE, 6),
    falls(&[RejoinByChain], ROLLBACK, ONE_CHAIN, 8),
    falls(&[RejoinByChain], ROLLBACK, ACKED_ONCE, 8),
    falls(&[LossIsProven], CUT, LOSS_IS_TRUE, 3),
    falls(&[ReappendedFirst], REPAIR, CURSORS, 10),
    falls(&[DivergedStops], ROLLBACK, ONE_CHAIN, 7),
];

/// Rules that nothing falls without, alone: another stands behind each.
const COVERED: [Rule; 1] = [AckNamesItsPlace];

/// Looked at: states so many steps from the beginning, and less. Without some rules there is no end.
const DEPTH: usize = 14;

fn find(without: &[Rule], scene: Scene, property: &'static str) -> Option<Path<World, Action>> {
    let (rules, only) = (Rules::without(without), Some(property));
    let checker =
        Protocol { rules, scene, only }.checker().target_max_depth(DEPTH).spawn_bfs().join();
    checker.discovery(property)
}

#[test]
fn without_a_rule_something_falls() {
    let mut wrong = Vec::new();
    for Control { without, scene, property, steps } in &CONTROLS {
        let found = find(without, *scene, property).map(|path| path.into_actions());
        let is = found.as_ref().map(Vec::len);
        println!("without {without:?}: {property}: {is:?} steps: {found:?}");
        if steps.is_none() {
            // With the rule it is possible.
            assert!(find(&[], *scene, property).is_some(), "{property}");
        }
        if is != *steps {
            wrong.push(format!("{without:?}: {property}: {is:?}, not {steps:?}"));
        }
    }
    assert_eq!(wrong, [""; 0]);
}

/// So that no rule is without a word on what it is for.
#[test]
fn every_rule_has_its_control() {
    let has_control = |rule| CONTROLS.iter().any(|it| it.without == [rule]);
    for rule in rules::ALL {
        assert!(has_control(rule) != COVERED.contains(&rule), "{rule:?}");
    }
}

const TRUST: Trust =
    Trust { trusted: 1, since: Since::Sent, silence: 3, faster: 2, ticks: 8, commits: 2 };

#[test]
fn a_writer_trusts_what_it_sent_a_second_ago() {
    let checker = TRUST.checker().spawn_bfs().join();
    println!("trust: {} states", checker.unique_state_count());
    checker.assert_properties();
}

#[test]
fn a_writer_cannot_trust_an_ack_by_when_it_came() {
    let since = Since::Acked;
    let checker = Trust { since, ..TRUST }.checker().spawn_bfs().join();
    checker.assert_any_discovery(NO_OTHER);
}

#[test]
fn a_writer_cannot_trust_itself_longer_than_others_wait() {
    for trust in [Trust { trusted: 4, ..TRUST }, Trust { faster: 5, ..TRUST }] {
        let checker = trust.checker().spawn_bfs().join();
        checker.assert_any_discovery(NO_OTHER);
        checker.assert_any_discovery(TAKES_OVER);
    }
}

const SESSIONS: Sessions = Sessions { are_committed: true, streams: 3, takeovers: 3 };

#[test]
fn only_the_stream_opened_last_appends() {
    SESSIONS.checker().spawn_bfs().join().assert_properties();
}

#[test]
fn streams_that_are_opened_in_memory_only_append_behind_each_others_back() {
    let checker = Sessions { are_committed: false, ..SESSIONS }.checker().spawn_bfs().join();
    checker.assert_any_discovery(NEWEST);
}

/// Of one rule in one scene.
const LONGEST: Duration = Duration::from_secs(60);

/// What falls first without each rule, in each scene. By hand.
#[test]
#[ignore = "minutes"]
fn the_whole_table() {
    for rule in rules::ALL {
        for (name, scene) in ALL {
            let model = Protocol { rules: Rules::without(&[rule]), scene, only: None };
            let first = HasDiscoveries::AnyFailures;
            let checker = model.checker().finish_when(first).timeout(LONGEST).spawn_bfs().join();
            let found = checker.discoveries();
            let properties = checker.model().properties();
            let has_fallen = |it: &&Property<Protocol>| {
                it.expectation.discovery_is_failure() && found.contains_key(it.name)
            };
            let fallen: Vec<_> = properties.iter().filter(has_fallen).map(|it| it.name).collect();
            let is_never = |it: &&Property<Protocol>| {
                !it.expectation.discovery_is_failure() && !found.contains_key(it.name)
            };
            let never = properties.iter().filter(is_never).filter(|_| fallen.is_empty());
            let never: Vec<_> = never.map(|it| it.name).collect();
            println!("without {rule:?}, {name}: fallen {fallen:?}, never {never:?}");
        }
    }
}
