//! What a segment's footer says of its blocks, and where their bytes lie in its files.
//!
//! Must not know how a block is fetched. Its bytes are bounded by the segment: [`Index::bytes`].

use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::block::Row;
use super::footer;
use super::problem::Problem;
use super::{DB, FOOTER, Segment};
use crate::storage::{Damage, StoreError};
use tailmark_record::Seq;
use tailmark_record::topic::Filter;

/// Filters whose blocks are remembered, per segment.
const REMEMBERED_FILTERS: usize = 8;
/// A filter is sparse if at most one event in so many matches: then those that do are picked out.
const SPARSE: u64 = 4;

/// The blocks of one segment.
pub(super) struct Index {
    pub(super) segment: Arc<Segment>,
    pub(super) rows: Vec<Row>,
    /// What is wrong with the table of topics, if a read has met it.
    pub(super) table_damage: OnceLock<Damage>,
    filters: Mutex<Vec<(Filter, Wanted)>>,
}

/// What a filter asks of a segment.
#[derive(Clone)]
pub(super) struct Wanted {
    /// Which blocks hold events that match; `None` = all.
    blocks: Option<Arc<[bool]>>,
    /// Most events of the segment do not match.
    pub(super) is_sparse: bool,
    /// How many match, where that is known.
    pub(super) events: Option<u64>,
}

impl Wanted {
    /// Whether any event of the block matches.
    pub(super) fn has(&self, at: usize) -> bool {
        self.blocks.as_ref().is_none_or(|blocks| blocks[at])
    }
}

impl Index {
    /// Reads the tables of the footer that do not stay in memory.
    pub(super) fn load(segment: Arc<Segment>) -> Result<Index, StoreError> {
        let rows = footer::decode_rows(&segment.section(footer::kind::BLOCKS)?, &segment.identity)
            .map_err(|problem| footer_damage(&segment, &problem))?;
        Ok(Index { segment, rows, table_damage: OnceLock::new(), filters: Mutex::default() })
    }

    /// Bytes that it takes in memory, filters included.
    pub(super) fn bytes(&self) -> u64 {
        let rows = self.rows.len() * (size_of::<Row>() + REMEMBERED_FILTERS);
        (rows + size_of::<Index>()) as u64
    }

    /// The place of the block that holds `seq`, which is in the segment.
    pub(super) fn block_of(&self, seq: Seq) -> usize {
        self.rows.partition_point(|row| row.end() <= seq).min(self.rows.len() - 1)
    }

    /// Which blocks hold events that match.
    pub(super) fn wanted(&self, filter: &Filter) -> Result<Wanted, StoreError> {
        if filter.is_all() {
            let seqs = self.segment.first().distance_to(self.segment.end());
            let events = seqs.saturating_sub(self.segment.removed().events());
            return Ok(Wanted { blocks: None, is_sparse: false, events: Some(events) });
        }
        let mut filters = self.filters.lock();
        if let Some(at) = filters.iter().position(|(known, _)| known == filter) {
            filters[..=at].rotate_right(1);
            return Ok(filters[0].1.clone());
        }
        drop(filters);
        // Without the lock: others ask for what is known meanwhile.
        let wanted = match self.search(filter) {
            // Events are whole all the same: every block is looked through, and the damage told.
            Err(StoreError::Damaged(damage)) => {
                let _ = self.table_damage.set(damage);
                return Ok(Wanted { blocks: None, is_sparse: true, events: None });
            }
            wanted => wanted?,
        };
        filters = self.filters.lock();
        filters.truncate(REMEMBERED_FILTERS - 1);
        filters.insert(0, (filter.clone(), wanted.clone()));
        Ok(wanted)
    }

    /// Looks into the table of topics.
    fn search(&self, filter: &Filter) -> Result<Wanted, StoreError> {
        let mut blocks = vec![false; self.rows.len()];
        let (mut events, mut beyond) = (0u64, false);
        self.segment.each_topic(filter, &mut |stats, block| {
            events = events.saturating_add(if block.is_none() { stats.events } else { 0 });
            if let Some(block) = block {
                match blocks.get_mut(block as usize) {
                    Some(wanted) => *wanted = true,
                    None => beyond = true,
                }
            }
        })?;
        if beyond {
            let problem = Problem::Damaged("its table of topics makes no sense");
            return Err(footer_damage(&self.segment, &problem));
        }
        let total = self.segment.first().distance_to(self.segment.end());
        Ok(Wanted {
            is_sparse: events.saturating_mul(SPARSE) <= total,
            blocks: Some(blocks.into()),
            events: Some(events),
        })
    }

    /// Damage of one block.
    pub(super) fn damage(&self, at: usize, detail: &str) -> StoreError {
        let row = &self.rows[at];
        StoreError::Damaged(Damage {
            from: row.first,
            to: row.end().prev(),
            file: self.segment.dir().join(DB),
            detail: detail.to_owned(),
        })
    }
}

fn footer_damage(segment: &Segment, problem: &Problem) -> StoreError {
    let detail = match problem {
        Problem::Damaged(what) => what,
        Problem::Version(_) => "it has a section of another version",
    };
    segment.damage_of_all(&segment.dir().join(FOOTER), detail).into()
}
