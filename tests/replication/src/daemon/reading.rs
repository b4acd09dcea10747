//! Answering, following, and what is done where the journal lost something.

use super::{Daemon, Effects, Outcome, Role, joins};
use crate::frame::{
    Body, Cursor, Frame, Generation, Meaning, Slot, chain, frames, generation, head, look_up, read,
    small,
};
use crate::journal::{Publish, View};
use crate::rules::{Rule::*, Rules};

impl Daemon {
    // Answering.

    /// The head, if it may be told without a commit.
    pub fn head_at_once(&self, view: View<'_>, rules: &Rules) -> Option<u8> {
        if !self.staged.is_empty() && rules.has(InFlightFirst) {
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
    pub fn follows(
        &mut self,
        at: usize,
        slot: Slot,
        view: View<'_>,
        rules: &Rules,
        effects: &mut Effects,
    ) {
        let is_hole = at > self.copy.len() + 1 && rules.has(TailHasNoHoles);
        if is_hole || slot == Slot::Foreign && !rules.has(ForeignIsSkipped) {
            return;
        }
        if self.joins(&slot) || !rules.has(FramesJoin) {
            return self.copy.push(slot);
        }
        // A wrong replica, a history that is not the journal's any more, or a frame that counts
        // for nobody: the leader decides.
        self.is_joined = false;
        self.rejoins(view, effects);
        match view.readable.get(at - 1) {
            Some(slot) if self.is_joined && self.joins(slot) => self.copy.push(*slot),
            Some(_) if self.is_joined && rules.has(DeadIsPassed) => self.copy.push(Slot::Dead),
            Some(_) if self.is_joined => self.diverges(effects),
            _ => {}
        }
    }

    fn joins(&self, slot: &Slot) -> bool {
        match slot {
            Slot::Frame(frame) => joins(frame, chain(&self.copy)),
            Slot::Foreign | Slot::Purged | Slot::Dead => true,
        }
    }

    /// The connection is made anew.
    pub fn connects(&mut self, rules: &Rules) {
        self.is_joined = !rules.has(RejoinByChain);
        // What was acked behind one in doubt may be lost with it.
        self.staged.iter_mut().for_each(|it| it.is_acked = false);
    }

    /// It reads back what is at the end of its copy. Nothing there proves nothing.
    pub fn rejoins(&mut self, view: View<'_>, effects: &mut Effects) {
        let end = self.copy.len();
        let Some(there) = view.readable.get(..end) else { return };
        if chain(&read(there)) == chain(&self.copy) {
            (self.is_joined, self.proof) = (true, None);
        } else {
            self.diverges(effects);
        }
    }

    // What the journal lost.

    /// The log ends before N, by the word of somebody who may be an old leader.
    pub(super) fn suspects_a_loss(&mut self, rules: &Rules, effects: &mut Effects) {
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
        if chain(shared) != chain(&read(view.readable)) {
            return self.diverges(effects);
        }
        let first = head(shared) + 1;
        let (previous, own) = (chain(shared), generation(shared));
        let nonce = self.draw();
        let generation = own.unwrap_or(Generation { term: 0, nonce });
        let frame = Frame { generation, first, nonce, previous, body: Body::Empty };
        self.proof = Some(Publish { frame, after: small(view.end) });
        effects.published.extend(self.proof);
    }

    pub(super) fn has_lost(&mut self, rules: &Rules, effects: &mut Effects) {
        if rules.has(DivergedStops) {
            return self.diverges(effects);
        }
        // What is in doubt, on the end as it is now.
        let after = self.proof.take().map(|it| it.after + 1);
        let Some(staged) = self.staged.first_mut() else { return };
        staged.publish.after = after.unwrap_or(staged.publish.after);
        effects.published.push(staged.publish);
        self.is_joined = true;
    }

    pub(super) fn diverges(&mut self, effects: &mut Effects) {
        (self.role, self.is_fresh, self.is_joined) = (Role::Diverged, false, false);
        self.proof = None;
        self.gives_up(effects);
    }

    /// Nobody knows what becomes of what was staged.
    fn gives_up(&mut self, effects: &mut Effects) {
        self.is_alone = false;
        let callers = std::mem::take(&mut self.staged).into_iter().map(|it| it.caller);
        effects.told.extend(callers.map(|it| (it, Outcome::Unknown)));
    }

    /// Somebody accepts the loss: what the journal does not have is set aside.
    pub fn accepts(&mut self, view: View<'_>) {
        let there = read(view.readable);
        let both = self.copy.iter().zip(&there);
        self.copy.truncate(both.take_while(|(own, there)| own == there).count());
        (self.role, self.is_joined) = (Role::Following, true);
    }

    /// Somebody has what was lost appended again from this copy. The frames have the seqs and
    /// generations that they had, so that cursors stay valid, on the chain as it is now.
    pub fn reappends(&mut self, view: View<'_>, rules: &Rules) -> Vec<Frame> {
        let mut there = read(view.readable);
        let both = self.copy.iter().zip(&there);
        let shared = both.take_while(|(own, there)| own == there).count();
        let is_new = frames(&there[shared..]).any(|frame| frame.body != Body::Empty);
        if is_new && rules.has(ReappendedFirst) {
            return Vec::new();
        }
        let mut again = Vec::new();
        for lost in frames(&self.copy[shared..]).filter(|frame| frame.body != Body::Empty) {
            let frame = Frame { previous: chain(&there), ..*lost };
            there.push(Slot::Frame(frame));
            again.push(frame);
        }
        self.copy = there;
        (self.role, self.is_joined) = (Role::Following, true);
        again
    }

    /// It was killed and comes back with its copy, or with none.
    pub fn restarts(&mut self, forgets: bool, rules: &Rules, effects: &mut Effects) {
        self.gives_up(effects);
        if forgets {
            self.copy.clear();
        }
        (self.role, self.proof, self.is_fresh) = (Role::Following, None, false);
        self.connects(rules);
    }
}
