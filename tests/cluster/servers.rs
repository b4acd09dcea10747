//! NATS servers and daemons as processes of their own, on loopback.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tailmark_client::Client;
use tailmark_wire::feed_v1 as pb;
use tempfile::TempDir;

/// Nothing that is waited for takes longer.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// The program of NATS, if there is one.
pub fn nats_server() -> Option<PathBuf> {
    let path = std::env::var_os("NATS_SERVER").map(PathBuf::from);
    if path.is_none() {
        println!("LEFT OUT: NATS_SERVER names no nats-server");
    }
    path
}

fn free_ports(count: usize) -> Vec<u16> {
    let held: Vec<_> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    held.iter().map(|it| it.local_addr().unwrap().port()).collect()
}

fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").arg(name).arg(child.id().to_string()).status();
    assert!(status.unwrap().success());
}

/// A process that is begun, killed and stopped again and again.
struct Process {
    name: String,
    running: Option<Child>,
}

impl Process {
    fn kill(&mut self) {
        if let Some(mut child) = self.running.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    fn pause(&self, time: Duration) {
        let Some(child) = &self.running else { return };
        signal(child, "-STOP");
        std::thread::sleep(time);
        signal(child, "-CONT");
    }
}

/// Servers of NATS, which are one cluster, and daemons of one log on it.
pub struct World {
    dir: TempDir,
    program: PathBuf,
    servers: Vec<Process>,
    /// Of clients, of monitoring and of routes, of each server.
    ports: Vec<u16>,
    daemons: Vec<Process>,
    listens: Vec<u16>,
}

impl World {
    /// Begins so many of each. The servers sync before they ack.
    pub fn start(program: &Path, servers: usize, daemons: usize) -> World {
        let ports = free_ports(3 * servers + daemons);
        let (ports, listens) = ports.split_at(3 * servers);
        let process = |name: String| Process { name, running: None };
        let mut world = World {
            dir: tempfile::tempdir().unwrap(),
            program: program.to_owned(),
            servers: (0..servers).map(|at| process(format!("tm{}", at + 1))).collect(),
            ports: ports.to_vec(),
            daemons: (0..daemons).map(|at| process(format!("d{}", at + 1))).collect(),
            listens: listens.to_vec(),
        };
        std::fs::write(world.path("key"), "the secret of this test\n").unwrap();
        std::fs::write(world.path("password"), "tm\n").unwrap();
        (0..servers).for_each(|at| world.begin_server(at));
        (0..servers).for_each(|at| world.wait_server(at));
        (0..daemons).for_each(|at| world.begin_daemon(at));
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn servers(&self) -> usize {
        self.servers.len()
    }

    pub fn daemons(&self) -> usize {
        self.daemons.len()
    }

    pub fn begin_server(&mut self, at: usize) {
        let name = &self.servers[at].name;
        let ports = &self.ports[3 * at..3 * at + 3];
        let routes: Vec<_> = (0..self.servers.len())
            .map(|at| format!("\"nats://127.0.0.1:{}\"", self.ports[3 * at + 2]))
            .collect();
        let cluster = if self.servers.len() == 1 {
            String::new()
        } else {
            let (port, routes) = (ports[2], routes.join(", "));
            format!(
                "cluster {{ name: tm, listen: \"127.0.0.1:{port}\", no_advertise: true, \
                 ping_interval: \"2s\", routes: [{routes}] }}\n"
            )
        };
        let store = self.path(name);
        let text = format!(
            "server_name: {name}\nlisten: \"127.0.0.1:{}\"\nhttp: \"127.0.0.1:{}\"\nmax_payload: 8MB\n\
             ping_interval: \"2s\"\nping_max: 2\nwrite_deadline: \"5s\"\n\
             jetstream {{ store_dir: {store:?}, sync_interval: always, max_mem: 64MB, max_file: 2GB }}\n{cluster}\
             accounts {{\n TM {{ jetstream: enabled, users: [ {{ user: tm, password: tm }} ] }}\n \
             SYS {{ users: [ {{ user: sys, password: sys }} ] }}\n}}\nsystem_account: SYS\n",
            ports[0], ports[1],
        );
        let config = self.path(&format!("{name}.conf"));
        std::fs::write(&config, text).unwrap();
        let log = self.log(name);
        let mut command = Command::new(&self.program);
        command.arg("-c").arg(config).stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.servers[at].running = Some(command.spawn().unwrap());
    }

    /// Until a server takes connections: a daemon that finds none ends.
    fn wait_server(&self, at: usize) {
        let begun = Instant::now();
        for port in &self.ports[3 * at..3 * at + 2] {
            while TcpStream::connect(("127.0.0.1", *port)).is_err() {
                let name = &self.servers[at].name;
                let said = || std::fs::read_to_string(self.path(&format!("{name}.log")));
                assert!(begun.elapsed() < PATIENCE / 4, "{name} does not begin: {:?}", said());
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }

    fn log(&self, name: &str) -> File {
        let path = self.path(&format!("{name}.log"));
        File::options().create(true).append(true).open(path).unwrap()
    }

    /// The settings of a daemon, with what another has otherwise.
    pub fn settings(&self, at: usize, key_file: &str) -> PathBuf {
        // Each at another server first.
        let count = self.servers.len();
        let urls: Vec<_> = (0..count)
            .map(|nth| format!("\"nats://127.0.0.1:{}\"", self.ports[3 * ((at + nth) % count)]))
            .collect();
        let monitors: Vec<_> =
            (0..count).map(|at| format!("\"127.0.0.1:{}\"", self.ports[3 * at + 1])).collect();
        let text = format!(
            "[server]\nlisten = \"127.0.0.1:{}\"\ninstance_id = \"d{}\"\nretry_delay = \"50ms\"\n\
             [storage]\ndata_dir = {:?}\n[journal]\nkind = \"nats\"\nservers = [{}]\nname = \"log\"\n\
             key_file = \"{key_file}\"\nuser = \"tm\"\npassword_file = \"password\"\nmonitors = [{}]\n\
             replicas = {}\n",
            self.listens[at],
            at + 1,
            self.path(&format!("data{}", at + 1)),
            urls.join(", "),
            monitors.join(", "),
            if count < 3 { 1 } else { 3 },
        );
        let path = self.path(&format!("d{}-{key_file}.toml", at + 1));
        std::fs::write(&path, text).unwrap();
        path
    }

    pub fn begin_daemon(&mut self, at: usize) {
        let settings = self.settings(at, "key");
        let log = self.log(&self.daemons[at].name);
        let mut command = Command::new(env!("CARGO_BIN_EXE_tailmark"));
        command.args(["serve", "--log-level", "warn,tailmark::cluster=info", "--config"]);
        command.arg(settings).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        self.daemons[at].running = Some(command.spawn().unwrap());
    }

    /// Waits until a daemon that was begun serves.
    pub fn wait_ready(&mut self, at: usize) {
        let child = self.daemons[at].running.as_mut().unwrap();
        let Some(out) = child.stdout.take() else { return };
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line).unwrap();
        assert!(line.contains("ready on"), "daemon {}: {line:?}\n{}", at + 1, self.said(at));
    }

    /// What a daemon has logged.
    pub fn said(&self, at: usize) -> String {
        std::fs::read_to_string(self.path(&format!("d{}.log", at + 1))).unwrap_or_default()
    }

    /// SIGKILL.
    pub fn kill_server(&mut self, at: usize) {
        self.servers[at].kill();
    }

    /// SIGKILL.
    pub fn kill_daemon(&mut self, at: usize) {
        self.daemons[at].kill();
    }

    /// SIGTERM, and waits until it has ended; how long that took.
    pub fn stop_daemon(&mut self, at: usize) -> Duration {
        let Some(mut child) = self.daemons[at].running.take() else { return Duration::ZERO };
        let begun = Instant::now();
        signal(&child, "-TERM");
        let status = child.wait().unwrap();
        assert!(status.success(), "daemon {} ended with {status}\n{}", at + 1, self.said(at));
        begun.elapsed()
    }

    /// SIGSTOP for a while.
    pub fn pause_server(&self, at: usize, time: Duration) {
        self.servers[at].pause(time);
    }

    /// SIGSTOP for a while.
    pub fn pause_daemon(&self, at: usize, time: Duration) {
        self.daemons[at].pause(time);
    }

    pub fn address(&self, at: usize) -> String {
        format!("http://127.0.0.1:{}", self.listens[at % self.listens.len()])
    }

    pub fn client(&self, at: usize) -> Client {
        Client::new(&self.address(at)).unwrap()
    }

    /// What a daemon says of the journal.
    pub async fn journal(&self, at: usize) -> Option<pb::JournalStatus> {
        self.client(at).log().await.ok()?.journal
    }

    /// The daemon that writes, once one does and says so itself.
    pub async fn writer(&self) -> usize {
        let begun = Instant::now();
        loop {
            for at in 0..self.daemons() {
                let journal = self.journal(at).await;
                if journal.is_some_and(|it| it.role() == pb::DaemonRole::Writing) {
                    return at;
                }
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
                let leads = |name: &str| self.servers.iter().position(|it| it.name == name);
                if let Some(at) =
                    servers.iter().find(|it| it.leads).and_then(|it| leads(&it.server))
                {
                    return at;
                }
            }
            assert!(begun.elapsed() < PATIENCE, "no server leads");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.daemons.iter_mut().chain(&mut self.servers).for_each(Process::kill);
    }
}
