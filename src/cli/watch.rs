//! `tailmark watch`.

use std::ffi::OsString;
use std::future::poll_fn;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::Poll;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use futures_core::Stream;

use super::each::Each;
use super::form::{Form, read};
use super::moment::{parse_cursor, parse_start};
use super::online::interruption;
use super::output::{Output, events_text, say, say_dimmed};
use super::pattern::{doubts, parse_pattern};
use super::signals::Stop;
use super::{Exit, Failure, ahead, state, terminal};
use tailmark_client::{
    Client, Error, FileStore, Item, Kind, OnLost, Received, Start, Watch, WatchOptions,
};
use tailmark_record::{Cursor, Marker, MarkerKind, Reason, Seq, consumer, json};
use tailmark_wire::feed_v1::LogStatus;

/// What is printed at once, and with `--state` before each save.
const BUFFER_BYTES: usize = 256 << 10;

/// What the server calls the arguments.
const TYPED: &[(&str, &str)] = &[
    ("topic", "PATTERN"),
    ("topics", "PATTERN"),
    ("after_cursor", "--after"),
    ("start", "--from"),
    ("start.seq", "--from"),
    ("start.time", "--from"),
    ("start.last", "--from"),
    ("limit", "--limit"),
];

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Topics; `*` stands for one segment, a final `>` for the rest; none = everything
    #[arg(value_name = "PATTERN", value_parser = parse_pattern)]
    patterns: Vec<String>,
    /// Begin after this cursor (or plain sequence number)
    #[arg(
        long,
        value_name = "CURSOR",
        conflicts_with = "from",
        value_parser = parse_cursor,
        allow_hyphen_values = true
    )]
    after: Option<String>,
    /// Where to begin: oldest, latest (default), SEQ, last:N, TIME or an age like 15m
    #[arg(long, value_name = "START", value_parser = parse_start, allow_hyphen_values = true)]
    from: Option<Start>,
    /// End after so many events
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=i64::MAX as u64))]
    limit: Option<u64>,
    /// End at what is the head when the watch begins
    #[arg(long)]
    until_caught_up: bool,
    /// Keep the cursor in this file: a next run goes on where this one ended, whatever --after and
    /// --from say; one file for one set of patterns
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// What to do when the start was trimmed or belongs to another log
    #[arg(long, value_parser = on_lost(), default_value = "fail")]
    on_lost: OnLost,
    /// Print markers too: where the watch resumed, when it caught up, gaps, also of what expired or was
    /// compacted away by rules for topics
    #[arg(long)]
    markers: bool,
    /// Leave out the gaps of what expired or was compacted away: only what is left comes
    #[arg(long)]
    compacted: bool,
    /// What this consumer is called in the server's figures: `tailmark status` and the metrics show its
    /// lag and rate under that name
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    name: Option<String>,
    /// Wait for the server if it cannot be reached at the beginning
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    form: Form,
    /// Run this for each event, one after the other, the body on its standard input; the cursor of an
    /// event is saved when its command has ended with 0
    #[arg(
        last = true,
        value_name = "COMMAND",
        conflicts_with_all = ["json", "raw", "columns", "verbose", "cursor", "markers"]
    )]
    command: Vec<OsString>,
}

fn parse_name(text: &str) -> Result<String, String> {
    if consumer::is_name(text) { Ok(text.to_owned()) } else { Err(consumer::RULE.to_owned()) }
}

/// What the command line has for each, and says of it.
const ON_LOST: [(OnLost, &str, &str); 4] = [
    (OnLost::Fail, "fail", "Fail, and say what is lost"),
    (OnLost::Oldest, "oldest", "Go on at the oldest readable event"),
    (OnLost::Latest, "latest", "Go on live"),
    (OnLost::LastCommon, "last-common", "Go on after the last event that both histories share"),
];

fn on_lost() -> impl TypedValueParser<Value = OnLost> {
    let values = ON_LOST.map(|(_, name, help)| PossibleValue::new(name).help(help));
    PossibleValuesParser::new(values).map(|chosen| {
        let known = ON_LOST.iter().find(|(_, name, _)| *name == chosen);
        known.map(|(on_lost, ..)| *on_lost).unwrap_or_default()
    })
}

