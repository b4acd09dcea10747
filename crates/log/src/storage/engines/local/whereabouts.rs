//! Whether a directory is the one that its log was in when it was open last.
//!
//! A copy, a directory that was put back from one, and one that was carried to another disk have all
//! that the log says of itself, and may not be its only continuation. So a log notes in `log.meta`
//! which directory and which lock file it was opened in, by what a copy cannot have: their numbers
//! in the file system and when they were made. Found elsewhere it begins a generation, so that both
//! continuations can name where they parted. What this misses (a file system rolled back as a
//! whole) the chain over the events finds. `docs/decisions/0016-chain.md`.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::UNIX_EPOCH;

use super::LOCK_FILE;
use crate::chain::hash;

/// Where a log lies; 0 = not known.
pub(super) fn whereabouts(dir: &Path) -> [u8; 16] {
    let mut bytes = Vec::with_capacity(48);
    for path in [dir.to_owned(), dir.join(LOCK_FILE)] {
        let Ok(metadata) = path.metadata() else { return [0; 16] };
        // Not the device's number: it differs from one start of the machine to the next.
        bytes.extend_from_slice(&metadata.ino().to_le_bytes());
        // Some file systems do not know.
        let born = metadata.created().ok().and_then(|born| born.duration_since(UNIX_EPOCH).ok());
        bytes.extend_from_slice(&born.unwrap_or_default().as_nanos().to_le_bytes());
    }
    hash(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::copy_dir;

    #[test]
    fn a_copy_is_elsewhere_and_a_directory_that_is_renamed_is_not() {
        let parent = tempfile::tempdir().unwrap();
        let (one, two) = (parent.path().join("one"), parent.path().join("two"));
        std::fs::create_dir(&one).unwrap();
        assert_eq!(whereabouts(&one), [0; 16], "without a lock file nothing is known");
        std::fs::write(one.join(LOCK_FILE), "1\n").unwrap();
        let here = whereabouts(&one);
        assert_ne!(here, [0; 16]);
        copy_dir(&one, &two).unwrap();
        assert_ne!(whereabouts(&two), here);
        // What the log itself does to them.
        std::fs::write(one.join(LOCK_FILE), "22\n").unwrap();
        std::fs::write(one.join("log.meta"), "").unwrap();
        let three = parent.path().join("three");
        std::fs::rename(&one, &three).unwrap();
        assert_eq!(whereabouts(&three), here);
        // Files of a copy in the directory itself, each put in place by its name.
        std::fs::rename(two.join(LOCK_FILE), three.join(LOCK_FILE)).unwrap();
        assert_ne!(whereabouts(&three), here);
    }
}
