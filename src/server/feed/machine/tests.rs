//! The machine without a network: positions, markers, limits, against a model.

use bytes::{Buf, Bytes};

use crate::server::feed::machine::{
    Bundle, EFFORT_PER_POLL, End, Machine, Plan, SKIPPED_PER_HEARTBEAT, Step,
};
use crate::server::feed::shared_frames::SharedFrames;
use crate::server::unsent::Unsent;
use tailmark_log::eventlog::Delivery;
use tailmark_log::storage::Chunk;
use tailmark_record::topic::{Filter, Pattern};
use tailmark_record::write_entry;
use tailmark_record::{
    ChainTag, CursorMint, Event, Events, Gap, GapReason, Generation, Limits, LogId, Seq, Stamp,
    Timestamp,
};

fn s(seq: u64) -> Seq {
    Seq::new(seq)
}

/// Every third event, beginning with seq 3, is on `b`; the others are on `a`.
fn topic(seq: u64) -> &'static str {
    if seq.is_multiple_of(3) { "b" } else { "a" }
}

fn entry(seq: u64, out: &mut Vec<u8>) {
    entry_on(seq, topic(seq), out);
}

fn entry_on(seq: u64, topic: &str, out: &mut Vec<u8>) {
    let mint =
        CursorMint::new(LogId::new(uuid::Uuid::from_u128(1)), Generation { counter: 1, nonce: 1 });
    let mut part = Vec::new();
    Event { topic, ..Event::default() }.write_client_part(&mut part);
    let stamp = Stamp {
        seq: s(seq),
        mint: &mint,
        tag: ChainTag::START,
        appended_at: Timestamp::EPOCH.into(),
        fill_at: true,
        fill_id: Some("id"),
    };
    write_entry(out, &part, &stamp);
}

fn chunk(first: u64, end: u64, complete: bool) -> Chunk {
    let mut events = Vec::new();
    for seq in first..end {
        if complete || topic(seq) == "b" {
            entry(seq, &mut events);
        }
    }
    Chunk { first: s(first), end: s(end), events: events.into(), complete }
}

fn recent(chunk: Chunk) -> Delivery {
    Delivery { chunk, is_recent: true, erasures: 0 }
}

fn only_b() -> Filter {
    Filter::new(vec![Pattern::parse("b", &Limits::default()).unwrap()])
}

fn plan() -> Plan {
    Plan {
        filter: Filter::ALL,
        start: s(1),
        limit: None,
        until: None,
        markers: true,
        gaps: Vec::new(),
        bundle: Bundle::One,
    }
}

fn seq_of(event: &Bytes) -> u64 {
    Event::seq_of(event).unwrap().get()
}

/// One line a step.
fn tell(step: &Step) -> String {
    match step {
        Step::Event(event) => format!("{}", seq_of(event)),
        Step::News(news) => match news.gap {
            Some(gap) => format!("Gap {}-{} at {}", gap.from, gap.to, news.passed),
            None => format!("{:?} at {}", news.kind, news.passed),
        },
        Step::Read { end } if *end == Seq::MAX => "read".to_owned(),
        Step::Read { end } => format!("read below {end}"),
        Step::Rest => "rest".to_owned(),
        Step::Large(bytes) => format!("{bytes} bytes"),
        Step::End(end) => format!("{end:?}"),
        Step::Broken(_) => "broken".to_owned(),
    }
}

/// Runs until it wants to read or is over.
fn run(machine: &mut Machine, head: u64) -> Vec<String> {
    let mut told = Vec::new();
    loop {
        let step = machine.step(|| s(head));
        if step == Step::Rest {
            machine.rested();
            continue;
        }
        told.push(tell(&step));
        if !matches!(step, Step::Event(_) | Step::News(_)) {
            return told;
        }
    }
}

#[test]
fn an_empty_log_is_caught_up_and_goes_live() {
    let mut machine = Machine::new(plan());
    assert_eq!(run(&mut machine, 0), ["Resumed at 0", "CaughtUp at 0", "read"]);
    machine.deliver(recent(chunk(1, 3, true)));
    assert_eq!(run(&mut machine, 2), ["1", "2", "read"]);
}

