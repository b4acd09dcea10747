//! Where the topics of a segment should rest: in the database, or in pages of the footer. Figures for
//! decision 0017; `cargo test --release -p tailmark-log --lib -- --ignored --nocapture sled::against`.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use super::db::{Database, Layout};
use crate::storage::segment::problem::Problem;
use crate::storage::segment::topics::{Collector, Origin, Pages, Table, find};
use tailmark_record::{Seq, Timestamp, put_varint};

const TOPICS: u64 = 250_000;
const LOOKUPS: u64 = 20_000;
const ORIGIN: Origin = Origin { first: Seq::FIRST, first_at: Timestamp::EPOCH };

fn name(n: u64) -> String {
    format!("site.{}.device.{:08}", n % 97, n * 7_919 % TOPICS)
}

/// Pages in a file that is opened for each lookup, as a footer is.
struct InFile {
    file: File,
    lists: u64,
}

impl Pages for InFile {
    type Error = Problem;

    fn page(&self, offset: u64, len: usize) -> Result<Vec<u8>, Problem> {
        let mut bytes = vec![0; len];
        let read = self.file.read_exact_at(&mut bytes, offset);
        read.map(|()| bytes).map_err(|_| Problem::Damaged("cut"))
    }

    fn list(&self, offset: u64, len: usize) -> Result<Vec<u8>, Problem> {
        self.page(self.lists + offset, len)
    }
}

/// What this thread has had of a processor: others' work on the machine does not count. sled's own
/// threads do not, either.
fn cpu() -> Duration {
    let times = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(times.split_whitespace().next().unwrap().parse().unwrap())
}

fn per(took: Duration, count: u64) -> f64 {
    took.as_secs_f64() * 1e6 / count as f64
}

#[test]
#[ignore = "prints figures"]
fn a_table_of_topics_beside_a_tree_of_sleds() {
    let dir = tempfile::tempdir().unwrap();
    let begun = cpu();
    let mut collector = Collector::default();
    for n in 0..TOPICS {
        let seq = Seq::new(n + 1);
        collector.note(name(n).as_bytes(), seq, Timestamp::EPOCH, (n / 200) as u32).unwrap();
    }
    let Table { summary, pages, lists, filter } = collector.finish(ORIGIN).unwrap();
    let path = dir.path().join("footer");
    std::fs::write(&path, [&pages[..], &lists, filter.bytes()].concat()).unwrap();
    let made = cpu() - begun;
    println!("table: made in {:.2} us a topic, {} bytes a topic", per(made, TOPICS), {
        (pages.len() + lists.len() + filter.bytes().len()) as u64 / TOPICS
    });

    let begun = cpu();
    let db_dir = dir.path().join("db");
    let layout = Layout { segment_bytes: 1 << 20, cache_bytes: 16 << 20 };
    let open = || Database::open_or_create(&db_dir, layout).unwrap();
    let db = open();
    for n in 0..TOPICS {
        let mut value = Vec::new();
        for number in [1, n, n, n, n / 200] {
            put_varint(&mut value, number);
        }
        db.insert(name(n).as_bytes(), &value).unwrap();
    }
    db.flush().unwrap();
    db.drop_now().unwrap();
    let made = cpu() - begun;
    let bytes: u64 = std::fs::read_dir(&db_dir)
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    println!(
        "sled:  made in {:.2} us a topic, {} bytes a topic",
        per(made, TOPICS),
        bytes / TOPICS
    );

    let asked = |n: u64| name(n * 104_729 % TOPICS);
    for round in 0..3 {
        let begun = cpu();
        for n in 0..LOOKUPS {
            let in_file = InFile { file: File::open(&path).unwrap(), lists: pages.len() as u64 };
            assert!(find(&in_file, &summary, ORIGIN, &asked(n)).unwrap().is_some());
        }
        let table = per(cpu() - begun, LOOKUPS);
        let begun = cpu();
        const OPENED: u64 = 20;
        for n in 0..OPENED {
            let db = open();
            assert!(db.get(asked(n).as_bytes()).unwrap().is_some());
            db.drop_now().unwrap();
        }
        let closed = per(cpu() - begun, OPENED);
        let db = open();
        (0..TOPICS).for_each(|n| assert!(db.get(name(n).as_bytes()).unwrap().is_some()));
        let begun = cpu();
        for n in 0..LOOKUPS {
            assert!(db.get(asked(n).as_bytes()).unwrap().is_some());
        }
        let warm = per(cpu() - begun, LOOKUPS);
        db.drop_now().unwrap();
        println!(
            "round {round}: table {table:.1} us; sled closed {closed:.0} us, open and warm {warm:.1} us"
        );
    }
}
