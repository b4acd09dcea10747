//! Rules carried out by a daemon: what goes, what stays, what everybody hears of it, and what figures say; over a
//! kill, a reload, a backup.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::time::Instant;

use serde_json::Value;
use tailmark_wire::feed_v1 as pb;

use crate::support::daemon::Daemon;
use crate::support::server::PATIENCE;

/// Events that fill the smallest slot.
pub(super) const FILL: usize = 3_000;

/// Passes come sooner than that, unless something is slow; then a test looks at less, and is right still.
const SETTLED: std::time::Duration = std::time::Duration::from_millis(1_200);

const SETTINGS: &str = "[retention]\ninterval = \"20ms\"\n[storage]\nseal_after = \"1s\"\n";

pub(super) struct Kept {
    dir: tempfile::TempDir,
    daemon: Option<Daemon>,
    /// Topic, key and body of each event, in order.
    stored: Vec<(String, String, String)>,
}

impl Kept {
    pub(super) fn start(rules: &str) -> Kept {
        let dir = tempfile::tempdir().unwrap();
        let mut kept = Kept { dir, daemon: None, stored: Vec::new() };
        kept.settings(rules);
        kept.restart();
        kept
    }

    pub(super) fn settings(&self, rules: &str) {
        std::fs::write(self.file(), format!("{SETTINGS}{rules}")).unwrap();
    }

    fn file(&self) -> std::path::PathBuf {
        self.dir.path().join("config.toml")
    }

    fn data(&self) -> std::path::PathBuf {
        self.dir.path().join("data")
    }

    pub(super) fn restart(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            daemon.kill();
        }
        let shell =
            format!("export TAILMARK_CONFIG={}; exec setsid \"$0\" \"$@\"", self.file().display());
        self.daemon = Some(Daemon::start_with(&self.data(), &shell));
    }

    pub(super) fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().unwrap()
    }

    fn hang_up(&self) {
        let pid = rustix::process::Pid::from_raw(self.daemon().id() as i32).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    }

    /// Stores `count` events, each of the topic and with the key that its number has.
    pub(super) fn store(&mut self, count: usize, of: impl Fn(usize) -> (String, String)) {
        let mut lines = String::new();
        for at in 0..count {
            let (topic, key) = of(at);
            let number = self.stored.len() as u128 + 1;
            // Nothing that gets much smaller.
            let noise = number.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
            let body = format!("{number}-{noise:x}{:x}", noise.wrapping_mul(noise));
            let event = serde_json::json!({"topic": topic, "key": key, "body": body});
            lines.push_str(&format!("{event}\n"));
            self.stored.push((topic, key, body));
        }
        self.daemon().output(&["upload", "--format", "jsonl"], lines.as_bytes());
    }

    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.daemon().output(args, b"")).unwrap()
    }

    pub(super) fn watch(&self, args: &[&str]) -> Vec<Value> {
        let all = [&["watch", "--from", "oldest", "--until-caught-up", "--json"], args].concat();
        let lines = self.daemon().output(&all, b"");
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Waits until the figures of retention say this.
    pub(super) fn until(&self, what: &str, mut is_so: impl FnMut(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let told = self.json(&["retention", "show", "--json"]);
            if is_so(&told) {
                return told;
            }
            assert!(begun.elapsed() < PATIENCE, "{what}: {told}");
            std::thread::sleep(std::time::Duration::from_millis(30));
        }
    }

    /// What is told when nothing more is removed.
    pub(super) fn settled(&self) -> Value {
        let mut last = (0, Instant::now());
        self.until("an end", move |told| {
            let removed = total(told, "expired") + total(told, "compacted");
            if removed != last.0 {
                last = (removed, Instant::now());
            }
            last.1.elapsed() > SETTLED
        })
    }

    /// What a watch of everything is told, and the figures, where no pass came in between.
    pub(super) fn settled_whole(&self) -> (Value, Vec<u64>, Vec<(u64, u64, String)>) {
        loop {
            let before = self.settled();
            let (seqs, gaps) = self.whole();
            let after = self.json(&["retention", "show", "--json"]);
            if ["expired", "compacted"].iter().all(|it| total(&before, it) == total(&after, it)) {
                return (after, seqs, gaps);
            }
        }
    }

    /// All that a watch of everything is told, checked: seqs are contiguous, what comes is what was stored there.
    fn whole(&self) -> (Vec<u64>, Vec<(u64, u64, String)>) {
        let (mut seqs, mut gaps, mut next) = (Vec::new(), Vec::new(), 1);
        for line in self.watch(&["--markers"]) {
            if let Some(gap) = line.pointer("/marker/gap") {
                let (from, to) = (number(&gap["from_seq"]), number(&gap["to_seq"]));
                assert_eq!(from, next);
                next = to + 1;
                gaps.push((from, to, gap["reason"].as_str().unwrap().to_owned()));
            } else if line.get("marker").is_none() {
                let seq = number(&line["seq"]);
                assert_eq!(seq, next);
                let (topic, key, body) = &self.stored[seq as usize - 1];
                assert_eq!(line["topic"], topic.as_str());
                assert_eq!(line["key"].as_str().unwrap_or_default(), key);
                assert_eq!(line["body"], body.as_str());
                next = seq + 1;
                seqs.push(seq);
            }
        }
        assert_eq!(next, self.stored.len() as u64 + 1);
        (seqs, gaps)
    }

    /// The newest seq of each topic and key that has one.
    fn latest(&self) -> BTreeMap<(String, String), u64> {
        let numbered = (1..).zip(&self.stored);
        numbered.map(|(seq, (topic, key, _))| ((topic.clone(), key.clone()), seq)).collect()
    }
}

