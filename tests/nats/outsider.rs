//! Somebody else at the servers of a journal, who speaks NATS by hand: no client library is needed where tests of the
//! daemon do to a stream what others do to it.

use std::io::{BufRead as _, BufReader, Error, ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::servers::Servers;

/// For one answer.
const PATIENCE: Duration = Duration::from_secs(5);

struct Connection {
    stream: BufReader<TcpStream>,
    asked: u64,
    used: Instant,
}

/// Somebody else at the same servers.
pub struct Outsider {
    addresses: Vec<String>,
    user: String,
    connection: Mutex<Option<Connection>>,
}

impl Connection {
    fn open(address: &str, user: &str) -> std::io::Result<Connection> {
        let address = address.trim_start_matches("nats://");
        let parsed = address.parse().map_err(Error::other)?;
        let stream = TcpStream::connect_timeout(&parsed, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut connection =
            Connection { stream: BufReader::new(stream), asked: 0, used: Instant::now() };
        let hello = json!({
            "verbose": false, "pedantic": false, "user": user, "pass": user, "name": "outsider",
        });
        connection.send(format!("CONNECT {hello}\r\nPING\r\n").as_bytes())?;
        while connection.line()? != "PONG" {}
        connection.send(b"SUB _INBOX.o.* 1\r\n")?;
        Ok(connection)
    }

    fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    fn line(&mut self) -> std::io::Result<String> {
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line)? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            // Pings go on where no answer comes.
            if self.used.elapsed() > PATIENCE {
                return Err(ErrorKind::TimedOut.into());
            }
            match line.trim_end() {
                "PING" => self.send(b"PONG\r\n")?,
                // A guest who may not is told so beside the request, and gets no answer to it.
                error if error.starts_with("-ERR 'Permissions") => {}
                error if error.starts_with("-ERR") => return Err(Error::other(error.to_owned())),
                line => return Ok(line.to_owned()),
            }
        }
    }

    fn request(&mut self, subject: &str, payload: &[u8]) -> std::io::Result<Vec<u8>> {
        (self.asked, self.used) = (self.asked + 1, Instant::now());
        let inbox = format!("_INBOX.o.{}", self.asked);
        let mut bytes = format!("PUB {subject} {inbox} {}\r\n", payload.len()).into_bytes();
        bytes.extend_from_slice(payload);
        bytes.extend_from_slice(b"\r\n");
        self.send(&bytes)?;
        loop {
            let line = self.line()?;
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            // MSG <subject> <sid> [reply] <bytes>, and nothing else comes with a payload: headers are not asked for.
            let ["MSG", to, .., len] = words.as_slice() else { continue };
            let mut payload = vec![0; len.parse::<usize>().map_err(Error::other)? + 2];
            self.stream.read_exact(&mut payload)?;
            if *to == inbox {
                payload.truncate(payload.len() - 2);
                return Ok(payload);
            }
        }
    }
}

impl Outsider {
    /// Connects to any of them; the password is the user's name.
    pub fn connect(servers: &Servers, user: &str) -> Outsider {
        let addresses = (0..servers.count()).map(|at| servers.url(at)).collect();
        let outsider = Outsider { addresses, user: user.to_owned(), connection: Mutex::new(None) };
        let begun = Instant::now();
        while let Err(error) = outsider.try_connect() {
            assert!(begun.elapsed() < Duration::from_secs(20), "{error}");
            std::thread::sleep(Duration::from_millis(50));
        }
        outsider
    }

    fn try_connect(&self) -> std::io::Result<()> {
        let mut last = Err(ErrorKind::NotConnected.into());
        for address in &self.addresses {
            match Connection::open(address, &self.user) {
                Ok(connection) => {
                    *self.connection.lock().unwrap() = Some(connection);
                    return Ok(());
                }
                Err(error) => last = Err(error),
            }
        }
        last
    }

    /// The answer, if one came in time. A connection that failed is made anew by the next who asks; and one that was idle,
    /// since nobody answered the server's pings.
    fn request(&self, subject: &str, payload: &[u8]) -> Option<Value> {
        let is_fresh = |it: &Connection| it.used.elapsed() < Duration::from_secs(1);
        if !self.connection.lock().unwrap().as_ref().is_some_and(is_fresh) {
            self.try_connect().ok()?;
        }
        let mut connection = self.connection.lock().unwrap();
        match connection.as_mut()?.request(subject, payload) {
            Ok(answer) => serde_json::from_slice(&answer).ok(),
            Err(_) => {
                *connection = None;
                None
            }
        }
    }

    /// Asks JetStream.
    pub fn ask(&self, what: &str, request: &Value) -> Option<Value> {
        let payload = if request.is_null() { String::new() } else { request.to_string() };
        self.request(&format!("$JS.API.{what}"), payload.as_bytes())
    }

    /// Publishes to a stream's subject; the answer, if one came.
    pub fn publish(&self, subject: &str, payload: &[u8]) -> Option<Value> {
        self.request(subject, payload)
    }

    pub fn purge(&self, name: &str, before: u64) {
        let answer = self.ask(&format!("STREAM.PURGE.TM_{name}"), &json!({ "seq": before }));
        assert!(answer.is_some_and(|it| it.get("error").is_none()));
    }

    pub fn info(&self, name: &str) -> Option<Value> {
        self.ask(&format!("STREAM.INFO.TM_{name}"), &Value::Null)
    }

    /// Which of the servers leads a stream.
    pub fn leader(&self, name: &str) -> Option<usize> {
        let info = self.info(name)?;
        let leader =
            info.pointer("/cluster/leader")?.as_str()?.strip_prefix("tm")?.parse::<usize>();
        leader.ok()?.checked_sub(1)
    }

    /// Until all replicas of a stream are current.
    pub fn wait_current(&self, name: &str) -> bool {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(40) {
            let info = self.info(name);
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
