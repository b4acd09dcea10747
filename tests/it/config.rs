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
        flags: Vec::new(),
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
    assert_eq!(config.storage.compression, Compression::Zstd);
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
        ("[storage]\nslot_bytes = \"64 MB\"\n", 2, "expected a size"),
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
        ("TAILMARK_LIMITS_EVENT_BYTES", "1 MB", "TAILMARK_LIMITS_EVENT_BYTES: `1 MB`"),
        ("TAILMARK_STORAGE_COMPRESSION", "gzip", "TAILMARK_STORAGE_COMPRESSION: "),
        ("TAILMARK_LIMITS_EVENT_BYTES", "9 MiB", "(from TAILMARK_LIMITS_EVENT_BYTES)"),
    ] {
        let environment = env(&[(name, value)]);
        let error = Sources { environment, ..Sources::default() }.load().unwrap_err().to_string();
        assert!(error.contains(part), "{name}={value}: {error}");
    }
}

#[test]
fn values_out_of_range_are_refused() {
    for text in [
        "[storage]\nslot_bytes = \"1 KiB\"",
        "[log]\nreader_threads = 0",
        "[limits]\nevent_bytes = \"9 MiB\"",
        "[limits]\nmessage_bytes = \"1 MiB\"",
        "[limits]\nbatch_bytes = \"512 KiB\"",
        "[limits]\ntopic_bytes = 256",
        "[http2]\nmax_concurrent_streams = 1000",
        "[http2]\nmax_frame_bytes = \"8 KiB\"",
        "[http2]\nconnection_window_bytes = \"256 KiB\"",
        "[server]\ninstance_id = \"\"",
        "[server]\nlisten = \"example.org:80\"",
        "[server]\nlisten = \"127.0.0.1\"",
        "[telemetry]\nlog_level = \"loud\"",
    ] {
        assert!(load(text).is_err(), "{text}");
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
    let config = load("[server]\nlisten = \"localhost:7\"").unwrap();
    let addresses: Vec<_> =
        config.server.addresses().unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["127.0.0.1:7", "[::1]:7"]);
}
