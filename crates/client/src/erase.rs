//! Erasing: how far it is, and what it came to.

use tonic::{Request, Streaming};

use super::{Client, Error};
use pb::erase_progress::Phase;
use pb::feed_service_client::FeedServiceClient;
use tailmark_wire::feed_v1 as pb;

/// An erasure as it goes on; see [`Client::erase`]. Dropped, it goes on all the same once it has begun to
/// change the log ([`Erasing::has_begun`]).
#[derive(Debug)]
pub struct Erasing {
    stream: Streaming<pb::EraseProgress>,
    erasure: Option<String>,
}

impl Client {
    /// Takes what events said out of the log for good, or says what that would be (`dry_run`). The messages
    /// tell how far it is; the last one has the result, or in a dry run the selection. What is left of each
    /// event has [`erased`](pb::Event::erased) set.
    ///
    /// # Errors
    /// As any call. [`Kind::Denied`](crate::Kind::Denied) without the right to administer,
    /// [`Kind::Conflict`](crate::Kind::Conflict) while another erasure is under way.
    pub async fn erase(&self, request: pb::EraseRequest) -> Result<Erasing, Error> {
        let mut feed = FeedServiceClient::new(self.channel())
            .max_decoding_message_size(self.options().max_message_bytes);
        let answer = feed.erase(Request::new(request)).await.map_err(Error::from_status)?;
        Ok(Erasing { stream: answer.into_inner(), erasure: None })
    }
}

impl Erasing {
    /// What comes next; `None` after the last message, which is the end.
    ///
    /// # Errors
    /// As any call. [`Error::may_have_applied`] says whether it goes on without this client.
    pub async fn next(&mut self) -> Result<Option<pb::EraseProgress>, Error> {
        let next = self.stream.message().await.map_err(|status| {
            let error = Error::from_status(status);
            // Nothing is changed before it has selected.
            if self.has_begun() { error.maybe_applied() } else { error.of_read() }
        })?;
        if let Some(progress) = &next
            && progress.phase() != Phase::Selecting
            && !progress.erasure.is_empty()
        {
            self.erasure = Some(progress.erasure.clone());
        }
        Ok(next)
    }

    /// Whether the log is changed by it: then it goes on to its end, whoever listens.
    pub fn has_begun(&self) -> bool {
        self.erasure.is_some()
    }

    /// Its name, from when it has begun.
    pub fn erasure(&self) -> Option<&str> {
        self.erasure.as_deref()
    }
}
