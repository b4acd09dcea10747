//! Listing topics, and looking one up.

use std::sync::Arc;

use super::ReadError;
use super::fair_queue::Lane;
use super::read_path::ReadPath;
use super::reader_pool::Asker;
use crate::storage::{Store, TopicPage, TopicQuery};
use tailmark_record::Seq;

/// Lists topics, a page at a time. However many pages it asks for, it has one share of the reader
/// threads.
pub struct Topics {
    reads: Arc<ReadPath>,
    asker: Asker,
}

impl Topics {
    pub(super) fn new(reads: Arc<ReadPath>) -> Topics {
        Topics { reads, asker: Asker::default() }
    }

    /// Topics with their readable events. The work is bounded, and so a page may be short though
    /// there are more: see [`TopicPage`].
    ///
    /// # Errors
    /// As a reader's.
    pub async fn page(&mut self, query: &TopicQuery<'_>) -> Result<TopicPage, ReadError> {
        let (from, prefix) = (Box::<str>::from(query.from), Box::<str>::from(query.prefix));
        let (filter, limit) = (query.filter.clone(), query.limit);
        let ask = move |store: &dyn Store| {
            store.topics(&TopicQuery { from: &from, prefix: &prefix, filter: &filter, limit })
        };
        self.reads.pool.ask(&mut self.asker, Lane::Scan, Seq::ZERO, ask).await
    }
}

impl ReadPath {
    /// The last readable event of a topic; 0 if it has none.
    pub(super) async fn topic_head(&self, topic: &str) -> Result<Seq, ReadError> {
        let (topic, mut asker) = (Arc::<str>::from(topic), Asker::default());
        loop {
            let topic = Arc::clone(&topic);
            let ask = move |store: &dyn Store| store.topic_head(&topic);
            if let Some(head) = self.pool.ask(&mut asker, Lane::Scan, Seq::ZERO, ask).await? {
                return Ok(head);
            }
        }
    }
}
