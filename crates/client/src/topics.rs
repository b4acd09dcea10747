//! Listing topics.

use super::{Client, Error, Kind};
use tailmark_wire::feed_v1 as pb;

impl Client {
    /// The topics whose name begins with `prefix` and that one of `patterns` selects (none = any), in
    /// the order of their names, in pages of up to 1,000.
    pub fn topics(&self, prefix: &str, patterns: &[&str]) -> TopicPages<'_> {
        let request = pb::ListTopicsRequest {
            prefix: prefix.to_owned(),
            page_size: 1_000,
            page_token: String::new(),
            patterns: patterns.iter().map(|&pattern| pattern.to_owned()).collect(),
        };
        TopicPages { client: self, request: Some(request) }
    }
}

/// Pages of topics, from [`Client::topics`].
#[derive(Debug)]
pub struct TopicPages<'a> {
    client: &'a Client,
    /// `None` = there are no more.
    request: Option<pb::ListTopicsRequest>,
}

impl TopicPages<'_> {
    /// The next page, which has a topic at least; `None` at the end.
    ///
    /// # Errors
    /// As any call. Asking again asks for the same page.
    pub async fn next(&mut self) -> Result<Option<Vec<pb::TopicStatus>>, Error> {
        while let Some(request) = &mut self.request {
            let asked = request.clone();
            let page = self
                .client
                .read(asked, async |mut feed, request| feed.list_topics(request).await)
                .await?;
            if page.next_page_token.is_empty() {
                self.request = None;
            } else if page.next_page_token == request.page_token {
                // It would go round for ever.
                return Err(Error::new(Kind::Protocol, "the server sent the same page twice"));
            } else {
                request.page_token = page.next_page_token;
            }
            if !page.topics.is_empty() {
                return Ok(Some(page.topics));
            }
        }
        Ok(None)
    }

    /// All that are left.
    ///
    /// # Errors
    /// As [`TopicPages::next`].
    pub async fn all(mut self) -> Result<Vec<pb::TopicStatus>, Error> {
        let mut all = Vec::new();
        while let Some(page) = self.next().await? {
            all.extend(page);
        }
        Ok(all)
    }
}
