//! Why a report could not be made.

use std::io;
use std::path::PathBuf;

use tailmark_log::storage::StoreError;

/// Why a report could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Missing, of another format, or I/O.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A sealed segment is read from a copy, and there is no room for one.
    #[error(
        "no room in {} for a copy of one segment: {available_bytes} bytes free, {needed_bytes} needed",
        dir.display()
    )]
    NoScratch {
        /// Where copies are made: `TMPDIR`, else `/tmp`.
        dir: PathBuf,
        /// Free there.
        available_bytes: u64,
        /// For the largest copy so far.
        needed_bytes: u64,
    },
    /// The receiver of the report failed or asked to stop.
    #[error("the report was not taken")]
    Output(#[source] io::Error),
}
