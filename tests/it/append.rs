//! `Append` over real sockets: the contract's sections 1, 2 and 6.

mod disk;

use std::sync::Arc;

use bytes::Bytes;
use tailmark::server::Options;
use tailmark_log::eventlog;
use tailmark_log::storage::Engine;
use tailmark_log::storage::faulty::{AppendFault, Faulty};
use tailmark_log::storage::memory::Options as MemoryOptions;
use tailmark_record::Limits;
use tailmark_wire::feed_v1 as pb;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Code, Status, Streaming};

use crate::support::raw;
use crate::support::server::{
    TestServer, bad_field, event, expect, from_oldest, generations, memory, new_log, open, start,
    start_with, until, watch, within,
};

use pb::append_request::{Batch, Kind, Open};
use pb::append_response::{Acked, Kind as Answer, Opened};

/// A stream under way.
struct Appending {
    sender: Option<mpsc::UnboundedSender<pb::AppendRequest>>,
    answers: Streaming<pb::AppendResponse>,
}

impl Appending {
    async fn begin(server: &TestServer) -> Appending {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut client = server.client().await;
        let call = client.append(UnboundedReceiverStream::new(receiver));
        // Headers come at once, before anything is said.
        let answers = within("append", call).await.unwrap().into_inner();
        Appending { sender: Some(sender), answers }
    }

    async fn open(server: &TestServer, id: &str, epoch: u64) -> (Appending, Opened) {
        let mut appending = Appending::begin(server).await;
        appending.send(Kind::Open(Open { producer_id: id.into(), epoch }));
        match appending.next().await.unwrap() {
            Some(Answer::Opened(opened)) => (appending, opened),
            other => panic!("{other:?}"),
        }
    }

    fn send(&self, kind: Kind) {
        let sender = self.sender.as_ref().expect("open");
        // The server may have ended the stream: then its answer says why.
        let _ = sender.send(pb::AppendRequest { kind: Some(kind) });
    }

    fn batch(&self, producer_seq: u64, events: Vec<pb::Event>) {
        self.send(Kind::Batch(Batch { producer_seq, events, expected_head: None }));
    }

    fn one(&self, producer_seq: u64) {
        self.batch(producer_seq, vec![event("a", &producer_seq.to_string())]);
    }

    fn half_close(&mut self) {
        self.sender = None;
    }

    async fn next(&mut self) -> Result<Option<Answer>, Status> {
        let answer = within("answer", self.answers.message()).await?;
        Ok(answer.map(|answer| answer.kind.expect("a kind")))
    }

    async fn acked(&mut self) -> Acked {
        match self.next().await.unwrap() {
            Some(Answer::Acked(acked)) => {
                assert_eq!(acked.durability(), pb::Durability::Fsync);
                acked
            }
            other => panic!("{other:?}"),
        }
    }

    /// The acks that come before the status that ends it.
    async fn failure(mut self) -> (Vec<u64>, Status) {
        let mut acked = Vec::new();
        loop {
            match self.next().await {
                Ok(Some(Answer::Acked(one))) => acked.push(one.producer_seq),
                Ok(other) => panic!("{other:?}"),
                Err(status) => return (acked, status),
            }
        }
    }
}

async fn stored(server: &TestServer) -> Vec<pb::Event> {
    let request =
        pb::WatchRequest { start: from_oldest(), until_caught_up: true, ..Default::default() };
    watch(&mut server.client().await, request).await.unwrap().rest().await.0
}

#[tokio::test]
async fn batches_are_acked_as_they_become_durable() {
    let server = start().await;
    let (mut stream, opened) = Appending::open(&server, "p", 0).await;
    assert_eq!(opened, Opened { epoch: 1, last_producer_seq: 0, last_cursor: String::new() });
    for seq in 1..=50u64 {
        let events = (0..3).map(|n| event("a", &format!("{seq}.{n}"))).collect();
        stream.batch(seq, events);
        // Rolling: while the stream is open.
        let acked = stream.acked().await;
        assert_eq!((acked.producer_seq, acked.duplicate), (seq, false));
        assert_eq!((acked.first_seq, acked.last_seq), (3 * seq - 2, 3 * seq));
        assert_eq!(acked.last_cursor, server.cursor(3 * seq));
    }
    stream.half_close();
    assert_eq!(stream.next().await.unwrap(), None);
    let (_, opened) = Appending::open(&server, "p", 1).await;
    assert_eq!((opened.epoch, opened.last_producer_seq), (1, 50));
    assert_eq!(opened.last_cursor, server.cursor(150));
    assert_eq!(stored(&server).await.len(), 150);
    server.stop().await;
}

