//! What a daemon does: the protocol itself. `world.rs` decides when, and what arrives.

use crate::frame::{
    Body, Chain, Cursor, Frame, Generation, Id, Meaning, Nonce, Op, Slot, chain, events,
    generation, head, look_up, small,
};
use crate::journal::{Publish, View};
use crate::rules::{Rule::*, Rules};

/// A daemon: a reader always, a writer while it holds a term.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Daemon {
    id: Id,
    /// Its local copy, slot by slot. What its watchers were shown are the events in it.
    pub copy: Vec<Slot>,
    /// What it takes itself for.
    pub role: Role,
    /// The commit that is in flight or in doubt.
    pub staged: Option<Staged>,
    /// An empty commit that is to prove that the log ends before the own copy does.
    pub proof: Option<Publish>,
    /// Whether it has seen, on this connection, that its copy is a beginning of the journal.
    pub is_joined: bool,
    /// Whether a commit of its own was stored so lately that nobody can have taken over since.
    pub is_fresh: bool,
    /// How many nonces it has drawn.
    drawn: u8,
}

/// What a daemon takes itself for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// It follows. With a TERM frame staged it is taking over.
    Following,
    /// It writes in this generation, or believes so.
    Writing(Generation),
    /// Its copy is of another history than the journal. It appends and takes nothing until
    /// somebody decides, and its watches beyond what both share end with LOG_DIVERGED.
    Diverged,
}

/// A commit whose outcome is not known yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Staged {
    /// The bytes, and N.
    pub publish: Publish,
    /// Who waits for it.
    pub caller: Caller,
}

/// Who waits for a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Caller {
    /// Nobody, or nobody any more.
    Nobody,
    /// A client, to hear that its event is stored.
    Client(Op),
    /// Somebody who wants to know the head.
    Confirm,
}

/// What a caller is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Durable; where its event is.
    Stored(Cursor),
    /// This commit is not stored, and never will be.
    NotStored(Nonce),
    /// It may be stored now, later, or never.
    Unknown,
}

/// What a step of a daemon asks of the world.
#[derive(Default)]
pub struct Effects {
    /// Sent to the journal.
    pub publish: Option<Publish>,
    /// Told to a caller.
    pub told: Option<(Caller, Outcome)>,
}

impl Daemon {
    /// One that holds these slots.
    pub fn new(id: Id, copy: Vec<Slot>, role: Role, drawn: u8) -> Daemon {
        let (staged, proof) = (None, None);
        Daemon { id, copy, role, staged, proof, is_joined: true, is_fresh: false, drawn }
    }

    /// The slot that its copy goes up to: N.
    fn end(&self) -> u8 {
        small(self.copy.len())
    }

    fn draw(&mut self) -> Nonce {
        self.drawn += 1;
        Nonce { by: self.id, count: self.drawn }
    }

    // Appending.

    /// Whether it may stage something.
    pub fn is_ready(&self) -> bool {
        matches!(self.role, Role::Writing(_)) && self.is_joined && self.staged.is_none()
    }

    /// A client wants an event stored: a repeat is answered, anything else staged.
    pub fn takes(&mut self, op: Op, rules: &Rules, effects: &mut Effects) {
        let Role::Writing(own) = self.role else { return };
        let is_known = |frame: &Frame| rules.has(WindowFollows) || frame.generation == own;
        let known = events(&self.copy).find(|(frame, it)| *it == op && is_known(frame));
        let mut repeat = known.map(|(frame, _)| *frame);
        if let Some(staged) = self.staged.filter(|it| it.publish.frame.body == Body::Event(op)) {
            repeat = repeat.or((!rules.has(RepeatsAreDurable)).then_some(staged.publish.frame));
        }
        match repeat {
            Some(frame) => effects.told = Some((Caller::Client(op), stored(&frame))),
            None if self.is_ready() => {
                self.stages(Body::Event(op), own, Caller::Client(op), rules, effects);
            }
            None => {}
        }
    }

    /// Somebody wants to know the head: an empty commit finds it out.
    pub fn confirms(&mut self, rules: &Rules, effects: &mut Effects) {
        let Role::Writing(own) = self.role else { return };
        self.stages(Body::Empty, own, Caller::Confirm, rules, effects);
    }