#[test]
fn replay_is_followed_by_caught_up_once() {
    let mut machine = Machine::new(plan());
    assert_eq!(run(&mut machine, 4), ["Resumed at 0", "read"]);
    let stored = Delivery { chunk: chunk(1, 3, true), is_recent: false, erasures: 0 };
    machine.deliver(stored);
    assert_eq!(run(&mut machine, 4), ["1", "2", "read"]);
    machine.deliver(recent(chunk(3, 5, true)));
    assert_eq!(run(&mut machine, 4), ["3", "4", "CaughtUp at 4", "read"]);
    machine.deliver(recent(chunk(5, 6, true)));
    assert_eq!(run(&mut machine, 5), ["5", "read"]);
    // Only now there is a place to fall behind from.
    machine.deliver(Delivery { chunk: chunk(6, 7, true), is_recent: false, erasures: 0 });
    assert_eq!(run(&mut machine, 8), ["FellBehind at 5", "6", "read"]);
    machine.deliver(recent(chunk(7, 9, true)));
    assert_eq!(run(&mut machine, 8), ["7", "8", "CaughtUp at 8", "read"]);
}

#[test]
fn without_markers_nothing_is_told() {
    let gaps = vec![Gap { from: s(1), to: s(4), reason: GapReason::Trimmed }];
    let mut machine = Machine::new(Plan { markers: false, start: s(5), gaps, ..plan() });
    assert_eq!(run(&mut machine, 5), ["read"]);
    machine.deliver(Delivery { chunk: chunk(5, 6, true), is_recent: false, erasures: 0 });
    machine.heartbeat();
    machine.close();
    assert_eq!(run(&mut machine, 5), ["5", "read"]);
}

#[test]
fn gaps_at_the_start_come_before_resumed() {
    let gaps = vec![Gap { from: s(2), to: s(4), reason: GapReason::Trimmed }];
    let mut machine = Machine::new(Plan { start: s(5), gaps, ..plan() });
    assert_eq!(run(&mut machine, 9), ["Gap 2-4 at 4", "Resumed at 4", "read"]);
}

#[test]
fn a_limit_counts_what_is_delivered() {
    let limit = Some(2);
    let mut machine = Machine::new(Plan { filter: only_b(), limit, markers: false, ..plan() });
    machine.step(|| s(9));
    machine.deliver(recent(chunk(1, 10, true)));
    assert_eq!(run(&mut machine, 9), ["3", "6", "Limit"]);
    assert_eq!((machine.passed(), machine.delivered()), (s(6), 2));
    // For ever.
    assert_eq!(machine.step(|| s(99)), Step::End(End::Limit));
}

#[test]
fn what_comes_after_a_chunk_is_wanted_unless_the_end_lies_in_it() {
    for (limit, until, expected) in [
        (None, None, Some(Seq::MAX)),
        (Some(9), None, None),
        (Some(10), None, Some(Seq::MAX)),
        (None, Some(s(9)), None),
        (None, Some(s(20)), Some(s(21))),
        (Some(4), Some(s(20)), None),
    ] {
        let mut machine = Machine::new(Plan { limit, until, markers: false, ..plan() });
        assert_eq!(machine.reads_on(), None, "nothing is at hand");
        machine.step(|| s(99));
        machine.deliver(recent(chunk(1, 10, true)));
        assert_eq!(machine.reads_on(), expected, "{limit:?} {until:?}");
        // What has been sent of it changes nothing.
        machine.step(|| s(99));
        assert_eq!(machine.reads_on(), expected, "{limit:?} {until:?}");
    }
}

#[test]
fn until_stops_at_the_head_of_the_beginning_whatever_comes_later() {
    let mut machine = Machine::new(Plan { until: Some(s(4)), ..plan() });
    assert_eq!(run(&mut machine, 4), ["Resumed at 0", "read below 5"]);
    machine.deliver(recent(chunk(1, 5, true)));
    assert_eq!(run(&mut machine, 50), ["1", "2", "3", "4", "CaughtUp at 4", "CaughtUp"]);

    let mut machine = Machine::new(Plan { until: Some(s(4)), start: s(5), ..plan() });
    assert_eq!(run(&mut machine, 50), ["Resumed at 4", "CaughtUp at 4", "CaughtUp"]);
    let mut machine = Machine::new(Plan { until: Some(s(4)), limit: Some(4), ..plan() });
    machine.step(|| s(4));
    machine.deliver(recent(chunk(1, 5, true)));
    assert_eq!(run(&mut machine, 50), ["1", "2", "3", "4", "Limit"]);
}

