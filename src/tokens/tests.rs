use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::*;
use crate::server::TokenHash;
use tailmark_record::Timestamp;

fn new(name: &str) -> New {
    let publish = vec!["in.>".to_owned()];
    New {
        name: name.to_owned(),
        publish,
        watch: Vec::new(),
        admin: false,
        expires: None,
        replaces: false,
    }
}

fn now() -> Timestamp {
    Timestamp::parse("2026-11-29T10:00:00Z").unwrap()
}

fn place() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokens.toml");
    (dir, path)
}

#[test]
fn a_token_is_given_out_once_and_kept_as_a_hash() {
    let (_dir, path) = place();
    let (token, made) = create(&path, new("ci"), now()).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(!text.contains(&token) && !text.contains(&token["tailmark_".len()..]));
    assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
    let read = Tokens::read(&path).unwrap();
    assert_eq!(read.tokens, [made]);
    assert_eq!(read.tokens[0].hash, Some(TokenHash::of(&token)));
    assert!(matches!(create(&path, new("ci"), now()), Err(TokensError::Taken(_))));
    assert!(matches!(revoke(&path, "other"), Err(TokensError::Unknown(_))));
    let (token, made) = create(&path, New { replaces: true, ..new("ci") }, now()).unwrap();
    assert_eq!(Tokens::read(&path).unwrap().tokens, [made]);
    revoke(&path, "ci").unwrap();
    assert_eq!(Tokens::read(&path).unwrap(), Tokens::default());
    // And again, under the same name.
    assert_ne!(create(&path, new("ci"), now()).unwrap().0, token);
}

#[test]
fn what_people_wrote_stays() {
    let (_dir, path) = place();
    let hash = TokenHash::of("a");
    let written = format!(
        "# Ours.\n[[token]]\nname = \"by hand\" # of Ann\nhash = \"{hash}\"\nwatch = [\n  \"a.*\",\n]\n\
         expires = 2027-01-31T09:30:00+01:00\n\n[[certificate]]\nname = \"worker\"\nadmin = true\n"
    );
    std::fs::write(&path, &written).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    let before = Tokens::read(&path).unwrap();
    assert_eq!(before.tokens[0].expires, Timestamp::parse("2027-01-31T08:30:00Z"));
    assert!(before.certificates[0].admin && before.certificates[0].hash.is_none());
    create(&path, new("ci"), now()).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    for part in ["# Ours.", "# of Ann", "  \"a.*\",\n]"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o640);
    revoke(&path, "ci").unwrap();
    assert_eq!(Tokens::read(&path).unwrap(), before);
    // Through a link, which stays one.
    let link = path.with_file_name("link.toml");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    create(&link, new("by link"), now()).unwrap();
    assert!(link.symlink_metadata().unwrap().is_symlink());
    assert_eq!(Tokens::read(&path).unwrap().tokens.len(), 2);
}

#[test]
fn links_that_lead_astray_are_not_followed() {
    use std::os::unix::fs::symlink;
    let (dir, path) = place();
    // A link to nothing is no file that has yet to be made.
    let gone = dir.path().join("gone.toml");
    symlink(&gone, &path).unwrap();
    for error in [create(&path, new("a"), now()).unwrap_err(), Tokens::read(&path).unwrap_err()] {
        let why = std::error::Error::source(&error).unwrap().to_string();
        assert!(why.contains("leads nowhere"), "{why}");
    }
    assert!(path.is_symlink() && !gone.exists());
    std::fs::remove_file(&path).unwrap();

    // The control: without the link beside it there is no trouble.
    create(&path, new("a"), now()).unwrap();
    let (lock, elsewhere) =
        (path.with_file_name(".tokens.toml.lock"), dir.path().join("elsewhere"));
    std::fs::remove_file(&lock).unwrap();
    symlink(&elsewhere, &lock).unwrap();
    assert!(create(&path, new("b"), now()).is_err());
    assert!(!elsewhere.exists(), "a file where the link leads");
}

