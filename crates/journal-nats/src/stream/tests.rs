use super::*;

fn settings() -> Settings {
    Settings::new(vec!["nats://127.0.0.1".to_owned()], "a", FingerprintKey::new([7; 16]))
}

fn info(alter: impl FnOnce(&mut Value)) -> Value {
    let mut config = config(&settings());
    alter(&mut config);
    json!({ "config": config, "cluster": { "leader": "a", "replicas": [{ "name": "b" }] } })
}

#[test]
fn what_is_made_can_be_used() {
    assert_eq!(unusable(&info(|_| ()), &settings(), MAX_PAYLOAD), Vec::<String>::new());
    assert!(log_of(&info(|_| ())).is_some());
}

/// Each setting by which a stream would lose messages, or take others', is told.
#[test]
fn what_would_not_keep_a_log_is_refused() {
    for (name, value) in [
        ("subjects", json!(["a", "tm.a.j"])),
        ("storage", json!("memory")),
        ("retention", json!("workqueue")),
        ("discard", json!("old")),
        ("max_age", json!(1)),
        ("max_msgs", json!(10)),
        ("max_msgs_per_subject", json!(1)),
        ("max_msg_size", json!(1024)),
        ("allow_direct", json!(false)),
        ("deny_delete", json!(false)),
        ("no_ack", json!(true)),
        ("sealed", json!(true)),
        ("allow_rollup_hdrs", json!(true)),
        ("allow_msg_ttl", json!(true)),
        ("allow_msg_schedules", json!(true)),
        ("allow_msg_counter", json!(true)),
        ("mirror", json!({ "name": "b" })),
        ("sources", json!([{ "name": "b" }])),
        ("subject_transform", json!({ "src": ">", "dest": "b.>" })),
        ("metadata", json!({})),
    ] {
        let reasons = unusable(&info(|it| it[name] = value), &settings(), MAX_PAYLOAD);
        assert!(!reasons.is_empty(), "{name}");
    }
    let format = unusable(
        &info(|it| it["metadata"]["tailmark.format"] = json!("2")),
        &settings(),
        MAX_PAYLOAD,
    );
    assert_eq!(format, ["it has format 2, and this program reads 1"]);
    let small = unusable(&info(|_| ()), &settings(), 1 << 20);
    assert_eq!(small, ["its server takes 1048576 bytes a message, of 8000000"]);
    let other = Settings { key: FingerprintKey::new([8; 16]), ..settings() };
    assert_eq!(unusable(&info(|_| ()), &other, MAX_PAYLOAD).len(), 1);
}

#[test]
fn what_cannot_be_seen_is_weaker() {
    let weak = |info: &Value, version: &str| strength(info, &settings(), version).weaknesses;
    let unseen = weak(&info(|_| ()), "2.15.1");
    assert_eq!(unseen.len(), 2);
    assert!(unseen.iter().all(|it| it.contains("cannot be seen")), "{unseen:?}");
    assert_eq!(weak(&info(|it| it["num_replicas"] = json!(1)), "2.15.1").len(), 3);
    assert_eq!(weak(&info(|it| it["persist_mode"] = json!("async")), "2.15.1").len(), 3);
    assert_eq!(weak(&info(|_| ()), "2.14.9").len(), 3);
    assert_eq!(weak(&info(|_| ()), "3.0.0").len(), 2);
}

#[test]
fn an_id_of_a_key_is_not_the_key() {
    let one = key_id(&FingerprintKey::new([7; 16]));
    assert_eq!(one.len(), 16);
    assert_ne!(one, key_id(&FingerprintKey::new([8; 16])));
    assert!(!one.contains("07070707"));
}

/// What was seen of a server counts while it cannot be asked, and not against what it says now.
#[test]
fn a_server_that_is_down_is_taken_for_what_it_was() {
    let kept = |names: &str| info(|it| it["metadata"]["tailmark.synced"] = json!(names));
    let silent = Settings { monitors: vec!["127.0.0.1:1".to_owned()], ..settings() };
    let of = |info: &Value| strength(info, &silent, "2.15.1");
    let none = strength(&kept(r#"["a","b"]"#), &settings(), "2.15.1");
    assert_eq!(
        (none.is_synced, none.weaknesses.len()),
        (false, 2),
        "who can ask nobody remembers nothing"
    );
    assert_eq!(of(&kept(r#"["a"]"#)).weaknesses.len(), 1);
    let all = of(&kept(r#"["a","b","c"]"#));
    assert_eq!((all.is_synced, all.weaknesses.len(), all.remembered.len()), (true, 0, 2));
    let said = |said: &[(&str, bool)]| Strength {
        said: said.iter().map(|(name, is)| ((*name).to_owned(), *is)).collect(),
        ..Strength::default()
    };
    let update = |info: &Value, it: &Strength| {
        let (subject, config) = remembering(info, it)?;
        assert_eq!(subject, "STREAM.UPDATE.TM_a");
        assert_eq!(config["subjects"], json!(["tm.a.j"]));
        assert!(config["metadata"].get("_nats.ver").is_none());
        Some(config["metadata"]["tailmark.synced"].clone())
    };
    let new = info(|it| it["metadata"]["_nats.ver"] = json!("2.15.1"));
    assert_eq!(update(&new, &said(&[])), None);
    assert_eq!(update(&new, &said(&[("b", true), ("a", true)])), Some(json!(r#"["a","b"]"#)));
    let both = kept(r#"["a","b"]"#);
    assert_eq!(update(&both, &said(&[("b", true)])), None);
    assert_eq!(update(&both, &said(&[("b", false)])), Some(json!(r#"["a"]"#)));
    assert_eq!(update(&kept("no list"), &said(&[("a", true)])), Some(json!(r#"["a"]"#)));
}
