//! Wall clocks that are wrong: ahead, behind, before 1970, beyond year 9999, and set right again.

use std::time::Duration;

use super::super::age_clock::Seen;
use super::retaining::{append, at};
use super::*;

const YEAR: i64 = 365 * 86_400;
const TODAY: i64 = 1_800_000_000;
const MAX_AGE: Duration = Duration::from_secs(10);

/// A wall clock and a time that passes, both moved by hand.
#[derive(Clone)]
struct Times {
    wall: Arc<AtomicI64>,
    passed: Arc<AtomicI64>,
}

impl Times {
    fn new(wall: i64) -> Times {
        Times { wall: Arc::new(AtomicI64::new(wall)), passed: Arc::default() }
    }

    fn set(&self, wall: i64) {
        self.wall.store(wall, Ordering::SeqCst);
    }

    /// Both go on, as they do.
    fn pass(&self, seconds: i64) {
        self.wall.fetch_add(seconds, Ordering::SeqCst);
        self.passed.fetch_add(seconds, Ordering::SeqCst);
    }

    fn options(&self) -> Options {
        let times = self.clone();
        let clock: Clock = Arc::new(move || at(times.wall.load(Ordering::SeqCst)));
        let passed = self.passed.clone();
        let seconds = move || passed.load(Ordering::SeqCst).try_into().unwrap();
        Options {
            clock,
            elapsed: Arc::new(move || Duration::from_secs(seconds())),
            retention: Retention { max_age: Some(MAX_AGE), ..Retention::default() },
            // The interval never ends by itself here.
            retention_interval: Duration::from_secs(86_400),
            ..options()
        }
    }
}

/// Looks at the limits, and waits until that is done: a trim of nothing comes after it.
async fn look(log: &EventLog) -> u64 {
    let looks = log.core().maintenance.looks();
    log.enforce_retention_soon();
    while log.core().maintenance.looks() == looks {
        tokio::task::yield_now().await;
    }
    log.bounds().oldest.get()
}

async fn stamp(log: &EventLog, seq: u64) -> Timestamp {
    log.time_of(Seq::new(seq)).await.unwrap()
}

#[tokio::test]
async fn one_event_stamped_by_a_clock_that_was_ahead_does_not_stop_retention_by_age() {
    let times = Times::new(TODAY);
    let (log, _) = open(times.options());
    append(&log, 2).await;
    assert_eq!((log.status().trouble, log.status().clock), (None, None));
    times.set(TODAY + YEAR);
    append(&log, 1).await;
    times.set(TODAY);
    append(&log, 2).await;
    assert_eq!(stamp(&log, 5).await, at(TODAY + YEAR), "a stamp never goes back");
    let trouble = log.status().clock.expect("it is said");
    assert!(trouble.contains("ahead of this machine's clock"), "{trouble}");
    // Seen just now; then old enough, stamp or not.
    times.pass(1);
    assert_eq!(look(&log).await, 1);
    times.pass(8);
    assert_eq!(look(&log).await, 1);
    append(&log, 1).await;
    times.pass(2);
    assert_eq!(look(&log).await, 6);
    times.pass(5);
    assert_eq!(look(&log).await, 6, "what is not old enough stays");
    times.pass(5);
    assert_eq!(look(&log).await, 7);
    // The clock comes up to the stamps: all is as ever.
    times.set(TODAY + YEAR + 1);
    append(&log, 1).await;
    assert_eq!((log.status().trouble, log.status().clock), (None, None));
    assert_eq!(stamp(&log, 7).await, at(TODAY + YEAR + 1));
}

#[tokio::test]
async fn what_is_stamped_ahead_ages_from_the_start_on_after_a_restart() {
    let times = Times::new(TODAY + YEAR);
    let memory = Arc::new(engine(memory::Options::default()));
    let log = EventLog::open(memory.clone(), Recovered::default(), times.options()).unwrap();
    append(&log, 3).await;
    drop(log.close().await);
    let (memory, recovered) = memory.reopen();
    times.set(TODAY);
    let log = EventLog::open(Arc::new(memory), recovered, times.options()).unwrap();
    assert!(log.status().clock.is_some(), "said also before anything is appended");
    assert_eq!(look(&log).await, 1);
    times.pass(9);
    assert_eq!(look(&log).await, 1);
    times.pass(2);
    assert_eq!(look(&log).await, 4);
}

