//! A log as one file that people and other programs can read, and a log made of such a file.
//!
//! `proto/feed/v1/export.proto` says what is in it, in both formats; [`export`] writes it from a data
//! directory, [`import`] makes of it a log whose cursors are those of the first. Every event passes
//! the chain on its way out and on its way in, so that what is damaged, missing or altered is found.
//!
//! Must not know the terminal, the server or the configuration.

mod error;
mod from_log;
mod header;
mod into_log;
mod read;
mod write;

pub use error::Error;
pub use from_log::{Exported, export, export_history};
pub(crate) use header::Origin;
pub(crate) use into_log::Collector;
pub use into_log::{Imported, import};
pub use read::{Reader, Record};
pub use write::Format;

/// Before the records, in protobuf.
const MAGIC: &[u8; 8] = b"TMEXPORT";
/// Of the header.
const VERSION: u32 = 1;
/// A record that is longer holds no event: the largest is 8 MiB, and JSON may write each byte in six.
const MAX_RECORD_BYTES: usize = 64 << 20;
