//! Places for encoders and decoders of messages. Their state is large, so they are counted, of one connection
//! and of its address as in all. A decoder is held while a message is in the works, an encoder until a stream has nothing
//! to send.

use std::sync::Arc;

use crate::server::coding::{Coding, Decoder, Encoder};
use crate::server::permits::{OverLimit, StreamKind};
use crate::server::quotas::{Grant, Peer, Quotas};

/// Those of one connection.
#[derive(Clone, Debug)]
pub(crate) struct Coders {
    pub(crate) quotas: Arc<Quotas>,
    pub(crate) peer: Peer,
}

impl Coders {
    pub(super) fn decoder(&self, coding: Coding) -> Result<(Decoder, Grant), OverLimit> {
        let grant = self.quotas.stream(coding.decoders(), Some(&self.peer), None)?;
        Ok((Decoder::new(coding), grant))
    }

    /// `None` where there are too many: what would be compressed goes out as it is.
    pub(super) fn encoder(&self, coding: Coding) -> Option<(Encoder, Grant)> {
        let grant = self.quotas.stream(StreamKind::Coded, Some(&self.peer), None).ok()?;
        Some((Encoder::new(coding), grant))
    }
}
