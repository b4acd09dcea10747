//! Addresses of servers as people type them, and who said which one to take.

use std::fmt;
use std::net::Ipv6Addr;

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
    pub(super) fn new(text: &str, origin: Origin) -> Address {
        Address { url: full(text), origin }
    }
}

/// A URL of what may lack its scheme, its host (this machine) and its port (50051). What is no address stays as
/// it is: who connects says what is wrong with it.
pub(super) fn full(text: &str) -> String {
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
            ("localhost:50051", "http://localhost:50051"),
            (":7000", "http://127.0.0.1:7000"),
            ("::1", "http://[::1]:50051"),
            ("[::1]", "http://[::1]:50051"),
            ("[::1]:7000", "http://[::1]:7000"),
            ("no where", "no where"),
            ("", ""),
            ("ftp://h", "ftp://h"),
        ] {
            assert_eq!(full(typed), url, "{typed}");
        }
    }
}
