//! NATS servers of one cluster, which are killed and stopped: in one place for all tests that have some.

use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// The program, if there is one.
pub fn program() -> Option<PathBuf> {
    let path = std::env::var_os("NATS_SERVER").map(PathBuf::from);
    if path.is_none() {
        println!("LEFT OUT: NATS_SERVER names no nats-server");
    }
    path
}

/// Where a process runs: its address, and what comes before its command.
#[derive(Clone, Debug)]
pub struct Place {
    pub host: String,
    pub enter: Vec<String>,
}

impl Place {
    pub fn loopback() -> Place {
        Place { host: "127.0.0.1".to_owned(), enter: Vec::new() }
    }

    /// A command to run there.
    pub fn command(&self, program: &Path) -> Command {
        let mut words = self.enter.iter().map(AsRef::as_ref).chain([program.as_os_str()]);
        let mut command = Command::new(words.next().unwrap());
        command.args(words).stdin(Stdio::null());
        command
    }
}

/// A process that is begun, killed and stopped again and again.
pub struct Process {
    pub name: String,
    pub running: Option<Child>,
}

impl Process {
    pub fn new(name: String) -> Process {
        Process { name, running: None }
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.running.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// If it runs.
    pub fn signal(&self, name: &str) {
        let Some(child) = &self.running else { return };
        let status = Command::new("kill").arg(name).arg(child.id().to_string()).status();
        assert!(status.unwrap().success());
    }
}

struct Node {
    process: Process,
    place: Place,
    /// Of clients, of monitoring and of routes.
    ports: [u16; 3],
}

/// Some servers, which are one cluster.
pub struct Servers {
    program: PathBuf,
    dir: TempDir,
    nodes: Vec<Node>,
}

/// Ports that nobody else has at this moment, and that nobody is given by chance for a connection of his own: a server
/// comes back to its port again and again.
pub fn free_ports(count: usize) -> Vec<u16> {
    let mut held = Vec::new();
    while held.len() < count {
        let port = rand::random_range(10_000..30_000);
        held.extend(TcpListener::bind(("127.0.0.1", port)));
    }
    held.iter().map(|it| it.local_addr().unwrap().port()).collect()
}

impl Servers {
    /// Begins so many on loopback, and does not wait for them.
    pub fn start(program: &Path, count: usize, is_synced: bool) -> Servers {
        let mut servers = Servers::new(program, vec![Place::loopback(); count], is_synced);
        (0..count).for_each(|at| servers.begin(at));
        servers
    }

    /// One at each place, of which none has begun.
    pub fn new(program: &Path, places: Vec<Place>, is_synced: bool) -> Servers {
        let (dir, count) = (tempfile::tempdir().unwrap(), places.len());
        let ports = free_ports(3 * count);
        let ports = |at: usize| [ports[3 * at], ports[3 * at + 1], ports[3 * at + 2]];
        let node = |(at, place)| Node {
            process: Process::new(format!("tm{}", at + 1)),
            place,
            ports: ports(at),
        };
        let nodes: Vec<_> = places.into_iter().enumerate().map(node).collect();
        let routes: Vec<_> = nodes
            .iter()
            .map(|node| format!("\"nats://{}:{}\"", node.place.host, node.ports[2]))
            .collect();
        let routes = routes.join(", ");
        let sync = if is_synced { "sync_interval: always," } else { "" };
        for Node { process: Process { name, .. }, place: Place { host, .. }, ports } in &nodes {
            let store = dir.path().join(name);
            std::fs::create_dir(&store).unwrap();
            let cluster = if count == 1 {
                String::new()
            } else {
                format!(
                    "cluster {{ name: tm, listen: \"{host}:{}\", no_advertise: true, \
                     ping_interval: \"2s\", routes: [{routes}] }}\n",
                    ports[2]
                )
            };
            let text = format!(
                "server_name: {name}\nlisten: \"{host}:{}\"\nhttp: \"{host}:{}\"\nmax_payload: 8MB\n\
                 ping_interval: \"2s\"\nping_max: 2\nwrite_deadline: \"5s\"\n\
                 jetstream {{ store_dir: {store:?}, {sync} max_mem: 64MB, max_file: 2GB }}\n{cluster}\
                 accounts {{\n TM {{ jetstream: enabled, users: [ {{ user: tm, password: tm }}, \
                 {{ user: guest, password: guest, permissions {{ publish {{ deny: [\"tm.>\", \
                 \"$JS.API.STREAM.>\"] }} }} }} ] }}\n SYS {{ users: [ {{ user: sys, password: sys }} ] }}\n}}\n\
                 system_account: SYS\n",
                ports[0], ports[1],
            );
            std::fs::write(dir.path().join(format!("{name}.conf")), text).unwrap();
        }
        Servers { program: program.to_owned(), dir, nodes }
    }