#[test]
fn a_filter_passes_what_it_skips_in_whole_and_in_thinned_chunks() {
    for complete in [true, false] {
        let mut machine = Machine::new(Plan { filter: only_b(), markers: false, ..plan() });
        machine.step(|| s(10));
        machine.deliver(recent(chunk(1, 6, complete)));
        assert_eq!(run(&mut machine, 10), ["3", "read"]);
        assert_eq!(machine.passed(), s(5));
        machine.deliver(recent(chunk(6, 9, complete)));
        assert_eq!(run(&mut machine, 10), ["6", "read"]);
        assert_eq!(machine.next(), s(9));
    }
    // A run that is known not to match.
    let mut machine = Machine::new(Plan { filter: only_b(), markers: false, ..plan() });
    machine.step(|| s(10));
    let nothing = Chunk { first: s(1), end: s(500), events: Bytes::new(), complete: false };
    machine.deliver(recent(nothing));
    assert_eq!(run(&mut machine, 600), ["read"]);
    assert_eq!(machine.passed(), s(499));
}

#[test]
fn skipped_events_are_told_in_the_middle_of_a_chunk_too() {
    let filter = Filter::new(vec![Pattern::parse("c", &Limits::default()).unwrap()]);
    let mut machine = Machine::new(Plan { filter, ..plan() });
    machine.step(|| s(25_000));
    machine.step(|| s(25_000));
    machine.deliver(recent(chunk(1, 25_001, true)));
    let told = run(&mut machine, 30_000);
    assert_eq!(told, ["Heartbeat at 10000", "Heartbeat at 20000", "read"]);
    // What was skipped before counts: 5,000 and 5,000 more.
    let nothing = Chunk { first: s(25_001), end: s(30_001), events: Bytes::new(), complete: false };
    machine.deliver(recent(nothing));
    assert_eq!(run(&mut machine, 40_000), ["Heartbeat at 30000", "read"]);
    assert_eq!(SKIPPED_PER_HEARTBEAT, 10_000);
}

#[test]
fn a_gap_under_way_is_told_once_and_passed() {
    let mut machine = Machine::new(plan());
    run(&mut machine, 9);
    machine.deliver(recent(chunk(1, 3, true)));
    run(&mut machine, 9);
    machine.skip_gap(s(6), GapReason::Damaged);
    assert_eq!(run(&mut machine, 9), ["Gap 3-6 at 6", "read"]);
    machine.deliver(recent(chunk(7, 10, true)));
    assert_eq!(run(&mut machine, 9), ["7", "8", "9", "CaughtUp at 9", "read"]);
}

#[test]
fn a_heartbeat_and_the_closing_stand_where_the_position_is() {
    let mut machine = Machine::new(plan());
    run(&mut machine, 2);
    machine.deliver(recent(chunk(1, 3, true)));
    run(&mut machine, 2);
    machine.heartbeat();
    machine.close();
    assert_eq!(run(&mut machine, 2), ["Heartbeat at 2", "Closing at 2", "read"]);
}

#[test]
fn a_chunk_that_is_not_what_it_says_is_broken() {
    for (name, broken) in [
        ("too few", Chunk { end: s(6), ..chunk(1, 5, true) }),
        ("too many", Chunk { end: s(4), ..chunk(1, 5, true) }),
        ("not an entry", Chunk { events: Bytes::from_static(b"\xff\xff"), ..chunk(1, 5, true) }),
        ("outside", Chunk { first: s(1), end: s(3), ..chunk(1, 5, false) }),
    ] {
        let filter = if broken.complete { Filter::ALL } else { only_b() };
        let mut machine = Machine::new(Plan { markers: false, filter, ..plan() });
        machine.step(|| s(9));
        machine.deliver(recent(broken));
        assert_eq!(run(&mut machine, 9).last().unwrap(), "broken", "{name}");
    }
}

