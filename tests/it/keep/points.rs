//! A point in time that the newest backup has not, and a disk with little room: what to do is said.

use std::path::Path;

use tailmark_record::Seq;

use crate::support::daemon::{feed, program};
use crate::support::kept::{self, HEAD, OLDEST, life};

fn run(args: &[&str]) -> (Option<i32>, String, String) {
    let done = feed(&mut program(args), b"");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (done.status.code(), text(&done.stdout), text(&done.stderr))
}

#[tokio::test]
async fn a_point_that_only_another_backup_has_names_that_one() {
    let dir = tempfile::tempdir().unwrap();
    life(dir.path()).await;
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (data, to, copy) = (path("data"), path("to"), path("copy"));
    let backup = || run(&["backup", &to, "--data-dir", &data]).1.trim().to_owned();
    let trim = async |before: u64| {
        let log = kept::open(Path::new(&data));
        log.trim(Seq::new(before)).await.unwrap();
        log.close().await.unwrap();
    };
    let oldest = backup();
    trim(1_000).await;
    let between = backup();
    trim(2_000).await;
    let newest = backup();
    assert!(oldest != between && between != newest && !newest.is_empty());
    let restore = |more: &[&str]| {
        let args = ["restore", &to, "--data-dir", &copy].into_iter().chain(more.iter().copied());
        let done = run(&args.collect::<Vec<_>>());
        assert!(done.0 == Some(0) || !Path::new(&copy).exists(), "{done:?}");
        done
    };
    // The newest that has it.
    for (point, has_it) in [(1_500, &between), (900, &oldest)] {
        let (code, _, said) = restore(&["--to-seq", &point.to_string()]);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(&format!("`--backup {has_it}` has that point")), "{said}");
        let (code, text, said) = restore(&["--to-seq", &point.to_string(), "--backup", has_it]);
        assert!(code == Some(0) && text.contains(&format!("to {point} of")), "{text}{said}");
        std::fs::remove_dir_all(&copy).unwrap();
    }
    let (code, _, said) = restore(&["--to-seq", &(OLDEST - 2).to_string()]);
    assert!(code == Some(2) && said.contains("no backup here has that point"), "{said}");
    // Behind the end of one that was named.
    let log = kept::open(Path::new(&data));
    kept::store(&log, 90_000..90_100).await;
    log.close().await.unwrap();
    let last = backup();
    let point = (HEAD + 50).to_string();
    let (code, _, said) = restore(&["--to-seq", &point, "--backup", &newest]);
    assert!(code == Some(2) && said.contains(&format!("`--backup {last}` has")), "{said}");
    // By time: that of an event which only the oldest has.
    let (_, text, _) = restore(&["--to-seq", "800", "--backup", &oldest]);
    assert!(text.contains("to 800 of"), "{text}");
    let (_, dumped, _) = run(&["log", "dump", "--data-dir", &copy, "--seq", "800"]);
    std::fs::remove_dir_all(&copy).unwrap();
    let event: serde_json::Value = serde_json::from_str(dumped.trim()).unwrap();
    let time = event["appended_at"].as_str().unwrap();
    let (code, _, said) = restore(&["--to-time", time]);
    assert!(code == Some(2) && said.contains(&format!("`--backup {oldest}` has")), "{said}");
}

#[tokio::test]
async fn what_is_to_stay_free_is_told_and_can_be_lowered() {
    let dir = tempfile::tempdir().unwrap();
    life(dir.path()).await;
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (data, to, file) = (path("data"), path("to"), path("export"));
    assert_eq!(run(&["backup", &to, "--data-dir", &data]).0, Some(0));
    assert_eq!(run(&["log", "export", "--data-dir", &data, "--output", &file]).0, Some(0));
    let new = path("new");
    let commands: [&[&str]; 4] = [
        &["restore", &to, "--data-dir", &new],
        &["log", "import", "--exact", &file, "--data-dir", &new],
        &["log", "salvage", "--from", &data, "--to", &new],
        &["log", "compact-offline", "--from", &data, "--to", &new],
    ];
    for command in commands {
        // No disk has so much.
        let much = [command, &["--min-free-bytes", "900 TiB"]].concat();
        let (code, _, said) = run(&much);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("no room on disk") && said.contains("--min-free-bytes 0"), "{said}");
        let (code, _, said) = run(&[command, &["--min-free-bytes", "0"]].concat());
        assert_eq!(code, Some(0), "{said}");
        std::fs::remove_dir_all(&new).unwrap();
    }
}
