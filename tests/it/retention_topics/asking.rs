//! `GetRetention` and `tailmark retention show`: the rules in force, by the file and after a reload, and what they
//! refuse. What a dry run finds is in `carried_out.rs`.

use tailmark_client::Client;
use tailmark_log::eventlog;
use tailmark_wire::feed_v1 as pb;
use tonic::Code;

use crate::support::daemon::{Daemon, program};
use crate::support::server::{
    bad_field, expect, generations, memory, open, start, start_with, within,
};

async fn ask(
    client: &mut crate::support::server::Client,
    request: pb::GetRetentionRequest,
) -> Result<Vec<pb::RetentionReport>, tonic::Status> {
    let mut stream = client.get_retention(request).await?.into_inner();
    let mut all = Vec::new();
    while let Some(report) = stream.message().await? {
        all.push(report);
    }
    Ok(all)
}

#[tokio::test]
async fn the_limits_and_the_rules_in_force_are_told() {
    use eventlog::{Keep, TopicRule, TopicRules};
    let rule = |pattern: &str, max_events, keep| TopicRule {
        pattern: tailmark_record::topic::Pattern::parse(pattern, &Default::default()).unwrap(),
        max_age: None,
        max_events,
        keep,
    };
    let options = eventlog::Options {
        retention: eventlog::Retention { max_events: Some(7), ..Default::default() },
        topic_rules: TopicRules::new(vec![rule("a.>", Some(3), Keep::LatestPerKey)]),
        ..Default::default()
    };
    let engine = memory(generations(&[1]), Default::default());
    let log = open(std::sync::Arc::new(engine), options);
    let server = start_with(log, Default::default()).await;
    let mut client = server.client().await;
    let told = ask(&mut client, Default::default()).await.unwrap();
    assert_eq!(told.len(), 1);
    let retention = told[0].retention.clone().unwrap();
    assert_eq!((retention.max_events, retention.max_bytes, retention.max_age), (7, 0, None));
    assert_eq!(retention.rules.len(), 1);
    let rule_told = &retention.rules[0];
    assert_eq!((rule_told.pattern.as_str(), rule_told.max_events), ("a.>", 3));
    assert_eq!(rule_told.keep(), pb::retention_rule::Keep::LatestPerKey);
    assert!(retention.dry_run.is_none() && retention.state.is_some());
    // Others, as a reload sets them.
    server.log.set_topic_rules(TopicRules::default());
    server.log.set_retention(Default::default(), std::time::Duration::from_secs(1));
    let told = ask(&mut client, Default::default()).await.unwrap();
    let retention = told[0].retention.clone().unwrap();
    assert_eq!((retention.max_events, retention.rules.len()), (0, 0));
    server.stop().await;
}

#[tokio::test]
async fn rules_that_make_no_sense_are_refused_by_field() {
    let server = start().await;
    let mut client = server.client().await;
    let asking = |rules: Vec<pb::RetentionRule>| pb::GetRetentionRequest {
        dry_run: true,
        rules: Some(pb::RetentionRules { rules }),
    };
    let rule = |pattern: &str| pb::RetentionRule { pattern: pattern.into(), ..Default::default() };
    let negative = Some(prost_types::Duration { seconds: -1, nanos: 0 });
    for (rules, field) in [
        (vec![rule("a"), rule("b..c")], "rules[1].pattern"),
        (vec![pb::RetentionRule { keep: 9, ..rule("a") }], "rules[0].keep"),
        (vec![pb::RetentionRule { max_age: negative, ..rule("a") }], "rules[0].max_age"),
        (
            vec![pb::RetentionRule { max_age: Some(Default::default()), ..rule("a") }],
            "rules[0].max_age",
        ),
    ] {
        let status = ask(&mut client, asking(rules)).await.unwrap_err();
        expect(&status, Code::InvalidArgument, "INVALID_FIELD");
        assert_eq!(bad_field(&status), field);
    }
    let status = ask(&mut client, asking(vec![rule("a"); 257])).await.unwrap_err();
    let info = expect(&status, Code::ResourceExhausted, "LIMIT_EXCEEDED");
    assert_eq!((info["limit"].as_str(), info["actual"].as_str()), ("256", "257"));
    let request = pb::GetRetentionRequest { dry_run: false, ..asking(vec![rule("a")]) };
    let status = ask(&mut client, request).await.unwrap_err();
    expect(&status, Code::InvalidArgument, "INVALID_FIELD");
    assert_eq!(bad_field(&status), "rules");
    server.stop().await;
}

