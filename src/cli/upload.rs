//! `tailmark upload`.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_core::Stream;
use indicatif::ProgressBar;
use tokio::sync::{mpsc, oneshot};

use super::input::{
    Chunk, Encoder, Format, InputError, Mapping, Summary, parse_delimiter, parse_mapping,
};
use super::message::quoted;
use super::output::{count_text, events_text, print_json, say};
use super::progress;
use super::publish::unreadable;
use super::signals::Stop;
use super::{Exit, Failure};
use tailmark_client::{Client, Error, Kind};
use tailmark_record::Limits;
use tailmark_record::json::Object;
use tailmark_record::topic::Topic;
use tailmark_wire::feed_v1 as pb;
use tailmark_wire::json;

/// Chunks read ahead of the network.
const CHUNKS_AHEAD: usize = 8;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
What came before a bad line or a cut stays stored. Events with ids may simply be uploaded again:
nothing is stored twice.")]
pub(super) struct Args {
    /// What to read; `-` or nothing reads standard input
    file: Option<PathBuf>,
    /// Where events go that name no topic
    #[arg(long)]
    topic: Option<String>,
    /// How lines say events
    #[arg(long, value_enum, default_value_t = Format::Lines)]
    format: Format,
    /// Of records and rows, which field of an event is which of theirs, as in key=.user.id; may be
    /// repeated
    #[arg(long = "map", value_name = "FIELD=.PATH", value_parser = parse_mapping)]
    mappings: Vec<Mapping>,
    /// Of csv, what parts the columns: one character, or `tab` [default: ,]
    #[arg(long, value_name = "CHAR", value_parser = parse_delimiter)]
    delimiter: Option<u8>,
    /// Of jsonl, pass over fields that no event has
    #[arg(long)]
    ignore_unknown: bool,
    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: Args, client: Client) -> Result<(), Failure> {
    if args.format == Format::Lines && args.topic.is_none() {
        return Err(Failure::new(Exit::Usage, "lines need a topic")
            .hint("add --topic TOPIC, or use --format jsonl with a topic in each object"));
    }
    let has_records = matches!(args.format, Format::Records | Format::Csv);
    if !has_records && !args.mappings.is_empty() {
        return Err(Failure::new(Exit::Usage, "--map is for records")
            .hint("add --format records (any JSON a line) or --format csv"));
    }
    if args.ignore_unknown && args.format != Format::Jsonl {
        return Err(Failure::new(Exit::Usage, "--ignore-unknown is for --format jsonl"));
    }
    if let Some(field) = Mapping::twice(&args.mappings) {
        let what = format!("--map {field}: given twice");
        return Err(Failure::new(Exit::Usage, what));
    }
    if args.delimiter.is_some() && args.format != Format::Csv {
        return Err(Failure::new(Exit::Usage, "--delimiter is for --format csv"));
    }
    let limits = match limits(&client).await {
        Ok(limits) => limits,
        Err(error) => return Err(refused(error, 0, args.json)),
    };
    if let Some(topic) = &args.topic {
        Topic::check(topic, &limits).map_err(|problem| {
            Failure::new(Exit::Usage, format!("--topic {}: {problem}", quoted(topic)))
        })?;
    }
    let (input, size) = open(args.file.as_deref())?;
    let mut stop = Stop::listen()?;
    let (send_chunk, chunks) = mpsc::channel(CHUNKS_AHEAD);
    let (tell_summary, summary) = oneshot::channel();
    let encoder = Encoder {
        format: args.format,
        mappings: args.mappings,
        delimiter: args.delimiter,
        ignores_unknown: args.ignore_unknown,
        topic: args.topic.unwrap_or_default(),
        limits,
        lines: Arc::default(),
    };
    std::thread::spawn(move || {
        let read = encoder.run(input, &send_chunk);
        // Told before the stream can end, so that it is there when the upload is over.
        let _ = tell_summary.send(read);
        drop(send_chunk);
    });
    let sent = Arc::new(AtomicU64::new(0));
    let (end_early, early) = oneshot::channel();
    let events = Events {
        chunks,
        current: Vec::new().into_iter(),
        early,
        sent: sent.clone(),
        progress: progress_bar(size),
    };
    let started = Instant::now();
    let mut upload = std::pin::pin!(client.upload(events));
    let mut stopped = None;
    let mut end_early = Some(end_early);
    let outcome = loop {
        tokio::select! {
            outcome = &mut upload => break outcome,
            exit = stop.wait(), if stopped.is_none() => {
                // Send no more, and wait for what was sent to become durable.
                stopped = Some(exit);
                drop(end_early.take());
            }
        }
    };
    let mut summary = summary;
    let read = summary.try_recv().unwrap_or_default();
    report(outcome, read, stopped, sent.load(Ordering::Relaxed), started.elapsed(), args.json)
}

