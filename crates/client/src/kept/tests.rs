//! What is kept over a stop at any moment, against a real server.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::{FileStore, MemoryStore, Start};
use tailmark::testing::{self, TestServer};
use tailmark_log::eventlog::{AppendOptions, EventLog};
use tailmark_record::Event;

const PATIENCE: Duration = Duration::from_secs(60);

struct World {
    log: EventLog,
    client: Client,
    _server: TestServer,
}

async fn world() -> World {
    let server = testing::serve().await.unwrap();
    let client = Client::new(&server.url()).unwrap();
    World { log: server.log().clone(), client, _server: server }
}

impl World {
    async fn store(&self, count: u64) {
        let mut batch = self.log.batch();
        for _ in 0..count {
            batch.push(&Event { topic: "a", body: "x", ..Event::default() }).unwrap();
        }
        self.log.append(batch, AppendOptions::default()).await.unwrap();
    }
}

fn options() -> WatchOptions {
    WatchOptions { start: Start::Oldest, ..WatchOptions::default() }
}

async fn next<S: CursorStore + 'static>(watch: &mut KeptWatch<S>) -> Option<u64> {
    let next = tokio::time::timeout(PATIENCE, watch.next()).await.unwrap()?;
    match next.unwrap() {
        Item::Event(event) => Some(event.seq().get()),
        other => panic!("{other:?}"),
    }
}

/// Its start is relative, and what comes meanwhile would be another one.
#[tokio::test]
async fn the_first_event_comes_again_where_it_was_not_done() {
    let world = world().await;
    world.store(3).await;
    let dir = tempfile::tempdir().unwrap();
    let open = || FileStore::open(dir.path().join("cursor"), &[]).unwrap();
    let last = || WatchOptions { start: Start::Last(1), ..WatchOptions::default() };
    for more in [0, 5, 1] {
        world.store(more).await;
        let mut watch = world.client.watch_kept(last(), open()).await.unwrap();
        assert_eq!(next(&mut watch).await, Some(3));
        drop(watch);
    }
}

#[tokio::test]
async fn what_was_not_done_comes_again_after_a_stop_at_any_event() {
    let world = world().await;
    world.store(40).await;
    for (stop_after, every) in (2..=12).flat_map(|n| [(n, Duration::ZERO), (n, SAVE_EVERY)]) {
        let dir = tempfile::tempdir().unwrap();
        let open = || FileStore::open(dir.path().join("cursor"), &[]).unwrap();
        let (mut handed, mut runs) = (0, 0);
        while handed < 40 {
            runs += 1;
            let kept = world.client.watch_kept(options(), open()).await.unwrap();
            let mut watch = kept.saving_every(every);
            let first = next(&mut watch).await.unwrap();
            // The one that the last run stopped in comes again; nothing else that was saved.
            assert!(first <= handed.max(1), "{first} after {handed}: events are lost");
            if every == Duration::ZERO {
                assert_eq!(first, handed.max(1));
            }
            handed = first;
            // What is saved only now and then may never get on; the third such run is a long one.
            let stop_after = if runs == 3 && every != Duration::ZERO { 40 } else { stop_after };
            for _ in 1..stop_after {
                if handed == 40 {
                    break;
                }
                assert_eq!(next(&mut watch).await, Some(handed + 1));
                handed += 1;
            }
            // The program is gone in the middle of an event, or is done with all of them.
            if handed == 40 {
                watch.finish().await.unwrap();
            }
        }
        assert_eq!(open().cursor().map(str::to_owned), Some(world.log.cursor(40.into()).await));
    }
}