pub(super) fn number(value: &Value) -> u64 {
    value.as_str().map_or(0, |text| text.parse().unwrap())
}

pub(super) fn total(told: &Value, name: &str) -> u64 {
    number(&told["state"]["totals"][name])
}

/// What is dead and what a dry run finds: nothing of it is removed by looking.
fn dead(told: &Value) -> u64 {
    let rules = told["dry_run"]["rules"].as_array().unwrap();
    rules.iter().map(|it| number(&it["expired"]) + number(&it["compacted"])).sum()
}

#[test]
fn the_latest_of_each_key_stays_and_all_hear_of_the_rest_as_they_should() {
    let mut kept = Kept::start("");
    let keys = |at: usize| match at % 4 {
        0 => ("other".to_owned(), "k".to_owned()),
        _ => (format!("users.{}", at % 3), format!("key-{}", at % 20)),
    };
    kept.store(4 * FILL, keys);
    // Cursors from when all was there.
    let cursors: Vec<String> =
        kept.watch(&[]).iter().map(|event| event["cursor"].as_str().unwrap().to_owned()).collect();
    assert_eq!(cursors.len(), 4 * FILL);
    // First a look, from a file that is not in force.
    let rules = "[[retention.topics]]\npattern = \"users.>\"\nkeep = \"latest-per-key\"\n";
    let new = kept.dir.path().join("new.toml");
    std::fs::write(&new, rules).unwrap();
    let looked =
        kept.json(&["retention", "show", "--json", "--dry-run", "--config", new.to_str().unwrap()]);
    let users = kept.stored.iter().filter(|it| it.0 != "other").count() as u64;
    let living = kept.latest().keys().filter(|(topic, _)| topic != "other").count() as u64;
    assert_eq!(
        (dead(&looked), number(&looked["dry_run"]["rules"][0]["events"])),
        (users - living, users)
    );
    assert!(
        kept.json(&["retention", "show", "--json"])
            .get("rules")
            .is_none_or(|it| it == &serde_json::json!([]))
    );
    assert_eq!(kept.whole().0.len(), 4 * FILL, "a look removes nothing");

    kept.settings(rules);
    kept.hang_up();
    // What is sealed and dead goes, but for what is too little of a segment.
    let told = kept.until("compaction", |told| total(told, "compacted") > users / 2);
    assert!(total(&told, "segments") > 0 && total(&told, "expired") == 0, "{told}");
    kept.until("most of it", |told| total(told, "compacted") > users * 8 / 10);
    // So that what is looked at stays as it is.
    kept.settings("");
    kept.hang_up();
    kept.until("no rules", |told| {
        let has_none = told.get("rules").is_none_or(|it| it == &serde_json::json!([]));
        has_none && told["state"].get("running").is_none()
    });
    let (told, seqs, gaps) = kept.settled_whole();
    assert!(gaps.iter().all(|(.., reason)| reason == "COMPACTED"), "{gaps:?}");
    assert_eq!(4 * FILL as u64 - seqs.len() as u64, total(&told, "compacted"));
    // The newest of each key is there, and all that has no rule.
    let left: HashSet<u64> = seqs.iter().copied().collect();
    assert!(kept.latest().values().all(|seq| left.contains(seq)));
    let others = (1..).zip(&kept.stored).filter(|(_, it)| it.0 == "other");
    assert!(others.clone().all(|(seq, _)| left.contains(&seq)));
    // A watch with a pattern, and one that wants no such gaps, get what is left and no more.
    let markers = kept.watch(&["--markers", "other"]);
    assert!(markers.iter().all(|line| line.pointer("/marker/gap").is_none()));
    assert_eq!(kept.watch(&["other"]).len(), others.count());
    let compacted = kept.watch(&["--markers", "--compacted"]);
    assert!(compacted.iter().all(|line| line.pointer("/marker/gap").is_none()));
    let events = compacted.iter().filter(|line| line.get("marker").is_none());
    assert_eq!(events.map(|line| number(&line["seq"])).collect::<Vec<_>>(), seqs);
    // Each cursor that was ever given is good, and goes on with what is left.
    for at in [0, 1, 7, FILL, 2 * FILL + 1, 4 * FILL - 1] {
        let after = cursors[at].as_str();
        let args =
            ["watch", "--after", after, "--until-caught-up", "--columns", "seq", "--limit", "1"];
        let first = kept.daemon().output(&args, b"");
        let expected = seqs.iter().find(|seq| **seq > at as u64 + 1).map(|seq| seq.to_string());
        assert_eq!(first.trim(), expected.unwrap_or_default(), "after {}", at + 1);
    }
    // What is gone is told as such.
    let (gone, _, _) = gaps[0];
    let output = kept.daemon().run(&["get", &gone.to_string()], b"");
    assert_eq!(output.status.code(), Some(3));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("EVENT_REMOVED"), "{said}");
    // And after a kill all is as it was.
    kept.restart();
    assert_eq!(kept.whole().0.len() as u64, seqs.len() as u64);
}

