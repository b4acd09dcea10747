//! Settings: the documented default, the order of sources, and what is refused.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use tailmark::config::{Compression, Config, ConfigError, DEFAULT_TOML, Origin, Sources};

fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tailmark.toml");
    std::fs::write(&path, text).unwrap();
    (dir, path)
}

fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
}

fn load(text: &str) -> Result<Config, String> {
    let (_dir, path) = file(text);
    let sources = Sources { file: Some(path), ..Sources::default() };
    sources.load().map(|loaded| loaded.config).map_err(|error| error.to_string())
}

fn keys(table: &toml::Table) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    for (section, values) in table {
        let values = values.as_table().unwrap_or_else(|| panic!("{section} is no section"));
        keys.extend(values.keys().map(|key| format!("{section}.{key}")));
    }
    keys
}

#[test]
fn the_documented_default_is_the_default_and_complete() {
    let documented: toml::Table = toml::from_str(DEFAULT_TOML).unwrap();
    let known = toml::Table::try_from(Config::default()).unwrap();
    assert_eq!(keys(&documented), keys(&known));
    let config: Config = toml::from_str(DEFAULT_TOML).unwrap();
    assert_eq!(config, Config::default());
    // As text too, so that `config print` shows what the file says.
    for (section, values) in &documented {
        for (key, value) in values.as_table().unwrap() {
            assert_eq!(value, &known[section][key], "{section}.{key}");
        }
    }
    config.check().unwrap();
}

#[test]
fn every_documented_key_has_a_comment() {
    let mut commented = false;
    for line in DEFAULT_TOML.lines() {
        if line.starts_with('#') {
            commented = true;
        } else if line.is_empty() || line.starts_with('[') {
            commented = false;
        } else {
            // A comment may cover the keys right below it.
            assert!(commented, "{line}");
        }
    }
}

#[test]
fn flag_beats_environment_beats_file_beats_default() {
    let (_dir, path) = file(
        "[server]\nlisten = \"127.0.0.1:1\"\ninstance_id = \"from-file\"\n\
         [storage]\ndata_dir = \"from-file\"\n[limits]\nwatches = 7\n",
    );
    let mut sources = Sources {
        file: Some(path.clone()),
        environment: env(&[
            ("TAILMARK_SERVER_LISTEN", "127.0.0.1:2"),
            ("TAILMARK_STORAGE_DATA_DIR", "from-env"),
            ("TAILMARK_LOG_READER_THREADS", "5"),
            ("TAILMARK_RETENTION_MAX_AGE", "7d"),
            ("TAILMARK_ADDR", "http://elsewhere:1"),
            ("PATH", "/bin"),
        ]),
        ..Sources::default()
    };
    sources.flag("--listen", "server.listen", Some("127.0.0.1:3".to_owned()));
    sources.flag("--data-dir", "storage.data_dir", None);
    let loaded = sources.load().unwrap();
    let config = &loaded.config;
    assert_eq!(config.server.listen, "127.0.0.1:3");
    assert_eq!(config.storage.data_dir, PathBuf::from("from-env"));
    assert_eq!(config.server.instance_id, "from-file");
    assert_eq!(config.limits.watches, 7);
    assert_eq!(config.log.reader_threads, 5);
    assert_eq!(config.retention.max_age, Some(Duration::from_secs(7 * 86_400)));
    assert_eq!(config.log.recent_bytes, 32 << 20);
    let variable = |name: &str| Origin::Environment(name.to_owned());
    assert_eq!(loaded.origin("server.listen"), Origin::Flag("--listen"));
    assert_eq!(loaded.origin("storage.data_dir"), variable("TAILMARK_STORAGE_DATA_DIR"));
    assert_eq!(loaded.origin("server.instance_id"), Origin::File(path));
    assert_eq!(loaded.origin("log.recent_bytes"), Origin::Default);
}

