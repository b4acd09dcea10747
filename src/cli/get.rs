//! `tailmark get`: one event, by its number or cursor.

use prost::Message;

use super::Failure;
use super::form::{Form, read};
use super::moment::parse_cursor;
use tailmark_client::{Client, Reason};
use tailmark_record::Cursor;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Which: a sequence number, or a cursor, which must be of this log and history
    #[arg(value_name = "SEQ|CURSOR", value_parser = parse_cursor)]
    which: String,
    #[command(flatten)]
    form: Form,
}

pub(super) async fn run(args: Args, client: Client) -> Result<(), Failure> {
    let found = match Cursor::parse(&args.which) {
        Ok(Cursor::Bare(seq)) => client.event(seq).await,
        _ => client.event_at(&args.which).await,
    };
    let event = found.map_err(|error| {
        let reason = error.known_reason();
        let failure = Failure::from(error).naming(&[("seq", "SEQ"), ("cursor", "CURSOR")]);
        match reason {
            Some(Reason::CursorTrimmed) => {
                failure.hint("`tailmark watch --from oldest` begins at the oldest that is left")
            }
            Some(Reason::LogChanged | Reason::LogDiverged | Reason::CursorAhead) => {
                failure.hint("the log is not the one this cursor came from, or not its history")
            }
            _ => failure,
        }
    })?;
    let mut output = args.form.output();
    args.form.print(&mut output, &read(&event.encode_to_vec())?);
    Ok(output.flush()?)
}