#[tokio::test]
async fn a_clock_that_jumps_after_a_restart_with_stamps_ahead_empties_nothing_at_one_stroke() {
    let times = Times::new(TODAY);
    let memory = Arc::new(engine(memory::Options::default()));
    let log = EventLog::open(memory.clone(), Recovered::default(), times.options()).unwrap();
    append(&log, 3).await;
    times.set(TODAY + YEAR);
    append(&log, 1).await;
    drop(log.close().await);
    let (memory, recovered) = memory.reopen();
    times.set(TODAY);
    let log = EventLog::open(Arc::new(memory), recovered, times.options()).unwrap();
    assert_eq!(look(&log).await, 1);
    times.set(TODAY + 2 * YEAR);
    assert_eq!(look(&log).await, 1, "the log was emptied by a jump of the clock");
}

#[tokio::test]
async fn a_clock_before_1970_or_out_of_range_takes_appends_and_ages_by_what_was_seen() {
    for wrong in [0, -1, -62_135_596_800, i64::MIN, 253_402_300_800, i64::MAX] {
        let times = Times::new(TODAY);
        let (log, _) = open(times.options());
        append(&log, 2).await;
        times.set(wrong);
        append(&log, 2).await;
        assert_eq!(stamp(&log, 4).await, at(TODAY), "{wrong}");
        // Time passes, whatever the clock says. After one that jumps ahead the log's own goes fast.
        times.passed.fetch_add(i64::from(wrong < TODAY), Ordering::SeqCst);
        assert_eq!(look(&log).await, 1, "{wrong}");
        times.passed.fetch_add(10, Ordering::SeqCst);
        assert_eq!(look(&log).await, 5, "{wrong}");
        times.set(TODAY + 20);
        append(&log, 1).await;
        assert_eq!(stamp(&log, 5).await, at(TODAY + 20), "{wrong}");
        log.close().await.unwrap();
    }
}

#[tokio::test]
async fn what_is_appended_beyond_the_last_time_that_can_be_stored_is_read_back() {
    use crate::storage::{Store, local};
    let dir = tempfile::tempdir().unwrap();
    let times = Times::new(253_402_300_799);
    let open = || {
        let slots = local::Options {
            slot_bytes: 256 << 10,
            min_free_bytes: 0,
            ..local::Options::default()
        };
        let (engine, recovered) = local::open(dir.path(), slots).unwrap();
        (EventLog::open(engine.clone(), recovered, times.options()).unwrap(), engine)
    };
    let (log, engine) = open();
    append(&log, 2).await;
    assert_eq!(read_all(&log, 1, Filter::ALL).await.len(), 2);
    assert_eq!(engine.read(Seq::FIRST, Seq::new(3), &Filter::ALL).unwrap().end, Seq::new(3));
    assert_eq!(
        crate::testing::all_topics(&*engine, 10)
            .unwrap()
            .values()
            .map(|stats| stats.events)
            .sum::<u64>(),
        2
    );
    assert_eq!(stamp(&log, 2).await, Timestamp::LAST_OF_NANOS);
    log.close().await.unwrap();
    drop((log, engine));
    let (log, engine) = open();
    append(&log, 1).await;
    assert_eq!(read_all(&log, 1, Filter::ALL).await.len(), 3);
    assert_eq!(engine.time_of(Seq::new(3)).unwrap(), Timestamp::LAST_OF_NANOS);
}

#[tokio::test]
async fn a_log_that_was_begun_before_1970_goes_on_when_the_clock_is_set_right() {
    let times = Times::new(-5);
    let (log, _) = open(times.options());
    append(&log, 1).await;
    times.set(TODAY);
    append(&log, 1).await;
    assert_eq!((stamp(&log, 2).await, log.status().clock), (at(TODAY), None));
    // The clock for ages comes up slowly, for decades; what was seen ages all the same.
    times.pass(1);
    look(&log).await;
    times.pass(10);
    assert_eq!(look(&log).await, 3);
}

