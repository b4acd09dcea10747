//! The line at the end of each stream, as JSON, of the program itself.

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use serde_json::Value;
use tailmark_record::Cursor;
use tailmark_wire::feed_v1 as pb;
use tailmark_wire::feed_v1::feed_service_client::FeedServiceClient;
use tokio_stream::StreamExt as _;

use crate::support::daemon::{feed, program};

/// A daemon's log lines, while `work` used it.
fn lines(settings: &[(&str, &str)], work: impl FnOnce(&str)) -> Vec<Value> {
    let dir = tempfile::tempdir().unwrap();
    let mut command = program(&["serve", "--listen", "127.0.0.1:0", "--data-dir"]);
    command.arg(dir.path()).env("TAILMARK_STORAGE_SLOT_BYTES", "256 KiB");
    command
        .env("TAILMARK_STORAGE_MIN_FREE_BYTES", "0")
        .env("TAILMARK_LIMITS_EVENT_BYTES", "64 KiB");
    command.env("TAILMARK_TELEMETRY_LOG_FORMAT", "json").envs(settings.iter().copied());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = child.stderr.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        stderr.read_to_string(&mut text).map(|_| text)
    });
    let mut ready = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    let address = ready.strip_prefix("ready on ").and_then(|rest| rest.split(',').next()).unwrap();
    work(&format!("http://{address}"));
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(child.wait().unwrap().success());
    let text = reader.join().unwrap().unwrap();
    let line = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    text.lines().map(line).collect()
}

fn run(address: &str, args: &[&str], input: &[u8]) {
    let output = feed(program(args).arg("--addr").arg(address), input);
    assert!(output.status.success(), "{args:?}: {output:?}");
}

/// An append of two events and a chat with one message.
async fn append_and_chat(address: &str) {
    use pb::append_request::{Batch, Kind, Open};
    let mut client = FeedServiceClient::connect(address.to_owned()).await.unwrap();
    let open = Open { producer_id: "till-7".into(), epoch: 0 };
    let event = |topic: &str| pb::Event { topic: topic.into(), ..Default::default() };
    let events = vec![event("jobs.nightly"), event("jobs.hourly")];
    let batch = Batch { producer_seq: 1, events, ..Default::default() };
    let said = [Kind::Open(open), Kind::Batch(batch)];
    let said = said.map(|kind| pb::AppendRequest { kind: Some(kind) });
    let answers = client.append(tokio_stream::iter(said)).await.unwrap().into_inner();
    assert_eq!(answers.map(Result::unwrap).collect::<Vec<_>>().await.len(), 2);
    let message = pb::ChatMessage {
        from: "ann".into(),
        room: "the.room".into(),
        text: "hello".into(),
        ..Default::default()
    };
    let answers = client.chat(tokio_stream::once(message)).await.unwrap().into_inner();
    assert_eq!(answers.map(Result::unwrap).collect::<Vec<_>>().await.len(), 1);
}

