//! Erasing as a person does it, on a daemon with a directory: readers before, amid and after it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;
use tailmark::inspect;
use tailmark_client::{Client, Item, Seq, Start, Watch, WatchOptions};
use tailmark_wire::feed_v1 as pb;
use tailmark_wire::feed_v1::erase_progress::Phase;
use tokio_stream::StreamExt;

use super::{next, of_topic};
use crate::support::daemon::{Daemon, feed, program};
use crate::support::kept::expect_clean;
use crate::support::logdir::{self, log_command};
use crate::support::server::{PATIENCE, within};

/// A text that nothing else has, and that no codec makes shorter.
fn mark(what: &str, at: u64) -> String {
    let noise = |it: u64| (it + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (at << 7);
    format!("{what}-{:016x}{:016x}", noise(at), noise(at + 77))
}

/// All that an event of a person says, in each of its fields.
fn of_person(at: u64) -> pb::Event {
    let content = mark("body", at);
    let (body, data) =
        if at.is_multiple_of(2) { (content, Vec::new()) } else { (String::new(), content.into()) };
    pb::Event {
        id: mark("id", at),
        topic: "u.ann".into(),
        body,
        data: data.into(),
        r#type: mark("type", at),
        key: mark("key", at),
        headers: HashMap::from([("h".to_owned(), mark("header", at))]),
        ..Default::default()
    }
}

/// All files of a directory that a daemon is at work on. Where one went meanwhile, it may have another name: then all
/// are read again.
fn files_of(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    fn add(dir: &Path, all: &mut Vec<(PathBuf, Vec<u8>)>) -> std::io::Result<()> {
        for entry in std::fs::read_dir(dir)? {
            let path = entry?.path();
            match path.is_dir() {
                true => add(&path, all)?,
                false => all.push((path.clone(), std::fs::read(path)?)),
            }
        }
        Ok(())
    }
    loop {
        let mut all = Vec::new();
        match add(dir, &mut all) {
            Ok(()) => return all,
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound),
        }
    }
}

/// Places of a directory where one of the marks of these events lies.
fn found_in(dir: &Path, numbers: std::ops::Range<u64>) -> Vec<String> {
    let files = files_of(dir);
    let mut found = Vec::new();
    for at in numbers {
        for what in ["body", "id", "type", "key", "header"] {
            let mark = mark(what, at);
            let finder = memchr::memmem::Finder::new(mark.as_bytes());
            for (path, bytes) in &files {
                if finder.find(bytes).is_some() {
                    found.push(format!("{mark} in {}", path.display()));
                }
            }
        }
    }
    found
}

fn watch_of(client: &Client, topic: &str, start: Start) -> Watch {
    let mut options = WatchOptions::default();
    (options.patterns, options.start) = (vec![topic.into()], start);
    client.watch(options)
}

/// The next event, whole.
async fn event_of(watch: &mut Watch) -> pb::Event {
    loop {
        if let Item::Event(received) = within("event", watch.next()).await.unwrap().unwrap() {
            return prost::Message::decode(received.bytes().clone()).unwrap();
        }
    }
}

/// The seqs behind a cursor, up to the head.
async fn seqs_after(client: &Client, cursor: &str) -> Vec<u64> {
    let mut options = WatchOptions::default();
    options.after_cursor = Some(cursor.to_owned());
    options.until_caught_up = true;
    let mut watch = client.watch(options);
    let mut seqs = Vec::new();
    while let Some(item) = within("item", watch.next()).await {
        if let Item::Event(received) = item.unwrap() {
            seqs.push(received.seq().get());
        }
    }
    seqs
}

async fn publish(client: &Client, event: pb::Event) -> pb::PublishResult {
    within("publish", client.publish(event, None)).await.unwrap()
}

