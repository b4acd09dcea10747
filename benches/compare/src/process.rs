//! Servers as processes of their own: started on a free loopback port with a directory of their
//! own, waited for, and ended by their id, also when a run is given up.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rustix::param::clock_ticks_per_second;
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// Until a server that was started answers; reading a large log back takes a while.
const READY: Duration = Duration::from_secs(120);
/// Until a server that was asked to stop has stopped.
const STOP: Duration = Duration::from_secs(60);

/// A running server; killed when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    pid: u32,
    name: String,
}

impl Server {
    /// Starts it. Its output goes to `log`, but for standard output where the caller reads that.
    pub(crate) fn start(command: &mut Command, log: &Path) -> Result<Server> {
        let name = command.as_std().get_program().to_string_lossy().into_owned();
        let file = std::fs::OpenOptions::new().create(true).append(true).open(log)?;
        // A group of its own: Ctrl-C is for us, who then end it in our own time.
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(file)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let pid = child.id().ok_or_else(|| anyhow!("{name} has no process id"))?;
        Ok(Server { child, pid, name })
    }

    /// The first line of its standard output that `take` makes something of.
    pub(crate) async fn line<T>(&mut self, take: impl Fn(&str) -> Option<T>) -> Result<T> {
        let out = self.child.stdout.take().ok_or_else(|| anyhow!("its output is read already"))?;
        let mut lines = BufReader::new(out).lines();
        let found = tokio::time::timeout(READY, async {
            while let Some(line) = lines.next_line().await? {
                if let Some(found) = take(&line) {
                    return Ok(found);
                }
            }
            bail!("{} ended before it was ready", self.name)
        })
        .await
        .with_context(|| format!("{} was not ready in time", self.name))??;
        // Whoever goes on writing must not find a closed or a full pipe.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(found)
    }

    /// Asks it to stop, and waits.
    pub(crate) async fn stop(mut self) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        let ended = tokio::time::timeout(STOP, self.child.wait()).await;
        Ok(ended.with_context(|| format!("{} does not stop", self.name))??)
    }

    /// Ends it at once, as a crash would.
    pub(crate) async fn kill(mut self) -> Result<()> {
        self.child.kill().await.with_context(|| format!("cannot kill {}", self.name))
    }

    /// Memory that it has now, and had at most, in bytes.
    pub(crate) fn memory(&self) -> Result<Memory> {
        let path = format!("/proc/{}/status", self.pid);
        let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
        Memory::parse(&text).with_context(|| format!("{path} has no memory in it"))
    }

    /// Memory once it has not changed much for a second; 20 seconds at most.
    pub(crate) async fn settled_memory(&self) -> Result<Memory> {
        let begun = Instant::now();
        let mut last = self.memory()?;
        let mut same = 0;
        while same < 4 && begun.elapsed() < Duration::from_secs(20) {
            tokio::time::sleep(Duration::from_millis(250)).await;
            let now = self.memory()?;
            let moved = now.resident.abs_diff(last.resident);
            same = if moved <= last.resident / 200 { same + 1 } else { 0 };
            last = now;
        }
        Ok(last)
    }

    /// Time on a processor so far, over all its threads.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        cpu_of(&self.pid.to_string())
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        kill_process(pid.ok_or_else(|| anyhow!("a bad process id"))?, signal)
            .with_context(|| format!("cannot signal {}", self.name))
    }
}

