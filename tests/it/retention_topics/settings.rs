//! `[[retention.topics]]`: how rules are read, refused, shown and given by the environment.

use std::path::PathBuf;
use std::time::Duration;

use tailmark::config::{Config, DEFAULT_TOML, Keep, Sources, TopicRetention};

fn load(text: &str) -> Result<Config, String> {
    let dir = tempfile::tempdir().unwrap();
    let path: PathBuf = dir.path().join("tailmark.toml");
    std::fs::write(&path, text).unwrap();
    let sources = Sources { file: Some(path), ..Sources::default() };
    sources.load().map(|loaded| loaded.config).map_err(|error| error.to_string())
}

fn from_environment(text: &str) -> Result<Config, String> {
    let environment = vec![("TAILMARK_RETENTION_TOPICS".to_owned(), text.to_owned())];
    let sources = Sources { environment, ..Sources::default() };
    sources.load().map(|loaded| loaded.config).map_err(|error| error.to_string())
}

fn rule(pattern: &str) -> TopicRetention {
    TopicRetention { pattern: pattern.to_owned(), ..TopicRetention::default() }
}

const THREE: &str = r#"
[retention]
max_events = 5
[[retention.topics]]
pattern = "audit.>"
[[retention.topics]]
pattern = "sensors.>"
max_age = "7d"
max_events = 10000
[[retention.topics]]
pattern = "users.*.profile"
max_age = "unlimited"
keep = "latest-per-key"
"#;

fn three() -> Vec<TopicRetention> {
    let week = Some(Duration::from_secs(7 * 86_400));
    vec![
        rule("audit.>"),
        TopicRetention { max_age: week, max_events: Some(10_000), ..rule("sensors.>") },
        TopicRetention { keep: Keep::LatestPerKey, ..rule("users.*.profile") },
    ]
}

#[test]
fn rules_are_a_list_of_tables() {
    let config = load(THREE).unwrap();
    assert_eq!(config.retention.topics, three());
    assert_eq!(config.retention.max_events, Some(5));
    assert_eq!(config.warnings(), [] as [&str; 0]);
    assert_eq!(load("").unwrap().retention.topics, []);
}

#[test]
fn the_environment_has_them_in_a_line_and_what_is_shown_is_read_back() {
    let line = r#"[{pattern = "audit.>"}, {pattern = "sensors.>", max_age = "7d", max_events = 10000},
        {pattern = "users.*.profile", keep = "latest-per-key"}]"#;
    assert_eq!(from_environment(line).unwrap().retention.topics, three());
    for (text, part) in [
        ("audit.>", "expected tables in one line, as in [{ pattern"),
        ("7", "expected tables in one line"),
        ("[{pattern = \"a\", max_ages = \"7d\"}]", "unknown field `max_ages`"),
        ("[{pattern = \"a..b\"}]", "retention.topics: rule 1 (`a..b`): its pattern"),
        ("[\"a.>\"]", "TAILMARK_RETENTION_TOPICS: "),
    ] {
        let error = from_environment(text).unwrap_err();
        assert!(error.starts_with("TAILMARK_RETENTION_TOPICS: "), "{text}: {error}");
        assert!(error.contains(part), "{text}: {error}");
    }
    // As `config print` does it.
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.toml");
    std::fs::write(&file, THREE).unwrap();
    let print = |file: &std::path::Path| {
        let mut command = crate::support::daemon::program(&["config", "print", "--config"]);
        let output = command.arg(file).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let shown = print(&file);
    assert!(shown.contains("topics = [{"), "{shown}");
    assert_eq!(load(&shown).unwrap().retention, load(THREE).unwrap().retention);
    // In the place of the line that the commented default has, and nowhere beside it.
    let (without, example) =
        (DEFAULT_TOML.replace("\ntopics = []\n", "\n"), &THREE[THREE.find("[[").unwrap()..]);
    assert_eq!(load(&format!("{without}{example}")).unwrap().retention.topics, three());
    let both = load(&format!("{DEFAULT_TOML}{example}")).unwrap_err();
    assert!(both.contains("tailmark.toml:") && both.contains("topics"), "{both}");
}

#[test]
fn a_wrong_rule_is_named_by_number_and_pattern() {
    let long = format!("\"{}\"", "x".repeat(300));
    for (lines, part) in [
        ("max_events = 5", "rule 2 (``): it has no pattern"),
        ("pattern = \"a..b\"", "rule 2 (`a..b`): its pattern has an empty segment"),
        ("pattern = \"a.>.b\"", "rule 2 (`a.>.b`): its pattern `>` must be the last segment"),
        ("pattern = \"b\"\nmax_events = 0", "rule 2 (`b`): max_events: 0 would keep nothing"),
        ("pattern = \"b\"\nmax_age = \"10ms\"", "rule 2 (`b`): max_age: 10ms is not within 1s"),
        (&*format!("pattern = {long}"), "rule 2 (`xxx"),
    ] {
        let text = format!(
            "[retention]\n\n[[retention.topics]]\npattern = \"a\"\n[[retention.topics]]\n{lines}\n"
        );
        let error = load(&text).unwrap_err();
        assert!(
            error.contains("tailmark.toml:") && error.contains("retention.topics: "),
            "{error}"
        );
        assert!(error.contains(part), "{lines}: {error}");
    }
    for (lines, part) in [
        (
            "pattern = \"b\"\nkeep = \"latest\"",
            "unknown variant `latest`, expected `all` or `latest-per-key`",
        ),
        ("pattern = \"b\"\nmaxage = \"7d\"", "unknown field `maxage`"),
        ("pattern = \"b\"\nmax_age = 7", "expected a duration"),
    ] {
        let error = load(&format!("[[retention.topics]]\n{lines}\n")).unwrap_err();
        assert!(error.contains("tailmark.toml:3: "), "{lines}: {error}");
        assert!(error.contains(part), "{lines}: {error}");
    }
    let many = "[[retention.topics]]\npattern = \"a\"\n".repeat(257);
    assert!(load(&many).unwrap_err().contains("257 rules are more than 256"));
}

#[test]
fn a_rule_that_never_counts_is_warned_of() {
    let warnings = |patterns: &[&str]| {
        let rules = patterns.iter().map(|it| format!("[[retention.topics]]\npattern = \"{it}\"\n"));
        load(&rules.collect::<String>()).unwrap().warnings()
    };
    assert_eq!(warnings(&["a.b", "a.>", "a", ">"]), [] as [&str; 0]);
    let told = warnings(&["x", "a.>", "a.b", "a.>"]);
    let never = |number, pattern| {
        format!(
            "retention.topics: rule {number} (`{pattern}`) never counts: all its topics are of rule 2 (`a.>`)"
        )
    };
    assert_eq!(told, [never(3, "a.b"), never(4, "a.>")]);
    // Where it takes several.
    let told = warnings(&["a.*", "a.*.>", "a.>"]);
    assert_eq!(told.len(), 1);
    assert!(
        told[0].contains("rule 3 (`a.>`) never counts: all its topics are of the rules before")
    );
}
