//! `tailmark doctor`: what it says of ways that are good, and of each that is not.

use std::net::SocketAddr;
use std::process::Output;

use serde_json::Value;
use tailmark::server::Options;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::daemon::program;
use crate::support::server::{new_log, start, start_with};
use crate::support::tls::{
    Authority, Dir, client, for_a_day, options, server, start as start_tls, valid_for,
};

/// Its exit code, and the steps by name.
struct Report {
    code: i32,
    steps: Vec<Value>,
}

impl Report {
    fn of(output: &Output) -> Report {
        let text = String::from_utf8(output.stdout.clone()).unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        let steps: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let names: Vec<_> = steps.iter().map(|step| step["step"].as_str().unwrap()).collect();
        let mut sorted = names.clone();
        sorted.sort_unstable();
        let mut all = [
            "name", "tcp", "tls", "http", "clock", "ready", "grpc", "token", "rights", "stream",
            "version",
        ];
        all.sort_unstable();
        assert_eq!(sorted, all, "each step once: {text}{said}");
        Report { code: output.status.code().unwrap(), steps }
    }

    fn step(&self, name: &str) -> &Value {
        self.steps.iter().find(|step| step["step"] == name).unwrap()
    }

    /// All is well up to this step, which says these words, and nothing is taken after it.
    #[track_caller]
    fn fails_at(&self, name: &str, words: &[&str]) {
        assert_eq!(self.code, 1);
        let at = self.steps.iter().position(|step| step["step"] == name).unwrap();
        let (before, rest) = self.steps.split_at(at);
        for step in before {
            assert_eq!(step["verdict"], "ok", "{step}");
        }
        assert_eq!(rest[0]["verdict"], "failure", "{}", rest[0]);
        let text = format!("{} {}", rest[0]["text"], rest[0]["hint"]);
        for word in words {
            assert!(text.contains(word), "{word:?} in {text}");
        }
        assert!(rest[0]["hint"].is_string(), "{}", rest[0]);
        // Whoever refuses may say what time it is.
        for step in rest[1..].iter().filter(|step| step["step"] != "clock") {
            assert_eq!(step["verdict"], "skipped", "{step}");
        }
    }
}

/// Runs it off the runtime that serves.
async fn doctor(url: &str, args: &[&std::ffi::OsStr]) -> Report {
    let mut command = program(&["doctor", url, "--json"]);
    command.args(args);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    Report::of(&output)
}

#[tokio::test]
async fn a_good_way_is_well() {
    let plain = start().await;
    let report = doctor(&format!("http://{}", plain.address), &[]).await;
    assert!(report.steps.iter().all(|step| step["verdict"] == "ok"), "{:?}", report.steps);
    assert_eq!(report.code, 0);
    plain.stop().await;
    // With TLS both ways, and for people.
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    let dir = Dir::new(&servers.server());
    let alice = clients.client("alice.example");
    for (name, text) in [("ca.pem", &servers.pem), ("a.pem", &alice.cert), ("a.key", &alice.key)] {
        std::fs::write(dir.path(name), text).unwrap();
    }
    let server = start_with(new_log(), options(dir.files_with_clients(&clients))).await;
    let (ca, cert, key) = (dir.path("ca.pem"), dir.path("a.pem"), dir.path("a.key"));
    let args = ["--ca", ca.to_str().unwrap(), "--cert", cert.to_str().unwrap()];
    let args = [&args[..], &["--key", key.to_str().unwrap()]].concat();
    let args: Vec<&std::ffi::OsStr> = args.iter().map(std::ffi::OsStr::new).collect();
    let url = format!("https://localhost:{}", server.address.port());
    let report = doctor(&url, &args).await;
    assert_eq!(report.code, 0, "{:?}", report.steps);
    let tls = report.step("tls");
    assert_eq!((&tls["version"], &tls["alpn"]), (&"TLS 1.3".into(), &"h2".into()), "{tls}");
    assert_eq!(tls["chain"][0]["hosts"], serde_json::json!(["localhost", "127.0.0.1"]), "{tls}");
    assert_eq!(tls["chain"][0]["issuer"], "servers", "{tls}");
    let mut command = program(&["doctor", &url]);
    command.args(&args);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.lines().count() == 11, "{text}");
    assert!(text.lines().all(|line| line.starts_with("ok  ")), "{text}");
    // Without a certificate of its own it is told so.
    let report = doctor(&url, &args[..2]).await;
    assert_eq!(report.code, 1);
    assert!(report.steps.iter().any(|step| {
        step["verdict"] == "failure" && step["text"].as_str().unwrap().contains("got none")
    }));
    server.stop().await;
}

