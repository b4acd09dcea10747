//! Power loss: what a recorded run leaves on disk when it ends at any point, opened thousands of
//! times. `CRASH_IMAGES=100000` for more of them, `CRASH_SEED` for the same again.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    unreachable_pub,
    reason = "a harness ends where something is not as it must be, and counts small numbers"
)]

#[path = "../crash/mod.rs"]
mod crash;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use crash::model::{Promise, Recording, Without};
use crash::strace::{self, Step};
use crash::workload::{self, Wrong};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tailmark_log::storage::Store;
use tailmark_log::storage::disk::Disk;
use tailmark_log::storage::journal::Tail;
use tailmark_log::storage::local;

/// History of what is appended to an image, told apart from the recorded one.
const AFTER: u64 = 77;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if args.get(1).is_some_and(|arg| arg == "child") {
        let lives = args[3].parse().expect("lives");
        let bytes = args[4].parse().expect("bytes");
        workload::script(Path::new(&args[2]), lives, bytes, 0).expect("the script");
        return;
    }
    crash::run(&[
        ("the_trace_is_read_right", strace::self_test),
        ("no_power_loss_loses_what_was_acked", power_loss),
    ]);
}

fn power_loss() {
    if !strace::is_there() {
        return;
    }
    let seed = crash::seed();
    let images = crash::env_number("CRASH_IMAGES", 1_000);
    let scratch = crash::scratch();
    let root = scratch.path().join("recorded");
    std::fs::create_dir(&root).expect("root");
    let log = root.join("log");
    let trace = scratch.path().join("trace");
    let log_name = log.to_str().expect("UTF-8");
    let steps =
        strace::record(&["child", log_name, "10", "500000"], "", &trace, Duration::from_secs(120));
    std::fs::remove_file(&trace).expect("the trace");
    let recording = Recording::new(&steps, &root, Without::Nothing);
    println!("  recorded {}", recording.summary());
    assert!(recording.renamed(|name| name.starts_with("0000")) >= 8, "too few seals");
    assert!(recording.folds() >= 1, "no fold");
    assert!(recording.renamed(|name| name.starts_with("trash-")) >= 3, "too little thrown away");
    let whole = check_all_images(&recording, seed, images, scratch.path());
    println!("  {images} images: {whole}");
    whole.assert_clean();
    controls(&steps, &root, seed, scratch.path());
    again(&recording, seed, images / 5, scratch.path());
}

/// The power goes a second time, while the log recovers from the first: from torn writes, and from
/// slots that were begun and lost.
fn again(recording: &Recording, seed: u64, images: u64, scratch: &Path) {
    let (mut total, mut tried) = (Tally::default(), 0);
    for (want, torn) in [("a torn commit", true), ("a lost head", false)] {
        let root = scratch.join(format!("again-{torn}"));
        let found = (0..6_000).find_map(|at| {
            let mut rng = StdRng::seed_from_u64(seed ^ 0xa9a1 ^ at);
            let cut = recording.random_cut(&mut rng);
            let image_seed = rng.random();
            // Nothing to see at a cut where nothing was under way.
            if !recording.is_writing_journal(cut) {
                return None;
            }
            let _ = std::fs::remove_dir_all(&root);
            recording.image(cut, image_seed, &root);
            let found = local::survey(&root.join("log"), &Disk::real()).ok()?;
            let is_torn =
                found.slots.last().is_some_and(|slot| matches!(slot.scan.tail, Tail::Torn { .. }));
            let is_it =
                if torn { is_torn && found.unbegun.is_none() } else { found.unbegun.is_some() };
            (is_it && found.damage.is_empty()).then(|| recording.promise(cut))
        });
        let Some(promise) = found else {
            // Only a cut within one of the few rolls leaves a head without its slot.
            assert!(!torn, "no image with {want}");
            println!("  LEFT OUT: no image of this recording has {want}");
            continue;
        };
        tried += 1;
        let files = crash::read_tree(&root);
        let log = root.join("log");
        let args = ["child", log.to_str().expect("UTF-8"), "2", "60000"];
        let trace = scratch.join("trace");
        let steps = strace::record(&args, "", &trace, Duration::from_secs(60));
        std::fs::remove_file(&trace).expect("the trace");
        let second = Recording::after(&steps, &root, Without::Nothing, &files, promise);
        let tally = check_all_images(&second, seed ^ 2, images / 2, scratch);
        println!("  power lost again after {want}, {} images: {tally}", images / 2);
        tally.assert_clean();
        total.good += tally.good;
    }
    assert!(tried > 0 && total.good >= images / 2 * tried);
}

/// The same with a sync left out must fail: else the images prove nothing.
fn controls(steps: &[Step], root: &Path, seed: u64, scratch: &Path) {
    let images = crash::env_number("CRASH_CONTROL_IMAGES", 100);
    for without in [Without::JournalSyncs, Without::SegmentSyncs, Without::DirectorySyncs] {
        let recording = Recording::new(steps, root, without);
        let mut round = 0;
        loop {
            let seed = seed ^ 0x5eed ^ round;
            let tally = check_all_images(&recording, seed, images, scratch);
            println!("  control, {without:?} left out, {images} images: {tally}");
            assert!(
                tally.failed() > images / 4,
                "the control without {without:?} found too little"
            );
            round += 1;
            // Mostly what is missing is noticed. The plain loss of what was acked is seen where the
            // whole end of the log is missing.
            if without != Without::JournalSyncs || tally.lost > 0 {
                break;
            }
            assert!(round < 8, "without fdatasync nothing acked was lost");
        }
    }
}