    fn stages(
        &mut self,
        body: Body,
        generation: Generation,
        caller: Caller,
        rules: &Rules,
        effects: &mut Effects,
    ) {
        let nonce = self.draw();
        let first = head(&self.copy) + 1;
        let frame = Frame { generation, first, nonce, previous: chain(&self.copy), body };
        self.sends(frame, caller, effects);
        if !rules.has(DurableBeforeShown) {
            self.copy.push(Slot::Frame(frame));
        }
    }

    fn sends(&mut self, frame: Frame, caller: Caller, effects: &mut Effects) {
        let publish = Publish { frame, after: self.end() };
        self.staged = Some(Staged { publish, caller });
        effects.publish = Some(publish);
    }

    /// The commit is staged anew at the end of the copy: what its N was is taken by another.
    fn stages_anew(&mut self, effects: &mut Effects) {
        let Some(Staged { publish, caller }) = self.staged else { return };
        let previous = chain(&self.copy);
        self.sends(Frame { previous, ..publish.frame }, caller, effects);
    }

    /// No answer came, or the connection was lost: the same bytes with the same N once more. A
    /// proof is tried again likewise.
    pub fn retries(&mut self, view: View<'_>, rules: &Rules, effects: &mut Effects) {
        if let Some(proof) = self.proof {
            effects.publish = Some(proof);
        } else if let Some(staged) = self.staged.filter(|_| self.is_joined) {
            if rules.has(SameBytesSamePlace) {
                effects.publish = Some(staged.publish);
                return;
            }
            self.copy = view.readable.to_vec();
            let Frame { body, generation, .. } = staged.publish.frame;
            self.stages(body, generation, staged.caller, rules, effects);
        }
    }

    /// The journal has it, and says at which sequence.
    pub fn is_stored(&mut self, nonce: Nonce, at: usize, rules: &Rules, effects: &mut Effects) {
        let is = |it: Publish| {
            let is_there = at == usize::from(it.after) + 1;
            it.frame.nonce == nonce && (is_there || !rules.has(AckNamesItsPlace))
        };
        if self.proof.is_some_and(is) {
            self.has_lost(rules, effects);
        } else if self.staged.is_some_and(|it| is(it.publish)) {
            self.settles(effects);
            self.is_fresh = true;
        }
    }

    /// The commit in doubt is durable.
    fn settles(&mut self, effects: &mut Effects) {
        let Some(Staged { publish, caller }) = self.staged.take() else { return };
        let frame = publish.frame;
        self.copy.push(Slot::Frame(frame));
        if frame.body == Body::Term {
            self.role = Role::Writing(frame.generation);
        }
        effects.told = Some((caller, stored(&frame)));
    }

    /// The journal, or an old leader, refuses what was to follow on `after`: it says that the log
    /// ends elsewhere. That is a hint; what N+1 holds decides.
    pub fn is_refused(
        &mut self,
        publish: Publish,
        view: View<'_>,
        rules: &Rules,
        effects: &mut Effects,
    ) {
        if self.proof == Some(publish) {
            self.proof = None;
        }
        if self.staged.is_none_or(|it| it.publish != publish) {
            return;
        }
        if !rules.has(ReadWhoseItIs) {
            self.steps_down(effects);
        } else if view.end < usize::from(publish.after) {
            self.suspects_a_loss(rules, effects);
        } else {
            self.reads_whose_it_is(publish.frame, view, rules, effects);
        }
    }