#[tokio::test]
async fn each_step_that_fails_is_told_with_what_to_do() {
    let nowhere = doctor("http://nowhere.invalid:1", &[]).await;
    nowhere.fails_at("name", &["nowhere.invalid has no address", "spelling"]);
    let refused = doctor("http://127.0.0.1:1", &[]).await;
    refused.fails_at("tcp", &["refused", "is the daemon running"]);
    let ours = Authority::new("ours");
    let (good, dir) = start_tls(&ours).await;
    std::fs::write(dir.path("ca.pem"), &ours.pem).unwrap();
    let ca = dir.path("ca.pem");
    let trusting = [std::ffi::OsStr::new("--ca"), ca.as_os_str()];
    let url = |address: SocketAddr| format!("https://{address}");
    let report = doctor(&url(good.address), &[]).await;
    report.fails_at("tls", &["not trusted here", "127.0.0.1", "--ca FILE"]);
    assert_eq!(report.step("tls")["chain"][0]["issuer"], "ours", "{:?}", report.steps);
    let report = doctor(&format!("http://{}", good.address), &[]).await;
    report.fails_at("http", &["speaks TLS", "--addr https://"]);
    let plain = start().await;
    let report = doctor(&url(plain.address), &trusting).await;
    report.fails_at("tls", &["does not speak TLS", "--addr http://"]);
    plain.stop().await;
    // Of the certificate: expired, for another name, soon over.
    for (params, word) in [
        (for_a_day(server(), -3), "expired at 20"),
        (for_a_day(client("log.example"), 0), "is for log.example, not for 127.0.0.1"),
    ] {
        dir.put(&ours.sign(&params));
        let bad = start_with(new_log(), options(dir.files())).await;
        doctor(&url(bad.address), &trusting).await.fails_at("tls", &[word]);
        bad.stop().await;
    }
    dir.put(&ours.sign(&valid_for(server(), std::time::Duration::from_secs(86_400 * 3))));
    let soon = start_with(new_log(), options(dir.files())).await;
    let report = doctor(&url(soon.address), &trusting).await;
    let tls = report.step("tls");
    assert_eq!((report.code, &tls["verdict"]), (1, &"warning".into()), "{tls}");
    assert!(tls["hint"].as_str().unwrap().contains("expires in 2 days"), "{tls}");
    assert_eq!(report.step("stream")["verdict"], "ok");
    soon.stop().await;
    good.stop().await;
}