#[test]
fn many_entries_are_read_in_time_that_grows_with_their_number() {
    use std::fmt::Write;
    let (_dir, path) = place();
    let mut text = String::new();
    for at in 0..20_000 {
        write!(text, "[[token]]\nname = \"n{at}\"\nhash = \"sha256:{at:064}\"\n").unwrap();
    }
    std::fs::write(&path, &text).unwrap();
    let begun = std::time::Instant::now();
    assert_eq!(Tokens::read(&path).unwrap().tokens.len(), 20_000);
    assert!(begun.elapsed() < std::time::Duration::from_secs(10), "{:?}", begun.elapsed());
    // The control: what is there twice is found.
    for twice in ["name = \"n7\"\nhash = \"sha256:a", "name = \"x\"\nhash = \"sha256:0"] {
        std::fs::write(&path, format!("{text}[[token]]\n{twice}{:063}\"\n", 7)).unwrap();
        let error = Tokens::read(&path).unwrap_err().to_string();
        assert!(error.contains(":60001:") && error.contains("twice"), "{error}");
    }
}

#[test]
fn what_is_wrong_is_told_with_its_line_and_changes_nothing() {
    let (_dir, path) = place();
    let hash = TokenHash::of("a");
    let entry = |more: &str| format!("[[token]]\nname = \"a\"\nhash = \"{hash}\"\n{more}\n");
    for (text, line, part) in [
        ("x = 1\n".to_owned(), 1, "`x` is not known"),
        ("[token]\nname = \"a\"\n".to_owned(), 1, "expected [[token]]"),
        ("[[token]]\nname = \"a\"\n".to_owned(), 1, "has no hash"),
        (format!("\n[[token]]\nhash = \"{hash}\"\n"), 2, "has no name"),
        (entry("hush = 1"), 4, "hush: is not known"),
        (entry("watch = \"a\""), 4, "watch: expected a list"),
        (entry("watch = [\"a..b\"]"), 4, "`a..b`"),
        (entry("admin = 1"), 4, "admin: expected true or false"),
        (entry("expires = 2027-01-31"), 4, "expires: expected a time"),
        (entry("expires = 2027-01-31T09:30:00"), 4, "expires: expected a time"),
        (entry("[[token]]\nname = \"a\"\nhash = \"sha256:00\""), 6, "hash: expected"),
        (entry(&entry("")), 4, "twice"),
        (entry(&entry("").replace("\"a\"", "\"b\"")), 4, "twice"),
        (entry("name = \"b\""), 4, "duplicate"),
        ("[[certificate]]\nname = \"a\"\nhash = \"x\"\n".to_owned(), 3, "hash: is not known"),
        (entry("").replace("\"a\"", "\"a\\u0007\""), 2, "control"),
    ] {
        std::fs::write(&path, &text).unwrap();
        let error = Tokens::read(&path).unwrap_err();
        let TokensError::Content { line: found, message, .. } = &error else { panic!("{error}") };
        assert_eq!(*found, line, "{text}: {message}");
        assert!(message.contains(part), "{text}: {message}");
        assert!(create(&path, new("ci"), now()).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    }
    let mut bad = new("ci");
    bad.watch = vec!["a..b".to_owned()];
    std::fs::remove_file(&path).unwrap();
    assert!(create(&path, bad, now()).is_err() && !path.exists());
    for name in ["", " a", "a\nb", &"x".repeat(129)] {
        assert!(create(&path, new(name), now()).is_err(), "{name:?}");
    }
}

#[test]
fn changes_at_the_same_time_are_one_after_the_other() {
    let (_dir, path) = place();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let path = &path;
            scope.spawn(move || {
                for at in 0..5 {
                    create(path, new(&format!("{thread}.{at}")), now()).unwrap();
                    if at % 2 == 0 {
                        revoke(path, &format!("{thread}.{at}")).unwrap();
                    }
                }
            });
        }
    });
    let names: Vec<_> = Tokens::read(&path).unwrap().tokens.into_iter().map(|it| it.name).collect();
    assert_eq!(names.len(), 8 * 2, "{names:?}");
}
