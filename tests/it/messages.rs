//! What someone new is told, each message a row: what was asked, the exit code or status, and the words
//! that must be there.

use std::path::Path;
use std::sync::Arc;

use http::Version;
use tailmark_log::storage::faulty::Faulty;
use tailmark_log::storage::memory::Options as MemoryOptions;
use tailmark_record::Reason;

use crate::support::daemon::{feed, program};
use crate::support::server::{TestServer, generations, memory, open, start_with, within};
use crate::support::web::{ask, full, get, request, with};

/// What is asked.
enum Asked {
    /// Content type, query and body of a `POST /v1/events`.
    Post(&'static str, &'static str, &'static str),
    /// Headers of a `POST /v1/events` with the body `x`.
    Headed(&'static [(&'static str, &'static str)]),
    /// The program, with what is said on standard error; `ADDR` is the server's address as host and port.
    Cli(&'static [&'static str]),
    /// The same, with variables.
    With(&'static [(&'static str, &'static str)], &'static [&'static str]),
    /// Method, path, headers.
    Http(&'static str, &'static str, &'static [(&'static str, &'static str)]),
}

use Asked::{Cli, Headed, Http, Post, With};

/// Exit code or status, and words.
type Row = (Asked, u16, &'static [&'static str]);

const CONTEXTS: &str = "[contexts.prod]\naddr = \"http://127.0.0.1:1\"\n";

const ROWS: &[Row] = &[
    // Where it was looked for, and who said so.
    (
        Cli(&["status", "--addr", ":1"]),
        5,
        &["cannot connect to http://127.0.0.1:1 (--addr): ", "tailmark doctor http://127.0.0.1:1"],
    ),
    (
        With(&[("TAILMARK_ADDR", "localhost:1")], &["status"]),
        5,
        &["cannot connect to http://localhost:1 (TAILMARK_ADDR): "],
    ),
    (
        Cli(&["watch", "--context", "prod"]),
        5,
        &["cannot connect to http://127.0.0.1:1 (context prod): "],
    ),
    (
        With(&[("TAILMARK_CONTEXT", "prod")], &["topics"]),
        5,
        &["cannot connect to http://127.0.0.1:1 (context prod): "],
    ),
    (Cli(&["status", "--context", "test"]), 3, &["no context test", "known: prod"]),
    (Cli(&["status", "--addr", "ADDR", "--context", "prod"]), 2, &["--addr and --context"]),
    (Cli(&["--addr", "ADDR", "config", "check"]), 2, &["this command asks no server"]),
    (Cli(&["status", "--addr", "http://ann:pw@ADDR"]), 2, &["an address has no user name"]),
    (Cli(&["status", "--addr", "https://ADDR"]), 1, &["asked at https://", "(--addr)"]),
    // What a shell made of a pattern, and what other systems call it.
    (
        Cli(&["watch", "--addr", "ADDR", "orders."]),
        2,
        &["a shell takes an unquoted one", "'orders.>'"],
    ),
    (Cli(&["watch", "--addr", "ADDR", "orders/*"]), 2, &["dots part the segments: 'orders.*'"]),
    (Cli(&["topics", "--addr", "ADDR", "orders/#"]), 0, &["no topics"]),
    (Cli(&["watch", "--addr", "ADDR", "orders.**"]), 2, &["'orders.>'"]),
    (
        Cli(&["watch", "--addr", "ADDR", "a.b,c.d", "--until-caught-up"]),
        0,
        &["one pattern with a comma in it", "one by one: 'a.b' 'c.d'"],
    ),
    (
        Cli(&["topics", "--addr", "ADDR", "orders.*"]),
        0,
        &["no topics; `*` is one segment, and 'orders.>' has all below"],
    ),
    (Cli(&["watch", "--addr", "ADDR", "orders:*"]), 2, &["dots part the segments: 'orders.*'"]),
    (
        Cli(&["topics", "--addr", "ADDR", "orders"]),
        0,
        &["no topics; 'orders' is one topic, and 'orders.>' has all below"],
    ),
    (Cli(&["publish", "--addr", "ADDR", "orders.*", "x"]), 2, &["belong in patterns"]),
    (Cli(&["watch", "--addr", "ADDR", "/orders/.*/"]), 2, &["dots part the segments: 'orders.*'"]),
    (
        Cli(&["watch", "--addr", "ADDR", "orders*"]),
        2,
        &["they stand for whole segments: 'orders.>'"],
    ),
    (
        Cli(&["watch", "--addr", "ADDR", "orders.{eu,us}", "--until-caught-up"]),
        0,
        &["one pattern with braces in it", "'orders.eu' 'orders.us'"],
    ),
    // Wherever patterns are given.
    (
        Cli(&["erase", "--addr", "ADDR", "--topic", "orders/*", "--reason", "r", "--dry-run"]),
        2,
        &["--topic: `*` and `>` must stand alone", "dots part the segments: 'orders.*'"],
    ),
    (
        Cli(&["token", "create", "a", "--watch", "orders/*"]),
        2,
        &["--watch: `orders/*` ", "dots part the segments: 'orders.*'"],
    ),
    (Cli(&["token", "create", " a"]), 2, &["NAME: a name has no control characters"]),
    (
        With(
            &[("TAILMARK_RETENTION_TOPICS", "[{pattern=\"a/*\",max_events=1}]")],
            &["config", "check"],
        ),
        2,
        &["rule 1 (`a/*`): its pattern ", "dots part the segments: 'a.*'"],
    ),
    // What is no port is not some other server's.
    (Cli(&["status", "--addr", "localhost:99999"]), 2, &["--addr: `99999` is no port"]),
    (
        With(&[("TAILMARK_ADDR", "http://localhost:abc")], &["status"]),
        2,
        &["TAILMARK_ADDR: `abc` is no port: expected 1 to 65535"],
    ),
    (Cli(&["status", "--addr", "50051"]), 2, &["`:50051` is that port of this machine"]),
    (Cli(&["context", "add", "x", "h:0"]), 2, &["URL: `0` is no port"]),
    (Cli(&["status", "--addr", "unix:///run/x"]), 2, &["expected http://HOST:PORT"]),
    (Cli(&["status", "--addr", "ADDR/"]), 0, &[]),
    // What was meant to be encrypted is not sent in the open.
    (
        Cli(&["status", "--addr", "ADDR", "--ca", "ca.pem"]),
        2,
        &[
            "--ca: http://127.0.0.1:",
            " has no TLS",
            "begins with https://, as in https://127.0.0.1:",
        ],
    ),
    (Cli(&["doctor", "ADDR", "--cert", "me.pem"]), 2, &["--cert: http://127.0.0.1:", "has no TLS"]),
    (Cli(&["context", "add", "x", "h", "--ca", "c"]), 2, &["--ca: http://h:50051 has no TLS"]),
    (With(&[("TAILMARK_CA", "ca.pem")], &["status", "--addr", "ADDR"]), 0, &[]),
    // What was meant.
    (Cli(&["get", "--addr", "ADDR", "5min"]), 2, &["`tailmark watch --from 5min` begins there"]),
    (Cli(&["tail"]), 2, &["unrecognized subcommand 'tail'", "did you mean `tailmark watch`?"]),
    (Cli(&["produce", "a", "x"]), 2, &["did you mean `tailmark publish`?"]),
    (Cli(&["health"]), 2, &["did you mean `tailmark status`?"]),
    (Cli(&["context", "rm", "x"]), 2, &["unrecognized subcommand 'rm'"]),
    (Cli(&["get", "--addr", "ADDR", "nonsense"]), 2, &["expected a cursor", "a sequence number"]),
    (Cli(&["watch", "--addr", "ADDR", "--from", "-5min"]), 2, &["expected oldest, latest"]),
    (
        Cli(&["watch", "--addr", "ADDR", "--from", "uMEzg0AABED6FtQAAAAAAAAABT1DBW8EI"]),
        2,
        &["this is a cursor: --after begins behind its event"],
    ),
    (
        Cli(&["watch", "--addr", "ADDR", "--until-caught-up", "--json", "value"]),
        0,
        &["`value` is a topic here", "`--json=value`"],
    ),
    // Numbers and fields as they were typed.
    (Cli(&["watch", "--addr", "ADDR", "--after", "9"]), 3, &["--after 9: the head is 1"]),
    (Cli(&["watch", "--addr", "ADDR", "--from", "9"]), 3, &["--from 9: the head is 1"]),
    (Cli(&["publish", "--addr", "ADDR", "a..b", "x"]), 2, &["TOPIC: has an empty segment"]),
    (Cli(&["trim", "--addr", "ADDR", "--before", "99", "--yes"]), 2, &["--before: lies beyond"]),
    // What is read, and what is not.
    (Cli(&["--addr", "ADDR", "status"]), 0, &[]),
    (Cli(&["status", "--addr", "ADDR"]), 0, &[]),
    (Cli(&["doctor", "ADDR"]), 0, &[]),
    (Cli(&["doctor", "--addr", "ADDR"]), 0, &[]),
    (
        Cli(&["watch", "--addr", "ADDR", "--from", "2026-11-29 07:14:27", "--until-caught-up"]),
        0,
        &[],
    ),
    (Cli(&["watch", "--addr", "ADDR", "--from", "5min", "--until-caught-up"]), 0, &[]),
    (Cli(&["watch", "--addr", "ADDR", "--from", "7 days", "--until-caught-up"]), 0, &[]),
    (
        Cli(&["watch", "--addr", "ADDR", "--from", "1796042380", "--until-caught-up"]),
        3,
        &["--from 1796042380: the head is", "a time is written as in"],
    ),
    (Cli(&["get", "--addr", "ADDR", "1", "--json", "value"]), 2, &["did you mean --json=value?"]),
    (Cli(&["watch", "--addr", "ADDR", "--from", "soon"]), 2, &["2026-01-31 09:30", "7 days"]),
    (Cli(&["token", "create", "a", "--expires", "soon"]), 2, &["90d, 12 hours"]),
    (Cli(&["config", "check", "--listen", ":50051", "--insecure"]), 0, &[]),
    (Cli(&["config", "check", "--listen", ":50051"]), 2, &["[::]:50051 is reachable"]),
    (Cli(&["config", "check", "--listen", "50051"]), 2, &[":PORT for every address"]),
    (With(&[("TAILMARK_RETENTION_MAX_AGE", "7 days")], &["config", "check"]), 0, &[]),
    (With(&[("TAILMARK_RETENTION_MAX_BYTES", "10GB")], &["config", "check"]), 0, &[]),
    (
        With(&[("TAILMARK_RETENTION_MAX_AGE", "7 apples")], &["config", "check"]),
        2,
        &["TAILMARK_RETENTION_MAX_AGE: `7 apples`: expected a duration", "7 days"],
    ),
    (
        With(&[("TAILMARK_RETENTION_MAX_BYTES", "10G")], &["config", "check"]),
        2,
        &["`10G`: expected a size as in 64 MiB (of 1,024), 10 GB (of 1,000)", "or unlimited"],
    ),
    (
        With(&[("TAILMARK_RETENTION_MAX_BYTES", "99999999TB")], &["config", "check"]),
        2,
        &["`99999999TB`: expected a size of less than 16 EiB"],
    ),
    // Elsewhere that is no limit, and here it would be the end of the log.
    (
        With(&[("TAILMARK_RETENTION_MAX_AGE", "0s")], &["config", "check"]),
        2,
        &["retention.max_age: 0 would remove every event at once; \"unlimited\" keeps all"],
    ),
    (
        With(&[("TAILMARK_RETENTION_MAX_BYTES", "0")], &["config", "check"]),
        2,
        &["retention.max_bytes: 0 would remove every event at once"],
    ),
    (
        With(&[("TAILMARK_RETENTION_MAX_EVENTS", "0")], &["serve"]),
        2,
        &["retention.max_events: 0 would remove every event at once"],
    ),
    // Plain HTTP.
    (Http("GET", "/health", &[]), 404, &["did you mean /healthz?"]),
    (Http("GET", "/v1/stream", &[]), 404, &["did you mean /v1/watch?"]),
    (Http("GET", "/api/v1/events", &[]), 404, &["did you mean /v1/events?"]),
    (Http("GET", "/version", &[]), 404, &["did you mean /v1/log?"]),
    (Http("GET", "/nothing", &[]), 404, &["nothing is at /nothing\""]),
    (Http("GET", "/healthcheck", &[]), 404, &["did you mean /healthz?"]),
    (Http("GET", "/index.html", &[]), 404, &["did you mean /?"]),
    (
        Http("GET", "/v1/events", &[]),
        405,
        &["has no GET; it has POST", "all from anywhere at /v1/watch"],
    ),
    (Http("PUT", "/v1/log", &[]), 405, &["has no PUT; it has GET", "POST /v1/events"]),
    (
        Http("GET", "/v1/log", &[("origin", "http://app.example")]),
        403,
        &["http://app.example", "http.cors_origins"],
    ),
    (
        Http("GET", "/v1/events/1?format=cloudevents&json=value", &[]),
        400,
        &["json: does not go with format=cloudevents"],
    ),
    (
        Http("GET", "/v1/log", &[("host", "log.example")]),
        403,
        &["log.example", "http.allowed_hosts"],
    ),
    // The hints of the command line, also here.
    (
        Http("GET", "/v1/watch?topic=orders/*", &[]),
        400,
        &["topic: ", "dots part the segments: 'orders.*'"],
    ),
    (Http("GET", "/v1/watch?topic=orders.", &[]), 400, &["topic: ", "for the rest: 'orders.>'"]),
    (Http("GET", "/v1/watch?topic=a,%20b", &[]), 400, &["topic: ", "one by one: 'a' 'b'"]),
    (
        Http("GET", "/v1/topics?pattern=orders.**", &[]),
        400,
        &["pattern: ", "for the rest: 'orders.>'"],
    ),
    (
        Http("GET", "/v1/watch?topic=a.b,c.d&from=oldest&until_caught_up=true", &[]),
        200,
        &["\n: `a.b,c.d` is one pattern with a comma in it", "one by one: 'a.b' 'c.d'"],
    ),
    (Http("GET", "/v1/watch?from=soon", &[]), 400, &["from: expected oldest", "7 days"]),
    (
        Http("GET", "/feed.v1.FeedService/GetLog?connect=v1&encoding=json&message=%7B%7D", &[]),
        415,
        &["the Connect protocol is not spoken here"],
    ),
    // Numbers and sizes as people write them; what is none is told in our words.
    (Cli(&["bench", "append", "--addr", ":1", "--events", "10k", "--size", "1KB"]), 5, &[":1"]),
    (Cli(&["bench", "append", "--size", "1"]), 2, &["--size <SIZE>", "expected 16 to 1000000"]),
    (Cli(&["bench", "append", "--events", "some"]), 2, &["expected a whole number", "10k"]),
    (Cli(&["log", "export", "--from", "5min"]), 2, &["expected a sequence number"]),
    (Cli(&["log", "dump", "--to", "x"]), 2, &["expected a sequence number"]),
    (Cli(&["publish", "a", "--expect-head", "x"]), 2, &["expected a sequence number"]),
    (
        Cli(&["restore", "b", "--data-dir", "d", "--to-seq", "x"]),
        2,
        &["expected a sequence number"],
    ),
    // Which of the fields, which of the forms.
    (
        Post("application/json", "", r#"{"topic":"a","body":1,"key":5}"#),
        400,
        &["key: expected a string, not `5`"],
    ),
    (
        Post("application/json", "?topic=b", r#"{"topic":"a"}"#),
        400,
        &["topic: is a parameter of CloudEvents alone"],
    ),
    (Post("application/json", "?to=b", r#"{"topic":"a"}"#), 400, &["to: is not a parameter of"]),
    (
        Post("application/json", "", r#"{"topic":"a","boddy":1}"#),
        400,
        &["unknown field `boddy`", "`appended_at` (column 20)", r#""field":"boddy""#],
    ),
    (
        Post("application/json", "", r#"{"topic":"a","data":"~x"}"#),
        400,
        &["\"data: not base64: `~` at character 1 (column 25)\"", r#""field":"data""#],
    ),
    // What is no JSON, in our words and with its place.
    (
        Post("application/json", "", r#"{"topic":"a","#),
        400,
        &["the JSON ends where a value should be (column 13)", r#""column":"13""#],
    ),
    (
        Post("application/json", "", "{\"topic\": \"a\",\n  \"at\": \"soon\"\n}"),
        400,
        &["at: expected a time as in", "not \\\"soon\\\"", r#""field":"at""#, r#""line":"3""#],
    ),
    // An attribute goes by the name that it has in the request.
    (
        Post(
            "application/cloudevents+json",
            "",
            r#"{"specversion":"1.0","id":"1","source":"/s","type":"with space"}"#,
        ),
        400,
        &["type: has white space", r#""field":"type""#],
    ),
    (
        Post("application/cloudevents+json", "", r#"{"specversion":"1.0","id":"1","source":"/s"}"#),
        400,
        &["type: is missing, which every CloudEvent has", r#""field":"type""#],
    ),
    (
        Headed(&[("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/s")]),
        400,
        &["ce-type: is missing", r#""field":"ce-type""#],
    ),
    (
        Headed(&[
            ("ce-specversion", "1.0"),
            ("ce-id", "1"),
            ("ce-source", "/s"),
            ("ce-type", "a b"),
        ]),
        400,
        &["ce-type: has white space", r#""field":"ce-type""#],
    ),
    // Of two values one would be lost.
    (
        Post(
            "application/cloudevents+json",
            "",
            r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","id":"2"}"#,
        ),
        400,
        &["id: is given twice", r#""field":"id""#],
    ),
    (
        Headed(&[("ce-id", "1"), ("ce-source", "/s"), ("ce-type", "t")]),
        400,
        &["ce-specversion: is missing"],
    ),
    (
        Post("application/cloudevents+json", "", "[{}]"),
        400,
        &["an array of CloudEvents is application/cloudevents-batch+json"],
    ),
    (
        Post("application/cloudevents-batch+json", "", "{}"),
        400,
        &["a single CloudEvent is application/cloudevents+json"],
    ),
];

/// In one voice, wherever it is met.
const FULL: &[Row] = &[
    (
        Cli(&["upload", "--addr", "ADDR", "--topic", "a", "tailmark/contexts.toml"]),
        1,
        &["no room on disk: "],
    ),
    (Cli(&["publish", "--addr", "ADDR", "a", "x"]), 1, &["no room on disk: "]),
    (
        Http("POST", "/v1/events", &[("content-type", "application/json")]),
        429,
        &["no room on disk: "],
    ),
    (
        Http("GET", "/readyz", &[]),
        503,
        &["no room on disk: ", "no events are taken, reading goes on"],
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_message_says_what_someone_new_must_know() {
    let inner = Arc::new(memory(generations(&[1]), MemoryOptions::default()));
    let engine = Arc::new(Faulty::new(inner));
    let server = start_with(open(engine.clone(), Default::default()), Default::default()).await;
    server.store("a", 1).await;
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join("tailmark")).unwrap();
    std::fs::write(home.path().join("tailmark/contexts.toml"), CONTEXTS).unwrap();
    for row in ROWS {
        check(&server, home.path(), row, &[]).await;
    }
    assert_eq!(get(&server, "/readyz").await.status, 200);
    engine.set_full(true);
    // What was seen holds for a second.
    within("a refusal that is seen", async {
        while get(&server, "/readyz").await.status == 200 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    for row in FULL {
        check(&server, home.path(), row, &[Reason::DiskFull.remedy()]).await;
    }
    server.stop().await;
}

async fn check(server: &TestServer, home: &Path, (asked, expected, words): &Row, more: &[&str]) {
    let (name, code, said) = match asked {
        Cli(args) => run(server, home, &[], args).await,
        With(variables, args) => run(server, home, variables, args).await,
        Post(kind, query, body) => {
            let path = format!("/v1/events{query}");
            let mut request = with(request(server, "POST", &path), &[("content-type", kind)]);
            *request.body_mut() = full(*body);
            let answer = ask(server.address, Version::HTTP_11, request).await;
            (format!("{path} {body}"), answer.status.as_u16(), answer.text().to_owned())
        }
        Headed(headers) => {
            let mut request = with(request(server, "POST", "/v1/events"), headers);
            *request.body_mut() = full("x");
            let answer = ask(server.address, Version::HTTP_11, request).await;
            (format!("{headers:?}"), answer.status.as_u16(), answer.text().to_owned())
        }
        Http(method, path, headers) => {
            let mut request = with(request(server, method, path), headers);
            if *method == "POST" {
                *request.body_mut() = full(r#"{"topic":"a","body":"x"}"#);
            }
            let answer = ask(server.address, Version::HTTP_11, request).await;
            (format!("{method} {path}"), answer.status.as_u16(), answer.text().to_owned())
        }
    };
    assert_eq!(code, *expected, "{name}: {said}");
    for word in words.iter().chain(more) {
        assert!(said.contains(word), "{name} lacks {word:?}: {said}");
    }
}

async fn run(
    server: &TestServer,
    home: &Path,
    variables: &'static [(&'static str, &'static str)],
    args: &[&str],
) -> (String, u16, String) {
    let address = server.address.to_string();
    let args: Vec<_> = args.iter().map(|arg| arg.replace("ADDR", &address)).collect();
    let mut command = program(&args.iter().map(String::as_str).collect::<Vec<_>>());
    command.env("XDG_CONFIG_HOME", home).env("NO_COLOR", "1").envs(variables.iter().copied());
    command.current_dir(home);
    let output = tokio::task::spawn_blocking(move || feed(&mut command, b"")).await.unwrap();
    let code = output.status.code().unwrap().try_into().unwrap();
    (args.join(" "), code, String::from_utf8(output.stderr).unwrap())
}

/// The index of reasons has each of them once, with its code, what it means and what to do.
#[test]
fn the_index_of_reasons_is_complete() {
    let index = include_str!("../../docs/reasons.md");
    let rows: Vec<_> = index.lines().filter(|line| line.starts_with("| `")).collect();
    assert_eq!(rows.len(), Reason::ALL.len());
    for (row, reason) in rows.iter().zip(Reason::ALL) {
        let code = tailmark_wire::code::name(tailmark_wire::code::of(*reason));
        let meaning = reason.meaning();
        let meaning = meaning.trim_end_matches('.');
        let (first, rest) = meaning.split_at(1);
        let meaning = format!("{}{rest}", first.to_lowercase());
        assert_eq!(*row, format!("| `{reason}` | `{code}` | {meaning} | {} |", reason.remedy()));
    }
}
