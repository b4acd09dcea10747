//! `tailmark restore`.

use std::path::PathBuf;

use super::Failure;
use super::backup::{bytes_bar, show};
use super::log::Interrupt;
use super::moment::parse_time;
use super::output::{print_json, print_line};
use crate::backup::{Restored, Target, Upto, restore};
use crate::escape;
use tailmark_log::storage::local::Options;
use tailmark_record::json::Object;
use tailmark_record::{Seq, Timestamp};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where backups are kept
    from: PathBuf,
    /// Where the log is made; empty, or not there yet
    #[arg(long = "data-dir", value_name = "DIR")]
    data_dir: PathBuf,
    /// Which, as `backup list` names it; the newest by default
    #[arg(long, value_name = "NAME")]
    backup: Option<String>,
    /// As it was after this event
    #[arg(long, value_name = "SEQ", conflicts_with = "to_time")]
    to_seq: Option<u64>,
    /// As it was at this time, or so long ago
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    to_time: Option<Timestamp>,
    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let upto = match (args.to_seq, args.to_time) {
        (Some(seq), _) => Upto::Seq(Seq::new(seq)),
        (None, Some(time)) => Upto::Time(time),
        (None, None) => Upto::Head,
    };
    let target = Target::open(&args.from)?;
    let (name, manifest) = target.backup(args.backup.as_deref())?;
    let interrupt = Interrupt::listen()?;
    let bar = bytes_bar("restored");
    let options = Options::default();
    let result = restore(&target, &name, &manifest, upto, &args.data_dir, options, |progress| {
        interrupt.check()?;
        show(&bar, progress);
        Ok(())
    });
    bar.finish_and_clear();
    let done = result.map_err(|error| interrupt.failure(error))?;
    if args.json {
        return print_json(&json(&name, &done));
    }
    let dir = args.data_dir.display().to_string();
    print_line(&format!(
        "restored: {} to {} of {name} into {}; generation {} begins",
        done.oldest,
        done.head,
        escape::name(&dir),
        done.generation
    ))
}

fn json(name: &str, done: &Restored) -> Vec<u8> {
    let mut out = Vec::new();
    let mut object = Object::open(&mut out);
    object.text("backup", name);
    object.number("oldest_seq", done.oldest.get());
    object.number("head_seq", done.head.get());
    object.unsigned("generation", u32::from(done.generation));
    object.number("kept_segments", done.kept_segments);
    object.close();
    out
}
