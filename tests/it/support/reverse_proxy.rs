//! Real proxies, set up by what lies in `deploy/`.

use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::TcpStream;

use super::port::Port;
use super::server::within;
use super::tls::Pair;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Brand {
    Nginx,
    HaProxy,
    /// Where `ENVOY` names the program.
    Envoy,
}

/// A proxy that runs until it is dropped.
pub struct ReverseProxy {
    pub address: SocketAddr,
    /// Whether clients come over TLS, as they do where it is deployed.
    has_tls: bool,
    brand: Brand,
    child: Child,
    dir: TempDir,
    _port: Port,
}

/// A file of `deploy/` with other values. Each must be there, else a test would run something that
/// nobody deploys.
fn deployed(file: &str, swaps: &[(&str, &str)]) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(file);
    let mut text = fs::read_to_string(&path).unwrap();
    for (from, to) in swaps {
        assert!(text.contains(from), "{file} has no `{from}`");
        text = text.replace(from, to);
    }
    text
}

fn path_of(name: &str) -> Option<String> {
    let paths = [format!("/usr/sbin/{name}"), format!("/usr/bin/{name}")];
    paths.into_iter().find(|path| Path::new(path).exists())
}

fn program(name: &str) -> Command {
    Command::new(path_of(name).unwrap_or_else(|| panic!("{name} is missing")))
}

/// Whether nginx and HAProxy are there. Without them the tests fail, unless they were told to go
/// without.
pub fn are_there() -> bool {
    let missing = ["nginx", "haproxy"].into_iter().find(|name| path_of(name).is_none());
    let Some(missing) = missing else { return true };
    assert!(
        std::env::var_os("WITHOUT_PROXIES").is_some(),
        "{missing} is missing: install it (Debian: apt-get install nginx-light haproxy), or set \
         WITHOUT_PROXIES=1 to leave these tests out"
    );
    // Past what libtest keeps back.
    let _ = writeln!(std::io::stderr(), "LEFT OUT: {missing} is missing, WITHOUT_PROXIES is set");
    false
}

impl ReverseProxy {
    /// As deployed, but without TLS and for `swaps`.
    pub async fn start(brand: Brand, to: SocketAddr, swaps: &[(&str, &str)]) -> ReverseProxy {
        ReverseProxy::start_as(brand, to, None, swaps).await
    }

    /// As deployed, with this certificate.
    pub async fn start_tls(brand: Brand, to: SocketAddr, pair: &Pair) -> ReverseProxy {
        ReverseProxy::start_as(brand, to, Some(pair), &[]).await
    }

    async fn start_as(
        brand: Brand,
        to: SocketAddr,
        pair: Option<&Pair>,
        swaps: &[(&str, &str)],
    ) -> ReverseProxy {
        let port = Port::reserve();
        let dir = tempfile::tempdir().unwrap();
        if let Some(pair) = pair {
            fs::write(dir.path().join("crt"), &pair.cert).unwrap();
            fs::write(dir.path().join("key"), &pair.key).unwrap();
            // HAProxy's way.
            fs::write(dir.path().join("pem"), format!("{}{}", pair.cert, pair.key)).unwrap();
        }
        let has_tls = pair.is_some();
        let child = match brand {
            Brand::Nginx => nginx(&dir, port.address, to, has_tls, swaps),
            Brand::HaProxy => haproxy(&dir, port.address, to, has_tls, swaps),
            Brand::Envoy => envoy(&dir, port.address, to, has_tls, swaps),
        };
        let proxy = ReverseProxy { address: port.address, has_tls, brand, child, dir, _port: port };
        within("a proxy", async {
            let mut look = tokio::time::interval(Duration::from_millis(5));
            while TcpStream::connect(proxy.address).await.is_err() {
                look.tick().await;
            }
        })
        .await;
        proxy
    }

    pub fn url(&self) -> String {
        format!("{}://{}", if self.has_tls { "https" } else { "http" }, self.address)
    }

    /// Reads its configuration again: new processes take connections from here on, the old ones end.
    pub fn reload(&mut self) {
        match self.brand {
            Brand::Nginx => self.signal(rustix::process::Signal::HUP),
            Brand::HaProxy => {
                let old = self.child.id().to_string();
                let mut command = program("haproxy");
                command.args(["-db", "-f"]).arg(self.dir.path().join("conf")).args(["-sf", &old]);
                let new = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
                let mut old = std::mem::replace(&mut self.child, new);
                std::thread::spawn(move || old.wait());
            }
            Brand::Envoy => panic!("not by itself"),
        }
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, signal);
    }
}

