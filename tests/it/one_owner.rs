//! Two daemons never own one log, whatever happens to its lock file, its names and its mounts. Each case
//! has two real processes.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::support::daemon::{Daemon, program};
use crate::support::disk::copy_dir;

/// Runs `serve` where another must be, or must not be able to begin: it ends by itself.
fn serve(dir: &Path, wrap: &[&str]) -> Output {
    let serve = program(&["serve", "--listen", "127.0.0.1:0", "--data-dir"]);
    // One that runs after all is ended, and told by its exit code.
    let mut command = Command::new("timeout");
    command.args(["--signal=KILL", "60"]).args(wrap).arg(serve.get_program());
    command.args(serve.get_args()).arg(dir).stdin(Stdio::null());
    for (name, _) in serve.get_envs() {
        command.env_remove(name);
    }
    command.env("TAILMARK_STORAGE_SLOT_BYTES", "256 KiB");
    command.env("TAILMARK_STORAGE_MIN_FREE_BYTES", "0").output().unwrap()
}

fn assert_refused(what: &str, output: &Output) {
    let errors = String::from_utf8_lossy(&output.stderr);
    let is_told = errors.contains("is in use by another process") && errors.contains("hint: ");
    assert!(output.status.code() == Some(5) && is_told, "{what}: {:?} {errors}", output.status);
}

fn publish(daemon: &Daemon, body: &str) {
    daemon.output(&["publish", "orders", body], b"");
}

fn bodies(daemon: &Daemon) -> Vec<String> {
    let text = daemon.output(&["watch", "--from", "oldest", "--until-caught-up", "--json"], b"");
    let body = |line: &str| line.split("\"body\":\"").nth(1)?.split('"').next().map(str::to_owned);
    text.lines().filter_map(body).collect()
}

fn eventually(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(30), "{what}");
        std::thread::yield_now();
    }
}

#[test]
fn a_second_daemon_is_kept_out_whatever_becomes_of_the_lock_file() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("data");
    let daemon = Daemon::start(&dir);
    publish(&daemon, "before");
    let lock = dir.join("LOCK");
    assert_refused("nothing happened", &serve(&dir, &[]));
    let cases: [(&str, &dyn Fn()); 4] = [
        ("deleted", &|| std::fs::remove_file(&lock).unwrap()),
        ("emptied", &|| std::fs::write(&lock, "").unwrap()),
        ("made anew", &|| {
            let _ = std::fs::remove_file(&lock);
            std::fs::write(&lock, "").unwrap();
        }),
        ("put back from a copy", &|| {
            std::fs::copy(&lock, place.path().join("kept")).unwrap();
            std::fs::rename(place.path().join("kept"), &lock).unwrap();
        }),
    ];
    for (what, harm) in cases {
        harm();
        assert_refused(what, &serve(&dir, &[]));
        publish(&daemon, what);
    }
    // It is ours again in the end, and says whose it is.
    let owner = format!("{}\n", daemon.id());
    eventually("the lock file", || std::fs::read_to_string(&lock).is_ok_and(|text| text == owner));
    assert_eq!(
        bodies(&daemon),
        ["before", "deleted", "emptied", "made anew", "put back from a copy"]
    );
    assert_eq!(daemon.stop(), Some(0));
    assert_eq!(bodies(&Daemon::start(&dir)).len(), 5);
}

#[test]
fn a_second_daemon_is_kept_out_under_each_name_of_the_log() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    let dir = at("data");
    let daemon = Daemon::start(&dir);
    publish(&daemon, "one");
    std::os::unix::fs::symlink(&dir, at("link")).unwrap();
    assert_refused("a link", &serve(&at("link"), &[]));
    let linked = Command::new("cp").args(["-al"]).arg(&dir).arg(at("linked")).status().unwrap();
    assert!(linked.success());
    std::fs::remove_file(at("linked/LOCK")).unwrap();
    assert_refused("a snapshot of hard links", &serve(&at("linked"), &[]));
    publish(&daemon, "two");
    assert_eq!(bodies(&daemon), ["one", "two"]);
}

#[test]
fn a_directory_that_is_mounted_twice_has_one_daemon() {
    let place = tempfile::tempdir().unwrap();
    let (dir, other) = (place.path().join("data"), place.path().join("other"));
    std::fs::create_dir(&other).unwrap();
    let daemon = Daemon::start(&dir);
    publish(&daemon, "one");
    for harm in ["true", "rm \"$1/LOCK\""] {
        let script = format!("mount --bind \"$1\" \"$2\" || exit 77; {harm}; shift 2; exec \"$@\"");
        let (dir, other) = (dir.to_str().unwrap(), other.to_str().unwrap());
        let wrap = ["unshare", "--mount", "sh", "-c", &script, "sh", dir, other];
        let output = serve(Path::new(other), &wrap);
        if cannot_mount(&output) {
            return;
        }
        assert_refused(harm, &output);
    }
    publish(&daemon, "two");
    assert_eq!(bodies(&daemon), ["one", "two"]);
}

fn cannot_mount(output: &Output) -> bool {
    let errors = String::from_utf8_lossy(&output.stderr);
    let cannot = output.status.code() == Some(77) || errors.contains("unshare");
    if cannot {
        println!("LEFT OUT: mounting is not allowed here (it is for root)");
    }
    cannot
}

