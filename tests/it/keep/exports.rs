//! A log as one file, and a log made of that.

use std::io::Cursor as Input;
use std::path::Path;

use tailmark::export::{Error, Format, Reader, Record, export, import};
use tailmark::inspect::{self, Range};
use tailmark_log::StoreError;
use tailmark_log::eventlog::ResolveError;
use tailmark_record::{Cursor, Seq};

use super::compacting::thinned_and_trimmed;
use super::meanwhile::found;
use crate::support::daemon::{Daemon, feed, program};
use crate::support::kept::{self, HEAD, OLDEST, PRODUCER, events, expect_clean, life};
use crate::support::logdir::{self, snapshot};

const FORMATS: [Format; 2] = [Format::Jsonl, Format::Protobuf];

pub(super) fn exported(dir: &Path, range: Range, format: Format) -> Vec<u8> {
    let mut file = Vec::new();
    let mut told = 0;
    let done = export(dir, range, format, &mut file, |events, total| {
        assert!(events > told && events <= total);
        told = events;
        Ok(())
    });
    assert_eq!(done.unwrap().events, told);
    file
}

pub(super) fn imported(file: &[u8], dir: &Path) -> Result<tailmark::export::Imported, Error> {
    loop {
        match import(Input::new(file), dir, logdir::options(), |_| Ok(())) {
            // A process that another test starts has the file of the attempt before for a moment.
            Err(Error::Store(StoreError::Locked { .. })) => std::thread::yield_now(),
            done => return done,
        }
    }
}

fn all(dir: &Path) -> Range {
    assert!(dir.is_dir());
    Range::default()
}

#[tokio::test]
async fn what_is_imported_is_the_same_log_and_its_cursors_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let cursors = life(dir.path()).await;
    let data = dir.path().join("data");
    let before = snapshot(&data);
    let (wanted, info) = (events(&data), inspect::info(&data).unwrap());
    assert!(info.segments.len() > 1 && info.generations.len() == 2);
    for format in FORMATS {
        let file = exported(&data, all(&data), format);
        assert!(snapshot(&data) == before, "an export changed the log");
        assert_eq!(file, exported(&data, all(&data), format), "two exports differ");
        let copy = dir.path().join(format!("{format:?}"));
        let done = imported(&file, &copy).unwrap();
        assert_eq!((done.first.get(), done.last.get()), (OLDEST, HEAD));
        expect_clean(&copy);
        assert_eq!(events(&copy), wanted);
        let there = inspect::info(&copy).unwrap();
        let (rows, more) = (&info.generations[..], &there.generations[..]);
        assert_eq!((&more[..rows.len()], more.len()), (rows, rows.len() + 1));
        assert_eq!((more[2].first.get(), &*more[2].cause), (HEAD + 1, "imported"));
        // Of the events the same again, whatever generation begins after them.
        let again = exported(&copy, all(&copy), format);
        let records = |file: &[u8]| {
            let mut reader = Reader::new(Input::new(file)).unwrap();
            let mut records = Vec::new();
            while let Some(record) = reader.read().unwrap() {
                records.extend(matches!(record, Record::Event(_)).then_some(record));
            }
            records
        };
        assert_eq!(records(&again), records(&file));

        let log = kept::open(&copy);
        for (at, cursor) in cursors.iter().enumerate() {
            let next = log.resolve(Cursor::parse(cursor).unwrap()).await.unwrap();
            assert_eq!(next.get(), OLDEST + at as u64, "{cursor}");
            assert_eq!(log.cursor(next.prev()).await, *cursor);
        }
        // Repeats are told, and a producer is where it was.
        let again = kept::store(&log, 2_000..2_001).await.unwrap();
        assert_eq!((again.stored, again.duplicates, again.last_event.get()), (0, 1, 2_001));
        let producer = log.open_producer(PRODUCER, 0).await.unwrap();
        assert_eq!((producer.last_seq(), producer.last_event()), (3, Some(Seq::new(2_903))));
        log.close().await.unwrap();
    }
}