pub(super) async fn run(args: Args, client: Client) -> Result<(), Failure> {
    if let Some(doubt) = doubts(&args.patterns).or_else(|| args.form.doubt(&args.patterns)) {
        say(&doubt);
    }
    let mut state = match &args.state {
        Some(path) => Some(state::open(path, &args.patterns)?),
        None => None,
    };
    let typed = typed(&args, state.as_ref());
    let options = options(&args, state.as_ref());
    let mut stop = Stop::listen()?;
    if !args.wait {
        tokio::select! {
            exit = stop.wait() => return Err(Failure::silent(exit)),
            met = meet(&client) => {
                let is_by_time = matches!(options.start, Start::Time(_)) && options.after_cursor.is_none();
                if let Some(what) = met?.as_ref().filter(|_| is_by_time).and_then(ahead::of_start) {
                    say(&what);
                }
            }
        }
    }
    let is_latest = options.start == Start::Latest && options.after_cursor.is_none();
    let mut watch = client.watch(options);
    let mut printer = Printer {
        output: args.form.output(),
        has_markers: args.markers,
        is_interrupted: false,
        events: 0,
        // Lines of JSON that end by themselves are a program's, also on a terminal.
        is_told: args.form.json.is_some() && args.until_caught_up
            || !std::io::stderr().is_terminal(),
        is_ending: args.until_caught_up,
        from_latest: is_latest,
        is_undone: false,
        has_run: false,
        form: args.form,
    };
    let each = Each::of(&args.command, args.state.is_some());
    let kept = state.as_mut();
    let outcome = follow(&mut watch, &mut printer, each.as_ref(), kept, &mut stop, typed).await;
    // Whatever ended it: what was printed is saved.
    let settled = settle(&watch, &mut printer, state.as_mut());
    watch.report(settled.is_ok() && !printer.is_undone).await;
    printer.go_apart();
    match (outcome, settled) {
        (Err(failure), Err(_)) | (Err(failure), Ok(())) | (Ok(()), Err(failure)) => Err(failure),
        (Ok(()), Ok(())) => Ok(()),
    }
}

