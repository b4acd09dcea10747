use super::*;

const DAY: Duration = Duration::from_secs(24 * 3_600);

fn at(seconds: i64) -> Timestamp {
    Timestamp { seconds, nanos: 0 }
}

fn bounded(most: usize, bytes: usize) -> Producers {
    Producers::new(most, 30 * DAY, bytes, at(0))
}

fn producers() -> Producers {
    bounded(100, 1 << 20)
}

fn key(n: u64) -> Key {
    Producers::key(FingerprintKey::new([7; 16]), &format!("producer {n}"))
}

/// Opens and commits.
fn open(producers: &mut Producers, n: u64, epoch: u64) -> Opened {
    match producers.open(key(n), epoch) {
        Opening::Staged(opened) => {
            producers.promote(at(100));
            opened
        }
        Opening::Resumed(opened) => opened,
        other => panic!("{other:?}"),
    }
}

fn sent(n: u64, opened: &Opened, seq: u64) -> Sent {
    Sent { key: key(n), session: opened.session, seq }
}

/// Stages a batch of one event at `first`, and commits.
fn store(producers: &mut Producers, sent: &Sent, first: u64) {
    assert!(matches!(producers.judge(sent), Verdict::New), "{:?}", producers.judge(sent));
    producers.stage(sent, Seq::new(first), Seq::new(first), 1);
    producers.promote(at(100));
}