#[tokio::test]
async fn who_stood_beyond_the_export_is_told_where_both_part() {
    let dir = tempfile::tempdir().unwrap();
    let cursors = life(dir.path()).await;
    let data = dir.path().join("data");
    // In the last generation, and before that began.
    for (first, last) in [(1_000, 2_000), (900, 1_200)] {
        let copy = dir.path().join(format!("copy-{last}"));
        let range = Range { from: Some(Seq::new(first)), to: Some(Seq::new(last)) };
        let done = imported(&exported(&data, range, Format::Protobuf), &copy).unwrap();
        assert_eq!((done.first.get(), done.last.get()), (first, last));
        expect_clean(&copy);
        let count = (last - first + 1) as usize;
        assert_eq!(events(&copy), events(&data)[(first - OLDEST) as usize..][..count]);
        let log = kept::open(&copy);
        kept::store(&log, 20_000..22_000).await;
        let resolve = async |seq: u64| {
            let cursor = Cursor::parse(&cursors[(seq - (OLDEST - 1)) as usize]).unwrap();
            log.resolve(cursor).await
        };
        assert_eq!(resolve(last).await.unwrap().get(), last + 1);
        assert_eq!(resolve(first - 1).await.unwrap().get(), first);
        assert!(resolve(first - 2).await.is_err());
        for beyond in [last + 1, 2_100, HEAD] {
            match resolve(beyond).await {
                Err(ResolveError::Cursor(error)) => {
                    let text = format!("{error:?}");
                    let last = format!("last_common: Seq({last})");
                    assert!(text.contains("LogDiverged") && text.contains(&last), "{text}");
                }
                other => panic!("{other:?}"),
            }
        }
        // Nobody can tell what the producer had sent by then.
        let producer = log.open_producer(PRODUCER, 0).await.unwrap();
        assert_eq!(producer.last_seq(), 0);
        log.close().await.unwrap();
    }
}

#[tokio::test]
async fn logs_without_readable_events_come_back_too() {
    let dir = tempfile::tempdir().unwrap();
    for (name, count) in [("new", 0), ("trimmed", 120)] {
        let (data, copy) = (dir.path().join(name), dir.path().join(format!("{name}-copy")));
        std::fs::create_dir(&data).unwrap();
        let log = kept::open(&data);
        kept::store(&log, 0..count).await;
        log.trim(Seq::new(count + 1)).await.unwrap();
        let head = log.cursor(Seq::new(count)).await;
        log.close().await.unwrap();
        for format in FORMATS {
            let _ = std::fs::remove_dir_all(&copy);
            imported(&exported(&data, all(&data), format), &copy).unwrap();
            expect_clean(&copy);
            let log = kept::open(&copy);
            let bounds = log.bounds();
            assert_eq!((bounds.oldest.get(), bounds.head.get()), (count + 1, count));
            let next = log.resolve(Cursor::parse(&head).unwrap()).await.unwrap();
            assert_eq!(next.get(), count + 1);
            log.close().await.unwrap();
            drop(log);
        }
    }
}

#[tokio::test]
async fn an_export_that_was_cut_or_altered_makes_no_log() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let log = kept::open(&data);
    kept::store(&log, 0..40).await;
    log.close().await.unwrap();
    let copy = dir.path().join("copy");
    for format in FORMATS {
        let file = exported(&data, all(&data), format);
        let step = file.len() / 60;
        for at in (0..file.len()).step_by(step).chain([file.len() - 1]) {
            let error = imported(&file[..at], &copy).unwrap_err();
            let is_told = matches!(error, Error::Cut { .. } | Error::Malformed { .. });
            assert!(is_told, "{format:?} cut at {at}: {error:?}");
            let mut altered = file.clone();
            altered[at] ^= 0x01;
            let error = imported(&altered, &copy).unwrap_err();
            let is_told = matches!(
                error,
                Error::Altered { .. }
                    | Error::Malformed { .. }
                    | Error::Cut { .. }
                    | Error::Store(_)
            );
            assert!(is_told, "{format:?} altered at {at}: {error:?}");
            assert!(inspect::info(&copy).is_err(), "{format:?} at {at} left a log");
        }
        // Behind its end is nothing.
        for more in [&b"\n"[..], &file] {
            let error = imported(&[&file, more].concat(), &copy).unwrap_err();
            assert!(matches!(error, Error::Altered { .. }), "{format:?}: {error:?}");
            assert!(inspect::info(&copy).is_err());
        }
        // What is left is no log, and says so to a daemon as well.
        let cut = &file[..file.len() - 1];
        imported(cut, &copy).unwrap_err();
        let left = tailmark_log::storage::local::open(&copy, logdir::options()).err().unwrap();
        assert!(matches!(&left, StoreError::Partial { what, .. } if what == "import"), "{left}");
        // The null control: all of it makes one, in the same directory.
        imported(&file, &copy).unwrap();
        assert_eq!(events(&copy), events(&data));
        let refused = imported(&file, &copy).unwrap_err();
        assert!(matches!(refused, Error::Store(StoreError::NotEmpty { .. })), "{refused}");
        assert_eq!(events(&copy), events(&data));
        std::fs::remove_dir_all(&copy).unwrap();
    }
}

