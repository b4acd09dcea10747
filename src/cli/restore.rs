//! `tailmark restore`.

use std::path::PathBuf;

use super::backup::{note_mark, show};
use super::log::{Interrupt, Room, erasure, tell_erasing, write_damage};
use super::moment::{parse_seq, parse_time};
use super::output::{count_text, print_json, print_line, say};
use super::progress::bytes_bar;
use super::{Exit, Failure};
use crate::backup::{self, Manifest, Restored, Since, Target, Upto, Wanted, reaching, restore};
use crate::escape;
use tailmark_log::storage::StoreError;
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
    /// Also what had been trimmed by then, from this event on, as far as other backups here have it;
    /// `oldest`: all of that
    #[arg(long, value_name = "SEQ", value_parser = since)]
    from_seq: Option<Since>,
    /// As it was after this event, without what rules for topics have taken out since: a backup that was taken soon
    /// after that point has the most
    #[arg(long, value_name = "SEQ", conflicts_with = "to_time", value_parser = parse_seq)]
    to_seq: Option<Seq>,
    /// As it was at this time, or so long ago
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    to_time: Option<Timestamp>,
    /// Put in segments that are damaged as they are: for `tailmark log salvage`, which then says what is lost
    #[arg(long)]
    keep_damaged: bool,
    #[command(flatten)]
    room: Room,
    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let upto = match (args.to_seq, args.to_time) {
        (Some(seq), _) => Upto::Seq(seq),
        (None, Some(time)) => Upto::Time(time),
        (None, None) => Upto::Head,
    };
    let since = args.from_seq.unwrap_or_default();
    if let (Since::Seq(from), Upto::Seq(to)) = (since, upto)
        && from > to
    {
        let what = format!("--from-seq {from} lies behind --to-seq {to}");
        return Err(Failure::new(Exit::Usage, what)
            .hint("--from-seq names the first event, --to-seq the last"));
    }
    let target = Target::open(&args.from)?;
    note_mark(&target);
    let (name, manifest) = target.backup(args.backup.as_deref())?;
    let interrupt = Interrupt::listen()?;
    let bar = bytes_bar("restored");
    let options = args.room.options();
    let what = Wanted { since, upto, keeps_damage: args.keep_damaged };
    let result = restore(&target, &name, &manifest, what, &args.data_dir, options, |progress| {
        interrupt.check()?;
        show(&bar, progress);
        Ok(())
    });
    bar.finish_and_clear();
    let done = match result {
        Ok(done) => done,
        Err(error) => {
            let hint = hint(&error, (&target, &name, &manifest), upto, args.keep_damaged)?;
            let failure = interrupt.failure(args.room.hint(error));
            return Err(match hint {
                Some(hint) => failure.hint(hint),
                None => failure,
            });
        }
    };
    if done.taken_out > 0 && !matches!(upto, Upto::Head) {
        // They may have been there at that point.
        let (count, at) = (done.taken_out, done.head);
        let more = match nearer(&target, (&name, &manifest), done.head)? {
            // Never taken by itself: of what was erased since nothing may come back unasked.
            Some(other) => format!(
                "`--backup {other}` was taken nearer to that point and has more of them, and what was erased since, too"
            ),
            None => "no backup here was taken nearer to that point".to_owned(),
        };
        say(&format!(
            "note: {count} events up to {at} had been taken out by the retention of their topics when this backup was taken; \
             {more}"
        ));
    }
    tell_erasing(done.erasing.as_deref());
    if args.json {
        print_json(&json(&name, &done))?;
    } else {
        tell(args, &name, &done)?;
    }
    match done.damage.is_empty() {
        true => Ok(()),
        false => Err(Failure::new(
            Exit::Damaged,
            format!("{} damaged", count_text(done.damage.len() as u64, "file")),
        )
        .hint("`tailmark log salvage --from DIR --to NEW` makes a log of all that is whole, and says what is lost")),
    }
}

fn tell(args: &Args, name: &str, done: &Restored) -> Result<(), Failure> {
    for damage in &done.damage {
        say(&escape::line(&damage.to_string()));
    }
    let dir = args.data_dir.display().to_string();
    let untrimmed = match done.untrimmed {
        0 => String::new(),
        count => format!(" ({count} of them had been trimmed)"),
    };
    // A point before the oldest has no events, and a log all the same.
    let events = match done.head < done.oldest {
        true => format!("no events, up to {}", done.head),
        false => format!("{} to {}", done.oldest, done.head),
    };
    print_line(&format!(
        "restored: {events} of {name}{untrimmed} into {}; generation {} begins",
        escape::name(&dir),
        done.generation
    ))
}

/// What to do where it was not put back.
fn hint(
    error: &backup::Error,
    (target, name, manifest): (&Target, &str, &Manifest),
    upto: Upto,
    keeps_damage: bool,
) -> Result<Option<String>, Failure> {
    let is_damaged = matches!(
        error,
        backup::Error::Damaged { .. } | backup::Error::Store(StoreError::Damaged(_))
    );
    Ok(match error {
        // Never taken by itself: of what was erased since nothing may come back unasked.
        backup::Error::TooEarly { .. } | backup::Error::TooLate { .. } => {
            let other = reaching(target, (name, manifest), upto)?;
            Some(match other {
                Some(other) => format!("`--backup {other}` has that point, and what was erased since, too"),
                None => "no backup here has that point; `tailmark backup list PLACE` shows what each has".to_owned(),
            })
        }
        _ if is_damaged && !keeps_damage => Some(
            "another backup (--backup NAME) may be whole: `tailmark backup verify PLACE --backup NAME` reads all of one; \
             --keep-damaged makes a log that is as damaged as this, for `tailmark log salvage`"
                .to_owned(),
        ),
        _ => None,
    })
}

/// The backup of the same log that was taken first with this event in it, if that is another.
fn nearer(
    target: &Target,
    (name, manifest): (&str, &Manifest),
    head: Seq,
) -> Result<Option<String>, Failure> {
    for other in target.names()? {
        if other == name {
            return Ok(None);
        }
        // One that cannot be read is none to name.
        let Ok((other, found)) = target.backup(Some(&other)) else { continue };
        if found.log_id == manifest.log_id && found.head_seq >= head.get() {
            return Ok(Some(other));
        }
    }
    Ok(None)
}

fn since(text: &str) -> Result<Since, String> {
    match text {
        "oldest" => Ok(Since::Oldest),
        _ => parse_seq(text)
            .map(Since::Seq)
            .map_err(|_| "expected a sequence number, or `oldest`".to_owned()),
    }
}

fn json(name: &str, done: &Restored) -> Vec<u8> {
    let mut out = Vec::new();
    let mut object = Object::open(&mut out);
    object.text("backup", name);
    object.number("oldest_seq", done.oldest.get());
    object.number("head_seq", done.head.get());
    object.unsigned("generation", u32::from(done.generation));
    object.number("kept_segments", done.kept_segments);
    object.number("untrimmed", done.untrimmed);
    object.number("taken_out", done.taken_out);
    object.text("erasure", &erasure(done.erasing.as_deref()));
    object.objects("damage", &done.damage, write_damage);
    object.close();
    out
}