#[test]
fn values_read_as_people_write_them() {
    let config = load(
        "[storage]\nslot_bytes = 1048576\ncompression = \"zstd\"\nseal_after = \"1h30m\"\n\
         [retention]\nmax_bytes = \"10 GiB\"\nmax_events = 1000\nmax_age = \"unlimited\"\n",
    )
    .unwrap();
    assert_eq!(config.storage.slot_bytes, 1 << 20);
    assert_eq!(config.storage.compression, Compression::Zstd(1));
    assert_eq!(config.storage.seal_after, Duration::from_secs(5_400));
    assert_eq!(config.retention.max_bytes, Some(10 << 30));
    assert_eq!(config.retention.max_events, Some(1_000));
    assert_eq!(config.retention.max_age, None);
}

#[test]
fn what_is_wrong_in_a_file_is_named_with_its_line() {
    for (text, line, part) in [
        ("[server]\n\nlisen = \"x\"\n", 3, "unknown field `lisen`"),
        ("[sever]\n", 1, "unknown field `sever`"),
        ("[server]\nlisten = 5\n", 2, "expected a string"),
        ("[server]\nlisten\n", 2, "expected `=`"),
        ("[log]\nreader_threads = -1\n", 2, ""),
        ("[storage]\nslot_bytes = \"64 M\"\n", 2, "expected a size"),
        ("[storage]\nslot_bytes = -1\n", 2, "must not be negative"),
        ("[storage]\ncompression = \"gzip\"\n", 2, "gzip"),
        ("[storage]\nseal_after = 5\n", 2, "expected a duration"),
        ("[server]\nlisten = \"a:1\"\nlisten = \"a:2\"\n", 3, "duplicate key"),
    ] {
        let error = load(text).unwrap_err();
        assert!(error.contains(&format!("tailmark.toml:{line}: ")), "{text:?}: {error}");
        assert!(error.contains(part), "{text:?}: {error}");
    }
    let sources = Sources { file: Some("/nonexistent/x.toml".into()), ..Sources::default() };
    assert!(matches!(sources.load(), Err(ConfigError::Read { .. })));
}

#[test]
fn what_is_wrong_in_the_environment_is_named() {
    for (name, value, part) in [
        ("TAILMARK_SERVER_LISEN", "x", "did you mean TAILMARK_SERVER_LISTEN?"),
        ("TAILMARK_FOO", "x", "unknown environment variable TAILMARK_FOO"),
        ("TAILMARK_SERVER_INSECURE", "yes", "TAILMARK_SERVER_INSECURE: `yes`: expected true"),
        ("TAILMARK_LIMITS_WATCHES", "many", "expected a whole number"),
        ("TAILMARK_LIMITS_EVENT_BYTES", "1 M", "TAILMARK_LIMITS_EVENT_BYTES: `1 M`"),
        ("TAILMARK_STORAGE_COMPRESSION", "gzip", "TAILMARK_STORAGE_COMPRESSION: "),
    ] {
        let environment = env(&[(name, value)]);
        let error = Sources { environment, ..Sources::default() }.load().unwrap_err().to_string();
        assert!(error.contains(part), "{name}={value}: {error}");
    }
}

#[test]
fn values_out_of_range_are_refused_with_key_and_line() {
    for (section, line, key) in [
        ("storage", "slot_bytes = \"1 KiB\"", "slot_bytes"),
        ("storage", "data_dir = \"\"", "data_dir"),
        ("storage", "seal_after = \"100d\"", "seal_after"),
        ("log", "reader_threads = 0", "reader_threads"),
        ("retention", "interval = \"1ms\"", "interval"),
        ("limits", "event_bytes = \"9 MiB\"", "event_bytes"),
        ("limits", "message_bytes = \"1 MiB\"", "message_bytes"),
        ("limits", "batch_bytes = \"512 KiB\"", "batch_bytes"),
        ("limits", "topic_bytes = 256", "topic_bytes"),
        ("http2", "max_concurrent_streams = 1000", "max_concurrent_streams"),
        ("http2", "max_frame_bytes = \"8 KiB\"", "max_frame_bytes"),
        ("http2", "connection_window_bytes = \"256 KiB\"", "connection_window_bytes"),
        ("server", "instance_id = \"\"", "instance_id"),
        ("server", "listen = \"example.org:80\"", "listen"),
        ("server", "listen = \"127.0.0.1\"", "listen"),
        ("server", "listen = \"0.0.0.0:1\"", "listen"),
        ("telemetry", "log_level = \"loud\"", "log_level"),
    ] {
        let error = load(&format!("# a comment\n\n[{section}]\n{line}\n")).unwrap_err();
        assert!(error.contains(&format!("tailmark.toml:4: {section}.{key}: ")), "{line}: {error}");
        // The same in the environment names the variable.
        let value = line.split(" = ").nth(1).unwrap().trim_matches('"');
        let name = format!("TAILMARK_{}_{}", section.to_uppercase(), key.to_uppercase());
        let environment = env(&[(&name, value)]);
        let error = Sources { environment, ..Sources::default() }.load().unwrap_err().to_string();
        assert!(error.starts_with(&format!("{name}: {section}.{key}: ")), "{line}: {error}");
    }
}

