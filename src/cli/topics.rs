//! `tailmark topics`.

use comfy_table::{CellAlignment, Table, presets};

use super::Failure;
use super::output::{Output, print_line, say};
use crate::escape;
use tailmark_client::Client;
use tailmark_wire::feed_v1 as pb;
use tailmark_wire::json;
use tailmark_wire::values::from_timestamp;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only topics whose name begins with this
    prefix: Option<String>,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: Args, client: Client) -> Result<(), Failure> {
    let topics = client.topics(args.prefix.as_deref().unwrap_or_default()).await?;
    if args.json {
        let mut output = Output::json();
        for topic in &topics {
            output.buffer.extend_from_slice(&json::topic(topic));
            output.buffer.push(b'\n');
        }
        return Ok(output.flush()?);
    }
    if topics.is_empty() {
        say("no topics");
        return Ok(());
    }
    print_line(&table(&topics))
}

fn table(topics: &[pb::TopicStatus]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["TOPIC", "EVENTS", "LAST SEQ", "LAST AT"]);
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
    let lines: Vec<_> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n")
}
