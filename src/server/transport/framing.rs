//! Refusals of HTTP/1.1 requests with a transfer coding that the server does not decode (RFC 9112,
//! section 6). Ambiguous body lengths are hyper's: it refuses them, or closes the connection
//! afterwards.

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
