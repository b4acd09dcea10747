//! The engine of one machine: commits land in the journal and rest in sled segments.
//!
//! Owns the data directory: its lock, identity, journal, segments, and the threads that mark, seal
//! and reclaim. Must not know of clients, topics' meaning or configuration.
//!
//! Invariants:
//! - Segments, then slots, cover `segments[0].first .. next` without a hole; the last slot is the
//!   one that takes commits.
//! - The head moves after fdatasync has returned, never before; readers see nothing beyond it.
//! - A slot is reused only when its events are sealed or trimmed, the newer slot's head is on disk,
//!   and nobody reads it.

mod append;
mod claim;
mod copy;
mod create;
mod engine;
mod erase;
mod lookup;
mod open;
mod options;
mod private;
mod read;
mod refusal;
mod release;
mod seal;
mod seen;
mod survey;
mod take_out;
mod threads;
mod topics;
mod trimmed;
mod unsealed;
mod view;
mod whereabouts;
mod work;

pub(in crate::storage) use claim::Claim;
pub use copy::{CopyOf, CopyStart, open_copy};
pub use create::create_with;
pub(in crate::storage) use create::{begin, prepare};
pub use engine::LocalEngine;
pub(in crate::storage) use erase::store_order;
pub use erase::{ERASING_FILE, load_order, order_bytes, order_of};
pub(in crate::storage) use lookup::keep_trimmed_slots;
pub use open::open;
pub use options::Options;
pub(in crate::storage) use survey::survey_of;
pub use survey::{Survey, SurveyedSlot, survey};
pub use trimmed::{TRIMMED_DIR, trimmed_files, trimmed_range, verify_trimmed};

/// Where the slots of the journal lie, in the data directory.
pub const JOURNAL_DIR: &str = "journal";
/// Where sealed segments are, within the data directory.
pub const SEGMENTS_DIR: &str = "segments";
pub(in crate::storage) const QUARANTINE_DIR: &str = "quarantine";
const LOCK_FILE: &str = "LOCK";

#[cfg(test)]
mod tests;
