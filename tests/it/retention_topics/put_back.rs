//! A trim that was a mistake, in a log of which rules take events out: what it trimmed comes back from older backups, as
//! far as they have it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::carried_out::{FILL, Kept, number, run, total};
use crate::support::daemon::program;

const RULES: &str = "[[retention.topics]]\npattern = \"a\"\nmax_events = 5\n\
    [[retention.topics]]\npattern = \"k\"\nkeep = \"latest-per-key\"\n";

/// What a watch of everything is told: bodies by seq, none of an erased one; and seqs that are gone.
fn told(kept: &Kept) -> (BTreeMap<u64, Option<String>>, BTreeSet<u64>) {
    let (mut there, mut gone) = (BTreeMap::new(), BTreeSet::new());
    let mut next = None;
    for line in kept.watch(&["--markers"]) {
        let (first, last) = match line.pointer("/marker/gap") {
            Some(gap) => (number(&gap["from_seq"]), number(&gap["to_seq"])),
            None if line.get("marker").is_some() => continue,
            None => (number(&line["seq"]), number(&line["seq"])),
        };
        assert_eq!(first, next.unwrap_or(first));
        next = Some(last + 1);
        match line.get("marker") {
            Some(_) => gone.extend(first..=last),
            None => {
                let body = (!line["erased"].is_object())
                    .then(|| line["body"].as_str().unwrap_or_default().to_owned());
                there.insert(first, body);
            }
        }
    }
    (there, gone)
}

#[test]
fn a_wrong_trim_is_undone_though_rules_and_an_erasure_went_on() {
    let mut kept = Kept::start("");
    let topics = |at: usize| {
        let topic = if at < FILL { "a" } else { ["a", "k", "b"][at % 3] };
        (topic.to_owned(), format!("k{}", at % 50))
    };
    kept.store(3 * FILL, topics);
    let (data, place) = (kept.beside("data"), kept.beside("place"));
    kept.settings(RULES);
    kept.restart();
    kept.until("removal", |told| {
        total(told, "expired") > FILL as u64 && total(told, "compacted") > 0
    });
    kept.settled_whole();
    kept.stop();
    run(&["backup", &place, "--data-dir", &data]);
    // Of exactly what is backed up: a pass may come on a slow machine when none was thought to.
    let (before, _) = kept.told_of(&data, told);
    kept.restart();
    // The mistake, in the midst of a segment that has runs; and then what writes that segment anew.
    let oldest = 2 * FILL as u64 + 501;
    let trim = ["trim", "--before", &oldest.to_string(), "--yes", "--json"];
    let trimmed: Value = serde_json::from_str(&kept.daemon().output(&trim, b"")).unwrap();
    // What rules had taken out is not counted again.
    let most = before.range(..oldest).count() as u64;
    assert!((1..=most).contains(&number(&trimmed["removed"])), "{trimmed} of {most}");
    kept.store(FILL, |at| ("a".to_owned(), format!("k{at}")));
    let erased = *before.range(oldest + 3..).next().unwrap().0;
    let seq = erased.to_string();
    kept.daemon().output(&["erase", &seq, "--reason", "r", "--yes"], b"");
    kept.settled();
    let (_, gone) = told(&kept);
    let seq = gone.range(oldest..).next().unwrap().to_string();
    let look = kept.daemon().output(&["erase", &seq, "--dry-run", "--json"], b"");
    let look: Value = serde_json::from_str(&look).unwrap();
    assert_eq!((number(&look["removed"]), number(&look["trimmed"])), (1, 0), "{look}");
    kept.stop();
    run(&["backup", &place, "--data-dir", &data]);
    let (after, _) = kept.told_of(&data, told);
    let in_a_gap = (2..oldest).rev().find(|seq| !before.contains_key(seq)).unwrap();
    let events = [1, in_a_gap, *before.range(..oldest).next_back().unwrap().0, oldest - 1];
    let froms = events.iter().map(u64::to_string).chain(["oldest".to_owned()]);
    for (at, from) in froms.enumerate() {
        let to = kept.beside(&format!("restored-{at}"));
        let said = run(&["restore", &place, "--data-dir", &to, "--from-seq", &from, "--json"]);
        let said: Value = serde_json::from_str(&said).unwrap();
        let first = from.parse().unwrap_or(1);
        assert_eq!(number(&said["oldest_seq"]), first, "{said}");
        let (there, gone) = kept.told_of(&to, told);
        let all: BTreeSet<u64> = there.keys().chain(&gone).copied().collect();
        assert!(all.iter().copied().eq(first..=*after.keys().next_back().unwrap()), "{from}");
        // What the trim took is back, and what came after it is as it was.
        let mut wanted = after.clone();
        wanted.extend(before.range(first..oldest).map(|(seq, body)| (*seq, body.clone())));
        let lost: Vec<_> =
            wanted.iter().filter(|(seq, body)| there.get(seq) != Some(*body)).collect();
        assert!(lost.is_empty(), "{from}: {} lost, {:?}", lost.len(), lost.first());
        run(&["log", "verify", "--data-dir", &to]);
    }
}

/// What rules took out after a point is in the backup that was taken first after it. That one is named, and not taken unasked.
#[test]
fn the_backup_that_has_more_is_named() {
    let mut kept = Kept::start("");
    kept.store(2 * FILL, |at| ("k".to_owned(), format!("k{}", at % 50)));
    let (data, place) = (kept.beside("data"), kept.beside("place"));
    let first = run(&["backup", &place, "--data-dir", &data]);
    kept.settings("[[retention.topics]]\npattern = \"k\"\nkeep = \"latest-per-key\"\n");
    kept.restart();
    kept.until("removal", |told| total(told, "compacted") > FILL as u64);
    kept.settled();
    kept.stop();
    run(&["backup", &place, "--data-dir", &data]);
    let point = (2 * FILL - 100).to_string();
    let restore = |more: &[&str], to: &str| {
        let to = kept.beside(to);
        let args = ["restore", &place, "--data-dir", &to, "--to-seq", &point, "--json"];
        let done = program(&[&args, more].concat()).output().unwrap();
        assert!(done.status.success(), "{done:?}");
        let told: Value = serde_json::from_slice(&done.stdout).unwrap();
        (number(&told["taken_out"]), String::from_utf8(done.stderr).unwrap())
    };
    let (taken_out, said) = restore(&[], "newest");
    let named = format!("`--backup {}` was taken nearer to that point", first.trim());
    assert!(taken_out > FILL as u64 && said.contains(&named), "{taken_out} {said}");
    let (taken_out, said) = restore(&["--backup", first.trim()], "first");
    assert!(taken_out == 0 && !said.contains("note:"), "{taken_out} {said}");
}
