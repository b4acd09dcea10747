//! What each command that keeps, copies or mends a log says to its caller: one code for one kind of failure.

use std::fs::File;
use std::path::Path;

use crate::support::daemon::{Daemon, feed, program};
use crate::support::kept::{events, expect_clean, life};
use crate::support::logdir;

/// What a row names in place of a path.
struct Places<'a>(&'a Path);

impl Places<'_> {
    /// `NAME` is a path below the directory of the test.
    fn filled(&self, row: &str) -> Vec<String> {
        let names = |word: &str| match word.strip_prefix('@') {
            Some(name) => self.0.join(name).to_str().unwrap().to_owned(),
            None => word.to_owned(),
        };
        row.split_whitespace().map(names).collect()
    }
}

/// Commands, with `@` before what lies below the directory of the test, and what they end with.
const ROWS: [(&str, i32, &str); 63] = [
    // Nothing is there.
    ("backup @new1 --data-dir @nothing", 3, "no log at"),
    ("backup list @nothing", 3, "holds no backups"),
    ("backup list @nothing.tailmark", 3, "holds no backups"),
    ("backup verify @nothing", 3, "holds no backups"),
    ("backup prune @nothing --keep 1", 3, "holds no backups"),
    ("restore @nothing --data-dir @new2", 3, "holds no backups"),
    ("restore @place --backup none --data-dir @new3", 3, "no backup none"),
    ("backup verify @place --backup none", 3, "no backup none"),
    ("log export --data-dir @nothing", 3, "no log at"),
    ("log import --exact @nothing --data-dir @new4", 3, "cannot read"),
    ("log salvage --from @nothing --to @new5", 3, "no log at"),
    ("log compact-offline --from @nothing --to @new6", 3, "no log at"),
    ("log migrate --data-dir @nothing", 3, "no log at"),
    ("log verify --data-dir @nothing", 3, "no log at"),
    ("log diff @data @nothing", 3, "no log at"),
    ("log diff @nothing @data", 3, "no log at"),
    // Something else is there.
    ("backup @new7 --data-dir @other", 3, "no log at"),
    ("backup list @other", 3, "holds no backups"),
    ("backup prune @other --keep 1", 3, "holds no backups"),
    ("restore @other --data-dir @new8", 3, "holds no backups"),
    ("restore @file --data-dir @new9", 3, "holds no backups"),
    ("log export --data-dir @other", 3, "no log at"),
    ("log salvage --from @other --to @new10", 3, "no log at"),
    ("log compact-offline --from @other --to @new11", 3, "no log at"),
    ("log migrate --data-dir @other", 3, "no log at"),
    ("log diff @data @other", 3, "no log at"),
    ("log import --exact @file --data-dir @new12", 2, "record 1"),
    ("log import --exact @other --data-dir @new13", 2, "cannot read the export"),
    ("backup @other --data-dir @data", 2, "something else"),
    ("backup @place --data-dir @second", 2, "of the log"),
    // A file stands where a directory was named.
    ("backup @new14 --data-dir @file", 2, "file"),
    ("backup @file/to --data-dir @data", 2, "file"),
    ("restore @place --data-dir @file", 2, "file"),
    ("log import --exact @export --data-dir @file", 2, "file"),
    ("log salvage --from @data --to @file", 2, "file"),
    ("log compact-offline --from @data --to @file", 2, "file"),
    ("log diff @data @file", 3, "no log at"),
    // There is something already.
    ("restore @place --data-dir @other", 2, "not empty"),
    ("log import --exact @export --data-dir @other", 2, "not empty"),
    ("log salvage --from @data --to @other", 2, "not empty"),
    ("log compact-offline --from @data --to @other", 2, "not empty"),
    ("log export --data-dir @data --output @file", 2, "is there already"),
    ("log salvage --from @data --to @new15 --report @file", 2, "cannot write"),
    ("backup @one.tailmark --data-dir @data", 2, "is there already"),
    ("backup prune @one.tailmark --keep 1", 2, "holds one backup"),
    // One within the other.
    ("backup @data/to --data-dir @data", 2, "lies within"),
    ("restore @place --data-dir @place/new", 2, "lies within"),
    ("log salvage --from @data --to @data/new", 2, "lies within"),
    ("log compact-offline --from @data --to @data/new", 2, "lies within"),
    // What cannot be meant.
    ("restore @place --data-dir @new16 --to-seq 999999", 2, "ends with event"),
    ("restore @place --data-dir @new17 --to-seq 5", 2, "begins with event"),
    ("backup prune @place", 2, "--keep"),
    ("backup prune @place --keep 0", 2, "--keep"),
    ("erase 0 --reason x --yes", 2, "first event"),
    // Damaged.
    ("backup verify @rotten", 4, "damaged"),
    ("restore @rotten --data-dir @new18", 4, "damaged"),
    ("backup @new19 --data-dir @hurt", 4, "damaged"),
    ("log verify --data-dir @hurt", 4, "damaged"),
    ("log compact-offline --from @hurt --to @new20", 4, "damaged"),
    ("log salvage --from @hurt --to @new21", 4, "lost"),
    ("log import --exact @cut --data-dir @new22", 4, "cut"),
    // Nobody is there, or somebody is.
    ("erase 1 --reason x --yes --addr http://127.0.0.1:9", 5, "cannot connect"),
    ("backup @new23 --addr http://127.0.0.1:9", 5, "cannot connect"),
];

