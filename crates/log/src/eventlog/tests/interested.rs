//! Readers that sleep until something concerns them.

use super::*;
use tailmark_record::topic::Pattern;

fn filter(patterns: &[&str]) -> Filter {
    Filter::new(patterns.iter().map(|p| Pattern::parse(p, &Limits::default()).unwrap()).collect())
}

async fn publish(log: &EventLog, topics: &[&str]) {
    let events: Vec<_> = topics.iter().map(|topic| (*topic, "x")).collect();
    log.append(batch(log, &events), AppendOptions::default()).await.unwrap();
}

/// Waits until the index has been asked of all that is published.
async fn settled(log: &EventLog) {
    let reads = &log.core().reads;
    while reads.interest.len() > 0 && reads.interest.examined_upto() < log.head() {
        tokio::task::yield_now().await;
    }
}

/// Seqs of what a delivery has that matches.
fn matching(delivery: &Delivery, filter: &Filter) -> Vec<u64> {
    let events = Events::new(&delivery.chunk.events).map(|it| Event::parse(it.unwrap()).unwrap());
    events.filter(|event| filter.matches(event.topic)).map(|event| event.seq.get()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_sleeps_through_what_does_not_concern_it_and_misses_nothing_else() {
    let (log, _) = open(options());
    publish(&log, &["a", "b"]).await;
    let filter = filter(&["a"]);
    let mut reader = log.reader(Seq::FIRST, filter.clone());
    let delivery = reader.next(Seq::MAX).await.unwrap();
    assert_eq!(matching(&delivery, &filter), [1]);
    let mut next = Box::pin(reader.next(Seq::MAX));
    assert!(poll_once(next.as_mut()).await.is_none());
    let reads = log.status().counters.reads_recent;
    for _ in 0..50 {
        publish(&log, &["b", "c", "a.b"]).await;
    }
    settled(&log).await;
    assert!(poll_once(next.as_mut()).await.is_none());
    assert_eq!(log.status().counters.reads_recent, reads, "it read what does not concern it");
    publish(&log, &["b", "a", "a"]).await;
    let delivery = next.await.unwrap();
    // Exactly from the position on, with all that was passed over.
    assert_eq!((delivery.chunk.first, delivery.chunk.end), (Seq::new(3), Seq::new(156)));
    assert_eq!(matching(&delivery, &filter), [154, 155]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sleeper_tells_how_far_the_log_has_come_when_it_is_asked() {
    let (log, _) = open(options());
    let filter = filter(&["a"]);
    let mut reader = log.reader(Seq::FIRST, filter.clone());
    let progress = reader.progress().unwrap();
    assert_eq!(progress.quiet_upto(), None, "it does not sleep yet");
    let mut next = Box::pin(reader.next(Seq::MAX));
    assert!(poll_once(next.as_mut()).await.is_none());
    publish(&log, &["b", "b", "b"]).await;
    settled(&log).await;
    assert_eq!(progress.waits_for(), None);
    assert_eq!(progress.quiet_upto(), Some(Seq::new(3)));
    progress.look();
    let delivery = next.await.unwrap();
    assert_eq!((delivery.chunk.first, delivery.chunk.end), (Seq::FIRST, Seq::new(4)));
    assert!(delivery.chunk.events.is_empty() && !delivery.chunk.complete && delivery.is_recent);
    publish(&log, &["b", "a", "b"]).await;
    settled(&log).await;
    // Woken and not come yet: that is what it lags behind.
    assert_eq!((progress.next(), progress.waits_for()), (Seq::new(4), Some(Seq::new(5))));
    assert_eq!(progress.quiet_upto(), None);
    let delivery = reader.next(Seq::MAX).await.unwrap();
    assert_eq!(matching(&delivery, &filter), [5]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_who_has_to_tell_is_woken_after_so_many_events() {
    let (log, _) = open(options());
    let mut reader = log.reader(Seq::FIRST, filter(&["a"])).reports_every(100);
    let mut next = Box::pin(reader.next(Seq::MAX));
    assert!(poll_once(next.as_mut()).await.is_none());
    publish(&log, &["b"; 99]).await;
    settled(&log).await;
    assert!(poll_once(next.as_mut()).await.is_none());
    publish(&log, &["b"; 10]).await;
    let delivery = next.await.unwrap();
    assert_eq!((delivery.chunk.end, delivery.chunk.events.len()), (Seq::new(110), 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_jumps_back_reads_again_what_it_had_passed() {
    let (log, _) = open(options());
    let filter = filter(&["a"]);
    let mut reader = log.reader(Seq::FIRST, filter.clone());
    assert!(poll_once(Box::pin(reader.next(Seq::MAX)).as_mut()).await.is_none());
    publish(&log, &["b", "a", "b", "a"]).await;
    let delivery = reader.next(Seq::MAX).await.unwrap();
    assert_eq!(matching(&delivery, &filter), [2, 4]);
    publish(&log, &["b", "a"]).await;
    settled(&log).await;
    reader.jump(Seq::new(3));
    let mut found = Vec::new();
    while found.len() < 2 {
        found.extend(matching(&reader.next(Seq::MAX).await.unwrap(), &filter));
    }
    assert_eq!(found, [4, 6]);
    // And on, past what it is told to pass.
    publish(&log, &["a", "a"]).await;
    settled(&log).await;
    reader.jump(Seq::new(8));
    let delivery = reader.next(Seq::MAX).await.unwrap();
    assert_eq!((matching(&delivery, &filter), delivery.chunk.first), (vec![8], Seq::new(8)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bounded_read_comes_to_its_end_whatever_lies_before() {
    let (log, _) = open(options());
    let mut reader = log.reader(Seq::FIRST, filter(&["a"]));
    let mut next = Box::pin(reader.next(Seq::new(3)));
    assert!(poll_once(next.as_mut()).await.is_none());
    publish(&log, &["b", "b", "b"]).await;
    let mut end = next.await.unwrap().chunk.end;
    while end < Seq::new(3) {
        end = reader.next(Seq::new(3)).await.unwrap().chunk.end;
    }
    assert_eq!(reader.position(), Seq::new(3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sleepers_hear_that_the_log_closes_after_all_that_it_has() {
    let (log, _) = open(options());
    let filter = filter(&["a"]);
    let mut reader = log.reader(Seq::FIRST, filter.clone());
    assert!(poll_once(Box::pin(reader.next(Seq::MAX)).as_mut()).await.is_none());
    let sleeping = tokio::spawn({
        let filter = filter.clone();
        async move {
            let mut found = Vec::new();
            loop {
                match reader.next(Seq::MAX).await {
                    Ok(delivery) => found.extend(matching(&delivery, &filter)),
                    Err(error) => return (found, error),
                }
            }
        }
    });
    publish(&log, &["b", "a", "b"]).await;
    log.close().await.unwrap();
    let (found, error) = sleeping.await.unwrap();
    assert!(matches!(error, ReadError::Closing), "{error}");
    assert_eq!(found, [2]);
}

/// Many readers of everything that there is to want, some slow, come and go while others publish; the ring holds
/// so little that the matcher and readers often find their commit gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whatever_happens_each_reader_gets_what_it_wants_once_and_in_order() {
    const TOPICS: [&str; 6] = ["a", "b", "a.b", "a.c", "b.c", "a.b.c"];
    const PATTERNS: [&[&str]; 8] =
        [&["a"], &["a.*"], &["a.>"], &["*.c"], &["b", "a.b"], &["x"], &["*", "a.b.c"], &["b.c"]];
    const COMMITS: u64 = 400;
    let mut state = 7_u64;
    let mut random = move || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize
    };
    let mut commits: Vec<Vec<&str>> = (0..COMMITS)
        .map(|_| (0..1 + random() % 9).map(|_| TOPICS[random() % TOPICS.len()]).collect())
        .collect();
    commits.push(vec!["the.end"]);
    let published = commits.concat();
    let end = published.len() as u64;
    for recent_bytes in [0, 2_000, 1 << 20] {
        let (log, _) = open(Options { recent_bytes, ..options() });
        let readers: Vec<_> = (0..64_u64)
            .map(|number| {
                let log = log.clone();
                let patterns = PATTERNS[number as usize % PATTERNS.len()];
                let filter = filter(&[patterns, &["the.end"]].concat());
                tokio::spawn(async move {
                    let mut reader = log.reader(Seq::FIRST, filter.clone());
                    // Whoever asks how far it is, and when: that moves nothing past an event.
                    let progress = reader.progress().unwrap();
                    let asking = tokio::spawn(async move {
                        loop {
                            progress.quiet_upto();
                            progress.look();
                            tokio::task::yield_now().await;
                        }
                    });
                    let (mut found, mut turns) = (Vec::new(), number);
                    while found.last() != Some(&end) {
                        turns = turns.wrapping_mul(6364136223846793005).wrapping_add(number | 1);
                        let mut next = Box::pin(reader.next(Seq::MAX));
                        // Some are given up and asked again.
                        if turns % 5 == 0
                            && let Some(Ok(delivery)) = poll_once(next.as_mut()).await
                        {
                            found.extend(matching(&delivery, &filter));
                            continue;
                        }
                        if turns % 5 == 0 {
                            drop(next);
                            next = Box::pin(reader.next(Seq::MAX));
                        }
                        match next.await {
                            Ok(delivery) => found.extend(matching(&delivery, &filter)),
                            Err(error) => panic!("{error}"),
                        }
                        if turns % 7 == 0 {
                            let from = reader.position();
                            reader = log.reader(from, filter.clone());
                        }
                        if turns % 11 == 0 {
                            tokio::task::yield_now().await;
                        }
                    }
                    asking.abort();
                    (filter, found)
                })
            })
            .collect();
        for topics in &commits {
            publish(&log, topics).await;
        }
        for reader in readers {
            let (filter, found) = reader.await.unwrap();
            let expected: Vec<u64> = (1..)
                .zip(&published)
                .filter(|(_, topic)| filter.matches(topic))
                .map(|(seq, _)| seq)
                .collect();
            assert_eq!(found, expected, "{:?} with {recent_bytes} bytes", filter.patterns());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_comes_late_has_not_fallen_behind_while_the_ring_holds_what_it_wants() {
    let (log, _) = open(options());
    let filter = filter(&["a"]);
    let mut reader = log.reader(Seq::FIRST, filter.clone());
    assert!(poll_once(Box::pin(reader.next(Seq::MAX)).as_mut()).await.is_none());
    // Far more small commits than are looked through in the ring.
    for _ in 0..200 {
        publish(&log, &["a"]).await;
    }
    let mut found = Vec::new();
    while found.len() < 200 {
        let delivery = reader.next(Seq::MAX).await.unwrap();
        assert!(delivery.is_recent, "after {found:?}");
        found.extend(matching(&delivery, &filter));
    }
    assert_eq!(found, (1..=200).collect::<Vec<_>>());
}