/// The limits in force there; the defaults where a server does not tell.
async fn limits(client: &Client) -> Result<Limits, Error> {
    let status = match client.log().await {
        Ok(status) => status,
        Err(error) if error.kind() == Kind::Unsupported => return Ok(Limits::default()),
        Err(error) => return Err(error),
    };
    let mut limits = Limits::default();
    if let Some(told) = status.limits {
        let set = |ours: &mut usize, told: u64| {
            if told > 0 {
                *ours = usize::try_from(told).unwrap_or(usize::MAX);
            }
        };
        set(&mut limits.event_bytes, told.event_bytes);
        set(&mut limits.topic_bytes, told.topic_bytes);
        set(&mut limits.topic_segments, told.topic_segments);
        set(&mut limits.name_bytes, told.name_bytes);
        set(&mut limits.headers, told.headers);
        set(&mut limits.header_bytes, told.header_bytes);
    }
    Ok(limits)
}

fn open(path: Option<&Path>) -> Result<(Box<dyn Read + Send>, Option<u64>), Failure> {
    match path.filter(|path| path.as_os_str() != "-") {
        None => Ok((Box::new(std::io::stdin()), None)),
        Some(path) => {
            let name = path.display().to_string();
            let file = File::open(path).map_err(|error| unreadable(&name, &error))?;
            let metadata = file.metadata().map_err(|error| unreadable(&name, &error))?;
            if metadata.is_dir() {
                return Err(Failure::new(Exit::Usage, format!("{name} is a directory")));
            }
            let size = metadata.is_file().then_some(metadata.len());
            Ok((Box::new(file), size))
        }
    }
}

fn progress_bar(size: Option<u64>) -> ProgressBar {
    match size {
        Some(_) => progress::bar(size, "{bar:30} {percent}% {msg} {bytes_per_sec}, {eta} left"),
        None => progress::bar(None, "{spinner} {msg} {bytes_per_sec}"),
    }
}

/// The stream of encoded events.
struct Events {
    chunks: mpsc::Receiver<Chunk>,
    current: std::vec::IntoIter<Bytes>,
    /// Ends the stream when its sender is dropped.
    early: oneshot::Receiver<()>,
    sent: Arc<AtomicU64>,
    progress: ProgressBar,
}

impl Stream for Events {
    type Item = Bytes;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            if let Some(event) = self.current.next() {
                return Poll::Ready(Some(event));
            }
            if Pin::new(&mut self.early).poll(cx).is_ready() {
                self.chunks.close();
                return Poll::Ready(None);
            }
            match std::task::ready!(self.chunks.poll_recv(cx)) {
                Some(chunk) => {
                    let count = chunk.events.len() as u64;
                    let sent = self.sent.fetch_add(count, Ordering::Relaxed) + count;
                    self.progress.set_position(chunk.input_bytes);
                    if !self.progress.is_hidden() {
                        self.progress.set_message(events_text(sent));
                    }
                    self.current = chunk.events.into_iter();
                }
                None => return Poll::Ready(None),
            }
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.progress.finish_and_clear();
    }
}

