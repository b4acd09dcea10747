//! NATS servers and daemons as processes of their own.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tailmark_client::Client;
use tailmark_wire::feed_v1 as pb;
use tempfile::TempDir;

use crate::crash::strace::timed;
use crate::network::{Network, Ways, shell};
use crate::outsider::Outsider;
use crate::servers::{Place, Process, Servers, free_ports};

/// Nothing that is waited for takes longer.
pub const PATIENCE: Duration = Duration::from_secs(90);
/// The journal's name.
pub const LOG: &str = "log";
/// What a disk has that has room, in MB.
const ROOMY: u64 = 4_096;
/// The server that is on a disk of its own.
pub const SMALL: usize = 2;

struct Daemon {
    process: Process,
    place: Place,
    /// Where clients come.
    host: String,
    port: u16,
    /// What is wrong with its clock.
    clock: Option<&'static str>,
}

/// Servers of NATS, which are one cluster, and daemons of one log on it.
pub struct World {
    pub servers: Servers,
    daemons: Vec<Daemon>,
    network: Option<Network>,
    is_synced: bool,
    dir: TempDir,
}

impl World {
    /// Begins so many of each, on loopback. The servers sync before they ack.
    pub fn start(program: &Path, servers: usize, daemons: usize) -> World {
        let world = World::new(program, (servers, daemons), true, |_| None, |place, _| place);
        world.begun()
    }

    /// Three of each, in a network of the test's own if there may be one, with clocks that are apart, and the third server
    /// on a disk of its own.
    pub fn apart(program: &Path) -> World {
        World::new(program, (3, 3), true, Network::new, |place, _| place).begun()
    }

    /// Three servers, whose calls are written to `trace`, each by the name of its server, and a daemon; none has begun.
    pub fn traced(program: &Path, is_synced: bool, traces: &Path) -> World {
        let traced = |place: Place, name: &str| Place { enter: timed(&traces.join(name)), ..place };
        World::new(program, (3, 1), is_synced, |_| None, traced)
    }

    fn new(
        program: &Path,
        (servers, daemons): (usize, usize),
        is_synced: bool,
        network: impl FnOnce(&Path) -> Option<Network>,
        of_server: impl Fn(Place, &str) -> Place,
    ) -> World {
        let dir = tempfile::tempdir().unwrap();
        let mut network = network(dir.path());
        let mut place = |name: String| match &mut network {
            None => (Place::loopback(), "127.0.0.1".to_owned()),
            Some(network) => network.place(&name),
        };
        let mut of_server = |name: String| of_server(place(name.clone()).0, &name);
        let places = (0..servers).map(|at| of_server(format!("tm{}", at + 1))).collect();
        let ports = free_ports(daemons);
        let daemon = |at: usize| {
            let (place, host) = place(format!("d{}", at + 1));
            let process = Process::new(format!("d{}", at + 1));
            Daemon { process, place, host, port: ports[at], clock: None }
        };
        let daemons = (0..daemons).map(daemon).collect();
        let servers = Servers::new(program, places, is_synced);
        let mut world = World { servers, daemons, network, is_synced, dir };
        if world.is_apart() {
            world.set_clocks();
            let store = world.servers.store(SMALL);
            shell(&format!("mount -t tmpfs -o size={ROOMY}m tmpfs '{}'", store.display()));
        }
        std::fs::write(world.path("key"), "the secret of this test\n").unwrap();
        std::fs::write(world.path("password"), "tm\n").unwrap();
        world
    }

    fn begun(mut self) -> World {
        self.begin_servers();
        (0..self.daemons()).for_each(|at| self.begin_daemon(at));
        self
    }

    pub fn begin_servers(&mut self) {
        (0..self.servers.count()).for_each(|at| self.servers.begin(at));
        (0..self.servers.count()).for_each(|at| self.servers.wait(at));
    }

