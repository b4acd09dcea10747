//! A backup in one file: it is whole or plainly not, and the same log comes back.

use std::path::Path;

use tailmark::backup::{Error, Target, Upto, take};

use super::backups::{cut_at, expect_life, is_whole, restored, taken};
use crate::support::daemon::{feed, program};
use crate::support::kept::{self, HEAD, events, life};
use crate::support::logdir;

/// What a directory has, by name.
fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<_> =
        entries.map(|it| it.unwrap().file_name().to_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn one_file_holds_one_backup_and_the_same_log_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let cursors = life(dir.path()).await;
    let (data, into) = (dir.path().join("data"), dir.path().join("into"));
    std::fs::create_dir(&into).unwrap();
    let wanted = events(&data);
    let file = into.join("a.tailmark");
    let first = taken(&data, &file);
    assert_eq!(names(&into), ["a.tailmark"]);
    assert_eq!(first.manifest.head_seq, HEAD);
    is_whole(&file, None).unwrap();
    let copy = dir.path().join("copy");
    let done = restored(&file, None, Upto::Head, &copy).unwrap();
    assert_eq!((done.head.get(), done.generation), (HEAD, 3));
    expect_life(&copy, &cursors, &wanted).await;
    // To any event, amid a segment too.
    let upto = first.manifest.segments[0].last_seq - 1;
    let part = dir.path().join("part");
    restored(&file, None, Upto::Seq(tailmark_record::Seq::new(upto)), &part).unwrap();
    assert_eq!(events(&part).last(), wanted.get((upto - kept::OLDEST) as usize).as_ref().copied());
    // What is there is not written over.
    let before = std::fs::read(&file).unwrap();
    assert!(matches!(take(&data, &file, |_| Ok(())), Err(Error::Exists { .. })));
    assert_eq!(names(&into), ["a.tailmark"]);
    assert!(std::fs::read(&file).unwrap() == before);
    // Other programs can look into it.
    let listed = std::process::Command::new("tar").arg("tf").arg(&file).output().unwrap();
    let text = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.status.success() && text.starts_with("tailmark-backup\n"), "{text}");
    assert!(text.lines().last().unwrap().ends_with(".backup"), "{text}");
    assert_eq!(
        text.lines().filter(|line| line.ends_with("/footer")).count(),
        first.manifest.segments.len()
    );
}

#[test]
fn a_name_says_whether_it_is_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let (engine, _) = logdir::open(&data);
    logdir::fill(&*engine, 10, 10);
    logdir::close(&data, engine);
    let at = |name: &str| dir.path().join(name);
    for (name, is_file) in [("a", false), ("b.tailmark", true), ("c.tailmark/", false)] {
        taken(&data, &at(name));
        assert_eq!(at(name).is_file(), is_file, "{name}");
        assert_eq!(Target::open(&at(name)).unwrap().names().unwrap().len(), 1);
    }
    // What is there is what it is.
    std::fs::create_dir(at("d.tailmark")).unwrap();
    taken(&data, &at("d.tailmark"));
    assert!(at("d.tailmark").join("backups").is_dir());
    std::fs::rename(at("b.tailmark"), at("e")).unwrap();
    is_whole(&at("e"), None).unwrap();
    std::fs::write(at("f"), "something else").unwrap();
    assert!(matches!(Target::open(&at("f")), Err(Error::NoBackups { .. })));
    assert!(matches!(take(&data, &at("f"), |_| Ok(())), Err(Error::Exists { .. })));
}

#[tokio::test]
async fn a_file_that_is_cut_is_none_and_the_next_run_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let cursors = life(dir.path()).await;
    let (data, into) = (dir.path().join("data"), dir.path().join("into"));
    std::fs::create_dir(&into).unwrap();
    let file = into.join("a.tailmark");
    let (mut cuts, mut reused) = (0, 0);
    let mut run = |tick: &mut dyn FnMut() -> std::io::Result<()>| {
        reused = take(&data, &file, |_| tick())?.reused_segments;
        Ok(())
    };
    while cut_at(cuts, &mut run) {
        cuts += 1;
        assert_eq!(names(&into), ["a.tailmark.unfinished"]);
        assert!(Target::open(&file).is_err());
    }
    assert!(cuts > 3 && reused > 0, "{cuts} {reused}");
    assert_eq!(names(&into), ["a.tailmark"]);
    is_whole(&file, None).unwrap();
    let (copy, wanted) = (dir.path().join("copy"), events(&data));
    restored(&file, None, Upto::Head, &copy).unwrap();
    expect_life(&copy, &cursors, &wanted).await;
}

