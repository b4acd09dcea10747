//! `tailmark metrics`.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use serde::Serialize;

use super::online::interruption;
use super::output::human_bytes;
use super::output::{Output, say};
use super::signals::Stop;
use super::terminal::is_capable;
use super::{Exit, Failure};
use crate::escape;
use tailmark_client::{Client, MetricsItem};
use tailmark_record::units;
use tailmark_wire::chat as pb;
use tailmark_wire::values::from_timestamp;

/// Endpoints shown at most.
const ENDPOINTS: usize = 8;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Time between two samples, in whole seconds up to an hour
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = parse_interval)]
    interval: u32,
    /// Print one sample and end
    #[arg(long)]
    once: bool,
    /// Print every figure as one JSON object a line
    #[arg(long)]
    json: bool,
}

fn parse_interval(text: &str) -> Result<u32, String> {
    let interval = units::parse_duration(text).map_err(|error| error.to_string())?;
    match u32::try_from(interval.as_secs()) {
        Ok(seconds @ 1..=3_600) if interval.subsec_nanos() == 0 => Ok(seconds),
        _ => Err("expected whole seconds, 1s to 1h".to_owned()),
    }
}

pub(super) async fn run(args: Args, client: Client) -> Result<(), Failure> {
    let mut stop = Stop::listen()?;
    let mut metrics = client.metrics(args.interval);
    let mut screen = Screen { painted: 0, is_live: is_capable(&io::stdout()) && !args.once };
    loop {
        let item = tokio::select! {
            biased;
            exit = stop.wait() => return end(exit, args.json),
            item = metrics.next() => item?,
        };
        match item {
            MetricsItem::Sample(sample) => {
                print(&args, &mut screen, &sample)?;
                if args.once {
                    return Ok(());
                }
            }
            MetricsItem::Interrupted { cause, retry_in } => {
                let seconds = retry_in.as_secs_f32();
                let cause = interruption(&cause);
                screen.painted = 0;
                say(&format!("{cause}; connecting again in {seconds:.1} s"));
            }
        }
    }
}

/// Being interrupted is how a live view ends; a stream of data was cut.
fn end(exit: Exit, has_json: bool) -> Result<(), Failure> {
    match exit {
        Exit::Interrupted if !has_json && io::stdout().is_terminal() => Ok(()),
        exit => Err(Failure::silent(exit)),
    }
}

fn print(args: &Args, screen: &mut Screen, sample: &[pb::Metric]) -> Result<(), Failure> {
    let mut output = if args.json { Output::json() } else { Output::text() };
    let view = View(sample);
    if args.json {
        for metric in sample {
            write_json(&mut output.buffer, metric)?;
        }
    } else if screen.is_live {
        screen.paint(&mut output.buffer, &view.table(), size())?;
    } else if args.once {
        for line in view.table() {
            writeln!(output.buffer, "{line}")?;
        }
    } else {
        writeln!(output.buffer, "{}", view.line())?;
    }
    Ok(output.flush()?)
}

#[derive(Serialize)]
struct Json<'a> {
    name: &'a str,
    value: f64,
    timestamp: String,
    labels: std::collections::BTreeMap<&'a str, &'a str>,
}

fn write_json(out: &mut Vec<u8>, metric: &pb::Metric) -> io::Result<()> {
    let json = Json {
        name: &metric.name,
        value: metric.value,
        timestamp: metric.timestamp.map(|t| from_timestamp(t).to_string()).unwrap_or_default(),
        labels: metric.labels.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect(),
    };
    serde_json::to_writer(&mut *out, &json)?;
    out.push(b'\n');
    Ok(())
}

/// Rows and columns of the terminal, where it says.
fn size() -> Option<(usize, usize)> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some((size.ws_row.into(), size.ws_col.into()))
}

/// Repaints in place.
struct Screen {
    /// Lines of the last picture, which the cursor stands below.
    painted: usize,
    is_live: bool,
}

