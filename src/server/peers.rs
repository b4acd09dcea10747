//! The daemons that share a log, as the server of one of them sees them.

use std::future::Future;
use std::pin::Pin;

use tailmark_record::Seq;
use tailmark_wire::feed_v1 as pb;

/// Where a log ended at a moment after it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogEnd {
    /// The last seq.
    pub head: Seq,
    /// The counter of the generation that is written.
    pub generation: u16,
}

/// What becomes of a question to the daemon that writes; `None` where nobody could say.
pub type Confirmed = Pin<Box<dyn Future<Output = Option<LogEnd>> + Send>>;

/// What a server asks of the daemons that share its log. Where a log lies on one machine there is none.
pub trait Peers: Send + Sync + 'static {
    /// What is known of the journal and of all its daemons. Does not wait.
    fn journal(&self) -> pb::JournalStatus;

    /// Where the log ends, of who writes it; and the log here has all of that by then. What a cursor means that the log
    /// here does not know depends on it.
    fn confirm(&self) -> Confirmed;
}
