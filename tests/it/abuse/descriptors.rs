//! Descriptors: the log's own come first, whatever connects.

use std::time::{Duration, Instant};

use tailmark_wire::feed_v1 as pb;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::victim::{Victim, client, connect, elsewhere};
use crate::support::daemon::Daemon;
use crate::support::server::{event, within};

/// What a daemon may open here. Half of it is the log's.
const FILES: usize = 256;

fn open_files(daemon: &Daemon) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", daemon.id())).unwrap().count()
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_connections_than_descriptors_take_none_of_the_logs() {
    let dir = tempfile::tempdir().unwrap();
    let said = dir.path().join("said");
    let shell = format!("ulimit -n {FILES} && exec \"$0\" \"$@\" 2>{}", said.display());
    let daemon = Daemon::start_with(&dir.path().join("data"), &shell);
    let mut victim = Victim::new(daemon.address(), elsewhere(2)).await;
    let before = open_files(&daemon);

    // As many as the settings say there may be are not possible, and that is told.
    let mut operator = client(daemon.address(), elsewhere(3));
    let log = within("log", operator.get_log(pb::GetLogRequest {})).await.unwrap().into_inner();
    let limit = usize::try_from(log.limits.unwrap().connections).unwrap();
    assert!((20..FILES / 2).contains(&limit), "{limit}");
    let text = std::fs::read_to_string(&said).unwrap();
    assert!(text.contains("so there are fewer connections") && text.contains("ulimit"), "{text}");
    let status = daemon.output(&["status", "--json"], b"");
    assert!(status.contains(&format!("\"connections\":\"{limit}\"")), "{status}");

    // More than there are descriptors, from one machine, each in the middle of a request.
    let mut held: Vec<TcpStream> = Vec::new();
    for _ in 0..FILES + 50 {
        let mut stream = connect(daemon.address(), elsewhere(1)).await;
        let _ = stream.write_all(b"GET / HTTP/1.1\r\n").await;
        held.push(stream);
    }
    until("a full daemon", || open_files(&daemon) > limit).await;
    assert!(open_files(&daemon) < FILES, "{}", open_files(&daemon));
    // Slots are filled and sealed, which takes files; and it is read back.
    let body = "x".repeat(20 << 10);
    for _ in 0..150 {
        let request =
            pb::PublishRequest { event: Some(event("large", &body)), expected_head: None };
        within("publish", operator.publish(request)).await.unwrap();
    }
    victim.lives(20).await;
    for seq in [1, 40, 80, 120] {
        let request = pb::GetEventRequest { by: Some(pb::get_event_request::By::Seq(seq)) };
        within("read", operator.get_event(request)).await.unwrap();
    }
    assert!(!std::fs::read_to_string(&said).unwrap().contains("accept failed"));
    // The one who took all is told so, and the daemon says that it is alive to everybody.
    let mut told = connect(daemon.address(), elsewhere(4)).await;
    let head = format!("GET /healthz HTTP/1.1\r\nhost: {}\r\n\r\n", daemon.address());
    told.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    within("answer", told.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");

    drop((held, told));
    // Sealed segments stay open, as many as the settings say.
    until("descriptors back", || open_files(&daemon) <= before + 80).await;
    assert_eq!(daemon.stop(), Some(0));
}
