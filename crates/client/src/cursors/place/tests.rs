use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

fn dir() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn replace(path: &Path, text: &str) -> io::Result<()> {
    Place::of(path)?.replace(text.as_bytes())
}

/// Names in a directory, sorted.
fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_link_stays_a_link_and_what_it_leads_to_is_replaced() {
    let dir = dir();
    let path = |name: &str| dir.path().join(name);
    fs::create_dir(path("elsewhere")).unwrap();
    fs::write(path("elsewhere/real"), "old").unwrap();
    symlink("elsewhere/real", path("near")).unwrap();
    symlink(path("near"), path("far")).unwrap();
    for link in ["near", "far"] {
        assert_eq!(Place::of(&path(link)).unwrap().read().unwrap().unwrap(), b"old");
        replace(&path(link), link).unwrap();
        assert_eq!(fs::read_to_string(path("elsewhere/real")).unwrap(), link);
        assert!(fs::symlink_metadata(path(link)).unwrap().is_symlink(), "{link}");
        fs::write(path("elsewhere/real"), "old").unwrap();
    }
    // The new file was written beside the target, where a rename is atomic.
    assert_eq!(names(dir.path()), ["elsewhere", "far", "near"]);
    assert_eq!(names(&path("elsewhere")), ["real"]);
}

#[test]
fn a_link_to_what_is_not_there_yet_is_followed() {
    let dir = dir();
    let path = |name: &str| dir.path().join(name);
    fs::create_dir(path("elsewhere")).unwrap();
    symlink("elsewhere/state", path("link")).unwrap();
    assert_eq!(Place::of(&path("link")).unwrap().read().unwrap(), None);
    replace(&path("link"), "new").unwrap();
    assert_eq!(fs::read_to_string(path("elsewhere/state")).unwrap(), "new");
    assert!(fs::symlink_metadata(path("link")).unwrap().is_symlink());
    // Not even the directory.
    symlink("nowhere/state", path("lost")).unwrap();
    assert_eq!(replace(&path("lost"), "new").unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[test]
fn links_in_a_circle_are_an_error() {
    let dir = dir();
    let path = |name: &str| dir.path().join(name);
    symlink("b", path("a")).unwrap();
    symlink("a", path("b")).unwrap();
    assert!(Place::of(&path("a")).is_err());
    assert!(follow(&path("a")).unwrap_err().to_string().contains("more than 40"));
}

#[test]
fn what_is_no_file_is_refused_and_left_alone() {
    let dir = dir();
    let pipe = dir.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let socket = dir.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    for (path, what) in [
        (dir.path(), "a directory"),
        (&pipe, "a pipe"),
        (&socket, "a socket"),
        (Path::new("/dev/zero"), "a device"),
        (Path::new("/dev/null"), "a device"),
    ] {
        let error = Place::of(path).unwrap_err();
        assert!(error.to_string().contains(what), "{}: {error}", path.display());
    }
    assert!(Place::of(Path::new("..")).is_err());
    // A link to such a thing is one too.
    let link = dir.path().join("link");
    symlink("/dev/null", &link).unwrap();
    assert!(Place::of(&link).unwrap_err().to_string().contains("a device"));
}

#[test]
fn a_new_file_has_the_mode_of_the_old_one() {
    let dir = dir();
    let path = dir.path().join("state");
    fs::write(&path, "old").unwrap();
    for mode in [0o600, 0o664, 0o444] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        replace(&path, "new").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, mode);
    }
}

#[test]
fn a_file_that_was_not_there_can_be_read_by_its_owner_alone() {
    let dir = dir();
    let path = dir.path().join("state");
    replace(&path, "one").unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
}

#[test]
fn another_name_of_the_file_keeps_what_it_had() {
    // As copies by hard links need it: an older cursor brings events again, and none is lost.
    let dir = dir();
    let path = |name: &str| dir.path().join(name);
    fs::write(path("state"), "old").unwrap();
    fs::hard_link(path("state"), path("copy")).unwrap();
    replace(&path("state"), "new").unwrap();
    assert_eq!(fs::read_to_string(path("copy")).unwrap(), "old");
    assert_eq!(fs::read_to_string(path("state")).unwrap(), "new");
}

#[test]
fn what_a_crash_left_beside_the_file_is_removed_and_not_written_through() {
    let dir = dir();
    let path = |name: &str| dir.path().join(name);
    fs::write(path("precious"), "precious").unwrap();
    symlink("precious", path("state.tmp")).unwrap();
    replace(&path("state"), "new").unwrap();
    assert_eq!(fs::read_to_string(path("precious")).unwrap(), "precious");
    assert_eq!(names(dir.path()), ["precious", "state"]);
}

#[test]
fn a_directory_that_takes_no_file_is_named() {
    let place = Place::of(Path::new("/some/where/state")).unwrap();
    for (kind, part) in [
        (io::ErrorKind::PermissionDenied, "/some/where must be writable"),
        (io::ErrorKind::ReadOnlyFilesystem, "/some/where must be writable"),
        (io::ErrorKind::ResourceBusy, "mount the directory /some/where"),
    ] {
        let error = place.explain(kind.into());
        assert!(error.kind() == kind && error.to_string().contains(part), "{error}");
    }
    // Where even root may not write.
    let error = replace(Path::new("/proc/state"), "new").unwrap_err();
    assert!(!error.to_string().is_empty());
}

#[test]
fn a_file_that_is_far_too_large_is_not_read() {
    let dir = dir();
    let path = dir.path().join("state");
    File::create(&path).unwrap().set_len(1 << 30).unwrap();
    let error = Place::of(&path).unwrap().read().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
}
