//! Starting and stopping a log's threads.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use tokio::sync::{Semaphore, watch};

use super::AppendError;
use super::age_clock::{AgeClock, Seen};
use super::batch::{MAX_SERVER_BYTES, Rules};
use super::core::Core;
#[cfg(any(test, feature = "shared"))]
use super::elsewhere::Elsewhere;
use super::erase;
use super::eraser::Eraser;
use super::filter_cache::FilterCache;
use super::group_commit::CommitBuilder;
use super::hot::Hot;
use super::maintenance::Maintenance;
use super::matcher;
use super::metrics::Metrics;
use super::options::{Elapsed, Options};
use super::producers::Producers;
use super::queue::Queue;
use super::read_path::{Published, ReadPath};
use super::reader_pool::ReaderPool;
use super::readiness::ReadinessProbe;
use super::recent::Recent;
use super::repeats::{self, Handover, Repeats};
use super::repeats_ready::RepeatsReady;
use super::retention::RetentionThread;
use super::state::LogState;
use super::topic_heads::TopicHeads;
use super::topic_retention;
use super::topic_rules::TopicKeeper;
use super::trouble::Troubles;
use super::writer::Writer;

use crate::storage::{Engine, Journal, Links, Recovered, Store, StoreError};
use tailmark_record::{CursorMint, Seq, Timestamp};

/// Most permits of one request to tokio's semaphore.
const MAX_IN_FLIGHT_BYTES: usize = u32::MAX as usize;

pub(super) struct Threads {
    /// Ends when the queue has; `None` where another daemon writes.
    writer: Option<JoinHandle<()>>,
    /// End when they are told.
    others: Vec<JoinHandle<()>>,
}

pub(super) fn open(
    engine: Arc<dyn Engine>,
    recovered: &Recovered,
    options: Options,
) -> Result<(Arc<Core>, Threads), StoreError> {
    let (journal, store): (Arc<dyn Journal>, Arc<dyn Store>) = (engine.clone(), engine);
    let bounds = store.bounds();
    // A stamp ahead of the clock says nothing: from there the clocks that things age by would follow
    // each jump of the wall clock at once.
    let wall = (options.clock)();
    // A log that never had an event has no time of its own yet.
    let is_new = bounds.head == Seq::ZERO;
    let ages_begin = if is_new { wall } else { recovered.last_at.min(wall) };
    let mut producers = Producers::new(
        options.producers,
        options.producer_idle,
        // With the largest commit beside it a state fills less than half of what either may take.
        journal.max_commit_bytes() / 2,
        ages_begin,
    );
    let state = LogState::recover(recovered, &mut producers)?;
    producers.raise_epochs(bounds.generations.current().generation);
    let known = producers.len() as u64;
    let (pool, readers) =
        ReaderPool::start(&store, options.reader_threads).map_err(cannot_start_thread)?;
    let core = Arc::new(core(journal, store, pool, &options, recovered.last_at));
    core.say_if_ahead();
    core.metrics.producers.store(known, Ordering::Relaxed);
    let handover = Handover::default();
    let window = options.dedup_window;
    // A window that has grown since may need older events than the last run of the log kept.
    let grown = window as u64 > state.window_capacity;
    let from = if grown { Seq::FIRST } else { Seq::new(state.window_start).max(Seq::FIRST) };
    let last_at = recovered.last_at;
    let writer = writer(&core, &options, producers, state, last_at, handover.clone());
    core.topic_keeper.begin(options.topic_rules.clone(), options.retention_interval, from);
    let elapsed = options.elapsed.clone();
    let age_clock = AgeClock::new(state.age_clock().unwrap_or(ages_begin).min(wall));
    let keeper = keeper(&core, options, age_clock);
    let rebuild = {
        let core = core.clone();
        move || repeats::rebuild(&core, from, bounds.head, window, &handover)
    };
    start(core, readers, writer, keeper, elapsed, rebuild)
}

/// Opens a log that another daemon writes: its readers are here, and nothing else.
#[cfg(any(test, feature = "shared"))]
pub(super) fn follow(
    engine: Arc<dyn Engine>,
    last_at: Timestamp,
    options: &Options,
    elsewhere: Option<Arc<dyn Elsewhere>>,
) -> Result<(Arc<Core>, Threads), StoreError> {
    let (journal, store): (Arc<dyn Journal>, Arc<dyn Store>) = (engine.clone(), engine);
    let (pool, readers) =
        ReaderPool::start(&store, options.reader_threads).map_err(cannot_start_thread)?;
    let core = Core { elsewhere, ..core(journal, store, pool, options, last_at) };
    let core = Arc::new(core);
    core.queue.end(AppendError::NotWriter("nobody passes it on".to_owned()));
    let reads = core.reads.clone();
    match spawn("log-interest", move || matcher::run(&reads)) {
        Ok(matcher) => {
            let others = readers.into_iter().chain([matcher]).collect();
            Ok((core, Threads { writer: None, others }))
        }
        Err(error) => {
            signal_end(&core);
            Err(cannot_start_thread(error))
        }
    }
}

