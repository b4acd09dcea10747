//! `tailmark backup prune`.

use std::path::PathBuf;

use indicatif::HumanBytes;

use super::super::log::Interrupt;
use super::super::moment::parse_time;
use super::super::output::{Output, count_text, print_json, say};
use super::super::progress::bytes_bar;
use super::{Failure, show};
use crate::backup::{Keep, Pruned, prune};
use tailmark_record::Timestamp;
use tailmark_record::json::Object;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
What a backup that stays needs is never removed. What is cut leaves every backup that is listed whole; run it again, and it
goes on. A trim that was a mistake is undone with the older backups (`restore --from-seq`): once they are gone it is not.")]
pub(super) struct Args {
    /// Where they are kept: a directory, or s3://, gs:// and az:// with BUCKET/FOLDER
    from: PathBuf,
    /// Keep so many, the newest; at least 1
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), required_unless_present = "older_than")]
    keep: Option<u32>,
    /// Remove those that were taken before this time or longer ago than this (30d), by every clock that tells it; but never
    /// the newest
    #[arg(long, value_name = "AGE", value_parser = parse_time, conflicts_with = "keep")]
    older_than: Option<Timestamp>,
    /// Only say what it would remove
    #[arg(long)]
    dry_run: bool,
    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let keep = match (args.keep, args.older_than) {
        (_, Some(time)) => Keep::Since(time),
        (keep, None) => Keep::Newest(keep.unwrap_or(1) as usize),
    };
    let interrupt = Interrupt::listen()?;
    let bar = bytes_bar("removed");
    let result = prune(&args.from, keep, args.dry_run, |progress| {
        interrupt.check()?;
        show(&bar, progress);
        Ok(())
    });
    bar.finish_and_clear();
    let done = result.map_err(|error| interrupt.failure(error))?;
    if args.json {
        return print_json(&json(&done, args.dry_run));
    }
    let mut output = Output::text();
    done.removed.iter().for_each(|name| output.lines(name));
    output.flush()?;
    if !done.doubtful.is_empty() {
        say(&format!(
            "note: {} of those that stay may be older: the clock by which it was taken says so, but what was taken before it, \
             or the store, does not; --keep goes by their order alone",
            done.doubtful.len()
        ));
    }
    let removed = if args.dry_run { "would be removed" } else { "removed" };
    let freed = if args.dry_run { "would be free" } else { "free now" };
    say(&format!(
        "{} {removed}, with {} that no other has; {} {freed}; {} left",
        count_text(done.removed.len() as u64, "backup"),
        count_text(done.segments, "segment"),
        HumanBytes(done.freed_bytes),
        count_text(done.kept.len() as u64, "backup"),
    ));
    Ok(())
}

fn json(done: &Pruned, is_dry_run: bool) -> Vec<u8> {
    let mut out = Vec::new();
    let mut object = Object::open(&mut out);
    object.texts("removed", &done.removed);
    object.texts("kept", &done.kept);
    object.texts("doubtful", &done.doubtful);
    object.number("segments", done.segments);
    object.number("freed_bytes", done.freed_bytes);
    object.flag("dry_run", is_dry_run);
    object.close();
    out
}
