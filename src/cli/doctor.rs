//! `tailmark doctor`.

use serde_json::{Map, Value};

use super::failure::{hint_for, hint_for_tls};
use super::online::{Identity, Said};
use super::output::{print_json, print_line};
use super::{Exit, Failure};
use crate::doctor::{self, Hints, Step, Verdict};
use crate::escape;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The server to look at: a URL, or HOST:PORT without TLS (TAILMARK_ADDR) [default:
    /// http://127.0.0.1:50051]
    #[arg(value_name = "URL")]
    url: Option<String>,
    /// The same, as other commands take it
    #[arg(long, value_name = "URL", hide = true)]
    addr: Option<String>,
    /// The same by a name that `tailmark context` gave it (TAILMARK_CONTEXT)
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    #[command(flatten)]
    identity: Identity,
    /// Print one JSON object a step
    #[arg(long)]
    json: bool,
}

pub(super) fn run(mut args: Args) -> Result<(), Failure> {
    let (argument, flag) = (args.url.take(), args.addr.take());
    let said = Said { argument, flag, context: args.context.take() };
    let (address, context) = said.settle()?;
    args.identity.context = context;
    args.identity.check(&address)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Failure, "cannot start").because(&error))?;
    let outcome = runtime.block_on(examine(&args, &address.url));
    runtime.shutdown_background();
    outcome
}

async fn examine(args: &Args, url: &str) -> Result<(), Failure> {
    let hints = Hints { of_error: hint_for, of_tls: hint_for_tls };
    let (mut is_well, mut printed) = (true, Ok(()));
    let tell = |step: Step| {
        is_well &= matches!(step.verdict, Verdict::Ok | Verdict::Skipped);
        if printed.is_ok() {
            printed = if args.json { print_json(&json(&step)) } else { print_line(&text(&step)) };
        }
    };
    doctor::examine(url, args.identity.options(), &hints, tell)
        .await
        .map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
    printed?;
    if is_well { Ok(()) } else { Err(Failure::silent(Exit::Failure)) }
}

fn text(step: &Step) -> String {
    let mut line =
        format!("{:8} {:8} {}", step.verdict.name(), step.name, escape::line(&step.text));
    if let Some(hint) = &step.hint {
        line.push_str(&format!("\n{:17} hint: {}", "", escape::line(hint)));
    }
    line
}

fn json(step: &Step) -> Vec<u8> {
    let mut object = Map::new();
    let mut set = |name: &str, value: Value| {
        if !value.is_null() {
            object.insert(name.to_owned(), value);
        }
    };
    set("step", step.name.into());
    set("verdict", step.verdict.name().into());
    set("text", step.text.clone().into());
    set("hint", step.hint.clone().into());
    for (name, value) in &step.facts {
        set(name, value.clone());
    }
    Value::Object(object).to_string().into_bytes()
}
