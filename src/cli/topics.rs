//! `tailmark topics`.

use comfy_table::{CellAlignment, ColumnConstraint, Table, Width, presets};

use super::Failure;
use super::message::quoted;
use super::output::{Output, print_line, say};
use super::pattern::{doubts, parse_pattern};
use crate::escape;
use tailmark_client::Client;
use tailmark_wire::feed_v1 as pb;
use tailmark_wire::json;
use tailmark_wire::values::from_timestamp;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only topics that one of these patterns selects, such as `orders.>`
    #[arg(value_name = "PATTERN", value_parser = parse_pattern)]
    patterns: Vec<String>,
    /// Only topics whose name begins with this
    #[arg(long, default_value = "", hide_default_value = true)]
    prefix: String,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

/// Page by page: there may be millions.
pub(super) async fn run(args: Args, client: Client) -> Result<(), Failure> {
    let patterns: Vec<&str> = args.patterns.iter().map(String::as_str).collect();
    let mut pages = client.topics(&args.prefix, &patterns);
    if args.json {
        let mut output = Output::json();
        while let Some(topics) = pages.next().await? {
            for topic in &topics {
                output.buffer.extend_from_slice(&json::topic(topic));
                output.buffer.push(b'\n');
            }
            output.flush()?;
        }
        return Ok(());
    }
    let mut widths = Vec::new();
    while let Some(topics) = pages.next().await? {
        print_line(&table(&topics, &mut widths))?;
    }
    if widths.is_empty() {
        let patterns = &args.patterns;
        let wide = patterns.iter().find_map(|it| it.strip_suffix(".*").or(it.strip_suffix('*')));
        match (wide, doubts(patterns)) {
            (_, Some(doubt)) => say(&format!("no topics; {doubt}")),
            (Some(stem), None) => {
                let stem = if stem.is_empty() { String::new() } else { format!("{stem}.") };
                say(&format!("no topics; `*` is one segment, and '{stem}>' has all below"));
            }
            (None, None) => match patterns.iter().find(|it| !it.contains(['*', '>'])) {
                Some(one) => {
                    let one = quoted(one);
                    say(&format!("no topics; '{one}' is one topic, and '{one}.>' has all below"));
                }
                None => say("no topics"),
            },
        }
    }
    Ok(())
}

/// A part of the table; no column is narrower than in the part before, if there was one.
fn table(topics: &[pb::TopicStatus], widths: &mut Vec<u16>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if widths.is_empty() {
        table.set_header(["TOPIC", "EVENTS", "LAST SEQ", "LAST AT"]);
    }
    for topic in topics {
        table.add_row([
            escape::name(&topic.topic).into_owned(),
            topic.events.to_string(),
            topic.last_seq.to_string(),
            topic.last_at.map(|t| from_timestamp(t).to_string()).unwrap_or_default(),
        ]);
    }
    for column in [1, 2] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for (at, width) in widths.iter().enumerate() {
        if let Some(column) = table.column_mut(at) {
            // With the room on both sides.
            let width = Width::Fixed(width.saturating_add(2));
            column.set_constraint(ColumnConstraint::LowerBoundary(width));
        }
    }
    let found = table.column_max_content_widths();
    let before = widths.iter().copied().chain(std::iter::repeat(0));
    *widths = found.into_iter().zip(before).map(|(now, before)| now.max(before)).collect();
    let lines: Vec<_> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stay_where_they_are_from_page_to_page() {
        let topic = |name: &str, events| {
            let topic = name.to_owned();
            pb::TopicStatus { topic, events, last_seq: events, last_at: None }
        };
        let mut widths = Vec::new();
        let first = table(&[topic("a.long.name", 1_000_000), topic("b", 1)], &mut widths);
        let second = table(&[topic("c", 7)], &mut widths);
        let place = |line: &str| line.split_whitespace().next_back().and_then(|it| line.rfind(it));
        let lines: Vec<_> = first.lines().chain(second.lines()).collect();
        assert_eq!(lines.len(), 4, "one head: {first}\n{second}");
        assert_eq!(lines[2].len(), lines[3].len(), "{first}\n{second}");
        assert!(place(lines[3]).is_some(), "{second}");
    }
}
