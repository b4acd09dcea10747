//! Listing all topics, page by page, each page checked.

use std::collections::BTreeMap;

use crate::storage::{Store, StoreError, TopicPage, TopicQuery, TopicStats};
use tailmark_record::Seq;
use tailmark_record::topic::Filter;

/// The head of a topic, in as many steps as it takes; 0 = it has none.
///
/// # Errors
/// The store's.
pub fn topic_head(store: &dyn Store, topic: &str) -> Result<Seq, StoreError> {
    loop {
        if let Some(head) = store.topic_head(topic)? {
            return Ok(head);
        }
    }
}

/// All topics of a log, page by page.
///
/// # Errors
/// The store's; [`StoreError::Invalid`] where a page is not what was asked for.
pub fn all_topics(
    store: &dyn Store,
    limit: usize,
) -> Result<BTreeMap<String, TopicStats>, StoreError> {
    topics_of(store, "", &Filter::ALL, limit)
}

/// The same of those that begin so and match.
///
/// # Errors
/// As [`all_topics`].
pub fn topics_of(
    store: &dyn Store,
    prefix: &str,
    filter: &Filter,
    limit: usize,
) -> Result<BTreeMap<String, TopicStats>, StoreError> {
    let mut all = BTreeMap::new();
    let mut next: Option<Box<str>> = Some(Box::default());
    while let Some(from) = next {
        let page = store.topics(&TopicQuery { from: &from, prefix, filter, limit })?;
        let TopicPage { topics, next: following } = page;
        if topics.len() > limit {
            return Err(StoreError::Invalid("more topics than were asked for"));
        }
        for (name, stats) in topics {
            let is_next = *name >= *from && name.starts_with(prefix) && filter.matches(&name);
            let is_last = all.last_key_value().is_none_or(|(last, _): (&String, _)| **last < *name);
            if !is_next || !is_last {
                return Err(StoreError::Invalid("a topic that is out of place"));
            }
            all.insert(name.into(), stats);
        }
        if following.as_ref().is_some_and(|next| *next < from) {
            return Err(StoreError::Invalid("a page that leads back"));
        }
        next = following;
    }
    Ok(all)
}
