//! The daemon as a process of its own.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use tailmark::storage::disk::Disk;
use tailmark::storage::local;

/// Small slots, so that every few thousand events something is rolled, sealed and thrown away.
const SETTINGS: &str = r#"
[storage]
slot_bytes = "1 MiB"
min_free_bytes = "1 MiB"
"#;

pub struct Daemon {
    child: Child,
    out: Option<BufReader<ChildStdout>>,
    data: PathBuf,
    address: Option<String>,
}

impl Daemon {
    pub fn start(scratch: &Path) -> Daemon {
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
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("the daemon");
        let out = child.stdout.take().map(BufReader::new);
        Daemon { child, out, data, address: None }
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
        let status = crate::crash::wait_bounded(&mut self.child, Duration::from_secs(30));
        assert!(status.is_some_and(|status| status.success()), "no clean stop: {status:?}");
    }

    /// What was under way when it died, by what it left.
    pub fn where_it_fell(&self) -> String {
        let names = |dir: &str| -> Vec<String> {
            let entries = std::fs::read_dir(self.data.join(dir)).into_iter().flatten().flatten();
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
        };
        let segments = names("segments");
        let found = local::survey(&self.data, &Disk::real()).expect("a survey");
        if !found.damage.is_empty() {
            panic!("{:?}; kept in {}", found.damage, self.keep().display());
        }
        let newest = found.slots.last().map_or(0, |slot| slot.scan.frames.len());
        let mut what = Vec::new();
        if segments.iter().any(|name| name.starts_with(".tmp-")) {
            what.push("seal");
        }
        if segments.iter().any(|name| name.starts_with("trash-")) {
            what.push("throw away");
        }
        if names("journal").iter().any(|name| name.ends_with(".new")) {
            what.push("allocate");
        }
        if found.unbegun.is_some() || newest <= 1 {
            what.push("roll");
        }
        let torn = matches!(
            found.slots.last().map(|slot| slot.scan.tail),
            Some(tailmark::storage::journal::Tail::Torn { .. })
        );
        if torn {
            what.push("torn commit");
        }
        if what.is_empty() { "commit".to_owned() } else { what.join(" and ") }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}
