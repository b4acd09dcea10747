//! A thousand watches over the disk engine, cut without warning, again and again: all comes back.

use std::process::Command;

use tailmark_record::Event;
use tailmark_wire::feed_v1 as pb;

use crate::support::disk::{DiskServer, Setup};
use crate::support::proxy::Proxy;
use crate::support::server::{from_oldest, until, within};
use pb::feed_service_client::FeedServiceClient;

const CONNECTIONS: usize = 10;
const ALONE: &str = "GAPLESS_ALONE";

/// Open files and resident memory are the process's, so it runs in one of its own.
#[test]
fn a_thousand_watches_cut_without_warning_leave_nothing_behind() {
    if std::env::var_os(ALONE).is_some() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        return runtime.block_on(cut_again_and_again());
    }
    let name = "gapless::many::a_thousand_watches_cut_without_warning_leave_nothing_behind";
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(ALONE, "1")
        // So that what is freed goes back to the system, and what stays is held by someone.
        .envs([("MALLOC_ARENA_MAX", "2"), ("MALLOC_MMAP_THRESHOLD_", "8192")])
        .env("MALLOC_TRIM_THRESHOLD_", "65536")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}\n{errors}");
    eprintln!("{errors}");
}

async fn cut_again_and_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut setup = Setup::small();
    // So that a stalled watch holds little, and reads what it does not hold from disk.
    setup.server.http2.max_send_buffer_bytes = 32 << 10;
    setup.log.recent_bytes = 0;
    let server = DiskServer::start(dir.path(), setup).await;
    let body = "x".repeat(2 << 10);
    for _ in 0..10 {
        let mut batch = server.log.batch();
        for _ in 0..40 {
            batch.push(&Event { topic: "a", body: &body, ..Event::default() }).unwrap();
        }
        server.log.append(batch, Default::default()).await.unwrap();
    }
    until("sealed slots", || server.log.status().store.segments >= 2).await;
    let proxy = Proxy::to(server.address).await;
    let mut rounds = Rounds { server, proxy, files: None };
    // Small ones first: after large ones there are holes in the heap that would hide a leak.
    for _ in 0..40 {
        rounds.cut_all(10).await;
    }
    let first = resident_bytes();
    for _ in 0..80 {
        rounds.cut_all(10).await;
    }
    // 8,000 watches: what is left of each would be seen from eight kilobytes on. Holes in the heap of
    // this test's allocator alone have been seen to take half of that.
    until("a heap that does not grow", || resident_bytes() <= first + (64 << 20)).await;
    let base = resident_bytes();
    for _ in 0..4 {
        let peak = rounds.cut_all(100).await;
        // The heap has holes afterwards; most comes back all the same.
        let most = base + peak.saturating_sub(base) / 5;
        until("the memory of a thousand watches", || resident_bytes() <= most).await;
        let after = resident_bytes();
        eprintln!("resident MiB: {} open, {} cut, {} before", peak >> 20, after >> 20, base >> 20);
    }
    // And it still works.
    assert_eq!(open_all(&rounds.proxy, 10).await.len(), CONNECTIONS * 10);
    rounds.proxy.cut();
    rounds.server.stop().await;
}

struct Rounds {
    server: DiskServer,
    proxy: Proxy,
    /// Open files after the first round.
    files: Option<usize>,
}

impl Rounds {
    /// Opens watches, cuts them, and waits until everything that is counted has come back.
    /// Answers the resident bytes while they were open.
    async fn cut_all(&mut self, watches_each: usize) -> u64 {
        let open = open_all(&self.proxy, watches_each).await;
        assert_eq!(self.server.gauges.watches(), CONNECTIONS * watches_each);
        assert_eq!(self.server.log.status().readers, (CONNECTIONS * watches_each) as u64);
        let peak = resident_bytes();
        assert_eq!(self.proxy.cut(), CONNECTIONS);
        let gone = || {
            let status = self.server.log.status();
            let gauges = &self.server.gauges;
            gauges.watches() + gauges.connections() == 0
                && status.readers == 0
                && status.store.leases == 0
        };
        until("everything given back", gone).await;
        drop(open);
        // Tasks and sockets of the clients, which are ours too.
        let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
        // The server: itself, and its loops.
        until("tasks ended", || tasks() <= 5).await;
        let files = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        match self.files {
            None => self.files = Some(files()),
            Some(first) => until("files closed", || files() <= first).await,
        }
        peak
    }
}

/// Opens all of them, each in the middle of its replay.
async fn open_all(proxy: &Proxy, each: usize) -> Vec<tonic::Streaming<pb::Event>> {
    let mut open = Vec::new();
    for _ in 0..CONNECTIONS {
        let endpoint = tonic::transport::Endpoint::from_shared(proxy.url()).unwrap();
        // One that does not read must not hold up the others of its connection.
        let endpoint =
            endpoint.initial_stream_window_size(32 << 10).initial_connection_window_size(8 << 20);
        let channel = within("connect", endpoint.connect()).await.unwrap();
        let mut opening = tokio::task::JoinSet::new();
        for _ in 0..each {
            let mut client = FeedServiceClient::new(channel.clone());
            opening.spawn(async move {
                let request = pb::WatchRequest { start: from_oldest(), ..Default::default() };
                let response = within("watch", client.watch(request)).await.unwrap();
                let mut stream = response.into_inner();
                let first = within("an event", stream.message()).await.unwrap().unwrap();
                assert_eq!(first.seq, 1);
                stream
            });
        }
        open.extend(opening.join_all().await);
    }
    open
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}
