//! Standard error as a pipe that nobody reads: the daemon serves and ends all the same.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStderr, Stdio};
use std::time::{Duration, Instant};

use rustix::io::ioctl_fionread;

use crate::support::daemon::{feed, program};
use crate::support::server::until;

/// Far longer than anything here takes, far shorter than for ever.
const PATIENCE: Duration = Duration::from_secs(60);

struct Unread {
    child: Child,
    address: String,
    /// Open, and silent.
    stderr: ChildStderr,
    dir: tempfile::TempDir,
}

impl Unread {
    /// A daemon that logs very much, and has filled all that can be filled.
    fn start() -> Unread {
        let dir = tempfile::tempdir().unwrap();
        let mut command = program(&["serve", "--listen", "127.0.0.1:0", "--log-level", "trace"]);
        command.arg("--data-dir").arg(dir.path());
        command.env("TAILMARK_STORAGE_SLOT_BYTES", "256 KiB");
        command.env("TAILMARK_STORAGE_MIN_FREE_BYTES", "0");
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = child.stderr.take().unwrap();
        let mut ready = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        let address = ready.strip_prefix("ready on ").and_then(|rest| rest.split(',').next());
        let address = address.unwrap_or_else(|| panic!("{ready}")).to_owned();
        let unread = Unread { child, address, stderr, dir };
        let begun = Instant::now();
        while unread.dropped() == 0 {
            let watch = ["watch", "--from", "oldest", "--until-caught-up"];
            unread.run(&watch, b"");
            assert!(begun.elapsed() < 3 * PATIENCE, "nothing is dropped");
        }
        // The null control: the pipe is full, so that a write would wait. Pages need not be.
        let held = rustix::pipe::fcntl_getpipe_size(&unread.stderr).unwrap() as u64;
        assert!(ioctl_fionread(&unread.stderr).unwrap() > held / 2);
        unread
    }

    fn run(&self, args: &[&str], input: &[u8]) -> String {
        let mut command = program(args);
        command.arg("--addr").arg(format!("http://{}", self.address));
        let begun = Instant::now();
        let output = feed(&mut command, input);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && begun.elapsed() < PATIENCE, "{args:?}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn get(&self, path: &str) -> String {
        let mut stream = std::net::TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let host = &self.address;
        let ask = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        std::io::Write::write_all(&mut stream, ask.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn dropped(&self) -> u64 {
        let page = self.get("/metrics");
        let name = "tailmark_log_lines_dropped_total ";
        let line = page.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("{page}")).parse().unwrap()
    }

    /// Asks it to stop; answers its exit code, which must come soon.
    fn stop(&mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let begun = Instant::now();
        let mut code = None;
        runtime.block_on(async {
            let mut look = tokio::time::interval(Duration::from_millis(5));
            while code.is_none() && begun.elapsed() < PATIENCE {
                look.tick().await;
                code = self.child.try_wait().unwrap();
            }
        });
        code.expect("it has not ended").code()
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_log_that_nobody_reads_holds_up_neither_calls_nor_the_end() {
    let mut unread = Unread::start();
    assert!(unread.run(&["publish", "a", "x"], b"").starts_with("1 "));
    unread.run(&["upload", "--topic", "a", "-"], b"one\ntwo\n");
    unread.run(&["watch", "--from", "oldest", "--limit", "3"], b"");
    unread.run(&["trim", "--before", "2", "--yes"], b"");
    assert!(unread.get("/healthz").starts_with("HTTP/1.1 200"));
    assert!(unread.get("/readyz").starts_with("HTTP/1.1 200"));
    let before = unread.dropped();
    assert!(unread.dropped() > before, "it goes on counting");
    assert_eq!(unread.stop(), Some(0));
    let info = feed(program(&["log", "info", "--data-dir"]).arg(unread.dir.path()), b"");
    let info = String::from_utf8(info.stdout).unwrap();
    assert!(info.contains("clean") && !info.contains("unclean"), "{info}");
}

#[test]
fn an_error_that_nobody_reads_does_not_keep_a_daemon_that_cannot_start() {
    let dir = tempfile::tempdir().unwrap();
    let (_silent, full) = std::io::pipe().unwrap();
    let mut filler = full.try_clone().unwrap();
    let size = rustix::pipe::fcntl_getpipe_size(&full).unwrap();
    std::io::Write::write_all(&mut filler, &vec![b'x'; size]).unwrap();
    std::fs::write(dir.path().join("file"), "x").unwrap();
    let mut command = program(&["serve", "--listen", "127.0.0.1:0", "--data-dir"]);
    command.arg(dir.path().join("file")).stdout(Stdio::null()).stderr(full);
    let mut child = command.spawn().unwrap();
    let begun = Instant::now();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut code = None;
    runtime.block_on(async {
        let mut look = tokio::time::interval(Duration::from_millis(5));
        while code.is_none() && begun.elapsed() < PATIENCE {
            look.tick().await;
            code = child.try_wait().unwrap();
        }
    });
    let _ = child.kill();
    child.wait().unwrap();
    assert_eq!(code.expect("it has not ended").code(), Some(2));
}

#[test]
fn what_was_dropped_is_told_once_somebody_reads_again() {
    let mut unread = Unread::start();
    let mut stderr = BufReader::new(unread.stderr.try_clone_pipe());
    let (sender, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut line = Vec::new();
        while let Ok(1..) = stderr.read_until(b'\n', &mut line) {
            if String::from_utf8_lossy(&line).contains("lines of the log were dropped") {
                let _ = sender.send(());
            }
            line.clear();
        }
    });
    told.recv_timeout(PATIENCE).expect("told");
    assert_eq!(unread.stop(), Some(0));
}

/// Another handle of the same pipe.
trait ClonePipe {
    fn try_clone_pipe(&self) -> std::fs::File;
}

impl ClonePipe for ChildStderr {
    fn try_clone_pipe(&self) -> std::fs::File {
        use std::os::fd::AsFd;
        std::fs::File::from(self.as_fd().try_clone_to_owned().unwrap())
    }
}

#[test]
fn lines_at_the_end_of_streams_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("daemon.log");
    let shell = format!("exec \"$0\" \"$@\" 2>{}", log.display());
    let daemon = crate::support::daemon::Daemon::start_with(&dir.path().join("data"), &shell);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    const WATCHES: usize = 1_000;
    let begun = Instant::now();
    runtime.block_on(async {
        use tailmark_wire::feed_v1 as pb;
        let url = daemon.url().to_owned();
        let mut client = pb::feed_service_client::FeedServiceClient::connect(url).await.unwrap();
        for _ in 0..WATCHES {
            let request = pb::WatchRequest { until_caught_up: true, ..Default::default() };
            let mut stream = client.watch(request).await.unwrap().into_inner();
            while stream.message().await.unwrap().is_some() {}
        }
    });
    let windows = 1 + begun.elapsed().as_secs() as usize / 10;
    let ended = || std::fs::read_to_string(&log).unwrap().matches("watch ended").count();
    runtime.block_on(until("lines", || ended() >= 100));
    // What was left out is told without another stream, some seconds later.
    let left_out = || std::fs::read_to_string(&log).unwrap().contains("left_out=");
    runtime.block_on(until("what was left out", left_out));
    assert!(ended() <= 100 * (windows + 1) && ended() < WATCHES, "{} lines", ended());
    assert_eq!(daemon.stop(), Some(0));
}
