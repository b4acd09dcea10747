//! Everything around the daemons: clients, the network, the journal's servers and their faults.
//! Whatever can happen next, does, in every order; a scene bounds how often.

use stateright::{Model, Property};

use crate::daemon::{Caller, Daemon, Effects, Outcome, Role};
use crate::frame::{Body, Cursor, Frame, Generation, Nonce, Op, Slot, events, head, small};
use crate::journal::{Journal, Publish, View};
use crate::properties;
use crate::rules::{Rule::*, Rules};

/// The model: the protocol in a scene.
#[derive(Clone, Debug, Default)]
pub struct Protocol {
    /// The rules in force.
    pub rules: Rules,
    /// What may happen, and how often.
    pub scene: Scene,
    /// The one property that is looked at, if not all: its path is then the shortest.
    pub only: Option<&'static str>,
}

/// How often things may happen. What is not counted here may happen as often as it likes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scene {
    /// Events that clients want stored, each with an idempotent id.
    pub ops: u8,
    /// Times that each is sent.
    pub sends: u8,
    /// Takeovers that are tried.
    pub takeovers: u8,
    /// Questions that depend on the head.
    pub asks: u8,
    /// Daemons killed.
    pub crashes: u8,
    /// Leaders of the journal lost with what they had only proposed.
    pub elections: u8,
    /// Daemons whose connection is to a leader that was cut off and does not know it.
    pub cuts: u8,
    /// Snapshots put back. With it go so many proofs of a loss.
    pub rollbacks: u8,
    /// Proofs of a loss that are tried.
    pub proofs: u8,
    /// Whether a replica keeps what was rolled back, and serves it to who follows.
    pub has_stray_replica: bool,
    /// Messages of others.
    pub foreign: u8,
    /// Purges beyond the end.
    pub purges: u8,
    /// Daemons beside the first writer.
    pub followers: u8,
}

/// Everything that there is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    /// The stream.
    pub journal: Journal,
    /// What a replica that was not put back holds.
    pub stray: Vec<Slot>,
    /// Publishes under way, in order of no meaning.
    pub network: Vec<Publish>,
    /// The daemons.
    pub daemons: Vec<Daemon>,
    /// For each daemon the old leader that it is connected to, if it is.
    pub links: Vec<Option<OldLeader>>,
    /// What the client of each event knows.
    pub clients: Vec<Client>,
    /// A question under way: the head when it began.
    pub asked: Option<u8>,
    /// What has happened so often already.
    pub spent: Spent,
    /// The commits whose callers were told that they are not stored and will not be.
    pub denied: Vec<Nonce>,
    /// A head was told that the log did not have at any moment of the question.
    pub has_lied: bool,
    /// Questions that were answered.
    pub answers: u8,
}

/// A leader that a majority has left. It goes on believing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OldLeader {
    /// What it can read.
    stored: usize,
    /// What it says that the end is: it counts what it proposes to nobody.
    end: usize,
}

/// The client of one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Client {
    /// Times that it has sent it.
    pub sends: u8,
    /// What it knows.
    pub knows: Knows,
}

/// What a client knows of its event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Knows {
    /// It is not stored; it may be sent.
    Nothing,
    /// It was sent, and no answer is there.
    Waits,
    /// It heard that the outcome is unknown. It may send it again, to any daemon.
    Unknown,
    /// It is stored. `is_lost`: the journal was rolled back to before it, after that.
    Acked {
        /// Where it is.
        cursor: Cursor,
        /// Whether it was lost with the journal's tail.
        is_lost: bool,
    },
}

/// How often what a scene bounds has happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Spent {
    takeovers: u8,
    asks: u8,
    crashes: u8,
    elections: u8,
    cuts: u8,
    /// Snapshots that were put back.
    pub rollbacks: u8,
    proofs: u8,
    foreign: u8,
    /// Purges beyond the end.
    pub purges: u8,
}

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// A client sends its event; it reaches a daemon that believes to be the writer, directly or
    /// forwarded by another.
    Send(Op, usize),
    /// Somebody asks for what depends on the head: HEAD_MOVED, a hole, AHEAD, CAUGHT_UP.
    Ask,
    /// A daemon answers with the head that it has.
    Answer(usize),
    /// A writer appends an empty commit to answer.
    Confirm(usize),
    /// No answer to a publish: once more.
    Retry(usize),
    /// A caller's deadline is over.
    Deadline(usize),
    /// A daemon appends a TERM frame, or tries to.
    TakeOver(usize),
    /// A second passes.
    Age(usize),
    /// The tail of a daemon brings a message.
    Tail(usize, usize),
    /// The same from the replica that was not put back.
    TailOfStray(usize),
    /// A daemon reads back its own last frame.
    Rejoin(usize),
    /// A daemon tries to prove that the journal has lost something.
    Prove(usize),
    /// A publish arrives. A refusal is answered, or its answer is lost.
    Arrive(usize, bool),
    /// A quorum has the oldest proposal; the ack arrives, or is lost.
    Store(bool),
    /// The journal elects another leader.
    Elect,
    /// A daemon is killed and started again, with its copy or without.
    Crash(usize, bool),
    /// A daemon finds itself with a leader that was cut off so many messages before the end.
    Cut(usize, usize),
    /// That leader hears that it is none.
    Heal(usize),
    /// All servers of the journal come back with a snapshot that goes up to here.
    RollBack(usize),
    /// Somebody else publishes to the subject.
    Foreign,
    /// Somebody else purges beyond the end.
    Purge,
    /// `journal repair --accept` at a daemon.
    Accept(usize),
}

