//! What can happen next, in each state.

use stateright::{Model, Property};

use super::{Action, Client, Knows, OldLeader, Protocol, World};
use crate::daemon::Role;
use crate::frame::{Slot, head, read, small};
use crate::properties;
use crate::rules::Rule::*;

impl Model for Protocol {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let mut world = World::begin(self.scene.followers);
        let client = Client { sends: 0, knows: Knows::Nothing };
        world.clients = vec![client; usize::from(self.scene.ops)];
        vec![world]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        let (scene, spent) = (&self.scene, &world.spent);
        let stored = world.journal.stored;
        for at in 0..world.daemons.len() {
            self.actions_of(world, at, actions);
        }
        if spent.asks < scene.asks && world.asked.is_none() {
            actions.push(Action::Ask);
        }
        for at in 0..world.network.len() {
            actions.extend([Action::Arrive(at, true), Action::Arrive(at, false)]);
        }
        if stored < world.journal.proposed.len() {
            actions.extend([Action::Store(true), Action::Store(false)]);
            if spent.elections < scene.elections {
                actions.push(Action::Elect);
            }
        } else {
            if spent.foreign < scene.foreign {
                actions.push(Action::Foreign);
            }
            if spent.purges < scene.purges {
                actions.push(Action::Purge);
            }
        }
        if spent.rollbacks < scene.rollbacks {
            actions.extend((0..stored).map(Action::RollBack));
        }
    }

    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        let mut world = last.clone();
        self.act(&mut world, action);
        if self.scene.asks == 0 {
            // Nobody asks: then it makes no difference, and takeovers may come at any time.
            world.daemons.iter_mut().for_each(|it| it.is_fresh = false);
        }
        (world != *last).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut all = properties::all(&self.scene);
        all.retain(|it| self.only.is_none_or(|only| it.name == only));
        all
    }
}

impl Protocol {
    fn actions_of(&self, world: &World, at: usize, actions: &mut Vec<Action>) {
        let (scene, spent) = (&self.scene, &world.spent);
        let daemon = &world.daemons[at];
        let is_with_leader = world.links[at].is_none();
        let is_idle = daemon.role == Role::Following && daemon.staged.is_empty();
        if matches!(daemon.role, Role::Writing(_)) && daemon.is_joined {
            let may_send = |client: &Client| {
                let is_open = matches!(client.knows, Knows::Nothing | Knows::Unknown);
                is_open && client.sends < scene.sends
            };
            let clients = world.clients.iter().enumerate();
            let open = clients.filter(|(_, client)| may_send(client));
            actions.extend(open.map(|(op, _)| Action::Send(small(op), at)));
        }
        if world.asked.is_some() {
            actions.push(Action::Answer(at));
            if daemon.is_ready(scene.in_flight) {
                actions.push(Action::Confirm(at));
            }
        }
        if !daemon.staged.is_empty() || daemon.proof.is_some() {
            actions.extend([Action::Retry(at), Action::Deadline(at)]);
        }
        if is_idle && daemon.is_joined && spent.takeovers < scene.takeovers {
            let others = world.daemons.iter().enumerate().filter(|(it, _)| *it != at);
            let is_silent = others.into_iter().all(|(_, it)| !it.is_fresh);
            if is_silent || !self.rules.has(SilenceFirst) {
                actions.push(Action::TakeOver(at));
            }
        }
        if daemon.is_fresh {
            actions.push(Action::Age(at));
        }
        if is_idle && daemon.is_joined && is_with_leader {
            let next = daemon.copy.len() + 1;
            let has = world.journal.stored;
            actions.extend((next..=has).take(2).map(|slot| Action::Tail(at, slot)));
            if daemon.copy.len() < world.stray.len() {
                actions.push(Action::TailOfStray(at));
            }
        }
        if !daemon.is_joined && daemon.role != Role::Diverged {
            actions.push(Action::Rejoin(at));
            if daemon.proof.is_none() && spent.proofs < scene.proofs {
                actions.push(Action::Prove(at));
            }
        }
        if daemon.role == Role::Diverged && is_with_leader {
            actions.push(Action::Accept(at));
            let is_still = world.journal.stored == world.journal.proposed.len();
            if is_still && spent.repairs < scene.repairs {
                actions.push(Action::Reappend(at));
            }
        }
        if spent.crashes < scene.crashes {
            actions.extend([Action::Crash(at, false), Action::Crash(at, true)]);
        }
        if !is_with_leader {
            actions.push(Action::Heal(at));
        } else if spent.cuts < scene.cuts {
            actions.extend((0..2).map(|behind| Action::Cut(at, behind)));
        }
    }

