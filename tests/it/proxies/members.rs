//! Every way in which something between a client and the server can end a call, and what a client
//! makes of each: the code as gRPC maps it (`doc/http-grpc-status-mapping.md` and the errors of
//! `doc/PROTOCOL-HTTP2.md` in grpc/grpc), whether it passes, whether a write may have been done.

use h2::Reason;
use tailmark_client::{Error, Kind};

use crate::support::intermediary::{Act, When};

/// Whether trying again can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passes {
    Yes,
    /// Only for who has met the server there: it may be on its way back.
    OnceMet,
    No,
}
pub use Passes::{No, OnceMet, Yes};

#[derive(Clone, Debug)]
pub struct Member {
    pub name: String,
    pub act: Act,
    pub code: &'static str,
    pub kind: Kind,
    pub passes: Passes,
    /// What a write that ended so says of itself.
    pub maybe: bool,
    /// What a person reads.
    pub said: String,
    /// It takes so many calls of one attempt of a watch.
    pub watch_calls: usize,
}

impl Member {
    #[track_caller]
    pub fn check(&self, error: &Error) {
        let name = &self.name;
        assert_eq!((error.code(), error.kind()), (self.code, self.kind), "{name}: {error:?}");
        assert_eq!(error.is_retryable(), self.passes == Yes, "{name}: {error:?}");
        assert!(error.to_string().contains(&self.said), "{name}: {error}");
        assert!(!error.to_string().contains("compression flag"), "{name}: {error}");
    }
}

const HTML: &[(&str, &str)] = &[("content-type", "text/html"), ("server", "nginx/1.22.1")];
const PAGE: &str = "<html><h1>Something went wrong</h1></html>";

/// An HTTP answer without gRPC in it.
fn http() -> Vec<Member> {
    let rows = [
        (400, "INTERNAL", Kind::Protocol, No, true, "400 Bad Request"),
        (401, "UNAUTHENTICATED", Kind::Denied, No, false, "401 Unauthorized"),
        (403, "PERMISSION_DENIED", Kind::Denied, No, false, "403 Forbidden"),
        (404, "UNIMPLEMENTED", Kind::Unsupported, OnceMet, false, "404 Not Found"),
        (405, "UNKNOWN", Kind::Protocol, No, false, "405 Method Not Allowed"),
        (407, "UNKNOWN", Kind::Denied, No, false, "407 Proxy Authentication Required"),
        (408, "UNKNOWN", Kind::Unavailable, Yes, true, "408 Request Timeout"),
        (411, "UNKNOWN", Kind::Protocol, No, false, "411 Length Required"),
        (413, "UNKNOWN", Kind::LimitExceeded, No, false, "413 Payload Too Large"),
        (414, "UNKNOWN", Kind::LimitExceeded, No, false, "414 URI Too Long"),
        (415, "UNKNOWN", Kind::Protocol, No, false, "415 Unsupported Media Type"),
        (421, "UNKNOWN", Kind::Unavailable, Yes, false, "421 Misdirected Request"),
        (425, "UNKNOWN", Kind::Unavailable, Yes, false, "425"),
        (426, "UNKNOWN", Kind::Protocol, No, false, "426 Upgrade Required"),
        (429, "UNAVAILABLE", Kind::Unavailable, Yes, false, "429 Too Many Requests"),
        (431, "INTERNAL", Kind::LimitExceeded, No, false, "431"),
        (451, "UNKNOWN", Kind::Protocol, No, true, "451"),
        (500, "UNKNOWN", Kind::Unavailable, Yes, true, "500 Internal Server Error"),
        (501, "UNKNOWN", Kind::Protocol, No, false, "501 Not Implemented"),
        (502, "UNAVAILABLE", Kind::Unavailable, Yes, true, "502 Bad Gateway"),
        (503, "UNAVAILABLE", Kind::Unavailable, Yes, true, "503 Service Unavailable"),
        (504, "UNAVAILABLE", Kind::Unavailable, Yes, true, "504 Gateway Timeout"),
        (505, "UNKNOWN", Kind::Protocol, No, false, "505"),
        (507, "UNKNOWN", Kind::Unavailable, Yes, true, "507"),
        (508, "UNKNOWN", Kind::Protocol, No, true, "508 Loop Detected"),
        (511, "UNKNOWN", Kind::Denied, No, false, "511"),
        (520, "UNKNOWN", Kind::Unavailable, Yes, true, "520"),
        (530, "UNKNOWN", Kind::Unavailable, Yes, true, "530"),
        (301, "UNKNOWN", Kind::Protocol, OnceMet, false, "301 Moved Permanently"),
        (302, "UNKNOWN", Kind::Protocol, OnceMet, false, "302 Found"),
        (200, "UNKNOWN", Kind::Protocol, OnceMet, true, "200 OK with text/html"),
    ];
    let member = |(status, code, kind, passes, maybe, said): (_, _, _, _, _, &str)| Member {
        name: format!("HTTP {status}"),
        act: Act::Http(status, HTML, PAGE),
        code,
        kind,
        passes,
        maybe,
        said: format!("answered {said}"),
        watch_calls: 1,
    };
    rows.into_iter().map(member).collect()
}