#[test]
fn settings_that_do_not_go_together_name_the_one_that_was_set() {
    // Larger events than a batch may have by default.
    let error = load("[limits]\nwatches = 5\nevent_bytes = \"5 MiB\"\n").unwrap_err();
    assert!(error.contains("tailmark.toml:3: limits.batch_bytes: 4 MiB"), "{error}");
    assert!(error.contains("as limits.event_bytes is set"), "{error}");
    let both = "[limits]\nevent_bytes = \"5 MiB\"\nbatch_bytes = \"4 MiB\"\n";
    assert!(load(both).unwrap_err().contains("tailmark.toml:3: limits.batch_bytes: "));
    let error = load("[limits]\nwatches_per_connection = 1100\n").unwrap_err();
    assert!(error.contains("tailmark.toml:2: http2.max_concurrent_streams: 1100"), "{error}");
    let environment = env(&[("TAILMARK_HTTP2_STREAM_WINDOW_BYTES", "33 MiB")]);
    let error = Sources { environment, ..Sources::default() }.load().unwrap_err().to_string();
    let set = "TAILMARK_HTTP2_STREAM_WINDOW_BYTES: ";
    assert!(error.starts_with(&format!("{set}http2.connection_window_bytes: 32 MiB")), "{error}");
}

#[test]
fn events_that_no_slot_takes_are_warned_of() {
    assert_eq!(Config::default().warnings(), [] as [&str; 0]);
    let warnings = load("[storage]\nslot_bytes = \"1 MiB\"\n").unwrap().warnings();
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].contains("larger events than 256 KiB are refused"), "{warnings:?}");
    let fitting = "[storage]\nslot_bytes = \"1 MiB\"\n[limits]\nevent_bytes = \"256 KiB\"\n";
    assert_eq!(load(fitting).unwrap().warnings(), [] as [&str; 0]);
}

#[test]
fn hosts_that_nobody_checks_are_warned_of() {
    let warnings = |text: &str| load(text).unwrap().warnings();
    let exposed = "[server]\ninsecure = true\nlisten = \"0.0.0.0:50051\"\n";
    let said = warnings(exposed);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].starts_with("http.allowed_hosts: ") && said[0].contains("0.0.0.0:50051"));
    let named = format!("{exposed}[http]\nallowed_hosts = [\"log.example\"]\n");
    assert_eq!(warnings(&named), [] as [&str; 0]);
    // A name that somebody points here has no certificate here.
    let tls = format!("{exposed}[tls]\ncert_file = \"c\"\nkey_file = \"k\"\n");
    assert_eq!(warnings(&tls), [] as [&str; 0]);
    // On the loopback hosts are checked, whatever else is allowed.
    assert_eq!(warnings("[server]\ninsecure = true\n"), [] as [&str; 0]);
}

#[test]
fn settings_are_listed_in_the_order_of_the_documented_default() {
    let loaded = Sources::default().load().unwrap();
    let mut at = 0;
    for (key, _) in loaded.entries() {
        let line = format!("\n{} = ", key.split_once('.').unwrap().1);
        let rest = &DEFAULT_TOML[at..];
        at += rest.find(&line).unwrap_or_else(|| panic!("{key} is not in its place")) + 1;
    }
}

#[test]
fn certificates_come_with_their_keys() {
    for (text, missing) in [
        ("cert_file = \"c\"\n", "tls.key_file: is missing, as tls.cert_file is set"),
        ("key_file = \"k\"\n", "tls.cert_file: is missing, as tls.key_file is set"),
        ("client_ca_file = \"a\"\n", "tls.cert_file: is missing, as tls.client_ca_file is set"),
    ] {
        let error = load(&format!("[tls]\n{text}")).unwrap_err();
        assert!(error.contains(missing), "{error}");
    }
}

