//! `StreamMetrics`, as a client of the second sketch knows it, and `tailmark metrics`.

use std::collections::{BTreeMap, HashMap};
use std::process::Command;
use std::time::{Duration, Instant};

use tailmark::server::Options;
use tailmark_client::{Client, MetricsItem};
use tailmark_wire::feed_v1 as pb;
use tokio::io::AsyncReadExt;
use tonic::{Code, Request, Streaming};

use super::scrape;
use crate::support::daemon::program;
use crate::support::proxy::Proxy;
use crate::support::server::{
    TestServer, bad_field, event, expect, new_log, start, start_with, until, within,
};

use crate::seed::chat as seed;
use seed::chat_service_client::ChatServiceClient;

async fn metrics(
    server: &TestServer,
    instance: &str,
    interval_seconds: i32,
) -> Result<Streaming<seed::Metric>, tonic::Status> {
    let instance_id = instance.to_owned();
    let request = seed::MetricsRequest { instance_id, interval_seconds };
    let mut client = ChatServiceClient::new(server.channel().await);
    Ok(within("metrics", client.stream_metrics(request)).await?.into_inner())
}

/// One sample, by name and labels without `instance`.
async fn sample(stream: &mut Streaming<seed::Metric>) -> HashMap<String, f64> {
    let mut all = HashMap::new();
    let mut at = None;
    loop {
        let metric = within("a figure", stream.message()).await.unwrap().expect("a figure");
        assert_eq!(*at.get_or_insert(metric.timestamp), metric.timestamp);
        assert!(metric.value.is_finite(), "{metric:?}");
        let mut labels: BTreeMap<_, _> = metric.labels.into_iter().collect();
        assert_eq!(labels.remove("instance").as_deref(), Some("server-01"), "{}", metric.name);
        let labels: Vec<_> = labels.iter().map(|(name, text)| format!("{name}={text}")).collect();
        let key = format!("{} {}", metric.name, labels.join(" ")).trim_end().to_owned();
        assert!(all.insert(key.clone(), metric.value).is_none(), "twice: {key}");
        if metric.name == "uptime_seconds" {
            return all;
        }
    }
}

