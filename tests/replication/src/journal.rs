//! The stream, as JetStream keeps it: what its servers do, not what they should.

use crate::frame::{Frame, Slot};

/// The stream, as its leader has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Journal {
    /// What was proposed, in order. The leader compares expectations with the end of *this*.
    pub proposed: Vec<Slot>,
    /// How many of them a quorum has. Only these can be read; the others may be lost with their
    /// leader.
    pub stored: usize,
    /// How many of those were purged: they cannot be read any more.
    pub purged: usize,
}

/// What a daemon hears and reads over its connection.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// What can be read. That something cannot be read proves nothing.
    pub readable: &'a [Slot],
    /// How many of them are purged, so that nobody can say any more what they were.
    pub purged: usize,
    /// The last sequence, by the word of whoever answers. It may be an old leader's.
    pub end: usize,
}

/// A commit under way to the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Publish {
    /// The bytes.
    pub frame: Frame,
    /// The last sequence that its writer knows: `Nats-Expected-Last-Sequence`.
    pub after: u8,
}

impl Journal {
    /// What a quorum has.
    pub fn stored(&self) -> &[Slot] {
        &self.proposed[..self.stored]
    }

    /// Over a connection to the leader.
    pub fn view(&self) -> View<'_> {
        View { readable: self.stored(), purged: self.purged, end: self.proposed.len() }
    }

    /// A publish reaches the leader: it is proposed, or refused with the end.
    pub fn propose(&mut self, publish: Publish, compares: bool) -> Result<(), usize> {
        if compares && usize::from(publish.after) != self.proposed.len() {
            return Err(self.proposed.len());
        }
        self.proposed.push(Slot::Frame(publish.frame));
        Ok(())
    }

    /// A quorum has the oldest proposal: what it is, and its sequence.
    pub fn store(&mut self) -> Option<(Slot, usize)> {
        let slot = *self.proposed.get(self.stored)?;
        self.stored += 1;
        Some((slot, self.stored))
    }

    /// Another leader is elected, which has what is stored and nothing else.
    pub fn elect(&mut self) {
        self.proposed.truncate(self.stored);
    }

    /// Somebody else's message.
    pub fn put(&mut self, slot: Slot) {
        self.proposed.push(slot);
        self.stored += 1;
    }

    /// A purge beyond the end: it takes all that there is, and moves the end.
    pub fn purge(&mut self) {
        self.put(Slot::Purged);
        self.purged = self.stored;
    }

    /// An older snapshot is put back.
    pub fn roll_back(&mut self, end: usize) {
        self.proposed.truncate(end);
        self.stored = end;
    }
}