    fn reads_whose_it_is(
        &mut self,
        own: Frame,
        view: View<'_>,
        rules: &Rules,
        effects: &mut Effects,
    ) {
        let mut is_passed = false;
        loop {
            let at = self.copy.len();
            if at < view.purged && rules.has(PurgedEndStops) {
                return self.diverges(effects);
            }
            let slot = if at < view.purged { Some(&Slot::Purged) } else { view.readable.get(at) };
            match slot {
                None if is_passed => return self.stages_anew(effects),
                None if rules.has(UnreadableIsDoubt) => return,
                None => return self.steps_down(effects),
                Some(Slot::Foreign) if !rules.has(ForeignIsSkipped) => return,
                Some(Slot::Frame(frame)) if frame.nonce == own.nonce => {
                    return self.settles(effects);
                }
                Some(Slot::Frame(frame)) if self.ends_by(frame, own, rules) => {
                    return self.steps_down(effects);
                }
                // Somebody's proof: a frame of this history, and no takeover.
                Some(slot @ Slot::Frame(_)) if !self.joins(slot, rules) => {
                    return self.diverges(effects);
                }
                Some(slot) => self.copy.push(*slot),
            }
            is_passed = true;
        }
    }

    /// Whether another's frame at N+1 ends this term, or the attempt to begin one.
    fn ends_by(&self, frame: &Frame, own: Frame, rules: &Rules) -> bool {
        own.body == Body::Term || frame.body == Body::Term && rules.has(FencedByTerm)
    }

    /// It writes no more. N+1 is another's, so what was staged is stored never.
    fn steps_down(&mut self, effects: &mut Effects) {
        (self.role, self.is_fresh) = (Role::Following, false);
        if let Some(Staged { publish, caller }) = self.staged.take() {
            effects.told = Some((caller, Outcome::NotStored(publish.frame.nonce)));
        }
    }

    /// The caller has waited long enough. The daemon goes on asking.
    pub fn is_late(&mut self, rules: &Rules, effects: &mut Effects) {
        let Some(staged) = &mut self.staged else { return };
        let outcome = match rules.has(NoAnswerIsDoubt) {
            true => Outcome::Unknown,
            false => Outcome::NotStored(staged.publish.frame.nonce),
        };
        effects.told = Some((std::mem::replace(&mut staged.caller, Caller::Nobody), outcome));
        if !rules.has(NoAnswerIsDoubt) || !rules.has(OneInDoubt) {
            self.staged = None;
        }
    }

    // Taking over.

    /// It has heard nothing of a writer for long enough, and wants to be it.
    pub fn takes_over(&mut self, view: View<'_>, rules: &Rules, effects: &mut Effects) {
        if rules.has(TermReadsBack) {
            self.is_joined = false;
            self.rejoins(view, effects);
            if !self.is_joined {
                return;
            }
        }
        let last = generation(&self.copy);
        let nonce = Nonce { by: self.id, count: self.drawn + 1 };
        let new = Generation { term: last.map_or(1, |it| it.term + 1), nonce };
        let own = last.filter(|_| !rules.has(TermIsAGeneration)).unwrap_or(new);
        if rules.has(TermIsAppended) {
            self.stages(Body::Term, own, Caller::Nobody, rules, effects);
        } else {
            self.role = Role::Writing(last.unwrap_or(new));
        }
    }

    // Answering.

    /// The head, if it may be told without a commit.
    pub fn head_at_once(&self, view: View<'_>, rules: &Rules) -> Option<u8> {
        if self.staged.is_some() && rules.has(InFlightFirst) {
            return None;
        }
        let is_writer = matches!(self.role, Role::Writing(_)) && self.is_joined;
        let is_sure = self.is_fresh
            || !rules.has(ConfirmedByCommit)
            || !rules.has(InfoIsNoProof) && view.end == self.copy.len();
        let may_answer = is_writer && is_sure || !is_writer && !rules.has(CaughtUpIsConfirmed);
        may_answer.then(|| head(&self.copy))
    }

    /// What a client with this cursor is told here and now; none if the writer must be asked.
    pub fn resumes(&self, cursor: Cursor, rules: &Rules) -> Option<Meaning> {
        let meaning = look_up(&self.copy, cursor);
        let is_certain = matches!(meaning, Meaning::Event(_) | Meaning::Diverged);
        (is_certain || !rules.has(AheadIsConfirmed)).then_some(meaning)
    }

    // Following.

    /// Its tail brings the message at this sequence, counted from 1.
    pub fn follows(&mut self, at: usize, slot: Slot, rules: &Rules, effects: &mut Effects) {
        if at > self.copy.len() + 1 && rules.has(TailHasNoHoles) {
            return;
        }
        if slot == Slot::Foreign && !rules.has(ForeignIsSkipped) {
            return;
        }
        if self.joins(&slot, rules) {
            self.copy.push(slot);
        } else {
            self.diverges(effects);
        }
    }