fn report(
    outcome: Result<pb::UploadResult, Error>,
    read: Summary,
    stopped: Option<Exit>,
    sent: u64,
    elapsed: Duration,
    has_json: bool,
) -> Result<(), Failure> {
    let result = outcome.map_err(|error| refused(error, sent, has_json))?;
    say(&summary_text(&result, elapsed));
    if read.erased > 0 {
        let erased = count_text(read.erased, "erased event");
        say(&format!("{erased} passed over: nothing is left to store of what was erased"));
    }
    for mapping in &read.unmet {
        say(&format!("--map {mapping}: no record had it"));
    }
    if has_json {
        print_json(&json::upload_result(&result))?;
    }
    match read.error {
        Some(InputError::Line { line, message }) => {
            let is_unknown = message.starts_with("unknown field");
            let hint = match result.received {
                0 => "nothing is stored; mend the line and upload it again",
                _ => "what came before it is stored; mend the line and upload the rest",
            };
            let passed = "; --ignore-unknown passes over fields that no event has";
            Err(Failure::new(Exit::Usage, format!("line {line}: {message}"))
                .hint(format!("{hint}{}", if is_unknown { passed } else { "" })))
        }
        Some(InputError::Read(error)) => Err(unreadable("the input", &error)),
        None => stopped.map_or(Ok(()), |exit| Err(Failure::silent(exit))),
    }
}

fn refused(error: Error, sent: u64, has_json: bool) -> Failure {
    if has_json && let Err(unprinted) = print_json(&refusal_json(&error)) {
        unprinted.report();
    }
    let is_cut = matches!(error.kind(), Kind::Unavailable | Kind::Timeout);
    let kept = error.metadata("received").map(|received| match received.parse() {
        Ok(received) => events_text(received),
        Err(_) => format!("{received} events"),
    });
    // Counted from 0 on the wire, and by people from 1.
    let number = error.metadata("index").and_then(|index| index.parse::<u64>().ok());
    let number = number.map(|index| format!("; refused: event {} of the input", index + 1));
    let failure = Failure::from(error);
    match kept {
        Some(kept) if is_cut => failure.hint(format!(
            "stored before it: {kept}, and nothing after; run it again: events with ids are not \
             stored twice"
        )),
        Some(kept) => {
            failure.hint(format!("stored before it: {kept}{}", number.unwrap_or_default()))
        }
        None if is_cut && sent > 0 => failure.hint(format!(
            "handed to the connection: {}; how many of them are stored is not known; run it again: \
             events with ids are not stored twice",
            events_text(sent)
        )),
        None => failure,
    }
}

/// The error as plain HTTP tells it, and of the result what the server said about it.
fn refusal_json(error: &Error) -> Vec<u8> {
    let mut out = Vec::new();
    let mut object = Object::open(&mut out);
    object.object("error", |object| {
        object.text("code", error.code());
        object.text("reason", error.reason());
        object.text("message", &error.to_string());
        object.named_texts("metadata", error.all_metadata());
    });
    if let Some(received) = error.metadata("received").and_then(|text| text.parse::<u64>().ok()) {
        object.integer("received", i32::try_from(received).unwrap_or(i32::MAX));
    }
    object.text("last_cursor", error.metadata("last_cursor").unwrap_or_default());
    object.close();
    out
}

fn summary_text(result: &pb::UploadResult, elapsed: Duration) -> String {
    let received = u64::try_from(result.received).unwrap_or(0);
    // The count on the wire has 31 bits and stays at its end.
    let taken = received.max(result.stored.saturating_add(result.duplicates));
    let seconds = elapsed.as_secs_f64();
    let rate = taken as f64 / seconds.max(0.001);
    let span = match result.first_seq {
        0 => String::new(),
        first => format!(", seq {first} to {}", result.last_seq),
    };
    format!(
        "{} received, {} stored, {}{span}, {seconds:.2} s, {rate:.0} events/s",
        events_text(taken),
        result.stored,
        count_text(result.duplicates, "duplicate")
    )
}