impl Drop for ReverseProxy {
    fn drop(&mut self) {
        // Not SIGKILL, which would leave nginx's workers behind.
        self.signal(rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}

fn spawn(mut command: Command, dir: &TempDir) -> Child {
    let log = fs::File::create(dir.path().join("log")).unwrap();
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    command.spawn().unwrap()
}

fn nginx(
    dir: &TempDir,
    own: SocketAddr,
    to: SocketAddr,
    has_tls: bool,
    swaps: &[(&str, &str)],
) -> Child {
    let (cert, key) = (
        "    ssl_certificate     /etc/ssl/log.example.crt;\n",
        "    ssl_certificate_key /etc/ssl/log.example.key;\n",
    );
    let at = |name: &str| dir.path().join(name).display().to_string();
    let own_cert = cert.replace("/etc/ssl/log.example.crt", &at("crt"));
    let own_key = key.replace("/etc/ssl/log.example.key", &at("key"));
    let ssl = if has_tls { "ssl " } else { "" };
    let (listen, to) = (format!("listen {own} {ssl}http2;"), to.to_string());
    let tried = [
        ("listen 443 ssl http2;", &*listen),
        (cert, if has_tls { &*own_cert } else { "" }),
        (key, if has_tls { &*own_key } else { "" }),
        ("127.0.0.1:50051", &to),
    ];
    let server = deployed("nginx/tailmark.conf", &[&tried[..], swaps].concat());
    fs::write(dir.path().join("server"), server).unwrap();
    // What a distribution's own file around it has; a worker that reloads ends its connections.
    let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let paths = paths.map(|name| format!("{name}_temp_path {name};"));
    let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
    let around = format!(
        "daemon off; {user} worker_processes 1; worker_shutdown_timeout 100ms; pid pid;\n\
         error_log stderr crit; events {{}}\nhttp {{ access_log off; {} include server; }}\n",
        paths.join(" ")
    );
    let conf = dir.path().join("conf");
    fs::write(&conf, around).unwrap();
    let mut command = program("nginx");
    command.arg("-p").arg(dir.path()).arg("-c").arg(&conf);
    spawn(command, dir)
}

fn haproxy(
    dir: &TempDir,
    own: SocketAddr,
    to: SocketAddr,
    has_tls: bool,
    swaps: &[(&str, &str)],
) -> Child {
    let pem = dir.path().join("pem");
    let tls = format!(" ssl crt {} alpn h2,http/1.1", pem.display());
    let bind = format!("bind {own}{}", if has_tls { &tls } else { "" });
    let to = to.to_string();
    let tried = [
        ("bind :443 ssl crt /etc/haproxy/log.example.pem alpn h2,http/1.1", &*bind),
        ("127.0.0.1:50051", &to),
        // An old process that was told to end does so although watches go on.
        ("global\n", "global\n    hard-stop-after 100ms\n"),
    ];
    let conf = dir.path().join("conf");
    fs::write(&conf, deployed("haproxy/tailmark.cfg", &[&tried[..], swaps].concat())).unwrap();
    let mut command = program("haproxy");
    command.arg("-db").arg("-f").arg(&conf);
    spawn(command, dir)
}

fn envoy(
    dir: &TempDir,
    own: SocketAddr,
    to: SocketAddr,
    has_tls: bool,
    swaps: &[(&str, &str)],
) -> Child {
    let address = format!("address: 127.0.0.1, port_value: {}", own.port());
    let to = format!("address: 127.0.0.1, port_value: {}", to.port());
    let at = |name: &str| dir.path().join(name).display().to_string();
    let (cert, key) = (at("crt"), at("key"));
    let mut tried = vec![
        ("address: 0.0.0.0, port_value: 8443", &*address),
        ("address: 127.0.0.1, port_value: 50051", &to),
    ];
    let whole = deployed("envoy/tailmark.yaml", &[]);
    let (begin, end) = (whole.find("      transport_socket:"), whole.find("  clusters:"));
    let socket = &whole[begin.unwrap()..end.unwrap()];
    if has_tls {
        tried.push(("/etc/envoy/log.example.crt", &cert));
        tried.push(("/etc/envoy/log.example.key", &key));
    } else {
        tried.push((socket, ""));
    }
    let conf = dir.path().join("conf.yaml");
    fs::write(&conf, deployed("envoy/tailmark.yaml", &[&tried[..], swaps].concat())).unwrap();
    let name = std::env::var_os("ENVOY").expect("ENVOY names the program");
    let mut command = Command::new(name);
    command.args(["--disable-hot-restart", "--concurrency", "1", "--log-level", "error", "-c"]);
    command.arg(&conf);
    spawn(command, dir)
}