/// How many events a watch of so many patterns passes over before it lets others run, of a chunk whose events have
/// so many topics.
fn passed_before_rest(patterns: usize, topics: u64) -> Vec<u64> {
    let pattern = |at: usize| format!("*.*.x{at}.>");
    let parse = |text: String| Pattern::parse(&text, &Limits::default()).unwrap();
    let filter = Filter::new((0..patterns).map(|at| parse(pattern(at))).collect());
    let mut machine = Machine::new(Plan { filter, bundle: Bundle::Frames(1 << 16), ..plan() });
    let mut events = Vec::new();
    (1..=9_999).for_each(|seq| entry_on(seq, &format!("a.b.y{}.c", seq % topics), &mut events));
    let chunk = Chunk { first: s(1), end: s(10_000), events: events.into(), complete: true };
    machine.step(|| s(9_999));
    machine.deliver(recent(chunk));
    let (mut passed, mut before) = (Vec::new(), machine.next());
    loop {
        match machine.step(|| s(9_999)) {
            Step::Rest => {
                passed.push(before.distance_to(machine.next()));
                before = machine.next();
                machine.rested();
            }
            Step::News(_) => {}
            step => {
                assert_eq!((machine.next(), tell(&step)), (s(10_000), "read".to_owned()));
                return passed;
            }
        }
    }
}

#[test]
fn a_filter_that_finds_nothing_lets_others_run() {
    let rests = passed_before_rest(64, 9_999);
    assert!(rests.len() >= 40 && rests.iter().all(|&passed| passed <= 256), "{rests:?}");
    let rests = passed_before_rest(1, 9_999);
    assert!(rests.len() >= 8 && rests.iter().all(|&passed| passed <= 1_024), "{rests:?}");
    // Each topic is judged once.
    let rests = passed_before_rest(64, 20);
    assert!((1..=3).contains(&rests.len()), "{rests:?}");
}

proptest::proptest! {
    /// However the log is cut into chunks: events in order, each matching one once.
    #[test]
    fn any_chunking_gives_the_same_events(
        cuts in proptest::collection::vec((1u64..40, proptest::bool::ANY, proptest::bool::ANY), 1..20),
        filtered in proptest::bool::ANY,
        limit in 0u64..60,
        together in 0..3,
        most in 0usize..4_000,
        rests_after in 1usize..100,
        room in 0usize..400,
    ) {
        let filter = if filtered { only_b() } else { Filter::ALL };
        let limit = (limit > 0).then_some(limit);
        let bundle = match together {
            0 => Bundle::One,
            1 => Bundle::Batch(most),
            _ => Bundle::Frames(most),
        };
        let mut machine = Machine::new(Plan { filter, limit, bundle, ..plan() });
        let effort = EFFORT_PER_POLL.saturating_sub(rests_after);
        machine.effort = effort;
        machine.send_at_most(room);
        let head: u64 = cuts.iter().map(|(len, ..)| len).sum();
        let mut got = Vec::new();
        let mut passed = 0;
        let mut cuts = cuts.into_iter();
        loop {
            match machine.step(|| s(head)) {
                Step::Event(events) => {
                    match together {
                        0 => got.push(seq_of(&events)),
                        1 => got.extend(seqs_of(&events)),
                        _ => got.extend(seqs_of_frames(&events)),
                    }
                    machine.send_at_most(room);
                }
                Step::Large(bytes) => {
                    proptest::prop_assert!(bytes > room);
                    machine.send_at_most(bytes);
                    continue;
                }
                Step::News(marker) => {
                    proptest::prop_assert!(marker.passed >= s(got.last().copied().unwrap_or(0)));
                    proptest::prop_assert!(marker.passed.get() >= passed);
                    passed = marker.passed.get();
                }
                Step::Read { .. } => {
                    let Some((len, complete, is_recent)) = cuts.next() else { break };
                    let first = machine.next().get();
                    let chunk = chunk(first, first + len, complete || !filtered);
                    machine.deliver(Delivery { chunk, is_recent, erasures: 0 });
                }
                Step::Rest => {
                    proptest::prop_assert!(filtered && machine.step(|| s(head)) == Step::Rest);
                    machine.rested();
                    machine.effort = effort;
                }
                Step::End(_) => break,
                Step::Broken(what) => proptest::prop_assert!(false, "{}", what),
            }
        }
        let all = (1..=head).filter(|&seq| !filtered || topic(seq) == "b");
        let expected: Vec<_> = all.take(limit.map_or(usize::MAX, |n| usize::try_from(n).unwrap())).collect();
        proptest::prop_assert_eq!(got, expected);
    }
}

