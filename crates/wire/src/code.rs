//! The codes of gRPC by the names that JSON has for them.

use tailmark_record::Reason;
use tonic::Code;

/// Every code; each stands at its number.
pub const ALL: [Code; 17] = [
    Code::Ok,
    Code::Cancelled,
    Code::Unknown,
    Code::InvalidArgument,
    Code::DeadlineExceeded,
    Code::NotFound,
    Code::AlreadyExists,
    Code::PermissionDenied,
    Code::ResourceExhausted,
    Code::FailedPrecondition,
    Code::Aborted,
    Code::OutOfRange,
    Code::Unimplemented,
    Code::Internal,
    Code::Unavailable,
    Code::DataLoss,
    Code::Unauthenticated,
];

/// A code as `google.rpc.Code` names it.
pub fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// The code that belongs to a reason.
pub fn of(reason: Reason) -> Code {
    match reason {
        Reason::InvalidField
        | Reason::EventMalformed
        | Reason::MessageMalformed
        | Reason::RequestMalformed
        | Reason::CursorMalformed
        | Reason::TlsRequired
        | Reason::UnsupportedMediaType => Code::InvalidArgument,
        Reason::Unimplemented | Reason::MethodNotAllowed | Reason::HttpVersion => {
            Code::Unimplemented
        }
        Reason::LimitExceeded | Reason::HeadTooLarge | Reason::DiskFull => Code::ResourceExhausted,
        Reason::ServiceNotFound
        | Reason::InstanceNotFound
        | Reason::EventNotFound
        | Reason::EventRemoved
        | Reason::ErasureNotFound
        | Reason::PathNotFound => Code::NotFound,
        Reason::CertificateUnnamed => Code::Unauthenticated,
        Reason::Deadline | Reason::HeadTimeout => Code::DeadlineExceeded,
        Reason::Stopping
        | Reason::StoreBusy
        | Reason::StreamIdle
        | Reason::WriterUnavailable
        | Reason::JournalUnavailable
        | Reason::JournalDiverged => Code::Unavailable,
        Reason::UploadCut => Code::Cancelled,
        Reason::Internal
        | Reason::StoreStopped
        | Reason::OutcomeUnknown
        | Reason::RepeatsUnknown
        | Reason::ReadFailed
        | Reason::ErasureUnfinished => Code::Internal,
        Reason::HeadMoved | Reason::Fenced | Reason::ErasureRunning | Reason::ErasureBegun => {
            Code::Aborted
        }
        Reason::ProducerHole
        | Reason::ProducerUnknown
        | Reason::LogChanged
        | Reason::LogDiverged => Code::FailedPrecondition,
        Reason::Damaged => Code::DataLoss,
        Reason::CursorTrimmed | Reason::CursorAhead => Code::OutOfRange,
        Reason::HostRefused | Reason::OriginRefused | Reason::RightMissing => {
            Code::PermissionDenied
        }
        Reason::TokenMissing
        | Reason::TokenInvalid
        | Reason::TokenExpired
        | Reason::TokenRevoked => Code::Unauthenticated,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_name() {
        for (number, it) in (0..).zip(ALL) {
            assert_eq!(Code::from_i32(number), it);
            // tonic's own text of a code is a sentence; the names are those of the proto.
            assert_eq!(name(it).replace('_', "").to_lowercase(), format!("{it:?}").to_lowercase());
        }
    }
}
