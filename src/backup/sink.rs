//! What a backup is made of, in its order, between where it is read and where it is kept.
//!
//! A look comes first; then what was not sealed, the segments that are not there yet, what tells repeats of
//! trimmed events, and the end. Another look may come at any time, where something moved: it begins anew,
//! but for the segments that are there by then.

use super::{Error, RemovedRow, SegmentRow};
use tailmark_record::{ChainTag, Seq};

/// The name of what was not sealed. Other files have those of the layout.
pub(super) const TAIL: &str = "tail";

/// XXH3-128 of some bytes, in its canonical order.
pub type Hash = [u8; 16];

/// The log at one head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// Whose.
    pub log_id: String,
    /// First readable seq.
    pub oldest: Seq,
    /// The chain at the event before that, if it is known.
    pub oldest_tag: Option<ChainTag>,
    /// Last seq.
    pub head: Seq,
    /// What is sealed, in order.
    pub segments: Vec<SegmentRow>,
    /// Ranges without events, in order.
    pub removed: Vec<RemovedRow>,
}

/// Takes in the parts of a backup.
pub trait Sink {
    /// A look at the log.
    ///
    /// # Errors
    /// Why it is not taken; so does each call.
    fn begin(&mut self, look: Look) -> Result<(), Error>;

    /// Whether a segment is there already.
    fn has(&self, segment: &SegmentRow) -> bool;

    /// A file begins.
    ///
    /// # Errors
    /// As above.
    fn file(&mut self, name: &str) -> Result<(), Error>;

    /// Bytes of it.
    ///
    /// # Errors
    /// As above.
    fn data(&mut self, bytes: &[u8]) -> Result<(), Error>;

    /// It is over, and was this.
    ///
    /// # Errors
    /// As above.
    fn close(&mut self, len: u64, hash: Hash) -> Result<(), Error>;

    /// All is there.
    ///
    /// # Errors
    /// As above.
    fn end(&mut self) -> Result<(), Error>;
}