/// A place that was given by its number: by which flag, and which.
#[derive(Clone, Copy)]
struct Typed(&'static str, Seq);

fn typed(args: &Args, state: Option<&FileStore>) -> Option<Typed> {
    if state.is_some_and(|state| state.cursor().is_some()) {
        return None;
    }
    match (args.from, args.after.as_deref().map(Cursor::parse)) {
        (Some(Start::Seq(seq)), _) => Some(Typed("--from", seq)),
        (_, Some(Ok(Cursor::Bare(seq)))) => Some(Typed("--after", seq)),
        _ => None,
    }
}

/// Why a watch ended. Nobody who typed a number has a cursor to think of.
fn failed(error: Error, typed: Option<Typed>) -> Failure {
    let fact = |name| error.metadata(name).unwrap_or("?");
    let said = match (typed, error.known_reason()) {
        (Some(Typed(flag, seq)), Some(Reason::CursorAhead)) => Some((
            format!("{flag} {seq}: the head is {} [CURSOR_AHEAD]", fact("head")),
            // What other programs print as a time, in seconds or milliseconds since 1970.
            match seq.get() {
                1_000_000_000.. => {
                    "a number is a seq; a time is written as in --from '2026-01-31 09:30'"
                }
                _ => "leave out --from and --after to get what comes next",
            },
        )),
        (Some(Typed(flag, seq)), Some(Reason::CursorTrimmed)) => Some((
            format!(
                "{flag} {seq}: what follows was trimmed, the oldest is {}, the head {} [CURSOR_TRIMMED]",
                fact("oldest"),
                fact("head")
            ),
            "--from oldest begins at the oldest; --on-lost oldest goes on there and says the gap",
        )),
        _ => None,
    };
    match said {
        Some((message, hint)) => Failure::new(Exit::NotFound, message).hint(hint),
        None => Failure::from(error).naming(TYPED),
    }
}

/// Asks whether a server is there at all: the watch itself would try for ever. Answers what it says of its
/// log, if it does.
pub(super) async fn meet(client: &Client) -> Result<Option<LogStatus>, Failure> {
    match client.log().await {
        Ok(status) => Ok(Some(status)),
        Err(error) if error.is_foreign() => Err(error.into()),
        // A server that gives a reason is one, and the watch deals with what it says.
        Err(error) if error.reason().is_empty() => match error.kind() {
            Kind::Connect | Kind::Unavailable | Kind::Timeout => Err(error.into()),
            _ => Ok(None),
        },
        Err(_) => Ok(None),
    }
}

fn options(args: &Args, state: Option<&FileStore>) -> WatchOptions {
    let mut options = WatchOptions::default();
    options.patterns = args.patterns.clone();
    options.after_cursor = args.after.clone();
    options.start = args.from.unwrap_or(Start::Latest);
    options.limit = args.limit.unwrap_or(0);
    options.until_caught_up = args.until_caught_up;
    // For gaps and reconnects; what is printed is another matter.
    options.markers = true;
    options.waits_for_server = args.wait;
    options.on_lost = args.on_lost;
    options.compacted = args.compacted;
    options.name = args.name.clone().unwrap_or_default();
    if let Some(cursor) = state.and_then(FileStore::cursor) {
        options.after_cursor = Some(cursor.to_owned());
    }
    options
}

/// What the next turn of the loop does.
enum Turn {
    Item(Option<Result<Item, Error>>),
    /// Nothing is there right now.
    Quiet,
    Stopped(Exit),
}

async fn follow(
    watch: &mut Watch,
    printer: &mut Printer,
    each: Option<&Each>,
    mut state: Option<&mut FileStore>,
    stop: &mut Stop,
    typed: Option<Typed>,
) -> Result<(), Failure> {
    // What is printed and saved; nothing at first, so that the resolved start is saved at once.
    let mut is_settled = true;
    loop {
        if let Some(exit) = stop.requested() {
            return Err(Failure::silent(exit));
        }
        let turn = if is_settled {
            tokio::select! {
                biased;
                exit = stop.wait() => Turn::Stopped(exit),
                item = poll_fn(|cx| Pin::new(&mut *watch).poll_next(cx)) => Turn::Item(item),
            }
        } else {
            poll_fn(|cx| match Pin::new(&mut *watch).poll_next(cx) {
                Poll::Ready(item) => Poll::Ready(Turn::Item(item)),
                Poll::Pending => Poll::Ready(Turn::Quiet),
            })
            .await
        };
        match turn {
            Turn::Stopped(exit) => return Err(Failure::silent(exit)),
            Turn::Item(None) => return Ok(()),
            Turn::Item(Some(Err(error))) => return Err(failed(error, typed)),
            Turn::Item(Some(Ok(item))) => {
                let is_done = match (&item, each) {
                    (Item::Event(received), Some(each)) => {
                        (printer.is_undone, printer.has_run) = (true, true);
                        let done = each.run(&read(received.bytes())?, stop).await;
                        if let (Err(_), Some(exit)) = (&done, stop.requested()) {
                            // It was asked to stop as well.
                            return Err(Failure::silent(exit));
                        }
                        done?;
                        printer.is_undone = false;
                        printer.events += 1;
                        true
                    }
                    _ => {
                        printer.print(item)?;
                        // The start is kept before the first command can fail.
                        each.is_some()
                    }
                };
                is_settled = false;
                if is_done || printer.output.buffer.len() >= BUFFER_BYTES {
                    settle(watch, printer, state.as_deref_mut())?;
                }
            }
            Turn::Quiet => {
                settle(watch, printer, state.as_deref_mut())?;
                is_settled = true;
            }
        }
    }
}

/// Hands over what is printed, then saves the cursor: never the other way round.
fn settle(
    watch: &Watch,
    printer: &mut Printer,
    state: Option<&mut FileStore>,
) -> Result<(), Failure> {
    printer.output.flush()?;
    if printer.is_undone {
        return Ok(());
    }
    if let (Some(state), Some(cursor)) = (state, watch.cursor()) {
        state.save(cursor)?;
    }
    Ok(())
}

struct Printer {
    form: Form,
    output: Output,
    has_markers: bool,
    is_interrupted: bool,
    /// Printed, or done.
    events: u64,
    /// Whoever watches knows that it is live, or nobody does.
    is_told: bool,
    is_ending: bool,
    from_latest: bool,
    /// The event that was handed over last is not dealt with: its cursor must not be kept.
    is_undone: bool,
    /// A command has, and may have left a line without an end.
    has_run: bool,
}

impl Printer {
    fn print(&mut self, item: Item) -> Result<(), Failure> {
        match item {
            Item::Event(event) => self.event(&event),
            Item::Marker(marker) => self.marker(&marker),
            Item::Interrupted { cause, retry_in } => {
                self.is_interrupted = true;
                let (cause, seconds) = (interruption(&cause), retry_in.as_secs_f32());
                self.say(&format!("{cause}; connecting again in {seconds:.1} s"))
            }
            _ => Ok(()),
        }
    }

    fn event(&mut self, received: &Received) -> Result<(), Failure> {
        self.events += 1;
        self.form.print(&mut self.output, &read(received.bytes())?);
        Ok(())
    }

    /// Goes to a line of its own on a terminal, whatever a command has left there.
    fn go_apart(&mut self) {
        if std::mem::take(&mut self.has_run) {
            terminal::go_to_new_line();
        }
    }

    /// Says something after what came before it.
    fn say(&mut self, text: &str) -> Result<(), Failure> {
        self.output.flush()?;
        self.go_apart();
        say(text);
        Ok(())
    }

    /// On a terminal, where somebody may ask themselves what a silent command does.
    fn say_live(&mut self, marker: &Marker) -> Result<(), Failure> {
        if std::mem::replace(&mut self.is_told, true) {
            return Ok(());
        }
        self.output.flush()?;
        self.go_apart();
        let (events, head) = (events_text(self.events), marker.head);
        say_dimmed(&match (self.events, self.is_ending, self.from_latest) {
            (_, true, _) => format!("{events} up to the head, {head}"),
            (0, false, true) => format!("live: what comes after the head, {head}, appears here"),
            (0, false, false) => format!("live: no event up to the head, {head}; waiting"),
            _ => format!("live: {events} up to the head, {head}; waiting for more"),
        });
        Ok(())
    }

    fn marker(&mut self, marker: &Marker) -> Result<(), Failure> {
        if marker.kind == MarkerKind::Resumed && std::mem::take(&mut self.is_interrupted) {
            self.say("connected again; nothing was missed")?;
        }
        if marker.kind == MarkerKind::CaughtUp {
            self.say_live(marker)?;
        }
        if marker.kind == MarkerKind::Gap {
            self.is_interrupted = false;
            // Never lost in silence; what rules let go is not lost.
            let is_lost = marker.gap.is_none_or(|gap| !gap.reason.is_intended());
            if is_lost && !self.has_markers {
                self.say(&marker_text(marker))?;
            }
        }
        if !self.has_markers {
            return Ok(());
        }
        let out = &mut self.output.buffer;
        if self.form.json.is_some() {
            json::write_marker(out, marker);
        } else {
            out.extend_from_slice(marker_text(marker).as_bytes());
        }
        out.push(b'\n');
        Ok(())
    }
}

fn marker_text(marker: &Marker) -> String {
    let name = marker.kind.name().unwrap_or("UNKNOWN").to_lowercase().replace('_', " ");
    let rest = match (marker.kind, marker.gap) {
        (MarkerKind::Gap, Some(gap)) => {
            let why = gap.reason.name().unwrap_or("UNKNOWN").to_lowercase().replace('_', " ");
            match gap.to.get() {
                0 => format!(": {why}"),
                _ => format!(": events {} to {} are not there ({why})", gap.from, gap.to),
            }
        }
        (MarkerKind::CaughtUp | MarkerKind::Heartbeat | MarkerKind::FellBehind, _) => {
            format!(", head {}", marker.head)
        }
        (_, _) => format!(", oldest {}, head {}", marker.oldest, marker.head),
    };
    format!("-- {name}{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use tailmark_record::{Gap, GapReason};

    #[test]
    fn markers_read_well() {
        let mut marker = Marker::new(MarkerKind::Gap, "7");
        marker.gap = Some(Gap { from: Seq::new(3), to: Seq::new(7), reason: GapReason::Trimmed });
        assert_eq!(marker_text(&marker), "-- gap: events 3 to 7 are not there (trimmed)");
        marker.gap = Some(Gap { from: Seq::ZERO, to: Seq::ZERO, reason: GapReason::LogChanged });
        assert_eq!(marker_text(&marker), "-- gap: log changed");
        assert_eq!(marker_text(&Marker::new(MarkerKind::CaughtUp, "7")), "-- caught up, head 0");
    }
}
