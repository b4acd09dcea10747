//! A log with all that a copy may lose: for tests of what copies it.

use std::path::Path;

use tailmark::inspect::{self, Found, Selection};
use tailmark_log::eventlog::{self, AppendOptions, Appended, EventLog};
use tailmark_record::{Event, Seq, Timestamp};

use super::logdir;

/// How many events [`life`] stores.
pub const HEAD: u64 = 3_003;
/// Its trim mark: amid a sealed segment.
pub const OLDEST: u64 = 701;
/// A producer that has sent 3 batches.
pub const PRODUCER: &str = "p";

pub fn open(dir: &Path) -> EventLog {
    let (engine, recovered) = logdir::open(dir);
    EventLog::open(engine, recovered, eventlog::Options::default()).unwrap()
}

/// The event that is stored with this number: named or not, with and without a time, of every kind.
pub async fn store(log: &EventLog, numbers: std::ops::Range<u64>) -> Option<Appended> {
    let mut last = None;
    for chunk in numbers.collect::<Vec<_>>().chunks(50) {
        let mut batch = log.batch();
        for n in chunk {
            push(&mut batch, *n);
        }
        let options = AppendOptions { dedup: true, ..AppendOptions::default() };
        last = Some(log.append(batch, options).await.unwrap());
    }
    last
}

fn push(batch: &mut eventlog::Batch, n: u64) {
    let (id, key) = (format!("id-{n}"), format!("key-{}", n % 7));
    // Random, for it to take space.
    let text: String =
        (0..n % 40).map(|at| format!("{:x}", (n * 7919 + at * 104_729) ^ (at << 9))).collect();
    let body = format!("event {n} größe \"\\\u{7f} {text}");
    let data = [vec![0xff, 0xfe], n.to_le_bytes().to_vec()].concat();
    let topic = format!("t.{}", n % 5);
    let event = Event {
        id: if n.is_multiple_of(3) { "" } else { &id },
        topic: &topic,
        body: if n.is_multiple_of(4) { "" } else { &body },
        data: if n.is_multiple_of(8) { &data } else { &[] },
        at: (n.is_multiple_of(5))
            .then_some(Timestamp { seconds: -62_000_000_000 + n as i64, nanos: 7 }),
        kind: if n.is_multiple_of(2) { "kind" } else { "" },
        key: if n.is_multiple_of(6) { &key } else { "" },
        headers: if n.is_multiple_of(9) { vec![("z", "1"), ("a", "")] } else { vec![] },
        ..Event::default()
    };
    batch.push(&event).unwrap();
}

/// Fills `dir`: sealed and unsealed events, two generations, a trim mark, a producer. Answers the cursor
/// of every seq from [`OLDEST`] - 1 on.
pub async fn life(dir: &Path) -> Vec<String> {
    let begin = dir.join("begin");
    std::fs::create_dir(&begin).unwrap();
    let log = open(&begin);
    store(&log, 0..1_500).await;
    log.close().await.unwrap();
    drop(log);
    let data = dir.join("data");
    tailmark_log::testing::copy_dir(&begin, &data).unwrap();
    let log = open(&data);
    store(&log, 1_500..2_900).await;
    let producer = log.open_producer(PRODUCER, 0).await.unwrap();
    for seq in 1..=3 {
        let mut batch = log.batch();
        push(&mut batch, 10_000 + seq);
        producer.submit(seq, batch, None).await.unwrap().await.unwrap();
    }
    log.trim(Seq::new(OLDEST)).await.unwrap();
    log.close().await.unwrap();
    // It holds the log.
    drop(producer);
    drop(log);
    let log = open(&data);
    store(&log, 2_900..3_000).await;
    assert_eq!(log.head().get(), HEAD);
    let mut cursors = Vec::new();
    for seq in OLDEST - 1..=HEAD {
        cursors.push(log.cursor(Seq::new(seq)).await);
    }
    log.close().await.unwrap();
    cursors
}

/// Every readable event, as JSON with its cursor.
pub fn events(dir: &Path) -> Vec<String> {
    let mut all = Vec::new();
    inspect::dump(dir, &Selection::default(), |found| {
        match found {
            Found::Event(event) => {
                let mut json = Vec::new();
                tailmark_record::json::write_event(&mut json, event);
                let gave = (event.has_client_id, event.has_client_at);
                all.push(format!("{} {gave:?}", String::from_utf8(json).unwrap()));
            }
            other => panic!("{other:?}"),
        }
        Ok(())
    })
    .unwrap();
    all
}

/// That all of the log is as it should be.
#[track_caller]
pub fn expect_clean(dir: &Path) {
    let report = inspect::verify(dir, |_, _| Ok(())).unwrap();
    assert!(report.is_clean(), "{report:?}");
}
