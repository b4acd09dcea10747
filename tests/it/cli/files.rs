//! Files that a user names: what lies there may be anything.

use super::*;

#[test]
fn a_state_file_behind_a_link_is_replaced_and_the_link_stays() {
    let daemon = Daemon::start();
    daemon.store("a", &["1", "2", "3"]);
    let dir = tempfile::tempdir().unwrap();
    let (real, link) = (dir.path().join("real"), dir.path().join("link"));
    std::os::unix::fs::symlink("real", &link).unwrap();
    let watch = |extra: &[&str]| {
        let mut args = vec!["watch", "--json", "--state", link.to_str().unwrap()];
        args.extend(extra);
        let output = daemon.run(&args);
        assert_ok(&output);
        bodies(stdout(&output))
    };
    // At first it leads to nothing.
    assert_eq!(watch(&["--from", "oldest", "--limit", "1"]), ["1"]);
    assert_eq!(watch(&["--limit", "1"]), ["2"]);
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    assert!(std::fs::symlink_metadata(&real).unwrap().is_file());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    // And by its own name it is the same file.
    let args = ["watch", "--json", "--state", real.to_str().unwrap(), "--until-caught-up"];
    let output = daemon.run(&args);
    assert_eq!(bodies(stdout(&output)), ["3"]);
}

#[test]
fn what_can_be_no_state_file_is_wrong_usage_before_anything_is_printed() {
    let daemon = Daemon::start();
    daemon.store("a", &["1"]);
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for (path, what) in [
        (dir.path().to_str().unwrap(), "a directory"),
        (pipe.to_str().unwrap(), "a pipe"),
        ("/dev/zero", "a device"),
        // Here it is a pipe too.
        ("/dev/stdout", "a pipe"),
    ] {
        let output = daemon.run(&["watch", "--from", "oldest", "--limit", "1", "--state", path]);
        assert_eq!(code(&output), 2, "{path}: {}", stderr(&output));
        assert!(stderr(&output).contains(&format!("it is {what}")), "{}", stderr(&output));
        assert_eq!(stdout(&output), "", "{path}");
    }
}

#[test]
fn a_file_of_settings_that_never_ends_is_refused_by_every_command_that_reads_one() {
    for command in [&["serve"][..], &["config", "check"], &["config", "print"]] {
        for (path, part) in [("/dev/zero", "more than 1 MiB"), ("/", "it is a directory")] {
            let output = tailmark(&[command, &["--config", path]].concat()).output().unwrap();
            assert_eq!(code(&output), 2, "{command:?}: {}", stderr(&output));
            let said = stderr(&output);
            assert!(said.contains(&format!("cannot read {path}")) && said.contains(part), "{said}");
        }
    }
}

#[test]
fn a_body_that_never_ends_is_refused() {
    let daemon = Daemon::start();
    for (args, part) in [
        (&["publish", "a", "--file", "/dev/zero"][..], "larger than an event may be"),
        (&["publish", "a", "--file", "/"], "Is a directory"),
        (&["upload", "--topic", "a", "/dev/zero"], "longer than"),
        (&["upload", "--topic", "a", "/"], "is a directory"),
    ] {
        let output = daemon.run(args);
        assert!(!output.status.success() && stderr(&output).contains(part), "{}", stderr(&output));
    }
    assert_eq!(daemon.log.head(), Seq::ZERO);
}