#[test]
fn the_first_rule_that_matches_counts_and_others_are_shielded() {
    let rules = "[[retention.topics]]\npattern = \"a.keep\"\n[[retention.topics]]\npattern = \"a.*\"\nmax_events = 10\n";
    let mut kept = Kept::start(rules);
    let topics = |at: usize| {
        let topic = ["a.keep", "a.x", "b", "a.y"][at % 4];
        (topic.to_owned(), String::new())
    };
    kept.store(3 * FILL, topics);
    let wanted = 3 * FILL as u64 / 2;
    kept.until("expiry", |told| total(told, "expired") >= wanted * 8 / 10);
    let (told, seqs, gaps) = kept.settled_whole();
    assert_eq!(total(&told, "compacted"), 0);
    assert!(gaps.iter().all(|(.., reason)| reason == "EXPIRED"), "{gaps:?}");
    let of = |topic: &str| {
        let is = |seq: &&u64| kept.stored[**seq as usize - 1].0 == topic;
        seqs.iter().filter(is).copied().collect::<Vec<_>>()
    };
    assert_eq!((of("a.keep").len(), of("b").len()), (3 * FILL / 4, 3 * FILL / 4));
    for topic in ["a.x", "a.y"] {
        let all = (1..).zip(&kept.stored).filter(|(_, it)| it.0 == topic).map(|(seq, _)| seq);
        let newest: Vec<u64> = all.collect::<Vec<_>>().into_iter().rev().take(10).collect();
        let left = of(topic);
        assert!(newest.iter().all(|seq| left.contains(seq)), "{topic}");
    }
    // Figures, where others look for them.
    let status = kept.json(&["status", "--json"]);
    assert!(number(&status["retention"]["totals"]["expired"]) >= wanted * 8 / 10, "{status}");
    assert!(status["retention"]["last"].get("rules").is_none());
    let text = kept.daemon().output(&["status"], b"");
    assert!(text.contains("retention    ") && text.contains(" removed, "), "{text}");
}