#[tokio::test]
async fn who_answers_in_the_servers_place_is_told() {
    for (answer, step, words) in [
        (
            "HTTP/1.1 502 Bad Gateway\r\nserver: nginx/1.22.1\r\ncontent-length: 0\r\n\r\n",
            "http",
            &["502", "nginx/1.22.1", "cannot reach the server"][..],
        ),
        (
            "HTTP/1.1 200 OK\r\nserver: Apache\r\ncontent-length: 5\r\n\r\nhello",
            "http",
            &["no tailmark server (Apache)"],
        ),
        ("SSH-2.0-OpenSSH_9.2\r\n", "http", &["no HTTP", "is this a tailmark server"]),
        ("\u{15}\u{3}\u{1}\0\u{2}\u{2}F", "http", &["speaks TLS"]),
        (
            "HTTP/1.1 400 Bad Request\r\nserver: nginx\r\n\r\n\
             The plain HTTP request was sent to HTTPS port",
            "http",
            &["speaks TLS"],
        ),
    ] {
        let address = answering(answer).await;
        doctor(&format!("http://{address}"), &[]).await.fails_at(step, words);
    }
    // Passed on over HTTP/1.1 alone: what is no gRPC comes through, and calls do not.
    let date = "date: Mon, 01 Jan 2024 00:00:00 GMT";
    let answer = format!("HTTP/1.1 200 OK\r\nvia: 1.1 proxy\r\n{date}\r\n\r\nok\n");
    let report = doctor(&format!("http://{}", answering(answer.leak()).await), &[]).await;
    assert_eq!(report.code, 1);
    let http = report.step("http");
    assert_eq!((&http["verdict"], &http["answered_by"]), (&"ok".into(), &"1.1 proxy".into()));
    let clock = report.step("clock");
    assert!(clock["verdict"] == "warning" && clock["ahead_s"].as_i64().unwrap() < -1_000);
    assert_eq!(report.step("grpc")["verdict"], "failure", "{:?}", report.steps);
    assert_eq!(report.step("stream")["verdict"], "skipped");
}

#[tokio::test]
async fn what_the_server_refuses_is_told_by_its_own_words() {
    // Every other request is one too many: the first connection is held.
    let server = start_with(new_log(), Options { connections: 1, ..Options::default() }).await;
    let held = server.client().await;
    let report = doctor(&format!("http://{}", server.address), &[]).await;
    assert_eq!(report.code, 1);
    // About health a full server answers as ever.
    let http = report.step("http");
    assert_eq!((&http["verdict"], &http["status"]), (&"ok".into(), &200.into()), "{http}");
    let grpc = report.step("grpc");
    assert_eq!(grpc["reason"], "LIMIT_EXCEEDED", "{grpc}");
    drop(held);
    server.stop().await;
}

/// Whom the server takes us for, what we may, and a stream within that.
#[tokio::test]
async fn who_one_is_and_what_one_may_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let tokens = dir.path().join("tokens.toml");
    let settings = [
        ("TAILMARK_AUTH_MODE", "required"),
        ("TAILMARK_AUTH_TOKENS_FILE", tokens.to_str().unwrap()),
    ];
    let create = |args: &[&str]| {
        let output = program(&["token", "create"]).args(args).envs(settings).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let alice = create(&["alice", "--watch", "orders.>", "--expires", "90d"]);
    let bob = create(&["bob", "--publish", "orders.a"]);
    let port = crate::support::port::Port::reserve();
    let daemon =
        crate::support::daemon::Daemon::start_at(&dir.path().join("data"), port.address, &settings);
    let examine = async |token: &str| {
        let mut command = program(&["doctor", daemon.url(), "--json"]);
        command.env("TAILMARK_TOKEN", token);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        Report::of(&output)
    };
    let report = examine(&alice).await;
    let token = report.step("token");
    assert_eq!(
        (&token["verdict"], &token["principal"]),
        (&"ok".into(), &"alice".into()),
        "{token}"
    );
    assert!(token["expires"].is_string(), "{token}");
    let rights = report.step("rights");
    assert_eq!(rights["watch"], serde_json::json!(["orders.>"]), "{rights}");
    assert_eq!(report.step("stream")["verdict"], "ok", "{:?}", report.steps);
    assert_eq!(report.code, 0, "{:?}", report.steps);
    let report = examine(&bob).await;
    assert_eq!(report.step("stream")["verdict"], "skipped", "{:?}", report.steps);
    assert_eq!(report.step("rights")["publish"], serde_json::json!(["orders.a"]));
    examine("").await.fails_at("token", &["TAILMARK_TOKEN"]);
    examine("tailmark_nonsense").await.fails_at("token", &["TAILMARK_TOKEN"]);
    assert_eq!(daemon.stop(), Some(0));
}

/// Who answers whatever comes with this, and ends.
async fn answering(answer: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut some = [0; 1_024];
                let _ = stream.read(&mut some).await;
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
                while stream.read(&mut some).await.is_ok_and(|read| read > 0) {}
            });
        }
    });
    address
}
