//! Environment variables that begin with our prefix and belong to others.
//!
//! Kubernetes tells each container about every Service of its namespace, and old Docker about every
//! linked container, by variables that begin with the other's name in capitals. A Service named
//! `tailmark` or `tailmark-feed` is the likeliest of all beside this program. Only the very shapes that
//! those two write are passed over, their values included: everything else that begins with the prefix
//! is a setting, or a typing error that must be told.

use std::net::IpAddr;

/// Whether Kubernetes or Docker wrote this variable about a Service or a container of ours, `others` being
/// all there are. Settings have been told apart before: one that looks like these would win.
pub(super) fn is_service_link(name: &str, value: &str, others: &[(String, String)]) -> bool {
    // What may be anything is taken for Docker's only beside the port of the same container.
    let is_linked = |alias: &str| {
        let port = format!("{alias}_PORT");
        others.iter().any(|(name, value)| *name == port && is_url(value))
    };
    // Docker passes on the other container's environment, whose names are anything.
    if name.match_indices("_ENV_").any(|(at, _)| is_linked(&name[..at])) {
        return true;
    }
    let is_name = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    if !name.chars().all(is_name) {
        return false;
    }
    if name.ends_with("_SERVICE_HOST") {
        return is_address(value);
    }
    if name.ends_with("_SERVICE_PORT") || name.contains("_SERVICE_PORT_") {
        return is_port(value);
    }
    if let Some(alias) = name.strip_suffix("_NAME") {
        return is_alias(alias, value) && is_linked(alias);
    }
    is_port_link(name, value)
}

/// `/web/tailmark`: the container that has the link, and what it calls the other, which is in the name of the
/// variable too.
fn is_alias(of_name: &str, value: &str) -> bool {
    let Some((container, alias)) = value.strip_prefix('/').and_then(|rest| rest.split_once('/'))
    else {
        return false;
    };
    !container.is_empty() && alias.to_ascii_uppercase().replace('-', "_") == of_name
}

/// `_PORT`, `_PORT_50051_TCP` and what follows that.
fn is_port_link(name: &str, value: &str) -> bool {
    if name.ends_with("_PORT") && is_url(value) {
        return true;
    }
    // The name of a Service may have these words in it too, so every place counts.
    let parts: Vec<&str> = name.split('_').collect();
    (1..parts.len()).filter(|&at| parts[at] == "PORT").any(|at| {
        let [port, protocol, rest @ ..] = &parts[at + 1..] else { return false };
        let protocol = protocol.to_lowercase();
        if !is_port(port) || !PROTOCOLS.contains(&protocol.as_str()) {
            return false;
        }
        match rest {
            [] | ["START" | "END"] => is_url(value),
            ["ADDR"] => is_address(value),
            ["PROTO"] => value == protocol,
            ["PORT"] | ["PORT", "START" | "END"] => is_port(value),
            _ => false,
        }
    })
}

const PROTOCOLS: [&str; 3] = ["tcp", "udp", "sctp"];

/// `tcp://10.0.0.7:50051`; with `[fd00::7]` too.
fn is_url(value: &str) -> bool {
    let Some((protocol, rest)) = value.split_once("://") else { return false };
    let Some((host, port)) = rest.rsplit_once(':') else { return false };
    PROTOCOLS.contains(&protocol) && is_address(host) && is_port(port)
}

fn is_address(value: &str) -> bool {
    let bare = value.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(value);
    bare.parse::<IpAddr>().is_ok()
}

fn is_port(value: &str) -> bool {
    value.bytes().all(|c| c.is_ascii_digit()) && value.parse::<u16>().is_ok()
}