#[test]
fn what_is_too_old_goes_and_a_topic_may_become_empty() {
    let rules = "[[retention.topics]]\npattern = \"short\"\nmax_age = \"2s\"\n";
    let mut kept = Kept::start(rules);
    kept.store(2 * FILL, |_| ("short".to_owned(), String::new()));
    kept.store(FILL, |_| ("long".to_owned(), String::new()));
    kept.until("age", |told| total(told, "expired") == 2 * FILL as u64);
    let (seqs, gaps) = kept.whole();
    assert_eq!(seqs.len(), FILL);
    assert_eq!(gaps, [(1, 2 * FILL as u64, "EXPIRED".to_owned())]);
    // A topic without an event is none.
    let topics = kept.daemon().output(&["topics", "--json"], b"");
    assert!(topics.contains("long") && !topics.contains("short"), "{topics}");
    let event = pb::Event { topic: "short".into(), ..pb::Event::default() };
    let expect = tailmark_client::Expect { topic: "short".into(), seq: tailmark_record::Seq::ZERO };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let published = runtime.block_on(async {
        let client = tailmark_client::Client::new(kept.daemon().url()).unwrap();
        client.publish(event, Some(expect)).await.unwrap()
    });
    assert_eq!(published.seq, 3 * FILL as u64 + 1);
}

/// One of which rules took out much: of `a` all but five, of `k` all but the latest of fifty keys. Stopped.
fn compacted() -> (Kept, Vec<u64>, Vec<(u64, u64, String)>) {
    let rules = "[[retention.topics]]\npattern = \"a\"\nmax_events = 5\n\
        [[retention.topics]]\npattern = \"k\"\nkeep = \"latest-per-key\"\n";
    let mut kept = Kept::start(rules);
    let topics = |at: usize| {
        let topic = if at < FILL { "a" } else { ["a", "k", "b"][at % 3] };
        (topic.to_owned(), format!("k{}", at % 50))
    };
    kept.store(3 * FILL, topics);
    kept.until("removal", |told| {
        total(told, "expired") > FILL as u64 && total(told, "compacted") > 0
    });
    let (_, seqs, gaps) = kept.settled_whole();
    assert!(gaps.len() > 100, "{} gaps", gaps.len());
    drop(kept.daemon.take());
    (kept, seqs, gaps)
}