impl Screen {
    fn paint(
        &mut self,
        out: &mut Vec<u8>,
        lines: &[String],
        size: Option<(usize, usize)>,
    ) -> io::Result<()> {
        let (rows, columns) = size.unwrap_or((usize::MAX, usize::MAX));
        // A line below must stay free, or the terminal scrolls.
        let shown = &lines[..lines.len().min(rows.saturating_sub(1))];
        if self.painted > 0 {
            write!(out, "\x1b[{}A\r", self.painted.min(rows.saturating_sub(1)))?;
        }
        for line in shown {
            writeln!(out, "{}\x1b[K", escape::fit(line, columns))?;
        }
        out.extend_from_slice(b"\x1b[J");
        self.painted = shown.len();
        Ok(())
    }
}

/// A name and cells in columns.
fn row(name: &str, cells: &[String]) -> String {
    let cells: Vec<_> = cells.iter().map(|cell| format!("{cell:>20}")).collect();
    format!("{name:<12}{}", cells.concat())
}

fn pair(name: &str, value: &str) -> String {
    format!("{name} {value}")
}

/// One sample, asked by name.
struct View<'a>(&'a [pb::Metric]);

impl<'a> View<'a> {
    fn find(&self, name: &str) -> Option<f64> {
        self.0.iter().find(|metric| metric.name == name).map(|metric| metric.value)
    }

    fn all(&self, name: &str, label: &str) -> Vec<(&'a str, f64)> {
        let named = self.0.iter().filter(|metric| metric.name == name);
        named.filter_map(|m| Some((m.labels.get(label)?.as_str(), m.value))).collect()
    }

    fn of(&self, name: &str, label: &str, text: &str) -> Option<f64> {
        self.all(name, label).into_iter().find(|(value, _)| *value == text).map(|(_, value)| value)
    }

    fn number(&self, name: &str) -> String {
        self.find(name).map_or_else(|| "-".to_owned(), grouped)
    }

    fn per_second(&self, name: &str) -> String {
        self.find(name).map_or_else(|| "-".to_owned(), |value| format!("{}/s", short(value)))
    }

    fn latency(&self, quantile: &str) -> String {
        match self.of("commit_latency_ms", "quantile", quantile) {
            Some(ms) if ms < 10.0 => format!("{ms:.2} ms"),
            Some(ms) => format!("{ms:.0} ms"),
            None => "-".to_owned(),
        }
    }

    fn bytes(&self, part: &str) -> String {
        self.of("disk_bytes", "part", part).map_or_else(|| "-".to_owned(), bytes)
    }

