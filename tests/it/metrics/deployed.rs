//! The table in `docs/metrics.md` and what lies in `deploy/`, held against a real page.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tailmark_wire::chat as chat_pb;
use tailmark_wire::chat::chat_service_client::ChatServiceClient;
use tailmark_wire::feed_v1 as pb;

use super::scrape;
use crate::peers::Others;
use crate::support::openmetrics::{Page, family_of};
use crate::support::server::{event, new_log, start_with_peers, watch, within};

fn file(path: &str) -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A page of a server that has done a little of everything, and the names of its stream.
async fn busy() -> (Page, BTreeMap<String, BTreeSet<String>>) {
    // Also what is told where several daemons share a log.
    let others = Arc::new(Others::default());
    others.says(1, 1);
    let (server, _) = start_with_peers(new_log(), others).await;
    let mut client = server.client().await;
    let request = pb::PublishRequest { event: Some(event("t", "b")), expected_head: None };
    client.publish(request).await.unwrap();
    let name = "billing".to_owned();
    let bounded = pb::WatchRequest { until_caught_up: true, name, ..pb::WatchRequest::default() };
    watch(&mut client, bounded).await.unwrap().rest().await;
    let mut chat = ChatServiceClient::new(server.channel().await);
    let request = chat_pb::MetricsRequest { interval_seconds: 1, ..Default::default() };
    let mut stream = chat.stream_metrics(request).await.unwrap().into_inner();
    // Figures of a pause and of a commit.
    client
        .publish(pb::PublishRequest { event: Some(event("t", "c")), expected_head: None })
        .await
        .unwrap();
    let mut streamed: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut samples = 0;
    while samples < 3 || !streamed.contains_key("commit_latency_ms") {
        let metric = within("a figure", stream.message()).await.unwrap().unwrap();
        if metric.name == "uptime_seconds" {
            samples += 1;
            let again = pb::PublishRequest { event: Some(event("t", "c")), expected_head: None };
            client.publish(again).await.unwrap();
        }
        streamed.entry(metric.name).or_default().extend(metric.labels.into_keys());
    }
    // The first page is a request that the second one counts.
    scrape(&server).await;
    (scrape(&server).await, streamed)
}

/// Rows `| name | type | labels | ...` of the table under a heading.
fn table(heading: &str) -> BTreeMap<String, (String, BTreeSet<String>)> {
    let text = file("docs/metrics.md");
    let from = text.find(heading).unwrap_or_else(|| panic!("no {heading}"));
    let section = &text[from + heading.len()..];
    let section = &section[..section.find("\n## ").unwrap_or(section.len())];
    let mut rows = BTreeMap::new();
    for line in section.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let [_, name, kind, labels, _help, _] = cells[..] else { panic!("{line}") };
        let labels = labels.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        let row = (kind.to_owned(), labels);
        assert!(rows.insert(name.trim_matches('`').to_owned(), row).is_none(), "twice: {line}");
    }
    rows
}

#[tokio::test]
async fn every_name_and_label_is_documented() {
    let (page, streamed) = busy().await;
    let mut written = table("## /metrics");
    for (family, kind) in &page.families {
        let full = match kind.as_str() {
            "counter" => format!("{family}_total"),
            "info" => format!("{family}_info"),
            _ => family.clone(),
        };
        let Some((documented, labels)) = written.remove(&full) else {
            panic!("{full} is not in docs/metrics.md");
        };
        assert_eq!(&documented, kind, "{full}");
        let found: BTreeSet<String> =
            page.labels(family).into_iter().filter(|l| *l != "le").map(str::to_owned).collect();
        assert_eq!(found, labels, "{full}");
    }
    assert!(written.is_empty(), "documented and not there: {written:?}");

    let mut written = table("## StreamMetrics");
    for (name, labels) in streamed {
        let Some((_, documented)) = written.remove(&name) else {
            panic!("{name} is not in docs/metrics.md");
        };
        assert_eq!(labels, documented, "{name}");
    }
    assert!(written.is_empty(), "documented and not there: {written:?}");
}

/// Words of an expression that are names of ours, with the labels that it asks of each.
fn names(expression: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    expression
        .split(|c| !is_part(c))
        .filter(|word| word.starts_with("tailmark_") || word.starts_with("process_"))
        .map(str::to_owned)
        .collect()
}

fn check(page: &Page, expression: &str) -> usize {
    let names = names(expression);
    for name in &names {
        let family = family_of(name, &page.families);
        assert!(page.families.contains_key(&family), "{name} in: {expression}");
        let kind = page.families[&family].as_str();
        let suffix = &name[family.len()..];
        let fits = match kind {
            "counter" => suffix == "_total",
            "info" => suffix == "_info",
            "histogram" => ["_bucket", "_sum", "_count"].contains(&suffix),
            _ => suffix.is_empty(),
        };
        assert!(fits, "{name} is a {kind}: {expression}");
        // Each name with the labels that the sum around it goes by.
        let before = &expression[..expression.find(name.as_str()).unwrap()];
        if let Some((_, by)) = before.rsplit_once("by (") {
            let labels = by.split(')').next().unwrap().split(',').map(str::trim);
            for label in labels.filter(|label| !["le", "instance"].contains(label)) {
                let known = page.labels(&family);
                assert!(known.contains(label), "{label} of {name}, which has {known:?}");
            }
        }
    }
    names.len()
}

#[tokio::test]
async fn the_dashboard_and_the_alerts_ask_only_for_what_is_there() {
    let (page, _) = busy().await;
    let dashboard: serde_json::Value =
        serde_json::from_str(&file("deploy/grafana/tailmark.json")).unwrap();
    let mut asked = 0;
    let mut ids = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
        for target in panel["targets"].as_array().unwrap() {
            let found = check(&page, target["expr"].as_str().unwrap());
            assert!(found > 0, "{target}");
            asked += found;
        }
    }
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        asked += check(&page, variable["query"].as_str().unwrap());
    }
    assert!(asked > 40, "{asked}");

    let alerts = file("deploy/prometheus/alerts.yml");
    let mut checked = 0;
    for (at, _) in alerts.match_indices("expr:") {
        let rest = &alerts[at..];
        let ends = ["\n        for:", "\n        labels:"].map(|next| rest.find(next));
        let expression = &rest[..ends.into_iter().flatten().min().unwrap()];
        // Prometheus makes `up` itself.
        assert!(check(&page, expression) > 0 || expression.contains("up{"), "{expression}");
        checked += 1;
    }
    assert_eq!(checked, alerts.matches("- alert:").count());
    assert!(checked > 5, "{checked}");
    assert!(file("deploy/prometheus/scrape.yml").contains("metrics_path: /metrics"));
}