pub(super) fn run(args: &[&str]) -> String {
    let output = crate::support::daemon::program(args).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{args:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

impl Kept {
    /// What a daemon tells of another directory.
    fn whole_of(&mut self, data: &str) -> (Vec<u64>, Vec<(u64, u64, String)>) {
        self.told_of(data, Kept::whole)
    }

    pub(super) fn told_of<T>(&mut self, data: &str, tell: impl FnOnce(&Kept) -> T) -> T {
        self.daemon = Some(Daemon::start_with(Path::new(data), "exec \"$0\" \"$@\""));
        let told = tell(self);
        self.stop();
        told
    }

    pub(super) fn stop(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            daemon.stop();
        }
    }

    pub(super) fn beside(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }
}

/// A backup has what is left, and restores it with all that is told of the rest.
#[test]
fn a_backup_keeps_what_is_told_of_the_rest() {
    let (mut kept, seqs, gaps) = compacted();
    // By the directory, and over the network.
    let (data, place, fetched) =
        (kept.beside("data"), kept.beside("place"), kept.beside("fetched"));
    run(&["backup", &place, "--data-dir", &data]);
    kept.daemon = Some(Daemon::start_with(Path::new(&data), "exec \"$0\" \"$@\""));
    run(&["backup", &fetched, "--addr", kept.daemon().url()]);
    drop(kept.daemon.take());
    for (at, from) in [place, fetched].iter().enumerate() {
        run(&["backup", "verify", from]);
        let to = kept.beside(&format!("restored-{at}"));
        run(&["restore", from, "--data-dir", &to]);
        assert_eq!(kept.whole_of(&to), (seqs.clone(), gaps.clone()));
        assert!(run(&["log", "diff", &data, &to]).contains("equal"));
        // Up to an event in the midst of it.
        let upto = seqs[seqs.len() / 2];
        let to = kept.beside(&format!("part-{at}"));
        run(&["restore", from, "--data-dir", &to, "--to-seq", &upto.to_string()]);
        let stored = kept.stored.clone();
        kept.stored.truncate(upto as usize);
        let (part, _) = kept.whole_of(&to);
        assert_eq!(part, seqs[..=seqs.len() / 2]);
        // In the midst of what is gone the log ends before that.
        let (first, last, _) = gaps.iter().rfind(|(first, last, _)| first < last).unwrap();
        let to = kept.beside(&format!("before-{at}"));
        run(&["restore", from, "--data-dir", &to, "--to-seq", &(last - 1).to_string()]);
        kept.stored.clone_from(&stored);
        kept.stored.truncate(*first as usize - 1);
        let (part, _) = kept.whole_of(&to);
        assert_eq!(part.last(), seqs.iter().rfind(|seq| *seq < first));
        // To a time, too.
        let to = kept.beside(&format!("time-{at}"));
        run(&["restore", from, "--data-dir", &to, "--to-time", "2100-01-01"]);
        kept.stored = stored;
        assert_eq!(kept.whole_of(&to), (seqs.clone(), gaps.clone()));
    }
}

#[test]
fn a_salvage_keeps_what_is_told_of_the_rest() {
    let (mut kept, seqs, gaps) = compacted();
    let (data, saved) = (kept.beside("data"), kept.beside("saved"));
    run(&["log", "verify", "--data-dir", &data]);
    run(&["log", "salvage", "--from", &data, "--to", &saved]);
    assert_eq!(kept.whole_of(&saved), (seqs, gaps));
    let told = run(&["log", "info", "--data-dir", &saved, "--json"]);
    assert!(!told.contains("DAMAGED"), "{told}");
}

#[test]
fn an_export_has_the_rest_in_its_place_and_makes_the_same_log() {
    let (mut kept, seqs, gaps) = compacted();
    let data = kept.beside("data");
    for format in ["jsonl", "protobuf"] {
        let (file, copy) = (kept.beside(format), kept.beside(&format!("{format}-copy")));
        let told = run(&[
            "log",
            "export",
            "--data-dir",
            &data,
            "--format",
            format,
            "--output",
            &file,
            "--json",
        ]);
        let told: Value = serde_json::from_str(&told).unwrap();
        let gone = (3 * FILL - seqs.len()) as u64;
        assert_eq!((number(&told["events"]), number(&told["removed"])), (seqs.len() as u64, gone));
        let told = run(&["log", "import", "--exact", &file, "--data-dir", &copy, "--json"]);
        assert_eq!(number(&serde_json::from_str::<Value>(&told).unwrap()["removed"]), gone);
        assert!(run(&["log", "verify", "--data-dir", &copy]).contains("clean"));
        assert_eq!(kept.whole_of(&copy), (seqs.clone(), gaps.clone()));
        assert!(run(&["log", "diff", &data, &copy]).contains("equal"));
        // Appended to another log, what is left is all there is.
        let other = kept.beside(&format!("{format}-other"));
        let daemon = Daemon::start_with(Path::new(&other), "exec \"$0\" \"$@\"");
        daemon.output(&["upload", "--format", "export", &file], b"");
        let args = ["watch", "--from", "oldest", "--until-caught-up", "--columns", "body"];
        let bodies = daemon.output(&args, b"");
        let expected: Vec<_> = seqs.iter().map(|seq| &*kept.stored[*seq as usize - 1].2).collect();
        assert_eq!(bodies.lines().collect::<Vec<_>>(), expected);
    }
    // One that is altered makes no log: a range that ends early, a reason, a chain.
    let text = std::fs::read_to_string(kept.beside("jsonl")).unwrap();
    for (at, (what, by)) in [
        ("\"reason\":\"EXPIRED\"", "\"reason\":\"AHEAD\""),
        ("\"last_seq\":\"3", "\"last_seq\":\"2"),
    ]
    .iter()
    .enumerate()
    {
        let (head, rest) = text.split_once('\n').unwrap();
        let altered = format!("{head}\n{}", rest.replacen(what, by, 1));
        assert_ne!(altered, text);
        let (file, copy) =
            (kept.beside(&format!("altered-{at}")), kept.beside(&format!("no-{at}")));
        std::fs::write(&file, altered).unwrap();
        let output = crate::support::daemon::program(&[
            "log",
            "import",
            "--exact",
            &file,
            "--data-dir",
            &copy,
        ])
        .output()
        .unwrap();
        assert!(
            matches!(output.status.code(), Some(2 | 4)),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    // In the middle of a range nobody knows the chain.
    let (first, last, _) = gaps.iter().find(|(first, last, _)| first < last).unwrap();
    for (flag, seq) in [("--to", first), ("--from", last)] {
        let args = ["log", "export", "--data-dir", &data, flag, &seq.to_string()];
        let output = crate::support::daemon::program(&args).output().unwrap();
        assert_eq!(output.status.code(), Some(3), "{flag}");
    }
}

#[test]
fn offline_tools_tell_what_is_left_and_what_is_gone() {
    let (mut kept, seqs, gaps) = compacted();
    let data = kept.beside("data");
    let output =
        crate::support::daemon::program(&["log", "dump", "--data-dir", &data]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    let dumped: Vec<Value> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(dumped.iter().map(|it| number(&it["seq"])).collect::<Vec<_>>(), seqs);
    assert!(said.lines().filter(|line| line.starts_with("gone: ")).count() >= gaps.len(), "{said}");
    let of_b = run(&["log", "dump", "--data-dir", &data, "b"]);
    assert_eq!(of_b.lines().count(), dumped.iter().filter(|it| it["topic"] == "b").count());
    let info: Value =
        serde_json::from_str(&run(&["log", "info", "--data-dir", &data, "--json"])).unwrap();
    let of_segments =
        info["segments"].as_array().unwrap().iter().map(|it| number(&it["removed_events"]));
    let ranges = info["removed"].as_array().cloned().unwrap_or_default();
    let of_ranges = ranges.iter().map(|it| number(&it["last_seq"]) + 1 - number(&it["first_seq"]));
    assert_eq!(of_segments.sum::<u64>() + of_ranges.sum::<u64>(), (3 * FILL - seqs.len()) as u64);
    let (gone, _, why) = &gaps[0];
    let told = run(&["log", "explain", "--data-dir", &data, &gone.to_string()]);
    let word = if why == "EXPIRED" { "have expired" } else { "compacted away" };
    assert!(told.contains("have expired") || told.contains(word), "{told}");
    counted(&data, seqs.len());
    // Where the oldest segment is trimmed in part: what was taken out before that is not counted twice.
    let oldest = gaps[gaps.len() / 2].1 + 1;
    let trim = ["trim", "--yes", "--before", &oldest.to_string()];
    kept.told_of(&data, |kept| kept.daemon().output(&trim, b""));
    let left = run(&["log", "dump", "--data-dir", &data]).lines().count();
    assert!(left < seqs.len());
    counted(&data, left);
}

/// That offline tools count the events that are there.
fn counted(data: &str, events: usize) {
    let heading = run(&["log", "info", "--data-dir", data]);
    assert!(heading.contains(&format!("events       {events}\n")), "{events}: {heading}");
    let verified = run(&["log", "verify", "--data-dir", data, "--json"]);
    let last: Value = serde_json::from_str(verified.lines().last().unwrap()).unwrap();
    assert_eq!(number(&last["result"]["events"]), events as u64, "{last}");
}
