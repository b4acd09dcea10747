//! A disk that is full, as `docs/operations.md` says it: what is seen, and each way out of it.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use super::get;
use crate::support::daemon::{Daemon, feed, program};
use crate::support::kept::expect_clean;
use crate::support::server::{until, within};

const DISK_BYTES: u64 = 64 << 20;

/// A small file system in memory, in the name space of the daemon that is on it.
struct SmallDisk(TempDir);

impl SmallDisk {
    /// Where one may be mounted.
    fn new() -> Option<SmallDisk> {
        let disk = SmallDisk(tempfile::tempdir().unwrap());
        std::fs::create_dir(disk.mount_point()).unwrap();
        std::fs::write(disk.settings(), "").unwrap();
        let tried = Command::new("unshare")
            .args(["--mount", "sh", "-c", "mount -t tmpfs tmpfs \"$1\"", "sh"])
            .arg(disk.mount_point())
            .output();
        if !tried.is_ok_and(|output| output.status.success()) {
            println!("LEFT OUT: mounting is not allowed here (it is for root)");
            return None;
        }
        Some(disk)
    }

    fn mount_point(&self) -> PathBuf {
        self.0.path().join("disk")
    }

    fn settings(&self) -> PathBuf {
        self.0.path().join("config.toml")
    }

    fn start(&self) -> Daemon {
        let at = self.mount_point();
        let shell = format!(
            "export AT='{}' TAILMARK_CONFIG='{}'; exec setsid unshare --mount sh -c \
             'mount -t tmpfs -o size={DISK_BYTES} tmpfs \"$AT\" && exec \"$0\" \"$@\"' \"$0\" \"$@\"",
            at.display(),
            self.settings().display()
        );
        Daemon::start_with(&at.join("log"), &shell)
    }
}