/// A publish that must be refused: nothing of it is stored.
fn refused(daemon: &Daemon, body: &str) -> String {
    let output = daemon.run(&["publish", "orders", body], b"");
    assert!(!output.status.success(), "taken: {body}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_daemon_whose_directory_was_replaced_takes_nothing_until_it_is_back() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    let (dir, away) = (at("data"), at("away"));
    let daemon = Daemon::start(&dir);
    publish(&daemon, "one");
    std::fs::rename(&dir, &away).unwrap();
    // Seen within a second or so.
    eventually("a refusal", || !daemon.run(&["publish", "orders", "lost?"], b"").status.success());
    assert_refused("where it was moved to", &serve(&away, &[]));
    // Another log begins in its place, and is left alone by the first one.
    let second = Daemon::start(&dir);
    publish(&second, "another log");
    let errors = refused(&daemon, "nowhere");
    assert!(errors.contains("nothing was stored"), "{errors}");
    assert_eq!(bodies(&second), ["another log"]);
    assert_eq!(second.stop(), Some(0));
    std::fs::rename(&dir, at("second")).unwrap();
    std::fs::rename(&away, &dir).unwrap();
    publish(&daemon, "two");
    let stored = bodies(&daemon);
    assert!(stored.first().unwrap() == "one" && stored.last().unwrap() == "two", "{stored:?}");
    assert!(!stored.iter().any(|body| body == "nowhere"), "{stored:?}");
    assert_eq!(bodies(&Daemon::start(&at("second"))), ["another log"]);
}

#[test]
fn a_mount_over_the_directory_of_a_running_daemon_stops_its_appends() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("data");
    std::fs::create_dir(&dir).unwrap();
    let probe = Command::new("unshare")
        .args(["--mount", "sh", "-c", "mount -t tmpfs tmpfs \"$1\"", "sh"])
        .arg(&dir)
        .output();
    if !probe.is_ok_and(|output| output.status.success()) {
        println!("LEFT OUT: mounting is not allowed here (it is for root)");
        return;
    }
    // In a name space of its own, which we enter for each mount.
    let daemon = Daemon::start_with(&dir, "exec unshare --mount \"$0\" \"$@\"");
    publish(&daemon, "one");
    let inside = |args: &[&str]| {
        let mut command = Command::new("nsenter");
        command.args(["--target", &daemon.id().to_string(), "--mount"]).args(args).arg(&dir);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{args:?}: {output:?}");
    };
    inside(&["mount", "-t", "tmpfs", "tmpfs"]);
    eventually("a refusal", || !daemon.run(&["publish", "orders", "lost?"], b"").status.success());
    refused(&daemon, "nowhere");
    inside(&["sh", "-c", "test -z \"$(ls -A \"$0\")\""]);
    inside(&["umount"]);
    publish(&daemon, "two");
    let stored = bodies(&daemon);
    assert!(stored.last().unwrap() == "two" && !stored.contains(&"nowhere".to_owned()));
}

#[test]
fn of_many_daemons_that_start_at_once_one_gets_the_log() {
    let place = tempfile::tempdir().unwrap();
    let dir: PathBuf = place.path().join("data");
    for _ in 0..3 {
        let start = || {
            let mut command = program(&["serve", "--listen", "127.0.0.1:0", "--data-dir"]);
            command.arg(&dir).env("TAILMARK_STORAGE_SLOT_BYTES", "256 KiB");
            command.env("TAILMARK_STORAGE_MIN_FREE_BYTES", "0");
            command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
        };
        let mut children: Vec<_> = (0..4).map(|_| start()).collect();
        // The others end by themselves.
        let begun = Instant::now();
        let mut ended = Vec::new();
        while ended.len() < 3 {
            assert!(begun.elapsed() < Duration::from_secs(30), "more than one goes on");
            children.retain_mut(|child| match child.try_wait().unwrap() {
                Some(status) => {
                    ended.push(status.code());
                    false
                }
                None => true,
            });
            std::thread::yield_now();
        }
        assert_eq!((ended, children.len()), (vec![Some(5); 3], 1));
        for mut child in children {
            let _ = child.kill();
            child.wait().unwrap();
        }
    }
}

#[test]
fn a_file_system_without_locks_is_refused_in_words_before_anything_is_made() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("data");
    let strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=flock", "-e"];
    let inject = "inject=flock:error=ENOLCK";
    let wrap: Vec<_> = strace.into_iter().chain([inject]).collect();
    if Command::new("strace").arg("--version").output().is_err() {
        println!("LEFT OUT: strace is missing");
        return;
    }
    let output = serve(&dir, &wrap);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    let is_told = errors.contains("the file system has no locks") && errors.contains("hint: ");
    assert!(is_told && !dir.join("journal").exists(), "{errors}");
    // A copy of a running log is another log: made here, to show that the refusals are not of anything.
    let daemon = Daemon::start(&dir);
    publish(&daemon, "one");
    daemon.kill();
    copy_dir(&dir, &place.path().join("copy"));
    let (one, two) = (Daemon::start(&dir), Daemon::start(&place.path().join("copy")));
    assert_eq!((bodies(&one), bodies(&two)), (vec!["one".to_owned()], vec!["one".to_owned()]));
}
