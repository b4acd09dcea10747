//! Servers by name.

use std::os::unix::fs::PermissionsExt;

use super::*;

#[test]
fn a_server_is_named_once_and_then_talked_to() {
    let daemon = Daemon::start();
    let address = daemon.port.address.to_string();
    let home = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| {
        let mut command = tailmark(args);
        command.env("XDG_CONFIG_HOME", home.path()).current_dir(home.path());
        command.stdin(Stdio::null()).output().unwrap()
    };
    let add = run(&["context", "add", "here", &address, "--token-file", "here.token"]);
    assert_ok(&add);
    assert!(stderr(&add).contains("here.token is not there yet"), "{}", stderr(&add));
    assert!(stderr(&add).contains("tailmark context use here"), "{}", stderr(&add));
    let path = home.path().join("tailmark/contexts.toml");
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    // A file of the caller's place is found from everywhere.
    let kept = std::fs::read_to_string(&path).unwrap();
    let file = home.path().canonicalize().unwrap().join("here.token");
    assert!(kept.contains(file.to_str().unwrap()), "{kept}");
    std::fs::write(&file, "tailmark_token\n").unwrap();

    assert_ok(&run(&["--context", "here", "publish", "a", "one"]));
    assert_ok(&run(&["publish", "a", "two", "--context", "here"]));
    assert_ok(&run(&["context", "use", "here"]));
    assert_ok(&run(&["publish", "a", "three"]));
    assert_ok(&run(&["doctor"]));
    assert_eq!(daemon.head(), 3);
    let list = run(&["context", "list"]);
    let lines: Vec<_> = stdout(&list).lines().collect();
    assert!(lines[0].starts_with("  default  http://127.0.0.1:50051"), "{lines:?}");
    assert!(lines[1].starts_with(&format!("* here     http://{address}")), "{lines:?}");
    for line in stdout(&run(&["context", "list", "--json"])).lines() {
        let object: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(object["current"], object["name"] == "here", "{line}");
    }

    for (args, exit, words) in [
        (&["context", "add", "here", "h:1"][..], 2, "a context here already"),
        (&["context", "add", "default", "h:1"], 2, "without a context"),
        (&["context", "add", "a b", "h:1"], 2, "letters, digits"),
        (&["context", "add", "bad", "no where"], 2, "URL: address `no where`"),
        (&["context", "use", "nowhere"], 3, "known: here"),
        (&["context", "remove", "nowhere"], 3, "known: here"),
        (&["context", "remove", "default"], 2, "always there"),
    ] {
        let output = run(args);
        assert_eq!(code(&output), exit, "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(words), "{args:?}: {}", stderr(&output));
    }
    // An address that is given goes before it, without what belongs to another server.
    let elsewhere = run(&["status", "--addr", ":1"]);
    assert!(stderr(&elsewhere).contains("127.0.0.1:1 (--addr)"), "{}", stderr(&elsewhere));
    let gone = run(&["context", "remove", "here"]);
    assert_ok(&gone);
    assert!(stderr(&gone).contains("http://127.0.0.1:50051 again"), "{}", stderr(&gone));
    assert!(stdout(&run(&["context", "list"])).starts_with("* default"));

    // What cannot be read is no absent file: the wrong server would be talked to.
    std::fs::write(&path, "[contexts.x]\nadress = 1\n").unwrap();
    let bad = run(&["status"]);
    assert_eq!(code(&bad), 2);
    assert!(stderr(&bad).contains("contexts.toml: unknown field `adress`"), "{}", stderr(&bad));
}
