//! What only the monitoring of a server says: whether it syncs before it acks.

use std::io::{Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use serde_json::Value;

const TIMEOUT: Duration = Duration::from_secs(2);
const MAX_BYTES: u64 = 4 << 20;

/// A server, by its own word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Server {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) is_synced: bool,
}

/// Asks a server at `HOST:PORT`.
pub(crate) fn ask(monitor: &str) -> Result<Server, String> {
    let answer = get(monitor).map_err(|error| format!("its monitoring at {monitor}: {error}"))?;
    server(&answer).ok_or_else(|| format!("its monitoring at {monitor} says nothing of it"))
}

fn get(monitor: &str) -> std::io::Result<String> {
    let at = monitor.to_socket_addrs()?.next();
    let at = at.ok_or_else(|| std::io::Error::other("no such address"))?;
    let mut stream = TcpStream::connect_timeout(&at, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    // The answer ends with the connection, and is in one piece.
    write!(stream, "GET /varz HTTP/1.0\r\nHost: {monitor}\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(MAX_BYTES).read_to_string(&mut answer)?;
    Ok(answer)
}

fn server(answer: &str) -> Option<Server> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    if head.split(' ').nth(1) != Some("200") {
        return None;
    }
    let body: Value = serde_json::from_str(body).ok()?;
    let text = |name: &str| body.get(name)?.as_str().map(str::to_owned);
    // The interval itself says two minutes either way.
    let is_synced = body.pointer("/jetstream/config/sync_always") == Some(&Value::Bool(true));
    Some(Server { name: text("server_name")?, version: text("version")?, is_synced })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_server_that_says_so_syncs() {
        let of = |jetstream: &str| {
            let body =
                format!(r#"{{"server_name":"a","version":"2.15.1","jetstream":{jetstream}}}"#);
            server(&format!("HTTP/1.0 200 OK\r\nA: b\r\n\r\n{body}")).map(|it| it.is_synced)
        };
        assert_eq!(
            of(r#"{"config":{"sync_interval":120000000000,"sync_always":true}}"#),
            Some(true)
        );
        assert_eq!(of(r#"{"config":{"sync_interval":120000000000}}"#), Some(false));
        assert_eq!(of("{}"), Some(false));
        assert_eq!(server("HTTP/1.0 404 Not Found\r\n\r\n{}"), None);
        assert_eq!(server(""), None);
    }
}