#[tokio::test]
async fn many_are_under_way_at_once_and_a_half_close_waits_for_all() {
    let server = start().await;
    let (mut stream, _) = Appending::open(&server, "p", 0).await;
    for seq in 1..=2_000 {
        stream.one(seq);
    }
    stream.half_close();
    for seq in 1..=2_000 {
        let acked = stream.acked().await;
        assert_eq!((acked.producer_seq, acked.first_seq, acked.last_seq), (seq, seq, seq));
    }
    assert_eq!(stream.next().await.unwrap(), None);
    until("no stream", || server.gauges.uploads() == 0).await;
    server.stop().await;
}

#[tokio::test]
async fn a_repeat_is_acked_with_the_original_seqs_for_the_last_64() {
    let server = start().await;
    let (mut stream, _) = Appending::open(&server, "p", 0).await;
    for seq in 1..=100 {
        stream.one(seq);
        stream.acked().await;
    }
    for seq in 1..=100 {
        stream.one(seq);
        let acked = stream.acked().await;
        assert_eq!((acked.producer_seq, acked.duplicate), (seq, true));
        if seq > 36 {
            let cursor = server.cursor(seq);
            assert_eq!((acked.first_seq, acked.last_seq, acked.last_cursor), (seq, seq, cursor));
        } else {
            let none = (0, 0, String::new());
            assert_eq!((acked.first_seq, acked.last_seq, acked.last_cursor), none);
        }
    }
    assert_eq!(server.head(), 100);
    server.stop().await;
}

#[tokio::test]
async fn an_older_epoch_is_fenced() {
    let server = start().await;
    let (mut old, opened) = Appending::open(&server, "p", 0).await;
    old.one(1);
    old.acked().await;
    let (mut new, newer) = Appending::open(&server, "p", 0).await;
    assert!(newer.epoch > opened.epoch);
    assert_eq!((newer.last_producer_seq, newer.last_cursor), (1, server.cursor(1)));
    old.one(2);
    let (acked, status) = old.failure().await;
    let info = expect(&status, Code::Aborted, "FENCED");
    assert_eq!((acked, &*info["epoch"]), (vec![], newer.epoch.to_string().as_str()));
    assert_eq!(info["producer_seq"], "2");
    // Nor may it come back.
    let again = Appending::begin(&server).await;
    again.send(Kind::Open(Open { producer_id: "p".into(), epoch: opened.epoch }));
    expect(&again.failure().await.1, Code::Aborted, "FENCED");
    new.one(2);
    assert_eq!(new.acked().await.last_seq, 2);
    // Another stream of the same epoch takes over, too.
    let (mut third, _) = Appending::open(&server, "p", newer.epoch).await;
    new.one(3);
    expect(&new.failure().await.1, Code::Aborted, "FENCED");
    third.one(3);
    third.acked().await;
    assert_eq!(server.head(), 3);
    server.stop().await;
}

#[tokio::test]
async fn a_hole_is_said_with_what_was_expected() {
    let server = start().await;
    let (mut stream, _) = Appending::open(&server, "p", 0).await;
    stream.one(1);
    stream.acked().await;
    stream.one(3);
    let (_, status) = stream.failure().await;
    let info = expect(&status, Code::FailedPrecondition, "PRODUCER_HOLE");
    assert_eq!((&*info["expected"], &*info["producer_seq"]), ("2", "3"));
    assert_eq!(server.head(), 1);
    server.stop().await;
}

