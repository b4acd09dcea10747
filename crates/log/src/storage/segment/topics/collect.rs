//! Collecting the topics of a segment while its events go by.
//!
//! Costs a hash an event, and no allocation a topic: an hour of new topics must not slow sealing
//! down. Invariant: what [`Collector::finish`] answers depends on the events alone.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry as Slot;

use super::page::Origin;
use super::{Bloom, Table, TableBuilder};
use crate::storage::TopicStats;
use crate::width::to_u32;
use tailmark_record::{Seq, Timestamp};

/// So few names are compared as a whole.
const FEW: usize = 16;

/// See the module.
#[derive(Default)]
pub(in crate::storage::segment) struct Collector {
    names: Vec<u8>,
    /// Half of the hash, and the place in `topics`: growing looks at nothing else.
    ids: HashTable<(u32, u32)>,
    topics: Vec<Topic>,
    /// A topic, and a block that has events of it: in the order of the blocks.
    blocks: Vec<(u32, u32)>,
    /// The topic of the last event.
    last: usize,
}

/// All bits of a hash table's hash out of half of a name's.
fn spread(half: u32) -> u64 {
    u64::from(half).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

struct Topic {
    hash: u64,
    /// Where its name lies.
    start: usize,
    len: u32,
    /// The last block that has events of it, and how many have.
    block: u32,
    blocks: u32,
    stats: TopicStats,
}

impl Topic {
    fn name<'a>(&self, names: &'a [u8]) -> &'a [u8] {
        names.get(self.start..self.start + self.len as usize).unwrap_or_default()
    }
}

impl Collector {
    /// Notes an event. Blocks come in order.
    pub(in crate::storage::segment) fn note(
        &mut self,
        name: &[u8],
        seq: Seq,
        at: Timestamp,
        block: u32,
    ) -> Result<(), &'static str> {
        let id = self.id(name)?;
        self.last = id;
        let Some(topic) = self.topics.get_mut(id) else { return Ok(()) };
        topic.stats.events += 1;
        (topic.stats.last_seq, topic.stats.last_at) = (seq, at);
        if topic.blocks == 0 || topic.block != block {
            topic.block = block;
            topic.blocks += 1;
            self.blocks.push((to_u32(id), block));
        }
        Ok(())
    }

    fn id(&mut self, name: &[u8]) -> Result<usize, &'static str> {
        let Collector { names, ids, topics, last, .. } = self;
        if topics.get(*last).is_some_and(|topic| topic.name(names) == name) {
            return Ok(*last);
        }
        let hash = Bloom::hash(name);
        let half = to_u32(hash >> 32);
        let is_it = |&(other, id): &(u32, u32)| {
            other == half && topics.get(id as usize).is_some_and(|it| it.name(names) == name)
        };
        match ids.entry(spread(half), is_it, |&(half, _)| spread(half)) {
            Slot::Occupied(known) => Ok(known.get().1 as usize),
            Slot::Vacant(vacant) => {
                std::str::from_utf8(name).map_err(|_| "a topic is not UTF-8")?;
                vacant.insert((half, to_u32(topics.len())));
                let (start, len) = (names.len(), to_u32(name.len()));
                names.extend_from_slice(name);
                let stats = TopicStats::default();
                topics.push(Topic { hash, start, len, block: 0, blocks: 0, stats });
                Ok(topics.len() - 1)
            }
        }
    }

    /// The table; `None` without an event.
    pub(in crate::storage::segment) fn finish(mut self, origin: Origin) -> Option<Table> {
        // Not needed any more; what follows takes room of its own.
        self.ids = HashTable::new();
        let lists = self.lists();
        let mut table = TableBuilder::new(origin);
        for id in self.in_order() {
            let Some(topic) = self.topics.get(id as usize) else { continue };
            // Most of many are in one block.
            let one = [topic.block];
            let blocks = if topic.blocks == 1 { &one[..] } else { lists.of(id) };
            table.topic(topic.name(&self.names), topic.hash, &topic.stats, blocks);
        }
        table.finish()
    }

    /// The topics in the order of their names.
    fn in_order(&self) -> Vec<u32> {
        let mut order: Vec<_> = (0..to_u32(self.topics.len())).map(|id| (0, id)).collect();
        self.sort(&mut order, 0);
        order.into_iter().map(|(_, id)| id).collect()
    }

    /// Sorts topics whose names are alike in their first `depth` bytes: by the eight bytes behind what
    /// all begin with, then those that are alike in these, too. Names mostly have much in common;
    /// comparing them as a whole would take several times as long.
    fn sort(&self, order: &mut [(u64, u32)], depth: usize) {
        let Some(&(_, one)) = order.first() else { return };
        let mut shared = self.name(one);
        for &(_, id) in order.iter() {
            let name = self.name(id);
            if name.get(..shared.len()) != Some(shared) {
                let same = shared.iter().zip(name).take_while(|(a, b)| a == b).count();
                shared = shared.get(..same).unwrap_or_default();
            }
        }
        let depth = depth.max(shared.len());
        for (key, id) in order.iter_mut() {
            let rest = self.name(*id).get(depth..).unwrap_or_default();
            *key = match rest.first_chunk() {
                Some(eight) => u64::from_be_bytes(*eight),
                None => {
                    let mut eight = [0; 8];
                    eight.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
                    u64::from_be_bytes(eight)
                }
            };
        }
        order.sort_unstable();
        for alike in order.chunk_by_mut(|a, b| a.0 == b.0).filter(|alike| alike.len() > 1) {
            let goes_on = |&(_, id): &(u64, u32)| self.name(id).len() > depth + 8;
            if alike.len() > FEW && alike.iter().all(goes_on) {
                self.sort(alike, depth + 8);
            } else {
                alike.sort_unstable_by(|a, b| self.name(a.1).cmp(self.name(b.1)));
            }
        }
    }

    fn name(&self, id: u32) -> &[u8] {
        self.topics.get(id as usize).map_or(&[], |topic| topic.name(&self.names))
    }

    /// The blocks, topic after topic, of those that are in several.
    fn lists(&self) -> Lists {
        let mut starts = Vec::with_capacity(self.topics.len() + 1);
        let mut end = 0;
        for topic in &self.topics {
            starts.push(end);
            end += if topic.blocks > 1 { topic.blocks as usize } else { 0 };
        }
        let mut filled = starts.clone();
        starts.push(end);
        let mut blocks = vec![0; end];
        let has_list = |id: u32| self.topics.get(id as usize).is_some_and(|it| it.blocks > 1);
        for &(id, block) in self.blocks.iter().filter(|(id, _)| has_list(*id)) {
            if let Some(at) = filled.get_mut(id as usize)
                && let Some(place) = blocks.get_mut(*at)
            {
                *place = block;
                *at += 1;
            }
        }
        Lists { starts, blocks }
    }
}

struct Lists {
    starts: Vec<usize>,
    blocks: Vec<u32>,
}

impl Lists {
    fn of(&self, id: u32) -> &[u32] {
        let at = id as usize;
        match (self.starts.get(at), self.starts.get(at + 1)) {
            (Some(&start), Some(&end)) => self.blocks.get(start..end).unwrap_or_default(),
            _ => &[],
        }
    }
}