    /// Takes what a daemon has.
    pub fn empty_daemon(&self, at: usize) {
        let _ = std::fs::remove_dir_all(self.path(&format!("data{}", at + 1)));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn daemons(&self) -> usize {
        self.daemons.len()
    }

    /// Whether somebody can be cut off here, and a disk be full.
    pub fn is_apart(&self) -> bool {
        self.network.is_some()
    }

    /// Debian's `libfaketime` makes the wall clock of one process wrong, as in `tests/it/clocks.rs`.
    fn set_clocks(&mut self) {
        let year = std::process::Command::new("date").arg("+%Y").envs(clock("-60y")).output();
        if !year.unwrap().stdout.starts_with(b"19") {
            assert!(std::env::var_os("WITHOUT_FAKETIME").is_some(), "libfaketime is missing");
            println!("LEFT OUT: clocks are not apart (WITHOUT_FAKETIME is set)");
            return;
        }
        for (daemon, by) in self.daemons.iter_mut().zip([None, Some("+50s"), Some("-50s")]) {
            daemon.clock = by;
        }
    }

    /// Daemons that begin from now on take a journal of which it cannot be seen what it promises.
    pub fn allow_weaker(&mut self) {
        self.is_synced = false;
    }

    /// The settings of a daemon, with what another has otherwise.
    pub fn settings(&self, at: usize, key_file: &str) -> PathBuf {
        let (count, daemon) = (self.servers.count(), &self.daemons[at]);
        // Each at another server first.
        let quoted = |all: Vec<String>| format!("{all:?}");
        let urls = quoted((0..count).map(|nth| self.servers.url(at + nth)).collect());
        let monitors = quoted((0..count).map(|at| self.servers.monitor(at)).collect());
        let (inner, port) = (&daemon.place.host, daemon.port);
        let listen = if self.is_apart() { "0.0.0.0" } else { inner };
        let text = format!(
            "[server]\nlisten = \"{listen}:{port}\"\ninstance_id = \"d{}\"\nretry_delay = \"50ms\"\n\
             [storage]\ndata_dir = {:?}\n[journal]\nkind = \"nats\"\nservers = {urls}\nname = \"{LOG}\"\n\
             advertise = \"http://{inner}:{port}\"\n\
             key_file = \"{key_file}\"\nuser = \"tm\"\npassword_file = \"password\"\nmonitors = {monitors}\n\
             replicas = {}\nallow_weaker_durability = {}\n",
            at + 1,
            self.path(&format!("data{}", at + 1)),
            if count < 3 { 1 } else { 3 },
            !self.is_synced,
        );
        let path = self.path(&format!("d{}-{key_file}.toml", at + 1));
        std::fs::write(&path, text).unwrap();
        path
    }

    pub fn begin_daemon(&mut self, at: usize) {
        let settings = self.settings(at, "key");
        // Nobody else is in the network of a test.
        let insecure = self.is_apart().then_some("--insecure");
        let daemon = &mut self.daemons[at];
        let log = self.dir.path().join(format!("{}.log", daemon.process.name));
        let log = File::options().create(true).append(true).open(log).unwrap();
        let program = Path::new(env!("CARGO_BIN_EXE_tailmark"));
        let mut command = daemon.place.command(program);
        if let Some(by) = daemon.clock {
            command.envs(clock(by));
        }
        command.args(["serve", "--log-level", "warn,tailmark::cluster=info", "--config"]);
        command.arg(settings).args(insecure).stdout(Stdio::piped()).stderr(log);
        daemon.process.running = Some(command.spawn().unwrap());
    }

    /// Waits until a daemon that was begun serves.
    pub fn wait_ready(&mut self, at: usize) {
        assert!(self.is_ready(at), "daemon {} does not serve\n{}", at + 1, self.said(at));
    }

    /// Waits until a daemon that was begun serves, or has ended instead.
    pub fn is_ready(&mut self, at: usize) -> bool {
        let child = self.daemons[at].process.running.as_mut().unwrap();
        let Some(out) = child.stdout.take() else { return true };
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line).unwrap();
        line.contains("ready on")
    }

