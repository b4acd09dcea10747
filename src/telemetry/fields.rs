//! How a line shows its fields: what a client chose in them can neither end the line, nor drive the
//! terminal that it is read on, nor hide.

use std::fmt::{self, Debug};

use tracing::field::Field;
use tracing::{Event, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::escape;

/// Fields as `name=value`, the message as it is.
#[derive(Debug)]
pub(super) struct Shown;

impl<'writer> FormatFields<'writer> for Shown {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut visitor = Visitor { writer, is_first: true, result: Ok(()) };
        fields.record(&mut visitor);
        visitor.result
    }
}

struct Visitor<'writer> {
    writer: Writer<'writer>,
    is_first: bool,
    result: fmt::Result,
}

impl tracing::field::Visit for Visitor<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if self.result.is_ok() {
            self.result = self.write(field.name(), value);
        }
    }
}

impl Visitor<'_> {
    fn write(&mut self, name: &str, value: &dyn Debug) -> fmt::Result {
        let value = format!("{value:?}");
        let value = escape::line(&value);
        if !std::mem::take(&mut self.is_first) {
            self.writer.write_char(' ')?;
        }
        // A field that is a word of the language.
        let name = name.strip_prefix("r#").unwrap_or(name);
        match (name, self.writer.has_ansi_escapes()) {
            ("message", _) => self.writer.write_str(&value),
            (name, true) => {
                write!(self.writer, "\x1b[3m{name}\x1b[0m\x1b[2m=\x1b[0m{}", escape::mark(&value))
            }
            (name, false) => write!(self.writer, "{name}={value}"),
        }
    }
}

/// Lines of JSON in which the same is escaped; their values stay as they are.
#[derive(Debug)]
pub(super) struct ShownJson<F>(pub F);

impl<S, N, F> FormatEvent<S, N> for ShownJson<F>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    N: for<'fields> FormatFields<'fields> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = String::new();
        self.0.format_event(context, Writer::new(&mut line), event)?;
        writer.write_str(&escape::json(&line))
    }
}
