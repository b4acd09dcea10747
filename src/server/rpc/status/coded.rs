//! What is compressed and cannot be taken, over gRPC and plain HTTP.

use tonic::Code;

use super::Failure;
use crate::server::coding::{Coding, MOST_TIMES, NAMES, Problem, Swells};
use tailmark_record::{Reason, excerpt};

/// A message that says of itself that it is compressed where the call says that none is. gRPC's
/// compression.md wants INTERNAL.
pub(crate) fn compressed_message() -> Failure {
    let message = "a message is marked as compressed, and grpc-encoding names no encoding";
    Failure::with_code(Code::Internal, Reason::MessageMalformed, message)
}

/// Messages, or a body, in a coding that is not taken.
pub(crate) fn compressed(encoding: &str) -> Failure {
    let encoding = &excerpt(encoding);
    let message = format!(
        "messages in {encoding} are not taken here; send them as they are, or with grpc-encoding: {NAMES}"
    );
    Failure::new(Reason::Unimplemented, message).with("grpc-encoding", encoding)
}

/// A message that is not compressed as its call says.
pub(crate) fn uncoded_message(coding: Coding, problem: Problem) -> Failure {
    let (name, why) = (coding.name(), problem.words());
    Failure::new(Reason::MessageMalformed, format!("a message is said to be {name}, but {why}"))
        .with("grpc-encoding", name)
}

/// A compressed message that becomes longer than a message may be.
pub(crate) fn swollen_message(coding: Coding, limit: usize, made: usize) -> Failure {
    let name = coding.name();
    let message = format!("message_bytes: what came in {name} becomes more than {limit} bytes");
    Failure::new(Reason::LimitExceeded, message).with("what", "message_bytes").over(limit, made)
}

/// A body that is not coded as it says.
pub(crate) fn not_coded(coding: Coding, problem: Problem) -> Failure {
    let (name, why) = (coding.name(), problem.words());
    Failure::new(Reason::EventMalformed, format!("the body is said to be {name}, but {why}"))
        .with("content-encoding", name)
}

/// A body, or the messages of a call, of which far more is made than came.
pub(crate) fn swells(coding: Coding, Swells { limit, actual }: Swells) -> Failure {
    let name = coding.name();
    let message = format!(
        "what came in {name} becomes more than a mebibyte and {MOST_TIMES} times its size; send it uncompressed"
    );
    let number = |bytes| usize::try_from(bytes).unwrap_or(usize::MAX);
    Failure::new(Reason::LimitExceeded, message)
        .with("what", "decoded_bytes")
        .over(number(limit), number(actual))
}
