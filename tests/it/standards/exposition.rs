//! The text formats of `/metrics`: Prometheus 0.0.4 and OpenMetrics 1.0.0, as a client asks.

use http::Version;

use crate::support::openmetrics;
use crate::support::server::{TestServer, start};
use crate::support::web::{Answer, BOTH, ask, request, with};

const CLASSIC: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPEN: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const OPEN_OLD: &str = "application/openmetrics-text; version=0.0.1; charset=utf-8";

/// As Prometheus 3 and 2.4 ask.
const PROMETHEUS_3: &str = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
    application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;\
    q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
const PROMETHEUS_2: &str = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;\
    encoding=delimited;q=0.7,text/plain;version=0.0.4;q=0.3,*/*;q=0.1";

async fn scrape(server: &TestServer, version: Version, accept: &[&str]) -> Answer {
    let headers: Vec<_> = accept.iter().map(|&value| ("accept", value)).collect();
    ask(server.address, version, with(request(server, "GET", "/metrics"), &headers)).await
}

#[tokio::test]
async fn the_format_is_the_one_that_is_asked_for() {
    let server = start().await;
    for (accept, expected) in [
        // Nothing, anything, and what nobody here has: what every scraper reads.
        (&[][..], CLASSIC),
        (&[""], CLASSIC),
        (&["*/*"], CLASSIC),
        (&["application/json"], CLASSIC),
        (&["text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"], CLASSIC),
        (&["application/vnd.google.protobuf"], CLASSIC),
        (&["\"", ";;,,;q", "text/plain;q=x"], CLASSIC),
        (&["*/*;q=0"], CLASSIC),
        // As it is named.
        (&["text/plain"], CLASSIC),
        (&["text/plain; version=0.0.4"], CLASSIC),
        (&["text/*"], CLASSIC),
        (&["application/openmetrics-text"], OPEN),
        (&["application/openmetrics-text; version=1.0.0"], OPEN),
        (&["application/openmetrics-text; version=\"1.0.0\""], OPEN),
        (&["application/openmetrics-text; version=0.0.1"], OPEN_OLD),
        (&["Application/OpenMetrics-Text; Version=1.0.0; Charset=UTF-8"], OPEN),
        (&["application/openmetrics-text;version=1.0.0;escaping=underscores"], OPEN),
        (&["application/*"], OPEN),
        // A version that is not spoken here.
        (&["application/openmetrics-text; version=2.0.0"], CLASSIC),
        (&["application/openmetrics-text; version=2.0.0, */*;q=0.1"], CLASSIC),
        (&["application/openmetrics-text; version=2.0.0, application/*;q=0.1"], OPEN),
        // What is wanted most.
        (&[PROMETHEUS_3], OPEN),
        (&[PROMETHEUS_2], CLASSIC),
        (&["text/plain;q=0.5, application/openmetrics-text"], OPEN),
        (&["text/plain, application/openmetrics-text;q=0.9"], CLASSIC),
        (&["application/openmetrics-text;Q=0.2 , text/plain ; q=0.1"], OPEN),
        (&["application/openmetrics-text;q=0.001,text/plain;q=0.000"], OPEN),
        // Wanted the same: what is named before what is only covered, then what is named first.
        (&["*/*, application/openmetrics-text"], OPEN),
        (&["application/openmetrics-text, text/plain"], OPEN),
        (&["text/plain, application/openmetrics-text"], CLASSIC),
        // The closest range counts, and 0 is no.
        (&["text/plain;q=0, */*"], OPEN),
        (&["application/openmetrics-text;q=0, */*;q=0.1"], CLASSIC),
        (&["application/openmetrics-text;version=1.0.0;q=0, application/*"], OPEN_OLD),
        // Several headers are one list.
        (&["text/plain;q=0.1", "application/openmetrics-text;q=0.2"], OPEN),
    ] {
        for version in BOTH {
            let answer = scrape(&server, version, accept).await;
            assert_eq!(answer.status, 200, "{accept:?}");
            assert_eq!(answer.header("content-type"), expected, "{accept:?}");
            let vary: Vec<_> = answer.headers.get_all("vary").iter().collect();
            assert!(vary.iter().any(|value| *value == "accept"), "{vary:?}");
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn both_formats_hold_the_same_samples_each_by_its_own_rules() {
    let server = start().await;
    server.store("a", 3).await;
    // What an earlier scrape counts is there in both.
    for accept in [OPEN, CLASSIC] {
        scrape(&server, Version::HTTP_11, &[accept]).await;
    }
    let open = scrape(&server, Version::HTTP_11, &[OPEN]).await;
    let classic = scrape(&server, Version::HTTP_11, &[CLASSIC]).await;
    let (old, page) = (openmetrics::parse_classic(classic.text()), openmetrics::parse(open.text()));
    assert_eq!(old.samples.keys().collect::<Vec<_>>(), page.samples.keys().collect::<Vec<_>>());
    for (family, kind) in &page.families {
        let (name, expected) = match kind.as_str() {
            "counter" => (format!("{family}_total"), "counter"),
            "info" => (format!("{family}_info"), "gauge"),
            kind => (family.clone(), kind),
        };
        assert_eq!(old.families.get(&name).map(String::as_str), Some(expected), "{name}");
    }
    assert_eq!(old.families.len(), page.families.len());
    assert_eq!(old.sum("tailmark_events_appended_total", &[]), 3.0);
    server.stop().await;
}
