//! The newest slot and the note of the tip, damaged together: each of them would tell what is lost with the other.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use tailmark::inspect;
use tailmark_log::storage::Store;
use tailmark_log::storage::salvage::{Salvaged, salvage};

use super::salvage::Layout;
use super::{Damage, Log, PAGE, logs, options, quiet, write};
use crate::crash::{self, workload};

/// What becomes of a file of the journal.
fn hurts(file: usize, len: usize) -> Vec<Damage> {
    let mut all = vec![
        Damage::Remove { file },
        Damage::Cut { file, len: 0 },
        Damage::Zero { file, at: 0, len },
        Damage::Flip { file, at: len.min(PAGE) / 2, bits: 4 },
    ];
    if len > PAGE {
        // Both copies of its head; behind that; all but the head.
        all.push(Damage::Zero { file, at: 0, len: 2 * PAGE });
        all.push(Damage::Zero { file, at: 2 * PAGE, len: PAGE });
        all.push(Damage::Zero { file, at: 2 * PAGE, len });
        all.push(Damage::Cut { file, len: 2 * PAGE });
    }
    all
}

/// Whether a salvage tells of all that is lost: within its ranges, or behind its end.
fn is_told(done: &Salvaged, lost: &BTreeSet<u64>) -> bool {
    lost.iter().all(|seq| {
        let has_it =
            |it: &tailmark_log::storage::salvage::Lost| (it.from.get()..=it.to.get()).contains(seq);
        let is_behind = done.unknown_end.as_ref().is_some_and(|end| *seq >= end.from.get());
        is_behind || done.lost.iter().any(has_it)
    })
}

/// What a look at it says.
fn is_noted(dir: &Path) -> bool {
    inspect::verify(dir, |_, _| Ok(())).map_or(true, |report| {
        let is_of_tip = |note: &String| note.contains("journal/tip") && note.contains("is missing");
        !report.is_clean() || report.notes.iter().any(is_of_tip)
    })
}

pub fn damaged_together() {
    quiet();
    let scratch = crash::scratch();
    let mut tally = BTreeMap::<(&str, &str), u32>::new();
    for log in &logs(scratch.path()) {
        let intact = scratch.path().join(format!("{}-intact", log.name));
        write(log, &[], &intact);
        assert!(!is_noted(&intact), "the null control: {}", log.name);
        let layout = Layout::of(log, &copy(log, scratch.path()));
        let of = |name: &Path| log.files.iter().position(|(path, _)| path == name);
        let slot = of(&log.last_page.0).expect("a slot");
        let tip = of(Path::new("journal/tip")).expect("a tip");
        let len = |file: usize| log.files[file].1.len();
        for one in hurts(slot, len(slot)) {
            for other in hurts(tip, len(tip)) {
                let outcome = try_both(log, &layout, &[one.clone(), other.clone()], scratch.path());
                let outcome = outcome.unwrap_or_else(|what| {
                    panic!("{}: {} and {}: {what}", log.name, one.shown(log), other.shown(log))
                });
                *tally.entry((log.name, outcome)).or_default() += 1;
            }
        }
    }
    tally.iter().for_each(|((log, outcome), count)| println!("  {log}: {outcome}: {count}"));
    let has = |outcome: &str| tally.keys().any(|(_, it)| *it == outcome);
    assert!(has("refused") && has("nothing is lost"), "{tally:?}");
}

fn copy(log: &Log, scratch: &Path) -> std::path::PathBuf {
    let dir = scratch.join(format!("{}-layout", log.name));
    write(log, &[], &dir);
    dir
}

fn try_both(
    log: &Log,
    layout: &Layout,
    damages: &[Damage],
    scratch: &Path,
) -> Result<&'static str, String> {
    let temporary = tempfile::Builder::new().prefix("ends-").tempdir_in(scratch);
    let temporary = temporary.expect("a directory");
    let (dir, to) = (temporary.path().join("hurt"), temporary.path().join("new"));
    write(log, damages, &dir);
    let lost = layout.lost(log, &dir);
    let done = salvage(&dir, &to, options(), &mut |_| Ok(()));
    let done = done.map_err(|error| format!("not salvaged: {error:?}"))?;
    if !is_told(&done, &lost) {
        return Err(format!("{} events are lost in silence: {done:?}", lost.len()));
    }
    // The judge misses what is not told.
    let more = lost.iter().copied().chain([log.oldest]).collect();
    if !lost.contains(&log.oldest) && is_told(&done, &more) {
        return Err("null control: a loss that is none was told".to_owned());
    }
    let is_noted = is_noted(&dir);
    if !lost.is_empty() && !is_noted {
        return Err(format!("nothing is noted, and {} events are lost", lost.len()));
    }
    match workload::open_with(&dir, options()) {
        Err(_) if lost.is_empty() => Ok("refused, and nothing is lost"),
        Err(_) => Ok("refused"),
        Ok((engine, _)) => {
            let head = engine.bounds().head.get();
            match workload::check_events(&*engine, |_| 0) {
                Ok(_) if head == log.head && lost.is_empty() => Ok("nothing is lost"),
                Ok(_) if head == log.head => Err("events are there that are lost".to_owned()),
                // Nothing is left that could tell the daemon; whoever has seen one of them is told by its cursor.
                Ok(_) => Ok("shorter, which a look and a salvage tell"),
                Err(wrong) if wrong.is_reported_damage() => Ok("found by reading"),
                Err(wrong) => Err(format!("{wrong:?}")),
            }
        }
    }
}
