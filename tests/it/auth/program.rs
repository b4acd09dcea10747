//! The program: tokens given out, taken up and taken back while a daemon runs, and never told to a log.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use super::{Issuer, SOON, after, rights};
use crate::support::daemon::{feed, program};

/// A daemon with a file of settings, killed when dropped.
struct Daemon {
    child: Child,
    addr: String,
    dir: tempfile::TempDir,
}

impl Daemon {
    fn start(settings: &str) -> Daemon {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.toml"), settings).unwrap();
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let mut serve = program(&["serve", "--listen", "127.0.0.1:0", "--data-dir"]);
        serve.arg(dir.path().join("data")).arg("--config").arg(dir.path().join("config.toml"));
        serve.env("TAILMARK_STORAGE_MIN_FREE_BYTES", "0");
        let mut child = serve.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let said = || std::fs::read_to_string(dir.path().join("log")).unwrap();
        let rest = line.strip_prefix("ready on ").unwrap_or_else(|| panic!("{line:?}: {}", said()));
        let addr = format!("http://{}", rest.split(',').next().unwrap());
        Daemon { child, addr, dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap()
    }

    /// `tailmark token ...` with its settings.
    fn token(&self, args: &[&str]) -> Output {
        token(&self.path("config.toml"), args)
    }

    fn create(&self, args: &[&str]) -> String {
        let made = self.token(&[&["create"], args].concat());
        assert!(made.status.success(), "{}", said(&made));
        let text = String::from_utf8(made.stdout).unwrap();
        assert_eq!(text.lines().count(), 1, "the token alone: {text:?}");
        text.trim().to_owned()
    }

    /// A command of a client with this token.
    fn run(&self, token: &str, args: &[&str]) -> Output {
        let mut command = program(args);
        command.args(["--addr", &self.addr]).env("TAILMARK_TOKEN", token);
        feed(&mut command, b"")
    }

    /// What a path answers, head included.
    fn get(&self, path: &str, token: &str) -> String {
        use std::io::{Read, Write};
        let host = self.addr.trim_start_matches("http://");
        let mut stream = std::net::TcpStream::connect(host).unwrap();
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\n\
             connection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// Runs it until it succeeds or not, as is wished, for no longer than the contract has it.
    fn until(&self, token: &str, args: &[&str], succeeds: bool) -> Output {
        let begun = Instant::now();
        loop {
            let output = self.run(token, args);
            if output.status.success() == succeeds {
                return output;
            }
            assert!(begun.elapsed() < SOON, "{args:?}: {}", said(&output));
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn token(config: &Path, args: &[&str]) -> Output {
    let mut command = program(&["token"]);
    command.args(args).arg("--config").arg(config);
    feed(&mut command, b"")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

const REQUIRED: &str = "[auth]\nmode = \"required\"\n";

#[test]
fn a_token_is_taken_up_and_taken_back_without_a_restart() {
    let daemon = Daemon::start(REQUIRED);
    let publish = ["publish", "orders.eu", "hello"];
    let refused = daemon.run("", &publish);
    assert_eq!(refused.status.code(), Some(1));
    assert!(said(&refused).contains("TOKEN_MISSING"), "{}", said(&refused));
    assert!(said(&refused).contains("TAILMARK_TOKEN"), "a hint: {}", said(&refused));

    let ann = daemon.create(&["ann", "--publish", "orders.>", "--watch", "orders.>"]);
    assert!(ann.starts_with("tailmark_") && ann.len() == "tailmark_".len() + 43, "{ann}");
    // Beside the settings, and for its owner alone.
    let file = daemon.path("tokens.toml");
    let mode = std::os::unix::fs::MetadataExt::mode(&file.metadata().unwrap());
    assert_eq!(mode & 0o777, 0o600);
    assert!(!std::fs::read_to_string(&file).unwrap().contains(&ann[9..]));
    daemon.until(&ann, &publish, true);

    let denied = daemon.run(&ann, &["publish", "bills.eu", "hello"]);
    assert_eq!(denied.status.code(), Some(1));
    assert!(said(&denied).contains("RIGHT_MISSING") && said(&denied).contains("orders.>"));
    assert!(!said(&denied).contains("bills"), "{}", said(&denied));
    assert!(!daemon.run(&ann, &["trim", "--before", "1", "--yes"]).status.success());
    // A watch of everything is more than hers.
    let all = daemon.run(&ann, &["watch", "--from", "oldest", "--until-caught-up"]);
    assert!(said(&all).contains("names no pattern"), "{}", said(&all));
    let own = ["watch", "orders.>", "--from", "oldest", "--until-caught-up"];
    assert!(daemon.run(&ann, &own).status.success());
    let topics = daemon.run(&ann, &["topics"]);
    assert!(String::from_utf8_lossy(&topics.stdout).contains("orders.eu"));

    // What is not TOML changes nothing, and it is said.
    let good = std::fs::read(&file).unwrap();
    std::fs::write(&file, "[[token]\nname = 1").unwrap();
    let begun = Instant::now();
    while !daemon.log().contains("stays in force") {
        assert!(begun.elapsed() < SOON, "{}", daemon.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(daemon.run(&ann, &publish).status.success());
    let in_trouble = || daemon.get("/metrics", &ann).contains("part=\"credentials\"} 1");
    assert!(in_trouble());
    std::fs::write(&file, good).unwrap();
    let begun = Instant::now();
    while in_trouble() {
        assert!(begun.elapsed() < SOON, "{}", daemon.log());
        std::thread::sleep(Duration::from_millis(50));
    }

    let gone = daemon.token(&["revoke", "ann"]);
    assert!(gone.status.success(), "{}", said(&gone));
    let refused = daemon.until(&ann, &publish, false);
    assert!(said(&refused).contains("TOKEN_INVALID"), "{}", said(&refused));
    assert_eq!(daemon.token(&["revoke", "ann"]).status.code(), Some(3));
}

#[test]
fn a_token_is_listed_checked_and_replaced() {
    let daemon = Daemon::start(REQUIRED);
    let ann = daemon.create(&["ann", "--watch", "a.*", "--watch", "b", "--expires", "90d"]);
    let taken = daemon.token(&["create", "ann"]);
    assert_eq!(taken.status.code(), Some(1));
    assert!(said(&taken).contains("--replace"), "{}", said(&taken));
    for bad in [
        &["create", "x", "--watch", "a..b"][..],
        &["create", ""],
        &["create", "x", "--expires", "soon"],
        &["create", "x", "--expires", "2001-01-01T00:00:00Z"],
    ] {
        assert_eq!(daemon.token(bad).status.code(), Some(2), "{bad:?}");
    }
    let listed = daemon.token(&["list", "--json"]);
    let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!((&listed["name"], &listed["watch"][1]), (&"ann".into(), &"b".into()), "{listed}");
    assert!(listed["expires"].is_string() && listed.get("token").is_none(), "{listed}");
    assert!(String::from_utf8(daemon.token(&["list"]).stdout).unwrap().contains("watch a.* b"));

    // Offline and by asking, the same.
    let mut offline = program(&["token", "check", "--json", "--config"]);
    offline.arg(daemon.path("config.toml")).env("TAILMARK_TOKEN", &ann);
    let offline = feed(&mut offline, b"");
    assert!(offline.status.success(), "{}", said(&offline));
    let mut online = program(&["token", "check", "--json", "--addr", &daemon.addr]);
    online.env("TAILMARK_TOKEN", &ann);
    let begun = Instant::now();
    loop {
        let output = feed(&mut online, b"");
        if output.status.success() {
            assert_eq!(output.stdout, offline.stdout);
            break;
        }
        assert!(begun.elapsed() < SOON, "{}", said(&output));
    }
    let told: serde_json::Value = serde_json::from_slice(&offline.stdout).unwrap();
    assert_eq!((&told["name"], &told["watch"][0]), (&"ann".into(), &"a.*".into()));
    let mut wrong = program(&["token", "check", "--config"]);
    wrong.arg(daemon.path("config.toml")).env("TAILMARK_TOKEN", "tailmark_wrong");
    assert_eq!(feed(&mut wrong, b"").status.code(), Some(1));

    let next = daemon.create(&["ann", "--watch", "a.*", "--replace"]);
    assert_ne!(next, ann);
    daemon.until(&next, &["status"], true);
    daemon.until(&ann, &["status"], false);
    // The token itself comes in JSON, too.
    let made = daemon.token(&["create", "bob", "--admin", "--json"]);
    let made: serde_json::Value = serde_json::from_slice(&made.stdout).unwrap();
    daemon.until(made["token"].as_str().unwrap(), &["trim", "--before", "1", "--yes"], true);
}

#[test]
fn a_watch_goes_on_with_the_token_that_its_file_has_by_then() {
    let daemon = Daemon::start(REQUIRED);
    let writer = daemon.create(&["writer", "--publish", ">"]);
    let old = daemon.create(&["reader", "--watch", ">"]);
    daemon.until(&writer, &["publish", "a", "1"], true);
    let file = daemon.path("token");
    std::fs::write(&file, &old).unwrap();
    let mut watch = program(&["watch", "--from", "oldest", "--limit", "2", "--token-file"]);
    watch.arg(&file).args(["--addr", &daemon.addr]);
    let mut child = watch.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains('1'));
    let new = daemon.create(&["reader", "--watch", ">", "--replace"]);
    std::fs::write(&file, &new).unwrap();
    daemon.until(&old, &["status"], false);
    daemon.until(&writer, &["publish", "a", "2"], true);
    assert!(lines.next().unwrap().unwrap().contains('2'));
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_jwt_is_taken_by_the_keys_of_its_issuer() {
    let issuer = Issuer::new();
    let dir = tempfile::tempdir().unwrap();
    let keys = dir.path().join("keys.json");
    std::fs::write(&keys, issuer.keys_text()).unwrap();
    let settings = format!("{REQUIRED}jwt_keys_file = \"{}\"\n", keys.display());
    let daemon = Daemon::start(&settings);
    let all = rights(&[">"], &[">"], false);
    let token = issuer.token("ann", &all, after(60));
    daemon.until(&token, &["publish", "a", "1"], true);
    let late = issuer.token("ann", &all, after(-1));
    assert!(said(&daemon.run(&late, &["status"])).contains("TOKEN_EXPIRED"));
    std::fs::write(&keys, Issuer::new().keys_text()).unwrap();
    daemon.until(&token, &["status"], false);
}

#[test]
fn settings_that_cannot_be_meant_are_refused() {
    for (settings, part) in [
        ("[auth]\nmode = \"perhaps\"\n", "unknown variant"),
        ("[auth]\njwt_algorithms = [\"HS256\"]\n", "`HS256` is not one of"),
        ("[auth]\ntokens_file = \"\"\n", "must not be empty"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        std::fs::write(&path, settings).unwrap();
        let mut check = program(&["config", "check", "--config"]);
        let output = feed(check.arg(&path), b"");
        assert_eq!(output.status.code(), Some(2));
        assert!(said(&output).contains(part), "{}", said(&output));
    }
    // A daemon does not begin with a file that it cannot read.
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.toml"), REQUIRED).unwrap();
    std::fs::write(dir.path().join("tokens.toml"), "x = 1\n").unwrap();
    let mut serve = program(&["serve", "--listen", "127.0.0.1:0", "--data-dir"]);
    serve.arg(dir.path().join("data")).arg("--config").arg(dir.path().join("config.toml"));
    let output = feed(&mut serve, b"");
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(said(&output).contains("tokens.toml:1"), "{}", said(&output));
}

/// The finest log there is, of a daemon and of a client, has no token in it.
#[test]
fn no_log_has_a_token() {
    let daemon = Daemon::start(&format!("{REQUIRED}[telemetry]\nlog_level = \"trace\"\n"));
    let issuer = Issuer::new();
    let good = daemon.create(&["ann", "--publish", ">", "--watch", ">", "--admin"]);
    let wrong = tailmark::server::new_token().unwrap();
    let jwt = issuer.token("ann", &rights(&[">"], &[">"], true), after(60));
    daemon.until(&good, &["publish", "a", "1"], true);
    for token in [&good, &wrong, &jwt] {
        daemon.run(token, &["publish", "a", "2"]);
        daemon.run(token, &["watch", "--from", "oldest", "--until-caught-up"]);
        daemon.run(token, &["trim", "--before", "1", "--yes"]);
        let host = daemon.addr.trim_start_matches("http://");
        for (header, path) in
            [("authorization: Bearer ", "/v1/topics"), ("authorization: ", "/v1/log")]
        {
            use std::io::{Read, Write};
            let mut stream = std::net::TcpStream::connect(host).unwrap();
            let request = format!(
                "GET {path} HTTP/1.1\r\nhost: {host}\r\n{header}{token}\r\nconnection: close\r\n\r\n"
            );
            stream.write_all(request.as_bytes()).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert!(!answer.contains(token.as_str()), "{answer}");
        }
    }
    // What is to be logged is; the control that these lines come at all.
    let begun = Instant::now();
    while !["trimmed", "not authenticated", "audit"].iter().all(|part| daemon.log().contains(part))
    {
        assert!(begun.elapsed() < SOON, "{}", daemon.log());
    }
    let log = daemon.log();
    assert!(log.contains("TRACE"), "{}", &log[..log.len().min(2_000)]);
    for token in [&good, &wrong, &jwt] {
        let secret = &token[token.len() - 40..];
        assert!(!log.contains(secret), "a token is in the log");
    }
    let hash = tailmark::server::TokenHash::of(&good).to_string();
    assert!(!log.contains(&hash[7..]), "the hash of a token is in the log");
    let _ = Command::new("true");
}
