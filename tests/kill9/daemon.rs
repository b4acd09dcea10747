//! The daemon as a process of its own.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use tailmark_log::storage::disk::Disk;
use tailmark_log::storage::local;

use crate::limits::Limit;
use crate::rules;

/// Small slots, so that every few hundred events something is rolled, sealed and thrown away.
const SETTINGS: &str = r#"
[storage]
slot_bytes = "256 KiB"
min_free_bytes = "1 MiB"
[retention]
interval = "10ms"
"#;

pub struct Daemon {
    child: Child,
    out: Option<BufReader<ChildStdout>>,
    data: PathBuf,
    address: Option<String>,
    limit: Option<Limit>,
    has_rules: bool,
}

impl Daemon {
    pub fn start(scratch: &Path, limit: Option<Limit>, has_rules: bool) -> Daemon {
        let config = scratch.join("config.toml");
        if !config.exists() {
            std::fs::write(&config, SETTINGS).expect("settings");
        }
        let data = scratch.join("data");
        let log = std::fs::File::create(scratch.join("stderr")).expect("stderr");
        let mut child = Command::new(env!("CARGO_BIN_EXE_tailmark"))
            .args(["serve", "--listen", "127.0.0.1:0", "--log-level", "warn"])
            .arg("--config")
            .arg(&config)
            .arg("--data-dir")
            .arg(&data)
            .envs(limit.map(Limit::setting))
            .envs(has_rules.then(rules::setting))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("the daemon");
        let out = child.stdout.take().map(BufReader::new);
        Daemon { child, out, data, address: None, limit, has_rules }
    }

    /// Reads the ready line; a daemon that ends instead fails the test with what it said.
    pub fn wait_until_ready(&mut self) {
        let out = self.out.as_mut().expect("stdout");
        let mut line = String::new();
        while !line.contains("ready on ") {
            line.clear();
            if out.read_line(&mut line).expect("the ready line") == 0 {
                let log = self.data.with_file_name("stderr");
                let said = std::fs::read_to_string(log).unwrap_or_default();
                let kept = self.keep();
                panic!("the daemon did not start; its directory is in {}: {said}", kept.display());
            }
        }
        let rest = line.split("ready on ").nth(1).unwrap_or_default();
        let socket = rest.split([',', ' ']).next().unwrap_or_default();
        self.address = Some(format!("http://{socket}"));
    }

    /// Copies the directory to where it survives the test.
    fn keep(&self) -> PathBuf {
        let kept = std::env::temp_dir().join(format!("kill9-{}", std::process::id()));
        let _ = Command::new("cp").arg("-a").arg(&self.data).arg(&kept).status();
        kept
    }

    pub fn address(&self) -> String {
        self.address.clone().expect("a ready daemon")
    }

    pub fn data(&self) -> &Path {
        &self.data
    }

    fn names(&self, dir: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.data.join(dir)).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    /// Waits until it removes what is beyond its limit: looked for all the time, as it takes less
    /// than a millisecond.
    pub async fn wait_until_it_throws_away(&self, limit: Duration) {
        let segments = self.data.join("segments");
        let begun = Instant::now();
        let looking = tokio::task::spawn_blocking(move || {
            while !has_trash(&segments) {
                assert!(begun.elapsed() < limit, "nothing is thrown away");
                std::thread::yield_now();
            }
        });
        looking.await.expect("looking for what is thrown away");
    }

    /// SIGKILL, by id.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        self.child.wait().expect("the killed daemon");
    }

    /// SIGTERM, and a clean end.
    pub fn stop(&mut self) {
        let id = self.child.id().to_string();
        let told = Command::new("kill").args(["-TERM", &id]).status().expect("kill");
        assert!(told.success());
        let status = crate::crash::wait_bounded(&mut self.child, Duration::from_secs(180));
        assert!(status.is_some_and(|status| status.success()), "no clean stop: {status:?}");
    }

    /// What was under way when it died, by what it left.
    pub fn where_it_fell(&self) -> String {
        let segments = self.names("segments");
        let found = local::survey(&self.data, &Disk::real()).expect("a survey");
        if !found.damage.is_empty() {
            panic!("{:?}; kept in {}", found.damage, self.keep().display());
        }
        let newest = found.slots.last().map_or(0, |slot| slot.scan.frames.len());
        let mut what = Vec::new();
        if segments.iter().any(|name| name.starts_with(".tmp-")) {
            what.push("seal");
        }
        // Marked as trimmed and still there, or half thrown away.
        let oldest = found.oldest();
        if has_trash(&self.data.join("segments"))
            || found.segments.iter().any(|segment| segment.end() <= oldest)
        {
            what.push(match self.limit {
                None if self.has_rules => "rules",
                None => "trim",
                Some(Limit::Age) => "retention by age",
                Some(Limit::Count) => "retention by count",
                Some(Limit::Size) => "retention by size",
            });
        }
        if self.names("journal").iter().any(|name| name.ends_with(".new")) {
            what.push("allocate");
        }
        if found.unbegun.is_some() || newest <= 1 {
            what.push("roll");
        }
        let torn = matches!(
            found.slots.last().map(|slot| slot.scan.tail),
            Some(tailmark_log::storage::journal::Tail::Torn { .. })
        );
        if torn {
            what.push("torn commit");
        }
        if what.is_empty() { "commit".to_owned() } else { what.join(" and ") }
    }
}

/// Whether a segment is being thrown away at this moment.
fn has_trash(segments: &Path) -> bool {
    let mut entries = std::fs::read_dir(segments).into_iter().flatten().flatten();
    entries.any(|entry| entry.file_name().to_string_lossy().starts_with("trash-"))
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}