    fn state(&self) -> &'static str {
        let is_set = |name| self.find(name).is_some_and(|value| value > 0.0);
        match (is_set("appends_stopped"), is_set("trouble"), is_set("sealing")) {
            (true, _, _) => "APPENDS STOPPED: see the server's log",
            (_, true, _) => "TROUBLE: see the server's log",
            (_, _, true) => "sealing a segment",
            _ => "well",
        }
    }

    /// A screen.
    fn table(&self) -> Vec<String> {
        let mut lines = vec![self.title(), String::new()];
        lines.extend(self.throughput());
        lines.push(String::new());
        lines.extend(self.store());
        lines.extend(self.clients());
        lines.extend(self.process());
        lines.extend(self.endpoints());
        lines
    }

    /// Whose figures these are, and of when.
    fn title(&self) -> String {
        let first = self.0.first();
        let instance = first.and_then(|metric| metric.labels.get("instance"));
        let at = first.and_then(|metric| metric.timestamp).map(|t| from_timestamp(t).to_string());
        // A server of another kind may say anything, infinity too.
        let up = self.find("uptime_seconds").unwrap_or_default();
        let up = Duration::try_from_secs_f64(up).unwrap_or_default();
        let up = units::duration_text(Duration::from_secs(up.as_secs()));
        format!(
            "{}  up {up}  {}",
            escape::name(instance.map_or("", String::as_str)),
            at.unwrap_or_default()
        )
    }

    /// What goes through, in all and a second.
    fn throughput(&self) -> [String; 5] {
        let both = |name: &str| [self.number(name), self.per_second(&format!("{name}_per_second"))];
        let [appended, rate] = both("events_appended");
        let bytes = self
            .find("bytes_appended_per_second")
            .map_or_else(|| "-".to_owned(), |value| format!("{}/s", bytes(value)));
        [
            row("", &["total".into(), "rate".into(), "bytes".into()]),
            row("appended", &[appended, rate, bytes]),
            row("delivered", &both("events_delivered")),
            row("repeats", &both("events_duplicate")),
            row("commits", &both("commits")),
        ]
    }

    /// How the log is.
    fn store(&self) -> [String; 4] {
        [
            row(
                "latency",
                &[
                    pair("p50", &self.latency("0.5")),
                    pair("p99", &self.latency("0.99")),
                    pair("failed", &self.number("commits_failed")),
                ],
            ),
            row(
                "log",
                &[
                    pair("oldest", &self.number("oldest_seq")),
                    pair("head", &self.number("head_seq")),
                    pair("readable", &self.number("readable_events")),
                ],
            ),
            row(
                "disk",
                &[
                    pair("journal", &self.bytes("journal")),
                    pair("segments", &self.bytes("segments")),
                    pair("of them", &self.number("segments")),
                ],
            ),
            row(
                "reads",
                &[
                    pair("memory", &self.read_rate("memory")),
                    pair("disk", &self.read_rate("disk")),
                    pair("waiting", &self.number("reads_waiting")),
                ],
            ),
        ]
    }

    /// Who is there, and what waits for them.
    fn clients(&self) -> [String; 2] {
        let in_flight = self.find("in_flight_bytes").map_or_else(|| "-".to_owned(), bytes);
        [
            row(
                "open",
                &[
                    pair("connections", &self.number("connections")),
                    pair("watches", &self.number("watches")),
                    pair("uploads", &self.number("uploads")),
                ],
            ),
            row(
                "behind",
                &[
                    pair("slowest watch", &self.number("watch_lag_events")),
                    pair("in flight", &in_flight),
                ],
            ),
        ]
    }

    /// What the daemon takes of the machine, and whether it is well.
    fn process(&self) -> [String; 3] {
        [
            row("process", &[self.cpu(), self.memory()]),
            row("cores", &[]) + &self.cores(),
            row("state", &[]) + self.state(),
        ]
    }

    fn read_rate(&self, source: &str) -> String {
        let rate = self.of("reads_per_second", "source", source);
        rate.map_or_else(|| "-".to_owned(), |value| format!("{}/s", short(value)))
    }

    fn cpu(&self) -> String {
        let percent = self.of("cpu_usage", "core", "all");
        percent.map_or_else(|| "cpu -".to_owned(), |value| format!("cpu {value:.1} %"))
    }

    fn memory(&self) -> String {
        let mib = self.of("memory_usage", "type", "resident");
        mib.map_or_else(|| "memory -".to_owned(), |value| format!("memory {value:.1} MiB"))
    }

    fn cores(&self) -> String {
        let cores = self.all("cpu_usage", "core");
        let cores = cores.iter().filter(|(core, _)| *core != "all");
        cores.map(|(_, percent)| format!("{percent:>5.0} %")).collect()
    }

    /// The busiest.
    fn endpoints(&self) -> Vec<String> {
        let mut all = self.all("requests_per_second", "endpoint");
        all.retain(|(_, rate)| *rate > 0.0);
        all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(b.0)));
        let lines = all.into_iter().take(ENDPOINTS);
        let mut lines: Vec<_> = lines
            .map(|(name, rate)| format!("{:>10}/s  {}", short(rate), escape::name(name)))
            .collect();
        if !lines.is_empty() {
            lines.splice(0..0, [String::new(), "requests".to_owned()]);
        }
        lines
    }

    /// A line for those who are no terminal.
    fn line(&self) -> String {
        let at = self.0.first().and_then(|metric| metric.timestamp);
        let at = at.map(|t| from_timestamp(t).to_string()).unwrap_or_default();
        format!(
            "{at}  head {}  appended {}  delivered {}  p50 {}  p99 {}  watches {}  lag {}  {}  {}  {}",
            self.find("head_seq").unwrap_or(0.0),
            self.per_second("events_appended_per_second"),
            self.per_second("events_delivered_per_second"),
            self.latency("0.5"),
            self.latency("0.99"),
            self.number("watches"),
            self.number("watch_lag_events"),
            self.cpu(),
            self.memory(),
            self.state(),
        )
    }
}

