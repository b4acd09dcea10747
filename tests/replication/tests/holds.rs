//! With all rules everything holds, in every order of everything that a scene lets happen.

#![allow(missing_docs)]

use std::time::Instant;

use stateright::{Checker, Expectation, Model};
use tailmark_replication_model::scenes;
use tailmark_replication_model::world::{Protocol, Scene};

/// What does not come out as it must.
fn wrong(name: &str, scene: Scene) -> Vec<String> {
    let began = Instant::now();
    let checker = Protocol { scene, ..Protocol::default() }.checker().spawn_bfs().join();
    let (states, steps) = (checker.unique_state_count(), checker.state_count());
    let (depth, took) = (checker.max_depth(), began.elapsed());
    println!("{name}: {states} states, {steps} steps, {depth} deep, {took:.1?}");
    let discoveries = checker.discoveries();
    let mut wrong = Vec::new();
    for property in checker.model().properties() {
        let found = discoveries.get(property.name).map(|path| path.clone().into_actions());
        match (property.expectation, found) {
            (Expectation::Sometimes, None) => {
                wrong.push(format!("{name}: never: {}", property.name))
            }
            (Expectation::Always, Some(actions)) => {
                wrong.push(format!("{name}: not always: {}: {actions:?}", property.name));
            }
            _ => {}
        }
    }
    wrong
}

fn hold(scenes: &[(&str, Scene)]) {
    let wrong: Vec<String> = scenes.iter().flat_map(|(name, scene)| wrong(name, *scene)).collect();
    assert_eq!(wrong, [""; 0]);
}

#[test]
fn in_every_scene() {
    hold(&scenes::ALL);
}

#[test]
#[ignore = "minutes"]
fn in_large_scenes() {
    hold(&scenes::LARGE);
}
