//! How often it is tried again what may never pass.
//!
//! An error of gRPC without a reason is mostly of something between that is in trouble; but what
//! cannot be decoded looks the same, and comes again and again at one place. Pure.

use super::Error;

/// Attempts in a row that fail so, until it is given up.
const MOST: u32 = 10;

/// Counts such failures.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    row: u32,
    /// Tokens that were not taken, one after the other.
    refused: u32,
}

impl Doubts {
    /// Takes why an attempt has failed. An `Err` is final.
    pub(super) fn weigh(&mut self, cause: Error) -> Result<Error, Error> {
        if cause.is_of_token() {
            self.refused += 1;
            return if self.refused < MOST { Ok(cause) } else { Err(cause.given_up(MOST)) };
        }
        if !cause.is_doubtful() {
            self.row = 0;
            return Ok(cause);
        }
        self.row += 1;
        if self.row < MOST { Ok(cause) } else { Err(cause.given_up(MOST)) }
    }

    /// The server has taken the token.
    pub(super) fn admitted(&mut self) {
        self.refused = 0;
    }

    /// Something came that gets further: it was no such place.
    pub(super) fn forget(&mut self) {
        self.row = 0;
    }
}

#[cfg(test)]
mod tests {
    use tonic::{Code, Status};

    use super::*;
    use crate::Kind;

    fn failed(code: Code) -> Error {
        Error::from_status(Status::new(code, "said so"))
    }

    #[test]
    fn what_may_never_pass_is_given_up_and_what_passes_never() {
        for code in [Code::Internal, Code::Unknown] {
            let mut doubts = Doubts::default();
            for _ in 1..MOST {
                let cause = doubts.weigh(failed(code)).unwrap();
                assert!(cause.is_retryable());
            }
            let error = doubts.weigh(failed(code)).unwrap_err();
            assert_eq!((error.kind(), error.is_retryable()), (Kind::Internal, false));
            assert!(!error.passes_once_met() && error.may_have_applied());
            assert_eq!(error.to_string(), "said so (10 times in a row)");
        }
        let mut doubts = Doubts::default();
        for code in [Code::Unavailable, Code::ResourceExhausted, Code::Cancelled] {
            for _ in 0..1_000 {
                assert!(doubts.weigh(failed(code)).is_ok(), "{code:?}");
            }
        }
    }

    #[test]
    fn a_token_that_is_never_renewed_is_given_up() {
        let mut details = tonic_types::ErrorDetails::new();
        details.set_error_info("TOKEN_EXPIRED", "tailmark", std::collections::HashMap::new());
        let refused = || {
            let status = <Status as tonic_types::StatusExt>::with_error_details(
                Code::Unauthenticated,
                "said so",
                details.clone(),
            );
            Error::from_status(status).renewable()
        };
        let mut doubts = Doubts::default();
        // However often it expires, if there is another each time.
        for _ in 0..100 {
            assert!(refused().passes_once_met() && !refused().is_retryable());
            assert!(doubts.weigh(refused()).is_ok());
            doubts.admitted();
        }
        for _ in 1..MOST {
            assert!(doubts.weigh(refused()).is_ok());
        }
        let error = doubts.weigh(refused()).unwrap_err();
        assert_eq!((error.kind(), error.is_retryable()), (Kind::Denied, false));
    }

    #[test]
    fn only_a_row_counts() {
        let mut doubts = Doubts::default();
        for _ in 0..100 {
            for _ in 1..MOST {
                assert!(doubts.weigh(failed(Code::Internal)).is_ok());
            }
            assert!(doubts.weigh(failed(Code::Unavailable)).is_ok());
            for _ in 1..MOST {
                assert!(doubts.weigh(failed(Code::Unknown)).is_ok());
            }
            doubts.forget();
        }
    }
}
