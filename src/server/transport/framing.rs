//! Requests of HTTP/1.1 whose body is coded as nobody here reads it, RFC 9112, section 6. What leaves
//! its end in doubt hyper refuses, or closes the connection behind.

use http::request::Parts;
use http::{Response, header};
use tonic::body::Body;

use crate::server::rpc::status;

/// The answer to a request with a transfer coding beside `chunked`: hyper takes the chunks apart and
/// leaves what was in them coded.
pub(super) fn refused(head: &Parts) -> Option<Response<Body>> {
    let mut codings = head.headers.get_all(header::TRANSFER_ENCODING).iter();
    let is_plain = codings.all(|value| value.as_bytes().eq_ignore_ascii_case(b"chunked"));
    (!is_plain).then(status::transfer_coding)
}