    fn joins(&self, slot: &Slot, rules: &Rules) -> bool {
        match slot {
            Slot::Frame(frame) => joins(frame, chain(&self.copy)) || !rules.has(FramesJoin),
            Slot::Foreign | Slot::Purged => true,
        }
    }

    /// The connection is made anew.
    pub fn connects(&mut self, rules: &Rules) {
        self.is_joined = !rules.has(RejoinByChain);
    }

    /// It reads back what is at the end of its copy. Nothing there proves nothing.
    pub fn rejoins(&mut self, view: View<'_>, effects: &mut Effects) {
        let end = self.copy.len();
        let Some(there) = view.readable.get(..end) else { return };
        if there.last() == self.copy.last() && chain(there) == chain(&self.copy) {
            (self.is_joined, self.proof) = (true, None);
        } else {
            self.diverges(effects);
        }
    }

    // What the journal lost.

    /// The log ends before N, by the word of somebody who may be an old leader.
    fn suspects_a_loss(&mut self, rules: &Rules, effects: &mut Effects) {
        self.is_joined = false;
        if !rules.has(LossIsProven) {
            self.has_lost(rules, effects);
        }
    }

    /// It asks a quorum whether the log ends where it is said to end.
    pub fn proves_a_loss(&mut self, view: View<'_>, effects: &mut Effects) {
        let Some(shared) = self.copy.get(..view.end).filter(|it| it.len() < self.copy.len()) else {
            return;
        };
        if view.readable.len() < view.end {
            return;
        }
        if chain(shared) != chain(view.readable) {
            return self.diverges(effects);
        }
        let first = head(shared) + 1;
        let (previous, own) = (chain(shared), generation(shared));
        let nonce = self.draw();
        let generation = own.unwrap_or(Generation { term: 0, nonce });
        let frame = Frame { generation, first, nonce, previous, body: Body::Empty };
        self.proof = Some(Publish { frame, after: small(view.end) });
        effects.publish = self.proof;
    }

    fn has_lost(&mut self, rules: &Rules, effects: &mut Effects) {
        if rules.has(DivergedStops) {
            return self.diverges(effects);
        }
        // What is in doubt, on the end as it is now.
        let proof = self.proof.take();
        let Some(Staged { publish, caller }) = self.staged else { return };
        let after = proof.map_or(publish.after, |it| it.after + 1);
        let publish = Publish { after, ..publish };
        self.staged = Some(Staged { publish, caller });
        (self.is_joined, effects.publish) = (true, Some(publish));
    }

    fn diverges(&mut self, effects: &mut Effects) {
        (self.role, self.is_fresh, self.is_joined) = (Role::Diverged, false, false);
        self.proof = None;
        if let Some(Staged { caller, .. }) = self.staged.take() {
            effects.told = Some((caller, Outcome::Unknown));
        }
    }

    /// Somebody accepts the loss: what the journal does not have is set aside.
    pub fn accepts(&mut self, view: View<'_>) {
        let both = self.copy.iter().zip(view.readable);
        self.copy.truncate(both.take_while(|(own, there)| own == there).count());
        (self.role, self.is_joined) = (Role::Following, true);
    }

    /// It was killed and comes back with its copy, or with none.
    pub fn restarts(&mut self, forgets: bool, rules: &Rules, effects: &mut Effects) {
        if let Some(Staged { caller, .. }) = self.staged.take() {
            effects.told = Some((caller, Outcome::Unknown));
        }
        if forgets {
            self.copy.clear();
        }
        (self.role, self.proof, self.is_fresh) = (Role::Following, None, false);
        self.connects(rules);
    }
}

/// Whether a frame goes on from this history.
pub fn joins(frame: &Frame, history: Chain) -> bool {
    frame.previous == history
}

fn stored(frame: &Frame) -> Outcome {
    Outcome::Stored(Cursor { generation: frame.generation, seq: frame.first })
}