#[tokio::test]
async fn the_cursor_is_saved_when_nothing_more_is_there_and_not_before() {
    let world = world().await;
    world.store(3).await;
    let store = MemoryStore::new();
    let mut watch = world.client.watch_kept(options(), store.clone()).await.unwrap();
    for seq in 1..=3 {
        assert_eq!(next(&mut watch).await, Some(seq));
        assert_ne!(store.cursor(), Some(world.log.cursor(seq.into()).await), "not done yet");
    }
    // Asks for the fourth: the third is done. Dropped in between, it has taken nothing.
    let third = world.log.cursor(3.into()).await;
    tokio::time::timeout(PATIENCE, async {
        while store.cursor().as_ref() != Some(&third) {
            tokio::select! {
                item = watch.next() => panic!("{item:?}"),
                () = tokio::task::yield_now() => {}
            }
        }
    })
    .await
    .unwrap();
    world.store(1).await;
    assert_eq!(next(&mut watch).await, Some(4));
    assert_eq!(store.cursor(), Some(third), "not done yet");
    watch.finish().await.unwrap();
    assert_eq!(store.cursor(), Some(world.log.cursor(4.into()).await));
}

#[tokio::test]
async fn the_end_is_saved_before_it_is_told() {
    let world = world().await;
    world.store(5).await;
    let store = MemoryStore::new();
    let options = WatchOptions { until_caught_up: true, ..options() };
    for expected in [5, 0] {
        let mut watch = world.client.watch_kept(options.clone(), store.clone()).await.unwrap();
        let mut count = 0;
        while next(&mut watch).await.is_some() {
            count += 1;
        }
        assert_eq!(count, expected);
        assert_eq!(store.cursor(), Some(world.log.cursor(5.into()).await));
        assert_eq!(watch.saved(), watch.watch().cursor());
        assert!(watch.next().await.is_none(), "over is over");
    }
}

#[tokio::test]
async fn a_panic_in_the_middle_of_an_event_leaves_it_to_the_next_run() {
    let world = world().await;
    world.store(5).await;
    let store = MemoryStore::new();
    let client = world.client.clone();
    let mut kept = client.watch_kept(options(), store.clone()).await.unwrap();
    kept = kept.saving_every(Duration::ZERO);
    let handling = tokio::spawn(async move {
        loop {
            let seq = next(&mut kept).await.unwrap();
            assert!(seq < 3, "the third cannot be dealt with");
        }
    });
    assert!(handling.await.unwrap_err().is_panic());
    assert_eq!(store.cursor(), Some(world.log.cursor(2.into()).await), "the third is not done");
    let mut again = client.watch_kept(options(), store).await.unwrap();
    assert_eq!(next(&mut again).await, Some(3));
}

#[tokio::test]
async fn a_store_may_be_chosen_while_the_program_runs() {
    let world = world().await;
    world.store(1).await;
    let shared = MemoryStore::new();
    let store: Box<dyn CursorStore> = Box::new(shared.clone());
    let mut watch = world.client.watch_kept(options(), store).await.unwrap();
    assert_eq!(next(&mut watch).await, Some(1));
    watch.finish().await.unwrap();
    assert_eq!(shared.cursor(), Some(world.log.cursor(1.into()).await));
}

/// Fails from the second save on.
struct Failing(AtomicUsize);

impl CursorStore for Failing {
    fn load(&mut self) -> Result<Option<String>, CursorStoreError> {
        Ok(None)
    }

    fn save(&mut self, _: &str) -> Result<(), CursorStoreError> {
        match self.0.fetch_add(1, Ordering::Relaxed) {
            0 => Ok(()),
            1 => Err("disk full".into()),
            _ => panic!("saved again after a failure"),
        }
    }
}

#[tokio::test]
async fn a_store_that_fails_ends_the_watch() {
    let world = world().await;
    let mut watch = world.client.watch_kept(options(), Failing(AtomicUsize::new(0))).await.unwrap();
    let error = tokio::time::timeout(PATIENCE, async {
        loop {
            world.store(1).await;
            match watch.next().await {
                Some(Ok(_)) => {}
                Some(Err(error)) => break error,
                None => panic!("an end without an error"),
            }
        }
    })
    .await
    .unwrap();
    assert_eq!(error.kind(), Kind::CursorStore);
    assert!(error.to_string().contains("disk full"), "{error}");
    assert!(watch.next().await.is_none());
}
