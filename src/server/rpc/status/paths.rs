//! The paths of plain HTTP, for who looks for one by another name.

/// What is there, and what else it is called elsewhere.
const PATHS: [(&str, &[&str]); 11] = [
    ("/", &["index.html", "index.htm", "ui", "dashboard"]),
    (
        "/healthz",
        &["health", "live", "livez", "liveness", "alive", "ping", "status", "healthcheck"],
    ),
    ("/readyz", &["ready", "readiness"]),
    ("/metrics", &["metric", "prometheus"]),
    ("/v1/watch", &["watch", "stream", "subscribe", "sse", "events/stream"]),
    ("/v1/events", &["events", "event", "publish", "upload", "append"]),
    ("/v1/topics", &["topics", "topic"]),
    ("/v1/log", &["log", "info", "version"]),
    ("/openapi.json", &["openapi", "openapi.yaml", "swagger", "swagger.json", "docs"]),
    ("/v1/history", &["history"]),
    ("/v1/principal", &["principal", "whoami", "me"]),
];

/// The path that was probably meant.
pub(super) fn meant(path: &str) -> Option<&'static str> {
    let name = path.trim_matches('/').to_ascii_lowercase();
    let mut name = name.as_str();
    for prefix in ["api/", "v1/", "v2/"] {
        name = name.strip_prefix(prefix).unwrap_or(name);
    }
    let is_it = |(there, names): &&(&str, &[&str])| {
        let own = there.trim_start_matches("/v1").trim_matches('/');
        !name.is_empty() && (names.contains(&name) || own == name)
    };
    PATHS.iter().find(is_it).map(|(there, _)| *there)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_names_lead_to_what_is_there() {
        for (asked, there) in [
            ("/health", Some("/healthz")),
            ("/HEALTHZ/", Some("/healthz")),
            ("/ready", Some("/readyz")),
            ("/v1/stream", Some("/v1/watch")),
            ("/api/v1/events", Some("/v1/events")),
            ("/v2/watch", Some("/v1/watch")),
            ("/version", Some("/v1/log")),
            ("/events", Some("/v1/events")),
            ("/v1/topics/", Some("/v1/topics")),
            ("/", None),
            ("/v1", None),
            ("/favicon.ico", None),
        ] {
            assert_eq!(meant(asked), there, "{asked}");
        }
    }
}
