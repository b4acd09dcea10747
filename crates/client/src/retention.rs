//! What the server removes by itself.

use tonic::{Request, Streaming};

use super::{Client, Error, Kind};
use pb::feed_service_client::FeedServiceClient;
use tailmark_wire::feed_v1 as pb;

/// A dry run of retention as it goes on; see [`Client::preview_retention`]. Dropped, it ends.
#[derive(Debug)]
pub struct Retaining {
    stream: Streaming<pb::RetentionReport>,
}

impl Client {
    /// What is removed by itself: the limits of the log, the rules for topics, and what came of them.
    ///
    /// # Errors
    /// As any call. [`Kind::Denied`] without the right to administer.
    pub async fn retention(&self) -> Result<pb::Retention, Error> {
        let mut retaining = self.ask_retention(pb::GetRetentionRequest::default()).await?;
        while let Some(report) = retaining.next().await? {
            if let Some(retention) = report.retention {
                return Ok(retention);
            }
        }
        Err(Error::new(Kind::Protocol, "the server did not say what it removes").of_read())
    }

    /// Also what each rule would remove if all that is dead went now: of those in force, or of these. Reads
    /// every event of their topics. The messages tell how far it is; the last one has the result.
    ///
    /// # Errors
    /// As any call. [`Kind::Denied`] without the right to administer, [`Kind::LimitExceeded`] while another
    /// is under way.
    pub async fn preview_retention(
        &self,
        rules: Option<pb::RetentionRules>,
    ) -> Result<Retaining, Error> {
        self.ask_retention(pb::GetRetentionRequest { dry_run: true, rules }).await
    }

    async fn ask_retention(&self, request: pb::GetRetentionRequest) -> Result<Retaining, Error> {
        let mut feed = FeedServiceClient::new(self.channel())
            .max_decoding_message_size(self.options().max_message_bytes);
        let answer = feed.get_retention(Request::new(request)).await;
        let answer = answer.map_err(|status| Error::from_status(status).of_read())?;
        Ok(Retaining { stream: answer.into_inner() })
    }
}

impl Retaining {
    /// What comes next; `None` after the last message, which is the end.
    ///
    /// # Errors
    /// As any call.
    pub async fn next(&mut self) -> Result<Option<pb::RetentionReport>, Error> {
        self.stream.message().await.map_err(|status| Error::from_status(status).of_read())
    }
}