proptest::proptest! {
    /// However watches that share what they send are cut, interleaved, limited and filtered: each
    /// sends the events it wants in order, once, as they are stored.
    #[test]
    fn what_watches_share_is_what_each_of_them_would_send(
        cuts in proptest::collection::vec((0usize..4, 1u64..30, proptest::bool::ANY), 1..60),
        limit in 0u64..60,
        until in 0u64..60,
        most in 0usize..2_000,
    ) {
        const HEAD: u64 = 100;
        let common = SharedFrames::new(Unsent::new(64 << 20));
        let plans = [
            plan(),
            Plan { limit: (limit > 0).then_some(limit), markers: false, ..plan() },
            Plan { until: (until > 0).then_some(s(until)), start: s(4), ..plan() },
            Plan { filter: only_b(), ..plan() },
        ];
        let mut watches = plans.map(|plan| {
            let wanted = |seq: &u64| plan.filter.is_all() || topic(*seq) == "b";
            let last = plan.until.map_or(HEAD, Seq::get);
            let all = (plan.start.get()..=last).filter(wanted);
            let limit = usize::try_from(plan.limit.unwrap_or(HEAD)).unwrap();
            let expected: Vec<_> = all.take(limit).collect();
            (Machine::new(Plan { bundle: Bundle::Frames(most), ..plan }), Vec::new(), expected)
        });
        // Each cut lets one watch read, and then all go on as far as they can.
        for (watch, len, is_recent) in cuts.into_iter().chain((0..4).map(|at| (at, HEAD, true))) {
            let (machine, got, _) = &mut watches[watch];
            let mut has_read = false;
            loop {
                match common.step(machine, None, || s(HEAD)).0 {
                    Step::Event(frames) => {
                        let sent: Vec<_> = seqs_of_frames(&frames).collect();
                        proptest::prop_assert!(machine.passed().get() >= sent[sent.len() - 1]);
                        got.extend(sent);
                        proptest::prop_assert_eq!(machine.delivered(), got.len() as u64);
                    }
                    Step::News(_) => {}
                    Step::Read { end } if !has_read && machine.next() <= s(HEAD) => {
                        let first = machine.next().get();
                        let end = (first + len).min(HEAD + 1).min(end.get());
                        machine.deliver(Delivery { chunk: chunk(first, end, true), is_recent, erasures: 0 });
                        has_read = true;
                    }
                    Step::Read { .. } | Step::Rest | Step::End(_) => break,
                    Step::Large(_) => proptest::prop_assert!(false, "nothing is too much"),
                    Step::Broken(what) => proptest::prop_assert!(false, "{}", what),
                }
            }
        }
        for (_, got, expected) in watches {
            proptest::prop_assert_eq!(got, expected);
        }
    }
}

#[test]
fn a_second_watch_sends_the_very_bytes_of_the_first() {
    let common = SharedFrames::new(Unsent::new(64 << 20));
    let sent = |plan: Plan, is_recent: bool| {
        let mut machine =
            Machine::new(Plan { markers: false, bundle: Bundle::Frames(1 << 20), ..plan });
        common.step(&mut machine, None, || s(9));
        machine.deliver(Delivery { chunk: chunk(1, 10, true), is_recent, erasures: 0 });
        let step = common.step(&mut machine, None, || s(9)).0;
        let Step::Event(frames) = step else { panic!("events") };
        assert_eq!(machine.next(), s(10));
        frames
    };
    let first = sent(plan(), true);
    assert_eq!(seqs_of_frames(&first).collect::<Vec<_>>(), (1..10).collect::<Vec<_>>());
    assert_eq!(sent(plan(), true).as_ptr(), first.as_ptr());
    // What is read from disk is not what others read now, and who has an end may stop before.
    for alone in [sent(plan(), false), sent(Plan { limit: Some(100), ..plan() }, true)] {
        assert_eq!(alone, first);
        assert_ne!(alone.as_ptr(), first.as_ptr());
    }
}

#[test]
fn what_others_sent_joins_a_buffer_only_where_its_copy_has_room() {
    let common = SharedFrames::new(Unsent::new(64 << 20));
    let plan = Plan { markers: false, bundle: Bundle::Frames(1 << 20), ..plan() };
    let mut watches = [Machine::new(plan.clone()), Machine::new(plan.clone()), Machine::new(plan)];
    for machine in &mut watches {
        common.step(machine, None, || s(9));
        let chunk = chunk(1, 10, true);
        machine.deliver(Delivery { chunk, is_recent: true, erasures: 0 });
    }
    let [first, second, third] = &mut watches;
    let Step::Event(frames) = common.step(first, None, || s(9)).0 else { panic!("events") };
    let step = common.step(second, Some(frames.len() - 1), || s(9)).0;
    assert!(matches!(step, Step::Rest) && second.next() == s(1));
    for (machine, most) in [(second, None), (third, Some(frames.len()))] {
        let Step::Event(same) = common.step(machine, most, || s(9)).0 else { panic!("events") };
        assert!(same.as_ptr() == frames.as_ptr() && machine.next() == s(10));
    }
}

