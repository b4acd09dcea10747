//! A file system that becomes read-only under a running daemon, as ext4 makes itself after an error of the disk.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use tailmark_client::{Client, Item, MarkerKind};
use tempfile::TempDir;
use tokio_stream::StreamExt as _;

use super::{event, get, options, stored};
use crate::support::daemon::Daemon;
use crate::support::server::{until, within};

/// Of the file system: a log with small slots and more.
const DISK_BYTES: u64 = 64 << 20;

/// A file system in a file. Each daemon mounts it in a name space of its own, which ends with it.
struct Disk {
    place: TempDir,
}

impl Disk {
    /// Where one can be made and mounted.
    fn new() -> Option<Disk> {
        let disk = Disk { place: tempfile::tempdir().unwrap() };
        std::fs::create_dir(disk.mount_point()).unwrap();
        std::fs::File::create(disk.image()).unwrap().set_len(DISK_BYTES).unwrap();
        let made = Command::new("mkfs.ext4").args(["-q", "-F"]).arg(disk.image()).output();
        if !made.is_ok_and(|output| output.status.success()) {
            println!("LEFT OUT: mkfs.ext4 is missing");
            return None;
        }
        let tried = Command::new("unshare")
            .args(["--mount", "sh", "-c", "mount -o loop \"$1\" \"$2\"", "sh"])
            .args([disk.image(), disk.mount_point()])
            .output();
        if !tried.is_ok_and(|output| output.status.success()) {
            println!(
                "LEFT OUT: mounting is not allowed here (it is for root, and needs a loop device)"
            );
            return None;
        }
        Some(disk)
    }

    fn image(&self) -> PathBuf {
        self.place.path().join("image")
    }

    fn mount_point(&self) -> PathBuf {
        self.place.path().join("disk")
    }

    async fn start(&self) -> Daemon {
        // The one before has let go of it, else there would be two of the same file.
        until("the end of a mount", || !self.is_in_use()).await;
        let (image, at) = (self.image(), self.mount_point());
        let shell = format!(
            "export IMAGE='{}' AT='{}'; exec unshare --mount sh -c \
             'mount -o loop \"$IMAGE\" \"$AT\" && exec \"$0\" \"$@\"' \"$0\" \"$@\"",
            image.display(),
            at.display()
        );
        Daemon::start_with(&at.join("log"), &shell)
    }

    /// Whether a loop device has it.
    fn is_in_use(&self) -> bool {
        let devices = std::fs::read_dir("/sys/block").unwrap().flatten();
        let mut files = devices
            .filter_map(|it| std::fs::read_to_string(it.path().join("loop/backing_file")).ok());
        files.any(|file| file.trim() == self.image().to_str().unwrap())
    }

    /// What the kernel does when it finds the file system broken: from here on nothing is written.
    fn becomes_read_only(&self, daemon: &Daemon) {
        let output = Command::new("nsenter")
            .args(["--target", &daemon.id().to_string(), "--mount"])
            .args(["mount", "-o", "remount,abort"])
            .arg(self.mount_point())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_system_that_becomes_read_only_takes_nothing_and_loses_nothing() {
    let Some(disk) = Disk::new() else { return };
    let daemon = disk.start().await;
    let client = Client::new(daemon.url()).unwrap();
    let mut watch = client.watch(options());
    let acked = 20;
    for number in 1..=acked {
        assert_eq!(client.publish(event(number), None).await.unwrap().seq, number);
    }
    let ready = get(&daemon, "/readyz").await;
    assert!(ready.starts_with("HTTP/1.1 200"), "{ready}");

    disk.becomes_read_only(&daemon);
    // What is under way when it is noticed may be there or not; whatever comes after that is not.
    let mut unknown = 0;
    let refused = loop {
        let error = client.publish(event(acked + 1), None).await.expect_err("it was taken");
        if error.reason() == "STORE_STOPPED" {
            break error;
        }
        assert!(error.may_have_applied(), "{error:?}");
        unknown += 1;
    };
    assert!(!refused.may_have_applied() && unknown <= 1, "{refused:?} after {unknown}");
    let ready = get(&daemon, "/readyz").await;
    assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("STORE_STOPPED"), "{ready}");
    let health = get(&daemon, "/healthz").await;
    assert!(health.starts_with("HTTP/1.1 200"), "{health}");

    // Whoever reads goes on: one who is there, and one who comes.
    let (mut seen, mut heartbeats) = (0, 0);
    while seen < acked || heartbeats < 5 {
        match within("a watch", watch.next()).await.unwrap().unwrap() {
            Item::Event(received) => {
                seen += 1;
                assert_eq!(received.event().unwrap().seq.get(), seen);
            }
            Item::Marker(marker) if marker.kind == MarkerKind::Heartbeat => heartbeats += 1,
            Item::Marker(_) => {}
            other => panic!("the watch was interrupted: {other:?}"),
        }
    }
    let ids = |last: u64| (1..=last).map(|at| (at, format!("id-{at}"))).collect::<BTreeMap<_, _>>();
    assert_eq!(stored(&client).await, ids(acked));
    assert_eq!(daemon.stop(), Some(0));

    // It was only the file system: mounted again all is there, and more is taken.
    let daemon = disk.start().await;
    let client = Client::new(daemon.url()).unwrap();
    client.publish(event(acked + 1), None).await.unwrap();
    client.publish(event(acked + 2), None).await.unwrap();
    assert_eq!(stored(&client).await, ids(acked + 2));
    assert_eq!(daemon.stop(), Some(0));
}
