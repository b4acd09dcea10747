//! Backups: a log kept in another directory, many times over, what is the same once.
//!
//! ```text
//! TO/tailmark-backup                    whose log
//!    segments/<first>-<revision>-<hash of its footer>/   sealed events, as they lie in the log
//!    trimmed/<first>-<end>-<hash>       what tells repeats of trimmed events
//!    backups/<head>-<unix time>.tail    what was not sealed, and the log's state: an export (`crate::export`)
//!    backups/<head>-<unix time>.backup  what belongs together; written last
//! ```
//!
//! A backup is there when its last file is: whatever is cut before leaves all older ones as they were, and the
//! next one goes on with the segments that are whole. Everything is compared with its hashes as it is written,
//! and the chain over the events joins from part to part.
//!
//! Must not know the terminal, the server or the configuration.

mod check;
mod error;
mod manifest;
mod restore;
mod take;
mod target;

pub use check::{Checked, check};
pub use error::Error;
pub use manifest::{Manifest, SegmentRow};
pub use restore::{Restored, Upto, restore};
pub use take::{Progress, Taken, take};
pub use target::Target;
