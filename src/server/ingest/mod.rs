//! The calls that change the log: publish, upload, append, trim, erase.

pub(crate) mod append;
pub(crate) mod erase;
pub(crate) mod publish;
pub(crate) mod trim;
pub(crate) mod upload;

use std::time::Duration;

use crate::server::report;
use crate::server::rpc::status::{self, Failure};
use tailmark_log::eventlog::AppendError;

/// What an append or a trim that failed answers.
pub(crate) fn failure(error: &AppendError, retry_delay: Duration) -> Failure {
    report::append(error);
    status::append(error, retry_delay)
}
