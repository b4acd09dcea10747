//! Producers over the engine on disk, with small slots.

use tailmark::server::Options;
use tailmark_log::eventlog::{self, EventLog};
use tailmark_log::storage::Store;
use tailmark_record::{Event, Seq};

use super::Appending;
use crate::support::logdir;
use crate::support::server::{event, start_with, within};

/// On disk, over rolls, seals and trims, a kill without any goodbye, and a clean stop.
#[tokio::test]
async fn what_a_producer_did_outlives_slots_segments_and_processes() {
    let dir = tempfile::tempdir().unwrap();
    let body = "x".repeat(1_000);
    let (mut seq, mut epoch) = (0, 0);
    for round in 0..6 {
        let (engine, recovered) = logdir::open(dir.path());
        let log = EventLog::open(engine, recovered, eventlog::Options::default()).unwrap();
        let server = start_with(log.clone(), Options::default()).await;
        let (mut stream, opened) =
            Appending::open(&server, "p", if round % 2 == 0 { 0 } else { epoch }).await;
        assert_eq!(opened.last_producer_seq, seq);
        assert!(if round % 2 == 0 { opened.epoch > epoch } else { opened.epoch == epoch });
        epoch = opened.epoch;
        if seq > 0 {
            assert_eq!(opened.last_cursor, server.cursor(10 * seq));
            // The ack was lost.
            stream.batch(seq, vec![event("a", "anything")]);
            let acked = stream.acked().await;
            assert_eq!((acked.duplicate, acked.last_seq), (true, 10 * seq));
        }
        for _ in 0..60 {
            seq += 1;
            stream.batch(seq, vec![event("a", &body); 10]);
            assert_eq!(stream.acked().await.last_seq, 10 * seq);
        }
        if round == 3 {
            log.trim(Seq::new(10 * seq - 5)).await.unwrap();
        }
        drop(stream);
        server.stop().await;
        if round % 3 != 0 {
            log.close().await.unwrap();
        }
        drop(log);
    }
    let (engine, _recovered) = logdir::open(dir.path());
    assert_eq!(engine.bounds().head, Seq::new(10 * seq));
}

/// So many that what the log knows of them fills what a small slot gives it: those idle longest lose
/// the seqs of their batches, and nothing else.
#[tokio::test]
async fn many_producers_fit_small_slots_over_restarts() {
    const PRODUCERS: usize = 400;
    const ROUNDS: u64 = 12;
    let dir = tempfile::tempdir().unwrap();
    let open = || {
        let (engine, recovered) = logdir::open(dir.path());
        EventLog::open(engine, recovered, eventlog::Options::default()).unwrap()
    };
    let one = |log: &EventLog, id: usize, seq: u64| {
        let mut batch = log.batch();
        let body = format!("{id} {seq}");
        batch.push(&Event { topic: "a", body: &body, ..Default::default() }).unwrap();
        batch
    };
    for round in 0..3 {
        let log = open();
        let mut streams = Vec::new();
        for id in 0..PRODUCERS {
            let stream = within("open", log.open_producer(&id.to_string(), 0)).await.unwrap();
            assert_eq!(stream.last_seq(), ROUNDS * round, "{id}");
            streams.push(stream);
        }
        for seq in ROUNDS * round + 1..=ROUNDS * (round + 1) {
            let mut answers = Vec::new();
            for (id, stream) in streams.iter().enumerate() {
                answers.push(stream.submit(seq, one(&log, id, seq), None).await.unwrap());
            }
            for answer in answers {
                assert_eq!(within("ack", answer).await.unwrap().stored, 1);
            }
        }
        let mut known = 0;
        for (id, stream) in streams.iter().enumerate() {
            for seq in [1, ROUNDS * (round + 1)] {
                let answer = stream.submit(seq, one(&log, id, seq), None).await.unwrap();
                let again = within("ack", answer).await.unwrap();
                assert!(again.last_is_duplicate);
                known += usize::from(again.last.is_some());
            }
        }
        // In the end those of the newest, but no longer of all.
        assert!(known > 0 && (round < 2 || known < 2 * PRODUCERS), "{known}");
        assert_eq!(log.status().producers, PRODUCERS as u64);
        assert_eq!(log.bounds().head.get(), PRODUCERS as u64 * ROUNDS * (round + 1));
        if round == 1 {
            log.close().await.unwrap();
        }
    }
}