fn other(at: u64) -> pb::Event {
    pb::Event { topic: "other".into(), body: format!("other {at}"), ..Default::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_is_erased_and_nobody_loses_a_place() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let daemon = Daemon::start(&data);
    let client = Client::new(daemon.url()).unwrap();
    let mut cursors = vec![within("log", client.log()).await.unwrap().head_cursor];
    for at in 0..60 {
        cursors.push(publish(&client, of_person(at)).await.cursor);
        cursors.push(publish(&client, other(at)).await.cursor);
    }
    // In segments, too: slots are small here.
    let noise = |at: u64| (0..40).map(|it| mark("fill", at * 100 + it)).collect::<String>();
    let lines: String = (0..600).map(|at| noise(at) + "\n").collect();
    daemon.output(&["upload", "--topic", "fill", "-"], lines.as_bytes());
    for at in 60..70 {
        cursors.push(publish(&client, of_person(at)).await.cursor);
    }
    let head = within("log", client.log()).await.unwrap().head_seq;
    assert!(!found_in(&data, 0..70).is_empty(), "the search finds nothing that is there");
    let next = Start::Seq(Seq::new(head + 1));
    let (mut ann, mut others) =
        (watch_of(&client, "u.ann", next), watch_of(&client, "other", next));
    publish(
        &client,
        pb::Event { topic: "u.ann".into(), body: "still there".into(), ..Default::default() },
    )
    .await;
    publish(&client, other(1_000)).await;
    assert_eq!(
        (event_of(&mut ann).await.body, event_of(&mut others).await.body),
        ("still there".into(), "other 1000".into())
    );

    let (before, after) = (dir.path().join("before"), dir.path().join("after"));
    back_up(&data, &before);
    let up_to = (head + 1).to_string();
    // As the page says it: look first.
    let look = ["erase", "--topic", "u.ann", "--before", &up_to, "--dry-run", "--json"];
    let look: Value = serde_json::from_str(&daemon.output(&look, b"")).unwrap();
    assert_eq!((&look["events"], found_in(&data, 0..70).is_empty()), (&"70".into(), false));
    let args = [
        "erase", "--topic", "u.ann", "--before", &up_to, "--reason", "her wish", "--yes", "--json",
    ];
    let result: Value = serde_json::from_str(&daemon.output(&args, b"")).unwrap();
    assert_eq!((&result["events"], &result["notices"]), (&"70".into(), &"1".into()), "{result}");

    // A backup from before has her still, and one in a new place nothing of her.
    back_up(&data, &after);
    assert!(!found_in(&before, 0..70).is_empty());
    assert_eq!(found_in(&after, 0..70), Vec::<String>::new());
    // Whoever watches the topic is told, and nobody else.
    let notice = event_of(&mut ann).await;
    assert_eq!((notice.topic.as_str(), notice.r#type.as_str()), ("u.ann", "tailmark.erased"));
    let body: Value = serde_json::from_str(&notice.body).unwrap();
    assert_eq!((&body["erasure"], &body["reason"]), (&result["erasure"], &"her wish".into()));
    let last = body["seqs"].as_array().unwrap().last().unwrap()[1].as_u64();
    assert_eq!((body["seqs"][0][0].as_u64(), last), (Some(1), Some(head)));
    publish(&client, other(1_001)).await;
    assert_eq!(event_of(&mut others).await.body, "other 1001");

    let daemon = check(daemon, &data, &cursors).await;
    // An id that is gone tells nothing any more: what comes with it is new.
    let client = Client::new(daemon.url()).unwrap();
    assert!(!publish(&client, of_person(0)).await.duplicate);
    daemon.stop();
    expect_clean(&data);
    let dump = log_command(&data, &["dump", "--seq", "1"]);
    let dump: Value = serde_json::from_slice(&dump.stdout).unwrap();
    assert_eq!((&dump["topic"], &dump["erased"]["reason"]), (&"u.ann".into(), &"her wish".into()));
}

/// What `docs/operations.md` tells of backups after that: another one, and the older ones are pruned. What a killed one has
/// left in the place goes, too.
#[tokio::test(flavor = "multi_thread")]
async fn once_older_backups_are_pruned_no_file_of_their_place_has_what_a_person_said() {
    let dir = tempfile::tempdir().unwrap();
    let (data, place) = (dir.path().join("data"), dir.path().join("place"));
    let daemon = Daemon::start(&data);
    let client = Client::new(daemon.url()).unwrap();
    for at in 0..30 {
        publish(&client, of_person(at)).await;
        publish(&client, other(at)).await;
    }
    let noise = |at: u64| (0..40).map(|it| mark("fill", at * 100 + it)).collect::<String>();
    let lines: String = (0..600).map(|at| noise(at) + "\n").collect();
    daemon.output(&["upload", "--topic", "fill", "-"], lines.as_bytes());
    for at in 30..40 {
        publish(&client, of_person(at)).await;
    }
    back_up(&data, &place);
    daemon.output(&["erase", "--topic", "u.ann", "--reason", "her wish", "--yes"], b"");
    assert_eq!(found_in(&data, 0..40), Vec::<String>::new());
    back_up(&data, &place);
    // Of one that was killed while she was there still: what was not sealed, and in a segment that stays.
    let left = mark("body", 3);
    std::fs::write(place.join("backups/00000000000000000009-9-9.tail.new"), &left).unwrap();
    let to = place.to_str().unwrap();
    let list = feed(&mut program(&["backup", "list", to, "--json"]), b"");
    let newest = String::from_utf8(list.stdout).unwrap().lines().last().unwrap().to_owned();
    let newest: Value = serde_json::from_str(&newest).unwrap();
    let newest = newest["backup"].as_str().unwrap();
    let manifest = std::fs::read_to_string(place.join(format!("backups/{newest}.backup"))).unwrap();
    let segments = std::fs::read_dir(place.join("segments")).unwrap().map(|it| it.unwrap().path());
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    let stays = segments.into_iter().find(|path| manifest.contains(&name(path))).unwrap();
    std::fs::write(stays.join("db/db.new"), &left).unwrap();

    let before = found_in(&place, 0..40);
    for part in ["/segments/", ".tail in", ".tail.new", "db.new"] {
        let part = part.trim_end_matches(" in");
        assert!(before.iter().any(|found| found.contains(part)), "{part}: {before:?}");
    }
    let pruned = feed(&mut program(&["backup", "prune", to, "--keep", "1"]), b"");
    assert!(pruned.status.success(), "{pruned:?}");
    assert_eq!(found_in(&place, 0..40), Vec::<String>::new());
    // What stays is a backup.
    let verified = feed(&mut program(&["backup", "verify", to]), b"");
    assert!(verified.status.success(), "{verified:?}");
    let copy = dir.path().join("copy");
    let restored = feed(program(&["restore", to, "--data-dir"]).arg(&copy), b"");
    assert!(restored.status.success(), "{restored:?}");
    assert_eq!(found_in(&copy, 0..40), Vec::<String>::new());
    expect_clean(&copy);
    daemon.stop();
}

fn back_up(data: &Path, to: &Path) {
    let done = program(&["backup"]).arg(to).arg("--data-dir").arg(data).output().unwrap();
    assert!(done.status.success(), "{done:?}");
}

/// That every cursor is good and nothing of the person is left; before and after a restart.
async fn check(mut daemon: Daemon, data: &Path, cursors: &[String]) -> Daemon {
    for round in 0..2 {
        let client = Client::new(daemon.url()).unwrap();
        let log = within("log", client.log()).await.unwrap();
        assert!(log.erasing.is_none() && log.oldest_seq == 1);
        for (seq, cursor) in cursors.iter().take(121).enumerate() {
            let after = seqs_after(&client, cursor).await;
            assert!(
                after.iter().copied().eq(seq as u64 + 1..=log.head_seq),
                "after {seq}, round {round}"
            );
        }
        let named = within("get", client.event_at(&cursors[1])).await.unwrap();
        assert_eq!((named.seq, named.topic.as_str()), (1, "u.ann"));
        assert_eq!(named.erased.map(|it| it.reason), Some("her wish".to_owned()));
        let kept = within("get", client.event_at(&cursors[2])).await.unwrap();
        assert_eq!((kept.body.as_str(), kept.erased), ("other 0", None));
        let of_ann = daemon.output(&["topics", "--json"], b"");
        let of_ann = of_ann.lines().find(|line| line.contains("u.ann")).unwrap();
        assert!(of_ann.contains(r#""events":"72""#), "{of_ann}");
        assert_eq!(found_in(data, 0..70), Vec::<String>::new(), "round {round}");
        let told = inspect::verify(data, |_, _| Ok(())).unwrap();
        assert!(told.is_clean(), "{told:?}");
        if round == 0 {
            daemon.stop();
            daemon = Daemon::start(data);
        }
    }
    daemon
}

/// Twenty events of a person, of which ten are trimmed and still on disk.
async fn half_trimmed() -> (tempfile::TempDir, Daemon, Client) {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let daemon = Daemon::start(&data);
    let client = Client::new(daemon.url()).unwrap();
    for at in 0..20 {
        publish(&client, of_person(at)).await;
    }
    daemon.output(&["trim", "--before", "11", "--yes"], b"");
    assert_eq!(found_in(&data, 0..20).len(), 100, "the search finds too little");
    (dir, daemon, client)
}

/// Nobody can read them any more, but they lie in a file beside others that everybody can.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_trimmed_and_still_on_disk_goes_when_it_is_named() {
    let (dir, daemon, client) = half_trimmed().await;
    let data = dir.path().join("data");
    let said = daemon.output(&["erase", "1-10", "--reason", "r", "--yes", "--json"], b"");
    let said: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    assert_eq!((&said["events"], &said["trimmed"]), (&Value::Null, &"10".into()), "{said}");
    assert_eq!(found_in(&data, 0..10), Vec::<String>::new());
    assert_eq!(seqs_after(&client, "10").await, (11..=20).collect::<Vec<_>>());
    daemon.stop();
    expect_clean(&data);
}

/// Whoever's they were: of which topic they are nobody can read.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_trimmed_and_still_on_disk_goes_with_a_topic() {
    let (dir, daemon, client) = half_trimmed().await;
    let data = dir.path().join("data");
    let erase = ["erase", "--topic", "u.ann", "--reason", "r", "--yes", "--json"];
    let said: Value = serde_json::from_str(&daemon.output(&erase, b"")).unwrap();
    assert_eq!((&said["events"], &said["trimmed"]), (&"10".into(), &Value::Null), "{said}");
    assert_eq!(found_in(&data, 0..20), Vec::<String>::new());
    assert_eq!(seqs_after(&client, "10").await, (11..=21).collect::<Vec<_>>());
    daemon.stop();
    expect_clean(&data);
}

/// Enough of a topic that erasing takes a while.
fn fill(daemon: &Daemon, count: u64) {
    let mut lines = String::new();
    for at in 0..count {
        let topic = if at.is_multiple_of(3) { "keep" } else { "go" };
        lines.push_str(&format!("{{\"topic\":\"{topic}\",\"body\":\"{}\"}}\n", mark("body", at)));
    }
    daemon.output(&["upload", "--format", "jsonl"], lines.as_bytes());
}

/// That all of `go` is erased, once, and said once; and all of `keep` there.
async fn expect_erased(daemon: &Daemon, data: &Path, count: u64) {
    let client = Client::new(daemon.url()).unwrap();
    let begun = Instant::now();
    while let Some(progress) = within("log", client.log()).await.unwrap().erasing {
        assert!(begun.elapsed() < PATIENCE, "{progress:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let all = daemon.output(&["watch", "--from", "oldest", "--until-caught-up", "--json"], b"");
    let (mut kept, mut gone, mut notices) = (0, 0, Vec::new());
    for (at, line) in all.lines().enumerate() {
        let event: Value = serde_json::from_str(line).unwrap();
        assert_eq!(event["seq"].as_str().unwrap().parse(), Ok(at as u64 + 1));
        match (event["topic"].as_str().unwrap(), event["erased"].is_object()) {
            ("keep", false) => {
                assert_eq!(event["body"], mark("body", at as u64));
                kept += 1;
            }
            ("go", true) => gone += 1,
            ("go", false) if event["type"] == "tailmark.erased" => notices.push(event),
            other => panic!("{other:?}: {line}"),
        }
    }
    assert_eq!((kept + gone, gone), (count, count - count.div_ceil(3)));
    let named = |notice: &Value| {
        let body: Value = serde_json::from_str(notice["body"].as_str().unwrap()).unwrap();
        let runs = body["seqs"].as_array().unwrap().iter();
        runs.map(|run| (run[0].as_u64().unwrap(), run[1].as_u64().unwrap())).collect::<Vec<_>>()
    };
    let runs: Vec<_> = notices.iter().flat_map(named).collect();
    // In order, and none twice.
    assert!(runs.windows(2).all(|two| two[0].1 < two[1].0), "{runs:?}");
    assert_eq!((runs.first().unwrap().0, runs.last().unwrap().1 + 1 >= count), (2, true));
    let gone = (0..count).filter(|at| !at.is_multiple_of(3)).step_by(977);
    for at in gone {
        assert_eq!(found_in(data, at..at + 1), Vec::<String>::new());
    }
}

/// The daemon is killed in each phase, and finishes what it began when it is there again.
#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_killed_amid_it_goes_on() {
    let mut cut = 0;
    for phase in [Phase::Sealing, Phase::Rewriting, Phase::Wiping, Phase::Telling] {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let daemon = Daemon::start(&data);
        let count = 30_000;
        fill(&daemon, count);
        let client = Client::new(daemon.url()).unwrap();
        let mut erasing = within("erase", client.erase(of_topic("go"))).await.unwrap();
        let mut seen = Phase::Selecting;
        while seen < phase {
            seen = next(&mut erasing).await.unwrap().expect("a result").phase();
        }
        daemon.kill();
        // What it had sent before, the end included, may still be on its way.
        loop {
            match next(&mut erasing).await {
                Ok(Some(progress)) => seen = progress.phase(),
                Ok(None) => break assert_eq!(seen, Phase::Done),
                Err(error) => break assert!(error.may_have_applied(), "{phase:?}"),
            }
        }
        let order = data.join("erasing");
        if order.exists() {
            cut += 1;
            let told = inspect::verify(&data, |_, _| Ok(())).unwrap();
            assert!(told.notes.iter().any(|it| it.starts_with("the erasure ")), "{told:?}");
            let bytes = std::fs::read(&order).unwrap();
            logdir::flip(&order, 30);
            let told = inspect::verify(&data, |_, _| Ok(())).unwrap();
            assert!(told.damage.iter().any(|it| it.file == order), "{told:?}");
            std::fs::write(&order, bytes).unwrap();
        }
        let daemon = Daemon::start(&data);
        expect_erased(&daemon, &data, count).await;
        daemon.stop();
        expect_clean(&data);
    }
    assert!(cut > 0, "each was through before it was killed");
}

/// Who is interrupted is told that it goes on, and it does.
#[tokio::test(flavor = "multi_thread")]
async fn it_goes_on_without_the_command() {
    // A fast erasure is through before somebody has looked.
    for count in [60_000, 180_000, 540_000, 540_000, 540_000] {
        if goes_on_without_the_command(count).await {
            return;
        }
    }
    panic!("each was through before it was interrupted");
}

/// Answers false where it was through before that could be seen, or the command did not know yet that it had begun.
async fn goes_on_without_the_command(count: u64) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let daemon = Daemon::start(&data);
    fill(&daemon, count);
    let mut command = program(&["erase", "--topic", "go", "--reason", "r", "--yes", "--addr"]);
    command.arg(daemon.url()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let client = Client::new(daemon.url()).unwrap();
    let begun = Instant::now();
    while within("log", client.log()).await.unwrap().erasing.is_none() {
        assert!(begun.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let status = daemon.output(&["status"], b"");
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let is_early = stderr.contains("shows whether it had begun");
    if output.status.success() || is_early || !status.contains("erasing") {
        return false;
    }
    assert_eq!(output.status.code(), Some(130), "{stderr}");
    assert!(
        stderr.contains("goes on in the daemon") && stderr.contains("tailmark status"),
        "{stderr}"
    );
    expect_erased(&daemon, &data, count).await;
    daemon.stop();
    expect_clean(&data);
    true
}
