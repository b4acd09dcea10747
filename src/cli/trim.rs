//! `tailmark trim`.

use std::io::IsTerminal;

use super::moment::{Moment, parse_moment};
use super::output::{events_text, print_json, print_line, say};
use super::terminal::says_yes;
use super::{Exit, Failure, ahead};
use tailmark_client::Client;
use tailmark_wire::json;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Remove what lies before this: a sequence number, a time (2026-01-31T09:30:00Z) or an age (30d)
    #[arg(long, value_name = "SEQ|TIME", value_parser = parse_moment)]
    before: Moment,
    /// Do not ask; needed where standard input is no terminal
    #[arg(long, short)]
    yes: bool,
    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: Args, client: Client) -> Result<(), Failure> {
    let what = match args.before {
        Moment::Seq(seq) => format!("every event before {seq}"),
        Moment::Time(time) => format!("every event appended before {time}"),
    };
    if !args.yes && !std::io::stdin().is_terminal() {
        let what = format!("this would remove {what} for good, and nobody is there to be asked");
        return Err(Failure::new(Exit::Usage, what).hint("say --yes where no terminal is"));
    }
    if !args.yes {
        let status = client.log().await?;
        let question = format!(
            "This removes {what} for good; readable now: {} to {}. Go on? [y/N] ",
            status.oldest_seq, status.head_seq
        );
        if !says_yes(&question, "nothing was removed")? {
            return Err(Failure::new(Exit::Failure, "nothing was removed"));
        }
    }
    let is_by_time = matches!(args.before, Moment::Time(_));
    let result = client.trim(args.before).await.map_err(|error| {
        Failure::from(error).naming(&[("seq", "--before"), ("time", "--before")])
    })?;
    // It is done, whether or not there is an answer to this.
    if is_by_time && let Some(what) = client.log().await.ok().as_ref().and_then(ahead::of_trim) {
        say(&what);
    }
    if args.json {
        return print_json(&json::trim_result(&result));
    }
    print_line(&format!(
        "{} removed, oldest is now {}, head {}",
        events_text(result.removed),
        result.oldest_seq,
        result.head_seq
    ))
}