#[test]
fn only_the_loopback_is_open_by_default() {
    for (listen, is_fine) in [
        ("127.0.0.1:1", true),
        ("127.8.8.8:1", true),
        ("[::1]:1", true),
        ("[::ffff:127.0.0.1]:1", true),
        ("localhost:1", true),
        ("0.0.0.0:1", false),
        ("[::]:1", false),
        ("192.168.1.1:1", false),
    ] {
        let text = format!("[server]\nlisten = \"{listen}\"\n");
        assert_eq!(load(&text).is_ok(), is_fine, "{listen}");
        assert!(load(&format!("{text}insecure = true\n")).is_ok(), "{listen}");
    }
    // TLS hides what is said, and lets everybody in.
    let exposed = "[server]\nlisten = \"0.0.0.0:1\"\n";
    let tls = "[tls]\ncert_file = \"c\"\nkey_file = \"k\"\n";
    let error = load(&format!("{exposed}{tls}")).unwrap_err();
    assert!(error.contains("lets everybody in"), "{error}");
    assert!(load(exposed).unwrap_err().contains("there is no TLS"));
    let clients = "client_ca_file = \"a\"\n";
    assert!(load(&format!("{exposed}{tls}{clients}")).is_ok());
    assert!(load(&format!("{exposed}insecure = true\n{tls}")).is_ok());
    let config = load("[server]\nlisten = \"localhost:7\"").unwrap();
    let addresses: Vec<_> =
        config.server.addresses().unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["127.0.0.1:7", "[::1]:7"]);
}

/// What Kubernetes and Docker tell of a Service or a container named like this program.
const SERVICE_LINKS: [(&str, &str); 29] = [
    ("TAILMARK_SERVICE_HOST", "10.96.0.12"),
    ("TAILMARK_SERVICE_HOST", "fd00::7"),
    ("TAILMARK_SERVICE_PORT", "50051"),
    ("TAILMARK_SERVICE_PORT_GRPC", "50051"),
    ("TAILMARK_SERVICE_PORT_HTTP_METRICS", "80"),
    ("TAILMARK_PORT", "tcp://10.96.0.12:50051"),
    ("TAILMARK_PORT", "udp://[fd00::7]:50051"),
    ("TAILMARK_PORT_50051_TCP", "tcp://10.96.0.12:50051"),
    ("TAILMARK_PORT_50051_TCP_ADDR", "10.96.0.12"),
    ("TAILMARK_PORT_50051_TCP_PORT", "50051"),
    ("TAILMARK_PORT_50051_TCP_PROTO", "tcp"),
    ("TAILMARK_PORT_53_UDP_PROTO", "udp"),
    ("TAILMARK_PORT_7_SCTP", "sctp://10.96.0.12:7"),
    ("TAILMARK_FEED_SERVICE_HOST", "10.96.0.13"),
    ("TAILMARK_FEED_SERVICE_PORT_GRPC", "50051"),
    ("TAILMARK_FEED_PORT", "tcp://10.96.0.13:50051"),
    ("TAILMARK_FEED_PORT_50051_TCP_ADDR", "10.96.0.13"),
    // Services named like sections.
    ("TAILMARK_SERVER_SERVICE_HOST", "10.96.0.14"),
    ("TAILMARK_SERVER_PORT", "tcp://10.96.0.14:50051"),
    ("TAILMARK_LOG_PORT_80_TCP", "tcp://10.96.0.14:80"),
    ("TAILMARK_PORT_PORT_80_TCP_PORT", "80"),
    // Docker's links.
    ("TAILMARK_NAME", "/web/tailmark"),
    ("TAILMARK_FEED_NAME", "/web/tailmark-feed"),
    ("TAILMARK_ENV_TAILMARK_SERVER_LISTEN", "0.0.0.0:50051"),
    ("TAILMARK_ENV_lower", "anything"),
    ("TAILMARK_PORT_50051_TCP_START", "tcp://172.17.0.2:50051"),
    ("TAILMARK_PORT_50051_TCP_END", "tcp://172.17.0.2:50053"),
    ("TAILMARK_PORT_50051_TCP_PORT_START", "50051"),
    ("TAILMARK_PORT_50051_TCP_PORT_END", "50053"),
];