fn refused(verdict: Verdict) -> AppendError {
    match verdict {
        Verdict::Refused(error) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_batch_is_new_repeated_or_behind_a_hole() {
    let mut producers = producers();
    let opened = open(&mut producers, 1, 0);
    assert_eq!((opened.epoch, opened.last_seq, opened.last_event), (1, 0, None));
    let hole = refused(producers.judge(&sent(1, &opened, 2)));
    assert!(matches!(hole, AppendError::ProducerHole { expected: 1 }), "{hole}");
    for seq in 1..=70 {
        store(&mut producers, &sent(1, &opened, seq), 10 * seq);
    }
    for seq in 1..=70 {
        let Verdict::Repeat(place) = producers.judge(&sent(1, &opened, seq)) else {
            panic!("{seq}")
        };
        let expected = (seq > 6).then_some((Seq::new(10 * seq), Seq::new(10 * seq)));
        assert_eq!(place, expected, "{seq}");
    }
    let hole = refused(producers.judge(&sent(1, &opened, 72)));
    assert!(matches!(hole, AppendError::ProducerHole { expected: 71 }), "{hole}");
    let unknown = refused(producers.judge(&sent(2, &opened, 1)));
    assert!(matches!(unknown, AppendError::ProducerUnknown));
}

#[test]
fn only_the_stream_opened_last_may_append() {
    let mut producers = producers();
    let first = open(&mut producers, 1, 0);
    store(&mut producers, &sent(1, &first, 1), 1);
    // The same epoch again: the older stream is out, and its last batch is told.
    let again = open(&mut producers, 1, first.epoch);
    assert_eq!((again.epoch, again.last_seq, again.last_event), (1, 1, Some(Seq::new(1))));
    let fenced = refused(producers.judge(&sent(1, &first, 2)));
    assert!(matches!(fenced, AppendError::Fenced { epoch: 1 }));
    store(&mut producers, &sent(1, &again, 2), 2);
    let newer = open(&mut producers, 1, 0);
    assert_eq!((newer.epoch, newer.last_seq), (2, 2));
    for old in [&first, &again] {
        let fenced = refused(producers.judge(&sent(1, old, 3)));
        assert!(matches!(fenced, AppendError::Fenced { epoch: 2 }));
    }
    let old = producers.open(key(1), 1);
    assert!(matches!(old, Opening::Refused(AppendError::Fenced { epoch: 2 })), "{old:?}");
    let future = producers.open(key(1), 3);
    assert!(matches!(future, Opening::Refused(AppendError::ProducerUnknown)), "{future:?}");
    store(&mut producers, &sent(1, &newer, 3), 3);
}

#[test]
fn no_verdict_rests_on_what_is_not_durable() {
    let mut producers = producers();
    let opened = open(&mut producers, 1, 0);
    let batch = |seq| sent(1, &opened, seq);
    producers.stage(&batch(1), Seq::new(1), Seq::new(1), 2);
    // The next may follow in the same commit; a repeat, a hole and an opening must wait.
    assert!(matches!(producers.judge(&batch(2)), Verdict::New));
    for seq in [1, 3] {
        assert!(matches!(producers.judge(&batch(seq)), Verdict::Later), "{seq}");
    }
    assert!(matches!(producers.open(key(1), 0), Opening::Later));
    producers.roll_back();
    assert!(matches!(producers.judge(&batch(1)), Verdict::New));
    let hole = refused(producers.judge(&batch(2)));
    assert!(matches!(hole, AppendError::ProducerHole { expected: 1 }));
    // A staged opening fences nobody before it is durable.
    assert!(matches!(producers.open(key(1), 0), Opening::Staged(_)));
    assert!(matches!(producers.judge(&batch(1)), Verdict::Later));
    producers.roll_back();
    store(&mut producers, &batch(1), 1);
}

#[test]
fn an_epoch_is_never_given_twice_even_to_one_forgotten() {
    let mut producers = bounded(1, 1 << 20);
    let first = open(&mut producers, 1, 0);
    let other = open(&mut producers, 2, 0);
    assert_eq!(producers.len(), 1);
    let unknown = refused(producers.judge(&sent(1, &first, 1)));
    assert!(matches!(unknown, AppendError::ProducerUnknown));
    let refused = producers.open(key(1), first.epoch);
    assert!(matches!(refused, Opening::Refused(AppendError::ProducerUnknown)), "{refused:?}");
    let again = open(&mut producers, 1, 0);
    assert_eq!((first.epoch, other.epoch, again.epoch, again.last_seq), (1, 2, 3, 0));
}

#[test]
fn a_newer_generation_gives_no_epoch_of_an_older() {
    let mut old = producers();
    for n in 1..50 {
        open(&mut old, n, 0);
    }
    let mut restored = producers();
    restored.raise_epochs(Generation { counter: 1, nonce: 0 });
    assert_eq!(open(&mut restored, 1, 0).epoch, 1);
    restored.raise_epochs(Generation { counter: 2, nonce: 0 });
    assert_eq!(open(&mut restored, 1, 0).epoch, (1 << 32) + 1);
    restored.raise_epochs(Generation { counter: 2, nonce: 0 });
    assert_eq!(open(&mut restored, 1, 0).epoch, (1 << 32) + 2);
    let unknown = restored.open(key(49), 49);
    assert!(matches!(unknown, Opening::Refused(AppendError::ProducerUnknown)), "{unknown:?}");
}

#[test]
fn who_is_idle_is_forgotten_but_not_because_the_clock_jumps() {
    let far = at(100 + 300 * 86_400);
    let mut producers = Producers::new(10, DAY, 1 << 20, at(100));
    let opened = open(&mut producers, 1, 0);
    producers.forget_idle_after(DAY, at(100 + 86_400));
    assert_eq!(producers.len(), 1);
    let mut producers = Producers::new(10, DAY, 1 << 20, at(100));
    open(&mut producers, 1, 0);
    // The clock goes at most sixty times as fast as time: a minute is an hour.
    producers.forget_idle_after(Duration::from_secs(60), far);
    assert_eq!(producers.len(), 1, "forgotten at one stroke");
    producers.forget_idle_after(Duration::from_secs(24 * 60), far);
    assert_eq!(producers.len(), 0);
    let unknown = refused(producers.judge(&sent(1, &opened, 1)));
    assert!(matches!(unknown, AppendError::ProducerUnknown));
}

#[test]
fn over_the_bytes_the_idle_lose_their_seqs_first_and_their_place_last() {
    let mut producers = bounded(1_000, 3_000);
    let mut opened = Vec::new();
    let mut next = 1;
    for n in 0..30 {
        opened.push(open(&mut producers, n, 0));
        for seq in 1..=64 {
            store(&mut producers, &sent(n, &opened[n as usize], seq), next);
            next += 1_000;
        }
        let mut bytes = Vec::new();
        producers.encode(&mut bytes);
        assert!(bytes.len() <= 3_000 + 10, "{}", bytes.len());
    }
    // All are known, with their place; the newest with the seqs of each batch.
    assert_eq!(producers.len(), 30);
    let mut knows = Vec::new();
    for (n, opened) in opened.iter().enumerate() {
        let repeat = |seq| match producers.judge(&sent(n as u64, opened, seq)) {
            Verdict::Repeat(place) => place.is_some(),
            other => panic!("{other:?}"),
        };
        knows.push(repeat(1));
        assert!(matches!(producers.judge(&sent(n as u64, opened, 65)), Verdict::New));
    }
    assert!(!knows[0] && knows[29] && knows.is_sorted(), "{knows:?}");
    assert!(open(&mut producers, 3, opened[3].epoch).last_event.is_some());
    for n in 30..500 {
        open(&mut producers, n, 0);
    }
    let mut bytes = Vec::new();
    producers.encode(&mut bytes);
    assert!(producers.len() > 100 && bytes.len() <= 3_000 + 10);
}

/// Random commits, half of them not durable: what is read back from the state and any number of
/// deltas after it equals what is in memory.
#[test]
fn state_and_deltas_give_the_same_again() {
    use rand::{RngExt as _, SeedableRng as _};
    for seed in 0..200 {
        let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
        let mut producers = producers();
        let mut streams: HashMap<u64, (Opened, u64)> = HashMap::new();
        let (mut state, mut deltas) = (Vec::new(), Vec::new());
        producers.encode(&mut state);
        let mut next = Seq::FIRST;
        for _ in 0..60 {
            if rng.random_bool(0.1) {
                state.clear();
                deltas.clear();
                producers.encode(&mut state);
            }
            let (first, time) = (next, at(rng.random_range(0..1_000)));
            let mut end = next;
            let mut after = streams.clone();
            for _ in 0..rng.random_range(1..6) {
                let n = rng.random_range(0..4);
                if let Some((opened, seq)) = after.get_mut(&n) {
                    let sent = sent(n, opened, *seq + 1);
                    if matches!(producers.judge(&sent), Verdict::New) {
                        end = end.plus(rng.random_range(0..3));
                        let events = rng.random_range(1..500);
                        producers.stage(&sent, first, end, events);
                        end = end.plus(events);
                        *seq += 1;
                        continue;
                    }
                }
                if let Opening::Staged(opened) = producers.open(key(n), 0) {
                    after.insert(n, (opened, opened.last_seq));
                }
            }
            if rng.random_bool(0.5) {
                producers.roll_back();
                continue;
            }
            let mut delta = Vec::new();
            producers.encode_staged(time, &mut delta);
            deltas.push((first, delta));
            producers.promote(time);
            (next, streams) = (end, after);
        }
        let mut again = self::producers();
        again.decode(&state).unwrap();
        for (first, delta) in &deltas {
            again.replay(*first, delta).unwrap();
        }
        let (mut one, mut two) = (Vec::new(), Vec::new());
        producers.encode(&mut one);
        again.encode(&mut two);
        assert!(one == two, "seed {seed}");
        assert!(again.decode(&one[..one.len() - 1]).is_none());
    }
}

/// Whatever a copy had, it has what is said of all of them, and epochs never go down.
#[test]
fn what_is_said_anew_is_all_that_counts() {
    let (mut one, mut other, mut ahead) = (producers(), producers(), producers());
    for n in 0..3 {
        let opened = open(&mut one, n, 0);
        for seq in 1..5 {
            store(&mut one, &sent(n, &opened, seq), 10 * n + seq);
        }
    }
    let opened = open(&mut other, 2, 0);
    store(&mut other, &sent(2, &opened, 1), 3);
    open(&mut other, 77, 0);
    for n in 0..9 {
        open(&mut ahead, 70 + n, 0);
    }
    let mut delta = Vec::new();
    one.encode_restated(at(5), &mut delta);
    let encoded = |it: &Producers| {
        let mut bytes = Vec::new();
        it.encode(&mut bytes);
        bytes
    };
    for again in [&mut other, &mut producers()] {
        again.replay(Seq::new(50), &delta).unwrap();
        assert_eq!(encoded(again), encoded(&one));
        // Once more is the same.
        again.replay(Seq::new(50), &delta).unwrap();
        assert_eq!(encoded(again), encoded(&one));
    }
    let before = ahead.next_epoch;
    ahead.replay(Seq::new(50), &delta).unwrap();
    assert_eq!((ahead.next_epoch, ahead.len()), (before, 3));
    // Cut anywhere it is no delta, or one that says less: never a panic.
    for len in 0..delta.len() {
        let _ = producers().replay(Seq::new(50), &delta[..len]);
    }
    assert!(producers().replay(Seq::new(50), &delta[..delta.len() - 1]).is_none());
}

/// Each with batches of a hundred events among those of all others.
#[test]
fn a_hundred_thousand_producers_fit_a_slot() {
    let bytes = 8 << 20;
    let mut producers = bounded(100_000, bytes);
    let opened: Vec<_> = (0..100_000)
        .map(|n| match producers.open(key(n), 0) {
            Opening::Staged(opened) => opened,
            other => panic!("{other:?}"),
        })
        .collect();
    producers.promote(at(1_700_000_000));
    let mut next = 1;
    for seq in 1..=16 {
        for (n, opened) in opened.iter().enumerate() {
            producers.stage(&sent(n as u64, opened, seq), Seq::new(next), Seq::new(next), 100);
            next += 100;
        }
        producers.promote(at(1_700_000_000));
    }
    let mut state = Vec::new();
    producers.encode(&mut state);
    assert_eq!(producers.len(), 100_000);
    assert!(state.len() <= bytes + 10, "{}", state.len());
    let last = producers.judge(&sent(99_999, &opened[99_999], 16));
    assert!(matches!(last, Verdict::Repeat(Some(_))), "{last:?}");
    let mut again = bounded(100_000, bytes);
    again.decode(&state).unwrap();
    assert_eq!(again.len(), 100_000);
}

/// What is stored is frozen: migrations/0002_history/FORMAT.md.
#[test]
fn the_bytes_are_those_of_version_1() {
    let mut producers = producers();
    let one = open(&mut producers, 1, 0);
    store(&mut producers, &sent(1, &one, 1), 300);
    assert!(matches!(producers.open(key(2), 0), Opening::Staged(_)));
    producers.stage(&sent(1, &one, 2), Seq::new(1_000), Seq::new(1_002), 5);
    producers.stage(&sent(1, &one, 3), Seq::new(1_000), Seq::new(1_008), 200);
    let hash = key(1).0;
    let mut delta = Vec::new();
    producers.encode_staged(at(200), &mut delta);
    let expected = [&[0xc8, 0x01, 1][..], &key(2).0, &[2, 3], &hash, &[2, 2, 5, 4, 1, 0xc8, 0x01]];
    assert_eq!(delta, expected.concat());
    producers.promote(at(200));
    assert!(matches!(producers.open(key(2), 0), Opening::Staged(_)));
    assert_eq!(producers.staged_bytes(), [&[2][..], &key(2).0, &[3]].concat());
    producers.roll_back();
    let mut state = Vec::new();
    producers.encode(&mut state);
    let expected = [
        &[3][..],
        &key(2).0,
        &[2, 0, 0xc8, 0x01, 0, 0],
        &hash,
        // Batches at 300, 1,002 to 1,006, 1,008 to 1,207.
        &[1, 3, 0xc8, 0x01, 0xac, 0x02, 3, 0, 1, 0xbd, 0x05, 5, 1, 0xc8, 0x01],
    ];
    assert_eq!(state, expected.concat());
}