#[test]
fn every_stream_ends_with_a_line_that_says_how() {
    let lines = lines(&[], |address| {
        run(address, &["upload", "--topic", "orders.eu", "-"], b"one\ntwo\nthree\n");
        run(address, &["watch", "orders.>", "--from", "oldest", "--limit", "2"], b"");
        run(address, &["metrics", "--once"], b"");
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(append_and_chat(address));
    });
    assert!(lines.iter().all(|line| line["level"] == "INFO"), "{lines:?}");
    let ended = |message: &str| {
        let mut found = lines.iter().filter(|line| line["message"] == message);
        let line = found.next().unwrap_or_else(|| panic!("no {message}: {lines:?}")).clone();
        assert!(found.next().is_none(), "{message} twice");
        assert!(line["seconds"].as_f64().unwrap() >= 0.0, "{line}");
        assert!(line["span"]["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{line}");
        line
    };
    let upload = ended("upload ended");
    assert_eq!((&upload["events"], &upload["reason"]), (&3.into(), &"done".into()));
    let append = ended("append ended");
    assert_eq!((&append["events"], &append["reason"]), (&2.into(), &"done".into()));
    let chat = ended("chat ended");
    assert_eq!((&chat["messages"], &chat["reason"]), (&1.into(), &"done".into()));
    assert_eq!(upload["span"]["topic"], "orders.eu");
    assert_eq!(append["span"]["topic"], "jobs.nightly");
    assert_eq!(append["span"]["producer"], "till-7");
    assert_eq!((&chat["span"]["room"], &chat["span"]["start"]), (&"the.room".into(), &6.into()));
    let watch = ended("watch ended");
    assert_eq!((&watch["events"], &watch["reason"]), (&2.into(), &"limit".into()));
    assert_eq!(
        (&watch["span"]["patterns"], &watch["span"]["start"]),
        (&"orders.>".into(), &1.into())
    );
    // Where each of them was at its end.
    for (line, seq) in [(&upload, 3), (&watch, 2), (&append, 5), (&chat, 6)] {
        let cursor = Cursor::parse(line["span"]["cursor"].as_str().unwrap()).unwrap();
        assert_eq!(cursor.seq().get(), seq, "{line}");
    }
    let metrics = ended("metrics stream ended");
    assert_eq!((&metrics["samples"], &metrics["reason"]), (&1.into(), &"client gone".into()));
}

#[cfg(not(feature = "otlp"))]
#[test]
fn a_program_without_traces_says_so() {
    let endpoint = ("TAILMARK_TELEMETRY_OTLP_ENDPOINT", "http://127.0.0.1:4317");
    let output = program(&["config", "check"]).envs([endpoint]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("telemetry.otlp_endpoint") && said.contains("--features otlp"), "{said}");
}

#[cfg(feature = "otlp")]
mod traces {
    use std::sync::{Arc, Mutex};

    use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
        TraceService, TraceServiceServer,
    };
    use opentelemetry_proto::tonic::collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
    };
    use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
    use opentelemetry_proto::tonic::trace::v1::Span;
    use tonic::{Request, Response, Status};

    use super::{FeedServiceClient, pb};

    #[derive(Clone, Default)]
    struct Collector(Arc<Mutex<Vec<ExportTraceServiceRequest>>>);

    #[tonic::async_trait]
    impl TraceService for Collector {
        async fn export(
            &self,
            request: Request<ExportTraceServiceRequest>,
        ) -> Result<Response<ExportTraceServiceResponse>, Status> {
            self.0.lock().unwrap().push(request.into_inner());
            Ok(Response::new(ExportTraceServiceResponse::default()))
        }
    }

    fn attribute(span: &Span, name: &str) -> Any {
        let found = span.attributes.iter().find(|attribute| attribute.key == name);
        let value = found.and_then(|attribute| attribute.value.as_ref()?.value.clone());
        value.unwrap_or_else(|| panic!("no {name}: {span:?}"))
    }

    #[test]
    fn a_collector_gets_a_span_of_each_stream_on_the_trace_of_its_client() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let collector = Collector::default();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        let service = TraceServiceServer::new(collector.clone());
        runtime.spawn(
            tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming),
        );
        let trace = "0af7651916cd43dd8448eb211c80319c";
        // Lines that are not logged are traced all the same.
        let settings = [
            ("TAILMARK_TELEMETRY_OTLP_ENDPOINT", endpoint.as_str()),
            ("TAILMARK_TELEMETRY_LOG_LEVEL", "warn"),
        ];
        let logged = super::lines(&settings, |address| {
            super::run(address, &["publish", "orders.eu", "body"], b"");
            runtime.block_on(async {
                let mut client = FeedServiceClient::connect(address.to_owned()).await.unwrap();
                let at = Some(pb::start::At::Oldest(true));
                let mut request = Request::new(pb::WatchRequest {
                    topic: "orders.>".into(),
                    start: Some(pb::Start { at }),
                    until_caught_up: true,
                    ..Default::default()
                });
                let parent = format!("00-{trace}-b7ad6b7169203331-01");
                request.metadata_mut().insert("traceparent", parent.parse().unwrap());
                let mut stream = client.watch(request).await.unwrap().into_inner();
                let mut events = 0;
                while stream.message().await.unwrap().is_some() {
                    events += 1;
                }
                assert_eq!(events, 1);
                super::append_and_chat(address).await;
            });
            super::run(address, &["upload", "--topic", "orders.us", "-"], b"one\ntwo\n");
        });
        assert!(logged.is_empty(), "{logged:?}");
        // It has ended, and so delivered all that it had.
        let requests = collector.0.lock().unwrap();
        let resources: Vec<_> = requests.iter().flat_map(|r| &r.resource_spans).collect();
        let service = resources[0].resource.as_ref().unwrap().attributes.iter();
        assert!(service.clone().any(|a| a.key == "service.instance.id"), "{resources:?}");
        let spans = resources.iter().flat_map(|r| &r.scope_spans).flat_map(|scope| &scope.spans);
        let of = |name: &str| {
            let found: Vec<_> = spans.clone().filter(|span| span.name == name).collect();
            let [span] = found[..] else { panic!("{name}: {found:?}") };
            span
        };
        for (name, events, field, value) in [
            ("append", 2, "topic", "jobs.nightly"),
            ("room", 1, "room", "the.room"),
            ("upload", 2, "topic", "orders.us"),
        ] {
            let span = of(name);
            assert_eq!(attribute(span, field), Any::StringValue(value.into()));
            assert_eq!(attribute(span, "events"), Any::IntValue(events));
            assert_eq!(attribute(span, "reason"), Any::StringValue("done".into()));
            assert!(matches!(attribute(span, "cursor"), Any::StringValue(_)));
        }
        let span = of("watch");
        let hex: String = span.trace_id.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, trace);
        assert_eq!(span.parent_span_id, [0xb7, 0xad, 0x6b, 0x71, 0x69, 0x20, 0x33, 0x31]);
        assert_eq!(attribute(span, "patterns"), Any::StringValue("orders.>".into()));
        assert_eq!(attribute(span, "reason"), Any::StringValue("caught up".into()));
        assert_eq!(attribute(span, "events"), Any::IntValue(1));
        // Unsigned numbers come as text.
        assert_eq!(attribute(span, "start"), Any::StringValue("1".into()));
        let Any::StringValue(peer) = attribute(span, "peer") else { panic!("{span:?}") };
        assert!(peer.starts_with("127.0.0.1:"), "{peer}");
        assert!(span.end_time_unix_nano > span.start_time_unix_nano);
    }
}
