//! Reports over a data directory that change not one byte of it.
//!
//! Works offline, after a crash, and beside a running daemon: it takes no lock, opens the daemon's
//! files for reading only, and copies a sealed database before it opens it, one at a time. What a
//! daemon moved meanwhile is looked for again; what is bad twice is damaged. Memory is bounded by
//! what the footers and the frames' places take, whatever the log's size.
//!
//! Must not know of tonic, generated types or configuration, nor how a report is shown.

mod cover;
mod diff;
mod dump;
mod error;
mod explain;
mod history;
mod info;
mod owner;
mod scratch;
mod verify;
mod walk;

pub use diff::{Compared, Side, Verdict, diff};
pub use dump::{Dumped, Found, Selection, dump};
pub use error::Error;
pub use explain::{Answer, Explanation, Token, explain};
pub use history::{History, Part, Range, State};
pub use info::{CopyInfo, Info, KeptFile, LastStop, SegmentInfo, SlotInfo, SlotState, info};
#[cfg(feature = "cli")]
pub(crate) use owner::owner;
pub(crate) use scratch::Scratch;
pub use verify::{Progress, Verified, verify};
