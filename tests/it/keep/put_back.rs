//! A segment that is put back by hand, as `docs/operations.md` says it.

use std::path::Path;

use crate::support::daemon::{feed, program};
use crate::support::kept::{events, expect_clean, life};
use crate::support::logdir;

/// Where a backup cannot tell which segment it was, `cp` can.
#[tokio::test]
async fn a_segment_without_its_footer_comes_back_from_a_backup() {
    let dir = tempfile::tempdir().unwrap();
    life(dir.path()).await;
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let code = |args: &[&str]| feed(&mut program(args), b"").status.code();
    let (data, to) = (path("data"), path("to"));
    assert_eq!(code(&["backup", &to, "--data-dir", &data]), Some(0));
    let wanted = events(Path::new(&data));
    let segment = logdir::segments(Path::new(&data)).remove(1);
    let name = segment.file_name().unwrap().to_str().unwrap().to_owned();
    for (copy, damage) in [
        (
            "flipped",
            "f=COPY/segments/NAME/footer; printf '\\377\\377' | dd of=$f bs=1 seek=40 conv=notrunc",
        ),
        ("cut", ": > COPY/segments/NAME/footer"),
        ("unmarked", "rm COPY/segments/NAME/footer"),
        ("missing", "rm -r COPY/segments/NAME"),
    ] {
        let copy = path(copy);
        let shell = |script: &str| {
            let script = script.replace("COPY", &copy).replace("OLD", &data).replace("NAME", &name);
            let script = format!("set -e; PLACE={to}; {script}");
            let mut sh = std::process::Command::new("sh");
            let done = feed(sh.args(["-c", &script]), b"");
            assert!(done.status.success(), "{script}: {}", String::from_utf8_lossy(&done.stderr));
        };
        shell("cp -r OLD COPY");
        shell(damage);
        assert_eq!(code(&["log", "verify", "--data-dir", &copy]), Some(4), "{copy}");
        assert_eq!(code(&["backup", &to, "--data-dir", &copy]), Some(4), "{copy}");
        shell("rm -rf COPY/segments/NAME && cp -r $PLACE/segments/NAME-* COPY/segments/NAME");
        expect_clean(Path::new(&copy));
        assert!(events(Path::new(&copy)) == wanted, "{copy}");
    }
}
