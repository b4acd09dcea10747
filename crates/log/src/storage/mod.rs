//! Where the log lies: the two halves of an engine, a journal and a store, and the engines behind them.
//!
//! Owns bytes on disk and nothing else: it must not know of tonic, generated types, configuration,
//! or clients. Nothing above this module may know sled or fsync.

mod answers;
mod chunk;
mod commit;
#[doc(hidden)]
pub mod compact;
mod crc;
#[doc(hidden)]
pub mod disk;
mod engine;
pub mod engines;
#[doc(hidden)]
pub mod entries;
mod erase;
mod error;
#[doc(hidden)]
pub mod forward;
#[doc(hidden)]
pub mod journal;
#[doc(hidden)]
pub mod meta;
#[doc(hidden)]
pub mod migrate;
pub mod piece_size;
#[doc(hidden)]
pub mod place;
mod removed;
#[doc(hidden)]
pub mod salvage;
#[doc(hidden)]
pub mod segment;
#[cfg(any(test, feature = "shared"))]
#[doc(hidden)]
pub mod shared;
mod sift;
#[doc(hidden)]
pub mod syncer;
mod take_out;
mod time;
#[doc(hidden)]
pub mod unfinished;

pub use answers::{LookBack, StoreStatus, TopicPage, TopicQuery, TopicStats};
pub use chunk::{Chunk, part_of};
pub use commit::{Commit, Completion, Level, Links, Receipt, Recovered};
pub use engine::{Engine, Journal, Store};
pub use engines::intercept::Intercept;
#[cfg(any(test, feature = "testing"))]
pub use engines::{conformance, faulty};
pub use engines::{local, memory};
pub use erase::{EraseOrder, ErasePhase, EraseProgress, MAX_RANGES};
pub use error::{Damage, StoreError};
pub use removed::{Removed, RemovedReason};
pub use take_out::{Sealed, TakeOut, TakenOut};
pub(crate) use time::since_now;
pub use time::{Clock, Clocks, Elapsed};

/// Version of everything on disk. `migrations/` has a folder for each.
pub const FORMAT_VERSION: u32 = 2;
