//! `tailmark bench`: what a running daemon does here, as a client sees it.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_core::Stream;
use tokio_stream::StreamExt;

use super::online::Online;
use super::output::{count_text, events_text, print_json, print_line};
use super::{Exit, Failure};
use tailmark_client::{Client, Item, ProducerOptions, Start, WatchOptions};
use tailmark_record::units::{parse_number, parse_size};
use tailmark_record::{Event, Seq};
use tailmark_wire::feed_v1 as pb;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Uploads events as fast as they become durable, then publishes one at a time
    ///
    /// Writes to the log of the daemon: use one made for it.
    Append(Online<Append>),
    /// Replays the log from its oldest event, then resumes at random places
    Replay(Online<Replay>),
}

#[derive(Debug, clap::Args)]
pub(super) struct Append {
    /// Events to upload
    #[arg(long, default_value = "1M", value_parser = parse_number)]
    events: u64,
    /// Bytes of each event's body
    #[arg(long, default_value = "200", value_parser = size)]
    size: u32,
    /// Topic to upload to
    #[arg(long, default_value = "bench.append")]
    topic: String,
    /// Give every event an id, so that repeats are looked for
    #[arg(long)]
    ids: bool,
    /// Append in batches, as a producer of this name: exactly once
    #[arg(long, value_name = "ID", conflicts_with = "ids")]
    producer: Option<String>,
    /// Events of a batch
    #[arg(long, default_value = "1000", requires = "producer", value_parser = batch)]
    batch: u32,
    /// Single publishes to time after the upload
    #[arg(long, default_value = "1000", value_parser = count)]
    publishes: u32,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Replay {
    /// Stop after so many events; 0 = at the head
    #[arg(long, default_value = "0", value_parser = parse_number)]
    events: u64,
    /// Only events of this pattern
    #[arg(long)]
    pattern: Option<String>,
    /// Resumes at random places to time after the replay
    #[arg(long, default_value = "100", value_parser = count)]
    resumes: u32,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

fn size(text: &str) -> Result<u32, String> {
    within(parse_size(text).map_err(|error| error.to_string())?, 16, 1_000_000)
}

fn batch(text: &str) -> Result<u32, String> {
    within(parse_number(text).map_err(|error| error.to_string())?, 1, 10_000)
}

fn count(text: &str) -> Result<u32, String> {
    within(parse_number(text).map_err(|error| error.to_string())?, 0, u32::MAX)
}

fn within(number: u64, least: u32, most: u32) -> Result<u32, String> {
    let number = u32::try_from(number).ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| format!("expected {least} to {most}"))
}

pub(super) fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Append(online) => online.run(async |args, client| {
            let typed = [("topic", "--topic"), ("open.producer_id", "--producer")];
            let report = append(&args, &client).await.map_err(|failure| failure.naming(&typed))?;
            print(&report, args.json)
        }),
        Command::Replay(online) => online.run(async |args, client| {
            let typed = [("topics", "--pattern")];
            let report = replay(&args, &client).await.map_err(|failure| failure.naming(&typed))?;
            print(&report, args.json)
        }),
    }
}

fn print(report: &Report, json: bool) -> Result<(), Failure> {
    if json {
        let text = serde_json::to_vec(report)
            .map_err(|error| Failure::new(Exit::Failure, "cannot print").because(&error))?;
        return print_json(&text);
    }
    print_line(&report.text())
}

/// What was measured.
#[derive(Debug, serde::Serialize)]
struct Report {
    work: &'static str,
    events: u64,
    bytes: u64,
    seconds: f64,
    events_per_second: f64,
    megabytes_per_second: f64,
    /// Of what, in words.
    latency_of: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    latency: Option<Latency>,
}

/// Milliseconds.
#[derive(Debug, serde::Serialize)]
struct Latency {
    samples: usize,
    p50_ms: f64,
    p90_ms: f64,
    p99_ms: f64,
    max_ms: f64,
}

impl Latency {
    fn of(mut samples: Vec<Duration>) -> Option<Latency> {
        samples.sort();
        let ms = |at: usize| samples.get(at).map(|d| d.as_secs_f64() * 1e3);
        // Nearest rank.
        let rank = |percent: usize| (samples.len() * percent).div_ceil(100).saturating_sub(1);
        Some(Latency {
            samples: samples.len(),
            p50_ms: ms(rank(50))?,
            p90_ms: ms(rank(90))?,
            p99_ms: ms(rank(99))?,
            max_ms: ms(samples.len().checked_sub(1)?)?,
        })
    }
}

impl Report {
    fn new(work: &'static str, events: u64, bytes: u64, took: Duration) -> Report {
        let seconds = took.as_secs_f64().max(1e-9);
        Report {
            work,
            events,
            bytes,
            seconds,
            events_per_second: events as f64 / seconds,
            megabytes_per_second: bytes as f64 / seconds / 1e6,
            latency_of: "",
            latency: None,
        }
    }

    fn text(&self) -> String {
        let mut text = format!(
            "{}  {}, {:.1} MB in {:.2} s: {:.0} events/s, {:.1} MB/s",
            self.work,
            events_text(self.events),
            self.bytes as f64 / 1e6,
            self.seconds,
            self.events_per_second,
            self.megabytes_per_second
        );
        if let Some(latency) = &self.latency {
            text.push_str(&format!(
                "\n{}  p50 {:.3} ms, p90 {:.3} ms, p99 {:.3} ms, max {:.3} ms ({})",
                self.latency_of,
                latency.p50_ms,
                latency.p90_ms,
                latency.p99_ms,
                latency.max_ms,
                count_text(latency.samples as u64, "sample")
            ));
        }
        text
    }
}

