//! The cases.

use rand::{RngExt as _, SeedableRng as _};

use super::support::{Sent, Subject, filter, named, sent};
use super::{Factory, Reopen, erasing, journal};
use crate::storage::StoreError;
use crate::width::to_usize;
use tailmark_record::Seq;
use tailmark_record::topic::Filter;

type Case<F> = (&'static str, fn(&mut F));

pub(super) fn all<F: Factory>() -> Vec<Case<F>> {
    [both(), of_journals(), of_stores()].concat()
}

/// Cases of what one half keeps of the other's.
fn both<F: Factory>() -> Vec<Case<F>> {
    vec![
        ("an empty log", empty_log),
        ("append and read", append_and_read),
        ("an event larger than any block", large_event),
        ("a clean stop loses nothing", |f| reopened(f, Reopen::Clean)),
        ("a crash loses nothing durable", |f| reopened(f, Reopen::Crash)),
        ("reads while appending", read_while_appending),
        ("anything at random", random),
    ]
}

fn of_journals<F: Factory>() -> Vec<Case<F>> {
    vec![
        ("commits that break the contract are refused whole", journal::refusals),
        ("what is complete can be read", journal::readable_when_complete),
        ("state and deltas come back", journal::state_and_deltas),
        ("a closed engine takes nothing", journal::closed),
    ]
}

fn of_stores<F: Factory>() -> Vec<Case<F>> {
    vec![
        ("any range can be read", any_range),
        ("trim moves the oldest exactly", trim),
        ("everything can be trimmed", trim_all),
        ("fingerprints stop when told", fingerprints_stop),
        ("fingerprints outlive a trim", fingerprints_outlive_a_trim),
        ("a trim point takes whole units", trim_point),
        ("a trim point for a number leaves that many", trim_point_for_events),
        ("what is erased leaves shells", erasing::shells),
        ("an erasure that is not through is kept", erasing::kept),
        ("what is erased is no repeat any more", erasing::no_repeats),
        ("erasing beside trims and lost ranges", erasing::gone_too),
        ("orders that make no sense are refused", erasing::refused),
        (
            "ranges without events are told whole, and nothing else is missing",
            ranges_without_events,
        ),
        ("a log that begins and ends with what is lost", lost_ends),
    ]
}

fn empty_log<F: Factory>(factory: &mut F) {
    let mut subject = Subject::new(factory);
    assert!(subject.recovered.state.is_empty() && subject.recovered.deltas.is_empty());
    subject.check();
    for how in [Reopen::Clean, Reopen::Crash] {
        let (id, key) = (subject.journal().id(), subject.journal().fingerprint_key());
        let generations = subject.store().bounds().generations;
        subject.reopen(how);
        assert_eq!((subject.journal().id(), subject.journal().fingerprint_key()), (id, key));
        assert_eq!(subject.store().bounds().generations, generations);
        subject.check();
    }
}

/// So many events in commits of four, of which some have the time of the one before.
pub(super) fn grow<F: Factory>(subject: &mut Subject<'_, F>, commits: usize) {
    for n in 0..commits {
        subject.at.seconds += i64::from(n % 3 > 0);
        let of = |m: usize| match (n + m) % 5 {
            0 => named("c", &format!("{n} {m} {}", subject.next())),
            1 => sent("b", "x"),
            _ => sent(["a.x", "a.y"][m % 2], &format!("{n} {m}")),
        };
        let four: Vec<_> = (0..4).map(of).collect();
        subject.append(&four);
    }
}

fn ranges_without_events<F: Factory>(factory: &mut F) {
    let mut subject = Subject::new(factory);
    grow(&mut subject, 30);
    subject.check();
    subject.lose(&[7..9, 30..31, 50..90, 100..113]);
    subject.check();
    grow(&mut subject, 3);
    subject.check();
    for how in [Reopen::Crash, Reopen::Clean] {
        subject.reopen(how);
        subject.check();
        grow(&mut subject, 2);
    }
    // Before a range, in one, at its end, and over all of them.
    for oldest in [5, 8, 9, 20, 50, 60, 90, 112, 114, 118] {
        subject.trim(Seq::new(oldest));
        subject.check();
    }
    subject.reopen(Reopen::Clean);
    subject.check();
}

fn lost_ends<F: Factory>(factory: &mut F) {
    let mut subject = Subject::new(factory);
    grow(&mut subject, 10);
    subject.lose(&[1..6, 33..41]);
    subject.check();
    subject.reopen(Reopen::Crash);
    subject.check();
    // The chain goes on, and so does everything else.
    grow(&mut subject, 10);
    subject.check();
    subject.reopen(Reopen::Clean);
    subject.check();
    subject.trim(Seq::new(36));
    subject.check();
    subject.trim(subject.next());
    subject.check();
}

fn append_and_read<F: Factory>(factory: &mut F) {
    let mut subject = Subject::new(factory);
    subject.append(&[sent("a.x", "1"), named("b", "two"), sent("a.y", "3")]);
    subject.check();
    // A commit may have the time of the one before.
    subject.append(&[named("c", "four")]);
    subject.at.seconds += 1;
    subject.append(&[named("c", "four"), sent("a.x", "")]);
    subject.check();
}

fn any_range<F: Factory>(factory: &mut F) {
    let mut subject = Subject::new(factory);
    for n in 0..6 {
        let of = |m: usize| sent(["a.x", "b", "c"][m % 3], &format!("{n} {m}"));
        subject.append(&(0..n).map(of).collect::<Vec<_>>());
    }
    for from in 1..subject.next().get() {
        for end in from + 1..=subject.next().get() {
            for filter in [Filter::ALL, filter(&["a.>"])] {
                let in_range = &subject.events[to_usize(from) - 1..to_usize(end) - 1];
                let matching = in_range.iter().filter(|e| filter.matches(&e.sent.topic));
                let expected: Vec<_> = matching.map(|e| e.event.clone()).collect();
                let found = subject.read_all(Seq::new(from), Seq::new(end), &filter);
                assert_eq!(found, expected, "{from}..{end}");
            }
        }
    }
}

fn trim<F: Factory>(factory: &mut F) {
    let mut subject = Subject::new(factory);
    for n in 0..4 {
        subject.append(&[named("a.x", &format!("{n} one")), sent("b", &n.to_string())]);
        subject.at.seconds += 1;
    }
    for oldest in [1, 2, 5, 6] {
        subject.trim(Seq::new(oldest));
        subject.check();
        for below in 1..oldest {
            let from = Seq::new(below);
            let read = subject.store().read(from, subject.next(), &Filter::ALL);
            assert!(matches!(read, Err(StoreError::Trimmed { oldest: o }) if o == subject.oldest));
            let time = subject.store().time_of(from);
            assert!(matches!(time, Err(StoreError::Trimmed { .. })));
        }
        subject.reopen(Reopen::Crash);
        subject.check();
    }
    // A commit with events may move the mark as well.
    subject.oldest = Seq::new(8);
    subject.append(&[sent("c", "last")]);
    subject.check();
}

fn trim_all<F: Factory>(factory: &mut F) {
    let mut subject = Subject::new(factory);
    subject.append(&[sent("a.x", "1"), sent("b", "2")]);
    subject.trim(subject.next());
    assert!(subject.store().bounds().is_empty());
    subject.check();
    for how in [Reopen::Crash, Reopen::Clean] {
        subject.reopen(how);
        subject.check();
    }
    // Seqs go on: none is used twice.
    subject.append(&[sent("a.x", "3")]);
    assert_eq!(subject.store().bounds().head, Seq::new(3));
    subject.check();
}

fn large_event<F: Factory>(factory: &mut F) {
    let mut subject = Subject::new(factory);
    let body = "x".repeat(subject.journal().max_commit_bytes() - 1_000);
    subject.append(&[sent("a.x", "before")]);
    let half = body.len() / 2 - 1_000;
    subject.append(&[named("b", &body[..200]), sent("a.x", &body[..half])]);
    subject.append(&[sent("c", &body)]);
    subject.append(&[sent("a.x", "after")]);
    subject.check();
    subject.reopen(Reopen::Crash);
    subject.check();
}

fn fingerprints_stop<F: Factory>(factory: &mut F) {
    let mut subject = Subject::new(factory);
    for n in 0..5 {
        subject.append(&[named("a.x", &format!("{n}")), sent("b", ""), named("c", "same")]);
    }
    for from in [1, 4, 9, 15] {
        for stop_after in 1..8 {
            let mut found = Vec::new();
            let mut visit = |seq: Seq, fingerprint| {
                found.push((seq, fingerprint));
                found.len() < stop_after
            };
            let from = Seq::new(from);
            subject.store().fingerprints(from, &mut visit).expect("fingerprints");
            let above = subject.events.iter().rev().filter(|e| e.seq >= from);
            let named = above.filter_map(|e| Some((e.seq, e.fingerprint?)));
            assert_eq!(found, named.take(stop_after).collect::<Vec<_>>());
        }
    }
}

fn fingerprints_outlive_a_trim<F: Factory>(factory: &mut F) {
    let mut subject = Subject::new(factory);
    for n in 0..5 {
        subject.append(&[named("a.x", &format!("{n}")), sent("b", ""), named("c", "same")]);
    }
    for oldest in [1, 5, 9, 16] {
        subject.trim(Seq::new(oldest));
        for how in [None, Some(Reopen::Clean), Some(Reopen::Crash)] {
            if let Some(how) = how {
                subject.reopen(how);
            }
            subject.store().reclaim().expect("reclaimed");
            let mut found = Vec::new();
            let mut visit = |seq: Seq, fingerprint| {
                found.push((seq, fingerprint));
                true
            };
            subject.store().fingerprints(Seq::new(2), &mut visit).expect("fingerprints");
            let above = subject.events.iter().rev().filter(|e| e.seq >= Seq::new(2));
            let named = above.filter_map(|e| Some((e.seq, e.fingerprint?)));
            assert_eq!(found, named.collect::<Vec<_>>(), "trimmed to {oldest}, {how:?}");
        }
    }
}

fn trim_point<F: Factory>(factory: &mut F) {
    let mut subject = Subject::new(factory);
    for _ in 0..5 {
        subject.append(&[sent("a.x", &"x".repeat(1_000)), sent("b", "")]);
    }
    let (oldest, next) = (subject.oldest, subject.next());
    assert_eq!(subject.store().trim_point_for_size(u64::MAX, next), oldest);
    let disk_bytes = subject.store().status().disk_bytes;
    for limit in 1..=next.get() {
        for max_bytes in [0, disk_bytes.saturating_sub(1_500), disk_bytes.saturating_sub(1)] {
            let point = subject.store().trim_point_for_size(max_bytes, Seq::new(limit));
            assert!(oldest <= point && point <= Seq::new(limit), "{point} of {limit}");
        }
    }
    // Once trimmed for a size it needs no more for that, given back or not.
    for max_bytes in [disk_bytes.saturating_sub(1), disk_bytes / 2, 0] {
        let point = subject.store().trim_point_for_size(max_bytes, next);
        subject.trim(point);
        subject.check();
        assert_eq!(subject.store().trim_point_for_size(max_bytes, next), point);
        subject.store().reclaim().expect("space");
        assert_eq!(subject.store().trim_point_for_size(max_bytes, next), point);
    }
}

fn trim_point_for_events<F: Factory>(factory: &mut F) {
    let mut subject = Subject::new(factory);
    grow(&mut subject, 30);
    let end = subject.next();
    for max in [1, 7, 119] {
        let point = subject.store().trim_point_for_events(max, end);
        assert_eq!(point.distance_to(end), max);
        assert_eq!(
            subject.store().trim_point_for_events(max, Seq::new(60)).get(),
            60 - max.min(59)
        );
    }
    assert_eq!(subject.store().trim_point_for_events(120, end), subject.oldest);
    subject.lose(&[7..9, 30..31, 50..90, 100..113]);
    grow(&mut subject, 5);
    let end = subject.next().get();
    let is_lost = |seq: u64| [7..9, 30..31, 50..90, 100..113].iter().any(|it| it.contains(&seq));
    for oldest in [1, 8, 20, 60, 101] {
        subject.trim(Seq::new(oldest));
        let left: Vec<_> = (oldest..end).filter(|seq| !is_lost(*seq)).collect();
        for max in 1..=left.len() as u64 + 2 {
            let point = subject.store().trim_point_for_events(max, Seq::new(end));
            let stay = left.iter().filter(|seq| **seq >= point.get()).count() as u64;
            assert!(
                point >= subject.oldest && stay == max.min(left.len() as u64),
                "{max}: {point}"
            );
        }
    }
}

fn reopened<F: Factory>(factory: &mut F, how: Reopen) {
    let mut subject = Subject::new(factory);
    for n in 0..12 {
        subject.append(&[named("a.x", &format!("{n}")), sent("b", &"y".repeat(n * 500))]);
        subject.at.seconds += 1;
        if n % 4 == 3 {
            subject.reopen(how);
            subject.check();
        }
        if n == 6 {
            subject.trim(Seq::new(5));
        }
    }
}

fn read_while_appending<F: Factory>(factory: &mut F) {
    let mut subject = Subject::new(factory);
    let engine = subject.engine().clone();
    let last = Seq::new(600);
    let reader = std::thread::spawn(move || {
        let mut next = Seq::FIRST;
        while next <= last {
            let end = engine.bounds().next();
            if end == next {
                std::thread::yield_now();
                continue;
            }
            let chunk = engine.read(next, end, &Filter::ALL).expect("a chunk");
            assert!(chunk.first == next && chunk.end > next && chunk.end <= end);
            let mut seq = next;
            for event in tailmark_record::Events::new(&chunk.events) {
                let event = event.expect("well formed");
                assert_eq!(tailmark_record::Event::seq_of(event), Ok(seq));
                seq = seq.next();
            }
            assert_eq!(seq, chunk.end);
            next = chunk.end;
        }
    });
    for n in 0..200 {
        subject.append(&[sent("a.x", &n.to_string()), sent("b", ""), sent("c", "z")]);
    }
    reader.join().expect("the reader saw every event");
    subject.check();
}

fn random<F: Factory>(factory: &mut F) {
    let mut rng = rand::rngs::StdRng::seed_from_u64(7);
    let mut subject = Subject::new(factory);
    for _ in 0..60 {
        match rng.random_range(0..10) {
            0 => subject.reopen(Reopen::Crash),
            1 => subject.reopen(Reopen::Clean),
            2 => {
                let span = subject.next().get() - subject.oldest.get();
                subject.trim(subject.oldest.plus(rng.random_range(0..=span)));
            }
            3 => subject.at.seconds += rng.random_range(0..100),
            4 if subject.next() > Seq::FIRST => {
                let mut ranges = Vec::new();
                let mut from = rng.random_range(1..subject.next().get());
                while from < subject.next().get() && ranges.len() < 5 {
                    let end = rng.random_range(from + 1..=subject.next().get());
                    ranges.push(from..end.min(from + 30));
                    from = end.min(from + 30) + rng.random_range(0..40);
                }
                subject.erase(&ranges);
                subject.erased();
            }
            _ => {
                let one = |n: u64| -> Sent {
                    let topic = ["a.x", "a.y.z", "b", "c"][to_usize(n) % 4];
                    let body = "b".repeat(to_usize(n * n) % 3_000);
                    let id =
                        if n.is_multiple_of(3) { format!("{}", n % 50) } else { String::new() };
                    Sent { topic: topic.into(), body, id }
                };
                let count = rng.random_range(1..40);
                let events: Vec<_> = (0..count).map(|_| one(rng.random_range(0..200))).collect();
                subject.append(&events);
            }
        }
        subject.check_bounds();
    }
    subject.check();
    subject.reopen(Reopen::Crash);
    subject.check();
}
