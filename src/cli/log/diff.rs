//! `tailmark log diff`.

use std::path::Path;

use super::super::output::{print_json, print_line};
use super::{Diff, Exit, Failure};
use crate::escape;
use crate::inspect::{Compared, Side, Verdict, diff};
use tailmark_record::Seq;
use tailmark_record::json::Object;

/// People look at the first of a long list.
const SHOWN: usize = 20;

pub(super) fn run(args: &Diff) -> Result<(), Failure> {
    let done = diff(&args.first, &args.second)?;
    if args.json {
        print_json(&json(&done))?;
    } else {
        print_line(&text(args, &done))?;
    }
    match done.verdict {
        _ if !done.first_lost.is_empty() || !done.second_lost.is_empty() => {
            Err(Failure::silent(Exit::NotFound))
        }
        Verdict::Equal | Verdict::FirstGoesOn(_) | Verdict::SecondGoesOn(_) => Ok(()),
        _ => Err(Failure::silent(Exit::NotFound)),
    }
}

fn text(args: &Diff, done: &Compared) -> String {
    let side = |path: &Path, side: &Side| {
        let name = path.display().to_string();
        let bounds = &side.bounds;
        let has = match bounds.is_empty() {
            true => format!("nothing readable, head {}", bounds.head),
            false => format!("{} to {}", bounds.oldest, bounds.head),
        };
        format!("{}: {has}, log {}", escape::name(&name), side.log)
    };
    let verdict = match done.verdict {
        Verdict::Equal => "equal".to_owned(),
        Verdict::FirstGoesOn(seq) => format!("the second ends at {seq}, the first goes on"),
        Verdict::SecondGoesOn(seq) => format!("the first ends at {seq}, the second goes on"),
        Verdict::Parted(seq) => match done.at_most {
            Some(most) => format!(
                "the same up to {seq}, at most up to {most}: what lies between is lost in one of them"
            ),
            None => format!("the same up to {seq}, parted from {} on", seq.next()),
        },
        Verdict::PartedBefore(seq) => {
            format!("parted at {seq} or before; what lies there is trimmed")
        }
        Verdict::Apart => "nothing is in both: one begins after the end of the other".to_owned(),
        Verdict::OtherLogs => "not the same log".to_owned(),
    };
    let (first, second) = (side(&args.first, &done.first), side(&args.second, &done.second));
    let mut text = format!("{first}\n{second}\n{verdict}");
    for (name, lost) in [("first", &done.first_lost), ("second", &done.second_lost)] {
        for range in lost.iter().take(SHOWN) {
            let (from, to) = (range.start, range.end.prev());
            text.push_str(&format!("\nbut {from} to {to} are lost in the {name}"));
        }
        if lost.len() > SHOWN {
            text.push_str(&format!("\nand {} more ranges; --json has all", lost.len() - SHOWN));
        }
    }
    text
}

fn json(done: &Compared) -> Vec<u8> {
    let (verdict, last_common) = match done.verdict {
        Verdict::Equal => ("equal", Some(done.first.bounds.head)),
        Verdict::FirstGoesOn(seq) => ("first_goes_on", Some(seq)),
        Verdict::SecondGoesOn(seq) => ("second_goes_on", Some(seq)),
        Verdict::Parted(seq) => ("parted", Some(seq)),
        Verdict::PartedBefore(_) => ("parted_before", None),
        Verdict::Apart => ("apart", None),
        Verdict::OtherLogs => ("other_logs", None),
    };
    let mut out = Vec::new();
    let mut object = Object::open(&mut out);
    object.text("verdict", verdict);
    object.number("last_common_seq", last_common.map_or(0, Seq::get));
    if let Some(seq) = done.at_most {
        object.number("last_common_at_most_seq", seq.get());
    }
    let first = ("first", &done.first, &done.first_lost);
    for (name, side, lost) in [first, ("second", &done.second, &done.second_lost)] {
        object.object(name, |object| {
            object.text("log_id", &side.log.to_string());
            object.number("oldest_seq", side.bounds.oldest.get());
            object.number("head_seq", side.bounds.head.get());
            object.objects("lost", lost, |object, range| {
                object.number("from_seq", range.start.get());
                object.number("to_seq", range.end.prev().get());
            });
        });
    }
    object.close();
    out
}