impl World {
    /// A writer in its first term, and a second daemon that has followed it.
    fn begin(followers: u8) -> World {
        let nonce = Nonce { by: 0, count: 1 };
        let generation = Generation { term: 1, nonce };
        let term = Frame { generation, first: 1, nonce, previous: 0, body: Body::Term };
        let slots = vec![Slot::Frame(term)];
        let writer = Daemon::new(0, slots.clone(), Role::Writing(generation), 1);
        let follow = |id| Daemon::new(id, slots.clone(), Role::Following, 0);
        let daemons: Vec<_> = [writer].into_iter().chain((1..=followers).map(follow)).collect();
        World {
            links: vec![None; daemons.len()],
            daemons,
            journal: Journal { proposed: slots, stored: 1, purged: 0 },
            stray: Vec::new(),
            network: Vec::new(),
            clients: Vec::new(),
            asked: None,
            spent: Spent::default(),
            denied: Vec::new(),
            has_lied: false,
            answers: 0,
        }
    }

    fn view(&self, daemon: usize) -> View<'_> {
        let stored = self.journal.stored();
        match self.links[daemon] {
            None => self.journal.view(),
            Some(old) => {
                let readable = &stored[..old.stored.min(stored.len())];
                View { readable, purged: 0, end: old.end }
            }
        }
    }

    /// A step of one daemon, with what it reads over its connection, and what comes of it.
    fn step(&mut self, at: usize, step: impl FnOnce(&mut Daemon, View<'_>, &mut Effects)) {
        let mut daemon = self.daemons[at].clone();
        let mut effects = Effects::default();
        step(&mut daemon, self.view(at), &mut effects);
        self.daemons[at] = daemon;
        if let Some(publish) = effects.publish {
            self.network.push(publish);
            self.network.sort_unstable();
            self.network.dedup();
        }
        if let Some((caller, outcome)) = effects.told {
            self.tell(caller, outcome);
        }
    }

    fn tell(&mut self, caller: Caller, outcome: Outcome) {
        match (caller, outcome) {
            (Caller::Nobody, _) => {}
            (Caller::Client(op), Outcome::Stored(cursor)) => {
                self.clients[usize::from(op)].knows = Knows::Acked { cursor, is_lost: false };
            }
            (Caller::Client(op), Outcome::Unknown) => {
                self.clients[usize::from(op)].knows = Knows::Unknown;
            }
            (Caller::Client(op), Outcome::NotStored(nonce)) => {
                self.clients[usize::from(op)].knows = Knows::Nothing;
                self.denied.push(nonce);
                self.denied.sort_unstable();
            }
            (Caller::Confirm, Outcome::Stored(cursor)) => self.answer(cursor.seq - 1),
            (Caller::Confirm, _) => self.asked = None,
        }
    }

    /// The question is answered with this head.
    fn answer(&mut self, told: u8) {
        let Some(when_asked) = self.asked.take() else { return };
        self.has_lied |= told < when_asked || told > head(self.journal.stored());
        self.answers += 1;
    }

    fn arrive(&mut self, at: usize, is_answered: bool, rules: &Rules) {
        let publish = self.network.remove(at);
        let daemon = usize::from(publish.frame.nonce.by);
        let refused = match &mut self.links[daemon] {
            None => self.journal.propose(publish, rules.has(CompareAndSwap)).is_err(),
            Some(old) if old.end == usize::from(publish.after) => {
                old.end += 1;
                false
            }
            Some(_) => true,
        };
        if refused && is_answered {
            self.step(daemon, |it, view, effects| it.is_refused(publish, view, rules, effects));
        }
    }

    fn store(&mut self, is_answered: bool, rules: &Rules) {
        let Some((Slot::Frame(frame), at)) = self.journal.store() else { return };
        let daemon = usize::from(frame.nonce.by);
        if is_answered && self.links[daemon].is_none() {
            self.step(daemon, |it, _, effects| it.is_stored(frame.nonce, at, rules, effects));
        }
    }

    fn roll_back(&mut self, end: usize, rules: &Rules, scene: &Scene) {
        if scene.has_stray_replica {
            self.stray = self.journal.stored().to_vec();
        }
        self.journal.roll_back(end);
        // All servers were restarted: all connections are new, and what lay in them is gone.
        self.network.clear();
        self.asked = None;
        for (daemon, link) in self.daemons.iter_mut().zip(&mut self.links) {
            *link = None;
            daemon.connects(rules);
        }
        for (op, client) in self.clients.iter_mut().enumerate() {
            let is_there = events(self.journal.stored()).any(|(_, it)| usize::from(it) == op);
            if let Knows::Acked { is_lost, .. } = &mut client.knows {
                *is_lost |= !is_there;
            }
        }
    }
}

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
        let is_idle = daemon.role == Role::Following && daemon.staged.is_none();
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
            if daemon.is_ready() {
                actions.push(Action::Confirm(at));
            }
        }
        if daemon.staged.is_some() || daemon.proof.is_some() {
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
                let staged = world.daemons[to].staged;
                world.step(to, |it, _, effects| it.takes(op, rules, effects));
                let client = &mut world.clients[usize::from(op)];
                if client.knows == Knows::Waits && world.daemons[to].staged == staged {
                    // It is busy: the client is still to send.
                    *client = before;
                }
            }
            Action::Ask => {
                world.spent.asks += 1;
                world.asked = Some(head(world.journal.stored()));
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
                world.step(at, |it, _, effects| it.follows(slot, message, rules, effects));
            }
            Action::TailOfStray(at) => {
                let slot = world.daemons[at].copy.len();
                let message = world.stray[slot];
                world.step(at, |it, _, effects| it.follows(slot + 1, message, rules, effects));
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
            Action::Accept(at) => world.step(at, |it, view, _| it.accepts(view)),
        }
    }
}
