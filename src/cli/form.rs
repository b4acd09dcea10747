//! How events are printed: for people, as columns, as JSON, or their bodies alone.

use clap::builder::{PossibleValuesParser, TypedValueParser};

use super::output::Output;
use super::{Exit, Failure};
use tailmark_record::json::{self, Bodies};
use tailmark_record::{Content, Event};

/// What a column shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub(super) enum Column {
    /// The sequence number
    Seq,
    /// The cursor
    Cursor,
    /// When it was appended, by the server's clock
    AppendedAt,
    /// When it happened, as its sender said; else when it was appended
    At,
    /// The topic
    Topic,
    /// The id
    Id,
    /// The type
    Type,
    /// The key
    Key,
    /// The headers, as `name=value`
    Headers,
    /// The body, how many bytes of data there are, or why they were erased
    Body,
}

// How events are printed: no doc comment, since clap would print it as help.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct Form {
    /// Print id, type, key and headers too, and when it happened where that was said
    #[arg(long, short, conflicts_with_all = ["json", "raw", "columns"])]
    verbose: bool,
    /// Print cursors too
    #[arg(long, conflicts_with_all = ["json", "raw", "columns"])]
    cursor: bool,
    /// Print these, parted by tabs
    #[arg(long, value_name = "LIST", value_enum, value_delimiter = ',', conflicts_with_all = ["json", "raw"])]
    columns: Vec<Column>,
    /// Print bodies and data alone, as they are, each with a line end; nothing of what was erased
    #[arg(long, conflicts_with = "json")]
    raw: bool,
    /// Print one JSON object a line; `--json=value` has bodies that are JSON as values
    #[arg(
        long,
        value_name = "BODIES",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "text",
        value_parser = PossibleValuesParser::new(["text", "value"])
            .map(|name| Bodies::parse(&name).unwrap_or_default())
    )]
    pub json: Option<Bodies>,
}

impl Form {
    /// What was probably meant to be said of the form, and is a pattern.
    pub(super) fn doubt(&self, patterns: &[String]) -> Option<String> {
        self.json?;
        let name = patterns.iter().find(|it| Bodies::parse(it).is_some())?;
        Some(format!("`{name}` is a topic here; how bodies are printed is `--json={name}`"))
    }

    /// Where events in this form go.
    pub(super) fn output(&self) -> Output {
        if self.json.is_some() {
            Output::json()
        } else if self.raw {
            Output::raw()
        } else {
            Output::text()
        }
    }

    /// Appends an event, with a line end; nothing where it has nothing in this form.
    pub(super) fn print(&self, output: &mut Output, event: &Event<'_>) {
        if let Some(bodies) = self.json {
            json::write_event_as(&mut output.buffer, event, bodies);
        } else if self.raw {
            // It has none any more, which is not the same as an empty one.
            if event.is_erased() {
                return;
            }
            output.content(content(event));
        } else if self.columns.is_empty() {
            self.print_line(output, event);
        } else {
            for (at, column) in self.columns.iter().enumerate() {
                if at > 0 {
                    output.buffer.push(b'\t');
                }
                print_column(output, event, *column);
            }
        }
        output.buffer.push(b'\n');
    }

    fn print_line(&self, output: &mut Output, event: &Event<'_>) {
        print_column(output, event, Column::AppendedAt);
        output.buffer.extend_from_slice(b"  ");
        output.name(event.topic);
        output.buffer.extend_from_slice(format!("  {}  ", event.seq).as_bytes());
        if self.cursor {
            output.name(event.cursor);
            output.buffer.extend_from_slice(b"  ");
        }
        if self.verbose {
            print_labels(output, event);
        }
        print_column(output, event, Column::Body);
    }
}

fn print_column(output: &mut Output, event: &Event<'_>, column: Column) {
    let time = match column {
        Column::AppendedAt => event.appended_at,
        Column::At => event.at,
        _ => None,
    };
    match column {
        Column::Seq => output.buffer.extend_from_slice(event.seq.to_string().as_bytes()),
        Column::Cursor => output.name(event.cursor),
        Column::AppendedAt | Column::At => {
            if let Some(time) = time {
                time.write_to(&mut output.buffer);
            }
        }
        Column::Topic => output.name(event.topic),
        Column::Id => output.name(event.id),
        Column::Type => output.name(event.kind),
        Column::Key => output.name(event.key),
        Column::Headers => {
            for (at, (name, value)) in event.headers.iter().enumerate() {
                if at > 0 {
                    output.buffer.push(b' ');
                }
                print_label(output, name, value);
            }
        }
        Column::Body => match (&event.erased, event.content()) {
            (Some(erased), _) => output.body(&erased.in_words()),
            (None, Content::Empty) => {}
            (None, Content::Body(body)) => output.body(body),
            (None, Content::Data(data)) => output.data(data),
        },
    }
}

/// `id=i-1 type=created key=k a=b`, as far as there are any.
fn print_labels(output: &mut Output, event: &Event<'_>) {
    // A sender that says nothing is said to have meant the moment of appending.
    let at = event.at.filter(|at| Some(*at) != event.appended_at).map(|at| at.to_string());
    let named = [
        ("at", at.as_deref().unwrap_or_default()),
        ("id", event.id),
        ("type", event.kind),
        ("key", event.key),
    ];
    let named = named.into_iter().filter(|(_, value)| !value.is_empty());
    for (name, value) in named.chain(event.headers.iter().copied()) {
        print_label(output, name, value);
        output.buffer.extend_from_slice(b"  ");
    }
}

fn print_label(output: &mut Output, name: &str, value: &str) {
    output.name(name);
    output.buffer.push(b'=');
    output.name(value);
}

/// What it is about, as bytes.
pub(super) fn content<'a>(event: &Event<'a>) -> &'a [u8] {
    match event.content() {
        Content::Empty => &[],
        Content::Body(body) => body.as_bytes(),
        Content::Data(data) => data,
    }
}

/// The event in encoded form.
pub(super) fn read(bytes: &[u8]) -> Result<Event<'_>, Failure> {
    Event::parse(bytes).map_err(|error| {
        Failure::new(Exit::Failure, "the server sent what is no event").because(&error)
    })
}