/// By the file, and by the file that it becomes.
#[test]
fn the_command_shows_what_is_in_force() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.toml");
    let first = "[retention]\nmax_bytes = \"1 GiB\"\n[[retention.topics]]\npattern = \"a.>\"\nmax_age = \"7d\"\n";
    std::fs::write(&file, first).unwrap();
    let shell = format!("export TAILMARK_CONFIG={}; exec setsid \"$0\" \"$@\"", file.display());
    let daemon = Daemon::start_with(&dir.path().join("data"), &shell);
    let shown = daemon.output(&["retention", "show"], b"");
    let lines: Vec<_> = shown.lines().collect();
    assert_eq!(lines[..2], ["whole log    max_bytes 1 GiB", "rule 1       a.>: max_age 7d"]);
    assert!(shown.contains("since start  "), "{shown}");
    let json: serde_json::Value =
        serde_json::from_str(&daemon.output(&["retention", "show", "--json"], b"")).unwrap();
    let rule = serde_json::json!({"pattern": "a.>", "max_age": "604800s", "keep": "ALL"});
    assert_eq!(
        (&json["max_bytes"], &json["rules"]),
        (&"1073741824".into(), &serde_json::json!([rule]))
    );

    let second = "[[retention.topics]]\npattern = \"b\"\nkeep = \"latest-per-key\"\n";
    std::fs::write(&file, second).unwrap();
    let pid = rustix::process::Pid::from_raw(daemon.id() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    let begun = std::time::Instant::now();
    loop {
        let shown = daemon.output(&["retention", "show"], b"");
        if shown.starts_with("whole log    no limits\nrule 1       b: the latest per key\n") {
            break;
        }
        assert!(begun.elapsed() < crate::support::server::PATIENCE, "{shown}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    // What is about rules of one's own goes with a dry run.
    let output = daemon.run(&["retention", "show", "--config", "x.toml"], b"");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--dry-run"));
    let wrong = dir.path().join("wrong.toml");
    std::fs::write(&wrong, "[[retention.topics]]\npattern = \"a..b\"\n").unwrap();
    let args = ["retention", "show", "--dry-run", "--config", wrong.to_str().unwrap()];
    let output = daemon.run(&args, b"");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("rule 1 (`a..b`)"));
}

/// `config check` warns, and refuses by rule.
#[test]
fn settings_are_checked_before_they_are_in_force() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.toml");
    let check = |text: &str| {
        std::fs::write(&file, text).unwrap();
        let output = program(&["config", "check", "--config"]).arg(&file).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let covered = "[[retention.topics]]\npattern = \">\"\n[[retention.topics]]\npattern = \"a\"\n";
    let (code, said) = check(covered);
    assert_eq!(code, Some(0));
    assert!(said.contains("warning: retention.topics: rule 2 (`a`) never counts"), "{said}");
    let (code, said) = check("[[retention.topics]]\npattern = \"a\"\nmax_events = 0\n");
    assert_eq!(code, Some(2));
    assert!(said.contains("retention.topics: rule 1 (`a`): max_events: 0"), "{said}");
}

/// A dry run goes on for as long as its caller listens, and there is one at a time.
#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_tells_how_far_it_is_and_ends_with_its_caller() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path());
    let event =
        |at: usize| format!("{{\"topic\":\"k\",\"key\":\"{at}\",\"body\":\"{at:0100}\"}}\n");
    let lines: String = (0..40_000).map(event).collect();
    daemon.output(&["upload", "--format", "jsonl"], lines.as_bytes());
    let client = Client::new(daemon.url()).unwrap();
    let rules = || {
        let keep = pb::retention_rule::Keep::LatestPerKey.into();
        let rule = pb::RetentionRule { pattern: "k".into(), keep, ..Default::default() };
        Some(pb::RetentionRules { rules: vec![rule] })
    };
    let first = within("a dry run", client.preview_retention(rules())).await.unwrap();
    let second = within("an answer", client.preview_retention(rules())).await.map(drop);
    let second = second.unwrap_err();
    assert_eq!((second.code(), second.reason()), ("RESOURCE_EXHAUSTED", "LIMIT_EXCEEDED"));
    assert_eq!(second.metadata("what"), Some("dry_runs"));
    // What is in force is told all the same.
    within("the rules", client.retention()).await.unwrap();
    drop(first);
    let begun = std::time::Instant::now();
    let mut third = loop {
        match within("a dry run", client.preview_retention(rules())).await {
            Ok(third) => break third,
            Err(error) => assert_eq!(error.reason(), "LIMIT_EXCEEDED"),
        }
        assert!(begun.elapsed() < crate::support::server::PATIENCE);
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    };
    let (mut looked, mut found) = (Vec::new(), None);
    while let Some(report) = within("a report", third.next()).await.unwrap() {
        assert!(found.is_none(), "the result is the last");
        match report.retention {
            Some(retention) => found = retention.dry_run,
            None => looked.push(report.looked),
        }
    }
    assert!(looked.windows(2).all(|two| two[0] <= two[1]), "{looked:?}");
    assert!(looked.iter().all(|share| (0.0..=1.0).contains(share)), "{looked:?}");
    let found = found.unwrap().rules[0];
    assert_eq!((found.events, found.expired, found.compacted), (40_000, 0, 0));
    // Ctrl-C of the command does the same.
    let mut command = program(&["retention", "show", "--dry-run", "--config"]);
    let file = dir.path().join("rules.toml");
    std::fs::write(&file, "[[retention.topics]]\npattern = \"k\"\nmax_events = 10\n").unwrap();
    command.arg(&file).args(["--addr", daemon.url()]);
    let mut child = command.stdout(std::process::Stdio::null()).spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(100));
    let pid = rustix::process::Pid::from_child(&child);
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
    let code = child.wait().unwrap().code();
    assert!(matches!(code, Some(130 | 0)) || code.is_none(), "{code:?}");
}