#[tokio::test]
async fn a_clock_that_was_ahead_for_one_commit_forgets_no_producer() {
    let times = Times::new(TODAY);
    let (log, _) = open(times.options());
    let stream = log.open_producer("p", 0).await.unwrap();
    times.set(TODAY + YEAR);
    append(&log, 1).await;
    times.set(TODAY);
    append(&log, 1).await;
    // A day, which the stamp of the last commit would make sixty.
    times.pass(86_400);
    append(&log, 1).await;
    assert_eq!(log.status().producers, 1);
    assert_eq!(log.open_producer("p", stream.epoch()).await.unwrap().epoch(), stream.epoch());
}

#[test]
fn what_was_seen_is_bounded_and_nearly_exact() {
    let (age, second) = (Duration::from_secs(30 * 86_400), Duration::from_secs(1));
    let mut seen = Seen::for_age(age);
    let mut now = Duration::ZERO;
    for head in (0..).step_by(600).take(6 * 24 * 40) {
        seen.note(Seq::new(head), now);
        let old = seen.older_than(age, now);
        // One event a second.
        let exact = now.saturating_sub(age).as_secs();
        let least = now.saturating_sub(age + age / 256 + 600 * second).as_secs();
        assert!((least..=exact).contains(&old.get()), "{old} of {least} to {exact}");
        assert!(seen.marks() <= 258, "{}", seen.marks());
        now += 600 * second;
    }
    assert_eq!(Seen::for_age(Duration::MAX).older_than(Duration::MAX, Duration::MAX), Seq::ZERO);
}

#[test]
fn what_was_seen_stays_bounded_when_nobody_asks_or_all_is_asked_about_at_once() {
    for age in [Duration::ZERO, Duration::from_nanos(1), MAX_AGE] {
        let mut seen = Seen::for_age(age);
        for second in 1..10_000 {
            seen.note(Seq::new(second), Duration::from_secs(second));
            assert!(seen.marks() <= 258, "{age:?}: {}", seen.marks());
        }
    }
}

#[test]
fn what_was_seen_is_kept_when_another_age_is_asked_about() {
    let (hour, month) = (Duration::from_secs(3_600), Duration::from_secs(30 * 86_400));
    let mut seen = Seen::for_age(hour);
    let note = |seen: &mut Seen, minutes: std::ops::Range<u64>| {
        for minute in minutes {
            let now = Duration::from_secs(60 * minute);
            seen.note(Seq::new(minute), now);
            seen.older_than(if minute < 300 { hour } else { month }, now);
        }
    };
    note(&mut seen, 1..300);
    seen.set_age(month);
    // More than a month, in minutes.
    note(&mut seen, 300..45_000);
    assert!((200..=258).contains(&seen.marks()), "{}", seen.marks());
    let now = Duration::from_secs(60 * 45_000);
    assert!((1_600..=1_800).contains(&seen.older_than(month, now).get()));
    seen.set_age(hour);
    let old = seen.older_than(hour, now).get();
    assert!((44_700..=44_940).contains(&old), "{old}");
}

#[tokio::test]
async fn limits_without_an_age_note_nothing() {
    let times = Times::new(TODAY);
    let retention = Retention { max_events: Some(1_000), ..Retention::default() };
    let (log, _) = open(Options { retention, ..times.options() });
    for _ in 0..300 {
        append(&log, 1).await;
        times.pass(1);
        look(&log).await;
    }
    assert_eq!(log.core().maintenance.marks(), 0);
}

/// Gives files of a log that nobody dated yet the time of the life that wrote them.
fn date(dir: &std::path::Path, seconds: i64, dated: &mut Vec<(std::path::PathBuf, i64)>) {
    let mut pending = vec![dir.to_owned()];
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            pending.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let changed = std::fs::metadata(&path).unwrap().modified().unwrap();
        let changed = Timestamp::of(changed).as_nanos();
        if dated.contains(&(path.clone(), changed)) {
            continue;
        }
        let time = std::time::UNIX_EPOCH + Duration::from_secs(seconds.try_into().unwrap());
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        dated.push((path, at(seconds).as_nanos()));
    }
}