/// Runs a line of shell where the daemon's disk is.
fn there(daemon: &Daemon, at: &Path, line: &str) {
    let id = daemon.id().to_string();
    let output = Command::new("nsenter")
        .args(["--target", &id, "--mount", "sh", "-c", line, "sh"])
        .arg(at)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

fn lines(count: usize) -> String {
    let line = |at: usize| {
        let noise = (at as u128 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        format!("{noise:x}{:x}{:x}\n", noise.wrapping_mul(noise), noise.wrapping_mul(3))
    };
    (0..count).map(line).collect()
}

/// Uploads until it is refused for want of room, also where it is little; answers the head then.
fn fill(daemon: &Daemon) -> u64 {
    for count in [20_000, 500, 20, 1] {
        let lines = lines(count);
        let is_refused = || {
            let output = daemon.run(&["upload", "--topic", "a", "-"], lines.as_bytes());
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            let is_told = said.contains("no room on disk") && said.contains("tailmark trim");
            assert!(output.status.success() || is_told, "{said}");
            is_told
        };
        assert!((0..500).any(|_| is_refused()), "the disk does not become full");
    }
    status(daemon)["head_seq"].as_str().unwrap().parse().unwrap()
}

fn status(daemon: &Daemon) -> Value {
    serde_json::from_str(&daemon.output(&["status", "--json"], b"")).unwrap()
}

fn oldest(daemon: &Daemon) -> u64 {
    status(daemon)["oldest_seq"].as_str().unwrap().parse().unwrap()
}

/// What was found is told for a second.
async fn is_ready_becomes(daemon: &Daemon, is_ready: bool) {
    within("readiness", async {
        while get(daemon, "/readyz").await.starts_with("HTTP/1.1 200") != is_ready {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
}

/// Publishes as somebody does who comes again when he is told to.
async fn is_taken_again(daemon: &Daemon) {
    let publish = ["publish", "a", "again"];
    until("that events are taken again", || daemon.run(&publish, b"").status.success()).await;
    is_ready_becomes(daemon, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_way_out_of_a_full_disk_is_one_and_nothing_is_lost() {
    let Some(disk) = SmallDisk::new() else { return };
    let daemon = disk.start();
    let at = disk.mount_point();
    let state = disk.0.path().join("state");
    let state = state.to_str().unwrap();
    let watch = ["watch", "--json", "--from", "oldest", "--state", state, "--until-caught-up"];
    daemon.output(&["upload", "--topic", "a", "-"], lines(500).as_bytes());
    assert_eq!(daemon.output(&watch, b"").lines().count(), 500);

    // Others have filled it.
    there(&daemon, &at, "cat /dev/zero > \"$1/others\" 2>/dev/null || true");
    let head = fill(&daemon);
    is_ready_becomes(&daemon, false).await;
    let ready = get(&daemon, "/readyz").await;
    assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("DISK_FULL"), "{ready}");
    // Who reads goes on, and sees all that was acked.
    let seen = daemon.output(&watch, b"");
    assert_eq!(seen.lines().count() as u64, head - 500);
    // They go: nothing else is to be done.
    there(&daemon, &at, "rm \"$1/others\"");
    is_taken_again(&daemon).await;

    // The log itself has filled it: the oldest events go.
    let head = fill(&daemon);
    let before = (head / 2).to_string();
    daemon.output(&["trim", "--before", &before, "--yes"], b"");
    is_taken_again(&daemon).await;
    assert_eq!(oldest(&daemon), head / 2);
    let all = ["watch", "--from", "oldest", "--until-caught-up", "--json"];
    let all = daemon.output(&all, b"");
    let seq = |line: &str| -> u64 {
        let event: Value = serde_json::from_str(line).unwrap();
        event["seq"].as_str().unwrap().parse().unwrap()
    };
    assert!(all.lines().map(seq).eq(head / 2..=head + 1));

    // So that it does not happen again: a limit, by a reload.
    fill(&daemon);
    let (was, limits) = (oldest(&daemon), "[retention]\nmax_bytes = \"24 MiB\"\n");
    std::fs::write(disk.settings(), limits).unwrap();
    let pid = rustix::process::Pid::from_raw(daemon.id() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    until("a trim by the limit", || oldest(&daemon) > was).await;
    is_taken_again(&daemon).await;
    assert_eq!(daemon.stop(), Some(0));
}

/// What may be needed is backed up to another disk before it is trimmed, and comes back from there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_trimmed_for_room_is_had_from_a_backup_that_was_taken_before() {
    let Some(disk) = SmallDisk::new() else { return };
    let daemon = disk.start();
    let path = |name: &str| disk.0.path().join(name).to_str().unwrap().to_owned();
    let (place, whole) = (path("place"), path("whole"));
    daemon.output(&["upload", "--topic", "a", "-"], lines(500).as_bytes());
    let head = fill(&daemon);
    // The disk of the log is full, and this is another.
    daemon.output(&["backup", &place], b"");
    daemon.output(&["trim", "--before", &(head / 2).to_string(), "--yes"], b"");
    is_taken_again(&daemon).await;
    assert_eq!(oldest(&daemon), head / 2);
    daemon.output(&["backup", &place], b"");
    let all = ["restore", &place, "--data-dir", &whole, "--from-seq", "oldest"];
    let done = feed(&mut program(&all), b"");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let last = status(&daemon)["head_seq"].as_str().unwrap().parse::<u64>().unwrap();
    assert!(last > head);
    assert_eq!(daemon.stop(), Some(0));
    expect_clean(Path::new(&whole));
    let info = tailmark::inspect::info(Path::new(&whole)).unwrap();
    assert_eq!((info.oldest.get(), info.head.get()), (1, last));
}

/// If all of it must stay it moves to a larger disk, with every reader's place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_of_which_all_must_stay_moves_to_a_larger_disk() {
    let Some(disk) = SmallDisk::new() else { return };
    let daemon = disk.start();
    let path = |name: &str| disk.0.path().join(name).to_str().unwrap().to_owned();
    let (state, moved) = (path("state"), path("moved"));
    daemon.output(&["upload", "--topic", "a", "-"], lines(500).as_bytes());
    let watch = ["watch", "--json", "--from", "oldest", "--state", &state, "--until-caught-up"];
    assert_eq!(daemon.output(&watch, b"").lines().count(), 500);
    let head = fill(&daemon);
    // The disk is there as long as somebody is.
    let id = daemon.id().to_string();
    let mut keeper =
        Command::new("nsenter").args(["--target", &id, "--mount", "sleep", "300"]).spawn().unwrap();
    let there = format!("/proc/{}/ns/mnt", keeper.id());
    until("that somebody is there", || {
        let of = |id: &str| std::fs::read_link(format!("/proc/{id}/ns/mnt")).ok();
        std::fs::read_link(&there).ok() == of(&id)
    })
    .await;
    assert_eq!(daemon.stop(), Some(0));
    let copied = Command::new("nsenter")
        .args(["--target", &keeper.id().to_string(), "--mount", "cp", "-a"])
        .arg(disk.mount_point().join("log"))
        .arg(&moved)
        .status();
    keeper.kill().unwrap();
    keeper.wait().unwrap();
    assert!(copied.unwrap().success());
    expect_clean(Path::new(&moved));
    let daemon = Daemon::start(Path::new(&moved));
    is_taken_again(&daemon).await;
    // The reader goes on where it was, and sees all that was acked.
    let seen = daemon.output(&watch, b"");
    assert_eq!(seen.lines().count() as u64, head + 1 - 500);
    assert_eq!(daemon.stop(), Some(0));
}
