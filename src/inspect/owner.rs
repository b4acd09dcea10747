//! Whether a daemon has the data directory open, told without touching its lock.

use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The process that holds the lock of the log in `dir`, if the operating system shows one. Taking
/// the lock to find out would keep a daemon that starts at this moment from getting it.
pub(crate) fn owner(dir: &Path) -> Option<u32> {
    let path = dir.join("LOCK");
    let pid: u32 = std::fs::read_to_string(&path).ok()?.trim().parse().ok()?;
    let inode = std::fs::metadata(&path).ok()?.ino();
    let is_held = || locks().is_some_and(|all| all.lines().any(|it| is_lock_of(it, pid, inode)));
    (0..LOOKS).any(|_| is_held()).then_some(pid)
}

/// How often we look for a lock that is not listed: while other locks come and go, a read of the
/// list that takes several pieces may skip one.
const LOOKS: usize = 5;

/// All locks of this machine, in pieces as large as they come.
fn locks() -> Option<String> {
    let mut text = String::with_capacity(64 << 10);
    std::fs::File::open("/proc/locks").ok()?.read_to_string(&mut text).ok()?;
    Some(text)
}

/// `1: FLOCK  ADVISORY  WRITE 1234 08:01:5678 0 EOF`. The device is left out: some file systems
/// show another one here than in `stat`.
fn is_lock_of(line: &str, pid: u32, inode: u64) -> bool {
    let mut fields = line.split_whitespace().skip(1);
    let (kind, owner, file) = (fields.next(), fields.nth(2), fields.next());
    kind == Some("FLOCK")
        && owner.and_then(|owner| owner.parse().ok()) == Some(pid)
        && file.and_then(|file| file.rsplit(':').next()?.parse().ok()) == Some(inode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_told_by_process_and_inode() {
        let line = "1: FLOCK  ADVISORY  WRITE 1234 08:01:5678 0 EOF";
        assert!(is_lock_of(line, 1234, 5678));
        assert!(!is_lock_of(line, 1235, 5678));
        assert!(!is_lock_of(line, 1234, 567));
        assert!(!is_lock_of("1: -> FLOCK  ADVISORY  WRITE 1234 08:01:5678 0 EOF", 1234, 5678));
        assert!(!is_lock_of("1: POSIX  ADVISORY  WRITE 1234 08:01:5678 0 EOF", 1234, 5678));
        assert!(!is_lock_of("", 1, 1));
    }

    #[test]
    fn a_held_lock_is_seen_and_a_free_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(owner(dir.path()), None);
        let path = dir.path().join("LOCK");
        std::fs::write(&path, format!("{}\n", std::process::id())).unwrap();
        assert_eq!(owner(dir.path()), None);
        let file = std::fs::File::open(&path).unwrap();
        file.try_lock().unwrap();
        assert_eq!(owner(dir.path()), Some(std::process::id()));
        drop(file);
        assert_eq!(owner(dir.path()), None);
    }
}
