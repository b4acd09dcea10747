//! Appending, and taking over.

use super::{Caller, Daemon, Effects, Outcome, Role, Staged, joins, stored};
use crate::frame::{
    Body, Frame, Generation, Nonce, Op, Slot, chain, events, generation, head, read, small,
};
use crate::journal::{Publish, View};
use crate::rules::{Rule::*, Rules};

impl Daemon {
    /// Whether it may stage something, with so many commits in flight at most.
    pub fn is_ready(&self, in_flight: usize) -> bool {
        let writes = matches!(self.role, Role::Writing(_)) && self.is_joined;
        writes && !self.is_alone && self.staged.len() < in_flight
    }

    /// A client wants an event stored: a repeat is answered, anything else staged.
    pub fn takes(&mut self, op: Op, in_flight: usize, rules: &Rules, effects: &mut Effects) {
        let Role::Writing(own) = self.role else { return };
        let is_known = |frame: &Frame| rules.has(WindowFollows) || frame.generation == own;
        let known = events(&self.copy).find(|(frame, it)| *it == op && is_known(frame));
        let mut repeat = known.map(|(frame, _)| *frame);
        let mut staged = self.staged.iter().map(|it| it.publish.frame);
        let staged = staged.find(|frame| frame.body == Body::Event(op));
        repeat = repeat.or(staged.filter(|_| !rules.has(RepeatsAreDurable)));
        match repeat {
            Some(frame) => effects.told.push((Caller::Client(op), stored(&frame))),
            // A repeat of what is in doubt waits until that is settled.
            None if staged.is_none() && self.is_ready(in_flight) => {
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
        let frame = Frame { generation, first: 0, nonce, previous: 0, body };
        self.sends(frame, caller, effects);
        if !rules.has(DurableBeforeShown) {
            self.copy.extend(self.staged.last().map(|it| Slot::Frame(it.publish.frame)));
        }
    }

    /// Stages a frame behind all that is staged, as if that were durable.
    fn sends(&mut self, frame: Frame, caller: Caller, effects: &mut Effects) {
        let mut all = self.copy.clone();
        all.extend(self.staged.iter().map(|it| Slot::Frame(it.publish.frame)));
        let (first, previous) = (head(&all) + 1, chain(&all));
        let publish =
            Publish { frame: Frame { first, previous, ..frame }, after: small(all.len()) };
        self.staged.push(Staged { publish, caller, is_acked: false });
        effects.published.push(publish);
    }

    /// All that is staged is staged anew at the end of the copy: what its N was is taken. Those
    /// behind the first follow when that is durable.
    fn stages_anew(&mut self, rules: &Rules, effects: &mut Effects) {
        for Staged { publish, caller, .. } in std::mem::take(&mut self.staged) {
            self.sends(publish.frame, caller, effects);
        }
        if rules.has(RefusedGoesAlone) {
            self.is_alone = true;
            effects.published.truncate(1);
        }
    }

    /// No answer came, or the connection was lost: the same bytes with the same N once more. A
    /// proof is tried again likewise.
    pub fn retries(&mut self, view: View<'_>, rules: &Rules, effects: &mut Effects) {
        if let Some(proof) = self.proof {
            effects.published.push(proof);
        } else if self.is_joined && rules.has(SameBytesSamePlace) {
            let window = if self.is_alone { 1 } else { self.staged.len() };
            effects.published.extend(self.staged.iter().take(window).map(|it| it.publish));
        } else if self.is_joined && !self.staged.is_empty() {
            self.copy = read(view.readable);
            for Staged { publish, caller, .. } in std::mem::take(&mut self.staged) {
                let Frame { body, generation, .. } = publish.frame;
                self.stages(body, generation, caller, rules, effects);
            }
        }
    }

    /// The journal has it, and says at which sequence.
    pub fn is_stored(&mut self, nonce: Nonce, at: usize, rules: &Rules, effects: &mut Effects) {
        let is = |it: Publish| {
            let is_there = at == usize::from(it.after) + 1;
            it.frame.nonce == nonce && (is_there || !rules.has(AckNamesItsPlace))
        };
        if self.proof.is_some_and(is) {
            return self.has_lost(rules, effects);
        }
        let Some(which) = self.staged.iter().position(|it| is(it.publish)) else { return };
        self.staged[which].is_acked = true;
        if !rules.has(AcksInOrder) {
            self.staged.swap(0, which);
        }
        while self.staged.first().is_some_and(|it| it.is_acked) {
            self.settles(effects);
            self.is_fresh = true;
        }
    }

    /// The oldest commit in doubt is durable.
    fn settles(&mut self, effects: &mut Effects) {
        let Staged { publish, caller, .. } = self.staged.remove(0);
        let frame = publish.frame;
        self.copy.push(Slot::Frame(frame));
        if frame.body == Body::Term {
            self.role = Role::Writing(frame.generation);
        }
        effects.told.push((caller, stored(&frame)));
        if std::mem::take(&mut self.is_alone) {
            effects.published.extend(self.staged.iter().map(|it| it.publish));
        }
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
        // Of one behind another a refusal says nothing.
        if self.staged.first().is_none_or(|it| it.publish != publish) {
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
                None if is_passed => return self.stages_anew(rules, effects),
                None if rules.has(UnreadableIsDoubt) => return,
                None => return self.steps_down(effects),
                Some(Slot::Foreign) if !rules.has(ForeignIsSkipped) => return,
                Some(Slot::Frame(frame)) if !joins(frame, chain(&self.copy)) => {
                    if !rules.has(DeadIsPassed) {
                        return self.diverges(effects);
                    }
                    self.copy.push(Slot::Dead);
                }
                Some(Slot::Frame(frame)) if frame.nonce == own.nonce => {
                    // As it is there: a repair may have appended it behind something else.
                    self.staged[0].publish.frame = *frame;
                    return self.settles(effects);
                }
                Some(Slot::Frame(frame)) if self.ends_by(frame, own, rules) => {
                    return self.steps_down(effects);
                }
                // Another daemon's proof, or what ends no term.
                Some(slot) => self.copy.push(*slot),
            }
            is_passed = true;
        }
    }

    /// Whether another's frame at N+1 ends this term, or the attempt to begin one.
    fn ends_by(&self, frame: &Frame, own: Frame, rules: &Rules) -> bool {
        own.body == Body::Term || frame.body == Body::Term && rules.has(FencedByTerm)
    }

    /// It writes no more. N+1 is another's, so what was staged is stored never, or counts never.
    fn steps_down(&mut self, effects: &mut Effects) {
        (self.role, self.is_fresh, self.is_alone) = (Role::Following, false, false);
        for Staged { publish, caller, .. } in std::mem::take(&mut self.staged) {
            effects.told.push((caller, Outcome::NotStored(publish.frame.nonce)));
        }
    }

    /// The callers have waited long enough. The daemon goes on asking.
    pub fn is_late(&mut self, rules: &Rules, effects: &mut Effects) {
        for staged in &mut self.staged {
            let outcome = match rules.has(NoAnswerIsDoubt) {
                true => Outcome::Unknown,
                false => Outcome::NotStored(staged.publish.frame.nonce),
            };
            let caller = std::mem::replace(&mut staged.caller, Caller::Nobody);
            effects.told.push((caller, outcome));
        }
        if !rules.has(NoAnswerIsDoubt) || !rules.has(DoubtIsKept) {
            self.staged.clear();
            self.is_alone = false;
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
}