/// A JSON body of the wanted length.
fn body(size: u32) -> String {
    let frame = r#"{"text":""}"#;
    let filler = usize::try_from(size).unwrap_or_default().saturating_sub(frame.len());
    format!(r#"{{"text":"{}"}}"#, "x".repeat(filler))
}

async fn append(args: &Append, client: &Client) -> Result<Report, Failure> {
    let body = body(args.size);
    let mut template = Vec::new();
    let event = Event { topic: &args.topic, body: &body, ..Event::default() };
    event.write_client_part(&mut template);
    let (work, took) = match &args.producer {
        Some(id) => ("append as a producer", produce(args, client, id, &template).await?),
        None => {
            let named = args.ids.then(|| (uuid::Uuid::new_v4(), args.topic.clone(), body.clone()));
            let template = template.into();
            let events = Uploads { template, named, sent: 0, events: args.events };
            let begun = Instant::now();
            let result = client.upload(events).await?;
            if result.stored != args.events {
                let what = format!("{} of {} were stored", result.stored, events_text(args.events));
                return Err(Failure::new(Exit::Failure, what));
            }
            ("append", begun.elapsed())
        }
    };
    let bytes = args.events.saturating_mul(u64::from(args.size));
    let mut report = Report::new(work, args.events, bytes, took);
    let mut samples = Vec::new();
    for _ in 0..args.publishes {
        let event =
            pb::Event { topic: args.topic.clone(), body: body.clone(), ..pb::Event::default() };
        let begun = Instant::now();
        client.publish(event, None).await?;
        samples.push(begun.elapsed());
    }
    report.latency_of = "publish to durable ack";
    report.latency = Latency::of(samples);
    Ok(report)
}

/// The same event again and again, in batches; answers how long it took until all were durable.
async fn produce(
    args: &Append,
    client: &Client,
    id: &str,
    event: &[u8],
) -> Result<Duration, Failure> {
    let mut options = ProducerOptions::default();
    options.batch_events = usize::try_from(args.batch).unwrap_or(usize::MAX);
    options.batch_bytes = 3 << 20;
    options.waits_for_server = false;
    let producer = client.producer(id, options).await?;
    let begun = Instant::now();
    for _ in 0..args.events {
        // Flushing waits for them all.
        drop(producer.send_encoded(event).await?);
    }
    producer.flush().await?;
    let took = begun.elapsed();
    producer.close().await?;
    Ok(took)
}

/// The same event again and again, or each with a name of its own.
struct Uploads {
    template: Bytes,
    named: Option<(uuid::Uuid, String, String)>,
    sent: u64,
    events: u64,
}

impl Stream for Uploads {
    type Item = Bytes;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if self.sent == self.events {
            return Poll::Ready(None);
        }
        self.sent += 1;
        let Some((run, topic, body)) = &self.named else {
            return Poll::Ready(Some(self.template.clone()));
        };
        let id = format!("{}-{}", run.simple(), self.sent);
        let mut out = Vec::with_capacity(self.template.len() + 48);
        Event { id: &id, topic, body, ..Event::default() }.write_client_part(&mut out);
        Poll::Ready(Some(out.into()))
    }
}

async fn replay(args: &Replay, client: &Client) -> Result<Report, Failure> {
    let status = client.log().await?;
    let mut options = WatchOptions::default();
    options.patterns = args.pattern.iter().cloned().collect();
    options.start = Start::Oldest;
    options.limit = args.events;
    options.until_caught_up = true;
    let begun = Instant::now();
    let (mut events, mut bytes) = (0u64, 0u64);
    let mut watch = client.watch(options.clone());
    while let Some(item) = watch.next().await {
        if let Item::Event(event) = item? {
            events += 1;
            bytes += event.bytes().len() as u64;
        }
    }
    let mut report = Report::new("replay", events, bytes, begun.elapsed());
    let (oldest, head) = (status.oldest_seq, status.head_seq);
    let mut samples = Vec::new();
    if head >= oldest && oldest > 0 {
        for _ in 0..args.resumes {
            let seq = rand::random_range(oldest..=head);
            options.start = Start::Seq(Seq::new(seq));
            options.limit = 1;
            let begun = Instant::now();
            let mut watch = client.watch(options.clone());
            while let Some(item) = watch.next().await {
                if matches!(item?, Item::Event(_)) {
                    samples.push(begun.elapsed());
                    break;
                }
            }
        }
    }
    report.latency_of = "resume to first event";
    report.latency = Latency::of(samples);
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let samples = (1..=100).rev().map(Duration::from_millis).collect();
        let latency = Latency::of(samples).unwrap();
        assert_eq!((latency.p50_ms, latency.p99_ms, latency.max_ms), (50.0, 99.0, 100.0));
        let one = Latency::of(vec![Duration::from_millis(7)]).unwrap();
        assert_eq!((one.p50_ms, one.max_ms), (7.0, 7.0));
        assert!(Latency::of(Vec::new()).is_none());
    }

    #[test]
    fn a_body_has_the_wanted_length_and_is_json() {
        for size in [16, 200] {
            let text = body(size);
            assert_eq!(text.len(), size as usize);
            assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
        }
    }
}