    pub fn count(&self) -> usize {
        self.nodes.len()
    }

    pub fn name(&self, at: usize) -> &str {
        &self.nodes[at].process.name
    }

    pub fn begin(&mut self, at: usize) {
        let log = self.dir.path().join(format!("{}.log", self.name(at)));
        let log = File::options().create(true).append(true).open(log).unwrap();
        let config = self.dir.path().join(format!("{}.conf", self.name(at)));
        let mut command = self.nodes[at].place.command(&self.program);
        command.arg("-c").arg(config).stdout(log.try_clone().unwrap()).stderr(log);
        self.nodes[at].process.running = Some(command.spawn().unwrap());
    }

    /// Until a server takes connections: a daemon that finds none ends.
    pub fn wait(&self, at: usize) {
        let begun = Instant::now();
        let node = &self.nodes[at];
        for port in &node.ports[..2] {
            while TcpStream::connect((&*node.place.host, *port)).is_err() {
                assert!(
                    begun.elapsed() < Duration::from_secs(20),
                    "{} does not begin: {}",
                    node.process.name,
                    self.said(at)
                );
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }

    /// What a server has logged.
    pub fn said(&self, at: usize) -> String {
        let log = self.dir.path().join(format!("{}.log", self.name(at)));
        std::fs::read_to_string(log).unwrap_or_default()
    }

    /// SIGKILL.
    pub fn kill(&mut self, at: usize) {
        self.nodes[at].process.kill();
    }

    /// Begins from here on without what came before its command.
    pub fn set_place(&mut self, at: usize, place: Place) {
        self.nodes[at].place = place;
    }

    /// SIGSTOP.
    pub fn hang(&self, at: usize) {
        self.nodes[at].process.signal("-STOP");
    }

    /// Goes on after [`Servers::hang`].
    pub fn go_on(&self, at: usize) {
        self.nodes[at].process.signal("-CONT");
    }

    /// SIGSTOP for a while.
    pub fn pause(&self, at: usize, time: Duration) {
        self.hang(at);
        std::thread::sleep(time);
        self.go_on(at);
    }

    /// The store directory.
    pub fn store(&self, at: usize) -> PathBuf {
        self.dir.path().join(self.name(at))
    }

    fn saved(&self, at: usize) -> PathBuf {
        self.dir.path().join(format!("{}.saved", self.name(at)))
    }

    /// Keeps a copy of a store directory; its server is killed before.
    pub fn save(&self, at: usize) {
        copy(&self.store(at), &self.saved(at));
    }

    /// Puts the copy back.
    pub fn put_back(&self, at: usize) {
        self.empty(at);
        copy(&self.saved(at), &self.store(at));
    }

    /// Takes all that a server has.
    pub fn empty(&self, at: usize) {
        std::fs::remove_dir_all(self.store(at)).unwrap();
    }

    pub fn url(&self, at: usize) -> String {
        let node = &self.nodes[at % self.nodes.len()];
        format!("nats://{}:{}", node.place.host, node.ports[0])
    }

    /// Where monitoring answers.
    pub fn monitor(&self, at: usize) -> String {
        format!("{}:{}", self.nodes[at].place.host, self.nodes[at].ports[1])
    }
}

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(status.unwrap().success());
}

impl Drop for Servers {
    fn drop(&mut self) {
        (0..self.nodes.len()).for_each(|at| self.kill(at));
    }
}
