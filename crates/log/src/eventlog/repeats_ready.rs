//! How far the window of repeats has come, for who needs it.

use std::sync::Arc;

use crate::storage::StoreError;

/// Whether repeats can be told.
#[derive(Clone, Debug)]
pub(super) enum RepeatsReady {
    NotYet,
    Ready,
    /// Not in this run of the log: what was stored cannot be read.
    Failed(Arc<StoreError>),
}
