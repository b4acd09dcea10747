//! Backups: a log kept elsewhere, many times over, what is the same once.
//!
//! ```text
//! TO/tailmark-backup                    whose log
//!    segments/<first>-<revision>-<hash of its footer>/   sealed events, as they lie in the log; the footer last
//!    trimmed/<first>-<end>-<hash>       what tells repeats of trimmed events
//!    backups/<head>-<unix time>-<random>.tail    what was not sealed, and the log's state: an export (`crate::export`)
//!    backups/<head>-<unix time>-<random>.backup  what belongs together, the hash of the tail too; written last
//!    taking/<random>, pruning/<random>  who is at work there, where there are no locks
//! ```
//!
//! A backup is there when its last file is: whatever is cut before leaves all older ones as they were, and the
//! next one goes on with the segments that are whole. Everything is compared with its hashes as it is written,
//! and the chain over the events joins from part to part. TO is a directory, a folder of a cloud's store, or
//! one file that holds one backup (`place`). What a backup is made of comes from a directory (`source`)
//! into a [`Sink`]: a place ([`Filling`]), or the network.
//!
//! Must not know the terminal, the server or the configuration.

mod check;
mod earlier;
mod error;
mod filling;
mod manifest;
mod notes;
mod place;
mod plan;
mod prune;
mod restore;
mod sink;
mod source;
mod tail;
mod take;
mod target;
mod wire;

pub use check::{Checked, check};
pub use error::Error;
pub use filling::{Filling, Progress, Taken};
pub use manifest::{Manifest, Reason, RemovedRow, SegmentRow};
pub use plan::{Since, Upto, reaching};
pub use prune::{Keep, Pruned, prune};
pub use restore::{Restored, Wanted, restore};
pub use sink::{Hash, Look, Sink};
pub use source::{last_written, read};
pub use take::take;
pub use target::{Mark, Target};
pub use wire::{Messages, Reading};

/// A way for the fuzzer (`fuzz/`) to what a file says that is of a backup: its hash is made to fit, which
/// keeps accidents out, and would keep the fuzzer out of all behind it. In no other build.
#[cfg(fuzzing)]
pub fn fuzz_manifest(body: &str) {
    let body = body.replace('\n', " ");
    let hash = xxhash_rust::xxh3::xxh3_128(body.as_bytes());
    let path = std::path::Path::new("fuzz");
    let Ok(manifest) = Manifest::decode(path, format!("{body}\n{hash:032x}\n").as_bytes()) else {
        return;
    };
    let again = manifest.encode().expect("what was read can be written");
    assert_eq!(Manifest::decode(path, &again).expect("and read again"), manifest);
}
