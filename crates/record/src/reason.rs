//! Why a request was refused or failed, by a name that does not change.

use std::fmt;

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal, $remedy:literal,)+) => {
        /// The reason of an `ErrorInfo` of the domain `tailmark`, and of an error as JSON.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Reason {
            /// All of them.
            pub const ALL: &[Reason] = &[$(Reason::$variant,)+];

            /// Its name on the wire.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Reason::$variant => $name,)+
                }
            }

            /// What to do about it, for a person: one line, in words that hold whatever was asked and
            /// however. `docs/reasons.md` has the same.
            pub const fn remedy(self) -> &'static str {
                match self {
                    $(Reason::$variant => $remedy,)+
                }
            }

            /// What it means, in a sentence.
            pub fn meaning(self) -> String {
                let lines: &[&str] = match self {
                    $(Reason::$variant => &[$($doc),+],)+
                };
                lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
            }
        }
    };
}

reasons! {
    /// A field makes no sense.
    InvalidField = "INVALID_FIELD",
        "correct the field that is named",
    /// Bytes or JSON that are no event.
    EventMalformed = "EVENT_MALFORMED",
        "correct the line or message: docs/http.md has the form of an event",
    /// Bytes that are no message of the method.
    MessageMalformed = "MESSAGE_MALFORMED",
        "build the client from the server's proto files; look for a proxy that changes bodies",
    /// Larger or more than allowed.
    LimitExceeded = "LIMIT_EXCEEDED",
        "send less or smaller, or raise the limit that is named, in [limits] of the server's settings",
    /// A call, or a way of calling, that this server does not have.
    Unimplemented = "UNIMPLEMENTED",
        "check the method's name and the server's version",
    /// The health of a service that nobody here knows was asked for.
    ServiceNotFound = "SERVICE_NOT_FOUND",
        "ask for one of the services that reflection lists, or for the empty name",
    /// The metrics of another instance were asked for.
    InstanceNotFound = "INSTANCE_NOT_FOUND",
        "leave instance_id empty, or name the server's own (server.instance_id)",
    /// The port speaks TLS, and the client did not.
    TlsRequired = "TLS_REQUIRED",
        "use an https:// address",
    /// A client's certificate is good, and names nobody.
    CertificateUnnamed = "CERTIFICATE_UNNAMED",
        "give the client a certificate with a name in it: a SAN, or a CN",
    /// The deadline has passed.
    Deadline = "DEADLINE",
        "try again with a longer deadline; if it stays so, look at the server's load and disk",
    /// The server is stopping.
    Stopping = "STOPPING",
        "come back after the delay that is told; clients do so by themselves",
    /// An upload broke off.
    UploadCut = "UPLOAD_CUT",
        "send the upload again; events with ids are not stored twice",
    /// Nothing came on a stream for longer than it may be silent.
    StreamIdle = "STREAM_IDLE",
        "go on with another stream; who has nothing to say for long need not keep one open",
    /// A defect of the server.
    Internal = "INTERNAL",
        "look into the server's log; it is a defect and worth a report",
    /// The head of a topic is not where it was expected.
    HeadMoved = "HEAD_MOVED",
        "read what came in between, then decide and try again with the new head",
    /// A newer stream of the producer took over.
    Fenced = "FENCED",
        "stop: another process of this producer is at work, and took over",
    /// A batch of a producer is missing before this one.
    ProducerHole = "PRODUCER_HOLE",
        "send the batches in their order, beginning with the one that is expected",
    /// The log does not know this epoch of the producer.
    ProducerUnknown = "PRODUCER_UNKNOWN",
        "open the producer again, and check what is stored before sending more",
    /// No room on disk.
    DiskFull = "DISK_FULL",
        "free space on the server's disk, remove the oldest events (`tailmark trim`), or lower storage.min_free_bytes",
    /// The store cannot take events just now.
    StoreBusy = "STORE_BUSY",
        "try again; if it stays so, look into the server's log and at its disk",
    /// The store takes no more events, after a failed write.
    StoreStopped = "STORE_STOPPED",
        "look at the disk and into the server's log, then restart the server",
    /// A write failed, and may be there after a restart.
    OutcomeUnknown = "OUTCOME_UNKNOWN",
        "look at the disk, restart the server, then look whether the events are there",
    /// Another daemon writes the log, and cannot be reached or is not known just now; nothing was stored.
    WriterUnavailable = "WRITER_UNAVAILABLE",
        "try again; clients do so by themselves. `tailmark journal status` shows who writes",
    /// The shared journal does not answer, or not yet; nothing was stored.
    JournalUnavailable = "JOURNAL_UNAVAILABLE",
        "try again; if it stays so, look at the NATS servers: `tailmark journal status` shows them",
    /// The shared journal and this daemon's copy of it are of different histories, so that it takes nothing.
    JournalDiverged = "JOURNAL_DIVERGED",
        "the journal has lost something or was put back: `tailmark journal status` on each daemon; docs/cluster.md",
    /// What tells repeats from new events cannot be read.
    RepeatsUnknown = "REPEATS_UNKNOWN",
        "on the server, `tailmark log verify --data-dir DIR` names what is damaged; events without ids are taken",
    /// The log could not be read.
    ReadFailed = "READ_FAILED",
        "look into the server's log and at its disk",
    /// What was to be read is damaged on disk.
    Damaged = "DAMAGED",
        "on the server, `tailmark log verify --data-dir DIR` names every damaged range",
    /// What was to be read was trimmed.
    CursorTrimmed = "CURSOR_TRIMMED",
        "go on with what is left (on_lost: oldest), or begin anew at the oldest event",
    /// A text that is no cursor.
    CursorMalformed = "CURSOR_MALFORMED",
        "copy the cursor whole, as an event has it, or give a plain sequence number",
    /// A position beyond the head.
    CursorAhead = "CURSOR_AHEAD",
        "check that it is the right server and log; on_lost says how to go on",
    /// A cursor of another log.
    LogChanged = "LOG_CHANGED",
        "check that it is the right server; on_lost says how to go on in another log",
    /// A cursor of another history of this log.
    LogDiverged = "LOG_DIVERGED",
        "the log was put back from a copy: on_lost last_common goes on after what both histories share",
    /// Another erasure is under way.
    ErasureRunning = "ERASURE_RUNNING",
        "wait until it is done (`tailmark status` shows it), then order this one again",
    /// An erasure that was to be taken back is at work, or has erased events, or some of its events
    /// were trimmed or taken out since.
    ErasureBegun = "ERASURE_BEGUN",
        "what is erased does not come back: let it go on; one that only is at work just now can be taken back while it waits",
    /// No erasure of this name is under way.
    ErasureNotFound = "ERASURE_NOT_FOUND",
        "`tailmark status` names the one that is under way, if there is one",
    /// An erasure failed after it had begun, and is not done.
    ErasureUnfinished = "ERASURE_UNFINISHED",
        "look into the server's log and at its disk; the server tries it again by itself, also after a restart",
    /// No event has this seq yet.
    EventNotFound = "EVENT_NOT_FOUND",
        "ask for a sequence number up to the head",
    /// The event was removed by the retention of its topic, or a newer one has taken its place.
    EventRemoved = "EVENT_REMOVED",
        "ask for a newer event of its topic and key; `tailmark retention show` tells the rules",
    /// No such path.
    PathNotFound = "PATH_NOT_FOUND",
        "docs/http.md lists the paths",
    /// A path that is there, but not for this method.
    MethodNotAllowed = "METHOD_NOT_ALLOWED",
        "use a method that the header `allow` names",
    /// A body of a type or an encoding that is not taken.
    UnsupportedMediaType = "UNSUPPORTED_MEDIA_TYPE",
        "send one of the content types that are named, without an encoding",
    /// A version of HTTP that the call cannot come over.
    HttpVersion = "HTTP_VERSION",
        "let the proxy in between speak HTTP/2 to the server, or use gRPC-Web",
    /// What came is no request of HTTP.
    RequestMalformed = "REQUEST_MALFORMED",
        "correct the request as the message says; a port that speaks HTTP takes no TLS",
    /// The head of a request is larger than allowed.
    HeadTooLarge = "HEAD_TOO_LARGE",
        "send fewer and shorter headers, or raise http2.max_header_list_bytes",
    /// The head of a request did not come in its time.
    HeadTimeout = "HEAD_TIMEOUT",
        "send the head of the request at once; server.http1_header_timeout says how long it may take",
    /// A host that this server does not answer for.
    HostRefused = "HOST_REFUSED",
        "add the host to http.allowed_hosts, or let the proxy pass on one that is listed",
    /// A page of an origin that may not ask.
    OriginRefused = "ORIGIN_REFUSED",
        "add the origin to http.cors_origins",
    /// Nobody said who asks.
    TokenMissing = "TOKEN_MISSING",
        "send a token: `authorization: Bearer ...`; `tailmark token create` gives one out",
    /// A token or certificate that this server does not know, or not in this way.
    TokenInvalid = "TOKEN_INVALID",
        "check that the token is whole and of this server; `tailmark token list` names those it knows",
    /// A token whose time is over.
    TokenExpired = "TOKEN_EXPIRED",
        "get a new token: `tailmark token create NAME --replace` on the server",
    /// What a stream was opened with is not in force any more, or its rights are others now.
    TokenRevoked = "TOKEN_REVOKED",
        "get a new token; streams go on with it where they were",
    /// Not within the rights of who asks.
    RightMissing = "RIGHT_MISSING",
        "ask for the right that is named; `tailmark token check --addr URL` says what a token may",
}