/// Lives of three seconds each, an event in each if `busy`; answers the oldest seq after each.
async fn short_lives(busy: bool) -> Vec<u64> {
    use crate::storage::local;
    let dir = tempfile::tempdir().unwrap();
    // All of it has been: what is not dated yet lies ahead, and says nothing.
    let today = Timestamp::now().seconds - 60;
    let (mut dated, mut oldest) = (Vec::new(), Vec::new());
    for life in 0..6 {
        let times = Times::new(today + 3 * life);
        let slots = local::Options {
            slot_bytes: 256 << 10,
            min_free_bytes: 0,
            ..local::Options::default()
        };
        let (engine, recovered) = local::open(dir.path(), slots).unwrap();
        let max_age = Some(Duration::from_secs(4));
        let retention = Retention { max_age, ..Retention::default() };
        let options = Options { retention, ..times.options() };
        let log = EventLog::open(engine.clone(), recovered, options).unwrap();
        if life == 0 {
            times.set(today + YEAR);
        }
        if busy || life == 0 {
            append(&log, 1).await;
        }
        times.set(today + 3 * life);
        times.pass(3);
        look(&log).await;
        oldest.push(log.bounds().oldest.get());
        log.close().await.unwrap();
        drop((log, engine));
        date(dir.path(), today + 3 * (life + 1), &mut dated);
    }
    oldest
}

#[tokio::test]
async fn what_is_stamped_ahead_ages_through_any_number_of_short_lives() {
    assert_eq!(short_lives(false).await[..2], [1, 1], "not early");
    assert_eq!(*short_lives(false).await.last().unwrap(), 2, "a restart began its age anew");
    let busy = short_lives(true).await;
    assert_eq!(busy[..2], [1, 1], "not early: {busy:?}");
    let kept: Vec<_> = (1..).zip(&busy).map(|(head, oldest)| head + 1 - oldest).collect();
    // Those of its own life and of the last, and of one more that was sealed after a start.
    assert!(kept.iter().all(|kept| (1..=4).contains(kept)), "{kept:?} of {busy:?}");
}

/// Other limits, as a reload brings them.
async fn reload(log: &EventLog, max_age: Option<Duration>) -> u64 {
    let looks = log.core().maintenance.looks();
    log.set_retention(Retention { max_age, ..Retention::default() }, Duration::from_secs(86_400));
    while log.core().maintenance.looks() == looks {
        tokio::task::yield_now().await;
    }
    log.bounds().oldest.get()
}

#[tokio::test]
async fn a_reload_to_a_shorter_age_is_kept_nearly_exactly() {
    let times = Times::new(TODAY);
    let month = Duration::from_secs(30 * 86_400);
    let retention = Retention { max_age: Some(month), ..Retention::default() };
    let (log, _) = open(Options { retention, ..times.options() });
    times.set(TODAY + YEAR);
    append(&log, 1).await;
    times.set(TODAY);
    look(&log).await;
    assert_eq!(reload(&log, Some(Duration::from_secs(3_600))).await, 1);
    // Spaced for a month this would be noted every three hours only.
    for _ in 0..12 {
        append(&log, 1).await;
        times.pass(600);
        look(&log).await;
    }
    assert!(log.bounds().oldest.get() >= 6, "{}", log.bounds().oldest);
}

#[tokio::test]
async fn a_reload_to_an_age_where_there_was_none_keeps_it_from_then_on() {
    let times = Times::new(TODAY);
    let (log, _) = open(Options { retention: Retention::default(), ..times.options() });
    times.set(TODAY + YEAR);
    append(&log, 3).await;
    times.set(TODAY);
    let week = Duration::from_secs(7 * 86_400);
    assert_eq!(reload(&log, Some(week)).await, 1);
    times.pass(7 * 86_400 - 1);
    assert_eq!(look(&log).await, 1);
    append(&log, 1).await;
    times.pass(1);
    assert_eq!(look(&log).await, 4, "seen for a week, stamp or not");
    // The marks are those of a week, not one for each look.
    for _ in 0..600 {
        append(&log, 1).await;
        times.pass(10);
        look(&log).await;
    }
    let marks = log.core().maintenance.marks();
    assert!(marks <= 6, "{marks}");
}
