//! Whether the time of an answer tells what one may not see: what is hidden and what is not there are asked
//! for in turn, and their times compared. `docs/security.md` says what was found.
//!
//! A single answer's time is mostly chance. So the figure is how often the hidden one's is the longer of
//! two: 0.5 says that nobody can tell. The null control compares two that are not there.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use prost::Message;
use tailmark_client::{Client, Kind, Options, Seq, TokenProvider};
use tailmark_wire::feed_v1 as pb;
use tokio::process::Command;

use crate::peers::start_daemon;
use crate::stats;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The `tailmark` program
    #[arg(long, default_value = "target/release/tailmark")]
    daemon: PathBuf,
    /// Pairs of each question
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(10..))]
    pairs: u32,
    /// Where the log goes
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    dir: PathBuf,
}

/// Topics that are hidden, with one event each.
const HIDDEN: u64 = 10_000;
/// Topics that may be seen, too.
const SEEN: u64 = 100;

/// What is asked for.
#[derive(Clone, Copy, Debug)]
enum Question {
    Event(u64),
    Topics(&'static str),
}

pub(crate) async fn run(args: Args) -> Result<()> {
    let dir = tempfile::Builder::new().prefix("tailmark-timing.").tempdir_in(&args.dir)?;
    let tokens = dir.path().join("tokens.toml").display().to_string();
    let settings = [("TAILMARK_AUTH_MODE", "required"), ("TAILMARK_AUTH_TOKENS_FILE", &*tokens)];
    let all = ["--publish", ">", "--watch", ">"];
    let owner = token(&args.daemon, &settings, "owner", &all).await?;
    let other = token(&args.daemon, &settings, "other", &["--watch", "seen.>"]).await?;
    let (server, addr) = start_daemon(&args.daemon, dir.path(), &settings).await?;
    let client = |token: String| {
        let mut options = Options::default();
        options.token = Some(TokenProvider::fixed(token));
        Client::with_options(&addr, options)
    };
    let (owner, other) = (client(owner)?, client(other)?);
    let topics = (0..SEEN).map(|at| format!("seen.{at}"));
    let topics = topics.chain((0..HIDDEN).map(|at| format!("hidden.{at}")));
    let events = topics.map(|topic| {
        let event = pb::Event { topic, body: "x".repeat(200), ..pb::Event::default() };
        event.encode_to_vec().into()
    });
    owner.upload(tokio_stream::iter(events.collect::<Vec<bytes::Bytes>>())).await?;

    let beyond = SEEN + HIDDEN + 1;
    let event = "GetEvent: hidden, beyond the head";
    let list = "ListTopics: 10,000 hidden, none";
    println!("{:34} {:>10} {:>10} {:>8}", "", "p50 ms", "p50 ms", "longer");
    for (name, hidden, absent) in [
        (
            "null control: both beyond the head",
            Question::Event(beyond),
            Question::Event(beyond + 1),
        ),
        (event, Question::Event(SEEN + HIDDEN / 2), Question::Event(beyond)),
        ("null control: both none", Question::Topics("none."), Question::Topics("nobody.")),
        (list, Question::Topics("hidden."), Question::Topics("nobody.")),
        // What may be seen takes its time: so this would show it.
        ("control: 100 seen, none", Question::Topics("seen."), Question::Topics("nobody.")),
    ] {
        let (mut first, mut second) = (Vec::new(), Vec::new());
        for at in 0..args.pairs {
            // In both orders, so that neither is always the one after the other.
            if at % 2 == 0 {
                first.push(ask(&other, hidden).await?);
                second.push(ask(&other, absent).await?);
            } else {
                second.push(ask(&other, absent).await?);
                first.push(ask(&other, hidden).await?);
            }
        }
        let median = |times: &[f64]| stats::median(times).unwrap_or(f64::NAN);
        let share = stats::longer(&first, &second);
        println!("{name:34} {:>10.4} {:>10.4} {share:>8.3}", median(&first), median(&second));
    }
    server.stop().await?;
    dir.close().context("cannot remove the directory of the log")
}

/// Makes a token that the daemon will know.
async fn token(
    program: &Path,
    settings: &[(&str, &str)],
    name: &str,
    rights: &[&str],
) -> Result<String> {
    let mut command = Command::new(program);
    command.args(["token", "create", name]).args(rights).envs(settings.iter().copied());
    let output = command.output().await.context("cannot run `tailmark token create`")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// Milliseconds until the answer, which must be what the docs say.
async fn ask(client: &Client, question: Question) -> Result<f64> {
    let begun = Instant::now();
    let took: Duration = match question {
        Question::Event(seq) => {
            let answer = client.event(Seq::new(seq)).await;
            let took = begun.elapsed();
            let is_hidden = answer.as_ref().is_err_and(|error| error.kind() == Kind::NotFound);
            ensure!(is_hidden, "{seq}: {answer:?}");
            took
        }
        Question::Topics(prefix) => {
            let page = client.topics(prefix, &[]).next().await?;
            let took = begun.elapsed();
            let count = page.map_or(0, |page| page.len());
            ensure!((count > 0) == (prefix == "seen."), "{prefix}: {count} topics");
            took
        }
    };
    Ok(stats::ms(took))
}
