//! Plain values: what an event, a position and a cursor are. No I/O, no clock, no randomness.
//!
//! Everything else speaks in these words; this crate knows nothing of storage, network or
//! configuration.

mod append;
mod batch;
mod bounds;
pub mod consumer;
mod cursor;
mod erased;
mod event;
mod excerpt;
mod fingerprint;
pub mod json;
mod limits;
mod marker;
pub mod moment;
mod reason;
pub mod room;
mod scan;
mod seq;
mod start;
mod time;
pub mod topic;
pub mod units;
mod varint;

pub use append::{AppendMessage, BatchMessage};
pub use batch::{Part, Parts};
pub use bounds::{Bounds, Generation, GenerationEntry, GenerationTable, LogId};
pub use cursor::{ChainTag, Cursor, CursorFormatError, CursorMint, CursorPart};
pub use erased::{Erased, NOTICE, NOTICE_ID, write_shell, write_shell_entry};
pub use event::{Content, EncodedTime, Event, EventError, Events, Place, Stamp, write_entry};
pub use excerpt::{excerpt, shorten};
pub use fingerprint::{Fingerprint, FingerprintKey};
pub use limits::{InvalidEvent, Limits, Problem};
pub use marker::{Gap, GapReason, Marker, MarkerKind};
pub use reason::Reason;
pub use scan::{Facts, payload_of};
pub use seq::Seq;
pub use start::{OnLost, Start};
pub use time::Timestamp;
pub use varint::{put_varint, take_varint, varint_len};

#[cfg(test)]
mod tests;
