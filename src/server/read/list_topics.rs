//! `ListTopics`: topics by name, in pages.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use super::failure;
use crate::server::Shared;
use crate::server::rpc::convert;
use crate::server::rpc::status::{self, Failure};
use tailmark_log::storage::TopicStats;
use tailmark_wire::feed_v1 as pb;

const DEFAULT_PAGE: usize = 100;
const MAX_PAGE: usize = 1_000;

/// A page of topics, in the order of their names.
pub(crate) async fn list_topics(
    shared: &Shared,
    request: pb::ListTopicsRequest,
) -> Result<pb::ListTopicsResponse, Failure> {
    let size = match usize::try_from(request.page_size) {
        Ok(0) => DEFAULT_PAGE,
        Ok(size) => size.min(MAX_PAGE),
        Err(_) => return Err(status::bad_field("page_size", "must not be negative")),
    };
    let after = read_token(&request.page_token)?;
    let topics = match shared.log.topics().await {
        Ok(topics) => topics,
        Err(error) => return Err(failure(shared, &error).await),
    };
    Ok(page(&topics, &request.prefix, after.as_deref(), size))
}

fn page(
    topics: &BTreeMap<Arc<str>, TopicStats>,
    prefix: &str,
    after: Option<&str>,
    size: usize,
) -> pb::ListTopicsResponse {
    let begin = match after {
        Some(after) if after >= prefix => Bound::Excluded(after),
        _ => Bound::Included(prefix),
    };
    let mut rest = topics
        .range::<str, _>((begin, Bound::Unbounded))
        .take_while(|(name, _)| name.starts_with(prefix))
        .peekable();
    let mut response = pb::ListTopicsResponse::default();
    while response.topics.len() < size
        && let Some((name, stats)) = rest.next()
    {
        response.topics.push(convert::topic(name, stats));
    }
    if rest.peek().is_some()
        && let Some(last) = response.topics.last()
    {
        response.next_page_token = write_token(&last.topic);
    }
    response
}

/// The last name of a page, in hexadecimal.
fn write_token(topic: &str) -> String {
    topic.bytes().map(|byte| format!("{byte:02x}")).collect()
}

fn read_token(token: &str) -> Result<Option<String>, Failure> {
    if token.is_empty() {
        return Ok(None);
    }
    let is_hex = token.len().is_multiple_of(2) && token.bytes().all(|c| c.is_ascii_hexdigit());
    let bytes: Option<Vec<u8>> = token
        .as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect();
    bytes
        .filter(|_| is_hex)
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .map(Some)
        .ok_or_else(|| status::bad_field("page_token", "is not one that this server gave"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topics(names: &[&str]) -> BTreeMap<Arc<str>, TopicStats> {
        names.iter().map(|&name| (Arc::from(name), TopicStats::default())).collect()
    }

    fn names(response: &pb::ListTopicsResponse) -> Vec<&str> {
        response.topics.iter().map(|topic| topic.topic.as_str()).collect()
    }

    #[test]
    fn pages_cover_a_prefix_once() {
        let topics = topics(&["a", "b.1", "b.2", "b.3", "bc", "c"]);
        let first = page(&topics, "b", None, 2);
        assert_eq!(names(&first), ["b.1", "b.2"]);
        let after = read_token(&first.next_page_token).unwrap();
        let second = page(&topics, "b", after.as_deref(), 2);
        assert_eq!(names(&second), ["b.3", "bc"]);
        assert_eq!(second.next_page_token, "");
        assert_eq!(names(&page(&topics, "x", None, 2)), [""; 0]);
    }

    #[test]
    fn a_token_survives_the_round_trip_and_nothing_else_is_one() {
        let token = write_token("größe.日本");
        assert_eq!(read_token(&token).unwrap().as_deref(), Some("größe.日本"));
        for bad in ["x", "6", "zz", "ff", "616", "é", "+1"] {
            assert!(read_token(bad).is_err(), "{bad:?}");
        }
    }
}
