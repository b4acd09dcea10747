use std::future::poll_fn;

use super::*;

const PATIENCE: Duration = Duration::from_secs(30);
const MIB: usize = 1 << 20;

async fn room(arrival: &mut Arrival, bytes: usize) -> Result<(), Lost> {
    poll_fn(|cx| arrival.poll_room(cx, bytes)).await
}

/// Waits for the rest for so long; why it was lost, if it was.
async fn silence(arrival: &mut Arrival, time: Duration) -> Option<Lost> {
    tokio::time::timeout(time, poll_fn(|cx| arrival.poll_lost(cx))).await.ok()
}

#[tokio::test(start_paused = true)]
async fn what_is_over_the_room_waits_until_there_is_some() {
    let arrivals = Arrivals::new(MIB, PATIENCE);
    let (mut first, mut second) = (arrivals.arrival(), arrivals.arrival());
    assert_eq!(room(&mut first, MIB).await, Ok(()));
    // Small ones pass whatever there is.
    assert_eq!(room(&mut second, SMALL_BYTES).await, Ok(()));
    assert_eq!(arrivals.bytes(), MIB);
    let waiting = tokio::spawn(async move {
        let begun = Instant::now();
        (room(&mut second, MIB / 2).await, begun.elapsed())
    });
    tokio::time::sleep(Duration::from_secs(5)).await;
    // Whole, and not taken yet: it is nobody's fault.
    first.whole();
    assert!(!waiting.is_finished());
    first.release();
    assert_eq!(waiting.await.unwrap(), (Ok(()), Duration::from_secs(5)));
    assert_eq!(arrivals.bytes(), 0, "the second is gone");
}

#[tokio::test(start_paused = true)]
async fn who_waits_longest_for_its_client_gives_way() {
    let arrivals = Arrivals::new(MIB, PATIENCE);
    let [mut fresh, mut stalled, mut asks] = std::array::from_fn(|_| arrivals.arrival());
    assert_eq!(room(&mut fresh, MIB / 2).await, Ok(()));
    assert_eq!(room(&mut stalled, MIB / 2).await, Ok(()));
    // A little now and then does not help.
    for _ in 0..3 {
        assert_eq!(silence(&mut stalled, GRACE / 4).await, None);
        stalled.moved();
    }
    let asking = tokio::spawn(async move {
        let begun = Instant::now();
        (room(&mut asks, MIB / 4).await, begun.elapsed(), asks)
    });
    let lost = silence(&mut stalled, PATIENCE).await;
    let over = OverLimit { what: "in_flight_bytes", limit: MIB, actual: MIB };
    assert_eq!(lost, Some(Lost::GaveWay(over)));
    stalled.release();
    let (granted, took, _asks) = asking.await.unwrap();
    assert_eq!(granted, Ok(()));
    assert!(took <= 2 * GRACE, "{took:?}");
    assert_eq!(silence(&mut fresh, GRACE / 2).await, None, "nobody waits for it");
}

#[tokio::test(start_paused = true)]
async fn messages_that_have_a_part_each_do_not_wait_for_each_other() {
    let arrivals = Arrivals::new(MIB, PATIENCE);
    let parts = (0..4).map(|_| {
        let mut arrival = arrivals.arrival();
        async move {
            for part in 1..=4 {
                room(&mut arrival, part * MIB / 4).await.unwrap();
                tokio::task::yield_now().await;
            }
        }
    });
    let begun = Instant::now();
    let parts: Vec<_> = parts.map(tokio::spawn).collect();
    for part in parts {
        part.await.unwrap();
    }
    assert!(begun.elapsed() < GRACE);
    assert_eq!(arrivals.bytes(), 0);
    // One that is larger than all the room goes alone.
    let mut large = arrivals.arrival();
    assert_eq!(room(&mut large, 4 * MIB).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn nobody_keeps_room_or_waits_for_it_for_ever() {
    let arrivals = Arrivals::new(MIB, PATIENCE);
    let (mut first, mut second) = (arrivals.arrival(), arrivals.arrival());
    assert_eq!(room(&mut first, 4 * MIB).await, Ok(()));
    // Of the first nobody knows that it stalls: it is not asked for more.
    assert_eq!(room(&mut second, MIB).await, Err(Lost::Late));
    let begun = Instant::now();
    drop(second);
    loop {
        if let Some(lost) = silence(&mut first, Duration::from_secs(7)).await {
            assert_eq!(lost, Lost::Late);
            break;
        }
        first.moved();
    }
    assert_eq!(begun.elapsed(), PATIENCE);
    // Time in which nobody asks, as while the disk is slow, does not count.
    first.whole();
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    assert_eq!(silence(&mut first, Duration::from_secs(29)).await, None);
    drop(first);
    let mut third = arrivals.arrival();
    assert_eq!(room(&mut third, MIB).await, Ok(()));
}

/// Looks once at what a message is answered that asks for so much.
async fn asks(arrival: &mut Arrival, bytes: usize) -> Poll<Result<(), Lost>> {
    poll_fn(|cx| Poll::Ready(arrival.poll_room(cx, bytes))).await
}

async fn is_lost(arrival: &mut Arrival) -> bool {
    poll_fn(|cx| Poll::Ready(arrival.poll_lost(cx).is_ready())).await
}

#[tokio::test(start_paused = true)]
async fn who_gives_way_is_looked_for_now_and_then_and_for_all_who_wait() {
    const PART: usize = MIB / 8;
    let arrivals = Arrivals::new(MIB, PATIENCE);
    let mut stalled: Vec<_> = (0..8).map(|_| arrivals.arrival()).collect();
    for arrival in &mut stalled {
        assert_eq!(room(arrival, PART).await, Ok(()));
        assert!(!is_lost(arrival).await);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tokio::time::sleep(GRACE).await;
    let [mut first, mut second, mut third] = std::array::from_fn(|_| arrivals.arrival());
    let mut lost = async || {
        let mut lost = Vec::new();
        for arrival in &mut stalled {
            lost.push(is_lost(arrival).await);
        }
        lost
    };
    let expected = |count| (0..8).map(|at| at < count).collect::<Vec<_>>();
    // The first finds as many as it needs, those who are silent longest.
    assert!(asks(&mut first, 2 * PART).await.is_pending());
    assert_eq!(lost().await, expected(2));
    // Others who come at once do not look again; then one does so for all.
    assert!(asks(&mut second, PART).await.is_pending());
    assert!(asks(&mut third, 3 * PART).await.is_pending());
    assert_eq!(lost().await, expected(2));
    tokio::time::sleep(LOOK).await;
    assert!(asks(&mut third, 3 * PART).await.is_pending());
    assert_eq!(lost().await, expected(6));
    assert_eq!(arrivals.0.state.lock().wanted, 6 * PART);
    stalled.drain(..6).for_each(drop);
    for (arrival, parts) in [(&mut first, 2), (&mut second, 1), (&mut third, 3)] {
        assert_eq!(asks(arrival, parts * PART).await, Poll::Ready(Ok(())));
    }
    drop((first, second, third, stalled));
    let state = arrivals.0.state.lock();
    assert!(state.messages.is_empty() && state.waiting.is_empty());
    assert_eq!((state.used, state.wanted), (0, 0));
}
