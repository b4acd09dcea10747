//! What a service manager is told (sd_notify(3)), by a socket that stands for one, and what it gives.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::daemon::{Daemon, feed, program};

const PATIENCE: Duration = Duration::from_secs(60);

struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Manager {
    fn listen(dir: &Path) -> Manager {
        let path = dir.join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Manager { socket, path }
    }

    /// A daemon as the manager would start it, and its log.
    fn start(&self, dir: &Path, settings: &str) -> (Daemon, PathBuf) {
        let log = dir.join("daemon.log");
        let shell = format!(
            "export NOTIFY_SOCKET={}; {settings}; exec setsid \"$0\" \"$@\" 2>{}",
            self.path.display(),
            log.display()
        );
        (Daemon::start_with(&dir.join("data"), &shell), log)
    }

    /// The lines of the next message.
    fn next(&self) -> Vec<String> {
        let mut bytes = [0; 4096];
        let count = self.socket.recv(&mut bytes).expect("a message");
        let text = std::str::from_utf8(&bytes[..count]).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    /// The next message that has this line, and how many came before it.
    fn wait_for(&self, line: &str) -> (Vec<String>, usize) {
        let begun = Instant::now();
        for before in 0.. {
            let message = self.next();
            if message.iter().any(|told| told == line) {
                return (message, before);
            }
            assert!(begun.elapsed() < PATIENCE, "no {line}");
        }
        unreachable!("it counts for ever")
    }
}

fn value(message: &[String], name: &str) -> String {
    let value = message.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    value.unwrap_or_else(|| panic!("no {name}: {message:?}")).to_owned()
}

fn signal(daemon: &Daemon, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(daemon.id() as i32).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

#[test]
fn a_manager_hears_of_ready_reload_life_and_stop() {
    let dir = tempfile::tempdir().unwrap();
    let manager = Manager::listen(dir.path());
    let settings = dir.path().join("config.toml");
    std::fs::write(&settings, "").unwrap();
    let env = format!("export WATCHDOG_USEC=200000 TAILMARK_CONFIG={}", settings.display());
    let (daemon, log) = manager.start(dir.path(), &env);
    let (ready, _) = manager.wait_for("READY=1");
    assert_eq!(value(&ready, "STATUS"), "serving");
    assert!(daemon.output(&["publish", "a", "x"], b"").starts_with("1 "));
    for _ in 0..3 {
        manager.wait_for("WATCHDOG=1");
    }

    signal(&daemon, rustix::process::Signal::HUP);
    let (reloading, _) = manager.wait_for("RELOADING=1");
    // In the same message, or a manager of systemd 253 and later counts the reload as failed.
    let at: u64 = value(&reloading, "MONOTONIC_USEC").parse().unwrap();
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let now = now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1_000;
    assert!(at <= now && now - at < PATIENCE.as_micros() as u64, "{at} at {now}");
    let (ready, _) = manager.wait_for("READY=1");
    assert_eq!(value(&ready, "STATUS"), "serving");
    std::fs::write(&settings, "[sever]\n").unwrap();
    signal(&daemon, rustix::process::Signal::HUP);
    manager.wait_for("RELOADING=1");
    let (ready, _) = manager.wait_for("READY=1");
    let status = value(&ready, "STATUS");
    assert!(status.contains("old settings") && status.contains("unknown field"), "{status}");

    signal(&daemon, rustix::process::Signal::TERM);
    let (stopping, _) = manager.wait_for("STOPPING=1");
    // Longer than the two graces that it may take.
    assert!(value(&stopping, "EXTEND_TIMEOUT_USEC").parse::<u64>().unwrap() >= 20_000_000);
    assert_eq!(daemon.ended(), Some(0), "{}", std::fs::read_to_string(log).unwrap());
}

#[test]
fn a_daemon_that_cannot_open_its_log_is_never_ready() {
    let dir = tempfile::tempdir().unwrap();
    let manager = Manager::listen(dir.path());
    let owner = Daemon::start(&dir.path().join("data"));
    let mut second = program(&["serve", "--listen", "127.0.0.1:0", "--data-dir"]);
    second.arg(dir.path().join("data")).env("NOTIFY_SOCKET", &manager.path);
    assert_eq!(feed(&mut second, b"").status.code(), Some(5));
    manager.socket.set_nonblocking(true).unwrap();
    let mut bytes = [0; 4096];
    while let Ok(count) = manager.socket.recv(&mut bytes) {
        let text = String::from_utf8_lossy(&bytes[..count]).into_owned();
        assert!(!text.contains("READY"), "{text}");
    }
    assert_eq!(owner.stop(), Some(0));
}

#[test]
fn a_manager_that_does_not_listen_holds_up_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let manager = Manager::listen(dir.path());
    // Far more news than the socket holds.
    let (daemon, _) = manager.start(dir.path(), "export WATCHDOG_USEC=2000");
    let is_full = || {
        let sender = UnixDatagram::unbound().unwrap();
        sender.set_nonblocking(true).unwrap();
        sender.send_to(b"STATUS=full", &manager.path).is_err()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(crate::support::server::until("a full socket", is_full));
    assert!(daemon.output(&["publish", "a", "x"], b"").starts_with("1 "));
    let begun = Instant::now();
    assert_eq!(daemon.stop(), Some(0));
    assert!(begun.elapsed() < PATIENCE);
}

#[test]
fn a_manager_that_is_gone_is_no_reason_not_to_start() {
    let dir = tempfile::tempdir().unwrap();
    let shell = "export NOTIFY_SOCKET=/nonexistent/notify WATCHDOG_USEC=1000; exec \"$0\" \"$@\"";
    let daemon = Daemon::start_with(dir.path(), shell);
    assert!(daemon.output(&["publish", "a", "x"], b"").starts_with("1 "));
    assert_eq!(daemon.stop(), Some(0));
}

fn unit() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/systemd/tailmark.service");
    std::fs::read_to_string(path).unwrap()
}

/// Settings as `config print` tells them where the manager has these directories.
fn printed(dir: &Path, environment: &[(&str, &str)]) -> String {
    let mut command = program(&["config", "print"]);
    command.env("CONFIGURATION_DIRECTORY", dir).env("STATE_DIRECTORY", "/var/lib/tailmark");
    let output = command.envs(environment.iter().copied()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_service_reads_its_file_where_there_is_one_and_its_environment_beats_it() {
    let dir = tempfile::tempdir().unwrap();
    let line = |text: &str, name: &str| {
        let found = text.lines().find(|line| line.starts_with(name));
        found.unwrap_or_else(|| panic!("no {name}: {text}")).to_owned()
    };
    // No file: the defaults, and the directory that the manager made.
    let text = printed(dir.path(), &[]);
    let found = line(&text, "data_dir");
    assert!(found.contains("\"/var/lib/tailmark\"") && found.ends_with("# STATE_DIRECTORY"));
    // The file beats that.
    let file = dir.path().join("config.toml");
    std::fs::write(&file, "[server]\nlisten = \"127.0.0.1:7\"\n[storage]\ndata_dir = \"/data\"\n")
        .unwrap();
    let text = printed(dir.path(), &[]);
    assert!(line(&text, "listen").contains("127.0.0.1:7"), "{text}");
    assert!(line(&text, "data_dir").contains("\"/data\""), "{text}");
    // The environment beats the file, and nothing of the unit beats the environment.
    let text = printed(dir.path(), &[("TAILMARK_SERVER_LISTEN", "127.0.0.1:8")]);
    assert!(line(&text, "listen").contains("127.0.0.1:8"), "{text}");
    // A file that was named is the one.
    let other = dir.path().join("other.toml");
    std::fs::write(&other, "[log]\nreader_threads = 3\n").unwrap();
    let text = printed(dir.path(), &[("TAILMARK_CONFIG", other.to_str().unwrap())]);
    assert!(line(&text, "listen").contains("127.0.0.1:50051"), "{text}");
    assert!(line(&text, "reader_threads").contains('3'), "{text}");
}

#[test]
fn a_file_that_cannot_be_looked_at_is_an_error_and_no_absent_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    std::fs::write(path("file"), "").unwrap();
    std::os::unix::fs::symlink(path("loop"), path("loop")).unwrap();
    std::fs::create_dir(path("etc")).unwrap();
    std::os::unix::fs::symlink(path("nowhere"), path("etc").join("config.toml")).unwrap();
    let mut places = vec!["file", "loop", "etc"];
    std::fs::create_dir(path("closed")).unwrap();
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path("closed"), std::fs::Permissions::from_mode(0o0)).unwrap();
    // Root may look everywhere.
    if path("closed")
        .join("config.toml")
        .symlink_metadata()
        .is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
    {
        places.push("closed");
    }
    for place in places {
        let mut command = program(&["config", "print"]);
        let output = command.env("CONFIGURATION_DIRECTORY", path(place)).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        let file = path(place).join("config.toml");
        let is_told = said.contains("cannot read") && said.contains(file.to_str().unwrap());
        assert!(!output.status.success() && is_told, "{place}: {said}");
    }
    // One that is not there is none.
    let mut command = program(&["config", "print"]);
    let output = command.env("CONFIGURATION_DIRECTORY", path("absent")).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_file_that_is_made_after_the_start_is_read_by_a_reload() {
    let dir = tempfile::tempdir().unwrap();
    let manager = Manager::listen(dir.path());
    let etc = dir.path().join("etc");
    std::fs::create_dir(&etc).unwrap();
    let env = format!("export CONFIGURATION_DIRECTORY={}", etc.display());
    let (daemon, log) = manager.start(dir.path(), &env);
    manager.wait_for("READY=1");
    std::fs::write(etc.join("config.toml"), "[telemetry]\nlog_level = \"debug\"\n").unwrap();
    signal(&daemon, rustix::process::Signal::HUP);
    manager.wait_for("RELOADING=1");
    manager.wait_for("READY=1");
    assert_eq!(daemon.stop(), Some(0));
    let said = std::fs::read_to_string(log).unwrap();
    assert!(said.contains("taken=\"telemetry.log_level\""), "{said}");
}

#[test]
fn the_unit_overrides_no_setting_and_waits_for_ready() {
    let unit = unit();
    let values = |name: &str| {
        let lines = unit.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        lines.collect::<Vec<_>>()
    };
    assert_eq!(values("ExecStart"), ["tailmark serve"]);
    assert_eq!(values("Environment"), [] as [&str; 0]);
    assert_eq!(values("EnvironmentFile"), ["-/etc/tailmark/environment"]);
    assert_eq!(values("ConfigurationDirectory"), ["tailmark"]);
    assert_eq!(values("StateDirectory"), ["tailmark"]);
    assert_eq!(values("Type"), ["notify"]);
    assert_eq!(values("ExecReload"), ["/bin/kill -HUP $MAINPID"]);
    assert!(!values("WatchdogSec").is_empty());
}

#[test]
fn systemd_finds_nothing_wrong_with_the_unit() {
    let Ok(version) = Command::new("systemd-analyze").arg("--version").output() else {
        println!("passed over: there is no systemd-analyze here");
        return;
    };
    assert!(version.status.success());
    let dir = tempfile::tempdir().unwrap();
    let check = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        let mut verify = Command::new("systemd-analyze");
        verify.args(["verify", "--man=no"]).arg(&path).stdin(Stdio::null());
        let output = verify.output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        // What this machine lacks elsewhere is none of ours.
        let ours = said.lines().filter(|line| line.contains(name));
        ours.map(str::to_owned).collect::<Vec<_>>()
    };
    // The program need not be installed where this runs.
    let here =
        unit().replace("ExecStart=tailmark", concat!("ExecStart=", env!("CARGO_BIN_EXE_tailmark")));
    assert_eq!(check("tailmark.service", &here), [] as [&str; 0]);
    // The null control: it would have found something.
    let wrong = here.replace("WatchdogSec=", "WatchdogSecs=");
    assert!(!check("tailmark-wrong.service", &wrong).is_empty());
}

/// A daemon that is killed with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_service_runs_from_its_two_directories_alone() {
    let dir = tempfile::tempdir().unwrap();
    let manager = Manager::listen(dir.path());
    let (etc, state) = (dir.path().join("etc"), dir.path().join("state"));
    std::fs::create_dir_all(&etc).unwrap();
    std::fs::create_dir_all(&state).unwrap();
    std::fs::write(etc.join("config.toml"), "[server]\nlisten = \"127.0.0.1:0\"\n").unwrap();
    let mut serve = program(&["serve"]);
    serve.env("CONFIGURATION_DIRECTORY", &etc).env("STATE_DIRECTORY", &state);
    serve.env("NOTIFY_SOCKET", &manager.path).env("TAILMARK_STORAGE_MIN_FREE_BYTES", "0");
    serve.env("TAILMARK_STORAGE_SLOT_BYTES", "256 KiB");
    serve.stdout(Stdio::null()).stderr(Stdio::null()).stdin(Stdio::null());
    let _running = Running(serve.spawn().unwrap());
    manager.wait_for("READY=1");
    assert!(state.join("journal").is_dir());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_whose_writer_hangs_does_not_prove_that_it_lives() {
    use crate::support::server::{generations, memory, open, within};
    let engine = memory(generations(&[1]), Default::default());
    let engine = std::sync::Arc::new(crate::support::broken::Broken::whole(engine));
    let log = open(engine.clone(), Default::default());
    within("a sign of life", log.ping()).await;
    engine.hold();
    let appending = {
        let log = log.clone();
        let mut batch = log.batch();
        let event = tailmark_record::Event { topic: "a", ..Default::default() };
        batch.push(&event).unwrap();
        tokio::spawn(async move { log.append(batch, Default::default()).await })
    };
    // In the writer's hands, or before the question in its queue.
    crate::support::server::until("an append", || log.status().in_flight_bytes > 0).await;
    assert!(tokio::time::timeout(Duration::from_millis(100), log.ping()).await.is_err());
    engine.release();
    within("the append", appending).await.unwrap().unwrap();
    within("a sign of life", log.ping()).await;
    // One that has stopped hangs nobody: what it cannot do is told elsewhere.
    log.close().await.unwrap();
    within("an answer", log.ping()).await;
}