/// Its whole part; a figure that is negative or no number is 0.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates")]
fn whole(value: f64) -> u64 {
    value as u64
}

fn bytes(value: f64) -> String {
    human_bytes(whole(value))
}

/// Three digits are enough for a rate.
fn short(value: f64) -> String {
    match value {
        v if v >= 1e6 => format!("{:.2} M", v / 1e6),
        v if v >= 1e4 => format!("{:.1} k", v / 1e3),
        v if v >= 100.0 => format!("{v:.0}"),
        v if v > 0.0 => format!("{v:.1}"),
        _ => "0".to_owned(),
    }
}

/// A whole number, by thousands.
fn grouped(value: f64) -> String {
    let digits = whole(value).to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metric(name: &str, value: f64, labels: &[(&str, &str)]) -> pb::Metric {
        let labels = labels.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
        pb::Metric { name: name.to_owned(), value, timestamp: None, labels }
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!([grouped(0.0), grouped(999.0), grouped(1_234_567.0)], ["0", "999", "1,234,567"]);
        let rates = [0.0, 0.04, 12.34, 250.4, 12_345.0, 2_345_678.0].map(short);
        assert_eq!(rates, ["0", "0.0", "12.3", "250", "12.3 k", "2.35 M"]);
    }

    #[test]
    fn no_number_of_a_server_is_too_much_for_the_screen() {
        let names = [
            "uptime_seconds",
            "cpu_usage",
            "memory_usage",
            "requests_per_second",
            "head_seq",
            "oldest_seq",
            "events_appended",
            "bytes_appended_per_second",
            "commit_latency_ms",
            "disk_bytes",
            "in_flight_bytes",
            "watch_lag_events",
            "readable_events",
            "trouble",
            "sealing",
        ];
        for value in [f64::INFINITY, f64::NEG_INFINITY, f64::NAN, f64::MAX, f64::MIN, -1.0, 0.0] {
            let labels =
                [("core", "all"), ("type", "resident"), ("part", "journal"), ("quantile", "0.99")];
            let all: Vec<_> = names.iter().map(|name| metric(name, value, &labels)).collect();
            assert!(!View(&all).table().is_empty(), "{value}");
        }
    }

    #[test]
    fn a_second_picture_covers_the_first() {
        let mut screen = Screen { painted: 0, is_live: true };
        let lines = ["one".to_owned(), "two".to_owned(), "three".to_owned()];
        let mut out = Vec::new();
        screen.paint(&mut out, &lines, None).unwrap();
        assert_eq!(out, b"one\x1b[K\ntwo\x1b[K\nthree\x1b[K\n\x1b[J");
        out.clear();
        // A smaller window: cut to it, with a line left for the cursor.
        screen.paint(&mut out, &lines, Some((3, 2))).unwrap();
        assert_eq!(out, b"\x1b[2A\ron\x1b[K\ntw\x1b[K\n\x1b[J");
        out.clear();
        screen.paint(&mut out, &lines[..1], None).unwrap();
        assert_eq!(out, b"\x1b[2A\rone\x1b[K\n\x1b[J");
    }

    #[test]
    fn what_a_server_says_is_shown_and_what_it_leaves_out_is_a_dash() {
        let sample = [
            metric("cpu_usage", 12.5, &[("instance", "a\x1b[2J"), ("core", "all")]),
            metric("events_appended", 1_500.0, &[]),
            metric("requests_per_second", 2.0, &[("endpoint", "/x.Y/Z")]),
            metric("appends_stopped", 1.0, &[]),
        ];
        let text = View(&sample).table().join("\n");
        for expected in ["a\\u{1b}[2J", "1,500", "cpu 12.5 %", "p99 -", "/x.Y/Z", "APPENDS STOPPED"]
        {
            assert!(text.contains(expected), "{expected}: {text}");
        }
        assert!(View(&sample).line().contains("appended -"));
    }

    #[test]
    fn an_interval_is_whole_seconds() {
        assert_eq!(parse_interval("2s"), Ok(2));
        assert_eq!(parse_interval("1h"), Ok(3_600));
        for bad in ["0", "500ms", "1500ms", "2h", "x", ""] {
            assert!(parse_interval(bad).is_err(), "{bad}");
        }
    }
}
