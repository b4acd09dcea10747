//! Erasing in memory: each commit that holds such events is replaced by one with their shells.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::{Memory, StoredCommit, damage};
use crate::storage::{Chunk, EraseOrder, ErasePhase, EraseProgress, StoreError};
use tailmark_record::Seq;

impl Memory {
    pub(super) fn erase(
        &self,
        order: &Arc<EraseOrder>,
        watch: &mut dyn FnMut(EraseProgress) -> ControlFlow<()>,
    ) -> Result<u64, StoreError> {
        let firsts: Vec<Seq> = {
            let mut log = self.log.lock();
            if let Some(reason) = log.stopped {
                return Err(StoreError::Stopped { reason: reason.to_owned() });
            }
            let is_other = |left: &Arc<EraseOrder>| left.id != order.id;
            if log.erasing.as_ref().is_some_and(is_other) {
                return Err(StoreError::Invalid("another order is not through"));
            }
            order.check(log.head.next()).map_err(StoreError::Invalid)?;
            log.erasing = Some(Arc::clone(order));
            log.trimmed.retain(|(seq, _)| !order.contains(*seq));
            let concerned = |run: &&Arc<StoredCommit>| order.parts(run.first..run.end).next();
            log.commits.iter().filter(|it| concerned(it).is_some()).map(|it| it.first).collect()
        };
        let (segments, mut events_done) = (firsts.len() as u64, 0);
        for (done, first) in (1..).zip(firsts) {
            events_done += self.erase_commit(first, order)?;
            let (id, phase, events) = (order.id, ErasePhase::Rewriting, order.events());
            let now =
                EraseProgress { id, phase, segments_done: done, segments, events_done, events };
            if watch(now).is_break() {
                return Err(StoreError::Stopped { reason: "told to".to_owned() });
            }
        }
        Ok(segments)
    }

    fn erase_commit(&self, first: Seq, order: &EraseOrder) -> Result<u64, StoreError> {
        let mut log = self.log.lock();
        let Some(run) = log.commits.iter_mut().find(|run| run.first == first) else {
            // Trimmed meanwhile.
            return Ok(0);
        };
        let (end, events) = (run.end, run.events.clone());
        let shells = order.shells(Chunk { first, end, events, complete: true });
        let events = shells.map_err(|error| damage(run, &error))?.events;
        *run = Arc::new(StoredCommit { first, end, at: run.at, events });
        Ok(order.events_in(first..end))
    }
}
