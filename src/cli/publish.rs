//! `tailmark publish`.

use std::io::{IsTerminal, Read};
use std::path::PathBuf;

use super::message::quoted;
use super::output::{print_json, print_line, say};
use super::pattern::doubt_of_topic;
use super::{Exit, Failure};
use tailmark_client::{Client, Expect};
use tailmark_record::{Seq, Timestamp};
use tailmark_wire::feed_v1 as pb;
use tailmark_wire::json;
use tailmark_wire::values::timestamp;

/// More than any server takes; a larger input is refused before it fills the memory.
const MAX_BODY_BYTES: u64 = 64 << 20;

/// What the server calls the arguments.
const TYPED: &[(&str, &str)] = &[
    ("topic", "TOPIC"),
    ("id", "--id"),
    ("type", "--type"),
    ("key", "--key"),
    ("at", "--at"),
    ("headers", "--header"),
    ("header_bytes", "--header"),
    ("expected_head", "--expect-head"),
    ("event", "the event, encoded"),
];

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where it goes, as in orders.eu.created
    topic: String,
    /// The content; `-` reads standard input; what is no text is stored as data
    #[arg(conflicts_with = "file")]
    body: Option<String>,
    /// Read the content from a file
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Its name: sent again, it is not stored twice
    #[arg(long)]
    id: Option<String>,
    /// What kind of event it is
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// What it is about
    #[arg(long)]
    key: Option<String>,
    /// When it happened, instead of when it is stored
    #[arg(long, value_name = "TIME", value_parser = super::moment::parse_time)]
    at: Option<Timestamp>,
    /// A header; may be repeated
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = parse_header)]
    headers: Vec<(String, String)>,
    /// Store only if the log's last sequence number is still this
    #[arg(long, value_name = "SEQ", value_parser = super::moment::parse_seq)]
    expect_head: Option<Seq>,
    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn parse_header(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

pub(super) async fn run(args: Args, client: Client) -> Result<(), Failure> {
    for (at, (name, _)) in args.headers.iter().enumerate() {
        if args.headers[..at].iter().any(|(before, _)| before == name) {
            let what = format!("--header {}: given twice", quoted(name));
            return Err(Failure::new(Exit::Usage, what));
        }
    }
    let is_bare = args.body.is_none() && args.file.is_none();
    let content = content(&args)?;
    let (body, data) = match String::from_utf8(content) {
        Ok(body) => (body, Vec::new()),
        Err(error) => (String::new(), error.into_bytes()),
    };
    // It is a topic all the same, which a program may want.
    let doubt = doubt_of_topic(&args.topic).filter(|_| std::io::stderr().is_terminal());
    let has_id = args.id.is_some();
    let event = pb::Event {
        id: args.id.unwrap_or_default(),
        topic: args.topic,
        body,
        data: data.into(),
        r#type: args.kind.unwrap_or_default(),
        key: args.key.unwrap_or_default(),
        at: args.at.map(timestamp),
        headers: args.headers.into_iter().collect(),
        ..pb::Event::default()
    };
    let expect = args.expect_head.map(|seq| Expect { topic: String::new(), seq });
    let result = client.publish(event, expect).await.map_err(|error| {
        // What speaks no HTTP/2 stores no event. A proxy may have passed it on before it answered.
        let is_elsewhere = error.is_foreign() && error.http_status().is_none();
        let may_have_applied = error.may_have_applied() && !is_elsewhere;
        let failure = Failure::from(error).naming(TYPED);
        match (may_have_applied, has_id) {
            (true, true) => {
                failure.hint("it may be stored; run it again: with --id it is not stored twice")
            }
            (true, false) => failure.hint(
                "it may be stored; look before you run it again (with --id you would not need to)",
            ),
            _ => failure,
        }
    })?;
    if let Some(doubt) = doubt {
        say(&doubt);
    }
    if is_bare && has_input() {
        say(
            "standard input was not read, and the event has no body: `-` in place of BODY takes it from there",
        );
    }
    if args.json {
        return print_json(&json::publish_result(&result));
    }
    let duplicate = if result.duplicate { "  (was there already)" } else { "" };
    print_line(&format!("{}  {}{duplicate}", result.seq, result.cursor))
}

fn content(args: &Args) -> Result<Vec<u8>, Failure> {
    let (mut input, name): (Box<dyn Read>, String) = match (&args.file, args.body.as_deref()) {
        (Some(path), _) if path.as_os_str() == "-" => from_stdin(),
        (Some(path), _) => {
            let name = path.display().to_string();
            let file = std::fs::File::open(path).map_err(|error| unreadable(&name, &error))?;
            (Box::new(file), name)
        }
        (None, Some("-")) => from_stdin(),
        (None, body) => return Ok(body.unwrap_or_default().as_bytes().to_vec()),
    };
    let mut content = Vec::new();
    input
        .by_ref()
        .take(MAX_BODY_BYTES + 1)
        .read_to_end(&mut content)
        .map_err(|error| unreadable(&name, &error))?;
    if content.len() as u64 > MAX_BODY_BYTES {
        let what = format!("{name} is larger than an event may be");
        return Err(Failure::new(Exit::Usage, what).hint("`upload` stores one event a line"));
    }
    Ok(content)
}

fn from_stdin() -> (Box<dyn Read>, String) {
    (Box::new(std::io::stdin().lock()), "standard input".to_owned())
}

/// Whether something waits on standard input: bytes in a pipe, or a file that has some.
fn has_input() -> bool {
    let stdin = std::io::stdin();
    let Ok(status) = rustix::fs::fstat(&stdin) else { return false };
    match rustix::fs::FileType::from_raw_mode(status.st_mode) {
        rustix::fs::FileType::RegularFile => status.st_size > 0,
        rustix::fs::FileType::Fifo => {
            rustix::io::ioctl_fionread(&stdin).is_ok_and(|bytes| bytes > 0)
        }
        _ => false,
    }
}

/// A file that cannot be read.
pub(super) fn unreadable(name: &str, error: &std::io::Error) -> Failure {
    let exit = match error.kind() {
        std::io::ErrorKind::NotFound => Exit::NotFound,
        _ => Exit::Failure,
    };
    Failure::new(exit, format!("cannot read {name}")).because(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read() {
        let pair = |n: &str, v: &str| Ok((n.to_owned(), v.to_owned()));
        assert_eq!(parse_header("a=b"), pair("a", "b"));
        assert_eq!(parse_header("a=b=c"), pair("a", "b=c"));
        assert_eq!(parse_header("a="), pair("a", ""));
        assert!(parse_header("=b").is_err() && parse_header("a").is_err());
    }

    #[test]
    fn the_result_is_proto3_json() {
        let result = pb::PublishResult {
            id: "i".into(),
            seq: 7,
            cursor: "t".into(),
            duplicate: true,
            appended_at: Some(prost_types::Timestamp { seconds: 0, nanos: 0 }),
            durability: 1,
        };
        assert_eq!(
            String::from_utf8(json::publish_result(&result)).unwrap(),
            r#"{"id":"i","seq":"7","cursor":"t","duplicate":true,"appended_at":"1970-01-01T00:00:00Z","durability":"FSYNC"}"#
        );
    }
}
