//! `tailmark log dump`.

use std::io;

use super::super::message::quoted;
use super::super::moment::SeqRange;
use super::super::output::{Output, count_text, events_text, say};
use super::{Dump, Exit, Failure, Interrupt, span_text};
use crate::escape;
use crate::inspect::{Found, Selection, dump};
use tailmark_record::Limits;
use tailmark_record::json::write_event;
use tailmark_record::topic::{Filter, Meant, Pattern};

/// Lines are handed over in pieces of this size.
const FLUSH_BYTES: usize = 128 << 10;

pub(super) fn run(args: &Dump, range: SeqRange) -> Result<(), Failure> {
    let selection = Selection {
        from: range.from,
        to: range.to,
        since: args.since,
        until: args.until,
        filter: Filter::new(patterns(&args.patterns)?),
    };
    let interrupt = Interrupt::listen()?;
    let mut output = Output::json();
    let result = dump(&args.data_dir.path, &selection, |found| {
        take(&mut output, &found)?;
        if output.buffer.len() >= FLUSH_BYTES {
            interrupt.check()?;
            output.flush()?;
        }
        Ok(())
    });
    // What was read before an error is good.
    output.flush()?;
    let done = result.map_err(|error| interrupt.failure(error))?;
    if done.damaged_ranges == 0 {
        return Ok(());
    }
    let ranges = count_text(done.damaged_ranges, "damaged range");
    Err(Failure::new(
        Exit::Damaged,
        format!("{ranges} left out; {} dumped", events_text(done.events)),
    )
    .hint("nothing was changed; `tailmark log verify` looks at everything"))
}

fn take(output: &mut Output, found: &Found<'_>) -> io::Result<()> {
    match found {
        Found::Event(event) => {
            write_event(&mut output.buffer, event);
            output.buffer.push(b'\n');
        }
        Found::Lost(damage) => {
            // In its place among the events, for whoever looks at both streams.
            output.flush()?;
            let file = damage.file.display().to_string();
            let file = escape::name(&file);
            let detail = &damage.detail;
            say(&format!("damaged: {} in {file}: {detail}", damage.range()));
        }
        Found::Removed(range) => {
            output.flush()?;
            say(&format!("gone: {range}"));
        }
        Found::Trimmed { from, to } => {
            output.flush()?;
            say(&format!("trimmed meanwhile by a running daemon: {}", span_text(*from, *to)));
        }
    }
    Ok(())
}

fn patterns(texts: &[String]) -> Result<Vec<Pattern>, Failure> {
    let parse = |text: &String| {
        Pattern::parse(text, &Limits::default()).map_err(|problem| {
            Failure::new(
                Exit::Usage,
                format!("pattern `{}`: {}", quoted(text), Meant::instead_of(text, &problem)),
            )
        })
    };
    texts.iter().map(parse).collect()
}