#[test]
fn a_damaged_log_is_not_exported_as_if_it_were_whole() {
    let dir = logdir::sealed_log();
    let segment = logdir::segments(dir.path()).remove(1);
    let db = segment.join("db/db");
    let before = exported(dir.path(), Range::default(), Format::Jsonl).len();
    for at in (0..std::fs::metadata(&db).unwrap().len()).step_by(40_001) {
        logdir::flip(&db, at);
        let mut file = Vec::new();
        let done = export(dir.path(), Range::default(), Format::Jsonl, &mut file, |_, _| Ok(()));
        match done {
            // It hit what holds no event.
            Ok(_) => assert_eq!(file.len(), before),
            Err(Error::Inspect(_) | Error::Store(_)) => assert!(!file.ends_with(b"}}\n")),
            Err(other) => panic!("{other:?}"),
        }
        logdir::flip(&db, at);
    }
    logdir::flip(&segment.join("footer"), 100);
    let done = export(dir.path(), Range::default(), Format::Jsonl, std::io::sink(), |_, _| Ok(()));
    assert!(done.is_err());
}

/// Whoever may write beside the file names no other by it, and reads nothing of the log.
#[tokio::test]
async fn an_export_is_written_to_a_file_of_its_own() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let dir = tempfile::tempdir().unwrap();
    life(dir.path()).await;
    let at = |name: &str| dir.path().join(name);
    let export = |name: &str| {
        let (data, file) = (at("data"), at(name));
        let args = ["log", "export", "--data-dir", data.to_str().unwrap(), "--output"];
        feed(program(&args).arg(file), b"").status.code()
    };
    std::fs::write(at("victim"), "mine").unwrap();
    symlink(at("victim"), at("linked.unfinished")).unwrap();
    std::fs::write(at("cut.unfinished"), "left").unwrap();
    std::fs::set_permissions(at("cut.unfinished"), PermissionsExt::from_mode(0o644)).unwrap();
    for name in ["linked", "cut"] {
        assert_eq!(export(name), Some(0));
        let made = std::fs::symlink_metadata(at(name)).unwrap();
        assert!(made.is_file() && made.permissions().mode() & 0o777 == 0o600, "{name}: {made:?}");
        assert!(!at(&format!("{name}.unfinished")).exists());
    }
    assert_eq!(std::fs::read(at("victim")).unwrap(), b"mine");
    // A link that names nothing is there, too.
    symlink(at("nothing"), at("dangling")).unwrap();
    assert_eq!(export("dangling"), Some(2));
}

#[test]
fn whatever_is_not_as_it_was_exported_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    let (data, file) = (dir.path().join("data"), dir.path().join("file"));
    std::fs::create_dir(&data).unwrap();
    let (engine, _) = logdir::open(&data);
    logdir::fill(&*engine, 20, 10);
    logdir::close(&data, engine);
    let whole = String::from_utf8(exported(&data, all(&data), Format::Jsonl)).unwrap();
    let lines: Vec<&str> = whole.lines().collect();
    let edited = |edit: &dyn Fn(&mut Vec<String>)| {
        let mut lines = lines.iter().map(|line| (*line).to_owned()).collect();
        edit(&mut lines);
        lines.join("\n") + "\n"
    };
    let cases: [(&str, String, i32); 8] = [
        ("an event is missing", edited(&|it| drop(it.remove(5))), 4),
        ("two are swapped", edited(&|it| it.swap(5, 6)), 4),
        ("one is there twice", edited(&|it| it.insert(5, it[5].clone())), 4),
        ("one is another", edited(&|it| it[5] = it[5].replace("event 5", "event 6")), 4),
        ("a line is none", edited(&|it| it[5].truncate(9)), 4),
        ("the end is missing", edited(&|it| drop(it.pop())), 4),
        ("the header is missing", edited(&|it| drop(it.remove(0))), 2),
        ("nothing", edited(&|_| {}), 0),
    ];
    for (what, text, code) in cases {
        assert!(what == "nothing" || text != whole, "{what}");
        std::fs::write(&file, text).unwrap();
        let copy = dir.path().join("copy");
        let mut command = program(&["log", "import", "--exact"]);
        let done = feed(command.arg(&file).arg("--data-dir").arg(&copy), b"");
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(code), "{what}: {said}");
    }
}

