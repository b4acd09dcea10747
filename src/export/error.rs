//! Why a log was not exported or imported.

use std::io;

use crate::inspect;
use tailmark_log::storage::StoreError;

/// Why a log was not exported or imported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The log cannot be read, or not be made.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The log cannot be read.
    #[error(transparent)]
    Inspect(#[from] inspect::Error),
    /// The file of the export cannot be read.
    #[error("cannot read the export")]
    Input(#[source] io::Error),
    /// Who takes it failed or asked to stop.
    #[error("the export was not taken")]
    Output(#[source] io::Error),
    /// It is no export, or of a newer form.
    #[error("record {record}: {what}")]
    Malformed {
        /// From 1; the header is the first.
        record: u64,
        /// What is wrong.
        what: String,
    },
    /// It ends without saying that it is whole.
    #[error("the export was cut after record {records}: it has no end")]
    Cut {
        /// Whole ones.
        records: u64,
    },
    /// It is not what was written.
    #[error("the export was altered: {what}")]
    Altered {
        /// How that is seen.
        what: &'static str,
    },
}