/// What somebody else has open, in the order in which it is told.
const HELD: [(&str, &str); 5] = [
    ("backup @place --data-dir @data", "tailmark-backup"),
    ("backup prune @place --keep 1", "tailmark-backup"),
    ("backup @two.tailmark --data-dir @data", "two.tailmark.unfinished"),
    ("restore @place --data-dir @held", "unfinished"),
    ("log import --exact @export --data-dir @held", "unfinished"),
];

fn expect(places: &Places<'_>, row: &str, code: i32, says: &str) {
    let wrong = wrong(places, row, code, says);
    assert!(wrong.is_none(), "{wrong:?}");
}

/// What a command does otherwise.
fn wrong(places: &Places<'_>, row: &str, code: i32, says: &str) -> Option<String> {
    let args = places.filled(row);
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    let done = feed(&mut program(&args), b"");
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    let out = String::from_utf8_lossy(&done.stdout).into_owned();
    let is_said = said.contains(says) || out.contains(says);
    let found = done.status.code();
    (found != Some(code) || !is_said).then(|| format!("{row}: {found:?}: {said}{out}"))
}

/// A log, backups of it, an export, and damaged copies of each.
async fn prepare(dir: &Path) {
    life(dir).await;
    let places = Places(dir);
    std::fs::create_dir(dir.join("other")).unwrap();
    std::fs::write(dir.join("other/novel.txt"), "once").unwrap();
    std::fs::write(dir.join("file"), "twice\n").unwrap();
    logdir::close(&dir.join("second"), {
        std::fs::create_dir(dir.join("second")).unwrap();
        logdir::open(&dir.join("second")).0
    });
    for row in [
        "backup @place --data-dir @data",
        "backup @rotten --data-dir @data",
        "backup @one.tailmark --data-dir @data",
        "log export --data-dir @data --output @export",
    ] {
        expect(&places, row, 0, "");
    }
    let export = std::fs::read(dir.join("export")).unwrap();
    std::fs::write(dir.join("cut"), &export[..export.len() / 2]).unwrap();
    tailmark_log::testing::copy_dir(&dir.join("data"), &dir.join("hurt")).unwrap();
    for segments in ["rotten/segments", "hurt/segments"] {
        let entries = std::fs::read_dir(dir.join(segments)).unwrap();
        let mut all: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        all.sort();
        let db = all[1].join("db/db");
        let len = std::fs::metadata(&db).unwrap().len();
        (0..len).step_by(5_003).for_each(|at| logdir::flip(&db, at));
    }
}

#[tokio::test]
async fn each_command_ends_with_the_code_that_is_documented() {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path()).await;
    let places = Places(dir.path());
    let before = events(&dir.path().join("data"));
    let wrong: Vec<_> =
        ROWS.iter().filter_map(|(row, code, says)| wrong(&places, row, *code, says)).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    expect_clean(&dir.path().join("data"));
    assert!(events(&dir.path().join("data")) == before, "a command changed the log");
    // Nothing of the place was changed either, and nobody holds anything any more.
    for row in ["backup verify @place", "log diff @data @data", "backup prune @place --keep 9"] {
        expect(&places, row, 0, "");
    }
}

#[tokio::test]
async fn what_another_has_open_is_told_as_such() {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path()).await;
    let places = Places(dir.path());
    std::fs::create_dir(dir.path().join("held")).unwrap();
    std::fs::write(dir.path().join("two.tailmark.unfinished"), "").unwrap();
    for (row, file) in HELD {
        let what = if row.contains("import") { "import\n" } else { "restore\n" };
        std::fs::write(dir.path().join("held/unfinished"), what).unwrap();
        let path = match file {
            "tailmark-backup" => dir.path().join("place").join(file),
            "unfinished" => dir.path().join("held").join(file),
            _ => dir.path().join(file),
        };
        let held = File::open(path).unwrap();
        held.lock().unwrap();
        expect(&places, row, 5, "in use by another process");
        if row.contains("prune") {
            expect(&places, row, 5, "or old ones are being removed");
        }
    }
    // Who has the log open is told too.
    let daemon = Daemon::start(&dir.path().join("data"));
    for row in [
        "log salvage --from @data --to @new1",
        "log compact-offline --from @data --to @new2",
        "log migrate --data-dir @data",
    ] {
        let says = if row.contains("migrate") { "" } else { "in use by another process" };
        let code = if row.contains("migrate") { 0 } else { 5 };
        expect(&places, row, code, says);
    }
    daemon.stop();
}
