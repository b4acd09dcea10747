//! A migration on a file system that cannot swap two names at once: it renames twice, over nothing.

use std::path::{Path, PathBuf};

use tailmark_log::storage::disk::Disk;
use tailmark_log::storage::migrate::{self, Outcome, Progress, Step};
use tailmark_log::storage::{FORMAT_VERSION, Store, StoreError};

use crate::CHILD_LIMIT;
use crate::crash::{self, strace, workload};

const NEXT: u32 = FORMAT_VERSION + 1;

/// A next format that never was: the same bytes under another number.
struct Renumbered;

impl Step for Renumbered {
    fn from(&self) -> u32 {
        FORMAT_VERSION
    }

    fn recognises(&self, _: &Path) -> bool {
        false
    }

    fn copy(
        &self,
        from: &Path,
        to: &Path,
        _: &Disk,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), StoreError> {
        let files = renumbered(from);
        let of = files.len() as u64;
        for (done, (path, bytes)) in (1..).zip(files) {
            let is_dir = path.as_os_str().as_encoded_bytes().ends_with(b"/");
            let path = to.join(path);
            let dir = if is_dir { path.as_path() } else { path.parent().expect("a parent") };
            std::fs::create_dir_all(dir).expect("a directory");
            if !is_dir {
                progress(Progress { done, of });
                std::fs::write(path, bytes).expect("a copy");
            }
        }
        Ok(())
    }

    fn verify(
        &self,
        from: &Path,
        to: &Path,
        _: &mut dyn FnMut(Progress),
    ) -> Result<(), StoreError> {
        match renumbered(from) == crash::read_tree(to) {
            true => Ok(()),
            false => Err(StoreError::Invalid("the copy is another")),
        }
    }
}

/// What the next format has of a log.
fn renumbered(log: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = crash::read_tree(log);
    for (path, bytes) in &mut files {
        if path.ends_with("log.meta") {
            bytes[8..12].copy_from_slice(&NEXT.to_le_bytes());
        }
    }
    files
}

/// Tells how a migration ended.
pub fn child(dir: &Path) {
    match migrate::migrate(dir, &[&Renumbered], NEXT, &Disk::real(), |_| {}) {
        Ok(Outcome::Migrated { kept, .. }) => {
            workload::tell(&format!("M {}\n", kept.file_name().expect("a name").display()));
        }
        other => workload::tell(&format!("E {other:?}\n")),
    }
}

pub fn test() {
    if !strace::is_there() {
        return;
    }
    let scratch = crash::scratch();
    // Old kernels and seccomp profiles; NFS, vfat before 6.0, some FUSE.
    for error in ["ENOSYS", "EINVAL", "EOPNOTSUPP", "EPERM"] {
        let (place, told) = migrated(scratch.path(), error);
        // What lay there under that name lies there still.
        assert_eq!(told, "M log.format-2.2\n", "{error}");
        let log = place.path().join("log");
        let kept = place.path().join("log.format-2.2");
        assert_eq!(migrate::detect(&log, &[]).expect("a format"), NEXT, "{error}");
        assert_eq!(migrate::detect(&kept, &[]).expect("a format"), FORMAT_VERSION, "{error}");
        assert_eq!(renumbered(&kept), renumbered(&log), "{error}");
        assert_eq!(names(&place), ["log", "log.format-2", "log.format-2.2", "trace"], "{error}");
        let (engine, _) = workload::open(&kept).expect("the log as it was");
        assert_eq!(workload::check_events(&*engine, |_| 0).expect("its events"), 50, "{error}");
    }
    // Any other failure is told, and nothing has moved.
    let (place, told) = migrated(scratch.path(), "EIO");
    assert!(told.starts_with("E ") && told.contains("swap"), "{told}");
    let log = place.path().join("log");
    assert_eq!(migrate::detect(&log, &[]).expect("a format"), FORMAT_VERSION);
    let (engine, _) = workload::open(&log).expect("the log as it was");
    assert_eq!(workload::check_events(&*engine, |_| 0).expect("its events"), 50);
}

fn names(place: &tempfile::TempDir) -> Vec<String> {
    let entries = std::fs::read_dir(place.path()).expect("the directory");
    let name = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.expect("an entry").file_name().into_string().expect("UTF-8")
    };
    let mut names: Vec<_> = entries.map(name).collect();
    names.sort();
    names
}

/// A log of 50 events, and what a migration of it told.
fn migrated(scratch: &Path, error: &str) -> (tempfile::TempDir, String) {
    let place = tempfile::Builder::new().prefix("swapped-").tempdir_in(scratch).expect("a place");
    let log = place.path().join("log");
    let (engine, _) = workload::open(&log).expect("a log");
    workload::append(&*engine, workload::commit(&*engine, 50, 0)).expect("an append");
    engine.close().expect("a clean stop");
    drop(engine);
    // Somebody's; not for us to replace.
    let taken = place.path().join("log.format-2");
    std::fs::create_dir(&taken).expect("a directory");
    std::fs::write(taken.join("mine"), b"mine").expect("a file");
    let trace = place.path().join("trace");
    let what = format!("renameat2:error={error}");
    let args = ["migrate", log.to_str().expect("UTF-8")];
    let (status, told) = strace::inject_where(&args, &what, &[], &trace, CHILD_LIMIT);
    assert!(status.is_some_and(|status| status.success()), "{error}: {told}");
    let trace = std::fs::read_to_string(&trace).expect("the trace");
    assert!(trace.contains("(INJECTED)"), "{error}: no such call was made: this proves nothing");
    assert_eq!(std::fs::read(taken.join("mine")).expect("it"), b"mine", "{error}");
    (place, told)
}