/// What was cut holds a segment that the log has no more: nothing of that is in the file that comes of it.
#[tokio::test]
async fn what_was_trimmed_since_a_cut_is_not_in_the_file() {
    let dir = tempfile::tempdir().unwrap();
    life(dir.path()).await;
    let (data, file) = (dir.path().join("data"), dir.path().join("a.tailmark"));
    let manifest = taken(&data, &dir.path().join("first.tailmark")).manifest;
    let sealed: u64 = manifest.segments.iter().map(|row| row.bytes).sum();
    let cut = take(&data, &file, |progress| {
        match progress.done_bytes > manifest.tail_bytes + sealed - 10 {
            true => Err(std::io::ErrorKind::Interrupted.into()),
            false => Ok(()),
        }
    });
    assert!(cut.is_err());
    let log = kept::open(&data);
    log.trim(tailmark_record::Seq::new(manifest.segments[0].last_seq + 1)).await.unwrap();
    log.close().await.unwrap();
    drop(log);
    let next = taken(&data, &file);
    assert_eq!(next.manifest.segments.len() + 1, manifest.segments.len());
    is_whole(&file, None).unwrap();
    let bytes = std::fs::read(&file).unwrap();
    let gone = manifest.segments[0].name.as_bytes();
    assert!(!bytes.windows(gone.len()).any(|part| part == gone));
    // The null control.
    let there = next.manifest.segments[0].name.as_bytes();
    assert!(bytes.windows(there.len()).any(|part| part == there));
}

#[tokio::test]
async fn a_file_that_is_damaged_makes_no_other_log() {
    let dir = tempfile::tempdir().unwrap();
    life(dir.path()).await;
    let (data, file) = (dir.path().join("data"), dir.path().join("a.tailmark"));
    taken(&data, &file);
    let wanted = events(&data);
    let len = std::fs::metadata(&file).unwrap().len();
    let (mut told, copy) = (0, dir.path().join("copy"));
    for at in (0..len).step_by(usize::try_from(len / 150).unwrap()).chain([len - 1_025]) {
        logdir::flip(&file, at);
        // What stands between the files of an archive means nothing.
        match is_whole(&file, None).and_then(|()| restored(&file, None, Upto::Head, &copy)) {
            Ok(_) => assert!(events(&copy) == wanted, "at {at}"),
            Err(_) => told += 1,
        }
        let _ = std::fs::remove_dir_all(&copy);
        logdir::flip(&file, at);
    }
    assert!(told > 100, "{told}");
    for len in [0, 700, len / 2, len - 1_500] {
        let part = dir.path().join("part.tailmark");
        std::fs::copy(&file, &part).unwrap();
        let cut = std::fs::OpenOptions::new().write(true).open(&part).unwrap();
        cut.set_len(len).unwrap();
        assert!(is_whole(&part, None).is_err(), "cut at {len}");
    }
    // The null control.
    is_whole(&file, None).unwrap();
}

/// The code with which each command that reads backups ends, and what they say.
fn told(file: &Path, copy: &Path) -> Vec<(Option<i32>, String)> {
    let (file, copy) = (file.to_str().unwrap(), copy.to_str().unwrap());
    let commands: [&[&str]; 3] = [
        &["backup", "list", file],
        &["backup", "verify", file],
        &["restore", file, "--data-dir", copy],
    ];
    let run = |args: &&[&str]| {
        let done = feed(&mut program(args), b"");
        (done.status.code(), String::from_utf8(done.stderr).unwrap())
    };
    commands.iter().map(run).collect()
}