    fn act(&self, world: &mut World, action: Action) {
        let (rules, scene) = (&self.rules, &self.scene);
        match action {
            Action::Send(op, to) => {
                let client = &mut world.clients[usize::from(op)];
                let before = *client;
                *client = Client { sends: client.sends + 1, knows: Knows::Waits };
                let staged = world.daemons[to].staged.len();
                world.step(to, |it, _, effects| it.takes(op, scene.in_flight, rules, effects));
                let client = &mut world.clients[usize::from(op)];
                if client.knows == Knows::Waits && world.daemons[to].staged.len() == staged {
                    // It is busy: the client is still to send.
                    *client = before;
                }
            }
            Action::Ask => {
                world.spent.asks += 1;
                world.asked = Some(head(&read(world.journal.stored())));
            }
            Action::Answer(by) => {
                if let Some(head) = world.daemons[by].head_at_once(world.view(by), rules) {
                    world.answer(head);
                }
            }
            Action::Confirm(by) => world.step(by, |it, _, effects| it.confirms(rules, effects)),
            Action::Retry(by) => {
                world.step(by, |it, view, effects| it.retries(view, rules, effects));
            }
            Action::Deadline(at) => world.step(at, |it, _, effects| it.is_late(rules, effects)),
            Action::TakeOver(by) => {
                world.spent.takeovers += 1;
                world.step(by, |it, view, effects| it.takes_over(view, rules, effects));
            }
            Action::Age(at) => world.daemons[at].is_fresh = false,
            Action::Tail(at, slot) => {
                let message = world.journal.stored()[slot - 1];
                world.step(at, |it, view, effects| it.follows(slot, message, view, rules, effects));
            }
            Action::TailOfStray(at) => {
                let slot = world.daemons[at].copy.len();
                let message = world.stray[slot];
                world.step(at, |it, view, effects| {
                    it.follows(slot + 1, message, view, rules, effects);
                });
            }
            Action::Rejoin(at) => world.step(at, |it, view, effects| it.rejoins(view, effects)),
            Action::Prove(at) => {
                world.spent.proofs += 1;
                world.step(at, |it, view, effects| it.proves_a_loss(view, effects));
            }
            Action::Arrive(at, is_answered) => world.arrive(at, is_answered, rules),
            Action::Store(is_answered) => world.store(is_answered, rules),
            Action::Elect => {
                world.spent.elections += 1;
                world.journal.elect();
            }
            Action::Crash(at, forgets) => {
                world.spent.crashes += 1;
                world.step(at, |it, _, effects| it.restarts(forgets, rules, effects));
            }
            Action::Cut(at, behind) => {
                world.spent.cuts += 1;
                let stored = world.journal.stored.saturating_sub(behind);
                world.links[at] = Some(OldLeader { stored, end: stored });
                world.daemons[at].connects(rules);
            }
            Action::Heal(at) => {
                world.links[at] = None;
                world.daemons[at].connects(rules);
            }
            Action::RollBack(end) => {
                world.spent.rollbacks += 1;
                world.roll_back(end, rules, scene);
            }
            Action::Foreign => {
                world.spent.foreign += 1;
                world.journal.put(Slot::Foreign);
            }
            Action::Purge => {
                world.spent.purges += 1;
                world.journal.purge();
            }
            Action::Reappend(at) => {
                world.spent.repairs += 1;
                world.reappend(at, rules);
            }
            Action::Accept(at) => world.step(at, |it, view, _| it.accepts(view)),
        }
    }
}
