//! What comes of each thing that happens.

use super::{Knows, Scene, Spent, World};
use crate::daemon::{Caller, Daemon, Effects, Outcome, Role};
use crate::frame::{Body, Cursor, Frame, Generation, Nonce, Slot, events, head, read};
use crate::journal::{Journal, View};
use crate::rules::{Rule::*, Rules};

impl World {
    /// A writer in its first term, and a second daemon that has followed it.
    pub(super) fn begin(followers: u8) -> World {
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

    pub(super) fn view(&self, daemon: usize) -> View<'_> {
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
    pub(super) fn step(
        &mut self,
        at: usize,
        step: impl FnOnce(&mut Daemon, View<'_>, &mut Effects),
    ) {
        let mut daemon = self.daemons[at].clone();
        let mut effects = Effects::default();
        step(&mut daemon, self.view(at), &mut effects);
        self.daemons[at] = daemon;
        self.network.extend(effects.published);
        self.network.sort_unstable();
        self.network.dedup();
        for (caller, outcome) in effects.told {
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
    pub(super) fn answer(&mut self, told: u8) {
        let Some(when_asked) = self.asked.take() else { return };
        self.has_lied |= told < when_asked || told > head(&read(self.journal.stored()));
        self.answers += 1;
    }

    pub(super) fn arrive(&mut self, at: usize, is_answered: bool, rules: &Rules) {
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

    pub(super) fn store(&mut self, is_answered: bool, rules: &Rules) {
        let Some((Slot::Frame(frame), at)) = self.journal.store() else { return };
        let daemon = usize::from(frame.nonce.by);
        if is_answered && self.links[daemon].is_none() {
            self.step(daemon, |it, _, effects| it.is_stored(frame.nonce, at, rules, effects));
        }
    }

    /// The operator's tool appends from a daemon's copy, while nobody else appends.
    pub(super) fn reappend(&mut self, at: usize, rules: &Rules) {
        let mut daemon = self.daemons[at].clone();
        for frame in daemon.reappends(self.view(at), rules) {
            self.journal.put(Slot::Frame(frame));
        }
        self.daemons[at] = daemon;
        let held = read(self.journal.stored());
        for (op, client) in (0..).zip(&mut self.clients) {
            let Knows::Acked { cursor, is_lost } = &mut client.knows else { continue };
            let is_there = events(&held).any(|(frame, it)| {
                let there = Cursor { generation: frame.generation, seq: frame.first };
                it == op && there == *cursor
            });
            if *is_lost && is_there {
                *is_lost = false;
                self.spent.regained += 1;
            }
        }
    }

    pub(super) fn roll_back(&mut self, end: usize, rules: &Rules, scene: &Scene) {
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
        let held = read(self.journal.stored());
        for (op, client) in self.clients.iter_mut().enumerate() {
            let is_there = events(&held).any(|(_, it)| usize::from(it) == op);
            if let Knows::Acked { is_lost, .. } = &mut client.knows {
                *is_lost |= !is_there;
            }
        }
    }
}
