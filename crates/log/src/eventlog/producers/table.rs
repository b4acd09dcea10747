//! The producers that the log knows: found by their hash, forgotten from the one idle longest.
//!
//! Owns what is durable of them, and the bounds on it: their number, and the bytes that they take
//! when the whole state is written. Over the bytes, those idle longest lose the seqs of their
//! batches first, which only costs a repeat its seqs; then they are forgotten.

use hashbrown::HashTable;

use super::Key;
use super::history::History;
use crate::width::to_u32;
use tailmark_record::{Fingerprint, put_varint, take_varint, varint_len};

const NONE: u32 = u32::MAX;

#[derive(Clone, Debug)]
pub(super) struct Producer {
    pub key: Key,
    /// Given out once over all producers of the log, so that no later life has an older one's.
    pub epoch: u64,
    /// The stream that may append; not stored, for no stream outlives the log.
    pub session: u64,
    /// Its last batch.
    pub seq: u64,
    /// Seconds since 1970 when it was last heard of.
    pub active_at: u64,
    pub history: History,
    newer: u32,
    older: u32,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub producers: usize,
    /// Of the encoded table.
    pub bytes: usize,
}

#[derive(Debug)]
pub(super) struct Table {
    bounds: Bounds,
    slots: Vec<Producer>,
    free: Vec<u32>,
    by_key: HashTable<u32>,
    newest: u32,
    oldest: u32,
    /// What [`Table::encode`] writes of the producers.
    bytes: usize,
}

impl Producer {
    pub(super) fn new(key: Key, epoch: u64) -> Producer {
        let history = History::default();
        Producer { key, epoch, session: 0, seq: 0, active_at: 0, history, newer: NONE, older: NONE }
    }

    fn encoded_len(&self) -> usize {
        let numbers = [self.epoch, self.seq, self.active_at].map(varint_len);
        self.key.0.len() + numbers.iter().sum::<usize>() + self.history.encoded_len()
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.key.0);
        [self.epoch, self.seq, self.active_at].iter().for_each(|&number| put_varint(out, number));
        self.history.encode(out);
    }

    fn decode(bytes: &mut &[u8]) -> Option<Producer> {
        let (key, rest) = bytes.split_first_chunk()?;
        *bytes = rest;
        let epoch = take_varint(bytes)?;
        let (seq, active_at) = (take_varint(bytes)?, take_varint(bytes)?);
        let history = History::decode(bytes)?;
        Some(Producer { seq, active_at, history, ..Producer::new(Fingerprint(*key), epoch) })
    }
}

impl Table {
    pub(super) fn new(bounds: Bounds) -> Table {
        Table {
            bounds,
            slots: Vec::new(),
            free: Vec::new(),
            by_key: HashTable::new(),
            newest: NONE,
            oldest: NONE,
            bytes: 0,
        }
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        *self = Table::new(self.bounds);
    }

    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Producer> {
        self.index(key).map(|at| &self.slots[at as usize])
    }

    /// Changes a producer; adds it first if it is not known. It counts as the newest.
    pub(super) fn update(&mut self, key: Key, epoch: u64, change: impl FnOnce(&mut Producer)) {
        let at = match self.index(&key) {
            Some(at) => {
                self.unlink(at);
                self.bytes -= self.slots[at as usize].encoded_len();
                at
            }
            None => self.insert(Producer::new(key, epoch)),
        };
        let producer = &mut self.slots[at as usize];
        change(producer);
        self.bytes += producer.encoded_len();
        self.link_newest(at);
    }

    /// Gives the producer to another stream, in memory alone.
    pub(super) fn set_session(&mut self, key: &Key, session: u64) {
        if let Some(at) = self.index(key) {
            self.slots[at as usize].session = session;
        }
    }

    /// Forgets those not heard of since `second`.
    pub(super) fn forget_idle(&mut self, second: u64) {
        while self.oldest != NONE && self.slots[self.oldest as usize].active_at < second {
            self.forget(self.oldest);
        }
    }

    /// Keeps to the bounds.
    pub(super) fn shrink(&mut self) {
        while self.len() > self.bounds.producers {
            self.forget(self.oldest);
        }
        if self.bytes <= self.bounds.bytes {
            return;
        }
        // More than needed, so that the walk over those without a history is rare.
        let enough = self.bounds.bytes - self.bounds.bytes / 8;
        let mut at = self.oldest;
        while at != NONE && self.bytes > enough {
            let producer = &mut self.slots[at as usize];
            self.bytes -= producer.encoded_len();
            producer.history.clear();
            self.bytes += producer.encoded_len();
            at = producer.newer;
        }
        while self.bytes > self.bounds.bytes && self.oldest != NONE {
            self.forget(self.oldest);
        }
    }

    /// All of them, the one idle longest first.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.reserve(self.bytes);
        let mut at = self.oldest;
        while at != NONE {
            let producer = &self.slots[at as usize];
            producer.encode(out);
            at = producer.newer;
        }
    }

    /// Adds what `encode` wrote; `None` when it did not.
    pub(super) fn decode(&mut self, mut bytes: &[u8]) -> Option<()> {
        while !bytes.is_empty() {
            let producer = Producer::decode(&mut bytes)?;
            if self.index(&producer.key).is_some() {
                return None;
            }
            self.bytes += producer.encoded_len();
            let at = self.insert(producer);
            self.link_newest(at);
        }
        Some(())
    }

    fn index(&self, key: &Key) -> Option<u32> {
        self.by_key.find(hash(key), |&at| self.slots[at as usize].key == *key).copied()
    }

    fn insert(&mut self, producer: Producer) -> u32 {
        let hashed = hash(&producer.key);
        let at = match self.free.pop() {
            Some(at) => {
                self.slots[at as usize] = producer;
                at
            }
            None => {
                self.slots.push(producer);
                to_u32(self.slots.len() - 1)
            }
        };
        let slots = &self.slots;
        self.by_key.insert_unique(hashed, at, |&other| hash(&slots[other as usize].key));
        at
    }

    fn forget(&mut self, at: u32) {
        self.unlink(at);
        let producer = &mut self.slots[at as usize];
        self.bytes -= producer.encoded_len();
        producer.history = History::default();
        let hashed = hash(&producer.key);
        if let Ok(entry) = self.by_key.find_entry(hashed, |&other| other == at) {
            entry.remove();
        }
        self.free.push(at);
    }

    fn link_newest(&mut self, at: u32) {
        let before = std::mem::replace(&mut self.newest, at);
        let producer = &mut self.slots[at as usize];
        (producer.newer, producer.older) = (NONE, before);
        match before {
            NONE => self.oldest = at,
            before => self.slots[before as usize].newer = at,
        }
    }

    fn unlink(&mut self, at: u32) {
        let Producer { newer, older, .. } = self.slots[at as usize];
        match newer {
            NONE => self.newest = older,
            newer => self.slots[newer as usize].older = older,
        }
        match older {
            NONE => self.oldest = newer,
            older => self.slots[older as usize].newer = newer,
        }
    }
}

fn hash(key: &Key) -> u64 {
    // It is a keyed hash already.
    let [a, b, c, d, e, f, g, h, ..] = key.0;
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}
