//! Why a request was refused or failed, by a name that does not change.

use std::fmt;

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
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
        }
    };
}

reasons! {
    /// A field makes no sense.
    InvalidField = "INVALID_FIELD",
    /// Bytes or JSON that are no event.
    EventMalformed = "EVENT_MALFORMED",
    /// Bytes that are no message of the method.
    MessageMalformed = "MESSAGE_MALFORMED",
    /// Larger or more than allowed.
    LimitExceeded = "LIMIT_EXCEEDED",
    /// A call, or a way of calling, that this server does not have.
    Unimplemented = "UNIMPLEMENTED",
    /// The health of a service that nobody here knows was asked for.
    ServiceNotFound = "SERVICE_NOT_FOUND",
    /// The metrics of another instance were asked for.
    InstanceNotFound = "INSTANCE_NOT_FOUND",
    /// The port speaks TLS, and the client did not.
    TlsRequired = "TLS_REQUIRED",
    /// A client's certificate is good, and names nobody.
    CertificateUnnamed = "CERTIFICATE_UNNAMED",
    /// The deadline has passed.
    Deadline = "DEADLINE",
    /// The server is stopping.
    Stopping = "STOPPING",
    /// An upload broke off.
    UploadCut = "UPLOAD_CUT",
    /// A defect of the server.
    Internal = "INTERNAL",
    /// The head of a topic is not where it was expected.
    HeadMoved = "HEAD_MOVED",
    /// A newer stream of the producer took over.
    Fenced = "FENCED",
    /// A batch of a producer is missing before this one.
    ProducerHole = "PRODUCER_HOLE",
    /// The log does not know this epoch of the producer.
    ProducerUnknown = "PRODUCER_UNKNOWN",
    /// No room on disk.
    DiskFull = "DISK_FULL",
    /// The store cannot take events just now.
    StoreBusy = "STORE_BUSY",
    /// The store takes no more events, after a failed write.
    StoreStopped = "STORE_STOPPED",
    /// A write failed, and may be there after a restart.
    OutcomeUnknown = "OUTCOME_UNKNOWN",
    /// What tells repeats from new events cannot be read.
    RepeatsUnknown = "REPEATS_UNKNOWN",
    /// The log could not be read.
    ReadFailed = "READ_FAILED",
    /// What was to be read is damaged on disk.
    Damaged = "DAMAGED",
    /// What was to be read was trimmed.
    CursorTrimmed = "CURSOR_TRIMMED",
    /// A text that is no cursor.
    CursorMalformed = "CURSOR_MALFORMED",
    /// A position beyond the head.
    CursorAhead = "CURSOR_AHEAD",
    /// A cursor of another log.
    LogChanged = "LOG_CHANGED",
    /// A cursor of another history of this log.
    LogDiverged = "LOG_DIVERGED",
    /// No event has this seq yet.
    EventNotFound = "EVENT_NOT_FOUND",
    /// No such path.
    PathNotFound = "PATH_NOT_FOUND",
    /// A path that is there, but not for this method.
    MethodNotAllowed = "METHOD_NOT_ALLOWED",
    /// A body of a type or an encoding that is not taken.
    UnsupportedMediaType = "UNSUPPORTED_MEDIA_TYPE",
    /// A version of HTTP that the call cannot come over.
    HttpVersion = "HTTP_VERSION",
    /// What came is no request of HTTP.
    RequestMalformed = "REQUEST_MALFORMED",
    /// The head of a request is larger than allowed.
    HeadTooLarge = "HEAD_TOO_LARGE",
    /// The head of a request did not come in its time.
    HeadTimeout = "HEAD_TIMEOUT",
    /// A host that this server does not answer for.
    HostRefused = "HOST_REFUSED",
    /// A page of an origin that may not ask.
    OriginRefused = "ORIGIN_REFUSED",
    /// Nobody said who asks.
    TokenMissing = "TOKEN_MISSING",
    /// A token or certificate that this server does not know, or not in this way.
    TokenInvalid = "TOKEN_INVALID",
    /// A token whose time is over.
    TokenExpired = "TOKEN_EXPIRED",
    /// What a stream was opened with is not in force any more, or its rights are others now.
    TokenRevoked = "TOKEN_REVOKED",
    /// Not within the rights of who asks.
    RightMissing = "RIGHT_MISSING",
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
        matches!(self, Reason::MessageMalformed | Reason::Deadline | Reason::LimitExceeded)
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
