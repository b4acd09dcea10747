//! Servers on loopback, which are killed and stopped.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tailmark_journal_nats::{Login, Settings};
use tailmark_record::FingerprintKey;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// The program, if there is one.
pub fn program() -> Option<PathBuf> {
    let path = std::env::var_os("NATS_SERVER").map(PathBuf::from);
    if path.is_none() {
        println!("LEFT OUT: NATS_SERVER names no nats-server");
    }
    path
}

struct Node {
    name: String,
    ports: [u16; 3],
    running: Option<Child>,
}

/// Some servers, which are one cluster.
pub struct Servers {
    program: PathBuf,
    dir: TempDir,
    nodes: Vec<Node>,
}

fn free_ports(count: usize) -> Vec<u16> {
    let held: Vec<_> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    held.iter().map(|it| it.local_addr().unwrap().port()).collect()
}

impl Servers {
    /// Begins so many, and does not wait for them.
    pub fn start(program: &Path, count: usize, is_synced: bool) -> Servers {
        let dir = tempfile::tempdir().unwrap();
        let ports = free_ports(3 * count);
        let routes: Vec<_> =
            (0..count).map(|at| format!("\"nats://127.0.0.1:{}\"", ports[3 * at + 2])).collect();
        let mut nodes = Vec::new();
        for at in 0..count {
            let (name, ports) = (format!("tm{}", at + 1), &ports[3 * at..3 * at + 3]);
            let ports = [ports[0], ports[1], ports[2]];
            let store = dir.path().join(&name);
            let sync = if is_synced { "sync_interval: always," } else { "" };
            let cluster = if count == 1 {
                String::new()
            } else {
                let (port, routes) = (ports[2], routes.join(", "));
                format!(
                    "cluster {{ name: tm, listen: \"127.0.0.1:{port}\", no_advertise: true, \
                     ping_interval: \"2s\", routes: [{routes}] }}\n"
                )
            };
            let text = format!(
                "server_name: {name}\nlisten: \"127.0.0.1:{}\"\nhttp: \"127.0.0.1:{}\"\n\
                 max_payload: 8MB\nping_interval: \"2s\"\nping_max: 2\nwrite_deadline: \"5s\"\n\
                 jetstream {{ store_dir: {store:?}, {sync} max_mem: 64MB, max_file: 2GB }}\n{cluster}\
                 accounts {{\n TM {{ jetstream: enabled, users: [ {{ user: tm, password: tm }}, \
                 {{ user: guest, password: guest, permissions {{ publish {{ deny: [\"tm.>\", \
                 \"$JS.API.STREAM.>\"] }} }} }} ] }}\n SYS {{ users: [ {{ user: sys, password: sys }} ] }}\n}}\n\
                 system_account: SYS\n",
                ports[0], ports[1],
            );
            std::fs::write(dir.path().join(format!("{name}.conf")), text).unwrap();
            nodes.push(Node { name, ports, running: None });
        }
        let mut servers = Servers { program: program.to_owned(), dir, nodes };
        (0..count).for_each(|at| servers.begin(at));
        servers
    }

    pub fn count(&self) -> usize {
        self.nodes.len()
    }

    pub fn begin(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let config = self.dir.path().join(format!("{}.conf", node.name));
        let log = self.dir.path().join(format!("{}.log", node.name));
        let log = File::options().create(true).append(true).open(log).unwrap();
        let mut command = Command::new(&self.program);
        command
            .arg("-c")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        node.running = Some(command.spawn().unwrap());
    }

