//! `ListTopics`: topics by name, in pages.

use super::failure;
use crate::server::Shared;
use crate::server::principal::Caller;
use crate::server::rpc::convert;
use crate::server::rpc::status::{self, Failure};
use tailmark_log::storage::TopicQuery;
use tailmark_record::topic::Filter;
use tailmark_wire::feed_v1 as pb;

const DEFAULT_PAGE: usize = 100;
const MAX_PAGE: usize = 1_000;
/// Questions to the log for one page, each bounded: what is rare among very many comes in short pages.
const MAX_STEPS: usize = 64;

/// A page of topics, in the order of their names.
pub(crate) async fn list_topics(
    shared: &Shared,
    caller: Caller,
    request: pb::ListTopicsRequest,
) -> Result<pb::ListTopicsResponse, Failure> {
    caller.may_watch_something()?;
    let size = match usize::try_from(request.page_size) {
        Ok(0) => DEFAULT_PAGE,
        Ok(size) => size.min(MAX_PAGE),
        Err(_) => return Err(status::bad_field("page_size", "must not be negative")),
    };
    let patterns = request.patterns.iter().enumerate();
    let patterns = patterns.map(|(at, text)| (format!("patterns[{at}]"), text.as_str()));
    let (limits, most) = (shared.log.limits(), shared.options.patterns_per_watch);
    let filter = convert::filter(patterns, limits, most)?;
    if let Some(granted) = caller.sees_part() {
        return seen_topics(shared, granted, &filter, &request, size).await;
    }
    let mut next = Some(read_token(&request.page_token)?.into_boxed_str());
    let mut response = pb::ListTopicsResponse::default();
    let (mut topics, mut steps) = (shared.log.topics(), 0);
    while let Some(from) = next.as_deref()
        && steps < MAX_STEPS
    {
        let (prefix, limit) = (request.prefix.as_str(), size - response.topics.len());
        let query = TopicQuery { from, prefix, filter: &filter, limit };
        let page = match topics.page(&query).await {
            Ok(page) => page,
            Err(error) => return Err(failure(shared, &error).await),
        };
        response.topics.extend(page.topics.iter().map(|(name, stats)| convert::topic(name, stats)));
        // One that stays where it is counts or indexes first, and does not count: a token has to lead on.
        steps += usize::from(page.next.as_deref() != Some(from));
        next = page.next;
        if response.topics.len() >= size {
            break;
        }
    }
    response.next_page_token = next.as_deref().map(write_token).unwrap_or_default();
    Ok(response)
}

/// The same for one who may not see all topics. Where a page ends, and whether there is another, must
/// not tell of the others: it is looked on until that is known, and a token is made of what was seen.
async fn seen_topics(
    shared: &Shared,
    granted: &Filter,
    asked: &Filter,
    request: &pb::ListTopicsRequest,
    size: usize,
) -> Result<pb::ListTopicsResponse, Failure> {
    let filter = if granted.contains(asked) { asked } else { granted };
    let mut next = Some(read_token(&request.page_token)?.into_boxed_str());
    let mut response = pb::ListTopicsResponse::default();
    let mut topics = shared.log.topics();
    while let Some(from) = next.as_deref()
        && response.topics.len() <= size
    {
        let (prefix, limit) = (request.prefix.as_str(), size + 1 - response.topics.len());
        let page = match topics.page(&TopicQuery { from, prefix, filter, limit }).await {
            Ok(page) => page,
            Err(error) => return Err(failure(shared, &error).await),
        };
        let seen = page.topics.iter().filter(|(name, _)| asked.matches(name));
        response.topics.extend(seen.map(|(name, stats)| convert::topic(name, stats)));
        next = page.next;
    }
    if response.topics.len() > size {
        response.topics.truncate(size);
        let last = response.topics.last().map_or("", |topic| &topic.topic);
        // No topic has this character: what comes next comes after it.
        response.next_page_token = write_token(&format!("{last}\0"));
    }
    Ok(response)
}

/// Where the next page begins, in hexadecimal.
fn write_token(topic: &str) -> String {
    topic.bytes().map(|byte| format!("{byte:02x}")).collect()
}

fn read_token(token: &str) -> Result<String, Failure> {
    let is_hex = token.len().is_multiple_of(2) && token.bytes().all(|c| c.is_ascii_hexdigit());
    let bytes: Option<Vec<u8>> = token
        .as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect();
    bytes
        .filter(|_| is_hex)
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(|| status::bad_field("page_token", "is not one that this server gave"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_the_round_trip_and_nothing_else_is_one() {
        let token = write_token("größe.日本");
        assert_eq!(read_token(&token).unwrap(), "größe.日本");
        assert_eq!(read_token("").unwrap(), "");
        for bad in ["x", "6", "zz", "ff", "616", "é", "+1"] {
            assert!(read_token(bad).is_err(), "{bad:?}");
        }
    }
}
