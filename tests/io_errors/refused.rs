//! Calls that a container, a seccomp profile or an odd file system refuses from the first one on. Where
//! there is another way that promises as much, the log takes it; where there is none it says so before
//! anything is acknowledged.

use std::path::Path;
use std::sync::Mutex;

use crate::crash::{self, strace};
use crate::{CHILD_LIMIT, Told, check};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Outcome {
    /// The whole script goes through.
    Works,
    /// Nothing is begun, and the error has these words in it.
    Refuses(&'static str),
    /// Sealing does not work, and says so in these words; what was acked is there.
    DoesNotSeal(&'static str),
}
use Outcome::{DoesNotSeal, Refuses, Works};

const CASES: &[(&str, &[&str], Outcome)] = &[
    // gVisor, old kernels, NFS before 4.2, 9p; seccomp profiles; ZFS; some FUSE.
    ("fallocate", &["ENOSYS", "EOPNOTSUPP", "EINVAL", "EPERM"], Works),
    // WSL 1, and some emulators.
    ("pwritev", &["ENOSYS"], Works),
    // Some FUSE and network file systems.
    ("statfs", &["ENOSYS", "EPERM", "EOPNOTSUPP"], Works),
    // vfat, exFAT and CIFS keep no permissions.
    ("chmod,fchmod,fchmodat", &["EPERM", "EOPNOTSUPP"], Works),
    // sled syncs whole files then.
    ("sync_file_range", &["ENOSYS"], Works),
    // There sled has no other way.
    ("sync_file_range", &["EPERM"], DoesNotSeal("Operation not permitted")),
    // A log needs one owner: without locks nothing would keep a second away.
    ("flock", &["ENOSYS", "ENOLCK", "EOPNOTSUPP", "EINVAL"], Refuses("Unlockable")),
];

pub fn test() {
    if !strace::is_there() {
        return;
    }
    let scratch = crash::scratch();
    let mut runs = Vec::new();
    for (call, errors, outcome) in CASES {
        runs.extend(errors.iter().map(|error| (*call, *error, *outcome, false)));
    }
    // CIFS, some FUSE: only of directories.
    runs.push(("fsync", "EINVAL", Works, true));
    runs.push(("fsync", "EBADF", Works, true));
    let failures = Mutex::new(Vec::new());
    crash::in_parallel(runs.len() as u64, |at| {
        let (call, error, outcome, is_of_dirs) = runs[at as usize];
        let dir = tempfile::Builder::new().prefix("refused-").tempdir_in(scratch.path());
        let dir = dir.expect("a directory");
        let log = dir.path().join("log");
        if let Err(what) = run(&log, call, error, outcome, is_of_dirs) {
            failures.lock().expect("failures").push(format!("{call} {error}: {what}"));
        }
    });
    let failures = failures.into_inner().expect("failures");
    failures.iter().for_each(|failure| println!("  FAILED {failure}"));
    println!("  {} kinds of refusal", runs.len());
    assert!(failures.is_empty(), "{} of {} runs failed, see above", failures.len(), runs.len());
}

fn run(
    log: &Path,
    call: &str,
    error: &str,
    outcome: Outcome,
    is_of_dirs: bool,
) -> Result<(), String> {
    // More than all slots take, where that is to show.
    let bytes = if matches!(outcome, DoesNotSeal(_)) { "2000000" } else { "330000" };
    let args = ["child", log.to_str().expect("UTF-8"), bytes];
    let names = ["journal", "segments", "trimmed", "quarantine"].map(|name| log.join(name));
    let mut dirs = vec![log, log.parent().expect("a parent")];
    dirs.extend(names.iter().map(|name| name.as_path()));
    let dirs = if is_of_dirs { dirs } else { Vec::new() };
    let limit = CHILD_LIMIT + CHILD_LIMIT / 2;
    let trace = log.with_file_name("trace");
    let what = format!("{call}:error={error}");
    let (status, told) = strace::inject_where(&args, &what, &dirs, &trace, limit);
    let told = Told::parse(&told);
    let trace = std::fs::read_to_string(&trace).expect("the trace");
    if !trace.contains("(INJECTED)") {
        return Err("no such call was made: this proves nothing".to_owned());
    }
    if told.hung || status.is_none() || told.wrong.is_some() {
        return Err(format!("hung or wrong: {told:?}"));
    }
    let failed = told.failed.clone().unwrap_or_default();
    let is_as_expected = match outcome {
        Works => told.is_done && has_sealed(log),
        Refuses(words) => failed.contains(words) && told.tried == (0, 0),
        DoesNotSeal(words) => {
            failed.contains(words) && told.acked.0 > 0 && told.read && !has_sealed(log)
        }
    };
    if !is_as_expected {
        return Err(format!("not {outcome:?} but {told:?}"));
    }
    match outcome {
        // Nothing but the lock file.
        Refuses(_) if std::fs::read_dir(log).expect("the directory").count() == 1 => Ok(()),
        Refuses(_) => Err("something was made".to_owned()),
        _ => check(log, &told).map_err(|wrong| format!("{wrong:?} after {told:?}")),
    }
}

fn has_sealed(log: &Path) -> bool {
    std::fs::read_dir(log.join("segments")).is_ok_and(|mut entries| entries.next().is_some())
}