#[tokio::test]
async fn a_producer_that_is_not_known_is_never_begun_again_in_silence() {
    let engine = memory(generations(&[1]), MemoryOptions::default());
    let options = eventlog::Options { producers: 1, ..eventlog::Options::default() };
    let server = start_with(open(Arc::new(engine), options), Options::default()).await;
    let (mut first, opened) = Appending::open(&server, "1", 0).await;
    first.one(1);
    first.acked().await;
    let (_second, _) = Appending::open(&server, "2", 0).await;
    first.one(2);
    expect(&first.failure().await.1, Code::FailedPrecondition, "PRODUCER_UNKNOWN");
    for (id, epoch) in [("1", opened.epoch), ("never", 7)] {
        let stream = Appending::begin(&server).await;
        stream.send(Kind::Open(Open { producer_id: id.into(), epoch }));
        expect(&stream.failure().await.1, Code::FailedPrecondition, "PRODUCER_UNKNOWN");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_bad_batch_ends_the_stream_after_the_acks_of_all_before_it() {
    let log = {
        let limits = Limits {
            batch_events: 10,
            batch_bytes: 2_000,
            event_bytes: 1_500,
            ..Limits::default()
        };
        let options = eventlog::Options { limits, ..eventlog::Options::default() };
        open(Arc::new(memory(generations(&[1]), MemoryOptions::default())), options)
    };
    let server = start_with(log, Options::default()).await;
    let many = |count: usize, len: usize| vec![event("a", &"x".repeat(len)); count];
    let head = |topic: &str, seq| Some(pb::ExpectedHead { topic: topic.into(), seq });
    let invalid = (Code::InvalidArgument, "INVALID_FIELD");
    let over = (Code::ResourceExhausted, "LIMIT_EXCEEDED");
    let cases = [
        (many(0, 0), None, invalid, "batch.events", None),
        (vec![event("a", ""), event("a..b", "")], None, invalid, "batch.events.topic", Some("1")),
        (many(1, 0), head("a b", 0), invalid, "batch.expected_head.topic", None),
        (many(11, 1), None, over, "batch_events", None),
        (many(2, 1_200), None, over, "batch_bytes", None),
        (many(1, 1_600), None, over, "event", Some("0")),
        (many(1, 0), head("", 99), (Code::Aborted, "HEAD_MOVED"), "", None),
        (many(1, 0), head("a", 99), (Code::Aborted, "HEAD_MOVED"), "", None),
    ];
    for (events, expected_head, (code, reason), what, index) in cases {
        let (mut stream, opened) = Appending::open(&server, "p", 0).await;
        let (last, before) = (opened.last_producer_seq, server.head());
        for seq in last + 1..=last + 5 {
            stream.one(seq);
        }
        stream.send(Kind::Batch(Batch { producer_seq: last + 6, events, expected_head }));
        stream.one(last + 7);
        stream.half_close();
        let (acked, status) = stream.failure().await;
        let info = expect(&status, code, reason);
        assert_eq!(acked, (last + 1..=last + 5).collect::<Vec<_>>(), "{what}");
        assert_eq!(info["producer_seq"], (last + 6).to_string());
        assert_eq!(info.get("index").map(String::as_str), index, "{what}");
        match reason {
            "INVALID_FIELD" => assert_eq!(bad_field(&status), what),
            "LIMIT_EXCEEDED" => {
                assert_eq!(info["what"], what);
                let number = |name: &str| info[name].parse::<u64>().unwrap();
                assert!(number("actual") > number("limit"), "{info:?}");
            }
            _ => assert!(info["actual"].parse::<u64>().is_ok()),
        }
        // Nothing of it is there, nor of what came after it.
        assert_eq!(server.head(), before + 5, "{what}");
    }
    server.stop().await;
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() {
    let server = start().await;
    let open = |id: &str| Kind::Open(Open { producer_id: id.into(), epoch: 0 });
    let batch = |producer_seq| {
        Kind::Batch(Batch { producer_seq, events: vec![event("a", "")], expected_head: None })
    };
    for (sent, field) in [
        (vec![batch(1)], "batch"),
        (vec![open("")], "open.producer_id"),
        (vec![open("p"), open("p")], "open"),
        (vec![open("p"), batch(0)], "batch.producer_seq"),
    ] {
        let mut stream = Appending::begin(&server).await;
        for kind in sent {
            stream.send(kind);
        }
        let status = loop {
            match stream.next().await {
                Ok(Some(Answer::Opened(_))) => {}
                Ok(other) => panic!("{other:?}"),
                Err(status) => break status,
            }
        };
        expect(&status, Code::InvalidArgument, "INVALID_FIELD");
        assert_eq!(bad_field(&status), field);
    }
    let stream = Appending::begin(&server).await;
    stream.send(open(&"x".repeat(256)));
    expect(&stream.failure().await.1, Code::ResourceExhausted, "LIMIT_EXCEEDED");
    let stream = Appending::begin(&server).await;
    let _ = stream.sender.as_ref().unwrap().send(pb::AppendRequest { kind: None });
    expect(&stream.failure().await.1, Code::InvalidArgument, "INVALID_FIELD");
    // To say nothing at all is no mistake.
    let mut stream = Appending::begin(&server).await;
    stream.half_close();
    assert_eq!(stream.next().await.unwrap(), None);
    assert_eq!(server.head(), 0);
    server.stop().await;
}

#[tokio::test]
async fn what_the_server_sets_is_not_taken_and_ids_are_no_repeats() {
    let server = start().await;
    let (mut stream, _) = Appending::open(&server, "p", 0).await;
    let sent = pb::Event {
        id: "mine".into(),
        data: Bytes::from_static(&[0, 159]),
        seq: 900,
        cursor: "tnonsense".into(),
        appended_at: Some(prost_types::Timestamp { seconds: 1, nanos: 0 }),
        ..event("a", "")
    };
    stream.batch(1, vec![sent.clone(), sent.clone()]);
    stream.batch(2, vec![sent]);
    assert_eq!((stream.acked().await.last_seq, stream.acked().await.last_seq), (2, 3));
    let events = stored(&server).await;
    for (at, event) in events.iter().enumerate() {
        assert_eq!(
            (event.seq, event.cursor.clone()),
            (at as u64 + 1, server.cursor(at as u64 + 1))
        );
        assert_eq!((event.id.as_str(), &event.data[..]), ("mine", &[0u8, 159][..]));
        assert!(event.appended_at.unwrap().seconds > 1_600_000_000);
    }
    server.stop().await;
}

#[tokio::test]
async fn a_full_disk_and_a_failed_write_are_told_apart() {
    let inner: Arc<dyn Engine> = Arc::new(memory(generations(&[1]), MemoryOptions::default()));
    let faulty = Arc::new(Faulty::new(inner));
    let server =
        start_with(open(faulty.clone(), eventlog::Options::default()), Options::default()).await;
    let (mut stream, opened) = Appending::open(&server, "p", 0).await;
    stream.one(1);
    stream.acked().await;
    faulty.set_full(true);
    stream.one(2);
    expect(&stream.failure().await.1, Code::ResourceExhausted, "DISK_FULL");
    // An epoch is not given that cannot be kept; the one that is there may be used.
    let refused = Appending::begin(&server).await;
    refused.send(Kind::Open(Open { producer_id: "p".into(), epoch: 0 }));
    expect(&refused.failure().await.1, Code::ResourceExhausted, "DISK_FULL");
    let (mut stream, opened) = Appending::open(&server, "p", opened.epoch).await;
    assert_eq!(opened.last_producer_seq, 1);
    faulty.set_full(false);
    stream.one(2);
    stream.acked().await;
    faulty.fail_append(0, AppendFault::StoreAndStop);
    stream.one(3);
    let (_, status) = stream.failure().await;
    assert_eq!(expect(&status, Code::Internal, "OUTCOME_UNKNOWN")["producer_seq"], "3");
    let refused = Appending::begin(&server).await;
    refused.send(Kind::Open(Open { producer_id: "p".into(), epoch: 0 }));
    expect(&refused.failure().await.1, Code::Internal, "STORE_STOPPED");
    server.stop().await;
}

#[tokio::test]
async fn a_stopping_server_acks_what_it_took_and_says_when_to_come_back() {
    let engine =
        Arc::new(memory(generations(&[1]), MemoryOptions { hold: true, ..Default::default() }));
    let log = open(engine.clone(), eventlog::Options::default());
    let server = start_with(log, Options::default()).await;
    let opening = Appending::open(&server, "p", 0);
    let release = async {
        until("an opening", || engine.held() == 1).await;
        engine.release();
    };
    let ((stream, _), ()) = tokio::join!(opening, release);
    stream.one(1);
    until("a commit", || engine.held() == 1).await;
    server.shutdown.cancel();
    let ending = tokio::spawn(stream.failure());
    until("the stop", || std::net::TcpStream::connect(server.address).is_err()).await;
    engine.release();
    let (acked, status) = within("end", ending).await.unwrap();
    expect(&status, Code::Unavailable, "STOPPING");
    use tonic_types::StatusExt;
    assert!(status.get_details_retry_info().unwrap().retry_delay.is_some());
    assert_eq!(acked, [1]);
    within("stop", server.task).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_cut_client_leaves_whole_batches_or_none() {
    let server = start().await;
    for round in 0..20u64 {
        let (mut stream, opened) = Appending::open(&server, "p", 0).await;
        let last = opened.last_producer_seq;
        assert_eq!(stored(&server).await.len() as u64, 7 * last);
        for seq in last + 1..=last + 30 {
            stream.batch(seq, (0..7).map(|_| event("a", &seq.to_string())).collect());
        }
        for _ in 0..round {
            stream.acked().await;
        }
        drop(stream);
    }
    until("no stream", || server.gauges.uploads() == 0).await;
    let (_stream, opened) = Appending::open(&server, "p", 0).await;
    let events = stored(&server).await;
    assert_eq!(events.len() as u64, 7 * opened.last_producer_seq);
    for (at, event) in events.iter().enumerate() {
        assert_eq!(event.body, (at / 7 + 1).to_string());
    }
    server.stop().await;
}

/// A stream takes no more than it may have in flight, and all streams no more than all may.
#[tokio::test]
async fn bytes_in_flight_are_bounded_per_stream_and_in_all() {
    let engine =
        Arc::new(memory(generations(&[1]), MemoryOptions { hold: true, ..Default::default() }));
    let options = eventlog::Options { in_flight_bytes: 300_000, ..Default::default() };
    let log = open(engine.clone(), options);
    let server_options = Options { stream_in_flight_bytes: 200_000, ..Options::default() };
    let server = start_with(log, server_options).await;
    let mut streams = Vec::new();
    for id in ["1", "2", "3", "4"] {
        let release = async {
            until("an opening", || engine.held() == 1).await;
            engine.release();
        };
        streams.push(tokio::join!(Appending::open(&server, id, 0), release).0.0);
    }
    let body = "x".repeat(10_000);
    for stream in &streams {
        for seq in 1..=30 {
            stream.batch(seq, vec![event("a", &body)]);
        }
    }
    until("full", || server.log.status().in_flight_bytes > 280_000).await;
    assert!(server.log.status().in_flight_bytes <= 300_000);
    let mut acks = tokio::task::JoinSet::new();
    for mut stream in streams {
        acks.spawn(async move {
            for seq in 1..=30 {
                assert_eq!(stream.acked().await.producer_seq, seq);
            }
        });
    }
    within("acks", async {
        while !acks.is_empty() {
            engine.release();
            assert!(server.log.status().in_flight_bytes <= 300_000);
            if let Some(done) = acks.try_join_next() {
                done.unwrap();
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(server.head(), 120);
    server.stop().await;
}

#[tokio::test]
async fn a_deadline_ends_a_stream() {
    let server = start().await;
    let (sender, receiver) = mpsc::unbounded_channel();
    let messages = UnboundedReceiverStream::new(receiver);
    let answers = raw::append_until(server.address, messages, "300m").await.unwrap();
    let mut stream = Appending { sender: Some(sender), answers };
    stream.send(Kind::Open(Open { producer_id: "p".into(), epoch: 0 }));
    let status = loop {
        match stream.next().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("a regular end"),
            Err(status) => break status,
        }
    };
    expect(&status, Code::DeadlineExceeded, "DEADLINE");
    until("no stream", || server.gauges.uploads() == 0).await;
    server.stop().await;
}

/// Heads of topics are found wherever their last event lies.
#[tokio::test]
async fn the_head_of_a_topic_is_known_however_old_it_is() {
    let server = start_with(new_log(), Options::default()).await;
    server.store("old", 3).await;
    server.store("other", 20_000).await;
    let (mut stream, _) = Appending::open(&server, "p", 0).await;
    let head = |topic: &str, seq| Some(pb::ExpectedHead { topic: topic.into(), seq });
    let batch = |producer_seq, expected_head| {
        Kind::Batch(Batch { producer_seq, events: vec![event("old", "")], expected_head })
    };
    stream.send(batch(1, head("old", 3)));
    stream.send(batch(2, head("old", 20_004)));
    assert_eq!((stream.acked().await.last_seq, stream.acked().await.last_seq), (20_004, 20_005));
    server.trim(20_006).await;
    stream.send(batch(3, head("old", 20_005)));
    let info = expect(&stream.failure().await.1, Code::Aborted, "HEAD_MOVED");
    assert_eq!(info["actual"], "0");
    server.stop().await;
}