#[tokio::test]
async fn a_file_that_was_cut_or_whose_heads_are_damaged_is_not_taken_for_an_empty_one() {
    let dir = tempfile::tempdir().unwrap();
    life(dir.path()).await;
    let (file, copy) = (dir.path().join("a.tailmark"), dir.path().join("copy"));
    taken(&dir.path().join("data"), &file);
    let mut reader = std::fs::File::open(&file).unwrap();
    let mut archive = tar::Archive::new(&mut reader);
    let heads = archive.entries_with_seek().unwrap().map(|it| it.unwrap().raw_header_position());
    let (heads, len) = (heads.collect::<Vec<_>>(), std::fs::metadata(&file).unwrap().len());
    assert!(heads.len() > 10, "{heads:?}");
    let expect = |what: &str| {
        let told = Target::open(&file).map(drop);
        let is_told =
            matches!(&told, Err(Error::Damaged { what, .. }) if what.starts_with("it was cut"));
        assert!(is_told, "{what}: {told:?}");
    };
    // The first letter of each name, and the end.
    for at in heads.iter().copied().chain([len - 1]) {
        logdir::flip(&file, at);
        expect(&format!("flipped at {at}"));
        logdir::flip(&file, at);
    }
    let bytes = std::fs::read(&file).unwrap();
    let cuts = heads.iter().flat_map(|at| [*at, at + 1, at + 512]).chain([len - 1, len - 512]);
    for at in cuts {
        std::fs::write(&file, &bytes[..at as usize]).unwrap();
        expect(&format!("cut at {at}"));
    }
    std::fs::write(&file, &bytes[..len as usize / 2]).unwrap();
    for (code, said) in told(&file, &copy) {
        assert!(code == Some(4) && said.contains("is damaged: it was cut"), "{code:?} {said}");
    }
    assert!(!copy.exists());
    // The null controls: the same file whole, and with as many empty blocks as other programs write.
    std::fs::write(&file, &bytes).unwrap();
    assert!(told(&file, &copy).iter().all(|(code, _)| *code == Some(0)));
    std::fs::write(&file, [&bytes[..], &[0; 18 * 512]].concat()).unwrap();
    is_whole(&file, None).unwrap();
}

/// By the program: killed amid it, at a rate that makes it take its time.
#[tokio::test]
async fn a_killed_program_leaves_what_the_next_one_goes_on_with() {
    let dir = tempfile::tempdir().unwrap();
    life(dir.path()).await;
    let (data, file) = (dir.path().join("data"), dir.path().join("a.tailmark"));
    let whole = taken(&data, &dir.path().join("measured")).written_bytes;
    let rate = (whole / 3).to_string();
    let mut command = program(&["backup", file.to_str().unwrap(), "--rate", &rate, "--data-dir"]);
    let mut child = command.arg(&data).spawn().unwrap();
    let unfinished = dir.path().join("a.tailmark.unfinished");
    let begun = std::time::Instant::now();
    while std::fs::metadata(&unfinished).map_or(0, |it| it.len()) < whole / 2 {
        assert!(begun.elapsed() < crate::support::server::PATIENCE);
        assert!(child.try_wait().unwrap().is_none(), "it was not held back");
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!file.exists());
    let done =
        feed(program(&["backup", file.to_str().unwrap(), "--json", "--data-dir"]).arg(&data), b"");
    let text = String::from_utf8(done.stdout).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_ne!(json["reused_segments"], "0", "{text}");
    is_whole(&file, None).unwrap();
    assert!(!unfinished.exists());
}

#[cfg(not(feature = "cloud"))]
#[test]
fn a_build_without_clouds_says_which_has_them() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    logdir::close(&data, logdir::open(&data).0);
    let (data, copy) = (data.to_str().unwrap(), dir.path().join("copy"));
    for (to, says) in [("s3://b/p", "--features cloud"), ("ftp://b/p", "s3://BUCKET")] {
        let restore = ["restore", to, "--data-dir", copy.to_str().unwrap()];
        let backup = ["backup", to, "--data-dir", data];
        for args in [&backup[..], &["backup", "list", to], &restore] {
            let done = feed(&mut program(args), b"");
            let said = String::from_utf8(done.stderr).unwrap();
            assert_eq!(done.status.code(), Some(2), "{said}");
            assert!(said.contains(says), "{said}");
        }
    }
}
