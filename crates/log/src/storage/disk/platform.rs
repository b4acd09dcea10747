//! What operating systems do differently: calls that a file system, a container or a seccomp
//! profile refuses, links, and who may read what is made.

use crate::width::to_usize;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;

/// What is made can be read by its owner alone: events are nobody else's business.
pub(super) const FILE_MODE: u32 = 0o600;
/// See [`FILE_MODE`].
pub(super) const DIR_MODE: u32 = 0o700;

/// What `path` names if it is a link, however long the chain; else itself. What is named need not
/// be there.
pub(in crate::storage) fn followed(path: &Path) -> io::Result<PathBuf> {
    /// As many as the kernel follows.
    const MOST_LINKS: usize = 40;
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        let Ok(target) = std::fs::read_link(&path) else { return Ok(path) };
        // An absolute target replaces all of it.
        path = path.parent().unwrap_or(Path::new("")).join(target);
    }
    Err(Errno::LOOP.into())
}

/// Whether an open file is what lies at `path` now.
pub(in crate::storage) fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    match std::fs::metadata(path) {
        Ok(there) => {
            let ours = file.metadata()?;
            Ok((ours.dev(), ours.ino()) == (there.dev(), there.ino()))
        }
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Creates a file, or empties it.
pub(super) fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(FILE_MODE).open(path)
}

/// Makes a file one that only its owner can read, or a directory one that only its owner can enter.
/// A file system without permissions keeps what it has.
pub(in crate::storage) fn make_private(path: &Path) -> io::Result<()> {
    static SAID: AtomicBool = AtomicBool::new(false);
    let mode = if path.is_dir() { DIR_MODE } else { FILE_MODE };
    match std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)) {
        Err(error)
            if matches!(
                Errno::from_io_error(&error),
                Some(Errno::PERM | Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL)
            ) =>
        {
            say_once(&SAID, path, "the file system keeps no permissions of ours");
            Ok(())
        }
        set => set,
    }
}

pub(super) fn allocate_blocks(file: &File, path: &Path, len: u64) -> io::Result<()> {
    static SAID: AtomicBool = AtomicBool::new(false);
    loop {
        return match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, len) {
            Ok(()) => Ok(()),
            Err(Errno::INTR) => continue,
            // Not known to the file system or the kernel, or forbidden by a seccomp profile: the
            // blocks are taken by writing them.
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::PERM) => {
                say_once(
                    &SAID,
                    path,
                    "space cannot be allocated here; it is taken by writing zeros",
                );
                write_zeros(file, len)
            }
            Err(errno) => Err(errno.into()),
        };
    }
}

/// Whether a file system that answers this has no locks at all.
pub(super) fn has_no_locks(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(
        errno,
        Some(Errno::NOSYS | Errno::NOLCK | Errno::OPNOTSUPP | Errno::INVAL | Errno::PERM)
    )
}

/// Whether a sync was refused because it is of a directory.
pub(super) fn is_not_for_dirs(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::INVAL | Errno::BADF | Errno::NOSYS | Errno::OPNOTSUPP))
}

/// Bytes free for an ordinary user; `None` where the figures say nothing.
pub(super) fn room(blocks: u64, free_blocks: u64, fragment: u64, block: u64) -> Option<u64> {
    let unit = if fragment > 0 { fragment } else { block };
    (blocks > 0 && unit > 0).then(|| free_blocks.saturating_mul(unit))
}

pub(super) fn say_once(said: &AtomicBool, path: &Path, what: &str) {
    if !said.swap(true, Ordering::Relaxed) {
        tracing::warn!(path = %path.display(), "{what}");
    }
}

fn write_zeros(file: &File, len: u64) -> io::Result<()> {
    let zeros = vec![0u8; 1 << 20];
    let mut offset = 0;
    while offset < len {
        let part = to_usize(len - offset).min(zeros.len());
        file.write_all_at(&zeros[..part], offset)?;
        offset += part as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_that_tells_nothing_of_its_room_is_not_full() {
        assert_eq!(room(0, 0, 4096, 4096), None);
        assert_eq!(room(0, 0, 0, 0), None);
        assert_eq!(room(10, 5, 0, 0), None);
        assert_eq!(room(10, 5, 0, 512), Some(5 * 512), "a fragment of 0 is a block");
        assert_eq!(room(10, 0, 4096, 4096), Some(0), "a full one is full");
        assert_eq!(room(10, u64::MAX, 4096, 4096), Some(u64::MAX));
    }

    #[test]
    fn links_are_followed_to_their_end_and_a_circle_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::os::unix::fs::symlink("two", at("one")).unwrap();
        std::os::unix::fs::symlink(at("three"), at("two")).unwrap();
        assert_eq!(followed(&at("one")).unwrap(), at("three"), "what it names need not be there");
        assert_eq!(followed(&at("three")).unwrap(), at("three"));
        std::os::unix::fs::symlink("one", at("three")).unwrap();
        assert!(followed(&at("one")).is_err());
    }
}