    /// SIGKILL.
    pub fn kill(&mut self, at: usize) {
        if let Some(mut child) = self.nodes[at].running.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    fn store(&self, at: usize, suffix: &str) -> PathBuf {
        self.dir.path().join(format!("{}{suffix}", self.nodes[at].name))
    }

    /// Keeps a copy of a store directory; its server is killed before.
    pub fn save(&self, at: usize) {
        copy(&self.store(at, ""), &self.store(at, ".saved"));
    }

    /// Puts the copy back.
    pub fn put_back(&self, at: usize) {
        self.empty(at);
        copy(&self.store(at, ".saved"), &self.store(at, ""));
    }

    /// Takes all that a server has.
    pub fn empty(&self, at: usize) {
        std::fs::remove_dir_all(self.store(at, "")).unwrap();
    }

    /// SIGSTOP for a while.
    pub fn pause(&self, at: usize, time: Duration) {
        let Some(child) = &self.nodes[at].running else { return };
        let signal = |name: &str| {
            let status = Command::new("kill").arg(name).arg(child.id().to_string()).status();
            assert!(status.unwrap().success());
        };
        signal("-STOP");
        std::thread::sleep(time);
        signal("-CONT");
    }

    pub fn url(&self, at: usize) -> String {
        format!("nats://127.0.0.1:{}", self.nodes[at % self.nodes.len()].ports[0])
    }

    /// How a daemon reaches them: one of them first, then the others.
    pub fn settings(&self, name: &str, first: usize) -> Settings {
        let count = self.nodes.len();
        let urls = (0..count).map(|at| self.url(first + at)).collect();
        let monitors = self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.ports[1]));
        Settings {
            login: Login::User("tm".to_owned(), "tm".to_owned()),
            monitors: monitors.collect(),
            replicas: if count < 3 { 1 } else { 3 },
            ..Settings::new(urls, name, FingerprintKey::new([7; 16]))
        }
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

/// Somebody else at the same servers.
pub struct Outsider {
    runtime: Runtime,
    client: async_nats::Client,
}

impl Outsider {
    pub fn connect(servers: &Servers, user: &str) -> Outsider {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let urls: Vec<String> = (0..servers.count()).map(|at| servers.url(at)).collect();
        let begun = Instant::now();
        let client = loop {
            let options = async_nats::ConnectOptions::with_user_and_password(
                user.to_owned(),
                user.to_owned(),
            );
            match runtime.block_on(options.connect(urls.clone())) {
                Ok(client) => break client,
                Err(error) => assert!(begun.elapsed() < Duration::from_secs(20), "{error}"),
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        Outsider { runtime, client }
    }

    /// Asks JetStream.
    pub fn ask(&self, what: &str, request: &Value) -> Option<Value> {
        let payload = if request.is_null() { Vec::new() } else { request.to_string().into_bytes() };
        let subject = format!("$JS.API.{what}");
        let request = self.client.request(subject, payload.into());
        let limited = async { tokio::time::timeout(Duration::from_secs(5), request).await };
        let answer = self.runtime.block_on(limited).ok()?.ok()?;
        serde_json::from_slice(&answer.payload).ok()
    }

    /// Publishes to a stream's subject; the answer, if one came.
    pub fn publish(&self, subject: &str, payload: &'static [u8]) -> Option<Value> {
        let request = self.client.request(subject.to_owned(), payload.into());
        let limited = async { tokio::time::timeout(Duration::from_secs(2), request).await };
        let answer = self.runtime.block_on(limited).ok()?.ok()?;
        serde_json::from_slice(&answer.payload).ok()
    }

    pub fn purge(&self, name: &str, before: u64) {
        let answer = self.ask(&format!("STREAM.PURGE.TM_{name}"), &json!({ "seq": before }));
        assert!(answer.is_some_and(|it| it.get("error").is_none()));
    }

    /// Which of the servers leads a stream.
    pub fn leader(&self, name: &str) -> Option<usize> {
        let info = self.ask(&format!("STREAM.INFO.TM_{name}"), &Value::Null)?;
        let leader =
            info.pointer("/cluster/leader")?.as_str()?.strip_prefix("tm")?.parse::<usize>();
        leader.ok()?.checked_sub(1)
    }

    /// Until all replicas of a stream are current.
    pub fn wait_current(&self, name: &str) -> bool {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(40) {
            let info = self.ask(&format!("STREAM.INFO.TM_{name}"), &Value::Null);
            let replicas = info.as_ref().and_then(|it| it.pointer("/cluster/replicas")?.as_array());
            let is_current = |it: &Value| {
                it.get("current") == Some(&json!(true)) && it.get("offline") != Some(&json!(true))
            };
            if replicas.is_some_and(|all| all.iter().all(is_current)) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        false
    }
}