fn seqs_of_frames(frames: &Bytes) -> impl Iterator<Item = u64> {
    let mut rest = frames.clone();
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        assert_eq!(rest.get_u8(), 0);
        let len = rest.get_u32() as usize;
        Some(seq_of(&rest.split_to(len)))
    })
}

fn seqs_of(entries: &Bytes) -> impl Iterator<Item = u64> + '_ {
    Events::new(entries).map(|event| Event::seq_of(event.unwrap()).unwrap().get())
}

/// The seqs of each batch, and what is told between them.
fn run_batches(machine: &mut Machine, head: u64) -> Vec<String> {
    let mut told = Vec::new();
    loop {
        let step = machine.step(|| s(head));
        told.push(match &step {
            Step::Event(entries) => {
                let seqs: Vec<_> = seqs_of(entries).map(|seq| seq.to_string()).collect();
                seqs.join(" ")
            }
            other => tell(other),
        });
        if !matches!(step, Step::Event(_) | Step::News(_)) {
            return told;
        }
    }
}

#[test]
fn batches_hold_what_is_ready_and_markers_stand_between_them() {
    let mut machine = Machine::new(Plan { bundle: Bundle::Batch(1 << 20), ..plan() });
    assert_eq!(run_batches(&mut machine, 6), ["Resumed at 0", "read"]);
    machine.deliver(recent(chunk(1, 7, true)));
    assert_eq!(run_batches(&mut machine, 6), ["1 2 3 4 5 6", "CaughtUp at 6", "read"]);
    machine.deliver(recent(chunk(7, 8, true)));
    assert_eq!(run_batches(&mut machine, 7), ["7", "read"]);
    // Filtered, from chunks that have all and from one that has not; one batch a chunk.
    for complete in [true, false] {
        let plan = Plan { filter: only_b(), limit: Some(3), markers: false, ..plan() };
        let mut machine = Machine::new(Plan { bundle: Bundle::Batch(1 << 20), ..plan });
        machine.step(|| s(20));
        machine.deliver(recent(chunk(1, 8, complete)));
        assert_eq!(run_batches(&mut machine, 20), ["3 6", "read"]);
        assert_eq!(machine.passed(), s(7));
        machine.deliver(recent(chunk(8, 20, complete)));
        assert_eq!(run_batches(&mut machine, 20), ["9", "Limit"]);
        assert_eq!((machine.passed(), machine.delivered()), (s(9), 3));
    }
}

#[test]
fn a_batch_is_as_large_as_allowed_and_never_empty() {
    let entries = chunk(1, 10, true);
    let entry_bytes = entries.events.len() / 9;
    for (batch_bytes, expected) in [
        (0, &["1", "2", "3", "4", "5", "6", "7", "8", "9", "read"][..]),
        (entry_bytes * 2 - 1, &["1", "2", "3", "4", "5", "6", "7", "8", "9", "read"]),
        (entry_bytes * 2, &["1 2", "3 4", "5 6", "7 8", "9", "read"]),
        (entry_bytes * 4 + 1, &["1 2 3 4", "5 6 7 8", "9", "read"]),
    ] {
        let mut machine =
            Machine::new(Plan { markers: false, bundle: Bundle::Batch(batch_bytes), ..plan() });
        machine.step(|| s(20));
        machine.deliver(recent(entries.clone()));
        assert_eq!(run_batches(&mut machine, 20), expected);
    }
}

#[test]
fn a_heartbeat_comes_after_the_batch_that_it_passes() {
    let mut machine =
        Machine::new(Plan { filter: only_b(), bundle: Bundle::Batch(1 << 20), ..plan() });
    machine.step(|| s(0));
    let far = SKIPPED_PER_HEARTBEAT + 5;
    machine.deliver(recent(Chunk { end: s(far), ..chunk(1, 4, false) }));
    let told = run_batches(&mut machine, far + 1);
    assert_eq!(told, ["3", &format!("Heartbeat at {}", far - 1), "read"]);
}
