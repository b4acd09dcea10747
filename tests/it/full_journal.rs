//! Sealing that does not go on must not stop the log for good.

use std::time::Instant;

use tailmark_log::eventlog::{AppendError, AppendOptions, EventLog};
use tailmark_log::storage::local;
use tailmark_record::Event;

use crate::support::server::PATIENCE;

async fn append(log: &EventLog) -> Result<(), AppendError> {
    let mut batch = log.batch();
    let body = "x".repeat(10_000);
    batch.push(&Event { topic: "a", body: &body, ..Event::default() }).unwrap();
    log.append(batch, AppendOptions::default()).await.map(|_| ())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_journal_refuses_appends_until_sealing_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let options =
        local::Options { slot_bytes: 256 << 10, min_free_bytes: 0, ..local::Options::default() };
    let (engine, recovered) = local::open(dir.path(), options).unwrap();
    let log = EventLog::open(engine, recovered, Default::default()).unwrap();
    // No segment can be built where a file stands.
    let segments = dir.path().join("segments");
    std::fs::remove_dir(&segments).unwrap();
    std::fs::write(&segments, "in the way").unwrap();
    let begun = Instant::now();
    let mut acked = 0;
    let refused = loop {
        match append(&log).await {
            Ok(()) => acked += 1,
            Err(error) => break error,
        }
        assert!(begun.elapsed() < PATIENCE);
    };
    assert!(matches!(refused, AppendError::Busy(_)), "{refused}");
    assert!(log.status().store.trouble.is_some());
    assert_eq!(log.bounds().head.get(), acked);

    std::fs::remove_file(&segments).unwrap();
    std::fs::create_dir(&segments).unwrap();
    while append(&log).await.is_err() {
        assert!(begun.elapsed() < PATIENCE, "appends do not go on");
    }
    assert_eq!(log.bounds().head.get(), acked + 1);
    log.close().await.unwrap();
}
