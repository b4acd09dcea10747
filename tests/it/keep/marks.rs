//! The file that says whose backups a place has: told where it is lost, and needed by nobody who reads.

use std::path::Path;

use tailmark::backup::{Error, Mark, Target, Upto, take};

use super::backups::{is_whole, restored, taken};
use crate::support::daemon::{feed, program};
use crate::support::kept::{self, events, life};
use crate::support::logdir;

fn run(args: &[&str]) -> (Option<i32>, String, String) {
    let done = feed(&mut program(args), b"");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (done.status.code(), text(&done.stdout), text(&done.stderr))
}

#[tokio::test]
async fn a_place_whose_mark_is_lost_is_known_by_its_backups_and_gets_it_back() {
    let dir = tempfile::tempdir().unwrap();
    life(dir.path()).await;
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (data, to) = (path("data"), path("to"));
    let first = taken(Path::new(&data), Path::new(&to)).name;
    let wanted = events(Path::new(&data));
    let mark = Path::new(&to).join("tailmark-backup");
    let whole = std::fs::read(&mark).unwrap();
    let other = String::from_utf8(whole.clone()).unwrap().replace(['0', '1'], "2");
    assert_ne!(other.as_bytes(), whole);
    let hurts: [(&str, Option<&[u8]>); 5] = [
        ("missing", None),
        ("empty", Some(b"")),
        ("zeros", Some(&[0; 37])),
        ("no text", Some(&[0xff, b'\n'])),
        ("another", Some(other.as_bytes())),
    ];
    for (at, (name, bytes)) in hurts.into_iter().enumerate() {
        match bytes {
            None => std::fs::remove_file(&mark).unwrap(),
            Some(bytes) => std::fs::write(&mark, bytes).unwrap(),
        }
        let wrong = if bytes.is_none() { Mark::Missing } else { Mark::Damaged };
        assert_eq!(Target::open(Path::new(&to)).unwrap().mark(), wrong, "{name}");
        let (code, _, said) = run(&["backup", "verify", &to]);
        let is_told = said.contains("tailmark-backup") && said.contains("hint: the backups can be");
        assert!(code == Some(4) && is_told, "{name}: {said}");
        let (code, listed, said) = run(&["backup", "list", &to]);
        assert!(code == Some(0) && listed.contains(&first), "{name}: {listed}");
        assert!(said.contains("note: ") && said.contains("tailmark-backup"), "{name}: {said}");
        let copy = path(&format!("copy-{at}"));
        let (code, _, said) = run(&["restore", &to, "--backup", &first, "--data-dir", &copy]);
        assert!(code == Some(0) && said.contains("note: "), "{name}: {said}");
        assert!(events(Path::new(&copy)) == wanted, "{name}");
        // Nobody removes anything before it is known whose it is.
        let (code, _, said) = run(&["backup", "prune", &to, "--keep", "1"]);
        assert_eq!(code, Some(4), "{name}: {said}");
        // Not for another log.
        let second = path("second");
        if !Path::new(&second).exists() {
            std::fs::create_dir(&second).unwrap();
            kept::open(Path::new(&second)).close().await.unwrap();
        }
        let refused = take(Path::new(&second), Path::new(&to), |_| Ok(())).unwrap_err();
        assert!(matches!(refused, Error::OtherLog { .. }), "{name}: {refused}");
        assert_eq!(Target::open(Path::new(&to)).unwrap().mark(), wrong, "{name}");
        let (code, _, said) = run(&["backup", &to, "--data-dir", &data]);
        assert_eq!(code, Some(0), "{name}: {said}");
        assert_eq!(std::fs::read(&mark).unwrap(), whole, "{name}");
        is_whole(Path::new(&to), None).unwrap();
        is_whole(Path::new(&to), Some(&first)).unwrap();
    }
    // A directory with something else is no place, whatever lies in it.
    let (code, ..) = run(&["backup", "list", &data]);
    assert_eq!(code, Some(3));
}

/// As above, where backups of two logs were put together by hand.
#[tokio::test]
async fn a_mark_is_not_written_anew_over_backups_of_two_logs() {
    let dir = tempfile::tempdir().unwrap();
    life(dir.path()).await;
    let path = |name: &str| dir.path().join(name);
    let second = path("second");
    std::fs::create_dir(&second).unwrap();
    let (engine, _) = logdir::open(&second);
    logdir::fill(&*engine, 100, 50);
    logdir::close(&second, engine);
    taken(&second, &path("theirs"));
    std::thread::sleep(std::time::Duration::from_millis(1_100));
    taken(&path("data"), &path("to"));
    for entry in std::fs::read_dir(path("theirs/backups")).unwrap() {
        let from = entry.unwrap().path();
        std::fs::copy(&from, path("to/backups").join(from.file_name().unwrap())).unwrap();
    }
    std::fs::remove_file(path("to/tailmark-backup")).unwrap();
    let refused = take(&path("data"), &path("to"), |_| Ok(())).unwrap_err();
    assert!(matches!(refused, Error::OtherLog { .. }), "{refused}");
    // Each can be put back.
    for name in Target::open(&path("to")).unwrap().names().unwrap() {
        restored(&path("to"), Some(&name), Upto::Head, &path(&name)).unwrap();
    }
}

#[tokio::test]
async fn the_mark_in_one_file_is_checked_too() {
    let dir = tempfile::tempdir().unwrap();
    life(dir.path()).await;
    let (data, file) = (dir.path().join("data"), dir.path().join("log.tailmark"));
    taken(&data, &file);
    is_whole(&file, None).unwrap();
    // Its bytes stand behind the head of the first entry.
    logdir::flip(&file, 512 + 3);
    assert!(matches!(is_whole(&file, None), Err(Error::Mark { .. })));
    restored(&file, None, Upto::Head, &dir.path().join("copy")).unwrap();
}
