//! The window of repeats: which events have been named by their senders lately.
//!
//! Owns the newest N fingerprints with their seqs: a ring in the order of the log, and a hash
//! table of 32-bit ordinals into it (about 35 MB when a window of a million is full; both grow as
//! needed). Entries of a commit that is not durable are staged: [`Window::promote`] keeps them,
//! [`Window::roll_back`] takes them out again. Must not know of the log or its threads.
//!
//! An event that was trimmed away may still be in the window: its repeat is still a repeat.

use std::collections::{HashMap, HashSet, VecDeque};

use hashbrown::HashTable;

use tailmark_record::{Fingerprint, Seq};

/// Ordinals are 32 bits, and half of their range tells old from new.
const MAX_CAPACITY: usize = 1 << 30;

#[derive(Debug, Default)]
pub(in crate::eventlog) struct Window {
    capacity: usize,
    slots: VecDeque<Slot>,
    /// Ordinal of the first slot; ordinals wrap.
    base: u32,
    /// Ordinals of the newest slot of each fingerprint.
    table: HashTable<u32>,
    /// Slots at the end that are not durable yet.
    staged: usize,
    /// What the table held before staged slots took over: ordinals, new and old.
    replaced: Vec<(u32, u32)>,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    fingerprint: Fingerprint,
    seq: Seq,
}

/// Of a slot that tells nothing any more.
const NONE: Fingerprint = Fingerprint([0; 16]);

fn hash(fingerprint: Fingerprint) -> u64 {
    // It is a keyed hash already.
    let [a, b, c, d, e, f, g, h, ..] = fingerprint.0;
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

impl Window {
    pub(in crate::eventlog) fn new(capacity: usize) -> Window {
        Window { capacity: capacity.min(MAX_CAPACITY), ..Window::default() }
    }

    /// Where the event with this fingerprint lies; the newest, if several are equal.
    pub(in crate::eventlog) fn find(&self, fingerprint: Fingerprint) -> Option<Seq> {
        let (slots, base) = (&self.slots, self.base);
        let at = |ordinal: u32| ordinal.wrapping_sub(base) as usize;
        self.table
            .find(hash(fingerprint), |&ordinal| slots[at(ordinal)].fingerprint == fingerprint)
            .map(|&ordinal| slots[at(ordinal)].seq)
    }

    /// Adds an event of the commit that is being made. Seqs go up.
    pub(in crate::eventlog) fn stage(&mut self, fingerprint: Fingerprint, seq: Seq) {
        if self.capacity == 0 {
            return;
        }
        let ordinal = self.next_ordinal();
        self.slots.push_back(Slot { fingerprint, seq });
        self.staged += 1;
        let (slots, base) = (&self.slots, self.base);
        let of = |ordinal: u32| slots[ordinal.wrapping_sub(base) as usize].fingerprint;
        let equal = |&other: &u32| of(other) == fingerprint;
        match self.table.find_mut(hash(fingerprint), equal) {
            Some(other) => self.replaced.push((ordinal, std::mem::replace(other, ordinal))),
            None => {
                self.table.insert_unique(hash(fingerprint), ordinal, |&other| hash(of(other)));
            }
        }
    }

    /// The staged events are durable.
    pub(in crate::eventlog) fn promote(&mut self) {
        self.staged = 0;
        self.replaced.clear();
        while self.slots.len() > self.capacity {
            let Some(slot) = self.slots.pop_front() else { break };
            let ordinal = self.base;
            self.base = self.base.wrapping_add(1);
            // Not there when a newer equal event took over.
            let found = self.table.find_entry(hash(slot.fingerprint), |&other| other == ordinal);
            if let Ok(entry) = found {
                entry.remove();
            }
        }
    }

    /// The staged events were not stored.
    pub(in crate::eventlog) fn roll_back(&mut self) {
        for _ in 0..std::mem::take(&mut self.staged) {
            let Some(slot) = self.slots.pop_back() else { break };
            let ordinal = self.next_ordinal();
            let found = self.table.find_entry(hash(slot.fingerprint), |&other| other == ordinal);
            let Ok(mut entry) = found else { continue };
            match self.replaced.pop_if(|(new, _)| *new == ordinal) {
                Some((_, old)) => *entry.get_mut() = old,
                None => {
                    entry.remove();
                }
            }
        }
        self.replaced.clear();
    }

    /// Takes the fingerprints of some events out. Their slots stay, and tell nothing; of equal events the newest of
    /// those that are left is told. Nothing is staged.
    pub(in crate::eventlog) fn forget(&mut self, is_gone: impl Fn(Seq) -> bool) {
        debug_assert!(self.staged == 0, "events of a commit that is not durable cannot be erased");
        let mut gone = HashSet::new();
        let mut ordinal = self.base;
        for slot in &mut self.slots {
            if is_gone(slot.seq) {
                let fingerprint = std::mem::replace(&mut slot.fingerprint, NONE);
                let entry = self.table.find_entry(hash(fingerprint), |&other| other == ordinal);
                // Where it was told; another that is equal may be told now.
                if let Ok(entry) = entry {
                    entry.remove();
                    gone.insert(fingerprint);
                }
            }
            ordinal = ordinal.wrapping_add(1);
        }
        if gone.is_empty() {
            return;
        }
        let (slots, base) = (&self.slots, self.base);
        let of = |ordinal: u32| &slots[ordinal.wrapping_sub(base) as usize];
        let mut left: HashMap<Fingerprint, u32> = HashMap::new();
        let mut ordinal = base;
        for slot in slots {
            if slot.fingerprint != NONE && gone.contains(&slot.fingerprint) {
                left.insert(slot.fingerprint, ordinal);
            }
            ordinal = ordinal.wrapping_add(1);
        }
        for (fingerprint, ordinal) in left {
            let equal = |&other: &u32| of(other).fingerprint == fingerprint;
            if self.table.find(hash(fingerprint), equal).is_none() {
                let rehash = |&other: &u32| hash(of(other).fingerprint);
                self.table.insert_unique(hash(fingerprint), ordinal, rehash);
            }
        }
    }

    /// What the next slot gets; ordinals wrap.
    #[expect(clippy::cast_possible_truncation, reason = "a window has fewer slots than ordinals")]
    fn next_ordinal(&self) -> u32 {
        self.base.wrapping_add(self.slots.len() as u32)
    }

    /// Seq of the oldest entry.
    pub(in crate::eventlog) fn oldest(&self) -> Option<Seq> {
        self.slots.front().map(|slot| slot.seq)
    }

    #[cfg(test)]
    pub(in crate::eventlog) fn len(&self) -> usize {
        self.slots.len()
    }
}

#[cfg(test)]
mod tests;
