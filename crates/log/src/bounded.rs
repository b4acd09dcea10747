//! An LRU cache bounded by the bytes of its values.
//!
//! Takes no locks. It hands out what it evicts, so that the caller can free it after unlocking:
//! freeing megabytes takes a while. Invariants: its bytes are the sum of its entries' bytes, and at
//! most the bound.

use std::borrow::Borrow;
use std::collections::BTreeMap;

/// See the module.
#[derive(Debug)]
pub struct Bounded<K, V> {
    max_bytes: usize,
    max_len: usize,
    bytes: usize,
    clock: u64,
    entries: BTreeMap<K, Entry<V>>,
    /// By when they were used last.
    order: BTreeMap<u64, K>,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    bytes: usize,
    used_at: u64,
}

/// What was evicted. To be dropped after unlocking.
#[must_use = "to be dropped after unlocking"]
#[derive(Debug)]
pub struct Dropped<V>(Vec<V>);

impl<V> Default for Dropped<V> {
    fn default() -> Self {
        Dropped(Vec::new())
    }
}

impl<V> Dropped<V> {
    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing had to.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<K: Ord + Clone, V> Bounded<K, V> {
    /// An empty one.
    pub fn new(max_bytes: usize) -> Self {
        let (entries, order) = (BTreeMap::new(), BTreeMap::new());
        Bounded { max_bytes, max_len: usize::MAX, bytes: 0, clock: 0, entries, order }
    }

    /// The same, of at most so many entries.
    pub fn at_most(mut self, max_len: usize) -> Self {
        self.max_len = max_len;
        self
    }

    /// The bound.
    pub fn max_bytes(&self) -> usize {
        self.max_bytes
    }

    /// Bytes of all entries.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The value under a key. Does not count as use.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.entries.get(key).map(|entry| &entry.value)
    }

