//! Addresses of servers as people type them, and who said which one to take.

use std::fmt;
use std::net::Ipv6Addr;

use super::message::quoted;

/// Where a server is looked for if nobody says.
pub(super) const DEFAULT: &str = "http://127.0.0.1:50051";
/// The port of an address without scheme and port.
const PORT: u16 = 50051;

/// Who said it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Argument,
    Flag,
    Environment,
    Context(String),
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Argument => f.write_str("URL"),
            Origin::Flag => f.write_str("--addr"),
            Origin::Environment => f.write_str("TAILMARK_ADDR"),
            Origin::Context(name) => write!(f, "context {name}"),
            Origin::Default => f.write_str("the default"),
        }
    }
}

/// A server's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub url: String,
    pub origin: Origin,
}

impl Address {
    /// Of what somebody typed.
    ///
    /// # Errors
    /// When its port is none: it would be another server that is asked, with the token of this one.
    pub(super) fn of(text: &str, origin: Origin) -> Result<Address, String> {
        match full(text) {
            Ok(url) => Ok(Address { url, origin }),
            Err(problem) => Err(format!("{origin}: {problem}")),
        }
    }
}

/// A URL of what may lack its scheme, its host (this machine) and its port (50051). What is no address stays as
/// it is: who connects says what is wrong with it.
///
/// # Errors
/// The port is none, or all there is; or somebody's password stands in it.
pub(super) fn full(text: &str) -> Result<String, String> {
    if !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit()) {
        return Err(format!("{} is no host; `:{0}` is that port of this machine", quoted(text)));
    }
    // As browsers show it.
    let text = if text.contains("://") { text } else { text.strip_suffix('/').unwrap_or(text) };
    let url = filled(text);
    if let Some(rest) = url.split_once("://").map(|(_, rest)| rest)
        && rest.split(['/', '?', '#']).next().is_some_and(|authority| authority.contains('@'))
    {
        // Not shown: a part of it is a secret.
        return Err(
            "an address has no user name and password; a token goes by --token-file".to_owned()
        );
    }
    match port_of(&url) {
        Some(port) if !is_port(port) => {
            Err(format!("`{}` is no port: expected 1 to 65535", quoted(port)))
        }
        _ => Ok(url),
    }
}

/// The port that a URL names.
fn port_of(url: &str) -> Option<&str> {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"))?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let behind = authority.rfind(']').map_or(0, |at| at + 1);
    authority[behind..].rsplit_once(':').map(|(_, port)| port)
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|c| c.is_ascii_digit()) && text.parse::<u16>().is_ok_and(|port| port > 0)
}

fn filled(text: &str) -> String {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
    if text.is_empty() || !text.chars().all(is_part) {
        return text.to_owned();
    }
    if text.parse::<Ipv6Addr>().is_ok() {
        return format!("http://[{text}]:{PORT}");
    }
    let behind = text.rfind(']').map_or(0, |at| at + 1);
    match text[behind..].rsplit_once(':') {
        Some(("", port)) if behind == 0 => format!("http://127.0.0.1:{port}"),
        Some(_) => format!("http://{text}"),
        None => format!("http://{text}:{PORT}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_filled_in() {
        for (typed, url) in [
            ("http://h:1", "http://h:1"),
            ("https://log.example", "https://log.example"),
            ("log.example:7000", "http://log.example:7000"),
            ("log.example", "http://log.example:50051"),
            ("log.example:7000/", "http://log.example:7000"),
            ("localhost:50051", "http://localhost:50051"),
            (":7000", "http://127.0.0.1:7000"),
            ("::1", "http://[::1]:50051"),
            ("[::1]", "http://[::1]:50051"),
            ("[::1]:7000", "http://[::1]:7000"),
            ("no where", "no where"),
            ("", ""),
            ("ftp://h", "ftp://h"),
        ] {
            assert_eq!(full(typed).as_deref(), Ok(url), "{typed}");
        }
    }

    #[test]
    fn a_port_that_is_none_is_told_and_not_left_out() {
        for (typed, port) in [
            ("localhost:99999", "99999"),
            ("localhost:abc", "abc"),
            ("localhost:0", "0"),
            ("http://localhost:+5", "+5"),
            ("http://localhost:99999/", "99999"),
            ("https://log.example:65536", "65536"),
            ("[::1]:70000", "70000"),
            (":port", "port"),
            ("http://h:", ""),
        ] {
            let said = full(typed);
            assert!(
                said.is_err_and(|said| said.contains(&format!("`{port}` is no port"))),
                "{typed}"
            );
        }
        for secret in ["http://ann:pw1@h:1", "ann:pw1@h", "https://ann@h/x"] {
            let said =
                full(secret).map_err(|said| (said.contains("--token-file"), said.contains("pw1")));
            assert!(secret.contains("://") == (said == Err((true, false))), "{secret}: {said:?}");
        }
        assert!(full("50051").is_err_and(|said| said.contains("`:50051` is that port")));
    }
}