impl Reason {
    /// The one with this name; `None` for one that this program does not know.
    pub fn parse(name: &str) -> Option<Reason> {
        Reason::ALL.iter().copied().find(|reason| reason.as_str() == name)
    }

    /// Whether it is the position of a watch that is wrong, or gone: what a client cannot mend by
    /// trying again.
    pub const fn is_of_position(self) -> bool {
        matches!(
            self,
            Reason::CursorMalformed
                | Reason::LogChanged
                | Reason::LogDiverged
                | Reason::CursorAhead
                | Reason::CursorTrimmed
                | Reason::Damaged
        )
    }

    /// Whether it says what was wrong with what came on a stream to the server, or that it came too
    /// late.
    pub const fn is_of_upload(self) -> bool {
        matches!(
            self,
            Reason::MessageMalformed
                | Reason::EventMalformed
                | Reason::Deadline
                | Reason::LimitExceeded
        )
    }

    /// Whether another token may be all that it takes.
    pub const fn is_of_token(self) -> bool {
        matches!(
            self,
            Reason::TokenMissing
                | Reason::TokenInvalid
                | Reason::TokenExpired
                | Reason::TokenRevoked
        )
    }

    /// Whether it ends a producer: its batches can never be stored by this life of it.
    pub const fn ends_producer(self) -> bool {
        matches!(
            self,
            Reason::Fenced | Reason::ProducerUnknown | Reason::ProducerHole | Reason::DiskFull
        )
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_found_by_its_name() {
        for reason in Reason::ALL {
            assert_eq!(Reason::parse(reason.as_str()), Some(*reason));
        }
        assert_eq!(Reason::parse("SOMETHING_NEW"), None);
    }
}
