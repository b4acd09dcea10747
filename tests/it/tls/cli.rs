//! The program over TLS: daemon and commands as processes.

use std::net::SocketAddr;
use std::process::Output;

use crate::support::daemon::{Daemon, feed, program};
use crate::support::port::Port;
use crate::support::tls::{Authority, Dir, for_a_day, server};

struct World {
    servers: Authority,
    clients: Authority,
    dir: Dir,
    address: SocketAddr,
    _port: Port,
    daemon: Daemon,
}

impl World {
    fn new() -> World {
        let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
        let dir = Dir::new(&servers.server());
        let alice = clients.client("alice.example");
        for (name, text) in [
            ("clients.pem", &clients.pem),
            ("ca.pem", &servers.pem),
            ("alice.pem", &alice.cert),
            ("alice.key", &alice.key),
        ] {
            std::fs::write(dir.path(name), text).unwrap();
        }
        let port = Port::reserve();
        let path = |name: &str| dir.path(name).to_str().unwrap().to_owned();
        let daemon = Daemon::start_at(
            &dir.path("data"),
            port.address,
            &[
                ("TAILMARK_TLS_CERT_FILE", &path("cert.pem")),
                ("TAILMARK_TLS_KEY_FILE", &path("key.pem")),
                ("TAILMARK_TLS_CLIENT_CA_FILE", &path("clients.pem")),
            ],
        );
        World { servers, clients, dir, address: port.address, _port: port, daemon }
    }

    fn run(&self, args: &[&str], input: &[u8]) -> Output {
        let url = format!("https://{}", self.address);
        let mut command = program(args);
        command.args(["--addr", &url]);
        command.env("TAILMARK_CA", self.dir.path("ca.pem"));
        command.arg("--cert").arg(self.dir.path("alice.pem"));
        let key = if args[0] == "publish" { "--tls-key" } else { "--key" };
        command.arg(key).arg(self.dir.path("alice.key"));
        feed(&mut command, input)
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn every_command_speaks_tls_and_says_what_is_wrong() {
    let world = World::new();
    for (args, input) in [
        (&["publish", "a.b", "hello", "--key", "k"][..], &b""[..]),
        (&["upload", "--topic", "a"], b"one\ntwo\n"),
        (&["watch", "--from", "oldest", "--until-caught-up"], b""),
        (&["status"], b""),
        (&["topics"], b""),
        (&["metrics", "--once"], b""),
        (&["trim", "--before", "2", "--yes"], b""),
    ] {
        let output = world.run(args, input);
        assert!(output.status.success(), "{args:?}: {}", said(&output));
    }
    // Certificate and key in one file.
    let read = |name: &str| std::fs::read_to_string(world.dir.path(name)).unwrap();
    std::fs::write(world.dir.path("both.pem"), read("alice.pem") + &read("alice.key")).unwrap();
    let mut command = program(&["watch", "--limit", "1", "--from", "oldest", "--json"]);
    command.env("TAILMARK_ADDR", format!("https://{}", world.address));
    command.env("TAILMARK_CA", world.dir.path("ca.pem"));
    let output = feed(command.arg("--cert").arg(world.dir.path("both.pem")), b"");
    assert!(output.status.success(), "{}", said(&output));
    let https = format!("https://{}", world.address);
    let http = format!("http://{}", world.address);
    let ca = world.dir.path("ca.pem").to_str().unwrap().to_owned();
    let own = world.dir.path("clients.pem").to_str().unwrap().to_owned();
    for (args, code, words) in [
        (vec!["--addr", &https], 1, &["not trusted here", "--ca FILE"][..]),
        (vec!["--addr", &https, "--ca", &own], 1, &["not trusted here"]),
        (vec!["--addr", &https, "--ca", &ca], 1, &["got none", "--cert FILE"]),
        (vec!["--addr", &http], 2, &["https://", "TLS_REQUIRED", "--addr https://"]),
        (vec!["--addr", &https, "--ca", "/nonexistent"], 2, &["/nonexistent: cannot read it"]),
        (vec!["--addr", &https, "--cert", &ca], 2, &["ca.pem: no private key in it"]),
        (vec!["--addr", &https, "--key", &ca], 2, &["--cert"]),
    ] {
        let output = feed(program(&["status"]).args(&args), b"");
        let text = said(&output);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {text}");
        for word in words {
            assert!(text.contains(word), "{word:?} in {text}");
        }
    }
    // Renewed while it runs, by SIGHUP.
    let before = world.servers.server();
    world.dir.put(&before);
    let pid = rustix::process::Pid::from_raw(world.daemon.id().try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    let trust = crate::support::tls::Trust::showing(&world.servers, &world.clients.client("bob"));
    let begun = std::time::Instant::now();
    while trust.shown(world.address).await.unwrap() != crate::support::tls::der(&before) {
        assert!(begun.elapsed() < crate::support::server::PATIENCE);
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(world.daemon.stop(), Some(0));
}

#[test]
fn serve_says_what_is_wrong_with_its_files() {
    let authority = Authority::new("tests");
    let dir = Dir::new(&authority.server());
    let (cert, key) = (dir.path("cert.pem"), dir.path("key.pem"));
    let serve = |cert: &std::path::Path, key: &std::path::Path| {
        let mut command = program(&["serve", "--listen", "127.0.0.1:0"]);
        command.arg("--data-dir").arg(dir.path("data")).arg("--tls-cert").arg(cert);
        command.arg("--tls-key").arg(key);
        let output = feed(&mut command, b"");
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        said(&output)
    };
    assert!(serve(&cert, &cert).contains("it has no private key as PEM"));
    assert!(serve(&key, &key).contains("it has no certificate as PEM"));
    assert!(serve(&dir.path("none"), &key).contains("none: No such file"));
    let other = authority.sign(&for_a_day(server(), 0));
    std::fs::write(dir.path("other.key"), other.key).unwrap();
    assert!(serve(&cert, &dir.path("other.key")).contains("does not belong to the certificate"));
}
