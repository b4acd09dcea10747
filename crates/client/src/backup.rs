//! What a backup of the log is made of, from a server.

use tonic::{Request, Streaming};

use super::{Client, Error};
use tailmark_wire::feed_v1 as pb;

/// The parts of a backup, in their order; see [`Client::backup`].
#[derive(Debug)]
pub struct BackupParts(Streaming<pb::BackupPart>);

impl Client {
    /// All that a backup of the log is made of, but for the segments that the request says are there.
    /// `proto/feed/v1/feed.proto` says how the parts follow each other, and `tailmark backup --addr` puts
    /// them together. After a cut it is asked again, with what came whole.
    ///
    /// # Errors
    /// As any call. [`Kind::Denied`](crate::Kind::Denied) without the right to administer.
    pub async fn backup(&self, request: pb::BackupRequest) -> Result<BackupParts, Error> {
        // A connection of its own: it carries as much as there is.
        let mut feed = self.feed(self.fresh_channel());
        let answer = feed.backup(Request::new(request)).await;
        let parts = answer.map_err(|status| Error::from_status(status).of_read())?;
        Ok(BackupParts(parts.into_inner()))
    }
}

impl BackupParts {
    /// The next one; `None` after the last, which is the end.
    ///
    /// # Errors
    /// As any call.
    pub async fn next(&mut self) -> Result<Option<pb::BackupPart>, Error> {
        self.0.message().await.map_err(|status| Error::from_status(status).of_read())
    }
}