#[tokio::test]
async fn a_sample_has_the_sketchs_figures_and_ours() {
    let server = start().await;
    server.store("orders.eu", 12).await;
    // As the sketch's client asks.
    let mut stream = metrics(&server, "server-01", 1).await.unwrap();
    let first = sample(&mut stream).await;
    for name in [
        "memory_usage type=resident",
        "requests_per_second endpoint=/feed.v1.FeedService/Publish",
        "requests_per_second endpoint=/chat.ChatService/StreamMetrics",
        "events_appended",
        "events_delivered",
        "events_appended_per_second",
        "watches",
        "connections",
        "head_seq",
        "oldest_seq",
        "readable_events",
        "disk_bytes part=journal",
        "disk_bytes part=segments",
        "watch_lag_events",
        "appends_stopped",
        "trouble",
    ] {
        assert!(first.contains_key(name), "{name}: {first:?}");
    }
    assert_eq!((first["events_appended"], first["head_seq"]), (12.0, 12.0));
    assert!((1.0..1e6).contains(&first["memory_usage type=resident"]));
    let second = sample(&mut stream).await;
    // Cores of the machine are percent of one core; the process may use several.
    assert!(second["cpu_usage core=all"] >= 0.0);
    assert!((0.0..=100.0).contains(&second["cpu_usage core=0"]));

    server.store("orders.eu", 3).await;
    let mut client = server.client().await;
    let request = pb::PublishRequest { event: Some(event("t", "b")), expected_head: None };
    client.publish(request).await.unwrap();
    within("the figures of what was done", async {
        let publish = "requests_per_second endpoint=/feed.v1.FeedService/Publish";
        let (mut saw_rate, mut saw_latency) = (false, false);
        loop {
            let sample = sample(&mut stream).await;
            saw_rate |= sample[publish] > 0.0 && sample["events_appended_per_second"] > 0.0;
            saw_latency |=
                sample.get("commit_latency_ms quantile=0.99").is_some_and(|ms| *ms > 0.0);
            if saw_rate && saw_latency && sample["events_appended"] == 16.0 {
                return;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_asked_for_is_checked() {
    let server = start().await;
    for bad in [-1, 3_601, i32::MIN, i32::MAX] {
        let status = metrics(&server, "", bad).await.unwrap_err();
        expect(&status, Code::InvalidArgument, "INVALID_FIELD");
        assert_eq!(bad_field(&status), "interval_seconds");
    }
    let status = metrics(&server, "server-02", 1).await.unwrap_err();
    let facts = expect(&status, Code::NotFound, "INSTANCE_NOT_FOUND");
    assert_eq!(facts["instance_id"], "server-01");
    for good in [0, 1, 3_600] {
        sample(&mut metrics(&server, "", good).await.unwrap()).await;
    }
    until("the ends", || server.gauges.metrics_streams() == 0).await;
}

#[tokio::test]
async fn an_hour_may_pass_between_two_samples_and_the_first_comes_at_once() {
    let server = start().await;
    let mut stream = metrics(&server, "", 3_600).await.unwrap();
    sample(&mut stream).await;
    // And yet the stop is heard at once.
    server.shutdown.cancel();
    let status = within("the end", stream.message()).await.unwrap_err();
    expect(&status, Code::Unavailable, "STOPPING");
    assert!(tonic_types::StatusExt::get_details_retry_info(&status).is_some());
    let gauges = server.gauges.clone();
    server.stop().await;
    until("nothing is open", || gauges.metrics_streams() == 0).await;
}

#[tokio::test]
async fn a_deadline_ends_it_and_so_does_its_client() {
    let server = start().await;
    let mut client = ChatServiceClient::new(server.channel().await);
    let mut request = Request::new(seed::MetricsRequest::default());
    request.metadata_mut().insert("grpc-timeout", "1500m".parse().unwrap());
    let began = Instant::now();
    let mut stream = within("metrics", client.stream_metrics(request)).await.unwrap().into_inner();
    let status = loop {
        match within("the end", stream.message()).await {
            Ok(metric) => assert!(metric.is_some(), "a regular end"),
            Err(status) => break status,
        }
    };
    assert!(began.elapsed() >= Duration::from_millis(1_400));
    // The server's word, or tonic's own clock, which looks at the same header.
    assert!([Code::DeadlineExceeded, Code::Cancelled].contains(&status.code()), "{status:?}");

    let mut open = Vec::new();
    for _ in 0..20 {
        open.push(metrics(&server, "", 1).await.unwrap());
    }
    for stream in &mut open {
        sample(stream).await;
    }
    assert_eq!(server.gauges.metrics_streams(), 20);
    drop((open, stream, client));
    until("the cut", || server.gauges.metrics_streams() == 0).await;
    within("the count", async {
        let gone = [("stream", "metrics"), ("reason", "client gone")];
        while scrape(&server).await.sum("tailmark_streams_ended_total", &gone) < 20.0 {}
    })
    .await;
}

#[tokio::test]
async fn a_client_comes_back_after_a_cut() {
    let server = start().await;
    let proxy = Proxy::to(server.address).await;
    let client = Client::new(&proxy.url()).unwrap();
    let mut metrics = client.metrics(1);
    let first = within("a sample", metrics.next()).await.unwrap();
    assert!(matches!(&first, MetricsItem::Sample(all) if all.len() > 20), "{first:?}");
    assert_eq!(proxy.cut(), 1);
    // Whatever was on its way may still come.
    let mut is_interrupted = false;
    loop {
        match within("the next", metrics.next()).await.unwrap() {
            MetricsItem::Interrupted { .. } => is_interrupted = true,
            MetricsItem::Sample(_) if is_interrupted => break,
            MetricsItem::Sample(_) => {}
        }
    }
    // Where nobody ever answered it does not wait.
    drop(proxy);
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = nobody.local_addr().unwrap();
    drop(nobody);
    let client = Client::new(&format!("http://{address}")).unwrap();
    assert!(within("a refusal", client.metrics(1).next()).await.is_err());
}

async fn run(server: &TestServer, args: &[&str]) -> std::process::Output {
    let mut command = program(args);
    command.arg("--addr").arg(format!("http://{}", server.address));
    within("the command", tokio::task::spawn_blocking(move || command.output()))
        .await
        .unwrap()
        .unwrap()
}

#[tokio::test]
async fn the_command_prints_one_sample_and_ends() {
    let server = start_with(new_log(), Options::default()).await;
    server.store("t", 1_234).await;
    let output = run(&server, &["metrics", "--once"]).await;
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    for expected in ["server-01  up ", "appended", "1,234", "head 1,234", "MiB", "state", "well"] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    assert!(!text.contains('\x1b'), "{text}");

    let output = run(&server, &["metrics", "--once", "--json"]).await;
    assert!(output.status.success(), "{output:?}");
    let mut names = Vec::new();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let metric: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(metric["value"].is_number() && metric["timestamp"].is_string(), "{line}");
        assert_eq!(metric["labels"]["instance"], "server-01");
        names.push(metric["name"].as_str().unwrap().to_owned());
    }
    assert!(names.contains(&"cpu_usage".to_owned()), "{names:?}");
    assert_eq!(names.last().unwrap(), "uptime_seconds");

    let output = run(&server, &["metrics", "--interval", "100ms"]).await;
    assert_eq!(output.status.code(), Some(2));
}

#[tokio::test]
async fn piped_it_prints_a_line_a_sample_until_it_is_told_to_stop() {
    let server = start().await;
    let mut command = program(&["metrics", "--interval", "1s", "--addr"]);
    command.arg(format!("http://{}", server.address));
    let mut child = tokio::process::Command::from(command)
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut text = String::new();
    let mut buffer = [0; 4096];
    while text.lines().count() < 2 || !text.ends_with('\n') {
        let read = within("a line", stdout.read(&mut buffer)).await.unwrap();
        assert!(read > 0, "{text}");
        text.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
    }
    for line in text.lines() {
        assert!(line.contains("  head 0  appended 0/s") && line.ends_with("well"), "{line}");
    }
    let pid = child.id().unwrap().to_string();
    let told = Command::new("kill").args(["-INT", &pid]).status().unwrap();
    assert!(told.success());
    let ended = within("the end", child.wait()).await.unwrap();
    assert_eq!(ended.code(), Some(130));
}