/// Answers that are nearly gRPC.
fn nearly() -> Vec<Member> {
    const GRPC: &[(&str, &str)] = &[("content-type", "application/grpc")];
    let row = |name: &str, act, kind, passes, said: &str| Member {
        name: name.to_owned(),
        act,
        code: "UNKNOWN",
        kind,
        passes,
        maybe: true,
        said: said.to_owned(),
        watch_calls: 1,
    };
    vec![
        row("no type", Act::Http(200, &[], PAGE), Kind::Protocol, OnceMet, "200 OK"),
        row("no content", Act::Http(204, &[], ""), Kind::Protocol, OnceMet, "204 No Content"),
        row(
            "gRPC-Web",
            Act::Http(200, &[("content-type", "application/grpc-web+proto")], ""),
            Kind::Protocol,
            OnceMet,
            "with application/grpc-web+proto",
        ),
        row(
            "JSON",
            Act::Http(200, &[("content-type", "application/json")], "{}"),
            Kind::Protocol,
            OnceMet,
            "with application/json",
        ),
        row("a head alone", Act::Http(200, GRPC, ""), Kind::Unavailable, Yes, "cut off"),
        row("a page as gRPC", Act::Http(200, GRPC, PAGE), Kind::Protocol, OnceMet, "not gRPC"),
    ]
}

/// Statuses that no server of ours gives: without a reason.
fn statuses() -> Vec<Member> {
    let rows = [
        ("14", "UNAVAILABLE", Kind::Unavailable, Yes, true),
        ("13", "INTERNAL", Kind::Unavailable, Yes, true),
        ("2", "UNKNOWN", Kind::Unavailable, Yes, true),
        ("x", "UNKNOWN", Kind::Unavailable, Yes, true),
        ("8", "RESOURCE_EXHAUSTED", Kind::Unavailable, Yes, true),
        ("1", "CANCELLED", Kind::Unavailable, Yes, true),
        ("4", "DEADLINE_EXCEEDED", Kind::Timeout, Yes, true),
        ("12", "UNIMPLEMENTED", Kind::Unsupported, OnceMet, false),
        ("16", "UNAUTHENTICATED", Kind::Denied, No, false),
        ("7", "PERMISSION_DENIED", Kind::Denied, No, false),
        ("5", "NOT_FOUND", Kind::NotFound, No, false),
    ];
    let mut members = Vec::new();
    for (number, code, kind, passes, maybe) in rows {
        // With whatever HTTP status: where there is a `grpc-status`, that is what counts.
        for http in [200, 503] {
            let pairs = vec![
                ("content-type", "application/grpc"),
                ("grpc-status", number),
                ("grpc-message", "no healthy upstream"),
            ];
            let act = Act::Http(http, pairs.leak(), "");
            let name = format!("grpc-status {number} over HTTP {http}");
            let said = "no healthy upstream".to_owned();
            let watch_calls = if number == "12" { 2 } else { 1 };
            members.push(Member { name, act, code, kind, passes, maybe, said, watch_calls });
        }
    }
    members
}

fn reasons() -> Vec<(Reason, &'static str)> {
    let rows = [
        (Reason::NO_ERROR, "INTERNAL"),
        (Reason::PROTOCOL_ERROR, "INTERNAL"),
        (Reason::INTERNAL_ERROR, "INTERNAL"),
        (Reason::FLOW_CONTROL_ERROR, "INTERNAL"),
        (Reason::SETTINGS_TIMEOUT, "INTERNAL"),
        (Reason::STREAM_CLOSED, "INTERNAL"),
        (Reason::FRAME_SIZE_ERROR, "INTERNAL"),
        (Reason::REFUSED_STREAM, "UNAVAILABLE"),
        (Reason::CANCEL, "CANCELLED"),
        (Reason::COMPRESSION_ERROR, "INTERNAL"),
        (Reason::CONNECT_ERROR, "INTERNAL"),
        (Reason::ENHANCE_YOUR_CALM, "RESOURCE_EXHAUSTED"),
        (Reason::INADEQUATE_SECURITY, "PERMISSION_DENIED"),
        (Reason::HTTP_1_1_REQUIRED, "UNKNOWN"),
        // Unknown ones may count as INTERNAL_ERROR: RFC 9113, section 7.
        (Reason::from(0x42), "INTERNAL"),
    ];
    rows.into()
}

/// How HTTP/2 ends a stream or a connection.
fn resets() -> Vec<Member> {
    let mut members = Vec::new();
    for (reason, code) in reasons() {
        let (kind, passes) = match reason {
            Reason::INADEQUATE_SECURITY => (Kind::Denied, No),
            Reason::HTTP_1_1_REQUIRED => (Kind::Unsupported, No),
            _ => (Kind::Unavailable, Yes),
        };
        // The peer promises that it has done nothing.
        let maybe = reason != Reason::REFUSED_STREAM;
        let (name, act) = (format!("RST_STREAM {reason:?}"), Act::Reset(reason));
        let said = "the stream was reset".to_owned();
        members.push(Member { name, act, code, kind, passes, maybe, said, watch_calls: 1 });
    }
    members
}

