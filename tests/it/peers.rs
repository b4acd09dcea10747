//! A server of a log that others write: what it does not know it asks, and what nobody can say it does not say; and its
//! handle to the log changes under its clients.

use std::sync::Arc;

use parking_lot::Mutex;
use tailmark::server::{Confirmed, LogEnd, Peers};
use tailmark_record::Seq;
use tailmark_wire::feed_v1 as pb;
use tonic::Code;

use crate::support::server::{
    event, expect, generations, memory, new_log, open, start_with_peers, watch, within,
};

/// The other daemons of a log, of whom the one that writes says what it is told to.
#[derive(Default)]
pub struct Others {
    end: Mutex<Option<LogEnd>>,
}

impl Others {
    /// What it says of the end of the log from now on.
    pub fn says(&self, head: u64, generation: u16) {
        *self.end.lock() = Some(LogEnd { head: Seq::new(head), generation });
    }
}

impl Peers for Others {
    fn journal(&self) -> pb::JournalStatus {
        pb::JournalStatus {
            stream: "TM_x".to_owned(),
            daemon: "d1".to_owned(),
            role: pb::DaemonRole::Following.into(),
            writer: "d2".to_owned(),
            ..pb::JournalStatus::default()
        }
    }

    fn confirm(&self) -> Confirmed {
        let end = *self.end.lock();
        Box::pin(async move { end })
    }
}

fn after(cursor: &str, until_caught_up: bool) -> pb::WatchRequest {
    let after_cursor = cursor.to_owned();
    pb::WatchRequest { after_cursor, until_caught_up, ..pb::WatchRequest::default() }
}

#[tokio::test]
async fn what_depends_on_the_end_of_the_log_is_told_by_who_writes_it_alone() {
    let others = Arc::new(Others::default());
    let (server, _) = start_with_peers(new_log(), others.clone()).await;
    server.store("a", 3).await;
    let mut client = server.client().await;
    let ahead = || after("9", false);
    let by = Some(pb::get_event_request::By::Seq(9));

    // Nobody can say.
    for request in [ahead(), after("0", true)] {
        let refused = watch(&mut client, request).await.err().unwrap();
        expect(&refused, Code::Unavailable, "WRITER_UNAVAILABLE");
    }
    let refused = client.get_event(pb::GetEventRequest { by: by.clone() }).await.unwrap_err();
    expect(&refused, Code::Unavailable, "WRITER_UNAVAILABLE");
    // What is here is read all the same.
    let mut all = watch(&mut client, after("0", false)).await.unwrap();
    for seq in 1..=3 {
        assert_eq!(all.event().await.seq, seq);
    }

    // It says that this is all.
    others.says(3, 1);
    let refused = watch(&mut client, ahead()).await.err().unwrap();
    expect(&refused, Code::OutOfRange, "CURSOR_AHEAD");
    let refused = client.get_event(pb::GetEventRequest { by }).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    let (all, _) = watch(&mut client, after("0", true)).await.unwrap().rest().await;
    assert_eq!(all.len(), 3);

    // It says that there is more, which comes a moment later.
    others.says(5, 1);
    let asked = tokio::spawn({
        let mut client = client.clone();
        async move { watch(&mut client, after("0", true)).await.unwrap().rest().await }
    });
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    server.store("a", 2).await;
    assert_eq!(within("the rest", asked).await.unwrap().0.len(), 5);

    // It writes another generation, which is not known here yet: no cursor is judged by this handle.
    others.says(5, 2);
    let refused = watch(&mut client, ahead()).await.err().unwrap();
    expect(&refused, Code::Unavailable, "STOPPING");
}

#[tokio::test]
async fn another_handle_takes_the_place_of_one_and_connections_stay() {
    let others = Arc::new(Others::default());
    let (server, served) = start_with_peers(new_log(), others.clone()).await;
    server.store("a", 3).await;
    others.says(3, 1);
    let mut client = server.client().await;
    let mut watching = watch(&mut client, after("0", false)).await.unwrap();
    for seq in 1..=3 {
        assert_eq!(watching.event().await.seq, seq);
    }
    let connections = server.gauges.connections();

    served.end();
    expect(&watching.failure().await, Code::Unavailable, "STOPPING");
    server.log.close().await.unwrap();
    let publish = || pb::PublishRequest { event: Some(event("b", "x")), expected_head: None };
    let refused = client.publish(publish()).await.unwrap_err();
    expect(&refused, Code::Unavailable, "STOPPING");

    let other = memory(generations(&[1, 4]), Default::default());
    let log = open(Arc::new(other), Default::default());
    served.serve(log.clone());
    assert_eq!(client.publish(publish()).await.unwrap().into_inner().seq, 1);
    assert_eq!(log.head(), Seq::new(1));
    let status = client.get_log(pb::GetLogRequest {}).await.unwrap().into_inner();
    assert_eq!((status.head_seq, status.generation.unwrap().counter), (1, 2));
    // Told to whoever asks.
    assert_eq!(status.journal.unwrap().writer, "d2");
    assert_eq!(server.gauges.connections(), connections);
}