/// What became of the images.
#[derive(Debug, Default)]
struct Tally {
    good: u64,
    gone_on: u64,
    lost: u64,
    refused: u64,
    wrong: u64,
    events: u64,
    new_generations: u64,
    examples: Vec<String>,
    phases: BTreeMap<&'static str, u64>,
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} good ({} of them appended to and opened again), {} lost acked events, {} refused, \
             {} served wrong; {} events compared, {} began a generation; cut during {:?}",
            self.good,
            self.gone_on,
            self.lost,
            self.refused,
            self.wrong,
            self.events,
            self.new_generations,
            self.phases
        )
    }
}

impl Tally {
    fn failed(&self) -> u64 {
        self.lost + self.refused + self.wrong
    }

    fn assert_clean(&self) {
        for example in &self.examples {
            println!("  FAILED {example}");
        }
        assert_eq!(self.failed(), 0, "see above; CRASH_SEED shows the same again");
    }
}

enum Verdict {
    Good { events: u64, went_on: bool, generations: usize },
    Lost(String),
    Wrong(Wrong),
}

fn check_all_images(recording: &Recording, seed: u64, images: u64, scratch: &Path) -> Tally {
    let tally = Mutex::new(Tally::default());
    let only = std::env::var("CRASH_IMAGE").ok().and_then(|text| text.parse::<u64>().ok());
    crash::in_parallel(images, |at| {
        if only.is_some_and(|only| only != at) {
            return;
        }
        let mut rng = StdRng::seed_from_u64(seed.wrapping_mul(1_000_003).wrapping_add(at));
        let cut = recording.random_cut(&mut rng);
        let dir = tempfile::Builder::new().prefix("image-").tempdir_in(scratch).expect("image");
        recording.image(cut, rng.random(), dir.path());
        let promise = recording.promise(cut);
        let goes_on = at % 4 == 0;
        let verdict = check_image(&dir.path().join("log"), &promise, goes_on, &mut rng);
        let mut tally = tally.lock().expect("tally");
        *tally.phases.entry(recording.phase(cut)).or_default() += 1;
        let example = match verdict {
            Ok(Verdict::Good { events, went_on, generations }) => {
                tally.good += 1;
                tally.gone_on += u64::from(went_on);
                tally.events += events;
                tally.new_generations += u64::from(generations > 1);
                return;
            }
            Ok(Verdict::Lost(what)) => {
                tally.lost += 1;
                what
            }
            Ok(Verdict::Wrong(Wrong::Refused(error))) | Err(Wrong::Refused(error)) => {
                tally.refused += 1;
                format!("refused: {error:?}")
            }
            Ok(Verdict::Wrong(Wrong::Served(what))) | Err(Wrong::Served(what)) => {
                tally.wrong += 1;
                what
            }
        };
        if tally.examples.len() < 10 {
            let whole = recording.len();
            tally
                .examples
                .push(format!("image {at}, cut {cut} of {whole}, {promise:?}: {example}"));
        }
        if let Some(keep) = std::env::var_os("CRASH_KEEP_FAILED") {
            let target = Path::new(&keep).join(format!("image-{at}"));
            let _ = std::fs::create_dir_all(&target);
            let mut again = StdRng::seed_from_u64(seed.wrapping_mul(1_000_003).wrapping_add(at));
            let cut = recording.random_cut(&mut again);
            recording.image(cut, again.random(), &target);
        }
    });
    tally.into_inner().expect("tally")
}

fn check_image(
    log: &Path,
    promise: &Promise,
    goes_on: bool,
    rng: &mut StdRng,
) -> Result<Verdict, Wrong> {
    let (engine, recovered) = workload::open(log)?;
    let bounds = engine.bounds();
    let (head, oldest) = (bounds.head.get(), bounds.oldest.get());
    if head < promise.acked_head || oldest > promise.tried_oldest.max(1) {
        return Ok(Verdict::Lost(format!("{oldest} to {head} found")));
    }
    if head > promise.tried_head.max(promise.acked_head) || oldest < promise.acked_oldest {
        return Ok(Verdict::Wrong(Wrong::Served(format!("{oldest} to {head} found"))));
    }
    workload::check_recovered(&recovered, &bounds)?;
    let mut events = workload::check_events(&*engine, |_| 0)?;
    workload::check_answers(&*engine, events)?;
    let generations = bounds.generations.entries().len();
    if goes_on {
        let commits = if rng.random_bool(0.3) { 40 } else { rng.random_range(1..6) };
        for _ in 0..commits {
            let count = if commits == 40 { 30 } else { rng.random_range(1..20) };
            workload::append(&*engine, workload::commit(&*engine, count, AFTER))?;
        }
        let end = engine.bounds().head;
        if rng.random_bool(0.5) {
            engine.close()?;
        }
        drop(engine);
        let (engine, recovered) = workload::open(log)?;
        if engine.bounds().head != end {
            let found = engine.bounds().head;
            return Ok(Verdict::Lost(format!("{end} appended to the image, {found} found")));
        }
        workload::check_recovered(&recovered, &engine.bounds())?;
        let seen = workload::check_events(&*engine, |seq| if seq > head { AFTER } else { 0 })?;
        workload::check_answers(&*engine, seen)?;
        events += seen;
    }
    Ok(Verdict::Good { events, went_on: goes_on, generations })
}