/// How a connection ends under a call that the peer may have looked at: only of other calls is told
/// why.
fn ends() -> Vec<Member> {
    let member = |name: String, act| Member {
        name,
        act,
        code: "UNAVAILABLE",
        kind: Kind::Unavailable,
        passes: Yes,
        maybe: true,
        said: "the connection broke".to_owned(),
        watch_calls: 1,
    };
    let mut members =
        vec![member("closed".to_owned(), Act::Close), member("reset".to_owned(), Act::Rst)];
    for (reason, _) in reasons() {
        members.push(member(format!("GOAWAY {reason:?}"), Act::GoAway(reason)));
    }
    members
}

/// Runs `test` on all of them, some at a time, and says of each that fails how.
pub async fn each<T>(members: Vec<(When, Member)>, test: fn(When, Member) -> T)
where
    T: Future<Output = ()> + Send + 'static,
{
    let mut failed = Vec::new();
    for some in members.chunks(8) {
        let spawn = |(when, member): &(When, Member)| {
            (member.name.clone(), tokio::spawn(test(*when, member.clone())))
        };
        for (name, task) in some.iter().map(spawn).collect::<Vec<_>>() {
            if task.await.is_err() {
                failed.push(name);
            }
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

/// In the place of an answer, or before a request can be sent.
pub fn instead_or_at_once() -> Vec<(When, Member)> {
    [instead(), at_once()].concat()
}

/// Whatever comes in the place of an answer.
pub fn instead() -> Vec<(When, Member)> {
    let all = [http(), nearly(), statuses(), resets(), ends()].concat();
    all.into_iter().map(|member| (When::Request, member)).collect()
}

/// What a connection that is just taken can do.
fn at_once() -> Vec<(When, Member)> {
    let member = |name: &str, act| Member {
        name: format!("connection: {name}"),
        act,
        code: "UNAVAILABLE",
        kind: Kind::Unavailable,
        passes: Yes,
        maybe: true,
        said: String::new(),
        watch_calls: 1,
    };
    let mut members = vec![
        member("closed", Act::Close),
        member("reset", Act::Rst),
        member("HTTP/1.1", Act::Bytes(b"HTTP/1.1 503 Service Unavailable\r\n\r\n")),
        // What a port that wants TLS says: alert, fatal, protocol_version.
        member("TLS alert", Act::Bytes(b"\x15\x03\x03\x00\x02\x02\x46")),
    ];
    if let Some(alert) = members.last_mut() {
        (alert.code, alert.kind) = ("INVALID_ARGUMENT", Kind::InvalidRequest);
        (alert.passes, alert.maybe) = (OnceMet, false);
        alert.said = "the server speaks TLS at this port".to_owned();
    }
    for (reason, _) in reasons() {
        // SETTINGS; GOAWAY of 8 bytes, whose last stream is none.
        let settings = b"\0\0\0\x04\0\0\0\0\0";
        let goaway = b"\0\0\x08\x07\0\0\0\0\0\0\0\0\0";
        let bytes = [&settings[..], goaway, &u32::from(reason).to_be_bytes()].concat();
        let mut member = member(&format!("GOAWAY {reason:?}"), Act::Bytes(bytes.leak()));
        match reason {
            Reason::INADEQUATE_SECURITY => {
                (member.code, member.kind) = ("PERMISSION_DENIED", Kind::Denied);
                member.passes = No;
            }
            Reason::HTTP_1_1_REQUIRED => {
                (member.code, member.kind) = ("UNKNOWN", Kind::Unsupported);
                member.passes = No;
            }
            _ => {}
        }
        members.push(member);
    }
    members.into_iter().map(|member| (When::Connection, member)).collect()
}

/// What can come within an answer that has begun.
pub fn midway() -> Vec<(When, Member)> {
    let cut = |name: &str, act| Member {
        name: name.to_owned(),
        act,
        code: "UNKNOWN",
        kind: Kind::Unavailable,
        passes: Yes,
        maybe: true,
        said: "cut off".to_owned(),
        watch_calls: 1,
    };
    let page = Member {
        kind: Kind::Protocol,
        passes: OnceMet,
        said: "not gRPC".to_owned(),
        ..cut("a page", Act::Data(PAGE.as_bytes()))
    };
    let mut members = vec![
        cut("no trailers", Act::Data(b"")),
        cut("half a message", Act::Data(b"\0\0\0\0\x09abc")),
        cut("half a head of a message", Act::Data(b"\0\0\0")),
        cut("trailers without a status", Act::Trailers(&[("x-proxy", "was here")])),
        page,
    ];
    for mut member in resets() {
        // HTTP takes it for the orderly end of an answer: RFC 9113, section 8.1.
        if matches!(member.act, Act::Reset(Reason::NO_ERROR)) {
            (member.code, member.said) = ("UNKNOWN", "cut off".to_owned());
        }
        members.push(member);
    }
    members.extend(ends());
    members.into_iter().map(|member| (When::More, member)).collect()
}
