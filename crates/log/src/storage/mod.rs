//! Where the log lies: an engine trait and the engines behind it.
//!
//! Owns bytes on disk and nothing else: it must not know of tonic, generated types, configuration,
//! or clients. Nothing above this module may know sled or fsync.

#[cfg(any(test, feature = "testing"))]
pub mod conformance;
mod crc;
pub mod disk;
mod engine;
mod error;
#[cfg(any(test, feature = "testing"))]
pub mod fault;
pub mod journal;
pub mod local;
pub mod memory;
pub mod meta;
pub mod migrate;
pub mod segment;
mod sift;

pub use engine::{
    Chunk, Commit, Completion, Engine, Level, Receipt, Recovered, StoreStatus, TopicStats, part_of,
};
pub use error::{Damage, StoreError};

/// Version of everything on disk. `migrations/` has a folder for each.
pub const FORMAT_VERSION: u32 = 1;