fn writer(
    core: &Arc<Core>,
    options: &Options,
    producers: Producers,
    state: LogState,
    last_at: Timestamp,
    handover: Handover,
) -> Writer {
    let (bounds, links) = (core.store.bounds(), core.store.links());
    let window = options.dedup_window;
    Writer {
        core: core.clone(),
        clock: options.clock.clone(),
        elapsed: options.elapsed.clone(),
        builder: CommitBuilder {
            repeats: Repeats::new(window, handover),
            topic_heads: TopicHeads::default(),
            producers,
            link: links.head,
            level: core.journal.level(),
            mint: CursorMint::new(core.id, bounds.generations.current().generation),
            max_commit_bytes: core.journal.max_commit_bytes(),
        },
        next: bounds.next(),
        oldest: bounds.oldest,
        oldest_tag: links.oldest_tag,
        last_at,
        state,
        window_capacity: window as u64,
    }
}

fn keeper(core: &Arc<Core>, options: Options, age_clock: AgeClock) -> RetentionThread {
    RetentionThread {
        core: core.clone(),
        seen: Seen::for_age(options.retention.max_age.unwrap_or_default()),
        retention: options.retention,
        interval: options.retention_interval,
        clock: options.clock,
        elapsed: options.elapsed,
        age_clock,
        stored: Vec::new(),
    }
}

/// Starts the threads beside those of the readers. The writer comes last: what it does must be seen.
fn start(
    core: Arc<Core>,
    readers: Vec<JoinHandle<()>>,
    writer: Writer,
    keeper: RetentionThread,
    elapsed: Elapsed,
    rebuild: impl FnOnce() + Send + 'static,
) -> Result<(Arc<Core>, Threads), StoreError> {
    let mut others = readers;
    let started = spawn("log-repeats", rebuild)
        .and_then(|thread| {
            others.push(thread);
            spawn("log-keep", move || keeper.run())
        })
        .and_then(|thread| {
            others.push(thread);
            let eraser = core.clone();
            spawn("log-erase", move || erase::go_on(&eraser))
        })
        .and_then(|thread| {
            others.push(thread);
            let topics = core.clone();
            spawn("log-topics", move || topic_retention::run(&topics, &elapsed))
        })
        .and_then(|thread| {
            others.push(thread);
            let reads = core.reads.clone();
            spawn("log-interest", move || matcher::run(&reads))
        })
        .and_then(|thread| {
            others.push(thread);
            spawn("log-write", move || writer.run())
        });
    match started {
        Ok(writer) => Ok((core, Threads { writer: Some(writer), others })),
        Err(error) => {
            signal_end(&core);
            Err(cannot_start_thread(error))
        }
    }
}

fn core(
    journal: Arc<dyn Journal>,
    store: Arc<dyn Store>,
    pool: Arc<ReaderPool>,
    options: &Options,
    head_at: Timestamp,
) -> Core {
    let (id, bounds) = (journal.id(), store.bounds());
    let mut limits = options.limits.clone();
    let largest = journal.max_commit_bytes().saturating_sub(MAX_SERVER_BYTES);
    limits.event_bytes = limits.event_bytes.min(largest);
    let rules = Arc::new(Rules { limits, key: journal.fingerprint_key() });
    let in_flight_bytes = options.in_flight_bytes.clamp(1, MAX_IN_FLIGHT_BYTES);
    let (head, oldest) = (bounds.head, bounds.oldest);
    let Links { head: link, oldest_tag } = store.links();
    let head_tag = link.tag();
    let published = Published { head, head_at, head_tag, oldest, oldest_tag, is_closed: false };
    let generations = bounds.generations;
    let metrics = Arc::new(Metrics::default());
    Core {
        id,
        mints: generations.entries().iter().map(|e| CursorMint::new(id, e.generation)).collect(),
        generations,
        rules,
        reads: Arc::new(ReadPath {
            published: watch::Sender::new(published),
            interest: Arc::default(),
            hot: Hot::new(Recent::new(options.recent_bytes), FilterCache::new(options.found_bytes)),
            pool,
            metrics: Arc::clone(&metrics),
        }),
        queue: Queue::default(),
        room: Arc::new(Semaphore::new(in_flight_bytes)),
        in_flight_bytes,
        repeats_ready: watch::Sender::new(RepeatsReady::NotYet),
        maintenance: Maintenance::with(options.retention.clone()),
        metrics,
        clock: options.clock.clone(),
        has_said_ahead: AtomicBool::new(false),
        readiness: ReadinessProbe::default(),
        eraser: Eraser::default(),
        topic_keeper: TopicKeeper::default(),
        troubles: Troubles::default(),
        elsewhere: None,
        journal,
        store,
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).spawn(body)
}

fn cannot_start_thread(error: io::Error) -> StoreError {
    StoreError::io("start a thread of", Path::new("the log"))(error)
}

/// Ends everything, without waiting: what is queued is still written.
pub(super) fn signal_end(core: &Core) {
    core.queue.end(AppendError::Closing);
    core.maintenance.end();
    core.eraser.end();
    core.topic_keeper.end();
    core.reads.pool.close();
    core.reads.published.send_modify(|now| now.is_closed = true);
    core.reads.interest.close();
}

/// Ends everything in order, and waits. Blocks.
pub(super) fn close(core: &Core, threads: Threads) -> Result<(), StoreError> {
    core.queue.end(AppendError::Closing);
    let mut failed = threads.writer.is_some_and(|writer| writer.join().is_err());
    // Readers have seen the last commit before they hear that there is none after it.
    signal_end(core);
    for thread in threads.others {
        failed |= thread.join().is_err();
    }
    core.store.close()?;
    if failed {
        return Err(StoreError::Stopped { reason: "a thread of the log panicked".into() });
    }
    Ok(())
}