#[tokio::test]
async fn the_program_exports_beside_a_daemon_and_imports_and_uploads() {
    let dir = tempfile::tempdir().unwrap();
    life(dir.path()).await;
    let data = dir.path().join("data");
    let file = dir.path().join("file");
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let run = |args: &[&str]| feed(&mut program(args), b"");
    let daemon = Daemon::start(&data);
    for format in ["jsonl", "protobuf"] {
        let (data, file, copy) = (path(&data), path(&file), path(&dir.path().join(format)));
        let args =
            ["log", "export", "--data-dir", &data, "--format", format, "--output", &file, "--json"];
        let done = run(&args);
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success(), "{said}");
        let expected =
            format!("{{\"first_seq\":\"701\",\"last_seq\":\"{HEAD}\",\"events\":\"2303\"}}\n");
        assert_eq!(String::from_utf8_lossy(&done.stdout), expected);
        assert_eq!(run(&args).status.code(), Some(2), "a file that is there is not replaced");
        let done = run(&["log", "import", "--exact", &file, "--data-dir", &copy]);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        assert_eq!(
            String::from_utf8_lossy(&done.stdout),
            format!("imported: 2303 events, seq 701 to {HEAD} into {copy}\n")
        );
        let done = run(&["log", "import", "--exact", &file, "--data-dir", &copy]);
        assert_eq!(done.status.code(), Some(2));
        // Appended as new ones: another log, whose events are those.
        let other = Daemon::start(&dir.path().join(format!("other-{format}")));
        let said = other.output(&["upload", "--format", "export", &file, "--json"], b"");
        assert!(said.contains("\"stored\":\"2303\""), "{said}");
        let said = other.output(&["upload", "--format", "export", &file, "--json"], b"");
        assert!(said.contains("\"duplicates\":\"2303\""), "{said}");
        other.stop();
        std::fs::remove_file(&file).unwrap();
        let without = |line: &String| {
            let json: serde_json::Value =
                serde_json::from_str(line.rsplit_once(" (").unwrap().0).unwrap();
            ["id", "topic", "body", "data", "type", "key", "headers", "at"]
                .map(|name| json[name].clone())
        };
        let uploaded = events(&dir.path().join(format!("other-{format}")));
        let wanted = events(Path::new(&copy));
        assert!(uploaded.iter().map(without).eq(wanted.iter().map(without)));
        assert!(Path::new(&copy).join("log.meta").exists());
        let partial = Path::new(&file).with_extension("unfinished");
        assert!(!partial.exists());
    }
    daemon.stop();
    let nothing = run(&["log", "export", "--data-dir", &path(&dir.path().join("no"))]);
    assert_eq!((nothing.status.code(), nothing.stdout.len()), (Some(3), 0));
}

/// Its reader does not read, so that it is under way when the signal comes.
#[tokio::test]
async fn a_signal_ends_an_export_and_what_it_wrote_has_no_end() {
    use std::io::Read as _;
    use std::process::Stdio;
    let dir = tempfile::tempdir().unwrap();
    life(dir.path()).await;
    let data = dir.path().join("data");
    let mut command = program(&["log", "export", "--data-dir", data.to_str().unwrap()]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    let mut file = vec![0; 10_000];
    out.read_exact(&mut file).unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(300));
    out.read_to_end(&mut file).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(143));
    let error = imported(&file, &dir.path().join("copy")).unwrap_err();
    assert!(matches!(error, Error::Cut { .. }), "{error:?}");
}

/// By the way that leads to another machine, where nobody says a range.
#[test]
fn all_of_a_log_that_begins_amid_what_rules_took_out_is_exported() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let data = thinned_and_trimmed(dir.path(), 702);
    let (file, copy) = (path("file"), path("copy"));
    let mut export = program(&["log", "export", "--data-dir"]);
    let done = feed(export.arg(&data).arg("--output").arg(&file), b"");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let mut import = program(&["log", "import", "--exact"]);
    let done = feed(import.arg(&file).arg("--data-dir").arg(&copy), b"");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let (there, erased, gone) = found(&data);
    assert_eq!(there.first(), Some(&705));
    let is_behind = |seq: &u64| *seq >= 705;
    assert_eq!(found(&copy), (there, erased, gone.into_iter().filter(is_behind).collect()));
    expect_clean(&copy);
}