#[test]
fn what_kubernetes_says_of_a_service_of_that_name_is_passed_over() {
    for (name, value) in SERVICE_LINKS {
        let mut pairs = vec![(name, value)];
        // Docker's, which may be anything, count beside the port of the same container.
        if name.ends_with("_NAME") || name.contains("_ENV_") {
            pairs.push(("TAILMARK_PORT", "tcp://172.17.0.2:50051"));
            pairs.push(("TAILMARK_FEED_PORT", "tcp://172.17.0.3:50051"));
        }
        let sources = Sources { environment: env(&pairs), ..Sources::default() };
        let loaded = sources.load().unwrap_or_else(|error| panic!("{name}={value}: {error}"));
        assert_eq!(loaded.config, Config::default(), "{name}");
    }
}

#[test]
fn what_only_looks_like_a_service_is_a_typing_error_still() {
    for (name, value) in [
        // The shape of Kubernetes, the value of a person.
        ("TAILMARK_SERVER_PORT", "50051"),
        ("TAILMARK_PORT", "50051"),
        ("TAILMARK_PORT", "http://10.0.0.1:80"),
        ("TAILMARK_SERVICE_HOST", "feed.example"),
        ("TAILMARK_SERVICE_PORT", "tcp://10.0.0.1:80"),
        ("TAILMARK_SERVICE_PORT_GRPC", "many"),
        ("TAILMARK_PORT_50051_TCP", "50051"),
        ("TAILMARK_PORT_50051_TCP_PROTO", "udp"),
        ("TAILMARK_PORT_99999_TCP", "tcp://10.0.0.1:99999"),
        ("TAILMARK_PORT_50051_QUIC", "quic://10.0.0.1:50051"),
        ("TAILMARK_NAME", "feed-1"),
        ("TAILMARK_INSTANCE_NAME", "feed-1"),
        // Nearly.
        ("TAILMARK_SERVICE", "10.0.0.1"),
        ("TAILMARK_SERVICE_HOSTS", "10.0.0.1"),
        ("TAILMARK_PORT_50051", "tcp://10.0.0.1:50051"),
        ("TAILMARK_PORT_50051_TCP_ADDRESS", "10.0.0.1"),
        ("TAILMARK_service_host", "10.0.0.1"),
    ] {
        let sources = Sources { environment: env(&[(name, value)]), ..Sources::default() };
        let error = sources.load().expect_err(name);
        assert!(matches!(&error, ConfigError::UnknownVariable { name: told, .. } if told == name));
    }
}

#[test]
fn what_docker_may_write_is_passed_over_only_beside_its_port() {
    let port = ("TAILMARK_PORT", "tcp://172.17.0.2:50051");
    let log_port = ("TAILMARK_LOG_PORT", "tcp://172.17.0.2:50051");
    let no_port = ("TAILMARK_FEED_NAME_PORT", "tcp://172.17.0.2:50051");
    for (name, value, beside) in [
        // A person's, of what is no link.
        ("TAILMARK_LOG_NAME", "/data/log", no_port),
        ("TAILMARK_NAME", "/web/tailmark", no_port),
        ("TAILMARK_LOG_ENV_DIR", "/data", no_port),
        ("TAILMARK_ENV_DIR", "/data", log_port),
        // Beside a link, and another alias.
        ("TAILMARK_LOG_NAME", "/data/log", log_port),
        ("TAILMARK_NAME", "/srv/data/tailmark", port),
        ("TAILMARK_NAME", "//tailmark", port),
        ("TAILMARK_NAME", "tailmark", port),
    ] {
        let environment = env(&[(name, value), beside]);
        let error = Sources { environment, ..Sources::default() }.load().expect_err(name);
        assert!(matches!(&error, ConfigError::UnknownVariable { name: told, .. } if told == name));
    }
}