impl Drop for Server {
    /// Waits for the end, so that its directory can be removed after it.
    fn drop(&mut self) {
        let begun = Instant::now();
        let _ = self.child.start_kill();
        while matches!(self.child.try_wait(), Ok(None)) && begun.elapsed() < STOP {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Memory {
    /// Now (VmRSS).
    pub(crate) resident: u64,
    /// At most, since it was started (VmHWM).
    pub(crate) peak: u64,
}

impl Memory {
    fn parse(status: &str) -> Option<Memory> {
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
            Some(kib << 10)
        };
        Some(Memory { resident: field("VmRSS:")?, peak: field("VmHWM:")? })
    }
}

/// Lets this process and what it starts have as many files open as it may, for thousands of connections.
pub(crate) fn raise_open_files() {
    /// Only root may go beyond its hard limit.
    const WANTED: u64 = 200_000;
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    for maximum in [maximum.map(|most| most.max(WANTED)), maximum] {
        if setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok() {
            return;
        }
    }
}

/// How many files this process and what it starts may have open.
#[cfg(feature = "peers")]
pub(crate) fn open_files() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Time on a processor so far of this process.
pub(crate) fn own_cpu() -> Result<Duration> {
    cpu_of("self")
}

fn cpu_of(process: &str) -> Result<Duration> {
    let path = format!("/proc/{process}/stat");
    let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    let ticks = cpu_ticks(&text).with_context(|| format!("{path} has no times in it"))?;
    Ok(Duration::from_secs(1) * u32::try_from(ticks)? / u32::try_from(clock_ticks_per_second())?)
}

/// User and system time; the name before them may hold anything but a closing bracket at its end.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, after) = stat.rsplit_once(')')?;
    let mut fields = after.split_ascii_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(user + system)
}

/// Bytes that the files below a directory take on disk.
pub(crate) fn disk_bytes(dir: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut bytes = 0;
    let mut dirs = vec![PathBuf::from(dir)];
    while let Some(dir) = dirs.pop() {
        let Ok(entries) = std::fs::read_dir(&dir) else { continue };
        for entry in entries {
            // It may be gone meanwhile.
            let Ok(metadata) =
                entry.as_ref().map_err(|_| ()).and_then(|e| e.metadata().map_err(|_| ()))
            else {
                continue;
            };
            if metadata.is_dir() {
                dirs.push(entry?.path());
            } else {
                bytes += metadata.blocks() * 512;
            }
        }
    }
    Ok(bytes)
}

/// Bytes free where `dir` lies.
pub(crate) fn free_bytes(dir: &Path) -> Result<u64> {
    let stat = rustix::fs::statvfs(dir).with_context(|| dir.display().to_string())?;
    Ok(stat.f_bavail * stat.f_frsize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_bytes() {
        let text = "Name:\tx\nVmPeak:\t 9 kB\nVmHWM:\t  2048 kB\nVmRSS:\t  1024 kB\n";
        assert_eq!(Memory::parse(text), Some(Memory { resident: 1 << 20, peak: 2 << 20 }));
        assert_eq!(Memory::parse("VmRSS:\t 5 kB\n"), None);
    }

    #[test]
    fn times_are_found_behind_any_name() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 11 12 13 14 25 17 0 0 20 0 1 0 5 6 7";
        assert_eq!(cpu_ticks(stat), Some(42));
        assert_eq!(cpu_ticks("7 (x) S 1"), None);
    }

    #[test]
    fn time_on_a_processor_grows_with_work() {
        let begun = own_cpu().unwrap();
        let wall = Instant::now();
        while own_cpu().unwrap() < begun + Duration::from_millis(50) {
            assert!(wall.elapsed() < Duration::from_secs(60));
            std::hint::black_box((0..10_000).sum::<u64>());
        }
    }

    #[tokio::test]
    async fn a_server_is_waited_for_and_ended() {
        let dir = tempfile::tempdir().unwrap();
        let script = "echo one; echo ready on 7; exec sleep 600";
        let mut command = Command::new("sh");
        let mut server =
            Server::start(command.args(["-c", script]), &dir.path().join("log")).unwrap();
        let take = |line: &str| line.strip_prefix("ready on ").map(str::to_owned);
        assert_eq!(server.line(take).await.unwrap(), "7");
        assert!(server.memory().unwrap().peak > 0);
        let status = Path::new("/proc").join(server.pid.to_string());
        assert!(status.exists());
        drop(server);
        assert!(!status.exists());
    }

    #[tokio::test]
    async fn a_server_that_ends_at_once_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let mut server = Server::start(&mut Command::new("true"), &dir.path().join("log")).unwrap();
        assert!(server.line(|_| Some(())).await.is_err());
    }
}