    /// The same, to change what takes no other bytes then.
    pub fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        self.entries.get_mut(key).map(|entry| &mut entry.value)
    }

    /// The value under the greatest key that is not above this one. Does not count as use.
    pub fn at_or_below(&self, key: &K) -> Option<&V> {
        self.entries.range(..=key).next_back().map(|(_, entry)| &entry.value)
    }

    /// The value under the greatest key.
    pub fn last(&self) -> Option<&V> {
        self.entries.last_key_value().map(|(_, entry)| &entry.value)
    }

    /// The least key.
    pub fn first_key(&self) -> Option<&K> {
        self.entries.first_key_value().map(|(key, _)| key)
    }

    /// Bytes of the entry under a key.
    pub fn bytes_of<Q: Ord + ?Sized>(&self, key: &Q) -> Option<usize>
    where
        K: Borrow<Q>,
    {
        self.entries.get(key).map(|entry| entry.bytes)
    }

    /// An entry was used just now.
    pub fn touch<Q: Ord + ?Sized>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
    {
        let Some(entry) = self.entries.get_mut(key) else { return };
        self.clock += 1;
        if let Some(key) = self.order.remove(&std::mem::replace(&mut entry.used_at, self.clock)) {
            self.order.insert(self.clock, key);
        }
    }

    /// Puts a value in, in place of what was under its key. One that is larger than the bound goes
    /// at once, and takes all others along.
    pub fn insert(&mut self, key: K, value: V, bytes: usize) -> Dropped<V> {
        let mut dropped = Vec::new();
        dropped.extend(self.remove(&key));
        self.clock += 1;
        self.order.insert(self.clock, key.clone());
        self.entries.insert(key, Entry { value, bytes, used_at: self.clock });
        self.bytes += bytes;
        self.shrink(&mut dropped);
        Dropped(dropped)
    }

    /// Changes the value under a key, which is empty at first, and takes `more` bytes for it.
    pub fn grow(&mut self, key: &K, more: usize, change: impl FnOnce(&mut V)) -> Dropped<V>
    where
        V: Default,
    {
        let mut dropped = Vec::new();
        if !self.entries.contains_key(key) {
            dropped.extend(self.insert(key.clone(), V::default(), 0).0);
        }
        if let Some(entry) = self.entries.get_mut(key) {
            change(&mut entry.value);
            entry.bytes += more;
            self.bytes += more;
        }
        self.touch(key);
        self.shrink(&mut dropped);
        Dropped(dropped)
    }

    /// Takes an entry out.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let entry = self.entries.remove(key)?;
        self.order.remove(&entry.used_at);
        self.bytes -= entry.bytes;
        Some(entry.value)
    }

    /// Takes all out.
    pub fn clear(&mut self) -> Dropped<V> {
        self.order.clear();
        self.bytes = 0;
        let entries = std::mem::take(&mut self.entries);
        Dropped(entries.into_values().map(|entry| entry.value).collect())
    }

    fn shrink(&mut self, dropped: &mut Vec<V>) {
        while (self.bytes > self.max_bytes || self.entries.len() > self.max_len)
            && let Some((_, key)) = self.order.pop_first()
            && let Some(entry) = self.entries.remove(&key)
        {
            self.bytes -= entry.bytes;
            dropped.push(entry.value);
        }
        debug_assert_eq!(self.order.len(), self.entries.len(), "each entry has its place");
        debug_assert!(self.bytes <= self.max_bytes, "no more than the bound");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_was_not_used_for_longest_goes_first() {
        let mut cache = Bounded::new(10);
        for key in 1..=3 {
            assert!(cache.insert(key, key * 100, 3).is_empty());
        }
        cache.touch(&1);
        assert_eq!(cache.insert(4, 400, 3).0, [200]);
        assert_eq!((cache.get(&1), cache.get(&2), cache.len()), (Some(&100), None, 3));
        // Looked at only: not used.
        assert_eq!(cache.insert(5, 500, 3).0, [300]);
        assert_eq!(cache.at_or_below(&3), Some(&100));
        assert_eq!((cache.at_or_below(&0), cache.last()), (None, Some(&500)));
    }

    #[test]
    fn one_that_never_fits_is_not_kept() {
        let mut cache = Bounded::new(10);
        drop(cache.insert("a", 1, 10));
        assert_eq!(cache.insert("b", 2, 11).0, [1, 2]);
        assert_eq!((cache.bytes(), cache.is_empty()), (0, true));
    }

    #[test]
    fn the_number_of_entries_is_bounded_too() {
        let mut cache = Bounded::new(1_000).at_most(2);
        let dropped: Vec<_> = (0..5).map(|key| cache.insert(key, key, 1).len()).collect();
        assert_eq!((dropped, cache.len()), (vec![0, 0, 1, 1, 1], 2));
    }

    #[derive(Clone, Debug)]
    enum Op {
        Insert(u8, usize),
        Grow(u8, usize),
        Touch(u8),
        Remove(u8),
        Clear,
    }

    fn op() -> impl Strategy<Value = Op> {
        let key = 0..6u8;
        prop_oneof![
            4 => (key.clone(), 0..40usize).prop_map(|(key, bytes)| Op::Insert(key, bytes)),
            3 => (key.clone(), 0..20usize).prop_map(|(key, bytes)| Op::Grow(key, bytes)),
            2 => key.clone().prop_map(Op::Touch),
            1 => key.prop_map(Op::Remove),
            1 => Just(Op::Clear),
        ]
    }

    proptest! {
        #[test]
        fn it_is_a_list_in_order_of_use(ops in prop::collection::vec(op(), 0..60)) {
            const MAX_BYTES: usize = 60;
            let mut cache = Bounded::new(MAX_BYTES);
            // Key, value and bytes; used longest ago first.
            let mut model: Vec<(u8, u32, usize)> = Vec::new();
            for (n, op) in (1u32..).zip(ops) {
                let mut gone = Vec::new();
                let dropped = match op {
                    Op::Insert(key, bytes) => {
                        gone.extend(model.extract_if(.., |it| it.0 == key).map(|it| it.1));
                        model.push((key, n, bytes));
                        cache.insert(key, n, bytes)
                    }
                    Op::Grow(key, more) => {
                        let at = model.iter().position(|it| it.0 == key);
                        let (_, value, bytes) = at.map_or((key, 0, 0), |at| model.remove(at));
                        model.push((key, value + n, bytes + more));
                        cache.grow(&key, more, |value| *value += n)
                    }
                    Op::Touch(key) => {
                        if let Some(at) = model.iter().position(|it| it.0 == key) {
                            model[at..].rotate_left(1);
                        }
                        cache.touch(&key);
                        Dropped::default()
                    }
                    Op::Remove(key) => {
                        let removed = model.extract_if(.., |it| it.0 == key).map(|it| it.1).next();
                        prop_assert_eq!(cache.remove(&key), removed);
                        Dropped::default()
                    }
                    Op::Clear => {
                        model.sort();
                        gone.extend(model.drain(..).map(|it| it.1));
                        cache.clear()
                    }
                };
                let sum = |model: &[(u8, u32, usize)]| model.iter().map(|it| it.2).sum::<usize>();
                while sum(&model) > MAX_BYTES {
                    gone.push(model.remove(0).1);
                }
                prop_assert_eq!((dropped.0, cache.bytes()), (gone, sum(&model)));
                for key in 0..6 {
                    let there = model.iter().find(|it| it.0 == key);
                    prop_assert_eq!(cache.get(&key), there.map(|it| &it.1));
                    prop_assert_eq!(cache.bytes_of(&key), there.map(|it| it.2));
                }
                prop_assert_eq!(cache.len(), model.len());
            }
        }
    }
}
