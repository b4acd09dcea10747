//! The calls that only read: one event, the log's status, its topics, its retention, and who asks.

mod get_event;
mod get_log;
mod get_principal;
mod get_retention;
mod list_topics;

use tailmark_log::eventlog::ReadError;

pub(crate) use get_event::get_event;
pub(crate) use get_log::get_log;
pub(crate) use get_principal::get_principal;
pub(crate) use get_retention::{RetentionStream, get_retention};
pub(crate) use list_topics::list_topics;

use crate::server::rpc::status::{self, Failure, LogFacts};
use crate::server::{Shared, report};

/// What a read that failed answers.
pub(crate) async fn failure(shared: &Shared, error: &ReadError) -> Failure {
    report::read(error);
    status::read(error, &LogFacts::of(&shared.log).await, shared.options.retry_delay)
}