    /// Waits until a daemon has ended by itself: its code, and what it said.
    pub fn ended(&mut self, at: usize) -> (Option<i32>, String) {
        let mut child = self.daemons[at].process.running.take().unwrap();
        let begun = Instant::now();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return (status.code(), self.said(at));
            }
            if begun.elapsed() > PATIENCE {
                child.kill().unwrap();
                child.wait().unwrap();
                panic!("daemon {} does not end\n{}", at + 1, self.said(at));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What a daemon has logged.
    pub fn said(&self, at: usize) -> String {
        std::fs::read_to_string(self.path(&format!("d{}.log", at + 1))).unwrap_or_default()
    }

    /// SIGKILL.
    pub fn kill_daemon(&mut self, at: usize) {
        self.daemons[at].process.kill();
    }

    /// SIGTERM, and waits until it has ended; how long that took.
    pub fn stop_daemon(&mut self, at: usize) -> Duration {
        let begun = Instant::now();
        self.daemons[at].process.signal("-TERM");
        let Some(mut child) = self.daemons[at].process.running.take() else {
            return Duration::ZERO;
        };
        let status = child.wait().unwrap();
        assert!(status.success(), "daemon {} ended with {status}\n{}", at + 1, self.said(at));
        begun.elapsed()
    }

    /// SIGSTOP.
    pub fn hang_daemon(&self, at: usize) {
        self.daemons[at].process.signal("-STOP");
    }

    /// Goes on after [`World::hang_daemon`].
    pub fn go_on_daemon(&self, at: usize) {
        self.daemons[at].process.signal("-CONT");
    }

    /// Cuts a daemon off from the servers and from its peers, not from its clients; answers what joins it again.
    pub fn cut_daemon(&self, at: usize, ways: Ways) -> impl Fn(&World) + use<> {
        self.cut(format!("d{}", at + 1), ways)
    }

    /// Cuts a server off from everybody.
    pub fn cut_server(&self, at: usize, ways: Ways) -> impl Fn(&World) + use<> {
        self.cut(self.servers.name(at).to_owned(), ways)
    }

    fn cut(&self, name: String, ways: Ways) -> impl Fn(&World) + use<> {
        self.network.as_ref().unwrap().cut(&name, ways);
        move |world| world.network.as_ref().unwrap().join(&name, ways)
    }

    /// Leaves less than a megabyte on the disk of the server that has one of its own.
    pub fn fill_disk(&self) {
        let store = self.servers.store(SMALL);
        let at = store.display();
        shell(&format!(
            "used=$(df -B1 --output=used '{at}' | tail -1)\n\
             mount -o remount,size=$((used + 900000)) '{at}'"
        ));
    }

    /// Gives it room again; the server is begun anew, as an operator would.
    pub fn empty_disk(&mut self) {
        let store = self.servers.store(SMALL);
        shell(&format!("mount -o remount,size={ROOMY}m '{}'", store.display()));
        self.servers.kill(SMALL);
        self.servers.begin(SMALL);
    }

    pub fn outsider(&self) -> Outsider {
        Outsider::connect(&self.servers, "tm")
    }

    pub fn address(&self, at: usize) -> String {
        let daemon = &self.daemons[at % self.daemons.len()];
        format!("http://{}:{}", daemon.host, daemon.port)
    }

    pub fn client(&self, at: usize) -> Client {
        Client::new(&self.address(at)).unwrap()
    }

    /// What a daemon says of the journal.
    pub async fn journal(&self, at: usize) -> Option<pb::JournalStatus> {
        let client = self.client(at);
        // One that hangs says nothing.
        let asked = tokio::time::timeout(Duration::from_secs(3), client.log()).await;
        asked.ok()?.ok()?.journal
    }

    /// The daemon that writes, once one does and says so itself; of those that say so, that of the newest term.
    pub async fn writer(&self) -> usize {
        let begun = Instant::now();
        loop {
            let mut writing = None;
            for at in 0..self.daemons() {
                let Some(journal) = self.journal(at).await else { continue };
                if journal.role() == pb::DaemonRole::Writing {
                    writing = writing.max(Some((journal.term, at)));
                }
            }
            if let Some((_, at)) = writing {
                return at;
            }
            assert!(begun.elapsed() < PATIENCE, "no daemon writes\n{}", self.said(0));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The server that leads the stream.
    pub async fn leader(&self) -> usize {
        let begun = Instant::now();
        loop {
            for at in 0..self.daemons() {
                let servers = self.journal(at).await.map(|it| it.replicas).unwrap_or_default();
                let named = |name: &str| {
                    (0..self.servers.count()).find(|at| self.servers.name(*at) == name)
                };
                if let Some(at) =
                    servers.iter().find(|it| it.leads).and_then(|it| named(&it.server))
                {
                    return at;
                }
            }
            assert!(begun.elapsed() < PATIENCE, "no server leads");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// What makes the clock of one process wrong, and no other. `$LIB` is the loader's.
fn clock(by: &str) -> [(&'static str, String); 3] {
    [
        ("LD_PRELOAD", "/usr/$LIB/faketime/libfaketimeMT.so.1".to_owned()),
        ("FAKETIME", by.to_owned()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
    ]
}

impl Drop for World {
    fn drop(&mut self) {
        self.daemons.iter_mut().for_each(|daemon| daemon.process.kill());
        (0..self.servers.count()).for_each(|at| self.servers.kill(at));
        if self.is_apart() {
            let store = self.servers.store(SMALL);
            let _ = std::process::Command::new("umount").arg(store).status();
        }
    }
}