#[test]
fn settings_work_beside_a_service_of_that_name() {
    let mut pairs = SERVICE_LINKS.to_vec();
    pairs.push(("TAILMARK_SERVER_LISTEN", "127.0.0.1:7"));
    let sources = Sources { environment: env(&pairs), ..Sources::default() };
    assert_eq!(sources.load().unwrap().config.server.listen, "127.0.0.1:7");
}

#[test]
fn a_file_of_settings_that_is_none_is_told_and_never_read_for_ever() {
    let (dir, _) = file("");
    let huge = dir.path().join("huge.toml");
    std::fs::File::create(&huge).unwrap().set_len(1 << 30).unwrap();
    let binary = dir.path().join("binary.toml");
    std::fs::write(&binary, b"[log]\n\xff").unwrap();
    for (path, part) in [
        (PathBuf::from("/dev/zero"), "more than 1 MiB"),
        (dir.path().to_owned(), "it is a directory"),
        (huge, "more than 1 MiB"),
        (binary, "byte 6 is no UTF-8"),
    ] {
        let error = Sources { file: Some(path.clone()), ..Sources::default() }.load().unwrap_err();
        let ConfigError::Read { source, .. } = &error else { panic!("{error:?}") };
        assert!(source.to_string().contains(part), "{}: {source}", path.display());
    }
    // What comes only once is not asked for again while the daemon runs.
    let once = Sources { file: Some("/dev/null".into()), ..Sources::default() };
    assert!(once.load().is_ok());
    assert!(matches!(once.load_again(), Err(ConfigError::Read { .. })));
    // What looks odd and is none of that.
    let empty = Sources { file: Some("/dev/null".into()), ..Sources::default() };
    assert_eq!(empty.load().unwrap().config, Config::default());
}

#[test]
fn settings_come_through_a_pipe_too() {
    let mut command =
        crate::support::daemon::program(&["config", "print", "--config", "/dev/stdin"]);
    let output = crate::support::daemon::feed(&mut command, b"[log]\nreader_threads = 7\n");
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && said.contains("reader_threads = 7"), "{said}");
}

/// What is not built in is refused in words, and not when the first event comes.
#[test]
fn a_shared_journal_takes_a_program_that_has_it() {
    let whole = "[journal]\nkind = \"nats\"\nservers = [\"nats://127.0.0.1:4222\"]\nname = \"a\"\n\
                 key_file = \"k\"\n";
    let loaded = load(whole);
    if !tailmark::config::HAS_NATS {
        let error = loaded.unwrap_err();
        assert!(error.contains("journal.kind") && error.contains("--features nats"), "{error}");
        return;
    }
    // A path begins at the file.
    assert!(loaded.unwrap().journal.key_file.is_absolute());
    for (instead, of, named) in [
        ("", "servers = [\"nats://127.0.0.1:4222\"]\n", "journal.servers"),
        (
            "servers = [\"127.0.0.1:4222\"]\n",
            "servers = [\"nats://127.0.0.1:4222\"]\n",
            "journal.servers",
        ),
        ("", "name = \"a\"\n", "journal.name"),
        ("name = \"a.b\"\n", "name = \"a\"\n", "journal.name"),
        ("", "key_file = \"k\"\n", "journal.key_file"),
        ("key_file = \"k\"\nadvertise = \"a:1\"\n", "key_file = \"k\"\n", "journal.advertise"),
        ("key_file = \"k\"\nmonitors = [\"a\"]\n", "key_file = \"k\"\n", "journal.monitors"),
        ("key_file = \"k\"\nreplicas = 0\n", "key_file = \"k\"\n", "journal.replicas"),
        ("key_file = \"k\"\nuser = \"u\"\n", "key_file = \"k\"\n", "journal.password_file"),
        ("key_file = \"k\"\ncert_file = \"c\"\n", "key_file = \"k\"\n", "journal.cert_key_file"),
    ] {
        assert!(whole.contains(of));
        let error = load(&whole.replace(of, instead)).unwrap_err();
        assert!(error.contains(named), "{instead:?}: {error}");
    }
}

/// Of a local journal the rest of the section is not looked at.
#[test]
fn a_log_on_this_machine_needs_nothing_of_the_section() {
    let config = load("[journal]\nkind = \"local\"\nservers = [\"nowhere\"]\n").unwrap();
    assert!(!config.journal.is_shared());
}
