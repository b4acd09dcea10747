use super::*;
use tonic_types::ErrorDetails;

fn with_reason(code: Code, reason: &str) -> Error {
    let mut details = ErrorDetails::new();
    let metadata = [("oldest".to_owned(), "5".to_owned())];
    details.set_error_info(reason, "tailmark", metadata);
    Error::from_status(Status::with_error_details(code, "said so", details))
}

#[test]
fn each_code_has_its_kind() {
    for (code, reason, kind, retryable, maybe) in [
        (Code::InvalidArgument, "CURSOR_MALFORMED", Kind::InvalidRequest, false, false),
        (Code::OutOfRange, "CURSOR_TRIMMED", Kind::Gone, false, false),
        (Code::FailedPrecondition, "LOG_CHANGED", Kind::Gone, false, false),
        (Code::DataLoss, "DAMAGED", Kind::Damaged, false, false),
        (Code::Aborted, "HEAD_MOVED", Kind::Conflict, false, false),
        (Code::ResourceExhausted, "DISK_FULL", Kind::LimitExceeded, false, false),
        (Code::Unavailable, "STOPPING", Kind::Unavailable, true, false),
        (Code::DeadlineExceeded, "", Kind::Timeout, true, true),
        (Code::Internal, "STORE_STOPPED", Kind::Internal, false, false),
        (Code::Internal, "OUTCOME_UNKNOWN", Kind::Internal, false, true),
        (Code::Unimplemented, "", Kind::Unsupported, false, false),
        (Code::NotFound, "", Kind::NotFound, false, false),
        (Code::PermissionDenied, "", Kind::Denied, false, false),
        (Code::OutOfRange, "", Kind::LimitExceeded, false, false),
        (Code::Unavailable, "", Kind::Unavailable, true, true),
        (Code::Cancelled, "UPLOAD_CUT", Kind::Unavailable, true, true),
        // Without a reason it is of something between, and passes.
        (Code::Unknown, "", Kind::Unavailable, true, true),
        (Code::Internal, "", Kind::Unavailable, true, true),
        (Code::ResourceExhausted, "", Kind::Unavailable, true, true),
        (Code::AlreadyExists, "", Kind::Conflict, false, false),
        (Code::Unauthenticated, "", Kind::Denied, false, false),
        (Code::Aborted, "FENCED", Kind::Conflict, false, false),
        (Code::FailedPrecondition, "PRODUCER_UNKNOWN", Kind::Gone, false, false),
        (Code::FailedPrecondition, "PRODUCER_HOLE", Kind::InvalidRequest, false, false),
        (Code::Ok, "", Kind::Protocol, false, false),
    ] {
        let error = with_reason(code, reason);
        assert_eq!(error.kind(), kind, "{code:?}");
        assert_eq!(error.is_retryable(), retryable, "{code:?}");
        assert_eq!(error.may_have_applied(), maybe, "{code:?}");
        assert_eq!(error.reason(), reason);
        assert_eq!(error.code(), name(code));
        assert_eq!(error.metadata("oldest"), Some("5"));
        assert_eq!(error.to_string(), "said so");
    }
}

#[test]
fn retry_info_makes_an_error_retryable() {
    let mut details = ErrorDetails::new();
    details.set_retry_info(Some(Duration::from_secs(2)));
    details.set_error_info("LIMIT_EXCEEDED", "tailmark", [("limit".to_owned(), "5".to_owned())]);
    let status = Status::with_error_details(Code::ResourceExhausted, "", details);
    let error = Error::from_status(status);
    assert!(error.is_retryable());
    assert_eq!(error.retry_delay(), Some(Duration::from_secs(2)));
    assert_eq!(error.to_string(), "over a limit");
    // Who says when to come back has refused, and not lost the request on the way.
    let mut details = ErrorDetails::new();
    details.set_retry_info(Some(Duration::from_secs(2)));
    let status = Status::with_error_details(Code::Unavailable, "", details);
    assert!(!Error::from_status(status).may_have_applied());
}

#[test]
fn each_kind_of_ours_has_its_answers() {
    for (kind, code, retryable) in [
        (Kind::Connect, "UNAVAILABLE", true),
        (Kind::Unavailable, "UNAVAILABLE", true),
        (Kind::Timeout, "DEADLINE_EXCEEDED", true),
        (Kind::InvalidRequest, "INVALID_ARGUMENT", false),
        (Kind::NotFound, "NOT_FOUND", false),
        (Kind::Gone, "OUT_OF_RANGE", false),
        (Kind::Damaged, "DATA_LOSS", false),
        (Kind::Conflict, "ABORTED", false),
        (Kind::LimitExceeded, "RESOURCE_EXHAUSTED", false),
        (Kind::Unsupported, "UNIMPLEMENTED", false),
        (Kind::Denied, "PERMISSION_DENIED", false),
        (Kind::Protocol, "INTERNAL", false),
        (Kind::Internal, "INTERNAL", false),
        (Kind::CursorStore, "INTERNAL", false),
    ] {
        let error = Error::new(kind, "so");
        assert_eq!((error.kind(), error.code(), error.is_retryable()), (kind, code, retryable));
        assert!(!error.may_have_applied() && error.reason().is_empty());
        assert!(!describe(kind).is_empty());
        let again = error.maybe_applied().duplicate();
        assert!(again.may_have_applied() && again.kind() == kind);
        assert_eq!(again.is_retryable(), retryable);
    }
}

/// What tonic reports of a broken connection has a source.
fn broken(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Error {
    Error::from_status(Status::from_error(source.into()))
}

#[test]
fn trouble_on_the_way_is_told_apart() {
    let error = broken(std::io::Error::other("reset by peer"));
    assert_eq!((error.kind(), error.may_have_applied()), (Kind::Unavailable, true));
    assert!(error.is_retryable() && error.to_string().ends_with("reset by peer"));
    let error = broken(h2::Error::from(h2::Reason::INTERNAL_ERROR));
    assert_eq!((error.kind(), error.may_have_applied()), (Kind::Unavailable, true));
    // The peer promises that it has not looked at it.
    let error = broken(h2::Error::from(h2::Reason::REFUSED_STREAM));
    assert_eq!((error.kind(), error.may_have_applied()), (Kind::Unavailable, false));
    assert!(error.is_retryable() && !error.is_foreign());
}

#[test]
fn field_violations_are_told() {
    let mut details = ErrorDetails::new();
    details.add_bad_request_violation("topic", "has an empty segment");
    let error = Error::from_status(Status::with_error_details(Code::InvalidArgument, "", details));
    assert_eq!(error.fields().collect::<Vec<_>>(), [("topic", "has an empty segment")]);
}

#[test]
fn who_has_met_the_server_waits_for_it_where_another_answers() {
    let unknown = Error::from_status(Status::unimplemented("no such route"));
    assert!(unknown.passes_once_met() && !unknown.is_retryable());
    // The server itself has no such call, whatever one waits for.
    assert!(!with_reason(Code::Unimplemented, "NO_SUCH_CALL").passes_once_met());
    assert!(!with_reason(Code::PermissionDenied, "").passes_once_met());
    assert!(with_reason(Code::Unavailable, "STOPPING").passes_once_met());
    let read = Error::new(Kind::Timeout, "").maybe_applied().of_read();
    assert!(!read.may_have_applied() && read.passes_once_met());
}

#[test]
fn garbage_in_the_details_is_no_panic() {
    let status = Status::with_details(Code::DataLoss, "x", bytes::Bytes::from_static(&[0xff; 9]));
    assert_eq!(Error::from_status(status).kind(), Kind::Damaged);
}
