//! `tailmark log explain`.

use super::super::output::{Output, events_text, print_json};
use super::{Exit, Explain, Failure};
use crate::escape;
use crate::inspect::{Answer, Explanation, Token, explain};
use tailmark_log::eventlog::CursorError;
use tailmark_record::json::Object;
use tailmark_record::{CursorPart, Reason, Seq};
use tailmark_wire::code;

pub(super) fn run(args: &Explain) -> Result<(), Failure> {
    let explanation = explain(&args.data_dir.path, &args.cursor)?.map_err(|error| {
        let hint = match error.part {
            CursorPart::Version => "a cursor begins with `t`; every other letter is no version yet",
            CursorPart::Length => "a cursor has 29 characters: some are missing or too many",
            CursorPart::Character => "a cursor has letters, digits, `-` and `_` only",
            CursorPart::Checksum => "it was mistyped, or cut and pasted in parts",
            CursorPart::Number => "a plain sequence number has no leading zeros, and 64 bits",
        };
        Failure::new(
            Exit::Usage,
            format!("{error} [{} part={}]", Reason::CursorMalformed, error.part.as_str()),
        )
        .hint(hint)
    })?;
    if args.json { print_json(&json(&explanation)) } else { print_text(&explanation) }
}

fn print_text(what: &Explanation) -> Result<(), Failure> {
    let mut lines = vec![("cursor", cursor_text(what))];
    if let Some(token) = &what.token {
        lines.push(("log", log_text(what, token)));
        lines.push(("generation", generation_text(token)));
    }
    lines.push(("seq", seq_text(what)));
    lines.push(("log has", bounds_text(what)));
    lines.push(("watch", answer_text(&what.answer)));
    if let Some(why) = &what.unreadable {
        lines.push(("event", format!("cannot be read: {why}")));
    }
    let mut output = Output::text();
    for (name, value) in &lines {
        output.lines(&format!("{name:12} {}", escape::line(value)));
    }
    if let Some(event) = &what.event {
        // JSON stays JSON, with its own escapes.
        output.buffer.extend_from_slice(b"event        ");
        output.buffer.extend_from_slice(escape::json(event).as_bytes());
        output.buffer.push(b'\n');
    }
    Ok(output.flush()?)
}

fn cursor_text(what: &Explanation) -> String {
    match &what.token {
        Some(token) => format!("version {}, its checksum fits", token.version),
        None => "a plain sequence number: taken at its word, no check whose log it is".to_owned(),
    }
}

fn log_text(what: &Explanation, token: &Token) -> String {
    if token.is_of_this_log {
        format!("{:08x}: this log, {}", token.log, what.log)
    } else {
        format!("{:08x}: another log; this one is {}", token.log, what.log)
    }
}

fn generation_text(token: &Token) -> String {
    let name = format!("{} (nonce {:08x})", token.generation.counter, token.generation.nonce);
    match &token.known_as {
        Some(entry) => {
            format!("{name}: {} at {}, from seq {}", entry.cause, entry.since, entry.first)
        }
        None => format!("{name}: not in this log's history"),
    }
}

fn seq_text(what: &Explanation) -> String {
    match (what.seq, what.appended_at) {
        (Seq::ZERO, _) => "0: before the first event".to_owned(),
        (seq, Some(at)) => format!("{seq}, appended {at}"),
        (seq, None) => seq.to_string(),
    }
}

fn bounds_text(what: &Explanation) -> String {
    let (oldest, head) = (what.bounds.oldest, what.bounds.head);
    if what.bounds.is_empty() {
        format!("nothing readable; the next event gets {}", what.bounds.next())
    } else {
        format!("{oldest} to {head}")
    }
}

fn answer_text(answer: &Answer) -> String {
    match answer {
        Answer::Starts { next, ready: 0 } => {
            format!("OK: waits for {next}, which is not there yet")
        }
        Answer::Starts { next, ready } => {
            format!("OK: begins at {next}, {} to replay", events_text(*ready))
        }
        Answer::Refuses(error) => {
            let (status, reason) = refusal(error);
            format!("{status} {reason}: {error}")
        }
    }
}

/// The contract's cursor table: gRPC status and reason.
fn refusal(error: &CursorError) -> (&'static str, &'static str) {
    let reason = error.reason();
    (code::name(code::of(reason)), reason.as_str())
}

fn json(what: &Explanation) -> Vec<u8> {
    let mut out = Vec::new();
    let mut object = Object::open(&mut out);
    object.number("seq", what.seq.get());
    object.text("log_id", &what.log.to_string());
    if let Some(token) = &what.token {
        object.object("token", |object| {
            object.unsigned("version", u32::from(token.version));
            object.text("log", &format!("{:08x}", token.log));
            object.flag("is_of_this_log", token.is_of_this_log);
            object.unsigned("generation", u32::from(token.generation.counter));
            object.unsigned("nonce", token.generation.nonce);
            object.flag("generation_is_known", token.known_as.is_some());
        });
    }
    object.number("oldest_seq", what.bounds.oldest.get());
    object.number("head_seq", what.bounds.head.get());
    object.object("watch", |object| match &what.answer {
        Answer::Starts { next, ready } => {
            object.text("code", "OK");
            object.number("next_seq", next.get());
            object.number("ready_events", *ready);
        }
        Answer::Refuses(error) => {
            let (status, reason) = refusal(error);
            object.text("code", status);
            object.text("reason", reason);
            object.text("message", &error.to_string());
            match error {
                CursorError::LogDiverged { last_common, at_most } => {
                    object.number("last_common_seq", last_common.get());
                    if at_most > last_common {
                        object.number("last_common_at_most_seq", at_most.get());
                    }
                }
                CursorError::Trimmed { missed, .. } => object.number("missed", *missed),
                CursorError::LogChanged | CursorError::Ahead { .. } => {}
            }
        }
    });
    object.text("unreadable", what.unreadable.as_deref().unwrap_or_default());
    object.raw("event", what.event.as_deref().unwrap_or_default());
    object.close();
    out
}
